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
from .answers import Answers
from .estimate import CLOSED, PRIORS, Prior, Role
from .expand import constant_value
from .potentials import MISSING
from .sources import Source, source_of
from .statements import ModelFault, Statement
from .statistics import Cells, Labelled, Occurrences, moments, outcome_counts
from .structure import Structure
from .tables import known

Arrays = Mapping[str, np.ndarray]
Finish = Callable[[Arrays], dict[str, np.ndarray]]
"""From what a graph put out to answers by name."""


@dataclass(frozen=True)
class Learner:
    """What one shape of data needs: the graph of the E-step, and how statements use parameters."""

    graph: Graph
    structure: Structure
    statements: tuple[Statement, ...]
    sources: Mapping[int, tuple[Source, ...]]
    cells: Mapping[int, tuple[str, ...]]
    missing: frozenset[str]


def prepare(graph: Graph, missing: Collection[str], shapes: Mapping[str, tuple[int, ...]],
            held: Collection[str], data: Mapping[str, np.ndarray]) -> Learner:  # fmt: skip
    """The E-step of a graph with known sizes; ``held`` are paths that are not learnt.

    ``data`` may choose parameters, if the learner is for these data alone (else it is empty).

    Raises :class:`ModelFault` E612 for a parameter that has no closed form.
    """
    source = graph.copy()
    answers = Answers(graph, lambda value: constant_value(graph, value), missing)
    outputs = [("loglik", answers.loglik.value), ("logprior", answers.log_prior.value)]
    weights = answers.weights()
    sources, cells, chosen = {}, {}, []
    for statement in answers.statements:
        if statement.role in ("factor", "param"):
            continue
        found = tuple(source_of(source, value, shapes, data) for value, _ in statement.params)
        if not _learns(statement, found, held):
            continue
        weight = weights.get(statement.node)
        if weight is None:
            weight = ones(answers, statement)
        outputs.append((f"w{statement.node}", weight.value))
        outputs += _operands(statement)
        sources[statement.node] = found
        cells[statement.node] = _cells(statement)
        chosen.append(statement)
    graph.outputs = outputs
    graph.prune()
    return Learner(graph, answers.structure, tuple(chosen), sources, cells, frozenset(missing))


def _learns(statement: Statement, sources: tuple[Source, ...], held: Collection[str]) -> bool:
    """Whether a statement has parameters to learn, all of them in closed form."""
    free = [s.path for s in sources if s.path is not None and s.path not in held]
    computed = [path for s in sources for path in s.computed if path not in held]
    if computed:
        raise ModelFault(
            "E612", f"`{computed[0]}` is learnt by gradient: `{statement.label}` computes with it",
            statement.span, hint=f"keep it: `--fix {computed[0]}`",
        )  # fmt: skip
    if free and (statement.dist not in CLOSED or statement.form):
        raise ModelFault(
            "E612", f"{statement.dist} has no closed form for `{free[0]}`", statement.span,
            f"{', '.join(CLOSED)} have", f"keep it: `--fix {free[0]}`",
        )  # fmt: skip
    return bool(free)


def ones(answers: Answers, statement: Statement) -> Any:
    """Weights of a statement without latent variables: every occurrence counts once."""
    from .potentials import Potentials
    from .tables import Emitter, Table

    native = Potentials(answers.emitter, statement, answers.missing).table()
    assert native is not None
    emit = Emitter(answers.graph, {})
    shape = emit.type_of(native.value).shape
    return Table(emit.emit("fill", [], shape=shape, value=1.0, dtype="f64"), native.axes)


def _operands(statement: Statement) -> list[tuple[str, Value]]:
    found = [(f"p{statement.node}.{k}", value) for k, (value, _) in enumerate(statement.params)]
    if statement.point is not None:
        found.append((f"x{statement.node}", statement.point[0]))
    if statement.condition is not None:
        found.append((f"c{statement.node}", statement.condition[0]))
    return found


def _cells(statement: Statement) -> tuple[str, ...]:
    """The axes that parameters vary with."""
    return tuple(dict.fromkeys(axis for _, axes in statement.params for axis in axes))


# ---------------------------------------------------------------- the E-step


def occurrences(learner: Learner, found: Arrays) -> dict[int, Cells]:
    """Expected statistics by statement, from the outputs of the E-step's graph."""
    return {s.node: _statistics(learner, s, found) for s in learner.statements}


def _statistics(learner: Learner, statement: Statement, found: Arrays) -> Cells:
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
            own = _statistics(learner, statement, found)
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


def roles(learner: Learner, cells: Mapping[int, Cells], found: Arrays) -> list[Role]:
    """What the M-step works on: each statement's statistics and operands, aligned to its cells."""
    result = []
    for statement in learner.statements:
        row = DISTRIBUTIONS[statement.dist]
        names = tuple(p.name for p in row.params_of(statement.form))
        ranks = [p.rank for p in row.params_of(statement.form)]
        depth = 0
        if statement.point is not None:
            point = found[f"x{statement.node}"]
            depth = point.ndim - len(statement.point[1]) - row.rank
        own = learner.cells[statement.node]
        sources, values = [], []
        for k, (source, rank) in enumerate(
            zip(learner.sources[statement.node], ranks, strict=True)
        ):
            axes = statement.params[k][1]
            values.append(Labelled(found[f"p{statement.node}.{k}"], axes).over(own, depth, rank))
            index = source.index
            if index is not None:
                index = Labelled(index, axes).over(own, depth, rank)
            sources.append(Source(source.path, index, source.computed))
        result.append(Role(statement, names, tuple(sources), tuple(values), cells[statement.node]))
    return result


def priors_of(
    graph: Graph, statements: Collection[Statement], shapes: Mapping[str, tuple[int, ...]],
    used: Mapping[str, tuple[str, str]], values: Callable[[Value], np.ndarray],
) -> dict[str, list[Prior]]:  # fmt: skip
    """Conjugate priors by path; ``used`` says which parameter of which distribution each path is.

    Raises :class:`ModelFault` E612 for a prior without a closed form.
    """
    found: dict[str, list[Prior]] = {}
    for statement in statements:
        if statement.role != "param" or statement.point is None:
            continue
        source = source_of(graph, statement.point[0], shapes)
        if source.path is None or source.path not in used:
            continue
        wanted = PRIORS.get(used[source.path])
        if wanted != statement.dist or statement.form:
            dist, name = used[source.path]
            hint = (
                f"{dist}'s {name} takes {wanted}" if wanted else f"keep it: `--fix {source.path}`"
            )
            raise ModelFault("E612", f"{statement.dist} is no conjugate prior of `{source.path}`",
                             statement.span, hint=hint)  # fmt: skip
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
