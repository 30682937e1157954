"""What is linear in an operand, at random settings: <f(x), d> = <x, adjoint(d)>, to rounding."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.autodiff.sweep import pull_back
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Graph
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ir.verify import verify
from tilth.compiler.ops.expr import Writer


def check(op, arrays, attrs, places):
    """The identity for each operand in ``places``, the others held."""
    graph = Graph("linear")
    inputs = [graph.add_input(f"x{i}", TensorType("f64", a.shape)) for i, a in enumerate(arrays)]
    writer = Writer(graph)
    y = writer.emit(op, inputs, attrs)[0]
    rng = np.random.default_rng(0)
    d = rng.normal(size=graph.type_of(y).shape)
    seed = graph.add_constant(d, "f64")
    found = pull_back(writer, {y: seed}, [inputs[p] for p in places])
    graph.outputs = [("y", y), *((f"d{p}", v) for p, v in zip(places, found, strict=True))]
    graph.prune()
    verify(graph)
    got = interpret(graph, {f"x{i}": a for i, a in enumerate(arrays)}, {})
    left = float((got["y"] * d).sum())
    for place in places:
        right = float((got[f"d{place}"] * arrays[place]).sum())
        scale = np.abs(got["y"] * d).sum() + 1e-3
        assert abs(left - right) <= 1e-12 * scale, (op, attrs, place)


def window(rng, n, most_kernel=4):
    return {
        "stride": tuple(int(v) for v in rng.integers(1, 4, n)),
        "pad": tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (n, 2))),
        "dilation": tuple(int(v) for v in rng.integers(1, 4, n)),
    }, tuple(int(v) for v in rng.integers(1, most_kernel, n))


@pytest.mark.parametrize("seed", range(25))
def test_convolutions(seed):
    rng = np.random.default_rng(seed)
    n, groups = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    how, kernel = window(rng, n)
    reach = [d * (k - 1) + 1 for d, k in zip(how["dilation"], kernel, strict=True)]
    sizes = [int(r + rng.integers(0, 5)) for r in reach]
    per_in, per_out = (int(v) for v in rng.integers(1, 3, 2))
    x = rng.normal(size=(2, groups * per_in, *sizes))
    weight = rng.normal(size=(groups * per_out, per_in, *kernel))
    check("conv", [x, weight], {**how, "groups": groups}, [0, 1])
    turned = rng.normal(size=(groups * per_in, per_out, *kernel))
    # Surplus rows may be more than the stride or the padding.
    extra = tuple(int(v) for v in rng.integers(0, 4, n))
    how["pad"] = tuple(
        (min(a, r // 2), min(b, r // 2)) for (a, b), r in zip(how["pad"], reach, strict=True)
    )
    check("conv_transpose", [x, turned], {**how, "groups": groups, "out_pad": extra}, [0, 1])


@pytest.mark.parametrize("seed", range(15))
def test_average_pools(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 4))
    kernel = tuple(int(v) for v in rng.integers(1, 5, n))
    halves = [k // 2 + 1 for k in kernel]
    attrs = {
        "kernel": kernel,
        "stride": tuple(int(v) for v in rng.integers(1, 4, n)),
        "pad": tuple((int(rng.integers(0, h)), int(rng.integers(0, h))) for h in halves),
        "ceil": bool(rng.integers(2)),
        "count_pad": bool(rng.integers(2)),
    }
    sizes = [int(k + rng.integers(0, 6)) for k in kernel]
    check("avgpool", [rng.normal(size=(2, 2, *sizes))], attrs, [0])
    cells = tuple(int(v) for v in rng.integers(1, 7, n))
    check("adaptive_avgpool", [rng.normal(size=(2, 2, *sizes))], {"size": cells}, [0])


@pytest.mark.parametrize("mode", ["nearest", "nearest_exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("seed", range(6))
def test_resampling(mode, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 3))
    smooth = mode in ("bilinear", "bicubic")
    align = smooth and bool(rng.integers(2))
    attrs = {
        "size": tuple(int(v) for v in rng.integers(1, 9, n)),
        "scale": None,
        "mode": mode,
        "align_corners": align,
        "antialias": smooth and not align and bool(rng.integers(2)),
    }
    check("resize", [rng.normal(size=(1, 2, *rng.integers(1, 8, n)))], attrs, [0])


@pytest.mark.parametrize("seed", range(15))
def test_placement(seed):
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 4))
    shape = tuple(int(v) for v in rng.integers(2, 6, rank))
    x = rng.normal(size=shape)
    starts = tuple(int(rng.integers(0, s)) for s in shape)
    stops = tuple(int(rng.integers(a + 1, s + 1)) for a, s in zip(starts, shape, strict=True))
    steps = tuple(int(v) for v in rng.integers(1, 4, rank))
    check("slice", [x], {"starts": starts, "stops": stops, "steps": steps}, [0])
    mode = ("constant", "reflect", "edge")[seed % 3]
    sides = [tuple(int(rng.integers(0, s)) for s in shape) for _ in range(2)]
    attrs = {"before": sides[0], "after": sides[1], "value": 0, "mode": mode}
    check("pad", [x], attrs, [0])
    check("tile", [x], {"reps": tuple(int(v) for v in rng.integers(1, 4, rank))}, [0])
    axes = tuple(int(a) for a in np.flatnonzero(rng.integers(0, 2, rank)))
    for kind in ("sum", "mean"):
        check("reduce", [x], {"kind": kind, "axes": axes, "keepdims": bool(seed % 2)}, [0])


@pytest.mark.parametrize("seed", range(20))
def test_contractions(seed):
    """Letters shared, repeated, summed alone or kept, in every position."""
    rng = np.random.default_rng(seed)
    sizes = dict(zip("abcde", rng.integers(1, 4, 5), strict=True))
    parts = [
        "".join(rng.choice(list("abcde"), rng.integers(1, 4))) for _ in range(rng.integers(1, 4))
    ]
    letters = sorted(set("".join(parts)))
    kept = [c for c in letters if rng.integers(2)]
    spec = f"{','.join(parts)}->{''.join(rng.permutation(kept)) if kept else ''}"
    arrays = [rng.normal(size=[sizes[c] for c in part]) for part in parts]
    attrs = {"semiring": "sum_product", "spec": spec}
    check("contract", arrays, attrs, range(len(arrays)))
