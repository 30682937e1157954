"""Initialisers: their moments, their structure, and that seed and path alone decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tilth.compiler.ops import OpError
from tilth.compiler.ops.initialise import RULES, initialise

CONV = (64, 32, 3, 3)
FAN_IN, FAN_OUT = 288, 576

NUMBERS = {"constant": (2.5,), "multi_branch": (2, 3)}


def draw(name, *numbers, shape=CONV, seed=0, path="net.weight", dtype="f64"):
    return initialise((name, *numbers), shape, dtype, seed, path)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_fills_its_shape_and_repeats(name):
    numbers = NUMBERS.get(name, ())
    for dtype in ("f32", "f64"):
        values = draw(name, *numbers, dtype=dtype)
        assert values.shape == CONV
        assert values.dtype == np.dtype(dtype.replace("f", "float"))
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(values, draw(name, *numbers, dtype=dtype))
    wide, narrow = draw(name, *numbers), draw(name, *numbers, dtype="f32")
    np.testing.assert_array_equal(wide.astype(np.float32), narrow)


@pytest.mark.parametrize("change", [{"seed": 1}, {"path": "net.other"}])
def test_seed_and_path_change_the_values(change):
    assert np.abs(draw("he") - draw("he", **change)).max() > 0.01
    assert abs(np.corrcoef(draw("he").ravel(), draw("he", **change).ravel())[0, 1]) < 0.03


def test_values_are_pinned():
    # A change here would change every freshly initialised model.
    pinned = [-1.2141274051144424, -0.48663553767760664]
    assert initialise(("normal",), (2,), "f64", 7, "a.b").tolist() == pytest.approx(pinned)
    assert initialise("normal", (2,), "f64", 7, "a.b").tolist() == pytest.approx(pinned)


@pytest.mark.parametrize(
    ("rule", "variance", "uniform"),
    [
        (("he",), 2 / FAN_IN, False),
        (("he_fan_out",), 2 / FAN_OUT, False),
        (("he_uniform",), 2 / FAN_IN, True),
        (("xavier",), 2 / (FAN_IN + FAN_OUT), True),
        (("xavier_normal",), 2 / (FAN_IN + FAN_OUT), False),
        (("lecun",), 1 / FAN_IN, False),
        (("torch",), 1 / (3 * FAN_IN), True),
        (("normal", 0.0, 0.01), 1e-4, False),
        (("uniform", -0.3, 0.3), 0.03, True),
        (("multi_branch", 2, 3), 4 / (2 * FAN_IN + 3 * FAN_OUT), False),
        (("multi_branch", 2, 3, 1.0), 1 / (2 * FAN_IN + 3 * FAN_OUT), False),
    ],
)
def test_moments(rule, variance, uniform):
    values = draw(*rule)
    std = math.sqrt(variance)
    assert abs(values.mean()) < 4 * std / math.sqrt(values.size)
    assert values.var() == pytest.approx(variance, rel=0.05)
    bound = math.sqrt(3) * std
    assert (np.abs(values).max() <= bound) == uniform
    # The fourth moment tells a bell (3) from a box (1.8).
    assert np.mean(values**4) / variance**2 == pytest.approx(1.8 if uniform else 3, rel=0.1)


def test_multi_branch_with_one_branch_is_he():
    square = (64, 64, 3, 3)
    np.testing.assert_allclose(
        draw("multi_branch", 1, 1, shape=square), draw("he", shape=square), rtol=1e-12
    )


def test_torch_default_is_within_the_inverse_root_of_fan_in():
    values = draw("torch", shape=(10, 25))
    assert 0.19 < np.abs(values).max() <= 0.2


def test_plain_values():
    assert (draw("zeros") == 0).all()
    assert (draw("ones") == 1).all()
    assert (draw("constant", 0.25) == 0.25).all()
    assert draw("constant", 3, shape=(), dtype="i64") == 3
    assert draw("normal", 5.0, 0.0, shape=(3,)).tolist() == [5, 5, 5]


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3), (4, 2, 3, 3)])
def test_orthogonal(shape):
    flat = draw("orthogonal", 2.0, shape=shape).reshape(shape[0], -1)
    gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_identity_convolution_returns_its_input(run_layer):
    weight = draw("identity", shape=(3, 3, 3, 5))
    x = np.random.default_rng(0).standard_normal((1, 3, 6, 7))
    y = run_layer("conv", x, _params={"weight": weight}, channels=3, kernel=[3, 5], bias=False)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(draw("identity", shape=(2, 3)), np.eye(2, 3))


def test_simplex():
    rows = draw("random_simplex", shape=(2000, 3))
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-14)
    assert rows.min() > 0
    # Dirichlet(1, 1, 1): mean 1/3 and variance 1/18 of every entry.
    np.testing.assert_allclose(rows.mean(axis=0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(rows.var(axis=0), 1 / 18, atol=0.005)
    np.testing.assert_array_equal(draw("uniform_simplex", shape=(2, 4)), np.full((2, 4), 0.25))


@pytest.mark.parametrize(
    ("rule", "shape", "code", "words"),
    [
        (("kaiming",), CONV, "E408", "unknown initialiser kaiming"),
        (("constant",), CONV, "E408", "takes 1 number,"),
        (("he", 1.0), CONV, "E408", "takes 0 numbers"),
        (("normal", 0.0, -1.0), CONV, "E408", "standard deviation is -1.0"),
        (("normal", "0", 1.0), CONV, "E408", "takes numbers, found '0'"),
        (("uniform", 1.0, 0.0), CONV, "E408", "lower bound"),
        (("multi_branch", 0, 1), CONV, "E408", "inputs is 0"),
        (("he",), (10,), "E101", "two axes or more, found shape [10]"),
        (("orthogonal",), (10,), "E101", "orthogonal"),
        (("random_simplex",), (), "E101", "scalar"),
    ],
)
def test_messages(rule, shape, code, words):
    with pytest.raises(OpError) as caught:
        initialise(rule, shape, "f32", 0, "w")
    assert caught.value.code == code
    assert words in caught.value.message


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(OpError) as caught:
        draw("xaver")
    assert "did you mean xavier?" in (caught.value.hint or "")
