"""Spec files: found by path or by name, read, parsed."""

from __future__ import annotations

import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from . import zoo
from .spec import syntax as s
from .spec.diagnostics import Diagnostic, Reporter, SpecError
from .spec.envelope import Envelope, load_envelope, read_envelope
from .spec.parser import parse_model
from .spec.source import decode, read_text
from .spec.syntax_json import syntax_json


def find_spec(spec: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The file that a path or a name means, and the variant that the name stands for, if any."""
    path, name = Path(spec), os.fspath(spec)
    if path.is_file() or path.suffix in (".yaml", ".yml") or os.sep in name:
        return path, None
    found = zoo.find(name)
    if found is None:
        close = get_close_matches(name, zoo.names(), 3)
        hint = "`tilth zoo list` shows the names; a file's name ends in .yaml"
        if close:
            hint = "did you mean " + " or ".join(f"`{n}`" for n in close) + "?"
        message = f"no spec or variant is called `{name}`, and it is not a file"
        raise SpecError([Diagnostic("E001", message, hint=hint)], {})
    entry, variant = found
    return entry.path, variant


def read_spec(spec: str | os.PathLike[str]) -> tuple[str, str]:
    """The text of a spec file, and the name that messages give the file."""
    path, _ = find_spec(spec)
    reporter = Reporter()
    text = read_text(path, reporter, short_path(path))
    reporter.raise_if_failed()
    return text or "", short_path(path)


def decode_spec(data: bytes, file: str) -> str:
    """The text of a spec's bytes."""
    reporter = Reporter()
    text = decode(data, file, reporter)
    reporter.raise_if_failed()
    return text or ""


def spec_syntax(spec: str | os.PathLike[str]) -> list[Any]:
    """The syntax tree of a spec's model block as plain data; nothing is elaborated."""
    text, file = read_spec(spec)
    reporter = Reporter()
    envelope = read_envelope(text, file, reporter)
    statements = () if envelope is None else statements_of(envelope, reporter)
    reporter.raise_if_failed()
    return syntax_json(statements)


def statements_of(envelope: Envelope, reporter: Reporter) -> tuple[s.Statement, ...]:
    """The statements of a spec's model block."""
    span, document = envelope.model.span, envelope.document
    return parse_model(document.text, span.start, span.end, document.file, reporter)


def resolver(reporter: Reporter) -> Callable[[str], Any]:
    """How ``use:`` finds another spec: by its name in the zoo, as its envelope and a variant."""

    def find(name: str) -> tuple[Envelope, str | None] | None:
        found = zoo.find(name)
        if found is None:
            return None
        entry, variant = found
        envelope = load_envelope(entry.path, reporter, short_path(entry.path))
        return None if envelope is None else (envelope, variant)

    return find


def short_path(path: Path) -> str:
    """The path as messages show it: relative when it lies below the working folder."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
