"""Gradients of layers and losses against PyTorch's, in float64."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import test_ops_activations
import test_ops_conv
import test_ops_losses
import test_ops_pool
import test_ops_resize
from tilth.compiler.autodiff.sweep import pull_back
from tilth.compiler.ir.graph import Value
from tilth.compiler.ops.expr import Writer

CLOSE = 1e-6
"""References were stored in float32 after a computation in float64."""

NORM = {"weight": "g", "bias": "b"}
CONV = {"weight": "w", "bias": "b"}


def cotangent(case, shape):
    """The random weights by which a reference's loss sums its result."""
    key = zlib.crc32(f"cot:{case}:y".encode())
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(shape)


def pulled(bench, layer, arrays, params, seed, **settings):
    """Cotangents of floating-point operands, by place, and of weights, by name."""
    kinds = {"f": "f64", "b": "bool", "i": "i64"}
    arrays = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    inputs = [bench.input(a.shape, kinds[a.dtype.kind]) for a in arrays]
    y = bench.apply(layer, *inputs, **settings)
    y = y[0] if isinstance(y, tuple) else y
    weights = {node.name: Value(index) for index, node in bench.graph.of_op("param")}
    floats = {i: v for i, v in enumerate(inputs) if arrays[i].dtype.kind == "f"}
    wanted = {**floats, **weights}
    start = bench.input(np.shape(seed))
    found = pull_back(Writer(bench.graph), {y: start}, list(wanted.values()))
    feeds = {**dict(zip(inputs, arrays, strict=True)), start: np.asarray(seed)}
    held = {name: np.asarray(a, np.float64) for name, a in params.items()}
    return {
        name: bench.run(value, feeds, **held)
        for name, value in zip(wanted, found, strict=True)
        if value is not None
    }


@pytest.fixture
def check(bench, golden, agree):
    """Compare the gradients of a layer with those stored for a case."""

    def run(case, layer, params=None, inputs=("x",), **settings):
        data, params = golden(f"ops/{case}"), params or {}
        arrays = [data[f"in_{name}"] for name in inputs]
        held = {ours: data[f"in_{theirs}"] for ours, theirs in params.items()}
        seed = cotangent(case, data["y"].shape)
        found = pulled(bench, layer, arrays, held, seed, **settings)
        theirs = {**dict(enumerate(inputs)), **params}
        compared = 0
        for ours, name in theirs.items():
            if f"grad_{name}" in data:
                agree(found[ours], data[f"grad_{name}"], CLOSE)
                compared += 1
        assert compared

    return run


ONE_OPERAND = {
    **test_ops_activations.GOLDENS,
    **test_ops_pool.GOLDENS,
    **test_ops_resize.GOLDENS,
}


@pytest.mark.parametrize("case", ONE_OPERAND)
def test_layers(case, check):
    layer, settings = ONE_OPERAND[case]
    check(case, layer, **settings)


@pytest.mark.parametrize("case", test_ops_conv.GOLDENS)
def test_convolutions(case, check):
    check(case, "conv", CONV, **test_ops_conv.GOLDENS[case])


def test_depthwise(check):
    check("conv_depthwise_s2", "depthwise", CONV, kernel=3, stride=2)


@pytest.mark.parametrize("case", test_ops_conv.TRANSPOSED)
def test_transposed_convolutions(case, check):
    check(case, "convt", {"weight": "w"}, bias=False, **test_ops_conv.TRANSPOSED[case])


@pytest.mark.parametrize(
    ("case", "layer", "settings"),
    [
        ("groupnorm3", "groupnorm", {"groups": 3}),
        ("instancenorm", "instancenorm", {"affine": True}),
        ("layernorm", "layernorm", {}),
        ("layernorm_chw", "groupnorm", {"groups": 1}),
    ],
)
def test_norms(case, layer, settings, check):
    check(case, layer, NORM, **settings)


def test_switchable_norm(check):
    check(
        "switchable_norm", "switchable_norm", {"mean_weight": "lam", "var_weight": "lamv", **NORM}
    )


