"""What inference does with a model, in words and formulas, and a proof on a small instance."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..interpret import interpret
from ..ir.dims import DimLike, evaluate, symbols_of
from ..ir.graph import Graph
from ..ops.base import OpError
from .answers import Part, answers_about
from .eliminate import Step
from .enumeration import MOST, assignments, enumerate_model
from .statements import BATCH, Statement, statements_of
from .structure import structure_of, support_name

Smaller = tuple[Graph, Any, str]
"""A model with small options: its graph, its weights by sizes, and what the options are."""

SMALL = {BATCH: 2}
"""Sizes of the instance that is checked; every other open size is 3."""


@dataclass(frozen=True)
class Derivation:
    """How a model's latent variables are summed out.

    ``variables`` say what each is, ``steps`` are sentences with formulas, ``cost`` counts
    operations of one log-likelihood and ``memory`` bytes of its largest table. ``instance`` are the
    sizes it was made at, where those of the model itself are too large or open.
    """

    variables: tuple[str, ...]
    steps: tuple[str, ...]
    result: str
    cost: DimLike
    memory: DimLike
    instance: str = ""


@dataclass(frozen=True)
class Check:
    """Inference against trying every assignment; ``worst`` is the largest difference."""

    instance: str
    assignments: int
    worst: float | None
    reason: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the answers are the same up to rounding."""
        return self.worst is not None and self.worst < 1e-8


def derivation(graph: Graph) -> Derivation:
    """The plan of a model, whose sizes may be open; raises ``ModelFault``."""
    twin = graph.copy()
    answers = answers_about(twin)
    variables, steps = [], []
    cost: DimLike = 0
    elements: list[DimLike] = []
    done = answers.eliminations("lse")
    for part, elimination in zip(answers.parts, done, strict=True):
        variables += [_described(part, f) for f in part.component.families]
        for step in elimination.steps:
            steps.append(f"{len(steps) + 1}. {_sentence(step, part)}")
            cost = cost + step.cost
            elements.append(step.elements)
    apart = [s.formula for s in answers.structure.apart if s.role != "param"]
    result = " * ".join([e.steps[-1].made if e.steps else "1" for e in done] + apart) or "1"
    # Open sizes are compared as if they were large.
    memory = max(elements, key=lambda n: n if isinstance(n, int) else _at(n, 1000), default=0) * 8
    return Derivation(tuple(variables), tuple(steps), f"Z = {result}", cost, memory)


def _at(size: DimLike, number: int) -> int:
    return evaluate(size, dict.fromkeys(symbols_of(size), number))


def _described(part: Part, family: Any) -> str:
    shape = f"[{', '.join(map(str, family.extent))}]" if family.extent else ""
    how = "one by one"
    if part.component.irregular:
        how = f"element by element: {part.component.irregular}"
    elif part.component.chain in family.axes:
        how = f"along the chain `{part.component.chain}`"
    elif family.axes:
        how = f"for each {', '.join(family.axes)} at once"
    return f"{family.name}{shape}, {family.size} values, {how}"


def _sentence(step: Step, part: Part) -> str:
    emit = "sum" if step.kind == "sum out" else ""
    if step.kind == "multiply":
        over = ", ".join(step.names)
        return f"multiply over {over}: {step.made} = prod_{{{over}}} {step.reads[0][0]}"
    if step.kind == "sum out":
        product = " * ".join(step.reads[0]) or "1"
        return f"sum out {step.names[0]}: {step.made} = {emit}_{{{step.names[0]}}} {product}"
    start, edge, node = step.reads
    chain = part.component.chain
    state = ", ".join(step.names)
    before = ", ".join(f"{name}'" for name in step.names)
    at_first = [re.sub(rf"\b{re.escape(str(chain))}\b", "0", label) for label in node]
    first = " * ".join([*start, *at_first]) or "1"
    later = " * ".join(node)
    return (
        f"sum out {state} along {chain}, from the first to the last:\n"
        f"     a_0({state}) = {first}\n"
        f"     a_{chain}({state}) = {later + ' * ' if later else ''}"
        f"sum_{{{before}}} a_{{{chain}-1}}({before}) * {' * '.join(edge) or '1'}\n"
        f"     {step.made} = sum_{{{state}}} a_last({state})"
    )


# ---------------------------------------------------------------- the check


