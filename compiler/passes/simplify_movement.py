"""Rules of movement: what places elements twice places them once, and what does nothing goes."""

from __future__ import annotations

from ..ir.graph import Value
from ..ops.base import OPS
from ..rewrite import Apply, Match, Rewriter, Rule, Wild, n_carry, op

_X = Wild("x")
_ARITHMETIC = ("add", "sub", "mul", "div")


def _keep(m: Match) -> Value:
    return m["x"]


def _same_type(m: Match) -> bool:
    return m.type_of("x") == m.type


def _is_one(size: object) -> bool:
    return isinstance(size, int) and size == 1


def _moves_only_ones(m: Match) -> bool:
    """Whether a transpose keeps the order of all axes that are not of size 1."""
    shape = m.type_of("x").shape
    moved = [axis for axis in m["perm"] if not _is_one(shape[axis])]
    return moved == sorted(moved)


def _joined_slice(m: Match) -> Value:
    starts = tuple(a + b for a, b in zip(m["a0"], m["b0"], strict=True))
    stops = tuple(a + b for a, b in zip(m["a0"], m["b1"], strict=True))
    return m.emit("slice", m["x"], starts=starts, stops=stops, steps=m["b2"])


def _is_dense(steps: tuple[object, ...]) -> bool:
    return all(step == 1 for step in steps)


# ---------------------------------------------------------------- concat and split


def _single(m: Match) -> bool:
    rw = m.rewriter
    node = rw.node(m.root)
    return len(rw.operands(m.root)) == len(node.types) == 1


def _first_operand(m: Match) -> Value:
    return m.rewriter.operands(m.root)[0]


def _inner_concats(m: Match) -> list[Value]:
    """Operands of a concat that are concats along the same axis and read only here."""
    rw, axis = m.rewriter, m.rewriter.node(m.root).attrs["axis"]
    return [
        value
        for value in rw.operands(m.root)
        if rw.node(value.node).op == "concat"
        and rw.node(value.node).attrs["axis"] == axis
        and rw.only_reader(value) is not None
    ]


def _flat_concat(m: Match) -> Value:
    rw, inner = m.rewriter, set(_inner_concats(m))
    parts: list[Value] = []
    for value in rw.operands(m.root):
        parts += rw.operands(value.node) if value in inner else (value,)
    return rw.emit("concat", parts, rw.node(m.root).attrs, like=m.root)


def _undoes_split(m: Match) -> bool:
    rw = m.rewriter
    parts = rw.operands(m.root)
    source = rw.node(parts[0].node)
    return (
        source.op == "split"
        and source.attrs["axis"] == rw.node(m.root).attrs["axis"]
        and list(parts) == [Value(parts[0].node, i) for i in range(len(source.types))]
    )


def _split_source(m: Match) -> Value:
    rw = m.rewriter
    return rw.operands(rw.operands(m.root)[0].node)[0]


def _adds_splits(m: Match) -> bool:
    """Whether each part of one split is added to the same part of another, and to nothing else."""
    rw, a, b = m.rewriter, m["a"], m["b"]
    splits = [rw.node(value.node) for value in (a, b)]
    if any(node.op != "split" for node in splits) or a.node == b.node:
        return False
    if splits[0].attrs != splits[1].attrs or splits[0].types != splits[1].types:
        return False
    readers = [_readers_of_parts(rw, value.node) for value in (a, b)]
    return readers[0] == readers[1] and all(
        reader is not None and rw.node(reader).op == "add" for reader in readers[0]
    )


def _readers_of_parts(rw: Rewriter, split: int) -> list[int | None]:
    return [rw.only_reader(Value(split, i)) for i in range(len(rw.node(split).types))]


def _split_of_sum(m: Match) -> Value:
    rw, a = m.rewriter, m["a"]
    sums = _readers_of_parts(rw, a.node)
    sources = [rw.operands(value.node)[0] for value in (a, m["b"])]
    attrs = rw.node(a.node).attrs
    parts = rw.emit("split", (rw.emit("add", sources),), attrs)
    for place, total in enumerate(sums):
        if total is not None and total != m.root:
            rw.replace(Value(total), Value(parts.node, place))
    return Value(parts.node, a.result)


