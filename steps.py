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
from .execution import KEPT, Kept
from .runtime.train.loop import SCORES, Stage
from .runtime.train.step import LOSS, Arrays, Call, Group, Layout, State, initial_state

Note = Callable[[str], None]
"""Gets a line for who waits or wonders."""

Compile = Callable[[Graph, Options, Note], Call]
"""Makes code of a graph whose sizes are known."""

Measure = Callable[[Graph, Options], int]
"""The bytes that such code takes."""


def by_reference(graph: Graph, options: Options, note: Note) -> Call:
    """The reference interpreter: numpy, exact and slow."""
    run = Interpreter(graph)

    def call(inputs: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]) -> Arrays:
        with np.errstate(all="ignore"):
            return run(inputs, weights)

    return call


def by_cpu(graph: Graph, options: Options, note: Note) -> Call:
    """Compiled for this machine's CPU; ``note`` is told of a wait for new kernels."""
    from .compiled import graph_source, plan_of
    from .runtime.kernel_cache import is_cached
    from .runtime.module import Module

    # A call reads weights where they lie, in the buffers that training moves.
    graph, paths = weights_as_inputs(graph)
    text = graph_source(graph, graph.name, None, options)
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


def reference_memory(graph: Graph, options: Options) -> int:
    """Bytes of the values that the reference interpreter holds at once."""
    return memory_of(graph)


def cpu_memory(graph: Graph, options: Options) -> int:
    """Bytes that the compiled code of a step holds: arena, scratch, packed weights, in and out."""
    from .compiled import graph_source, plan_of
    from .runtime.machine import cores

    plan = plan_of(graph_source(graph, graph.name, None, options), "step")
    ports = sum(
        np.dtype(port.dtype).itemsize * prod(port.shape) for port in (*plan.inputs, *plan.outputs)
    )
    return plan.arena_bytes + cores() * plan.scratch_bytes + plan.weight_bytes + ports


MEASURES: dict[str, Measure] = {"reference": reference_memory, "cpu": cpu_memory}
"""Bytes that a step takes, by the engine that runs it."""


def without_kernel(fault: OpError) -> bool:
    """Whether this is what the CPU engine says of a graph that it has no kernel for."""
    return fault.code == "E804"


def default_memory(graph: Graph, options: Options) -> int:
    """Bytes that a step takes where no engine is asked for."""
    try:
        return MEASURES[DEFAULT](graph, options)
    except OpError as fault:
        if not without_kernel(fault):
            raise
        return memory_of(graph)


@dataclass(frozen=True)
class Budget:
    """The most bytes that a step may take, and how they are counted."""

    bytes: int
    measure: Measure


@dataclass
class Steps:
    """The steps of a training graph; an engine for :class:`runtime.train.loop.Loop`.

    Steps are differentiated once, with the batch open, and compiled for each shape of batches;
    the code of the last shapes that came is kept.

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
        Gets a line about kernels to wait for, about what the reference runs instead, and about
        batches of so many shapes that code is made again.
    precise
        Forbids Winograd and other rewrites that round differently from the reference.
    """

    graph: Graph
    objectives: Sequence[Objective]
    recipe: Recipe
    compile: Compile | None = None
    accumulate: int = 1
    budget: Budget | None = None
    classes: Value | None = None
    note: Note = lambda line: None
    precise: bool = False
    _graphs: dict[Any, Step] = field(default_factory=dict, repr=False)
    _code: Kept = field(default_factory=Kept, repr=False)
    _met: set[Any] = field(default_factory=set, repr=False)
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
        made = self._made_for(batch)
        if "evaluate" not in made:
            graph = self.graph.copy()
            names = {output: name for name, output in self.recipe.metrics.items()}
            alone = len(self.objectives) == 1
            names |= {o.loss: LOSS if alone else o.name for o in self.objectives}
            graph.outputs = [(names[n], value) for n, value in graph.outputs if n in names]
            if self.classes is not None:
                graph.set_output(SCORES, self.classes)
            graph = _bound(graph, batch)
            made["evaluate"] = self._compiled(graph, self._options(False), "validation runs")
        return made["evaluate"]

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
        made, key = self._made_for(batch), (turn, part)
        if key not in made:
            graph, layout = self._within_budget(turn, part, batch)
            made[key] = Stage(layout, self._compiled(graph, self._options(True), "steps run"))
        return made[key]

    def _made_for(self, batch: Mapping[str, np.ndarray]) -> dict[Any, Any]:
        """The code that is kept for batches of these shapes, by what it does."""
        key = _shapes(batch)
        made = self._code.get(key)
        if made is None:
            if key in self._met:
                self._note_once(
                    f"batches come in more than {KEPT} shapes, so steps are compiled again for "
                    "some of them; fewer lengths, padded, would be faster"
                )
            self._met.add(key)
            made = self._code.put(key, {})
        return made

    def _note_once(self, line: str) -> None:
        if line not in self._noted:
            self._noted.add(line)
            self.note(line)

    def _options(self, training: bool) -> Options:
        return Options(self.precise, training)

    def _compiled(self, graph: Graph, options: Options, what: str) -> Call:
        """Code of a graph, by the reference where the default engine has no kernel for it."""
        if self.compile is not None:
            return self.compile(graph, options, self.note)
        try:
            return ENGINES[DEFAULT](graph, options, self.note)
        except OpError as fault:
            if not without_kernel(fault):
                raise
            self._note_once(f"{what} in the reference interpreter, which is slow: {fault.message}")
            return by_reference(graph, options, self.note)

    def _within_budget(
        self, turn: int, part: str, batch: Mapping[str, np.ndarray]
    ) -> tuple[Graph, Layout]:
        """The step for batches of these shapes; E703 where it takes more than it may."""
        step = self._step(turn, part)
        graph, budget = _bound(step.graph, batch), self.budget
        if budget is None:
            return graph, step.layout

        def measure(graph: Graph) -> int:
            return budget.measure(graph, self._options(True))

        try:
            made = fit_memory(graph, step.forward, budget.bytes, measure=measure)
        except OpError as fault:
            if fault.code != "E703" or self.recipe.how.recompute or not graph.of_op(*LOOPS):
                raise
        else:
            return made, step.layout
        step = self._step(turn, part, recompute=True)
        graph = _bound(step.graph, batch)
        made = fit_memory(graph, step.forward, budget.bytes, measure=measure)
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
