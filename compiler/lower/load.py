"""The load phase as readable numpy text: what is done once, when weights arrive.

Nodes that depend on parameters and constants alone become statements; packing calls follow. The
text is part of the module that is written, so a compiled file needs no compiler.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...runtime.abi import Address
from ..ir.graph import Graph, Node, Value
from ..ops import OpError

LINE = 64
LISTED = 512
"""Elements up to which a constant is written as a list."""


@dataclass(frozen=True)
class Packed:
    """A packed array in the weights' memory."""

    name: str
    offset: int

    def moved(self, offset: int) -> Packed:
        """Some bytes further on."""
        return Packed(self.name, self.offset + offset)

    def resolve(self) -> Address:
        """The address word."""
        return Address("weights", self.offset)


@dataclass
class LoadProgram:
    """Statements of the load phase, in order, and the packed arrays they end in."""

    graph: Graph
    lines: list[str] = field(default_factory=list)
    packed: dict[str, int] = field(default_factory=dict)
    size: int = 0
    _names: dict[Value, str] = field(default_factory=dict)
    _known: dict[str, Packed] = field(default_factory=dict)

    def text(self, value: Value) -> str:
        """The name of a value in the load program, computing it first if need be."""
        if value not in self._names:
            node = self.graph.node(value.node)
            if node.op == "param":
                self._names[value] = f'w["{node.attrs["path"]}"]'
            else:
                self._statement(value, node)
        return self._names[value]

    def _statement(self, value: Value, node: Node) -> None:
        operands = [self.text(v) for v in self.graph.operands(value.node)]
        if node.op == "constant":
            text = self._constant(node)
        elif node.op in TEXT:
            text = TEXT[node.op](operands, node, self.graph.operands(value.node), self.graph)
        else:
            raise OpError("E804", f"`{node.op}` cannot be computed when weights are loaded")
        name = f"v{len(self._names)}"
        self.lines.append(f"{name} = {text}")
        self._names[value] = name

    def _constant(self, node: Node) -> str:
        array = self.graph.constants[str(node.attrs["hash"])]
        if array.size <= LISTED:
            return f"np.array({array.tolist()!r}, np.{array.dtype})".replace("inf", "np.inf")
        data = base64.b64encode(array.tobytes()).decode()
        return f'pack.decoded("{data}", "{array.dtype}", {array.shape})'

    def pack(self, name: str, text: str, size: int) -> Packed:
        """Keep an array of ``size`` bytes that ``text`` computes; equal texts share one place."""
        if text not in self._known:
            self._known[text] = self.reserve(name, size)
            self.fill(self._known[text], text)
        return self._known[text]

    def reserve(self, name: str, size: int) -> Packed:
        """Room for an array that :meth:`fill` gives later."""
        unique, number = name, 2
        while unique in self.packed:
            unique = f"{name}.{number}"
            number += 1
        self.packed[unique] = self.size
        place = Packed(unique, self.size)
        self.size += -(-size // LINE) * LINE
        return place

    def fill(self, place: Packed, text: str) -> None:
        """What a reserved place holds."""
        self.lines.append(f'yield "{place.name}", {text}')


def _infix(symbol: str) -> Callable[..., str]:
    return lambda o, node, v, g: f"{o[0]} {symbol} {o[1]}"


def _function(name: str) -> Callable[..., str]:
    return lambda o, node, v, g: f"np.{name}({', '.join(o)})"


def _shape(shape: Any) -> str:
    return str(tuple(int(d) for d in shape))


def _slices(node: Node) -> str:
    attrs: Any = node.attrs
    rows = zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
    return ", ".join(f"{a}:{b}:{c}" if c != 1 else f"{a}:{b}" for a, b, c in rows)


def _reduce(o: Sequence[str], node: Node, v: Any, g: Graph) -> str:
    kinds = {"sum": "sum", "prod": "prod", "max": "max", "min": "min", "mean": "mean"}
    kind = str(node.attrs["kind"])
    if kind not in kinds:
        raise OpError("E804", f"`reduce` of kind {kind} cannot be computed when weights are loaded")
    return f"{o[0]}.{kinds[kind]}(axis={node.attrs['axes']}, keepdims={node.attrs['keepdims']})"


TEXT: dict[str, Callable[..., str]] = {
    "add": _infix("+"),
    "sub": _infix("-"),
    "mul": _infix("*"),
    "div": _infix("/"),
    "neg": lambda o, node, v, g: f"-{o[0]}",
    "sqrt": _function("sqrt"),
    "rsqrt": lambda o, node, v, g: f"1 / np.sqrt({o[0]})",
    "exp": _function("exp"),
    "log": _function("log"),
    "square": lambda o, node, v, g: f"np.square({o[0]})",
    "abs": _function("abs"),
    "reciprocal": lambda o, node, v, g: f"1 / {o[0]}",
    "maximum": _function("maximum"),
    "minimum": _function("minimum"),
    "reshape": lambda o, node, v, g: f"{o[0]}.reshape{_shape(node.attrs['shape'])}",
    "broadcast": lambda o, node, v, g: f"np.broadcast_to({o[0]}, {_shape(node.attrs['shape'])})",
    "transpose": lambda o, node, v, g: f"{o[0]}.transpose{node.attrs['perm']}",
    "slice": lambda o, node, v, g: f"{o[0]}[{_slices(node)}]",
    "concat": lambda o, node, v, g: f"np.concatenate([{', '.join(o)}], {node.attrs['axis']})",
    "take": lambda o, node, v, g: f"np.take({o[0]}, {o[1]}, {node.attrs['axis']})",
    "cast": lambda o, node, v, g: f"{o[0]}.astype(np.{_numpy(node.type.dtype)})",
    "reduce": _reduce,
    "fill": lambda o, node, v, g: (
        f"np.full({_shape(node.type.shape)}, {node.attrs['value']}, np.{_numpy(node.type.dtype)})"
    ),
    "matmul": lambda o, node, v, g: f"{o[0]} @ {o[1]}",
    "contract": lambda o, node, v, g: f'np.einsum("{node.attrs["spec"]}", {", ".join(o)})',
}
"""Ops of the load phase as numpy text, ``(operand texts, node, operands, graph)``."""


def _numpy(dtype: str) -> str:
    from ..ir.types import DTYPES

    return str(DTYPES[dtype])


def label(text: str) -> str:
    """A name for a packed array from a weight path."""
    return re.sub(r"[^\w.\-]", "_", text)
