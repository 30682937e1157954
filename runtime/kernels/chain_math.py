"""Scalar parts of chains: where two halves meet, and how a path is drawn."""

from __future__ import annotations

import math

from numba import njit

from ..simd import load_f32, load_f64, power_of_two, spread2d, store_f64, store_i32
from .masks import first_lane

LOG_2 = math.log(2.0)


@njit(error_model="numpy")
def power(n):
    """Two to a whole-valued n, which may be as small as -inf."""
    return first_lane(power_of_two(spread2d(max(n, -1023.0))))


@njit(error_model="numpy")
def _dots(x, after, head, table, states, row, line, size):
    """The sum over states of x times the product of the backward table and ``after``, as (m, n).

    Without ``after`` (0) it is the sum of x.
    """
    wide = load_f64(head) != 0.0
    top = -1e300
    for turn in range(2):
        total = 0.0
        for i in range(states):
            m, n = load_f64(x + i * 8), load_f64(x + row + i * 8) if wide else 0.0
            if after == 0:
                if turn == 0:
                    top = max(top, n)
                else:
                    total += m * power(n - top)
                continue
            for j in range(states):
                at = i * line + j * 8
                if wide:
                    p = load_f64(table + 2 * size + at) * load_f64(after + j * 8) * m
                    q = load_f64(table + 3 * size + at) + load_f64(after + row + j * 8) + n
                else:
                    p, q = load_f64(table + at) * load_f64(after + j * 8) * m, 0.0
                if turn == 0:
                    top = max(top, q)
                else:
                    total += p * power(q - top)
    return total, top


@njit(error_model="numpy")
def meeting(x, after, head, table, states, row, line, size, steps, middle):
    """Log Z of a chain whose forward half ended in ``x`` and backward half in ``after``."""
    total, n = _dots(x, after if middle < steps else 0, head, table, states, row, line, size)
    peaks = load_f64(x + 2 * row + 64)
    shift = load_f64(x + 2 * row)
    if middle < steps:
        peaks += load_f64(after + 2 * row + 64)
        shift += load_f64(after + 2 * row)
    if load_f64(head) == 0.0:
        peaks += load_f64(head + 8) * (steps - 1)
    return math.log(total) + ((n + shift) * LOG_2 + peaks)


@njit(error_model="numpy")
def draw_path(marks, exponents, head, transition, varying, uniform, path, states, line, size,
              table, steps, scores):  # fmt: skip
    """Backward sampling: step t by its uniform, given step t + 1.

    ``marks`` [T, K] and ``exponents`` f32 [T, line / 8] are the forward pass; ``scores`` has room
    for K numbers and their exponents.
    """
    wide = load_f64(head) != 0.0
    after = 0
    for t in range(steps - 1, -1, -1):
        top = -1e300
        for i in range(states):
            m = load_f64(marks + (t * states + i) * 8)
            n = _exponent_at(exponents, t, i, line) if wide else 0.0
            if t + 1 < steps:
                if varying:
                    q = load_f64(transition + (((t + 1) * states + i) * states + after) * 8)
                    k = math.floor(q / LOG_2) if q > -math.inf else -math.inf
                    m *= math.exp(q - k * LOG_2) if q > -math.inf else 0.0
                    n += k
                elif wide:
                    at = i * line + after * 8
                    m *= load_f64(table + 2 * size + at)
                    n += load_f64(table + 3 * size + at)
                else:
                    m *= load_f64(table + i * line + after * 8)
            top = max(top, n) if m > 0.0 else top
            _put(scores, i, m, n)
        after = _picked(scores, states, top, load_f64(uniform + t * 8))
        store_i32(path + t * 4, after)


@njit(error_model="numpy")
def _picked(scores, states, top, u):
    total = 0.0
    for i in range(states):
        total += load_f64(scores + i * 16) * power(load_f64(scores + i * 16 + 8) - top)
    bound, running, found = u * total, 0.0, 0
    for i in range(states):
        running += load_f64(scores + i * 16) * power(load_f64(scores + i * 16 + 8) - top)
        if running <= bound:
            found += 1
    return found


@njit(error_model="numpy", inline="always")
def _put(scores, i, m, n):
    store_f64(scores + i * 16, m)
    store_f64(scores + i * 16 + 8, n)


@njit(error_model="numpy", inline="always")
def _exponent_at(exponents, t, i, line):
    return float(load_f32(exponents + t * (line // 2) + i * 4))
