"""Kullback-Leibler divergence of two models of the same variables.

Both distributions are products of log-potentials over the same variables, so

    KL(P || Q) = sum of E_P[log-potentials of P - log-potentials of Q] - log Z_P + log Z_Q

and the expectations are those of the E-step. With no data, observed variables belong to the joint
distribution: each adds ``E_P[KL(p(x | z) || q(x | z))]`` by the chain rule (Cover, Thomas, Elements
of Information Theory, theorem 2.5.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.graph import Value
from ..ops.distributions import DISTRIBUTIONS
from ..ops.divergences import KL
from .answers import Answers
from .learning import Arrays, native_axes, ones
from .statements import ModelFault, Statement
from .statistics import Labelled


@dataclass(frozen=True)
class Side:
    """One of the two models: its statements and what its graph put out."""

    statements: Sequence[Statement]
    found: Arrays


def outputs_of(answers: Answers, weighted: bool) -> list[tuple[str, Value]]:
    """What a side must put out: log Z, log-potentials, and weights of the first one."""
    tables = [answers.emitter.total(d.value, answers.outer) for d in answers.eliminations("lse")]
    outputs = [(f"z{k}", table.value) for k, table in enumerate(tables)]
    weights = answers.weights() if weighted else {}
    for part in answers.parts:
        for statement, rows in part.of_statements().items():
            outputs.append((f"t{statement.node}", rows[0].native.value))
    for statement in answers.statements:
        if statement.role == "input":
            outputs += [(f"p{statement.node}.{k}", v) for k, (v, _) in enumerate(statement.params)]
            assert statement.point is not None
            outputs.append((f"x{statement.node}", statement.point[0]))
        if weighted and statement.role != "param":
            table = weights.get(statement.node)
            if table is None and statement.role == "input":
                table = ones(answers, statement)
            if table is not None:
                outputs.append((f"w{statement.node}", table.value))
    return outputs


def divergence(p: Side, q: Side, observed: bool) -> float:
    """KL(P || Q) in nats; with ``observed``, of observed variables too (nothing was seen).

    Raises :class:`ModelFault` E613 where the models join their variables differently, E601 where
    two distributions of an observed variable have no divergence in closed form.
    """
    total = sum(float(v) for name, v in q.found.items() if name[0] == "z")
    total -= sum(float(v) for name, v in p.found.items() if name[0] == "z")
    for statement in p.statements:
        if f"t{statement.node}" in p.found:
            total += _energy(p, statement, p, statement)
    for statement in q.statements:
        if f"t{statement.node}" in q.found:
            total -= _energy(p, _match(p, statement), q, statement)
    if observed:
        for statement in q.statements:
            if statement.role == "input":
                total += _between(p, _match(p, statement, True), q, statement)
    return total


def _key(statement: Statement) -> Any:
    """Which variables a statement joins, whatever its indices are called."""
    order = {name: place for place, name in enumerate(statement.domain)}
    references = [
        (r.variable, tuple((k[0], order[k[1]], k[2]) if k[0] == "index" else k for k in r.places))
        for r in statement.references
    ]
    return references, list(statement.domain.values())


def _match(p: Side, wanted: Statement, target: bool = False) -> Statement:
    """The statement of P about the same variables (and the same observed one)."""
    found = [
        s
        for s in p.statements
        if f"w{s.node}" in p.found and _key(s) == _key(wanted)
        if not target or s.variable == wanted.variable
    ]
    if found:
        # Weights of a table that stays the same along an index are summed over it.
        return max(found, key=lambda s: len(native_axes(s)))
    raise ModelFault("E613", f"only one of the two models has `{wanted.formula}`", wanted.span,
                     hint="compare models that join the same variables")  # fmt: skip


def _renamed(own: Statement, other: Statement) -> dict[str, str]:
    """Names of the other statement's axes as ours."""
    names = dict(zip(other.domain, own.domain, strict=True))
    pairs = zip(other.references, own.references, strict=True)
    return names | {theirs.axis: ours.axis for theirs, ours in pairs}


def _energy(p: Side, own: Statement, q: Side, other: Statement) -> float:
    """The expected log-potential under P, with 0 * -inf = 0."""
    weights = Labelled(p.found[f"w{own.node}"], native_axes(own))
    names = _renamed(own, other)
    table = Labelled(q.found[f"t{other.node}"], tuple(names[a] for a in native_axes(other)))
    lacking = [a for a in table.axes if a not in weights.axes]
    if lacking:
        raise ModelFault("E613", f"`{other.formula}` varies with `{lacking[0]}` in one of the two"
                         " models only", other.span)  # fmt: skip
    w, t = weights.array, table.over(weights.axes, 0, 0)
    return float(np.sum(w * np.where(w != 0, t, 0.0)))


def _between(p: Side, own: Statement, q: Side, other: Statement) -> float:
    """The expected divergence of one observed value's distributions."""
    pair = own.dist, other.dist
    if pair not in KL:
        raise ModelFault("E601", f"kl: no closed form for {pair[0]} and {pair[1]}", other.span,
                         hint="give data: the divergence of posteriors needs none")  # fmt: skip
    assert own.point is not None
    weights = Labelled(p.found[f"w{own.node}"], native_axes(own))
    names = _renamed(own, other)
    lead, whole = len(own.point[1]), p.found[f"x{own.node}"].shape
    rest = len(whole) - lead - DISTRIBUTIONS[own.dist].rank
    first = _params(own, p.found, weights.axes, rest, {})
    second = _params(other, q.found, weights.axes, rest, names)
    with np.errstate(all="ignore"):
        apart = np.asarray(KL[pair](*first, *second))
    cells = apart.shape[: apart.ndim - rest]
    apart = np.broadcast_to(apart, (*cells, *whole[lead : lead + rest]))
    apart = apart.sum(tuple(range(len(cells), apart.ndim)))
    return float(np.sum(weights.array * np.where(weights.array != 0, apart, 0.0)))


def _params(
    statement: Statement, found: Arrays, axes: Sequence[str], depth: int, names: Mapping[str, str]
) -> Sequence[np.ndarray]:
    row = DISTRIBUTIONS[statement.dist]
    params = [
        Labelled(found[f"p{statement.node}.{k}"], tuple(names.get(a, a) for a in held)).over(
            axes, depth, parameter.rank
        )
        for k, ((_, held), parameter) in enumerate(
            zip(statement.params, row.params_of(statement.form), strict=True)
        )
    ]
    return row.canonical(statement.form, params)
