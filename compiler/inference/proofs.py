"""Approximations written out as loops over a small model's factors, to compare the real ones with.

Nothing here is fast. Mean field's updates are expectations over all assignments, messages are
passed from one table of numbers to the next, a sweep of Gibbs sampling is a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from ..ops.special import logsumexp
from .beliefs import FLOOR
from .enumeration import Enumerated, Ground

Rows = list[np.ndarray]
"""A distribution for each element, ``[batch, values]``."""

MOST_STATES = 1024
"""Assignments up to which a sweep of Gibbs sampling is made as a matrix."""


def own_fields(ground: Ground) -> Rows:
    """The log of what factors of one element say about it."""
    found = [np.zeros((ground.batch or 1, size)) for size in ground.sizes]
    for factor in ground.factors:
        if len(factor.elements) == 1:
            found[factor.elements[0]] = found[factor.elements[0]] + factor.table
    return found


# ---------------------------------------------------------------- mean field


def mean_field(ground: Ground, truth: Enumerated, steps: int, damping: float) -> Rows:
    """``q_e(v) <- softmax_v E_q[log p | e = v]``, all at once, by the sum over all assignments."""
    q = [_softmax(field) for field in own_fields(ground)]
    for _ in range(steps):
        moved = []
        for element, others in enumerate(_products(truth, q)):
            energy = _energy(others, truth.score)
            row = truth.assignments[element]
            field = np.stack([energy[:, row == v].sum(-1) for v in range(ground.sizes[element])], 1)
            moved.append((1 - damping) * _softmax(field) + damping * q[element])
        q = moved
    return q


def bound(ground: Ground, q: Rows) -> np.ndarray:
    """``F(q) = sum over factors of E_q[log f] + sum over elements of H(q_e)``, ``[batch]``."""
    total = np.zeros(ground.batch or 1)
    for factor in ground.factors:
        weight = np.ones((len(total), *(1 for _ in factor.elements)))
        for place, element in enumerate(factor.elements):
            shape = [-1, *(1 for _ in factor.elements)]
            shape[place + 1] = ground.sizes[element]
            weight = weight * q[element].reshape(shape)
        total += _energy(weight, factor.table).reshape(len(total), -1).sum(-1)
    return total - sum(_energy(row, _log(row)).sum(-1) for row in q)


def divergence(truth: Enumerated, q: Rows) -> np.ndarray:
    """``KL(q || p)`` of a product of distributions from the posterior, ``[batch]``."""
    joint = np.ones_like(truth.posterior)
    for row, values in zip(q, truth.assignments, strict=True):
        joint = joint * row[:, values]
    return _energy(joint, _log(joint) - _log(truth.posterior)).sum(-1)


def _products(truth: Enumerated, q: Rows) -> list[np.ndarray]:
    """For each element the probability of what all others are in every assignment."""
    picked = [row[:, values] for row, values in zip(q, truth.assignments, strict=True)]
    before, after = [np.ones_like(truth.score)], [np.ones_like(truth.score)]
    for row in picked[:-1]:
        before.append(before[-1] * row)
    for row in picked[:0:-1]:
        after.append(after[-1] * row)
    return [a * b for a, b in zip(before, reversed(after), strict=True)]


# ---------------------------------------------------------------- belief propagation


@dataclass(frozen=True)
class Beliefs:
    """Log-beliefs of each element and Bethe's estimate of log Z, ``[batch]``."""

    logs: Rows
    free: np.ndarray


