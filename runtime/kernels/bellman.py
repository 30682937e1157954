"""Kernels of decision processes: sweeps over compressed rows of states, actions and outcomes.

Every row begins with the words ``PROCESS`` of a process; a task is a run of states. A row's value
is ``reward[r] + sum_e weight[e] * values[next[e]]``, its entries added in their order, so results
do not depend on how many threads share the tasks.

Kernels are compiled for the form of a process, two constants that their generated source fills in:
``count`` is the number of entries that every row has, 0 where rows differ, and ``shared`` says that
states share rows by their pattern, ``next`` being how far the next state is away.
"""

from __future__ import annotations

import math

from numba import njit

from ..simd import load_f64, load_i32, load_i64, load_u8, store_f64, store_i32, store_i64, store_u8

PROCESS = ("states", "chunk", "pattern", "first", "start", "next", "weight", "reward")
"""Number of states, states of a task, and the addresses of the arrays."""

WORD = 8
AT = 8 * len(PROCESS)
"""Where a kernel's own words begin, in bytes."""

FLOWS, HOLDS, LEAKS, REACHES = 1, 2, 4, 8
"""What ``survey`` says of a state: some entry has a weight; some row's weights sum to 1; to less;
to more than 0."""
WHOLE = 1 - 1e-12
"""Weights of a row that sum to this much sum to 1."""


@njit(error_model="numpy", inline="always")
def _row_value(r, base, start, next_, weight, reward, values, count):
    """The value of one row of a state; ``base`` is added to its next states."""
    q = load_f64(reward + 8 * r)
    if count > 0:
        for e in range(count):
            x = r * count + e
            there = values + 8 * (base + load_i32(next_ + 4 * x))
            q += load_f64(weight + 8 * x) * load_f64(there)
    else:
        for x in range(load_i32(start + 4 * r), load_i32(start + 4 * r + 4)):
            there = values + 8 * (base + load_i32(next_ + 4 * x))
            q += load_f64(weight + 8 * x) * load_f64(there)
    return q


@njit(error_model="numpy", inline="always")
def _rows_at(s, pattern, first, shared):
    """Where the row numbers of a state begin, as an address of two: the first and the end."""
    return first + 4 * (load_i32(pattern + 4 * s) if shared else s)


@njit(error_model="numpy", inline="always")
def backup(row, task, slot, count, shared):
    """``new[s] = max_r value(r)``; words ``values, new, best, stats, lasting``.

    ``best`` (an address or 0) gets the first best row of each state. ``stats`` has the smallest and
    the largest change of each task, over states from which values flow (``lasting``; 0: over none).
    """
    states, chunk, pattern = load_i64(row), load_i64(row + 8), load_i64(row + 16)
    first, start, next_ = load_i64(row + 24), load_i64(row + 32), load_i64(row + 40)
    weight, reward = load_i64(row + 48), load_i64(row + 56)
    values, new, best = load_i64(row + AT), load_i64(row + AT + 8), load_i64(row + AT + 16)
    stats, lasting = load_i64(row + AT + 24), load_i64(row + AT + 32)
    low, high = math.inf, -math.inf
    for s in range(task * chunk, min(states, (task + 1) * chunk)):
        rows = _rows_at(s, pattern, first, shared)
        begin, end = load_i32(rows), load_i32(rows + 4)
        base = s if shared else 0
        top, which = -math.inf, begin
        for r in range(begin, end):
            q = _row_value(r, base, start, next_, weight, reward, values, count)
            if q > top:
                top, which = q, r
        if end == begin:
            top = 0.0
        if lasting != 0 and load_u8(lasting + s):
            change = top - load_f64(values + 8 * s)
            low, high = min(low, change), max(high, change)
        store_f64(new + 8 * s, top)
        if best != 0:
            store_i32(best + 4 * s, which)
    store_f64(stats + 16 * task, low)
    store_f64(stats + 16 * task + 8, high)


@njit(error_model="numpy", inline="always")
def improve(row, task, slot, count, shared):
    """The best row of each state, a row in ``best`` staying unless another is better by ``margin``.

    Words ``values, best, changed, margin``: ``changed`` has how many states changed, by task.
    """
    states, chunk, pattern = load_i64(row), load_i64(row + 8), load_i64(row + 16)
    first, start, next_ = load_i64(row + 24), load_i64(row + 32), load_i64(row + 40)
    weight, reward = load_i64(row + 48), load_i64(row + 56)
    values, best = load_i64(row + AT), load_i64(row + AT + 8)
    changed, margin = load_i64(row + AT + 16), load_f64(row + AT + 24)
    changes = 0
    for s in range(task * chunk, min(states, (task + 1) * chunk)):
        rows = _rows_at(s, pattern, first, shared)
        begin, end = load_i32(rows), load_i32(rows + 4)
        if end == begin:
            continue
        base = s if shared else 0
        held = load_i32(best + 4 * s)
        kept = _row_value(held, base, start, next_, weight, reward, values, count)
        top, which = kept, held
        for r in range(begin, end):
            q = _row_value(r, base, start, next_, weight, reward, values, count)
            if q > top:
                top, which = q, r
        if which != held and top > kept + margin:
            store_i32(best + 4 * s, which)
            changes += 1
    store_i64(changed + 8 * task, changes)


