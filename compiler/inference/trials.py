"""Approximations tried on a small model: what theory says of them holds, and how far off they are.

Updates, messages and sweeps are compared with the same written as loops (``proofs``); marginals
with trying every assignment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..interpret import interpret
from ..ir.graph import Graph
from ..ir.types import TensorType
from . import beliefs, gibbs, meanfield, proofs
from .answers import answers_about
from .approximate import Asked, Finding, with_questions
from .enumeration import Enumerated, Ground, enumerate_ground, ground_model
from .expand import expand
from .local import Local
from .proofs import Rows

EXACT = "f64"
"""The type that everything is compared in, whatever the model's own."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Trial:
    """A model with known sizes, data and weights, and the approximation that is tried on it."""

    graph: Graph
    inputs: Arrays
    params: Arrays
    asked: Asked
    seed: int = 0

    @cached_property
    def ground(self) -> Ground:
        """The variables that hang together, in numbers."""
        with np.errstate(all="ignore"):
            return ground_model(
                self.graph, self.inputs, self.params, (), EXACT, self.asked.variable
            )

    @cached_property
    def truth(self) -> Enumerated:
        """Every assignment."""
        with np.errstate(all="ignore"):
            return enumerate_ground(self.ground)

    @property
    def is_tree(self) -> bool:
        """Whether the model's factors close no circle."""
        return proofs.is_tree(self.ground)

    def answers(self, asked: Asked) -> Rows:
        """What the approximation says of each element."""
        graph = expand(with_questions(self.graph, asked))
        with np.errstate(all="ignore"):
            found = interpret(graph, self.inputs, self.params, self.seed, precision=EXACT)
        return self.ground.rows(found)

    def findings(self) -> tuple[Finding, ...]:
        """Everything that is known of the approximation here."""
        with np.errstate(all="ignore"):
            tried = {"meanfield": self.mean_field, "bp": self.messages, "gibbs": self.sweeps}
            return tuple(tried[self.asked.method]())

    # ------------------------------------------------------------ mean field

    def mean_field(self) -> list[Finding]:
        """Updates, the bound, and how far marginals are off."""
        settings = dict(self.asked.settings)
        steps = int(settings.get("steps", meanfield.STEPS))
        damping = float(settings.get("damping", 0))
        exact = replace(self.asked, settings={**settings, "filter": "exact"})
        found = self.answers(exact)
        want = proofs.mean_field(self.ground, self.truth, steps, damping)
        more = proofs.mean_field(self.ground, self.truth, steps + 1, damping)
        free, far = proofs.bound(self.ground, found), proofs.divergence(self.truth, found)
        log_z = np.atleast_1d(self.truth.loglik)
        gap = log_z - free
        rows = [
            Finding(f"{_times(steps, 'update')} by expectations over all assignments",
                    _largest(found, want), True),
            Finding(f"F(q) = {_numbers(free)} is below log Z = {_numbers(log_z)}"
                    f" by KL(q || p) = {_numbers(far)}",
                    float(np.max(np.maximum(np.abs(gap - far), -gap))), True),
            Finding("marginals against enumeration", self._off(found), False),
            Finding("what one more update changes", _largest(want, more), False),
        ]  # fmt: skip
        if settings.get("filter") == "lattice":
            other = self.answers(self.asked)
            rows.append(
                Finding("q by the lattice against all pairs", _largest(found, other), False)
            )
        return rows

    # ------------------------------------------------------------ belief propagation

    def messages(self) -> list[Finding]:
        """Messages one by one, Bethe's log Z, and beliefs against enumeration."""
        settings = self.asked.settings
        steps = int(settings.get("steps", beliefs.STEPS))
        damping, tol = (float(settings.get(name, 0)) for name in ("damping", "tol"))
        best = settings.get("semiring") == "max_sum"
        found = self.answers(self.asked)
        made = proofs.belief_propagation(self.ground, steps, damping, tol, best)
        want = [_normal(row, best) for row in made.logs]
        same = _largest([np.exp(r) for r in found], [np.exp(r) for r in want]) if best else (
            _largest(found, want))  # fmt: skip
        rows = [Finding(f"{_times(steps, 'round')} of messages passed from table to table",
                        same, True)]  # fmt: skip
        what = "max-marginals" if best else "marginals"
        rows.append(Finding(f"{what} against enumeration", self._off(found, best), False))
        if not best:
            log_z = np.atleast_1d(self.truth.loglik)
            rows.append(Finding(f"Bethe's log Z = {_numbers(made.free)} against {_numbers(log_z)}",
                                float(np.max(np.abs(made.free - log_z))), False))  # fmt: skip
        return rows

    def on_a_tree(self) -> Finding:
        """Beliefs of a model that is a tree are exact after as many steps as it has elements."""
        best = self.asked.settings.get("semiring") == "max_sum"
        settings: dict[str, Any] = {"steps": len(self.ground.sizes) + 1}
        if best:
            settings["semiring"] = "max_sum"
        found = self.answers(replace(self.asked, settings=settings))
        with np.errstate(all="ignore"):
            return Finding("exact on a tree", self._off(found, best), True)

    # ------------------------------------------------------------ Gibbs sampling

    def sweeps(self) -> list[Finding]:
        """A sweep as a matrix leaves the posterior as it is; what a run of the sampler says."""
        grid = self.truth.assignments
        groups, conditionals = self._conditionals()
        matrix = proofs.sweep_matrix(self.truth, groups, conditionals)
        posterior = self.truth.posterior
        after = np.einsum("ba,bac->bc", posterior, matrix)
        found = self.answers(self.asked)
        steps = int(self.asked.settings.get("steps", gibbs.STEPS))
        return [
            Finding(f"a sweep, as a {grid.shape[1]} x {grid.shape[1]} matrix, keeps the posterior",
                    float(np.max(np.abs(after - posterior))), True),
            Finding("its second largest eigenvalue: what a sweep leaves of the start",
                    proofs.mixing(matrix), False),
            Finding(f"marginals of {_times(steps, 'sweep')} against enumeration",
                    self._off(found), False),
        ]  # fmt: skip

    def _conditionals(self) -> tuple[list[list[int]], list[Rows]]:
        """Which elements are drawn at once, and for each assignment from what."""
        twin = self.graph.copy()
        answers = answers_about(twin)
        local = Local(answers, answers.structure.component_of(self.asked.variable))
        masks = gibbs.colouring(answers, local, None)
        groups = [
            [self.ground.elements[name, spot] for name, mask in row.items()
             for spot in np.ndindex(*mask.shape) if mask[spot]]
            for row in masks
        ]  # fmt: skip
        shapes: dict[str, Any] = {name: local.shape(f) for name, f in local.families.items()}
        state = {
            name: twin.add_input(f"state {name}", TensorType(local.dtype, shape))
            for name, shape in shapes.items()
        }
        twin.outputs = [
            (name, local.softmax(gibbs.conditional(local, name, local.own(family), state)))
            for name, family in local.families.items()
        ]
        twin.prune(twin.inputs)
        found = []
        for column in self.truth.assignments.T:
            held = {name: np.zeros(shape) for name, shape in shapes.items()}
            for (name, spot), element in self.ground.elements.items():
                held[name][(..., *spot, column[element])] = 1
            inputs = {**self.inputs, **{f"state {name}": a for name, a in held.items()}}
            made = interpret(twin, inputs, self.params, precision=EXACT)
            found.append(self.ground.rows(made))
        return groups, found

    # ------------------------------------------------------------ against enumeration

    def _off(self, found: Rows, best: bool = False) -> float:
        """The largest error of marginals, or of max-marginals over their largest."""
        if not best:
            return _largest(found, self.ground.rows(self.truth.marginals))
        want = []
        for row, size in zip(self.truth.assignments, self.ground.sizes, strict=True):
            tops = [self.truth.score[:, row == v].max(-1) for v in range(size)]
            want.append(_normal(np.stack(tops, 1), True))
        return _largest([np.exp(row) for row in found], [np.exp(row) for row in want])


def _normal(logs: np.ndarray, best: bool) -> np.ndarray:
    top = logs.max(-1, keepdims=True)
    if best:
        return logs - top
    e = np.exp(logs - top)
    return e / e.sum(-1, keepdims=True)


def _largest(found: Rows, want: Rows) -> float:
    return max(float(np.max(np.abs(a - b))) for a, b in zip(found, want, strict=True))


def _numbers(values: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _times(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
