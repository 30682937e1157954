"""The walker runs steps in order, each task once, whatever the number of threads."""

import threading

import numpy as np
import pytest
from tilth.runtime import kernel_cache
from tilth.runtime.abi import LOOP_END
from tilth.runtime.walker import Filling, Walk

COUNT = '''
from numba import int64
from tilth.runtime.simd import load_i64, store_i64


def kernel(row, task, slot):
    """Adds the step's number to a cell of its own, after checking the step before."""
    cells = load_i64(row)
    step = load_i64(row + 8)
    width = load_i64(row + 16)
    at = cells + (step * width + task) * 8
    before = int64(0)
    if step > 0:
        for i in range(width):
            before += load_i64(cells + ((step - 1) * width + i) * 8)
    store_i64(at, load_i64(at) + before + 1)
'''


def plan(steps: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kernel = kernel_cache.kernel("count", COUNT)
    cells = np.zeros((steps, width), np.int64)
    rows = [[kernel.address, width, cells.ctypes.data, step, width] for step in range(steps)]
    return cells, np.array(rows, np.int64).reshape(-1), np.arange(steps, dtype=np.int64) * 5


def expected(steps: int, width: int) -> np.ndarray:
    result = np.zeros((steps, width), np.int64)
    for step in range(steps):
        result[step] = 1 + (result[step - 1].sum() if step else 0)
    return result


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 7])
def test_every_task_of_a_step_sees_all_of_the_step_before(threads, width):
    steps = 9
    cells, rows, starts = plan(steps, width)
    Walk(rows, starts, threads).run()
    assert np.array_equal(cells, expected(steps, width))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_wait_long_for_a_late_one_still_see_its_result(threads):
    """A task of milliseconds: the others look often enough to yield their processors meanwhile."""
    late = kernel_cache.kernel("late", LATE)
    steps = 4
    cells = np.zeros((steps, 3), np.int64)
    rows = [[late.address, 3, cells.ctypes.data, step] for step in range(steps)]
    starts = np.arange(steps, dtype=np.int64) * 4
    Walk(np.array(rows, np.int64).reshape(-1), starts, threads).run()
    assert cells.tolist() == [[1 + step] * 3 for step in range(steps)]


LATE = """
from numba import int64
from tilth.runtime.atomics import fetch_add, load_acquire
from tilth.runtime.simd import load_i64


def kernel(row, task, slot):
    cells = load_i64(row)
    step = load_i64(row + 8)
    before = int64(0)
    if step > 0:
        before = load_acquire(cells + (step * 3 - 3 + (task + 1) % 3) * 8)
    turns = 0
    if task == step % 3:
        while turns < 300000:
            turns += load_acquire(row + 8) - step + 1
    fetch_add(cells + (step * 3 + task) * 8, before + turns // 300000 + (turns == 0))
"""


def test_walks_in_several_python_threads_do_not_disturb_each_other():
    results = {}

    def run(name: int) -> None:
        cells, rows, starts = plan(8, 5)
        for _ in range(50):
            cells[:] = 0
            Walk(rows, starts, 2).run(threads=1 + name % 2)
            if not np.array_equal(cells, expected(8, 5)):
                return
        results[name] = True

    team = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert sorted(results) == list(range(8))


def test_a_loop_goes_back_to_its_first_step():
    """Three turns of the last two of three steps: cells count how often each ran."""
    tally = kernel_cache.kernel("tally", TALLY)
    for threads in (1, 2, 3):
        cells = np.zeros(3, np.int64)
        rows = [[tally.address, 4, cells[step:].ctypes.data] for step in range(3)]
        flat = [word for row in rows for word in row] + [0, LOOP_END, 1, 0, 3, 0]
        starts = np.array([0, 3, 6, 9], np.int64)
        walk = Walk(np.array(flat, np.int64), starts, threads, loops=1)
        walk.run()
        assert list(cells) == [4, 12, 12]
        walk.run(threads=1)
        assert list(cells) == [8, 24, 24]
        walk.run_row(1)
        assert list(cells) == [8, 28, 24]


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_are_filled_before_each_walk(threads):
    """Addresses of arrays are added where they belong, whatever the last walk left there."""
    tally = kernel_cache.kernel("tally", TALLY)
    ready = np.array([tally.address, 3, 8, tally.address, 2, 0], np.int64)
    rows, cells = np.full(6, 99, np.int64), np.full(2, 7, np.int64)
    filling = Filling(ready, 2, np.array([[2, 0], [5, 1]], np.int64), cells)
    walk = Walk(rows, np.array([0, 3], np.int64), threads, filling=filling)
    for _ in range(2):
        first, second = np.zeros(2, np.int64), np.zeros(1, np.int64)
        walk.run([first, second])
        assert [*first, *second, *cells] == [0, 3, 2, 0, 0]


TALLY = """
from tilth.runtime.atomics import fetch_add
from tilth.runtime.simd import load_i64


def kernel(row, task, slot):
    fetch_add(load_i64(row), 1)
"""