@njit(error_model="numpy", inline="always")
def take(row, task, slot, count, shared):
    """Copy one row of each state: the entries and rewards of the process that follows a policy.

    Words ``best, starts, nexts, weights, rewards``: row ``best[s]`` of each state goes to the
    entries from ``starts[s]`` on. States without rows get a reward of 0 and no entries.
    """
    states, chunk = load_i64(row), load_i64(row + 8)
    first, start, next_ = load_i64(row + 24), load_i64(row + 32), load_i64(row + 40)
    weight, reward = load_i64(row + 48), load_i64(row + 56)
    best, starts, nexts = load_i64(row + AT), load_i64(row + AT + 8), load_i64(row + AT + 16)
    weights, rewards = load_i64(row + AT + 24), load_i64(row + AT + 32)
    for s in range(task * chunk, min(states, (task + 1) * chunk)):
        if load_i32(first + 4 * s) == load_i32(first + 4 * s + 4):
            store_f64(rewards + 8 * s, 0.0)
            continue
        r, to = load_i32(best + 4 * s), load_i32(starts + 4 * s)
        store_f64(rewards + 8 * s, load_f64(reward + 8 * r))
        begin = load_i32(start + 4 * r)
        for e in range(load_i32(start + 4 * r + 4) - begin):
            store_i32(nexts + 4 * (to + e), load_i32(next_ + 4 * (begin + e)))
            store_f64(weights + 8 * (to + e), load_f64(weight + 8 * (begin + e)))


@njit(error_model="numpy", inline="always")
def actions(row, task, slot, count, shared):
    """``q[s, action[r]] = value(r)``; words ``values, q, action, width``, the actions of a table.

    What a state lacks is left as it is.
    """
    states, chunk, pattern = load_i64(row), load_i64(row + 8), load_i64(row + 16)
    first, start, next_ = load_i64(row + 24), load_i64(row + 32), load_i64(row + 40)
    weight, reward = load_i64(row + 48), load_i64(row + 56)
    values, q = load_i64(row + AT), load_i64(row + AT + 8)
    action, width = load_i64(row + AT + 16), load_i64(row + AT + 24)
    for s in range(task * chunk, min(states, (task + 1) * chunk)):
        rows = _rows_at(s, pattern, first, shared)
        base = s if shared else 0
        for r in range(load_i32(rows), load_i32(rows + 4)):
            found = _row_value(r, base, start, next_, weight, reward, values, count)
            store_f64(q + 8 * (s * width + load_i32(action + 4 * r)), found)


@njit(error_model="numpy", inline="always")
def survey(row, task, slot, count, shared):
    """What the weights of each state's rows sum to; words ``counts, flags, stats``.

    A row's sum is over next states s' with ``counts[s']`` (an address, or 0 for all). ``flags``
    gets FLOWS, HOLDS, LEAKS and REACHES by state, ``stats`` the least and the greatest sum of the
    rows of states that flow, by task.
    """
    states, chunk, pattern = load_i64(row), load_i64(row + 8), load_i64(row + 16)
    first, start, next_ = load_i64(row + 24), load_i64(row + 32), load_i64(row + 40)
    weight = load_i64(row + 48)
    counts, flags, stats = load_i64(row + AT), load_i64(row + AT + 8), load_i64(row + AT + 16)
    least, most = math.inf, -math.inf
    for s in range(task * chunk, min(states, (task + 1) * chunk)):
        rows = _rows_at(s, pattern, first, shared)
        base = s if shared else 0
        flag, low, high = 0, math.inf, -math.inf
        for r in range(load_i32(rows), load_i32(rows + 4)):
            total = 0.0
            for x in range(load_i32(start + 4 * r), load_i32(start + 4 * r + 4)):
                part = load_f64(weight + 8 * x)
                if part > 0.0:
                    flag |= FLOWS
                if counts == 0 or load_u8(counts + base + load_i32(next_ + 4 * x)):
                    total += part
            low, high = min(low, total), max(high, total)
        if high >= WHOLE:
            flag |= HOLDS
        if low < WHOLE:
            flag |= LEAKS
        if high > 0.0:
            flag |= REACHES
        if flag & FLOWS:
            least, most = min(least, low), max(most, high)
        store_u8(flags + s, flag)
    store_f64(stats + 16 * task, least)
    store_f64(stats + 16 * task + 8, most)


@njit(error_model="numpy", inline="always")
def gauss_seidel(row, task, slot, count, shared):
    """``sweeps`` sweeps in place, forward and backward in turn; words ``values, sweeps, tol, out``.

    It ends early when no value changes by ``tol``; ``out`` gets the sweeps made and the last
    largest change. One task: each state reads what was just written.
    """
    states, pattern = load_i64(row), load_i64(row + 16)
    first, start, next_ = load_i64(row + 24), load_i64(row + 32), load_i64(row + 40)
    weight, reward = load_i64(row + 48), load_i64(row + 56)
    values, sweeps = load_i64(row + AT), load_i64(row + AT + 8)
    tol, out = load_f64(row + AT + 16), load_i64(row + AT + 24)
    done, largest = 0, math.inf
    while done < sweeps and not largest < tol:
        largest = 0.0
        for number in range(states):
            s = number if done % 2 == 0 else states - 1 - number
            rows = _rows_at(s, pattern, first, shared)
            begin, end = load_i32(rows), load_i32(rows + 4)
            if begin == end:
                continue
            base = s if shared else 0
            top = -math.inf
            for r in range(begin, end):
                q = _row_value(r, base, start, next_, weight, reward, values, count)
                top = max(top, q)
            largest = max(largest, abs(top - load_f64(values + 8 * s)))
            store_f64(values + 8 * s, top)
        done += 1
    store_f64(out, done)
    store_f64(out + 8, largest)
