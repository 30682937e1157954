"""A step of training as every engine makes it: loss, gradients, an update with momentum.

A spec's own objective is taken where it has one; else the cross entropy of its scores. Dropout is
left out, since no two engines draw the same numbers. The first update is compared with that of the
float64 reference before anything is timed: the loss, gradients, new weights and statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..compiler.ir.graph import Graph
    from ..compiler.training.step import Step
    from ..program import Program
    from ..runtime.train.step import State

Arrays = dict[str, np.ndarray]

RATE, MOMENTUM = 1e-3, 0.9
"""The optimiser's settings; the rate is small, so that many steps on one batch stay finite."""

LABEL = "label"


def training_graph(program: Program, sizes: Mapping[str, int]) -> Graph:
    """The graph of the loss, in the mode of inference, its sizes bound; the output is ``loss``.

    Raises ``OpError`` E007 for a model that has neither an objective nor scores of classes.
    """
    from ..compiler.ir.graph import Value
    from ..compiler.ir.types import TensorType
    from ..compiler.ops.base import OpError
    from ..compiler.ops.expr import Writer

    stated = program.model.training
    if stated is not None:
        graph = stated.graph.bind(sizes)
        loss = next(value for name, value in graph.outputs if name == stated.losses[0].output)
        graph.outputs = [("loss", loss)]
    else:
        graph = program.graph.bind(sizes)
        scores = [value for _, value in graph.outputs if graph.type_of(value).rank == 2]
        if len(graph.outputs) != 1 or not scores:
            message = f"`{program.name}` states no objective, and its output is no row of scores"
            raise OpError("E007", message, "add `train:` with an `objective:`")
        writer, kind = Writer(graph, "loss"), graph.type_of(scores[0])
        label = writer.expr(graph.add_input(LABEL, TensorType("i32", kind.shape[:1])))
        how = {"axis": 1, "smoothing": 0.0, "ignore": -100, "reduction": "mean"}
        graph.outputs = [("loss", writer.expr(scores[0]).op("cross_entropy", label, **how).value)]
    for index, _ in list(graph.of_op("dropout")) + list(graph.of_op("drop_path")):
        graph.replace_uses(Value(index), graph.operands(index)[0])
    declared, graph.inputs = graph.inputs, []
    graph.prune()
    graph.inputs = [index for index in declared if index in graph]
    return graph


def training_step(graph: Graph) -> Step:
    """The whole step as a graph."""
    from ..compiler.training.step import Objective, Recipe, Rule, group_weights, step_graph

    paths = tuple(
        str(node.attrs["path"])
        for _, node in graph.of_op("param")
        if node.attrs["kind"] != "buffer" and node.type.is_float
    )
    settings = {"lr": RATE, "momentum": MOMENTUM, "dampening": 0.0, "nesterov": False,
                "weight_decay": 0.0}  # fmt: skip
    objective = Objective("loss", "loss", paths, Rule("sgd", settings))
    groups = group_weights(graph, [objective], ())
    return step_graph(graph, objective, groups, Recipe())


def training_inputs(graph: Graph, inputs: Arrays, seed: int) -> Arrays:
    """Inputs of inference, and labels among the classes instead of zeros."""
    rng = np.random.default_rng(seed + 2)
    found = dict(inputs)
    for index in graph.inputs:
        node = graph.node(index)
        if node.name == LABEL and not node.type.is_float:
            classes = min(_classes(graph, index), 1 << 31)
            shape = tuple(int(d) for d in node.type.shape)  # type: ignore[arg-type]
            found[LABEL] = rng.integers(0, classes, shape).astype(np.int32)
    return found


def _classes(graph: Graph, label: int) -> int:
    """Classes of the loss that reads the labels."""
    for user, place, _ in graph.users(label):
        node, operands = graph.node(user), graph.operands(user)
        if place == 1 and "axis" in node.attrs:
            axis: Any = node.attrs["axis"]
            return int(graph.type_of(operands[0]).shape[axis])  # type: ignore[arg-type]
    return 1


def first_state(step: Step, weights: Arrays) -> State:
    """The state before the first step."""
    from ..runtime.train.step import initial_state

    return initial_state(step.layout.groups, [step.layout], weights)


