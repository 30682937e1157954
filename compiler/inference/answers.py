"""Answers to questions about a model: values that are added to its graph when asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..interpret import interpret
from ..ir.graph import Graph, Value
from ..ir.types import TensorType
from ..ops.base import OpError
from .decode import Decoder
from .eliminate import Elimination, Eliminator, Variable
from .ground import ground
from .lift import NODE, Factor, Lifted, lift
from .potentials import MISSING, Potentials
from .statements import ModelFault, Statement, statements_of
from .structure import Component, Family, Structure, structure_of
from .tables import Emitter, Table

Constant = Callable[[Value], "np.ndarray | None"]
"""The array behind a value that depends on no input and no weight, else None."""


@dataclass
class Part:
    """One component: its factors, how to eliminate it, and its families' places in the answer."""

    component: Component
    variables: tuple[Variable, ...]
    lifted: tuple[Lifted, ...]
    chain: str | None
    gather: Callable[[Family, Mapping[str, Table], bool], Table]
    back: Callable[[Sequence[Lifted], Mapping[Table, Table]], Table]

    def of_statements(self) -> dict[Statement, list[Lifted]]:
        """The factors of each statement; one, unless its elements are on their own."""
        found: dict[Statement, list[Lifted]] = {}
        for row in self.lifted:
            if not row.clamps:
                found.setdefault(row.statement, []).append(row)
        return found


def constant_value(graph: Graph, value: Value) -> np.ndarray | None:
    """The array behind a value that depends on no input and no weight."""
    twin = graph.copy()
    twin.outputs = [("it", value)]
    twin.inputs = []
    twin.prune()
    if twin.of_op("input", "param") or twin.symbols:
        return None
    try:
        return interpret(twin, {}, {})["it"]
    except OpError:
        return None


def answers_about(
    graph: Graph, missing: Collection[str] = (), known: Collection[str] = ()
) -> Answers:
    """Answers when some latent variables are given, as inputs of their names that are added.

    Elements of theirs that are ``MISSING`` are as if they were not given.
    """
    clamped = {}
    if known:
        structure = structure_of(statements_of(graph))
        lead = (structure.sizes[structure.batch],) if structure.batch else ()
        for family in structure.families:
            if family.name in known:
                kind = TensorType("i32", (*lead, *family.extent))
                clamped[family.name] = graph.add_input(family.name, kind)
    return Answers(graph, lambda value: constant_value(graph, value), missing, clamped)