def belief_propagation(
    ground: Ground, steps: int, damping: float, tol: float, largest: bool
) -> Beliefs:
    """Messages from every factor to every element of it, all at once, from one table to the next.

    ``largest`` keeps the best value where a sum is taken otherwise.
    """
    join = (lambda a, axes: np.max(a, axes)) if largest else logsumexp
    own = own_fields(ground)
    joint = [f for f in ground.factors if len(f.elements) > 1]
    messages = {(n, e): np.zeros_like(own[e]) for n, f in enumerate(joint) for e in f.elements}
    beliefs = own
    for _ in range(steps):
        beliefs = _heard(own, messages)
        change = 0.0
        new = {}
        for number, factor in enumerate(joint):
            for place, element in enumerate(factor.elements):
                total = factor.table
                for other, name in enumerate(factor.elements):
                    if other != place:
                        rest = beliefs[name] - messages[number, name]
                        total = total + _along(rest, other, len(factor.elements))
                gone = tuple(k + 1 for k in range(len(factor.elements)) if k != place)
                said = join(total, gone)
                level = join(said, (-1,))[:, None]
                said = np.maximum(said - level, FLOOR)
                change = max(change, float(np.max(np.abs(said - messages[number, element]))))
                new[number, element] = (
                    (1 - damping) * said + damping * messages[number, element]
                )  # fmt: skip
        messages = new
        if change < tol:
            break
    beliefs = _heard(own, messages)
    free = sum((logsumexp(row, (-1,)) for row in beliefs), np.zeros(ground.batch or 1))
    for number, factor in enumerate(joint):
        total = factor.table
        for place, element in enumerate(factor.elements):
            rest = beliefs[element] - messages[number, element]
            total = total + _along(rest, place, len(factor.elements))
            free = free - logsumexp(beliefs[element], (-1,))
        free = free + logsumexp(total, tuple(range(1, total.ndim)))
    return Beliefs(beliefs, free)


def is_tree(ground: Ground) -> bool:
    """Whether no factor closes a circle, so that messages are exact."""
    net = nx.Graph()
    net.add_nodes_from(range(len(ground.sizes)))
    for number, factor in enumerate(ground.factors):
        net.add_edges_from((f"factor {number}", e) for e in factor.elements)
    return nx.is_forest(net)


def _heard(own: Rows, messages: Mapping[tuple[int, int], np.ndarray]) -> Rows:
    found = list(own)
    for (_, element), message in messages.items():
        found[element] = found[element] + message
    return found


def _along(row: np.ndarray, place: int, count: int) -> np.ndarray:
    """``[batch, values]`` along one of a factor's axes."""
    shape = [len(row), *(1 for _ in range(count))]
    shape[place + 1] = row.shape[1]
    return row.reshape(shape)


# ---------------------------------------------------------------- Gibbs sampling


def sweep_matrix(
    truth: Enumerated, groups: Sequence[Sequence[int]], conditionals: Sequence[Rows]
) -> np.ndarray:
    """A sweep as a matrix ``[batch, from, to]`` over assignments.

    ``groups`` are the elements that are drawn at once, in order; ``conditionals`` holds for each
    assignment the distribution ``[batch, values]`` from which each element is drawn then.
    """
    grid, batch = truth.assignments, len(truth.score)
    count = grid.shape[1]
    whole = np.broadcast_to(np.eye(count), (batch, count, count))
    for group in groups:
        rest = [e for e in range(len(grid)) if e not in group]
        step = np.ones((batch, count, count)) * np.all(
            grid[rest][:, :, None] == grid[rest][:, None, :], axis=0
        )
        for element in group:
            drawn = np.stack([rows[element] for rows in conditionals], 1)
            step = step * drawn[:, :, grid[element]]
        whole = whole @ step
    return whole


def mixing(sweep: np.ndarray) -> float:
    """The second largest eigenvalue: by how much a sweep shrinks what is left of the start."""
    sizes = [np.sort(np.abs(np.linalg.eigvals(matrix))) for matrix in sweep]
    return float(max(row[-2] if len(row) > 1 else 0.0 for row in sizes))


# ---------------------------------------------------------------- numbers


def _softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - logsumexp(x, (-1,))[:, None])


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(x, where=x > 0, out=np.full(x.shape, -np.inf))


def _energy(weight: np.ndarray, value: np.ndarray) -> np.ndarray:
    """A product in which 0 * inf = 0."""
    shape = np.broadcast_shapes(weight.shape, value.shape)
    weight, value = np.broadcast_to(weight, shape), np.broadcast_to(value, shape)
    return np.multiply(weight, value, where=weight > 0, out=np.zeros(shape))
