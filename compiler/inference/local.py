"""What approximations share: one distribution for each element, and statements that read them.

Values ``[batch.., extent.., values]`` of a variable are looked at where a statement's references
point, over the statement's indices, and what a statement says is put back where they point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..ir.dims import product
from ..ir.graph import Graph, Value
from .potentials import Potentials
from .statements import BATCH, ModelFault, Reference, Statement
from .structure import Component, Family
from .tables import Emitter, Table

if TYPE_CHECKING:
    from .answers import Answers

LARGEST = 1 << 28
"""Elements of the largest table that is made."""

Row = tuple[Statement, Table]


class Region:
    """The body of a loop of at most some steps, that ends when a scalar falls below ``tol``."""

    def __init__(self, outer: Emitter, carries: Sequence[Value]) -> None:
        self.outer, self.graph, self.starts = outer, Graph("loop"), list(carries)
        self.carries = [self.graph.add_input(f"c{n}", outer.type_of(v))
                        for n, v in enumerate(carries)]  # fmt: skip
        self.captures: dict[Value, Value] = {}

    def capture(self, value: Value) -> Value:
        """A value from outside, inside."""
        if value not in self.captures:
            kind = self.outer.type_of(value)
            self.captures[value] = self.graph.add_input(f"k{len(self.captures)}", kind)
        return self.captures[value]

    def run(self, results: Sequence[Value], change: Value, steps: int, tol: float) -> list[Value]:
        """The loop itself: the carries after its last step."""
        emit = Emitter(self.graph, {})
        limit = emit.number(tol, emit.type_of(change).dtype)
        done = emit.emit("lt", [change, limit])
        for number, value in enumerate([*results, done]):
            self.graph.set_output(f"r{number}", value)
        self.graph.prune(self.graph.inputs)
        types = [self.graph.type_of(v) for v in results]
        attrs = {"n_carry": len(results), "max_steps": steps}
        outer = self.outer
        node = outer.graph.add("iterate", [*self.starts, *self.captures], attrs, types,
                               outer.label, outer.span, (self.graph,))  # fmt: skip
        return [Value(node, place) for place in range(len(results))]


class Local:
    """The statements of a component as tables; ``apart`` are statements that are dealt with
    elsewhere, so that no table is made of them.
    """

    def __init__(
        self, answers: Answers, component: Component,
        apart: Callable[[Statement], bool] = lambda statement: False,
    ) -> None:  # fmt: skip
        self.emit = Emitter(answers.graph, {})
        self.families = {f.name: f for f in component.families}
        self.batch: tuple[Any, ...] = ()
        if answers.outer:
            self.batch = tuple(answers.structure.sizes[axis] for axis in answers.outer)
        self.dtype = "f32" if all(s.dtype == "f32" for s in component.statements) else "f64"
        self.rows: list[Row] = []
        for statement in component.statements:
            if apart(statement):
                continue
            native = Potentials(answers.emitter, statement, answers.missing).table()
            if native is not None:
                _require_small(answers.emitter, statement, native)
                self.rows.append((statement, self._of_our_type(native)))
        self.alone = [row for row in self.rows if len(row[0].references) == 1]
        self.joint = [row for row in self.rows if len(row[0].references) > 1]

    def _of_our_type(self, table: Table) -> Table:
        if self.emit.type_of(table.value).dtype == self.dtype:
            return table
        return Table(self.emit.emit("cast", [table.value], dtype=self.dtype), table.axes)

    def number(self, value: float) -> Value:
        """A constant scalar."""
        return self.emit.number(value, self.dtype)

    def shape(self, family: Family) -> tuple[Any, ...]:
        """The shape of a variable's distributions."""
        return (*self.batch, *family.extent, family.size)

    def filled(self, shape: Sequence[Any], value: float) -> Value:
        """A tensor of one value."""
        return self.emit.emit("fill", [], shape=tuple(shape), value=value, dtype=self.dtype)

    def softmax(self, logits: Value) -> Value:
        """Distributions over the last axis."""
        rank = self.emit.type_of(logits).rank
        return self.emit.emit("softmax", [logits], axis=rank - 1, beta=1.0)

    def normalised(self, logs: Value, kind: str = "lse") -> Value:
        """Logs less their log-sum-exp, or their largest, along the last axis."""
        axis = self.emit.type_of(logs).rank - 1
        if kind == "lse":
            return self.emit.emit("log_softmax", [logs], axis=axis)
        top = self.emit.emit("reduce", [logs], kind="max", axes=(axis,), keepdims=True)
        return self.emit.emit("sub", [logs, top])

    def damped(self, new: Value, old: Value, damping: float) -> Value:
        """``damping`` is the share of the old value that stays."""
        if not damping:
            return new
        parts = [self.emit.emit("mul", [v, self.number(share)])
                 for v, share in ((new, 1 - damping), (old, damping))]  # fmt: skip
        return self.emit.emit("add", parts)

    def change(self, pairs: Sequence[tuple[Value, Value]]) -> Value:
        """The largest difference of some values, a scalar."""
        tops = []
        for new, old in pairs:
            gap = self.emit.emit("abs", [self.emit.emit("sub", [new, old])])
            axes = tuple(range(self.emit.type_of(gap).rank))
            tops.append(self.emit.emit("reduce", [gap], kind="max", axes=axes, keepdims=False))
        while len(tops) > 1:
            tops = [self.emit.emit("maximum", tops[:2]), *tops[2:]]
        return tops[0]

    def within(self, region: Region) -> Local:
        """The same inside a loop, where everything is captured."""
        twin = copy(self)
        twin.emit = Emitter(region.graph, {})
        twin.rows = []
        for statement, native in self.rows:
            tables = {k: (region.capture(v), a) for k, (v, a) in statement.tables.items()}
            moved = replace(statement, tables=tables)
            twin.rows.append((moved, Table(region.capture(native.value), native.axes)))
        twin.alone = [row for row in twin.rows if len(row[0].references) == 1]
        twin.joint = [row for row in twin.rows if len(row[0].references) > 1]
        return twin

    # ------------------------------------------------------------ fields

    def own(self, family: Family) -> Value:
        """What statements about one variable alone say of each element."""
        return self.fields(family, self.alone, {})

    def fields(self, family: Family, rows: Sequence[Row], q: Mapping[str, Value]) -> Value:
        """The sum of what statements say about each element: expected log-potentials."""
        total = None
        for statement, native in rows:
            for reference in statement.references:
                if reference.variable == family.name:
                    said = self._expected(statement, native, reference, q)
                    placed = self.back(statement, reference, said)
                    total = placed if total is None else self.emit.emit("add", [total, placed])
        return self.filled(self.shape(family), 0.0) if total is None else total

    def _expected(
        self, statement: Statement, native: Table, reference: Reference, q: Mapping[str, Value]
    ) -> Table:
        """The expected log-potential for each value of one reference, the others averaged."""
        operands = [native]
        for other in statement.references:
            if other is not reference:
                operands.append(self.view(statement, other, q[other.variable]))
        return self.contracted(statement, operands, reference, "sum_product")

    def contracted(
        self, statement: Statement, operands: Sequence[Table], reference: Reference, semiring: str
    ) -> Table:
        """Tables joined over a statement, down to one reference: its indices, then its values."""
        emit = self.emit
        emit.span, emit.label = statement.span, statement.label
        operands = list(operands)
        self.measure(statement, operands)
        axes = self.axes(statement, reference)
        if len(operands) == 1 and set(operands[0].axes) == set(axes) >= statement.domain.keys():
            return Table(emit.expand(operands[0], axes), axes)
        held = {axis for operand in operands for axis in operand.axes}
        lacking = tuple(axis for axis in axes if axis not in held)
        if lacking:
            one = 1.0 if semiring == "sum_product" else 0.0
            operands.append(Table(self.filled(emit.shape(lacking), one), lacking))
        letters = {axis: chr(ord("a") + n) for n, axis in enumerate(
            dict.fromkeys((*emit.joined(operands), *axes)))}  # fmt: skip
        left = ",".join("".join(letters[a] for a in operand.axes) for operand in operands)
        spec = f"{left}->{''.join(letters[a] for a in axes)}"
        made = emit.emit("contract", [o.value for o in operands], semiring=semiring, spec=spec)
        # An index that no operand has repeats the same sum.
        again = [statement.domain[i][1] for i in statement.domain
                 if i not in held | set(lacking) | {BATCH}]  # fmt: skip
        return Table(emit.scaled(made, product(again)), axes)

    def measure(self, statement: Statement, operands: Sequence[Table]) -> None:
        """Enter the sizes of all axes of a statement."""
        emit = self.emit
        for operand in operands:
            emit.sizes.update(zip(operand.axes, emit.type_of(operand.value).shape, strict=True))
        for index, (_, size) in statement.domain.items():
            # Another statement's index of this name may have another size.
            emit.sizes[index] = size
        for reference in statement.references:
            emit.sizes[reference.axis] = self.families[reference.variable].size
        if self.batch:
            emit.sizes[BATCH] = self.batch[0]

    def axes(self, statement: Statement, reference: Reference) -> tuple[str, ...]:
        """The axes of what a statement says about a reference."""
        lead = (BATCH,) if self.batch else ()
        return (*lead, *indices_of(statement, reference), reference.axis)

    # ------------------------------------------------------------ where references point

    def view(self, statement: Statement, reference: Reference, q: Value) -> Table:
        """A variable's rows where a reference points, over the statement's indices."""
        emit = self.emit
        value, axes = q, [BATCH] if self.batch else []
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

    def back(self, statement: Statement, reference: Reference, said: Table) -> Value:
        """What was said, put where the reference points; what meets is added."""
        emit, value = self.emit, said.value
        self.measure(statement, [said])
        family = self.families[reference.variable]
        for position, (place, extent) in enumerate(
            zip(reference.places, family.extent, strict=True), len(self.batch)
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
                value = self._summed(value, table, product(emit.shape(names)), extent)
        return value

    def _summed(self, value: Value, table: Value, count: Any, extent: Any) -> Value:
        """Rows added where a table says, the batch kept in front."""
        emit = self.emit
        index = emit.reshape(table, (count,))
        size = emit.type_of(value).shape[-1]
        if not self.batch:
            flat = emit.reshape(value, (count, size))
            return emit.emit("segment_sum", [flat, index], segments=extent)
        flat = emit.reshape(value, (*self.batch, count, size))
        flat = emit.emit("transpose", [flat], perm=(1, 0, 2))
        summed = emit.emit("segment_sum", [flat, index], segments=extent)
        return emit.emit("transpose", [summed], perm=(1, 0, 2))


def indices_of(statement: Statement, reference: Reference) -> tuple[str, ...]:
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
                         "use a smaller picture, or kernels made of `gauss`")  # fmt: skip
