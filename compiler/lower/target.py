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
    def registers(self) -> int:
        """Vector registers: 32 with AVX-512, else 16."""
        return 32 if self.lanes == 16 else 16
