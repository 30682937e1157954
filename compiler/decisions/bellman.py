"""The equations of a ``fix`` block read as mixtures over the unknown value function.

The unknown is the one choice in the block, ``max{a} Q[s, a]`` (or ``min``); without a choice, as in
the evaluation of a policy, it is what the block defines. At the fixed point the old value of a name
is its new one, so a name that is read is its own equation until the unknown is met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.types import Span
from ..ops.contract import parse_spec
from . import mixtures as m
from .faults import DecisionFault
from .frames import Cut, Frame, broadcast_cut, part_rule, reshape_cut
from .mixtures import Mixture

EXPECTATION = "E"
"""The name of contractions that an expectation made: all operands but the last are chances."""

Known = np.ndarray
Cuts = Sequence["Cut | None"]


@dataclass
class Bellman:
    """Reads values of a ``fix`` body. ``carries`` are the names it defines, ``unknown`` the value
    (of the body) that is solved for.
    """

    frame: Frame
    carries: int
    unknown: Value
    depends: frozenset[int]
    outlines: dict[tuple[Value, Cut | None], Mixture] = field(default_factory=dict)
    asking: set[tuple[Value, Cut | None]] = field(default_factory=set)

    @property
    def graph(self) -> Graph:
        """The body."""
        return self.frame.graph

    def forget_parts(self) -> None:
        """Drop what was kept of parts."""
        self.outlines = {key: found for key, found in self.outlines.items() if key[1] is None}
        self.frame.forget_parts()

    def get(self, value: Value, cut: Cut | None = None) -> Mixture | Known:
        """A value, or its part: an array where it does not depend on the unknown."""
        if value.node not in self.depends:
            return self.frame.get(value, cut)
        return self.mixture(value, cut)

    def mixture(self, value: Value, cut: Cut | None = None) -> Mixture:
        """A value that depends on the unknown, or its part."""
        key = (value, cut)
        if key not in self.outlines:
            if key in self.asking:
                node = self.graph.node(value.node)
                message = f"`{node.name or node.op}` is defined by itself alone"
                raise DecisionFault("E621", message, node.span)
            self.asking.add(key)
            self.outlines[key] = self._read(value, cut)
            self.asking.discard(key)
        return self.outlines[key]

    def whole(self, value: Value) -> Mixture:
        """A whole value that parts look things up in; what it is made from is not kept."""
        key = (value, None)
        if key not in self.outlines:
            before = dict(self.outlines)
            before[key] = self.mixture(value)
            self.outlines = before
        return self.outlines[key]

    def _read(self, value: Value, cut: Cut | None) -> Mixture:
        if value == self.unknown:
            return self._itself(value, cut)
        if self.graph.node(value.node).op == "input":
            new = self.get(self.graph.outputs[self.graph.inputs.index(value.node)][1], cut)
            return new if isinstance(new, Mixture) else m.constant(new)
        return self.definition(value, cut)

    def definition(self, value: Value, cut: Cut | None) -> Mixture:
        """The equation of a value, the unknown's own included."""
        node = self.graph.node(value.node)
        rule = _RULES.get(node.op)
        if rule is None:
            raise DecisionFault(
                "E621", f"values go through `{node.op}`, so this is no Bellman equation", node.span,
                hint="values may be added, scaled by known numbers, looked up, averaged by `E`,"
                " and chosen once by `max` or `min`",
            )  # fmt: skip
        return rule(self, node, self.graph.operands(value.node), value, cut)

    def _itself(self, value: Value, cut: Cut | None) -> Mixture:
        shape = self.frame.shape(value)
        if cut is not None and cut.axis == 0:
            inner = prod(shape[1:])
            numbers = np.arange(cut.first * inner, cut.last * inner, dtype=np.int32)
            return m.lookup(numbers.reshape(cut.shape(shape)))
        numbers = np.arange(prod(shape), dtype=np.int32).reshape(shape)
        return m.lookup(numbers if cut is None else cut.of(numbers))

    def operand_cuts(
        self, node: Node, operands: Sequence[Value], value: Value, cut: Cut | None
    ) -> tuple[dict[str, Any], Cuts] | None:
        """Attributes and cuts of the operands for a part of the result."""
        if cut is None:
            return dict(node.attrs), [None] * len(operands)
        shapes = [self.frame.shape(v) for v in operands]
        return part_rule(node, shapes, self.frame.shape(value), cut)


# ---------------------------------------------------------------- rules

Rule = Callable[[Bellman, Node, Sequence[Value], Value, "Cut | None"], Mixture]


def _elements(bellman: Bellman, operands: Sequence[Value], value: Value, cut: Cut | None) -> list:
    shape = bellman.frame.shape(value)
    cuts = [
        None if cut is None else broadcast_cut(bellman.frame.shape(v), shape, cut) for v in operands
    ]
    return [bellman.get(v, c) for v, c in zip(operands, cuts, strict=True)]