def test_shuffle(check):
    check("channel_shuffle_g3", "shuffle", groups=3)


def test_response_norm(check):
    check("lrn_torch", "lrn", alpha=1e-2 / 5, k=2.0)


def test_batch_norm_in_training(bench, golden, agree):
    data = golden("ops/batchnorm_train")
    x, g, b = (data[k].astype(np.float64) for k in ("in_x", "in_g", "in_b"))
    values = [bench.input(a.shape) for a in (x, np.zeros(6), np.ones(6), g, b)]
    y = bench.emit("batch_norm_train", values, {"eps": 1e-5, "momentum": 0.1})[0]
    seed = bench.input(x.shape)
    wanted = [values[0], values[3], values[4]]
    found = pull_back(Writer(bench.graph), {y: seed}, wanted)
    feeds = dict(zip(values, (x, np.zeros(6), np.ones(6), g, b), strict=True))
    feeds[seed] = cotangent("batchnorm_train", x.shape)
    for value, name in zip(found, "xgb", strict=True):
        agree(bench.run(value, feeds), data[f"grad_{name}"], CLOSE)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(mode, padding, align, check):
    settings = {"mode": mode, "padding": padding, "align_corners": bool(align)}
    case = f"grid_sample_{mode}_{padding}_ac{align}"
    check(case, "grid_sample", inputs=("x", "grid"), **settings)


def test_unpooling(bench, golden, agree):
    data = golden("ops/maxunpool")
    x = data["in_x"].astype(np.float64)
    value = bench.input(x.shape)
    pooled, places = bench.apply("maxpool_with_indices", value, kernel=2)
    y = bench.apply("maxunpool", pooled, places, kernel=2)
    seed = bench.input(x.shape)
    (found,) = pull_back(Writer(bench.graph), {y: seed}, [value])
    feeds = {value: x, seed: cotangent("maxunpool", data["y"].shape)}
    agree(bench.run(found, feeds), data["grad_x"], CLOSE)


@pytest.mark.parametrize(
    ("case", "operands", "layer", "settings", "result"), test_ops_losses.GOLDENS
)
def test_losses(case, operands, layer, settings, result, bench, golden, agree):
    data = golden(f"losses/{case}")
    names = operands.split()
    found = pulled(bench, layer, [data[f"in_{n}"] for n in names], {}, 1.0, **settings)
    compared = 0
    for place, name in enumerate(names):
        if f"grad_{result}_{name}" in data and layer != "zero_one":
            agree(found[place], data[f"grad_{result}_{name}"], 1e-10)
            compared += 1
    # The step of zero_one has no slope; its stored one is that of a stand-in.
    assert compared or layer == "zero_one"


@pytest.mark.parametrize("kind", ["kl", "rev_kl", "js", "chi2", "tv", "hellinger2"])
def test_divergences(kind, bench, golden, agree):
    data = golden("losses/divergences")
    x, z = (bench.input(data[k].shape) for k in ("in_x", "in_z"))
    p, q = (bench.apply("softmax", v) for v in (x, z))
    y = bench.apply("f_divergence", p, q, kind=kind)
    seed = bench.input(())
    found = pull_back(Writer(bench.graph), {y: seed}, [x, z])
    for value, name in zip(found, "xz", strict=True):
        got = bench.run(value, {x: data["in_x"], z: data["in_z"], seed: np.ones(())})
        agree(got, data[f"grad_{kind}_{name}"], 1e-10)


