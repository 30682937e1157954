"""Every joint assignment, one by one: what inference is checked against on small models."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
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
class GroundFactor:
    """A statement at one place: which elements it joins, and its log-potential ``[batch, v..]``."""

    statement: Statement
    elements: tuple[int, ...]
    table: np.ndarray


@dataclass(frozen=True)
class Ground:
    """A model in numbers, element by element.

    ``elements`` numbers each element of ``families``; ``sizes`` are how many values each has.
    ``batch`` is the size of the batch, and None where there is none.
    """

    families: tuple[Family, ...]
    elements: Mapping[tuple[str, tuple[int, ...]], int]
    sizes: tuple[int, ...]
    factors: tuple[GroundFactor, ...]
    batch: int | None

    def rows(self, found: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Arrays ``[batch.., extent.., values]`` by variable as one ``[batch, values]`` each."""
        lead = (1,) if self.batch is None else (self.batch,)
        whole = {f.name: found[f.name].reshape(*lead, *_extent(f), -1) for f in self.families}
        return [whole[name][(slice(None), *spot)] for name, spot in self.elements]


@dataclass(frozen=True)
class Enumerated:
    """Exact answers by enumeration; a batch leads where the model has one.

    ``posterior`` and ``score``, its log before it was normalised, are ``[batch, assignments]``,
    ``assignments`` is ``[elements, assignments]``.
    """

    loglik: np.ndarray
    entropy: np.ndarray
    marginals: Mapping[str, np.ndarray]
    best: Mapping[str, np.ndarray]
    gap: float
    """How far the best assignment is above the next one: where it is 0 there is no one best."""
    posterior: np.ndarray
    assignments: np.ndarray
    score: np.ndarray


def assignments(structure: Structure) -> int:
    """How many joint assignments a model with known sizes has."""
    total = 1
    for family in structure.families:
        total *= known(family.size) ** _count(family)
    return total


def enumerate_model(
    graph: Graph, inputs: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray],
    missing: Collection[str] = (), precision: str | None = None,
) -> Enumerated:  # fmt: skip
    """Answers to the usual questions by trying everything; at most ``MOST`` assignments."""
    return enumerate_ground(ground_model(graph, inputs, params, missing, precision))


def ground_model(
    graph: Graph, inputs: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray],
    missing: Collection[str] = (), precision: str | None = None, about: str = "",
) -> Ground:  # fmt: skip
    """Every factor of a model as a table of numbers; ``about`` a variable only what it is joined
    with. ``precision`` is the type to compute in, else each value's own.
    """
    feeds = {name: np.shape(array) for name, array in inputs.items()}
    weights = {path: np.shape(array) for path, array in params.items()}
    bound = graph.bind(bind_sizes(graph, feeds, weights))
    statements = statements_of(bound)
    structure = structure_of(statements)
    families = structure.families
    if about:
        component = structure.component_of(about)
        statements, families = list(component.statements), component.families
    tables = _tables(bound, statements, structure, inputs, params, missing, precision)
    elements = {
        (f.name, spot): number
        for number, (f, spot) in enumerate(
            (f, spot) for f in families for spot in np.ndindex(*_extent(f))
        )
    }
    sizes = [known(f.size) for f in families for _ in range(_count(f))]
    count = known(structure.sizes[structure.batch]) if structure.batch else None
    factors = [
        factor
        for statement, (native, where) in tables.items()
        for factor in _pieces(statement, native, where, elements, sizes, structure, count or 1)
    ]
    return Ground(tuple(families), elements, tuple(sizes), tuple(factors), count)


def enumerate_ground(ground: Ground) -> Enumerated:
    """Answers about a model in numbers; raises ``ValueError`` for more than ``MOST``."""
    count = int(np.prod(np.array(ground.sizes, float)))
    if count > MOST:
        raise ValueError(f"{count} assignments are too many to try")
    sizes = ground.sizes
    grid = np.indices(sizes).reshape(len(sizes), -1) if sizes else np.zeros((0, 1), int)
    score = np.zeros((ground.batch or 1, grid.shape[1]))
    for factor in ground.factors:
        score += factor.table[(slice(None), *(grid[e] for e in factor.elements))]
    return _answers(score, grid, ground)


