"""Normalisations against stored references and their defining properties."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OPS, OpError, infer

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-6}
H, W, N, C = symbol("H"), symbol("W"), symbol("N"), symbol("C")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("case", "layer", "settings"),
    [
        ("groupnorm3", "groupnorm", {"groups": 3}),
        ("instancenorm", "instancenorm", {"affine": True}),
        ("layernorm", "layernorm", {}),
        ("layernorm_chw", "groupnorm", {"groups": 1}),
    ],
)
def test_matches_reference(case, layer, settings, dtype, golden, run_layer, agree):
    data = golden(f"ops/{case}")
    params = {"weight": data["in_g"].astype(dtype), "bias": data["in_b"].astype(dtype)}
    y = run_layer(layer, data["in_x"].astype(dtype), _params=params, **settings)
    agree(y, data["y"], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_switchable_norm_matches_reference(dtype, golden, run_layer, agree):
    data = {k: v.astype(dtype) for k, v in golden("ops/switchable_norm").items()}
    names = {"mean_weight": "in_lam", "var_weight": "in_lamv", "weight": "in_g", "bias": "in_b"}
    params = {ours: data[theirs] for ours, theirs in names.items()}
    agree(run_layer("switchable_norm", data["in_x"], _params=params), data["y"], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lrn_matches_reference(dtype, golden, run_layer, agree):
    data = golden("ops/lrn_torch")
    x, y = data["in_x"].astype(dtype), data["y"]
    agree(run_layer("lrn", x, alpha=1e-2, k=2.0, average=True), y, TOLERANCE[dtype])
    # Krizhevsky's alpha multiplies the plain sum.
    agree(run_layer("lrn", x, alpha=1e-2 / 5, k=2.0), y, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_batch_norm_matches_reference(dtype, golden, agree):
    data = golden("ops/batchnorm_train")
    x, g, b = (data[k].astype(dtype) for k in ("in_x", "in_g", "in_b"))
    zeros, ones = np.zeros(6, dtype), np.ones(6, dtype)
    attrs = {"eps": 1e-5, "momentum": 0.1}
    y, mean, var, batch_mean, inv_std = OPS["batch_norm_train"].reference(
        x, zeros, ones, g, b, **attrs
    )
    agree(y, data["y"], TOLERANCE[dtype])
    # With the batch's own statistics inference gives what training gave.
    true_mean, true_var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    agree(batch_mean, true_mean, TOLERANCE[dtype])
    agree(inv_std, 1 / np.sqrt(true_var + 1e-5), TOLERANCE[dtype])
    again = OPS["batch_norm"].reference(x, true_mean, true_var, g, b, **attrs)
    agree(again, y, 2e-6)
    assert y.dtype == mean.dtype == var.dtype == dtype


def test_running_statistics_match_reference(golden, agree):
    data = golden("ops/batchnorm_running")
    mean, var = np.zeros(6), np.ones(6)
    for step in range(3):
        x = data[f"in_x{step}"].astype(np.float64)
        found = OPS["batch_norm_train"].reference(x, mean, var, eps=1e-5, momentum=0.1)
        _, mean, var, *_ = found
    agree(mean, data["running_mean"], 1e-6)
    agree(var, data["running_var"], 1e-6)


def test_training_needs_a_variance():
    with pytest.raises(ValueError, match="more than one value"):
        OPS["batch_norm_train"].reference(
            np.ones((1, 3)), np.zeros(3), np.ones(3), eps=1e-5, momentum=0.1
        )


def test_inference_batch_norm_is_an_affine_map_per_channel(run_layer, agree):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 5))
    params = {
        "weight": np.array([2.0, -1.0, 0.5]),
        "bias": np.array([0.0, 1.0, 2.0]),
        "running_mean": np.array([0.5, 0.0, -1.0]),
        "running_var": np.array([1.0, 4.0, 0.25]),
    }
    y = run_layer("bn", x, _params=params, eps=0.0)
    expected = [
        (x[:, 0] - 0.5) * 2.0,
        x[:, 1] / -2.0 + 1.0,
        (x[:, 2] + 1.0) + 2.0,
    ]
    agree(y, np.stack(expected, axis=1), 1e-12)
    statistics = {k: v for k, v in params.items() if k.startswith("running")}
    y = run_layer("bn", x[:, :, 0, 0], _params=statistics, eps=0.0, affine=False)
    agree(y[:, 1], x[:, 1, 0, 0] / 2, 1e-12)


def test_layernorm_over_several_axes(run_layer):
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5)) * 3 + 7
    y = run_layer("layernorm", x, axes=2, affine=False, eps=0.0)
    np.testing.assert_allclose(y.mean(axis=(2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(2, 3)), 1, rtol=1e-12)


def test_l2norm(run_layer):
    x = np.random.default_rng(1).standard_normal((2, 3, 4))
    y = run_layer("l2norm", x)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(run_layer("l2norm", np.zeros((2, 3)), axis=-1), 0)


def test_params_of_batch_norm(bench):
    y = bench.apply("bn", bench.input([N, 8, H, W], "f32"))
    assert bench.type_of(y) == TensorType("f32", (N, 8, H, W))
    assert bench.params == {
        "weight": ((8,), ("ones",), "norm", "f32"),
        "bias": ((8,), ("zeros",), "norm", "f32"),
        "running_mean": ((8,), ("zeros",), "buffer", "f32"),
        "running_var": ((8,), ("ones",), "buffer", "f32"),
    }
    names = [bench.graph.node(v.node).name for v in bench.graph.operands(y.node)[1:]]
    assert names == ["running_mean", "running_var", "weight", "bias"]


def test_params_of_the_others(bench):
    bench.apply("layernorm", [N, H, 4, 6], axes=2)
    assert bench.params["weight"][0] == (4, 6)
    bench.params.clear()
    bench.apply("instancenorm", [N, C, H])
    assert bench.params == {}
    bench.apply("groupnorm", [N, C, H], groups=4)
    assert bench.params["bias"][0] == (C,)


@pytest.mark.parametrize(
    ("layer", "shape", "settings", "code", "words"),
    [
        ("bn", [10], {}, "E101", "f64[10]"),
        ("bn", [N, 10], {"momentum": 2.0}, "E408", "momentum is 2.0"),
        ("bn", [N, 10], {"eps": -1.0}, "E408", "eps is -1.0"),
        ("instancenorm", [N, 10], {}, "E101", "spatial"),
        ("groupnorm", [N, 10, H], {"groups": 4}, "E108", "10 is not divisible by 4"),
        ("groupnorm", [N, 10, H], {"groups": 0}, "E106", "would be 0"),
        ("layernorm", [N, 10], {"axes": 3}, "E101", "last 3 axes"),
        ("layernorm", [N, 10], {"axes": 0}, "E408", "axes is 0"),
        ("lrn", [N, 10, H, W], {"size": 0}, "E408", "size is 0"),
        ("l2norm", [N, 10], {"axis": 2}, "E107", "axis 2"),
        ("switchable_norm", [N, 10], {}, "E101", "spatial"),
    ],
)
def test_messages(layer, shape, settings, code, words, bench):
    with pytest.raises(OpError) as caught:
        bench.apply(layer, shape, **settings)
    assert caught.value.code == code
    assert words in caught.value.message


def test_operands_must_fit():
    x, seven = TensorType("f32", (N, 8, H)), TensorType("f32", (7,))
    attrs = {"eps": 1e-5, "momentum": 0.1}
    with pytest.raises(OpError, match="is 7, expected 8") as caught:
        infer("batch_norm", [x, seven, seven], attrs)
    assert caught.value.code == "E103"
    with pytest.raises(OpError) as caught:
        infer("batch_norm", [x.with_dtype("i32"), seven, seven], attrs)
    assert caught.value.code == "E104"
