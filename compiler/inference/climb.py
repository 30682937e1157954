"""The M-step by gradient: for parameters that have no closed form.

It raises the expected log density of the complete data (and the log prior), as much as some steps
of L-BFGS do; any rise of it is a rise of the likelihood (generalised EM: Dempster, Laird, Rubin,
JRSS B 39, 1977, theorem 1). A step that does not rise is cut in half, so EM stays monotone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autodiff import differentiate, gradient_name
from ..interpret import Interpreter
from ..ir.graph import Graph, Value
from .answers import Answers, answers_about
from .domains import Coordinates
from .potentials import Potentials
from .statements import ModelFault, Statement

STEPS = 20
"""Steps of L-BFGS in one M-step: more than needed once EM is under way."""

VALUE = "it"
"""The output that is raised."""

MEMORY = 8
"""Pairs of steps and changes of the gradient that L-BFGS remembers."""


def expected_density(
    graph: Graph, missing: Collection[str], known: Collection[str], paths: Sequence[str]
) -> Graph:
    """The expected log density of the statements that depend on ``paths``, with its derivatives.

    Inputs ``weight:N`` are the posterior weights of statement N, kept as they are.
    """
    answers = answers_about(graph, missing, known)
    emit = answers.emitter
    total = emit.number(0.0)
    for statement in answers.statements:
        if statement.role not in ("latent", "input"):
            continue
        if not depends(graph, [v for v, _ in statement.params], paths):
            continue
        if statement.references:
            made = _weighted(answers, statement)
        else:
            made = answers.density(statement).value
        if made is not None:
            total = emit.emit("add", [total, _sum(answers, made)])
    return _with_slopes(graph, total, paths)


def _weighted(answers: Answers, statement: Statement) -> Value | None:
    """Weight * log-potential, with 0 * -inf = 0."""
    emit, graph = answers.emitter, answers.graph
    table = Potentials(emit, statement, answers.missing).table()
    if table is None:
        return None
    kind = graph.type_of(table.value)
    weight = graph.add_input(f"weight:{statement.node}", kind)
    zero = emit.number(0.0, kind.dtype)
    used = emit.emit("ne", [weight, zero])
    product = emit.emit("mul", [weight, emit.emit("where", [used, table.value, zero])])
    return product


def _sum(answers: Answers, value: Value) -> Value:
    """Everything added up, in float64."""
    emit = answers.emitter
    wide = emit.emit("cast", [value], dtype="f64")
    axes = tuple(range(len(emit.type_of(value).shape)))
    return emit.emit("reduce", [wide], kind="sum", axes=axes, keepdims=False) if axes else wide


def prior_density(graph: Graph, paths: Sequence[str]) -> Graph:
    """The log prior with its derivatives."""
    answers = answers_about(graph)
    return _with_slopes(graph, _sum(answers, answers.log_prior.value), paths)


def _with_slopes(graph: Graph, of: Value, paths: Sequence[str]) -> Graph:
    by_path = {str(node.attrs["path"]): Value(index) for index, node in graph.of_op("param")}
    graph.outputs = [(VALUE, of)]
    graph.prune([value.node for value in by_path.values()])
    return differentiate(graph, of, [by_path[path] for path in paths], list(paths))


def depends(graph: Graph, values: Sequence[Value], paths: Collection[str]) -> set[str]:
    """Which of some parameters values depend on."""
    twin = graph.copy()
    twin.outputs = [(str(k), value) for k, value in enumerate(values)]
    twin.inputs = []
    twin.prune()
    return {str(node.attrs["path"]) for _, node in twin.of_op("param")} & set(paths)


@dataclass(frozen=True)
class Weighed:
    """A sequence and the posterior weights of its statements by node, from the E-step."""

    sizes: Mapping[str, int]
    missing: frozenset[str]
    known: frozenset[str]
    arrays: Mapping[str, np.ndarray]
    weights: Mapping[int, np.ndarray]


class Climber:
    """Raises the parameters ``paths`` of a model; graphs of one shape are made once."""

    def __init__(self, graph: Graph, paths: Sequence[str], fixed: Mapping[str, np.ndarray]) -> None:
        self.graph, self.paths, self.fixed = graph, tuple(paths), fixed
        nodes = {str(node.attrs["path"]): node for _, node in graph.of_op("param")}
        self.domains = {path: str(nodes[path].attrs["domain"]) for path in paths}
        for path in paths:
            mask = fixed.get(path)
            if self.domains[path] == "posdef" and mask is not None and np.any(mask):
                raise ModelFault(
                    "E612", f"`{path}` is learnt by gradient and fixed in part", nodes[path].span,
                    hint=f"keep all of it: `--fix {path}`",
                )  # fmt: skip
        self._made: dict[Any, tuple[Interpreter, Interpreter]] = {}

    def raised(
        self, params: Mapping[str, np.ndarray], rows: Sequence[Weighed]
    ) -> dict[str, np.ndarray]:
        """Parameters with a higher expected log density of the complete data."""

        def value(new: Mapping[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
            now = {**params, **new}
            total, slopes = self._at(self._graphs(rows[-1])[1], rows[-1], now)
            for row in rows:
                found, slope = self._at(self._graphs(row)[0], row, now)
                total += found
                for path in self.paths:
                    slopes[path] = slopes[path] + slope[path]
            return total, slopes

        start = {path: params[path] for path in self.paths}
        return {**params, **ascend(value, start, self.domains, self.fixed)}

    def _at(
        self, graph: Interpreter, row: Weighed, params: Mapping[str, np.ndarray]
    ) -> tuple[float, dict[str, np.ndarray]]:
        weights = {f"weight:{node}": array for node, array in row.weights.items()}
        found = graph({**row.arrays, **weights}, params)
        return float(found[VALUE]), {p: found[gradient_name(p)] for p in self.paths}

    def _graphs(self, row: Weighed) -> tuple[Interpreter, Interpreter]:
        """The expected log density, and the log prior."""
        key = (tuple(sorted(row.sizes.items())), row.missing, row.known)
        if key not in self._made:
            bound = self.graph.bind(row.sizes)
            expected = expected_density(bound, row.missing, row.known, self.paths)
            prior = prior_density(self.graph.bind(row.sizes), self.paths)
            self._made[key] = Interpreter(expected), Interpreter(prior)
        return self._made[key]


# ---------------------------------------------------------------- the ascent


def ascend(
    value: Callable[[Mapping[str, np.ndarray]], tuple[float, dict[str, np.ndarray]]],
    params: Mapping[str, np.ndarray], domains: Mapping[str, str],
    fixed: Mapping[str, np.ndarray], steps: int = STEPS,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Parameters at which ``value`` is higher, or as high where no step rises.

    ``value`` gives what is raised and its gradient by path.
    """
    rows = {
        path: Coordinates(domains[path], array, fixed.get(path, np.zeros(array.shape, bool)))
        for path, array in params.items()
    }
    sizes = [row.start.size for row in rows.values()]
    cuts = np.cumsum(sizes)[:-1]

    def at(u: np.ndarray) -> tuple[float, np.ndarray]:
        parts = dict(zip(rows, np.split(u, cuts), strict=True))
        with np.errstate(all="ignore"):
            found, slopes = value({path: rows[path].parameter(x) for path, x in parts.items()})
            slope = [rows[path].gradient(x, slopes[path]) for path, x in parts.items()]
        return found, np.concatenate(slope)

    u = np.concatenate([row.values() for row in rows.values()])
    best = _lbfgs(at, u, steps)
    parts = dict(zip(rows, np.split(best, cuts), strict=True))
    return {
        path: rows[path].parameter(x).astype(rows[path].start.dtype) for path, x in parts.items()
    }


