"""Recurrent specs against torch and against plain loops, in float64."""

import numpy as np
import pytest
from seeded import CORPUS, ZOO, draw_all, error, golden, model_of, through
from tilth.compiler.interpret import interpret

SIZES = ("D=5", "H=6")
STACKED = ("F=5", "H=6")
STATES = {"h": "out", "h_last": "h_n", "c_last": "c_n"}


def weights_of(case):
    _, facts = golden("recurrent", case)
    drawn = draw_all(facts["params"])
    assert sum(w.size for w in drawn.values()) == facts["param_count"]
    return {name: w.astype(np.float64) for name, w in drawn.items()}


def check(case, model, weights, results, inputs=None):
    arrays, _ = golden("recurrent", case)
    given = {"x": arrays["in_x"]} if inputs is None else inputs(arrays["in_x"])
    found = interpret(model.graph, given, weights, precision="f64")
    for name, key in results.items():
        wanted = arrays[key].reshape(found[name].shape)
        assert error(found[name], wanted) < 1e-10, (case, name)


def spec(name, variant=None, overrides=SIZES):
    return model_of(ZOO / "recurrent" / f"{name}.yaml", variant, overrides)


def renamed(weights, **prefixes):
    """Weights whose names differ in their first word only."""
    found = {}
    for name, value in weights.items():
        word, mark, rest = name.partition("_")
        found[prefixes[word] + mark + rest] = value
    return found


@pytest.mark.parametrize(("case", "variant"), [("rnn_1l", "rnn"), ("rnn_relu_1l", "rnn_relu")])
def test_rnn_loads_torch_weights(case, variant):
    model = spec("rnn", variant)
    weights = through(model, weights_of(case))
    weights |= {"V": np.zeros((10, 6)), "c": np.zeros(10)}  # the torch module has no output layer
    check(case, model, weights, {"h": "out", "h_last": "h_n"})


def test_rnn_formula_with_softmax():
    weights = weights_of("rnn_seed_softmax")
    names = {"U": "u", "W": "w", "V": "v", "b": "bias_b", "c": "bias_c"}
    weights = {mine: weights[theirs] for mine, theirs in names.items()}
    model = spec("rnn", "rnn", (*SIZES, "classes=4"))
    check("rnn_seed_softmax", model, weights, {"y": "out", "h_last": "h_n"})


def test_lstm_loads_torch_weights():
    model = spec("lstm")
    check("lstm_1l", model, through(model, weights_of("lstm_1l")), STATES)


def test_lstm_peephole():
    weights = renamed(weights_of("lstm_peephole_full"), weight="W", bias="b")
    check("lstm_peephole_full", spec("lstm_peephole"), weights, STATES)


def test_lstm_peephole_diagonal():
    """Gers' own form sees the cell through a vector; torch's packing of gates; batch first."""
    model = model_of(CORPUS / "lstm_torch.yaml", None, SIZES)
    arrays, _ = golden("recurrent", "lstm_peephole_diag")
    given = {"x": arrays["in_x"].swapaxes(0, 1)}
    found = interpret(model.graph, given, weights_of("lstm_peephole_diag"), precision="f64")
    assert error(found["h"].swapaxes(0, 1), arrays["out"]) < 1e-10


def test_lstm_coupled():
    packed = weights_of("lstm_coupled")
    weights = {}
    for place, gate in enumerate("fco"):
        rows = slice(6 * place, 6 * place + 6)
        weights[f"W_{gate}"] = packed["weight_ih"][rows]
        weights[f"U_{gate}"] = packed["weight_hh"][rows]
        weights[f"b_{gate}"] = packed["bias"][rows]
    check("lstm_coupled", spec("lstm_coupled"), weights, STATES)


def test_gru_loads_torch_weights():
    model = spec("gru", "gru")
    weights = through(model, weights_of("gru_1l"))
    check("gru_1l", model, weights, {"h": "out", "h_last": "h_n"})


def test_gru_with_the_reset_before():
    weights = renamed(weights_of("gru_seed"), weight="W", u="U", bias="b")
    check("gru_seed", spec("gru", "gru_before"), weights, {"h": "out", "h_last": "h_n"})


def test_sru():
    weights = renamed(weights_of("sru"), weight="W", bias="b")
    check("sru", spec("sru", None, ("D=6",)), weights, {"h": "out", "c_last": "c_n"})


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(
    ("suffix", "way", "layers"), [("1l", "stacked_{}", 1), ("2l", "stacked_{}", 2),
                                  ("1l_bi", "bi{}", 1), ("2l_bi", "bi{}", 2)]
)  # fmt: skip
def test_stacks_load_torch_weights(cell, suffix, way, layers):
    model = spec("birnn", way.format(cell), (*STACKED, f"layers={layers}"))
    case = f"{cell}_{suffix}"
    weights = through(model, weights_of(case))
    wanted = {node.attrs["path"] for _, node in model.graph.of_op("param")}
    assert set(weights) == wanted
    check(case, model, weights, {"h": "out"})


def test_two_dimensional_recurrence():
    model = model_of(CORPUS / "mdrnn.yaml", None, ("I=5", "K=6"))
    arrays, _ = golden("recurrent", "mdrnn_2d")
    given = {"x": arrays["in_x"].transpose(0, 2, 3, 1)}
    found = interpret(model.graph, given, weights_of("mdrnn_2d"), precision="f64")
    assert error(found["h"].transpose(0, 3, 1, 2), arrays["out"]) < 1e-10


def test_two_dimensional_recurrence_from_four_corners():
    model = spec("mdrnn", None, ("I=5", "K=6"))
    arrays, _ = golden("recurrent", "mdrnn_2d_4dir")
    given = {"x": arrays["in_x"].transpose(0, 2, 3, 1)}
    found = interpret(model.graph, given, weights_of("mdrnn_2d_4dir"), precision="f64")
    assert error(found["h"].transpose(0, 3, 1, 2), arrays["out"]) < 1e-10


def test_both_directions_in_one_formula():
    """``bw[t+1]`` runs from the end; checked against two plain loops."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(7, 5))
    shapes = {"W": (6, 5), "V": (6, 5), "U": (6, 6), "Q": (6, 6), "out.weight": (10, 12)}
    p = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    p["out.bias"] = rng.normal(size=10)
    model = model_of(CORPUS / "bidir.yaml")
    found = interpret(model.graph, {"x": x}, p, precision="f64")["y"]
    forward, backward = [np.zeros(6)], [np.zeros(6)]
    for t in range(7):
        forward.append(np.tanh(p["W"] @ x[t] + p["U"] @ forward[-1]))
        backward.insert(0, np.tanh(p["V"] @ x[6 - t] + p["Q"] @ backward[0]))
    h = np.concatenate([forward[1:], backward[:-1]], axis=1)
    assert error(found, h @ p["out.weight"].T + p["out.bias"]) < 1e-12


def test_a_given_start_is_read():
    rng = np.random.default_rng(4)
    x, h, u = rng.normal(size=(3, 2, 4)), rng.normal(size=(2, 4)), rng.normal(size=(4, 4))
    model = model_of(CORPUS / "given_start.yaml")
    found = interpret(model.graph, {"x": x, "h0": h}, {"U": u}, precision="f64")
    before = []
    for t in range(3):
        before.append(h)
        h = np.tanh(x[t] + h @ u.T)
    assert error(found["last"], h) < 1e-12
    assert error(found["before"], np.stack(before)) < 1e-12
