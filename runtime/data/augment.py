"""Changes to examples: what is drawn for one depends on (seed, epoch, example, place in the chain).

A chain acts on one field: the picture, or else the only field of floats with an axis. What is
random is left out when a set is only evaluated: crops are then central, and nothing is turned,
mixed or covered. What is fitted (means, principal axes) is fitted to the training set, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..faults import RuntimeFault
from .changes import CHANGES, Draws, Fitted
from .dataset import Dataset, Field
from .loader import Batch

FITTED_EXAMPLES = 20_000
"""How many examples means and axes are fitted to, evenly spread, where there are more."""

CHUNK = 256


@dataclass(frozen=True)
class Step:
    """One change by name, with its settings; names and settings are those of a spec."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Augmentation:
    """A chain of changes, fitted; a :class:`Change` for a loader.

    ``training`` is False for a set that is evaluated.
    """

    subject: str
    changes: tuple[Fitted, ...]
    training: bool = True

    @property
    def evaluating(self) -> Augmentation:
        """The same without what is random."""
        return replace(self, training=False)

    def fields(self, given: Mapping[str, Field]) -> dict[str, Field]:
        """The fields that come out."""
        shape = given[self.subject].shape
        for change in self.changes:
            shape = change.shape(shape)
        return {**given, self.subject: replace(given[self.subject], shape=shape)}

    def __call__(self, batch: Batch, examples: np.ndarray, seed: int, epoch: int) -> Batch:
        """The changed batch."""
        for place, change in enumerate(self.changes):
            draws = Draws(seed, epoch, examples, f"data.augment.{place}") if self.training else None
            batch = {**batch, **change(batch, self.subject, draws)}
        return batch


def fitted(steps: Sequence[Step], dataset: Dataset) -> Augmentation:
    """A chain, fitted to the training set (fields by the model's names).

    Raises :class:`RuntimeFault` E807 where a change does not suit the data.
    """
    subject = _subject(dataset)
    changes: tuple[Fitted, ...] = ()
    for step in steps:
        before = Augmentation(subject, changes, training=False)
        shape = before.fields(dataset.fields)[subject].shape
        change = CHANGES[step.name](shape, lambda b=before: _chunks(dataset, b), **step.settings)
        changes = (*changes, change)
    return Augmentation(subject, changes)


def _subject(dataset: Dataset) -> str:
    floats = {n: f for n, f in dataset.fields.items() if f.dtype.kind == "f" and not f.classes}
    pictures = [name for name, field in floats.items() if field.is_picture]
    found = pictures or [name for name, field in floats.items() if field.shape]
    if len(found) != 1:
        shown = ", ".join(f"`{name}` {field}" for name, field in dataset.fields.items())
        message = f"augmentation needs one picture or one vector, and there is {shown}"
        raise RuntimeFault("E807", message)
    return found[0]


def _chunks(dataset: Dataset, before: Augmentation) -> Iterator[np.ndarray]:
    """The subject of the examples that are fitted to, in chunks, float64."""
    count = min(len(dataset), FITTED_EXAMPLES)
    chosen = np.arange(count) * len(dataset) // count
    for start in range(0, count, CHUNK):
        examples = chosen[start : start + CHUNK]
        batch = before(dataset.take(examples), examples, 0, 0)
        yield batch[before.subject].astype(np.float64)
