"""The specs that come with Tilth, by name: an index made by a quick look at each file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

FOLDER = Path(__file__).with_name("zoo_specs")


@dataclass(frozen=True)
class Entry:
    """One spec of the zoo: its file and what its head says."""

    name: str
    path: Path
    title: str = ""
    source: str = ""
    implements: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The folder that the spec stands in."""
        return self.path.parent.name

    def as_json(self) -> dict[str, object]:
        """A plain dictionary."""
        return {
            "name": self.name,
            "family": self.family,
            "title": self.title,
            "source": self.source,
            "implements": list(self.implements),
            "variants": list(self.variants),
            "path": str(self.path),
        }


@cache
def entries(folder: Path = FOLDER) -> tuple[Entry, ...]:
    """Every spec of the zoo, by family and name."""
    return tuple(sorted(map(_entry, _files(folder)), key=lambda e: (e.family, e.name)))


def find(name: str, folder: Path = FOLDER) -> tuple[Entry, str | None] | None:
    """The spec of that name, or the spec and the variant of that name."""
    # Reading all heads takes a while, and only files that mention the name can be meant.
    likely = [path for path in _files(folder) if name == path.stem or name in _text(path)]
    known = [_entry(path) for path in likely]
    for entry in known:
        if entry.name == name:
            return entry, None
    for entry in known:
        if name in entry.variants:
            return entry, name
    return None


def names(folder: Path = FOLDER) -> list[str]:
    """Every name that :func:`find` knows."""
    known = entries(folder)
    return sorted({e.name for e in known} | {v for e in known for v in e.variants})


# ---------------------------------------------------------------- helpers


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.yaml"))


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


_HEAD = ("name", "title", "source", "implements", "variants")


def _entry(path: Path) -> Entry:
    """The head of a file; a file that YAML cannot read is known by its own name.

    What is wrong with such a file is said when it is loaded, not when another one is.
    """
    sections = _sections(_text(path))
    try:
        head = yaml.load("".join(sections), Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        head = None
    if not isinstance(head, dict):
        return Entry(path.stem, path)
    name, title, source = (str(head.get(key) or "") for key in _HEAD[:3])
    implements, variants = (_strings(head.get(key)) for key in _HEAD[3:])
    return Entry(name or path.stem, path, title, source, implements, variants)


def _sections(text: str) -> list[str]:
    """The texts of the top-level keys that the index shows."""
    parts = re.split(r"(?m)^(?=[A-Za-z_]+:)", text)
    return [part for part in parts if part.partition(":")[0] in _HEAD]


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, Iterable) else ()
