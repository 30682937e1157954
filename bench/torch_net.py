"""PyTorch on our Graph: plain calls on the CPU, in either layout, eager or traced and frozen.

Batch norms are folded into the convolution before them, as a user who serves a model would; work
in place where nothing else reads the operand.
"""

# The packages are extras, and absent where only the default ones are installed.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..compiler.ir.graph import Graph, Value
from ..compiler.ir.types import Attrs
from ..compiler.ops.base import OPS
from ..compiler.ops.leaves import LEAVES
from .problem import Arrays, Problem
from .torch_rules import RULES

FRESH = ("conv", "batch_norm", "linear", "add", "add_")
"""Ops whose result is theirs alone, so that the next op may overwrite it."""


@dataclass(frozen=True)
class Step:
    """One call: rule, attributes, operands, results; ``release`` is not read afterwards."""

    op: str
    attrs: Attrs
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    release: tuple[Value, ...] = ()


def prepare_torch(problem: Problem, threads: int, setting: str) -> Callable[[], Arrays]:
    """The graph as a module under ``setting``; raises ``NotImplementedError`` for other ops."""
    import torch

    if problem.chosen.train:
        from .torch_training import prepare_torch_step

        return prepare_torch_step(problem, threads, setting)
    torch.set_num_threads(threads)
    last = "channels_last" in setting
    graph = problem.graph
    net = _net(torch, graph, problem.weights).eval()
    inputs = [torch.from_numpy(problem.inputs[graph.node(i).name]) for i in graph.inputs]
    if last:
        net = net.to(memory_format=torch.channels_last)
        inputs = [x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    names = [name for name, _ in graph.outputs]
    with torch.inference_mode():
        if setting.startswith("frozen"):
            traced = torch.jit.freeze(torch.jit.trace(net, tuple(inputs)))
            net = torch.jit.optimize_for_inference(traced)

    def call() -> Arrays:
        with torch.inference_mode():
            results = net(*inputs)
        return {name: y.numpy() for name, y in zip(names, results, strict=True)}

    return call


def steps_of(graph: Graph, weights: Arrays) -> tuple[list[Step], dict[Value, np.ndarray]]:
    """The graph as calls in order, and the arrays that they read besides inputs."""
    arrays = {
        Value(index): weights[str(node.attrs["path"])] for index, node in graph.of_op("param")
    }
    arrays |= {Value(index): graph.constant(index) for index, _ in graph.of_op("constant")}
    steps: dict[int, Step] = {}
    for index, node in graph.nodes():
        if node.op in LEAVES:
            continue
        if node.op == "fill":
            reference: Any = OPS["fill"].reference
            arrays[Value(index)] = reference(**node.attrs)
            continue
        if node.op not in RULES:
            raise NotImplementedError(f"{node.op} has no form in PyTorch here")
        results = tuple(Value(index, place) for place in range(len(node.types)))
        step = Step(node.op, node.attrs, graph.operands(index), results)
        steps[index] = _folded(graph, step, steps, arrays)
    return released(graph, [in_place(graph, step, steps) for step in steps.values()]), arrays


def _folded(
    graph: Graph, step: Step, steps: dict[int, Step], arrays: dict[Value, np.ndarray]
) -> Step:
    """A batch norm and the convolution that only it reads as one convolution."""
    if step.op != "batch_norm":
        return step
    conv = steps.get(step.operands[0].node)
    if conv is None or conv.op != "conv" or len(graph.users(step.operands[0].node)) != 1:
        return step
    vectors = [arrays[v].astype(np.float64) for v in step.operands[1:]]
    mean, var = vectors[:2]
    weight, bias = vectors[2:] if vectors[2:] else (np.ones_like(mean), np.zeros_like(mean))
    scale = weight / np.sqrt(var + float(step.attrs["eps"]))  # type: ignore[arg-type]
    x, *own = conv.operands
    kernel = arrays[own[0]]
    before = arrays[own[1]] if own[1:] else 0.0
    index = step.results[0].node
    made = (Value(index, -1), Value(index, -2))
    shape = (-1, *(1,) * (kernel.ndim - 1))
    arrays[made[0]] = (kernel * scale.reshape(shape)).astype(kernel.dtype)
    arrays[made[1]] = ((before - mean) * scale + bias).astype(kernel.dtype)
    del steps[conv.results[0].node]
    return Step("conv", conv.attrs, (x, *made), step.results)


def in_place(graph: Graph, step: Step, steps: dict[int, Step]) -> Step:
    """The step over its first operand's memory, where nothing else reads that."""
    if step.op not in ("relu", "relu6", "add"):
        return step
    first = step.operands[0]
    maker = steps.get(first.node)
    kept = any(value == first for _, value in graph.outputs)
    if maker is None or maker.op not in FRESH or kept or len(graph.users(first.node)) != 1:
        return step
    same = graph.type_of(first) == graph.type_of(step.results[0])
    return replace(step, op=f"{step.op}_") if same else step


def released(graph: Graph, steps: list[Step]) -> list[Step]:
    """The steps with what each may let go of."""
    kept = {value for _, value in graph.outputs}
    last = {value: place for place, step in enumerate(steps) for value in step.operands}
    return [
        replace(
            step,
            release=tuple(
                v for v in dict.fromkeys(step.operands) if last[v] == place and v not in kept
            ),
        )
        for place, step in enumerate(steps)
    ]


def _net(torch: Any, graph: Graph, weights: Arrays) -> Any:
    steps, arrays = steps_of(graph, weights)
    read = {value for step in steps for value in step.operands}
    names = {v: f"w{place}" for place, v in enumerate(v for v in arrays if v in read)}
    outputs = [value for _, value in graph.outputs]

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for value, name in names.items():
                self.register_buffer(name, torch.from_numpy(np.array(arrays[value])))

        def forward(self, *inputs: Any) -> tuple[Any, ...]:
            values = {Value(i): x for i, x in zip(graph.inputs, inputs, strict=True)}
            values |= {value: getattr(self, name) for value, name in names.items()}
            for step in steps:
                results = RULES[step.op](torch, step.attrs, *(values[v] for v in step.operands))
                several = isinstance(results, (tuple, list))
                values.update(zip(step.results, results if several else [results], strict=True))
                for value in step.release:
                    del values[value]
            return tuple(values[value] for value in outputs)

    return Net()
