"""Sweeps over a process: kernels with their rows filled in, and the bounds that a sweep proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..abi import word_of
from ..kernel_cache import kernel
from ..kernels.bellman import FLOWS, HOLDS, LEAKS, REACHES
from ..machine import cores
from ..walker import Walk
from .process import INDEX, Process, ends

TASK = 1 << 15
"""Entries and rows that a task goes through."""
SERIAL = 1 << 15
"""Entries up to which a sweep is not worth sharing between threads."""
UNROLLED = 24
"""Entries of every row up to which kernels are compiled for their number."""
LIFE_SWEEPS = 5_000
LONGEST_LIFE = 1e8


@dataclass(frozen=True)
class DecisionKernel:
    """A kernel of one of the modules under ``runtime/kernels``.

    ``form`` are constants that follow the kernel's three arguments.
    """

    module: str
    function: str
    form: tuple[int | bool, ...] = ()

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"{self.module}_{self.function}"

    def source(self) -> str:
        """The kernel's Python source."""
        words = ", ".join(["row", "task", "slot", *map(repr, self.form)])
        return (
            f'"""Decision processes: {self.function}."""\n'
            f"from tilth.runtime.kernels.{self.module} import {self.function}\n\n\n"
            "def kernel(row, task, slot):\n"
            f"    {self.function}({words})\n"
        )


