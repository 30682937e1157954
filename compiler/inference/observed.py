"""What a model says of its observed variables: predictive distributions and new draws.

The posterior predictive of an observed value is its distribution under the posterior of the latent
values beside it: ``p(y* | y) = sum_z p(z | y) p(y* | z)`` (Gelman et al., Bayesian Data Analysis,
section 1.3). Where an observation is missing that is its imputation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..interpret import interpret
from ..ir.graph import Graph, Value
from ..ops.base import OpError
from ..ops.distributions import DISTRIBUTIONS
from .answers import Answers
from .learning import Arrays, Finish, native_axes, ones
from .statements import BATCH, ModelFault, Reference, Statement
from .statistics import Labelled
from .tables import Emitter, Table

Outputs = list[tuple[str, Value]]


def observed_names(answers: Answers) -> list[str]:
    """Inputs that the model draws, in the order of their statements."""
    return list(dict.fromkeys(s.variable for s in answers.statements if s.role == "input"))


# ---------------------------------------------------------------- predictive distributions


def predictive(answers: Answers, name: str, arrays: Arrays) -> tuple[Outputs, Finish]:
    """The posterior predictive of every element of an observed input.

    The answers are ``predictive(y).mean`` and ``predictive(y).variance`` in the input's shape (of
    a vector, the variance of each part); for a categorical one ``predictive(y)``, the probability
    of each outcome in a last axis. Elements that no statement draws are nan.
    """
    rows = [s for s in answers.statements if s.role == "input" and s.variable == name]
    source, weights, outputs = answers.graph.copy(), answers.weights(), []
    places = {s.node: _elements(source, s, arrays) for s in rows}
    for statement in rows:
        if DISTRIBUTIONS[statement.dist].mean is None:
            raise ModelFault("E601", f"{statement.dist} has no mean in closed form", statement.span)
        weight = weights.get(statement.node) or ones(answers, statement)
        outputs.append((f"u{statement.node}", weight.value))
        outputs += [(f"q{statement.node}.{k}", v) for k, (v, _) in enumerate(statement.params)]
    shape = np.shape(arrays[name])

    def finish(found: Arrays) -> dict[str, np.ndarray]:
        if all(s.dist == "categorical" for s in rows):
            return {f"predictive({name})": _outcomes(rows, places, shape, found)}
        mean, variance = np.full(shape, np.nan), np.full(shape, np.nan)
        for statement in rows:
            own = _moments(statement, places[statement.node].ndim, found)
            for whole, part in zip((mean, variance), own, strict=True):
                whole.ravel()[places[statement.node]] = part
        return {f"predictive({name}).mean": mean, f"predictive({name}).variance": variance}

    return outputs, finish


def _elements(graph: Graph, statement: Statement, arrays: Arrays) -> np.ndarray:
    """Which element (flat) of the observed input each value of a statement is."""
    assert statement.point is not None
    twin = graph.copy()
    twin.outputs = [("it", statement.point[0])]
    twin.prune()
    shape = np.shape(arrays[statement.variable])
    count = int(np.prod(shape, dtype=np.int64))
    numbered = {**arrays, statement.variable: np.arange(count).reshape(shape)}
    return np.rint(interpret(twin, numbered, {}, precision="f64")["it"]).astype(np.int64)


def _aligned(statement: Statement, rank: int, found: Arrays) -> tuple[np.ndarray, Any, int, int]:
    """Weights and parameters over the point's indices and then the latent values.

    Also how many axes the indices are, and how many axes of one observation are independent.
    """
    assert statement.point is not None
    lead = statement.point[1]
    weights = Labelled(found[f"u{statement.node}"], native_axes(statement))
    latent = tuple(a for a in weights.axes if a not in lead)
    row = DISTRIBUTIONS[statement.dist]
    depth = rank - len(lead) - row.rank
    params = [
        Labelled(found[f"q{statement.node}.{k}"], axes).over((*lead, *latent), depth, p.rank)
        for k, ((_, axes), p) in enumerate(
            zip(statement.params, row.params_of(statement.form), strict=True)
        )
    ]
    over = weights.over((*lead, *latent), 0, 0)
    return over, row.canonical(statement.form, params), len(lead), depth


def _moments(statement: Statement, rank: int, found: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a mixture: ``E[v + (m - mean)^2]``."""
    weights, params, lead, depth = _aligned(statement, rank, found)
    row = DISTRIBUTIONS[statement.dist]
    assert row.mean is not None and row.variance is not None
    latent = tuple(range(lead, weights.ndim))
    wide = weights.reshape((*weights.shape, *(1,) * (depth + row.rank)))
    total = wide.sum(latent, keepdims=True)
    with np.errstate(all="ignore"):
        middle, spread = np.asarray(row.mean(*params)), np.asarray(row.variance(*params))
        mean = (wide * middle).sum(latent, keepdims=True) / total
        variance = (wide * (spread + (middle - mean) ** 2)).sum(latent) / total.squeeze(latent)
    return mean.squeeze(latent), variance


