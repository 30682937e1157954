"""Sweeps over a process: kernels with their rows filled in, and the bounds that a sweep proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..abi import word_of
from ..kernel_cache import kernel
from ..machine import cores
from ..walker import counter_words, walk
from .process import INDEX, Process

TASK = 1 << 15
"""Entries and rows that a task goes through."""
SERIAL = 1 << 15
"""Entries up to which a sweep is not worth sharing between threads."""
LIFE_SWEEPS = 5_000
LONGEST_LIFE = 1e8


@dataclass(frozen=True)
class DecisionKernel:
    """A kernel of one of the modules under ``runtime/kernels``."""

    module: str
    function: str

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"{self.module}_{self.function}"

    def source(self) -> str:
        """The kernel's Python source."""
        return (
            f'"""Decision processes: {self.function}."""\n'
            f"from tilth.runtime.kernels.{self.module} import {self.function}\n\n\n"
            "def kernel(row, task, slot):\n"
            f"    {self.function}(row, task, slot)\n"
        )


def run_kernel(
    chosen: DecisionKernel, tasks: int, words: Sequence[np.ndarray | float | int | None],
    threads: int = 1,
) -> None:  # fmt: skip
    """Run ``tasks`` of a kernel; arrays are given by their address, ``None`` as 0."""
    found = kernel(chosen.name, chosen.source())
    row = np.array([found.address, tasks, *map(_word, words)], np.int64)
    team = max(1, min(threads, tasks))
    counters = np.zeros(counter_words(team, 0), np.int64)
    walk(row, np.zeros(1, np.int64), counters, team)


def _word(item: np.ndarray | float | int | None) -> int:
    if item is None:
        return 0
    if isinstance(item, np.ndarray):
        assert item.flags.c_contiguous
        return item.ctypes.data
    return word_of(item) if isinstance(item, float) else item


