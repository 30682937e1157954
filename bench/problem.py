"""What every engine is given: one model at fixed sizes, its weights and inputs, as files.

Engines run in processes of their own and read these files, so that none is charged for another's
tools: those that read ONNX never see the graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import training

if TYPE_CHECKING:
    # Imported where they are used: an engine's process that needs no graph must not pay for them.
    from ..compiler.ir.graph import Graph, Value
    from ..compiler.training.step import Step
    from ..program import Program

Arrays = dict[str, np.ndarray]

NOMINAL = {"H": 224, "W": 224}
"""Sizes of pictures when neither the command nor the spec's facts give them."""


@dataclass(frozen=True)
class Chosen:
    """Which model at which sizes: all that :func:`tilth.load` needs to load it again.

    ``train`` asks for steps of training rather than inference.
    """

    spec: str
    variant: str | None = None
    options: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    train: bool = False

    def load(self) -> Program:
        """The program, its sizes still open."""
        from ..program import load

        return load(self.spec, set=self.options, variant=self.variant)


@dataclass(frozen=True)
class Problem:
    """A folder with ``model.json``, weights, inputs and reference outputs.

    Besides these, what engines read: ``model.onnx``, and our compiled files by number of threads.
    """

    folder: Path

    @cached_property
    def chosen(self) -> Chosen:
        """Which model it is."""
        data = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
        options, sizes = tuple(data["options"]), data["sizes"]
        return Chosen(data["spec"], data["variant"], options, sizes, data["train"])

    @cached_property
    def program(self) -> Program:
        """The model, loaded anew."""
        return self.chosen.load()

    @cached_property
    def graph(self) -> Graph:
        """The graph with all sizes bound; that of the loss for steps of training."""
        if self.chosen.train:
            return training.training_graph(self.program, self.chosen.sizes)
        return self.program.graph.bind(self.chosen.sizes)

    @cached_property
    def step(self) -> Step:
        """The step of training."""
        return training.training_step(self.graph)

    @cached_property
    def weights(self) -> Arrays:
        """Arrays by weight path."""
        return read_arrays(self.folder / "weights.safetensors")

    @cached_property
    def inputs(self) -> Arrays:
        """Arrays by input name."""
        return read_arrays(self.folder / "inputs.safetensors")

    @cached_property
    def reference(self) -> Arrays:
        """Outputs in float64 by the reference interpreter."""
        return read_arrays(self.folder / "reference.safetensors")

    @property
    def onnx(self) -> Path:
        """The same graph and weights for engines that read ONNX."""
        return self.folder / "model.onnx"

    def module(self, threads: int) -> Path:
        """The runnable module that is compiled for so many threads."""
        return self.folder / f"model_{threads}.py"


def write_problem(folder: Path, chosen: Chosen, onnx: bool, seed: int = 0) -> Problem:
    """Make weights, inputs and reference outputs, and put everything in ``folder``.

    Raises ``OpError`` E802 when the outputs are not finite: nothing could be compared.
    """
    from ..compiler.interpret import interpret
    from ..compiler.ops.base import OpError

    problem = Problem(folder)
    text = json.dumps(asdict(chosen) | {"sizes": dict(chosen.sizes)})
    (folder / "model.json").write_text(text, encoding="utf-8")
    graph = problem.graph
    weights = bench_weights(problem.program, chosen.sizes, seed)
    inputs = bench_inputs(graph, seed)
    if chosen.train:
        inputs = training.training_inputs(graph, inputs, seed)
        known = training.step_inputs(problem.step, training.first_state(problem.step, weights),
                                     inputs)  # fmt: skip
        results = interpret(problem.step.graph, known, weights, seed, precision="f64")
        outputs = training.compared(problem.step, results)
    else:
        outputs = interpret(graph, inputs, weights, seed, precision="f64")
    if not all(np.isfinite(array).all() for array in outputs.values()):
        message = f"`{chosen.spec}` gives infinite values with random weights"
        raise OpError("E802", message, "nothing can be compared; choose other sizes")
    for name, arrays in (("weights", weights), ("inputs", inputs), ("reference", outputs)):
        write_arrays(folder / f"{name}.safetensors", arrays)
    if onnx:
        from ..export.onnx_writer import write_onnx

        write_onnx(graph, weights, problem.onnx)
    return problem


