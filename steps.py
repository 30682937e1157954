"""Compiled training steps: a program's training graph made into code for the shapes it meets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from .compiler.autodiff import fit_memory, memory_of
from .compiler.interpret import Interpreter, bind_sizes
from .compiler.ir.graph import Graph, Value
from .compiler.ir.types import Span
from .compiler.ops.base import OpError
from .compiler.ops.control import LOOPS
from .compiler.options import Options
from .compiler.training.step import (
    Objective,
    Recipe,
    Step,
    gradient_graph,
    group_weights,
    step_graph,
    update_graph,
)
from .runtime.train.loop import SCORES, Stage
from .runtime.train.step import LOSS, Arrays, Call, Group, Layout, State, initial_state

Note = Callable[[str], None]
"""Gets a line for who waits or wonders."""

Compile = Callable[[Graph, bool, Note], Call]
"""Makes code of a graph whose sizes are known; the flag says that weights change at every call."""


def by_reference(graph: Graph, training: bool, note: Note) -> Call:
    """The reference interpreter: numpy, exact and slow."""
    run = Interpreter(graph)

    def call(inputs: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]) -> Arrays:
        with np.errstate(all="ignore"):
            return run(inputs, weights)

    return call


def by_cpu(graph: Graph, training: bool, note: Note) -> Call:
    """Compiled for this machine's CPU; ``note`` is told of a wait for new kernels."""
    from .compiled import graph_source, plan_of
    from .runtime.kernel_cache import is_cached
    from .runtime.module import Module

    # A call reads weights where they lie, in the buffers that training moves.
    graph, paths = weights_as_inputs(graph)
    text = graph_source(graph, graph.name, None, Options(training=training))
    plan = plan_of(text, "step")
    kernels = {row.kernel.name: row.kernel for row in plan.rows if row.kernel is not None}
    if new := sum(not is_cached(name, kernel.source()) for name, kernel in kernels.items()):
        note(f"compiling kernels for this machine ({new} new); later runs find them in the cache")
    module = Module(plan, {})
    ports = [port.name for port in module.plan.inputs]
    before: Arrays = {}
    last: Arrays = {}

    def call(inputs: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]) -> Arrays:
        nonlocal before, last
        given = {name: weights[path] for name, path in paths.items()}
        given |= {name: inputs[name] for name in ports if name not in given}
        # New buffers cost as much as an update: those of the step before last serve again.
        made = module.run(given, unshared(before))
        before, last = last, made
        return dict(made)

    return call


def unshared(arrays: Arrays) -> Arrays:
    """The arrays that nothing but this dictionary refers to, by views neither."""
    # One reference is the dictionary's, one that of the call.
    return {name: arrays[name] for name in arrays if sys.getrefcount(arrays[name]) == 2}


WEIGHT = "weight "
"""Before a weight's path, the name of the input that takes its place."""


