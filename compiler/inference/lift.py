"""Statements as factors over whole families: one table for all elements of a plate or a chain."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..ir.dims import DimLike
from ..ir.graph import Value
from .potentials import Potentials
from .statements import Statement
from .structure import Component, Family, Structure
from .tables import Emitter, Table

START, NODE, EDGE = "start", "node", "edge"
"""A factor at the first step of a chain only, at each step (or of no chain), between steps."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A table in the product that inference sums out; ``kind`` is START, NODE or EDGE."""

    table: Table
    kind: str
    label: str


@dataclass(frozen=True, eq=False)
class Lifted:
    """A statement's factor, and what leads from it back to the statement's own table.

    ``native`` is the statement's table with the statement's names, ``names`` what its axes are
    called in the factor, ``windows`` where it lies along axes that it does not fill. One that
    ``clamps`` holds a variable at given values and is no statement.
    """

    statement: Statement
    factor: Factor
    native: Table
    names: dict[str, str]
    windows: dict[str, tuple[DimLike, DimLike]]
    clamps: bool = False

    def back(self, emitter: Emitter, gradient: Table) -> Table:
        """The gradient by the statement's own table, from that by the factor."""
        value, axes = gradient.value, gradient.axes
        for axis, (low, size) in self.windows.items():
            if axis in axes:
                value = emitter.cut(value, axes.index(axis), low, size)
        inverse = {new: old for old, new in self.names.items()}
        shape = emitter.type_of(self.native.value).shape
        local = Emitter(emitter.graph, dict(zip(self.native.axes, shape, strict=True)))
        kept = [axis for axis in axes if inverse.get(axis) in self.native.axes]
        reduced = local.reduce("sum", Table(value, axes), [a for a in axes if a not in kept])
        named = Table(reduced.value, tuple(inverse[axis] for axis in reduced.axes))
        return Table(local.expand(named, self.native.axes), self.native.axes)


def lift(
    emitter: Emitter, structure: Structure, component: Component, statement: Statement,
    missing: Collection[str],
) -> Lifted | None:  # fmt: skip
    """A statement as a factor over families; None when it adds nothing."""
    native = Potentials(emitter, statement, missing).table()
    if native is None:
        return None
    native = emitter.wide(native)
    emitter.span, emitter.label = statement.span, statement.label
    families = {f.name: f for f in component.families}
    kind, names = _named(statement, families, component.chain)
    names |= {index: structure.axis_of[statement.node, index] for index in statement.domain}
    plates = {structure.axis_of[statement.node, index] for index in statement.domain}
    windows: dict[str, tuple[DimLike, DimLike]] = {}
    fixed: dict[str, DimLike] = {}
    for reference in statement.references:
        family = families[reference.variable]
        plates |= set(family.axes)
        for axis, place in zip(family.axes, reference.places, strict=True):
            if place[0] == "at":
                fixed[axis] = place[1]
            else:
                low, size = statement.domain[place[1]]
                known = windows.get(axis, (low + place[2], size))
                later = known[0] if _later(known[0], low + place[2]) else low + place[2]
                windows[axis] = (later, size)
    plates |= {structure.batch} if structure.batch else set()
    table = Table(native.value, tuple(names[a] for a in native.axes))
    if component.chain in fixed and fixed[component.chain] == 0 and kind == NODE:
        kind = START
        del fixed[component.chain]  # the chain itself puts it at its first step
    table, placed = _placed(emitter, table, kind, component.chain, windows, fixed)
    table = Table(table.value, table.axes, frozenset(plates))
    return Lifted(statement, Factor(table, kind, statement.formula), native, names, placed)


def _later(a: DimLike, b: DimLike) -> bool:
    gap = a - b
    return isinstance(gap, int) and gap >= 0


def _named(
    statement: Statement, families: dict[str, Family], chain: str | None
) -> tuple[str, dict[str, str]]:
    """The factor's kind, and names of its latent axes: ``z``, or ``z'`` for the step before."""
    shifts = {}
    for reference in statement.references:
        family = families[reference.variable]
        for axis, place in zip(family.axes, reference.places, strict=True):
            if axis == chain and place[0] == "index":
                shifts[reference.axis] = place[2]
    latest = max(shifts.values(), default=0)
    names = {}
    for reference in statement.references:
        before = shifts.get(reference.axis, latest) < latest
        names[reference.axis] = f"{reference.variable}'" if before else reference.variable
    return EDGE if len(set(shifts.values())) > 1 else NODE, names


def _placed(
    emitter: Emitter, table: Table, kind: str, chain: str | None,
    windows: dict[str, tuple[DimLike, DimLike]], fixed: dict[str, DimLike],
) -> tuple[Table, dict[str, tuple[DimLike, DimLike]]]:  # fmt: skip
    """The table over whole axes, zero where the statement does not reach."""
    placed: dict[str, tuple[DimLike, DimLike]] = {}
    for axis, (low, size) in windows.items():
        total = emitter.sizes[axis]
        first: DimLike = 1 if kind == EDGE and axis == chain else 0
        whole = low == first and low + size == total
        if axis not in table.axes:
            if whole:
                continue
            table = _repeated(emitter, table, axis, size)
        if low == 0 and size == total:
            continue
        place = table.axes.index(axis)
        table = Table(emitter.place(table.value, place, low, total), table.axes)
        placed[axis] = (low, size)
    for axis, low in fixed.items():
        table = _repeated(emitter, table, axis, 1)
        table = Table(emitter.place(table.value, 0, low, emitter.sizes[axis]), table.axes)
        placed[axis] = (low, 1)
    return table, placed


def _repeated(emitter: Emitter, table: Table, axis: str, size: DimLike) -> Table:
    """The table with one more axis in front, the same all along it."""
    shape = emitter.type_of(table.value).shape
    value: Value = emitter.emit("broadcast", [table.value], shape=(size, *shape))
    return Table(value, (axis, *table.axes))
