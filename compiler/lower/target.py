"""What the lowering needs to know of the machine that will run the code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A CPU: float32 lanes of its vectors, threads of a call, and cache sizes in bytes.

    ``precise`` keeps to direct sums: no Winograd.
    """

    lanes: int = 16
    threads: int = 1
    l1: int = 32 << 10
    l2: int = 1 << 20
    precise: bool = False

    @property
    def accumulators(self) -> int:
        """Registers that a tile may use for sums."""
        return 28 if self.lanes == 16 else 12
