"""Loopy belief propagation: sum-product and max-sum messages on the statements' factor graph.

    m_f->x(v) <- log sum_{other values} exp( log f + sum over other y of (b_y - m_f->y) )
    b_x(v)    =  what statements about x alone say + sum over f of m_f->x(v)

All messages move at once (flooding) and are normalised; on a tree they are exact after as many
steps as it is long. (Pearl 1988; Kschischang, Frey and Loeliger, IEEE Trans. IT 47, 2001.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..ir.graph import Value
from .local import Local, Region
from .statements import Reference, Statement
from .tables import Table

if TYPE_CHECKING:
    from .answers import Answers

STEPS = 50
FLOOR = -1e4
"""Logs of messages stay above this, so that taking one back out of a sum leaves the others."""

SEMIRINGS = {"sum_product": ("lse_plus", "lse"), "max_sum": ("max_plus", "max")}
"""How a message joins its values, and what of it is 0."""


def belief_propagation(
    answers: Answers, name: str, settings: Mapping[str, Any]
) -> tuple[Value, Value]:
    """Beliefs ``[batch.., extent.., values]`` and the last step's largest change of a message.

    Beliefs are marginals, or for ``semiring=max_sum`` logs of max-marginals whose largest is 0.
    ``settings`` are ``steps`` at most, ``tol`` below which the change ends them, ``damping``, the
    share of the old log-message that stays, and ``semiring``.
    """
    component = answers.structure.component_of(name)
    local = Local(answers, component)
    semiring = str(settings.get("semiring", "sum_product"))
    passing = Passing(local, *SEMIRINGS[semiring], float(settings.get("damping", 0)))
    messages, change = passing.run(int(settings.get("steps", STEPS)),
                                   float(settings.get("tol", 0)))  # fmt: skip
    belief = passing.belief(local, name, messages)
    if semiring == "sum_product":
        return local.softmax(belief), change
    return local.normalised(belief, "max"), change


class Passing:
    """Messages of every statement to every reference in it."""

    def __init__(self, local: Local, joins: str, norm: str, damping: float) -> None:
        self.local, self.joins, self.norm, self.damping = local, joins, norm, damping

    def run(self, steps: int, tol: float) -> tuple[list[Value], Value]:
        """All messages after the last step, and its largest change."""
        local = self.local
        own = {name: local.own(family) for name, family in local.families.items()}
        self.own = own
        starts = [local.filled(self._shape(local, s, r), 0.0) for s, r in edges(local)]
        if not starts:
            return [], local.number(0.0)
        start = local.emit.number(float("inf"), local.dtype)
        region = Region(local.emit, [*starts, start])
        inner = local.within(region)
        captured = {name: region.capture(value) for name, value in own.items()}
        old = region.carries[:-1]
        new = self._step(inner, captured, old)
        change = inner.change(list(zip(new, old, strict=True)))
        kept = [inner.damped(a, b, self.damping) for a, b in zip(new, old, strict=True)]
        *messages, last = region.run([*kept, change], change, steps, tol)
        return messages, last

    def belief(self, local: Local, name: str, messages: Sequence[Value]) -> Value:
        """What is said of each element of a variable."""
        return self._beliefs(local, self.own, messages)[name]

    def _shape(self, local: Local, statement: Statement, reference: Reference) -> tuple[Any, ...]:
        local.measure(statement, [])
        return local.emit.shape(local.axes(statement, reference))

    def _beliefs(
        self, local: Local, own: Mapping[str, Value], messages: Sequence[Value]
    ) -> dict[str, Value]:
        found = dict(own)
        for (statement, reference), message in zip(edges(local), messages, strict=True):
            said = Table(message, local.axes(statement, reference))
            placed = local.back(statement, reference, said)
            name = reference.variable
            found[name] = local.emit.emit("add", [found[name], placed])
        return found

    def _step(
        self, local: Local, own: Mapping[str, Value], messages: Sequence[Value]
    ) -> list[Value]:
        """New messages from old ones."""
        beliefs = self._beliefs(local, own, messages)
        heard = {}
        for (statement, reference), message in zip(edges(local), messages, strict=True):
            seen = local.view(statement, reference, beliefs[reference.variable])
            axes = local.axes(statement, reference)
            local.emit.sizes.update(
                zip(seen.axes, local.emit.type_of(seen.value).shape, strict=True)
            )
            aligned = local.emit.expand(seen, axes)
            rest = local.emit.emit("sub", [aligned, message])
            heard[statement.node, reference.axis] = Table(rest, axes)
        found = []
        for statement, native in local.joint:
            for reference in statement.references:
                others = [heard[statement.node, r.axis] for r in statement.references
                          if r is not reference]  # fmt: skip
                said = local.contracted(statement, [native, *others], reference, self.joins)
                level = local.normalised(said.value, self.norm)
                found.append(local.emit.emit("maximum", [level, local.number(FLOOR)]))
        return found


def edges(local: Local) -> list[tuple[Statement, Reference]]:
    """Statements about several variables with each of their references."""
    return [(s, r) for s, _ in local.joint for r in s.references]