def _lbfgs(
    at: Callable[[np.ndarray], tuple[float, np.ndarray]], u: np.ndarray, steps: int
) -> np.ndarray:
    """Some steps uphill (Nocedal: Mathematics of Computation 35, 1980), each with a rise."""
    value, slope = at(u)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(steps):
        direction = _two_loops(slope, pairs)
        rise = float(direction @ slope)
        if not np.isfinite(rise) or rise <= 0:
            pairs, direction = [], slope
            rise = float(slope @ slope)
        if rise <= 1e-18 * (1 + abs(value)):
            break
        length = 1.0 if pairs else min(1.0, 1 / np.linalg.norm(slope))
        for _ in range(40):
            there = u + length * direction
            found, new = at(there)
            # Armijo's condition; what is not finite is too far.
            if np.isfinite(found) and np.all(np.isfinite(new)):
                if found >= value + 1e-4 * length * rise:
                    break
            length /= 2
        else:
            break
        step, change = there - u, slope - new
        if step @ change > 1e-12 * np.linalg.norm(step) * np.linalg.norm(change):
            pairs = [*pairs[-MEMORY + 1 :], (step, change)]
        gained, u, value, slope = found - value, there, found, new
        if gained <= 1e-12 * (1 + abs(value)):
            break
    return u


def _two_loops(slope: np.ndarray, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The approximate Newton direction from remembered steps."""
    q, shares = slope.copy(), []
    for step, change in reversed(pairs):
        share = (step @ q) / (step @ change)
        q = q - share * change
        shares.append(share)
    if pairs:
        step, change = pairs[-1]
        q = q * (step @ change) / (change @ change)
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        q = q + step * (share - (change @ q) / (step @ change))
    return q
