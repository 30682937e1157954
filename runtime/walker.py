"""The walker: runs a plan's rows in order on a team of threads; compiled once a machine.

Steps are strictly ordered, and so are all tasks: threads draw tickets from one counter, and ticket
number n is the n-th task of the walk, whichever step and turn of a loop it belongs to. A thread
walks on to its ticket's step, waits until all tasks of the steps before are done, and runs it. So
no thread ever waits for another to arrive, and the walker cannot deadlock under any threading
layer.

A row with ``LOOP_END`` tasks goes back to an earlier step: ``trips`` times in all, or until a task
wrote the number of turns done into the loop's log. Threads may be turns apart, so each counts turns
for itself, and every visit of a loop has an entry of its own in the log, which is never reset.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int64, njit, prange

from .abi import LOOP_END
from .simd import address_of, call_kernel, fetch_add, load_acquire, load_i64, store_i64

SHARED = 32
"""Words that the team shares: tickets drawn, and a cache line on, tasks done."""

_END = LOOP_END


def counter_words(threads: int, loops: int) -> int:
    """Words of the counters of a call: the shared ones, and (turn, visits) of each loop a thread.

    They are zero at the start of a walk.
    """
    return SHARED + threads * own_words(loops)


def own_words(loops: int) -> int:
    """Words of one thread's loop counters, in whole cache lines."""
    return -(-2 * loops // 16) * 16


@njit(error_model="numpy", inline="always")
def _goes_on(row, own):
    """Whether a loop has another turn; counts it. All tasks before must be done if it has a log.

    ``row`` is the loop's row: target step, loop number, trips, address of its log or 0.
    """
    counter = own + load_i64(row + 24) * 16
    turn = load_i64(counter) + 1
    again = turn < load_i64(row + 32)
    log = load_i64(row + 40)
    if log != 0:
        visit = load_i64(counter + 8)
        done = load_acquire(log + visit * 8)
        again = again and (done == 0 or turn < done)
        if not again:
            store_i64(counter + 8, visit + 1)
    store_i64(counter, turn if again else 0)
    return again


@njit(error_model="numpy", inline="always")
def _run_steps(rows, starts, counters, own_size, slot):
    """All steps, as one member of the team."""
    base = address_of(rows)
    tickets = address_of(counters)
    done = tickets + 128
    own = tickets + 256 + slot * own_size * 8
    ticket = fetch_add(tickets, 1)
    passed = int64(0)
    step = int64(0)
    while step < starts.shape[0]:
        row = base + starts[step] * 8
        tasks = load_i64(row + 8)
        if tasks == _END:
            if load_i64(row + 40) != 0:
                while load_acquire(done) < passed:
                    pass
            step = load_i64(row + 16) if _goes_on(row, own) else step + 1
            continue
        if ticket < passed + tasks:
            function = load_i64(row)
            while load_acquire(done) < passed:
                pass
            while ticket < passed + tasks:
                call_kernel(function, row + 16, ticket - passed, slot)
                fetch_add(done, 1)
                ticket = fetch_add(tickets, 1)
        passed += tasks
        step += 1


@njit("void(int64[::1], int64[::1], int64[::1], int64, int64)", error_model="numpy", nogil=True,
      parallel=True, cache=True)  # fmt: skip
def walk_parallel(rows, starts, counters, own_size, threads):
    """Run a plan on ``threads`` threads; ``counters`` is zeroed by the caller."""
    for slot in prange(threads):
        _run_steps(rows, starts, counters, own_size, int64(slot))


@njit("void(int64[::1], int64[::1], int64[::1])", error_model="numpy", nogil=True, cache=True)
def walk_serial(rows, starts, counters):
    """Run a plan on the calling thread."""
    base = address_of(rows)
    own = address_of(counters) + 256
    step = int64(0)
    while step < starts.shape[0]:
        row = base + starts[step] * 8
        tasks = load_i64(row + 8)
        if tasks == _END:
            step = load_i64(row + 16) if _goes_on(row, own) else step + 1
            continue
        function = load_i64(row)
        for task in range(tasks):
            call_kernel(function, row + 16, task, 0)
        step += 1


# The pool's size: a team may be larger, then some members run after others.
_MOST = numba.get_num_threads()


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
    if threads == 1:
        walk_serial(rows, starts, counters)
        return
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, _MOST))
    try:
        walk_parallel(rows, starts, counters, own_words(loops), threads)
    finally:
        numba.set_num_threads(before)