def weights_as_inputs(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """The graph with every weight an input of the call; the weights' paths by input."""
    made, paths = graph.copy(), {}
    for index, node in graph.of_op("param"):
        path = str(node.attrs["path"])
        paths[WEIGHT + path] = path
        made.replace_uses(Value(index), made.add_input(WEIGHT + path, node.type))
    made.prune()
    return made, paths


ENGINES: dict[str, Compile] = {"reference": by_reference, "cpu": by_cpu}
"""How steps are run, by the engine's name."""

DEFAULT = "cpu"
"""The engine where none is asked for; graphs for which it has no kernel go to the reference."""


def cpu_memory(graph: Graph) -> int:
    """Bytes that the compiled code of a step holds: arena, scratch, packed weights, in and out."""
    from .compiled import graph_source, plan_of
    from .runtime.machine import cores

    plan = plan_of(graph_source(graph, graph.name, None, Options(training=True)), "step")
    ports = sum(
        np.dtype(port.dtype).itemsize * prod(port.shape) for port in (*plan.inputs, *plan.outputs)
    )
    return plan.arena_bytes + cores() * plan.scratch_bytes + plan.weight_bytes + ports


MEASURES: dict[str, Callable[[Graph], int]] = {"reference": memory_of, "cpu": cpu_memory}
"""Bytes that a step takes, by the engine that runs it."""


def without_kernel(fault: OpError) -> bool:
    """Whether this is what the CPU engine says of a graph that it has no kernel for."""
    return fault.code == "E804"


def default_memory(graph: Graph) -> int:
    """Bytes that a step takes where no engine is asked for."""
    try:
        return MEASURES[DEFAULT](graph)
    except OpError as fault:
        if not without_kernel(fault):
            raise
        return memory_of(graph)


@dataclass(frozen=True)
class Budget:
    """The most bytes that a step may take, and how they are counted."""

    bytes: int
    measure: Callable[[Graph], int]


@dataclass
class Steps:
    """The steps of a training graph; an engine for :class:`runtime.train.loop.Loop`.

    Steps are differentiated once, with the batch open, and compiled for each shape of batches.

    Parameters
    ----------
    graph
        Losses and metrics as outputs, in the mode of inference.
    objectives, recipe
        What is made small and how.
    compile
        One of ``ENGINES``; without it the default one, and the reference interpreter for a graph
        with an op that it has no kernel for, which ``note`` is told.
    accumulate
        Batches of an update.
    budget
        The most memory of a step. Activations are computed again as far as it needs that, and
        if that is not enough those of recurrences too.
    classes
        Scores of classes that evaluation puts out beside losses and metrics.
    note
        Gets a line about kernels to wait for, and about what the reference runs instead.
    """

    graph: Graph
    objectives: Sequence[Objective]
    recipe: Recipe
    compile: Compile | None = None
    accumulate: int = 1
    budget: Budget | None = None
    classes: Value | None = None
    note: Note = lambda line: None
    _graphs: dict[Any, Step] = field(default_factory=dict, repr=False)
    _stages: dict[Any, Stage] = field(default_factory=dict, repr=False)
    _calls: dict[Any, Call] = field(default_factory=dict, repr=False)
    _noted: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self.groups = group_weights(self.graph, self.objectives, self.recipe.decayed)

    def state(self, weights: Mapping[str, np.ndarray]) -> State:
        """The state before the first step."""
        parts = ("gradient", "update") if self.accumulate > 1 else ("step",)
        turns = range(len(self.objectives))
        layouts = [self._step(turn, part).layout for turn in turns for part in parts]
        groups: list[Group] = list(self.groups)
        return initial_state(groups, layouts, weights)

    # ------------------------------------------------------------ the engine

    def step(self, turn: int, batch: Mapping[str, np.ndarray]) -> Stage:
        """The step of an objective for batches of these shapes."""
        return self._stage(turn, "gradient" if self.accumulate > 1 else "step", batch)

    def update(self, turn: int) -> Stage:
        """The update after the batches of an objective."""
        return self._stage(turn, "update", {})

    def evaluate(self, batch: Mapping[str, np.ndarray]) -> Call:
        """Losses and metrics of a batch, in the mode of inference."""
        key = _shapes(batch)
        if key not in self._calls:
            graph = self.graph.copy()
            names = {output: name for name, output in self.recipe.metrics.items()}
            alone = len(self.objectives) == 1
            names |= {o.loss: LOSS if alone else o.name for o in self.objectives}
            graph.outputs = [(names[n], value) for n, value in graph.outputs if n in names]
            if self.classes is not None:
                graph.set_output(SCORES, self.classes)
            self._calls[key] = self._compiled(_bound(graph, batch), False, "validation runs")
        return self._calls[key]

    def culprit(self, turn: int, stage: Stage, inputs: Arrays, weights: Arrays) -> str | None:
        """Where the first NaN or infinity of a step came from."""
        graph = next(step.graph for step in self._graphs.values() if step.layout is stage.layout)
        with np.errstate(all="ignore"):
            node = Interpreter(_bound(graph, inputs)).first_fault(inputs, weights)
        if node is None:
            return None
        layer = f" of `{node.name}`" if node.name else ""
        return f"the first came out of `{node.op}`{layer}{_place(node.span)}"

    # ------------------------------------------------------------ helpers

    def _stage(self, turn: int, part: str, batch: Mapping[str, np.ndarray]) -> Stage:
        key = (turn, part, _shapes(batch))
        if key not in self._stages:
            graph, layout = self._within_budget(turn, part, batch)
            self._stages[key] = Stage(layout, self._compiled(graph, True, "steps run"))
        return self._stages[key]

    def _compiled(self, graph: Graph, training: bool, what: str) -> Call:
        """Code of a graph, by the reference where the default engine has no kernel for it."""
        if self.compile is not None:
            return self.compile(graph, training, self.note)
        try:
            return ENGINES[DEFAULT](graph, training, self.note)
        except OpError as fault:
            if not without_kernel(fault):
                raise
            line = f"{what} in the reference interpreter, which is slow: {fault.message}"
            if line not in self._noted:
                self._noted.add(line)
                self.note(line)
            return by_reference(graph, training, self.note)

    def _within_budget(
        self, turn: int, part: str, batch: Mapping[str, np.ndarray]
    ) -> tuple[Graph, Layout]:
        """The step for batches of these shapes; E703 where it takes more than it may."""
        step = self._step(turn, part)
        graph, budget = _bound(step.graph, batch), self.budget
        if budget is None:
            return graph, step.layout
        try:
            made = fit_memory(graph, step.forward, budget.bytes, measure=budget.measure)
        except OpError as fault:
            if fault.code != "E703" or self.recipe.how.recompute or not graph.of_op(*LOOPS):
                raise
        else:
            return made, step.layout
        step = self._step(turn, part, recompute=True)
        graph = _bound(step.graph, batch)
        made = fit_memory(graph, step.forward, budget.bytes, measure=budget.measure)
        return made, step.layout

    def _step(self, turn: int, part: str, recompute: bool = False) -> Step:
        key = (turn, part, recompute)
        if key not in self._graphs:
            objective, groups, recipe = self.objectives[turn], self.groups, self.recipe
            if recompute:
                recipe = replace(recipe, how=replace(recipe.how, recompute=True))
            if part == "step":
                made = step_graph(self.graph, objective, groups, recipe)
            elif part == "gradient":
                made = gradient_graph(self.graph, objective, groups, recipe, self.accumulate)
            else:
                made = update_graph(objective, groups, recipe)
            self._graphs[key] = made
        return self._graphs[key]


def _bound(graph: Graph, arrays: Mapping[str, np.ndarray]) -> Graph:
    """The graph for batches of these shapes."""
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    for index in graph.inputs:
        node = graph.node(index)
        if node.name not in shapes:
            # Buffers and scalars of the step have fixed sizes.
            shapes[node.name] = tuple(int(d) for d in node.type.shape)  # type: ignore[arg-type]
    return graph.bind(bind_sizes(graph, shapes))


def _shapes(batch: Mapping[str, np.ndarray]) -> Any:
    return tuple(sorted((name, np.shape(array)) for name, array in batch.items()))


def _place(span: Span | None) -> str:
    return f" at {span}" if span is not None else ""
