"""``tilth doctor``: what this machine and this installation have."""

from __future__ import annotations

import platform
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from importlib import metadata

from ..program import machine
from .console import columns, say, say_json

GIB = 2**30


@dataclass(frozen=True)
class Line:
    """One finding; ``state`` is ``ok``, ``note`` or ``bad``."""

    what: str
    state: str
    text: str


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print an object")


def run(args: Namespace) -> int:
    """Print the findings; 1 when something that Tilth needs is missing."""
    found = findings()
    if args.json:
        say_json({x.what: {"state": x.state, "text": x.text} for x in found})
    else:
        for line in columns([(x.state, x.what, x.text) for x in found], ""):
            say(line)
    return 1 if any(x.state == "bad" for x in found) else 0


def findings() -> list[Line]:
    """Every finding, in the order of printing."""
    return [
        Line("tilth", "ok", metadata.version("tilth")),
        Line("python", "ok", _python()),
        *(_package(name, version) for name, version in machine.versions().items()),
        Line("cpu", "ok", f"{machine.cpu_name()}, {machine.cores()} cores"),
        _features(),
        _memory(),
        _cache(),
        _cuda(),
    ]


def _python() -> str:
    return f"{platform.python_version()} ({platform.system()} {platform.machine()})"


def _package(name: str, version: str | None) -> Line:
    if version is None:
        return Line(name, "bad", f"not installed; `pip install {name}`")
    return Line(name, "ok", version)


def _features() -> Line:
    features = machine.cpu_features()
    text = " ".join(features)
    return Line("vectors", "ok", text) if text else Line("vectors", "note", "not known here")


def _memory() -> Line:
    left = machine.available_memory()
    if left is None:
        return Line("memory", "note", "not known here")
    return Line("memory", "ok" if left > GIB else "note", f"{left / GIB:.1f} GiB free")


def _cache() -> Line:
    folder = machine.cache_folder()
    if machine.is_writable(folder):
        return Line("cache", "ok", f"{folder} can be written")
    return Line("cache", "note", f"{folder} cannot be written; set TILTH_CACHE to another folder")


def _cuda() -> Line:
    driver = machine.cuda_driver()
    if driver is None:
        return Line("cuda", "note", "no driver found; nothing needs one")
    return Line("cuda", "ok", f"driver found ({driver})")
