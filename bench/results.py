"""Results on disk: the last rows of each model with the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ..runtime import machine
from .kind import Kind, Measured

COMMON = ("tilth", "numba", "llvmlite", "numpy")
"""Packages that all measurements depend on."""

VECTORS = {"avx512": "avx512f", "avx2": "avx2", "avx": "avx", "sse4": "sse4_2", "neon": "asimd"}
"""Names of vector extensions by what processors call them, the widest first."""


def describe_machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Processor, its vector extensions, cores, system and versions of ours and of ``packages``."""
    return {
        "cpu": machine.cpu_name(),
        "features": list(machine.cpu_features()),
        "cores": machine.cores(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in (*COMMON, *packages)},
    }


def machine_folder(facts: dict[str, Any]) -> str:
    """The name of a machine's folder: its processor, its widest vectors, its cores."""
    cpu = re.sub(r"\((r|tm|c)\)", "", facts["cpu"].lower())
    vectors = [name for name in VECTORS if VECTORS[name] in facts["features"]][:1]
    words = [*re.findall("[a-z0-9]+", cpu), *vectors, str(facts["cores"]), "cores"]
    return "-".join(words)


def save_results(folder: Path, kind: Kind, rows: Sequence[Measured]) -> Path:
    """Replace a model's rows that are alike in the columns of the kind's key; keep its others.

    The file lies in the machine's own folder, in that of the kind. Rows of other versions there go:
    a file tells of one state of one machine.
    """
    here = describe_machine(kind.packages)
    name = kind.named(rows[0])
    path = folder / machine_folder(here) / kind.name / f"{name}.json"
    records = [row.as_record() for row in rows]
    kept: list[dict[str, Any]] = []
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["machine"] == here:
            taken = {_key(kind, row) for row in records}
            kept = [row for row in before["rows"] if _key(kind, row) not in taken]
    # A stable order by sizes; what differs in names alone stays as it was measured.
    ordered = sorted([*kept, *records], key=lambda row: _numbers(kind, row))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"model": name, "measured": now, "machine": here, "rows": ordered}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
    return path


# ---------------------------------------------------------------- helpers


def _key(kind: Kind, row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(column) for column in kind.key)


def _numbers(kind: Kind, row: dict[str, Any]) -> tuple[float, ...]:
    return tuple(v for v in _key(kind, row) if isinstance(v, (int, float)))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