def _outcomes(
    rows: list[Statement], places: Mapping[int, np.ndarray], shape: tuple[int, ...], found: Arrays
) -> np.ndarray:
    """Probabilities of the outcomes of a categorical input, in a new last axis."""
    whole: np.ndarray | None = None
    for statement in rows:
        weights, (p,), lead, depth = _aligned(statement, places[statement.node].ndim, found)
        latent = tuple(range(lead, weights.ndim))
        wide = weights.reshape((*weights.shape, *(1,) * (depth + 1)))
        mixed = (wide * p).sum(latent) / wide.sum(latent)
        if whole is None:
            whole = np.full((int(np.prod(shape, dtype=np.int64)), p.shape[-1]), np.nan)
        whole[places[statement.node]] = mixed
    assert whole is not None
    return whole.reshape((*shape, whole.shape[-1]))


# ---------------------------------------------------------------- draws


def replicate(
    answers: Answers, name: str, arrays: Arrays, key: Value, path: str
) -> tuple[Outputs, Finish]:
    """A new draw of an observed input, beside the posterior sample that ``path`` names.

    The answer is ``replicate(y)`` in the input's shape and element type; elements that no statement
    draws are as they were.
    """
    rows = [s for s in answers.statements if s.role == "input" and s.variable == name]
    source, outputs = answers.graph.copy(), []
    places = {}
    for statement in rows:
        drawn = _Draw(answers, statement, key, path)
        places[statement.node] = _elements(source, statement, arrays)
        outputs.append((f"r{statement.node}", drawn.value()))

    def finish(found: Arrays) -> dict[str, np.ndarray]:
        whole = np.array(arrays[name], order="C")
        for statement in rows:
            whole.ravel()[places[statement.node]] = found[f"r{statement.node}"]
        return {f"replicate({name})": whole}

    return outputs, finish


