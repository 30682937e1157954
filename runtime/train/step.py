"""What a compiled training step reads and gives, and the state that it moves.

Weights that are moved lie in flat buffers, one for each *group*, and so do the optimiser's slots.
A step reads weights by path (views of the buffers), the buffers, the slots, a batch and a few
scalars, and gives new buffers, slots and running statistics. It changes nothing in place, so a step
that fails leaves the state as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

Arrays = dict[str, np.ndarray]
Call = Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], Arrays]
"""A compiled graph: outputs by name, from inputs by name and weights by path."""

LR, COUNT, MOMENTUM = "step.lr", "step.count", "step.momentum"
"""Scalars that a step reads: the rate, the number of the update from 1, the scheduled momentum."""

LOSS, NORM, AVERAGE = "loss", "gradient_norm", "average"


@dataclass(frozen=True)
class Group:
    """Weights that lie one after another in one buffer, ``dtype[size]``."""

    name: str
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str

    @property
    def weights(self) -> str:
        """The name of the buffer among a step's inputs and outputs."""
        return f"{self.name}/weights"

    @property
    def size(self) -> int:
        """Numbers in the buffer."""
        return sum(map(prod, self.shapes))

    def views(self, flat: np.ndarray) -> Arrays:
        """The weights by path, as views of the buffer."""
        found, start = {}, 0
        for path, shape in zip(self.paths, self.shapes, strict=True):
            found[path] = flat[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
        return found

    def flat(self, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """The buffer, from weights by path."""
        parts = [np.asarray(weights[path], self.dtype).reshape(-1) for path in self.paths]
        return np.concatenate(parts) if parts else np.zeros(0, self.dtype)


@dataclass(frozen=True)
class Slot:
    """A buffer that the optimiser keeps beside a group's weights; ``None`` starts as they do."""

    name: str
    group: str
    start: float | None


@dataclass(frozen=True)
class Layout:
    """The names of one objective's step.

    ``groups`` are those that it moves, ``scalars`` what it reads besides a batch, ``statistics``
    paths of running statistics by output, ``metrics`` outputs by metric.
    """

    name: str
    groups: tuple[Group, ...]
    slots: tuple[Slot, ...]
    scalars: tuple[str, ...]
    statistics: Mapping[str, str]
    metrics: Mapping[str, str]


@dataclass
class State:
    """Everything that training changes.

    ``flat`` are the groups' buffers by group, ``slots`` the optimiser's by name, ``fixed`` weights
    and running statistics by path that no optimiser moves, ``counts`` updates by objective.
    """

    groups: tuple[Group, ...]
    flat: Arrays
    slots: Arrays
    fixed: Arrays
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def weights(self) -> Arrays:
        """All weights and running statistics by path; views of the buffers."""
        found = dict(self.fixed)
        for group in self.groups:
            found |= group.views(self.flat[group.name])
        return found

    @property
    def averaged(self) -> Arrays:
        """The same with moving averages in place of the weights that have one."""
        found = self.weights
        for group in self.groups:
            if average_of(group) in self.slots:
                found |= group.views(self.slots[average_of(group)])
        return found


def average_of(group: Group) -> str:
    """The name of the slot that holds the moving average of a group's weights."""
    return f"{group.name}/{AVERAGE}"


def initial_state(
    groups: Sequence[Group], layouts: Sequence[Layout], weights: Mapping[str, np.ndarray]
) -> State:
    """The state before the first step."""
    flat = {group.name: group.flat(weights) for group in groups}
    slots: Arrays = {}
    for layout in layouts:
        for slot in layout.slots:
            like = flat[slot.group]
            slots[slot.name] = like.copy() if slot.start is None else np.full_like(like, slot.start)
    moved = {path for group in groups for path in group.paths}
    fixed = {path: np.array(array) for path, array in weights.items() if path not in moved}
    counts = {layout.name: 0 for layout in layouts}
    return State(tuple(groups), flat, slots, fixed, counts)


def inputs_of(
    layout: Layout, state: State, batch: Mapping[str, np.ndarray], scalars: Mapping[str, float]
) -> Arrays:
    """What a step reads, by name."""
    found = dict(batch)
    # A step only takes the inputs that it declares; the engine drops what is left over.
    for group in layout.groups:
        found[group.weights] = state.flat[group.name]
    for slot in layout.slots:
        found[slot.name] = state.slots[slot.name]
    dtype = layout.groups[0].dtype if layout.groups else "float32"
    found |= {name: np.array(scalars[name], dtype) for name in layout.scalars}
    return found


def advanced(layout: Layout, state: State, results: Mapping[str, np.ndarray]) -> State:
    """The state after a step that gave these results."""
    flat = state.flat | {group.name: results[group.weights] for group in layout.groups}
    slots = state.slots | {slot.name: results[slot.name] for slot in layout.slots}
    fixed = state.fixed | {path: results[name] for name, path in layout.statistics.items()}
    made = 1 if layout.groups else 0  # a batch's share of an update moves nothing
    counts = state.counts | {layout.name: state.counts[layout.name] + made}
    return State(state.groups, flat, slots, fixed, counts)
