"""The contract between a plan and its kernels: rows of words, tasks, slots.

A kernel is a serial compiled function ``kernel(row, task, slot)``: ``row`` is the byte address of
its parameter row (8-byte words), ``task`` counts ``0 .. tasks - 1``, ``slot`` numbers the thread
within the call (``0 .. threads - 1``) and picks its part of the scratch memory. A word is a whole
number, a float64 (:func:`word_of`), or an address that :class:`Address` resolves at each call.

Every plan row starts with the kernel's address and its task count; the kernel sees what follows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER = 2
"""Words before a kernel's own row: function address, number of tasks."""

LOOP_END = -1
"""Tasks of a row that is no kernel call but the end of a loop (see ``walker``)."""

LOOP_WORDS = ("target", "loop", "trips", "log")
"""The words of such a row: the step to go back to, the loop's number, the most turns it has, and
the address of its log (0 for a loop that always makes all its turns)."""

SPACES = ("literal", "arena", "weights", "scratch", "cells", "rows", "io")
"""Where an address points: the call's arena, packed weights, the call's scratch (slot 0), its cells
(int64, 0 when the call starts), word ``offset`` of the row of step ``index`` (``rows``: kernels
that run between the turns of a loop move the addresses of other rows), or the n-th input or output
array of the call (``io``; the offset is added to the array's address)."""


@dataclass(frozen=True)
class Address:
    """A word that is ``base(space) + offset`` bytes; ``index`` picks the array for ``io``.

    In ``rows`` the offset counts words of the kernel's own row, and ``index`` is the step.
    """

    space: str
    offset: int
    index: int = 0


Word = int | Address
"""One word of a row."""


def word_of(value: float) -> int:
    """The bits of a float64 as a word; kernels read it with ``load_f64``."""
    return struct.unpack("<q", struct.pack("<d", value))[0]


@dataclass(frozen=True)
class Step:
    """One kernel call of a plan: ``tasks`` of ``kernel`` on ``words``; ``label`` names it."""

    kernel: str
    tasks: int
    words: tuple[Word, ...]
    label: str = ""
