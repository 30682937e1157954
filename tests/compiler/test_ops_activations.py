"""Activations against stored references; the error function against the C library's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import LAYERS, OPS, OpError
from tilth.compiler.ops.activations import erf, erfc

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-6}
H, N = symbol("H"), symbol("N")

GOLDENS = {
    "act_elu": ("elu", {"alpha": 1.3}),
    "act_gelu": ("gelu", {}),
    "act_hardswish": ("hardswish", {}),
    "act_leaky_relu": ("leaky_relu", {"slope": 0.1}),
    "act_log_softmax": ("log_softmax", {}),
    "act_relu": ("relu", {}),
    "act_relu6": ("relu6", {}),
    "act_selu": ("selu", {}),
    "act_sigmoid": ("sigmoid", {}),
    "act_softmax": ("softmax", {}),
    "act_softmax_beta": ("softmax", {"beta": 2.5}),
    "act_softplus": ("softplus", {}),
    "act_softsign": ("softsign", {}),
    "act_tanh": ("tanh", {}),
    "maxout_4": ("maxout", {"pieces": 4}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", GOLDENS)
def test_matches_reference(case, dtype, golden, run_layer, agree):
    layer, settings = GOLDENS[case]
    data = golden(f"ops/{case}")
    agree(run_layer(layer, data["in_x"].astype(dtype), **settings), data["y"], TOLERANCE[dtype])


def test_erf_to_the_last_digits():
    x = np.concatenate([np.linspace(-6, 6, 20001), np.linspace(-27, 27, 5001), [0.46875, 0.5, 4.0]])
    exact = np.array([math.erf(v) for v in x])
    assert np.max(np.abs(erf(x) - exact) / np.maximum(np.abs(exact), 1e-300)) < 1e-15
    exact = np.array([math.erfc(v) for v in x])
    normal = exact > 1e-300
    assert np.max(np.abs(erfc(x) - exact)[normal] / exact[normal]) < 2e-15


def test_erf_at_the_ends():
    ends = np.array([0.0, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(erf(ends), [0, 1, -1, np.nan])
    np.testing.assert_array_equal(erfc(ends), [1, 0, 2, np.nan])
    assert erf(np.float32([0.5])).dtype == np.float32


def test_formulas(run_layer, agree):
    x = np.linspace(-8, 8, 33)
    sigmoid = 1 / (1 + np.exp(-x))
    tanh_gelu = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    agree(run_layer("gelu", x, approximate="tanh"), tanh_gelu, 1e-14)
    agree(run_layer("swish", x), x * sigmoid, 1e-14)
    agree(run_layer("silu", x), x * sigmoid, 1e-14)
    agree(run_layer("mish", x), x * np.tanh(np.log1p(np.exp(x))), 1e-14)
    agree(run_layer("hardsigmoid", x), np.clip(x / 6 + 0.5, 0, 1), 1e-14)
    agree(run_layer("sigmoid", x, slope=3.0), 1 / (1 + np.exp(-3 * x)), 1e-14)
    agree(run_layer("softplus", x, beta=2.0), np.log1p(np.exp(2 * x)) / 2, 1e-14)
    agree(run_layer("elu", x, alpha=2.0), np.where(x > 0, x, 2 * (np.exp(x) - 1)), 1e-14)
    agree(run_layer("leaky_relu", x, slope=0.2), np.maximum(x, 0.2 * x), 1e-14)


SINGLE = {layer for layer, _ in GOLDENS.values()} - {"softmax", "log_softmax", "maxout"}


@pytest.mark.parametrize("name", sorted(SINGLE | {"swish", "mish", "hardsigmoid", "erf"}))
def test_huge_numbers_make_no_nan(name):
    settings = {s.name: s.default for s in LAYERS[name].settings}
    with np.errstate(all="raise"):
        for x in (np.array([-1e30, 1e30], np.float32), np.array([-1e300, 1e300])):
            assert np.isfinite(OPS[name].reference(x, **settings)).all()


def test_softmax_axis_defaults_to_channels(run_layer, agree):
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    agree(run_layer("softmax", x).sum(axis=1), np.ones((2, 4)), 1e-14)
    agree(run_layer("softmax", x, axis=-1).sum(axis=2), np.ones((2, 3)), 1e-14)
    agree(run_layer("softmax", x[0, 0]).sum(), 1.0, 1e-14)
    agree(run_layer("log_softmax", x + 1000), np.log(run_layer("softmax", x)), 1e-12)


def test_relu_of_whole_numbers(run_layer):
    y = run_layer("relu", np.array([-2, 3], np.int32))
    assert y.dtype == np.int32
    assert y.tolist() == [0, 3]


def test_prelu(run_layer, bench):
    x = np.array([[[-2.0, 2.0], [-4.0, 4.0]]])
    y = run_layer("prelu", x, _params={"weight": np.array([0.5, 0.25])})
    assert y.tolist() == [[[-1.0, 2.0], [-1.0, 4.0]]]
    bench.apply("prelu", [N, 8, H])
    assert bench.params["weight"] == ((8,), ("constant", 0.25), "weight", "f64")


def test_maxout_shape(bench):
    y = bench.apply("maxout", [N, 12, H], pieces=3)
    assert bench.type_of(y).shape == (N, 4, H)


@pytest.mark.parametrize("layer", ["dropout", "drop_path"])
def test_dropout_is_the_identity_at_inference(layer, run_layer):
    x = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_array_equal(run_layer(layer, x, rate=0.3), x)


@pytest.mark.parametrize(
    ("layer", "shape", "settings", "code", "words"),
    [
        ("softmax", [N, 10], {"axis": 2}, "E107", "axis 2"),
        ("softmax", [], {}, "E107", "rank 0"),
        ("maxout", [N, 10], {"pieces": 4}, "E108", "10 is not divisible by 4"),
        ("maxout", [N, 10], {"pieces": H}, "E408", "pieces is H"),
        ("maxout", [10], {"pieces": 2}, "E101", "[N, C, ...]"),
        ("prelu", [10], {}, "E101", "[N, C, ...]"),
        ("gelu", [N], {"approximate": "erf"}, "E408", "none or tanh"),
        ("dropout", [N], {"rate": 1.0}, "E408", "rate is 1.0"),
        ("drop_path", [N], {"rate": -0.1}, "E408", "rate is -0.1"),
        ("drop_path", [N], {"rate": 0.1, "ramp": -1}, "E408", "ramp is -1"),
    ],
)
def test_messages(layer, shape, settings, code, words, bench):
    with pytest.raises(OpError) as caught:
        bench.apply(layer, shape, **settings)
    assert caught.value.code == code
    assert words in caught.value.message


@pytest.mark.parametrize("layer", ["sigmoid", "gelu", "softmax", "dropout"])
def test_floats_only(layer, bench):
    x = bench.input([N, 4], "i32")
    with pytest.raises(OpError) as caught:
        bench.apply(layer, x)
    assert caught.value.code == "E104"
    assert str(TensorType("i32", (N, 4))) in caught.value.message
