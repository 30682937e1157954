"""Gaussian kernels over all pairs as filters: exact, along a grid's axes, or on a lattice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.graph import Graph, Value
from ..ir.types import DTYPES
from ..ops.fields import lattice_gain
from .pairwise import Bell, Leaf, Reader, Term, same
from .statements import BATCH
from .tables import Emitter, Table

EXACT_POINTS = 4096
"""Points up to which all pairs are summed; beyond it filters are approximated."""


@dataclass
class Filters:
    """Filters values ``[batch.., points, channels]``; each lattice is built once.

    ``constant`` gives the array behind a value that depends on no input, as in ``Answers``.
    """

    emit: Emitter
    constant: Callable[[Value], np.ndarray | None]
    engine: str
    dtype: str
    batch: tuple[Any, ...] = ()
    _features: list[tuple[tuple[Bell, ...], Value]] = field(default_factory=list)
    _lattices: dict[Value, tuple[Value, ...]] = field(default_factory=dict)
    _own: dict[Value, Value] = field(default_factory=dict)
    _grids: dict[Value, tuple[tuple[int, ...], tuple[float, ...]] | None] = field(
        default_factory=dict
    )

    def apply(self, bells: Sequence[Bell], values: Value) -> Value:
        """``sum_j k(i, j) v_j`` over all j, i itself included with weight 1."""
        features = self._joined(tuple(bells))
        shape = self.emit.type_of(values).shape
        if self.engine == "exact":
            return self.emit.emit("gauss_filter", [self._batched(features), values])
        grid = self._grid(features)
        if grid is not None:
            sizes, sigmas = grid
            laid = self.emit.reshape(values, (*shape[:-2], *sizes, shape[-1]))
            made = self.emit.emit("gauss_grid_filter", [laid], sigmas=sigmas)
            return self.emit.reshape(made, shape)
        if features not in self._lattices:
            self._lattices[features] = self._built(self._batched(features))
        return self.emit.emit("lattice_filter", [values, *self._lattices[features]], reverse=False)

    def own(self, bells: Sequence[Bell]) -> Value | None:
        """The weight ``[batch.., points, 1]`` with which a point counts itself; None where 1.

        On a lattice ``gain * w^T B w`` with B what the blur carries between corners of a simplex:
        m steps one way or d + 1 - m the other, each by a half. Corners that are not there would
        lessen it.
        """
        features = self._joined(tuple(bells))
        if features not in self._lattices:
            return None
        if features not in self._own:
            self._own[features] = self._weight_of_itself(self._lattices[features][1])
        return self._own[features]

    def _weight_of_itself(self, weight: Value) -> Value:
        emit, shape = self.emit, self.emit.type_of(weight).shape
        corners: Any = shape[-1]
        apart = np.abs(np.subtract.outer(np.arange(corners), np.arange(corners)))
        steps = 0.5**apart + np.where(apart, 0.5 ** (corners - apart), 2 * 0.5**corners)
        carried = steps * lattice_gain(corners - 1)
        square = emit.graph.add_constant(carried.astype(DTYPES[self.dtype]), self.dtype)
        rows = "np"[3 - len(shape) :]
        moved = emit.emit("contract", [weight, square], semiring="sum_product",
                          spec=f"{rows}k,kl->{rows}l")  # fmt: skip
        product = emit.emit("mul", [moved, weight])
        return emit.emit("reduce", [product], kind="sum", axes=(len(shape) - 1,), keepdims=True)

    def spread(self, table: Table, axis: str) -> Value:
        """A tensor over one pixel index as ``[batch.., points, 1]``."""
        axes = (*((BATCH,) if self.batch else ()), axis)
        value = self.plain(table)
        shape = self.emit.type_of(value.value).shape
        self.emit.sizes.update(zip(value.axes, shape, strict=True))
        made = self.cast(self.emit.arrange(value, axes))
        return self.emit.reshape(made, (*self.emit.type_of(made).shape, 1))

    def cast(self, value: Value) -> Value:
        """A value in the type that filters compute in."""
        if self.emit.type_of(value).dtype == self.dtype:
            return value
        return self.emit.emit("cast", [value], dtype=self.dtype)

    def plain(self, table: Table) -> Table:
        """A table without axes of size 1 that have no name."""
        shape = self.emit.type_of(table.value).shape
        named = [(a, d) for a, d in zip(table.axes, shape, strict=True) if a is not None]
        value = self.emit.reshape(table.value, [d for _, d in named])
        return Table(value, tuple(a for a, _ in named))

    # ------------------------------------------------------------ features

    def _joined(self, bells: tuple[Bell, ...]) -> Value:
        """Features in units of their widths, side by side; the same ones are made once."""
        for known, value in self._features:
            if len(known) == len(bells) and all(
                a.width == b.width and same(self.emit.graph, a.left.value, b.left.value)
                for a, b in zip(known, bells, strict=True)
            ):
                return value
        parts = []
        for bell in bells:
            table = self.plain(bell.left)
            value = self.cast(table.value)
            scale = self.emit.number(1 / bell.width, self.dtype)
            parts.append((self.emit.emit("mul", [value, scale]), BATCH in table.axes))
        if any(batched for _, batched in parts):
            parts = [(self._batched(value), True) for value, _ in parts]
        values = [value for value, _ in parts]
        joined = values[0]
        if len(values) > 1:
            axis = self.emit.type_of(joined).rank - 1
            joined = self.emit.emit("concat", values, axis=axis)
        self._features.append((bells, joined))
        return joined

    def _batched(self, features: Value) -> Value:
        shape = self.emit.type_of(features).shape
        if len(shape) == 2 + len(self.batch):
            return features
        return self.emit.emit("broadcast", [features], shape=(*self.batch, *shape))

    def _built(self, features: Value) -> tuple[Value, ...]:
        node = self.emit.emit("lattice", [features]).node
        return tuple(Value(node, place) for place in range(4))

    def _grid(self, features: Value) -> tuple[tuple[int, ...], tuple[float, ...]] | None:
        """Sizes and standard deviations where features are the positions of a grid."""
        if features not in self._grids:
            array = self.constant(features)
            found = None if array is None or array.ndim != 2 else grid_of(array)
            self._grids[features] = found
        return self._grids[features]


def grid_of(features: np.ndarray) -> tuple[tuple[int, ...], tuple[float, ...]] | None:
    """The sizes of a row-major grid of points, and one over its spacing along each axis."""
    columns = [np.unique(column) for column in features.T]
    sizes = tuple(len(column) for column in columns)
    if np.prod(sizes) != len(features) or len(features) == 0:
        return None
    sigmas = []
    for column in columns:
        steps = np.diff(column)
        # Steps of rounded multiples differ in the last bits.
        if len(steps) and np.ptp(steps) > 1e-4 * steps[0]:
            return None
        sigmas.append(float(len(steps) / (column[-1] - column[0])) if len(steps) else 1.0)
    laid = np.stack(np.meshgrid(*columns, indexing="ij"), axis=-1).reshape(features.shape)
    return (sizes, tuple(sigmas)) if np.array_equal(laid, features) else None


def expand_sums(graph: Graph, filters_for: Callable[[tuple[Any, ...], Any], Filters]) -> None:
    """Sums of Gaussians over all points become filters; they normalise kernels.

    sum{j} gauss(f[i] - f[j], width) * b[j]   ->   gauss_filter(f / width, b)

    ``filters_for(batch, points)`` gives the filters to use.
    """
    for index, node in list(graph.nodes()):
        found = _sum_over_pairs(graph, index, node)
        if found is None:
            continue
        operands, batch, points = found
        filters = filters_for(batch, points)
        made = _summed(graph, filters, operands, points)
        if made is not None:
            kept = filters.emit.reshape(made, node.type.shape)
            if graph.type_of(kept).dtype != node.type.dtype:
                kept = filters.emit.emit("cast", [kept], dtype=node.type.dtype)
            graph.replace_uses(Value(index), kept)


Named = tuple[Value, tuple[str, ...]]


def _sum_over_pairs(
    graph: Graph, index: int, node: Any
) -> tuple[list[Named], tuple[Any, ...], Any] | None:
    """The factors of ``sum{j} value[i, j]``, with a batch perhaps; its batch and its points."""
    operands, attrs = graph.operands(index), node.attrs
    if node.op == "reduce" and attrs["kind"] == "sum" and len(attrs["axes"]) == 1:
        rank = graph.type_of(operands[0]).rank
        letters = ["".join(map(str, range(rank)))]
        kept = "".join(c for c in letters[0] if c != str(attrs["axes"][0]))
        if attrs["keepdims"] or rank > 3:
            return None
    elif node.op == "contract" and attrs["semiring"] == "sum_product":
        left, _, kept = str(attrs["spec"]).partition("->")
        letters = left.split(",")
    else:
        return None
    (*lead,) = kept[:-1]
    gone = set("".join(letters)) - set(kept)
    if len(gone) != 1 or not 1 <= len(kept) <= 2 or any(len(set(x)) < len(x) for x in letters):
        return None
    title = {**dict.fromkeys(lead, BATCH), kept[-1]: "i", next(iter(gone)): "j"}
    named = [(v, tuple(title[c] for c in own)) for v, own in zip(operands, letters, strict=True)]
    sizes = {n: d for v, own in named for n, d in zip(own, graph.type_of(v).shape, strict=True)}
    if sizes["i"] != sizes["j"]:
        return None
    return named, tuple(sizes[BATCH] for _ in lead), sizes["i"]


def _summed(graph: Graph, filters: Filters, operands: Sequence[Named], points: Any) -> Value | None:
    """The sum over j of a kernel; None where it is not made of Gaussians."""
    terms, others = [Term()], False
    for value, names in operands:
        inner, itself = _without_itself(graph, value)
        others = others or not itself
        lead = names[len(names) - graph.type_of(inner).rank :]
        found = Reader(graph, "i", "j").terms(inner, lead)
        if found is None:
            return None
        terms = [a.times(b) for a in terms for b in found]
    if not all(_is_kernel(graph, term) for term in terms):
        return None
    total = None
    for term in terms:
        ones = filters.emit.emit("fill", [], shape=(*filters.batch, points, 1), value=1.0,
                                 dtype=filters.dtype)  # fmt: skip
        made = weighted(filters, term, ("i", "j"), ones, others)
        total = made if total is None else filters.emit.emit("add", [total, made])
    return total


def weighted(
    filters: Filters, term: Term, pixels: tuple[str, str], values: Value, others: bool
) -> Value:
    """``number * scalars_i * a_i * sum_j k(i, j) b_j v_j``; of ``others`` only, without j = i."""
    emit, (i, j) = filters.emit, pixels
    right = [_factor(filters, leaf, j) for leaf in term.over(lambda axes: axes == {j})]
    left = [_factor(filters, leaf, i) for leaf in term.over(lambda axes: axes == {i})]
    single = [_scalar(filters, leaf) for leaf in term.over(lambda axes: not axes)]
    for factor in right:
        values = emit.emit("mul", [values, factor])
    made = filters.apply(term.bells, values)
    if others:
        weight = filters.own(term.bells)
        itself = values if weight is None else emit.emit("mul", [values, weight])
        made = emit.emit("sub", [made, itself])
    for factor in left:
        made = emit.emit("mul", [made, factor])
    for factor in single:
        made = emit.emit("mul", [made, factor])
    if term.number != 1:
        made = emit.emit("mul", [made, emit.number(term.number, filters.dtype)])
    return made


def _factor(filters: Filters, leaf: Leaf, axis: str) -> Value:
    return _inverted(filters, filters.spread(leaf.table, axis), leaf)


def _scalar(filters: Filters, leaf: Leaf) -> Value:
    table = filters.plain(leaf.table)
    value = filters.cast(table.value)
    if table.axes:
        value = filters.emit.reshape(value, (*filters.batch, 1, 1))
    return _inverted(filters, value, leaf)


def _inverted(filters: Filters, value: Value, leaf: Leaf) -> Value:
    if not leaf.inverse:
        return value
    return filters.emit.emit("div", [filters.emit.number(1.0, filters.dtype), value])


def _without_itself(graph: Graph, value: Value) -> tuple[Value, bool]:
    """What stands behind ``where(i != j, value, 0)``, and whether i itself counts."""
    node = graph.node(value.node)
    if node.op != "where":
        return value, True
    condition, inner, other = graph.operands(value.node)
    if graph.node(condition.node).op != "ne" or not _is_zero(graph, other):
        return value, True
    sides = graph.operands(condition.node)
    counted = [_position(graph, side) for side in sides]
    return (inner, False) if None not in counted and counted[0] != counted[1] else (value, True)


def _position(graph: Graph, value: Value) -> int | None:
    """The axis (from the last) along which a value counts from 0."""
    shape = graph.type_of(value).shape
    places = [place for place, size in enumerate(reversed(shape)) if size != 1]
    while graph.node(value.node).op == "reshape":
        (value,) = graph.operands(value.node)
    return places[0] if graph.node(value.node).op == "iota" and len(places) == 1 else None


def _is_zero(graph: Graph, value: Value) -> bool:
    node = graph.node(value.node)
    if node.op == "constant":
        return not graph.constant(value.node).any()
    return node.op == "fill" and node.attrs["value"] == 0


def _is_kernel(graph: Graph, term: Term) -> bool:
    return is_symmetric(graph, term) and all(x.over in ({"i"}, {"j"}, set()) for x in term.leaves)


def is_symmetric(graph: Graph, term: Term) -> bool:
    """Whether a term has Gaussians, each of one feature's differences."""
    return bool(term.bells) and all(
        same(graph, bell.left.value, bell.right.value) for bell in term.bells
    )
