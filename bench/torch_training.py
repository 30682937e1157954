"""PyTorch's step of training on our Graph: forward, backward, momentum, in its best settings."""

# The packages are extras, and absent where only the default ones are installed.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..compiler.ir.graph import Graph, Value
from ..compiler.ops.leaves import LEAVES
from .problem import Arrays, Problem
from .torch_net import Step, in_place, released
from .torch_rules import RULES
from .training import MOMENTUM, RATE


def prepare_torch_step(problem: Problem, threads: int, setting: str) -> Callable[[], Arrays]:
    """The loss as a module under ``setting``; raises ``NotImplementedError`` for other ops."""
    import torch

    torch.set_num_threads(threads)
    last = "channels_last" in setting
    net = _net(torch, problem.graph, problem.weights)
    inputs = [torch.from_numpy(np.array(problem.inputs[problem.graph.node(i).name]))
              for i in problem.graph.inputs]  # fmt: skip
    if last:
        net = net.to(memory_format=torch.channels_last)
        inputs = [x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    how = {"fused": True} if "fused" in setting else {"foreach": True}
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM, **how)

    def call() -> Arrays:
        optimiser.zero_grad(set_to_none=True)
        loss = net(*inputs)
        loss.backward()
        optimiser.step()
        found = {"loss": loss.detach().numpy().reshape(1)}
        for path, tensor in net.learned.items():
            found[f"weight {path}"] = tensor.detach().numpy()
            found[f"gradient {path}"] = tensor.grad.numpy()
        return found | {f"statistic {path}": t.numpy() for path, t in net.moving.items()}

    return call


def _net(torch: Any, graph: Graph, weights: Arrays) -> Any:
    steps, (loss,) = _steps(graph), [value for _, value in graph.outputs]

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values, self.learned, self.moving = {}, {}, {}
            statistics = {
                v for step in steps if step.op == "batch_norm" for v in step.operands[1:3]
            }
            for index, node in graph.of_op("param"):
                tensor = torch.from_numpy(np.array(weights[str(node.attrs["path"])]))
                is_statistic = Value(index) in statistics
                kept = self.moving if is_statistic else self.learned
                made = tensor if is_statistic else torch.nn.Parameter(tensor)
                register = self.register_buffer if is_statistic else self.register_parameter
                register(f"w{index}", made)
                kept[str(node.attrs["path"])] = made
            for index, _ in graph.of_op("constant"):
                tensor = torch.from_numpy(np.array(graph.constant(index)))
                self.register_buffer(f"w{index}", tensor)

        def forward(self, *inputs: Any) -> Any:
            values = {Value(i): x for i, x in zip(graph.inputs, inputs, strict=True)}
            for index, _ in (*graph.of_op("param"), *graph.of_op("constant")):
                values[Value(index)] = getattr(self, f"w{index}")
            for step in steps:
                operands = [values[v] for v in step.operands]
                results = _call(torch, step, operands)
                several = isinstance(results, (tuple, list))
                values.update(zip(step.results, results if several else [results], strict=True))
                for value in step.release:
                    del values[value]
            return values[loss]

    return Net()


def _call(torch: Any, step: Step, operands: list[Any]) -> Any:
    functional, attrs = torch.nn.functional, step.attrs
    if step.op == "batch_norm":
        x, mean, var, *learned = operands
        eps, momentum = attrs["eps"], attrs["momentum"]
        return functional.batch_norm(x, mean, var, *learned, training=True, momentum=momentum,
                                     eps=eps)  # fmt: skip
    if step.op == "cross_entropy":
        logits, label = operands
        return functional.cross_entropy(logits, label.long(), label_smoothing=attrs["smoothing"],
                                        reduction=attrs["reduction"])  # fmt: skip
    return RULES[step.op](torch, attrs, *operands)


def _steps(graph: Graph) -> list[Step]:
    """The graph as calls in order; what autograd needs again is not written over."""
    steps: dict[int, Step] = {}
    for index, node in graph.nodes():
        if node.op in LEAVES or node.op == "fill":
            continue
        if node.op not in RULES and node.op != "cross_entropy":
            raise NotImplementedError(f"{node.op} has no form in PyTorch here")
        operands = tuple(v for v in graph.operands(index) if graph.node(v.node).op != "fill")
        results = tuple(Value(index, place) for place in range(len(node.types)))
        steps[index] = Step(node.op, node.attrs, operands, results)
    return released(graph, [in_place(graph, step, steps) for step in steps.values()])
