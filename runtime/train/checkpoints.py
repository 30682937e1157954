"""Checkpoints: one safetensors file each, whole or not at all, checked when it is read.

A checkpoint holds the weights by path, the other tensors of training (optimiser slots, averages)
under names that start with ``@``, and in its metadata, under one key, the state and a checksum of
it all as JSON. (safetensors writes several keys in no order, and equal runs give equal files here.)
So any reader of safetensors can use it, and ``--weights last.safetensors`` takes the weights alone.

A run's folder holds ``last.safetensors``, the one before as ``previous.safetensors`` (and
``previous-2``... when more are kept), and ``best.safetensors``, which has the weights only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..faults import RuntimeFault, unreadable, unwritable
from ..files import replaced, synchronise
from ..weights import SLOT

Arrays = Mapping[str, np.ndarray]

LAST, BEST, NEXT = "last.safetensors", "best.safetensors", "next.safetensors"
KEY, FORMAT = "tilth", "checkpoint-2"


@dataclass(frozen=True)
class Checkpoint:
    """What training needs to go on as if it had not stopped.

    ``weights`` are parameters and buffers by path; ``slots`` all other tensors by a name of the
    trainer's choice; ``state`` is what JSON can hold (counters, the position in the data, metrics).
    """

    weights: Arrays
    slots: Arrays = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)

    def require(self, expected: Mapping[str, Any], file: str = "the checkpoint") -> None:
        """Raise E808 unless the state holds these entries, as ``spec`` or ``data``."""
        differing = [name for name, value in expected.items() if self.state.get(name) != value]
        if differing:
            message = f"`{file}` is of another run: its {' and '.join(differing)} differ"
            lines = [f"{n}: {self.state.get(n)} there, {expected[n]} here" for n in differing]
            raise RuntimeFault("E808", message, "start anew in another folder", lines)


def save_checkpoint(folder: str | os.PathLike[str], checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write the folder's newest checkpoint and keep ``keep`` in all (never fewer than two).

    Whenever the process or the machine stops, the folder holds a complete checkpoint that
    :func:`load_checkpoint` finds. Raises :class:`RuntimeFault` E806; then all that was there is
    there still.
    """
    place = made_folder(folder)
    _write(place / NEXT, checkpoint)
    kept = _kept(place, max(keep, 2))
    try:
        for older, newer in zip(reversed(kept), reversed(kept[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)
        (place / NEXT).replace(place / LAST)
        for path in _older(place, len(kept)):
            path.unlink(missing_ok=True)
        synchronise(place)
    except OSError as error:
        raise unwritable(place / LAST, error) from error
    return place / LAST


def save_best(folder: str | os.PathLike[str], weights: Arrays, state: Mapping[str, Any]) -> Path:
    """Replace the folder's best weights; raises :class:`RuntimeFault` E806."""
    place = made_folder(folder)
    _write(place / BEST, Checkpoint(weights, {}, state))
    return place / BEST


def load_checkpoint(
    folder: str | os.PathLike[str], note: Callable[[str], None] = lambda line: None
) -> Checkpoint | None:
    """The newest checkpoint of a folder that is whole; ``None`` where there is none at all.

    ``note`` gets a line about each newer one that is damaged. Raises :class:`RuntimeFault` E808
    when all are.
    """
    place = Path(folder)
    names = [place / NEXT, place / LAST, *_older(place, 1)]
    damaged: list[RuntimeFault] = []
    for path in (path for path in names if path.exists()):
        try:
            found = read_checkpoint(path)
        except RuntimeFault as fault:
            damaged.append(fault)
            continue
        for fault in damaged:
            note(f"{fault.message}; going on from `{path.name}` instead")
        return found
    if damaged:
        lines = [fault.message for fault in damaged]
        message = f"no checkpoint in `{place}` can be used"
        raise RuntimeFault("E808", message, "start anew in another folder", lines)
    return None


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """One checkpoint; raises :class:`RuntimeFault` E803 without it and E808 if it is damaged."""
    file = Path(path)
    if not file.is_file():
        raise unreadable(path, "no such file")
    try:
        with safe_open(file, "numpy") as opened:
            stored = (opened.metadata() or {}).get(KEY, "{}")
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _damaged(file, "it is cut off or not a safetensors file") from error
    try:
        metadata = json.loads(stored)
    except ValueError as error:
        raise _damaged(file, "its metadata cannot be read") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        hint = "weights alone are given with `--weights`"
        raise RuntimeFault("E808", f"`{file}` is not a checkpoint of this version", hint)
    if metadata.get("sha256") != _checksum(arrays, metadata.get("state", "")):
        raise _damaged(file, "its checksum is not that of what it holds")
    weights = {name: array for name, array in arrays.items() if not name.startswith(SLOT)}
    slots = {n.removeprefix(SLOT): array for n, array in arrays.items() if n.startswith(SLOT)}
    return Checkpoint(weights, slots, json.loads(metadata["state"]))


# ---------------------------------------------------------------- helpers


def made_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, there now; raises :class:`RuntimeFault` E806."""
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(place, error) from error
    return place


def _write(path: Path, checkpoint: Checkpoint) -> None:
    arrays = {name: np.asarray(array, order="C") for name, array in checkpoint.weights.items()}
    arrays |= {f"{SLOT}{n}": np.asarray(a, order="C") for n, a in checkpoint.slots.items()}
    state = json.dumps(checkpoint.state, sort_keys=True)
    metadata = {"format": FORMAT, "state": state, "sha256": _checksum(arrays, state)}
    stored = {KEY: json.dumps(metadata)}
    with replaced(path) as part:
        try:
            save_file(arrays, part, stored)
        except SafetensorError as error:
            raise _as_os_error(error) from error


def _as_os_error(error: SafetensorError) -> OSError:
    """The system's error in safetensors' text ``... (os error 28)``."""
    _, found, number = str(error).rpartition("(os error ")
    digits = number.partition(")")[0]
    if found and digits.isdigit():
        return OSError(int(digits), os.strerror(int(digits)))
    return OSError(str(error))


def _checksum(arrays: Arrays, state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _damaged(file: Path, why: str) -> RuntimeFault:
    return RuntimeFault("E808", f"the checkpoint `{file}` is damaged: {why}")


def _kept(place: Path, keep: int) -> list[Path]:
    """Newest first: last, previous, previous-2 and so on."""
    return [place / LAST, *(place / _name(n) for n in range(1, keep))]


def _older(place: Path, start: int) -> list[Path]:
    """Previous checkpoints from the ``start``-th on, newest first."""
    numbers = {1}
    for path in place.glob("previous-*.safetensors"):
        number = path.stem.removeprefix("previous-")
        if number.isdigit():
            numbers.add(int(number))
    return [place / _name(number) for number in sorted(numbers) if number >= start]


def _name(number: int) -> str:
    return "previous.safetensors" if number == 1 else f"previous-{number}.safetensors"
