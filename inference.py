"""Questions to probabilistic models: what the public face asks of ``compiler.inference``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .compiler.inference.answers import Answers, answers_about
from .compiler.inference.approximate import METHODS, Approximation
from .compiler.inference.checks import all_finite, check_parameters, check_support
from .compiler.inference.compare import Side, divergence, outputs_of
from .compiler.inference.expand import expand
from .compiler.inference.explain import AS_IT_STANDS, Explanation, Model, explain
from .compiler.inference.learning import Finish, statistics
from .compiler.inference.observed import (
    nothing_seen,
    observed_names,
    predictive,
    replicate,
    require_apart,
)
from .compiler.inference.potentials import MISSING
from .compiler.inference.statements import statements_of
from .compiler.inference.structure import structure_of
from .compiler.interpret import Interpreter
from .compiler.ir.graph import Graph, Value
from .compiler.ir.types import TensorType
from .compiler.ops.base import OpError
from .execution import Execution, Kept
from .runtime.inputs import Declared, check_input

if TYPE_CHECKING:
    from .fitting import Fitted
    from .program import Program

__all__ = ["ASKS", "AS_IT_STANDS", "METHODS", "Approximation", "Explanation", "Questions"]

OF_MODEL = ("loglik", "logprior", "entropy", "statistics")
OF_LATENT = ("marginals", "map", "sample")
OF_OBSERVED = ("predictive", "replicate")
ASKS = (*OF_MODEL, *OF_LATENT, *OF_OBSERVED)
"""What a model can be asked: as a whole, about a latent variable, about an observed one."""

Data = Mapping[str, Any]
STEADY = ("loglik", "logprior", "entropy", *OF_LATENT)
"""Questions whose graphs depend on the sizes of data alone."""

SAMPLE = "query"
"""The path of the random numbers of posterior samples."""


class Questions:
    """What a program with a probabilistic model can be asked."""

    def query(
        self: Any, data: Any, ask: Sequence[str] = ("loglik", "marginals", "map"),
        weights: Any = None, seed: int = 0, engine: str = "auto",
    ) -> Any:  # fmt: skip
        """Answers of a probabilistic model, by question.

        Parameters
        ----------
        data
            Arrays by input name; nan marks observations that are missing. Values of latent
            variables may be given by their names too, nan where they are not known. A list of
            such dictionaries, one a sequence, gives a list of answers.
        ask
            ``loglik``, ``logprior``, ``entropy`` (nats), ``statistics``; ``loglik(n)``, by the
            index of a plate that the whole model has; ``marginals``, ``map`` and
            ``sample`` of all latent variables, or of one: ``map(z)``; ``predictive`` and
            ``replicate`` of all observed ones, or of one: ``predictive(y)``.
        weights
            A file, or arrays by path; the spec's initialisers with ``seed`` without it.
        engine
            ``reference`` is numpy, ``cpu`` is compiled, ``auto`` compiles where that pays. All
            compute in the model's own types (float64 unless the spec says otherwise).

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
            asker = _Asker(self, params, ask, seed, engine)
            if isinstance(data, Mapping):
                return asker.answer(observe(self, data, params), 0)
            return [asker.answer(observe(self, row, params), k) for k, row in enumerate(data)]

    def simulate(
        self: Any, sizes: Mapping[str, int] | None = None, weights: Any = None, seed: int = 0, *,
        given: Data | None = None, engine: str = "auto",
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """A joint draw of all latent and observed variables, by name.

        Parameters
        ----------
        sizes
            Open sizes, ``{"T": 100}``.
        weights, seed
            As for :meth:`query`; ``seed`` is that of the draw too.
        given
            Inputs that the model does not draw, by name.

        Raises
        ------
        SpecError
            E805 for sizes that are open, E804 for observations that depend on others, and as
            :meth:`query`.
        """
        from .program import located_faults

        with located_faults(self.sources):
            params = self.weights_for(weights, seed)
            check_parameters(self.graph, params)
            seen = _nothing(self, dict(given or {}), dict(sizes or {}), params)
            ask = ("sample", "replicate")
            found = _Asker(self, params, ask, seed, engine).answer(seen, 0)
            return {name.partition("(")[2].rstrip(")"): array for name, array in found.items()}

    def kl(
        self: Any, weights: Any, against: Any, data: Any = None, *, other: Program | None = None,
        sizes: Mapping[str, int] | None = None, engine: str = "auto",
    ) -> float:  # fmt: skip
        """KL(P || Q) in nats, of this model with ``weights`` and with ``against``.

        With ``data`` (arrays by input name, or a list of such) it is the divergence of the
        posteriors of the latent variables; without, of the joint distribution of all variables,
        latent and observed, at the given ``sizes``.

        Parameters
        ----------
        other
            Another model of the same variables, which ``against`` belongs to.

        Raises
        ------
        SpecError
            E613 where the models join their variables differently, E601 where two distributions
            of an observed variable have no closed form, and as :meth:`query`.
        """
        from .program import located_faults

        theirs = other or self
        total = 0.0
        with located_faults({**self.sources, **theirs.sources}):
            params = [p.weights_for(w) for p, w in ((self, weights), (theirs, against))]
            rows = [data] if data is None or isinstance(data, Mapping) else list(data)
            for row in rows:
                sides = [
                    _side(program, row, given, sizes or {}, k == 0, engine)
                    for k, (program, given) in enumerate(zip((self, theirs), params, strict=True))
                ]
                total += divergence(sides[0], sides[1], data is None)
        return total

    def fit(
        self: Any, data: Data | Sequence[Data], weights: Any = None, seed: int = 0, *,
        iterations: int = 100, tol: float = 1e-4, floor: float = 0.0, fixed: Any = (),
        engine: str = "auto", progress: Callable[[int, float], None] | None = None,
    ) -> Fitted:  # fmt: skip
        """Parameters by EM, started at ``weights`` (or the spec's initialisers with ``seed``).

        Parameters
        ----------
        data
            Arrays by input name, nan where missing, and of latent variables whose values are
            known; or a list of such, one a sequence.
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

    def explain(self: Any, seed: int = 0, methods: Sequence[str] = ()) -> Explanation:
        """How the model is answered: exactly, with its check by enumeration, and approximately.

        Parameters
        ----------
        methods
            Some of ``meanfield``, ``bp``, ``gibbs``: explained beside those that the spec asks.
        """
        from .program import located_faults

        def remake(options: Mapping[str, int]) -> tuple[Graph, Any]:
            other = self.with_options(options)
            return other.graph, lambda sizes: other.initial_weights(seed, sizes)

        def weights(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
            return self.initial_weights(seed, sizes)

        with located_faults(self.sources):
            model = Model(self.graph, weights, self.whole_options(), remake)
            return explain(model, seed, methods)

    def _answers(
        self: Any, arrays: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray],
        sizes: Mapping[str, int], seed: int, engine: str, precision: str | None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """The outputs of a model whose questions stand in its spec."""
        bound = self.graph.bind(sizes)
        check_parameters(bound, params)
        if engine == "cpu":
            from .compiled import CompiledProgram

            Values(bound).check(arrays, params, ())
            module = CompiledProgram(self, params).module(sizes)
            if any(port.name == "key" for port in module.plan.inputs):
                arrays = {"key": np.array([seed, 0], np.uint64), **arrays}
            return _numbers(bound, module.run(arrays))
        graph = expand(bound)
        self.require_memory(graph, {}, precision)
        Values(bound).check(arrays, params, ())
        return _numbers(bound, Execution(graph, engine, precision).run(arrays, params, seed))


def _numbers(graph: Graph, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same outputs; E614 where an approximation met a factor that forbids values."""
    for name, value in graph.outputs:
        node = graph.node(value.node)
        if node.op == "query" and node.attrs["ask"] in METHODS and np.any(np.isnan(found[name])):
            raise OpError(
                "E614", f"`{node.name}` is not a number",
                "sum out exactly or by `bp`, which take such factors, or give a large penalty",
                node.span, "a factor forbids values, its log is -inf, or an input is nan",
            )  # fmt: skip
    return found


@dataclass(frozen=True)
class Observed:
    """Inputs as the model takes them, and the names of those that are missing in places.

    ``known`` are latent variables whose values are among the arrays.
    """

    arrays: Mapping[str, np.ndarray]
    missing: frozenset[str]
    sizes: Mapping[str, int]
    known: frozenset[str] = frozenset()


def observe(program: Program, data: Data, params: Mapping[str, np.ndarray]) -> Observed:
    """Data with marks where values are missing; raises ``OpError`` E611 and E802."""
    drawn = {s.variable for s in statements_of(program.graph) if s.role == "input"}
    declared = program.declared()
    arrays: dict[str, np.ndarray] = {}
    missing = set()
    known = _known(program, {n: a for n, a in data.items() if n not in declared})
    for name, value in data.items():
        if name in known:
            continue
        array = np.asarray(value)
        if name in drawn and array.dtype.kind == "f" and not all_finite(array) and (
            np.any(np.isnan(array))
        ):  # fmt: skip
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
    for name, array in known.items():
        row = latent_variables(program, sizes)[name]
        check_input(name, array, row)
    return Observed({**arrays, **known}, frozenset(missing), sizes, frozenset(known))


def latent_variables(
    program: Program, sizes: Mapping[str, int] | None = None
) -> dict[str, Declared]:
    """What each latent variable is when its values are given."""
    graph = program.graph.bind(sizes or {})
    structure = structure_of(statements_of(graph))
    lead = (structure.sizes[structure.batch],) if structure.batch else ()
    return {
        f.name: Declared(
            np.dtype(np.int32),
            tuple(d if isinstance(d, int) else str(d) for d in (*lead, *f.extent)),
        )
        for f in structure.families
    }


def _known(program: Program, data: Data) -> dict[str, np.ndarray]:
    """Given values of latent variables; nan is missing. E611 for one that there is not."""
    if not data or not program.graph.of_op("site"):
        return {}
    families = {f.name: f for f in structure_of(statements_of(program.graph)).families}
    found = {}
    for name, value in data.items():
        if name not in families:
            continue
        array, size = np.asarray(value), families[name].size
        if array.dtype.kind == "f":
            array = np.where(np.isnan(array), MISSING, array)
            _require_whole(name, array)
        array = array.astype(np.int32)
        top = size if isinstance(size, int) else np.inf
        bad = (array != MISSING) & ((array < 0) | (array >= top))
        if np.any(bad):
            spot = tuple(int(k) for k in np.unravel_index(int(np.argmax(bad)), array.shape))
            at = f"[{', '.join(map(str, spot))}]" if spot else ""
            raise OpError("E611", f"`{name}` has a value that it cannot take", None,
                          families[name].span, f"{name}{at} is {array[spot]}; it takes 0 to"
                          f" {size - 1}")  # fmt: skip
        found[name] = array
    return found


def _require_whole(name: str, array: np.ndarray) -> None:
    if np.any(array != np.floor(array)):
        spot = np.unravel_index(int(np.argmax(array != np.floor(array))), array.shape)
        raise OpError("E802", f"input `{name}` takes whole numbers",
                      f"it is {array[spot]:g} at {[int(k) for k in spot]}")  # fmt: skip


class _Asker:
    """Asks the same of several sequences; graphs of one shape are made once."""

    def __init__(self, program: Program, params: Mapping[str, np.ndarray], ask: Sequence[str],
                 seed: int, engine: str) -> None:  # fmt: skip
        self.program, self.params, self.ask = program, params, ask
        self.seed, self.engine = seed, engine
        # What other questions need may depend on the data themselves.
        steady = all(text.partition("(")[0].strip() in STEADY for text in ask)
        self._kept: Kept = program.asked if steady else Kept()

    def answer(self, seen: Observed, number: int) -> dict[str, np.ndarray]:
        """Answers about one sequence, in the order of the questions."""
        sizes = tuple(sorted(seen.sizes.items()))
        key = (sizes, seen.missing, seen.known, tuple(self.ask), self.engine)
        kept = self._kept.get(key)
        if kept is None:
            graph, rows = asked_graph(self.program, seen, self.ask)
            values = Values(self.program.graph.bind(seen.sizes))
            kept = self._kept.put(key, (Execution(graph, self.engine), rows, values))
        execution, rows, values = kept
        values.check(seen.arrays, self.params, seen.missing)
        arrays = dict(seen.arrays)
        if any(execution.graph.node(i).name == "key" for i in execution.graph.inputs):
            arrays.setdefault("key", np.array([self.seed, number], np.uint64))
        found = execution.run(arrays, self.params, self.seed)
        result: dict[str, np.ndarray] = {}
        for _, finish in rows:
            result |= finish({**arrays, **found})
        return result


def _side(program: Program, data: Data | None, params: Mapping[str, np.ndarray],
          sizes: Mapping[str, int], first: bool, engine: str) -> Side:  # fmt: skip
    """One of two models that are compared; without data nothing is observed."""
    check_parameters(program.graph, params)
    unseen = data is None
    seen = _nothing(program, {}, sizes, params) if unseen else observe(program, data, params)
    graph = program.graph.bind(seen.sizes)
    answers = answers_about(graph, seen.missing, seen.known)
    if unseen:
        require_apart(answers, observed_names(answers))
    else:
        Values(graph.copy()).check(seen.arrays, params, seen.missing)
    graph.outputs = outputs_of(answers, first)
    graph.prune()
    return Side(answers.statements, Execution(graph, engine).run(seen.arrays, params))


def _nothing(program: Program, given: Data, sizes: Mapping[str, int],
             params: Mapping[str, np.ndarray]) -> Observed:  # fmt: skip
    """Data in which nothing that the model draws was observed."""
    drawn = {s.variable for s in statements_of(program.graph) if s.role == "input"}
    declared = program.declared()
    arrays = {
        name: check_input(name, np.asarray(value), declared[name])
        for name, value in given.items()
        if name in declared
    }
    for name in given:
        if name in drawn or name not in declared:
            others = ", ".join(n for n in declared if n not in drawn and n != "key") or "none"
            raise OpError("E802", f"`{name}` is no input that is given", f"there is {others}")
    known = dict(sizes)
    for name, array in arrays.items():
        pairs = zip(declared[name].shape, array.shape, strict=True)
        known |= {size: n for size, n in pairs if isinstance(size, str) and size.isidentifier()}
    program.require_sizes(known)
    for name, row in program.declared(known).items():
        if name in drawn:
            shape: Any = row.shape
            arrays[name] = nothing_seen(row.dtype, shape, name, MISSING)
    return Observed(arrays, frozenset(drawn), program.sizes_of(arrays, params))


def asked_graph(
    program: Program, seen: Observed, ask: Sequence[str]
) -> tuple[Graph, list[tuple[str, Finish]]]:
    """The graph that answers the given questions and no others, and what makes answers of it."""
    graph = program.graph.bind(seen.sizes)
    answers = answers_about(graph, seen.missing, seen.known)
    latent = [f.name for f in answers.structure.families]
    outputs: list[tuple[str, Value]] = []
    rows = []
    for text, kind, name in _questions(ask, latent, observed_names(answers)):
        made, finish = _asked(answers, kind, name, graph, seen)
        if finish is None:
            made, finish = [(text, made[0][1])], _as_it_is(text)
        outputs += made
        rows.append((text, finish))
    graph.outputs = list(dict(outputs).items())
    graph.prune()
    return graph, rows


def _as_it_is(name: str) -> Finish:
    return lambda found: {name: found[name]}


def _asked(
    answers: Answers, kind: str, name: str, graph: Graph, seen: Observed
) -> tuple[list[tuple[str, Value]], Finish | None]:
    """What a graph must put out for one question, and how that becomes the answer."""
    if kind == "statistics":
        return statistics(answers)
    if kind == "predictive":
        return predictive(answers, name, seen.arrays)
    if kind == "replicate":
        if name in seen.missing:
            require_apart(answers, [name])
        return replicate(answers, name, seen.arrays, _key(graph), SAMPLE)
    if kind == "loglik" and name:
        table = answers.loglik_along(name)
    elif kind in OF_MODEL:
        table = {"loglik": lambda: answers.loglik, "logprior": lambda: answers.log_prior,
                 "entropy": lambda: answers.entropy}[kind]()  # fmt: skip
    elif kind == "marginals":
        table = answers.marginals(name)
    elif kind == "map":
        table = answers.best(name)
    else:
        table = answers.sample(name, _key(graph), SAMPLE)
    return [("it", table.value)], None


def _key(graph: Graph) -> Value:
    for index in graph.inputs:
        if graph.node(index).name == "key":
            return Value(index)
    return graph.add_input("key", TensorType("u64", (2,)))


def _questions(
    ask: Sequence[str], latent: Sequence[str], seen: Sequence[str]
) -> list[tuple[str, str, str]]:
    """``(output's name, question, variable)`` for texts such as ``map`` and ``map(z)``."""
    found = []
    for text in ask:
        match = re.fullmatch(r"(\w+)(?:\((\w+)\))?", text.strip())
        if match is None or match[1] not in ASKS:
            raise OpError("E401", f"a model cannot be asked `{text}`", f"one of {', '.join(ASKS)}")
        kind, name = match[1], match[2]
        if kind in OF_MODEL and (name is None or kind == "loglik"):
            found.append((text.strip(), kind, name or ""))
            continue
        if kind in OF_MODEL:
            raise OpError("E401", f"`{kind}` is about the whole model", f"ask `{kind}`")
        variables, what = (latent, "a latent") if kind in OF_LATENT else (seen, "an observed")
        if name is not None and name not in variables:
            known = ", ".join(variables) or "none"
            raise OpError("E604", f"`{name}` is not {what} variable", f"there is {known}")
        found += [(f"{kind}({f})", kind, f) for f in ([name] if name else variables)]
    return found


class Values:
    """What the statements of a graph with known sizes observe."""

    def __init__(self, graph: Graph) -> None:
        twin = graph.copy()
        self._rows = [s for s in statements_of(twin) if s.role == "input" and s.point is not None]
        twin.outputs = [(str(s.node), s.point[0]) for s in self._rows if s.point is not None]
        twin.inputs = []
        twin.prune()
        twin.inputs = [index for index, _ in twin.of_op("input")]
        self._values = Interpreter(twin)

    def check(self, arrays: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray],
              missing: Collection[str]) -> None:  # fmt: skip
        """Raises ``OpError`` E611 for an observation outside its distribution's support."""
        with np.errstate(all="ignore"):
            values = self._values.look(arrays, params)
        for statement in self._rows:
            check_support(statement, values[str(statement.node)], statement.variable in missing)
