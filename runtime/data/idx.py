"""IDX files, the format of MNIST and its kin, plain or gzipped.

Two zero bytes, the element type, the number of axes, the axes' sizes as big-endian u32, then the
elements (http://yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..faults import RuntimeFault, unreadable
from .arrays import array_set
from .dataset import Dataset

if TYPE_CHECKING:
    from .sources import Source

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
MOST_BYTES = 2**34
"""Of a file after it is unzipped: what says more is broken or hostile."""

_NAME = re.compile(r"(?:.*[-_])?(train|t10k|test|valid|validation)[-_.](images|labels)\b.*")


def read_idx(source: Source, path: Path) -> Mapping[str, Dataset]:
    """A folder with files such as ``train-images-idx3-ubyte.gz`` and the labels, or one file.

    Fields ``image`` and ``label`` in the parts ``train`` and ``test`` (files ``t10k`` or ``test``),
    or one file's array as ``image`` or ``x``.
    """
    if not path.is_dir():
        array = read_array(path)
        name = "image" if array.dtype == np.uint8 and array.ndim == 3 else "x"
        return {"all": array_set({name: array}, source)}
    parts: dict[str, dict[str, np.ndarray]] = {}
    for file in sorted(path.iterdir()):
        match = _NAME.fullmatch(file.name)
        if match is not None:
            part = "test" if match[1] == "t10k" else match[1]
            found = parts.setdefault(part, {})
            name = match[2].removesuffix("s")
            if name not in found:  # The same file may lie there zipped and unzipped.
                found[name] = read_array(file)
    if not parts:
        message = f"{source.name} has no files called like `train-images-idx3-ubyte.gz`"
        raise RuntimeFault("E807", message)
    return {part: _part(part, found, source) for part, found in parts.items()}


def read_array(path: Path) -> np.ndarray:
    """The array of one file; raises :class:`RuntimeFault` E803."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = _unzipped(path)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES:
        raise unreadable(path, "it is not an IDX file")
    dtype, head = np.dtype(TYPES[data[2]]), 4 + 4 * data[3]
    shape = tuple(int(n) for n in np.frombuffer(data[4:head][: 4 * data[3]], ">u4")) if (
        len(data) >= head
    ) else ()  # fmt: skip
    expected = head + math.prod(shape) * dtype.itemsize
    if len(data) != expected or len(shape) != data[3]:
        message = f"it has {len(data)} bytes where its header says {expected}"
        raise unreadable(path, message)
    array = np.frombuffer(data, dtype, offset=head).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def _unzipped(path: Path) -> bytes:
    with gzip.open(path) as stream:
        data = stream.read(MOST_BYTES)
    if len(data) == MOST_BYTES:
        raise OSError("it is too large after unzipping")
    return data


def _part(part: str, arrays: dict[str, np.ndarray], source: Source) -> Dataset:
    if "image" not in arrays:
        raise RuntimeFault("E807", f"{source.name} has labels for `{part}`, but no images")
    classes = None
    if "label" in arrays:
        labels = arrays["label"].astype(np.int32)
        arrays["label"] = labels
        if labels.ndim == 1 and labels.size and labels.min() >= 0:
            classes = {"label": tuple(map(str, range(int(labels.max()) + 1)))}
    return array_set(arrays, source, classes)