class Sweeper:
    """Runs kernels over one process.

    Parameters
    ----------
    process
        The process.
    threads
        Threads of a sweep; ``None`` takes all the machine's.
    """

    def __init__(self, process: Process, threads: int | None = None) -> None:
        self.process = process
        work = process.entries + process.rows
        self.threads = (threads or cores()) if work > SERIAL else 1
        self.chunk = max(1, TASK * process.states // max(1, work))
        self.tasks = max(1, -(-process.states // self.chunk))
        self.stats = np.empty((self.tasks, 2))
        self.lasting = np.empty(process.states, np.uint8)
        self._run("totals", [None, None, self.lasting])

    def _run(self, name: str, words: Sequence[np.ndarray | float | int | None]) -> None:
        p = self.process
        base = [p.states, self.chunk, p.first, p.start, p.next, p.weight, p.reward]
        run_kernel(DecisionKernel("bellman", name), self.tasks, [*base, *words], self.threads)

    # ------------------------------------------------------------ sweeps

    def backup(
        self, values: np.ndarray, new: np.ndarray, best: np.ndarray | None = None
    ) -> tuple[float, float]:
        """``new = max_a (reward + P values)``; the smallest and the largest change."""
        self._run("backup", [values, new, best, self.stats, self.lasting])
        return self._change()

    def follow(
        self, values: np.ndarray, new: np.ndarray, best: np.ndarray
    ) -> tuple[float, float]:  # fmt: skip
        """``new = reward + P values`` of each state's row ``best``; the changes as in a backup."""
        self._run("follow", [values, new, best, self.stats, self.lasting])
        return self._change()

    def improve(self, values: np.ndarray, best: np.ndarray, margin: float) -> int:
        """Move ``best`` to rows that are better; how many states changed."""
        changed = np.empty(self.tasks, np.int64)
        self._run("improve", [values, best, changed, margin])
        return int(changed.sum())

    def action_values(self, values: np.ndarray) -> np.ndarray:
        """The value of every row."""
        q = np.empty(self.process.rows)
        self._run("actions", [values, q])
        return q

    def serial(
        self, module: str, name: str, words: Sequence[np.ndarray | float | int | None]
    ) -> None:
        """A kernel of one task behind the process's words."""
        p = self.process
        base = [p.states, p.states, p.first, p.start, p.next, p.weight, p.reward]
        run_kernel(DecisionKernel(module, name), 1, [*base, *words])

    def totals(self, counts: np.ndarray | None) -> np.ndarray:
        """Each row's weight into the states that count (all for ``None``)."""
        sums = np.empty(self.process.rows)
        self._run("totals", [counts, sums, None])
        return sums

    def _change(self) -> tuple[float, float]:
        low, high = float(self.stats[:, 0].min()), float(self.stats[:, 1].max())
        return (low, high) if low <= high else (0.0, 0.0)

    # ------------------------------------------------------------ bounds

    @cached_property
    def discounts(self) -> tuple[float, float]:
        """The least and the greatest weight of a row of a lasting state into lasting states."""
        sums = self.totals(self.lasting)
        rows = np.repeat(self.lasting.view(bool), np.diff(self.process.first))
        return (
            float(sums.min(where=rows, initial=1.0)),
            float(sums.max(where=rows, initial=0.0)),
        )

    @cached_property
    def life(self) -> float | None:
        """A bound on the expected length of any episode, where every policy ends; else ``None``.

        w = 1 + max_a P w from below; if a sweep changes w by at most d < 1, w / (1 - d) bounds it.
        """
        if self.trap().any():
            return None
        p = self.process
        ones = Sweeper(Process(p.shape, p.actions, p.first, p.action, p.start, p.next, p.weight,
                               np.ones(p.rows)), self.threads)  # fmt: skip
        life, new = np.zeros(p.states), np.zeros(p.states)
        for _ in range(LIFE_SWEEPS):
            _, change = ones.backup(life, new)
            life, new = new, life
            longest = float(life.max(initial=0.0))
            if change <= 0.1:
                return longest / (1 - change)
            if longest > LONGEST_LIFE:
                break
        return None

    def bounds(self, low: float, high: float) -> tuple[float, float] | None:
        """How far the optimal values of lasting states lie from a sweep's result, below and above.

        ``low`` and ``high`` are the sweep's smallest and largest change. With discounts these are
        the bounds of MacQueen (1966) and Porteus (1971), whose distance is the span seminorm of
        the change times a/(1 - a); without, those of the longest life. ``None`` where no bound
        holds.
        """
        least, most = self.discounts
        if most < 1 - 1e-12:
            below, above = most / (1 - most), least / (1 - least)
            return low * (below if low < 0 else above), high * (below if high > 0 else above)
        if self.life is None:
            return None
        return min(low, 0.0) * self.life, max(high, 0.0) * self.life

    # ------------------------------------------------------------ structure

    def trap(self) -> np.ndarray:
        """States from which some policy goes on for ever, nothing being discounted."""
        held = self.lasting.copy()
        first = self.process.first
        while True:
            inside = self.totals(held) >= 1 - 1e-12
            able = _any_row(inside, first) & held.view(bool)
            if able.sum() == held.sum():
                return able
            held = able.view(np.uint8)

    def endless(self) -> np.ndarray:
        """States from which no action ever leads to an end (and nothing is discounted)."""
        p = self.process
        leaks = self.totals(None) < 1 - 1e-12
        ends = _any_row(leaks, p.first) | (np.diff(p.first) == 0)
        while True:
            # A row counts when one of its entries leads to a state that can end.
            more = _any_row(self.totals(ends.view(np.uint8)) > 0, p.first) | ends
            if more.sum() == ends.sum():
                return ~ends
            ends = more


def _any_row(rows: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Whether a condition holds for some row of each state."""
    counts = np.concatenate([[0], np.cumsum(rows, dtype=INDEX)])
    return counts[first[1:]] > counts[first[:-1]]
