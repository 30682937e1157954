"""Tilth: write a model the way the paper prints it; get fast code that you can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compiled import CompiledProgram
    from .compiled import compile_program as compile
    from .program import Program, Report, SpecError, load

    __version__: str

__all__ = [
    "CompiledProgram",
    "Program",
    "Report",
    "SpecError",
    "__version__",
    "compile",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import on first use: ``import tilth`` itself costs nothing."""
    if name == "__version__":
        from importlib.metadata import version

        return version("tilth")
    if name in ("compile", "CompiledProgram"):
        from . import compiled

        return compiled.compile_program if name == "compile" else compiled.CompiledProgram
    if name in __all__:
        from . import program

        return getattr(program, name)
    raise AttributeError(f"module 'tilth' has no attribute {name!r}")
