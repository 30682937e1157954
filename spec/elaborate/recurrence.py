"""Recurrences: equations that read their own earlier (or later) steps become one ``scan``.

The equations are rewritten so that ``h[t]`` reads ``h`` and ``h[t-1]`` reads the carried value, and
elaborated in a region for a single step. Two shifted indices give a scan inside a scan. Shapes of
carries are found by rehearsing the body until they no longer change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from ...compiler.ir.dims import DimLike, compare
from ...compiler.ir.graph import Value
from ...compiler.ir.types import Span, TensorType
from .. import syntax as s
from . import tensors as t
from .builder import GraphBuilder, Region
from .domains import Domain, bind_clause, declared_domain
from .environment import Env
from .equations import Piece, indexed_piece, join_pieces, shifted_name
from .errors import Poisoned, fail
from .ranges import infer_range
from .rewriting import drop_index, offset_of, previous_name, substitute
from .values import Axis, Edge, LabelIndex, ScanIndex, Tensor, Unknown

if TYPE_CHECKING:
    from .scope import Scope

ROUNDS = 8


@dataclass(frozen=True)
class Step:
    """One equation of the cycle, its index normalised to the common name."""

    row: s.Equation
    places: tuple[int, ...]  # the recurring index's position in each target
    domain: Domain


@dataclass
class Frame:
    """What a :class:`ScanIndex` needs to slice tensors step by step."""

    region: Region

    @property
    def builder(self) -> GraphBuilder:
        """The body's own graph."""
        return self.region

    @property
    def outer(self) -> GraphBuilder:
        """The graph around the loop."""
        assert self.region.parent is not None
        return self.region.parent

    def slice_axis(self, tensor: Tensor, key: object, env: Env, span: Span) -> Tensor:
        """The current step of a tensor whose first element axis is the recurring index."""
        outer = replace(env, builder=self.outer)
        count = len(tensor.labels)
        rank = tensor.type.rank
        perm = (count, *range(count), *range(count + 1, rank))
        if perm != tuple(range(rank)):
            tensor = t.emit(outer, "transpose", [tensor], span, tensor.labels, perm=perm)
        inner = self.region.slice_of(t.local(outer, tensor), key)
        result = Tensor(inner, self.region, tensor.labels, tensor.grid)
        rest = result.rest
        if rest and rest[0] == env.elab.batch and not result.labels:
            axis = env.elab.batch_axis(inner=True)
            result = Tensor(inner, self.region, (axis,), tensor.grid)
        return result

    def step_number(self, index: ScanIndex, env: Env, span: Span) -> Tensor:
        """The index itself as a number."""
        outer = replace(env, builder=self.outer)
        low = index.low + index.offset
        axis = Axis(index.name, index.size)
        numbers = t.numbers(outer, axis, low, span)
        inner = self.region.slice_of(t.local(outer, numbers), ("step", str(low)))
        return Tensor(inner, self.region)


def evaluate_cycle(scope: Scope, group: Sequence[str]) -> None:
    """Evaluate all names of a cycle and enter their values."""
    rows: list[s.Equation] = []
    for name in group:
        for row in scope.equations[name]:
            if all(row is not other for other in rows):
                rows.append(row)
    for row in rows:
        for target in row.targets:
            if target.items is None:
                _circular(scope, target.name, group)
    index, places = _find_index(scope, rows, group)
    steps, boundary = _normalise(scope, rows, index, places)
    domain = _common_domain(steps, scope.env)
    reads = [read for step in steps for read in _offsets(step.row, group, places)]
    reverse = _direction(reads)
    loop = _Loop(scope, tuple(group), steps, boundary, index, places, domain, reverse)
    loop.run()


def _circular(scope: Scope, name: str, group: Sequence[str]) -> None:
    entry = scope.entries[name]
    others = [scope.entries[n] for n in group if n != name]
    through = " through " + ", ".join(f"`{e.name}`" for e in others) if others else ""
    fail("E304", f"`{name}` is defined by itself{through}", entry.span,
         hint="a recurrence reads an earlier step, such as `h[t-1]`; "
         "a fixed point stands in `fix { ... }`",
         labels=[(e.span, f"`{e.name}` is defined here") for e in others])  # fmt: skip


# ---------------------------------------------------------------- which index recurs


