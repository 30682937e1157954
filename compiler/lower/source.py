"""A plan as one readable Python file: the runnable module.

The file needs ``tilth.runtime`` and a weights file. Its load phase is plain numpy; below it stands
one row a kernel call, with named words.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from ...runtime.abi import LOOP_WORDS, Address
from ...runtime.module import KernelSpec, Port, Row
from ...runtime.weights import Piece
from .cpu import LoweredPlan

WIDTH = 98
"""Columns of a line, so that what closes a row still fits into a hundred."""

FORMAT = 1
"""Version of the file's layout; the runtime refuses others by message."""


def module_text(
    plan: LoweredPlan,
    title: str,
    weights: str | None = None,
    wanted: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    rules: Mapping[str, Sequence[Piece]] | None = None,
) -> str:
    """The text of the module; ``weights`` is the default weights file, relative to it.

    ``wanted`` are element types and shapes by weight path, ``rules`` how the formats of checkpoints
    name them: what a weights file is checked against when it is loaded.
    """
    shapes = ", ".join(f"{p.name}: {p.dtype}{list(p.shape)}" for p in plan.inputs)
    results = ", ".join(f"{p.name}: {p.dtype}{list(p.shape)}" for p in plan.outputs)
    called = ", ".join(f"{p.name}=..." for p in plan.inputs)
    parts = [
        *_filled(f'"""{_plain(title)}, compiled by Tilth.'.split(" ")),
        "",
        *_filled(f"Takes {shapes}".split(" ")),
        *_filled(f"Gives {results}".split(" ")),
        "",
        f"Run it with `python FILE --help`, or `import` it and call it: `FILE({called})`.",
        '"""',
        "",
        "import numpy as np",
        "",
        "from tilth.runtime import packing as pack",
        *_words_used(plan),
        *_imports(plan),
        *(["from tilth.runtime.weights import Piece"] if any((rules or {}).values()) else []),
        "",
        "",
        "def load(w):",
        '    """Once, when weights arrive: fold, transform and pack them."""',
        *[part for line in plan.load.lines for part in _broken(f"    {line}")],
        *([] if plan.load.lines else ["    yield from ()"]),
        "",
        "",
        *_tables(plan, wanted or {}, rules or {}),
        "plan = Plan(",
        f"    {plan.name!r},",
        *_broken(f"    inputs=({_ports(plan.inputs)}),"),
        *_broken(f"    outputs=({_ports(plan.outputs)}),"),
        "    rows=ROWS,",
        f"    arena_bytes={plan.arena_bytes},",
        f"    live_bytes={plan.live_bytes},",
        f"    scratch_bytes={plan.scratch_bytes},",
        "    load=load,",
        "    packed=PACKED,",
        f"    weight_bytes={plan.load.size},",
        "    wanted=WEIGHTS,",
        "    rules=RULES,",
        *([f"    team={plan.team},"] if plan.team else []),
        *([f"    cells={plan.cells},"] if plan.cells else []),
        *(_broken(f"    checks=({_checks(plan)}),") if plan.checks else []),
        ")",
        f"publish(__name__, plan, weights={weights!r}, format={FORMAT})",
    ]
    return "\n".join(parts) + "\n"


def _tables(
    plan: LoweredPlan,
    wanted: Mapping[str, tuple[str, tuple[int, ...]]],
    rules: Mapping[str, Sequence[Piece]],
) -> list[str]:
    """Weights as they come and as they are packed, and the rows."""
    return [
        "WEIGHTS = {",
        *[f"    {path!r}: {kind!r}," for path, kind in wanted.items()],
        "}",
        "",
        "RULES = {",
        *[
            line
            for name, pieces in rules.items()
            for line in _broken(f"    {name!r}: {list(pieces)!r},")
        ],
        "}",
        "",
        "PACKED = {",
        *[f"    {name!r}: {offset}," for name, offset in plan.load.packed.items()],
        "}",
        "",
        "ROWS = (",
        *[_row(row) for row in plan.rows],
        ")",
        "",
    ]


