"""Irregular components element by element: each becomes variables without indices."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from ..ir.types import shape_text
from .eliminate import Variable
from .lift import NODE, Factor, Lifted
from .potentials import Potentials
from .statements import ModelFault, Statement
from .structure import Component, Family
from .tables import Emitter, Table, known

if TYPE_CHECKING:
    from .answers import Answers, Part

MOST_FACTORS = 4000
"""Elements of statements that are worked on one by one."""

LARGEST_TABLE = 1 << 24
"""Entries of the largest table that an exact elimination may make."""


def ground(answers: Answers, component: Component) -> Part:
    """The component with every element on its own."""
    from .answers import Part

    worker = _Ground(answers, component)
    rows = [worker.pieces(statement) for statement in component.statements]
    lifted = tuple(row for found in rows for row in found)
    worker.require_small(lifted)
    lifted += tuple(
        row for f in component.families if f.name in answers.clamped for row in worker.clamps(f)
    )
    variables = tuple(
        Variable(worker.name(f, k), answers.outer, f.span)
        for f in component.families for k in range(worker.count(f))
    )  # fmt: skip
    return Part(component, variables, lifted, None, worker.gather, worker.back)


class _Ground:
    def __init__(self, answers: Answers, component: Component) -> None:
        self.answers = answers
        self.component = component
        self.emit: Emitter = answers.emitter
        self.families = {f.name: f for f in component.families}
        self.axes: dict[Lifted, tuple[int, ...]] = {}
        for family in component.families:
            require_known(family)
            for k in range(self.count(family)):
                self.emit.sizes[self.name(family, k)] = family.size

    def count(self, family: Family) -> int:
        """How many elements a family has."""
        return int(np.prod([known(n) for n in family.extent], dtype=np.int64))

    def name(self, family: Family, element: int) -> str:
        """One element's name."""
        if not family.extent:
            return family.name
        spots = np.unravel_index(element, [known(n) for n in family.extent])
        return f"{family.name}[{', '.join(str(int(k)) for k in spots)}]"

    # ------------------------------------------------------------ statements

    def pieces(self, statement: Statement) -> list[Lifted]:
        """A statement's factors, one for every value of its indices."""
        native = Potentials(self.emit, statement, self.answers.missing).table()
        if native is None:
            return []
        native = self.emit.wide(native)
        emit = self.emit
        emit.span, emit.label = statement.span, statement.label
        indices = [a for a in statement.domain if a not in self._batch(statement)]
        ranges = [range(known(statement.domain[a][1])) for a in indices]
        total = int(np.prod([len(r) for r in ranges], dtype=np.int64))
        _require_few(statement, total)
        counts = self._counts(statement, indices)
        tables = {k: self._constant(value, statement) for k, (value, _) in
                  statement.tables.items()}  # fmt: skip
        found = []
        for spot in itertools.product(*ranges):
            point = dict(zip(indices, spot, strict=True))
            if counts is None or counts(point):
                found.append(self._piece(statement, native, point, tables))
        return found

    def clamps(self, family: Family) -> list[Lifted]:
        """A factor for each element that holds it at its given value."""
        emit, outer = self.emit, tuple(sorted(self.answers.outer))
        own = tuple(f"{family.name}.{k}" for k in range(len(family.axes)))
        emit.sizes.update(zip(own, family.extent, strict=True))
        whole = self.answers.held(family, (*outer, *own))
        flat = emit.reshape(whole.value, (*emit.shape(outer), self.count(family), family.size))
        found = []
        for k in range(self.count(family)):
            name = self.name(family, k)
            value = emit.cut(flat, len(outer), k, 1)
            value = emit.reshape(value, (*emit.shape(outer), family.size))
            table = Table(value, (*outer, name), self.answers.outer)
            factor = Factor(table, NODE, f"{name} = given")
            found.append(Lifted(family.sites[0], factor, table, {}, {}, clamps=True))
        return found

    def _batch(self, statement: Statement) -> set[str]:
        names = self.answers.structure.axis_of
        return {a for a in statement.domain if names[statement.node, a] in self.answers.outer}

    def _constant(self, value: Any, statement: Statement) -> np.ndarray:
        array = self.answers.constant(value)
        if array is None:
            raise ModelFault("E610", "which variables a factor joins must be known beforehand",
                             statement.span, hint="give the table as a list")  # fmt: skip
        return array

    def _counts(self, statement: Statement, indices: Sequence[str]) -> Any:
        """Whether the statement counts at a point, where that is known beforehand."""
        if statement.condition is None or set(statement.condition[1]) - set(indices):
            return None
        array = self.answers.constant(statement.condition[0])
        axes = statement.condition[1]
        if array is None:
            return None
        return lambda point: bool(array[tuple(point[a] for a in axes)])

    def _piece(
        self, statement: Statement, native: Table, point: Mapping[str, int],
        tables: Mapping[int, np.ndarray],
    ) -> Lifted:  # fmt: skip
        emit = self.emit
        names = {r.axis: self._element(statement, r, point, tables)
                 for r in statement.references}  # fmt: skip
        if len(set(names.values())) < len(names):
            raise ModelFault("E610", f"`{statement.label}` joins a variable with itself",
                             statement.span, f"{next(iter(names.values()))}",
                             "leave such pairs out: `if i != j`")  # fmt: skip
        value, axes = native.value, native.axes
        shape = emit.type_of(value).shape
        starts = tuple(point.get(a, 0) for a in axes)
        stops = tuple(point[a] + 1 if a in point else d for a, d in zip(axes, shape, strict=True))
        if any(a in point for a in axes):
            value = emit.emit("slice", [value], starts=starts, stops=stops, steps=(1,) * len(axes))
        kept = tuple(a for a in axes if a not in point)
        value = emit.reshape(value, [d for a, d in zip(axes, shape, strict=True) if a in kept])
        names |= {a: self.answers.structure.axis_of[statement.node, a]
                  for a in self._batch(statement)}  # fmt: skip
        table = Table(value, tuple(names[a] for a in kept), self.answers.outer)
        row = Lifted(
            statement, Factor(table, NODE, self._formula(statement, table)), native, names, {}
        )
        self.axes[row] = tuple(point.get(axis, -1) for axis in axes)
        return row

    def _formula(self, statement: Statement, table: Table) -> str:
        held = ", ".join(axis for axis in table.axes if axis not in self.answers.outer)
        return f"{statement.formula.partition('(')[0]}({held})"

    def _element(
        self, statement: Statement, reference: Any, point: Mapping[str, int],
        tables: Mapping[int, np.ndarray],
    ) -> str:  # fmt: skip
        family = self.families[reference.variable]
        spot = []
        for place, extent in zip(reference.places, family.extent, strict=True):
            if place[0] == "at":
                spot.append(known(place[1]))
            elif place[0] == "index":
                low, _ = statement.domain[place[1]]
                spot.append(known(low) + point[place[1]] + int(place[2]))
            else:
                axes = statement.tables[place[1]][1]
                spot.append(int(tables[place[1]][tuple(point[a] for a in axes)]))
            if not 0 <= spot[-1] < known(extent):
                raise ModelFault("E504", f"`{reference.axis}` is not drawn everywhere it is used",
                                 statement.span, f"element {spot[-1]} of {extent}")  # fmt: skip
        shape = [known(n) for n in family.extent]
        element = int(np.ravel_multi_index(spot, shape)) if spot else 0
        return self.name(family, element)

    # ------------------------------------------------------------ answers

    def gather(self, family: Family, found: Mapping[str, Table], values: bool) -> Table:
        """Elements stacked along the family's axes."""
        emit, outer = self.emit, tuple(sorted(self.answers.outer))
        parts = []
        for k in range(self.count(family)):
            name = self.name(family, k)
            tail = (name,) if values else ()
            value = emit.expand(found[name], (*outer, *tail))
            sizes = (*emit.shape(outer), 1, *emit.shape(tail))
            parts.append(emit.reshape(value, sizes))
        joined = parts[0] if len(parts) == 1 else emit.emit("concat", parts, axis=len(outer))
        own = tuple(f"{family.name}.{k}" for k in range(len(family.axes)))
        emit.sizes.update(zip(own, family.extent, strict=True))
        shape = (*emit.shape(outer), *family.extent, *((family.size,) if values else ()))
        tail = (family.name,) if values else ()
        return Table(emit.reshape(joined, shape), (*outer, *own, *tail))

    def back(self, rows: Sequence[Lifted], gradients: Mapping[Table, Table]) -> Table:
        """The gradient by a statement's own table, from those of its elements."""
        emit, native = self.emit, rows[0].native
        shape = emit.type_of(native.value).shape
        local = Emitter(emit.graph, dict(zip(native.axes, shape, strict=True)))
        spots = [tuple(k for k in self.axes[row] if k >= 0) for row in rows]
        placed = [place for place, k in enumerate(self.axes[rows[0]]) if k >= 0]
        kept = tuple(a for place, a in enumerate(native.axes) if place not in placed)
        pieces = []
        for row in rows:
            inverse = {new: old for old, new in row.names.items()}
            gradient = gradients[row.factor.table]
            named = Table(gradient.value, tuple(inverse[a] for a in gradient.axes))
            pieces.append(local.reshape(local.expand(named, kept), (1, *local.shape(kept))))
        stacked = emit.emit("concat", pieces, axis=0)
        sizes = [known(shape[place]) for place in placed]
        flat = [int(np.ravel_multi_index(spot, sizes)) if spot else 0 for spot in spots]
        segment = emit.graph.add_constant(np.array(flat, np.int32), "i32")
        count = int(np.prod(sizes, dtype=np.int64))
        summed = emit.emit("segment_sum", [stacked, segment], segments=count)
        whole = local.reshape(summed, (*sizes, *local.shape(kept)))
        axes = (*(native.axes[place] for place in placed), *kept)
        return Table(local.arrange(Table(whole, axes), native.axes), native.axes)

    # ------------------------------------------------------------ limits

    def require_small(self, lifted: Sequence[Lifted]) -> None:
        """E610 when the best elimination order found still makes too large a table."""
        net: nx.Graph = nx.Graph()
        sizes = {}
        for family in self.component.families:
            for k in range(self.count(family)):
                net.add_node(self.name(family, k))
                sizes[self.name(family, k)] = known(family.size)
        for row in lifted:
            held = [a for a in row.factor.table.axes if a in sizes]
            net.add_edges_from(itertools.combinations(held, 2))
        largest, where, operations = 1, "", 0
        while net.number_of_nodes():
            name = min(net, key=lambda n: _entries(net, n, sizes))
            entries = _entries(net, name, sizes)
            operations += entries * (len(net[name]) + 1)
            if entries > largest:
                largest, where = entries, ", ".join([name, *sorted(net[name])])
            around = list(net[name])
            net.remove_node(name)
            net.add_edges_from(itertools.combinations(around, 2))
        if largest > LARGEST_TABLE:
            shown = where if len(where) < 60 else where[:57] + "..."
            raise ModelFault(
                "E610", f"exact inference would need a table of {largest:.3g} entries",
                self.component.families[0].span,
                f"{8 * largest:.3g} bytes, over {shown}; {operations:.3g} operations in all;"
                f" {self.component.irregular}",
            )  # fmt: skip


def _entries(net: Any, name: str, sizes: Mapping[str, int]) -> int:
    result = sizes[name]
    for other in net[name]:
        result *= sizes[other]
    return result


def require_known(family: Family) -> None:
    """E805 for a variable with open sizes."""
    if any(not isinstance(size, int) for size in (*family.extent, family.size)):
        raise ModelFault("E805", f"`{family.name}` has open sizes", family.span,
                         shape_text([*family.extent, family.size]),
                         "give them: `--shape NAME=SIZE`")  # fmt: skip


def _require_few(statement: Statement, total: int) -> None:
    if total > MOST_FACTORS:
        raise ModelFault(
            "E610", f"`{statement.label}` has {total:,} elements that are joined irregularly",
            statement.span, f"exact inference takes at most {MOST_FACTORS:,}",
        )  # fmt: skip
