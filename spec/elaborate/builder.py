"""Building the graph: nodes with inferred types, weights with paths, regions with captures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.ir.dims import Dim, DimLike, collect_undecided, product, substitute
from ...compiler.ir.graph import Constraint, Graph, Value
from ...compiler.ir.types import DTYPES, AttrValue, Span, TensorType, bind_attr
from ...compiler.ops import OPS, OpError, infer
from .errors import fail
from .values import Instance

if TYPE_CHECKING:
    from .elaborator import Elaborator

SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "^", "mod": "%", "concat": "++",
         "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}  # fmt: skip
MAX_NODES = 30_000
MAX_TENSOR_BYTES = 1 << 40


@dataclass(frozen=True)
class Path:
    """Where weights go: labelled ones under ``base``, unlabelled ones under ``auto``."""

    base: str = ""
    auto: str = ""
    instance: Instance | None = None

    def level(self, name: str) -> Path:
        """One level down, opened by a label."""
        inner = join(self.base, name)
        return replace(self, base=inner, auto=inner)

    def position(self, number: int) -> Path:
        """One level down, opened by an element's position."""
        inner = join(self.auto, str(number))
        return replace(self, base=inner, auto=inner)

    def unlabelled(self, name: str) -> Path:
        """Labels stay where they are; unlabelled weights go under ``name``."""
        return replace(self, auto=join(self.auto, name))


def join(path: str, name: str) -> str:
    """Two parts of a weight path."""
    return f"{path}.{name}" if path and name else path or name


class GraphBuilder:
    """Adds checked nodes to one graph; :class:`Region` does so for a loop's body."""

    def __init__(self, elab: Elaborator, graph: Graph, parent: GraphBuilder | None = None) -> None:
        self.elab = elab
        self.graph = graph
        self.parent = parent
        self._adopted: dict[Value, Value] = {}
        self.captures: list[tuple[Value, Value]] = []

    # ------------------------------------------------------------ reading

    def type_of(self, value: Value) -> TensorType:
        """Type of a value, with solved sizes filled in."""
        return self.graph.type_of(value).bind(self.elab.solved)

    @property
    def root(self) -> GraphBuilder:
        """The builder of the whole model's graph."""
        return self.parent.root if self.parent is not None else self

    def local(self, value: Value, home: GraphBuilder) -> Value:
        """The value as seen in this graph: what belongs to an outer graph is captured."""
        if home is self:
            return value
        if self.parent is None:
            raise AssertionError("a value of an inner region cannot leave it")
        outer = self.parent.local(value, home)
        if outer not in self._adopted:
            kind = self.parent.type_of(outer)
            inner = self.graph.add_input(f"capture{len(self.captures)}", kind)
            self._adopted[outer] = inner
            self.captures.append((outer, inner))
        return self._adopted[outer]

    # ------------------------------------------------------------ building

    def emit(
        self,
        op: str,
        operands: Sequence[Value],
        attrs: Mapping[str, AttrValue] | None = None,
        span: Span | None = None,
        name: str = "",
    ) -> Any:
        """Add a node with inferred types: one Value, or a tuple of them.

        Sizes that must agree but cannot be compared yet become constraints, or are solved when
        they belong to an open size of a definition.
        """
        attrs = {key: _attr(value) for key, value in (attrs or {}).items()}
        attrs = {key: bind_attr(value, self.elab.solved) for key, value in attrs.items()}
        types = [self.type_of(value) for value in operands]
        try:
            with collect_undecided() as pairs:
                results = infer(op, types, attrs)
        except OpError as fault:
            raise_located(fault, span)
        for left, right in pairs:
            self.elab.require_equal(left, right, f"sizes in `{SIGNS.get(op, op)}`", span)
        for kind in results:
            self.elab.check_size(kind, "this result", span)
        index = self.graph.add(op, operands, attrs, results, name, span)
        self.elab.count_node(span)
        if len(results) == 1:
            return Value(index)
        return tuple(Value(index, place) for place in range(len(results)))

    def raw(
        self,
        op: str,
        operands: Sequence[Value],
        attrs: Mapping[str, AttrValue],
        types: Sequence[TensorType],
        span: Span | None = None,
        name: str = "",
        regions: Sequence[Graph] = (),
    ) -> tuple[Value, ...]:
        """Add a node whose types are given (loops, statements of probabilistic models)."""
        attrs = {key: _attr(value) for key, value in attrs.items()}
        index = self.graph.add(op, operands, attrs, types, name, span, regions)
        self.elab.count_node(span)
        return tuple(Value(index, place) for place in range(len(types)))

    def constant(self, value: Any, dtype: str, span: Span | None = None) -> Value:
        """A constant node from a number or nested lists."""
        return self.graph.add_constant(np.asarray(value, DTYPES[dtype]), dtype, span)

    def param(
        self,
        path: str,
        kind: TensorType,
        init: AttrValue,
        role: str,
        domain: str,
        span: Span | None,
    ) -> Value:
        """A weight; it lives in the model's graph and is captured by regions that read it."""
        root = self.root
        earlier = self.elab.weights.get(path)
        if earlier is not None:
            if earlier.type != kind:
                fail(
                    "E103",
                    f"shared weight `{path}` would need two shapes",
                    span,
                    f"{earlier.type} and {kind}",
                    labels=[(earlier.span, "first used here")],
                )
            if earlier.rehearsed and not self.elab.rehearsing:
                self.elab.weights[path] = replace(earlier, rehearsed=False)
            return self.local(earlier.value, root)
        self.elab.check_size(kind, f"the weight `{path}`", span)
        attrs: dict[str, AttrValue] = {
            "path": path, "init": init, "kind": role, "domain": domain,
        }  # fmt: skip
        value = root.raw("param", (), attrs, (kind,), span, path)[0]
        self.elab.weights[path] = Weight(value, kind, span, self.elab.rehearsing > 0)
        return self.local(value, root)


