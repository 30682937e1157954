"""Indexing: ``A[i, k]``, ``h[t-1]``, ``mu[z[t]]``, ``image[:, i]``, ``x[0]``.

Items consume axes from the left. A batch that leads is skipped unless the index is the batch's own.
A bare index becomes a label, a constant picks, ``:`` and ranges stay, anything else gathers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...compiler.ir.dims import Dim, DimLike, collect_undecided, compare, product
from ...compiler.ir.types import INTEGERS, Span
from .. import syntax as s
from . import tensors as t
from .environment import Env
from .errors import fail
from .expressions import evaluate, value_of, whole
from .values import (
    Axis,
    LabelIndex,
    OpBlock,
    RandomVariable,
    Record,
    ScanIndex,
    Tensor,
    TupleValue,
    Unknown,
    describe,
)


@dataclass(frozen=True)
class Slice:
    """``low..high`` inside brackets."""

    low: Any
    high: Any
    span: Span


@dataclass(frozen=True)
class Whole:
    """``:`` inside brackets."""


def subscript(node: s.Subscript, env: Env) -> Any:
    """The value of ``base[items]``."""
    from .equations import Family

    base = evaluate(node.base, env)
    if isinstance(base, Family):
        return base.at(node, env)
    items = [_item(item, env) for item in node.items]
    if isinstance(base, OpBlock) and base.layer.name == "eye" and len(items) == 2:
        same = t.elementwise(env, "eq", [value_of(x, env, node.span) for x in items], node.span)
        return t.cast(env, same, env.elab.float_dtype, node.span)
    if isinstance(base, RandomVariable):
        from .random_variables import latent_index

        return latent_index(base, node, items, env)
    if isinstance(base, Unknown):
        return Unknown()
    if any(isinstance(item, Unknown) for item in items):
        return Unknown()
    places = [item.span for item in node.items]
    return index_value(base, items, env, node.span, _name(node.base), places)


def index_value(base: Any, items: Sequence[Any], env: Env, span: Span, name: str,
                places: Sequence[Span] = ()) -> Any:  # fmt: skip
    """``base[items]`` for evaluated items, which stand at ``places``."""
    if isinstance(base, Record):
        from .decisions import record_row

        return record_row(base, items, env, span)
    if isinstance(base, (TupleValue, list, tuple)):
        picked = _pick(base, items, env, span, name, places)
        if picked is not _NOT_PICKED:
            return picked
        # Constants belong to the whole model's graph: loops inside loops all read them.
        base = t.as_tensor(replace(env, builder=env.builder.root), base, span)
    if not isinstance(base, Tensor):
        fail("E405", "only tensors and lists are indexed", span, describe(base))
    return index_tensor(base, items, env, span, name, places)


def _name(node: Any) -> str:
    return node.id if isinstance(node, s.Name) else "this"


def _item(node: Any, env: Env) -> Any:
    if isinstance(node, s.WholeAxis):
        return Whole()
    if isinstance(node, s.Interval):
        low = value_of(evaluate(node.low, env), env, node.span)
        high = value_of(evaluate(node.high, env), env, node.span)
        return Slice(low, high, node.span)
    if isinstance(node, s.Tuple):
        return TupleValue(tuple(_item(part, env) for part in node.items))
    return evaluate(node, env)


_NOT_PICKED = object()


def _pick(base: Any, items: Sequence[Any], env: Env, span: Span, name: str,
          places: Sequence[Span]) -> Any:  # fmt: skip
    """A constant index into a list or tuple."""
    values = base.items if isinstance(base, TupleValue) else base
    first = items[0]
    place = places[0] if places else span
    if isinstance(first, float):
        first = whole(first, place, "an index")
    if not isinstance(first, int) or isinstance(first, bool):
        if isinstance(base, TupleValue):
            fail("E409", f"the index of `{name}` must be known while compiling", place,
                 describe(first), f"`{name}` holds different things")  # fmt: skip
        return _NOT_PICKED
    if not 0 <= first < len(values):
        found = f"index {first}"
        fail("E504", f"`{name}` has {_count(len(values), 'item', 'items')}", place, found,
             "indices count from 0 and never from the end")  # fmt: skip
    picked = values[first]
    rest = items[1:]
    return index_value(picked, rest, env, span, name, places[1:]) if rest else picked


def _count(number: Any, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


# ---------------------------------------------------------------- tensors


def index_tensor(
    base: Tensor, items: Sequence[Any], env: Env, span: Span, name: str = "this",
    places: Sequence[Span] = (),
) -> Any:  # fmt: skip
    """Index the element axes of a tensor; messages about an item point at its own place."""
    base, items = _with_edge(base, items, env, span)
    batched = bool(base.rest) and base.rest[0] == env.elab.batch
    base = _skip_batch(base, items, env)
    if len(items) > len(base.rest):
        spare = _grid_surplus(items)
        if len(items) + spare > len(base.rest) + spare or not base.rest:
            fail("E507", f"`{name}` has {_count(len(base.rest), 'axis', 'axes')}",
                 places[len(base.rest)] if places else span,
                 _count(len(items), "index", "indices"),
                 "the batch axis N is not mentioned" if batched else None)  # fmt: skip
    worker = _Indexing(base, env, span, name)
    for place, item in enumerate(items):
        worker.place = places[place] if places else span
        worker.take(item)
    return worker.finish()


def _with_edge(
    base: Tensor, items: Sequence[Any], env: Env, span: Span
) -> tuple[Tensor, Sequence[Any]]:
    """Where a read goes one step outside and an equation sets that step: the longer tensor."""
    edge = base.edge
    if edge is None or edge.place >= len(items):
        return base, items
    item = items[edge.place]
    if isinstance(item, LabelIndex):
        low, size = item.axis.low + item.offset, item.axis.size
    elif isinstance(item, ScanIndex):
        low, size = item.low + item.offset, item.size
    else:
        return base, items
    outside = low == -1 if edge.side < 0 else low + size - base.type.shape[edge.at] == 1
    if not outside:
        return base, items
    home = replace(env, builder=base.home)
    extra = Tensor(edge.value, base.home)
    parts = [extra, base] if edge.side < 0 else [base, extra]
    longer = t.emit(home, "concat", t.promote(home, parts, span), span, (), axis=edge.at)
    if edge.side > 0:
        return longer, items
    moved = replace(item, offset=item.offset + 1)
    return longer, [*items[: edge.place], moved, *items[edge.place + 1 :]]


def _grid_surplus(items: Sequence[Any]) -> int:
    return sum(
        len(x.axis.grid) - 1 for x in items if isinstance(x, LabelIndex) and x.axis.grid is not None
    )


def _skip_batch(base: Tensor, items: Sequence[Any], env: Env) -> Tensor:
    rest = base.rest
    if not rest or rest[0] != env.elab.batch or base.labels:
        return base
    first = items[0]
    if isinstance(first, LabelIndex) and first.axis.size == env.elab.batch:
        return base
    if isinstance(first, ScanIndex) and first.size == env.elab.batch:
        return base
    if len(items) + _grid_surplus(items) >= len(rest):
        return base
    return t.lift_batch(env, base)


class _Indexing:
    """Works through the items; ``axis`` is the element axis that the next item consumes."""

    def __init__(self, base: Tensor, env: Env, span: Span, name: str) -> None:
        self.tensor = base
        self.env = env
        self.span = span
        self.place = span  # of the item at hand, for messages
        self.name = name
        self.axis = 0
        self.fresh: list[tuple[int, Axis]] = []  # element axis -> label it becomes
        self.gathers: list[tuple[int, Tensor]] = []

    @property
    def offset(self) -> int:
        return len(self.tensor.labels)

    def size(self) -> DimLike:
        rest = self.tensor.rest
        if self.axis >= len(rest):
            fail("E507", f"`{self.name}` has {_count(len(rest), 'axis', 'axes')}", self.place,
                 "more indices are given")  # fmt: skip
        return rest[self.axis]

    def take(self, item: Any) -> None:
        env = self.env
        if isinstance(item, Whole):
            self.size()
            self.axis += 1
        elif isinstance(item, Slice):
            self._slice(item)
        elif isinstance(item, TupleValue):
            self._merged(item)
        elif isinstance(item, LabelIndex):
            self._label(item)
        elif isinstance(item, ScanIndex):
            self._step(item)
        else:
            if isinstance(item, RandomVariable):
                from .random_variables import need_finite

                need_finite(item.name, env, self.place)
            value = value_of(item, env, self.span)
            if isinstance(value, Tensor):
                self._gather(value)
            else:
                self._constant(whole(value, self.place, "an index"))

    # -------------------------------------------------------- kinds of items

    def _constant(self, index: DimLike) -> None:
        size = self.size()
        if isinstance(index, int) and (index < 0 or (isinstance(size, int) and index >= size)):
            hint = "indices count from 0 and never from the end"
            found = _count(size, "entry", "entries")
            fail("E504", f"`{self.name}` has {found} on this axis", self.place,
                 f"index {index}", hint)  # fmt: skip
        self._cut(index, index + 1)
        self._drop()

    def _slice(self, item: Slice) -> None:
        low = whole(item.low, item.span, "the start of a range")
        high = whole(item.high, item.span, "the end of a range")
        size = self.size()
        inside = all(not isinstance(x, int) or x >= 0 for x in (low, high - low, size - high))
        if not inside:
            fail("E504", f"`{self.name}` has {_count(size, 'entry', 'entries')} on this axis",
                 item.span, f"{low}..{high}")  # fmt: skip
        self._cut(low, high)
        self.axis += 1

    def _merged(self, item: TupleValue) -> None:
        """``(h, d)``: one axis that is both, row-major."""
        sizes = []
        for part in item.items:
            if not isinstance(part, LabelIndex) or part.offset != 0:
                fail("E508", "a merged axis names plain indices", self.place,
                     hint="`x[(h, d)]` walks one axis as h and d, row by row")  # fmt: skip
            sizes.append(part.axis.size)
        self._require(self.size(), product(sizes), "a merged axis")
        rest = list(self.tensor.rest)
        rest[self.axis : self.axis + 1] = sizes
        self._reshape(rest)
        for part in item.items:
            self._label(part)

    def _label(self, item: LabelIndex) -> None:
        axis = item.axis
        if axis.grid is not None:
            self._flatten_grid(axis.grid)
        size = self.size()
        taken = axis in self.tensor.labels or any(axis == other for _, other in self.fresh)
        low = axis.low + item.offset
        if taken:
            # A[i, i]: the second use gathers the diagonal.
            self._gather(value_of(item, self.env, self.span))
            return
        self._window(low, low + axis.size, size)
        self.fresh.append((self.axis, axis))
        self.axis += 1

    def _step(self, item: ScanIndex) -> None:
        """One step of a recurrence: slice when the tensor comes from outside, else gather."""
        region = item.home
        if self.tensor.home is region.builder or self.fresh or self.gathers or self.axis:
            self._gather(value_of(item, self.env, self.span))
            return
        low = item.low + item.offset
        outer = replace(self.env, builder=region.outer)
        worker = _Indexing(self.tensor, outer, self.span, self.name)
        worker._window(low, low + item.size, worker.size())
        key = (self.tensor.value, self.tensor.labels, self.axis, str(low))
        self.tensor = region.slice_axis(worker.tensor, key, self.env, self.span)

    def _gather(self, index: Tensor) -> None:
        env = self.env
        if index.grid is not None and index.rest:
            self._gather_position(index)
            return
        if index.dtype not in INTEGERS:
            fail("E104", "an index must be a whole number", self.place, str(index.type),
                 "cast it first: cast(i32)")  # fmt: skip
        self.size()
        if env.guard is not None and index.labels:
            # Where the guard is false the value is thrown away, so any valid index will do.
            index = t.elementwise(env, "where", [env.guard, index, 0], self.span)
        self.gathers.append((self.axis, index))
        self.axis += 1

    def _gather_position(self, index: Tensor) -> None:
        """A position gathers one axis for each of its coordinates."""
        env, span = self.env, self.span
        grid = index.grid
        assert grid is not None
        size = self.size()
        flat = compare(size, product(grid)) is True and size != grid[0]
        columns = []
        for place in range(len(grid)):
            start = [0] * index.type.rank
            stop = list(index.type.shape)
            start[-1], stop[-1] = place, place + 1
            cut = t.emit(env, "slice", [index], span, index.labels, starts=tuple(start),
                         stops=tuple(stop), steps=(1,) * len(stop))  # fmt: skip
            shape = tuple(axis.size for axis in index.labels)
            columns.append(t.emit(env, "reshape", [cut], span, index.labels, shape=shape))
        if flat:
            number: Any = columns[0]
            for extent, column in zip(grid[1:], columns[1:], strict=True):
                number = t.elementwise(env, "mul", [number, extent], span)
                number = t.elementwise(env, "add", [number, column], span)
            self._gather(number)
            return
        for column in columns:
            self._gather(column)

    # -------------------------------------------------------- moving data

    def _require(self, a: DimLike, b: DimLike, why: str) -> None:
        with collect_undecided():
            verdict = compare(a, b)
        if verdict is False:
            fail("E503", f"sizes of {why} do not agree", self.place, f"{a} and {b}")
        if verdict is None:
            self.env.elab.require_equal(a, b, why, self.place)

    def _flatten_grid(self, grid: Sequence[DimLike]) -> None:
        """Consecutive axes H, W become the one axis of their positions."""
        rest = list(self.tensor.rest)
        here = rest[self.axis : self.axis + len(grid)]
        if self.axis < len(rest) and compare(rest[self.axis], product(grid)) is True:
            return
        if len(here) < len(grid):
            fail("E507", f"`{self.name}` has no {len(grid)} axes for a position", self.place,
                 str(self.tensor.type))  # fmt: skip
        for a, b in zip(here, grid, strict=True):
            self._require(a, b, "a position")
        rest[self.axis : self.axis + len(grid)] = [product(grid)]
        self._reshape(rest)

    def _reshape(self, rest: Sequence[DimLike]) -> None:
        shape = (*(axis.size for axis in self.tensor.labels), *rest)
        labels, grid = self.tensor.labels, self.tensor.grid
        made = t.emit(self.env, "reshape", [self.tensor], self.span, labels, shape=shape)
        self.tensor = Tensor(made.value, made.home, labels, grid)

    def _window(self, low: DimLike, high: DimLike, size: DimLike) -> None:
        """Keep ``low..high`` of the current axis; one step outside reads zero."""
        before = -low if isinstance(low, int) and low < 0 else 0
        over = high - size
        after = over if isinstance(over, int) and over > 0 else 0
        if before > 1 or after > 1:
            fail("E505", f"`{self.name}` is read {max(before, after)} steps outside its range",
                 self.place, f"{low}..{high} of 0..{size}",
                 "one step outside reads zero; give the range with `for`")  # fmt: skip
        if before or after:
            rank = self.tensor.type.rank
            place = self.offset + self.axis
            self._pad(rank, place, before, after)
            low, high, size = low + before, high + before, size + before + after
        if low == 0 and isinstance(high, Dim) and not isinstance(over, int):
            # A symbolic range from zero is the whole axis; a part of it is given in numbers.
            self._require(high, size, f"the range over `{self.name}`")
        if low != 0 or compare(high, size) is not True:
            self._cut(low, high)

    def _pad(self, rank: int, place: int, before: int, after: int) -> None:
        front = tuple(before if i == place else 0 for i in range(rank))
        back = tuple(after if i == place else 0 for i in range(rank))
        self.tensor = t.emit(self.env, "pad", [self.tensor], self.span, self.tensor.labels,
                             before=front, after=back, value=0.0, mode="constant")  # fmt: skip

    def _cut(self, low: DimLike, high: DimLike) -> None:
        shape = list(self.tensor.type.shape)
        place = self.offset + self.axis
        if low == 0 and compare(high, shape[place]) is True:
            return
        count = high - low
        if isinstance(count, int) and count <= 0:
            fail("E106", f"`{self.name}` is read over an empty range", self.place,
                 f"{low}..{high}")  # fmt: skip
        starts = [0] * len(shape)
        stops = list(shape)
        starts[place], stops[place] = low, high  # type: ignore[call-overload]
        labels, grid = self.tensor.labels, self.tensor.grid
        made = t.emit(self.env, "slice", [self.tensor], self.span, labels, starts=tuple(starts),
                      stops=tuple(stops), steps=(1,) * len(shape))  # fmt: skip
        self.tensor = Tensor(made.value, made.home, labels, grid)

    def _drop(self) -> None:
        rest = list(self.tensor.rest)
        del rest[self.axis]
        self._reshape(rest)

    def finish(self) -> Tensor:
        """Bring new labels to the front and gather."""
        env, span = self.env, self.span
        tensor, grid = self.tensor, self.tensor.grid
        if self.fresh:
            count = self.offset
            moved = [count + place for place, _ in self.fresh]
            kept = [i for i in range(count, tensor.type.rank) if i not in moved]
            labels = (*tensor.labels, *(axis for _, axis in self.fresh))
            perm = (*range(count), *moved, *kept)
            if perm != tuple(range(tensor.type.rank)):
                tensor = t.emit(env, "transpose", [tensor], span, labels, perm=perm)
            tensor = Tensor(tensor.value, tensor.home, labels, grid)
        if not self.gathers:
            return _order(env, tensor, span)
        shift = [sum(1 for p, _ in self.fresh if p < place) for place, _ in self.gathers]
        places = [place - moved for (place, _), moved in zip(self.gathers, shift, strict=True)]
        return _gather(env, tensor, places, [index for _, index in self.gathers], span)


def _order(env: Env, tensor: Tensor, span: Span) -> Tensor:
    """The batch label first, as everywhere."""
    labels = t.union([tensor])
    return tensor if labels == tensor.labels else t.arrange(env, tensor, labels, span)


def _gather(
    env: Env, tensor: Tensor, places: Sequence[int], indices: Sequence[Tensor], span: Span
) -> Tensor:
    """``tensor`` at data-dependent indices; labels that both have are walked in step."""
    labels = t.union([tensor, *indices])
    own = [axis for axis in tensor.labels if any(axis in x.labels for x in indices)]
    alone = [axis for axis in tensor.labels if axis not in own]
    order = [*own, *alone]
    tensor = t.arrange(env, tensor, order, span)
    target = [axis for axis in labels if axis not in alone]
    operands = [t.numbers(env, axis, 0, span) for axis in own] + list(indices)
    operands = [t.cast(env, x, "i32", span) for x in operands]
    aligned = [t.arrange(env, x, target, span) for x in operands]
    axes = [*range(len(own)), *(len(order) + place for place in places)]
    home = t.same_home(env, tensor)
    made = t.emit(env, "gather", [home, *aligned], span, (), axes=tuple(axes))
    full = [axis.size for axis in target]
    result = Tensor(made.value, made.home, (*target, *alone), None)
    shape = result.type.shape
    wanted = (*full, *shape[len(target) :])
    if tuple(shape) != wanted:
        result = t.emit(env, "broadcast", [result], span, result.labels, shape=wanted)
    return t.arrange(env, result, labels, span)