def _find_index(
    scope: Scope, rows: Sequence[s.Equation], group: Sequence[str]
) -> tuple[str, dict[str, int]]:
    """The name of the recurring index and its position in each name's brackets."""
    found: list[tuple[int, str, s.Equation]] = []
    for row in rows:
        for name, place, offset in _reads(row, group, scope.env):
            own = _own_offset(row, name, place, scope.env)
            if offset - own != 0:
                found.append((place, name, row))
    if not found:
        for node in (x for row in rows for x in s.walk(row.value)):
            if isinstance(node, s.Subscript) and isinstance(node.base, s.Name):
                if node.base.id in group and all(offset_of(x) is None for x in node.items):
                    _computed_step(node)
        _circular(scope, rows[0].targets[0].name, group)
    place = min(place for place, _, _ in found)
    row = next(row for p, _, row in found if p == place)
    item = (row.targets[0].items or ())[place]
    index, _ = shifted_name(item, scope.env)
    if index is None:
        fail("E506", "a recurrence needs an index on the left-hand side", row.span)
    places = dict.fromkeys([*group, *(x.name for row in rows for x in row.targets)], place)
    return index, places


def _reads(row: s.Equation, group: Sequence[str], env: Env) -> list[tuple[str, int, int]]:
    """``(name, position, offset)`` of every item of a read that is an index plus a constant."""
    found = []
    for node in s.walk(row.value):
        if isinstance(node, s.Subscript) and isinstance(node.base, s.Name):
            if node.base.id in group:
                for place, item in enumerate(node.items):
                    offset = offset_of(item)
                    if offset is not None:
                        found.append((node.base.id, place, offset))
    return found


def _own_offset(row: s.Equation, name: str, place: int, env: Env) -> int:
    items = row.targets[0].items or ()
    if place >= len(items):
        return 0
    return offset_of(items[place]) or 0


def _normalise(
    scope: Scope, rows: Sequence[s.Equation], index: str, places: dict[str, int]
) -> tuple[list[Step], list[s.Equation]]:
    steps: list[Step] = []
    boundary: list[s.Equation] = []
    for row in rows:
        place = places[row.targets[0].name]
        items = row.targets[0].items or ()
        if place >= len(items):
            fail("E507", "names of one recurrence have the same recurring index", row.span)
        own, offset = shifted_name(items[place], scope.env)
        if own is None:
            boundary.append(row)
            continue
        domain = _domain(scope, row, own, index)
        shifted = replace(domain, low=domain.low + offset)
        body = _rename(row, own, index, offset)
        steps.append(Step(body, tuple(place for _ in row.targets), shifted))
    if not steps:
        fail("E506", "a recurrence needs an equation with an index", rows[0].span)
    return steps, boundary


def _domain(scope: Scope, row: s.Equation, own: str, index: str) -> Domain:
    bound, _ = bind_clause(row.clause, scope.env)
    if isinstance(bound.get(own), LabelIndex):
        axis = bound[own].axis
        return Domain(axis.size, axis.low, axis.grid)
    declared = declared_domain(own, scope.env)
    if declared is not None:
        return declared
    return infer_range(own, [row.value], scope.env.bind(bound), row.span)


def _rename(row: s.Equation, own: str, index: str, offset: int) -> s.Equation:
    """The equation in terms of the common index, such that its left-hand side is unshifted."""
    if own == index and offset == 0:
        return row
    shifted: Any = s.Name(index, row.span)
    if offset:
        op = "-" if offset > 0 else "+"
        shifted = s.Binary(op, shifted, s.Number(abs(offset), "", row.span), row.span)
    return replace(row, value=substitute(row.value, own, shifted))


def _common_domain(steps: Sequence[Step], env: Env) -> Domain:
    first = steps[0]
    for step in steps[1:]:
        same = compare(step.domain.size, first.domain.size)
        if same is None:
            env.elab.require_equal(step.domain.size, first.domain.size,
                                   "ranges of one recurrence", step.row.span)  # fmt: skip
        if same is False or step.domain.low != first.domain.low:
            fail("E503", "equations of one recurrence run over different ranges", step.row.span,
                 f"{_range(step.domain)} and {_range(first.domain)}",
                 labels=[(first.row.span, "the other equation")])  # fmt: skip
    return first.domain


def _range(domain: Domain) -> str:
    return f"{domain.low}..{domain.low + domain.size}"