def run_kernel(
    chosen: DecisionKernel, tasks: int, words: Sequence[np.ndarray | float | int | None],
    threads: int = 1,
) -> None:  # fmt: skip
    """Run ``tasks`` of a kernel; arrays are given by their address, ``None`` as 0."""
    found = kernel(chosen.name, chosen.source())
    row = np.array([found.address, tasks, *map(_word, words)], np.int64)
    team = max(1, min(threads, tasks))
    Walk(row, np.zeros(1, np.int64), team).run()


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
    whole
        The process with all its actions, where this one follows a policy.
    """

    def __init__(
        self, process: Process, threads: int | None = None, whole: Sweeper | None = None
    ) -> None:
        self.process, self.whole = process, whole
        work = process.entries + process.rows
        self.threads = (threads or cores()) if work > SERIAL else 1
        self.chunk = max(1, TASK * process.states // max(1, work))
        self.tasks = max(1, -(-process.states // self.chunk))
        self.stats = np.empty((self.tasks, 2))

    @cached_property
    def lasting(self) -> np.ndarray:
        """1 for the states from which values flow, else 0, ``u8[states]``."""
        return self._survey(None) & FLOWS

    def _run(
        self, name: str, words: Sequence[np.ndarray | float | int | None], module: str = "bellman",
        serial: bool = False,
    ) -> None:  # fmt: skip
        p = self.process
        chunk = p.states if serial else self.chunk
        base = [p.states, chunk, p.pattern, p.first, p.start, p.next, p.weight, p.reward]
        chosen = DecisionKernel(module, name, self.form)
        run_kernel(chosen, 1 if serial else self.tasks, [*base, *words], self.threads)

    @cached_property
    def form(self) -> tuple[int, bool]:
        """What kernels are compiled for: the entries of every row, and whether rows are shared."""
        every = self.process.every
        return every if every <= UNROLLED else 0, self.process.pattern is not None

    # ------------------------------------------------------------ sweeps

    def backup(
        self, values: np.ndarray, new: np.ndarray, best: np.ndarray | None = None
    ) -> tuple[float, float]:
        """``new = max_a (reward + P values)``; the smallest and the largest change."""
        self._run("backup", [values, new, best, self.stats, self.lasting])
        low, high = self._least_and_most()
        return (low, high) if low <= high else (0.0, 0.0)

    def follow(self, values: np.ndarray, new: np.ndarray) -> None:
        """As ``backup``, without a look at the changes."""
        self._run("backup", [values, new, None, self.stats, None])

    def improve(self, values: np.ndarray, best: np.ndarray, margin: float) -> int:
        """Move ``best`` to rows that are better; how many states changed."""
        changed = np.empty(self.tasks, np.int64)
        self._run("improve", [values, best, changed, margin])
        return int(changed.sum())

    def following(self, best: np.ndarray) -> Sweeper:
        """Sweeps over the process in which each state takes its row ``best``."""
        p = self.process
        if p.pattern is not None:
            # A row is a pattern; behind them an empty one, for states without rows.
            stored = len(p.action)
            first = np.append(np.arange(stored + 1, dtype=INDEX), INDEX(stored))
            chosen = np.where(p.counts == 0, INDEX(stored), best)
            return Sweeper(replace(p, first=first, pattern=chosen), self.threads, self)
        rows = np.minimum(best, max(p.rows - 1, 0))
        sizes = np.where(p.counts == 0, 0, np.diff(p.start)[rows]) if p.rows else p.counts
        start = ends(sizes)
        nexts, weights = np.empty(start[-1], INDEX), np.empty(start[-1])
        rewards = np.empty(p.states)
        self._run("take", [best, start, nexts, weights, rewards])
        first = np.arange(p.states + 1, dtype=INDEX)
        zeros = np.zeros(p.states, INDEX)
        chosen = Process(p.shape, 1, first, zeros, start, nexts, weights, rewards, p.sign)
        return Sweeper(chosen, self.threads, self)

    def action_values(self, values: np.ndarray) -> np.ndarray:
        """The values of all actions ``[states, actions]``, NaN where a state lacks one."""
        p = self.process
        q = np.full((p.states, p.actions), np.nan)
        self._run("actions", [values, q, p.action, p.actions])
        return q

    def serial(
        self, module: str, name: str, words: Sequence[np.ndarray | float | int | None]
    ) -> None:
        """A kernel of one task behind the process's words."""
        self._run(name, words, module, serial=True)

    def _survey(self, counts: np.ndarray | None) -> np.ndarray:
        """Flags of each state by its rows' weights into the states that count (``None``: all)."""
        flags = np.empty(self.process.states, np.uint8)
        self._run("survey", [counts, flags, self.stats])
        return flags

    def _least_and_most(self) -> tuple[float, float]:
        return float(self.stats[:, 0].min()), float(self.stats[:, 1].max())

    # ------------------------------------------------------------ bounds

    @cached_property
    def discounts(self) -> tuple[float, float]:
        """The least and the greatest weight of a row of a lasting state into lasting states."""
        self._survey(None if self.lasting.all() else self.lasting)
        least, most = self._least_and_most()
        return min(least, 1.0), max(most, 0.0)

    @cached_property
    def life(self) -> float | None:
        """A bound on the expected length of any episode, where every policy ends; else ``None``.

        w = 1 + max_a P w from below; if a sweep changes w by at most d < 1, w / (1 - d) bounds it.
        """
        if self.whole is not None:
            return self.whole.life
        if self.trap().any():
            return None
        p = self.process
        ones = Sweeper(replace(p, reward=np.ones(len(p.reward))), self.threads)
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

    def least_kept(self) -> tuple[float, int]:
        """The least weight of a row, 0 for a state without rows, and a state that has it."""
        p = self.process
        sums = np.add.reduceat(np.append(p.weight, 0.0), p.start[:-1]) * (np.diff(p.start) > 0)
        least = np.minimum.reduceat(np.append(sums, np.inf), p.first[:-1])
        least = np.where(np.diff(p.first) > 0, least, 0.0)
        lowest = int(least.argmin())
        state = lowest if p.pattern is None else int((p.pattern == lowest).argmax())
        return float(least[lowest]), state

    def trap(self) -> np.ndarray:
        """States from which some policy goes on for ever, nothing being discounted."""
        held = self.lasting.copy()
        while True:
            able = held * ((self._survey(held) & HOLDS) != 0)
            if able.sum() == held.sum():
                return able.view(bool)
            held = able

    def endless(self) -> np.ndarray:
        """States from which no action ever leads to an end (and nothing is discounted)."""
        ending = ((self._survey(None) & LEAKS) != 0) | (self.process.counts == 0)
        while True:
            # A row counts when one of its entries leads to a state that can end.
            more = ((self._survey(ending.view(np.uint8)) & REACHES) != 0) | ending
            if more.sum() == ending.sum():
                return ~ending
            ending = more
