"""Mean field: the best product of independent distributions, by repeated expected energies.

    q_x(v) <- softmax_v( sum over statements of E[ log-potential | x = v ] under the other q )

All variables of a component move at once (Krähenbühl, Koltun, NIPS 2011, algorithm 1). Expected
energies are contractions of the statements' own tables, so a sum over all pairs costs O(N^2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_letters
from typing import TYPE_CHECKING, Any

from ..ir.dims import product
from ..ir.graph import Value
from .potentials import Potentials
from .statements import ModelFault, Reference, Statement
from .structure import Component, Family
from .tables import Emitter, Table

if TYPE_CHECKING:
    from .answers import Answers

STEPS = 5
"""Updates, unless the question says how many."""

LARGEST = 1 << 28
"""Elements of the largest table that is made."""


def meanfield(answers: Answers, name: str, settings: Mapping[str, Any], span: Any) -> Value:
    """Approximate marginals ``[extent.., values]`` of a variable.

    ``settings`` are ``steps`` and ``damping``: the share of the old distribution that stays.
    """
    if "tol" in settings:
        raise ModelFault("E804", "mean field takes a number of steps in this version", span,
                         hint="write `steps=10`")  # fmt: skip
    if answers.outer:
        raise ModelFault("E804", "mean field takes no batch in this version", span)
    component = next(c for c in answers.structure.components
                     if any(f.name == name for f in c.families))  # fmt: skip
    worker = _MeanField(answers, component)
    return worker.run(int(settings.get("steps", STEPS)), float(settings.get("damping", 0)))[name]


class _MeanField:
    def __init__(self, answers: Answers, component: Component) -> None:
        self.emit = Emitter(answers.graph, {})
        self.families = {f.name: f for f in component.families}
        self.tables: list[tuple[Statement, Table]] = []
        for statement in component.statements:
            native = Potentials(answers.emitter, statement, answers.missing).table()
            if native is not None:
                _require_small(answers.emitter, statement, native)
                self.tables.append((statement, native))

    def run(self, steps: int, damping: float) -> dict[str, Value]:
        """The distributions after some updates, from what statements about one variable say."""
        alone = [row for row in self.tables if len(row[0].references) == 1]
        joint = [row for row in self.tables if len(row[0].references) > 1]
        fixed = {name: self._fields(family, alone, {}) for name, family in self.families.items()}
        q = {name: self._softmax(value) for name, value in fixed.items()}
        for _ in range(steps):
            moved = {}
            for name, family in self.families.items():
                pulled = [fixed[name], self._fields(family, joint, q)]
                new = self._softmax(self.emit.emit("add", pulled))
                moved[name] = self._damped(new, q[name], damping)
            q = moved
        return q

    def _softmax(self, logits: Value) -> Value:
        return self.emit.emit(
            "softmax", [logits], axis=self.emit.type_of(logits).rank - 1, beta=1.0
        )

    def _damped(self, new: Value, old: Value, damping: float) -> Value:
        if not damping:
            return new
        emit = self.emit
        parts = [emit.emit("mul", [v, emit.number(share)])
                 for v, share in ((new, 1 - damping), (old, damping))]  # fmt: skip
        return emit.emit("add", parts)

    def _fields(self, family: Family, rows: Sequence[Any], q: Mapping[str, Value]) -> Value:
        """The sum of what statements say about each element, ``[extent.., values]``."""
        shape = (*family.extent, family.size)
        total = self.emit.emit("fill", [], shape=shape, value=0.0, dtype="f64")
        for statement, native in rows:
            for reference in statement.references:
                if reference.variable == family.name:
                    said = self._said(statement, native, reference, q)
                    placed = self._back(statement, reference, family, said)
                    total = self.emit.emit("add", [total, placed])
        return total

    # ------------------------------------------------------------ one statement

    def _said(
        self, statement: Statement, native: Table, reference: Reference, q: Mapping[str, Value]
    ) -> Table:
        """The expected log-potential for each value of one reference, the others averaged."""
        emit = self.emit
        emit.span, emit.label = statement.span, statement.label
        operands = [native]
        for other in statement.references:
            if other is not reference:
                operands.append(self._view(statement, other, q[other.variable]))
        for operand in operands:
            emit.sizes.update(zip(operand.axes, emit.type_of(operand.value).shape, strict=True))
        indices = _indices(statement, reference)
        for index in (*statement.domain, *indices):
            emit.sizes.setdefault(index, statement.domain[index][1])
        emit.sizes.setdefault(reference.axis, self.families[reference.variable].size)
        held = {axis for operand in operands for axis in operand.axes}
        axes = (*indices, reference.axis)
        lacking = tuple(axis for axis in axes if axis not in held)
        if lacking:
            ones = emit.emit("fill", [], shape=emit.shape(lacking), value=1.0, dtype="f64")
            operands.append(Table(ones, lacking))
        letters = dict(zip(dict.fromkeys((*emit.joined(operands), *axes)), ascii_letters,
                           strict=False))  # fmt: skip
        left = ",".join("".join(letters[a] for a in operand.axes) for operand in operands)
        spec = f"{left}->{''.join(letters[a] for a in axes)}"
        made = emit.emit("contract", [o.value for o in operands], semiring="sum_product", spec=spec)
        # An index that no operand has repeats the same sum.
        again = [statement.domain[i][1] for i in statement.domain if i not in held | set(lacking)]
        return Table(emit.scaled(made, product(again)), axes)

    def _view(self, statement: Statement, reference: Reference, q: Value) -> Table:
        """A variable's distributions where a reference points, over the statement's indices."""
        emit = self.emit
        value, axes = q, []
        for place in reference.places:
            at = len(axes)
            if place[0] == "index":
                low, size = statement.domain[place[1]]
                value = emit.cut(value, at, low + place[2], size)
                axes.append(place[1])
            elif place[0] == "at":
                value = emit.cut(value, at, place[1], 1)
                shape = emit.type_of(value).shape
                value = emit.reshape(value, (*shape[:at], *shape[at + 1 :]))
            else:
                table, names = statement.tables[place[1]]
                _require_alone(statement, reference)
                value = emit.emit("take", [value, table], axis=at)
                axes += names
        return Table(value, (*axes, reference.axis))

    def _back(
        self, statement: Statement, reference: Reference, family: Family, said: Table
    ) -> Value:
        """What was said, put where the reference points."""
        emit, value = self.emit, said.value
        for position, (place, extent) in enumerate(
            zip(reference.places, family.extent, strict=True)
        ):
            if place[0] == "index":
                value = emit.place(
                    value, position, statement.domain[place[1]][0] + place[2], extent
                )
            elif place[0] == "at":
                shape = emit.type_of(value).shape
                value = emit.reshape(value, (*shape[:position], 1, *shape[position:]))
                value = emit.place(value, position, place[1], extent)
            else:
                table, names = statement.tables[place[1]]
                count = product(emit.shape(names))
                flat = emit.reshape(value, (count, family.size))
                index = emit.reshape(table, (count,))
                value = emit.emit("segment_sum", [flat, index], segments=extent)
        return value


def _indices(statement: Statement, reference: Reference) -> tuple[str, ...]:
    """The statement's indices that a reference varies with."""
    found: list[str] = []
    for place in reference.places:
        if place[0] == "index":
            found.append(place[1])
        elif place[0] == "table":
            found += statement.tables[place[1]][1]
    if len(set(found)) < len(found):
        raise ModelFault("E804", f"`{reference.axis}` uses one index twice", statement.span)
    return tuple(found)


def _require_alone(statement: Statement, reference: Reference) -> None:
    if len(reference.places) > 1:
        raise ModelFault("E804", f"`{reference.axis}` is where a table says, among other indices",
                         statement.span, hint="number the elements along one index")  # fmt: skip


def _require_small(emitter: Emitter, statement: Statement, native: Table) -> None:
    count = product(emitter.type_of(native.value).shape)
    if isinstance(count, int) and count > LARGEST:
        raise ModelFault("E610", f"the table of `{statement.label}` has {count:.3g} entries",
                         statement.span, f"at most {LARGEST:.3g} fit",
                         "use a smaller picture")  # fmt: skip
