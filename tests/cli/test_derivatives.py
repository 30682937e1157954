"""Derivatives from Python, and `grad` in a spec."""

from __future__ import annotations

import numpy as np
import pytest
import tilth
from tilth.spec.diagnostics import SpecError

SPEC = """
tilth: 1
name: net
title: A net with a loss
model: |
  input x : f32[N, 3]
  input y : f32[N, 2]
  h = x >> linear(4) as fc1 >> bn as norm >> tanh >> dropout(0.5)
  z = h >> linear(2) as fc2
  loss = mse(z, y)
  output loss, z
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return tilth.load(path)


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(8, 3)).astype("f4")
    return {"x": x, "y": np.stack([x[:, 0] * x[:, 1], x[:, 2]], 1)}


def test_a_loop_of_ones_own_learns(program):
    step = program.value_and_grad("loss", training=True)
    weights, losses = program.initial_weights(), []
    for number in range(60):
        loss, gradients, rest = step(data(), weights, step=number)
        assert gradients.keys() == {
            *("fc1.weight", "fc1.bias", "norm.weight", "norm.bias", "fc2.weight", "fc2.bias")
        }
        assert rest.keys() == {"z", "norm.running_mean", "norm.running_var"}
        losses.append(float(loss))
        weights |= {path: weights[path] - 0.1 * g for path, g in gradients.items()}
        weights |= {path: rest[path] for path in ("norm.running_mean", "norm.running_var")}
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_steps_draw_anew_and_repeat(program):
    step = program.value_and_grad("loss", training=True)
    first, again, other = (step(data(), step=n)[0] for n in (0, 0, 1))
    assert first == again != other


def test_labels_and_inputs_may_be_asked_for(program):
    _, found, rest = program.value_and_grad("loss", ["fc2", "x", "norm.bias"])(data())
    assert list(found) == ["fc2.weight", "fc2.bias", "x", "norm.bias"]
    assert found["x"].shape == (8, 3) and rest.keys() == {"z"}


@pytest.mark.parametrize(
    ("of", "wrt", "message", "hint"),
    [
        (
            "z",
            None,
            "a derivative is that of a single number; `z` is f32[N, 2]",
            "`total = sum(z)`",
        ),
        ("los", None, "no output is called `los`", "loss : f32[]"),
        ("loss", ["fc3"], "no weight, label or input is called `fc3`", "close are `"),
    ],
)
def test_what_cannot_be_differentiated(program, of, wrt, message, hint):
    with pytest.raises(SpecError) as refusal:
        program.value_and_grad(of, wrt)
    assert message in str(refusal.value) and hint in str(refusal.value)


def test_what_the_engine_cannot_do_is_told(program):
    with pytest.raises(SpecError, match="no engine `gpu`"):
        program.value_and_grad("loss", engine="gpu")
    with pytest.raises(SpecError, match="computes in f32"):
        program.value_and_grad("loss", engine="cpu")(data(), precision="f64")


def test_the_cpu_engine_gives_the_same(tmp_path):
    path = tmp_path / "plain.yaml"
    path.write_text(
        """
tilth: 1
name: plain
title: A net whose loss is a formula
model: |
  input x : f32[N, 3]
  z = x >> linear(4) as fc1 >> tanh >> linear(2) as fc2
  loss = mean(z^2)
  output loss, z
""",
        encoding="utf-8",
    )
    program, inputs = tilth.load(path), {"x": data()["x"]}
    weights = program.initial_weights(seed=1)
    exact = program.value_and_grad("loss")(inputs, weights)
    step = program.value_and_grad("loss", engine="cpu")
    for _ in range(2):
        found = step(inputs, weights)
        assert abs(found[0] - exact[0]) < 1e-6
        assert found[1].keys() == exact[1].keys()
        for name, gradient in exact[1].items():
            assert np.abs(found[1][name] - gradient).max() < 1e-6
        weights = {path: 0.5 * array for path, array in weights.items()}
        exact = program.value_and_grad("loss")(inputs, weights)


def test_grad_in_a_spec(tmp_path):
    """A gradient penalty: the mean squared length of the critic's slope."""
    path = tmp_path / "penalty.yaml"
    path.write_text(
        """
tilth: 1
name: penalty
title: Improved Training of Wasserstein GANs
model: |
  input x : f32[N, 3]
  critic = linear(5) >> tanh >> linear(1)
  slope = grad(sum(critic(x)), x)
  penalty = mean((norm(slope, axis=1) - 1)^2)
  output slope, penalty
""",
        encoding="utf-8",
    )
    program = tilth.load(path)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("f4")
    # Sixteenths, so that a step of 2^-10 is exact in f32 too.
    weights = {k: np.round(v * 16) / 16 for k, v in program.initial_weights(seed=1).items()}
    got = program.run({"x": x}, weights)
    w1, b1 = weights["critic.0.weight"], weights["critic.0.bias"]
    w2 = weights["critic.2.weight"]
    slope = ((1 - np.tanh(x @ w1.T + b1) ** 2) * w2) @ w1
    assert np.abs(got["slope"] - slope).max() < 1e-5
    penalty = ((np.linalg.norm(slope, axis=1) - 1) ** 2).mean()
    assert abs(got["penalty"] - penalty) < 1e-5
    _, found, _ = program.value_and_grad("penalty", ["critic.0.weight"])(
        {"x": x}, weights, precision="f64"
    )
    step, moved = 2.0**-10, []
    for sign in (1, -1):
        at = {**weights, "critic.0.weight": w1.astype("f8")}
        at["critic.0.weight"][1, 2] += sign * step
        moved.append(program.run({"x": x}, at, precision="f64")["penalty"])
    slope = float(moved[0] - moved[1]) / (2 * step)
    assert abs(found["critic.0.weight"][1, 2] - slope) < 1e-6 * max(1, abs(slope))
