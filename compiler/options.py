"""What the compiler may do to a graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Choices that passes ask about.

    ``precise`` forbids every rewrite that rounds differently from the reference. ``training``
    keeps what only matters while learning: dropout, stopped gradients, batch norms. ``cache`` is
    the bytes of the caches that the threads of a call have for themselves, 0 where that is unknown.
    """

    precise: bool = False
    training: bool = False
    cache: int = 0
