"""The load phase as readable numpy text: what is done once, when weights arrive.

Nodes that depend on parameters and constants alone become statements; packing calls follow. The
text is part of the module that is written, so a compiled file needs no compiler.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...runtime.abi import Address
from ..ir.graph import Graph, Node, Value

LINE = 64
LISTED = 512
"""Elements up to which a constant is written as a list."""


@dataclass(frozen=True)
class Packed:
    """A packed array in the weights' memory; ``turns`` as those of a :class:`storage.Place`."""

    name: str
    offset: int
    turns: tuple[tuple[Any, int], ...] = ()

    def moved(self, offset: int) -> Packed:
        """Some bytes further on."""
        return replace(self, offset=self.offset + offset)

    def turning(self, loop: Any, step: int) -> Packed:
        """The spot in a loop, ``step`` bytes further on at each turn."""
        return replace(self, turns=(*self.turns, (loop, step)))

    def resolve(self) -> Address:
        """The address word."""
        return Address("weights", self.offset)


@dataclass
class LoadText:
    """Statements of the load phase, in order, and the packed arrays they end in."""

    lines: list[str] = field(default_factory=list)
    packed: dict[str, int] = field(default_factory=dict)
    size: int = 0
    known: dict[str, Packed] = field(default_factory=dict)


@dataclass
class LoadProgram:
    """Writes what a graph computes in the load phase; programs of regions share one text.

    ``names`` are variables that hold values; those of a region's inputs are given.
    """

    graph: Graph
    out: LoadText = field(default_factory=LoadText)
    names: dict[Value, str] = field(default_factory=dict)

    def text(self, value: Value) -> str:
        """The name of a value in the load program, computing it first if need be."""
        if value not in self.names:
            node = self.graph.node(value.node)
            if node.op == "param":
                self.names[value] = f'w["{node.attrs["path"]}"]'
            else:
                self._statement(value, node)
        return self.names[value]

    def early(self) -> set[int]:
        """Nodes that are computed when weights arrive: all that they read is, and there is text."""
        found = {value.node for value in self.names}
        for index, node in self.graph.nodes():
            if node.op in ("param", "constant"):
                found.add(index)
            elif node.op in TEXT and all(v.node in found for v in self.graph.operands(index)):
                if node.op != "reduce" or node.attrs["kind"] in REDUCTIONS:
                    found.add(index)
        return found

    def _statement(self, value: Value, node: Node) -> None:
        operands = [self.text(v) for v in self.graph.operands(value.node)]
        if node.op == "constant":
            text = self._constant(node)
        else:
            text = TEXT[node.op](operands, node, self.graph.operands(value.node), self.graph)
        name = f"v{len(self.out.lines)}"
        self.out.lines.append(f"{name} = {text}")
        self.names[value] = name

    def _constant(self, node: Node) -> str:
        return self.literal(self.graph.constants[str(node.attrs["hash"])])

    def literal(self, array: np.ndarray) -> str:
        """Text that makes an array."""
        if array.size <= LISTED:
            text = repr(array.tolist()).replace("inf", "np.inf").replace("nan", "np.nan")
            return f"np.array({text}, np.{array.dtype})"
        data = base64.b64encode(array.tobytes()).decode()
        return f'pack.decoded("{data}", "{array.dtype}", {array.shape})'

    def pack(self, name: str, text: str, size: int) -> Packed:
        """Keep an array of ``size`` bytes that ``text`` computes; equal texts share one place."""
        if text not in self.out.known:
            self.out.known[text] = self.reserve(name, size)
            self.fill(self.out.known[text], text)
        return self.out.known[text]

    def reserve(self, name: str, size: int) -> Packed:
        """Room for an array that :meth:`fill` gives later."""
        unique, number = name, 2
        while unique in self.out.packed:
            unique = f"{name}.{number}"
            number += 1
        self.out.packed[unique] = self.out.size
        place = Packed(unique, self.out.size)
        self.out.size += -(-size // LINE) * LINE
        return place

    def fill(self, place: Packed, text: str) -> None:
        """What a reserved place holds."""
        self.out.lines.append(f'yield "{place.name}", {text}')


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
    kind = node.attrs["kind"]
    return f"{o[0]}.{kind}(axis={node.attrs['axes']}, keepdims={node.attrs['keepdims']})"


REDUCTIONS = ("sum", "prod", "max", "min", "mean", "any", "all")
"""Kinds of ``reduce`` that numpy has under the same name."""


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
    "reshape": lambda o, node, v, g: f"{o[0]}.reshape({_shape(node.attrs['shape'])})",
    "broadcast": lambda o, node, v, g: f"np.broadcast_to({o[0]}, {_shape(node.attrs['shape'])})",
    "transpose": lambda o, node, v, g: f"{o[0]}.transpose{node.attrs['perm']}",
    "slice": lambda o, node, v, g: f"{o[0]}[{_slices(node)}]",
    "concat": lambda o, node, v, g: f"np.concatenate([{', '.join(o)}], {node.attrs['axis']})",
    "take": lambda o, node, v, g: f"np.take({o[0]}, {o[1]}, {node.attrs['axis']})",
    "cast": lambda o, node, v, g: f"{o[0]}.astype(np.{_numpy(node.type.dtype)})",
    "reduce": _reduce,
    "fill": lambda o, node, v, g: (
        f"np.full({_shape(node.type.shape)}, {_number(node.attrs['value'])},"
        f" np.{_numpy(node.type.dtype)})"
    ),
    "iota": lambda o, node, v, g: (
        f"np.arange({node.attrs['size']}, dtype=np.{_numpy(node.type.dtype)})"
    ),
    "eye": lambda o, node, v, g: (
        f"np.eye({node.attrs['size']}, dtype=np.{_numpy(node.type.dtype)})"
    ),
    "size_of": lambda o, node, v, g: (
        f"np.array({node.attrs['size']}, np.{_numpy(node.type.dtype)})"
    ),
    "grid_edges": lambda o, node, v, g: (
        f"pack.grid_edges({node.attrs['rows']}, {node.attrs['columns']})"
    ),
    "identity": lambda o, node, v, g: o[0],
    "stop_gradient": lambda o, node, v, g: o[0],
    "flip": lambda o, node, v, g: f"np.flip({o[0]}, {node.attrs['axes']})",
    "tanh": _function("tanh"),
    "pow": _infix("**"),
    "where": _function("where"),
    "eq": _infix("=="),
    "ne": _infix("!="),
    "lt": _infix("<"),
    "le": _infix("<="),
    "gt": _infix(">"),
    "ge": _infix(">="),
    "and": _infix("&"),
    "or": _infix("|"),
    "not": lambda o, node, v, g: f"~{o[0]}",
    "relu": lambda o, node, v, g: f"np.maximum({o[0]}, 0)",
    "matmul": lambda o, node, v, g: f"{o[0]} @ {o[1]}",
    "contract": lambda o, node, v, g: f'np.einsum("{node.attrs["spec"]}", {", ".join(o)})',
}
"""Ops of the load phase as numpy text, ``(operand texts, node, operands, graph)``."""


def _number(value: Any) -> str:
    return (
        f"np.{'-' if value < 0 else ''}inf".replace("np.-", "-np.")
        if (isinstance(value, float) and math.isinf(value))
        else "np.nan"
        if value != value
        else repr(value)
    )


def _numpy(dtype: str) -> str:
    from ..ir.types import DTYPES

    return str(DTYPES[dtype])


def label(text: str) -> str:
    """A name for a packed array from a weight path."""
    return re.sub(r"[^\w.\-]", "_", text)
