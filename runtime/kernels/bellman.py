"""Kernels of decision processes: sweeps over compressed rows of states, actions and outcomes.

Every row begins with the words ``PROCESS`` of a process; a task is a run of states. A row's value
is ``reward[r] + sum_e weight[e] * values[next[e]]``, its entries added in their order, so results
do not depend on how many threads share the tasks.
"""

from __future__ import annotations

import math

from numba import njit

from ..simd import load_f64, load_i32, load_i64, load_u8, store_f64, store_i32, store_i64, store_u8

PROCESS = ("states", "chunk", "first", "start", "next", "weight", "reward")
"""Number of states, states of a task, and the addresses of the arrays."""

WORD = 8
AT = 8 * len(PROCESS)
"""Where a kernel's own words begin, in bytes."""


@njit(error_model="numpy", inline="always")
def _row_value(r, start, next_, weight, reward, values):
    """The value of one row."""
    q = load_f64(reward + 8 * r)
    for e in range(load_i32(start + 4 * r), load_i32(start + 4 * r + 4)):
        q += load_f64(weight + 8 * e) * load_f64(values + 8 * load_i32(next_ + 4 * e))
    return q


@njit(error_model="numpy")
def backup(row, task, slot):
    """``new[s] = max_r value(r)``; words ``values, new, best, stats``.

    ``best`` (an address or 0) gets the first best row of each state. ``stats`` has the smallest and
    the largest change of each task, over states from which values flow (``lasting``).
    """
    states, chunk = load_i64(row), load_i64(row + 8)
    first, start, next_ = load_i64(row + 16), load_i64(row + 24), load_i64(row + 32)
    weight, reward = load_i64(row + 40), load_i64(row + 48)
    values, new, best = load_i64(row + AT), load_i64(row + AT + 8), load_i64(row + AT + 16)
    stats, lasting = load_i64(row + AT + 24), load_i64(row + AT + 32)
    low, high = math.inf, -math.inf
    for s in range(task * chunk, min(states, (task + 1) * chunk)):
        begin, end = load_i32(first + 4 * s), load_i32(first + 4 * s + 4)
        top, which = -math.inf, begin
        for r in range(begin, end):
            q = _row_value(r, start, next_, weight, reward, values)
            if q > top:
                top, which = q, r
        if end == begin:
            top = 0.0
        if load_u8(lasting + s):
            change = top - load_f64(values + 8 * s)
            low, high = min(low, change), max(high, change)
        store_f64(new + 8 * s, top)
        if best != 0:
            store_i32(best + 4 * s, which)
    store_f64(stats + 16 * task, low)
    store_f64(stats + 16 * task + 8, high)


@njit(error_model="numpy")
def improve(row, task, slot):
    """The best row of each state, a row in ``best`` staying unless another is better by ``margin``.

    Words ``values, best, changed, margin``: ``changed`` has how many states changed, by task.
    """
    states, chunk = load_i64(row), load_i64(row + 8)
    first, start, next_ = load_i64(row + 16), load_i64(row + 24), load_i64(row + 32)
    weight, reward = load_i64(row + 40), load_i64(row + 48)
    values, best = load_i64(row + AT), load_i64(row + AT + 8)
    changed, margin = load_i64(row + AT + 16), load_f64(row + AT + 24)
    count = 0
    for s in range(task * chunk, min(states, (task + 1) * chunk)):
        begin, end = load_i32(first + 4 * s), load_i32(first + 4 * s + 4)
        if end == begin:
            continue
        held = load_i32(best + 4 * s)
        kept = _row_value(held, start, next_, weight, reward, values)
        top, which = kept, held
        for r in range(begin, end):
            q = _row_value(r, start, next_, weight, reward, values)
            if q > top:
                top, which = q, r
        if which != held and top > kept + margin:
            store_i32(best + 4 * s, which)
            count += 1
    store_i64(changed + 8 * task, count)


