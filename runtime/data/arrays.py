"""Arrays in ``.npz`` and ``.npy`` files as examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..archives import open_npy, open_npz
from ..faults import RuntimeFault, unreadable
from .dataset import Affine, ArrayDataset, Dataset
from .pictures import channels_first, is_pictures, stored

if TYPE_CHECKING:
    from .sources import Source

_PART = re.compile(r"(?:(.+)_)?(train|test|valid|val|validate|validation)(?:_(.+))?")


def read_npz(source: Source, path: Path) -> Mapping[str, Dataset]:
    """Every array of an ``.npz`` file as a field.

    Names such as ``x_train`` and ``test_labels`` make parts (fields ``x`` and ``labels``). Bytes
    of rank 3 or 4 are pictures.
    """
    with open_npz(path) as archive:
        if not archive.files:
            raise RuntimeFault("E807", f"{source.name} has no arrays")
        arrays = {name: _member(archive, name, path) for name in archive.files}
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        field, part = _field_and_part(name)
        parts.setdefault(part, {})[field] = array
    if len(parts) > 1 and "all" in parts:
        # Not every array belongs to a part, so the names mean something else.
        parts = {"all": arrays}
    return {part: array_set(found, source) for part, found in parts.items()}


def read_npy(source: Source, path: Path) -> Mapping[str, Dataset]:
    """The array of an ``.npy`` file as the field ``x``."""
    return {"all": array_set({"x": open_npy(path)}, source)}


def array_set(
    arrays: Mapping[str, np.ndarray],
    source: Source,
    classes: Mapping[str, tuple[str, ...]] | None = None,
) -> ArrayDataset:
    """Arrays as a set, pictures among them scaled and normalised as the source says."""
    kept: dict[str, np.ndarray] = {}
    affine: dict[str, Affine] = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            message = f"`{name}` of {source.name} holds {array.dtype}, not numbers"
            raise RuntimeFault("E807", message)
        if is_pictures(array):
            kept[name], affine[name] = stored(channels_first(array), source)
        else:
            kept[name] = array
    return ArrayDataset(kept, classes, affine, source.name)


def _field_and_part(name: str) -> tuple[str, str]:
    match = _PART.fullmatch(name)
    if match is None or not (match[1] or match[3]):
        return name, "all"
    return match[1] or match[3], match[2]


def _member(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except ValueError as error:
        raise unreadable(path, f"`{name}`: {error}") from error