@pytest.mark.parametrize("name", ["kl", "w2sq"])
def test_distances_of_normals(name, bench, golden, agree):
    data = golden("losses/gaussian_kl")
    names = ("m1", "s1", "m2", "s2")
    writer = Writer(bench.graph)
    inputs = [bench.input(data[f"in_{n}"].shape) for n in names]
    m1, s1, m2, s2 = (writer.expr(value) for value in inputs)
    first, second = (m1, s1.op("exp")), (m2, s2.op("exp"))
    if name == "kl":
        how = {"p": "normal", "q": "normal", "p_form": "", "q_form": ""}
        y = first[0].op("kl", first[1], *second, **how).sum()
    else:
        gaps = [(a - b).square() for a, b in zip(first, second, strict=True)]
        y = (gaps[0] + gaps[1]).sum()
    feeds = {value: data[f"in_{n}"] for value, n in zip(inputs, names, strict=True)}
    agree(bench.run(y.value, feeds), data[name], 1e-10)
    for found, n in zip(slopes(bench, y.value, feeds, 1.0), names, strict=True):
        agree(found, data[f"grad_{name}_{n}"], 1e-10)


def test_center_loss(bench, golden, agree):
    data = golden("losses/center_loss")
    found = pulled(
        bench, "center_loss", [data["in_x"], data["in_y"]], {"centers": data["in_centers"]}, 1.0,
        classes=5, reduction="sum",
    )  # fmt: skip
    agree(found[0], data["grad_center_x"], 1e-10)
    agree(found["centers"], data["grad_center_centers"], 1e-10)


def slopes(bench, y, feeds, seed):
    """Derivatives of ``y`` by every value that is fed, weighted by ``seed``."""
    start = bench.input(np.shape(seed))
    found = pull_back(Writer(bench.graph), {y: start}, list(feeds))
    return [bench.run(value, {**feeds, start: np.asarray(seed)}) for value in found]


@pytest.mark.parametrize("align", [0, 1])
def test_spatial_transformer(align, bench, golden, agree):
    case = f"spatial_transformer_ac{align}"
    data = golden(f"ops/{case}")
    arrays = [data[k].astype(np.float64) for k in ("in_x", "in_theta")]
    x, theta = (bench.input(a.shape) for a in arrays)
    how = {"align_corners": bool(align)}
    grid = bench.apply("affine_grid", theta, size=[8, 9], **how)
    y = bench.apply("grid_sample", x, grid, **how)
    seed = cotangent(case, data["y"].shape)
    found = slopes(bench, y, {x: arrays[0], theta: arrays[1]}, seed)
    agree(found[0], data["grad_x"], CLOSE)
    agree(found[1], data["grad_theta"], CLOSE)


@pytest.mark.parametrize("name", ["dice", "jaccard"])
def test_overlap_losses(name, bench, golden, agree):
    data = golden("losses/overlap_losses")
    x, target = (bench.input(data[k].shape) for k in ("in_x", "in_y"))
    y = bench.apply(name, bench.apply("sigmoid", x), target)
    found = slopes(bench, y, {x: data["in_x"], target: data["in_y"]}, 1.0)
    agree(found[0], data[f"grad_{name}_x"], 1e-10)


def test_focal_loss_of_every_element(bench, golden, agree):
    data = golden("ops/focal_loss")
    arrays = [data[k].astype(np.float64) for k in ("logits", "target")]
    found = pulled(bench, "focal", arrays, {}, np.ones((6, 5)), reduction="none")
    agree(found[0], data["grad"], CLOSE)


def test_mixup(bench, golden, agree):
    data = golden("losses/mixup")
    lam, perm, labels = data["in_lam"][:, None], data["in_perm"], np.eye(5)[data["in_y"]]
    mixed = lam * data["in_x"] + (1 - lam) * data["in_x"][perm]
    soft = lam * labels + (1 - lam) * labels[perm]
    x, w, target = (bench.input(shape) for shape in (mixed.shape, (6, 5), soft.shape))
    y = bench.apply("cross_entropy", bench.apply("matmul", x, w), target)
    by_mixed, by_w, _ = slopes(bench, y, {x: mixed, w: data["in_W"].T, target: soft}, 1.0)
    by_x = lam * by_mixed
    np.add.at(by_x, perm, (1 - lam) * by_mixed)
    agree(by_x, data["grad_loss_x"], 1e-10)
    agree(by_w.T, data["grad_loss_W"], 1e-10)
