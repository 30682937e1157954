"""Learning the parameters of probabilistic models by EM: the driver behind ``Program.fit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .compiler.inference.checks import check_observations, check_parameters
from .compiler.inference.estimate import Step
from .compiler.inference.learning import (
    Learner,
    occurrences,
    prepare,
    priors_of,
    roles,
)
from .compiler.inference.statements import statements_of
from .compiler.inference.statistics import Cells
from .compiler.interpret import interpret
from .compiler.ir.graph import Value
from .compiler.ops.base import OpError
from .inference import Data, Observed, execute, observe, observed_values

if TYPE_CHECKING:
    from .program import Program

Fixed = Sequence[str] | Mapping[str, Any]
"""Paths that keep their values, or masks by path of the elements that do."""


@dataclass(frozen=True)
class Fitted:
    """What EM found.

    ``history[k]`` is the objective (log-likelihood plus log prior, in nats) before the k-th M-step,
    and one more at the end; ``converged`` says whether it came to rest.
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
    settings: Settings | None = None, engine: str = "reference",
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


class _Worker:
    """EM on several sequences; graphs of one shape are made once."""

    def __init__(self, program: Program, rows: Sequence[Data], params: dict[str, np.ndarray],
                 how: Settings, engine: str) -> None:  # fmt: skip
        self.program, self.how, self.engine = program, how, engine
        self.params = {path: np.array(array) for path, array in params.items()}
        self.shapes = {path: array.shape for path, array in self.params.items()}
        self.fixed = _masks(how.fixed, self.params)
        self.held = {path for path, mask in self.fixed.items() if np.all(mask)}
        self.seen = [observe(program, row, params) for row in rows]
        self._learners: dict[Any, Learner] = {}
        for seen in self.seen:
            bound = program.graph.bind(seen.sizes)
            values = observed_values(bound, seen.arrays, self.params)
            check_observations(bound, values, seen.missing)

    def run(self, progress: Callable[[int, float], None]) -> Fitted:
        """Rounds of E and M until the objective comes to rest."""
        history: list[float] = []
        converged = False
        for number in range(self.how.iterations + 1):
            objective, found, cells = self._expect()
            history.append(objective)
            progress(number, objective)
            if len(history) > 1 and history[-1] - history[-2] < self.how.tol:
                converged = True
                break
            if number == self.how.iterations:
                break
            self.params = self._maximise(found, cells)
        return Fitted(self.params, tuple(history), converged)

    def _expect(self) -> tuple[float, dict[str, np.ndarray], dict[int, Cells]]:
        """The objective, and the statistics of all sequences."""
        total, prior, cells = 0.0, 0.0, {}
        found: dict[str, np.ndarray] = {}
        for seen in self.seen:
            learner = self._learner(seen)
            found = execute(learner.graph, seen.arrays, self.params, engine=self.engine)
            total += float(np.sum(found["loglik"]))
            prior = float(np.sum(found["logprior"]))
            for node, own in occurrences(learner, found).items():
                if node in cells:
                    cells[node].add(own)
                else:
                    cells[node] = own
        return total + prior, found, cells

    def _maximise(
        self, found: dict[str, np.ndarray], cells: dict[int, Cells]
    ) -> dict[str, np.ndarray]:
        learner = self._learner(self.seen[-1])
        parts = roles(learner, cells, found)
        used = {
            source.path: (role.statement.dist, name)
            for role in parts
            for name, source in zip(role.names, role.sources, strict=True)
            if source.path is not None
        }
        bound = self.program.graph.bind(self.seen[-1].sizes)
        priors = priors_of(bound, statements_of(bound), self.shapes, used, self._value(bound))
        return Step(self.params, self.fixed, priors, self.how.floor).run(parts)

    def _value(self, graph: Any) -> Callable[[Value], np.ndarray]:
        def value(wanted: Value) -> np.ndarray:
            twin = graph.copy()
            twin.outputs = [("it", wanted)]
            twin.prune()
            return interpret(twin, self.seen[-1].arrays, self.params)["it"]

        return value

    def _learner(self, seen: Observed) -> Learner:
        key = (tuple(sorted(seen.sizes.items())), seen.missing)
        if key not in self._learners:
            graph = self.program.graph.bind(seen.sizes)
            alone = seen.arrays if len(self.seen) == 1 else {}
            self._learners[key] = prepare(graph, seen.missing, self.shapes, self.held, alone)
        return self._learners[key]


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