class Answers:
    """What a model knows, given what is observed.

    ``missing`` names inputs with values that are not there (nan, or ``MISSING``); ``clamped``
    variables have given values.
    """

    def __init__(
        self, graph: Graph, constant: Constant, missing: Collection[str] = (),
        clamped: Mapping[str, Value] | None = None,
    ) -> None:  # fmt: skip
        self.graph = graph
        self.constant = constant
        self.missing = missing
        self.clamped = dict(clamped or {})
        self.statements = statements_of(graph)
        self.structure: Structure = structure_of(self.statements)
        self.emitter = Emitter(graph, self.structure.sizes)
        self.outer = frozenset({self.structure.batch} if self.structure.batch else ())
        self._done: dict[str, list[Elimination]] = {}
        self._gradients: list[dict[Table, Table]] | None = None
        self._chosen: dict[tuple[int, str, str], dict[str, Table]] = {}

    # ------------------------------------------------------------ questions

    @cached_property
    def loglik(self) -> Table:
        """The log-likelihood of what is observed; priors of parameters are not in it."""
        tables = [done.value for done in self.eliminations("lse")]
        for statement in self.structure.apart:
            if statement.role != "param":
                tables.append(self.density(statement))
        return self._sum(tables)

    @cached_property
    def log_prior(self) -> Table:
        """The log density of parameters that have a prior."""
        rows = [s for s in self.structure.apart if s.role == "param"]
        return self._sum([self.density(statement) for statement in rows])

    def loglik_along(self, index: str) -> Table:
        """The log-likelihood of each element of a plate: every variable and statement has it.

        Raises ``OpError`` E604 for an index that is no such plate.
        """
        plates = [
            axis for axis in self.structure.sizes
            if all(axis in f.axes and axis != c.chain and not c.irregular
                   for c in self.structure.components for f in c.families)
            and all(axis in {self.structure.axis_of[s.node, i] for i in s.domain}
                    for s in self.structure.apart if s.role != "param")
        ]  # fmt: skip
        if index not in plates:
            known = ", ".join(plates) or "none"
            raise OpError("E604", f"`{index}` is no plate of the whole model", f"there is {known}")
        twin = Answers(self.graph, self.constant, self.missing, self.clamped)
        twin.outer = self.outer | {index}
        return twin.loglik

    def marginals(self, name: str) -> Table:
        """The posterior of a variable: its axes, then its values."""
        part, place = self._part_of(name)
        family = part.component.family(name)
        gradients, done = self.gradients()[place], self.eliminations("lse")[place]
        found = {v.name: self._marginal(v.name, done, gradients) for v in part.variables}
        return part.gather(family, found, True)

    def best(self, name: str) -> Table:
        """The values of a variable in the most probable joint assignment."""
        return self._decoded(name, "max", None, "")

    def sample(self, name: str, key: Value, path: str) -> Table:
        """The values of a variable in a joint draw from the posterior."""
        return self._decoded(name, "lse", key, path)

    def density(self, statement: Statement) -> Table:
        """The log density of a statement without latent variables, summed."""
        native = Potentials(self.emitter, statement, self.missing).table()
        assert native is not None
        names = tuple(self.structure.axis_of[statement.node, a] for a in native.axes)
        table = Table(native.value, names)
        gone = {self.structure.axis_of[statement.node, a] for a in statement.domain}
        return self.emitter.total(table, gone - self.outer)

    def weights(self) -> dict[int, Table]:
        """The gradient of log Z by each statement's log-potential: expected occurrences."""
        found = {}
        for part, gradients in zip(self.parts, self.gradients(), strict=True):
            for statement, rows in part.of_statements().items():
                found[statement.node] = part.back(rows, gradients)
        return found

    @cached_property
    def entropy(self) -> Table:
        """Of the posterior over all latent variables, batch and all, in nats: log Z less energy."""
        emit, weights = self.emitter, self.weights()
        tables = [emit.total(done.value, self.outer) for done in self.eliminations("lse")]
        for part in self.parts:
            for statement, rows in part.of_statements().items():
                energy = self._expected(weights[statement.node], rows[0])
                tables.append(Table(emit.emit("neg", [energy.value]), ()))
        return emit.combine("add", tables) if len(tables) > 1 else tables[0]

    # ------------------------------------------------------------ elimination

    @cached_property
    def parts(self) -> list[Part]:
        """Every component with its factors."""
        return [self._part(component) for component in self.structure.components]

    def eliminations(self, semiring: str) -> list[Elimination]:
        """Every component eliminated."""
        if semiring not in self._done:
            self._done[semiring] = [self._eliminated(part, semiring) for part in self.parts]
        return self._done[semiring]

    def _eliminated(self, part: Part, semiring: str) -> Elimination:
        worker = Eliminator(self.emitter, part.variables, part.chain, self.outer, semiring)
        with self._with_ways_out(part.component):
            return worker.run([row.factor for row in part.lifted])

    @contextmanager
    def _with_ways_out(self, component: Component) -> Iterator[None]:
        """What is too large says what can be asked instead."""
        try:
            yield
        except ModelFault as fault:
            if fault.code != "E610" or fault.hint is not None:
                raise
            from .ways_out import ways_out

            hint = ways_out(self, component)
            raise ModelFault(fault.code, fault.message, fault.span, fault.found, hint) from None

    def gradients(self) -> list[dict[Table, Table]]:
        """The gradient of log Z by every table of each component."""
        if self._gradients is None:
            one = Table(self.emitter.number(1.0), ())
            self._gradients = [
                done.gradients(one, self.emitter) for done in self.eliminations("lse")
            ]
        return self._gradients

    def _part(self, component: Component) -> Part:
        if component.irregular:
            with self._with_ways_out(component):
                return ground(self, component)
        emit = self.emitter
        rows = [lift(emit, self.structure, component, s, self.missing)
                for s in component.statements]  # fmt: skip
        lifted = [row for row in rows if row is not None]
        lifted += [self._clamp(f) for f in component.families if f.name in self.clamped]
        variables = tuple(
            Variable(f.name, frozenset({*f.axes, *self.outer}), f.span) for f in component.families
        )

        def back(rows: Sequence[Lifted], gradients: Mapping[Table, Table]) -> Table:
            return rows[0].back(emit, gradients[rows[0].factor.table])

        return Part(component, variables, tuple(lifted), component.chain, self._over_axes, back)

    def held(self, family: Family, axes: tuple[str, ...]) -> Table:
        """A table over ``axes`` and values: 0 at given values, -inf elsewhere; 0 where none is."""
        emit = self.emitter
        given = emit.reshape(self.clamped[family.name], emit.shape(axes))
        values = emit.emit("iota", [], size=family.size, dtype=emit.type_of(given).dtype)
        table = emit.combine("eq", [Table(given, axes), Table(values, (family.name,))])
        none = emit.emit("eq", [given, emit.number(MISSING, emit.type_of(given).dtype)])
        table = emit.combine("or", [table, Table(none, axes)])
        zero, never = emit.number(0.0), emit.number(float("-inf"))
        return Table(emit.emit("where", [table.value, zero, never]), table.axes)

    def _clamp(self, family: Family) -> Lifted:
        """A factor that holds a variable at given values."""
        axes = (*sorted(self.outer - set(family.axes)), *family.axes)
        made = self.held(family, axes)
        made = Table(made.value, made.axes, frozenset(axes))
        names = {axis: axis for axis in made.axes}
        factor = Factor(made, NODE, f"{family.name} = given")
        return Lifted(family.sites[0], factor, made, names, {}, clamps=True)

    # ------------------------------------------------------------ helpers

    def _part_of(self, name: str) -> tuple[Part, int]:
        for place, part in enumerate(self.parts):
            if any(f.name == name for f in part.component.families):
                return part, place
        raise KeyError(name)

    def _marginal(self, name: str, done: Elimination, gradients: Mapping[Table, Table]) -> Table:
        if name in done.chains:
            return done.chains[name]
        table = gradients[done.joint[name]]
        others = [a for a in table.axes if a != name and a in self._latent_axes(table)]
        return self.emitter.reduce("sum", table, others)

    def _latent_axes(self, table: Table) -> set[str]:
        names = {v.name for part in self.parts for v in part.variables}
        return {axis for axis in table.axes if axis.removesuffix("'") in names}

    def _decoded(self, name: str, semiring: str, key: Value | None, path: str) -> Table:
        part, place = self._part_of(name)
        if (place, semiring, path) not in self._chosen:
            plates = {v.name: v.plates for v in part.variables}
            decoder = Decoder(self.emitter, plates, part.chain, key, path)
            found = decoder.run(self.eliminations(semiring)[place])
            self._chosen[place, semiring, path] = found
        family = part.component.family(name)
        return part.gather(family, self._chosen[place, semiring, path], False)

    def _over_axes(self, family: Family, found: Mapping[str, Table], values: bool) -> Table:
        """A variable's table over all of its axes, the batch in front, values last."""
        axes = (*sorted(self.outer), *family.axes, *((family.name,) if values else ()))
        return Table(self.emitter.expand(found[family.name], axes), axes)

    def _sum(self, tables: Sequence[Table]) -> Table:
        axes = tuple(sorted(self.outer))
        if not tables:
            return Table(self.emitter.number(0.0), ())
        total = self.emitter.combine("add", tables) if len(tables) > 1 else tables[0]
        return Table(self.emitter.expand(total, axes), axes)

    def _expected(self, weights: Table, lifted: Lifted) -> Table:
        """The sum of weight * log-potential, with 0 * -inf = 0."""
        emit = self.emitter
        native = lifted.native
        zero = emit.number(0.0)
        used = emit.emit("ne", [weights.value, zero])
        safe = emit.emit("where", [used, native.value, zero])
        table = Table(emit.emit("mul", [weights.value, safe]), native.axes)
        # A table that stays the same along an index was summed over it by the gradient.
        return emit.reduce("sum", table, table.axes)
