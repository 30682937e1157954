"""The lint of the house: imports go down the table of rooms, and sizes are watched.

It runs as a test and from ``make lint`` (``python tests/test_rooms.py``), which also prints the
files and functions that are longer than they should be.
"""

from __future__ import annotations

import ast
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = (
    *("compiled", "decide", "derivatives", "estimators", "execution", "feeding", "fitting"),
    *("given_weights", "inference", "learning", "program", "proof", "specs", "steps"),
    *("training", "zoo"),
)
"""Modules at the root: the public face."""

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "cli": ("program", "bench", "view"),
    "bench": ("program", "export", "compiler", "runtime"),
    "program": ("view", "export", "spec", "compiler", "runtime"),
    "view": ("compiler",),
    "export": ("compiler",),
    "spec": ("compiler.ir", "compiler.ops", "runtime.disk_cache", "runtime.machine"),
    "compiler": ("runtime",),
    "runtime": (),
    "zoo_specs": (),
}
"""What each room may import besides itself, highest room first."""

LONGEST_FILE, LONGEST_FUNCTION = 600, 60


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package, by dotted name below ``tilth``."""
    folders = [ROOT / room for room in MAY_IMPORT if room != "program"]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    files += [ROOT / f"{name}.py" for name in PROGRAM] + [ROOT / "__init__.py"]
    for path in sorted(files):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def room_of(module: str) -> str:
    """The room of a module; the package's own front belongs to ``program``."""
    head = module.partition(".")[0]
    return "program" if head in (*PROGRAM, "") else head


def imports(module: str, path: Path) -> Iterator[tuple[int, str]]:
    """``(line, module of ours)`` for every import in a file, wherever it stands in it."""
    package = module.split(".") if module else []
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            start = ".".join(["tilth", *base, *([node.module] if node.module else [])])
            # `from . import program` names modules, `from .program import load` does not.
            found = [start] if node.module else [f"{start}.{alias.name}" for alias in node.names]
        else:
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in found:
            if name.split(".")[0] == "tilth":
                yield node.lineno, name.removeprefix("tilth").lstrip(".")


def import_faults() -> list[str]:
    """Imports that go up or sideways."""
    faults = []
    for module, path in modules():
        room = room_of(module)
        for line, target in imports(module, path):
            other = room_of(target)
            allowed = MAY_IMPORT[room]
            fits = any(target == a or target.startswith(a + ".") or other == a for a in allowed)
            if other != room and not fits:
                place = f"{path.relative_to(ROOT)}:{line}"
                faults.append(f"{place}: {room} must not import {target or 'tilth'}")
    return faults


def long_parts() -> list[str]:
    """Files and functions that are longer than they should be: questions, not faults."""
    found = []
    for _, path in modules():
        text = path.read_text(encoding="utf-8")
        shown = path.relative_to(ROOT)
        count = len(text.splitlines())
        if count > LONGEST_FILE:
            found.append(f"{shown}: {count} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    found.append(f"{shown}:{node.lineno}: {node.name} has {length} lines")
    return found


def test_every_room_is_known():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders <= MAY_IMPORT.keys()
    assert {path.stem for path in ROOT.glob("*.py")} == {*PROGRAM, "__init__"}


def test_imports_go_down_the_table():
    assert import_faults() == []


def test_the_lint_sees_an_import_that_goes_up(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from ..spec.source import Source\n    from .. import program\n")
    found = list(imports("runtime.x", path))
    assert found == [(2, "spec.source"), (3, "program")]
    assert room_of("specs") == "program"


def test_sizes_are_watched():
    for text in long_parts():
        warnings.warn(f"long: {text}", stacklevel=1)


def test_every_package_is_in_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    inside = [p.parent for room in MAY_IMPORT for p in (ROOT / room).rglob("__init__.py")]
    found = {"tilth", *("tilth." + ".".join(p.relative_to(ROOT).parts) for p in inside)}
    assert set(listed["tool"]["setuptools"]["packages"]) == found


if __name__ == "__main__":
    for text in long_parts():
        print(f"long: {text}")
    faults = import_faults()
    print("\n".join(faults) or "imports go down the table of rooms")
    sys.exit(1 if faults else 0)
