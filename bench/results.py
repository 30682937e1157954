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

PACKAGES = ("tilth", "numba", "llvmlite", "numpy", "onnx", "onnxruntime", "openvino", "torch")

VECTORS = {"avx512": "avx512f", "avx2": "avx2", "avx": "avx", "sse4": "sse4_2", "neon": "asimd"}
"""Names of vector extensions by what processors call them, the widest first."""


def describe_machine() -> dict[str, Any]:
    """Processor, its vector extensions, cores, system and versions of all that was measured."""
    return {
        "cpu": machine.cpu_name(),
        "features": list(machine.cpu_features()),
        "cores": machine.cores(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def machine_folder(facts: dict[str, Any]) -> str:
    """The name of a machine's folder: its processor, its widest vectors, its cores."""
    cpu = re.sub(r"\((r|tm|c)\)", "", facts["cpu"].lower())
    vectors = [name for name in VECTORS if VECTORS[name] in facts["features"]][:1]
    words = [*re.findall("[a-z0-9]+", cpu), *vectors, str(facts["cores"]), "cores"]
    return "-".join(words)


def save_results(folder: Path, model: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Replace a model's rows of the same batch, threads and engine; keep its others.

    The file lies in the machine's own folder. Rows of other versions there go: a file tells of one
    state of one machine.
    """
    here = describe_machine()
    path = folder / machine_folder(here) / f"{model}.json"
    kept: list[dict[str, Any]] = []
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["machine"] == here:
            taken = {_key(row) for row in rows}
            kept = [row for row in before["rows"] if _key(row) not in taken]
    ordered = sorted([*kept, *rows], key=lambda row: (row["batch"], row["threads"]))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"model": model, "measured": now, "machine": here, "rows": ordered}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
    return path


# ---------------------------------------------------------------- helpers


def _key(row: dict[str, Any]) -> tuple[int, int, str]:
    return row["batch"], row["threads"], row["engine"]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