@dataclass(frozen=True)
class Weight:
    """A weight that exists already; ``rehearsed`` until it is made in earnest."""

    value: Value
    type: TensorType
    span: Span | None
    rehearsed: bool = False


class Region(GraphBuilder):
    """The body of a loop: carries, then sliced inputs, then captures."""

    def __init__(self, parent: GraphBuilder, name: str) -> None:
        super().__init__(parent.elab, Graph(name), parent)
        self.carries: list[Value] = []
        self.slices: list[tuple[Value, Value]] = []
        self._sliced: dict[object, Value] = {}

    def carry(self, name: str, kind: TensorType) -> Value:
        """Declare the next carry."""
        value = self.graph.add_input(name, kind)
        self.carries.append(value)
        return value

    def slice_of(self, stacked: Value, key: object) -> Value:
        """The current step of ``stacked`` (a value of the parent, steps on axis 0)."""
        if key not in self._sliced:
            assert self.parent is not None
            kind = self.parent.type_of(stacked)
            inner = self.graph.add_input(f"x{len(self.slices)}", kind.with_shape(kind.shape[1:]))
            self._sliced[key] = inner
            self.slices.append((stacked, inner))
        return self._sliced[key]

    def finish(self, results: Sequence[tuple[str, Value]]) -> None:
        """Set the outputs, drop what they do not need, and order the inputs as loops want them."""
        self.graph.outputs = list(results)
        self.graph.inputs = []
        self.graph.prune(keep=[value.node for value in self.carries])
        self.slices = [pair for pair in self.slices if pair[1].node in self.graph]
        self.captures = [pair for pair in self.captures if pair[1].node in self.graph]
        inner = [*self.carries, *(v for _, v in self.slices), *(v for _, v in self.captures)]
        self.graph.inputs = [value.node for value in inner]


class LayerBuilder:
    """What a layer's ``build`` sees: the graph, and where its weights go."""

    def __init__(self, builder: GraphBuilder, path: Path, span: Span, dtype: str) -> None:
        self.builder = builder
        self.graph = builder.graph
        self.path = path
        self.span = span
        self.dtype = dtype

    def type_of(self, value: Value) -> TensorType:
        """Type of a value."""
        return self.builder.type_of(value)

    def emit(
        self, op: str, operands: Sequence[Value], attrs: Mapping[str, AttrValue] | None = None
    ) -> Any:
        """Add a node at this layer's place."""
        name = self.path.auto if OPS[op].operands else ""
        return self.builder.emit(op, operands, attrs, self.span, name)

    def param(
        self,
        name: str,
        shape: Sequence[DimLike],
        init: AttrValue,
        kind: str = "weight",
        dtype: str | None = None,
    ) -> Value:
        """A weight of this layer."""
        path = join(self.path.auto, name)
        elab = self.builder.elab
        full = TensorType(dtype or self.dtype, tuple(substitute(d, elab.solved) for d in shape))
        instance = self.path.instance
        known = elab.weights.get(path)
        if known is not None and known.type != full and instance is not None:
            fail("E103", f"`{instance.name}` is used on two shapes, and its weights are shared",
                 instance.place, f"{path} is {known.type} and would be {full}",
                 "give each its own instance",
                 [(instance.first, "first used here"),
                  (instance.span, "defined here")])  # fmt: skip
        shared = instance is not None and path in instance.weights.keys() - instance.seen
        if known is not None and not shared and not known.rehearsed and not elab.rehearsing:
            elab.collision(path, self.span)
        value = self.builder.param(path, full, _attr(init), kind, "real", self.span)
        if instance is not None:
            instance.weights[path] = (value, full)
            if not elab.rehearsing:
                instance.seen.add(path)
        return value


def raise_located(fault: OpError, span: Span | None) -> None:
    """Turn an op's complaint into a diagnostic at ``span``."""
    fail(fault.code, fault.message, span, hint=fault.hint)


def _attr(value: Any) -> AttrValue:
    """Lists become tuples, so that attributes are immutable."""
    if isinstance(value, (list, tuple)):
        return tuple(_attr(item) for item in value)
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        return value.item()
    return value


def constraint(left: DimLike, right: DimLike, why: str, span: Span | None) -> Constraint:
    """The same record whichever side comes first."""
    a, b = sorted((left, right), key=str)
    return Constraint(a, b, why, span)


def size_text(kind: TensorType) -> str:
    """Bytes of a tensor in a readable unit, or its element count when symbolic."""
    elements = product(kind.shape)
    if isinstance(elements, Dim):
        return f"{elements} elements"
    size = float(elements) * kind.itemsize
    for unit in ("B", "KB", "MB", "GB", "TB", "PB"):
        if size < 1024 or unit == "PB":
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
