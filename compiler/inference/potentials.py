"""From a statement to its log-potential: a table over indices and values of latent variables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..ir.dims import DimLike
from ..ir.graph import Value
from ..ops.distributions import DISTRIBUTIONS
from .statements import Statement
from .tables import Emitter, Table

MISSING = -(2**31)
"""What stands for a missing whole number; a missing real number is nan."""


class Potentials:
    """Makes tables of statements whose axes are named as the statement names them."""

    def __init__(self, emitter: Emitter, statement: Statement, missing: Collection[str]) -> None:
        self.emitter = Emitter(emitter.graph, {})
        self.emitter.span, self.emitter.label = statement.span, statement.label
        self.statement = statement
        self.missing = statement.variable in missing and statement.role == "input"
        sizes = self.emitter.sizes
        for index, (_, size) in statement.domain.items():
            sizes[index] = size
        operands = [*statement.params, statement.point, statement.condition]
        for operand in operands:
            if operand is not None:
                shape = emitter.type_of(operand[0]).shape
                sizes.update(zip(operand[1], shape, strict=False))
        if statement.is_latent and statement.support is not None:
            sizes[statement.references[-1].axis] = statement.support

    def table(self) -> Table | None:
        """The log-potential; None for ``labels``, which adds nothing."""
        statement = self.statement
        if statement.role == "factor":
            value, axes = statement.params[0]
            table = Table(value, axes)
        elif statement.is_latent:
            if statement.dist == "labels":
                return None
            table = self._distribution_of_latent()
        else:
            table = self._density()
        if statement.condition is not None:
            table = self._where_it_counts(table)
        return table

    # ------------------------------------------------------------ kinds

    def _distribution_of_latent(self) -> Table:
        """``log p`` with the variable's values as the last axis."""
        statement, emit = self.statement, self.emitter
        value, axes = statement.params[0]
        own = statement.references[-1].axis
        rank = len(emit.type_of(value).shape)
        if statement.dist == "categorical":
            if statement.form == "logits":
                value = emit.emit("log_softmax", [value], axis=rank - 1)
            else:
                value = self._log(value)
            return Table(value, (*axes, own))
        zero = emit.number(0.0, emit.type_of(value).dtype)
        if statement.form == "logits":
            pair = [emit.emit("mul", [value, zero]), value]
        else:
            one = emit.number(1.0, emit.type_of(value).dtype)
            pair = [emit.emit("sub", [one, value]), value]
        shape = (*emit.type_of(value).shape, 1)
        columns = [emit.reshape(v, shape) for v in pair]
        joined = emit.emit("concat", columns, axis=rank)
        if statement.form == "logits":
            return Table(emit.emit("log_softmax", [joined], axis=rank), (*axes, own))
        return Table(self._log(joined), (*axes, own))

    def _log(self, value: Value) -> Value:
        """The logarithm of probabilities; what is impossible stays so, with derivative 0."""
        emit, dtype = self.emitter, self.emitter.type_of(value).dtype
        possible = emit.emit("ne", [value, emit.number(0.0, dtype)])
        safe = emit.emit("where", [possible, value, emit.number(1.0, dtype)])
        return emit.emit(
            "where", [possible, emit.emit("log", [safe]), emit.number(float("-inf"), dtype)]
        )

    def _density(self) -> Table:
        """The log density of what is observed, summed over the axes of one observation."""
        statement, emit = self.statement, self.emitter
        assert statement.point is not None
        row = DISTRIBUTIONS[statement.dist]
        ranks = [row.rank, *(p.rank for p in row.params_of(statement.form))]
        operands = [statement.point, *statement.params]
        fused = self._outer(operands, ranks)
        if fused is not None:
            return fused
        axes = tuple(dict.fromkeys(a for _, names in operands for a in names))
        lead = {a: place for place, a in enumerate(self._order(axes))}
        shapes = [emit.type_of(v).shape[len(names) :] for v, names in operands]
        depth = max(len(s) - r for s, r in zip(shapes, ranks, strict=True))
        aligned = []
        for (value, names), shape, rank in zip(operands, shapes, ranks, strict=True):
            aligned.append(self._align(value, names, tuple(lead), shape, depth, rank))
        if self.missing:
            aligned[0], gone = self._filled(aligned[0])
        attrs: dict[str, Any] = {"dist": statement.dist, "form": statement.form}
        density = emit.emit("log_prob", aligned, **attrs)
        if self.missing:
            gone = self._per_value(gone, row.rank)
            density = emit.emit("where", [gone, emit.number(0.0), density])
        places = tuple(range(len(lead), len(lead) + depth))
        if places:
            density = emit.emit("reduce", [density], kind="sum", axes=places, keepdims=False)
        return Table(density, tuple(lead))

    def _order(self, axes: Sequence[str]) -> list[str]:
        """Indices first, then values of variables."""
        return sorted(axes, key=lambda axis: axis not in self.statement.domain)

    def _outer(self, operands: Sequence[Any], ranks: Sequence[int]) -> Table | None:
        """Every observation under every setting of the parameters, as one op.

        Possible when observations vary with indices only and parameters with values only.
        """
        statement, emit = self.statement, self.emitter
        (point, lead), params = operands[0], operands[1:]
        names = tuple(dict.fromkeys(a for _, axes in params for a in axes))
        if self.missing or not lead or not names or set(names) & set(lead):
            return None
        rest = emit.type_of(point).shape[len(lead) :]
        depth = len(rest) - ranks[0]
        spread = []
        for (value, axes), rank in zip(params, ranks[1:], strict=True):
            shape = emit.type_of(value).shape[len(axes) :]
            if len(shape) - rank not in (0, depth):
                return None
            value = self._align(value, axes, names, shape, depth, rank)
            wanted = (*emit.shape(names), *rest[:depth], *shape[len(shape) - rank :])
            if emit.type_of(value).shape != wanted:
                value = emit.emit("broadcast", [value], shape=wanted)
            spread.append(value)
        attrs: dict[str, Any] = {"dist": statement.dist, "form": statement.form}
        table = emit.emit("log_densities", [point, *spread], lead=len(lead), rest=depth, **attrs)
        return Table(table, (*lead, *names))

    def _align(
        self, value: Value, names: Sequence[str], lead: Sequence[str], shape: Sequence[DimLike],
        depth: int, rank: int,
    ) -> Value:  # fmt: skip
        """``lead`` axes in order, then ``depth`` axes of one observation, then the event's."""
        emit = self.emitter
        held = [axis for axis in lead if axis in names]
        perm = tuple(names.index(axis) for axis in held)
        perm += tuple(range(len(names), len(names) + len(shape)))
        if perm != tuple(range(len(perm))):
            value = emit.emit("transpose", [value], perm=perm)
        own = shape[: len(shape) - rank]
        sizes = [emit.sizes[axis] if axis in names else 1 for axis in lead]
        sizes += [*(1,) * (depth - len(own)), *shape]
        return emit.reshape(value, sizes)

    # ------------------------------------------------------------ parts that do not count

    def _filled(self, value: Value) -> tuple[Value, Value]:
        """Observations with a harmless value where they are missing, and where that is."""
        emit = self.emitter
        kind = emit.type_of(value)
        if kind.is_float:
            gone = emit.emit("isnan", [value])
            fill = 0.5
        else:
            gone = emit.emit("eq", [value, emit.number(MISSING, kind.dtype)])
            fill = 0
        return emit.emit("where", [gone, emit.number(fill, kind.dtype), value]), gone

    def _per_value(self, gone: Value, rank: int) -> Value:
        """Whether any part of one value of the distribution is missing."""
        emit = self.emitter
        if not rank:
            return gone
        total = len(emit.type_of(gone).shape)
        axes = tuple(range(total - rank, total))
        return emit.emit("reduce", [gone], kind="any", axes=axes, keepdims=False)

    def _where_it_counts(self, table: Table) -> Table:
        """Zero where the statement's condition is false."""
        emit = self.emitter
        assert self.statement.condition is not None
        condition = Table(*self.statement.condition)
        axes = emit.joined([table, condition])
        dtype = emit.type_of(table.value).dtype
        parts = [emit.arrange(condition, axes), emit.arrange(table, axes), emit.number(0.0, dtype)]
        return Table(emit.emit("where", parts), axes)
