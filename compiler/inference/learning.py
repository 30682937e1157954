"""EM: the expected statistics of every statement, and the parameters that they give.

The weights of a statement are the gradient of log Z by its log-potential, so the E-step is derived
like everything else (Dempster, Laird, Rubin, JRSS B 39, 1977).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.graph import Graph, Value
from ..ops.distributions import DISTRIBUTIONS
from .answers import Answers, answers_about
from .estimate import CLOSED, PRIORS, Prior, Role
from .potentials import MISSING
from .sources import Source, source_of
from .statements import ModelFault, Statement, statements_of
from .statistics import Cells, Labelled, Occurrences, moments, outcome_counts
from .structure import Structure
from .tables import Emitter, Table, known

Arrays = Mapping[str, np.ndarray]
Finish = Callable[[Arrays], dict[str, np.ndarray]]
"""From what a graph put out to answers by name."""


@dataclass(frozen=True)
class Learner:
    """What one shape of data needs: the graph of the E-step, and how statements use parameters.

    ``climbing`` are statements with parameters that are learnt by gradient: their posterior weights
    are put out too. ``source`` is the graph before inference.
    """

    graph: Graph
    structure: Structure
    statements: tuple[Statement, ...]
    sources: Mapping[int, tuple[Source, ...]]
    cells: Mapping[int, tuple[str, ...]]
    missing: frozenset[str]
    climbing: tuple[int, ...] = ()
    source: Graph | None = None


def prepare(
    graph: Graph, missing: Collection[str], shapes: Mapping[str, tuple[int, ...]],
    held: Collection[str], data: Mapping[str, np.ndarray], climbed: Collection[str] = (),
    known: Collection[str] = (),
) -> Learner:  # fmt: skip
    """The E-step of a graph with known sizes.

    Parameters
    ----------
    held, climbed
        Paths that are not learnt, and those that are learnt by gradient.
    data
        Inputs that may choose parameters; what they choose is in the sources of these data alone.
    known
        Latent variables that are given.
    """
    source = graph.copy()
    answers = answers_about(graph, missing, known)
    outputs = [("loglik", answers.loglik.value), ("logprior", answers.log_prior.value)]
    weights = answers.weights()
    sources, cells, chosen, climbing = {}, {}, [], []
    for statement in answers.statements:
        if statement.role in ("factor", "param"):
            continue
        found = sources_of(source, statement, shapes, data)
        learnt = {s.path for s in found if s.path is not None} - {*held, *climbed}
        climbs = {path for s in found for path in (s.path, *s.computed)} & set(climbed)
        if not learnt and not (climbs and statement.references):
            continue
        weight = weights.get(statement.node)
        if weight is None:
            weight = ones(answers, statement)
        summed = _summed(answers, statement, weight) if learnt else []
        if not summed or climbs:
            outputs.append((f"w{statement.node}", weight.value))
        if climbs:
            climbing.append(statement.node)
        if learnt:
            outputs += summed + _operands(statement, bool(summed))
            sources[statement.node] = found
            cells[statement.node] = _cells(statement)
            chosen.append(statement)
    graph.outputs = outputs
    graph.prune()
    return Learner(graph, answers.structure, tuple(chosen), sources, cells, frozenset(missing),
                   tuple(climbing), source)  # fmt: skip


def sources_of(
    graph: Graph, statement: Statement, shapes: Mapping[str, tuple[int, ...]], data: Arrays
) -> tuple[Source, ...]:
    """Where each operand of a statement's distribution comes from."""
    return tuple(source_of(graph, value, shapes, data) for value, _ in statement.params)