# ---------------------------------------------------------------- transposes past arithmetic


def _is_function(rw: Rewriter, index: int) -> bool:
    """Whether a node maps single elements of one operand."""
    name = rw.node(index).op
    row = OPS.get(name)
    return row is not None and row.batching == "elementwise" and len(rw.operands(index)) == 1


def _takes_transpose(rw: Rewriter, value: Value) -> bool:
    """Whether a transpose that moves up from here ends in a contraction or another transpose."""
    while rw.only_reader(value) is not None:
        name, operands = rw.node(value.node).op, rw.operands(value.node)
        if name in ("contract", "transpose"):
            return True
        if _is_function(rw, value.node):
            value = operands[0]
        elif name in _ARITHMETIC and _large_operand(rw, value) is not None:
            value = _large_operand(rw, value) or value
        else:
            return False
    return False


def _large_operand(rw: Rewriter, value: Value) -> Value | None:
    """The operand with all the elements, when the other is a vector along one axis."""
    shape = rw.type_of(value).shape
    a, b = rw.operands(value.node)
    for large, small in ((a, b), (b, a)):
        wide = [size for size in rw.type_of(small).shape if not _is_one(size)]
        if rw.type_of(large).shape == shape and len(wide) <= 1:
            return large
    return None


def _may_pass_function(m: Match) -> bool:
    (inner,) = m.rewriter.operands(m.root)
    return _is_function(m.rewriter, inner.node) and _takes_transpose(m.rewriter, inner)


def _may_pass_arithmetic(m: Match) -> bool:
    return _takes_transpose(m.rewriter, m["y"])


def _transpose_first(m: Match) -> Value:
    rw = m.rewriter
    (inner,) = rw.operands(m.root)
    producer = rw.node(inner.node)
    moved = m.emit("transpose", rw.operands(inner.node)[0], perm=m["perm"])
    return rw.emit(producer.op, (moved,), producer.attrs, like=inner.node)


def _transpose_operands(m: Match) -> Value:
    rw = m.rewriter
    inner = m["y"]
    moved = []
    for value in rw.operands(inner.node):
        kind = rw.type_of(value)
        if kind.rank < len(m["perm"]) and kind.rank:
            shape = (*(1,) * (len(m["perm"]) - kind.rank), *kind.shape)
            value = m.emit("reshape", value, shape=shape)
        moved.append(m.emit("transpose", value, perm=m["perm"]) if kind.rank else value)
    producer = rw.node(inner.node)
    return rw.emit(producer.op, moved, producer.attrs, like=inner.node)


# ---------------------------------------------------------------- loops


def _is_last_row(m: Match) -> bool:
    """Whether a slice takes the last row of a stack whose last row a carry ends with."""
    rw, stack = m.rewriter, m["x"]
    loop = rw.node(stack.node)
    if loop.op != "scan" or loop.attrs["reverse"] or stack.result < n_carry(loop):
        return False
    starts, stops, kind = m["starts"], m["stops"], m.type_of("x")
    whole = [(0, size) for size in kind.shape[1:]]
    if [*zip(starts[1:], stops[1:], strict=True)] != whole or not _is_dense(m["steps"]):
        return False
    if stops[0] != kind.shape[0] or starts[0] != kind.shape[0] - 1:
        return False
    return _carry_of(m) is not None


def _carry_of(m: Match) -> int | None:
    loop = m.rewriter.node(m["x"].node)
    put_out = [value for _, value in loop.regions[0].outputs]
    row = put_out[m["x"].result]
    return put_out[: n_carry(loop)].index(row) if row in put_out[: n_carry(loop)] else None


def _last_carry(m: Match) -> Value:
    carry = Value(m["x"].node, _carry_of(m) or 0)
    return m.emit("reshape", carry, shape=m.type.shape)