@njit(error_model="numpy")
def follow(row, task, slot):
    """``new[s] = value(best[s])``; words ``values, new, best, stats, lasting`` as in ``backup``."""
    states, chunk = load_i64(row), load_i64(row + 8)
    first, start, next_ = load_i64(row + 16), load_i64(row + 24), load_i64(row + 32)
    weight, reward = load_i64(row + 40), load_i64(row + 48)
    values, new, best = load_i64(row + AT), load_i64(row + AT + 8), load_i64(row + AT + 16)
    stats, lasting = load_i64(row + AT + 24), load_i64(row + AT + 32)
    low, high = math.inf, -math.inf
    for s in range(task * chunk, min(states, (task + 1) * chunk)):
        value = 0.0
        if load_i32(first + 4 * s) != load_i32(first + 4 * s + 4):
            r = load_i32(best + 4 * s)
            value = _row_value(r, start, next_, weight, reward, values)
        if load_u8(lasting + s):
            change = value - load_f64(values + 8 * s)
            low, high = min(low, change), max(high, change)
        store_f64(new + 8 * s, value)
    store_f64(stats + 16 * task, low)
    store_f64(stats + 16 * task + 8, high)


@njit(error_model="numpy")
def actions(row, task, slot):
    """``q[r] = value(r)``; words ``values, q``."""
    states, chunk = load_i64(row), load_i64(row + 8)
    first, start, next_ = load_i64(row + 16), load_i64(row + 24), load_i64(row + 32)
    weight, reward = load_i64(row + 40), load_i64(row + 48)
    values, q = load_i64(row + AT), load_i64(row + AT + 8)
    last = min(states, (task + 1) * chunk)
    for r in range(load_i32(first + 4 * task * chunk), load_i32(first + 4 * last)):
        store_f64(q + 8 * r, _row_value(r, start, next_, weight, reward, values))


@njit(error_model="numpy")
def totals(row, task, slot):
    """Row sums of weights into states that ``count``; words ``counts, sums, lasting``.

    ``sums[r]`` is the total over next states s' with ``counts[s']``; ``lasting[s]`` is set where a
    row of s has an entry with a weight. Addresses may be 0.
    """
    states, chunk = load_i64(row), load_i64(row + 8)
    first, start, next_ = load_i64(row + 16), load_i64(row + 24), load_i64(row + 32)
    weight = load_i64(row + 40)
    counts, sums, lasting = load_i64(row + AT), load_i64(row + AT + 8), load_i64(row + AT + 16)
    for s in range(task * chunk, min(states, (task + 1) * chunk)):
        lasts = False
        for r in range(load_i32(first + 4 * s), load_i32(first + 4 * s + 4)):
            total = 0.0
            for e in range(load_i32(start + 4 * r), load_i32(start + 4 * r + 4)):
                part = load_f64(weight + 8 * e)
                lasts = lasts or part > 0.0
                if counts == 0 or load_u8(counts + load_i32(next_ + 4 * e)):
                    total += part
            if sums != 0:
                store_f64(sums + 8 * r, total)
        if lasting != 0:
            store_u8(lasting + s, 1 if lasts else 0)


@njit(error_model="numpy")
def gauss_seidel(row, task, slot):
    """``sweeps`` sweeps in place, forward and backward in turn; words ``values, sweeps, tol, out``.

    It ends early when no value changes by ``tol``; ``out`` gets the sweeps made and the last
    largest change. One task: each state reads what was just written.
    """
    states = load_i64(row)
    first, start, next_ = load_i64(row + 16), load_i64(row + 24), load_i64(row + 32)
    weight, reward = load_i64(row + 40), load_i64(row + 48)
    values, sweeps = load_i64(row + AT), load_i64(row + AT + 8)
    tol, out = load_f64(row + AT + 16), load_i64(row + AT + 24)
    done, largest = 0, math.inf
    while done < sweeps and not largest < tol:
        largest = 0.0
        for number in range(states):
            s = number if done % 2 == 0 else states - 1 - number
            begin, end = load_i32(first + 4 * s), load_i32(first + 4 * s + 4)
            if begin == end:
                continue
            top = -math.inf
            for r in range(begin, end):
                top = max(top, _row_value(r, start, next_, weight, reward, values))
            largest = max(largest, abs(top - load_f64(values + 8 * s)))
            store_f64(values + 8 * s, top)
        done += 1
    store_f64(out, done)
    store_f64(out + 8, largest)
