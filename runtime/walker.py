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
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np

from .kernel_cache import Job, Kernel, kernel
from .memory import address

LINE = 16
"""Words between counters that different threads write: two cache lines, which are fetched as one.
The counters of a call are the tasks done, each lane's tickets drawn, and each thread's own."""


def counter_words(threads: int, loops: int) -> int:
    """Words of the counters of a call; they are zero at the start of a walk."""
    return LINE * (1 + threads) + threads * own_words(threads, loops)


def own_words(threads: int, loops: int) -> int:
    """Words of a thread's own counters, in whole lines.

    (turn, visits) of each loop; then, of each lane, its tasks passed and one more than the ticket
    kept, 0 for none.
    """
    return -(-2 * (loops + threads) // LINE) * LINE


PARALLEL = '''"""All steps on a team of threads."""
from numba import int64, prange
from tilth.runtime.kernels.walking import run_steps


def kernel(rows, starts, steps, counters, own_size, loops, threads):
    for slot in prange(threads):
        run_steps(rows, starts, steps, counters, own_size, loops, int64(slot), threads)
'''

SERIAL = '''"""All steps on the calling thread."""
from tilth.runtime.kernels.walking import run_alone


def kernel(rows, starts, steps, counters):
    run_alone(rows, starts, steps, counters)
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
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * _words(parallel))(code.address)
    return _Walker(code, call, most)


def job(parallel: bool) -> Job:
    """A walker as a kernel to be compiled."""
    signature = f"void({', '.join(['int64'] * _words(parallel))})"
    name, source = ("walk_parallel", PARALLEL) if parallel else ("walk_serial", SERIAL)
    return name, source, signature, parallel


def _words(parallel: bool) -> int:
    return 7 if parallel else 4


def wake() -> None:
    """Make both walkers ready; the first call of a plan would do it."""
    _walker(False)
    _walker(True)


def walk(
    rows: np.ndarray, starts: np.ndarray, counters: np.ndarray, threads: int, loops: int = 0
) -> None:
    """Run a plan.

    Parameters
    ----------
    rows
        All rows, flat, int64: address, tasks, the kernel's words.
    starts
        Where each row begins, in words.
    counters
        int64, :func:`counter_words` of them, all zero.
    threads
        Size of the team; 1 runs on the calling thread.
    loops
        How many loops the plan has.
    """
    steps, places = len(starts), (address(rows), address(starts))
    if threads == 1:
        _walker(False).call(*places, steps, address(counters))
        return
    walker = _walker(True)
    before, team = numba.get_num_threads(), min(threads, walker.most)
    own = own_words(threads, loops)
    if team == before:
        walker.call(*places, steps, address(counters), own, loops, threads)
        return
    numba.set_num_threads(team)
    try:
        walker.call(*places, steps, address(counters), own, loops, threads)
    finally:
        numba.set_num_threads(before)