def step_inputs(step: Step, state: State, inputs: Arrays) -> Arrays:
    """What a step reads besides weights."""
    from ..runtime.train.step import COUNT, LR, inputs_of

    return inputs_of(step.layout, state, inputs, {LR: RATE, COUNT: 1.0})


GRADIENT, WEIGHT, STATISTIC = "gradient ", "weight ", "statistic "
"""Before a weight's path, the names of what is compared."""

STEP_TOLERANCE = 0.3
"""The error of one tensor, by :func:`step_error`, above which an engine does other work.

One rectifier that rounding turns moves a gradient by up to 1e-2 in a small net, and the worst of
PyTorch's own gradients of MobileNet v2 is off by 0.02 on one processor and by 0.15 on another; a
gradient with a wrong term is off by about 1.
"""

LEAST = 1e-3
"""The share of all tensors' root mean square below which one is measured by that."""


def step_error(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """The largest of |difference| / |reference| of the loss, a gradient, a weight, a statistic.

    Lengths of tensors (root of the sum of squares), not single elements: where an activation is
    next to zero, rounding decides whether a rectifier passes the cotangent on, so single elements
    jump by whole amounts in any float32 run. A gradient that rounding alone makes, such as that of
    a shift in front of a norm, is measured by ``LEAST`` of the root mean square of all gradients.
    ``inf`` where something is no number.
    """
    worst = 0.0
    for kind in ("loss", GRADIENT, WEIGHT, STATISTIC):
        tensors = {name: array for name, array in wanted.items() if name.startswith(kind)}
        count = sum(array.size for array in tensors.values())
        square = sum(float(np.square(array).sum()) for array in tensors.values())
        for name, reference in tensors.items():
            array = np.asarray(found[name], np.float64)
            if array.shape != reference.shape or not np.isfinite(array).all():
                return float("inf")
            least = LEAST * (square / count * reference.size) ** 0.5
            length = max(float(np.linalg.norm(reference)), least)
            gap = float(np.linalg.norm(array - reference))
            worst = max(worst, gap / length if length else gap)
    return worst


def compared(step: Step, results: Mapping[str, np.ndarray]) -> Arrays:
    """What is compared after the first step: the loss, gradients, new weights and statistics.

    The momentum starts at zero, so after one step it is the gradient.
    """
    found = {"loss": np.asarray(results["loss"]).reshape(1)}
    for group in step.layout.groups:
        for kind, name in ((WEIGHT, group.weights), (GRADIENT, f"{group.name}/velocity")):
            views = group.views(np.asarray(results[name]))
            found |= {kind + path: array for path, array in views.items()}
    for name, path in step.layout.statistics.items():
        found[STATISTIC + path] = results[name]
    return found


# ---------------------------------------------------------------- our own engine


def step_source(step: Step, title: str, threads: int) -> tuple[str, Any]:
    """The step as the text of a runnable module, and its plan with the graph that it computes."""
    from ..compiled import lowered_graph
    from ..compiler.lower.source import module_text
    from ..compiler.options import Options
    from ..steps import weights_as_inputs

    graph, _ = weights_as_inputs(step.graph)
    plan, fused = lowered_graph(graph, threads, Options(training=True))
    return module_text(plan, title), (plan, fused)


def prepare_step(
    module: Any, step: Step, weights: Arrays, inputs: Arrays
) -> Callable[[], Arrays]:  # fmt: skip
    """A call that makes one step after another: each begins where the last one ended.

    States take turns in two sets of buffers, as they do while training.
    """
    from ..runtime.train.step import advanced
    from ..steps import WEIGHT as INPUT

    ports = [port.name for port in module.plan.inputs]
    state = first_state(step, weights)
    spare: dict[str, np.ndarray] = {}

    def call() -> Arrays:
        nonlocal state, spare
        known = step_inputs(step, state, inputs)
        known |= {INPUT + path: array for path, array in state.weights.items()}
        results = module.run({name: known[name] for name in ports}, spare)
        spare = {name: known[name] for name in results if name in known}
        state = advanced(step.layout, state, results)
        return compared(step, results)

    return call
