"""The learning-rate range test: the loss while the rate grows, and which rates follow from it.

Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..faults import RuntimeFault, unreadable
from ..files import replaced

FILE = "range_test.csv"
COLUMNS = ["lr", "loss", "smoothed"]

SMOOTHING = 0.9
"""Weight of what came before in the smoothed loss."""

DIVERGED = 4.0
"""The test ends where the smoothed loss is this many times its least."""

FEWEST = 10
"""Steps that a test must have made before anything follows from it."""


@dataclass(frozen=True)
class RangeTest:
    """Rates and losses ``f64[steps]`` of the steps that were made, in their order.

    ``diverged`` says that the test ended because the loss rose or left the finite numbers.
    """

    rates: np.ndarray
    losses: np.ndarray
    diverged: bool = False

    @property
    def smoothed(self) -> np.ndarray:
        """The losses, each mixed with what came before; free of bias at the start."""
        found, average = np.zeros(len(self.losses)), 0.0
        for step, loss in enumerate(self.losses):
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            found[step] = average / (1 - SMOOTHING ** (step + 1))
        return found

    @property
    def largest(self) -> float:
        """The rate at which the smoothed loss is least: the most that may be of use."""
        return float(self.rates[np.argmin(self.smoothed)])

    @property
    def steepest(self) -> float:
        """The rate below ``largest`` at which the loss falls fastest, by the rate's logarithm."""
        end = max(int(np.argmin(self.smoothed)) + 1, 2)
        slope = np.gradient(self.smoothed[:end], np.log(self.rates[:end]))
        return float(self.rates[np.argmin(slope)])

    @property
    def suggested(self) -> float:
        """A tenth of ``largest``: a constant rate, or the maximum of a cautious cycle."""
        return self.largest / 10

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``range_test.csv``, a row a step; raises :class:`RuntimeFault` E806."""
        path = Path(folder) / FILE
        rows = zip(self.rates.tolist(), self.losses.tolist(), self.smoothed.tolist(), strict=True)
        with replaced(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        return path


def is_over(losses: list[float]) -> bool:
    """Whether a test that has seen these losses need not go on."""
    if len(losses) < FEWEST:
        return False
    smoothed = RangeTest(np.ones(len(losses)), np.array(losses)).smoothed
    return bool(smoothed[-1] > DIVERGED * smoothed.min())


def read_range_test(path: str | os.PathLike[str]) -> RangeTest:
    """What :meth:`RangeTest.save` wrote; raises :class:`RuntimeFault` E803."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            head, *rows = list(csv.reader(stream))
        if head != COLUMNS or not rows:
            raise ValueError("it is not the table of a range test")
        table = np.array([[float(cell) for cell in row[:2]] for row in rows])
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from error
    return RangeTest(table[:, 0], table[:, 1])


def require_steps(test: RangeTest) -> RangeTest:
    """The test; raises E810 where it ended before anything can be said."""
    if len(test.rates) < FEWEST:
        message = f"the loss diverged after {len(test.rates)} steps, at a rate of "
        message += f"{test.rates[-1]:.3g}" if len(test.rates) else "the smallest rate"
        raise RuntimeFault("E810", message, "start lower: `--range-test 1e-8:1`")
    return test
