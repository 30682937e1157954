"""Statements of a model, read off the graph: sites, factors and the variables they mention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..ir.dims import DimLike
from ..ir.graph import Graph, Node, Value
from ..ir.types import Span
from ..ops.base import OpError

BATCH = "N"
"""The axis of a batch that no statement mentions."""

Place = tuple[Any, ...]
"""``("index", name, shift)``, ``("at", number)`` or ``("table", operand)``."""


class ModelFault(OpError):
    """A fault of a model at one of its statements."""

    def __init__(self, code: str, message: str, span: Span | None, found: str = "",
                 hint: str | None = None) -> None:  # fmt: skip
        super().__init__(code, message, hint, span, found)


@dataclass(frozen=True)
class Reference:
    """A latent value inside a statement: its axis, the variable, and which element of it."""

    axis: str
    variable: str
    places: tuple[Place, ...]


@dataclass(frozen=True, eq=False)
class Statement:
    """One ``~`` or ``factor``.

    ``role`` is ``latent`` (the target is summed out), ``input`` (it is observed), ``param`` (a
    prior of a parameter) or ``factor``. ``domain`` gives each index its first value and count.
    ``references`` are all latent values in it, the target's own last. ``params``, ``point`` and
    ``condition`` are operands with the names of their leading axes.
    """

    node: int
    role: str
    label: str
    variable: str
    dist: str
    form: str
    support: DimLike | None
    domain: Mapping[str, tuple[DimLike, DimLike]]
    references: tuple[Reference, ...]
    params: tuple[tuple[Value, tuple[str, ...]], ...]
    point: tuple[Value, tuple[str, ...]] | None
    condition: tuple[Value, tuple[str, ...]] | None
    tables: Mapping[int, tuple[Value, tuple[str, ...]]]
    dtype: str
    span: Span | None

    @property
    def formula(self) -> str:
        """The statement as a factor is written: ``p(z[t] | z[t-1])``, ``phi(x[i], x[j])``."""
        names = [r.axis for r in self.references]
        if self.role == "factor":
            return f"{self.label.replace('factor', 'phi')}({', '.join(names)})"
        if self.is_latent:
            target, names = names[-1], names[:-1]
        else:
            target = self.label
        return f"p({target} | {', '.join(names)})" if names else f"p({target})"

    @property
    def is_latent(self) -> bool:
        """Whether the target is a latent variable."""
        return self.role == "latent"


def statements_of(graph: Graph) -> list[Statement]:
    """Every statement of a graph, in the order in which they were written down."""
    return [read_statement(graph, index, node) for index, node in graph.of_op("site", "factor")]


def read_statement(graph: Graph, index: int, node: Node) -> Statement:
    """One ``site`` or ``factor`` node."""
    attrs: Any = node.attrs
    operands = list(zip(graph.operands(index), attrs["axes"], strict=False))
    # Tables follow; their axes are named like everybody else's.
    domain = {name: (low, size) for name, low, size in attrs["domain"]}
    batched = any(BATCH in axes for _, axes in operands) and BATCH not in domain
    if batched:
        value, axes = next((v, a) for v, a in operands if BATCH in a)
        domain[BATCH] = (0, graph.type_of(value).shape[axes.index(BATCH)])
    references = [Reference(a, name, tuple(at)) for a, name, at in attrs["latents"]]
    role = "factor"
    if node.op == "site":
        role = str(attrs["observed"]) or "latent"
    if role == "latent":
        references.append(Reference(str(attrs["target"]), attrs["variable"], tuple(attrs["at"])))
    used = [place[1] for r in references for place in r.places if place[0] == "table"]
    used += [place[1] for place in attrs.get("at", ()) if place[0] == "table"]
    tables = {k: (graph.operands(index)[k], _axes_of(attrs, k)) for k in used}
    count = min(tables, default=len(operands))
    rest = operands[:count]
    condition = rest.pop() if attrs["conditional"] else None
    point = rest.pop() if role in ("input", "param") else None
    return Statement(
        index, role, node.name or str(attrs.get("target", "")), str(attrs.get("variable", "")),
        str(attrs.get("dist", "")), str(attrs.get("form", "")), attrs.get("support"), domain,
        tuple(references), tuple(rest), point, condition, tables, str(attrs["dtype"]), node.span,
    )  # fmt: skip


def _axes_of(attrs: Any, operand: int) -> tuple[str, ...]:
    return tuple(attrs["axes"][operand])