def _tables(bound: Graph, statements: Any, structure: Structure, inputs: Any, params: Any,
            missing: Any, precision: str | None) -> dict[Statement, Any]:  # fmt: skip
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
        arrays = interpret(twin, inputs, params, precision=precision)
    return {
        s: ((arrays[f"{s.node}"], native.axes),
            {k: (arrays[f"{s.node}.{k}"], axes) for k, (_, axes) in s.tables.items()})
        for s, native in natives.items()
    }  # fmt: skip


def _pieces(
    statement: Statement, native: Any, where: Any, elements: Any, sizes: Sequence[int],
    structure: Structure, count: int,
) -> Iterator[GroundFactor]:  # fmt: skip
    """A statement at every value of its indices."""
    table, axes = native
    batch = structure.batch
    indices = [a for a in statement.domain if structure.axis_of[statement.node, a] != batch]
    own = [r.axis for r in statement.references]
    for spot in itertools.product(*(range(known(statement.domain[a][1])) for a in indices)):
        point = dict(zip(indices, spot, strict=True))
        held = tuple(
            elements[r.variable, tuple(_at(p, statement, point, where) for p in r.places)]
            for r in statement.references
        )
        picked = table[tuple(point.get(axis, slice(None)) for axis in axes)]
        left = [axis for axis in axes if axis not in point]
        lead = [axis for axis in left if axis not in own]
        order = [left.index(axis) for axis in (*lead, *own) if axis in left]
        lined = picked.transpose(order).reshape(
            [-1, *(sizes[e] if axis in left else 1 for axis, e in zip(own, held, strict=True))]
        )
        whole = np.broadcast_to(lined, (count, *(sizes[e] for e in held)))
        if statement.condition is not None and not np.any(whole):
            continue  # where the statement does not count
        yield _once(statement, held, whole)


def _once(statement: Statement, held: tuple[int, ...], table: np.ndarray) -> GroundFactor:
    """A factor that mentions no element twice."""
    while len(set(held)) < len(held):
        first, second = next(
            (a, b) for a, b in itertools.combinations(range(len(held)), 2) if held[a] == held[b]
        )
        table = np.moveaxis(np.diagonal(table, axis1=first + 1, axis2=second + 1), -1, first + 1)
        held = (*held[:second], *held[second + 1 :])
    return GroundFactor(statement, held, table)


def _at(place: Any, statement: Statement, point: Mapping[str, int], where: Any) -> int:
    if place[0] == "at":
        return known(place[1])
    if place[0] == "index":
        return known(statement.domain[place[1]][0]) + point[place[1]] + int(place[2])
    array, axes = where[place[1]]
    return int(array[tuple(point[a] for a in axes)])


def _answers(score: np.ndarray, grid: np.ndarray, ground: Ground) -> Enumerated:
    loglik = logsumexp(score, (-1,))
    posterior = np.exp(score - loglik[:, None])
    entropy = -np.sum(np.where(posterior > 0, posterior * np.log(posterior.clip(1e-300)), 0), -1)
    ordered = np.sort(score, axis=-1)
    gap = float(np.min(ordered[:, -1] - ordered[:, -2])) if score.shape[1] > 1 else np.inf
    top = np.argmax(score, axis=-1)
    marginals, best = {}, {}
    for family in ground.families:
        size, extent = known(family.size), _extent(family)
        found = np.zeros((len(score), *extent, size))
        chosen = np.zeros((len(score), *extent), np.int32)
        for spot in np.ndindex(*extent):
            row = grid[ground.elements[family.name, spot]]
            for value in range(size):
                found[(slice(None), *spot, value)] = posterior[:, row == value].sum(-1)
            chosen[(slice(None), *spot)] = row[top]
        marginals[family.name] = found if ground.batch else found[0]
        best[family.name] = chosen if ground.batch else chosen[0]
    if not ground.batch:
        loglik, entropy = loglik[0], entropy[0]
    return Enumerated(
        np.asarray(loglik), np.asarray(entropy), marginals, best, gap, posterior, grid, score
    )


def _extent(family: Family) -> tuple[int, ...]:
    return tuple(known(n) for n in family.extent)


def _count(family: Family) -> int:
    return int(np.prod(_extent(family), dtype=np.int64))
