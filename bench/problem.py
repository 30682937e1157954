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

import numpy as np

from ..compiler.interpret import interpret
from ..compiler.ir.graph import Graph
from ..compiler.ops.base import OpError
from ..program import Program, load
from ..proof import sizes_at

Arrays = dict[str, np.ndarray]

NOMINAL = {"H": 224, "W": 224}
"""Sizes of pictures when neither the command nor the spec's facts give them."""


@dataclass(frozen=True)
class Chosen:
    """Which model at which sizes: all that :func:`tilth.load` needs to load it again."""

    spec: str
    variant: str | None = None
    options: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)

    def load(self) -> Program:
        """The program, its sizes still open."""
        return load(self.spec, set=self.options, variant=self.variant)


@dataclass(frozen=True)
class Problem:
    """A folder with ``model.json``, weights, inputs, reference outputs, and ``model.onnx``."""

    folder: Path

    @cached_property
    def chosen(self) -> Chosen:
        """Which model it is."""
        data = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
        return Chosen(data["spec"], data["variant"], tuple(data["options"]), data["sizes"])

    @cached_property
    def program(self) -> Program:
        """The model, loaded anew."""
        return self.chosen.load()

    @cached_property
    def graph(self) -> Graph:
        """The graph with all sizes bound."""
        return self.program.graph.bind(self.chosen.sizes)

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


def write_problem(folder: Path, chosen: Chosen, onnx: bool, seed: int = 0) -> Problem:
    """Make weights, inputs and reference outputs, and put everything in ``folder``.

    Raises ``OpError`` E802 when the outputs are not finite: nothing could be compared.
    """
    problem = Problem(folder)
    text = json.dumps(asdict(chosen) | {"sizes": dict(chosen.sizes)})
    (folder / "model.json").write_text(text, encoding="utf-8")
    graph = problem.graph
    weights = bench_weights(problem.program, chosen.sizes, seed)
    inputs = bench_inputs(graph, seed)
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
    """The spec's initial weights, norms and biases shaken so that folding them is real work."""
    rng = np.random.default_rng(seed)
    weights = program.initial_weights(seed, sizes)
    for _, node in program.graph.of_op("param"):
        path, kind = str(node.attrs["path"]), str(node.attrs["kind"])
        array = weights[path]
        if array.dtype.kind != "f" or kind not in ("norm", "bias", "buffer"):
            continue
        if path.endswith(("var", "weight")):
            weights[path] = (array * rng.uniform(0.8, 1.2, array.shape)).astype(array.dtype)
        else:
            weights[path] = (array + rng.normal(0, 0.1, array.shape)).astype(array.dtype)
    return weights


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
    """A value for every open size: given ones, the spec's, then common ones; ``N`` is the batch."""
    envelope = program.model.envelope
    names = [program.variant, envelope.name if program.variant == envelope.default_variant else ""]
    facts = next((envelope.expect[n] for n in names if n in envelope.expect), None)
    stated = {n: size for n, size in (facts.at if facts else {}).items() if isinstance(size, int)}
    given = sizes_at(program.graph, shapes)
    known: dict[str, int] = {**NOMINAL, **stated, **given, "N": batch}
    return {name: size for name, size in known.items() if name in program.graph.symbols}


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
    from safetensors.numpy import load_file

    return load_file(path)
