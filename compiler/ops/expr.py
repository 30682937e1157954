"""Graphs written as formulas: values with arithmetic, for gradients, expansions and optimisers.

An :class:`Expr` is a value of a graph under construction; ``a * b + 1`` adds nodes to it. A number
becomes a scalar of the other operand's element type. A :class:`Writer` adds the nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..ir.dims import DimLike, compare, product
from ..ir.graph import Graph, Value
from ..ir.types import FLOATS, Attrs, AttrValue, Span, TensorType
from .base import OPS, infer
from .control import WITH_REGION, region_result_types

Number = int | float


@dataclass(frozen=True)
class Writer:
    """Adds nodes to a graph, named ``name`` and placed at ``span``."""

    graph: Graph
    name: str = ""
    span: Span | None = None

    def emit(
        self,
        op: str,
        operands: Sequence[Value],
        attrs: Mapping[str, AttrValue] | None = None,
        regions: Sequence[Graph] = (),
    ) -> tuple[Value, ...]:
        """Add a node with types by its rule; its results."""
        types, attrs = [self.graph.type_of(value) for value in operands], attrs or {}
        if op in WITH_REGION:
            results = region_result_types(op, types, attrs, regions[0])
        else:
            results = infer(op, types, attrs)
        index = self.graph.add(op, operands, attrs, results, self.name, self.span, regions)
        return tuple(Value(index, place) for place in range(len(results)))

    def expr(self, value: Value) -> Expr:
        """A value as an expression."""
        return Expr(self, value)

    def fill(self, shape: Sequence[DimLike], value: Number, dtype: str) -> Expr:
        """A tensor of one value."""
        value = float(value) if dtype in FLOATS else value
        attrs = {"shape": tuple(shape), "value": value, "dtype": dtype}
        return Expr(self, self.emit("fill", (), attrs)[0])

    def size(self, size: DimLike, dtype: str) -> Expr:
        """A size as a number."""
        if isinstance(size, int):
            return self.fill((), size, dtype)
        return self.make("size_of", size=size, dtype=dtype)

    def make(self, op: str, **attrs: AttrValue) -> Expr:
        """The result of an op without operands (``iota``, ``eye``)."""
        return Expr(self, self.emit(op, (), attrs)[0])

    def loop(
        self, op: str, operands: Sequence[Expr], attrs: Attrs, region: Graph
    ) -> tuple[Expr, ...]:
        """The results of a loop."""
        values = self.emit(op, [x.value for x in operands], attrs, (region,))
        return tuple(Expr(self, value) for value in values)


@dataclass(frozen=True, eq=False)
class Expr:
    """A value of a graph; operators add nodes that read it."""

    writer: Writer
    value: Value

    # ------------------------------------------------------------ reading

    @property
    def type(self) -> TensorType:
        """The value's type."""
        return self.writer.graph.type_of(self.value)

    @property
    def shape(self) -> tuple[DimLike, ...]:
        """The value's shape."""
        return self.type.shape

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.type.rank

    @property
    def dtype(self) -> str:
        """The element type."""
        return self.type.dtype

    @property
    def number(self) -> Number | None:
        """The number behind a scalar known now."""
        node = self.writer.graph.node(self.value.node)
        if node.op == "fill":
            number = node.attrs["value"]
            return number if isinstance(number, (int, float)) else None
        if node.op == "constant":
            array = self.writer.graph.constant(self.value.node)
            return array.item() if array.size == 1 else None
        return None

    # ------------------------------------------------------------ ops

    def op(self, name: str, *others: Expr | Number, **attrs: AttrValue) -> Expr:
        """The first result of an op on this value and others."""
        return self.ops(name, *others, **attrs)[0]

    def ops(self, name: str, *others: Expr | Number, **attrs: AttrValue) -> tuple[Expr, ...]:
        """All results of an op on this value and others."""
        values = [self.value, *(self._like(other).value for other in others)]
        return tuple(Expr(self.writer, value) for value in self.writer.emit(name, values, attrs))

    def _like(self, other: Expr | Number) -> Expr:
        return other if isinstance(other, Expr) else self.writer.fill((), other, self.dtype)

    def filled(self, value: Number) -> Expr:
        """A tensor of one value with this type."""
        return self.writer.fill(self.shape, value, self.dtype)

    def __add__(self, other: Expr | Number) -> Expr:
        return self if isinstance(other, (int, float)) and other == 0 else self.op("add", other)

    def __radd__(self, other: Number) -> Expr:
        return self + other

    def __sub__(self, other: Expr | Number) -> Expr:
        return self.op("sub", other)

    def __rsub__(self, other: Number) -> Expr:
        return self._like(other).op("sub", self)

    def __mul__(self, other: Expr | Number) -> Expr:
        return self if isinstance(other, (int, float)) and other == 1 else self.op("mul", other)

    def __rmul__(self, other: Number) -> Expr:
        return self * other

    def __truediv__(self, other: Expr | Number) -> Expr:
        return self.op("div", other)

    def __rtruediv__(self, other: Number) -> Expr:
        return self._like(other).op("div", self)

    def __pow__(self, other: Expr | Number) -> Expr:
        return self.op("pow", other)

    def __matmul__(self, other: Expr) -> Expr:
        return self.op("matmul", other)

    def __neg__(self) -> Expr:
        return self.op("neg")

    def __gt__(self, other: Expr | Number) -> Expr:
        return self.op("gt", other)

    def __ge__(self, other: Expr | Number) -> Expr:
        return self.op("ge", other)

    def __lt__(self, other: Expr | Number) -> Expr:
        return self.op("lt", other)

    def __le__(self, other: Expr | Number) -> Expr:
        return self.op("le", other)

    def same(self, other: Expr | Number) -> Expr:
        """Where this equals the other."""
        return self.op("eq", other)

    def __and__(self, other: Expr) -> Expr:
        return self.op("and", other)

    def __or__(self, other: Expr) -> Expr:
        return self.op("or", other)

    def __invert__(self) -> Expr:
        return self.op("not")

    def where(self, a: Expr | Number, b: Expr | Number) -> Expr:
        """``a`` where this holds, else ``b``; at least one is a tensor."""
        like = a if isinstance(a, Expr) else b
        assert isinstance(like, Expr)
        return self.op("where", like._like(a), like._like(b))

    def exp(self) -> Expr:
        """E to the power of each element."""
        return self.op("exp")

    def log(self) -> Expr:
        """The natural logarithm."""
        return self.op("log")

    def log1p(self) -> Expr:
        """The logarithm of 1 + x."""
        return self.op("log1p")

    def sqrt(self) -> Expr:
        """The square root."""
        return self.op("sqrt")

    def square(self) -> Expr:
        """The square."""
        return self.op("square")

    def abs(self) -> Expr:
        """The absolute value."""
        return self.op("abs")

    def cast(self, dtype: str) -> Expr:
        """Another element type."""
        return self if dtype == self.dtype else self.op("cast", dtype=dtype)

    def maximum(self, other: Expr | Number) -> Expr:
        """The larger of two."""
        return self.op("maximum", other)

    def minimum(self, other: Expr | Number) -> Expr:
        """The smaller of two."""
        return self.op("minimum", other)

    # ------------------------------------------------------------ axes

    def reduce(self, kind: str, axes: Sequence[int] | None = None, keepdims: bool = False) -> Expr:
        """All elements along axes joined (all axes by default)."""
        axes = tuple(range(self.rank)) if axes is None else tuple(a % self.rank for a in axes)
        return self.op("reduce", kind=kind, axes=axes, keepdims=keepdims) if axes else self

    def sum(self, axes: Sequence[int] | None = None, keepdims: bool = False) -> Expr:
        """The sum along axes."""
        return self.reduce("sum", axes, keepdims)

    def mean(self, axes: Sequence[int] | None = None, keepdims: bool = False) -> Expr:
        """The mean along axes."""
        return self.reduce("mean", axes, keepdims)

    def reshape(self, shape: Sequence[DimLike]) -> Expr:
        """The same elements under another shape."""
        shape = tuple(shape)
        return self if shape == self.shape else self.op("reshape", shape=shape)

    def unsqueeze(self, *axes: int) -> Expr:
        """New axes of size 1 at places counted in the result."""
        shape = list(self.shape)
        for axis in sorted(axes):
            shape.insert(axis, 1)
        return self.reshape(shape)

    def broadcast(self, shape: Sequence[DimLike]) -> Expr:
        """Repeated to a shape."""
        shape = tuple(shape)
        return self if shape == self.shape else self.op("broadcast", shape=shape)

    def transpose(self, perm: Sequence[int]) -> Expr:
        """Axes in another order."""
        order = tuple(perm)
        return self if order == tuple(range(self.rank)) else self.op("transpose", perm=order)

    @property
    def T(self) -> Expr:
        """The last two axes swapped."""
        return self.moved(self.rank - 1, self.rank - 2)

    def flip(self, axis: int) -> Expr:
        """Elements along an axis in reverse order."""
        return self.op("flip", axes=(axis,))

    def moved(self, axis: int, to: int) -> Expr:
        """One axis moved to another place."""
        order = [a for a in range(self.rank) if a != axis]
        order.insert(to, axis)
        return self.transpose(order)

    def slice(self, axis: int, start: DimLike, stop: DimLike, step: int = 1) -> Expr:
        """Part of one axis."""
        starts, stops, steps = [0] * self.rank, list(self.shape), [1] * self.rank
        starts[axis], stops[axis], steps[axis] = start, stop, step  # type: ignore[call-overload]
        return self.op("slice", starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))

    def pad(self, before: Sequence[DimLike], after: Sequence[DimLike], value: Number = 0) -> Expr:
        """Elements of one value added around each axis."""
        how = {"before": tuple(before), "after": tuple(after), "value": value, "mode": "constant"}
        return self.op("pad", **how) if any((*how["before"], *how["after"])) else self  # type: ignore[arg-type]

    def concat(self, *others: Expr, axis: int) -> Expr:
        """Joined with others along an axis."""
        return self.op("concat", *others, axis=axis)

    def contract(self, spec: str, *others: Expr) -> Expr:
        """A sum of products, written like einsum."""
        return self.op("contract", *others, semiring="sum_product", spec=spec)

    def count(self, axes: Sequence[int] | None = None) -> Expr:
        """How many elements lie along axes, as a scalar of the element type."""
        chosen = range(self.rank) if axes is None else axes
        return self.writer.size(product(self.shape[axis] for axis in chosen), self.dtype)

    def spread(self, like: Expr, axes: Sequence[int], keepdims: bool) -> Expr:
        """What a reduction of ``like`` along ``axes`` gave, with sizes of 1 at those axes."""
        return self if keepdims or not axes else self.unsqueeze(*axes)

    def sum_to(self, shape: Sequence[DimLike]) -> Expr:
        """Summed over what broadcasting from ``shape`` repeated."""
        lead = self.rank - len(shape)
        kept = self.sum(range(lead)) if lead else self
        axes = [
            axis
            for axis, (a, b) in enumerate(zip(kept.shape, shape, strict=True))
            if b == 1 and a != 1
        ]
        return kept.sum(axes, keepdims=True)

    def per_channel(self, like: Expr, axis: int = 1) -> Expr:
        """A vector with axes of size 1 after it, to broadcast along ``axis`` of ``like``."""
        return self.reshape((*self.shape, *(1,) * (like.rank - axis - 1)))


