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
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int64, njit, prange

from .abi import LOOP_END
from .simd import address_of, call_kernel, fetch_add, load_acquire, load_i64, store_i64

LINE = 16
"""Words between counters that different threads write: two cache lines, which are fetched as one.
The counters of a call are the tasks done, each lane's tickets drawn, and each thread's own."""

_END = LOOP_END


def counter_words(threads: int, loops: int) -> int:
    """Words of the counters of a call; they are zero at the start of a walk."""
    return LINE * (1 + threads) + threads * own_words(threads, loops)


def own_words(threads: int, loops: int) -> int:
    """Words of a thread's own counters, in whole lines.

    (turn, visits) of each loop; then, of each lane, its tasks passed and one more than the ticket
    kept, 0 for none.
    """
    return -(-2 * (loops + threads) // LINE) * LINE


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
def _run_step(row, tasks, passed, shared, lanes, slot, threads):
    """The tasks of one step that this thread gets; ``lanes`` are its own counters of them."""
    function = load_i64(row)
    may_run = False
    for turn in range(threads):
        lane = (slot + turn) % threads
        first = tasks * lane // threads
        before = load_i64(lanes + lane * 16)
        end = before + tasks * (lane + 1) // threads - first
        drawn = shared + (lane + 1) * 128
        ticket = load_i64(lanes + lane * 16 + 8) - 1
        while ticket < end:
            if ticket < 0:
                # Looking first leaves the next step's tickets to the lane's own thread.
                if load_acquire(drawn) >= end:
                    break
                ticket = fetch_add(drawn, 1)
                continue
            if not may_run:
                while load_acquire(shared) < passed:
                    pass
                may_run = True
            call_kernel(function, row + 16, first + ticket - before, slot)
            fetch_add(shared, 1)
            ticket = int64(-1)
        store_i64(lanes + lane * 16, end)
        store_i64(lanes + lane * 16 + 8, ticket + 1)


@njit(error_model="numpy", inline="always")
def _run_steps(rows, starts, counters, own_size, loops, slot, threads):
    """All steps, as one member of the team."""
    base = address_of(rows)
    shared = address_of(counters)
    own = shared + (threads + 1) * 128 + slot * own_size * 8
    passed = int64(0)
    step = int64(0)
    while step < starts.shape[0]:
        row = base + starts[step] * 8
        tasks = load_i64(row + 8)
        if tasks == _END:
            if load_i64(row + 40) != 0:
                while load_acquire(shared) < passed:
                    pass
            step = load_i64(row + 16) if _goes_on(row, own) else step + 1
            continue
        _run_step(row, tasks, passed, shared, own + loops * 16, slot, threads)
        passed += tasks
        step += 1


@njit("void(int64[::1], int64[::1], int64[::1], int64, int64, int64)", error_model="numpy",
      nogil=True, parallel=True, cache=True)  # fmt: skip
def walk_parallel(rows, starts, counters, own_size, loops, threads):
    """Run a plan on ``threads`` threads; ``counters`` is zeroed by the caller."""
    for slot in prange(threads):
        _run_steps(rows, starts, counters, own_size, loops, int64(slot), threads)


@njit("void(int64[::1], int64[::1], int64[::1])", error_model="numpy", nogil=True, cache=True)
def walk_serial(rows, starts, counters):
    """Run a plan on the calling thread."""
    base = address_of(rows)
    own = address_of(counters) + 256  # after one thread's lane
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
        walk_parallel(rows, starts, counters, own_words(threads, loops), loops, threads)
    finally:
        numba.set_num_threads(before)
