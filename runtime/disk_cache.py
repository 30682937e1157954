"""Files of the cache: written whole or not at all, and trusted only when they are whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from .machine import cache_folder

PARTS = ("kernels", "grammar")
"""Folders of the cache: machine code, and the parser's tables."""

DIGEST = hashlib.sha256
SIZE = 32


def read_entry(path: Path) -> bytes | None:
    """What :func:`write_entry` wrote; ``None`` when it is absent, unreadable or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:SIZE], content[SIZE:]
    return payload if DIGEST(payload).digest() == digest else None


def write_entry(path: Path, payload: bytes) -> None:
    """Keep bytes with their digest; raises ``OSError``."""
    write_whole(path, DIGEST(payload).digest() + payload)


def write_whole(path: Path, content: bytes) -> None:
    """Write all or nothing: another process may be reading, or writing the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def usage(part: str) -> tuple[int, int]:
    """Files and bytes of one part of the cache."""
    sizes = [file.stat().st_size for file in (cache_folder() / part).rglob("*") if file.is_file()]
    return len(sizes), sum(sizes)


def clear() -> int:
    """Delete all that is cached; the number of bytes freed.

    A process that is running keeps what it has loaded. Raises ``OSError`` where a file cannot be
    deleted.
    """
    freed = 0
    for part in PARTS:
        freed += usage(part)[1]
        if (cache_folder() / part).exists():
            shutil.rmtree(cache_folder() / part)
    return freed
