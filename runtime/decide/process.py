"""A finite decision process in compressed rows: states, their actions, the actions' outcomes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

INDEX = np.int32
"""The type of states, rows and entries: at most 2^31 - 1 of each."""


@dataclass(frozen=True)
class Outcomes:
    """What a simulator needs beyond the expected numbers, one for each entry.

    ``chance`` is the probability of the outcome, ``reward`` its reward and ``discount`` the factor
    on the value of the state it leads to, 0 where the episode ends.
    """

    chance: np.ndarray
    reward: np.ndarray
    discount: np.ndarray


@dataclass(frozen=True)
class Process:
    """States ``0 .. S-1``; state s has the rows ``first[s] .. first[s+1] - 1``, one an action.

    Row r is action ``action[r]``: it earns ``reward[r]`` in expectation and has the entries
    ``start[r] .. start[r+1] - 1``. Entry e leads to ``next[e]``, whose value counts ``weight[e]``
    times: the probability times the discount, so what ends has no entry (or weight 0). Values are
    maximised; costs have their sign turned, and ``sign`` is then -1. ``shape`` is that of a table
    over the states, ``actions`` how many different ones there are.

    With ``pattern``, states that differ only in their place share rows: state s has those of
    ``pattern[s]`` in the place of s, and entry e leads to the state ``s + next[e]``. A rule over
    millions of states then takes a few rows in all. :attr:`plain` is the same without patterns.
    """

    shape: tuple[int, ...]
    actions: int
    first: np.ndarray
    action: np.ndarray
    start: np.ndarray
    next: np.ndarray
    weight: np.ndarray
    reward: np.ndarray
    sign: float = 1.0
    outcomes: Outcomes | None = None
    pattern: np.ndarray | None = None

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.first) - 1 if self.pattern is None else len(self.pattern)

    @cached_property
    def counts(self) -> np.ndarray:
        """How many actions each state has."""
        counts = np.diff(self.first)
        return counts if self.pattern is None else counts[self.pattern]

    @cached_property
    def rows(self) -> int:
        """State-action pairs."""
        return len(self.action) if self.pattern is None else int(self.counts.sum(dtype=np.int64))

    @cached_property
    def entries(self) -> int:
        """Outcomes that go on."""
        if self.pattern is None:
            return len(self.next)
        counted = ends(self.weight != 0)
        each = np.diff(counted[self.start[self.first]]).astype(np.int64)
        return int(each @ np.bincount(self.pattern, minlength=len(each)))

    @cached_property
    def every(self) -> int:
        """The number of entries that every row has; 0 where rows differ."""
        sizes = np.diff(self.start)
        return int(sizes[0]) if len(sizes) and (sizes == sizes[0]).all() else 0

    @property
    def bytes(self) -> int:
        """Memory of the arrays."""
        arrays = [self.first, self.action, self.start, self.next, self.weight, self.reward]
        if self.outcomes is not None:
            arrays += [self.outcomes.chance, self.outcomes.reward, self.outcomes.discount]
        return sum(a.nbytes for a in [*arrays, *([] if self.pattern is None else [self.pattern])])

    @cached_property
    def plain(self) -> Process:
        """The same process with rows of its own for each state."""
        if self.pattern is None:
            return self
        row = _runs(self.first[self.pattern], self.counts)
        entry = _runs(self.start[row], np.diff(self.start)[row])
        state = np.repeat(np.arange(self.states, dtype=INDEX), self.counts)
        sizes = np.diff(self.start)[row]
        return replace(
            self,
            pattern=None,
            first=ends(self.counts),
            action=self.action[row],
            start=ends(sizes),
            next=self.next[entry] + np.repeat(state, sizes),
            weight=self.weight[entry],
            reward=self.reward[row],
        )

    @property
    def state_of_row(self) -> np.ndarray:
        """The state that each row belongs to (without patterns)."""
        assert self.pattern is None
        return np.repeat(np.arange(self.states, dtype=INDEX), self.counts)

    @property
    def row_of_entry(self) -> np.ndarray:
        """The row that each entry belongs to (without patterns)."""
        assert self.pattern is None
        return np.repeat(np.arange(self.rows, dtype=INDEX), np.diff(self.start))

    def place(self, state: int) -> tuple[int, ...]:
        """A state as its indices."""
        return tuple(int(i) for i in np.unravel_index(state, self.shape)) if self.shape else ()

    def table(self, rows: np.ndarray, missing: float = np.nan) -> np.ndarray:
        """Numbers by row as ``[states, actions]``, ``missing`` where a state lacks an action."""
        full = np.full((self.states, self.actions), missing, rows.dtype)
        full[self.state_of_row, self.action] = rows
        return full

    def rows_of(self, table: np.ndarray) -> np.ndarray:
        """The numbers of a table ``[states, actions]`` by row."""
        return table[self.state_of_row, self.action]

    def followed(self, probabilities: np.ndarray) -> Process:
        """The process under a policy: one action a state, from each row's probability."""
        mixed = replace(
            self,
            actions=1,
            first=np.arange(self.states + 1, dtype=INDEX),
            action=np.zeros(self.states, INDEX),
            start=self.start[self.first],
            weight=self.weight * np.repeat(probabilities, np.diff(self.start)),
            reward=np.bincount(self.state_of_row, probabilities * self.reward, self.states),
            outcomes=None,
        )
        if self.outcomes is None:
            return mixed
        chance = self.outcomes.chance * np.repeat(probabilities, np.diff(self.start))
        return replace(mixed, outcomes=replace(self.outcomes, chance=chance))


def ends(counts: np.ndarray) -> np.ndarray:
    """Where runs of these lengths begin, and where the last ends."""
    found = np.zeros(len(counts) + 1, INDEX)
    np.cumsum(counts, out=found[1:])
    return found


def _runs(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``begins[0], begins[0] + 1, ...``, as many as ``counts[0]`` says, and so on."""
    places = np.arange(int(counts.sum(dtype=np.int64)))
    return np.repeat(begins - (np.cumsum(counts) - counts), counts) + places
