"""Sets of examples: fields by name, and any examples by their numbers.

An example is a number from 0; a field is one tensor of each example. Pictures are ``[C, H, W]``
float32 in 0 to 1 (before a mean is subtracted), classes whole numbers from 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..faults import RuntimeFault, suggestion

CLASS_WEIGHT = "class_weight"
"""An input of this name gets the weights of the classes: all of them, or each example's."""


@dataclass(frozen=True)
class Field:
    """One tensor of each example: element type and shape.

    ``classes`` are the names of the classes where the field holds class numbers.
    """

    dtype: np.dtype
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] | None = None

    @property
    def is_picture(self) -> bool:
        """Whether it is ``[C, H, W]`` of floats."""
        return len(self.shape) == 3 and self.dtype.kind == "f"

    def __str__(self) -> str:
        short = f"{self.dtype.kind}{8 * self.dtype.itemsize}"
        return f"{short}[{', '.join(map(str, ('N', *self.shape)))}]"


class Dataset(Protocol):
    """What every set of examples can do."""

    @property
    def fields(self) -> Mapping[str, Field]:
        """The fields by name."""
        ...

    @property
    def fingerprint(self) -> str:
        """The same for the same examples; runs are resumed only on the same data."""
        ...

    def __len__(self) -> int: ...

    def take(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of some examples, ``[len(examples), ...]`` each."""
        ...

    def column(self, name: str) -> np.ndarray:
        """One field of all examples, raw: for labels, which are small."""
        ...


@dataclass(frozen=True)
class Affine:
    """``scale * x + shift`` by channel, in float32: how stored pictures become numbers."""

    scale: np.ndarray
    shift: np.ndarray

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Apply to ``[N, C, H, W]``."""
        wide = (slice(None), None, None)
        return pictures.astype(np.float32) * self.scale[wide] + self.shift[wide]


class ArrayDataset:
    """Arrays in memory, all with the same number of examples.

    Parameters
    ----------
    arrays
        By field, ``[examples, ...]``.
    classes
        Names of classes by field.
    affine
        By picture field, what is applied to the examples that are taken.
    name
        What messages call the data.

    Raises
    ------
    RuntimeFault
        E807 when there are no examples, the counts differ or a label has no class.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        classes: Mapping[str, Sequence[str]] | None = None,
        affine: Mapping[str, Affine] | None = None,
        name: str = "the data",
    ) -> None:
        self.name, self._arrays, self._affine = name, dict(arrays), dict(affine or {})
        _require_counts(name, self._arrays)
        self.fields = {}
        for field, array in self._arrays.items():
            labels = (classes or {}).get(field)
            kind = np.dtype(np.float32) if field in self._affine else array.dtype
            self.fields[field] = Field(kind, array.shape[1:], tuple(labels) if labels else None)
            if labels:
                require_labels(self, field, len(labels))

    @property
    def fingerprint(self) -> str:
        """A hash of names, types, shapes and contents."""
        digest = hashlib.sha256()
        for name, array in sorted(self._arrays.items()):
            digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        for name, affine in sorted(self._affine.items()):
            digest.update(f"{name} {affine.scale.tolist()} {affine.shift.tolist()}".encode())
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def take(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of some examples; see :class:`Dataset`."""
        found = {name: array[examples] for name, array in self._arrays.items()}
        return {n: self._affine[n](a) if n in self._affine else a for n, a in found.items()}

    def column(self, name: str) -> np.ndarray:
        """One field of all examples as it is stored."""
        return self._arrays[name]


class Subset:
    """Some examples of a set, renumbered from 0."""

    def __init__(self, dataset: Dataset, examples: np.ndarray) -> None:
        self._dataset, self._examples = dataset, np.asarray(examples)
        self.fields = dataset.fields
        self.consecutive = getattr(dataset, "consecutive", False)

    @property
    def fingerprint(self) -> str:
        """A hash of the whole set's and of the chosen numbers."""
        chosen = np.ascontiguousarray(self._examples, np.int64)
        text = self._dataset.fingerprint.encode() + chosen.tobytes()
        return hashlib.sha256(text).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._examples)

    def take(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of some examples; see :class:`Dataset`."""
        return self._dataset.take(self._examples[examples])

    def column(self, name: str) -> np.ndarray:
        """One field of all examples as it is stored."""
        return self._dataset.column(name)[self._examples]


def strata(dataset: Dataset) -> np.ndarray:
    """The class of every example where one field has classes, else one class for all.

    Where no field's classes are named, whole numbers are classes if there is one such field and
    its numbers occur twice on average at least.
    """
    single = {name: field for name, field in dataset.fields.items() if not field.shape}
    named = [name for name, field in single.items() if field.classes]
    whole = [name for name, field in single.items() if field.dtype.kind in "iu"]
    if len(named) == 1:
        return dataset.column(named[0])
    if not named and len(whole) == 1:
        column = dataset.column(whole[0])
        if column.min() >= 0 and 2 * len(np.unique(column)) <= len(column):
            return column
    return np.zeros(len(dataset), np.int64)


def require_labels(dataset: Dataset, field: str, classes: int) -> None:
    """Raise E807 unless all labels of a field are from 0 to ``classes - 1``."""
    if field not in dataset.fields:
        raise RuntimeFault("E807", f"the data has no field `{field}`",
                           suggestion(field, dataset.fields))  # fmt: skip
    labels = dataset.column(field)
    wrong = np.flatnonzero((labels.reshape(len(labels), -1) < 0).any(1)
                           | (labels.reshape(len(labels), -1) >= classes).any(1))  # fmt: skip
    if len(wrong):
        first = int(wrong[0])
        values = labels[first].reshape(-1)
        value = int(values[(values < 0) | (values >= classes)][0])
        more = f" ({len(wrong)} examples are like that)" if len(wrong) > 1 else ""
        message = f"`{field}` of example {first} is {value}, and there are {classes} classes{more}"
        hint = "labels count from 0" if value == classes else None
        raise RuntimeFault("E807", message, hint)


def _require_counts(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    bare = [field for field, array in arrays.items() if np.ndim(array) == 0]
    if bare:
        raise RuntimeFault("E807", f"`{bare[0]}` of {name} is one number, not one an example")
    counts = {field: len(array) for field, array in arrays.items()}
    if not counts or (min(counts.values()) == 0 and max(counts.values()) == 0):
        raise RuntimeFault("E807", f"{name} has no examples")
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{field} has {count}" for field, count in counts.items())
        raise RuntimeFault("E807", f"the fields of {name} differ in length: {shown}")