@dataclass(frozen=True)
class How:
    """Choices in differentiating loops.

    ``recompute``: the backward run computes each step again from its carries and stores nothing
    else. ``truncate``: gradients of a recurrence go back over at most that many steps, in blocks
    (truncated back-propagation through time; Williams and Peng, Neural Computation 1990).
    """

    recompute: bool = False
    truncate: int | None = None


@dataclass(frozen=True)
class Pullback:
    """What a gradient is given: operands, results and cotangents of one node.

    ``needs`` tells which operands' cotangents are asked for; others may be ``None``. ``pull``
    differentiates nodes that the gradient added itself; see :meth:`through`.
    """

    writer: Writer
    x: tuple[Expr, ...]
    y: tuple[Expr, ...]
    dy: tuple[Expr | None, ...]
    attrs: Attrs
    needs: tuple[bool, ...]
    index: int
    pull: Any
    how: How
    origins: tuple[Expr, ...] = ()

    @property
    def d(self) -> Expr:
        """The cotangent of the first result."""
        return self.cotangent(0)

    def cotangent(self, place: int) -> Expr:
        """The cotangent of a result; zeros if nothing depends on it."""
        found = self.dy[place]
        return self.y[place].filled(0) if found is None else found

    def apart(self) -> Pullback:
        """The same with operands that stand for themselves: one given twice counts twice."""
        fresh = tuple(x.op("stop_gradient") for x in self.x)
        return replace(self, x=fresh, origins=self.x)

    def through(self, results: Sequence[Expr]) -> list[Expr | None]:
        """The operands' cotangents through nodes that compute the same results from them.

        Only for operands made by :meth:`apart`, whose stand-ins it takes away.
        """
        seeds = {
            made.value: d.value for made, d in zip(results, self.dy, strict=True) if d is not None
        }
        wanted = [x.value for x, need in zip(self.x, self.needs, strict=True) if need]
        found = iter(self.pull(self.writer, seeds, wanted))
        values = [next(found) if need else None for need in self.needs]
        origin = {x.value: source.value for x, source in zip(self.x, self.origins, strict=True)}
        graph = self.writer.graph
        for stand_in, source in origin.items():
            graph.replace_uses(stand_in, source)
            graph.remove(stand_in.node)
        kept = [None if v is None else origin.get(v, v) for v in values]
        return [None if v is None else Expr(self.writer, v) for v in kept]

    def through_expansion(self) -> list[Expr | None]:
        """The operands' cotangents through the op's expansion."""
        expansion = OPS[self.writer.graph.node(self.index).op].expansion
        assert expansion is not None
        apart = self.apart()
        made = expansion(apart.x, self.attrs)
        return apart.through([made] if isinstance(made, Expr) else made)


def same_shape(a: Sequence[DimLike], b: Sequence[DimLike]) -> bool:
    """Whether two shapes can be equal."""
    return len(a) == len(b) and all(compare(m, n) is not False for m, n in zip(a, b, strict=True))
