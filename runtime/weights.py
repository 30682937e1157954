"""Weights from a file, by name: read, cut by the spec's rules, checked against the model.

Strict by default: a name that is missing, left over or of another shape is a fault, and all of
them are listed with the nearest matches.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .archives import open_npz
from .faults import SHOWN, RuntimeFault, unreadable
from .files import replaced

Arrays = dict[str, np.ndarray]

IGNORED = "num_batches_tracked"
"""PyTorch's counter of a batch norm's updates, which no model here reads."""

SLOT = "@"
"""What the names of a checkpoint's other tensors start with (see ``train/checkpoints.py``)."""

SAFE_DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What the model needs on one path."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Piece:
    """A rule: the weight at ``path`` is ``file_name``, cut by ``slices`` (all of it when empty)."""

    file_name: str
    slices: tuple[slice, ...]
    path: str

    def __str__(self) -> str:
        ends = (f"{'' if s.start is None else s.start}:{'' if s.stop is None else s.stop}"
                for s in self.slices)  # fmt: skip
        return f"{self.file_name}[{', '.join(ends)}]" if self.slices else self.file_name


@dataclass(frozen=True)
class Loaded:
    """Arrays by weight path, and what did not fit (empty after strict loading)."""

    arrays: Arrays
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mis_shaped: tuple[str, ...] = ()
    lines: tuple[str, ...] = field(default=(), repr=False)


def load_weights(
    path: str | os.PathLike[str],
    wanted: Mapping[str, Wanted],
    pieces: Mapping[str, Sequence[Piece]] | None = None,
    strict: bool = True,
) -> Loaded:
    """The model's weights from a ``.safetensors`` or ``.npz`` file.

    Parameters
    ----------
    wanted
        Shape and element type by weight path.
    pieces
        Rules by checkpoint format (``torch``, ``timm``...); the format with the most names in the
        file is used, none when no name is there.
    strict
        Whether anything that does not fit is a fault; otherwise it is left out and listed.

    Raises
    ------
    RuntimeFault
        E803 for a file that cannot be read, E801 for weights that do not match.
    """
    return fit_weights(read_arrays(path), wanted, pieces, os.fspath(path), strict)


