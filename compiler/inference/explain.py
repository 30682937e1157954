"""What inference does with a model, in words and formulas, and a proof on a small instance."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np

from ..interpret import interpret
from ..ir.dims import DimLike, evaluate, symbols_of
from ..ir.graph import Graph
from ..ops.base import OpError
from .answers import Part, answers_about
from .approximate import Approximation, Asked, Finding, approximation, asked_of
from .eliminate import Step
from .enumeration import MOST, assignments, enumerate_model
from .proofs import MOST_STATES
from .statements import BATCH, Statement, statements_of
from .structure import structure_of, support_name
from .trials import Trial

AS_IT_STANDS = "as it stands"
"""The instance that is the model itself."""

MOST_UPDATES = 1 << 15
"""Assignments over which updates are summed."""

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


@dataclass(frozen=True)
class Model:
    """A model as it is explained, and how to make it with other whole-number options.

    ``weights(sizes)`` gives weights by path; ``options`` are those that may be made smaller.
    """

    graph: Graph
    weights: Callable[[Mapping[str, int]], Mapping[str, np.ndarray]]
    options: Mapping[str, int]
    remake: Callable[[Mapping[str, int]], tuple[Graph, Any]]

    def at(self, size: int, most: int | None = None, one: str = "") -> Instance:
        """The model with open sizes of ``size`` and options of at most ``most``.

        ``one`` is an option or an open size that is 1.
        """
        graph, weights, said = self.graph, self.weights, []
        options = {n: v if most is None else min(v, most) for n, v in self.options.items()}
        options |= {one: 1} if one in options else {}
        changed = {n: v for n, v in options.items() if v != self.options[n]}
        if changed:
            graph, weights = self.remake(options)
            said = [f"{name}={value}" for name, value in changed.items()]
        sizes = {name: SMALL.get(name, size) for name in sorted(graph.symbols)}
        sizes |= {one: 1} if one in sizes else {}
        said += [f"{name}={number}" for name, number in sizes.items()]
        bound = graph.bind(sizes)
        return Instance(graph, bound, _lively(bound, weights(sizes)), ", ".join(said))

    def instances(self) -> Iterator[Instance]:
        """The model itself at small sizes, then with small options."""
        for size, most in ((3, None), (3, 3), (2, 3), (2, 2)):
            yield self.at(size, most)

    def thin_instances(self) -> Iterator[Instance]:
        """Small instances of which one extent is 1: grids that are chains."""
        for size in (3, 2):
            for name in (*self.options, *sorted(self.graph.symbols - {BATCH})):
                yield self.at(size, size, name)


@dataclass(frozen=True)
class Instance:
    """A small instance: its graph with sizes open and known, weights, and what the sizes are."""

    graph: Graph
    bound: Graph
    params: Mapping[str, np.ndarray]
    said: str

    @property
    def assignments(self) -> int:
        """How many joint assignments there are."""
        return assignments(structure_of(statements_of(self.bound)))


def self_check(instance: Instance, seed: int = 0) -> Check:
    """Compare with enumeration on a small instance with random data."""
    shown = instance.said or AS_IT_STANDS
    count = instance.assignments
    if count > MOST:
        return Check(shown, count, None, f"more than {MOST:,} assignments to try")
    bound, params = instance.bound.copy(), instance.params
    inputs = random_data(bound, seed)
    answers = answers_about(bound)
    outputs = [("loglik", answers.loglik.value), ("entropy", answers.entropy.value)]
    for family in answers.structure.families:
        outputs.append((f"marginals {family.name}", answers.marginals(family.name).value))
    bound.outputs = outputs
    bound.prune()
    truth = enumerate_model(instance.bound, inputs, params)
    with np.errstate(all="ignore"):
        found = interpret(bound, inputs, params)
    gaps = [_gap(found["loglik"], truth.loglik), _gap(found["entropy"], np.sum(truth.entropy))]
    for name, marginals in truth.marginals.items():
        gaps.append(_gap(found[f"marginals {name}"], marginals))
    return Check(shown, count, max(gaps))


def _lively(graph: Graph, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights of which none is all zeros: a factor that says nothing proves nothing."""
    found = dict(params)
    for _, node in graph.of_op("param"):
        path = str(node.attrs["path"])
        if path in found and not np.any(found[path]) and found[path].ndim:
            rng = np.random.default_rng(crc32(path.encode()))
            drawn = rng.normal(size=found[path].shape)
            if node.attrs["domain"] == "symmetric":
                drawn = (drawn + np.swapaxes(drawn, -1, -2)) / 2
            found[path] = drawn.astype(found[path].dtype)
    return found


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


