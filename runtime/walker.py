"""The walker: runs a plan's rows in order on a team of threads; compiled once a machine.

Steps are strictly ordered. Within a step, threads claim tasks from a counter; a thread goes on to
the next step when all tasks of this one are done, whoever did them. So no thread ever waits for
another to arrive, and the walker cannot deadlock under any threading layer.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int64, njit, prange

from .simd import address_of, call_kernel, fetch_add, load_acquire, load_i64


@njit(error_model="numpy", inline="always")
def _run_steps(rows, starts, counters, slot):
    """All steps, as one member of the team. ``counters`` has (claimed, done) per step."""
    base = address_of(rows)
    shared = address_of(counters)
    for step in range(starts.shape[0]):
        row = base + starts[step] * 8
        function = load_i64(row)
        tasks = load_i64(row + 8)
        claimed = shared + step * 128
        done = claimed + 64
        task = fetch_add(claimed, 1)
        while task < tasks:
            call_kernel(function, row + 16, task, slot)
            fetch_add(done, 1)
            task = fetch_add(claimed, 1)
        while load_acquire(done) < tasks:
            pass


@njit("void(int64[::1], int64[::1], int64[::1], int64)", error_model="numpy", nogil=True,
      parallel=True, cache=True)  # fmt: skip
def walk_parallel(rows, starts, counters, threads):
    """Run a plan on ``threads`` threads; ``counters`` is zeroed by the caller."""
    for slot in prange(threads):
        _run_steps(rows, starts, counters, int64(slot))


@njit("void(int64[::1], int64[::1])", error_model="numpy", nogil=True, cache=True)
def walk_serial(rows, starts):
    """Run a plan on the calling thread."""
    base = address_of(rows)
    for step in range(starts.shape[0]):
        row = base + starts[step] * 8
        function = load_i64(row)
        tasks = load_i64(row + 8)
        for task in range(tasks):
            call_kernel(function, row + 16, task, 0)


# The pool's size: a team may be larger, then some members run after others.
_MOST = numba.get_num_threads()


def walk(rows: np.ndarray, starts: np.ndarray, counters: np.ndarray, threads: int) -> None:
    """Run a plan.

    Parameters
    ----------
    rows
        All rows, flat, int64: address, tasks, the kernel's words.
    starts
        Where each row begins, in words.
    counters
        int64, 16 words a step (two cache lines), all zero.
    threads
        Size of the team; 1 runs on the calling thread.
    """
    if threads == 1:
        walk_serial(rows, starts)
        return
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, _MOST))
    try:
        walk_parallel(rows, starts, counters, threads)
    finally:
        numba.set_num_threads(before)
