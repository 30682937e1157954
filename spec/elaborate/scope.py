"""A scope: the names that a file, a definition's body or a loop defines, evaluated on demand.

Equations may stand in any order, so each name is an :class:`Entry` that is evaluated when first
asked for. Faults are collected statement by statement; what depends on a faulty name is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...compiler.ir.types import Span
from ...compiler.ops import LAYERS
from .. import syntax as s
from ..diagnostics import Diagnostic
from .builder import GraphBuilder, Path
from .environment import Env
from .errors import ElaborationError, Poisoned, fail
from .references import free_names, recurrences
from .values import DefValue

if TYPE_CHECKING:
    from .elaborator import Elaborator

RESERVED = ("id", "chain", "channels", "size", "grad", "logp")


@dataclass
class Entry:
    """A name and how to get its value; ``evaluate`` runs once."""

    name: str
    span: Span
    evaluate: Callable[[], Any]
    kind: str
    state: str = "new"
    value: Any = None
    statements: list[Any] = field(default_factory=list)


class Scope:
    """Names of one level. ``parent`` is where unknown names are looked up.

    An ``outermost`` scope may declare inputs: a file's, and an objective's, whose parent it is.
    """

    def __init__(
        self,
        elab: Elaborator,
        statements: Iterable[s.Statement],
        builder: GraphBuilder,
        path: Path,
        parent: Scope | None = None,
        bound: dict[str, Any] | None = None,
        input: Any = None,
        depth: int = 0,
        outermost: bool = False,
    ) -> None:
        self.elab = elab
        self.outermost = outermost or parent is None
        self.statements = tuple(statements)
        self.builder = builder
        self.path = path
        self.parent = parent
        self.bound = dict(bound or {})
        self.input = input
        self.depth = depth
        self.entries: dict[str, Entry] = {}
        self.symbols: dict[str, Any] = {}
        self.equations: dict[str, list[s.Equation]] = {}
        self.draws: dict[str, list[s.Draw]] = {}
        self.factors: list[s.Factor] = []
        self.outputs: list[s.Output] = []
        self.cycles: dict[str, tuple[str, ...]] = {}
        self.defaults: Mapping[str, Mapping[str, Any]] | None = None
        self.shared: dict[int, list[Any]] = {}
        self.given_inputs: Mapping[str, Any] = {}
        self.file: Any = None
        self.env = Env(elab, self, builder, path, self.bound, input, depth=depth)

    # ------------------------------------------------------------ filling

    def declare(self) -> None:
        """Enter every statement; faults (doubles, shadowed ops) are reported, not raised."""
        for statement in self.statements:
            try:
                self._declare(statement)
            except ElaborationError as fault:
                self.elab.report(fault.diagnostic)
        self.cycles = recurrences(self.equations)

    def _declare(self, statement: s.Statement) -> None:
        from . import declarations, fixpoints

        if isinstance(statement, s.Definition):
            self.enter(statement.name, statement.span, lambda: DefValue(statement, self), "def")
        elif isinstance(statement, s.Equation):
            self._declare_equation(statement)
        elif isinstance(statement, s.Draw):
            self._declare_draw(statement)
        elif isinstance(statement, s.Factor):
            self.factors.append(statement)
        elif isinstance(statement, s.Output):
            self.outputs.append(statement)
        elif isinstance(statement, s.Fix):
            fixpoints.declare_fix(self, statement)
        elif isinstance(statement, s.Iterate):
            fixpoints.declare_iterate(self, statement)
        else:
            declarations.declare(self, statement)

    def _declare_equation(self, statement: s.Equation) -> None:
        from . import equations

        for target in statement.targets:
            entry = self.entries.get(target.name)
            indexed = target.items is not None
            if entry is not None and entry.kind == "family" and indexed:
                entry.statements.append(statement)
                self.equations[target.name].append(statement)
                continue
            kind = "family" if indexed else "equation"
            name = target.name

            def evaluate(name: str = name) -> Any:
                return equations.evaluate_name(self, name)

            made = self.enter(name, target.span, evaluate, kind)
            made.statements.append(statement)
            self.equations[name] = [statement]

    def _declare_draw(self, statement: s.Draw) -> None:
        from . import random_variables

        for target in statement.targets:
            earlier = self.draws.get(target.name, ())
            if earlier and target.items is None:
                fail("E602", f"`{target.name}` is drawn twice", target.span,
                     hint="a variable has one `~`; the parts of a family are told apart by "
                     f"their indices: `{target.name}[0] ~ ...`",
                     labels=[(earlier[0].span, "first drawn here")])  # fmt: skip
            self.draws.setdefault(target.name, []).append(statement)
            entry = self.entries.get(target.name)
            if entry is None:
                name = target.name

                def evaluate(name: str = name) -> Any:
                    return random_variables.variable(self, name)

                self.enter(name, target.span, evaluate, "draw").statements.append(statement)
            elif entry.kind in ("input", "param", "draw"):
                entry.statements.append(statement)
            else:
                self._twice(target.name, target.span, entry)

    def enter(self, name: str, span: Span, evaluate: Callable[[], Any], kind: str) -> Entry:
        """Enter a name; E302 when it exists, E303 when it is an op."""
        earlier = self.entries.get(name)
        if earlier is not None and not (kind == "draw" and earlier.kind == "draw"):
            self._twice(name, span, earlier)
        self.entries[name] = Entry(name, span, evaluate, kind)
        if name in LAYERS or name in RESERVED:
            # Uses of the name would be misread as the op: they are passed over.
            self.entries[name].state = "failed"
        check_shadow(name, span)
        return self.entries[name]

    def _twice(self, name: str, span: Span, earlier: Entry) -> None:
        hint = None
        if earlier.kind in ("equation", "family"):
            hint = "each name is defined once per scope; use another name"
        fail("E302", f"`{name}` is defined twice", span, hint=hint,
             labels=[(earlier.span, "first defined here")])  # fmt: skip

    # ------------------------------------------------------------ asking

    def find(self, name: str) -> tuple[Scope, Entry] | None:
        """The entry of a name here or further out."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.entries:
                return scope, scope.entries[name]
            scope = scope.parent
        return None

    def find_bound(self, name: str) -> Any:
        """A parameter of this or an enclosing definition, or None."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.bound:
                return scope.bound[name]
            if name in scope.entries:
                return None
            scope = scope.parent
        return None

    def force(self, entry: Entry, asked: Span | None = None) -> Any:
        """The value of an entry, evaluated now if it was not before."""
        if entry.state == "done":
            return entry.value
        if entry.state == "failed":
            raise Poisoned
        if entry.state == "running":
            labels = [(asked, "asked for here")] if asked is not None else []
            fail("E304", f"`{entry.name}` is defined by itself{self._through(entry)}", entry.span,
                 hint="a recurrence reads an earlier step, such as "
                 f"`{entry.name}[t-1]`; a fixed point stands in `fix {{ ... }}`",
                 labels=labels)  # fmt: skip
        entry.state = "running"
        try:
            value = entry.evaluate()
        except ElaborationError as fault:
            entry.state = "failed"
            self.elab.report(fault.diagnostic)
            raise Poisoned from None
        except RecursionError:
            entry.state = "failed"
            self.elab.report(
                Diagnostic("E701", "definitions depend on each other too deeply", entry.span)
            )
            raise Poisoned from None
        except BaseException:
            entry.state = "failed"
            raise
        entry.state, entry.value = "done", value
        return value

    def _through(self, entry: Entry) -> str:
        """The other names of a circle, which are all being evaluated."""
        others = [x.name for x in self.entries.values() if x.state == "running" and x is not entry]
        circle = [x for x in self.cycles.get(entry.name, ()) if x in others]
        return " through " + ", ".join(f"`{x}`" for x in circle) if circle else ""

    def force_all(self) -> None:
        """Evaluate every entry, reporting faults as they come."""
        for entry in list(self.entries.values()):
            if entry.state == "new" and entry.name.rstrip("'") == entry.name:
                try:
                    self.force(entry)
                except Poisoned:
                    continue

    def defaults_of(self, layer: str) -> Mapping[str, Any]:
        """Settings that the spec gives a layer throughout."""
        scope: Scope | None = self
        while scope is not None:
            if scope.defaults is not None:
                return scope.defaults.get(layer, {})
            scope = scope.parent
        return {}

    def visible(self) -> list[str]:
        """All names that could have been meant here."""
        names: list[str] = []
        scope: Scope | None = self
        while scope is not None:
            names += [*scope.bound, *scope.entries]
            scope = scope.parent
        return names

    def used_outside(self, group: Sequence[str]) -> set[str]:
        """Names of ``group`` that statements outside the group mention."""
        found: set[str] = set()
        for statement in self.statements:
            if isinstance(statement, s.Equation):
                if all(target.name in group for target in statement.targets):
                    continue
            found |= free_names(statement) & set(group)
        return found


def check_shadow(name: str, span: Span) -> None:
    """E303 when a name of the spec would hide an op."""
    if name in LAYERS or name in RESERVED:
        fail("E303", f"`{name}` is an op and cannot be redefined", span,
             hint=f"choose another name, such as `{name}_`")  # fmt: skip
