"""Fitting data to a model: which field fills which input, in which form, and whether it fits.

A field fills the input of its name. What is left over is matched where there is only one way: the
input's rank and whether it holds whole numbers tell. Classes fill an input of floats with an axis
for them as one-hot rows, which is what mixed labels need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..faults import RuntimeFault
from ..inputs import Declared, check_input
from .dataset import CLASS_WEIGHT, Dataset, Field, require_labels, strata
from .loader import Batch, Change
from .order import class_weights


def feed(dataset: Dataset, declared: Mapping[str, Declared], change: Any = None) -> Dataset:
    """A set whose fields are the model's inputs, by their names and in their types.

    Parameters
    ----------
    dataset
        The examples.
    declared
        What the model and its objective declare, by name; the first axis is the batch.
    change
        What will be done to the batches (see ``augment.py``); its ``fields`` tells which shapes
        come out.

    Raises
    ------
    RuntimeFault
        E802 when an input cannot be filled, E807 for labels out of range.
    """
    matched = _matched(dataset, declared)
    fed = Fed(dataset, declared, matched)
    given = fed.fields if change is None else change.fields(fed.fields)
    for name, field in given.items():
        _require_fit(name, field, declared[name])
    return fed


class Fed:
    """The fields of a set as the inputs of a model; made by :func:`feed`."""

    def __init__(
        self, dataset: Dataset, declared: Mapping[str, Declared], matched: Mapping[str, str]
    ) -> None:
        self._dataset, self._declared, self._matched = dataset, declared, matched
        self.fields: dict[str, Field] = {}
        self._one_hot: dict[str, int] = {}
        for name, source in matched.items():
            field, want = dataset.fields[source], declared[name]
            classes = _one_hot(field, want)
            if classes:
                require_labels(dataset, source, classes)
                self._one_hot[name] = classes
                names = field.classes or tuple(map(str, range(classes)))
                self.fields[name] = Field(want.dtype, (*field.shape, classes), names)
            else:
                self.fields[name] = Field(want.dtype, field.shape, field.classes)
        self._weights = None
        if CLASS_WEIGHT in declared and CLASS_WEIGHT not in matched:
            self._weights = _weights(dataset, declared[CLASS_WEIGHT])

    @property
    def fingerprint(self) -> str:
        """That of the set."""
        return self._dataset.fingerprint

    def __len__(self) -> int:
        return len(self._dataset)

    def take(self, examples: np.ndarray) -> Batch:
        """The inputs of some examples."""
        found = self._dataset.take(examples)
        batch = {name: self._convert(name, found[source]) for name, source in self._matched.items()}
        if self._weights is not None:
            table, labels = self._weights
            per_example = isinstance(self._declared[CLASS_WEIGHT].shape[0], str)
            batch[CLASS_WEIGHT] = table[labels[examples]] if per_example else table
        return batch

    def column(self, name: str) -> np.ndarray:
        """One field of all examples as it is stored."""
        return self._dataset.column(self._matched[name])

    def _convert(self, name: str, array: np.ndarray) -> np.ndarray:
        want = self._declared[name].dtype
        if name in self._one_hot:
            return np.eye(self._one_hot[name], dtype=want)[array]
        return np.ascontiguousarray(array, want)


def checked(declared: Mapping[str, Declared]) -> Change:
    """A change that only checks: for batches that a Python iterable gives."""

    def check(batch: Batch, examples: np.ndarray, seed: int, epoch: int) -> Batch:
        missing = [name for name in declared if name not in batch]
        if missing:
            message = f"the batches have no `{missing[0]}`"
            raise RuntimeFault("E802", message, f"they have {', '.join(batch)}")
        fitting = {name: check_input(name, batch[name], want) for name, want in declared.items()}
        # The iterable may fill the same array anew while this batch still waits for its turn.
        return {name: a.copy() if a is batch[name] else a for name, a in fitting.items()}

    return check


# ---------------------------------------------------------------- helpers


def _matched(dataset: Dataset, declared: Mapping[str, Declared]) -> dict[str, str]:
    """The field of each input."""
    matched = {name: name for name in declared if name in dataset.fields}
    inputs = [name for name in declared if name not in matched and name != CLASS_WEIGHT]
    left = [source for source in dataset.fields if source not in matched]
    for name in inputs:
        fitting = [source for source in left if _may_fill(dataset.fields[source], declared[name])]
        rivals = [other for other in inputs for source in fitting
                  if _may_fill(dataset.fields[source], declared[other])]  # fmt: skip
        if len(fitting) != 1 or len(rivals) != 1:
            raise _unfilled(name, dataset, declared)
        matched[name] = fitting[0]
    return matched


def _may_fill(field: Field, want: Declared) -> bool:
    if _one_hot(field, want):
        return True
    same_kind = (field.dtype.kind in "iub") == (want.dtype.kind in "iub")
    return same_kind and len(field.shape) + 1 == len(want.shape)


def _one_hot(field: Field, want: Declared) -> int:
    """How many classes one-hot rows have, 0 where the field does not become such."""
    longer = len(want.shape) == len(field.shape) + 2
    last = want.shape[-1] if want.shape else ""
    if longer and field.dtype.kind in "iu" and want.dtype.kind == "f" and isinstance(last, int):
        return last
    return 0


def _weights(dataset: Dataset, want: Declared) -> tuple[np.ndarray, np.ndarray]:
    labels = strata(dataset)
    size = want.shape[0] if len(want.shape) == 1 else None
    if size is None or want.dtype.kind != "f":
        message = f"input `{CLASS_WEIGHT}` is {want}, and weights of classes are f32[classes] "
        raise RuntimeFault("E802", message + "or f32[N]")
    if not labels.any():
        message = f"the data tells no classes that `{CLASS_WEIGHT}` could weigh"
        raise RuntimeFault("E807", message, "give it one field of class numbers, from 0 on")
    count = size if isinstance(size, int) else int(labels.max()) + 1
    return class_weights(labels, count).astype(want.dtype), labels


def _require_fit(name: str, field: Field, want: Declared) -> None:
    shape = want.shape[1:]
    fits = len(field.shape) == len(shape) and all(
        isinstance(size, str) or size == found
        for size, found in zip(shape, field.shape, strict=True)
    )
    if fits:
        return
    hint = None
    if field.is_picture and len(shape) == 3 and field.shape[0] == shape[0]:
        hint = f"scale the pictures: `size: [{shape[1]}, {shape[2]}]` under `data:`"
    message = f"input `{name}` does not fit: expected {want}, and the data has {field}"
    raise RuntimeFault("E802", message, hint)


def _unfilled(name: str, dataset: Dataset, declared: Mapping[str, Declared]) -> RuntimeFault:
    found = ", ".join(f"`{field}` {kind}" for field, kind in dataset.fields.items())
    message = f"no field of the data fills the input `{name}`, {declared[name]}"
    hint = f"the data has {found}; `columns: {{{name}: FIELD}}` says which one it is"
    return RuntimeFault("E802", message, hint)
