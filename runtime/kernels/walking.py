"""How a thread walks a plan's rows: what the walkers are compiled from (see ``runtime/walker``).

A call is a row of words, whose address a walker gets; what its words say lies in memory of its own
(byte addresses here).
"""

from __future__ import annotations

from numba import int64, njit

from ..abi import LOOP_END
from ..atomics import call_kernel, fetch_add, load_acquire, yield_processor
from ..simd import load_i64, store_i64

CALL = (
    "rows", "starts", "steps", "counters", "counter_words", "own_words", "loops", "threads",
    "cells", "cell_words", "ready", "ready_words", "open", "open_words", "arrays",
)  # fmt: skip
"""The words of a call. Before the walk ``counters`` and ``cells`` become 0, ``ready`` is copied to
``rows``, and to each of the rows' words that ``open`` lists the address of an array is added:
``open`` has pairs (place in ``rows``, place in ``arrays``)."""

AT = {name: 8 * place for place, name in enumerate(CALL)}
ROWS, STARTS, STEPS, COUNTERS = AT["rows"], AT["starts"], AT["steps"], AT["counters"]
COUNTER_WORDS, OWN_WORDS, LOOPS = AT["counter_words"], AT["own_words"], AT["loops"]
THREADS, CELLS, CELL_WORDS = AT["threads"], AT["cells"], AT["cell_words"]
READY, READY_WORDS, OPEN = AT["ready"], AT["ready_words"], AT["open"]
OPEN_WORDS, ARRAYS = AT["open_words"], AT["arrays"]

PATIENCE = 2000
"""Looks at a counter before a waiting thread gives up its processor (some microseconds). On a busy
machine the one that it waits for may want to run there; on a quiet one nothing else does."""


@njit(error_model="numpy", inline="always")
def wait_until(counter, least):
    """Wait until a counter, which other threads add to, has come to ``least``."""
    looks = int64(0)
    while load_acquire(counter) < least:
        looks += 1
        if looks > PATIENCE:
            yield_processor()


@njit(error_model="numpy", inline="always")
def goes_on(row, own):
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
def run_step(row, tasks, passed, shared, lanes, slot, threads):
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
                wait_until(shared, passed)
                may_run = True
            call_kernel(function, row + 16, first + ticket - before, slot)
            fetch_add(shared, 1)
            ticket = int64(-1)
        store_i64(lanes + lane * 16, end)
        store_i64(lanes + lane * 16 + 8, ticket + 1)


@njit(error_model="numpy", inline="always")
def make_ready(call):
    """What is the same at every call, and the addresses of this call's arrays."""
    rows = load_i64(call + ROWS)
    for place in range(load_i64(call + COUNTER_WORDS)):
        store_i64(load_i64(call + COUNTERS) + place * 8, 0)
    for place in range(load_i64(call + CELL_WORDS)):
        store_i64(load_i64(call + CELLS) + place * 8, 0)
    for place in range(load_i64(call + READY_WORDS)):
        store_i64(rows + place * 8, load_i64(load_i64(call + READY) + place * 8))
    pair = load_i64(call + OPEN)
    for _ in range(load_i64(call + OPEN_WORDS)):
        word = rows + load_i64(pair) * 8
        array = load_i64(load_i64(call + ARRAYS) + load_i64(pair + 8) * 8)
        store_i64(word, load_i64(word) + array)
        pair += 16


@njit(error_model="numpy", inline="always")
def run_steps(call, slot):
    """All steps, as one member of the team."""
    rows, starts, steps = load_i64(call + ROWS), load_i64(call + STARTS), load_i64(call + STEPS)
    counters, threads = load_i64(call + COUNTERS), load_i64(call + THREADS)
    own = counters + (threads + 1) * 128 + slot * load_i64(call + OWN_WORDS) * 8
    lanes = own + load_i64(call + LOOPS) * 16
    passed = int64(0)
    step = int64(0)
    while step < steps:
        row = rows + load_i64(starts + step * 8) * 8
        tasks = load_i64(row + 8)
        if tasks == LOOP_END:
            if load_i64(row + 40) != 0:
                wait_until(counters, passed)
            step = load_i64(row + 16) if goes_on(row, own) else step + 1
            continue
        run_step(row, tasks, passed, counters, lanes, slot, threads)
        passed += tasks
        step += 1


@njit(error_model="numpy", inline="always")
def run_alone(call):
    """All steps on the calling thread."""
    rows, starts, steps = load_i64(call + ROWS), load_i64(call + STARTS), load_i64(call + STEPS)
    own = load_i64(call + COUNTERS) + 256  # after one thread's lane
    step = int64(0)
    while step < steps:
        row = rows + load_i64(starts + step * 8) * 8
        tasks = load_i64(row + 8)
        if tasks == LOOP_END:
            step = load_i64(row + 16) if goes_on(row, own) else step + 1
            continue
        function = load_i64(row)
        for task in range(tasks):
            call_kernel(function, row + 16, task, 0)
        step += 1
