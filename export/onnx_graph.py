"""An ONNX graph under construction, as plain records that need no ONNX package.

A rule (see :data:`RULES`) turns one node into :class:`Call` records. Tensors are known by name:
inputs, outputs and weights by their own, all others by ``%`` and a number, which no path contains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NoReturn

import numpy as np

from ..compiler.ir.dims import Dim, DimLike
from ..compiler.ir.graph import Graph, Node, Value, content_hash
from ..compiler.ir.types import DTYPES, TensorType
from ..compiler.ops.base import OpError

ELEMENT_TYPES = {
    "f32": 1, "u8": 2, "i8": 3, "i32": 6, "i64": 7, "bool": 9, "f16": 10, "f64": 11, "u64": 13,
}  # fmt: skip
"""``TensorProto.DataType`` by our name."""

INT64_MIN, INT64_MAX = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class Call:
    """One ONNX node; an attribute may be a :class:`Body`."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    label: str = ""


@dataclass
class Body:
    """One ONNX graph: named and typed inputs and outputs, calls in order."""

    name: str
    inputs: list[tuple[str, TensorType]] = field(default_factory=list)
    outputs: list[tuple[str, TensorType]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


@dataclass(frozen=True)
class Site:
    """One node where it stands: the names and types of what it reads."""

    index: int
    node: Node
    x: tuple[str, ...]
    kinds: tuple[TensorType, ...]

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The node's attributes."""
        return self.node.attrs

    @property
    def kind(self) -> TensorType:
        """The type of the first operand."""
        return self.kinds[0]

    @property
    def result(self) -> TensorType:
        """The type of the first result."""
        return self.node.type

    def __str__(self) -> str:
        place = f" (at {self.node.span})" if self.node.span is not None else ""
        return f"%{self.index} {self.node.op}{place}"

    def refuse(self, why: str, hint: str | None = None) -> NoReturn:
        """Raise ``OpError`` E804: ONNX has no form of this node."""
        raise OpError("E804", f"{self} cannot be written as ONNX: {why}", hint)

    def known(self, dims: Sequence[DimLike]) -> list[int]:
        """Sizes as numbers; raises ``OpError`` E805 for one that is open."""
        for dim in dims:
            if isinstance(dim, Dim):
                name = min(dim.symbols)
                message = f"{self} cannot be written as ONNX while the size {name} is open"
                raise OpError("E805", message, f"give it a value: sizes={{{name!r}: ...}}")
        return [int(dim) for dim in dims]  # type: ignore[arg-type]


Rule = Callable[["Emitter", Site], "str | Sequence[str]"]
RULES: dict[str, Rule] = {}
"""How each op is written: emits calls and returns the names of the results."""


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Enter a rule for some ops."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return enter


@dataclass
class Emitter:
    """Writes one body; ``arrays`` and ``fresh`` are shared with the bodies inside it."""

    body: Body
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    fresh: count[int] = field(default_factory=count)
    names: dict[Value, str] = field(default_factory=dict)
    label: str = ""

    def call(self, op: str, *inputs: str, **attrs: Any) -> str:
        """Emit a node of one result and return its name."""
        return self.calls(op, inputs, 1, **attrs)[0]

    def calls(self, op: str, inputs: Sequence[str], results: int, **attrs: Any) -> tuple[str, ...]:
        """Emit a node and return the names of its results."""
        outputs = tuple(f"%{next(self.fresh)}" for _ in range(results))
        self.body.calls.append(Call(op, tuple(inputs), outputs, attrs, self.label))
        return outputs

    def array(self, array: np.ndarray) -> str:
        """The name of a constant, held once by content."""
        name = f"%{content_hash(array)}"
        self.arrays.setdefault(name, array)
        return name

    def ints(self, values: Sequence[int]) -> str:
        """The name of a constant list of int64."""
        return self.array(np.array(values, np.int64))

    def number(self, value: float, dtype: str) -> str:
        """The name of a constant scalar."""
        return self.array(np.array(value, DTYPES[dtype]))

    def full(self, shape: Sequence[int], value: float, dtype: str) -> str:
        """A constant of one value, expanded at run time when it is large."""
        if np.prod(shape, dtype=object) <= 4096:
            return self.array(np.full(shape, value, DTYPES[dtype]))
        return self.call("Expand", self.number(value, dtype), self.ints(shape))

    def cast(self, x: str, dtype: str) -> str:
        """``x`` as another element type."""
        return self.call("Cast", x, to=ELEMENT_TYPES[dtype])

    def reshape(self, site: Site, x: str, shape: Sequence[DimLike], was: Sequence[DimLike]) -> str:
        """``x`` of shape ``was`` in another shape; open sizes must stay in place but for one."""
        sizes: list[int] = []
        for place, dim in enumerate(shape):
            if isinstance(dim, Dim):
                stays = place < len(was) and was[place] == dim
                sizes.append(0 if stays else -1)
            else:
                sizes.append(int(dim))
        if sizes.count(-1) > 1:
            site.known(shape)
        return self.call("Reshape", x, self.ints(sizes))

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """``x`` with its axes in another order."""
        if list(perm) == sorted(perm):
            return x
        return self.call("Transpose", x, perm=list(perm))

    def part(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        """``start..stop`` of one axis."""
        bounds = [self.ints([n]) for n in (start, stop, axis, step)]
        return self.call("Slice", x, *bounds)

    def graph(self, graph: Graph) -> None:
        """Emit every node whose value is not named yet, then the outputs."""
        for index, node in graph.nodes():
            if Value(index) in self.names:
                continue
            if node.op == "constant":
                array = graph.constant(index).astype(DTYPES[node.type.dtype], copy=False)
                self.names[Value(index)] = self.array(array)
                continue
            operands = graph.operands(index)
            x = tuple(self.names[v] for v in operands)
            site = Site(index, node, x, tuple(graph.type_of(v) for v in operands))
            self.label = f"{node.op}_{index}"
            self._enter(site, graph)
        for name, value in graph.outputs:
            self.label = f"output_{name}"
            self._output(name, value, graph.type_of(value))

    def _enter(self, site: Site, graph: Graph) -> None:
        for kind in site.node.types:
            if any(isinstance(size, int) and size < 1 for size in kind.shape):
                raise OpError("E106", f"{site} would be {kind} at these sizes")
        written = RULES.get(site.node.op)
        if written is None:
            site.refuse(f"there is no form of `{site.node.op}`")
        found = written(self, site)
        names = (found,) if isinstance(found, str) else tuple(found)
        for place, name in enumerate(names):
            self.names[Value(site.index, place)] = name

    def _output(self, name: str, value: Value, kind: TensorType) -> None:
        """Give a value its output name: on the call that makes it when nothing else reads it."""
        calls, source = self.body.calls, self.names[value]
        makers = [i for i, call in enumerate(calls) if source in call.outputs]
        if makers and not self._is_read(source):
            made = calls[makers[0]]
            outputs = tuple(name if o == source else o for o in made.outputs)
            calls[makers[0]] = Call(made.op, made.inputs, outputs, made.attrs, made.label)
            self.names = {v: name if n == source else n for v, n in self.names.items()}
        else:
            calls.append(Call("Identity", (source,), (name,), {}, self.label))
        self.body.outputs.append((name, kind))

    def _is_read(self, name: str) -> bool:
        taken = {name for name, _ in self.body.outputs}
        return name in taken or any(_reads(call, name) for call in self.body.calls)


def _reads(call: Call, name: str) -> bool:
    inner = [body for body in call.attrs.values() if isinstance(body, Body)]
    return name in call.inputs or any(_reads(c, name) for body in inner for c in body.calls)
