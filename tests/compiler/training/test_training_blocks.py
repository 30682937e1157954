"""Building blocks that only training has, by name, each beside a few lines of numpy.

Those of single ops are in ``../test_building_blocks.py``. Everything runs as a user writes it: a
spec with a ``train:`` section, trained on a few examples by the reference interpreter.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from tilth.program import load
from tilth.training import range_test

RATE = 0.3


@pytest.fixture
def spec(tmp_path):
    """Write a spec: the model's lines, and those of ``train:``."""

    def make(model, train="", dtype="f64"):
        head = f"tilth: 1\nname: block\ndtype: {dtype}\nmodel: |\n"
        text = head + "".join(f"  {line}\n" for line in model.splitlines())
        if train:
            text += "train:\n" + "".join(f"  {line}\n" for line in train.splitlines())
        (tmp_path / "block.yaml").write_text(text, encoding="utf-8")
        return load(tmp_path / "block.yaml")

    return make


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def trained(program, data, weights=None, **how):
    return program.train(data, weights=weights, engine="reference", show=False, **how)


# ---------------------------------------------------------------- normalisation, dropout

NORM = """input x : f64[N, 3, 5, 7]
y = x >> bn(momentum=0.2) as norm
loss = sum(y * y)
output y, loss"""


def normalised(x):
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5)


def test_batch_norm_while_training(spec):
    x, program = draw(4, 3, 5, 7), spec(NORM)
    _, _, found = program.value_and_grad("loss", training=True)({"x": x})
    np.testing.assert_allclose(found["y"], normalised(x), rtol=1e-12, atol=1e-14)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(found["norm.running_mean"], 0.2 * mean, rtol=1e-12)
    np.testing.assert_allclose(found["norm.running_var"], 0.8 + 0.2 * var, rtol=1e-12)


def test_sync_batch_norm_is_batch_norm_of_the_whole_batch(spec):
    # However many threads compute it: halves that were normed each by itself would differ.
    x, program = draw(4, 3, 5, 7).astype(np.float32), spec(NORM.replace("f64", "f32"), dtype="f32")
    made = program.value_and_grad("loss", training=True, engine="cpu")
    found = made({"x": x})[2]["y"]
    np.testing.assert_allclose(found, normalised(x.astype(np.float64)), rtol=1e-4, atol=1e-5)
    apart = np.concatenate([normalised(half) for half in np.split(x, 2)])
    assert np.abs(found - apart).max() > 0.01


def test_frozen_batch_norm(spec):
    model = "input x : f64[N, 3]\ny = x >> bn as norm >> linear(1) as fc\noutput y"
    train = "objective: mean(y * y)\noptimizer: sgd(lr=0.3)\nbatch: 4\nepochs: 1\nfreeze: [norm]"
    program = spec(model, train)
    weights = program.initial_weights() | {"norm.running_mean": np.array([1.0, -2, 3])}
    x = draw(4, 3)
    found = trained(program, {"x": x}, weights).weights
    seen = (x - weights["norm.running_mean"]) / np.sqrt(1 + 1e-5)
    slope = 2 * (seen @ weights["fc.weight"][0]) @ seen / 4
    np.testing.assert_allclose(found["fc.weight"][0], weights["fc.weight"][0] - RATE * slope)
    for path in weights:
        assert np.array_equal(found[path], weights[path]) is path.startswith("norm")


def test_dropout(spec):
    program = spec("input x : f64[N, 500]\ny = x >> dropout(0.3)\nloss = sum(y)\noutput y, loss")
    x = np.abs(draw(6, 500)) + 1
    made = program.value_and_grad("loss", ["x"], training=True)
    _, slopes, found = made({"x": x}, step=3)
    kept = found["y"] != 0
    np.testing.assert_allclose(found["y"], np.where(kept, x / 0.7, 0), rtol=1e-12)
    np.testing.assert_allclose(slopes["x"], kept / 0.7, rtol=1e-12)
    assert abs(kept.mean() - 0.7) < 0.03
    assert (kept != (made({"x": x}, step=4)[2]["y"] != 0)).any()
    np.testing.assert_array_equal(program.run({"x": x})["y"], x)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.0), (5, 0.2), (10, 0.4), (99, 0.4)])
