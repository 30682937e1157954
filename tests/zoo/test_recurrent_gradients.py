"""Gradients of recurrent specs and of a gradient penalty against torch's, in float64."""

import numpy as np
import pytest
from seeded import ZOO, draw_all, error, generator, golden, model_of, through
from tilth.compiler.autodiff import How, adjoint, differentiate, gradient_name
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Value

SIZES = ("D=5", "H=6")
STATES = {"h": "out", "h_last": "h_n", "c_last": "c_n"}


def spec(name, variant=None, overrides=SIZES):
    return model_of(ZOO / "recurrent" / f"{name}.yaml", variant, overrides)


def drawn(family, case):
    rows = golden(family, case)[1]["params"]
    return {name: w.astype(np.float64) for name, w in draw_all(rows).items()}


def pulled(case, model, weights, states, how=None):
    """Cotangents of the input and of all weights for the random ones of a case's outputs."""
    arrays, _ = golden("recurrent", case)
    graph = model.graph
    params = {str(n.attrs["path"]): Value(i) for i, n in graph.of_op("param")}
    wanted = {"x": Value(graph.inputs[0]), **params}
    made = adjoint(graph, list(wanted.values()), list(wanted), how or How())
    plain = interpret(graph, {"x": arrays["in_x"]}, weights, precision="f64")
    feeds = {"x": arrays["in_x"]}
    for name, array in plain.items():
        if f"d({name})" not in {made.node(i).name for i in made.inputs}:
            continue
        feeds[f"d({name})"] = np.zeros(array.shape)
        if name in states:
            shape = arrays.get(states[name], array).shape
            seed = generator(f"cot:{case}:{states[name]}").standard_normal(shape)
            feeds[f"d({name})"] = seed.reshape(array.shape)
    found = interpret(made, feeds, weights, precision="f64")
    return {name: found[gradient_name(name)] for name in wanted}


def compare(case, model, found, tolerance=1e-10):
    """Every weight's gradient with the rows of torch's that hold the same weights."""
    arrays, _ = golden("recurrent", case)
    if "grad_x" in arrays:
        assert error(found["x"], arrays["grad_x"]) < tolerance
    compared = 0
    for rule in model.envelope.weights["torch"]:
        whole = arrays.get(f"grad.{rule.file_name}")
        if whole is None:
            continue
        # Cut, where the model has one weight for several rows of torch's.
        part = through(model, {rule.file_name: whole})[rule.path]
        assert error(found[rule.path], part) < tolerance, rule.path
        compared += 1
    assert compared >= 3


CASES = {
    "rnn_1l": ("rnn", "rnn"),
    "rnn_relu_1l": ("rnn", "rnn_relu"),
    "lstm_1l": ("lstm", None),
    "gru_1l": ("gru", "gru"),
}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_recurrent_gradients(case, recompute):
    name, variant = CASES[case]
    model = spec(name, variant)
    weights = through(model, drawn("recurrent", case))
    if name == "rnn":
        weights |= {"V": np.zeros((10, 6)), "c": np.zeros(10)}
    compare(case, model, pulled(case, model, weights, STATES, How(recompute=recompute)))


RENAMED = {
    "gru_seed": ("gru", "gru_before", SIZES, {"weight": "W", "u": "U", "bias": "b"}, STATES),
    "lstm_peephole_full": ("lstm_peephole", None, SIZES, {"weight": "W", "bias": "b"}, STATES),
    "sru": ("sru", None, ("D=6",), {"weight": "W", "bias": "b"}, {"h": "out", "c_last": "c_n"}),
    "rnn_seed_softmax": (
        *("rnn", "rnn", (*SIZES, "classes=4")),
        {"u": "U", "w": "W", "v": "V", "bias": ""},
        {"y": "out", "h_last": "h_n"},
    ),
}


