"""Optimiser graphs against their formulas written out in numpy, in float64."""

import math

import numpy as np
import pytest
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Graph
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ir.verify import verify
from tilth.compiler.ops.expr import Writer
from tilth.compiler.training.optimisers import OPTIMISERS, Given
from tilth.spec.diagnostics import Reporter
from tilth.spec.envelope import read_envelope
from tilth.spec.section_calls import OPTIMIZERS

SIZE, STEPS = 7, 5


def call(text):
    reporter = Reporter()
    spec = f"tilth: 1\nname: tiny\nmodel: |\n  x = 1\ntrain:\n  optimizer: {text}\n"
    envelope = read_envelope(spec, "f.yaml", reporter)
    assert envelope is not None and not reporter.failed
    assert envelope.train is not None and envelope.train.optimizer is not None
    return envelope.train.optimizer


def trajectory(text, decay=0.0, momentum=None):
    """Weights after each of a few updates with drawn gradients."""
    chosen = call(text)
    optimiser = OPTIMISERS[chosen.name]
    slots = dict(optimiser.slots(chosen.settings))
    graph = Graph(chosen.name)
    writer = Writer(graph)

    def given(name, *shape):
        return writer.expr(graph.add_input(name, TensorType("f64", shape)))

    read = Given(
        given("w", SIZE), given("g", SIZE), {name: given(name, SIZE) for name in slots},
        given("lr"), given("count"), decay, chosen.settings,
        None if momentum is None else given("momentum"),
    )  # fmt: skip
    w, new = optimiser.update(read)
    assert set(new) == set(slots)
    for name, value in {"w": w, **new}.items():
        graph.set_output(name, value.value)
    verify(graph)
    rng = np.random.default_rng(3)
    state = {"w": rng.standard_normal(SIZE), **{n: np.full(SIZE, v) for n, v in slots.items()}}
    gradients, weights = rng.standard_normal((STEPS, SIZE)), [state["w"]]
    extra = {} if momentum is None else {"momentum": np.array(momentum)}
    for number, g in enumerate(gradients, 1):
        lr = chosen.settings["lr"] / number
        feeds = {"g": g, "lr": np.array(lr), "count": np.array(float(number)), **extra}
        state = interpret(graph, {**feeds, **state}, {})
        weights.append(state["w"])
    return gradients, [chosen.settings["lr"] / n for n in range(1, STEPS + 1)], weights


def check(text, step, decay=0.0, momentum=None):
    gradients, rates, weights = trajectory(text, decay, momentum)
    state, w = {}, weights[0]
    for number, (g, lr, found) in enumerate(zip(gradients, rates, weights[1:], strict=True), 1):
        w = step(w, g, lr, number, state)
        np.testing.assert_allclose(found, w, rtol=1e-12, atol=1e-14)


def test_sgd():
    check("sgd(lr=0.3)", lambda w, g, lr, t, s: w - lr * (g + 0.1 * w), decay=0.1)


@pytest.mark.parametrize("scheduled", [None, 0.7])
def test_momentum_and_nesterov(scheduled):
    m = scheduled or 0.9

    def step(w, g, lr, t, s, nesterov=False):
        s["u"] = m * s.get("u", 0) + g
        return w - lr * (g + m * s["u"] if nesterov else s["u"])

    check("sgd(lr=0.3, momentum=0.9)", step, momentum=scheduled)
    check(
        "sgd(lr=0.3, momentum=0.9, nesterov=true)",
        lambda *a: step(*a, nesterov=True),
        momentum=scheduled,
    )


def test_the_first_velocity_is_not_dampened():
    def step(w, g, lr, t, s):
        s["u"] = g if t == 1 else 0.9 * s["u"] + 0.6 * g
        return w - lr * s["u"]

    check("sgd(lr=0.3, momentum=0.9, dampening=0.4)", step)


def test_adagrad_with_a_falling_rate():
    def step(w, g, lr, t, s):
        s["h"] = s.get("h", 0.5) + g**2
        return w - lr / (1 + (t - 1) * 0.2) * g / (np.sqrt(s["h"]) + 1e-10)

    check("adagrad(lr=0.3, lr_decay=0.2, initial=0.5)", step)


def test_adadelta():
    def step(w, g, lr, t, s):
        s["a"] = 0.8 * s.get("a", 0) + 0.2 * g**2
        move = np.sqrt(s.get("b", 0) + 1e-6) / np.sqrt(s["a"] + 1e-6) * g
        s["b"] = 0.8 * s.get("b", 0) + 0.2 * move**2
        return w - lr * move

    check("adadelta(lr=0.5, rho=0.8)", step)


def test_rmsprop_centred_with_momentum():
    def step(w, g, lr, t, s):
        s["a"] = 0.9 * s.get("a", 0) + 0.1 * g**2
        s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
        s["u"] = 0.5 * s.get("u", 0) + g / (np.sqrt(s["a"] - s["m"] ** 2) + 1e-8)
        return w - lr * s["u"]

    check("rmsprop(lr=0.1, alpha=0.9, centered=true, momentum=0.5)", step)


@pytest.mark.parametrize("amsgrad", ["true", "false"])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam(name, amsgrad):
    def step(w, g, lr, t, s):
        if name == "adam":
            g = g + 0.1 * w
        else:
            w = w * (1 - lr * 0.1)
        s["m"] = 0.8 * s.get("m", 0) + 0.2 * g
        s["v"] = 0.9 * s.get("v", 0) + 0.1 * g**2
        s["x"] = np.maximum(s.get("x", 0), s["v"])
        v = s["x"] if amsgrad == "true" else s["v"]
        hat = s["m"] / (1 - 0.8**t)
        return w - lr * hat / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)

    check(f"{name}(lr=0.1, betas=[0.8, 0.9], amsgrad={amsgrad})", step, decay=0.1)


def test_bias_correction_keeps_its_digits():
    """The first update of Adam is the rate times the gradient's sign, in float32 too."""
    chosen = call("adam(lr=1e-3)")
    graph = Graph("adam")
    writer = Writer(graph)
    names = ("w", "g", "mean", "square", "lr", "count")
    shapes = {"lr": (), "count": ()}
    made = {
        n: writer.expr(graph.add_input(n, TensorType("f32", shapes.get(n, (1,))))) for n in names
    }
    slots = {name: made[name] for name in ("mean", "square")}
    read = Given(made["w"], made["g"], slots, made["lr"], made["count"], 0.0, chosen.settings)
    graph.set_output("w", OPTIMISERS["adam"].update(read)[0].value)
    zero = np.zeros(1, np.float32)
    feeds = {"w": zero, "g": zero + 3, "mean": zero, "square": zero}
    feeds |= {"lr": np.float32(1e-3), "count": np.float32(1)}
    found = interpret(graph, feeds, {})["w"]
    assert math.isclose(found[0], -1e-3, rel_tol=3e-7)


def test_every_optimiser_of_the_language_has_a_graph():
    assert set(OPTIMIZERS.names) == set(OPTIMISERS)