def _words_used(plan: LoweredPlan) -> list[str]:
    """The import of what rows are written with."""
    names = ["Plan", "Port", "arena", "io", "packed", "publish", "row", "scratch"]
    names += ["Check", "cells"] if plan.cells else []
    names += ["loop", "word"] if any(row.kernel is None for row in plan.rows) else []
    listed = ", ".join(sorted(names, key=lambda name: (name[0].islower(), name)))
    line = f"from tilth.runtime.compiled import {listed}"
    if len(line) <= 100:
        return [line]
    return ["from tilth.runtime.compiled import (", f"    {listed},", ")"]


def _plain(text: str) -> str:
    return text.replace("\\", " ").replace('"""', "'''")


def _ports(ports: tuple[Port, ...]) -> str:
    return " ".join(f"Port({p.name!r}, {p.dtype!r}, {tuple(p.shape)!r})," for p in ports)


def _checks(plan: LoweredPlan) -> str:
    return " ".join(f"Check({c.cell}, {c.code!r}, {c.message!r}, {c.hint!r})," for c in plan.checks)


def _row(row: Row) -> str:
    if row.kernel is None:
        named = zip(LOOP_WORDS, row.step.words, strict=True)
        listed = ", ".join(f"{name}={_word(word)}" for name, word in named)
        return "\n".join(_broken(f"    loop({listed}),"))
    names = words_of(row.kernel)
    if names is None:
        words = [_word(word) for word in row.step.words]
        words = f"words=[{', '.join(words)}]".split(", ")
    else:
        words = [
            f"{name}={_word(word)}"
            for name, word in zip(names, row.step.words, strict=True)
            if isinstance(word, Address) or word != 0
        ]
    called = _broken(f"    row({row.kernel!r}, {row.step.tasks}, {row.step.label!r},")
    given = [f"{word}," for word in words[:-1]] + words[-1:]
    return "\n".join([*called, *_filled(["        " + given[0], *given[1:]], "        ")]) + "),"


def _broken(text: str, indent: str = "        ") -> list[str]:
    """One line of code as several, broken after commas in brackets that are in no string."""
    words, start, depth, quote = [], 0, 0, ""
    for place, letter in enumerate(text):
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
            if depth and text[place : place + 2] == ", ":
                words.append(text[start : place + 1])
                start = place + 2
    return _filled([*words, text[start:]], indent)


def _filled(words: Sequence[str], indent: str = "") -> list[str]:
    """Lines of words, as long as may be; all but the first are indented."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word)
    return lines


def words_of(kernel: KernelSpec) -> Sequence[str] | None:
    """Names of a kernel's words, in order; ``None`` for kernels whose rows differ in length."""
    module = importlib.import_module(type(kernel).__module__)
    return getattr(module, "ROWS", {}).get(type(kernel).__name__, getattr(module, "WORDS", None))


def _imports(plan: LoweredPlan) -> list[str]:
    """One line for each module of the classes that rows' kernels are written with."""
    found: set[type] = set()
    for row in plan.rows:
        if row.kernel is not None:
            _classes(row.kernel, found)
    names: dict[str, list[str]] = {}
    for kind in sorted(found, key=lambda k: (k.__module__, k.__name__)):
        names.setdefault(kind.__module__, []).append(kind.__name__)
    return [f"from {module} import {', '.join(listed)}" for module, listed in names.items()]


def _classes(value: Any, found: set[type]) -> None:
    if isinstance(value, tuple):
        for item in value:
            _classes(item, found)
    elif is_dataclass(value):
        found.add(type(value))
        for spec in fields(value):
            _classes(getattr(value, spec.name), found)


def _word(word: int | Address) -> str:
    if not isinstance(word, Address):
        return str(word)
    if word.space == "io":
        return f"io({word.index}, {word.offset})" if word.offset else f"io({word.index})"
    if word.space == "rows":
        return f"word({word.index}, {word.offset})"
    if word.space == "weights":
        return f"packed({word.offset})"
    return f"{word.space}({word.offset})"
