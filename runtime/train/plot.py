"""Drawings of runs: a panel for each metric, and the confusion matrix; PNG or SVG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..faults import RuntimeFault
from ..files import replaced
from .confusion import FILE, Confusion, read_confusion
from .logging import FIXED, METRICS, read_metrics
from .range_test import FILE as RANGE_TEST
from .range_test import RangeTest, read_range_test

FORMATS = ("png", "svg")
NAMED = 30
"""The most classes whose counts are written into the matrix."""

Curves = dict[str, dict[str, tuple[list[float], list[float]]]]
"""Places and values by metric, then by part (``train``, ``validate``)."""


def plot_runs(
    runs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Draw the metrics of runs over epochs; of a single run also its confusions and range test.

    Parameters
    ----------
    runs
        Folders of runs; several are drawn into the same panels.
    output
        A ``.png`` or ``.svg`` file for the curves. Without it ``curves``, ``confusion`` and
        ``range_test`` are written to the (first) run's folder in each of ``formats``.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    RuntimeFault
        E803 for a run that cannot be read, E804 without matplotlib, E806 for a file that cannot be
        written.
    """
    places = [Path(run) for run in runs]
    tested = places[0] / RANGE_TEST
    if len(places) == 1 and tested.exists() and not (places[0] / METRICS).exists():
        return _save_in(_draw_range_test(read_range_test(tested)), tested, output, formats)
    rows = {place.name: _rows(place / METRICS) for place in places}
    by_epoch = all(row["epoch"] > 0 for found in rows.values() for row in found[-1:])
    axis = "epoch" if by_epoch else "step"
    drawn = _draw_curves({run: _curves(found, axis) for run, found in rows.items()}, axis)
    if output is not None:
        return [_save(drawn, Path(output))]
    written = _save_in(drawn, places[0] / "curves", None, formats)
    matrix = places[0] / FILE
    if len(places) == 1 and matrix.exists():
        written += _save_in(_draw_confusion(read_confusion(matrix)), matrix, None, formats)
    if len(places) == 1 and tested.exists():
        written += _save_in(_draw_range_test(read_range_test(tested)), tested, None, formats)
    return written


def _save_in(
    figure: Any, path: Path, output: str | os.PathLike[str] | None, formats: Sequence[str]
) -> list[Path]:
    """Save to the one file that was asked for, or beside ``path`` in each format."""
    if output is not None:
        return [_save(figure, Path(output))]
    return [_save(figure, path.with_suffix(f".{kind}")) for kind in formats]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The table with its cells as numbers, but for the part."""
    rows = read_metrics(path)
    if not rows:
        raise RuntimeFault("E803", f"`{path}` has no rows yet", "train for a step at least")
    try:
        return [
            {name: cell if name == "part" else float(cell) for name, cell in row.items()}
            for row in rows
            if row["part"] and row["epoch"]
        ]
    except (KeyError, ValueError) as error:
        message = f"cannot read `{path}`: it is not a run's table of metrics"
        raise RuntimeFault("E803", message) from error


def _curves(rows: list[dict[str, Any]], axis: str) -> Curves:
    found: Curves = {}
    for row in rows:
        for name in row.keys() - set(FIXED):
            places, values = found.setdefault(name, {}).setdefault(row["part"], ([], []))
            places.append(row[axis])
            values.append(row[name])
    return found


def _draw_curves(runs: dict[str, Curves], axis: str) -> Any:
    names = sorted({name for curves in runs.values() for name in curves}, key=_rank)
    columns = min(len(names), 2)
    height = -(-len(names) // columns)
    figure = _figure(6.0 * columns, 3.6 * height)
    colours = {run: f"C{number}" for number, run in enumerate(runs)}
    for number, name in enumerate(names):
        axes = figure.add_subplot(height, columns, number + 1)
        drawn: list[float] = []
        for run, curves in runs.items():
            for order, (part, (places, values)) in enumerate(curves.get(name, {}).items()):
                label = part if len(runs) == 1 else f"{run} {part}"
                colour = f"C{order}" if len(runs) == 1 else colours[run]
                style = "-" if part == "train" else "--"
                mark = "." if len(places) < 3 else ""
                axes.plot(places, values, style + mark, color=colour, label=label, linewidth=1.2)
                drawn += values
        if "loss" in name and _needs_log(drawn):
            axes.set_yscale("log")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel(axis, fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _draw_confusion(confusion: Confusion) -> Any:
    size = len(confusion.classes)
    side = max(4.0, min(12.0, 0.45 * size + 1.5))
    figure = _figure(side, side)
    axes = figure.add_subplot(1, 1, 1)
    totals = confusion.counts.sum(1, keepdims=True)
    shares = confusion.counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"accuracy {confusion.accuracy:.4f}", fontsize=10)
    if size <= NAMED:
        axes.set_xticks(range(size), confusion.classes, rotation=90, fontsize=8)
        axes.set_yticks(range(size), confusion.classes, fontsize=8)
        for true, predicted in np.argwhere(confusion.counts):
            colour = "white" if shares[true, predicted] > 0.5 else "black"
            count = str(confusion.counts[true, predicted])
            axes.text(predicted, true, count, ha="center", va="center", color=colour, fontsize=7)
    return figure


def _draw_range_test(test: RangeTest) -> Any:
    figure = _figure(6.0, 3.8)
    axes = figure.add_subplot(1, 1, 1)
    axes.plot(test.rates, test.losses, ".", color="0.7", markersize=4, label="loss")
    axes.plot(test.rates, test.smoothed, color="C0", linewidth=1.4, label="smoothed")
    marks = (("least", test.largest, "C3"), ("steepest", test.steepest, "C1"))
    for name, rate, colour in marks:
        axes.axvline(rate, color=colour, linewidth=1, linestyle="--", label=f"{name}: {rate:.2g}")
    axes.set_xscale("log")
    # The end shoots up; what matters lies below.
    least, first = test.smoothed.min(), test.smoothed[0]
    axes.set_ylim(min(least, 0), max(first, least) * 1.5)
    axes.set_title("learning-rate range test", fontsize=10)
    axes.set_xlabel("learning rate", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _rank(name: str) -> tuple[bool, bool, str]:
    """Losses first, the learning rate last."""
    return name == "lr", "loss" not in name, name


def _needs_log(values: list[float]) -> bool:
    """Whether values range over more than two powers of ten."""
    finite = [value for value in values if np.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > 100 * min(finite)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "drawing a run needs matplotlib, which is not installed"
        raise RuntimeFault("E804", message, "pip install 'tilth[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> Path:
    import matplotlib

    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        message = f"cannot write `{path}`: a drawing is a .png or an .svg file"
        raise RuntimeFault("E806", message)
    # The same run gives the same file: no dates, and names of parts from a fixed salt.
    settings: dict[Any, Any] = {"svg.hashsalt": "tilth", "svg.fonttype": "none"}
    fixed = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(settings), replaced(path) as part:
        figure.savefig(part, format=kind, dpi=120, metadata=fixed)
    return path
