"""What an index ranges over: intervals, grids, name sets, rows of a table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ...compiler.ir.dims import DimLike, product
from ...compiler.ir.types import Span
from .. import syntax as s
from . import tensors as t
from .environment import Env
from .errors import fail
from .expressions import constant_of, evaluate, value_of, whole
from .values import Axis, LabelIndex, Tensor, TupleValue, describe

CONSTRUCTORS = ("grid", "pixels")
MAX_UNROLLED = 100_000


@dataclass(frozen=True)
class Domain:
    """``low <= index < low + size``; a grid's positions are numbered row by row.

    ``upper`` is a tensor-valued end (and ``lower`` start) of a range that depends on other
    indices; the index then runs over ``size`` and counts only where it is inside.
    """

    size: DimLike
    low: DimLike = 0
    grid: tuple[DimLike, ...] | None = None
    names: tuple[str, ...] = ()
    kind: str = "range"
    lower: Tensor | None = None
    upper: Tensor | None = None

    def axis(self, name: str) -> Axis:
        """A fresh axis that runs over this domain."""
        return Axis(name, self.size, self.low, grid=self.grid)


Fallback = Callable[[], Domain]


def domain_of(node: Any, env: Env, name: str = "", widest: Fallback | None = None) -> Domain:
    """The domain that an expression after ``in`` or ``index ... :`` denotes.

    ``widest`` gives all values that an index can have when its range depends on other indices
    and no declaration says so.
    """
    if isinstance(node, s.Group):
        return domain_of(node.body, env, name, widest)
    if isinstance(node, s.NameSet):
        return Domain(len(node.names), names=node.names, kind="names")
    if isinstance(node, s.Interval):
        return _interval(node, env, name, widest)
    if isinstance(node, s.Call) and isinstance(node.function, s.Name):
        if node.function.id in CONSTRUCTORS:
            return _grid(node, env)
    if isinstance(node, s.Name):
        if node.id in CONSTRUCTORS:
            return _declared(node, env, name)
        declared = declared_domain(node.id, env)
        if declared is not None:
            return declared
    value = evaluate(node, env)
    size = whole(value, node.span, "the size of a range")
    _check(0, size, node.span)
    return Domain(size)


def _interval(node: s.Interval, env: Env, name: str, widest: Fallback | None) -> Domain:
    low = value_of(evaluate(node.low, env), env, node.span)
    high = value_of(evaluate(node.high, env), env, node.span)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        declared = declared_domain(name, env)
        if declared is None and widest is not None:
            declared = widest()
        if declared is None:
            fail("E502", f"the range of `{name}` depends on other indices", node.span,
                 hint=f"declare all its values: `index {name} : 0..n`")  # fmt: skip
        lower = low if isinstance(low, Tensor) else t.constant(env, low, "i32", node.span)
        upper = high if isinstance(high, Tensor) else t.constant(env, high, "i32", node.span)
        return Domain(declared.size, declared.low, lower=lower, upper=upper)
    low = whole(low, node.low.span, "the start of a range")
    high = whole(high, node.high.span, "the end of a range")
    _check(low, high, node.span)
    return Domain(high - low, low)


def _check(low: DimLike, high: DimLike, span: Span) -> None:
    if isinstance(low, int) and isinstance(high, int) and high < low:
        fail("E504", "a range ends before it starts", span, f"{low}..{high}")


def _grid(node: s.Call, env: Env) -> Domain:
    extents = []
    for argument in node.args:
        size = constant_of(argument.value, env, "an extent")
        extents.append(whole(size, argument.span, "an extent"))
    if len(extents) < 2:
        fail("E402", "a grid has at least two extents", node.span, hint="grid(rows, columns)")
    assert isinstance(node.function, s.Name)
    return Domain(product(extents), grid=tuple(extents), kind=node.function.id)


def _declared(node: s.Name, env: Env, name: str) -> Domain:
    """``for i in pixels``: the domain of a declared index made by that constructor."""
    first = declared_domain(name, env)
    if first is not None and first.kind == node.id:
        return first
    scope = env.scope
    while scope is not None:
        for entry in scope.entries.values():
            if entry.kind == "index":
                domain = scope.force(entry, node.span)
                if domain.kind == node.id:
                    return domain
        scope = scope.parent
    fail("E502", f"no index is declared over {node.id}", node.span,
         hint=f"declare it: `index i : {node.id}(H, W)`")  # fmt: skip


def declared_domain(name: str, env: Env) -> Domain | None:
    """The domain of an ``index`` declaration, if ``name`` has one."""
    found = env.scope.find(name)
    if found is None or found[1].kind != "index":
        return None
    return found[0].force(found[1])


# ---------------------------------------------------------------- clauses


def bind_clause(clause: s.ForClause | None, env: Env) -> tuple[dict[str, Any], list[Domain]]:
    """Names that a ``for`` clause binds, as indices (or tensors of rows of a table)."""
    bound: dict[str, Any] = {}
    domains: list[Domain] = []
    for binder in clause.binders if clause is not None else ():
        inner = env.bind(bound)
        pair = any(len(item) > 1 for item in binder.items)
        if pair:
            bound |= _bind_rows(binder, inner)
            continue
        for item in binder.items:
            domain = domain_of(binder.domain, inner, item[0])
            bound[item[0]] = LabelIndex(domain.axis(item[0]))
            domains.append(domain)
    return bound, domains


def _bind_rows(binder: s.Binder, env: Env) -> dict[str, Any]:
    """``for (i, j) in rows``: one axis over the rows; each name is a column."""
    value = evaluate(binder.domain, env)
    rows = t.as_tensor(env, value, binder.span)
    names = binder.items[0]
    if len(rows.rest) < 2 or len(binder.items) != 1:
        fail("E503", "rows are taken apart from a table", binder.span, describe(value))
    if rows.rest[1] != len(names):
        fail("E503", f"rows of {rows.rest[1]} cannot fill {len(names)} names", binder.span)
    axis = Axis(",".join(names), rows.rest[0])
    bound: dict[str, Any] = {}
    for place, name in enumerate(names):
        column = t.emit(env, "slice", [rows], binder.span, (), starts=(0, place),
                        stops=(rows.rest[0], place + 1), steps=(1, 1))  # fmt: skip
        flat = t.emit(env, "reshape", [column], binder.span, (axis,), shape=(rows.rest[0],))
        bound[name] = Tensor(flat.value, flat.home, (axis,))
    return bound


def iterate_clause(clause: s.ForClause, env: Env) -> Iterator[dict[str, Any]]:
    """The bindings of a comprehension, one after the other."""

    def rounds(binders: tuple[s.Binder, ...], bound: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if not binders:
            if clause.condition is None or _holds(clause.condition, env.bind(bound)):
                yield bound
            return
        binder = binders[0]
        columns = [_members(binder, env.bind(bound)) for _ in binder.items]
        for row in itertools.product(*columns):
            found = dict(bound)
            for names, value in zip(binder.items, row, strict=True):
                found |= _take_apart(names, value, binder)
            yield from rounds(binders[1:], found)

    yield from rounds(clause.binders, {})


def _holds(condition: s.Expr, env: Env) -> bool:
    value = constant_of(condition, env, "the condition of a list")
    if not isinstance(value, bool):
        fail("E404", "a condition is needed after `if`", condition.span, describe(value))
    return value


def _members(binder: s.Binder, env: Env) -> list[Any]:
    node = binder.domain
    while isinstance(node, s.Group):
        node = node.body
    if isinstance(node, s.Interval):
        domain = domain_of(node, env)
        if not isinstance(domain.size, int) or not isinstance(domain.low, int):
            fail("E409", "a list needs a range known while compiling", node.span,
                 f"{domain.low}..{domain.low + domain.size}")  # fmt: skip
        if domain.size > MAX_UNROLLED:
            fail("E702", f"a list of {domain.size} items is too long", node.span,
                 hint="write a long repetition over an index: "
                 "`y[i] = ... for i in 0..n`")  # fmt: skip
        return list(range(domain.low, domain.low + domain.size))
    value = evaluate(node, env)
    if isinstance(value, TupleValue):
        return list(value.items)
    if isinstance(value, (list, tuple)):
        return list(value)
    fail("E409", "a list runs over a range, a list or a tuple", node.span, describe(value))


def _take_apart(names: tuple[str, ...], value: Any, binder: s.Binder) -> dict[str, Any]:
    if len(names) == 1:
        return {names[0]: value}
    items = value.items if isinstance(value, TupleValue) else value
    if not isinstance(items, (list, tuple)) or len(items) != len(names):
        fail("E410", f"a row cannot fill {len(names)} names", binder.span, describe(value))
    return dict(zip(names, items, strict=True))
