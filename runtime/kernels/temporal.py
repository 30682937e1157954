"""Learning rules on episodes and single steps: the updates, apart from where experience is from.

Sutton, Barto. Reinforcement Learning, 2nd edition 2018: Monte Carlo 5.1 and 5.4, off-policy 5.6,
TD(0) 6.1, SARSA 6.4, Q-learning 6.5, expected SARSA 6.6, double Q-learning 6.7, n-step TD 7.1,
TD(lambda) with eligibility traces 12.2 (accumulating and replacing). An episode of length T is its
states ``s_0 .. s_T`` with the reward ``r[t]`` and the factor ``c[t]`` on what follows of each step;
``c`` is 0 at an end.
"""

from __future__ import annotations

import math

import numba
from numba import njit

SARSA, EXPECTED_SARSA, Q_LEARNING, DOUBLE_Q = range(4)
FIRST_VISIT, EVERY_VISIT = range(2)
ACCUMULATING, REPLACING = range(2)
FAINT = 1e-12
"""Traces below this are dropped."""

uint64 = numba.uint64
_GOLDEN = uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = uint64(0xBF58476D1CE4E5B9), uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = uint64(30), uint64(27), uint64(31), uint64(11)


@njit(error_model="numpy")
def uniform(random):
    """The next number of a stream in 0 <= u < 1; ``random`` is uint64[1].

    SplitMix64 (Steele, Lea, Flood 2014): a counter, mixed; so a stream is its seed.
    """
    random[0] += _GOLDEN
    z = random[0]
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    z = z ^ (z >> _31)
    return (z >> _11) * 1.1102230246251565e-16


@njit(error_model="numpy")
def best_row(q, begin, end):
    """The first row of the largest value."""
    top = begin
    for r in range(begin + 1, end):
        if q[r] > q[top]:
            top = r
    return top


@njit(error_model="numpy")
def choose(q, other, begin, end, epsilon, temperature, random):
    """A row by ``q + other``: epsilon-greedy with ties broken at random, or softmax."""
    if temperature > 0.0:
        return _by_softmax(q, other, begin, end, temperature, random)
    if epsilon > 0.0 and uniform(random) < epsilon:
        return begin + int(uniform(random) * (end - begin))
    top, which, ties = -math.inf, begin, 0
    for r in range(begin, end):
        value = q[r] + other[r]
        if value > top:
            top, which, ties = value, r, 1
        elif value == top:
            ties += 1
    if ties < 2:
        return which
    skip = int(uniform(random) * ties)
    for r in range(which, end):
        if q[r] + other[r] == top:
            if skip == 0:
                return r
            skip -= 1
    return which


@njit(error_model="numpy")
def _by_softmax(q, other, begin, end, temperature, random):
    top = -math.inf
    for r in range(begin, end):
        top = max(top, q[r] + other[r])
    total = 0.0
    for r in range(begin, end):
        total += math.exp((q[r] + other[r] - top) / temperature)
    u = uniform(random) * total
    for r in range(begin, end):
        u -= math.exp((q[r] + other[r] - top) / temperature)
        if u < 0.0:
            return r
    return end - 1


@njit(error_model="numpy")
def expected_value(q, begin, end, epsilon, temperature):
    """The mean of ``q`` under the exploring policy."""
    top = q[best_row(q, begin, end)]
    total, mean = 0.0, 0.0
    if temperature > 0.0:
        for r in range(begin, end):
            weight = math.exp((q[r] - top) / temperature)
            total += weight
            mean += weight * q[r]
        return mean / total
    for r in range(begin, end):
        mean += q[r]
    return (1.0 - epsilon) * top + epsilon * mean / (end - begin)


@njit(error_model="numpy")
def step_update(
    method, q, other, row, reward, factor, begin, end, then, alpha, epsilon, temperature, coin
):
    """One step of a control method: ``row`` earned ``reward`` and led to the rows begin .. end.

    ``then`` is the row that is taken next (SARSA). ``coin`` below 0.5 updates ``q`` of double
    Q-learning, else ``other``.
    """
    if method == DOUBLE_Q:
        if coin < 0.5:
            later = 0.0 if factor == 0.0 else other[best_row(q, begin, end)]
            q[row] += alpha * (reward + factor * later - q[row])
        else:
            later = 0.0 if factor == 0.0 else q[best_row(other, begin, end)]
            other[row] += alpha * (reward + factor * later - other[row])
        return
    later = 0.0
    if factor != 0.0:
        if method == SARSA:
            later = q[then]
        elif method == EXPECTED_SARSA:
            later = expected_value(q, begin, end, epsilon, temperature)
        else:
            later = q[best_row(q, begin, end)]
    q[row] += alpha * (reward + factor * later - q[row])


@njit(error_model="numpy")
def n_step(values, states, rewards, factors, length, alpha, n):
    """n-step TD for each step of an episode in order; n = 1 is TD(0)."""
    for t in range(length):
        end = min(t + n, length)
        total, factor = 0.0, 1.0
        for k in range(t, end):
            total += factor * rewards[k]
            factor *= factors[k]
        if factor != 0.0:
            total += factor * values[states[end]]
        values[states[t]] += alpha * (total - values[states[t]])


@njit(error_model="numpy")
def with_traces(values, states, rewards, factors, length, alpha, decay, kind, traces, active):
    """TD(lambda) over an episode; ``traces`` is zero for all states, before and after.

    ``active`` has room for the states of an episode.
    """
    count = 0
    for t in range(length):
        s = states[t]
        later = 0.0 if factors[t] == 0.0 else factors[t] * values[states[t + 1]]
        error = rewards[t] + later - values[s]
        if traces[s] == 0.0:
            active[count] = s
            count += 1
        traces[s] = 1.0 if kind == REPLACING else traces[s] + 1.0
        kept = 0
        for place in range(count):
            x = active[place]
            values[x] += alpha * error * traces[x]
            traces[x] *= factors[t] * decay
            if traces[x] > FAINT:
                active[kept] = x
                kept += 1
            else:
                traces[x] = 0.0
        count = kept
    for place in range(count):
        traces[active[place]] = 0.0


@njit(error_model="numpy")
def monte_carlo(values, places, rewards, factors, length, alpha, visits, first):
    """Constant-step Monte Carlo over an episode: each visit (or the first) moves to its return.

    ``places`` are states or rows; ``first`` has room for one number of each.
    """
    if visits == FIRST_VISIT:
        for t in range(length - 1, -1, -1):
            first[places[t]] = t
    total = 0.0
    for t in range(length - 1, -1, -1):
        total = rewards[t] + factors[t] * total
        x = places[t]
        if visits == EVERY_VISIT or first[x] == t:
            values[x] += alpha * (total - values[x])


@njit(error_model="numpy")
def importance(q, weights, rows, ratios, rewards, factors, length, weighted):
    """Off-policy Monte Carlo for action values; ``ratios[t]`` is target over behaviour chance.

    ``weights`` are the sums of importance (weighted) or the visits (ordinary) of each row.
    """
    total, ratio = 0.0, 1.0
    for t in range(length - 1, -1, -1):
        total = rewards[t] + factors[t] * total
        r = rows[t]
        if weighted:
            weights[r] += ratio
            if ratio > 0.0:
                q[r] += ratio / weights[r] * (total - q[r])
        else:
            weights[r] += 1.0
            q[r] += (ratio * total - q[r]) / weights[r]
        ratio *= ratios[t]
        if weighted and ratio == 0.0:
            break
