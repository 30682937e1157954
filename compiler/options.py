"""What the compiler may do to a graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Choices that passes ask about.

    ``precise`` forbids every rewrite that rounds differently from the reference. ``training``
    keeps what only matters while learning: dropout, stopped gradients, batch norms. ``threads``
    are those that a call may use, 0 where no code is made.
    """

    precise: bool = False
    training: bool = False
    threads: int = 0