class _Draw:
    """Values of an observed statement, given the sampled values of its latent variables."""

    def __init__(self, answers: Answers, statement: Statement, key: Value, path: str) -> None:
        self.answers, self.statement, self.key, self.path = answers, statement, key, path
        self.emit = Emitter(answers.graph, {})
        self.emit.span, self.emit.label = statement.span, statement.label
        assert statement.point is not None
        self.emit.sizes.update({a: size for a, (_, size) in statement.domain.items()})
        shape = self.emit.type_of(statement.point[0]).shape
        self.emit.sizes.update(zip(statement.point[1], shape, strict=False))
        self.lead = statement.point[1]
        self.rank = DISTRIBUTIONS[statement.dist].rank
        self.rest = shape[len(self.lead) : len(shape) - self.rank]

    def value(self) -> Value:
        """``[the point's axes, the rest of one observation, the event]``."""
        emit, statement = self.emit, self.statement
        chosen = {r.axis: self._chosen(r) for r in statement.references}
        operands = []
        rows = DISTRIBUTIONS[statement.dist].params_of(statement.form)
        for (value, axes), row in zip(statement.params, rows, strict=True):
            operands.append(self._at(value, axes, row.rank, chosen))
        shape = (*emit.shape(self.lead), *self.rest)
        return emit.emit("sample", [*operands, self.key], dist=statement.dist, form=statement.form,
                         path=f"{self.path}/{statement.label}", shape=shape)  # fmt: skip

    def _at(self, value: Value, axes: Any, rank: int, chosen: Mapping[str, Table]) -> Value:
        """A parameter at the chosen values, with the point's axes in front."""
        emit = self.emit
        own = emit.type_of(value).shape[len(axes) :]
        held: tuple[str, ...] = tuple(a for a in axes if a in self.lead)
        if any(a in chosen for a in axes):
            held = self.lead
            indices = [
                emit.arrange(chosen[a] if a in chosen else self._count(a), self.lead) for a in axes
            ]
            value = emit.emit("gather", [value, *indices], axes=tuple(range(len(axes))))
        elif axes:
            perm = [axes.index(a) for a in held]
            value = emit.emit(
                "transpose", [value], perm=(*perm, *range(len(axes), len(axes) + len(own)))
            )
        depth = len(self.rest) - (len(own) - rank)
        lead = [emit.type_of(value).shape[held.index(a)] if a in held else 1 for a in self.lead]
        return emit.reshape(value, (*lead, *(1,) * depth, *own))

    def _count(self, axis: str) -> Table:
        value = self.emit.emit("iota", [], size=self.emit.sizes[axis], dtype="i32")
        return Table(value, (axis,))

    def _chosen(self, reference: Reference) -> Table:
        """The sampled values of a variable where a reference points."""
        emit, statement = self.emit, self.statement
        sampled = self.answers.sample(reference.variable, self.key, self.path).value
        axes: list[str] = []
        parts: list[Table] = []
        if self.answers.outer:
            parts.append(self._count(BATCH))
        for place in reference.places:
            if place[0] == "index":
                low, size = statement.domain[place[1]]
                steps = emit.emit("iota", [], size=size, dtype="i32")
                parts.append(Table(self._plus(steps, low + place[2]), (place[1],)))
            elif place[0] == "at":
                parts.append(Table(emit.number(place[1], "i32"), ()))
            else:
                parts.append(Table(*statement.tables[place[1]]))
        if not parts:
            return Table(sampled, ())
        axes = list(dict.fromkeys(a for part in parts for a in part.axes))
        indices = [emit.arrange(part, axes) for part in parts]
        made = emit.emit("gather", [sampled, *indices], axes=tuple(range(len(parts))))
        return Table(made, tuple(axes))

    def _plus(self, value: Value, shift: Any) -> Value:
        if shift == 0:
            return value
        number = self.emit.emit("size_of", [], size=shift, dtype="i32")
        return self.emit.emit("add", [value, number])


def require_apart(answers: Answers, names: list[str]) -> None:
    """E804 when a statement reads a value that is to be drawn."""
    graph = answers.graph
    drawn = {i for i in graph.inputs if graph.node(i).name in names}
    for statement in answers.statements:
        read = [v for v, _ in statement.params] + [v for v, _ in statement.tables.values()]
        read += [statement.condition[0]] if statement.condition else []
        for value in read:
            twin = graph.copy()
            twin.outputs, twin.inputs = [("it", value)], []
            twin.prune()
            for _, node in twin.of_op("input"):
                if any(graph.node(i).name == node.name for i in drawn):
                    raise ModelFault(
                        "E804", f"`{statement.label}` depends on `{node.name}`, which is drawn",
                        statement.span, hint="such a model is sampled one step at a time, which"
                        " this version does not do")  # fmt: skip


def nothing_seen(kind: Any, shape: tuple[int, ...], name: str, missing: int) -> np.ndarray:
    """An input none of whose values are there."""
    if kind.kind == "f":
        return np.full(shape, np.nan, kind)
    if kind.kind != "i":
        raise OpError("E802", f"input `{name}` cannot be missing as {kind}", "declare it i32")
    return np.full(shape, missing, kind)