def by_gradient(
    graph: Graph, shapes: Mapping[str, tuple[int, ...]], held: Collection[str], data: Arrays
) -> list[str]:
    """Paths that are learnt by gradient: those that have no closed form.

    Such are parameters that a statement computes with, those of a distribution without a closed
    form, those that are two things at once, and those whose prior is not conjugate.

    Raises :class:`ModelFault` E612 for parameters of factors.
    """
    climbed: dict[str, None] = {}
    used: dict[str, set[tuple[str, str]]] = {}
    statements = statements_of(graph)
    for statement in statements:
        found = sources_of(graph, statement, shapes, data)
        paths = {path for s in found for path in (s.path, *s.computed) if path} - set(held)
        if statement.role == "factor" and paths:
            path = min(paths)
            raise ModelFault(
                "E612", f"`{path}` is in a factor, whose normaliser EM does not know",
                statement.span, hint=f"train it, `loss = -logp(z = label)`, or keep it:"
                f" `--fix {path}`")  # fmt: skip
        if statement.role in ("factor", "param"):
            climbed |= dict.fromkeys(sorted(paths))
            continue
        closed = statement.dist in CLOSED and not statement.form
        if statement.dist == "mvnormal":
            # A mean that is tied across covariances is the solution of a system.
            closed = set(statement.params[0][1]) >= set(statement.params[1][1])
        for source, row in zip(found, DISTRIBUTIONS[statement.dist].params, strict=False):
            climbed |= dict.fromkeys(p for p in source.computed if p in paths)
            if source.path in paths and source.path is not None:
                used.setdefault(source.path, set()).add((statement.dist, row.name))
                if not closed and (statement.dist, row.name) != ("mvnormal", "cov"):
                    climbed[source.path] = None
    for path, kinds in used.items():
        if len(kinds) > 1 and {dist for dist, _ in kinds} - {"categorical", "multinomial"}:
            climbed[path] = None
    for path in _priors_not_conjugate(graph, statements, shapes, used):
        climbed |= {path: None} if path not in held else {}
    return [path for path in climbed if path is not None]


def _priors_not_conjugate(
    graph: Graph, statements: Collection[Statement], shapes: Mapping[str, tuple[int, ...]],
    used: Mapping[str, set[tuple[str, str]]],
) -> list[str]:  # fmt: skip
    found = []
    for statement in statements:
        if statement.role != "param" or statement.point is None:
            continue
        source = source_of(graph, statement.point[0], shapes)
        for path in (source.path, *source.computed):
            wanted = {PRIORS.get(kind) for kind in used.get(path or "", ())}
            if path is not None and (wanted != {statement.dist} or statement.form):
                found.append(path)
    return found


def ones(answers: Answers, statement: Statement) -> Any:
    """Weights of a statement without latent variables: every occurrence counts once."""
    from .potentials import Potentials

    native = Potentials(answers.emitter, statement, answers.missing).table()
    assert native is not None
    emit = Emitter(answers.graph, {})
    shape = emit.type_of(native.value).shape
    return Table(emit.emit("fill", [], shape=shape, value=1.0, dtype="f64"), native.axes)


SUMS = ("n", "s", "t")
"""Outputs of sums that the graph takes: of weights, of deviations, of their squares."""


def _summed(answers: Answers, statement: Statement, weight: Table) -> list[tuple[str, Value]]:
    """The statistics of a normal statement as an op; none where its shapes are not those of one.

    Every observation must count under every setting of the parameters, and be all there.
    """
    row = DISTRIBUTIONS[statement.dist]
    point, (mean, names) = statement.point, statement.params[0]
    if statement.dist not in ("normal", "mvnormal") or point is None or statement.form:
        return []
    cells, emit = _cells(statement), answers.emitter
    missing = statement.variable in answers.missing
    apart = weight.axes == (*point[1], *cells) and not set(point[1]) & set(cells)
    if missing or statement.condition is not None or not apart or not cells:
        return []
    x, kind = emit.type_of(point[0]), emit.type_of(mean)
    own = x.shape[len(point[1]) :]
    if kind.shape[len(names) :] != own or {x.dtype, kind.dtype} != {"f64"}:
        return []
    if emit.type_of(weight.value).dtype != "f64":
        return []
    local = Emitter(answers.graph, {})
    shape = emit.type_of(weight.value).shape
    for axis, size in zip(weight.axes, shape, strict=True):
        local.sizes[axis] = size
    rest = tuple(f"{k}'" for k in range(len(own)))
    local.sizes |= dict(zip(rest, own, strict=True))
    centre = local.expand(Table(mean, (*names, *rest)), (*cells, *rest))
    operands = [weight.value, point[0], centre]
    made = emit.emit("moments", operands, lead=len(point[1]), event=row.rank)
    return [(f"{name}{statement.node}", Value(made.node, k)) for k, name in enumerate(SUMS)]


def _operands(statement: Statement, summed: bool = False) -> list[tuple[str, Value]]:
    found = [(f"p{statement.node}.{k}", value) for k, (value, _) in enumerate(statement.params)]
    if summed:
        return found
    if statement.point is not None:
        found.append((f"x{statement.node}", statement.point[0]))
    if statement.condition is not None:
        found.append((f"c{statement.node}", statement.condition[0]))
    return found


def _cells(statement: Statement) -> tuple[str, ...]:
    """The axes that parameters vary with."""
    return tuple(dict.fromkeys(axis for _, axes in statement.params for axis in axes))


