"""A syntax tree as plain dictionaries and lists, ready for ``json.dumps``."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from ..compiler.ir.types import Span


def syntax_json(node: Any) -> Any:
    """A node as ``{"node": KIND, "at": [line, column], ...its fields}``, its children likewise."""
    if isinstance(node, (tuple, list)):
        return [syntax_json(item) for item in node]
    if not is_dataclass(node) or isinstance(node, type):
        return node
    found: dict[str, Any] = {"node": type(node).__name__}
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, Span):
            found["at"] = [value.line, value.column]
        else:
            found[field.name] = syntax_json(value)
    return found
