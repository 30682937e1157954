"""Where an expression stands: its scope, graph, weight path and bound indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .builder import GraphBuilder, Path
from .values import Axis, Tensor

if TYPE_CHECKING:
    from .elaborator import Elaborator
    from .scope import Scope


@dataclass(frozen=True)
class Env:
    """Everything an expression can see.

    ``bound`` maps index names and definition parameters to values; it is looked up before the
    scope. ``input`` is what ``_`` stands for. ``guard`` is the condition under which the
    expression counts (indices may be out of range where it is false).
    """

    elab: Elaborator
    scope: Scope
    builder: GraphBuilder
    path: Path = field(default_factory=Path)
    bound: Mapping[str, Any] = field(default_factory=dict)
    input: Any = None
    guard: Tensor | None = None
    latent: dict[tuple[str, Any], Axis] | None = None
    depth: int = 0

    def bind(self, names: Mapping[str, Any]) -> Env:
        """With more names bound."""
        return replace(self, bound={**self.bound, **names})

    def at(self, path: Path) -> Env:
        """With another weight path."""
        return replace(self, path=path)

    def inside(self, builder: GraphBuilder) -> Env:
        """Building into another graph."""
        return replace(self, builder=builder)
