"""What goes wrong while a model runs, as a value: a code, a message, the way out."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable
from difflib import get_close_matches

SHOWN = 8
"""How many names of a long list are written out."""


class RuntimeFault(Exception):
    """A fault of the user's files or machine.

    ``code`` is a diagnostic code (E703, E801 to E810); ``details`` are lines below the message.
    """

    def __init__(
        self, code: str, message: str, hint: str | None = None, details: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = tuple(details)

    def __str__(self) -> str:
        hint = [f"hint: {self.hint}"] if self.hint else []
        return "\n   ".join([self.message, *self.details, *hint])


def unreadable(path: str | os.PathLike[str], error: Exception | str) -> RuntimeFault:
    """E803 for a file, with the system's reason in plain words."""
    return RuntimeFault("E803", f"cannot read `{os.fspath(path)}`: {_reason(error)}")


def unwritable(path: str | os.PathLike[str], error: Exception | str) -> RuntimeFault:
    """E806 for a file, with the system's reason in plain words."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "free some space; what was there before is unchanged" if full else None
    return RuntimeFault("E806", f"cannot write `{os.fspath(path)}`: {_reason(error)}", hint)


def _reason(error: Exception | str) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, FileNotFoundError):
        return "no such file or directory"  # safetensors' own text names the file again
    return str(error) or type(error).__name__


def suggestion(name: str, known: Collection[str]) -> str:
    """``did you mean ...?`` when some names are close, else what there is."""
    close = get_close_matches(name, known, 3)
    if close:
        return "did you mean " + " or ".join(f"`{other}`" for other in close) + "?"
    listed = sorted(known)[:SHOWN]
    more = f" and {len(known) - len(listed)} more" if len(known) > len(listed) else ""
    return "there is " + ", ".join(listed) + more if listed else "there is none"


def size_text(count: float) -> str:
    """Bytes in a readable unit: ``97.8 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
