"""The choice of a decision process: ``max{a} Q[s, a]``, in each form that the graph gives it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce as fold
from math import prod

import numpy as np

from ..ir.graph import Graph, Value
from ..ir.types import Span
from ..ops.contract import parse_spec
from . import mixtures as m
from .bellman import Bellman
from .frames import Cut, broadcast_cut, kept_axis
from .mixtures import Mixture

EXTREMES = {"maximum": "max", "minimum": "min"}
PLUS = {"max_plus": "max", "min_plus": "min"}


@dataclass(frozen=True)
class Choice:
    """The value that a choice gives, and whether it is ``max`` or ``min``."""

    value: Value
    kind: str
    span: Span | None


def choices(graph: Graph, depends: frozenset[int]) -> list[Choice]:
    """Every choice between values that depend on the unknown."""
    found = []
    for index, node in graph.nodes():
        if index not in depends:
            continue
        kind = None
        if node.op == "reduce" and node.attrs["kind"] in ("max", "min"):
            kind = str(node.attrs["kind"])
        elif node.op == "contract":
            kind = PLUS.get(str(node.attrs["semiring"]))
        elif node.op in EXTREMES:
            kind = EXTREMES[node.op]
        if kind is not None:
            found.append(Choice(Value(index), kind, node.span))
    return found


def action_mixture(bellman: Bellman, choice: Choice | None, cut: Cut | None) -> Mixture:
    """What is chosen from, over the states (or a part of them) and, as last axis, the actions."""
    if choice is None:
        found = bellman.definition(bellman.unknown, cut)
        return m.reshape(found, (*found.shape, 1))
    node = bellman.graph.node(choice.value.node)
    operands = bellman.graph.operands(choice.value.node)
    if node.op == "reduce":
        found = _reduced(bellman, choice, cut)
    elif node.op == "contract":
        found = _contracted(bellman, choice, cut)
    else:
        shape = bellman.frame.shape(choice.value)
        cuts = [
            None if cut is None else broadcast_cut(bellman.frame.shape(v), shape, cut)
            for v in operands
        ]
        sides = [bellman.get(v, c) for v, c in zip(operands, cuts, strict=True)]
        full = shape if cut is None else cut.shape(shape)
        parts = [s if isinstance(s, Mixture) else m.constant(s) for s in sides]
        columns = [m.reshape(m.lift(p, full), (*full, 1)) for p in parts]
        found = m.concatenate(columns, len(full))
    return found


def _reduced(bellman: Bellman, choice: Choice, cut: Cut | None) -> Mixture:
    node = bellman.graph.node(choice.value.node)
    operand = bellman.graph.operands(choice.value.node)[0]
    rank = len(bellman.frame.shape(operand))
    axes = sorted(int(a) % rank for a in node.attrs["axes"])  # type: ignore[union-attr]
    keepdims = bool(node.attrs["keepdims"])
    inner = cut
    if cut is not None:
        inner = replace(cut, axis=kept_axis(cut.axis, axes, rank, keepdims))
    body = bellman.mixture(operand, inner)
    kept = [a for a in range(rank) if a not in axes]
    body = m.transpose(body, [*kept, *axes])
    shape = bellman.frame.shape(choice.value)
    full = shape if cut is None else cut.shape(shape)
    return m.reshape(body, (*full, prod(body.shape[len(kept) :])))


def _contracted(bellman: Bellman, choice: Choice, cut: Cut | None) -> Mixture:
    """``max{a} (R[s, a] + ...)``: the sum of all operands over all letters."""
    node = bellman.graph.node(choice.value.node)
    operands = bellman.graph.operands(choice.value.node)
    inputs, output = parse_spec(str(node.attrs["spec"]), len(operands))
    order = output + "".join(dict.fromkeys(c for part in inputs for c in part if c not in output))
    values: list[Mixture] = []
    numbers: list[np.ndarray] = []
    sizes: dict[str, int] = {}
    for part, v in zip(inputs, operands, strict=True):
        inner = None
        if cut is not None and output[cut.axis] in part:
            inner = replace(cut, axis=part.index(output[cut.axis]))
        found = bellman.get(v, inner)
        sizes |= dict(zip(part, found.shape, strict=True))
        if isinstance(found, Mixture):
            moved = m.transpose(found, [part.index(c) for c in order if c in part])
            values.append(m.spread(moved, [c in part for c in order]))
        else:
            numbers.append(m.aligned(found, part, order))
    total = fold(m.join, values)
    for known in numbers:
        total = m.add(total, known)
    full = tuple(sizes[letter] for letter in order)
    return m.reshape(m.lift(total, full), (*full[: len(output)], prod(full[len(output) :])))