# ---------------------------------------------------------------- the E-step


def statistics_of(learner: Learner, statement: Statement, found: Arrays) -> Cells:
    """Expected statistics of one statement, from the outputs of the E-step's graph."""
    if f"n{statement.node}" in found:
        return _taken(learner, statement, found)
    weights = Labelled(found[f"w{statement.node}"], native_axes(statement))
    if statement.condition is not None:
        counts = Labelled(found[f"c{statement.node}"], statement.condition[1])
        axes = weights.axes
        weights = Labelled(weights.array * counts.over(axes, 0, 0), axes)
    cells = learner.cells[statement.node]
    sizes = dict(zip(weights.axes, weights.array.shape, strict=True))
    for k, (_, axes) in enumerate(statement.params):
        sizes.update(zip(axes, found[f"p{statement.node}.{k}"].shape, strict=False))
    point, missing = None, None
    if statement.point is not None:
        array = found[f"x{statement.node}"]
        point = Labelled(array, statement.point[1])
        sizes.update(zip(statement.point[1], array.shape, strict=False))
        if statement.variable in learner.missing:
            missing = np.isnan(array) if array.dtype.kind == "f" else array == MISSING
            point = Labelled(np.where(missing, 0, array), statement.point[1])
    seen = Occurrences(weights, point, sizes, cells, missing)
    own = statement.references[-1].axis if statement.is_latent else None
    if statement.dist == "categorical":
        assert statement.support is not None
        return outcome_counts(seen, own, known(statement.support))
    if own is not None:  # a bernoulli variable
        counts = outcome_counts(seen, own, 2).count
        return Cells(counts.sum(-1), counts[..., 1], None, np.zeros(()))
    return _moments(statement, seen, found)


def _taken(learner: Learner, statement: Statement, found: Arrays) -> Cells:
    """Sums that the graph took."""
    count, first, second = (found[f"{name}{statement.node}"] for name in SUMS)
    rank, cells = DISTRIBUTIONS[statement.dist].rank, learner.cells[statement.node]
    depth = first.ndim - len(cells) - rank
    mean = Labelled(found[f"p{statement.node}.0"], statement.params[0][1])
    centre = np.broadcast_to(mean.over(cells, depth, rank), first.shape)
    wide = count.reshape((*count.shape, *(1,) * depth))
    return Cells(np.array(np.broadcast_to(wide, first.shape[: len(cells) + depth])), first, second,
                 centre)  # fmt: skip


def _moments(statement: Statement, seen: Occurrences, found: Arrays) -> Cells:
    row = DISTRIBUTIONS[statement.dist]
    assert seen.point is not None
    depth = seen.point.rest - row.rank
    centre = None
    spread = statement.dist in ("normal", "mvnormal")
    if spread:
        mean = Labelled(found[f"p{statement.node}.0"], statement.params[0][1])
        centre = mean.over(seen.cells, depth, row.rank)
    return moments(seen, centre, depth, row.rank, spread)


def native_axes(statement: Statement) -> tuple[str, ...]:
    """The axes of a statement's table: as ``Potentials`` orders them."""
    if statement.role == "factor":
        axes = statement.params[0][1]
    elif statement.is_latent:
        axes = (*statement.params[0][1], statement.references[-1].axis)
    else:
        assert statement.point is not None
        operands = [statement.point, *statement.params]
        axes = tuple(dict.fromkeys(a for _, names in operands for a in names))
        axes = tuple(sorted(axes, key=lambda axis: axis not in statement.domain))
    if statement.condition is not None:
        axes = tuple(dict.fromkeys((*axes, *statement.condition[1])))
    return axes


# ---------------------------------------------------------------- expected statistics


def statistics(answers: Answers) -> tuple[list[tuple[str, Value]], Finish]:
    """The expected sufficient statistics of every statement about latent variables.

    A statement that draws one of finitely many values counts them: ``statistics(z[t])`` is
    ``[values of what it depends on .., values]``, and so does a factor. Others put out ``.count``,
    ``.sum`` and, for normal ones, ``.square``: sums of 1, of x and of x^2 (of vectors x x^T).
    """
    weights, rows = answers.weights(), []
    outputs: list[tuple[str, Value]] = []
    for statement in answers.statements:
        if statement.node in weights and statement.references:
            rows.append(statement)
            outputs.append((f"w{statement.node}", weights[statement.node].value))
            outputs += _operands(statement)
    cells = {s.node: _cells(s) for s in rows}
    learner = Learner(answers.graph, answers.structure, tuple(rows), {}, cells,
                      frozenset(answers.missing))  # fmt: skip

    def finish(found: Arrays) -> dict[str, np.ndarray]:
        result: dict[str, np.ndarray] = {}
        for statement in rows:
            name, number = f"statistics({statement.label})", 1
            while any(known.partition(".")[0] == name for known in result):
                number += 1
                name = f"statistics({statement.label} {number})"
            if statement.role == "factor":
                result[name] = _uses(statement, found)
                continue
            own = statistics_of(learner, statement, found)
            finite = statement.dist == "categorical" or statement.is_latent
            if finite and own.first is not None:  # a bernoulli variable
                result[name] = np.stack([own.count - own.first, own.first], -1)
            elif finite:
                result[name] = own.count
            else:
                result |= {f"{name}.{kind}": array for kind, array in _around_zero(own).items()}
        return result

    return outputs, finish


