"""What to do with outputs: save them to a file, read scores as classes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from .faults import RuntimeFault, unreadable
from .files import replaced

Ranking = list[tuple[int, float]]
"""Classes with their probabilities, the likeliest first."""


def top_classes(outputs: Mapping[str, np.ndarray], count: int) -> tuple[str, list[Ranking]]:
    """The likeliest classes of every example, by the first output that holds class scores.

    Scores are a float array ``[classes]`` or ``[examples, classes]``; rows that are not
    probabilities already go through a softmax. Raises :class:`RuntimeFault` E802 without such an
    output.
    """
    for name, array in outputs.items():
        if array.dtype.kind == "f" and array.ndim in (1, 2) and array.shape[-1] > 1:
            rows = _probabilities(np.atleast_2d(array).astype(np.float64))
            # A stable sort, so that ties come in class order.
            order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
            ranked = zip(order, rows, strict=True)
            return name, [[(int(i), float(row[i])) for i in places] for places, row in ranked]
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
    raise RuntimeFault("E802", f"no output holds class scores: {shapes or 'there is none'}")


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """Names of classes, one a line; raises :class:`RuntimeFault` E803."""
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error


def save_outputs(path: str | os.PathLike[str], outputs: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz`` file, or an ``.npy`` file of a single output, whole or not at all.

    Raises :class:`RuntimeFault` E806.
    """
    file = Path(path)
    if file.suffix not in (".npz", ".npy"):
        raise RuntimeFault("E806", f"cannot write `{path}`", "outputs go to an .npz or .npy file")
    if file.suffix == ".npy" and len(outputs) != 1:
        message = f"`{path}` takes one output, and there are {len(outputs)}"
        raise RuntimeFault("E806", message, "write an .npz file")
    with replaced(file) as part, part.open("wb") as stream:
        if file.suffix == ".npy":
            np.save(stream, next(iter(outputs.values())), allow_pickle=False)
        else:
            _write_archive(stream, outputs)


# ---------------------------------------------------------------- helpers


def _probabilities(rows: np.ndarray) -> np.ndarray:
    if np.all(rows >= 0) and np.allclose(rows.sum(axis=1), 1, atol=1e-4):
        return rows
    weights = np.exp(rows - rows.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _write_archive(stream: IO[bytes], outputs: Mapping[str, np.ndarray]) -> None:
    # numpy.savez takes names as keywords, and an output may be called `file`.
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
