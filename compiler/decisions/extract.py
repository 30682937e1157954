"""The one ``fix`` block of a model as a sparse decision process, made part by part.

before: ``fix { Q[s, a] = R[s, a] + gamma * E{s'} V[s'];  V[s] = max{a} Q[s, a] }``
after: for each state its actions, for each action its expected reward and its outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...runtime.decide.patterns import Patterns
from ...runtime.decide.process import INDEX, Outcomes, Process, ends
from ..ir.graph import Graph, Node
from ..ir.types import Span
from . import mixtures as m
from .bellman import Bellman
from .choices import Choice, action_mixture, choices
from .faults import DecisionFault
from .frames import Cut, Frame
from .mixtures import Mixture

PART = 1 << 20
"""Outcomes that are worked out at once."""
SHARED_FROM = 1 << 16
"""States from which it is worth looking for those that differ only in their place."""
WIDEST_SHARED = 1 << 12
"""Outcomes of a state, at most, for that."""


@dataclass(frozen=True)
class Extracted:
    """A process and where it stands in the graph: the ``fix`` node and how to read its names."""

    process: Process
    fix: int
    bellman: Bellman
    choice: Choice | None
    span: Span | None

    def values(self, name: int, unknown: np.ndarray) -> np.ndarray:
        """What the ``fix`` block gives for its n-th name, once the unknown is solved for."""
        value = self.bellman.graph.outputs[name][1]
        shape = self.bellman.frame.shape(value)
        found = np.empty(shape)
        if value.node not in self.bellman.depends:
            found[...] = self.bellman.frame.get(value)
            return found
        for cut in _cuts(shape, self.process.states, _outcomes_a_state(self.process)):
            part = self.bellman.mixture(value, cut).values(unknown)
            if cut is None:
                found[...] = part
            else:
                found[cut.first : cut.last] = part
            self.bellman.forget_parts()
        return found


def extract(graph: Graph, feeds: Mapping[str, np.ndarray], outcomes: bool = False) -> Extracted:
    """The decision process of a graph with known sizes.

    ``outcomes`` keeps chances, rewards and discounts apart, for a simulator. Raises
    :class:`DecisionFault` with the place of what is wrong.
    """
    index, node = the_fix(graph)
    bellman, choice = _bellman(graph, index, node, feeds)
    process = _assemble(bellman, choice, node, outcomes)
    return Extracted(process, index, bellman, choice, node.span)


def the_fix(graph: Graph) -> tuple[int, Node]:
    """The one ``fix`` block of a graph."""
    found = graph.of_op("fix")
    if not found:
        raise DecisionFault(
            "E621", "this model has no Bellman equations", None,
            hint="write them in a block `fix { Q[s, a] = ...  V[s] = max{a} Q[s, a] }`",
        )  # fmt: skip
    if len(found) > 1:
        raise DecisionFault("E621", "a decision process is one `fix` block", found[1][1].span)
    return found[0]


def _bellman(
    graph: Graph, index: int, node: Node, feeds: Mapping[str, np.ndarray]
) -> tuple[Bellman, Choice | None]:
    carries = int(node.attrs["n_carry"])  # type: ignore[arg-type]
    body = node.regions[0]
    operands = graph.operands(index)
    captures = dict(zip(body.inputs[carries:], operands[carries:], strict=True))
    frame = Frame(body, {}, Frame(graph, feeds), captures)
    depends = _depending(body, body.inputs[:carries])
    found = choices(body, depends)
    if len(found) > 1:
        raise DecisionFault(
            "E621", "a decision process has one choice, and this is a second",
            body.node(found[1].value.node).span,
            hint="join both: `max{a} (...)` over all that may be done",
        )  # fmt: skip
    if found:
        return Bellman(frame, carries, found[0].value, depends), found[0]
    return _without_choice(frame, carries, depends, node), None


def _without_choice(frame: Frame, carries: int, depends: frozenset[int], node: Node) -> Bellman:
    """The evaluation of a policy: the smallest name through which all others are defined."""
    values = [value for _, value in frame.graph.outputs[:carries]]
    values = [value for value in values if value.node in depends]
    if not values:
        raise DecisionFault("E621", "nothing in this block depends on itself", node.span)
    fault: DecisionFault | None = None
    for value in sorted(values, key=lambda v: prod(frame.shape(v))):
        bellman = Bellman(frame, carries, value, depends)
        try:
            for part in (value, *values):
                shape = frame.shape(part)
                cut = Cut(0, 0, 1) if shape and shape[0] > 1 else None
                read = bellman.definition if part is value else bellman.mixture
                read(part, cut)
        except DecisionFault as found:
            fault = found
            continue
        return Bellman(frame, carries, value, depends)
    assert fault is not None
    raise fault


def _depending(graph: Graph, carries: list[int]) -> frozenset[int]:
    reached = set(carries)
    stack = list(carries)
    while stack:
        for user, _, _ in graph.users(stack.pop()):
            if user not in reached:
                reached.add(user)
                stack.append(user)
    return frozenset(reached)


# ---------------------------------------------------------------- assembling


def _outcomes_a_state(process: Process) -> int:
    return max(1, -(-process.entries // max(1, process.states)))


def _cuts(shape: tuple[int, ...], states: int, outcomes: int, align: int = 1) -> Iterator:
    """Parts of the leading axis of about ``PART`` outcomes; ``None`` where there is no axis."""
    if not shape or shape[0] == 1:
        yield None
        return
    inner = max(1, states // shape[0]) * outcomes
    size = max(1, PART // inner // align) * align
    for first in range(0, shape[0], size):
        yield Cut(0, first, min(first + size, shape[0]))


def _assemble(bellman: Bellman, choice: Choice | None, node: Node, outcomes: bool) -> Process:
    shape = bellman.frame.shape(bellman.unknown)
    states = prod(shape)
    align = _alignment(bellman, shape, states)
    # Some rows of the states tell how many actions and outcomes there are.
    first_look = next(_cuts(shape, states, max(1, PART >> 6), align))
    sample = action_mixture(bellman, choice, first_look)
    actions = sample.shape[-1]
    per_state = actions * sample.outcomes
    bellman.forget_parts()
    fixed, none = _fixed_states(bellman, shape, align), np.zeros(states, bool)
    shared = states >= SHARED_FROM and per_state <= WIDEST_SHARED and not outcomes
    while True:
        patterns = Patterns(states, actions, sample.outcomes) if shared else None
        store = _Store(shape, actions, states * per_state, choice, node, outcomes, patterns)
        fits = True
        for cut in _cuts(shape, states, per_state, align):
            fits = store.take(action_mixture(bellman, choice, cut), fixed)
            bellman.forget_parts()
            if not fits:
                break
        if not fits:
            shared = False
        elif store.led_to(fixed) is not None:
            fixed = none
        else:
            return store.process()


def _fixed_states(bellman: Bellman, shape: tuple[int, ...], align: int) -> np.ndarray:
    """States whose value the equations give outright: ``V[s] = if s == goal then 0 else ...``.

    What is chosen there has no effect, so they have no rows.
    """
    states = prod(shape)
    tables = [
        value
        for _, value in bellman.graph.outputs
        if value.node in bellman.depends and prod(bellman.frame.shape(value)) == states
    ]
    read = np.zeros(states, bool)
    for value in tables:
        whole = bellman.frame.shape(value)
        inner = states // whole[0] if whole else 1
        for cut in _cuts(whole, states, 1, -(-align // inner)):
            found = bellman.mixture(value, cut)
            effect = found.chance * found.weight
            full = np.broadcast_shapes(effect.shape, found.state.shape)
            read[np.broadcast_to(found.state, full)[np.broadcast_to(effect, full) != 0]] = True
            bellman.forget_parts()
    return ~read if tables else ~np.ones(states, bool)


def _alignment(bellman: Bellman, shape: tuple[int, ...], states: int) -> int:
    """States in a row of the grid, so that parts are whole rows."""
    if len(shape) != 1:
        return 1
    for _, value in bellman.graph.outputs:
        leading = bellman.frame.shape(value)
        for axes in range(2, len(leading) + 1):
            if prod(leading[:axes]) == states:
                return prod(leading[1:axes])
    return 1


class _Store:
    """Rows and entries as they come: those of every state, or (``patterns``) of every pattern.

    Without patterns memory is reserved for all and touched as it fills.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        actions: int,
        most: int,
        choice: Choice | None,
        node: Node,
        outcomes: bool,
        patterns: Patterns | None,
    ) -> None:
        self.shape, self.actions, self.node, self.keep = shape, actions, node, outcomes
        self.patterns = patterns
        self.span = node.span if choice is None else choice.span
        self.sign = -1.0 if choice is not None and choice.kind == "min" else 1.0
        states = prod(shape)
        self.counts = np.empty(states, INDEX)
        self.state_count = self.row_count = self.entry_count = 0
        if patterns is not None:
            return
        if max(most, states * actions) >= np.iinfo(INDEX).max:
            message = f"{most} outcomes are more than a process may have"
            raise DecisionFault("E703", message, self.span, hint="use fewer states or outcomes")
        rows = states * actions
        self.action, self.reward = np.empty(rows, INDEX), np.empty(rows)
        self.entries = np.empty(rows, INDEX)
        self.next, self.weight = np.empty(most, INDEX), np.empty(most)
        self.parts = [np.empty(most) for _ in range(3)] if outcomes else []

    def led_to(self, states: np.ndarray) -> int | None:
        """One of these states (a mask) that an entry leads to."""
        if not states.any():
            return None
        if self.patterns is not None:
            return self.patterns.led_to(states)
        for first in range(0, self.entry_count, PART):
            there = slice(first, min(first + PART, self.entry_count))
            found = states[self.next[there]] & (self.weight[there] != 0)
            if found.any():
                return int(self.next[first + int(found.argmax())])
        return None

    def take(self, found: Mixture, drop: np.ndarray) -> bool:
        """Add the next states, ``found`` being over states and their actions.

        States in ``drop`` get no rows. False when there are too many patterns.
        """
        outcomes = found.outcomes
        full = (*found.shape, outcomes)
        base = np.broadcast_to(found.base, found.shape)
        per_part = prod(found.shape[:-1])
        kept = ~drop[self.state_count : self.state_count + per_part]
        allowed = (base != -self.sign * np.inf) & kept.reshape(*found.shape[:-1], 1)
        reward = base + (found.chance * found.reward).sum(axis=-1)
        self._check(found, reward, allowed)
        effect = np.broadcast_to(found.chance * found.weight, full)
        per_state = allowed.sum(axis=-1).reshape(-1)
        place = self.state_count
        self.counts[place : place + per_part] = per_state
        self.state_count += per_part
        if self.patterns is not None:
            if outcomes != self.patterns.outcomes:
                return False
            tables, flat = (per_part, self.actions), (per_part, self.actions, outcomes)
            state = np.broadcast_to(found.state.astype(INDEX, copy=False), full).reshape(flat)
            earned = np.broadcast_to(self.sign * reward, found.shape).reshape(tables)
            return self.patterns.add(
                place, state, effect.reshape(flat), earned, allowed.reshape(tables)
            )  # fmt: skip
        counted = np.broadcast_to(found.chance, full) > 0 if self.keep else effect != 0
        counted = counted & allowed[..., None]
        rows, entries = int(allowed.sum()), int(counted.sum())
        here = slice(self.row_count, self.row_count + rows)
        there = slice(self.entry_count, self.entry_count + entries)
        numbers = np.arange(self.actions, dtype=self.action.dtype)
        self.action[here] = np.broadcast_to(numbers, found.shape)[allowed]
        self.reward[here] = self.sign * reward[allowed]
        self.entries[here] = counted.sum(axis=-1)[allowed]
        self.next[there] = np.broadcast_to(found.state, full)[counted]
        self.weight[there] = effect[counted]
        if self.keep:
            self._keep(found, base, full, counted, there)
        self.row_count += rows
        self.entry_count += entries
        return True

    def _keep(self, found: Mixture, base: np.ndarray, full: tuple, counted: Any, at: slice) -> None:
        if not found.whole:
            raise DecisionFault(
                "E621", "the outcomes of these equations are not drawn by `~`", self.span,
                hint="learning needs a next state to draw: `s' ~ ...` and `E{s'} (...)`",
            )  # fmt: skip
        safe = np.where(np.isfinite(base), base, 0.0)
        rewards = self.sign * (found.reward + safe[..., None])
        for array, part in zip((found.chance, rewards, found.weight), self.parts, strict=True):
            part[at] = np.broadcast_to(array, full)[counted]

    def _check(self, found: Mixture, reward: np.ndarray, allowed: np.ndarray) -> None:
        if not np.isfinite(reward[allowed]).all():
            raise DecisionFault("E408", "a reward is not a finite number", self.node.span)
        effect = found.chance * found.weight
        if (effect < 0).any():
            message = "the value of a next state counts negatively"
            raise DecisionFault("E621", message, self.node.span, f"{effect.min():g} times")
        heaviest = float(
            np.broadcast_to(effect, (*effect.shape[:-1], found.outcomes)).sum(-1).max()
        )
        if heaviest > 1 + m.SUM_TOLERANCE:
            raise DecisionFault(
                "E621", "the discount is above 1", self.node.span,
                f"the values of next states count {heaviest:.6g} times",
                "values then grow without bound; a discount is at most 1",
            )  # fmt: skip

    def process(self) -> Process:
        """What came."""
        self._require_actions()
        if self.patterns is not None:
            first, action, start, next_, weight, reward = self.patterns.rows()
            return Process(
                self.shape, self.actions, first, action, start, next_, weight, reward, self.sign,
                pattern=self.patterns.of_state,
            )  # fmt: skip
        rows, entries = self.row_count, self.entry_count
        kept = [part[:entries] for part in self.parts]
        return Process(
            self.shape,
            self.actions,
            ends(self.counts),
            self.action[:rows],
            ends(self.entries[:rows]),
            self.next[:entries],
            self.weight[:entries],
            self.reward[:rows],
            self.sign,
            Outcomes(*kept) if kept else None,
        )

    def _require_actions(self) -> None:
        """A state without actions has no value, so none may lead to it."""
        state = self.led_to(self.counts == 0)
        if state is not None:
            place = ", ".join(str(int(i)) for i in np.unravel_index(state, self.shape))
            raise DecisionFault(
                "E621", "a state has no action", self.span, f"[{place}]",
                "give its value apart: `if s == goal then 0 else max{a} ...`",
            )  # fmt: skip
