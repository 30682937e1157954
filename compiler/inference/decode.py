"""Values of variables, the last eliminated first: the best ones, or a sample of the posterior."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Value
from .eliminate import Elimination, Step
from .tables import Emitter, Table


class Decoder:
    """Goes back through an elimination; with a ``key`` it draws, without it takes the best."""

    def __init__(self, emitter: Emitter, plates: dict[str, frozenset[str]], chain: str | None,
                 key: Value | None, path: str) -> None:  # fmt: skip
        self.emit = emitter
        self.plates = plates
        self.chain = chain
        self.key = key
        self.path = path
        self.chosen: dict[str, Table] = {}

    def run(self, elimination: Elimination) -> dict[str, Table]:
        """The chosen value of each variable, as a table of whole numbers over its plates."""
        for step in reversed(elimination.steps):
            if step.kind == "sum out":
                self._choose(step)
            elif step.kind == "chain":
                self._walk(step)
        return self.chosen

    def _choose(self, step: Step) -> None:
        """One variable, given those that were eliminated later."""
        emit, (name,) = self.emit, step.names
        assert step.table is not None
        picked = self._given(step.table, [name])
        value = emit.arrange(picked, (*(a for a in picked.axes if a != name), name))
        axes = tuple(a for a in picked.axes if a != name)
        if self.key is None:
            made = emit.emit("argmax", [value], axis=len(axes), keepdims=False)
        else:
            # Elements of a plate are drawn one by one, even where their tables are the same.
            axes = (*sorted(self.plates[name] - set(axes)), *axes)
            value = emit.emit("broadcast", [value], shape=emit.shape((*axes, name)))
            made = emit.emit("sample", [value, self.key], dist="categorical", form="logits",
                             path=f"{self.path}/{name}", shape=emit.shape(axes))  # fmt: skip
        self.chosen[name] = Table(made, axes, self.plates[name])

    def _walk(self, step: Step) -> None:
        """A whole chain, and then its element of the batch and its parts."""
        emit, chain = self.emit, self.chain
        assert chain is not None
        states = step.names
        batch = tuple(a for a in step.axes[: step.axes.index(chain)])
        operands = list(step.parts)
        mode = "path"
        if self.key is not None:
            mode, operands = "sample", self._drawn_apart(operands, batch, states)
            operands.append(self.key)
            batch = self._plates_first(batch, states)
        path = f"{self.path}/{'.'.join(states)}"
        made = emit.emit("chain", operands, mode=mode, path=path)
        table = self._given(Table(made, (*batch, chain)), [])
        rest = table
        for name in reversed(states):
            size = emit.emit("size_of", [], size=emit.sizes[name], dtype="i32")
            part = rest
            if name != states[0]:
                part = Table(emit.emit("mod", [rest.value, size]), rest.axes)
                rest = Table(emit.emit("floordiv", [rest.value, size]), rest.axes)
            self.chosen[name] = Table(part.value, part.axes, self.plates[name])

    def _plates_first(self, batch: Sequence[str], states: Sequence[str]) -> tuple[str, ...]:
        lacking = self.plates[states[0]] - set(batch) - {str(self.chain)}
        return (*sorted(lacking), *batch)

    def _drawn_apart(
        self, operands: list[Value], batch: Sequence[str], states: Sequence[str]
    ) -> list[Value]:
        """Chains of a plate are drawn one by one, even where their tables are the same."""
        emit = self.emit
        full = self._plates_first(batch, states)
        if full == tuple(batch):
            return operands
        own = emit.type_of(operands[2]).shape[-2:]
        shape = (*emit.shape(full), *own)
        return [*operands[:2], emit.emit("broadcast", [operands[2]], shape=shape)]

    def _given(self, table: Table, free: Sequence[str]) -> Table:
        """The table at the chosen values of all its variables but the free ones."""
        emit = self.emit
        fixed = [a for a in table.axes if a not in free and _plain(a) in self.plates]
        if not fixed:
            return table
        values = {axis: self._value(axis) for axis in fixed}
        lead = [a for a in table.axes if a not in fixed and a not in free]
        lead += [a for v in values.values() for a in v.axes if a not in lead]
        lead = list(dict.fromkeys(lead))
        indexed = [axis for axis in table.axes if axis not in free]
        indices = []
        for axis in indexed:
            if axis in values:
                indices.append(emit.arrange(values[axis], lead))
            else:
                count = emit.emit("iota", [], size=emit.sizes[axis], dtype="i32")
                indices.append(emit.arrange(Table(count, (axis,)), lead))
        places = tuple(table.axes.index(axis) for axis in indexed)
        made = emit.emit("gather", [table.value, *indices], axes=places)
        return Table(made, (*lead, *(a for a in table.axes if a in free)), table.plates)

    def _value(self, axis: str) -> Table:
        """The chosen value that an axis stands for; one step back for ``z'``."""
        chosen = self.chosen[_plain(axis)]
        if not axis.endswith("'"):
            return chosen
        assert self.chain is not None
        if self.chain not in chosen.axes:
            return chosen
        emit, place = self.emit, chosen.axes.index(self.chain)
        total = emit.sizes[self.chain]
        first = emit.cut(chosen.value, place, 0, 1)
        if total == 1:
            return chosen
        rest = emit.cut(chosen.value, place, 0, total - 1)
        return Table(emit.emit("concat", [first, rest], axis=place), chosen.axes)


def _plain(axis: str) -> str:
    return axis.removesuffix("'")
