"""Opening data: a built-in set, files in the usual formats, arrays, or anything iterable."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..faults import RuntimeFault, suggestion, unreadable
from .arrays import read_npy, read_npz
from .cifar import read_cifar
from .dataset import ArrayDataset, Dataset
from .digits import digits
from .folders import read_images
from .idx import read_idx
from .parts import limited, split
from .tables import read_csv
from .text import python_docs, read_text
from .views import Columns, SequenceDataset

TRAINING = "train"
HELD_OUT = ("validate", "validation", "valid", "val", "test")
"""Names of the part that a run is validated on, the first that there is."""


@dataclass(frozen=True)
class Source:
    """Where examples come from: an entry of a spec's ``data`` section.

    ``source`` names a built-in set, or else ``path`` a file or folder. ``columns`` are the
    model's inputs with the fields that fill them. ``split`` names a part, or gives parts with
    their fractions. ``limit`` is the number of examples of each part, ``size`` the height and
    width that pictures are scaled to; ``mean`` and ``std`` are subtracted and divided by, by
    channel of 0 to 1. ``length`` is that of a window of text.
    """

    source: str | None = None
    path: str | None = None
    format: str | None = None
    columns: Mapping[str, tuple[str, ...]] | None = None
    header: bool = True
    delimiter: str = ","
    split: str | Mapping[str, float] | None = None
    seed: int = 0
    limit: int | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    length: int = 64

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"`{self.source or self.path}`"


@dataclass(frozen=True)
class Data:
    """The parts of some data by name, such as ``train`` and ``test``."""

    parts: Mapping[str, Dataset]

    @property
    def train(self) -> Dataset:
        """The part to train on: ``train``, or the first where none has that name."""
        return self.parts[TRAINING if TRAINING in self.parts else next(iter(self.parts))]

    @property
    def held_out(self) -> Dataset | None:
        """The part to validate on, ``None`` where there is none."""
        return next((self.parts[name] for name in HELD_OUT if name in self.parts), None)

    def hold_out(self, fraction: float, seed: int = 0) -> Data:
        """The same with a part ``validate`` cut off ``train``, classes in the same shares."""
        parts = split(self.train, {TRAINING: 1 - fraction, "validate": fraction}, seed)
        return Data({**self.parts, **parts})


class Reader(Protocol):
    """Reads a source as parts by name; ``path`` is the file or folder, where it has one."""

    def __call__(self, source: Source, path: Path) -> Mapping[str, Dataset]:
        """Raises :class:`RuntimeFault` E803 or E807."""
        ...


BUILT_IN: dict[str, Callable[[Source], Mapping[str, Dataset]]] = {
    "digits": digits,
    "python_docs": python_docs,
}
"""Sets that need no download."""

READERS: dict[str, Reader] = {
    "npz": read_npz,
    "npy": read_npy,
    "csv": read_csv,
    "images": read_images,
    "idx": read_idx,
    "cifar": read_cifar,
    "text": read_text,
}
"""Readers by format."""

SUFFIXES = {".npz": "npz", ".npy": "npy", ".csv": "csv", ".tsv": "csv", ".txt": "text"}


def open_dataset(what: Any, folder: str | os.PathLike[str] = ".") -> Data:
    """Data, ready to be taken examples from.

    Parameters
    ----------
    what
        A :class:`Source`; the name of a built-in set or a path; arrays by field; a set; or an
        object whose items are examples (see :class:`SequenceDataset`).
    folder
        What relative paths are relative to.

    Raises
    ------
    RuntimeFault
        E803 for a file that cannot be read, E807 for data that cannot be used.
    """
    if isinstance(what, Data):
        return what
    if isinstance(what, (str, os.PathLike)):
        text = os.fspath(what)
        what = Source(source=text) if text in BUILT_IN else Source(path=text)
    if isinstance(what, Source):
        return _opened(what, Path(folder))
    if isinstance(what, Mapping):
        arrays = {str(name): np.asarray(array) for name, array in what.items()}
        return Data({TRAINING: ArrayDataset(arrays)})
    if hasattr(what, "take") and hasattr(what, "fields"):
        return Data({TRAINING: what})
    if is_examples(what):
        return Data({TRAINING: SequenceDataset(what)})
    message = f"`{type(what).__name__}` is not a set of examples"
    raise RuntimeFault("E807", message, "give a name, a path, or arrays by field")


def is_examples(what: Any) -> bool:
    """Whether :func:`open_dataset` takes something.

    Other iterables are of batches (:class:`IterableLoader`): a list, a generator, PyTorch's
    ``DataLoader``. What has items and a length but is no iterable, as PyTorch's ``Dataset``, is a
    set of examples.
    """
    if isinstance(what, (str, os.PathLike, Mapping, Source, Data)):
        return True
    has = lambda name: hasattr(what, name)  # noqa: E731
    return has("take") if has("fields") else has("__getitem__") and not has("__iter__")


# ---------------------------------------------------------------- helpers


def _opened(source: Source, folder: Path) -> Data:
    parts = dict(_read(source, folder))
    if isinstance(source.split, str):
        if source.split not in parts:
            message = f"{source.name} has no part `{source.split}`"
            raise RuntimeFault("E807", message, suggestion(source.split, parts))
        parts = {source.split: parts[source.split]}
    elif source.split is not None:
        if len(parts) > 1:
            message = f"{source.name} comes in parts, so it is not split again"
            raise RuntimeFault("E807", message, f"`split:` one of {', '.join(parts)}")
        parts = split(next(iter(parts.values())), source.split, source.seed)
    if source.limit is not None:
        parts = {n: limited(part, source.limit, source.seed) for n, part in parts.items()}
    if source.columns is not None:
        parts = {name: Columns(part, source.columns) for name, part in parts.items()}
    return Data(parts)


def _read(source: Source, folder: Path) -> Mapping[str, Dataset]:
    if source.source is not None:
        if source.source not in BUILT_IN:
            message = f"there is no built-in data set `{source.source}`"
            raise RuntimeFault("E807", message, suggestion(source.source, BUILT_IN))
        return BUILT_IN[source.source](source)
    assert source.path is not None
    path = folder / Path(source.path).expanduser()
    if not path.exists():
        raise unreadable(path, "no such file or folder")
    kind = source.format or SUFFIXES.get(path.suffix.lower())
    if kind is None:
        hint = f"say its format: one of {', '.join(READERS)}"
        raise RuntimeFault("E807", f"the format of {source.name} is not clear from its name", hint)
    if kind not in READERS:
        raise RuntimeFault("E807", f"there is no reader of the format `{kind}`",
                           f"there is {', '.join(READERS)}")  # fmt: skip
    return READERS[kind](source, path)
