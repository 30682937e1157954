"""Questions to probabilistic models: what the public face asks of ``compiler.inference``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .compiler.inference.answers import Answers
from .compiler.inference.checks import check_observations, check_parameters
from .compiler.inference.expand import constant_value, expand
from .compiler.inference.explain import Check, Derivation, explain
from .compiler.inference.potentials import MISSING
from .compiler.inference.statements import Statement, statements_of
from .compiler.interpret import interpret
from .compiler.ir.graph import Graph, Value
from .compiler.ir.types import TensorType
from .compiler.ops.base import OpError
from .runtime.inputs import check_input

if TYPE_CHECKING:
    from .fitting import Fitted
    from .program import Program

ASKS = ("loglik", "logprior", "marginals", "map", "sample", "entropy")
"""What a model can be asked; all but ``loglik``, ``logprior`` and ``entropy`` of a variable."""

Data = Mapping[str, Any]


class Questions:
    """What a program with a probabilistic model can be asked."""

    def query(
        self: Any, data: Data, ask: Sequence[str] = ("loglik", "marginals", "map"),
        weights: Any = None, seed: int = 0, engine: str = "reference",
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Answers of a probabilistic model, by question.

        Parameters
        ----------
        data
            Arrays by input name; nan marks observations that are missing.
        ask
            ``loglik``, ``logprior``, ``entropy`` (nats), and ``marginals``, ``map`` and
            ``sample`` of all latent variables, or of one: ``map(z)``.
        weights
            A file, or arrays by path; the spec's initialisers with ``seed`` without it.

        Raises
        ------
        SpecError
            For weights and observations that do not fit (E603, E607, E611, E8xx), and a model
            that exact inference cannot answer (E605, E608, E609, E610).
        """
        from .program import located_faults

        with located_faults(self.sources):
            params = self.weights_for(weights, seed)
            check_parameters(self.graph, params)
            seen = observe(self, data, params)
            graph = asked_graph(self, seen, ask)
            _check_values(self.graph.bind(seen.sizes), seen.arrays, params, seen.missing)
            return execute(graph, seen.arrays, params, seed, engine)

    def fit(
        self: Any, data: Data | Sequence[Data], weights: Any = None, seed: int = 0, *,
        iterations: int = 100, tol: float = 1e-4, floor: float = 0.0, fixed: Any = (),
        engine: str = "reference", progress: Callable[[int, float], None] | None = None,
    ) -> Fitted:  # fmt: skip
        """Parameters by EM, started at ``weights`` (or the spec's initialisers with ``seed``).

        Parameters
        ----------
        data
            Arrays by input name, nan where missing; or a list of such, one a sequence.
        iterations, tol
            Rounds at most, and the least gain of a round in nats.
        floor
            The least standard deviation (and root of a covariance's eigenvalue).
        fixed
            Paths that keep their values, or boolean masks by path.
        progress
            Called with the round and the objective before its M-step.

        Raises
        ------
        SpecError
            As :meth:`query`, and E612 for parameters without a closed form or that collapse.
        """
        from .fitting import Settings, fit

        how = Settings(iterations, tol, floor, fixed)
        return fit(self, data, weights, seed, how, engine, progress)

    def explain(self: Any, seed: int = 0) -> tuple[Derivation, Check]:
        """How inference sums out the latent variables, and its check by enumeration."""
        from .program import located_faults

        def weights(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
            return self.initial_weights(seed, sizes)

        with located_faults(self.sources):
            return explain(self.graph, weights, seed)

    def _answers(
        self: Any, arrays: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray],
        sizes: Mapping[str, int], seed: int, engine: str, precision: str | None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """The outputs of a model whose questions stand in its spec."""
        bound = self.graph.bind(sizes)
        check_parameters(bound, params)
        graph = expand(bound)
        _check_values(bound, arrays, params, ())
        return execute(graph, arrays, params, seed, engine, precision)


def execute(
    graph: Graph, arrays: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray],
    seed: int = 0, engine: str = "reference", precision: str | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The outputs of an expanded graph."""
    with np.errstate(all="ignore"):
        return interpret(graph, arrays, params, seed, precision=precision)


@dataclass(frozen=True)
class Observed:
    """Inputs as the model takes them, and the names of those that are missing in places."""

    arrays: Mapping[str, np.ndarray]
    missing: frozenset[str]
    sizes: Mapping[str, int]


def observe(program: Program, data: Data, params: Mapping[str, np.ndarray]) -> Observed:
    """Data with marks where values are missing; raises ``OpError`` E611 and E802."""
    drawn = {s.variable for s in statements_of(program.graph) if s.role == "input"}
    declared = program.declared()
    arrays: dict[str, np.ndarray] = {}
    missing = set()
    for name, value in data.items():
        array = np.asarray(value)
        if name in drawn and array.dtype.kind == "f" and np.any(np.isnan(array)):
            missing.add(name)
            if declared[name].dtype.kind in "iu":
                array = np.where(np.isnan(array), MISSING, array)
        if name in declared and array.dtype.kind == "f" and declared[name].dtype.kind in "iu":
            _require_whole(name, array)
            array = array.astype(declared[name].dtype)
        elif name in drawn and array.dtype.kind in "iu" and np.any(array == MISSING):
            missing.add(name)
        arrays[name] = check_input(name, array, declared[name]) if name in declared else array
    sizes = program.sizes_of(arrays, params)
    return Observed(arrays, frozenset(missing), sizes)


def _require_whole(name: str, array: np.ndarray) -> None:
    if np.any(array != np.floor(array)):
        spot = np.unravel_index(int(np.argmax(array != np.floor(array))), array.shape)
        raise OpError("E802", f"input `{name}` takes whole numbers",
                      f"it is {array[spot]:g} at {[int(k) for k in spot]}")  # fmt: skip


def asked_graph(program: Program, seen: Observed, ask: Sequence[str]) -> Graph:
    """The graph that answers the given questions and no others."""
    graph = program.graph.bind(seen.sizes)
    answers = Answers(graph, lambda value: constant_value(graph, value), seen.missing)
    outputs = []
    for text, kind, name in _questions(ask, [f.name for f in answers.structure.families]):
        outputs.append((text, _shaped(answers, kind, name, graph)))
    graph.outputs = outputs
    graph.prune()
    return graph


def _shaped(answers: Answers, kind: str, name: str, graph: Graph) -> Value:
    if kind == "loglik":
        return answers.loglik.value
    if kind == "logprior":
        return answers.log_prior.value
    if kind == "entropy":
        return answers.entropy.value
    if kind == "marginals":
        return answers.marginals(name).value
    if kind == "map":
        return answers.best(name).value
    return answers.sample(name, _key(graph), "query").value


def _key(graph: Graph) -> Value:
    for index in graph.inputs:
        if graph.node(index).name == "key":
            return Value(index)
    return graph.add_input("key", TensorType("u64", (2,)))


def _questions(ask: Sequence[str], families: Sequence[str]) -> list[tuple[str, str, str]]:
    """``(output's name, question, variable)`` for texts such as ``map`` and ``map(z)``."""
    found = []
    for text in ask:
        match = re.fullmatch(r"(\w+)(?:\((\w+)\))?", text.strip())
        if match is None or match[1] not in ASKS:
            raise OpError("E401", f"a model cannot be asked `{text}`", f"one of {', '.join(ASKS)}")
        kind, name = match[1], match[2]
        if kind in ("loglik", "logprior", "entropy"):
            found.append((kind, kind, ""))
            continue
        if name is not None and name not in families:
            known = ", ".join(families) or "none"
            raise OpError("E604", f"`{name}` is not a latent variable", f"there is {known}")
        found += [(f"{kind}({f})", kind, f) for f in ([name] if name else families)]
    return found


def observed_values(
    graph: Graph, arrays: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]
) -> Callable[[Statement], np.ndarray]:
    """What each statement of a graph observes, by statement."""
    twin = graph.copy()
    rows = [s for s in statements_of(twin) if s.role == "input" and s.point is not None]
    twin.outputs = [(str(s.node), s.point[0]) for s in rows if s.point is not None]
    twin.prune()
    with np.errstate(all="ignore"):
        values = interpret(twin, arrays, params)
    return lambda statement: values[str(statement.node)]


def _check_values(
    graph: Graph, arrays: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray],
    missing: Collection[str],
) -> None:  # fmt: skip
    check_observations(graph, observed_values(graph, arrays, params), missing)
