"""The walker: runs a plan's rows in order on a team of threads; compiled once a machine.

Steps are strictly ordered. Within a step each thread has an equal run of the tasks, its lane: the
same share in every step, so that it tends to find in its own cache what it wrote the step before.
When its own are gone it takes from the other lanes. Tasks are claimed by tickets: ticket number n
of a lane is the n-th task of that lane in the walk, whichever step and turn of a loop it belongs
to; a thread that draws one too early keeps it until it gets there. Before its first task of a step
a thread waits until all tasks of the steps before are done. So no thread ever waits for another to
arrive, and the walker cannot deadlock under any threading layer.

A row with ``LOOP_END`` tasks goes back to an earlier step: ``trips`` times in all, or until a task
wrote the number of turns done into the loop's log. Threads may be turns apart, so each counts turns
for itself, and every visit of a loop has an entry of its own in the log, which is never reset.

A walker is kept in the kernel cache like a kernel: an edit of what it is made of makes a new one,
and a process that finds it there need not wake the compiler.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np

from .kernel_cache import Job, Kernel, kernel
from .kernels.walking import CALL
from .memory import address

LINE = 16
"""Words between counters that different threads write: two cache lines, which are fetched as one.
The counters of a call are the tasks done, each lane's tickets drawn, and each thread's own."""

TEAM, FIRST, STEPS = map(CALL.index, ("threads", "starts", "steps"))
"""Words of a call that are not the same at every walk."""

PARALLEL = '''"""All steps on a team of threads."""
from numba import int64, prange
from tilth.runtime.kernels.walking import THREADS, make_ready, run_steps
from tilth.runtime.simd import load_i64


def kernel(call):
    make_ready(call)
    for slot in prange(load_i64(call + THREADS)):
        run_steps(call, int64(slot))
'''

SERIAL = '''"""All steps on the calling thread."""
from tilth.runtime.kernels.walking import make_ready, run_alone


def kernel(call):
    make_ready(call)
    run_alone(call)
'''


@dataclass(frozen=True)
class _Walker:
    """A compiled walker; ``call`` releases Python's lock while it runs."""

    code: Kernel
    call: Any
    most: int


@cache
def _walker(parallel: bool) -> _Walker:
    # Asking starts the threads, whose symbols the parallel walker needs; the answer is the pool's
    # size: a team may be larger, then some members run after others.
    most = numba.get_num_threads()
    code = kernel(*job(parallel))
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64)(code.address)
    return _Walker(code, call, most)


def job(parallel: bool) -> Job:
    """A walker as a kernel to be compiled."""
    name, source = ("walk_parallel", PARALLEL) if parallel else ("walk_serial", SERIAL)
    return name, source, "void(int64)", parallel


def wake() -> None:
    """Make both walkers ready; the first walk would do it."""
    _walker(False)
    _walker(True)


@dataclass(frozen=True)
class Filling:
    """What the rows become before each walk: ``ready``, with addresses of the walk's arrays added.

    ``arrays`` counts them; ``open`` are pairs (place in the rows, number of the array), int64 of
    [n, 2]. ``cells`` become 0.
    """

    ready: np.ndarray
    arrays: int
    open: np.ndarray
    cells: np.ndarray


class Walk:
    """Rows to be walked as often as one likes, one call at a time.

    Parameters
    ----------
    rows
        All rows, flat, int64: address, tasks, the kernel's words.
    starts
        Where each row begins, in words, int64.
    threads
        The most threads of a team; 1 runs on the calling thread.
    loops
        How many loops the plan has.
    filling
        What the rows become before each walk; they are left as they are without it.
    """

    def __init__(
        self, rows: np.ndarray, starts: np.ndarray, threads: int, loops: int = 0,
        filling: Filling | None = None,
    ) -> None:  # fmt: skip
        self.threads = threads
        # A thread's own counters: (turn, visits) of each loop; then, of each lane, its tasks passed
        # and one more than the ticket kept, 0 for none.
        own = -(-2 * (loops + threads) // LINE) * LINE
        counters = np.empty(LINE * (1 + threads) + threads * own, np.int64)
        none = np.empty(0, np.int64)
        filling = filling or Filling(none, 0, none.reshape(0, 2), none)
        self._arrays = np.empty(filling.arrays, np.int64)
        words = {
            "rows": rows, "starts": starts, "steps": len(starts), "counters": counters,
            "counter_words": len(counters), "own_words": own, "loops": loops, "threads": threads,
            "cells": filling.cells, "cell_words": len(filling.cells), "ready": filling.ready,
            "ready_words": len(filling.ready), "open": filling.open,
            "open_words": len(filling.open), "arrays": self._arrays,
        }  # fmt: skip
        self._kept = [word for word in words.values() if isinstance(word, np.ndarray)]
        assert all(array.flags.c_contiguous and array.dtype == np.int64 for array in self._kept)
        self._call = np.array(
            [address(w) if isinstance(w, np.ndarray) else w for w in map(words.get, CALL)],
            np.int64,
        )
        self._address = address(self._call)

    def run(self, arrays: Sequence[np.ndarray] = (), threads: int | None = None) -> None:
        """Walk all rows, on a smaller team than ``self.threads`` if asked to."""
        for place, array in enumerate(arrays):
            self._arrays[place] = address(array)
        self._walk(self.threads if threads is None else threads)

    def run_row(self, place: int, arrays: Sequence[np.ndarray] = ()) -> None:
        """Walk the row at one place alone."""
        whole = self._call.copy()
        self._call[FIRST] += 8 * place
        self._call[STEPS] = 1
        try:
            self.run(arrays)
        finally:
            self._call[:] = whole

    def _walk(self, threads: int) -> None:
        self._call[TEAM] = threads
        if threads == 1:
            _walker(False).call(self._address)
            return
        walker = _walker(True)
        before, team = numba.get_num_threads(), min(threads, walker.most)
        if team == before:
            walker.call(self._address)
            return
        numba.set_num_threads(team)
        try:
            walker.call(self._address)
        finally:
            numba.set_num_threads(before)