def bench_weights(program: Program, sizes: Mapping[str, int], seed: int) -> Arrays:
    """The spec's initial weights, norms and biases shaken and statistics fitted to what norms read.

    Folding is then real work, and rounding errors stay what they are in a trained net: with initial
    statistics the values of deep nets grow without bound, and their gates with them.
    """
    rng = np.random.default_rng(seed)
    weights = program.initial_weights(seed, sizes)
    for _, node in program.graph.of_op("param"):
        path, kind = str(node.attrs["path"]), str(node.attrs["kind"])
        array = weights[path]
        if kind in ("norm", "bias") and array.dtype.kind == "f":
            factor, shift = rng.uniform(0.8, 1.2, array.shape), rng.normal(0, 0.1, array.shape)
            weights[path] = (array * factor + shift).astype(array.dtype)
    graph = program.graph.bind({**sizes, "N": 1} if "N" in sizes else sizes)
    if not any(node.regions for _, node in graph.nodes()):
        _fit_statistics(graph, weights, bench_inputs(graph, seed), rng)
    return weights


def _fit_statistics(
    graph: Graph, weights: Arrays, inputs: Arrays, rng: np.random.Generator
) -> None:
    """Give every batch norm statistics of the size of what it reads on these inputs."""
    from ..compiler.ir.graph import Value
    from ..compiler.ops.base import OPS, as_arrays

    values: dict[Value, np.ndarray] = {}
    left = {index: len(graph.users(index)) for index, _ in graph.nodes()}
    norms = {index for index, _ in graph.of_op("batch_norm")}
    for index, node in graph.nodes():
        if not norms:
            return
        operands = graph.operands(index)
        if index in norms:
            norms.remove(index)
            mean, var = (graph.node(v.node).attrs.get("path") for v in operands[1:3])
            if isinstance(mean, str) and isinstance(var, str):
                x = values[operands[0]]
                # One size for all channels, hardly centred: fitting each on its own would
                # blow up those that are nearly constant, and make deep random nets chaotic.
                power = float(np.mean(x * x))
                scale, shift = rng.uniform(0.8, 1.2, x.shape[1]), rng.normal(0, 0.1, x.shape[1])
                weights[var] = values[operands[2]] = (power * scale).astype(x.dtype)
                weights[mean] = values[operands[1]] = (power**0.5 * shift).astype(x.dtype)
        if node.op == "param":
            values[Value(index)] = weights[str(node.attrs["path"])]
        elif node.op == "input":
            values[Value(index)] = inputs[node.name]
        elif node.op == "constant":
            values[Value(index)] = graph.constant(index)
        else:
            reference: Any = OPS[node.op].reference
            results = as_arrays(reference(*(values[v] for v in operands), **node.attrs))
            values.update((Value(index, place), array) for place, array in enumerate(results))
        for source in {value.node for value in operands}:
            left[source] -= sum(value.node == source for value in operands)
            if not left[source]:
                for place in range(len(graph.node(source).types)):
                    del values[Value(source, place)]


def bench_inputs(graph: Graph, seed: int) -> Arrays:
    """Standard normal numbers for float inputs, zeros for all others."""
    rng = np.random.default_rng(seed + 1)
    made: Arrays = {}
    for index in graph.inputs:
        node = graph.node(index)
        shape = tuple(int(d) for d in node.type.shape)  # type: ignore[arg-type]
        if node.type.is_float:
            made[node.name] = rng.standard_normal(shape).astype(np.float32)
        else:
            made[node.name] = np.zeros(shape, np.int32)
    return made


def nominal_sizes(
    program: Program, batch: int, shapes: Mapping[str, int | tuple[int | str, ...]]
) -> dict[str, int]:
    """A value for every open size: given ones, the spec's, then common ones; ``N`` is the batch.

    Raises ``SpecError`` E805 for a size that nothing tells, ``OpError`` E802 where they do not fit.
    """
    from ..proof import sizes_at

    given = sizes_at(program.graph, shapes)
    known: dict[str, int] = {**NOMINAL, **program.nominal_sizes(), **given, "N": batch}
    found = {name: size for name, size in known.items() if name in program.graph.symbols}
    program.require_sizes(found)
    return found


def relative_error(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """Largest of max|difference| / max|reference| over the outputs; inf where one is no number."""
    worst = 0.0
    for name, reference in wanted.items():
        array = np.asarray(found[name], np.float64)
        if array.shape != reference.shape or not np.isfinite(array).all():
            return float("inf")
        scale = max(float(np.abs(reference).max(initial=0)), float(np.finfo(np.float32).tiny))
        worst = max(worst, float(np.abs(array - reference).max(initial=0)) / scale)
    return worst


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays by name as a safetensors file."""
    from safetensors.numpy import save_file

    save_file({name: np.array(array, order="C") for name, array in arrays.items()}, path)


def read_arrays(path: Path) -> Arrays:
    """Arrays by name from a safetensors file."""
    from ..runtime import weights

    return weights.read_arrays(path)