def self_check(graph: Graph, weights: Any, seed: int = 0, size: int = 3, at: str = "") -> Check:
    """Compare with enumeration on a small instance with random data.

    ``weights(sizes)`` gives weights by path for known sizes; ``at`` says how the model was made
    smaller.
    """
    sizes = _small(graph, size)
    shown = _said(sizes, at) or "as it stands"
    bound = graph.bind(sizes)
    count = assignments(structure_of(statements_of(bound)))
    if count > MOST:
        return Check(shown, count, None, f"more than {MOST:,} assignments to try")
    params = weights(sizes)
    inputs = random_data(bound, seed)
    answers = answers_about(bound)
    outputs = [("loglik", answers.loglik.value), ("entropy", answers.entropy.value)]
    for family in answers.structure.families:
        outputs.append((f"marginals {family.name}", answers.marginals(family.name).value))
    bound.outputs = outputs
    bound.prune()
    truth = enumerate_model(graph, inputs, params)
    with np.errstate(all="ignore"):
        found = interpret(bound, inputs, params)
    gaps = [_gap(found["loglik"], truth.loglik), _gap(found["entropy"], np.sum(truth.entropy))]
    for name, marginals in truth.marginals.items():
        gaps.append(_gap(found[f"marginals {name}"], marginals))
    return Check(shown, count, max(gaps))


def _small(graph: Graph, size: int) -> dict[str, int]:
    return {name: SMALL.get(name, size) for name in sorted(graph.symbols)}


def _said(sizes: Mapping[str, int], at: str) -> str:
    return ", ".join([*([at] if at else []), *(f"{name}={n}" for name, n in sizes.items())])


def _gap(found: np.ndarray, truth: Any) -> float:
    truth = np.asarray(truth)
    return float(np.max(np.abs(found.reshape(truth.shape) - truth), initial=0.0))


def random_data(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """Inputs that the statements of a graph with known sizes could have drawn."""
    rng = np.random.default_rng(seed)
    observed = {s.variable: s for s in statements_of(graph) if s.role == "input"}
    found = {}
    for index in graph.inputs:
        node = graph.node(index)
        shape: Any = node.type.shape
        found[node.name] = _values(observed.get(node.name), rng, shape, node.type.is_float)
    return found


def _values(
    statement: Statement | None, rng: np.random.Generator, shape: Sequence[int], real: bool
) -> np.ndarray:
    if statement is None:
        return rng.normal(size=shape) if real else rng.integers(0, 2, shape)
    takes = support_name(statement.dist)
    if statement.dist == "dirichlet":
        return rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    if statement.dist == "multinomial":
        return rng.integers(0, 3, shape)
    if statement.dist == "categorical":
        top: Mapping[str, Any] | Any = statement.support
        return rng.integers(0, top if isinstance(top, int) else 2, shape)
    if takes == "numbers above 0":
        return rng.gamma(2.0, size=shape)
    if takes == "numbers from 0 to 1":
        return rng.uniform(0.05, 0.95, shape)
    if real and takes in ("real numbers", "vectors"):
        return rng.normal(size=shape)
    return rng.integers(0, 2, shape)


def explain(
    graph: Graph, weights: Any, seed: int = 0, smaller: Callable[[], Smaller] | None = None
) -> tuple[Derivation, Check]:
    """The derivation and its check; a check that cannot be made says why.

    ``smaller`` makes the model with small options, for one that is too large as it stands.
    """
    try:
        plan = derivation(graph)
    except OpError as fault:
        if smaller is None or fault.code not in ("E610", "E805"):
            raise
        return _of_smaller(smaller(), seed)
    try:
        check = self_check(graph, weights, seed)
    except OpError as fault:
        return plan, Check("", 0, None, fault.message)
    if check.worst is None and smaller is not None:
        return plan, _of_smaller(smaller(), seed)[1]
    return plan, check


def _of_smaller(small: Smaller, seed: int) -> tuple[Derivation, Check]:
    """The derivation and check of a small instance; of two sizes the one that can be had."""
    graph, weights, at = small
    for size in (3, 2):
        sizes = _small(graph, size)
        try:
            plan = replace(derivation(graph.bind(sizes)), instance=_said(sizes, at))
            check = self_check(graph, weights, seed, size, at)
        except OpError:
            if size == 2:
                raise
            continue
        if check.worst is not None or size == 2:
            return plan, check
    raise AssertionError("unreachable")
