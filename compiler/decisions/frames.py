"""Known values of a graph and of a loop's body, whole or cut to a part of one axis.

A rule such as ``clamp(s + step[a])`` over ten million states is never computed for all of them at
once: it is asked for the states ``first .. last``, and the question travels through the ops down to
the counters that number the states. An op that cannot pass the question on is computed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from ..interpret import run_node
from ..ir.graph import Graph, Node, Value
from ..ir.types import DTYPES
from ..ops.base import OPS, as_arrays
from ..ops.contract import parse_spec
from .picking import gathered, laid_along

SMALL = 1 << 20
"""Bytes of an array that is not worth computing twice."""


@dataclass(frozen=True)
class Cut:
    """The part ``first .. last - 1`` of an axis."""

    axis: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Elements along the axis."""
        return self.last - self.first

    def of(self, array: np.ndarray) -> np.ndarray:
        """The part of a whole array; an axis of size 1 is broadcast and stays."""
        if array.shape[self.axis] == 1:
            return array
        return array[(slice(None),) * self.axis + (slice(self.first, self.last),)]

    def shape(self, whole: Sequence[int]) -> tuple[int, ...]:
        """The shape of the part."""
        return (*whole[: self.axis], self.size, *whole[self.axis + 1 :])


@dataclass
class Frame:
    """A graph with known sizes whose inputs are arrays, or values of the graph around it.

    ``outer`` and ``captures`` (by input node) belong to a loop's body.
    """

    graph: Graph
    feeds: Mapping[str, np.ndarray] = field(default_factory=dict)
    outer: Frame | None = None
    captures: Mapping[int, Value] = field(default_factory=dict)
    _whole: dict[Value, np.ndarray] = field(default_factory=dict, repr=False)
    _passing: dict[Value, np.ndarray] = field(default_factory=dict, repr=False)
    _depth: int = 0
    _parts: dict[tuple[Value, Cut], np.ndarray] = field(default_factory=dict, repr=False)

    def forget_parts(self) -> None:
        """Drop what was kept of the parts asked for so far."""
        self._parts.clear()
        if self.outer is not None:
            self.outer.forget_parts()

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a value."""
        return tuple(int(size) for size in self.graph.type_of(value).shape)  # type: ignore[arg-type]

    def get(self, value: Value, cut: Cut | None = None) -> np.ndarray:
        """A value, or its part."""
        if cut is None:
            return self._get_whole(value)
        if value in self._whole:
            return cut.of(self._whole[value])
        key = (value, cut)
        if key not in self._parts:
            self._parts[key] = self._part(value, cut)
        return self._parts[key]

    # ------------------------------------------------------------ helpers

    def _get_whole(self, value: Value) -> np.ndarray:
        """A whole value. What it is computed from on the way is kept only where it is small."""
        for known in (self._whole, self._passing):
            if value in known:
                return known[value]
        self._depth += 1
        array = self._compute(value)
        self._depth -= 1
        kept = self._whole if self._depth == 0 or array.nbytes <= SMALL else self._passing
        kept[value] = array
        if self._depth == 0:
            self._passing.clear()
        return array

    def _compute(self, value: Value) -> np.ndarray:
        node = self.graph.node(value.node)
        if node.op == "input":
            return self._input(value, node, None)
        if node.op == "constant":
            return self.graph.constant(value.node).astype(DTYPES[node.type.dtype], copy=False)
        arrays = [self.get(operand) for operand in self.graph.operands(value.node)]
        return run_node(self.graph, value.node, arrays)[value.result]

    def _input(self, value: Value, node: Node, cut: Cut | None) -> np.ndarray:
        if self.outer is not None:
            return self.outer.get(self.captures[value.node], cut)
        array = np.asarray(self.feeds[node.name])
        return array if cut is None else cut.of(array)

    def _part(self, value: Value, cut: Cut) -> np.ndarray:
        node = self.graph.node(value.node)
        if node.op == "input":
            return self._input(value, node, cut)
        operands = self.graph.operands(value.node)
        shapes = [self.shape(operand) for operand in operands]
        found = part_rule(node, shapes, self.shape(value), cut)
        if found is None:
            return cut.of(self.get(value))
        attrs, cuts = found
        arrays = [self.get(v, c) for v, c in zip(operands, cuts, strict=True)]
        if node.op == "iota":
            return np.arange(cut.first, cut.last, dtype=DTYPES[node.type.dtype])
        reference = gathered if node.op == "gather" else OPS[node.op].reference
        assert reference is not None
        result = as_arrays(reference(*arrays, **attrs))[0]
        return laid_along(result.astype(DTYPES[node.type.dtype], copy=False), cut.axis)


Rule = tuple[dict[str, Any], list["Cut | None"]]


def part_rule(
    node: Node, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...], cut: Cut
) -> Rule | None:
    """Attributes and cuts of the operands that give a part; ``None`` when an op cannot be cut."""
    if node.op in OPS and OPS[node.op].batching == "elementwise" and len(node.types) == 1:
        return dict(node.attrs), [broadcast_cut(s, shape, cut) for s in shapes]
    rule = _RULES.get(node.op)
    return None if rule is None else rule(dict(node.attrs), shapes, shape, cut)


def broadcast_cut(source: tuple[int, ...], shape: tuple[int, ...], cut: Cut) -> Cut | None:
    """The cut of an operand that broadcasts; ``None`` where it is the same all along."""
    axis = cut.axis - (len(shape) - len(source))
    if axis < 0 or source[axis] == 1:
        return None
    return replace(cut, axis=axis)


def reshape_cut(source: tuple[int, ...], target: tuple[int, ...], cut: Cut) -> Cut | None:
    """The part of ``source`` with the elements of a part of ``target``, if it is one."""
    outside, inside = prod(target[: cut.axis]), prod(target[cut.axis + 1 :])
    for axis, size in enumerate(source):
        step = prod(source[axis + 1 :])
        if size == 1 or prod(source[:axis]) != outside:
            continue
        same = size * step == target[cut.axis] * inside
        first, last = cut.first * inside, cut.last * inside
        if same and first % step == 0 and last % step == 0:
            return Cut(axis, first // step, last // step)
        return None
    return None


def _reshape(attrs: dict, shapes: Any, shape: tuple[int, ...], cut: Cut) -> Rule | None:
    inner = reshape_cut(shapes[0], shape, cut)
    return None if inner is None else (attrs | {"shape": cut.shape(shape)}, [inner])


def _transpose(attrs: dict, shapes: Any, shape: tuple[int, ...], cut: Cut) -> Rule:
    return attrs, [replace(cut, axis=attrs["perm"][cut.axis])]


def _concat(attrs: dict, shapes: Any, shape: tuple[int, ...], cut: Cut) -> Rule | None:
    if attrs["axis"] % len(shape) == cut.axis:
        return None
    return attrs, [cut] * len(shapes)


def _slice(attrs: dict, shapes: Any, shape: tuple[int, ...], cut: Cut) -> Rule | None:
    starts, stops, steps = (list(attrs[name]) for name in ("starts", "stops", "steps"))
    if steps[cut.axis] != 1:
        return None
    start = starts[cut.axis]
    starts[cut.axis], stops[cut.axis] = 0, cut.size
    inner = Cut(cut.axis, start + cut.first, start + cut.last)
    return attrs | {"starts": tuple(starts), "stops": tuple(stops)}, [inner]


def _broadcast(attrs: dict, shapes: Any, shape: tuple[int, ...], cut: Cut) -> Rule:
    return attrs | {"shape": cut.shape(shape)}, [broadcast_cut(shapes[0], shape, cut)]


def _fill(attrs: dict, shapes: Any, shape: tuple[int, ...], cut: Cut) -> Rule:
    return attrs | {"shape": cut.shape(shape)}, []


def _iota(attrs: dict, shapes: Any, shape: tuple[int, ...], cut: Cut) -> Rule:
    return attrs, []


def _reduced(attrs: dict, shapes: Any, shape: tuple[int, ...], cut: Cut) -> Rule:
    axes = attrs["axes"] if "axes" in attrs else (attrs["axis"],)
    return attrs, [replace(cut, axis=kept_axis(cut.axis, axes, len(shapes[0]), attrs["keepdims"]))]


def kept_axis(axis: int, axes: Sequence[int], rank: int, keepdims: bool) -> int:
    """The axis of a reduction's operand that is ``axis`` of its result."""
    if keepdims:
        return axis
    gone = {a % rank for a in axes}
    return [a for a in range(rank) if a not in gone][axis]


