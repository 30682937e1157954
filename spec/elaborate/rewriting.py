"""Rewriting syntax: names exchanged, shifted indices folded, the index of a recurrence dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .. import syntax as s


def rename(node: Any, name: str, by: str) -> Any:
    """The syntax with one name exchanged for another."""
    return substitute(node, name, s.Name(by))


def substitute(node: Any, name: str, by: Any) -> Any:
    """The syntax with a name exchanged for an expression; shifts stay recognisable."""
    if isinstance(node, s.Name):
        return replace(by, span=node.span) if node.id == name else node
    if isinstance(node, tuple):
        return tuple(substitute(item, name, by) for item in node)
    if not hasattr(node, "span"):
        return node
    changes = {
        key: substitute(value, name, by)
        for key, value in vars(node).items()
        if key != "span" and (isinstance(value, tuple) or hasattr(value, "span"))
    }
    if isinstance(node, s.Binary) and isinstance(changes.get("left"), s.Binary):
        return _fold(replace(node, **changes))
    return replace(node, **changes)


def _fold(node: s.Binary) -> Any:
    """``(t - 1) + 1`` → ``t``, so that shifts stay recognisable."""
    inner = node.left
    constant = isinstance(node.right, s.Number) and isinstance(node.right.value, int)
    if node.op not in ("+", "-") or not constant or not isinstance(inner, s.Binary):
        return node
    if not isinstance(inner.left, s.Name) or offset_of(inner) is None:
        return node
    assert isinstance(node.right, s.Number)
    amount = int(node.right.value)
    total = (offset_of(inner) or 0) + (amount if node.op == "+" else -amount)
    if total == 0:
        return inner.left
    op = "+" if total > 0 else "-"
    return s.Binary(op, inner.left, s.Number(abs(total), "", node.span), node.span)


def offset_of(item: Any) -> int | None:
    """The constant of ``t + constant`` (0 for ``t``); ``None`` for anything else."""
    while isinstance(item, s.Group):
        item = item.body
    if isinstance(item, s.Name):
        return 0
    if isinstance(item, s.Binary) and item.op in ("+", "-") and isinstance(item.left, s.Name):
        if isinstance(item.right, s.Number) and isinstance(item.right.value, int):
            return item.right.value if item.op == "+" else -item.right.value
    return None


def drop_index(node: Any, group: Sequence[str], places: dict[str, int], index: str) -> Any:
    """One step of a recurrence: ``h[t]`` reads ``h``, ``h[t-1]`` the carried value."""
    if isinstance(node, tuple):
        return tuple(drop_index(item, group, places, index) for item in node)
    if not hasattr(node, "span"):
        return node
    if isinstance(node, s.Subscript) and isinstance(node.base, s.Name) and node.base.id in group:
        place = places[node.base.id]
        offset = offset_of(node.items[place])
        items = tuple(
            drop_index(item, group, places, index)
            for i, item in enumerate(node.items)
            if i != place
        )
        name = previous_name(node.base.id, index) if offset else node.base.id
        base = s.Name(name, node.base.span)
        return replace(node, base=base, items=items) if items else base
    changes = {
        key: drop_index(value, group, places, index)
        for key, value in vars(node).items()
        if key != "span" and (isinstance(value, tuple) or hasattr(value, "span"))
    }
    return replace(node, **changes)


def previous_name(name: str, index: str) -> str:
    """The carried value's own name; loops inside loops carry the same name by another index."""
    return f"{name}@{index}"
