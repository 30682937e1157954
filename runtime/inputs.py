"""Inputs from the command line: ``image=photo.jpg``, ``x=data.npz:key``, ``x=random``.

A value is an ``.npy`` or ``.npz`` file, a picture, or the words ``random`` and ``zeros``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .archives import open_npy, open_npz
from .faults import RuntimeFault, suggestion
from .images import SUFFIXES, Preprocess, load_image

WORDS = ("random", "zeros")
FORMS = "an .npy or .npz file (`FILE.npz:KEY`), a picture, `random` or `zeros`"


@dataclass(frozen=True)
class Declared:
    """What the model declares; a size that is open is its text (``N``, ``2*H``)."""

    dtype: np.dtype
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{_short(self.dtype)}[{', '.join(map(str, self.shape))}]"


def parse_assignments(texts: Sequence[str], declared: Mapping[str, Declared]) -> dict[str, str]:
    """Values by input name from ``name=value`` texts.

    A value alone is meant for the only input there is. Raises :class:`RuntimeFault` E802 for a
    name that the model does not have or that is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and len(declared) == 1:
            name, value = next(iter(declared)), text
        elif not equals or not value:
            message = f"`{text}` is not an input"
            raise RuntimeFault("E802", message, f"write NAME=VALUE; a value is {FORMS}")
        if name not in declared:
            raise RuntimeFault("E802", f"no input is called `{name}`", suggestion(name, declared))
        if name in found:
            raise RuntimeFault("E802", f"the input `{name}` is given twice")
        found[name] = value
    return found


def is_generated(value: str) -> bool:
    """Whether a value is made here, so that its sizes must be known already."""
    return value in WORDS


def is_picture(value: str) -> bool:
    """Whether a value names a picture file."""
    return value.lower().endswith(SUFFIXES)


def read_input(
    name: str,
    value: str,
    declared: Declared,
    seed: int = 0,
    preprocess: Preprocess | None = None,
) -> np.ndarray:
    """The array that one value stands for, checked against the declaration.

    ``random`` is standard normal (0 or 1 for whole numbers), the same for a seed and a name.
    Raises :class:`RuntimeFault` E802 when it does not fit, E803 for a file that cannot be read and
    E805 when a size is needed that is not known.
    """
    if is_generated(value):
        return _generated(name, value, declared, seed)
    if is_picture(value):
        return check_input(name, _picture(name, value, declared, preprocess), declared)
    return check_input(name, array_from_file(name, value), declared)


def check_input(name: str, array: np.ndarray, declared: Declared) -> np.ndarray:
    """The array in the declared element type, itself where it has it.

    Raises :class:`RuntimeFault` E802.
    """
    kind, wanted = array.dtype, declared.dtype
    found = f"{_short(kind)}[{', '.join(map(str, array.shape))}]"
    fits = len(array.shape) == len(declared.shape) and all(
        isinstance(want, str) or want == size
        for want, size in zip(declared.shape, array.shape, strict=True)
    )
    if not fits:
        hint = None
        if array.ndim + 1 == len(declared.shape):
            hint = "is the batch axis missing? `array[None]` adds one"
        message = f"input `{name}` does not fit: expected {declared}, found {found}"
        raise RuntimeFault("E802", message, hint)
    whole = kind.kind in "iu" and wanted.kind in "iu"
    if not whole and not np.can_cast(kind, wanted, "same_kind"):
        message = f"input `{name}` does not fit: expected {declared}, found {found}"
        raise RuntimeFault("E802", message, f"convert it to {wanted}")
    cast = array.astype(wanted, copy=False)
    if cast is not array and wanted.kind in "iu" and not np.array_equal(cast, array):
        message = f"input `{name}` holds numbers that {wanted} cannot hold"
        raise RuntimeFault("E802", message, f"they go from {array.min()} to {array.max()}")
    return cast


# ---------------------------------------------------------------- helpers


def _generated(name: str, value: str, declared: Declared, seed: int) -> np.ndarray:
    shape: list[int] = []
    for size in declared.shape:
        if isinstance(size, str):
            message = f"the size {size} of input `{name}` is not known, so `{value}` cannot be made"
            shown = "x".join(map(str, declared.shape))
            hint = f"say it: `--shape {name}={shown}` with numbers in place of names"
            raise RuntimeFault("E805", message, hint)
        shape.append(size)
    if value == "zeros":
        return np.zeros(shape, declared.dtype)
    digest = hashlib.sha256(f"{seed}:input:{name}".encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    if declared.dtype.kind == "f":
        return rng.standard_normal(shape).astype(declared.dtype)
    # Below every count of classes and words, so that it is a valid index.
    return rng.integers(0, 2, shape).astype(declared.dtype)


def _picture(
    name: str, value: str, declared: Declared, preprocess: Preprocess | None
) -> np.ndarray:
    shape = declared.shape
    if len(shape) != 4 or declared.dtype.kind != "f":
        message = f"input `{name}` is {declared}, and a picture is f32[N, C, H, W]"
        raise RuntimeFault("E802", message)
    height, width = shape[2:]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    channels = shape[1] if isinstance(shape[1], int) else 3
    return load_image(value, size, channels, preprocess)


def array_from_file(name: str, value: str) -> np.ndarray:
    """The array of an ``.npy`` or ``.npz`` file (``FILE.npz:KEY``); ``name`` is for messages."""
    path, _, key = value.partition(".npz:")
    if key:
        return _from_archive(name, f"{path}.npz", key)
    suffix = Path(value).suffix.lower()
    if suffix == ".npz":
        return _from_archive(name, value, "")
    if suffix == ".npy":
        return open_npy(value)
    message = f"`{value}` is no value for the input `{name}`"
    raise RuntimeFault("E802", message, f"a value is {FORMS}")


def _from_archive(name: str, path: str, key: str) -> np.ndarray:
    with open_npz(path) as archive:
        names = archive.files
        # Without a key: the array called like the input, else the only one.
        wanted = key or (name if name in names or len(names) != 1 else names[0])
        if wanted in names:
            return archive[wanted]
    raise RuntimeFault("E803", f"`{path}` has no array `{wanted}`", suggestion(wanted, names))


def _short(kind: np.dtype) -> str:
    return "bool" if kind.kind == "b" else f"{kind.kind}{8 * kind.itemsize}"


def generated_bytes(values: Mapping[str, str], declared: Mapping[str, Declared]) -> int:
    """Bytes of the inputs that are generated, at most 8 an element."""
    total = 0
    for name, value in values.items():
        if is_generated(value):
            sizes = [size for size in declared[name].shape if isinstance(size, int)]
            total += int(np.prod(sizes, dtype=object)) * 8
    return total
