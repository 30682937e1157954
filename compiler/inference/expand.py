"""The pass that answers: questions in a graph become tensor ops, and the statements go.

query(site, site, site) {ask="marginals"}   ->   log, log_densities, chain, ...
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..ir.graph import Graph, Value
from ..ops.random import KEY_TYPE
from .answers import Answers, constant_value
from .beliefs import belief_propagation
from .filters import EXACT_POINTS, Filters, expand_sums
from .gibbs import gibbs
from .meanfield import FiltersFor, meanfield
from .tables import Emitter


def expand(graph: Graph, missing: Collection[str] = (), engine: str = "") -> Graph:
    """A copy of the graph in which every query is answered by tensor ops.

    Parameters
    ----------
    missing
        Inputs some of whose values are not there: nan, or ``potentials.MISSING``.
    engine
        ``exact`` or ``lattice``: how kernels are filtered where the model does not say.

    Raises
    ------
    ModelFault
        For a model that exact inference cannot answer; it carries the place.
    """
    twin = graph.copy()
    queries = twin.of_op("query")
    if not twin.of_op("site", "factor"):
        return twin
    constant = partial(constant_value, twin)
    filters_for = _filters(twin, constant, queries, engine)
    if any(node.attrs["ask"] == "meanfield" for _, node in queries):
        expand_sums(twin, filters_for)
    answers = Answers(twin, constant, missing)
    statements = {s.node for s in answers.statements}
    reports = []
    for index, node in queries:
        if node.attrs["ask"] == "bp":
            answer, change = _beliefs(answers, node)
            reports.append((f"change of {node.name}", change))
        else:
            answer = _answer(twin, index, answers, filters_for)
        made = answers.emitter.reshape(answer, node.type.shape)
        if twin.type_of(made).dtype != node.type.dtype:
            made = answers.emitter.emit("cast", [made], dtype=node.type.dtype)
        twin.replace_uses(Value(index), made)
    twin.outputs = [(name, v) for name, v in twin.outputs if v.node not in statements]
    twin.outputs += reports
    twin.prune()
    return twin


def _answer(graph: Graph, index: int, answers: Answers, filters_for: FiltersFor) -> Value:
    node = graph.node(index)
    ask, name = str(node.attrs["ask"]), str(node.attrs["variable"])
    answers.emitter.span, answers.emitter.label = node.span, node.name
    if ask == "meanfield":
        settings: Any = node.attrs["settings"]
        return meanfield(answers, name, dict(settings), filters_for)
    if ask == "gibbs":
        settings = node.attrs["settings"]
        return gibbs(answers, name, dict(settings), node.span, _key(graph))
    if ask == "loglik":
        return answers.loglik.value
    if ask == "marginals":
        return answers.marginals(name).value
    if ask == "map":
        return answers.best(name).value
    assert ask == "logp"
    label = graph.operands(index)[-1]
    given = Answers(graph, answers.constant, answers.missing, {name: label})
    parts = [given.loglik.value, answers.loglik.value]
    return answers.emitter.emit("sub", parts)


def _beliefs(answers: Answers, node: Any) -> tuple[Value, Value]:
    answers.emitter.span, answers.emitter.label = node.span, node.name
    return belief_propagation(answers, str(node.attrs["variable"]), dict(node.attrs["settings"]))


def _key(graph: Graph) -> Value:
    """The input that random draws are made from."""
    found = [index for index in graph.inputs if graph.node(index).name == "key"]
    return Value(found[0]) if found else graph.add_input("key", KEY_TYPE)


def _filters(
    graph: Graph, constant: Callable[[Value], np.ndarray | None], queries: Sequence[Any],
    wanted: str,
) -> FiltersFor:  # fmt: skip
    """Filters by batch and number of points; all that a model asks go by one engine."""
    chosen = [v for _, node in queries for n, v in node.attrs["settings"] if n == "filter"]
    made: dict[Any, Filters] = {}

    def filters_for(batch: tuple[Any, ...], points: Any) -> Filters:
        # Where the number of points is open, all pairs are right whatever it turns out to be.
        large = isinstance(points, int) and points > EXACT_POINTS
        by_size = "lattice" if large else "exact"
        engine = chosen[0] if chosen else wanted or by_size
        dtype = "f32" if all(node.attrs["dtype"] == "f32" for _, node in queries) else "f64"
        if (batch, engine) not in made:
            made[batch, engine] = Filters(Emitter(graph, {}), constant, engine, dtype, batch)
        return made[batch, engine]

    return filters_for
