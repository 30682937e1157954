"""CSV and TSV files: a column is a field; columns of words become classes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..faults import RuntimeFault, unreadable
from .dataset import ArrayDataset, Dataset

if TYPE_CHECKING:
    from .sources import Source


def read_csv(source: Source, path: Path) -> Mapping[str, Dataset]:
    """The rows as examples.

    Fields are called as the header says, or by their number from 0 without one. A column of numbers
    is float32, of whole numbers int64; one of words holds classes, in alphabetical order. A cell
    that is empty, or a word among numbers, is a fault that is told with its line.
    """
    names, rows, lines = _rows(source, path)
    arrays: dict[str, np.ndarray] = {}
    classes: dict[str, list[str]] = {}
    for place, name in enumerate(names):
        cells = [row[place].strip() for row in rows]
        numbers = [_number(cell) for cell in cells]
        if all(number is None for number in numbers) and all(cells):
            classes[name] = sorted(set(cells))
            arrays[name] = np.searchsorted(classes[name], cells)
            continue
        for line, cell, number in zip(lines, cells, numbers, strict=True):
            if number is None:
                found = f"`{cell}` is not a number" if cell else "the cell is empty"
                raise RuntimeFault("E807", f"{path}:{line}: column `{name}`: {found}")
        arrays[name] = _column(cells, numbers)
    return {"all": ArrayDataset(arrays, classes, None, source.name)}


def _rows(source: Source, path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Names of columns, rows of as many cells, and the line on which each row ends."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else source.delimiter
    if len(delimiter) != 1:
        raise RuntimeFault("E807", f"the delimiter of {source.name} must be one character")
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter=delimiter)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from error
    if not rows:
        raise RuntimeFault("E807", f"{source.name} has no rows")
    names = (
        [name.strip() for name in rows[0]] if source.header else [*map(str, range(len(rows[0])))]
    )
    if source.header:
        del rows[0], lines[0]
        _require_names(names, source)
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            message = f"{path}:{line}: there are {len(row)} cells, and {len(names)} columns"
            raise RuntimeFault("E807", message)
    if not rows:
        raise RuntimeFault("E807", f"{source.name} has no examples, only a header",
                           "`header: false` if the first line is one")  # fmt: skip
    return names, rows, lines


def _require_names(names: Sequence[str], source: Source) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = f"two columns of {source.name} are called `{twice}`"
        raise RuntimeFault("E807", message, "`header: false` if the first line is an example")


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _column(cells: Sequence[str], numbers: Sequence[float | None]) -> np.ndarray:
    try:
        return np.array([int(cell) for cell in cells], np.int64)
    except (ValueError, OverflowError):
        return np.array(numbers, np.float32)
