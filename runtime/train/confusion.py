"""Which classes are taken for which: counts over a validation, and what follows from them."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..faults import RuntimeFault, unreadable
from ..files import replaced

FILE = "confusion.csv"


class Confusion:
    """Counts ``[true class, predicted class]`` int64 of classes with names."""

    def __init__(self, classes: Sequence[str], counts: np.ndarray | None = None) -> None:
        self.classes = tuple(classes)
        size = len(self.classes)
        self.counts = np.zeros((size, size), np.int64) if counts is None else counts

    def add(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """Count a batch.

        ``scores`` are ``[N, classes, ...]``, the largest being the prediction; ``labels`` are
        ``[N, ...]`` class numbers (those that are no class do not count) or shares of the classes
        in the shape of ``scores``.
        """
        true = labels.argmax(1) if labels.dtype.kind == "f" else labels
        predicted = scores.argmax(1)
        if true.shape != predicted.shape or scores.shape[1] != len(self.classes):
            message = f"labels {list(labels.shape)} and scores {list(scores.shape)}"
            raise RuntimeFault("E802", f"{message} do not fit {len(self.classes)} classes")
        size = len(self.classes)
        known = (true >= 0) & (true < size)
        places = true[known].astype(np.int64) * size + predicted[known]
        self.counts = self.counts + np.bincount(places, minlength=size * size).reshape(size, size)

    @property
    def accuracy(self) -> float:
        """The share of right predictions; NaN before anything is counted."""
        return _ratio(np.trace(self.counts), self.counts.sum()).item()

    @property
    def recall(self) -> np.ndarray:
        """By class, how much of it is found; NaN for a class that does not occur."""
        return _ratio(np.diag(self.counts), self.counts.sum(1))

    @property
    def precision(self) -> np.ndarray:
        """By class, how many of the predictions of it are right; NaN where it never is one."""
        return _ratio(np.diag(self.counts), self.counts.sum(0))

    def worst(self, count: int = 5) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: (true class, predicted class, how often)."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = (np.unravel_index(place, wrong.shape) for place in order)
        return [(self.classes[t], self.classes[p], int(wrong[t, p])) for t, p in pairs
                if wrong[t, p]]  # fmt: skip

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``confusion.csv``, a row a true class; raises :class:`RuntimeFault` E806."""
        path = Path(folder) / FILE
        with replaced(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["true \\ predicted", *self.classes])
            for name, row in zip(self.classes, self.counts.tolist(), strict=True):
                writer.writerow([name, *row])
        return path


def read_confusion(path: str | os.PathLike[str]) -> Confusion:
    """What :meth:`Confusion.save` wrote; raises :class:`RuntimeFault` E803."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows[1:]], np.int64)
        counts = counts.reshape(len(counts), len(counts))
        if not rows or [row[0] for row in rows[1:]] != rows[0][1:]:
            raise ValueError("it is not a square table of counts")
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from error
    return Confusion(rows[0][1:], counts)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.divide(part, whole)
