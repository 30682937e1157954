"""Kernels that learn from a process's simulator; a task is one seed with its own tables.

Every row begins with the words ``SIMULATOR``: the process, its outcomes (``cumulative`` chances
within each row), where episodes stop and start, their number and length, step sizes and exploration
by episode, and for each seed its random stream, action values and learning curve.
"""

from __future__ import annotations

import math

from numba import njit

from ..simd import load_f64, load_i64
from . import temporal as td
from .views import f64s, i32s, i64s, u8s, u64s

SIMULATOR = (
    "states", "rows", "entries", "first", "start", "next", "cumulative", "reward", "factor", "stop",
    "starts", "start_count", "episodes", "longest", "alpha", "epsilon", "temperature", "streams",
    "q", "returns", "lengths",
)  # fmt: skip
AT = 8 * len(SIMULATOR)


@njit(error_model="numpy", inline="always")
def _outcome(begin, end, cumulative, u):
    e = begin
    while e < end - 1 and u >= cumulative[e]:
        e += 1
    return e


@njit(error_model="numpy")
def control(row, task, slot):
    """SARSA, expected SARSA, Q-learning, double Q-learning; words ``method, other``."""
    states, rows, entries = load_i64(row), load_i64(row + 8), load_i64(row + 16)
    first, start = i32s(load_i64(row + 24), states + 1), i32s(load_i64(row + 32), rows + 1)
    next_ = i32s(load_i64(row + 40), entries)
    cumulative, reward = f64s(load_i64(row + 48), entries), f64s(load_i64(row + 56), entries)
    factor, stop = f64s(load_i64(row + 64), entries), u8s(load_i64(row + 72), states)
    starts, start_count = load_i64(row + 80), load_i64(row + 88)
    begins = i32s(starts, start_count)
    episodes, longest = load_i64(row + 96), load_i64(row + 104)
    alpha, epsilon = f64s(load_i64(row + 112), episodes), f64s(load_i64(row + 120), episodes)
    temperature = f64s(load_i64(row + 128), episodes)
    random = u64s(load_i64(row + 136) + 8 * task, 1)
    q = f64s(load_i64(row + 144) + 8 * rows * task, rows)
    returns = f64s(load_i64(row + 152) + 8 * episodes * task, episodes)
    lengths = i64s(load_i64(row + 160) + 8 * episodes * task, episodes)
    method = load_i64(row + AT)
    other = f64s(load_i64(row + AT + 8) + 8 * rows * task, rows)
    for episode in range(episodes):
        a, eps, heat = alpha[episode], epsilon[episode], temperature[episode]
        s = begins[int(td.uniform(random) * start_count)]
        r = td.choose(q, other, first[s], first[s + 1], eps, heat, random)
        total, length = 0.0, 0
        while length < longest:
            e = _outcome(start[r], start[r + 1], cumulative, td.uniform(random))
            there, on = next_[e], factor[e]
            if stop[there]:
                on = 0.0
            begin, end = first[there], first[there + 1]
            then, coin = begin, 0.0
            if method == td.SARSA and on != 0.0:
                then = td.choose(q, other, begin, end, eps, heat, random)
            if method == td.DOUBLE_Q:
                coin = td.uniform(random)
            td.step_update(
                method, q, other, r, reward[e], on, begin, end, then, a, eps, heat, coin
            )  # fmt: skip
            total += reward[e]
            length += 1
            if on == 0.0:
                break
            if method != td.SARSA:
                then = td.choose(q, other, begin, end, eps, heat, random)
            r = then
        returns[episode], lengths[episode] = total, length


@njit(error_model="numpy")
def _episode(row, task, episode, rows, kept, states, rewards, factors, policy, q, none):
    """One episode into arrays; its rows are drawn by ``policy`` (cumulative) or chosen by ``q``."""
    count, entries = load_i64(row), load_i64(row + 16)
    first, start = i32s(load_i64(row + 24), count + 1), i32s(load_i64(row + 32), rows + 1)
    next_ = i32s(load_i64(row + 40), entries)
    cumulative, reward = f64s(load_i64(row + 48), entries), f64s(load_i64(row + 56), entries)
    factor, stop = f64s(load_i64(row + 64), entries), u8s(load_i64(row + 72), count)
    start_count = load_i64(row + 88)
    begins = i32s(load_i64(row + 80), start_count)
    episodes, longest = load_i64(row + 96), load_i64(row + 104)
    epsilon, heat = f64s(load_i64(row + 120), episodes), f64s(load_i64(row + 128), episodes)
    random = u64s(load_i64(row + 136) + 8 * task, 1)
    s = begins[int(td.uniform(random) * start_count)]
    total, length, on = 0.0, 0, 1.0
    states[0] = s
    while length < longest and on != 0.0:
        begin, end = first[s], first[s + 1]
        if len(policy):
            r = _outcome(begin, end, policy, td.uniform(random))
        else:
            r = td.choose(q, none, begin, end, epsilon[episode], heat[episode], random)
        e = _outcome(start[r], start[r + 1], cumulative, td.uniform(random))
        s = next_[e]
        on = 0.0 if stop[s] else factor[e]
        kept[length], rewards[length], factors[length] = r, reward[e], on
        length += 1
        states[length] = s
        total += reward[e]
    returns = f64s(load_i64(row + 152) + 8 * episodes * task, episodes)
    lengths = i64s(load_i64(row + 160) + 8 * episodes * task, episodes)
    returns[episode], lengths[episode] = total, length
    return length


