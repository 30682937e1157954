"""``fix { ... }`` and ``iterate { ... } until c``: loops whose carries are whole equations.

In a ``fix`` an equation reads the new value of what stands above it and the old value of the rest.
In an ``iterate``, ``x'`` is the new value and ``x`` the old one; an unprimed equation of a primed
name inside the block gives its start, otherwise it starts at zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...compiler.ir.graph import Value
from ...compiler.ir.types import TensorType
from .. import syntax as s
from ..diagnostics import nearest
from . import tensors as t
from .builder import Region
from .errors import ElaborationError, Poisoned, fail
from .expressions import constant_of, evaluate_value
from .recurrence import ROUNDS
from .rewriting import rename
from .values import Tensor, Unknown, describe, is_number

if TYPE_CHECKING:
    from .scope import Scope

SETTINGS = {"fix": {"tol": 1e-8, "max_steps": 100_000}, "iterate": {"max_steps": 10_000}}


def declare_fix(scope: Scope, statement: s.Fix) -> None:
    """Enter the names that a ``fix`` block defines."""
    rows = _equations(statement.body, "fix")
    loop = _Fix(scope, statement, rows)
    for row in rows:
        for target in row.targets:
            scope.enter(target.name, target.span, lambda n=target.name: loop.value(n), "fix")


def declare_iterate(scope: Scope, statement: s.Iterate) -> None:
    """Enter the unprimed names that an ``iterate`` block updates."""
    rows = _equations(statement.body, "iterate")
    loop = _Iterate(scope, statement, rows)
    if not loop.names:
        fail("E606", "`iterate` updates at least one value", statement.span, hint="x' = ... x ...")
    for name in loop.names:
        scope.enter(name, loop.span_of(name), lambda n=name: loop.value(n), "iterate")


def _equations(body: s.Block, what: str) -> list[s.Equation]:
    rows = []
    for statement in body.body:
        if not isinstance(statement, s.Equation):
            fail("E206", f"`{what}` holds equations", statement.span)
        rows.append(statement)
    if not rows:
        fail("E205", f"`{what}` holds at least one equation", body.span)
    return rows


def _settings(scope: Scope, what: str, args: Sequence[s.Argument]) -> dict[str, Any]:
    settings: dict[str, Any] = dict(SETTINGS[what])
    if what == "fix":
        settings |= scope.elab.fix_settings
    for argument in args:
        if argument.name not in settings:
            name = argument.name or "this"
            close = nearest(name, settings)
            hint = f"did you mean `{close}`?" if close else f"it knows {', '.join(settings)}"
            fail("E401", f"`{what}` has no setting `{name}`", argument.span, hint=hint)
        value = constant_of(argument.value, scope.env, f"`{argument.name}`")
        if not is_number(value) or value <= 0:
            fail("E408", f"`{argument.name}` must be a positive number", argument.span, str(value))
        settings[argument.name] = value
    return settings


@dataclass
class _Loop(ABC):
    """What both loops share: rehearsing the body until the carries' types settle."""

    scope: Scope
    statement: Any
    rows: list[s.Equation]

    def __post_init__(self) -> None:
        self.values: dict[str, Any] | None = None
        self.failed = False

    def value(self, name: str) -> Any:
        """The final value of a name; the loop is built when first asked for."""
        if self.failed:
            raise Poisoned
        if self.values is None:
            try:
                self.values = self.build()
            except (ElaborationError, Poisoned):
                self.failed = True
                raise
        return self.values[name]

    @abstractmethod
    def build(self) -> dict[str, Any]:
        """The loop in the graph; the final values of its names."""

    @abstractmethod
    def body(self, region: Region, guess: dict[str, Any]) -> tuple[dict[str, Any], Scope]:
        """The equations once, in ``region``, and the scope they were evaluated in."""

    def settle(self, guess: dict[str, Any]) -> dict[str, TensorType]:
        """Types of the carries, by repeating the body until they no longer change."""
        elab = self.scope.elab
        for _ in range(ROUNDS):
            with elab.rehearsal():
                region = Region(self.scope.builder, "rehearsal")
                values, inner = self.body(region, guess)
            learnt = {name: _type(inner, values[name]) for name in guess}
            if learnt == guess and not any(isinstance(k, Unknown) for k in learnt.values()):
                return learnt
            if all(isinstance(k, Unknown) for k in learnt.values()):
                break
            guess = learnt
        unknown = [n for n, kind in learnt.items() if isinstance(kind, Unknown)]
        name = next(iter([*unknown, *guess]))
        hint = f"give its start: `{name} = ...`"
        if isinstance(self, _Fix):
            hint = "add something of its shape, such as a reward `R[s]`"
        fail("E606", f"the shape of `{name}` cannot be found from its equation",
             self.statement.span, hint=hint)  # fmt: skip

    def bound(self, region: Region, guess: dict[str, Any], suffix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, kind in guess.items():
            if isinstance(kind, Unknown):
                found[f"{name}{suffix}"] = kind
            else:
                found[f"{name}{suffix}"] = Tensor(region.carry(name, kind), region)
        return found


def _type(scope: Scope, value: Any) -> Any:
    if isinstance(value, Unknown):
        return value
    if not isinstance(value, Tensor):
        dtype = scope.elab.float_dtype
        return TensorType(dtype, ())
    return value.type


def _fit(scope: Scope, value: Any, kind: TensorType, span: Any) -> Value:
    env = scope.env
    tensor = t.cast(env, t.as_tensor(env, value, span), kind.dtype, span)
    if tensor.type.shape != kind.shape:
        tensor = t.emit(env, "broadcast", [tensor], span, (), shape=kind.shape)
    return t.local(env, tensor)


class _Fix(_Loop):
    def build(self) -> dict[str, Any]:
        settings = _settings(self.scope, "fix", self.statement.args)
        names = [target.name for row in self.rows for target in row.targets]
        types = self.settle({name: Unknown() for name in names})
        types = {name: _floating(self.scope, kind) for name, kind in types.items()}
        region = Region(self.scope.builder, names[0])
        values, inner = self.body(region, dict(types))
        span = self.statement.span
        results = [(n, _fit(inner, values[n], types[n], span)) for n in names]
        region.finish(results)
        operands = [t.zero(self.scope.env, types[n], span) for n in names]
        operands += [outer for outer, _ in region.captures]
        attrs = {"n_carry": len(names), "tol": float(settings["tol"]),
                 "max_steps": int(settings["max_steps"])}  # fmt: skip
        made = self.scope.builder.raw("fix", operands, attrs, [types[n] for n in names], span,
                                      names[0], [region.graph])  # fmt: skip
        return {n: Tensor(v, self.scope.builder) for n, v in zip(names, made, strict=True)}

    def body(self, region: Region, guess: dict[str, Any]) -> tuple[dict[str, Any], Scope]:
        from .scope import Scope

        old = "@old"
        bound = self.bound(region, guess, old)
        done: set[str] = set()
        rows = []
        for row in self.rows:
            # What stands above has its new value; the rest, this equation included, its old one.
            value: Any = row.value
            clause: Any = row.clause
            for name in guess:
                if name not in done:
                    value = rename(value, name, name + old)
                    clause = rename(clause, name, name + old) if clause is not None else None
            rows.append(replace(row, value=value, clause=clause))
            done |= {target.name for target in row.targets}
        outer = self.scope
        inner = Scope(outer.elab, rows, region, outer.path, outer, bound, outer.input, outer.depth)
        inner.declare()
        return {name: inner.force(inner.entries[name]) for name in guess}, inner


def _floating(scope: Scope, kind: TensorType) -> TensorType:
    return kind if kind.is_float else kind.with_dtype(scope.elab.float_dtype)


class _Iterate(_Loop):
    def __post_init__(self) -> None:
        super().__post_init__()
        primed = [x.name for row in self.rows for x in row.targets if x.name.endswith("'")]
        self.names = [name[:-1] for name in primed]
        self.starts = {
            target.name: row
            for row in self.rows
            for target in row.targets
            if target.name in self.names
        }

    def span_of(self, name: str) -> Any:
        for row in self.rows:
            for target in row.targets:
                if target.name == f"{name}'":
                    return target.span
        return self.statement.span

    def build(self) -> dict[str, Any]:
        settings = _settings(self.scope, "iterate", self.statement.args)
        span = self.statement.span
        starts = {name: self._start(name) for name in self.names}
        guess = {n: Unknown() if v is None else v.type for n, v in starts.items()}
        types = self.settle(guess)
        region = Region(self.scope.builder, self.names[0])
        values, inner = self.body(region, dict(types))
        results = [(n, _fit(inner, values[n], types[n], span)) for n in self.names]
        results.append(("stop", self._stop(inner, values)))
        region.finish(results)
        operands = []
        for name in self.names:
            start = starts[name]
            if start is None:
                operands.append(t.zero(self.scope.env, types[name], span))
            else:
                operands.append(_fit(self.scope, start, types[name], span))
        operands += [outer for outer, _ in region.captures]
        attrs = {"n_carry": len(self.names), "max_steps": int(settings["max_steps"])}
        kinds = [types[n] for n in self.names]
        made = self.scope.builder.raw("iterate", operands, attrs, kinds, span, self.names[0],
                                      [region.graph])  # fmt: skip
        return {n: Tensor(v, self.scope.builder) for n, v in zip(self.names, made, strict=True)}

    def _start(self, name: str) -> Tensor | None:
        row = self.starts.get(name)
        if row is None:
            return None
        value = evaluate_value(row.value, self.scope.env)
        like = self.scope.elab.float_dtype if is_number(value) else None
        return t.as_tensor(self.scope.env, value, row.span, like)

    def body(self, region: Region, guess: dict[str, Any]) -> tuple[dict[str, Any], Scope]:
        from .scope import Scope

        bound = self.bound(region, guess, "")
        rows = []
        for row in self.rows:
            if any(target.name in self.starts for target in row.targets):
                continue
            value: Any = row.value
            for name in self.names:
                value = rename(value, f"{name}'", f"{name}@next")
            targets = tuple(
                replace(x, name=f"{x.name[:-1]}@next") if x.name.endswith("'") else x
                for x in row.targets
            )
            rows.append(replace(row, targets=targets, value=value))
        outer = self.scope
        inner = Scope(outer.elab, rows, region, outer.path, outer, bound, outer.input, outer.depth)
        inner.declare()
        found = {name: inner.force(inner.entries[f"{name}@next"]) for name in self.names}
        return found, inner

    def _stop(self, inner: Scope, values: dict[str, Any]) -> Value:
        """The condition, which reads old and new values as the equations do."""
        until = self.statement.until
        env = inner.env.bind({f"{name}'": value for name, value in values.items()})
        condition = evaluate_value(until, env)
        if isinstance(condition, bool):
            condition = t.constant(env, condition, "bool", until.span)
        if not isinstance(condition, Tensor) or condition.dtype != "bool":
            fail("E104", "`until` needs a condition", until.span, describe(condition))
        if condition.type.rank:
            fail("E101", "`until` needs a single condition", until.span, str(condition.type),
                 "reduce it, for example with `norm(...)`")  # fmt: skip
        return t.local(env, condition)
