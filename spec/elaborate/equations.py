"""Equations: plain ones, equations over indices, families that unroll, and recurrences.

An equation over indices is evaluated once, with the indices as axes. It unrolls instead when an
index selects an instance or a member of a tuple, and becomes a ``scan`` when it reads itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from ...compiler.ir.dims import Dim, DimLike
from ...compiler.ir.types import Span
from .. import syntax as s
from . import tensors as t
from .domains import bind_clause, declared_domain, domain_of
from .environment import Env
from .errors import ElaborationError, Poisoned, fail
from .expressions import evaluate, evaluate_value, value_of, whole
from .ranges import infer_range
from .values import (
    Axis,
    Instance,
    LabelIndex,
    Tensor,
    TupleValue,
    Unknown,
    describe,
    is_block,
    is_constant,
)

if TYPE_CHECKING:
    from .scope import Scope


def evaluate_name(scope: Scope, name: str) -> Any:
    """The value of a name that one or more equations define."""
    rows = scope.equations[name]
    first = rows[0]
    if name.endswith("'") and not any(target.items for target in first.targets):
        return first  # a next value: expanded where it is used
    target = _target(first, name)
    if target.items is None:
        return _plain(scope, first, name)
    group = scope.cycles.get(name)
    if unrolls(scope, name, group or (name,)):
        return Family(scope, name, tuple(rows))
    if group is not None:
        from .recurrence import evaluate_cycle

        evaluate_cycle(scope, group)
        return scope.entries[name].value
    return _indexed(scope, name, rows)


def _target(row: s.Equation, name: str) -> s.Target:
    return next(target for target in row.targets if target.name == name)


# ---------------------------------------------------------------- plain equations


def _plain(scope: Scope, row: s.Equation, name: str) -> Any:
    if row.clause is not None:
        fail("E508", "`for` needs indices on the left-hand side", row.clause.span,
             hint=f"write `{name}[i] = ... for i in ...`")  # fmt: skip
    if len(row.targets) == 1:
        env = scope.env.at(scope.path.unlabelled(name))
        value = evaluate_value(row.value, env)
        return named(scope, name, value, row.span)
    values = _shared(scope, row)
    place = next(i for i, target in enumerate(row.targets) if target.name == name)
    return values[place]


def _shared(scope: Scope, row: s.Equation) -> Sequence[Any]:
    """The values of ``a, b = expr``: evaluated once, kept on the scope."""
    key = id(row)
    if key not in scope.shared:
        first = row.targets[0].name
        env = scope.env.at(scope.path.unlabelled(first))
        value = evaluate_value(row.value, env)
        items = value.items if isinstance(value, TupleValue) else value
        if not isinstance(items, (list, tuple)) or len(items) != len(row.targets):
            fail("E410", f"{len(row.targets)} names need {len(row.targets)} values", row.span,
                 describe(value))  # fmt: skip
        scope.shared[key] = list(items)
    return scope.shared[key]


def named(scope: Scope, name: str, value: Any, span: Span) -> Any:
    """A block that gets a name is an instance; so is each block of a named list."""
    from .builder import join

    if is_block(value) and not isinstance(value, Instance):
        outer = scope.path.instance
        weights = outer.weights if outer is not None else {}
        return Instance(name, value, join(scope.path.base, name), span, weights)
    if isinstance(value, TupleValue) and any(is_block(item) for item in value.items):
        items = [named(scope, f"{name}.{i}", item, span) for i, item in enumerate(value.items)]
        return TupleValue(tuple(items))
    if isinstance(value, LabelIndex):
        return value_of(value, scope.env, span)
    if isinstance(value, Tensor) and len(value.labels) == 1:
        # A batch that leads is an axis like any other once an equation has its name.
        batch = value.labels[0]
        if batch.kind == "batch" and not batch.inner:
            return Tensor(value.value, value.home, (), value.grid)
    return value


# ---------------------------------------------------------------- families that unroll


def unrolls(scope: Scope, name: str, group: Sequence[str]) -> bool:
    """Whether an index of the group selects an instance or a member of a tuple."""
    for member in group:
        for row in scope.equations.get(member, ()):
            names = {n for target in row.targets for n in _bare_names(target)}
            if names and _selects(scope, row.value, names, group):
                return True
    return False


def _bare_names(target: s.Target) -> set[str]:
    found: set[str] = set()
    for item in target.items or ():
        for node in s.walk(item):
            if isinstance(node, s.Name):
                found.add(node.id)
    return found


def _selects(scope: Scope, node: Any, names: set[str], group: Sequence[str]) -> bool:
    if isinstance(node, s.Subscript) and isinstance(node.base, s.Name):
        base = node.base.id
        used = {n.id for item in node.items for n in s.walk(item) if isinstance(n, s.Name)}
        if used & names and base not in group and _is_collection(scope, base):
            return True
    return any(_selects(scope, child, names, group) for child in s.children(node))


def _is_collection(scope: Scope, name: str) -> bool:
    found = scope.find(name)
    if found is None or found[1].kind not in ("equation", "family"):
        value = scope.find_bound(name)
    else:
        owner, entry = found
        if entry.state == "running":
            return False
        try:
            value = owner.force(entry)
        except (Poisoned, ElaborationError):
            return False
    return isinstance(value, (TupleValue, Family))


@dataclass
class Family:
    """An unrolled family ``x[0], x[1], ...``: each member is evaluated when first asked for."""

    scope: Scope
    name: str
    rows: tuple[s.Equation, ...]
    members: dict[tuple[int, ...], Any] = field(default_factory=dict)
    running: set[tuple[int, ...]] = field(default_factory=set)

    def at(self, node: s.Subscript, env: Env) -> Any:
        """The member that a subscript picks; further items index into it."""
        from .subscripts import index_value

        rank = len(_target(self.rows[0], self.name).items or ())
        indices = []
        for item in node.items[:rank]:
            value = value_of(evaluate(item, env), env, item.span)
            value = whole(value, item.span, f"an index of `{self.name}`")
            if isinstance(value, Dim):
                fail("E409", f"an index of `{self.name}` must be known while compiling",
                     item.span, str(value))  # fmt: skip
            indices.append(value)
        member = self.member(tuple(indices), node.span)
        rest = [evaluate(item, env) for item in node.items[rank:]]
        return index_value(member, rest, env, node.span, self.name) if rest else member

    def member(self, indices: tuple[int, ...], span: Span) -> Any:
        """One member, by its indices."""
        if indices in self.members:
            return self.members[indices]
        shown = f"{self.name}[{', '.join(map(str, indices))}]"
        if indices in self.running:
            fail("E304", f"`{shown}` is defined by itself", span)
        self.running.add(indices)
        for row in self.rows:
            bound = self._match(row, indices)
            if bound is not None:
                suffix = ".".join([self.name, *map(str, indices)])
                env = self.scope.env.bind(bound).at(self.scope.path.unlabelled(suffix))
                value = evaluate_value(row.value, env)
                if len(row.targets) > 1:
                    place = [x.name for x in row.targets].index(self.name)
                    value = value.items[place] if isinstance(value, TupleValue) else value
                self.members[indices] = value
                self.running.discard(indices)
                return value
        fail("E504", f"no equation defines `{shown}`", span,
             labels=[(row.span, "defined here") for row in self.rows])  # fmt: skip

    def _match(self, row: s.Equation, indices: tuple[int, ...]) -> dict[str, int] | None:
        """Index values under which ``row`` defines the member, if any."""
        target = _target(row, self.name)
        bound: dict[str, int] = {}
        for item, index in zip(target.items or (), indices, strict=True):
            name, offset = shifted_name(item, self.scope.env)
            if name is None:
                if offset != index:
                    return None
            else:
                bound[name] = index - offset
        ranges = self._ranges(row)
        for name, value in bound.items():
            low, high = ranges.get(name, (0, None))
            if value < low or (high is not None and value >= high):
                return None
        return bound

    def _ranges(self, row: s.Equation) -> dict[str, tuple[int, int | None]]:
        found: dict[str, tuple[int, int | None]] = {}
        for binder in row.clause.binders if row.clause is not None else ():
            for item in binder.items:
                domain = domain_of(binder.domain, self.scope.env, item[0])
                if not isinstance(domain.low, int) or not isinstance(domain.size, int):
                    fail("E409", "an unrolled range must be known while compiling", binder.span)
                found[item[0]] = (domain.low, domain.low + domain.size)
        for name in _bare_names(_target(row, self.name)) - found.keys():
            declared = declared_domain(name, self.scope.env)
            if declared is not None and isinstance(declared.size, int):
                found[name] = (0, declared.size)
            else:
                found[name] = (0, self._count(row, name))
        return found

    def _count(self, row: s.Equation, name: str) -> int:
        """Without a ``for``, an index runs over the list that it selects from."""
        for node in s.walk(row.value):
            if not isinstance(node, s.Subscript) or not isinstance(node.base, s.Name):
                continue
            if any(isinstance(x, s.Name) and x.id == name for x in node.items):
                found = self.scope.find(node.base.id)
                value = found[0].force(found[1]) if found and found[1].state != "running" else None
                if isinstance(value, TupleValue):
                    return len(value.items)
                if isinstance(value, Family) and value is not self:
                    return len(value.everything())
        fail("E502", f"the range of the index `{name}` is unknown", row.span,
             hint=f"give it: `for {name} in 0..n`")  # fmt: skip

    def everything(self) -> list[Any]:
        """All members in order (only for one index)."""
        found: dict[tuple[int, ...], Any] = {}
        for row in self.rows:
            target = _target(row, self.name)
            items = list(target.items or ())
            if len(items) != 1:
                fail("E507", "a family over several indices is used member by member", row.span)
            name, offset = shifted_name(items[0], self.scope.env)
            if name is None:
                found[(offset,)] = self.member((offset,), row.span)
                continue
            low, high = self._ranges(row)[name]
            for value in range(low, high or 0):
                key = (value + offset,)
                found[key] = self.member(key, row.span)
        return [found[key] for key in sorted(found)]


def shifted_name(item: Any, env: Env) -> tuple[str | None, int]:
    """``k`` → (k, 0), ``k+1`` → (k, 1), ``3`` or ``T-1`` → (None, its value)."""
    while isinstance(item, s.Group):
        item = item.body
    if isinstance(item, s.Name) and not _is_size(item.id, env):
        return item.id, 0
    if isinstance(item, s.Binary) and item.op in ("+", "-"):
        left, right = item.left, item.right
        if isinstance(left, s.Name) and not _is_size(left.id, env):
            shift = whole(evaluate(right, env), right.span, "a shift")
            if isinstance(shift, int):
                return left.id, shift if item.op == "+" else -shift
    value = whole(value_of(evaluate(item, env), env, item.span), item.span, "an index")
    return None, value


def _is_size(name: str, env: Env) -> bool:
    if name in env.elab.symbols:
        return True
    found = env.scope.find(name)
    if found is not None and found[1].kind != "index":
        return True
    return is_constant(env.scope.find_bound(name)) and env.scope.find_bound(name) is not None


# ---------------------------------------------------------------- equations over indices


@dataclass(frozen=True)
class Piece:
    """One equation of a name: where it applies along each axis, and its value."""

    low: tuple[DimLike, ...]
    size: tuple[DimLike, ...]
    value: Any
    span: Span


def _indexed(scope: Scope, name: str, rows: Sequence[s.Equation]) -> Any:
    pieces = [indexed_piece(scope.env, row, name) for row in rows]
    if any(isinstance(piece.value, Unknown) for piece in pieces):
        return Unknown()
    return join_pieces(scope.env, name, pieces)


def indexed_piece(env: Env, row: s.Equation, name: str) -> Piece:
    """Evaluate one equation over its indices into a plain tensor."""
    target = _target(row, name)
    items = list(target.items or ())
    env, axes = bind_targets(env, row, items)
    place = next(i for i, x in enumerate(row.targets) if x.name == name)
    inner = env.at(env.path.unlabelled(row.targets[0].name if len(row.targets) > 1 else name))
    value = _right_side(row, inner)
    if len(row.targets) > 1:
        parts = value.items if isinstance(value, TupleValue) else None
        if parts is None or len(parts) != len(row.targets):
            fail("E410", f"{len(row.targets)} names need {len(row.targets)} values", row.span,
                 describe(value))  # fmt: skip
        value = parts[place]
    if isinstance(value, Unknown):
        return Piece((), (), value, row.span)
    return finish_piece(env, items, axes, value, row)


def _right_side(row: s.Equation, env: Env) -> Any:
    value = evaluate_value(row.value, env)
    if row.clause is not None and row.clause.condition is not None:
        condition = evaluate_value(row.clause.condition, env)
        if isinstance(condition, Tensor):
            t.need_condition(condition, row.clause.condition.span)
        elif not isinstance(condition, (bool, Unknown)):
            fail("E404", "a condition is needed after `if`", row.clause.condition.span,
                 describe(condition))  # fmt: skip
        value = t.elementwise(env, "where", [condition, value, 0.0], row.span)
    if is_block(value):
        fail("E405", "an equation over indices needs a tensor", row.value.span, describe(value))
    return value


def bind_targets(
    env: Env, row: s.Equation | s.Draw, items: Sequence[Any]
) -> tuple[Env, dict[str, Axis]]:
    """Bind the indices of the left-hand side; ranges as the language page orders them."""
    bound, _ = bind_clause(row.clause, env)
    names = [n for item in items for n in _item_names(item, env)]
    value = row.value if isinstance(row, s.Equation) else row.distribution
    nodes = [value] if row.clause is None or row.clause.condition is None else [
        value, row.clause.condition]  # fmt: skip
    # Declared indices first: they fix how the axes of others line up.
    pending = [n for n in names if n not in bound]
    for name in list(pending):
        declared = declared_domain(name, env)
        if declared is not None:
            bound[name] = LabelIndex(declared.axis(name))
            pending.remove(name)
    for name in pending:
        if name in env.bound and isinstance(env.bound[name], LabelIndex):
            continue
        domain = infer_range(name, nodes, env.bind(bound), row.span)
        bound[name] = LabelIndex(domain.axis(name))
    axes = {name: value.axis for name, value in bound.items() if isinstance(value, LabelIndex)}
    return env.bind(bound), axes


def _item_names(item: Any, env: Env) -> list[str]:
    if isinstance(item, s.Tuple):
        return [name for part in item.items for name in _item_names(part, env)]
    if isinstance(item, s.WholeAxis):
        fail("E508", "the left-hand side names its indices", item.span)
    name, _ = shifted_name(item, env)
    return [name] if name is not None else []


def finish_piece(
    env: Env, items: Sequence[Any], axes: dict[str, Axis], value: Any, row: Any
) -> Piece:
    """Lay the value out: batch, then the left-hand side's indices in order, then the element."""
    tensor = t.as_tensor(env, value_of(value, env, row.span), row.span)
    if not tensor.labels and all(axis.size != env.elab.batch for axis in axes.values()):
        tensor = t.lift_batch(env, tensor)  # a whole value: its batch leads here too
    order: list[Axis] = []
    lows: list[DimLike] = []
    sizes: list[DimLike] = []
    shape: list[DimLike] = []
    for item in items:
        if isinstance(item, s.Tuple):
            parts = [axes[name] for name in _item_names(item, env)]
            order += parts
            merged: DimLike = 1
            for axis in parts:
                merged = merged * axis.size
            lows.append(0)
            sizes.append(merged)
            shape.append(merged)
            continue
        name, offset = shifted_name(item, env)
        if name is None:
            lows.append(offset)
            sizes.append(1)
            shape.append(1)
            continue
        if name not in axes:
            fail("E508", f"`{name}` is a column of a table, not an index", row.span,
                 hint="give the row an index: `y[r] = ... table[r, 0] ...`")  # fmt: skip
        axis = axes[name]
        order.append(axis)
        lows.append(axis.low + offset)
        sizes.append(axis.size)
        shape += list(axis.grid) if axis.grid is not None else [axis.size]
    rest = tensor.rest
    plain = t.finish_labels(env, tensor, order, row.span)
    batched = len(plain.type.shape) - len(order) - len(rest)
    lead = plain.type.shape[:batched] if batched and plain.type.shape[0] == env.elab.batch else ()
    inner = batched and not lead
    full = (*lead, *shape, *((env.elab.batch,) if inner else ()), *rest)
    if full != plain.type.shape:
        plain = t.emit(env, "reshape", [plain], row.span, (), shape=full)
    plain = Tensor(plain.value, plain.home, (), tensor.grid)
    return Piece(tuple(lows), tuple(sizes), plain, row.span)


