"""What runs between the turns of a loop: moving the addresses of its rows, and deciding to stop."""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

DECIDE_WORDS = ["turn", "visit", "log", "most", "tol_bits", "fault"]
"""Addresses of two cells of the loop and of its log, the most turns it has, the bound of a change
(float64 bits), and the cell that is set when turns run out; then the addresses that are read."""


@dataclass(frozen=True)
class MoveWordsKernel:
    """Words of other rows: a count, then (address, number) pairs; one task.

    ``how`` is ``set`` (the number is the word's new value) or ``advance`` (it is added).
    """

    how: str

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"{self.how}_words"

    def source(self) -> str:
        """The kernel's Python source."""
        value = "load_i64(row + 16)"
        value = f"load_i64(at) + {value}" if self.how == "advance" else value
        return "\n".join([
            '"""Addresses that rows of a loop read."""',
            "from tilth.runtime.simd import load_i64, store_i64",
            "",
            "",
            "def kernel(row, task, slot):",
            "    for _ in range(load_i64(row)):",
            "        at = load_i64(row + 8)",
            f"        store_i64(at, {value})",
            "        row += 16",
        ]) + "\n"  # fmt: skip


@dataclass(frozen=True)
class DecideKernel:
    """Ends a turn of a loop that watches its values: writes its log when it is over.

    With no ``changes`` it reads a truth value and stops where that holds; else it reads so many
    numbers of type ``dtype``, stops when all are below ``tol``, and reports when turns run out.
    """

    changes: int
    dtype: str = "f64"

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"decide_{self.changes}_{self.dtype}"

    def source(self) -> str:
        """The kernel's Python source."""
        first = 8 * len(DECIDE_WORDS)
        if self.changes:
            stop = " and ".join(
                f"load_{self.dtype}(load_i64(row + {first + 8 * i})) < tol"
                for i in range(self.changes)
            )
        else:
            stop = f"load_u8(load_i64(row + {first})) != 0"
        return "\n".join([
            '"""The end of a turn."""',
            "from tilth.runtime.simd import load_f32, load_f64, load_i64, load_u8, store_i64",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(DECIDE_WORDS),
            f"    tol = load_f64(row + {8 * DECIDE_WORDS.index('tol_bits')})",
            "    done = load_i64(turn) + 1",
            f"    stop = {stop}",
            "    number = load_i64(visit)",
            "    if stop:",
            "        store_i64(log + number * 8, done)",
            "    elif done == most and fault != 0:",
            "        store_i64(fault, done)",
            "    if stop or done == most:",
            "        store_i64(visit, number + 1)",
            "        done = 0",
            "    store_i64(turn, done)",
        ]) + "\n"  # fmt: skip


ROWS = {"MoveWordsKernel": None, "DecideKernel": None}
"""Rows differ in length, so they have no fixed names."""
