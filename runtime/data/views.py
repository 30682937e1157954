"""Other views of a set: fields chosen, renamed and joined; Python sequences of examples."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..faults import RuntimeFault, suggestion
from .dataset import Dataset, Field

_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class Columns:
    """Fields by new names: each one field of a set, or several numbers in a row.

    ``columns`` maps new names to fields; ``0..784`` among them are the fields at these places, the
    last left out. Raises :class:`RuntimeFault` E807 for a field that is not there.
    """

    def __init__(self, dataset: Dataset, columns: Mapping[str, Sequence[str]]) -> None:
        self._dataset = dataset
        self._columns = {name: _places(given, dataset) for name, given in columns.items()}
        self.fields = {name: _field(name, of, dataset) for name, of in self._columns.items()}
        self.consecutive = getattr(dataset, "consecutive", False)

    @property
    def fingerprint(self) -> str:
        """A hash of the set's and of the choice."""
        text = f"{self._dataset.fingerprint} {sorted(self._columns.items())}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._dataset)

    def take(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of some examples; see :class:`Dataset`."""
        found = self._dataset.take(examples)
        return {
            name: found[of[0]] if len(of) == 1 else _joined([found[field] for field in of])
            for name, of in self._columns.items()
        }

    def column(self, name: str) -> np.ndarray:
        """One field of all examples."""
        columns = [self._dataset.column(field) for field in self._columns[name]]
        return columns[0] if len(columns) == 1 else _joined(columns)


class SequenceDataset:
    """Any Python object with a length whose items are examples.

    An item is a dictionary of arrays, or a tuple (fields ``x``, ``y``) of them; all items are alike
    in shape. ``torch.utils.data.Dataset`` is such an object.
    """

    def __init__(self, items: Any) -> None:
        self._items, self._lock = items, threading.Lock()
        if len(items) == 0:
            raise RuntimeFault("E807", "the data has no examples")
        first = self._item(0)
        self.fields = {name: Field(array.dtype, array.shape) for name, array in first.items()}

    @property
    def fingerprint(self) -> str:
        """A hash of the length and of three examples."""
        digest = hashlib.sha256(str(len(self)).encode())
        for number in (0, len(self) // 2, len(self) - 1):
            for name, array in self._item(number).items():
                digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._items)

    def take(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of some examples; see :class:`Dataset`."""
        # Nobody says that a stranger's object may be read by several threads at once.
        with self._lock:
            items = [self._item(int(number)) for number in examples]
        return {name: np.stack([item[name] for item in items]) for name in self.fields}

    def column(self, name: str) -> np.ndarray:
        """One field of all examples."""
        return np.stack([self._item(number)[name] for number in range(len(self))])

    def _item(self, number: int) -> dict[str, np.ndarray]:
        item = self._items[number]
        if isinstance(item, (tuple, list)):
            item = dict(zip("xyz", item, strict=False)) if len(item) <= 3 else item
        if not isinstance(item, Mapping) or not item:
            message = f"example {number} of the data is a {type(item).__name__}"
            hint = "an example is a dictionary of arrays, or a tuple of up to three"
            raise RuntimeFault("E807", message, hint)
        arrays = {str(name): np.asarray(value) for name, value in item.items()}
        self._require_alike(number, arrays)
        return arrays

    def _require_alike(self, number: int, arrays: Mapping[str, np.ndarray]) -> None:
        known = getattr(self, "fields", None)
        if known is None:
            return
        for name, field in known.items():
            found = f"{arrays[name].shape}" if name in arrays else "nothing"
            if name not in arrays or arrays[name].shape != field.shape:
                message = f"`{name}` of example {number} is {found}, others are {field.shape}"
                raise RuntimeFault("E807", message, "examples of a set have one shape")


def _places(given: Sequence[str], dataset: Dataset) -> tuple[str, ...]:
    fields = list(dataset.fields)
    found: list[str] = []
    for name in given:
        match = _RANGE.fullmatch(name)
        if name in dataset.fields:
            found.append(name)
        elif match is not None and int(match[1]) < int(match[2]) <= len(fields):
            found += fields[int(match[1]) : int(match[2])]
        else:
            message = f"the data has no field `{name}`"
            raise RuntimeFault("E807", message, suggestion(name, dataset.fields))
    return tuple(found)


def _field(name: str, of: tuple[str, ...], dataset: Dataset) -> Field:
    fields = [dataset.fields[field] for field in of]
    if len(fields) == 1:
        return fields[0]
    for source, field in zip(of, fields, strict=True):
        if field.shape or field.classes:
            message = f"`{source}` is {field}, so it cannot be one number of `{name}`"
            raise RuntimeFault("E807", message)
    return Field(np.result_type(*(field.dtype for field in fields)), (len(of),))


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(columns, axis=1)