def join_pieces(env: Env, name: str, pieces: Sequence[Piece]) -> Tensor:
    """Pieces along one axis, in order; a start at 1 leaves a zero before it."""
    if len(pieces) == 1 and all(low == 0 for low in pieces[0].low):
        return pieces[0].value
    axes = {i for piece in pieces for i, low in enumerate(piece.low) if low != 0}
    if len(axes) > 1:
        fail("E509", f"the equations of `{name}` differ in more than one index",
             pieces[0].span)  # fmt: skip
    axis = axes.pop() if axes else 0
    ordered = sorted(pieces, key=lambda p: _order_key(p.low[axis]))
    batched = _leads_with_batch(env, ordered[0])
    place = axis + (1 if batched else 0)
    start: DimLike = 0
    parts: list[Tensor] = []
    for piece in ordered:
        low = piece.low[axis]
        if low == -1 or piece.size[axis] == 0:
            continue
        gap = low - start
        if gap != 0:
            if gap == 1 and not parts:
                parts.append(_zero_slice(env, piece.value, place, piece.span))
            else:
                _uneven(name, start, low, piece.span, [p.span for p in ordered])
        parts.append(piece.value)
        start = low + piece.size[axis]
    if not parts:
        fail("E509", f"the equations of `{name}` define no value", ordered[0].span,
             "their ranges are empty or lie before 0")  # fmt: skip
    parts = t.promote(env, parts, ordered[0].span)
    if len(parts) == 1:
        return parts[0]
    return t.emit(env, "concat", parts, ordered[0].span, (), axis=place)