def _offsets(
    row: s.Equation, group: Sequence[str], places: dict[str, int]
) -> list[tuple[int, Span]]:
    """How far from its own step an equation reads the group, and where."""
    found = []
    for node in s.walk(row.value):
        if isinstance(node, s.Subscript) and isinstance(node.base, s.Name):
            if node.base.id in group and places[node.base.id] < len(node.items):
                offset = offset_of(node.items[places[node.base.id]])
                if offset is None:
                    _computed_step(node)
                found.append((offset, node.span))
    return found


def _computed_step(node: s.Subscript) -> NoReturn:
    fail("E506", "a recurrence reads its own steps at the index plus a number", node.span,
         hint="such as `h[t-1]`")  # fmt: skip


def _direction(reads: Sequence[tuple[int, Span]]) -> bool:
    """Whether the steps run backwards; E505 and E506 for what is no single scan."""
    for offset, span in reads:
        if abs(offset) > 1:
            fail("E505", "a recurrence reads one step back or ahead", span,
                 f"{abs(offset)} steps {'back' if offset < 0 else 'ahead'}",
                 "carry the step before along: `p[t] = h[t-1]`")  # fmt: skip
    back = [span for offset, span in reads if offset < 0]
    ahead = [span for offset, span in reads if offset > 0]
    if back and ahead:
        fail("E506", "a recurrence reads both earlier and later steps", ahead[0], "a later step",
             "split it in two recurrences, or write a fixed point with `fix`",
             [(back[0], "an earlier step")])  # fmt: skip
    return bool(ahead)


# ---------------------------------------------------------------- the loop


