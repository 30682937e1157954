"""Convolutions against stored references, naive loops and their adjoints."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from tilth.compiler.ir.dims import parse, symbol
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OPS, OpError, infer

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-6}
H, W, N = symbol("H"), symbol("W"), symbol("N")


def naive_conv(x, w, b, stride, pad, dilation, groups):
    """Convolution by its definition, one output element at a time."""
    kernel = w.shape[2:]
    sizes = [
        (m + p[0] + p[1] - d * (k - 1) - 1) // s + 1
        for m, p, d, k, s in zip(x.shape[2:], pad, dilation, kernel, stride, strict=True)
    ]
    y = np.zeros((len(x), len(w), *sizes))
    per_in, per_out = w.shape[1], len(w) // groups
    for n, o in product(range(len(x)), range(len(w))):
        for place in product(*map(range, sizes)):
            total = 0.0 if b is None else b[o]
            for c, taps in product(range(per_in), product(*map(range, kernel))):
                at = [
                    q * s - p[0] + t * d
                    for q, s, p, t, d in zip(place, stride, pad, taps, dilation, strict=True)
                ]
                if all(0 <= a < m for a, m in zip(at, x.shape[2:], strict=True)):
                    total += x[(n, (o // per_out) * per_in + c, *at)] * w[(o, c, *taps)]
            y[(n, o, *place)] = total
    return y


GOLDENS = {
    "conv_1xk": {"kernel": [1, 7], "pad": [0, 3], "channels": 4},
    "conv_basic": {"kernel": 3, "channels": 4},
    "conv_dilated2": {"kernel": 3, "dilation": 2, "channels": 4},
    "conv_even_kernel": {"kernel": 2, "stride": 2, "channels": 3},
    "conv_grouped": {"kernel": 3, "groups": 3, "channels": 9},
    "conv_kx1": {"kernel": [7, 1], "channels": 4},
    "conv_stride2_pad0": {"kernel": 3, "stride": 2, "pad": 0, "channels": 4},
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", GOLDENS)
def test_conv_matches_reference(case, dtype, golden, run_layer, agree):
    data = golden(f"ops/{case}")
    params = {"weight": data["in_w"].astype(dtype), "bias": data["in_b"].astype(dtype)}
    y = run_layer("conv", data["in_x"].astype(dtype), _params=params, **GOLDENS[case])
    agree(y, data["y"], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_depthwise_matches_reference(dtype, golden, run_layer, agree):
    data = golden("ops/conv_depthwise_s2")
    params = {"weight": data["in_w"].astype(dtype), "bias": data["in_b"].astype(dtype)}
    x = data["in_x"].astype(dtype)
    y = run_layer("depthwise", x, _params=params, kernel=3, stride=2)
    agree(y, data["y"], TOLERANCE[dtype])


TRANSPOSED = {
    "convt_grouped": {"channels": 6, "kernel": 3, "stride": 2, "pad": 0, "groups": 2},
    "convt_k2s2": {"channels": 3, "kernel": 2, "stride": 2},
    "convt_k3s2p1op1": {"channels": 3, "kernel": 3, "stride": 2, "out_pad": 1},
    "convt_k4s2p1": {"channels": 3, "kernel": 4, "stride": 2},
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", TRANSPOSED)
def test_convt_matches_reference(case, dtype, golden, run_layer, agree):
    data = golden(f"ops/{case}")
    params = {"weight": data["in_w"].astype(dtype)}
    x = data["in_x"].astype(dtype)
    y = run_layer("convt", x, _params=params, bias=False, **TRANSPOSED[case])
    agree(y, data["y"], TOLERANCE[dtype])


def random_setting(rng):
    n = int(rng.integers(1, 4))
    groups = int(rng.integers(1, 4))
    kernel = tuple(int(k) for k in rng.integers(1, 5 if n < 3 else 3, n))
    return {
        "kernel": kernel,
        "stride": tuple(int(s) for s in rng.integers(1, 4, n)),
        "pad": tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (n, 2))),
        "dilation": tuple(int(d) for d in rng.integers(1, 3, n)),
        "groups": groups,
        "inputs": groups * int(rng.integers(1, 3)),
        "outputs": groups * int(rng.integers(1, 3)),
        "sizes": tuple(int(m) for m in rng.integers(4, 7, n) + 2 * np.array(kernel) - 2),
    }


@pytest.mark.parametrize("seed", range(12))
def test_conv_by_brute_force(seed, agree):
    rng = np.random.default_rng(seed)
    s = random_setting(rng)
    x = rng.standard_normal((2, s["inputs"], *s["sizes"]))
    w = rng.standard_normal((s["outputs"], s["inputs"] // s["groups"], *s["kernel"]))
    b = rng.standard_normal(s["outputs"]) if seed % 2 else None
    attrs = {k: s[k] for k in ("stride", "pad", "dilation", "groups")}
    operands = (x, w) if b is None else (x, w, b)
    y = OPS["conv"].reference(*operands, **attrs)
    agree(y, naive_conv(x, w, b, **attrs), 1e-12)
    types = [TensorType("f64", a.shape) for a in operands]
    assert infer("conv", types, attrs)[0].shape == y.shape


@pytest.mark.parametrize("seed", range(12))
def test_convt_is_the_adjoint_of_conv(seed):
    rng = np.random.default_rng(100 + seed)
    s = random_setting(rng)
    attrs = {k: s[k] for k in ("stride", "pad", "dilation", "groups")}
    x = rng.standard_normal((2, s["inputs"], *s["sizes"]))
    w = rng.standard_normal((s["outputs"], s["inputs"] // s["groups"], *s["kernel"]))
    y = OPS["conv"].reference(x, w, **attrs)
    cotangent = rng.standard_normal(y.shape)
    # out_pad restores what the floor in conv's output size dropped.
    back = [
        (o - 1) * st - sum(p) + d * (k - 1) + 1
        for o, st, p, d, k in zip(
            y.shape[2:], s["stride"], s["pad"], s["dilation"], s["kernel"], strict=True
        )
    ]
    out_pad = tuple(m - b for m, b in zip(s["sizes"], back, strict=True))
    pulled = OPS["conv_transpose"].reference(cotangent, w, **attrs, out_pad=out_pad)
    assert pulled.shape == x.shape
    assert np.vdot(y, cotangent) == pytest.approx(np.vdot(x, pulled), rel=1e-11)
    kinds = [TensorType("f64", cotangent.shape), TensorType("f64", w.shape)]
    assert infer("conv_transpose", kinds, attrs | {"out_pad": out_pad})[0].shape == x.shape


def test_linear_acts_on_the_last_axis(run_layer, agree):
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 3, 5)), rng.standard_normal((4, 5)), rng.standard_normal(4)
    y = run_layer("linear", x, _params={"weight": w, "bias": b}, features=4)
    agree(y, np.einsum("abi,oi->abo", x, w) + b, 1e-12)
    y = run_layer("linear", x[0, 0], _params={"weight": w}, features=4, bias=False)
    agree(y, w @ x[0, 0], 1e-12)


def test_symbolic_sizes(bench):
    x = bench.input([N, 3, H, W], "f32")
    same = bench.apply("conv", x, channels=8, kernel=3)
    assert bench.type_of(same) == TensorType("f32", (N, 8, H, W))
    bench.params.clear()
    half = bench.type_of(bench.apply("conv", same, channels=8, kernel=3, stride=2))
    assert half.shape == (N, 8, parse("(H-1)//2") + 1, parse("(W-1)//2") + 1)
    assert half.bind({"N": 1, "H": 224, "W": 225}).shape == (1, 8, 112, 113)


def test_transposed_conv_doubles_a_symbolic_size(bench):
    y = bench.apply("convt", [N, 4, H, W], channels=2, kernel=2, stride=2)
    assert bench.type_of(y).shape == (N, 2, 2 * H, 2 * W)


def test_weights_of_the_layers(bench):
    bench.apply("conv", bench.input([N, 6, H, W], "f32"), channels=4, kernel=[1, 3], groups=2)
    assert bench.params["weight"] == ((4, 3, 1, 3), ("he",), "weight", "f32")
    assert bench.params["bias"] == ((4,), ("zeros",), "bias", "f32")
    bench.params.clear()
    bench.apply("depthwise", [N, 6, H, W], kernel=3, multiplier=2, bias=False)
    assert bench.params["weight"][0] == (12, 1, 3, 3)
    bench.params.clear()
    bench.apply("convt", [N, 6, H, W], channels=4, kernel=3, groups=2, bias=False)
    assert bench.params["weight"][0] == (6, 2, 3, 3)


def test_macs(bench):
    # ResNet's first convolution: 112*112*64 outputs of 3*7*7 taps each.
    y = bench.apply("conv", [1, 3, 224, 224], channels=64, kernel=7, stride=2, bias=False)
    node = bench.graph.node(y.node)
    types = [bench.type_of(v) for v in bench.graph.operands(y.node)]
    assert OPS["conv"].macs(types, node.types, node.attrs) == 112 * 112 * 64 * 147
    x, w = TensorType("f32", (N, 8, 5, 5)), TensorType("f32", (8, 2, 3, 3))
    assert OPS["conv_transpose"].macs([x, w], [], {}) == 200 * 18 * N
    x, y = TensorType("f32", (N, 512)), TensorType("f32", (N, 10))
    assert OPS["linear"].macs([x, TensorType("f32", (10, 512))], [y], {}) == 5120 * N


@pytest.mark.parametrize(
    ("layer", "shape", "settings", "code", "words"),
    [
        ("conv", [N, 10], {"channels": 4, "kernel": 3}, "E101", "[N, C, spatial...]"),
        ("conv", [N, 6, 8, 8], {"channels": 4, "kernel": 3, "groups": 4}, "E108", "6 is not"),
        ("conv", [N, 6, 8, 8], {"channels": 4, "kernel": 3, "groups": 3}, "E108", "4 is not"),
        ("conv", [N, 6, 8, 8], {"channels": 0, "kernel": 3}, "E106", "would be 0"),
        ("conv", [N, 6, 2, 8], {"channels": 4, "kernel": 5, "pad": 0}, "E106", "height 2"),
        ("conv", [N, 6, 8, 8], {"channels": 4, "kernel": H}, "E408", "kernel is H"),
        ("conv", [N, 6, 8, 8], {"channels": 4, "kernel": 0}, "E408", "kernel is 0"),
        ("conv", [N, 6, 8, 8], {"channels": 4, "kernel": [3, 3, 3]}, "E408", "list of 2"),
        ("conv", [N, 6, 8, 8], {"channels": 4, "kernel": 3, "stride": 0}, "E408", "stride is 0"),
        ("conv", [N, 6, 8, 8], {"channels": 4, "kernel": 3, "pad": -1}, "E408", "pad is -1"),
        ("conv", [N, 6, 8, 8], {"channels": 4, "kernel": 3, "pad": [[1], [1]]}, "E408", "pair"),
        ("convt", [N, 6, 8, 8], {"channels": 4, "kernel": 3, "out_pad": 1}, "E408", "out_pad is 1"),
        ("convt", [N, 6, 1, 8], {"channels": 4, "kernel": 1, "pad": 1}, "E106", "would be -1"),
        ("depthwise", [N, 10], {"kernel": 3}, "E101", "f64[N, 10]"),
        ("linear", [], {"features": 4}, "E101", "at least one axis"),
    ],
)
def test_messages(layer, shape, settings, code, words, bench):
    with pytest.raises(OpError) as caught:
        bench.apply(layer, shape, **settings)
    assert caught.value.code == code
    assert words in caught.value.message


def test_operands_must_fit():
    attrs = {"stride": (1, 1), "pad": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    x = TensorType("f32", (N, 6, H, W))
    with pytest.raises(OpError, match="channel count is 6, expected 5") as caught:
        infer("conv", [x, TensorType("f32", (4, 5, 3, 3))], attrs)
    assert caught.value.code == "E103"
    with pytest.raises(OpError) as caught:
        infer("conv", [x, TensorType("f64", (4, 6, 3, 3))], attrs)
    assert caught.value.code == "E104"
    with pytest.raises(OpError) as caught:
        infer("linear", [TensorType("i32", (N, 6)), TensorType("i32", (4, 6))], {})
    assert caught.value.code == "E104"


def test_pads_may_differ_by_side(bench):
    y = bench.apply("conv", [1, 2, 5, 6], channels=1, kernel=2, pad=[[0, 1], [1, 0]])
    assert bench.type_of(y).shape == (1, 1, 5, 6)
    assert bench.graph.node(y.node).attrs["pad"] == ((0, 1), (1, 0))
