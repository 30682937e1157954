"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .faults import unwritable


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place to write a new version of a file to; at the end it takes the file's place.

    What was there stays until the new version is on the disk (written, synchronised, renamed, and
    the folder synchronised), and stays when anything fails. Raises :class:`RuntimeFault` E806.
    """
    file = Path(path)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield part
        synchronise(part)
        part.replace(file)
        synchronise(file.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def synchronise(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no handle for a folder's names.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
