"""Where an engine's time goes: one line an op, against what the machine can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Profiled:
    """An op: milliseconds, floating-point operations, bytes read and written.

    The last two are ``None`` where they are not known. The arithmetic is the model's: an algorithm
    that needs less of it (Winograd's) may go beyond the machine's peak. Bytes are operands and
    results, each counted once.
    """

    name: str
    ms: float
    flops: int | None = None
    moved: int | None = None

    @property
    def gflops(self) -> float | None:
        """10^9 operations a second."""
        return self.flops / self.ms / 1e6 if self.flops and self.ms else None

    @property
    def gbytes(self) -> float | None:
        """10^9 bytes a second."""
        return self.moved / self.ms / 1e6 if self.moved and self.ms else None


@dataclass(frozen=True)
class Machine:
    """What the machine did in the same run: operations a second, bytes a second from memory."""

    flops: float
    bytes: float

    def roofline(self, op: Profiled) -> float | None:
        """The share of the op's time that arithmetic or memory needs at the least.

        Williams, Waterman and Patterson, Roofline, 2009. Above 1 where data came from a cache, or
        where an algorithm needs less arithmetic.
        """
        if op.flops is None or op.moved is None or not op.ms:
            return None
        least = max(op.flops / self.flops, op.moved / self.bytes)
        return least * 1e3 / op.ms

    def bound(self, op: Profiled) -> str:
        """What bounds the op by that model."""
        if op.flops is None or op.moved is None:
            return ""
        return "arithmetic" if op.flops / self.flops > op.moved / self.bytes else "memory"


def total(ops: Sequence[Profiled]) -> Profiled:
    """All ops as one; unknown numbers count as nothing."""
    return Profiled(
        "total",
        sum(op.ms for op in ops),
        sum(op.flops or 0 for op in ops),
        sum(op.moved or 0 for op in ops),
    )
