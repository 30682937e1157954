"""How ops on plain tensors are written as ONNX: arithmetic, movement, reductions, contraction."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce as fold

import numpy as np

from ..compiler.ir.dims import Dim
from ..compiler.ops.base import OPS
from ..compiler.ops.contract import parse_spec
from .onnx_graph import INT64_MAX, INT64_MIN, Emitter, Site, rule

# ---------------------------------------------------------------- single elements

_SAME = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "minimum": "Min",
    "maximum": "Max", "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater",
    "ge": "GreaterOrEqual", "and": "And", "or": "Or", "xor": "Xor", "not": "Not", "neg": "Neg",
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "abs": "Abs",
    "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "round": "Round", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh",
    "isnan": "IsNaN", "where": "Where", "matmul": "MatMul",
}  # fmt: skip


@rule(*_SAME)
def _same(e: Emitter, site: Site) -> str:
    return e.call(_SAME[site.node.op], *site.x)


@rule("ne")
def _ne(e: Emitter, site: Site) -> str:
    return e.call("Not", e.call("Equal", *site.x))


@rule("floordiv")
def _floordiv(e: Emitter, site: Site) -> str:
    a, b = site.x
    if site.kind.is_float:
        return e.call("Floor", e.call("Div", a, b))
    # Div of whole numbers truncates and may trap at zero, where the graph says 0.
    zero, one = (e.number(n, site.kind.dtype) for n in (0, 1))
    none = e.call("Equal", b, zero)
    safe = e.call("Where", none, one, b)
    whole = e.call("Div", e.call("Sub", a, e.call("Mod", a, safe)), safe)
    return e.call("Where", none, zero, whole)


@rule("mod")
def _mod(e: Emitter, site: Site) -> str:
    a, b = site.x
    if not site.kind.is_float:
        return e.call("Mod", a, b)
    return e.call("Sub", a, e.call("Mul", b, e.call("Floor", e.call("Div", a, b))))


@rule("square")
def _square(e: Emitter, site: Site) -> str:
    return e.call("Mul", site.x[0], site.x[0])


@rule("rsqrt")
def _rsqrt(e: Emitter, site: Site) -> str:
    return e.call("Reciprocal", e.call("Sqrt", site.x[0]))


@rule("log1p")
def _log1p(e: Emitter, site: Site) -> str:
    return _log1p_of(e, site, site.x[0])


def _log1p_of(e: Emitter, site: Site, x: str) -> str:
    # log(1 + x) = 2 atanh(x / (2 + x)) keeps its digits near 0.
    one, two = (e.number(n, site.kind.dtype) for n in (1, 2))
    near = e.call("Mul", e.call("Atanh", e.call("Div", x, e.call("Add", x, two))), two)
    return _near_zero(e, site, x, near, e.call("Log", e.call("Add", x, one)))


@rule("expm1")
def _expm1(e: Emitter, site: Site) -> str:
    # exp(x) - 1 = 2 t / (1 - t) with t = tanh(x / 2) keeps its digits near 0.
    one, two = (e.number(n, site.kind.dtype) for n in (1, 2))
    t = e.call("Tanh", e.call("Div", site.x[0], two))
    near = e.call("Div", e.call("Mul", t, two), e.call("Sub", one, t))
    far = e.call("Sub", e.call("Exp", site.x[0]), one)
    return _near_zero(e, site, site.x[0], near, far)


def _near_zero(e: Emitter, site: Site, x: str, near: str, far: str) -> str:
    small = e.call("Less", e.call("Abs", x), e.number(0.5, site.kind.dtype))
    return e.call("Where", small, near, far)


@rule("logit")
def _logit(e: Emitter, site: Site) -> str:
    rest = _log1p_of(e, site, e.call("Neg", site.x[0]))
    return e.call("Sub", e.call("Log", site.x[0]), rest)


@rule("cast")
def _cast(e: Emitter, site: Site) -> str:
    return e.cast(site.x[0], site.attrs["dtype"])


@rule("clamp")
def _clamp(e: Emitter, site: Site) -> str:
    bounds = [site.attrs["min"], site.attrs["max"]]
    names = ["" if b is None else e.number(b, site.kind.dtype) for b in bounds]
    return e.call("Clip", site.x[0], *names) if any(names) else site.x[0]


# ---------------------------------------------------------------- placing elements


@rule("reshape")
def _reshape(e: Emitter, site: Site) -> str:
    return e.reshape(site, site.x[0], site.result.shape, site.kind.shape)


@rule("transpose")
def _transpose(e: Emitter, site: Site) -> str:
    return e.transpose(site.x[0], site.attrs["perm"])


@rule("flip")
def _flip(e: Emitter, site: Site) -> str:
    axes = list(site.attrs["axes"])
    if not axes:
        return site.x[0]
    bounds = ([-1] * len(axes), [INT64_MIN] * len(axes), axes, [-1] * len(axes))
    return e.call("Slice", site.x[0], *(e.ints(b) for b in bounds))


@rule("slice")
def _slice(e: Emitter, site: Site) -> str:
    names = ("starts", "stops", "steps")
    rows = zip(site.kind.shape, *(site.attrs[n] for n in names), strict=True)
    kept = []
    for axis, (size, start, stop, step) in enumerate(rows):
        if (start, stop, step) != (0, size, 1):
            end = INT64_MAX if stop == size and isinstance(stop, Dim) else stop
            kept.append((*site.known([start, end]), axis, site.known([step])[0]))
    if not kept:
        return site.x[0]
    return e.call("Slice", site.x[0], *(e.ints(column) for column in zip(*kept, strict=True)))


@rule("concat")
def _concat(e: Emitter, site: Site) -> str:
    return e.call("Concat", *site.x, axis=site.attrs["axis"])


@rule("split")
def _split(e: Emitter, site: Site) -> tuple[str, ...]:
    sizes = site.known(site.attrs["sizes"])
    return e.calls("Split", [site.x[0], e.ints(sizes)], len(sizes), axis=site.attrs["axis"])


@rule("broadcast")
def _broadcast(e: Emitter, site: Site) -> str:
    return e.call("Expand", site.x[0], e.ints(site.known(site.result.shape)))


@rule("tile")
def _tile(e: Emitter, site: Site) -> str:
    return e.call("Tile", site.x[0], e.ints(site.known(site.attrs["reps"])))


@rule("pad")
def _pad(e: Emitter, site: Site) -> str:
    amounts = e.ints(site.known([*site.attrs["before"], *site.attrs["after"]]))
    value = e.number(site.attrs["value"], site.kind.dtype)
    extra = [value] if site.attrs["mode"] == "constant" else []
    return e.call("Pad", site.x[0], amounts, *extra, mode=site.attrs["mode"])


@rule("diag")
def _diag(e: Emitter, site: Site) -> str:
    (size,) = site.known(site.kind.shape[-1:])
    column = e.call("Unsqueeze", site.x[0], e.ints([-1]))
    return e.call("Where", e.array(np.eye(size, dtype=bool)), column, _zero(e, site))


@rule("diagonal")
def _diagonal(e: Emitter, site: Site) -> str:
    *_, size = site.known(site.kind.shape[-2:])
    rows = e.array(np.arange(size, dtype=np.int64)[:, None])
    sizes = site.known(site.kind.shape)
    index = e.call("Expand", rows, e.ints([*sizes[:-1], 1]))
    picked = e.call("GatherElements", site.x[0], index, axis=-1)
    return e.call("Squeeze", picked, e.ints([-1]))


@rule("tril", "triu")
def _triangle(e: Emitter, site: Site) -> str:
    upper = int(site.node.op == "triu")
    return e.call("Trilu", site.x[0], e.number(site.attrs["k"], "i64"), upper=upper)


# ---------------------------------------------------------------- from nothing


@rule("fill")
def _fill(e: Emitter, site: Site) -> str:
    return e.full(site.known(site.result.shape), site.attrs["value"], site.result.dtype)


@rule("iota", "eye", "size_of", "grid_edges")
def _constant(e: Emitter, site: Site) -> str:
    site.known([value for value in site.attrs.values() if isinstance(value, Dim)])
    reference = OPS[site.node.op].reference
    assert reference is not None
    return e.array(np.asarray(reference(**site.attrs)))


@rule("one_hot")
def _one_hot(e: Emitter, site: Site) -> str:
    (size,) = site.known([site.attrs["size"]])
    column = e.call("Unsqueeze", e.cast(site.x[0], "i64"), e.ints([-1]))
    hits = e.call("Equal", column, e.array(np.arange(size, dtype=np.int64)))
    return e.cast(hits, site.attrs["dtype"])


# ---------------------------------------------------------------- along axes

_REDUCE = {
    "sum": "ReduceSum", "prod": "ReduceProd", "max": "ReduceMax", "min": "ReduceMin",
    "mean": "ReduceMean", "lse": "ReduceLogSumExp",
}  # fmt: skip
_GLOBAL = {"mean": "GlobalAveragePool", "max": "GlobalMaxPool"}


@rule("reduce")
def _reduce(e: Emitter, site: Site) -> str:
    kind, axes, keep = (site.attrs[name] for name in ("kind", "axes", "keepdims"))
    if not axes:
        return site.x[0]
    if kind in ("any", "all"):
        op = "ReduceMax" if kind == "any" else "ReduceMin"
        number = e.cast(site.x[0], "i32")
        return e.cast(e.call(op, number, e.ints(axes), keepdims=int(keep)), "bool")
    # A pool over all space is what engines know to fuse and to keep in their layout.
    spatial = site.kind.rank >= 3 and tuple(sorted(axes)) == tuple(range(2, site.kind.rank))
    if spatial and kind in _GLOBAL and site.kind.is_float:
        y = e.call(_GLOBAL[kind], site.x[0])
        return y if keep else e.call("Squeeze", y, e.ints(axes))
    return e.call(_REDUCE[kind], site.x[0], e.ints(axes), keepdims=int(keep))


@rule("var")
def _var(e: Emitter, site: Site) -> str:
    axes, keep = site.attrs["axes"], int(site.attrs["keepdims"])
    count = math.prod(site.known([site.kind.shape[a] for a in axes]))
    mean = e.call("ReduceMean", site.x[0], e.ints(axes), keepdims=1)
    deviation = e.call("Sub", site.x[0], mean)
    square = e.call("Mul", deviation, deviation)
    total = e.call("ReduceSum", square, e.ints(axes), keepdims=keep)
    divisor = count - 1 if site.attrs["unbiased"] else count
    return e.call("Div", total, e.number(divisor, site.kind.dtype))


@rule("argmax", "argmin")
def _position(e: Emitter, site: Site) -> str:
    op = "ArgMax" if site.node.op == "argmax" else "ArgMin"
    keep = int(site.attrs["keepdims"])
    return e.cast(e.call(op, site.x[0], axis=site.attrs["axis"], keepdims=keep), "i32")


@rule("cumsum")
def _cumsum(e: Emitter, site: Site) -> str:
    axis = e.number(site.attrs["axis"], "i64")
    return e.call("CumSum", site.x[0], axis, reverse=int(site.attrs["reverse"]))


@rule("sort", "argsort", "topk")
def _sorted(e: Emitter, site: Site) -> str | tuple[str, str]:
    axis, top = site.attrs["axis"], site.node.op == "topk"
    (count,) = site.known([site.attrs["k"] if top else site.kind.shape[axis]])
    largest = int(site.attrs["largest" if top else "descending"])
    values, places = e.calls(
        "TopK", [site.x[0], e.ints([count])], 2, axis=axis, largest=largest, sorted=1
    )
    if site.node.op == "sort":
        return values
    return (values, e.cast(places, "i32")) if top else e.cast(places, "i32")


# ---------------------------------------------------------------- by index


@rule("take")
def _take(e: Emitter, site: Site) -> str:
    return e.call("Gather", site.x[0], e.cast(site.x[1], "i64"), axis=site.attrs["axis"])


@rule("gather")
def _gather(e: Emitter, site: Site) -> str:
    axes = site.attrs["axes"]
    rest = [axis for axis in range(site.kind.rank) if axis not in axes]
    x = e.transpose(site.x[0], [*axes, *rest])
    if len(axes) == 1:
        return e.call("Gather", x, e.cast(site.x[1], "i64"), axis=0)
    joined = e.ints(site.known(site.result.shape[: site.result.rank - len(rest)]))
    last = e.ints([-1])
    columns = [
        e.call("Unsqueeze", e.call("Expand", e.cast(index, "i64"), joined), last)
        for index in site.x[1:]
    ]
    return e.call("GatherND", x, e.call("Concat", *columns, axis=-1))


@rule("scatter_add")
def _scatter_add(e: Emitter, site: Site) -> str:
    return _scattered(e, site.x[0], site.x[1], site.x[2])


@rule("segment_sum")
def _segment_sum(e: Emitter, site: Site) -> str:
    base = e.full(site.known(site.result.shape), 0, site.result.dtype)
    return _scattered(e, base, site.x[1], site.x[0])


def _scattered(e: Emitter, base: str, index: str, updates: str) -> str:
    rows = e.call("Unsqueeze", e.cast(index, "i64"), e.ints([-1]))
    return e.call("ScatterND", base, rows, updates, reduction="add")


# ---------------------------------------------------------------- contraction

_TIMES = {"product": "Mul", "plus": "Add"}
_JOIN = {"max": "ReduceMax", "min": "ReduceMin", "lse": "ReduceLogSumExp"}


@rule("contract")
def _contract(e: Emitter, site: Site) -> str:
    spec, semiring = site.attrs["spec"], site.attrs["semiring"]
    inputs, output = parse_spec(spec, len(site.x))
    if semiring == "sum_product":
        if _is_matmul(inputs, output):
            return e.call("MatMul", *site.x)
        return e.call("Einsum", *site.x, equation=spec)
    order = output + "".join(dict.fromkeys(c for part in inputs for c in part if c not in output))
    aligned = [_aligned(e, x, part, order) for x, part in zip(site.x, inputs, strict=True)]
    plus, times = semiring.split("_")
    joined = fold(_caller(e, _TIMES[times]), aligned)
    gone = list(range(len(output), len(order)))
    return e.call(_JOIN[plus], joined, e.ints(gone), keepdims=0) if gone else joined


def _is_matmul(inputs: tuple[str, ...], output: str) -> bool:
    """Whether letters read as ``ik,kj->ij``."""
    if [len(part) for part in (*inputs, output)] != [2, 2, 2]:
        return False
    (i, k), (m, j) = inputs
    return k == m and output == i + j and len({i, j, k}) == 3


def _aligned(e: Emitter, x: str, letters: str, order: str) -> str:
    """``x`` with one axis a letter of ``order``, of size 1 where it does not have the letter."""
    distinct = "".join(dict.fromkeys(letters))
    if distinct != letters:
        x = e.call("Einsum", x, equation=f"{letters}->{distinct}")
    held = sorted(distinct, key=order.index)
    x = e.transpose(x, [distinct.index(c) for c in held])
    absent = [place for place, c in enumerate(order) if c not in held]
    return e.call("Unsqueeze", x, e.ints(absent)) if absent else x


def _caller(e: Emitter, op: str) -> Callable[[str, str], str]:
    return lambda a, b: e.call(op, a, b)


def _zero(e: Emitter, site: Site) -> str:
    return e.number(0, site.kind.dtype)