def test_scheduled_drop_path(spec, step, rate):
    model = "input x : f64[N, 3]\ny = x >> drop_path(0.4, ramp=10)\nloss = sum(y)\noutput y, loss"
    x = np.abs(draw(4000, 3)) + 1
    _, slopes, found = spec(model).value_and_grad("loss", ["x"], training=True)({"x": x}, step=step)
    kept = found["y"][:, :1] != 0
    np.testing.assert_allclose(found["y"], np.where(kept, x / (1 - rate), 0), rtol=1e-12)
    np.testing.assert_allclose(slopes["x"], (kept / (1 - rate)).repeat(3, 1), rtol=1e-12)
    assert abs(kept.mean() - (1 - rate)) < 0.03


# ---------------------------------------------------------------- initialisation

INCOMING, OUTGOING = 16 * 9, 64 * 9


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        ("normal(0, 0.1)", 0.01),
        ("xavier", 2 / (INCOMING + OUTGOING)),
        ("xavier_normal", 2 / (INCOMING + OUTGOING)),
        ("he", 2 / INCOMING),
        # Two branches before and three after, with the 1/2 of ReLU for alpha.
        ("multi_branch(2, 3, 0.5)", 1 / (0.25 * (2 * INCOMING + 3 * OUTGOING))),
    ],
)
def test_initialisation(spec, init, variance):
    program = spec(f"input x : f64[N, 16, 5, 5]\noutput y = x >> conv(64, 3, init={init}) as c")
    weight = program.initial_weights(seed=1)["c.weight"]
    assert abs(weight.mean()) < 4 * math.sqrt(variance / weight.size)
    assert weight.var() == pytest.approx(variance, rel=0.05)


def test_zero_gamma_residual(spec):
    model = (
        "def block() = id + (conv(3, 3) as conv1 >> bn as bn1 >> relu >> conv(3, 3) as conv2"
        " >> bn as bn2)\n"
        "input x : f64[N, 3, 5, 7]\ny = x >> block^2 as body\noutput y"
    )
    x = draw(2, 3, 5, 7)
    train = 'objective: mean(y)\ninit: {"*.bn2.weight": zeros}'
    # Every block begins as its shortcut, in the forward pass.
    np.testing.assert_array_equal(spec(model, train).run({"x": x})["y"], x)
    assert np.abs(spec(model).run({"x": x})["y"] - x).max() > 0.1


# ---------------------------------------------------------------- optimisers

BOWL = """input x : f64[N, 3]
param w : real[3] = normal(0, 1)
loss = mean(x * (w - 1)^2)
output loss"""


def momentum(w, g, s, t):
    s["u"] = 0.9 * s.get("u", 0) + g
    return w - RATE * s["u"]


def nesterov(w, g, s, t):
    s["u"] = 0.9 * s.get("u", 0) + g
    return w - RATE * (g + 0.9 * s["u"])


def adagrad(w, g, s, t):
    s["v"] = s.get("v", 0) + g * g
    return w - RATE * g / (np.sqrt(s["v"]) + 1e-10)


def adadelta(w, g, s, t):
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g * g
    step = np.sqrt(s.get("d", 0) + 1e-6) / np.sqrt(s["v"] + 1e-6) * g
    s["d"] = 0.9 * s.get("d", 0) + 0.1 * step * step
    return w - RATE * step


def rmsprop(w, g, s, t):
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g * g
    return w - RATE * g / (np.sqrt(s["v"]) + 1e-8)


def adam(w, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g * g
    return w - RATE * (s["m"] / (1 - 0.9**t)) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8)


def clipped(w, g, s, t):
    # As in PyTorch, 1e-6 keeps a gradient of zeros from dividing by zero.
    return w - RATE * g * min(1, 0.2 / (np.sqrt(g @ g) + 1e-6))