def _sum(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    a, b = _elements(bellman, operands, value, cut)
    sign = 1.0 if node.op == "add" else -1.0
    if isinstance(a, Mixture) and isinstance(b, Mixture):
        return m.join(a, b if sign > 0 else m.scale(b, np.array(-1.0)))
    if isinstance(a, Mixture):
        return m.add(a, b, sign)
    return m.add(b if sign > 0 else m.scale(b, np.array(-1.0)), a)


def _product(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    a, b = _elements(bellman, operands, value, cut)
    if isinstance(a, Mixture) and isinstance(b, Mixture):
        raise DecisionFault("E621", "values are multiplied with values", node.span)
    if node.op == "div":
        if isinstance(b, Mixture):
            raise DecisionFault("E621", "something is divided by values", node.span)
        return m.scale(a, 1.0 / b)
    return m.scale(a, b) if isinstance(a, Mixture) else m.scale(b, a)


def _negative(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    return m.scale(bellman.mixture(operands[0], cut), np.array(-1.0))


def _same(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    return bellman.mixture(operands[0], cut)


def _where(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    if operands[0].node in bellman.depends:
        raise DecisionFault("E621", "a condition depends on the values", node.span)
    condition, a, b = _elements(bellman, operands, value, cut)
    return m.choose(condition, a, b)


def _reshape(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    source, target = bellman.frame.shape(operands[0]), bellman.frame.shape(value)
    if cut is None:
        return m.reshape(bellman.mixture(operands[0]), target)
    inner = reshape_cut(source, target, cut)
    if inner is None:
        return _part(m.reshape(bellman.mixture(operands[0]), target), cut)
    return m.reshape(bellman.mixture(operands[0], inner), cut.shape(target))


def _part(whole: Mixture, cut: Cut) -> Mixture:
    slices = [slice(None)] * len(whole.shape)
    slices[cut.axis] = slice(cut.first, cut.last)
    return m.take_part(whole, tuple(slices), cut.shape(whole.shape))


def _transpose(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    perm: Any = node.attrs["perm"]
    inner = None if cut is None else replace(cut, axis=perm[cut.axis])
    return m.transpose(bellman.mixture(operands[0], inner), perm)


def _broadcast(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    shape = bellman.frame.shape(value)
    source = bellman.frame.shape(operands[0])
    inner = None if cut is None else broadcast_cut(source, shape, cut)
    return m.lift(bellman.mixture(operands[0], inner), shape if cut is None else cut.shape(shape))


def _slice(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    shape = bellman.frame.shape(value)
    found = bellman.operand_cuts(node, operands, value, cut)
    if found is None:
        return _part(_slice(bellman, node, operands, value, None), cut)
    attrs, (inner,) = found
    names = ("starts", "stops", "steps")
    slices = tuple(slice(*ends) for ends in zip(*(attrs[n] for n in names), strict=True))
    whole = bellman.mixture(operands[0], inner)
    return m.take_part(whole, slices, shape if cut is None else cut.shape(shape))


def _concat(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    found = bellman.operand_cuts(node, operands, value, cut)
    if found is None:
        return _part(_concat(bellman, node, operands, value, None), cut)
    parts = [bellman.get(v, c) for v, c in zip(operands, found[1], strict=True)]
    axis = int(node.attrs["axis"]) % len(bellman.frame.shape(value))  # type: ignore[arg-type]
    return m.concatenate([p if isinstance(p, Mixture) else m.constant(p) for p in parts], axis)


def _pad(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    """Zeros around: parts of a known zero next to the whole."""
    if node.attrs["mode"] != "constant":
        raise DecisionFault("E621", "values go through `pad`", node.span)
    whole = bellman.mixture(operands[0])
    before, after, fill = (node.attrs[name] for name in ("before", "after", "value"))
    assert isinstance(before, tuple) and isinstance(after, tuple)
    for axis, sides in enumerate(zip(before, after, strict=True)):
        parts: list[Mixture] = [whole]
        for place, count in enumerate(sides):
            if count:
                shape = (*whole.shape[:axis], int(count), *whole.shape[axis + 1 :])  # type: ignore[arg-type]
                border = m.constant(np.full(shape, float(fill)))  # type: ignore[arg-type]
                parts.insert(0 if place == 0 else len(parts), border)
        whole = m.concatenate(parts, axis) if len(parts) > 1 else whole
    return whole if cut is None else _part(whole, cut)


def _gather(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    if any(v.node in bellman.depends for v in operands[1:]):
        raise DecisionFault("E621", "a state is chosen by values", node.span)
    found = bellman.operand_cuts(node, operands, value, cut)
    assert found is not None
    cuts = found[1]
    indices = [bellman.frame.get(v, c) for v, c in zip(operands[1:], cuts[1:], strict=True)]
    source = bellman.frame.shape(operands[0])
    axes = [int(a) % len(source) for a in node.attrs["axes"]]  # type: ignore[union-attr]
    for axis, index in zip(axes, indices, strict=True):
        _require_states(index, source[axis], node.span)
    source_cut = cuts[0]
    body = (
        bellman.whole(operands[0])
        if source_cut is None
        else bellman.mixture(operands[0], source_cut)
    )
    return m.gather(body, indices, axes)


def _require_states(index: np.ndarray, size: int, span: Span | None) -> None:
    if index.size and (index.min() < 0 or index.max() >= size):
        worst = index.min() if index.min() < 0 else index.max()
        raise DecisionFault(
            "E504", "a next state does not exist", span, f"{worst}, but states are 0 to {size - 1}",
            "keep it inside with `clamp`, or read the value only where it is: `if ... then 0 else`",
        )  # fmt: skip


def _contract(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    if node.attrs["semiring"] != "sum_product":
        raise DecisionFault(
            "E621", f"values go through `{node.attrs['semiring']}`", node.span,
            hint="a decision process has one choice, `max{a}` or `min{a}`",
        )  # fmt: skip
    inputs, output = parse_spec(str(node.attrs["spec"]), len(operands))
    hidden = [place for place, v in enumerate(operands) if v.node in bellman.depends]
    if len(hidden) > 1:
        raise DecisionFault("E621", "values are multiplied with values", node.span)
    found = bellman.operand_cuts(node, operands, value, cut)
    if found is None:
        return _part(_contract(bellman, node, operands, value, None), cut)
    order = output + "".join(dict.fromkeys(c for part in inputs for c in part if c not in output))
    sizes: dict[str, int] = {}
    for part, v, inner in zip(inputs, operands, found[1], strict=True):
        whole = bellman.frame.shape(v)
        shape = whole if inner is None else inner.shape(whole)
        sizes |= dict(zip(part, shape, strict=True))
    full = tuple(sizes[letter] for letter in order)
    chances = np.ones((1,) * len(order))
    for place, v in enumerate(operands):
        if place not in hidden:
            known = bellman.frame.get(v, found[1][place])
            chances = chances * m.aligned(known, inputs[place], order)
    part = inputs[hidden[0]]
    body = bellman.mixture(operands[hidden[0]], found[1][hidden[0]])
    body = m.transpose(body, [part.index(c) for c in order if c in part])
    body = m.lift(m.spread(body, [c in part for c in order]), full)
    reduced = len(order) - len(output)
    weighs = False
    if reduced:
        totals = _totals(chances, full, reduced)
        near = np.abs(totals - 1) <= m.SUM_TOLERANCE
        weighs = bool(near.all() and (chances >= 0).all())
        if node.name == EXPECTATION and not weighs:
            span = bellman.graph.node(operands[0].node).span or node.span
            _refuse_chances(span, chances, totals, cut)
    return m.expect(body, chances, reduced, weighs)


def _totals(chances: np.ndarray, full: tuple[int, ...], reduced: int) -> np.ndarray:
    kept = len(full) - reduced
    spread = np.broadcast_to(chances, (*chances.shape[:kept], *full[kept:]))
    return spread.sum(axis=tuple(range(kept, len(full))))


def _refuse_chances(span: Span | None, chances: np.ndarray, totals: np.ndarray, cut: Any) -> None:
    """Say where the outcomes of an expectation are no distribution."""
    if (chances < 0).any():
        worst = float(chances.min())
        raise DecisionFault("E603", "a probability is negative", span, f"{worst:g}")
    off = np.nan_to_num(np.abs(totals - 1), nan=np.inf)
    place = np.unravel_index(int(off.argmax()), off.shape)
    where = [int(i) for i in place]
    if cut is not None and off.shape[cut.axis] > 1:
        where[cut.axis] += cut.first
    found = f"they sum to {totals[place]:.10g}" + (f" at {where}" if off.size > 1 else "")
    raise DecisionFault("E603", "probabilities must sum to 1", span, found)


def _reduce(bellman: Bellman, node: Node, operands: Any, value: Value, cut: Any) -> Mixture:
    kind = node.attrs["kind"]
    if kind not in ("sum", "mean"):
        message = f"values go through a second `{kind}`"
        if kind in ("max", "min"):
            hint = "a decision process has one choice, `max{a}` or `min{a}`"
            raise DecisionFault("E621", message, node.span, hint=hint)
        raise DecisionFault("E621", f"values go through `{kind}`", node.span)
    found = bellman.operand_cuts(node, operands, value, cut)
    assert found is not None
    body = bellman.mixture(operands[0], found[1][0])
    rank = len(body.shape)
    axes = sorted(int(a) % rank for a in node.attrs["axes"])  # type: ignore[union-attr]
    kept = [a for a in range(rank) if a not in axes]
    body = m.transpose(body, [*kept, *axes])
    count = int(np.prod(body.shape[len(kept) :]))
    share = 1.0 / count if kind == "mean" else 1.0
    made = m.expect(body, np.full((1,) * rank, share), len(axes), kind == "mean")
    shape = bellman.frame.shape(value)
    return m.reshape(made, shape if cut is None else cut.shape(shape))


_RULES: dict[str, Rule] = {
    "add": _sum,
    "sub": _sum,
    "mul": _product,
    "div": _product,
    "neg": _negative,
    "cast": _same,
    "stop_gradient": _same,
    "where": _where,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast": _broadcast,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
    "gather": _gather,
    "contract": _contract,
    "reduce": _reduce,
}
