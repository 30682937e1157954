"""Kernel of prioritised sweeping: the state whose value is most wrong goes first.

Moore, Atkeson. Prioritized Sweeping. Machine Learning 13, 1993; with the model known. A heap holds
the states by an upper bound of their Bellman error; when a value changes by d, the bounds of its
predecessors grow by d times the weight of the way there.
"""

from __future__ import annotations

import math

from numba import njit

from ..simd import load_f64, load_i64, store_f64
from .bellman import AT, _row_value
from .views import f64s, i32s


@njit(error_model="numpy")
def _sift_up(heap, place, priority, i):
    state = heap[i]
    while i > 0:
        parent = (i - 1) // 2
        other = heap[parent]
        if priority[other] >= priority[state]:
            break
        heap[i] = other
        place[other] = i
        i = parent
    heap[i] = state
    place[state] = i


@njit(error_model="numpy")
def _sift_down(heap, place, priority, i):
    size = len(heap)
    state = heap[i]
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and priority[heap[child + 1]] > priority[heap[child]]:
            child += 1
        other = heap[child]
        if priority[other] <= priority[state]:
            break
        heap[i] = other
        place[other] = i
        i = child
    heap[i] = state
    place[state] = i


@njit(error_model="numpy")
def prioritised(row, task, slot, count, shared):
    """Back up the most wrong state until none is wrong by ``tol``.

    Words behind the process: ``values, priority, heap, place, before_start, before,
    before_weight, tol, most, out``. ``before`` lists the predecessors of each state, each with the
    largest weight of one of its rows into it. ``priority`` holds the Bellman errors to begin with
    and ``heap`` all states. ``out`` gets the backups made and the last bound.
    """
    states = load_i64(row)
    first, start, next_ = load_i64(row + 24), load_i64(row + 32), load_i64(row + 40)
    weight, reward = load_i64(row + 48), load_i64(row + 56)
    values_at = load_i64(row + AT)
    values, priority = f64s(values_at, states), f64s(load_i64(row + AT + 8), states)
    heap, place = i32s(load_i64(row + AT + 16), states), i32s(load_i64(row + AT + 24), states)
    before_start = i32s(load_i64(row + AT + 32), states + 1)
    before = i32s(load_i64(row + AT + 40), before_start[states])
    before_weight = f64s(load_i64(row + AT + 48), before_start[states])
    tol, most, out = load_f64(row + AT + 56), load_i64(row + AT + 64), load_i64(row + AT + 72)
    begins = i32s(first, states + 1)
    for i in range(states // 2 - 1, -1, -1):
        _sift_down(heap, place, priority, i)
    done = 0
    while done < most and priority[heap[0]] >= tol:
        s = heap[0]
        top = -math.inf
        for r in range(begins[s], begins[s + 1]):
            top = max(top, _row_value(r, 0, start, next_, weight, reward, values_at, count))
        if begins[s] == begins[s + 1]:
            top = 0.0
        change = abs(top - values[s])
        values[s] = top
        priority[s] = 0.0
        _sift_down(heap, place, priority, 0)
        for e in range(before_start[s], before_start[s + 1]):
            p = before[e]
            bound = before_weight[e] * change
            if bound > 0.0:
                priority[p] += bound
                _sift_up(heap, place, priority, place[p])
        done += 1
    store_f64(out, done)
    store_f64(out + 8, priority[heap[0]])
