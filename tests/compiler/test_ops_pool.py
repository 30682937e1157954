"""Pools against stored references and against windows taken one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from tilth.compiler.ir.dims import evaluate, parse, symbol
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OPS, OpError, infer

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-6}
H, W, N = symbol("H"), symbol("W"), symbol("N")

GOLDENS = {
    "avgpool_3s2p1_ceil_excl": (
        "avgpool",
        {"kernel": 3, "stride": 2, "pad": 1, "ceil": True, "count_pad": False},
    ),
    "avgpool_3s2p1_ceil_incl": ("avgpool", {"kernel": 3, "stride": 2, "pad": 1, "ceil": True}),
    "avgpool_3s2p1_excl": ("avgpool", {"kernel": 3, "stride": 2, "pad": 1, "count_pad": False}),
    "avgpool_3s2p1_incl": ("avgpool", {"kernel": 3, "stride": 2, "pad": 1}),
    "maxpool_2s2_ceil_odd": ("maxpool", {"kernel": 2, "ceil": True}),
    "maxpool_3s2_ceil": ("maxpool", {"kernel": 3, "stride": 2, "ceil": True}),
    "maxpool_3s2p1": ("maxpool", {"kernel": 3, "stride": 2, "pad": 1}),
    "maxpool_3s2p1_ceil": ("maxpool", {"kernel": 3, "stride": 2, "pad": 1, "ceil": True}),
    "adaptive_avg_3_from_10x7": ("adaptive_avgpool", {"size": 3}),
    "adaptive_avg_7_from_2": ("adaptive_avgpool", {"size": 7}),
    "adaptive_max_3_from_10x7": ("adaptive_maxpool", {"size": 3}),
    "global_avg": ("gap", {}),
    "spp_max_421": ("spp", {}),
    "strip_avg_1xW": ("strip_pool", {"axis": "h"}),
    "maxout_4": ("maxout", {"pieces": 4}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", GOLDENS)
def test_matches_reference(case, dtype, golden, run_layer, agree):
    layer, settings = GOLDENS[case]
    data = golden(f"ops/{case}")
    agree(run_layer(layer, data["in_x"].astype(dtype), **settings), data["y"], TOLERANCE[dtype])


def windows_of(x, place, kernel, stride, pad, dilation):
    """The input positions that one window covers, and the places outside the input."""
    taps = []
    for q, k, s, (before, _), d, m in zip(
        place, kernel, stride, pad, dilation, x.shape[2:], strict=True
    ):
        ends = [q * s - before + t * d for t in range(k)]
        taps.append([e for e in ends if 0 <= e < m])
    return list(product(*taps))


def naive_counts(x, kernel, stride, pad, dilation, ceil):
    counts = []
    for m, k, s, (before, after), d in zip(x.shape[2:], kernel, stride, pad, dilation, strict=True):
        count = 0
        # One window at a time: it fits, or (with ceil) hangs over but starts in reach.
        while True:
            start = count * s - before
            fits = start + d * (k - 1) < m + after
            before_end = start < m and start - s + d * (k - 1) < m + after - 1
            if not (fits or (ceil and count > 0 and before_end)):
                break
            count += 1
        counts.append(count)
    return counts


def random_pool(rng):
    n = int(rng.integers(1, 4))
    kernel = tuple(int(k) for k in rng.integers(1, 5 if n < 3 else 4, n))
    dilation = tuple(int(d) for d in rng.integers(1, 3, n))
    limits = [(d * (k - 1) + 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    pad = tuple(tuple(int(v) for v in rng.integers(0, limit + 1, 2)) for limit in limits)
    sizes = [
        int(rng.integers(0, 6)) + d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)
    ]
    stride = tuple(int(s) for s in rng.integers(1, 4, n))
    return rng.standard_normal((2, 2, *sizes)), kernel, stride, pad, dilation


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_maxpool_by_brute_force(seed, ceil):
    x, kernel, stride, pad, dilation = random_pool(np.random.default_rng(seed))
    attrs = {"kernel": kernel, "stride": stride, "pad": pad, "dilation": dilation, "ceil": ceil}
    y, places = OPS["maxpool_with_indices"].reference(x, **attrs)
    assert list(y.shape[2:]) == naive_counts(x, kernel, stride, pad, dilation, ceil)
    np.testing.assert_array_equal(y, OPS["maxpool"].reference(x, **attrs))
    assert infer("maxpool", [TensorType("f64", x.shape)], attrs)[0].shape == y.shape
    for n, c in product(range(2), range(2)):
        for place in product(*map(range, y.shape[2:])):
            covered = windows_of(x, place, kernel, stride, pad, dilation)
            if not covered:
                assert y[(n, c, *place)] == -np.inf
                continue
            best = max(covered, key=lambda at: x[(n, c, *at)])
            assert y[(n, c, *place)] == x[(n, c, *best)]
            assert places[(n, c, *place)] == np.ravel_multi_index(best, x.shape[2:])


@pytest.mark.parametrize("count_pad", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_avgpool_by_brute_force(seed, count_pad, agree):
    ceil = bool(seed % 2)
    x, kernel, stride, pad, _ = random_pool(np.random.default_rng(50 + seed))
    once = (1,) * len(kernel)
    pad = tuple((min(b, k // 2), min(a, k // 2)) for (b, a), k in zip(pad, kernel, strict=True))
    attrs = {"kernel": kernel, "stride": stride, "pad": pad, "ceil": ceil, "count_pad": count_pad}
    y = OPS["avgpool"].reference(x, **attrs)
    assert list(y.shape[2:]) == naive_counts(x, kernel, stride, pad, once, ceil)
    assert infer("avgpool", [TensorType("f64", x.shape)], attrs)[0].shape == y.shape
    expected = np.zeros_like(y)
    for place in product(*map(range, y.shape[2:])):
        covered = windows_of(x, place, kernel, stride, pad, once)
        total = sum(x[(slice(None), slice(None), *at)] for at in covered)
        area = 1
        for q, k, s, (b, a), m in zip(place, kernel, stride, pad, x.shape[2:], strict=True):
            area *= min(q * s - b + k, m + a) - (q * s - b)
        expected[(..., *place)] = total / (area if count_pad else len(covered))
    agree(y, expected, 1e-12)


def test_equal_maxima_and_nans_take_the_first_place():
    attrs = {"kernel": (2,), "stride": (2,), "pad": ((1, 1),), "dilation": (1,), "ceil": False}
    x = np.array([[[-np.inf, 3.0, 3.0, np.nan, 1.0]]])
    values, places = OPS["maxpool_with_indices"].reference(x, **attrs)
    np.testing.assert_array_equal(values, [[[-np.inf, 3.0, np.nan]]])
    np.testing.assert_array_equal(places, [[[0, 1, 3]]])


def test_unpooling_matches_reference(golden, run_layer):
    data = golden("ops/maxunpool")
    pooled, places = run_layer("maxpool_with_indices", data["in_x"], kernel=2)
    np.testing.assert_array_equal(pooled, data["pooled"])
    np.testing.assert_array_equal(places, data["indices"])
    np.testing.assert_array_equal(run_layer("maxunpool", pooled, places, kernel=2), data["y"])
    wider = run_layer("maxunpool", pooled, places, kernel=2, size=[9, 8])
    assert wider.shape == (2, 3, 9, 8)
    assert wider.sum() == pytest.approx(pooled.sum(), rel=1e-5)


def test_unpooling_refuses_a_place_outside():
    with pytest.raises(ValueError, match="outside"):
        OPS["maxunpool"].reference(np.ones((1, 1, 1)), np.full((1, 1, 1), 4), size=(3,))


def test_ceil_rule_with_symbolic_sizes(bench):
    y = bench.apply("maxpool", [N, 3, H, W], kernel=3, stride=2, ceil=True)
    assert bench.type_of(y).shape[2] == 1 - parse("(3-H)//2")
    y = bench.apply("maxpool", [N, 3, H, W], kernel=1, stride=2, ceil=True)
    for size in range(1, 9):
        found = evaluate(bench.type_of(y).shape[2], {"H": size})
        assert found == len(range(0, size, 2))


def test_symbolic_sizes(bench):
    assert bench.type_of(bench.apply("maxpool", [N, 3, H, W], kernel=2)).shape == (
        N,
        3,
        parse("(H-2)//2") + 1,
        parse("(W-2)//2") + 1,
    )
    assert bench.type_of(bench.apply("gap", [N, 3, H, W])).shape == (N, 3)
    assert bench.type_of(bench.apply("adaptive_avgpool", [N, 3, H, W], size=[H, 1])).shape == (
        N,
        3,
        H,
        1,
    )
    assert bench.type_of(bench.apply("spp", [N, 3, H, W], levels=[3, 1])).shape == (N, 30)
    assert bench.type_of(bench.apply("strip_pool", [N, 3, H, W], axis="w")).shape == (N, 3, H, 1)


def test_global_max(run_layer):
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    np.testing.assert_array_equal(run_layer("gmp", x), x.max(axis=(2, 3)))


def test_whole_numbers_can_be_max_pooled(run_layer):
    x = np.arange(-4, 4).reshape(1, 1, 8)
    np.testing.assert_array_equal(
        run_layer("maxpool", x, kernel=3, stride=2, pad=1), [[[-3, -1, 1, 3]]]
    )


@pytest.mark.parametrize(
    ("layer", "shape", "settings", "code", "words"),
    [
        ("maxpool", [N, 10], {"kernel": 2}, "E101", "[N, C, spatial...]"),
        ("gap", [N, 10], {}, "E101", "gap needs"),
        ("maxpool", [N, 3, 8, 8], {"kernel": 2, "pad": 2}, "E408", "at most half"),
        ("maxpool", [N, 3, 1, 8], {"kernel": 2}, "E106", "height 1"),
        ("avgpool", [N, 3, 8, 8], {"kernel": 2, "stride": 0}, "E408", "stride is 0"),
        ("adaptive_avgpool", [N, 3, 8, 8], {"size": 0}, "E106", "would be 0"),
        ("adaptive_avgpool", [N, 3, 8, 8], {"size": [1]}, "E408", "list of 2"),
        ("spp", [N, 3, 8, 8], {"levels": []}, "E408", "at least one"),
        ("strip_pool", [N, 3, 8], {"axis": "w"}, "E101", "[N, C, H, W]"),
    ],
)
def test_messages(layer, shape, settings, code, words, bench):
    with pytest.raises(OpError) as caught:
        bench.apply(layer, shape, **settings)
    assert caught.value.code == code
    assert words in caught.value.message


def test_element_types(bench):
    with pytest.raises(OpError) as caught:
        bench.apply("avgpool", bench.input([N, 3, H, W], "i32"), kernel=2)
    assert caught.value.code == "E104"
    with pytest.raises(OpError, match="positions") as caught:
        bench.apply("maxunpool", [N, 3, 4], [N, 3, 4], kernel=2)
    assert caught.value.code == "E104"
    with pytest.raises(OpError, match="one shape") as caught:
        bench.apply("maxunpool", bench.input([N, 3, 4]), bench.input([N, 3, 5], "i64"), kernel=2)
    assert caught.value.code == "E103"