# ---------------------------------------------------------------- all of it


@dataclass(frozen=True)
class Explanation:
    """How a model is answered exactly, the check of that, and its approximations."""

    plan: Derivation
    check: Check
    approximations: tuple[Approximation, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing disagrees with enumeration or with what theory says."""
        exact = self.check.worst is None or self.check.agrees
        return exact and all(a.agrees for a in self.approximations)


def explain(model: Model, seed: int = 0, methods: Sequence[str] = ()) -> Explanation:
    """The derivation, its check, and approximations; a check that cannot be made says why.

    ``methods`` are approximations that are explained beside those that the model asks for.
    """
    plan, check = _exact(model, seed)
    asked = asked_of(model.graph, methods)
    return Explanation(plan, check, tuple(_approximated(model, row, seed) for row in asked))


def _exact(model: Model, seed: int) -> tuple[Derivation, Check]:
    """The derivation and its check, of a small instance where the model is too large."""
    try:
        plan = derivation(model.graph)
    except OpError as fault:
        if fault.code not in ("E610", "E805") or not (model.options or model.graph.symbols):
            raise
        plan = None
    check = Check("", 0, None)
    last: OpError | None = None
    for instance in model.instances():
        try:
            check = self_check(instance, seed)
            own = plan or replace(derivation(instance.bound), instance=instance.said)
        except OpError as fault:
            last = fault
            continue
        if check.worst is not None:
            return own, check
    if plan is None:
        assert last is not None
        raise last
    return plan, replace(check, reason=check.reason or (last.message if last else ""))


def _approximated(model: Model, asked: Asked, seed: int) -> Approximation:
    """The formulas of an approximation and what was found on a small instance."""
    found: Approximation | None = None
    try:
        found = approximation(model.graph, asked)
    except OpError as fault:
        if fault.code not in ("E610", "E805"):
            raise
        reason = fault.message
    for instance in model.instances():
        here = _same(instance.graph, asked)
        if instance.assignments > (MOST_STATES if asked.method == "gibbs" else MOST_UPDATES):
            reason = f"{instance.assignments:,} assignments are too many to try"
            continue
        try:
            data = random_data(instance.bound, seed)
            trial = Trial(instance.bound, data, instance.params, here, seed)
            findings = trial.findings()
            if found is None:
                own = approximation(instance.bound, here)
                found = replace(own, asked=asked, instance=instance.said)
        except OpError as fault:
            reason = fault.message
            continue
        if asked.method == "bp":
            findings += _on_a_tree(model, trial, asked, seed)
        return replace(found, checked_at=instance.said or AS_IT_STANDS, findings=findings)
    if found is None:
        raise OpError("E610", f"`{asked.text}` cannot be explained", reason)
    return replace(found, reason=reason)


def _same(graph: Graph, asked: Asked) -> Asked:
    """The question as it stands in a smaller instance, where options may be settings."""
    for row in asked_of(graph):
        if (row.method, row.variable) == (asked.method, asked.variable):
            return row
    return asked


def _on_a_tree(model: Model, trial: Trial, asked: Asked, seed: int) -> tuple[Finding, ...]:
    """The trial itself where it is a tree, else the first small instance that is one."""
    if trial.is_tree:
        return (trial.on_a_tree(),)
    for instance in model.thin_instances():
        if instance.assignments > MOST_UPDATES:
            continue
        data = random_data(instance.bound, seed)
        thin = Trial(instance.bound, data, instance.params, asked, seed)
        if thin.is_tree and any(len(f.elements) > 1 for f in thin.ground.factors):
            row = thin.on_a_tree()
            return (replace(row, what=f"{row.what}, at {instance.said}"),)
    return ()