@njit(error_model="numpy")
def predict(row, task, slot):
    """Values of a policy by n-step TD, TD(lambda) or Monte Carlo.

    Words ``policy, method, n, decay, kind, values, truth, errors``: method 0 is n-step TD, 1
    TD(lambda) with traces of ``kind``, 2 Monte Carlo by ``kind`` of visits. ``errors`` gets the
    root mean square error over the states where ``truth`` is a number, by episode.
    """
    count, rows, episodes, longest = (
        load_i64(row), load_i64(row + 8), load_i64(row + 96), load_i64(row + 104)
    )  # fmt: skip
    policy = f64s(load_i64(row + AT), rows)
    method, n, decay = load_i64(row + AT + 8), load_i64(row + AT + 16), load_f64(row + AT + 24)
    kind = load_i64(row + AT + 32)
    values = f64s(load_i64(row + AT + 40) + 8 * count * task, count)
    truth = f64s(load_i64(row + AT + 48), count)
    errors = f64s(load_i64(row + AT + 56) + 8 * episodes * task, episodes)
    room = load_i64(row + AT + 64)
    base = room + task * load_i64(row + AT + 72)
    rewards, factors = f64s(base, longest), f64s(base + 8 * longest, longest)
    traces = f64s(base + 16 * longest, count)
    firsts = i64s(base + 16 * longest + 8 * count, count)
    rest = base + 16 * longest + 16 * count
    kept, states = i32s(rest, longest), i32s(rest + 4 * longest, longest + 1)
    active = i32s(rest + 8 * longest + 8, longest + 1)
    alpha = f64s(load_i64(row + 112), episodes)
    for episode in range(episodes):
        length = _episode(
            row, task, episode, rows, kept, states, rewards, factors, policy, policy, policy
        )  # fmt: skip
        a = alpha[episode]
        if method == 0:
            td.n_step(values, states, rewards, factors, length, a, n)
        elif method == 1:
            td.with_traces(
                values, states, rewards, factors, length, a, decay, kind, traces, active
            )  # fmt: skip
        else:
            td.monte_carlo(values, states, rewards, factors, length, a, kind, firsts)
        errors[episode] = _error(values, truth)


@njit(error_model="numpy")
def _error(values, truth):
    total, count = 0.0, 0
    for s in range(len(truth)):
        if truth[s] == truth[s]:
            total += (values[s] - truth[s]) ** 2
            count += 1
    return math.sqrt(total / max(count, 1))


@njit(error_model="numpy")
def monte_carlo_control(row, task, slot):
    """Monte Carlo for action values, on-policy or by importance sampling.

    Words ``target, mode, visits, behaviour, none, room, room_bytes``: mode 0 learns what it does,
    1 (ordinary) and 2 (weighted) learn the policy ``target`` (chances by row; the greedy one where
    it is below 0) from episodes of ``behaviour`` (cumulative chances by row).
    """
    count, rows, episodes, longest = (
        load_i64(row), load_i64(row + 8), load_i64(row + 96), load_i64(row + 104)
    )  # fmt: skip
    first = i32s(load_i64(row + 24), count + 1)
    q = f64s(load_i64(row + 144) + 8 * rows * task, rows)
    alpha = f64s(load_i64(row + 112), episodes)
    target, mode = f64s(load_i64(row + AT), rows), load_i64(row + AT + 8)
    visits = load_i64(row + AT + 16)
    behaviour, none = f64s(load_i64(row + AT + 24), rows), f64s(load_i64(row + AT + 32), rows)
    if mode == 0:
        behaviour = f64s(load_i64(row + AT + 24), 0)
    base = load_i64(row + AT + 40) + task * load_i64(row + AT + 48)
    rewards, factors = f64s(base, longest), f64s(base + 8 * longest, longest)
    ratios = f64s(base + 16 * longest, longest)
    weights, firsts = (
        f64s(base + 24 * longest, rows), i64s(base + 24 * longest + 8 * rows, rows)
    )  # fmt: skip
    rest = base + 24 * longest + 16 * rows
    kept, states = i32s(rest, longest), i32s(rest + 4 * longest, longest + 1)
    for episode in range(episodes):
        length = _episode(
            row, task, episode, rows, kept, states, rewards, factors, behaviour, q, none
        )  # fmt: skip
        if mode == 0:
            td.monte_carlo(q, kept, rewards, factors, length, alpha[episode], visits, firsts)
            continue
        for t in range(length):
            begin, end = first[states[t]], first[states[t] + 1]
            chance = target[kept[t]]
            if chance < 0.0:
                chance = 1.0 if kept[t] == td.best_row(q, begin, end) else 0.0
            ratios[t] = chance * (end - begin)
        td.importance(q, weights, kept, ratios, rewards, factors, length, mode == 2)
