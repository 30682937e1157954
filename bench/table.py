"""Saved results as one Markdown table: ours and each peer, by model, batch and threads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .engines import OWN, PEERS

COLUMNS = ("model", "batch", "threads", "ours, ms", *PEERS, "faster than the best (quartiles)",
           "of peak", "MB (bound)", "cold s", "warm s")  # fmt: skip


def write_table(folder: Path) -> Path:
    """Write ``table.md`` beside the results; its path."""
    path = folder / "table.md"
    path.write_text(markdown(folder), encoding="utf-8")
    return path


def markdown(folder: Path) -> str:
    """The table of a machine's results, a part for each state that they were measured in."""
    machines: dict[str, list[list[str]]] = {}
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        machines.setdefault(_machine(data["machine"]), []).extend(_lines(data["rows"]))
    parts = ["Medians in milliseconds; written by `tilth bench --save`."]
    for machine, lines in machines.items():
        parts += ["", machine, "", *_table([list(COLUMNS), *lines])]
    return "\n".join(parts) + "\n"


def _lines(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    groups: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = row["model"], row["batch"], row["threads"]
        groups.setdefault(key, {})[row["engine"]] = row
    return [_line(key, engines) for key, engines in sorted(groups.items()) if OWN[0] in engines]


def _line(key: tuple[Any, ...], engines: dict[str, dict[str, Any]]) -> list[str]:
    own = engines[OWN[0]]
    ratio, ends = own["ratio_to_best_peer"], own.get("ratio_quartiles")
    spread = "" if ends is None else f" ({ends[0]:.2f}..{ends[1]:.2f})"
    bound = own.get("memory_bound_mb")
    return [
        *map(str, key),
        _number(own["median_ms"], ".1f"),
        *(_number(engines.get(peer, {}).get("median_ms"), ".1f") for peer in PEERS),
        _number(ratio, ".2f") + spread,
        _number(own.get("peak_share"), ".0%"),
        _number(own["peak_mb"], ".0f") + ("" if bound is None else f" ({bound:.0f})"),
        _number(own["cold_s"], ".1f"),
        _number(own["warm_s"], ".2f"),
    ]


def _machine(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {v}" for name, v in facts.get("versions", {}).items() if v)
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}; {versions}"


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return [rows[0], "|" + " --- |" * len(lines[0]), *rows[1:]]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
