"""The graph that training runs: batch statistics, new running statistics, dropout at work.

Before::

    %4 = batch_norm(%x, %mean, %var, %weight, %bias)
    %5 = dropout(%4) {rate=0.5}

After::

    %4:5 = batch_norm_train(%x, %mean, %var, %weight, %bias)
    %5 = where(%key drew more than rate, %4 / (1 - rate), 0)
    output "new(bn.running_mean)" = %4.1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..ir.graph import Graph, Node, Value
from ..ops.base import OpError
from ..ops.expr import Expr, Writer
from ..ops.random import KEY_TYPE

KEY = "key"


@dataclass(frozen=True)
class Training:
    """A graph in training mode.

    ``state`` maps each running statistic, by weight path, to the value it has after the step. The
    graph has an input ``key`` (seed and step) where something is random.
    """

    graph: Graph
    state: dict[str, Value]


def to_training(graph: Graph, frozen: Callable[[str], bool] = lambda path: False) -> Training:
    """A copy in which norms use the statistics of the batch and dropout drops.

    Norms whose running statistics are ``frozen``, by weight path, keep them. Every dropout draws
    by the key's seed and step and its own place in the graph. Statistics that several calls of a
    norm share are updated by one after the other. Raises :class:`OpError` E809 for a norm inside a
    loop, whose state a region cannot hold.
    """
    result = graph.copy()
    state: dict[str, Value] = {}
    drops = 0
    for index, node in list(result.nodes()):
        for region in node.regions:
            _refuse_state(region)
        writer = Writer(result, node.name, node.span)
        if node.op == "batch_norm":
            _use_batch(writer, index, node, state, frozen)
        elif node.op in ("dropout", "drop_path") and node.attrs["rate"]:
            drawn = _dropped(writer, index, node, f"{node.op}/{drops}")
            drops += 1
            result.replace_uses(Value(index), drawn.value)
            result.remove(index)
    return Training(result, state)


def _use_batch(
    writer: Writer,
    index: int,
    node: Node,
    state: dict[str, Value],
    frozen: Callable[[str], bool],
) -> None:
    graph = writer.graph
    x, mean, var, *learned = graph.operands(index)
    paths = [_path(graph, value) for value in (mean, var)]
    if any(path is None or frozen(path) for path in paths):
        return
    mean, var = (state.get(str(p), v) for p, v in zip(paths, (mean, var), strict=True))
    made = writer.emit("batch_norm_train", [x, mean, var, *learned], node.attrs)
    graph.replace_uses(Value(index), made[0])
    graph.remove(index)
    state.update({str(path): value for path, value in zip(paths, made[1:3], strict=True)})


def _path(graph: Graph, value: Value) -> str | None:
    """The weight path behind a value."""
    node = graph.node(value.node)
    return str(node.attrs["path"]) if node.op == "param" else None


def _dropped(writer: Writer, index: int, node: Node, path: str) -> Expr:
    """Elements kept with probability 1 - rate and scaled up, or whole samples (drop_path)."""
    x = writer.expr(writer.graph.operands(index)[0])
    rate = float(node.attrs["rate"])  # type: ignore[arg-type]
    shape = x.shape if node.op == "dropout" else (*x.shape[:1], *(1,) * (x.rank - 1))
    key = writer.expr(_key(writer.graph))
    drawn = key.op("random_uniform", path=path, shape=shape, dtype=x.dtype)
    ramp = node.attrs.get("ramp", 0)
    if not isinstance(ramp, int) or not ramp:
        return (drawn >= rate).where(x * (1 / (1 - rate)), 0)
    # The second number of the key counts batches.
    batch = key.slice(0, 1, 2).reshape(()).cast(x.dtype)
    reached = (batch * (1 / ramp)).minimum(1.0) * rate
    return (drawn >= reached).where(x / (1 - reached), 0)


def _key(graph: Graph) -> Value:
    """The graph's input of seed and step, declared if need be."""
    for index in graph.inputs:
        if graph.node(index).name == KEY:
            return Value(index)
    return graph.add_input(KEY, KEY_TYPE)


def _refuse_state(region: Graph) -> None:
    for _, node in region.nodes():
        drops = node.op in ("dropout", "drop_path") and bool(node.attrs["rate"])
        if node.op == "batch_norm" or drops:
            place = f" (at {node.span})" if node.span is not None else ""
            raise OpError(
                "E809",
                f"{node.op} inside a recurrence cannot train: its step is the same at every "
                f"index{place}",
                "apply it to the whole sequence, before or after the recurrence",
            )
        for inner in node.regions:
            _refuse_state(inner)