def _gather(attrs: dict, shapes: Any, shape: tuple[int, ...], cut: Cut) -> Rule | None:
    source, indices = shapes[0], shapes[1:]
    joined = np.broadcast_shapes(*indices)
    if cut.axis < len(joined):
        return attrs, [None, *(broadcast_cut(s, joined, cut) for s in indices)]
    gathered = {a % len(source) for a in attrs["axes"]}
    rest = [a for a in range(len(source)) if a not in gathered]
    return attrs, [replace(cut, axis=rest[cut.axis - len(joined)]), *([None] * len(indices))]


def _contract(attrs: dict, shapes: Any, shape: tuple[int, ...], cut: Cut) -> Rule | None:
    inputs, output = parse_spec(attrs["spec"], len(shapes))
    letter = output[cut.axis]
    if any(part.count(letter) > 1 for part in inputs):
        return None
    return attrs, [
        replace(cut, axis=part.index(letter)) if letter in part else None for part in inputs
    ]


_RULES: dict[str, Callable[..., Rule | None]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "slice": _slice,
    "broadcast": _broadcast,
    "fill": _fill,
    "iota": _iota,
    "reduce": _reduced,
    "argmax": _reduced,
    "argmin": _reduced,
    "gather": _gather,
    "contract": _contract,
}
