"""Folders of pictures, one folder a class, read when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..faults import RuntimeFault, unreadable
from ..images import SUFFIXES, Preprocess, load_image, open_image
from .dataset import Dataset, Field
from .pictures import normalisation

if TYPE_CHECKING:
    from .sources import Source

PARTS = ("train", "validate", "validation", "valid", "val", "test")
_PLAIN = Preprocess(fit="crop", crop_ratio=1.0, mean=(0.0,), std=(1.0,))


def read_images(source: Source, path: Path) -> Mapping[str, Dataset]:
    """``CLASS/NAME.jpg``, or ``train/CLASS/NAME.jpg`` and other parts beside it.

    Fields ``image``, of ``source.size`` (the shorter side scaled to it, then the centre) or else
    as large as they all are, and ``label``, by the alphabetical order of the folders' names.
    """
    if not path.is_dir():
        raise RuntimeFault("E807", f"{source.name} is not a folder of pictures")
    folders = {entry.name: entry for entry in _entries(path) if entry.is_dir()}
    parts = {name: folders[name] for name in PARTS if name in folders}
    if not parts:
        return {"all": ImageFolder(path, tuple(sorted(folders)), source)}
    classes = sorted({e.name for part in parts.values() for e in _entries(part) if e.is_dir()})
    return {name: ImageFolder(part, tuple(classes), source) for name, part in parts.items()}


class ImageFolder:
    """The pictures below a folder; raises :class:`RuntimeFault` E803 and E807.

    All pictures are read as the first one is: grey, or else in colour.
    """

    def __init__(self, folder: Path, classes: tuple[str, ...], source: Source) -> None:
        self._source = source
        self.files: list[Path] = []
        labels: list[int] = []
        for number, name in enumerate(classes):
            found = _pictures(folder / name) if (folder / name).is_dir() else []
            self.files += found
            labels += [number] * len(found)
        if not self.files:
            hint = "pictures lie in one folder for each class: `cats/1.jpg`, `dogs/1.jpg`"
            raise RuntimeFault("E807", f"there are no pictures in `{folder}`", hint)
        self._labels = np.array(labels, np.int32)
        first = open_image(self.files[0])
        self._channels = 1 if first.mode == "L" else 3
        self._shape = (self._channels, *(source.size or (first.height, first.width)))
        self._affine = normalisation(source, self._channels, bytes_=False)
        self.fields = {
            "image": Field(np.dtype(np.float32), self._shape),
            "label": Field(np.dtype(np.int32), (), classes),
        }

    @property
    def fingerprint(self) -> str:
        """A hash of the files' names and sizes, and of how they are read."""
        how = f"{self._shape} {self._affine.scale.tolist()} {self._affine.shift.tolist()}"
        digest = hashlib.sha256(how.encode())
        for file, label in zip(self.files, self._labels, strict=True):
            digest.update(f"{file.parent.name}/{file.name} {_size(file)} {label}\n".encode())
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.files)

    def take(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of some examples; see :class:`Dataset`."""
        pictures = np.empty((len(examples), *self._shape), np.float32)
        for place, example in enumerate(examples):
            pictures[place] = self._picture(self.files[example])
        return {"image": self._affine(pictures), "label": self._labels[examples]}

    def column(self, name: str) -> np.ndarray:
        """The labels; pictures are not read all at once."""
        if name != "label":
            raise RuntimeFault("E807", f"the pictures of {self._source.name} do not fit in memory")
        return self._labels

    def _picture(self, file: Path) -> np.ndarray:
        picture = load_image(file, self._source.size, self._channels, _PLAIN)[0]
        if picture.shape != self._shape:
            found, first = picture.shape[1:], self._shape[1:]
            message = f"`{file}` has {found[0]} x {found[1]} pixels, others {first[0]} x {first[1]}"
            raise RuntimeFault("E807", message, "`size: [H, W]` scales all to one size")
        return picture


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from error


def _pictures(folder: Path) -> list[Path]:
    return [file for file in _entries(folder) if file.suffix.lower() in SUFFIXES]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise unreadable(file, error) from error