MOVEMENT = (
    # transpose_q(transpose_p(x)) = transpose_{p[q]}(x)
    Rule(
        "transpose of transpose",
        op("transpose", op("transpose", _X, perm="p"), perm="q"),
        lambda m: m.emit("transpose", m["x"], perm=tuple(m["p"][axis] for axis in m["q"])),
    ),
    Rule(
        "transpose in order",
        op("transpose", _X, perm="perm"),
        _keep,
        lambda m: list(m["perm"]) == sorted(m["perm"]),
    ),
    # Axes of size 1 hold no order.
    Rule(
        "transpose of ones",
        op("transpose", _X, perm="perm"),
        lambda m: m.emit("reshape", m["x"], shape=m.type.shape),
        _moves_only_ones,
    ),
    # transpose(f(x)) = f(transpose(x)) for f on single elements
    Rule(
        "transpose before a function",
        op("transpose", Apply((), None), perm="perm"),
        _transpose_first,
        _may_pass_function,
    ),
    # transpose(x + b) = transpose(x) + b' with b a vector along one axis
    Rule(
        "transpose before a vector",
        op(
            "transpose",
            Apply(_ARITHMETIC, (Wild("a"), Wild("b")), name="y"),
            perm="perm",
        ),
        _transpose_operands,
        _may_pass_arithmetic,
    ),
    # reshape(reshape(x)) = reshape(x)
    Rule(
        "reshape of reshape",
        op("reshape", op("reshape", _X)),
        lambda m: m.emit("reshape", m["x"], shape=m.type.shape),
    ),
    # Every element of a fill is alike.
    Rule(
        "moved fill",
        op("reshape transpose broadcast tile flip slice", op("fill", value="value")),
        lambda m: m.emit("fill", shape=m.type.shape, value=m["value"], dtype=m.type.dtype),
    ),
    # What gives back its operand.
    Rule("no reshape", op("reshape", _X), _keep, _same_type),
    Rule("no broadcast", op("broadcast", _X), _keep, _same_type),
    Rule("no tile", op("tile", _X, reps="reps"), _keep, lambda m: _is_dense(m["reps"])),
    Rule("no flip", op("flip", _X, axes="axes"), _keep, lambda m: not m["axes"]),
    Rule(
        "no pad",
        op("pad", _X, before="before", after="after"),
        _keep,
        lambda m: not any((*m["before"], *m["after"])),
    ),
    Rule(
        "whole slice",
        op("slice", _X, steps="steps"),
        _keep,
        lambda m: _same_type(m) and _is_dense(m["steps"]),
    ),
    Rule(
        "shuffle of one group",
        op("channel_shuffle", _X, groups="groups", axis="axis"),
        _keep,
        lambda m: m["groups"] in (1, m.type.shape[m["axis"]]),
    ),
    # broadcast(broadcast(x)) = broadcast(x); flip(flip(x)) = x
    Rule(
        "broadcast of broadcast",
        op("broadcast", op("broadcast", _X)),
        lambda m: m.emit("broadcast", m["x"], shape=m.type.shape),
    ),
    Rule(
        "flip of flip",
        op("flip", op("flip", _X, axes="axes"), axes="again"),
        _keep,
        lambda m: set(m["axes"]) == set(m["again"]),
    ),
    # x[a:b][c:d] = x[a+c:a+d]
    Rule(
        "slice of slice",
        op(
            "slice",
            op("slice", _X, starts="a0", steps="a2"),
            starts="b0",
            stops="b1",
            steps="b2",
        ),
        _joined_slice,
        lambda m: _is_dense(m["a2"]),
    ),
    # One part is the whole; all parts of a split joined again are its source.
    Rule("concat of one", Apply(("concat", "split"), None), _first_operand, _single),
    Rule(
        "concat of concat",
        Apply(("concat",), None),
        _flat_concat,
        lambda m: bool(_inner_concats(m)),
    ),
    Rule("concat of a split", Apply(("concat",), None), _split_source, _undoes_split),
    # split(x)_i + split(y)_i = split(x + y)_i
    Rule("sum of splits", op("add", Wild("a"), Wild("b")), _split_of_sum, _adds_splits),
    # stack(h)[T-1] is the last carry h
    Rule(
        "last row of a scan",
        op("slice", _X, starts="starts", stops="stops", steps="steps"),
        _last_carry,
        _is_last_row,
    ),
)