def _uneven(
    name: str, start: DimLike, low: DimLike, span: Span, others: Sequence[Span]
) -> NoReturn:
    """E509: two equations do not follow on each other."""
    found = f"the one before ends at {start}, this one starts at {low}"
    if isinstance(start, int) and isinstance(low, int):
        found = f"nothing defines {start}..{low}"
        if low < start:
            found = f"{low}..{start} is defined twice"
    places = [(other, "another equation") for other in others if other != span]
    fail("E509", f"the equations of `{name}` leave a gap or overlap", span, found,
         "each index value needs exactly one equation", places)  # fmt: skip


def _leads_with_batch(env: Env, piece: Piece) -> bool:
    shape = piece.value.type.shape
    return (
        bool(shape)
        and shape[0] == env.elab.batch
        and (piece.size[0] != env.elab.batch or (len(shape) > 1 and shape[1] == env.elab.batch))
    )


def _zero_slice(env: Env, like: Tensor, place: int, span: Span) -> Tensor:
    shape = list(like.type.shape)
    shape[place] = 1
    made = env.builder.emit(
        "fill", (), {"shape": tuple(shape), "value": 0.0, "dtype": like.dtype}, span
    )
    return Tensor(made, env.builder)


def _order_key(low: DimLike) -> tuple[int, int, str]:
    # A symbolic position (T, T-1) comes after every number.
    return (0, low, "") if isinstance(low, int) else (1, 0, str(low))