def fit_weights(
    arrays: Mapping[str, np.ndarray],
    wanted: Mapping[str, Wanted],
    pieces: Mapping[str, Sequence[Piece]] | None = None,
    file: str = "the weights",
    strict: bool = True,
) -> Loaded:
    """The model's weights out of arrays by name; see :func:`load_weights`."""
    found = _match(arrays, wanted, pieces or {})
    if strict and found.lines:
        counts = (
            (len(found.missing), "missing"),
            (len(found.unexpected), "unexpected"),
            (len(found.mis_shaped), "of another shape or type"),
        )
        summary = ", ".join(f"{count} {what}" for count, what in counts if count)
        message = f"`{file}` does not match the model: {summary}"
        hint = "`tilth run --no-strict` loads what fits and initialises the rest"
        raise RuntimeFault("E801", message, hint, found.lines)
    return found


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """All arrays of a ``.safetensors`` or ``.npz`` file; bfloat16 comes as float32."""
    file = Path(path)
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        hint = "weights are read from .safetensors and .npz files"
        if file.suffix.lower() in (".pt", ".pth", ".bin", ".ckpt"):
            hint = (
                "a PyTorch pickle can run code when it is opened; convert it once with "
                "`safetensors.torch.save_file(torch.load(FILE), 'FILE.safetensors')`"
            )
        raise RuntimeFault("E803", f"`{path}` is not a weights file that can be read", hint)
    try:
        return reader(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise unreadable(path, error) from error


# ---------------------------------------------------------------- reading


def save_weights(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write weights by path to a ``.safetensors`` file, whole or not at all; raises E806."""
    whole = {name: np.array(array, order="C") for name, array in arrays.items()}
    with replaced(path) as part:
        save_file(whole, part)


def _read_safetensors(file: Path) -> Arrays:
    """Views of the mapped file: a page is read when its numbers are, and can be dropped again."""
    with safe_open(file, "numpy"):
        pass  # it checks the whole header: types, shapes, that the arrays fill the file
    with file.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(start - 8))
        pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    return {name: _mapped(name, entry, pages, start) for name, entry in header.items()}


def _mapped(name: str, entry: Mapping[str, Any], pages: mmap.mmap, start: int) -> np.ndarray:
    kind, shape, place = entry["dtype"], entry["shape"], start + entry["data_offsets"][0]
    if kind == "BF16":
        # The upper half of a float32.
        half = np.ndarray(shape, "<u2", pages, place)
        return (half.astype("<u4") << 16).view("<f4")
    if kind not in SAFE_DTYPES:
        raise ValueError(f"the element type {kind} of `{name}` is not known here")
    return np.ndarray(shape, np.dtype(SAFE_DTYPES[kind]).newbyteorder("<"), pages, place)


def _read_npz(file: Path) -> Arrays:
    with open_npz(file) as archive:
        return {name: archive[name] for name in archive.files}


# ---------------------------------------------------------------- matching


def _match(
    arrays: Mapping[str, np.ndarray],
    wanted: Mapping[str, Wanted],
    pieces: Mapping[str, Sequence[Piece]],
) -> Loaded:
    present = {name: array for name, array in arrays.items() if _counts(name)}
    rules = _best_rules(pieces, present)
    given, cut_faults = _cut(present, rules)
    faults = {path: _misfit(given[path], wanted[path]) for path in wanted if path in given}
    mis_shaped = [path for path, fault in faults.items() if fault]
    fitting = {
        path: given[path].astype(wanted[path].dtype, copy=False)
        for path, fault in faults.items()
        if not fault
    }
    named = {rule.path for rule in rules if rule.file_name not in present}
    missing = [path for path in wanted if path not in given]
    left = [name for name in given if name not in wanted]
    lines = _short([f"{path}: {faults[path]}" for path in mis_shaped])
    lines += _short([_missing(path, left, path in named) for path in missing])
    lines += _short([f"{name}: {text}" for name, text in cut_faults])
    lines += _short([f"{name}: not in the model" for name in left])
    unexpected = (*left, *(name for name, _ in cut_faults))
    return Loaded(fitting, tuple(missing), unexpected, tuple(mis_shaped), tuple(lines))


def _counts(name: str) -> bool:
    return name.rpartition(".")[2] != IGNORED and not name.startswith(SLOT)


def _best_rules(pieces: Mapping[str, Sequence[Piece]], present: Collection[str]) -> Sequence[Piece]:
    """The rules of the format that this file is in."""

    def hits(rules: Sequence[Piece]) -> int:
        return len({rule.file_name for rule in rules} & set(present))

    best = max(pieces.values(), key=hits, default=())
    return best if hits(best) else ()


def _cut(
    present: Mapping[str, np.ndarray], rules: Sequence[Piece]
) -> tuple[Arrays, list[tuple[str, str]]]:
    """Arrays by the model's paths, and the parts of the file that no rule reads.

    Parts that go to one path are added: PyTorch's two biases of an LSTM are one in its formula.
    """
    ruled = {rule.file_name for rule in rules}
    given = {name: array for name, array in present.items() if name not in ruled}
    faults: list[tuple[str, str]] = []
    for name in sorted(ruled & present.keys()):
        array, used = present[name], np.zeros(present[name].shape, bool)
        for rule in rules:
            if rule.file_name != name:
                continue
            if _outside(rule.slices, array.shape):
                faults.append((str(rule), f"the file's {name} is {list(array.shape)}"))
                continue
            part, before = array[rule.slices], given.get(rule.path)
            if before is not None and before.shape != part.shape:
                shown = f"{list(part.shape)}, added to {list(before.shape)} of {rule.path}"
                faults.append((str(rule), shown))
                continue
            given[rule.path] = part if before is None else before + part
            used[rule.slices] = True
        if not used.all():
            faults.append((name, f"{np.size(used) - used.sum()} of its numbers go nowhere"))
    return given, faults


def _outside(slices: Sequence[slice], shape: tuple[int, ...]) -> bool:
    """Whether a cut leaves the array; numpy itself would shorten it in silence."""
    if len(slices) > len(shape):
        return True
    ends = zip(slices, shape, strict=False)
    return any(
        not 0 <= (s.start or 0) <= (size if s.stop is None else s.stop) <= size for s, size in ends
    )


def _misfit(array: np.ndarray, need: Wanted) -> str:
    if array.shape != need.shape:
        return f"the model has {list(need.shape)}, the file {list(array.shape)}"
    if not np.can_cast(array.dtype, need.dtype, "same_kind"):
        return f"the model has {need.dtype}, the file {array.dtype}"
    return ""


def _missing(path: str, left: Sequence[str], ruled: bool) -> str:
    if ruled:
        return f"{path}: missing; the file lacks the name that the spec's rule reads"
    close = get_close_matches(path, left, 2)
    near = " or ".join(f"`{name}`" for name in close)
    return f"{path}: missing; did you mean {near}?" if close else f"{path}: missing"


def _short(lines: Sequence[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"and {more} more"] if more > 0 else list(lines)
