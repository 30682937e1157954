"""Learning the parameters of probabilistic models by EM: the driver behind ``Program.fit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .compiler.inference.checks import check_parameters
from .compiler.inference.climb import Climber, Weighed
from .compiler.inference.estimate import Role, Step
from .compiler.inference.learning import (
    Learner,
    by_gradient,
    prepare,
    priors_of,
    role_of,
    sources_of,
    statistics_of,
)
from .compiler.inference.sources import chosen_by_data
from .compiler.inference.statements import Statement, statements_of
from .compiler.inference.statistics import Cells
from .compiler.interpret import interpret
from .compiler.ir.graph import Graph, Value
from .compiler.ops.base import OpError
from .execution import Execution, Kept
from .inference import Data, Observed, Values, observe

if TYPE_CHECKING:
    from .program import Program

Fixed = Sequence[str] | Mapping[str, Any]
"""Paths that keep their values, or masks by path of the elements that do."""


@dataclass(frozen=True)
class Fitted:
    """What EM found.

    ``history[k]`` is the objective (log-likelihood plus log prior, in nats) before the k-th M-step;
    the last entry is that of ``params``, which no M-step followed: of the E-step that showed that
    the objective had come to rest (``converged``), else, when the rounds ran out, of a pass that
    makes the objective alone. So n rounds are n E-steps and n M-steps and one more of the former
    or that pass, and ``history`` has n + 1 entries.
    """

    params: dict[str, np.ndarray]
    history: tuple[float, ...]
    converged: bool


@dataclass(frozen=True)
class Settings:
    """How long, how exactly, and what stays as it is.

    ``tol`` is the least gain of a round, in nats; ``floor`` the least standard deviation (and root
    of a covariance's eigenvalue).
    """

    iterations: int = 100
    tol: float = 1e-4
    floor: float = 0.0
    fixed: Fixed = ()


def fit(
    program: Program, data: Data | Sequence[Data], weights: Any = None, seed: int = 0,
    settings: Settings | None = None, engine: str = "auto",
    progress: Callable[[int, float], None] | None = None,
) -> Fitted:  # fmt: skip
    """See :meth:`Program.fit`."""
    from .program import located_faults

    how = settings or Settings()
    with located_faults(program.sources):
        rows = [data] if isinstance(data, Mapping) else list(data)
        if not rows:
            raise OpError("E802", "there is no data to learn from")
        params = program.weights_for(weights, seed)
        check_parameters(program.graph, params)
        worker = _Worker(program, rows, params, how, engine)
        return worker.run(progress or (lambda number, objective: None))


class _Taught:
    """What one shape of data needs, made once: the E-step and the objective alone."""

    def __init__(self, learner: Learner, engine: str) -> None:
        self.learner, self._engine = learner, engine
        self.expect = Execution(learner.graph, engine)

    @cached_property
    def judge(self) -> Execution:
        """The outputs ``loglik`` and ``logprior`` of the E-step and no others."""
        graph = self.learner.graph.copy()
        graph.outputs = [row for row in graph.outputs if row[0] in ("loglik", "logprior")]
        graph.prune()
        return Execution(graph, self._engine)


class _Worker:
    """EM on several sequences; graphs of one shape are made once, and kept by the program."""

    def __init__(self, program: Program, rows: Sequence[Data], params: Mapping[str, np.ndarray],
                 how: Settings, engine: str) -> None:  # fmt: skip
        self.program, self.how, self.engine = program, how, engine
        self.params = {path: np.array(array) for path, array in params.items()}
        self.shapes = {path: array.shape for path, array in self.params.items()}
        self.fixed = _masks(how.fixed, self.params)
        self.held = {path for path, mask in self.fixed.items() if np.all(mask)}
        self.seen = [observe(program, row, params) for row in rows]
        self.climbed: list[str] = []
        self._own: dict[Any, Any] = {}
        # What whole numbers among the data choose is known for these data alone.
        self._kept = Kept() if chosen_by_data(program.graph) else program.asked
        for seen in self.seen:
            values = self._once(seen, "values", lambda graph, seen: Values(graph))
            values.check(seen.arrays, self.params, seen.missing)
        self.climbed = self._once(self.seen[0], "by gradient", lambda graph, seen: by_gradient(
            graph, self.shapes, self.held, seen.arrays))  # fmt: skip
        self.climber = Climber(program.graph, self.climbed, self.fixed) if self.climbed else None

    def run(self, progress: Callable[[int, float], None]) -> Fitted:
        """Rounds of E and M until the objective comes to rest."""
        history: list[float] = []
        converged = False
        for number in range(self.how.iterations + 1):
            last = number == self.how.iterations
            objective, roles, weighed = self._judge() if last else self._expect()
            history.append(objective)
            progress(number, objective)
            converged = len(history) > 1 and history[-1] - history[-2] < self.how.tol
            if converged or last:
                break
            self.params = self._maximise(roles, weighed)
        return Fitted(self.params, tuple(history), converged)

    def _judge(self) -> tuple[float, list[Role], list[Weighed]]:
        """The objective alone."""
        total, prior = 0.0, 0.0
        for seen in self.seen:
            found = self._learner(seen).judge.run(seen.arrays, self.params)
            total += float(np.sum(found["loglik"]))
            prior = float(np.sum(found["logprior"]))
        return total + prior, [], []

    def _expect(self) -> tuple[float, list[Role], list[Weighed]]:
        """The objective, the statistics of all sequences, and weights for an M-step by gradient."""
        total, prior = 0.0, 0.0
        shared: dict[int, tuple[Learner, Statement, Cells, Mapping[str, np.ndarray]]] = {}
        roles: list[Role] = []
        weighed = []
        for seen in self.seen:
            taught = self._learner(seen)
            learner, found = taught.learner, taught.expect.run(seen.arrays, self.params)
            total += float(np.sum(found["loglik"]))
            prior = float(np.sum(found["logprior"]))
            weights = {n: found[f"w{n}"] for n in learner.climbing}
            weighed.append(Weighed(seen.sizes, seen.missing, seen.known, seen.arrays, weights))
            for statement in learner.statements:
                cells = statistics_of(learner, statement, found)
                if set(learner.cells[statement.node]) & set(statement.domain):
                    # Parameters vary along the sequence: each has its own.
                    assert learner.source is not None
                    sources = sources_of(learner.source, statement, self.shapes, seen.arrays)
                    roles.append(role_of(learner, statement, cells, found, sources))
                elif statement.node in shared:
                    shared[statement.node][2].add(cells)
                else:
                    shared[statement.node] = learner, statement, cells, found
        for learner, statement, cells, found in shared.values():
            roles.append(role_of(learner, statement, cells, found, learner.sources[statement.node]))
        return total + prior, roles, weighed

    def _maximise(self, roles: Sequence[Role], weighed: Sequence[Weighed]) -> dict[str, np.ndarray]:
        bound = self.program.graph.bind(self.seen[-1].sizes)
        priors = priors_of(bound, statements_of(bound), self.shapes, self._value(bound))
        kept = {path: np.ones(self.shapes[path], bool) for path in self.climbed}
        step = Step(self.params, {**self.fixed, **kept}, priors, self.how.floor)
        params = step.run(roles)
        return self.climber.raised(params, weighed) if self.climber else params

    def _value(self, graph: Any) -> Callable[[Value], np.ndarray]:
        def value(wanted: Value) -> np.ndarray:
            twin = graph.copy()
            twin.outputs = [("it", wanted)]
            twin.prune()
            return interpret(twin, self.seen[-1].arrays, self.params)["it"]

        return value

    def _learner(self, seen: Observed) -> _Taught:
        def taught(graph: Graph, seen: Observed) -> _Taught:
            learner = prepare(graph, seen.missing, self.shapes, self.held, seen.arrays,
                              self.climbed, seen.known)  # fmt: skip
            return _Taught(learner, self.engine)

        return self._once(seen, "taught", taught)

    def _once(self, seen: Observed, what: str, make: Callable[[Graph, Observed], Any]) -> Any:
        """Something about the model at the sizes of a sequence, made when it is first wanted."""
        sizes = tuple(sorted(seen.sizes.items()))
        learnt = (tuple(sorted(self.held)), tuple(self.climbed), self.engine)
        key = ("fit", what, sizes, seen.missing, seen.known, learnt)
        # The program forgets what was not used for long, which may be in the middle of this run.
        if key not in self._own:
            kept = self._kept.get(key)
            if kept is None:
                kept = self._kept.put(key, make(self.program.graph.bind(seen.sizes), seen))
            self._own[key] = kept
        return self._own[key]


def _masks(fixed: Fixed, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which elements of each parameter keep their values."""
    masks = dict(fixed) if isinstance(fixed, Mapping) else dict.fromkeys(fixed, True)
    found = {}
    for path, mask in masks.items():
        if path not in params:
            known = ", ".join(params) or "none"
            raise OpError("E801", f"there is no weight `{path}` to keep", f"there is {known}")
        found[path] = np.broadcast_to(np.asarray(mask, bool), params[path].shape)
    return found
