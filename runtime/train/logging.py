"""What a run writes down as it goes: ``metrics.csv`` and TensorBoard's event files.

Both take up again after an interruption at the step from which training goes on: rows of steps that
will be repeated are taken out, and TensorBoard is told to forget them.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO

from ..faults import RuntimeFault, unreadable, unwritable
from ..files import replaced
from .events import EventWriter

METRICS = "metrics.csv"
FIXED = ("step", "epoch", "part", "seconds")
"""The first columns: updates made, epochs made (a fraction within one), ``train`` or the name of
the data that was validated on, and seconds since the start of the run."""


class MetricsLog:
    """Numbers by step, to ``metrics.csv`` and to an event file in the same folder.

    Parameters
    ----------
    folder
        The run's folder; it is made when it is not there.
    names
        The first metrics' names, one column each; others get theirs when they come.
    resume_step
        The step from which training goes on; ``None`` starts the files anew.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        names: Sequence[str] = (),
        resume_step: int | None = None,
    ) -> None:
        self.path = Path(folder) / METRICS
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        kept = read_metrics(self.path) if resume_step is not None and self.path.exists() else []
        kept = [row for row in kept if int(row["step"]) <= (resume_step or 0)]
        self._table(kept, [*names, *(name for row in kept for name in row)])
        self._events = EventWriter(folder, resume_step)
        before = float(kept[-1].get("seconds", 0)) if kept else 0.0
        self._start = time.monotonic() - before

    def write(self, step: int, epoch: float, part: str, values: Mapping[str, float]) -> None:
        """One row, and one point a value in TensorBoard (as ``train/loss``).

        Raises :class:`RuntimeFault` E806.
        """
        seconds = time.monotonic() - self._start
        row = {"step": step, "epoch": f"{epoch:.6g}", "part": part, "seconds": f"{seconds:.3f}"}
        row |= {name: _text(value) for name, value in values.items()}
        if not row.keys() <= set(self.columns):
            self._stream.close()
            self._table(read_metrics(self.path), [*self.columns, *row])
        try:
            self._rows.writerow(row)
            self._stream.flush()
            self._events.scalars(step, {f"{part}/{name}": v for name, v in values.items()})
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _table(self, rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> None:
        """Write the table anew with these columns after the fixed ones, and open its end."""
        self.columns = tuple(dict.fromkeys([*FIXED, *names]))
        with replaced(self.path) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self._stream: IO[str] = self.path.open("a", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._stream, self.columns, lineterminator="\n")

    def close(self) -> None:
        """Close both files; raises :class:`RuntimeFault` E806 for what cannot be written still."""
        try:
            try:
                self._stream.close()
            finally:
                self._events.close()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # What failed inside is told, not that the same write fails once more.
        with nullcontext() if kind is None else suppress(RuntimeFault):
            self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv``, empty cells left out.

    A last line that was cut off (the process was killed while it wrote) is left out as well.
    Raises :class:`RuntimeFault` E803.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(whole.splitlines())
    rows = [{key: value for key, value in row.items() if key and value} for row in reader]
    if any(not row.get("step", "").isdigit() for row in rows):
        raise RuntimeFault("E803", f"cannot read `{path}`: it is not a run's table of metrics")
    return rows


def _text(value: float) -> str:
    """The shortest text that reads back as the same number."""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
