"""The range of an index that no ``for`` gives: from its declaration, its uses, or its letter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...compiler.ir.dims import DimLike, collect_undecided, compare, floordiv
from ...compiler.ir.types import Span
from .. import syntax as s
from .domains import Domain, declared_domain
from .environment import Env
from .errors import ElaborationError, Poisoned, fail
from .expressions import evaluate, scope_symbol
from .values import BATCH, LabelIndex, Record, Tensor, TupleValue


def index_domain(name: str, nodes: Sequence[Any], env: Env, span: Span) -> Domain:
    """The domain of a free index: its declaration, else what its uses say."""
    declared = declared_domain(name, env)
    return declared if declared is not None else infer_range(name, nodes, env, span)


def infer_range(name: str, nodes: Sequence[Any], env: Env, span: Span) -> Domain:
    """From unshifted uses, which must agree (E503); else the capital letter's size; else E502."""
    found: list[tuple[DimLike, Span, str]] = []
    for node in nodes:
        _collect(name, node, env, found)
    if found:
        size, place, where = found[0]
        for other, other_place, other_where in found[1:]:
            with collect_undecided():
                verdict = compare(size, other)
            if verdict is False:
                fail("E503", f"the index `{name}` would have two ranges", other_place,
                     f"0..{size} in {where} and 0..{other} in {other_where}",
                     f"give the range: `for {name} in 0..n`",
                     [(place, f"0..{size} here")])  # fmt: skip
            if verdict is None:
                env.elab.require_equal(size, other, f"uses of index {name}", other_place)
        return Domain(env.elab.resolve(size))
    letter = name.upper()
    known = env.scope.find_bound(letter)
    if isinstance(known, int) and not isinstance(known, bool):
        return Domain(known)
    if letter in env.elab.symbols:
        return Domain(scope_symbol(letter, env))
    fail("E502", f"the range of the index `{name}` is unknown", span,
         hint=f"give it: `for {name} in 0..n`, or declare `index {name} : 0..n`")  # fmt: skip


def _collect(name: str, node: Any, env: Env, found: list[tuple[DimLike, Span, str]]) -> None:
    if isinstance(node, s.Reduction) and any(binder == name for binder, _ in node.binders):
        return  # an inner reducer's own index of the same name
    if isinstance(node, s.Subscript):
        _use(name, node, env, found)
    for child in s.children(node):
        _collect(name, child, env, found)


def _use(name: str, node: s.Subscript, env: Env, found: list[tuple[DimLike, Span, str]]) -> None:
    places = [i for i, item in enumerate(node.items) if _mentions(name, item)]
    if not places:
        return
    base = _peek(node.base, env)
    where = node.base.id if isinstance(node.base, s.Name) else "this"
    if isinstance(base, (list, tuple)):
        shape = _list_shape(base)
    elif isinstance(base, TupleValue):
        shape = (len(base.items),)
    elif isinstance(base, Tensor):
        shape = _shape_for(base, node, name, env)
    elif isinstance(base, Record):
        shape = base.shape
    else:
        return
    shape = _stretch(shape, node, env)
    for place in places:
        item = node.items[place]
        if place >= len(shape):
            continue
        if isinstance(item, s.Name) and item.id == name:
            found.append((shape[place], item.span, where))
        else:
            step = _tiles(name, item, env)
            if step is not None:
                size = floordiv(shape[place], step)
                env.elab.require_equal(size * step, shape[place], "tiles of an axis", item.span)
                found.append((size, item.span, where))


def _mentions(name: str, item: Any) -> bool:
    if isinstance(item, s.Name):
        return item.id == name
    if isinstance(item, (s.Binary, s.Group)):
        return any(_mentions(name, child) for child in s.children(item))
    return False


def _peek(node: Any, env: Env) -> Any:
    """The base of a subscript if it can be known now; a recurrence's own names cannot."""
    if not isinstance(node, (s.Name, s.Subscript, s.Member)):
        return None
    if isinstance(node, s.Name):
        if node.id in env.bound:
            return env.bound[node.id]
        entry = env.scope.find(node.id)
        if entry is not None and entry[1].state == "running":
            return None
        if entry is not None and entry[1].kind in ("index", "draw", "def"):
            return None
    try:
        return evaluate(node, env)
    except (ElaborationError, Poisoned):
        return None  # reported where the expression itself is evaluated


def _shape_for(base: Tensor, node: s.Subscript, name: str, env: Env) -> tuple[DimLike, ...]:
    """Element axes that the items walk over; the batch is skipped unless it is meant."""
    rest = base.rest
    if not rest or rest[0] != env.elab.batch or base.labels:
        return rest
    first = node.items[0]
    bound = env.bound.get(first.id) if isinstance(first, s.Name) else None
    is_batch = isinstance(bound, LabelIndex) and bound.axis.size == env.elab.batch
    if isinstance(first, s.Name) and first.id == BATCH.lower() and bound is None:
        is_batch = True
    if is_batch or isinstance(first, s.WholeAxis) or len(node.items) == len(rest):
        return rest
    return rest[1:]


def _stretch(shape: Sequence[DimLike], node: s.Subscript, env: Env) -> tuple[DimLike, ...]:
    """Positions take several axes at once: line the shape up with the items."""
    lined: list[DimLike] = []
    place = 0
    for item in node.items:
        if place >= len(shape):
            break
        lined.append(shape[place])
        bound = env.bound.get(item.id) if isinstance(item, s.Name) else None
        grid = bound.axis.grid if isinstance(bound, LabelIndex) else None
        if isinstance(bound, Tensor):
            grid = bound.grid
        if grid is None and isinstance(item, s.Name):
            declared = declared_domain(item.id.rstrip("'"), env)
            grid = declared.grid if declared is not None else None
        wide = grid is not None and compare(shape[place], grid[0]) is True
        place += len(grid) if wide and grid is not None else 1
    return tuple(lined)


def _tiles(name: str, item: Any, env: Env) -> int | None:
    """``8*i + p`` with ``p in 0..8`` walks an axis in tiles of 8."""
    if not isinstance(item, s.Binary) or item.op != "+":
        return None
    product, offset = item.left, item.right
    if not isinstance(product, s.Binary) or product.op != "*":
        product, offset = offset, product
    if not isinstance(product, s.Binary) or product.op != "*" or not isinstance(offset, s.Name):
        return None
    index, factor = product.right, product.left
    if isinstance(factor, s.Name) and factor.id == name:
        index, factor = factor, index
    if not (isinstance(index, s.Name) and index.id == name):
        return None
    step = evaluate(factor, env)
    inner = env.bound.get(offset.id)
    size = inner.axis.size if isinstance(inner, LabelIndex) else None
    if size is None:
        declared = declared_domain(offset.id, env)
        size = declared.size if declared is not None else None
    return step if isinstance(step, int) and size in (step, None) else None


def _list_shape(value: Any) -> tuple[DimLike, ...]:
    shape: list[DimLike] = []
    while isinstance(value, (list, tuple)) and value:
        shape.append(len(value))
        value = value[0]
    return tuple(shape)