@dataclass
class _Loop:
    scope: Scope
    group: tuple[str, ...]
    steps: Sequence[Step]
    boundary: Sequence[s.Equation]
    index: str
    places: dict[str, int]
    domain: Domain
    reverse: bool

    @property
    def span(self) -> Span:
        return self.steps[0].row.span

    def run(self) -> None:
        carried = self._carried()
        starts = self._starts()
        inits = {name: self._start(name, starts) for name in carried}
        guess: dict[str, Any] = {
            # A single number as a start broadcasts, so it says nothing about the shape.
            name: Unknown()
            if init is None or not init.type.rank
            else _Known(init.type, _has_inner(init))
            for name, init in inits.items()
        }
        given = {n: _Known(x.type, _has_inner(x)) for n, x in inits.items() if x is not None}
        guess = self._rehearse(guess, given)
        region = Region(self.scope.builder, self.group[0])
        values = self._body(region, guess)
        self._finish(region, values, guess, inits, starts)

    def _carried(self) -> list[str]:
        found = []
        for name in self.group:
            for step in self.steps:
                for node in s.walk(step.row.value):
                    if isinstance(node, s.Subscript) and isinstance(node.base, s.Name):
                        if node.base.id == name and name not in found:
                            item = node.items[self.places[name]]
                            if offset_of(item):
                                found.append(name)
        return found

    def _starts(self) -> dict[str, list[Piece]]:
        pieces: dict[str, list[Piece]] = {name: [] for name in self.group}
        for row in self.boundary:
            for target in row.targets:
                pieces[target.name].append(indexed_piece(self.scope.env, row, target.name))
        return pieces

    def _start(self, name: str, starts: dict[str, list[Piece]]) -> Tensor | None:
        """What the first step reads: a given value, or None for zero."""
        place = self.places[name]
        first = self.domain.low - 1 if not self.reverse else self.domain.low + self.domain.size
        for piece in starts[name]:
            if piece.low[place] == first:
                return self._drop(piece.value, place)
        if not self.reverse and isinstance(first, int) and first >= 0:
            fail("E509", f"`{name}[{first}]` is read but not defined", self.span,
                 hint=f"add an equation `{name}[{first}] = ...`")  # fmt: skip
        return None

    def _drop(self, value: Tensor, place: int) -> Tensor:
        """Remove the boundary equation's axis of size 1."""
        env = self.scope.env
        shape = list(value.type.shape)
        lead = 1 if shape and shape[0] == env.elab.batch and len(shape) > 1 else 0
        del shape[place + lead]
        return t.emit(env, "reshape", [value], self.span, (), shape=tuple(shape))

    def _rehearse(self, guess: dict[str, Any], given: dict[str, _Known]) -> dict[str, Any]:
        """Learn the carries' types: repeat the body until they settle.

        Where nothing else tells a shape, a start that is a single number does.
        """
        elab = self.scope.elab
        for _ in range(ROUNDS):
            with elab.rehearsal():
                values = self._body(Region(self.scope.builder, "rehearsal"), guess)
            learnt = {name: _known(self.scope.env, values[name], self.span) for name in guess}
            if learnt == guess and any(isinstance(x, Unknown) for x in learnt.values()):
                if all(guess[name] == kind for name, kind in given.items()):
                    break
                learnt = {**guess, **given}
            if learnt == guess:
                return learnt
            guess = learnt
        unknown = next((n for n, x in guess.items() if isinstance(x, Unknown)), self.group[0])
        first = "T" if self.reverse else "-1"
        fail("E506", f"the shape of `{unknown}` cannot be found from its recurrence", self.span,
             hint=f"give its start: `{unknown}[{first}] = ...`")  # fmt: skip

    def _body(self, region: Region, guess: dict[str, Any]) -> dict[str, Any]:
        """Elaborate one step in ``region``; the value of each name of the group."""
        from .scope import Scope

        frame = Frame(region)
        index = ScanIndex(self.index, self.domain.low, self.domain.size, frame)
        bound: dict[str, Any] = {self.index: index}
        for name, kind in guess.items():
            previous = previous_name(name, self.index)
            if isinstance(kind, Unknown):
                bound[previous] = kind
            else:
                value = region.carry(name, kind.type)
                bound[previous] = kind.tensor(self.scope.env, value, region)
        rows = [_single_step(step, self.group, self.places, self.index) for step in self.steps]
        outer = self.scope
        inner = Scope(outer.elab, rows, region, outer.path, outer, bound, outer.input, outer.depth)
        inner.declare()
        values = {}
        for name in self.group:
            if name in inner.entries:
                values[name] = inner.force(inner.entries[name])
        missing = [name for name in self.group if name not in values]
        if missing:
            raise Poisoned
        return values

    def _finish(
        self, region: Region, values: dict[str, Any], guess: dict[str, Any],
        inits: dict[str, Tensor | None], starts: dict[str, list[Piece]],
    ) -> None:  # fmt: skip
        scope, span = self.scope, self.span
        inside = replace(scope.env, builder=region)
        plain = {name: _plain(inside, value, span) for name, value in values.items()}
        wanted = scope.used_outside(self.group) or {self.group[-1]}
        results: list[tuple[str, Value]] = []
        for name, kind in guess.items():
            fitted = _fit(inside, plain[name], kind.type, span)
            results.append((name, t.local(inside, fitted)))
        stacked = [name for name in self.group if name in wanted]
        for name in stacked:
            results.append((f"{name}[{self.index}]", t.local(inside, plain[name])))
        region.finish(results)
        operands = [self._init(inits[name], kind.type, scope.env) for name, kind in guess.items()]
        operands += [outer for outer, _ in region.slices]
        operands += [outer for outer, _ in region.captures]
        length = self.domain.size
        types = [kind.type for kind in guess.values()]
        for name in stacked:
            own = plain[name].type
            types.append(own.with_shape((length, *own.shape)))
        attrs = {
            "n_carry": len(guess), "n_xs": len(region.slices), "length": length,
            "reverse": self.reverse,
        }  # fmt: skip
        made = scope.builder.raw("scan", operands, attrs, types, span, self.group[0],
                                 [region.graph])  # fmt: skip
        for place, name in enumerate(stacked):
            tensor = Tensor(made[len(guess) + place], scope.builder)
            given = operands[list(guess).index(name)] if inits.get(name) is not None else None
            self._enter(name, tensor, values[name], starts[name], given)
        for name in self.group:
            if name not in stacked:
                scope.entries[name].state = "failed"

    def _init(self, init: Tensor | None, kind: TensorType, env: Env) -> Value:
        if init is None:
            return t.zero(env, kind, self.span)
        return t.local(env, _fit(env, init, kind, self.span))

    def _enter(
        self, name: str, stacked: Tensor, value: Any, pieces: list[Piece], start: Value | None
    ) -> None:
        """Bring the stacked steps into the layout of an equation over indices."""
        env, span = self.scope.env, self.span
        place = self.places[name]
        batch = 1 if _leads_batch(env, stacked.type.shape[1:]) else 0
        inner = _inner_batch(value)
        at = place if inner else place + batch
        rank = stacked.type.rank
        order = list(range(1, rank))
        order.insert(at, 0)
        if order != list(range(rank)):
            stacked = t.emit(env, "transpose", [stacked], span, (), perm=tuple(order))
        low: list[DimLike] = [0] * (place + 1)
        size: list[DimLike] = [-1] * (place + 1)
        low[place], size[place] = self.domain.low, self.domain.size
        piece = Piece(tuple(low), tuple(size), stacked, span)
        inside = [p for p in pieces if _counts(p.low[place], self.domain)]
        inside = [_batch_inside(env, p) for p in inside] if inner else inside
        entry = self.scope.entries[name]
        joined = join_pieces(env, name, [*inside, piece])
        outside = len(inside) < len(pieces)
        if start is not None and outside:
            shape = list(stacked.type.shape)
            shape[at] = 1
            made = env.builder.emit("reshape", [start], {"shape": tuple(shape)}, span)
            joined = replace(joined, edge=Edge(place, 1 if self.reverse else -1, made, at))
        entry.value = joined
        entry.state = "done"