@pytest.mark.parametrize(
    ("rule", "step"),
    [
        ("sgd(lr=0.3)", lambda w, g, s, t: w - RATE * g),
        ("sgd(lr=0.3, momentum=0.9)", momentum),
        ("sgd(lr=0.3, momentum=0.9, nesterov=true)", nesterov),
        ("adagrad(lr=0.3)", adagrad),
        ("adadelta(lr=0.3)", adadelta),
        ("rmsprop(lr=0.3)", rmsprop),
        ("adam(lr=0.3)", adam),
        ("sgd(lr=0.3)\nclip: norm(0.2)", clipped),
        ("sgd(lr=0.3)\nclip: value(0.1)", lambda w, g, s, t: w - RATE * np.clip(g, -0.1, 0.1)),
    ],
)
def test_optimiser(spec, rule, step):
    program = spec(BOWL, f"optimizer: {rule}\nbatch: 2\nsteps: 4\nshuffle: false")
    x, w, state = np.abs(draw(8, 3)) + 0.1, draw(3, seed=1), {}
    found = trained(program, {"x": x}, {"w": w}).weights["w"]
    for t, batch in enumerate(x.reshape(4, 2, 3), 1):
        w = step(w, 2 * batch.mean(0) * (w - 1) / 3, state, t)
    np.testing.assert_allclose(found, w, rtol=1e-9)


def test_weight_decay_not_on_norms(spec):
    model = "input x : f64[N, 3]\ny = x >> linear(4) as fc >> bn as norm\noutput y"
    train = "objective: 0 * mean(y)\noptimizer: sgd(lr=0.3, weight_decay=0.5)\nbatch: 4\nepochs: 1"
    program = spec(model, train)
    weights = program.initial_weights() | {"norm.bias": draw(4), "fc.bias": draw(4)}
    found = trained(program, {"x": draw(4, 3)}, weights).weights
    np.testing.assert_allclose(found["fc.weight"], weights["fc.weight"] * (1 - 0.3 * 0.5))
    for path in ("fc.bias", "norm.weight", "norm.bias"):
        np.testing.assert_array_equal(found[path], weights[path])


# ---------------------------------------------------------------- schedules

EPOCHS, UPDATES = 6, 4


def halves(t, first, low, high):
    """Half a cosine from ``low`` at time ``first`` on, to ``high`` one unit later."""
    return high + (low - high) * (1 + math.cos(math.pi * (t - first))) / 2


def triangle(t):
    away = abs(t % 4 / 2 - 1)
    return 0.1 + 0.4 * (1 - away)


def one_cycle(t):
    up = 0.3 * 6 - 1 / UPDATES
    if t <= up:
        return halves(t / up, 0, 2 / 25, 2)
    return halves((t - up) / (6 - 1 / UPDATES - up), 0, 2, 2 / 25 / 1e4)


@pytest.mark.parametrize(
    ("schedule", "rate"),
    [
        ("step(2, gamma=0.1)", lambda t: RATE * 0.1 ** (math.floor(t) // 2)),
        ("warmup(2) >> cosine(4)",
         lambda t: RATE * t / 2 if t < 2 else halves((t - 2) / 4, 0, RATE, 0)),
        ("cyclic(0.1, 0.5, up=2)", triangle),
        ("one_cycle(6, max=2)", one_cycle),
        # Batches of 3 where 256 were meant, warmed up from nothing.
        ("linear_scaling(256) >> warmup(2) >> constant",
         lambda t: RATE * 3 / 256 * min(1, t / 2)),
    ],
)  # fmt: skip
def test_schedule(spec, schedule, rate):
    train = f"optimizer: sgd(lr=0.3)\nschedule: {schedule}\nbatch: 3\nepochs: {EPOCHS}"
    rows = trained(spec(BOWL, train), {"x": np.abs(draw(3 * UPDATES, 3)) * 1e-3}).history
    found = [values["lr"] for _, _, part, values in rows if part == "train"]
    assert len(found) == EPOCHS * UPDATES
    np.testing.assert_allclose(found, [rate(k / UPDATES) for k in range(len(found))], rtol=1e-9)


def test_learning_rate_range_estimate(spec):
    program = spec(BOWL, "optimizer: sgd(lr=0.3)\nbatch: 4")
    found = range_test(program, {"x": np.ones((8, 3))}, low=1e-3, high=100, engine="reference",
                       weights={"w": draw(3)})  # fmt: skip
    np.testing.assert_allclose(np.diff(np.log(found.rates)), math.log(1e5) / 99, rtol=1e-9)
    # A step multiplies the distance to the least loss by 1 - 2/3 of the rate: above 3 it grows.
    assert found.diverged and 0.1 < found.steepest < found.largest < 20
