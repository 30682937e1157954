"""Derivatives of a program's outputs, for people who write their own training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from .compiler.autodiff import How, adjoint, differentiate, gradient_name, to_training
from .compiler.inference.expand import expand
from .compiler.ir.graph import Graph, Value
from .execution import Kept
from .program import Program, located_faults
from .spec.diagnostics import Diagnostic, SpecError

STATE = "new({})"
"""The output that holds a running statistic after the step, by weight path."""


@dataclass(frozen=True)
class ValueAndGrad:
    """A program that also computes derivatives; call it with inputs and weights.

    ``of`` is the output that is differentiated and ``wrt`` are weight paths and input names.
    ``program.graph`` is the differentiated graph. On the ``cpu`` engine it is compiled for each
    shape that it meets.
    """

    program: Program
    of: str
    wrt: tuple[str, ...]
    state: tuple[str, ...] = ()
    engine: str = "reference"
    precise: bool = False
    _plans: Kept = field(default_factory=Kept, repr=False, compare=False)

    def __call__(
        self,
        inputs: Mapping[str, Any],
        weights: Mapping[str, Any] | None = None,
        seed: int = 0,
        step: int = 0,
        precision: str | None = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The value, its derivatives by weight path or input name, and everything else put out.

        The last holds the program's other outputs by name and, in training mode, running
        statistics after the step by weight path. Without ``weights`` the spec's initialisers are
        used. ``seed`` and ``step`` choose the random numbers of dropout and of samples.
        """
        given = dict(inputs)
        if "key" in self.program.inputs:
            given.setdefault("key", np.array([seed, step], np.uint64))
        if self.engine == "cpu":
            found = self._compiled(given, self.program.weights_for(weights, seed), precision)
        else:
            found = self.program.run(given, weights, seed, precision=precision)
        derivatives = {name: found.pop(gradient_name(name)) for name in self.wrt}
        rest = {path: found.pop(STATE.format(path)) for path in self.state}
        return found.pop(self.of), derivatives, found | rest

    def _compiled(
        self, inputs: Mapping[str, Any], weights: Mapping[str, np.ndarray], precision: str | None
    ) -> dict[str, np.ndarray]:
        """Run on the CPU engine; weights are packed anew at each call."""
        from .compiled import module_source, plan_of
        from .runtime.module import Module

        with located_faults(self.program.sources):
            self.program.require_runnable(self.engine, precision)
            arrays = {name: np.asarray(array) for name, array in inputs.items()}
            sizes = self.program.sizes_of(arrays, weights)
            key = tuple(sorted(sizes.items()))
            plan = self._plans.get(key)
            if plan is None:
                text = module_source(self.program, sizes, precise=self.precise)
                plan = self._plans.put(key, plan_of(text, self.program.name))
            return Module(plan, weights, None).run(arrays)


def value_and_grad(
    program: Program,
    of: str | None = None,
    wrt: Sequence[str] | None = None,
    training: bool = False,
    engine: str = "reference",
    how: How | None = None,
    precise: bool = False,
) -> ValueAndGrad:
    """The program with derivatives of one of its outputs, which must be a single number.

    ``of`` may be left out when there is one such output. ``wrt`` are weight paths, labels that
    stand for all weights below them, and input names; all weights but buffers by default. In
    ``training`` mode norms use the statistics of the batch and dropout drops. ``engine`` is that of
    :meth:`Program.run`, which ``precise`` forbids Winograd; ``how`` says how loops are
    differentiated. Raises :class:`SpecError` E802 for names that do not exist, E101 for an output
    that is no number, E804 for an op that the engine does not have.
    """
    with located_faults(program.sources):
        program.require_runnable(engine)
        graph, state = expand(program.graph), {}
        if training:
            mode = to_training(graph)
            graph, state = mode.graph, mode.state
        name = _scalar(graph, of)
        values = _chosen(graph, wrt)
        for path, value in state.items():
            graph.set_output(STATE.format(path), value)
        made = differentiate(
            graph, dict(graph.outputs)[name], list(values.values()), list(values), how or How()
        )
        made = replace(program, graph=made)
        return ValueAndGrad(made, name, tuple(values), tuple(state), engine, precise)


def backward_graph(program: Program) -> Graph:
    """The graph with the cotangents of its weights, given those of its outputs as inputs."""
    with located_faults(program.sources):
        program.require_runnable()
        values = _chosen(program.graph, None)
        return adjoint(program.graph, list(values.values()), list(values))


def _scalar(graph: Graph, of: str | None) -> str:
    kinds = {name: graph.type_of(value) for name, value in graph.outputs}
    numbers = [name for name, kind in kinds.items() if kind.rank == 0 and kind.is_float]
    if of is None and len(numbers) == 1:
        return numbers[0]
    listed = ", ".join(f"{name} : {kind}" for name, kind in kinds.items())
    if of is None:
        message = f"which output to differentiate? {len(numbers)} of them are single numbers"
        raise SpecError([Diagnostic("E101", message, hint=f"the outputs are {listed}")], {})
    if of not in kinds:
        message = f"no output is called `{of}`"
        raise SpecError([Diagnostic("E802", message, hint=f"the outputs are {listed}")], {})
    if of not in numbers:
        message = f"a derivative is that of a single number; `{of}` is {kinds[of]}"
        raise SpecError([Diagnostic("E101", message, hint=f"sum it: `total = sum({of})`")], {})
    return of


def _chosen(graph: Graph, wrt: Sequence[str] | None) -> dict[str, Value]:
    """Values by the name of their derivative."""
    found = [(index, node) for index, node in graph.of_op("param")]
    weights = {str(node.attrs["path"]): Value(index) for index, node in found if node.type.is_float}
    learnt = {
        path: value
        for path, value in weights.items()
        if graph.node(value.node).attrs["kind"] != "buffer"
    }
    if wrt is None:
        return learnt
    inputs = {graph.node(index).name: Value(index) for index in graph.inputs}
    chosen: dict[str, Value] = {}
    for name in wrt:
        below = {path: v for path, v in learnt.items() if path.startswith(f"{name}.")}
        exact = weights.get(name) or inputs.get(name)
        if exact is None and not below:
            labels = {path.rsplit(".", 1)[0] for path in learnt if "." in path}
            close = get_close_matches(name, [*weights, *inputs, *sorted(labels)], 3)
            hint = f"close are {', '.join(f'`{c}`' for c in close)}" if close else None
            message = f"no weight, label or input is called `{name}`"
            raise SpecError([Diagnostic("E802", message, hint=hint)], {})
        chosen |= {name: exact} if exact is not None else below
    return chosen
