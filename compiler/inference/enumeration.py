"""Every joint assignment, one by one: what exact inference is checked against on small models."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..interpret import bind_sizes, interpret
from ..ir.graph import Graph
from ..ops.special import logsumexp
from .potentials import Potentials
from .statements import Statement, statements_of
from .structure import Family, Structure, structure_of
from .tables import Emitter, known

MOST = 1 << 18
"""Assignments that are tried."""


@dataclass(frozen=True)
class Enumerated:
    """Exact answers by enumeration; a batch leads where the model has one.

    ``posterior`` is ``[batch, assignments]`` and ``assignments`` ``[elements, assignments]``.
    """

    loglik: np.ndarray
    entropy: np.ndarray
    marginals: Mapping[str, np.ndarray]
    best: Mapping[str, np.ndarray]
    gap: float
    """How far the best assignment is above the next one: where it is 0 there is no one best."""
    posterior: np.ndarray
    assignments: np.ndarray


def assignments(structure: Structure) -> int:
    """How many joint assignments a model with known sizes has."""
    total = 1
    for family in structure.families:
        total *= known(family.size) ** _count(family)
    return total


def enumerate_model(
    graph: Graph, inputs: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray],
    missing: Collection[str] = (),
) -> Enumerated:  # fmt: skip
    """Answers to the usual questions by trying everything; at most ``MOST`` assignments."""
    feeds = {name: np.shape(array) for name, array in inputs.items()}
    weights = {path: np.shape(array) for path, array in params.items()}
    bound = graph.bind(bind_sizes(graph, feeds, weights))
    statements = statements_of(bound)
    structure = structure_of(statements)
    if assignments(structure) > MOST:
        raise ValueError(f"{assignments(structure)} assignments are too many to try")
    tables = _tables(bound, statements, structure, inputs, params, missing)
    elements = {
        (f.name, spot): number
        for number, (f, spot) in enumerate(
            (f, spot) for f in structure.families for spot in np.ndindex(*_extent(f))
        )
    }
    sizes = [known(f.size) for f in structure.families for _ in range(_count(f))]
    grid = np.indices(sizes).reshape(len(sizes), -1) if sizes else np.zeros((0, 1), int)
    count = known(structure.sizes[structure.batch]) if structure.batch else 1
    score = np.zeros((count, grid.shape[1]))
    for statement, (native, where) in tables.items():
        score += _scores(statement, native, where, elements, grid, structure, count)
    return _answers(score, grid, elements, structure)


def _tables(bound: Graph, statements: Any, structure: Structure, inputs: Any, params: Any,
            missing: Any) -> dict[Statement, Any]:  # fmt: skip
    """Each statement's own table, its condition, and the tables that say where."""
    twin = bound.copy()
    emitter = Emitter(twin, structure.sizes)
    wanted: dict[str, Any] = {}
    natives = {}
    for statement in statements:
        if statement.role == "param":
            continue
        native = Potentials(emitter, statement, missing).table()
        if native is not None:
            natives[statement] = native
            wanted[f"{statement.node}"] = native.value
            for k, (value, _) in statement.tables.items():
                wanted[f"{statement.node}.{k}"] = value
    twin.outputs = list(wanted.items())
    twin.prune()
    with np.errstate(all="ignore"):
        arrays = interpret(twin, inputs, params)
    return {
        s: ((arrays[f"{s.node}"], native.axes),
            {k: (arrays[f"{s.node}.{k}"], axes) for k, (_, axes) in s.tables.items()})
        for s, native in natives.items()
    }  # fmt: skip


def _scores(statement: Statement, native: Any, where: Any, elements: Any,
            grid: np.ndarray, structure: Structure, count: int) -> np.ndarray:  # fmt: skip
    """The statement's log-potential under every assignment, ``[batch, assignments]``."""
    table, axes = native
    batch = structure.batch
    indices = [a for a in statement.domain if structure.axis_of[statement.node, a] != batch]
    total = np.zeros((count, grid.shape[1]))
    for spot in itertools.product(*(range(known(statement.domain[a][1])) for a in indices)):
        point = dict(zip(indices, spot, strict=True))
        values = {}
        for reference in statement.references:
            place = tuple(_at(p, statement, point, where) for p in reference.places)
            values[reference.axis] = grid[elements[reference.variable, place]]
        picked: list[Any] = []
        for axis in axes:
            if axis in values:
                picked.append(values[axis][None, :])
            elif axis in point:
                picked.append(point[axis])
            else:
                picked.append(np.arange(count)[:, None])
        total += table[tuple(picked)] if picked else table
    return total


def _at(place: Any, statement: Statement, point: Mapping[str, int], where: Any) -> int:
    if place[0] == "at":
        return known(place[1])
    if place[0] == "index":
        return known(statement.domain[place[1]][0]) + point[place[1]] + int(place[2])
    array, axes = where[place[1]]
    return int(array[tuple(point[a] for a in axes)])


def _answers(
    score: np.ndarray, grid: np.ndarray, elements: Any, structure: Structure
) -> Enumerated:
    loglik = logsumexp(score, (-1,))
    posterior = np.exp(score - loglik[:, None])
    entropy = -np.sum(np.where(posterior > 0, posterior * np.log(posterior.clip(1e-300)), 0), -1)
    ordered = np.sort(score, axis=-1)
    gap = float(np.min(ordered[:, -1] - ordered[:, -2])) if score.shape[1] > 1 else np.inf
    top = np.argmax(score, axis=-1)
    marginals, best = {}, {}
    for family in structure.families:
        size, extent = known(family.size), _extent(family)
        found = np.zeros((len(score), *extent, size))
        chosen = np.zeros((len(score), *extent), np.int32)
        for spot in np.ndindex(*extent):
            row = grid[elements[family.name, spot]]
            for value in range(size):
                found[(slice(None), *spot, value)] = posterior[:, row == value].sum(-1)
            chosen[(slice(None), *spot)] = row[top]
        marginals[family.name] = found if structure.batch else found[0]
        best[family.name] = chosen if structure.batch else chosen[0]
    if not structure.batch:
        loglik, entropy = loglik[0], entropy[0]
    return Enumerated(
        np.asarray(loglik), np.asarray(entropy), marginals, best, gap, posterior, grid
    )


def _extent(family: Family) -> tuple[int, ...]:
    return tuple(known(n) for n in family.extent)


def _count(family: Family) -> int:
    return int(np.prod(_extent(family), dtype=np.int64))
