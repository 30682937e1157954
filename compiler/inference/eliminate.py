"""Variable elimination over plates and chains, as tensor ops, and its gradient and its choices.

Plates from the innermost out: all variables with most plates are summed out, one after the other,
the one that makes the smallest table first; what is left is summed along the plates that no
remaining variable has (Obermeyer et al., Tensor variable elimination for plated factor graphs,
ICML 2019). Variables that are joined with their neighbours are then one ``chain``. The semiring
says whether values are summed (``lse``) or the best is kept (``max``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ir.dims import DimLike, product
from ..ir.graph import Value
from ..ir.types import Span
from ..ops.chain import LOWEST
from .lift import EDGE, NODE, START, Factor
from .statements import ModelFault
from .tables import Emitter, Table

Back = Callable[[Table], list[Table]]


@dataclass(frozen=True)
class Step:
    """One step of the elimination, for the reader and for choosing values afterwards.

    ``kind`` is ``sum out``, ``multiply`` (along plates) or ``chain``; ``axes`` are those of the
    table that it works on, ``reads`` the labels of the factors in it: for a chain those of its
    start, its edges and its nodes. ``made`` is what the result is called.
    """

    kind: str
    names: tuple[str, ...]
    axes: tuple[str, ...]
    reads: tuple[tuple[str, ...], ...]
    made: str
    cost: DimLike
    elements: DimLike
    table: Table | None = None
    parts: tuple[Value, ...] = ()


@dataclass
class Elimination:
    """What an elimination made: its value (with the batch's axis, if any) and how to go back.

    ``joint`` holds the table in which each variable was summed out, ``chains`` the marginals of
    the states of chains once a gradient was taken.
    """

    value: Table
    steps: list[Step] = field(default_factory=list)
    tape: list[tuple[Table, list[Table], Back]] = field(default_factory=list)
    joint: dict[str, Table] = field(default_factory=dict)
    chains: dict[str, Table] = field(default_factory=dict)

    def gradients(self, cotangent: Table, emitter: Emitter) -> dict[Table, Table]:
        """The gradient of the value by every table, times the cotangent."""
        found = {self.value: cotangent}
        for result, inputs, back in reversed(self.tape):
            if result not in found:
                continue
            for table, gradient in zip(inputs, back(found[result]), strict=True):
                if table in found:
                    gradient = emitter.combine("add", [found[table], gradient])
                found[table] = gradient
        return found


@dataclass(frozen=True)
class Variable:
    """What elimination needs to know about a variable."""

    name: str
    plates: frozenset[str]
    span: Span | None


class Eliminator:
    """Eliminates variables; ``outer`` are the plates that stay (the batch)."""

    def __init__(
        self, emitter: Emitter, variables: Sequence[Variable], chain: str | None,
        outer: frozenset[str], semiring: str,
    ) -> None:  # fmt: skip
        self.emit = emitter
        self.variables = {v.name: v for v in variables}
        self.plates = {v.name: v.plates for v in variables}
        self.chain = chain
        self.outer = outer
        self.semiring = semiring
        self.left = [v.name for v in variables]
        self.done = Elimination(Table(Value(0), ()))
        self.factors: list[Factor] = []

    # ------------------------------------------------------------ the plan

    def run(self, factors: Sequence[Factor]) -> Elimination:
        """Eliminate everything."""
        outer = self.outer
        self.factors = list(factors)
        mentioned = {_plain(axis) for f in factors for axis in f.table.axes}
        for name in self.left:
            if name not in mentioned:
                self.factors.append(self._uniform(name))
        while any(f.table.plates != outer for f in self.factors) or self.left:
            leaf = self._leaf()
            self._eliminate_at(leaf)
            self._leave(leaf, outer)
        self.done.value = self._joined([f.table for f in self.factors])
        return self.done

    def _uniform(self, name: str) -> Factor:
        zeros = self.emit.emit("fill", [], shape=self.emit.shape([name]), value=0.0, dtype="f64")
        return Factor(Table(zeros, (name,), self.plates[name]), NODE, name)

    def _leaf(self) -> frozenset[str]:
        """The plates of the innermost factors and variables."""
        options = {f.table.plates for f in self.factors} | {self.plates[n] for n in self.left}
        return max(options, key=lambda plates: (len(plates), sorted(plates)))

    def _eliminate_at(self, leaf: frozenset[str]) -> None:
        """Sum out all variables with exactly these plates."""
        here = [name for name in self.left if self.plates[name] == leaf]
        states = self._states(here) if self.chain in leaf else []
        others = [name for name in here if name not in states]
        while others:
            name = min(others, key=lambda n: (self._weight(n), others.index(n)))
            self._sum_out(name, leaf)
            others.remove(name)
            self.left.remove(name)
        if states:
            self._chain(states, leaf)
            self.left = [name for name in self.left if name not in states]

    def _states(self, names: Sequence[str]) -> list[str]:
        """Variables that some factor reads one step back."""
        before = {axis[:-1] for f in self.factors for axis in f.table.axes if axis.endswith("'")}
        return [name for name in names if name in before]

    def _weight(self, name: str) -> Any:
        axes = self.emit.joined([f.table for f in self.factors if name in f.table.axes])
        sizes = [self.emit.sizes[axis] for axis in axes]
        numbers = [size if isinstance(size, int) else 1000 for size in sizes]
        return product(numbers)

    def _leave(self, leaf: frozenset[str], outer: frozenset[str]) -> None:
        """Multiply along plates that no variable of a factor has."""
        kept: list[Factor] = []
        for factor in self.factors:
            if factor.table.plates != leaf or leaf == outer:
                kept.append(factor)
                continue
            wanted = outer.union(*(self.plates[_plain(a)] for a in factor.table.axes
                                   if _plain(a) in self.plates))  # fmt: skip
            gone = leaf - wanted
            if not gone:
                names = sorted({_plain(a) for a in factor.table.axes if _plain(a) in self.plates})
                raise ModelFault(
                    "E610", f"{' and '.join(f'`{n}`' for n in names)} meet in every pair",
                    self.variables[names[0]].span,
                    f"through {factor.label}; all of one at once: {self._together(names)} values",
                )  # fmt: skip
            kept.append(self._along(factor, gone))
        self.factors = kept

    def _together(self, names: Sequence[str]) -> str:
        """How many values all elements of the smallest of some variables have at once."""
        texts = []
        for name in names:
            count = product(self.emit.shape(self.plates[name] - self.outer))
            shown = count if isinstance(count, int) else f"({count})"
            texts.append((str(count), f"{self.emit.sizes[name]}^{shown}"))
        return min(texts, key=lambda row: (len(row[0]), row[0]))[1]

    # ------------------------------------------------------------ steps

    def _joined(self, tables: Sequence[Table]) -> Table:
        """The product of tables (a sum of logs), on the tape."""
        if not tables:
            return Table(self.emit.number(0.0), ())
        if len(tables) == 1:
            return tables[0]
        result = self.emit.combine("add", tables)

        def back(gradient: Table) -> list[Table]:
            return [self._collapse(gradient, result, table) for table in tables]

        self.done.tape.append((result, list(tables), back))
        return result

    def _collapse(self, gradient: Table, source: Table, target: Table) -> Table:
        """A gradient summed over axes that the target lacks."""
        gone = [axis for axis in source.axes if axis not in target.axes]
        return self.emit.total(gradient, gone)

    def _along(self, factor: Factor, gone: frozenset[str]) -> Factor:
        """The product over plates (a sum of logs)."""
        table = factor.table
        if factor.kind == START and self.chain in gone:
            # What counts at the first step only is not repeated over the others.
            table = Table(table.value, table.axes, table.plates - {self.chain})
            self.done.tape.append((table, [factor.table], lambda gradient: [gradient]))
            gone = gone - {self.chain}
        result = self.emit.total(table, gone)
        missing = [axis for axis in gone if axis not in table.axes]

        def back(gradient: Table) -> list[Table]:
            value = self.emit.scaled(gradient.value, product(self.emit.shape(missing)))
            return [Table(value, gradient.axes, table.plates)]

        if result is not table:
            self.done.tape.append((result, [table], back))
        elements = product(self.emit.shape(table.axes))
        label = self._fresh(result.axes)
        self.done.steps.append(Step("multiply", tuple(sorted(gone)), table.axes,
                                    ((factor.label,),), label, elements, elements))  # fmt: skip
        return Factor(result, factor.kind, label)

    def _fresh(self, axes: Sequence[str]) -> str:
        """A name for the result of the next step."""
        names = ", ".join(a for a in axes if _plain(a) in self.plates)
        number = f"m{len(self.done.steps) + 1}"
        return f"{number}({names})" if names else number

    def _sum_out(self, name: str, leaf: frozenset[str]) -> None:
        """Sum (or maximise) over one variable."""
        used = [f for f in self.factors if name in f.table.axes]
        kinds = {f.kind for f in used}
        parts = [self._at_steps(f) if kinds != {NODE} else f.table for f in used]
        joint = self._joined(parts)
        result = self.emit.reduce(self.semiring, joint, [name])
        result = Table(result.value, result.axes, leaf)
        self.done.tape.append((result, [joint], lambda g: [self._posterior(g, joint, result)]))
        self.done.joint[name] = joint
        elements = product(self.emit.shape(joint.axes))
        label = self._fresh(result.axes)
        self.done.steps.append(Step(
            "sum out", (name,), joint.axes, (tuple(f.label for f in used),), label,
            elements * max(1, len(used)), elements, joint))  # fmt: skip
        self.factors = [f for f in self.factors if f not in used]
        if kinds == {START}:
            result = self._first(result)
            self.factors.append(Factor(result, START, label))
        elif EDGE in kinds:
            self.factors += [Factor(result, EDGE, label), Factor(self._first(result), START, label)]
        else:
            self.factors.append(Factor(result, NODE, label))

    def _first(self, table: Table) -> Table:
        """What a factor says at the first step of the chain, where no step is before it."""
        emit, chain = self.emit, self.chain
        cuts = [axis for axis in table.axes if axis == chain or axis.endswith("'")]
        value = table.value
        for axis in cuts:
            value = emit.cut(value, table.axes.index(axis), 0, 1)
        kept = tuple(axis for axis in table.axes if axis not in cuts)
        result = Table(emit.reshape(value, emit.shape(kept)), kept, table.plates)

        def back(gradient: Table) -> list[Table]:
            whole = emit.expand(gradient, kept)
            shape = [1 if axis in cuts else emit.sizes[axis] for axis in table.axes]
            whole = emit.reshape(whole, shape)
            for axis in cuts:
                whole = emit.place(whole, table.axes.index(axis), 0, emit.sizes[axis])
            return [Table(whole, table.axes, table.plates)]

        self.done.tape.append((result, [table], back))
        return result

    def _posterior(self, gradient: Table, joint: Table, total: Table) -> Table:
        """``g * exp(joint - total)``: the gradient of a log-sum-exp; 0 where both are -inf."""
        emit = self.emit
        bounded = emit.combine("maximum", [total, Table(emit.number(LOWEST), ())])
        shares = emit.map("exp", emit.combine("sub", [joint, bounded]))
        return emit.times(shares, gradient)

    def _at_steps(self, factor: Factor) -> Table:
        """A factor of a chain over all its steps, zero where it does not apply."""
        chain, table = self.chain, factor.table
        if chain is None or factor.kind == NODE or chain in table.axes:
            return table
        emit, total = self.emit, self.emit.sizes[chain]
        shape = emit.type_of(table.value).shape
        low, size = (0, 1) if factor.kind == START else (1, total - 1)
        value = emit.emit("broadcast", [table.value], shape=(size, *shape))
        result = Table(emit.place(value, 0, low, total), (chain, *table.axes), table.plates)

        def back(gradient: Table) -> list[Table]:
            axes = (chain, *(a for a in gradient.axes if a != chain))
            whole = emit.expand(gradient, axes)
            return [emit.reduce("sum", Table(emit.cut(whole, 0, low, size), axes), [chain])]

        self.done.tape.append((result, [table], back))
        return result

    # ------------------------------------------------------------ chains

    def _chain(self, states: Sequence[str], leaf: frozenset[str]) -> None:
        """Sum out a chain; several variables at a step are one with the product of values."""
        emit, chain = self.emit, self.chain
        assert chain is not None
        before = tuple(f"{name}'" for name in states)
        names = {*states, *before}
        used = [f for f in self.factors if names & set(f.table.axes)]
        batch = tuple(dict.fromkeys(
            a for f in used for a in f.table.axes if a != chain and a not in names))  # fmt: skip
        start, edge, node = ([f for f in used if f.kind == kind] for kind in (START, EDGE, NODE))
        operands = (
            self._merged(start, batch, (), [tuple(states)]),
            self._merged(edge, batch, (chain,), [before, tuple(states)]),
            self._merged(node, batch, (chain,), [tuple(states)], full=True),
        )
        values = [value for value, _ in operands]
        mode = "max" if self.semiring == "max" else "sum"
        result = Table(emit.emit("chain", values, mode=mode, path=""), batch, leaf - {chain})
        inputs = [table for _, table in operands if table is not None]

        def back(gradient: Table) -> list[Table]:
            return self._chain_gradient(gradient, values, operands, batch, states)

        self.done.tape.append((result, inputs, back))
        size = product(emit.shape(states))
        steps = emit.sizes[chain] * product(emit.shape(batch))
        self.done.steps.append(Step(
            "chain", tuple(states), (*batch, chain, *before, *states),
            tuple(tuple(f.label for f in group) for group in (start, edge, node)),
            self._fresh(batch), steps * size * size, steps * size, result,
            tuple(values)))  # fmt: skip
        self.factors = [f for f in self.factors if f not in used]
        self.factors.append(Factor(result, NODE, self.done.steps[-1].made))

    def _merged(
        self, factors: Sequence[Factor], batch: Sequence[str], along: Sequence[str],
        groups: Sequence[Sequence[str]], full: bool = False,
    ) -> tuple[Value, Table | None]:  # fmt: skip
        """The sum of factors as ``[batch, along, K, ..]`` with a group's axes merged into one."""
        emit = self.emit
        inside = tuple(name for group in groups for name in group)
        merged = [product(emit.shape(group)) for group in groups]
        if not factors:
            size = emit.shape(along) if full else (1,) * len(along)
            shape = (*size, *merged)
            return emit.emit("fill", [], shape=shape, value=0.0, dtype="f64"), None
        total = self._joined([f.table for f in factors])
        held = set(total.axes)
        lead = (*(batch if held & set(batch) else ()), *along)
        value = emit.arrange(total, (*lead, *inside))
        shape = [emit.sizes[a] if a in held or (full and a in along) else 1 for a in lead]
        if emit.type_of(value).shape != (*shape, *emit.shape(inside)):
            value = emit.emit("broadcast", [value], shape=(*shape, *emit.shape(inside)))
        return emit.reshape(value, (*shape, *merged)), total

    def _chain_gradient(
        self, gradient: Table, values: Sequence[Value],
        operands: Sequence[tuple[Value, Table | None]], batch: Sequence[str],
        states: Sequence[str],
    ) -> list[Table]:  # fmt: skip
        """Marginals and expected transitions, weighted by the gradient of each batch element."""
        emit, chain = self.emit, self.chain
        assert chain is not None
        made = emit.emit("chain", values, mode="posterior", path="")
        before = tuple(f"{name}'" for name in states)
        axes = (*batch, chain, *states)
        gamma = Table(emit.reshape(made, emit.shape(axes)), axes, gradient.plates | {chain})
        gamma = emit.times(gamma, gradient)
        first = tuple(a for a in axes if a != chain)
        cut = emit.cut(emit.arrange(gamma, axes), len(batch), 0, 1)
        start, edge, node = (table for _, table in operands)
        shared = edge is None or chain not in edge.axes
        inner = (*batch, *(() if shared else (chain,)), *before, *states)
        pairs = Table(emit.reshape(Value(made.node, 1), emit.shape(inner)), inner)
        for name in states:
            others = [n for n in gamma.axes if n in self.plates and n != name]
            self.done.chains[name] = emit.reduce("sum", gamma, others)
        found = [
            (start, Table(emit.reshape(cut, emit.shape(first)), first)),
            (edge, emit.times(pairs, gradient)),
            (node, gamma),
        ]
        return [self._collapse(own, own, table) for table, own in found if table is not None]


def _plain(axis: str) -> str:
    return axis.removesuffix("'")