def _uses(statement: Statement, found: Arrays) -> np.ndarray:
    """How often a factor meets each setting of its latent values."""
    axes = native_axes(statement)
    array = found[f"w{statement.node}"]
    if statement.condition is not None:
        counts = Labelled(found[f"c{statement.node}"], statement.condition[1])
        array = array * counts.over(axes, 0, 0)
    return array.sum(tuple(k for k, axis in enumerate(axes) if axis in statement.domain))


def _around_zero(cells: Cells) -> dict[str, np.ndarray]:
    """Sums of 1, x and x^2, from those of deviations."""
    assert cells.first is not None and cells.centre is not None
    extra = cells.first.ndim - cells.count.ndim
    count = cells.count.reshape((*cells.count.shape, *(1,) * extra))
    result = {"count": cells.count, "sum": cells.first + count * cells.centre}
    if cells.second is not None and extra:
        cross = cells.centre[..., :, None] * cells.first[..., None, :]
        square = cells.centre[..., :, None] * cells.centre[..., None, :] * count[..., None]
        result["square"] = cells.second + cross + np.swapaxes(cross, -1, -2) + square
    elif cells.second is not None:
        result["square"] = cells.second + 2 * cells.centre * cells.first + count * cells.centre**2
    return result


# ---------------------------------------------------------------- the M-step


def role_of(
    learner: Learner, statement: Statement, cells: Cells, found: Arrays,
    sources: tuple[Source, ...],
) -> Role:  # fmt: skip
    """What the M-step works on: a statement's statistics and operands, aligned to its cells."""
    row = DISTRIBUTIONS[statement.dist]
    names = tuple(p.name for p in row.params_of(statement.form))
    ranks = [p.rank for p in row.params_of(statement.form)]
    depth = 0
    if f"n{statement.node}" in found:
        depth = found[f"s{statement.node}"].ndim - len(learner.cells[statement.node]) - row.rank
    elif statement.point is not None:
        point = found[f"x{statement.node}"]
        depth = point.ndim - len(statement.point[1]) - row.rank
    own = learner.cells[statement.node]
    aligned, values = [], []
    for k, (source, rank) in enumerate(zip(sources, ranks, strict=True)):
        axes = statement.params[k][1]
        values.append(Labelled(found[f"p{statement.node}.{k}"], axes).over(own, depth, rank))
        index = source.index
        if index is not None:
            index = Labelled(index, axes).over(own, depth, rank)
        aligned.append(Source(source.path, index, source.computed))
    return Role(statement, names, tuple(aligned), tuple(values), cells)


def priors_of(
    graph: Graph, statements: Collection[Statement], shapes: Mapping[str, tuple[int, ...]],
    values: Callable[[Value], np.ndarray],
) -> dict[str, list[Prior]]:  # fmt: skip
    """Priors of parameters by path."""
    found: dict[str, list[Prior]] = {}
    for statement in statements:
        if statement.role != "param" or statement.point is None:
            continue
        source = source_of(graph, statement.point[0], shapes)
        if source.path is not None:
            found.setdefault(source.path, []).append(_prior(statement, source, values))
    return found


def _prior(statement: Statement, source: Source, values: Callable[[Value], np.ndarray]) -> Prior:
    assert statement.point is not None and source.index is not None
    row = DISTRIBUTIONS[statement.dist]
    lead = statement.point[1]
    depth = source.index.ndim - len(lead) - row.rank
    params = []
    for (value, axes), parameter in zip(statement.params, row.params, strict=True):
        array = Labelled(values(value), axes).over(lead, depth, parameter.rank)
        params.append(np.broadcast_to(array, source.index.shape))
    return Prior(statement.dist, source.index, tuple(params))
