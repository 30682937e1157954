"""Opening ``.npz`` and ``.npy`` files, with every way in which one can be broken as one fault."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .faults import unreadable


@contextmanager
def open_npz(path: str | os.PathLike[str]) -> Iterator[np.lib.npyio.NpzFile]:
    """The archive; raises ``RuntimeFault`` E803. Pickled objects are never opened."""
    try:
        archive = _loaded(path)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name, as an .npy file does")
        with archive:
            yield archive
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(path, error) from error


def open_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of an ``.npy`` file; raises ``RuntimeFault`` E803. Pickles are never opened."""
    try:
        array = _loaded(path)
        if isinstance(array, np.lib.npyio.NpzFile):
            array.close()
            raise ValueError("it holds arrays with names, as an .npz file does")
        return array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise unreadable(path, error) from error


def _loaded(path: str | os.PathLike[str]) -> np.ndarray | np.lib.npyio.NpzFile:
    """What numpy makes of a file that begins as one of its own; it takes others for pickles."""
    with open(path, "rb") as stream:
        start = stream.read(6)
    if not start.startswith((b"PK", b"\x93NUMPY")):
        raise ValueError("it begins neither as an .npz nor as an .npy file does")
    return np.load(path, allow_pickle=False)
