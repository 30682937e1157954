"""Text as windows of characters, for models that say which comes next.

``python_docs`` is the reference of the language that comes with every Python (``pydoc_data``):
465,000 characters in Python 3.11. Its characters are the 95 printable ones of ASCII and the line's
end, always these, so that a model for it has 96 classes under every version.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..faults import RuntimeFault, unreadable
from .dataset import Dataset, Field
from .parts import split

if TYPE_CHECKING:
    from .sources import Source

ASCII = "\n" + "".join(map(chr, range(32, 127)))
PARTS = {"train": 0.9, "validate": 0.1}
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--"})


class TextWindows:
    """Windows of ``length`` characters, one behind the other.

    Fields ``text`` i32[length] and ``next``, the same one character on; both hold numbers of
    characters in ``alphabet``.
    """

    consecutive = True

    def __init__(self, codes: np.ndarray, alphabet: str, length: int) -> None:
        self._codes, self.alphabet, self._length = codes, alphabet, length
        field = Field(np.dtype(np.int32), (length,), tuple(alphabet))
        self.fields = {"text": field, "next": field}
        if len(self) == 0:
            message = f"a text of {len(codes)} characters has no window of {length} and the next"
            raise RuntimeFault("E807", message, "give a smaller `length`")

    @property
    def fingerprint(self) -> str:
        """A hash of the text, the alphabet and the length."""
        digest = hashlib.sha256(f"{self.alphabet} {self._length} ".encode())
        digest.update(np.ascontiguousarray(self._codes, np.int32).data)
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return max(0, len(self._codes) - 1) // self._length

    def take(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of some examples; see :class:`Dataset`."""
        places = examples[:, None] * self._length + np.arange(self._length + 1)
        window = self._codes[places].astype(np.int32)
        return {"text": window[:, :-1], "next": window[:, 1:]}

    def column(self, name: str) -> np.ndarray:
        """One field of all windows."""
        return self.take(np.arange(len(self)))[name]


def read_text(source: Source, path: Path) -> Mapping[str, Dataset]:
    """A text file in UTF-8; its alphabet are the characters in it, in order of their numbers."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    if not text:
        raise RuntimeFault("E807", f"{source.name} is empty")
    return _parts(text, "".join(sorted(set(text))), source)


def python_docs(source: Source) -> Mapping[str, Dataset]:
    """The topics of Python's own help, in alphabetical order; see the module."""
    try:
        topics = import_module("pydoc_data.topics").topics
    except ImportError as error:
        message = "this Python comes without the texts of its help, which `python_docs` is"
        raise RuntimeFault("E804", message, "install the whole standard library") from error
    text = "\n\n".join(topics[name].strip() for name in sorted(topics)).translate(_PLAIN)
    decomposed = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return _parts("".join(c for c in decomposed if c in ASCII), ASCII, source)


def _parts(text: str, alphabet: str, source: Source) -> Mapping[str, Dataset]:
    whole = TextWindows(_codes(text, alphabet), alphabet, source.length)
    return {"all": whole} if isinstance(source.split, Mapping) else split(whole, PARTS, 0)


def _codes(text: str, alphabet: str) -> np.ndarray:
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    order = np.frombuffer(alphabet.encode("utf-32-le"), "<u4")
    return np.searchsorted(order, points).astype(np.int32)
