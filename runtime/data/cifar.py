"""CIFAR-10 and CIFAR-100 in the layouts in which they are handed out (Krizhevsky 2009).

The binary layout is records of one or two label bytes and 3,072 pixel bytes; the Python layout is
pickles. Nothing of a pickle is run: a reader that knows two kinds of objects takes the bytes out,
and refuses whatever else is there. A folder or the ``.tar.gz`` itself will do.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ..faults import RuntimeFault, unreadable
from .arrays import array_set
from .dataset import Dataset

if TYPE_CHECKING:
    from .sources import Source

PIXELS = 3 * 32 * 32
TEN, HUNDRED = 10, 100
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
NAMES = (*BATCHES, "test_batch", "train", "test", "meta", "batches.meta")
ENDS = ("", ".bin", ".txt")
MOST_BYTES = 2**28
"""Of one file: the largest real one has 155 MB."""

Part = tuple[np.ndarray, dict[str, np.ndarray]]


def read_cifar(source: Source, path: Path) -> Mapping[str, Dataset]:
    """Parts ``train`` and ``test`` with fields ``image`` and ``label`` (and ``coarse``)."""
    files = _files(path)
    binary = any(name.endswith(".bin") for name in files)
    ten = any(name.startswith(("data_batch", "test_batch")) for name in files)
    end = ".bin" if binary else ""
    wanted = {"train": BATCHES if ten else ("train",), "test": ("test_batch" if ten else "test",)}
    read: Callable[..., Part] = _binary if binary else _pickled
    parts: dict[str, Dataset] = {}
    for part, names in wanted.items():
        there = [name + end for name in names if name + end in files]
        if there:
            found = [read(path / name, files[name](), ten) for name in there]
            parts[part] = _joined(found, source, _class_names(path, files, ten, binary))
    if not parts:
        message = f"{source.name} has no files called like `data_batch_1.bin` or `train`"
        raise RuntimeFault("E807", message, "give the folder that they are in, or the .tar.gz file")
    return parts


def _joined(found: Sequence[Part], source: Source, names: Mapping[str, tuple[str, ...]]) -> Dataset:
    arrays = {"image": np.concatenate([pixels for pixels, _ in found])}
    for field in found[0][1]:
        arrays[field] = np.concatenate([labels[field] for _, labels in found])
    return array_set(arrays, source, {field: names[field] for field in found[0][1]})


# ---------------------------------------------------------------- files


def _files(path: Path) -> dict[str, Callable[[], bytes]]:
    """The files of the layout by name, each as a function that reads it."""
    known = {name + end for name in NAMES for end in ENDS}
    if path.is_dir():
        there = [path / name for name in known if (path / name).is_file()]
        return {file.name: lambda file=file: _limited(file) for file in there}
    try:
        contents: dict[str, bytes] = {}
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                stream = archive.extractfile(member) if name in known else None
                if stream is not None and member.size <= MOST_BYTES:
                    contents[name] = stream.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise unreadable(path, error) from error
    return {name: lambda data=data: data for name, data in contents.items()}


def _limited(file: Path) -> bytes:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise unreadable(file, "it is larger than any file of CIFAR")
        return file.read_bytes()
    except OSError as error:
        raise unreadable(file, error) from error


def _class_names(
    path: Path, files: Mapping[str, Callable[[], bytes]], ten: bool, binary: bool
) -> dict[str, tuple[str, ...]]:
    """Names of the classes by field, their numbers where the file of names is missing."""
    plain = {"label": TEN if ten else HUNDRED, "coarse": 20}
    names = {field: tuple(map(str, range(count))) for field, count in plain.items()}
    if not binary:
        meta = "batches.meta" if ten else "meta"
        keys = {"label": b"label_names" if ten else b"fine_label_names"}
        keys |= {} if ten else {"coarse": b"coarse_label_names"}
        if meta in files:
            table = _unpickled(path / meta, files[meta]())
            found = {field: table.get(key) for field, key in keys.items()}
            for field, given in found.items():
                if isinstance(given, list) and len(given) == plain[field]:
                    names[field] = tuple(_text(name) for name in given)
        return names
    if ten and "batches.meta.txt" in files:
        lines = files["batches.meta.txt"]().decode("utf-8", "replace").split()
        if len(lines) == TEN:
            names["label"] = tuple(lines)
    return names


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


# ---------------------------------------------------------------- layouts


def _binary(path: Path, data: bytes, ten: bool) -> Part:
    labels = ("label",) if ten else ("coarse", "label")
    record = len(labels) + PIXELS
    if len(data) == 0 or len(data) % record:
        raise unreadable(path, f"its {len(data)} bytes are not records of {record}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    found = {field: rows[:, place].astype(np.int32) for place, field in enumerate(labels)}
    return rows[:, len(labels) :].reshape(-1, 3, 32, 32), found


def _pickled(path: Path, data: bytes, ten: bool) -> Part:
    table = _unpickled(path, data)
    keys = {"label": b"labels"} if ten else {"coarse": b"coarse_labels", "label": b"fine_labels"}
    pixels = table.get(b"data")
    if not isinstance(pixels, _Array) or pixels.shape is None or pixels.shape[1:] != (PIXELS,):
        raise unreadable(path, "it has no pixels `data` of 3072 bytes a picture")
    images = np.frombuffer(pixels.data, np.uint8).reshape(-1, 3, 32, 32)
    found = {}
    for field, key in keys.items():
        labels = table.get(key)
        if not isinstance(labels, list) or len(labels) != len(images):
            raise unreadable(path, f"it has no `{key.decode()}` for each picture")
        if not all(isinstance(label, int) and 0 <= label < HUNDRED for label in labels):
            raise unreadable(path, f"`{key.decode()}` holds what is not a class")
        found[field] = np.array(labels, np.int32)
    return images, found


class _Array:
    """What is kept of a pickled numpy array: its shape and its bytes."""

    shape: tuple[int, ...] | None = None
    data = b""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, str):
            data = data.encode("latin-1")
        if not isinstance(dtype, _DType) or dtype.name not in ("u1", "|u1", "uint8") or fortran:
            raise pickle.UnpicklingError("its array is not of bytes")
        if not isinstance(data, bytes) or len(data) != np.prod(shape, dtype=object):
            raise pickle.UnpicklingError("its array is cut off")
        self.shape, self.data = tuple(shape), data


class _DType:
    """What is kept of a pickled element type: its name."""

    def __init__(self, name: Any, *rest: Any) -> None:
        # Python 2 wrote names as bytes.
        self.name = name.decode("latin-1") if isinstance(name, bytes) else name

    def __setstate__(self, state: Any) -> None:
        """The byte order and the like, which bytes do not have."""


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes in pickles of protocol 2 and below are text to be encoded."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("it holds text in another encoding")
    return text.encode("latin-1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *given: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *given: _Array(),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    """Reads numbers, text, lists, dictionaries and stand-ins of byte arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for one of the few known names."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for `{module}.{name}`, which no CIFAR file does")
        return _ALLOWED[module, name]


def _unpickled(path: Path, data: bytes) -> dict[Any, Any]:
    try:
        table = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:
        reason = str(error) if isinstance(error, pickle.UnpicklingError) else "it is broken"
        raise unreadable(path, reason) from error
    if not isinstance(table, dict):
        raise unreadable(path, "it is not a table")
    return {key.encode() if isinstance(key, str) else key: value for key, value in table.items()}
