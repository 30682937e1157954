"""States that differ only in their place, found part by part: the patterns of a process."""

from __future__ import annotations

import numpy as np

from .process import INDEX, ends
from .sweeps import DecisionKernel, run_kernel

MOST = 1 << 12
"""Patterns that are kept; a process with more has rows of its own for each state."""


class Patterns:
    """The patterns of states met so far.

    Parameters
    ----------
    states
        How many states there will be.
    actions, outcomes
        How many actions a state has at most, and outcomes an action.
    """

    def __init__(self, states: int, actions: int, outcomes: int) -> None:
        self.of_state = np.empty(states, INDEX)
        self.outcomes = outcomes
        self._sizes = (actions, outcomes)
        # One record more, for the state that is looked at.
        self._rewards = np.empty((MOST + 1, actions))
        self._nexts = np.empty((MOST + 1, actions, outcomes), INDEX)
        self._weights = np.empty((MOST + 1, actions, outcomes))
        self._slots = np.zeros(4 * MOST, INDEX)
        self._found = np.zeros(1, np.int64)

    def add(
        self, place: int, state: np.ndarray, effect: np.ndarray, reward: np.ndarray,
        allowed: np.ndarray,
    ) -> bool:  # fmt: skip
        """The states from number ``place`` on; whether there are still few enough patterns.

        ``state`` and ``effect`` (the weight of its value) are ``[states, actions, outcomes]``,
        ``reward`` and ``allowed`` ``[states, actions]``; views with any strides.
        """
        arrays = (state, effect, reward, allowed)
        strides = np.array([s for array in arrays for s in array.strides], np.int64)
        addresses = [array.__array_interface__["data"][0] for array in arrays]
        here = self.of_state[place : place + len(state)]
        words = [
            len(state), place, *self._sizes, *addresses, strides, self._rewards, self._nexts,
            self._weights, self._slots, len(self._slots), here, self._found, MOST,
        ]  # fmt: skip
        run_kernel(DecisionKernel("interning", "intern"), 1, words)
        return self._found[0] >= 0

    def rows(self) -> tuple[np.ndarray, ...]:
        """``first, action, start, next, weight, reward`` of a process's patterns.

        All rows have as many entries; those of weight 0 lead nowhere.
        """
        count = int(self._found[0])
        reward = self._rewards[:count]
        allowed = ~np.isnan(reward)
        action = np.nonzero(allowed)[1].astype(INDEX)
        start = np.arange(len(action) + 1, dtype=INDEX) * INDEX(self._sizes[1])
        next_, weight = self._nexts[:count][allowed], self._weights[:count][allowed]
        first = ends(allowed.sum(axis=1))
        return first, action, start, next_.reshape(-1), weight.reshape(-1), reward[allowed]

    def led_to(self, states: np.ndarray) -> int | None:
        """One of these states (a mask) that an entry leads to."""
        count = int(self._found[0])
        nexts, weights = self._nexts[:count], self._weights[:count]
        wanted = np.flatnonzero(states)
        for away in np.unique(nexts[weights != 0]):
            has = ((nexts == away) & (weights != 0)).any(axis=(1, 2))
            source = wanted - int(away)
            inside = (source >= 0) & (source < len(self.of_state))
            hit = has[self.of_state[source[inside]]]
            if hit.any():
                return int(wanted[inside][hit.argmax()])
        return None
