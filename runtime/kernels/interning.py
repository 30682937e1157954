"""Kernel that finds states which differ only in their place, so that they can share their rows."""

from __future__ import annotations

import math

from numba import int64, njit, uint64

from ..simd import load_f64, load_i32, load_i64, load_u8, load_u64, store_f64, store_i32, store_i64

WORDS = (
    "states", "place", "actions", "outcomes", "state", "effect", "reward", "allowed", "strides",
    "rewards", "nexts", "weights", "slots", "slot_count", "pattern", "found", "most",
)  # fmt: skip
_MIX = uint64(0x9E3779B97F4A7C15)
_SHIFT = uint64(29)


@njit(error_model="numpy", inline="always")
def _mixed(key, word):
    """A hash and one more word (Fibonacci hashing; Knuth, volume 3, 6.4)."""
    key = (key ^ word) * _MIX
    return key ^ (key >> _SHIFT)


@njit(error_model="numpy")
def _record(row, n, at):
    """Write state n of a part as record ``at``; its hash."""
    place, actions, outcomes = load_i64(row + 8), load_i64(row + 16), load_i64(row + 24)
    state, effect, reward = load_i64(row + 32), load_i64(row + 40), load_i64(row + 48)
    allowed, strides = load_i64(row + 56), load_i64(row + 64)
    rewards = load_i64(row + 72) + 8 * at * actions
    nexts = load_i64(row + 80) + 4 * at * actions * outcomes
    weights = load_i64(row + 88) + 8 * at * actions * outcomes
    key = uint64(0)
    for a in range(actions):
        may = load_u8(allowed + n * load_i64(strides + 64) + a * load_i64(strides + 72)) != 0
        earned = load_f64(reward + n * load_i64(strides + 48) + a * load_i64(strides + 56))
        store_f64(rewards + 8 * a, earned if may else math.nan)
        key = _mixed(key, load_u64(rewards + 8 * a))
        from_state = state + n * load_i64(strides) + a * load_i64(strides + 8)
        from_effect = effect + n * load_i64(strides + 24) + a * load_i64(strides + 32)
        for k in range(outcomes):
            x = a * outcomes + k
            weight = load_f64(from_effect + k * load_i64(strides + 40)) if may else 0.0
            away = load_i32(from_state + k * load_i64(strides + 16)) - (place + n)
            if weight == 0.0:
                weight, away = 0.0, 0
            store_f64(weights + 8 * x, weight)
            store_i32(nexts + 4 * x, away)
            key = _mixed(key, load_u64(weights + 8 * x) ^ uint64(away))
    return key


@njit(error_model="numpy")
def _same(row, one, other):
    """Whether two records are the same, bit by bit."""
    actions, outcomes = load_i64(row + 16), load_i64(row + 24)
    rewards, nexts, weights = load_i64(row + 72), load_i64(row + 80), load_i64(row + 88)
    for a in range(actions):
        left, right = one * actions + a, other * actions + a
        if load_u64(rewards + 8 * left) != load_u64(rewards + 8 * right):
            return False
    size = actions * outcomes
    for x in range(size):
        left, right = one * size + x, other * size + x
        if load_i32(nexts + 4 * left) != load_i32(nexts + 4 * right):
            return False
        if load_u64(weights + 8 * left) != load_u64(weights + 8 * right):
            return False
    return True


@njit(error_model="numpy")
def intern(row, task, slot):
    """The pattern of each state of a part; words ``WORDS``.

    ``state``, ``effect`` (by state, action, outcome), ``reward`` and ``allowed`` (by state and
    action) are read by their 10 ``strides`` in bytes. New patterns are added to the records
    ``rewards`` (NaN where an action is not allowed), ``nexts`` (how far away) and ``weights``,
    which hold one more than ``most``, and to the hash table ``slots`` (number plus 1; a power of
    two of them). ``pattern`` gets each state's number, ``found`` how many there are, -1 when there
    are more than ``most``.
    """
    states, pattern = load_i64(row), load_i64(row + 112)
    slots, mask = load_i64(row + 96), load_i64(row + 104) - 1
    found, most = load_i64(row + 120), load_i64(row + 128)
    count = load_i64(found)
    for n in range(states):
        place = int64(_record(row, n, count) & uint64(mask))
        number = load_i32(slots + 4 * place)
        while number != 0 and not _same(row, number - 1, count):
            place = (place + 1) & mask
            number = load_i32(slots + 4 * place)
        if number == 0:
            if count == most:
                store_i64(found, -1)
                return
            count += 1
            number = count
            store_i32(slots + 4 * place, number)
        store_i32(pattern + 4 * n, number - 1)
    store_i64(found, count)