@pytest.mark.parametrize("case", RENAMED)
def test_gradients_of_the_formulas_of_papers(case):
    name, variant, overrides, words, states = RENAMED[case]
    model = spec(name, variant, overrides)
    ours = {}
    for path in drawn("recurrent", case):
        word, mark, rest = path.partition("_")
        ours[path] = f"{words[word]}{mark}{rest}".removeprefix("_")
    weights = {ours[path]: array for path, array in drawn("recurrent", case).items()}
    found = pulled(case, model, weights, states)
    arrays, _ = golden("recurrent", case)
    assert error(found["x"], arrays["grad_x"]) < 1e-10
    for path, name in ours.items():
        assert error(found[name], arrays[f"grad.{path}"]) < 1e-10, path


def test_gradients_of_a_two_dimensional_recurrence():
    model = spec("mdrnn", None, ("I=5", "K=6"))
    case = "mdrnn_2d_4dir"
    arrays, _ = golden("recurrent", case)
    weights = drawn("recurrent", case)
    params = {str(n.attrs["path"]): Value(i) for i, n in model.graph.of_op("param")}
    made = adjoint(model.graph, list(params.values()), list(params))
    seed = generator(f"cot:{case}:out").standard_normal(arrays["out"].shape)
    feeds = {
        "x": arrays["in_x"].transpose(0, 2, 3, 1),
        "d(h)": seed.transpose(0, 2, 3, 1),
    }
    found = interpret(made, feeds, weights, precision="f64")
    for path in params:
        assert error(found[gradient_name(path)], arrays[f"grad.{path}"]) < 1e-10, path


def test_truncated_back_propagation():
    """Three chunks of four steps, the state passed on and its gradient not."""
    model = spec("lstm")
    weights = through(model, drawn("recurrent", "lstm_tbptt"))
    found = pulled("lstm_tbptt", model, weights, {"h": "out"}, How(truncate=4))
    compare("lstm_tbptt", model, found)
    whole = pulled("lstm_tbptt", model, weights, {"h": "out"})
    assert any(error(found[name], whole[name]) > 1e-3 for name in weights)


PENALTY = """
tilth: 1
name: wgan
title: Improved Training of Wasserstein GANs
source: Gulrajani et al. NIPS 2017
model: |
  gen = (linear(16) as "0" >> relu >> linear(6) as "1" >> tanh)
  disc = (linear(16) as "0" >> leaky_relu(0.2) >> linear(1) as "1")
  input z : f32[N, 4]
  input real : f32[N, 6]
  input alpha : f32[N, 1]
  fake = gen(z)
  between = alpha * real + (1 - alpha) * stop(fake)
  slope = grad(sum(disc(between)), between)
  penalty = mean((norm(slope, axis=1) - 1)^2)
  plain = mean(disc(fake)) - mean(disc(real))
  loss = plain + 10 * penalty
  output loss, plain, penalty, slope
"""


def test_gradient_penalty(tmp_path):
    path = tmp_path / "wgan.yaml"
    path.write_text(PENALTY, encoding="utf-8")
    model = model_of(path)
    arrays, _ = golden("generative", "gan_wgan_gp")
    weights = drawn("generative", "gan_wgan_gp")
    feeds = {"z": arrays["z"], "real": arrays["x_real"], "alpha": arrays["alpha"]}
    graph = model.graph
    params = {str(n.attrs["path"]): Value(i) for i, n in graph.of_op("param")}
    outputs = dict(graph.outputs)
    for output, name in (("loss", "wgan_gp_d"), ("plain", "wgan_d")):
        made = differentiate(graph, outputs[output], list(params.values()), list(params))
        found = interpret(made, feeds, weights, precision="f64")
        assert error(found["slope"], arrays["grad_interp"]) < 1e-12
        assert error(found["penalty"], arrays["gradient_penalty"]) < 1e-12
        assert error(found[output], arrays[name]) < 1e-12
        for path in params:
            wanted = arrays[f"grad_{name}.{path}"]
            if np.abs(wanted).max() == 0:
                assert np.abs(found[gradient_name(path)]).max() < 1e-12
            else:
                assert error(found[gradient_name(path)], wanted) < 1e-10, path