@dataclass(frozen=True)
class _Known:
    """What is known of a carry: its plain type, and where its batch stands."""

    type: TensorType
    inner: bool

    def tensor(self, env: Env, value: Value, home: GraphBuilder) -> Tensor:
        if _leads_batch(env, self.type.shape):
            return Tensor(value, home, (env.elab.batch_axis(inner=self.inner),))
        return Tensor(value, home)


def _single_step(
    step: Step, group: Sequence[str], places: dict[str, int], index: str
) -> s.Equation:
    """The equation for one step: the recurring index is dropped from every use of the group."""
    row = step.row
    targets = []
    for target in row.targets:
        items = list(target.items or ())
        del items[places[target.name]]
        targets.append(replace(target, items=tuple(items) or None))
    clause = row.clause
    if clause is not None:
        binders = []
        for binder in clause.binders:
            kept = tuple(item for item in binder.items if item != (index,))
            if kept:
                binders.append(replace(binder, items=kept))
        clause = replace(clause, binders=tuple(binders)) if binders or clause.condition else None
    value = drop_index(row.value, group, places, index)
    return replace(row, targets=tuple(targets), value=value, clause=clause)


# ---------------------------------------------------------------- types of carries


def _leads_batch(env: Env, shape: Sequence[DimLike]) -> bool:
    return bool(shape) and shape[0] == env.elab.batch


def _has_inner(value: Tensor) -> bool:
    return any(axis.kind == "batch" and axis.inner for axis in value.labels)


def _inner_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and _has_inner(value)


def _batch_inside(env: Env, piece: Piece) -> Piece:
    """A boundary's value with its batch behind the indices, as where the steps have it."""
    value, count = piece.value, len(piece.low)
    if not _leads_batch(env, value.type.shape):
        return piece
    perm = (*range(1, count + 1), 0, *range(count + 1, value.type.rank))
    return replace(piece, value=t.emit(env, "transpose", [value], piece.span, (), perm=perm))


def _known(env: Env, value: Any, span: Span) -> Any:
    if isinstance(value, Unknown):
        return value
    if not isinstance(value, Tensor):
        dtype = env.elab.float_dtype if isinstance(value, float) else "i32"
        return _Known(TensorType(dtype, ()), False)
    inside = replace(env, builder=value.home)
    plain = _plain(inside, value, span)
    return _Known(plain.type, _has_inner(value))


def _plain(env: Env, value: Any, span: Span) -> Tensor:
    tensor = t.as_tensor(env, value, span)
    return t.finish_labels(env, tensor, (), span)


def _fit(env: Env, tensor: Tensor, kind: TensorType, span: Span) -> Tensor:
    """The tensor in exactly the carry's type: cast and broadcast."""
    tensor = t.cast(env, tensor, kind.dtype, span)
    shape = list(tensor.type.shape)
    if tuple(shape) == kind.shape:
        return tensor
    if len(shape) < len(kind.shape):
        missing = len(kind.shape) - len(shape)
        lead = 1 if _leads_batch(env, shape) else 0
        shape[lead:lead] = [1] * missing
        tensor = t.emit(env, "reshape", [tensor], span, (), shape=tuple(shape))
    return t.emit(env, "broadcast", [tensor], span, (), shape=kind.shape)


def _counts(low: DimLike, domain: Domain) -> bool:
    """Whether a boundary equation's step is part of the result (not one before or after it)."""
    if low == -1:
        return False
    after = low - (domain.low + domain.size)
    return not (isinstance(after, int) and after >= 0)
