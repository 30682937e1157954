"""What every renderer shows of a graph: one box an op, its weights folded in.

Weights and constants are not boxes; they belong to the op that reads them. A box knows its short
label, its family (for colour) and its block, the weight path of the definition that it sits in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..compiler.cost import Cost, NodeCost, cost, weight_path
from ..compiler.ir.dims import DimLike
from ..compiler.ir.graph import Graph, Node, Value
from ..compiler.ir.types import Span, TensorType

FAMILIES: dict[str, tuple[str, ...]] = {
    "input": ("input", "output"),
    "convolution": ("conv", "conv_transpose"),
    "product": ("linear", "matmul", "contract", "embedding"),
    "normalisation": (
        *("batch_norm", "batch_norm_train", "layer_norm", "instance_norm", "group_norm"),
        *("switchable_norm", "lrn", "l2norm"),
    ),
    "activation": (
        *("relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "gelu", "swish", "mish", "tanh"),
        *("sigmoid", "hardsigmoid", "hardswish", "softplus", "softsign", "maxout"),
        *("softmax", "log_softmax"),
    ),
    "pooling": (
        *("maxpool", "maxpool_with_indices", "avgpool", "adaptive_avgpool", "adaptive_maxpool"),
        *("maxunpool", "reduce", "argmax", "argmin", "var"),
    ),
    "combination": (
        *("add", "sub", "mul", "div", "maximum", "minimum", "where", "concat", "stack"),
    ),
    "shape": (
        *("reshape", "transpose", "split", "slice", "pad", "gather", "broadcast", "flatten"),
        *("resize", "pixel_shuffle", "pixel_unshuffle", "cast", "permute"),
    ),
    "loop": ("scan", "fix", "iterate", "chain"),
}
"""Which ops share a colour; all others are of family ``other``."""

_FAMILY = {op: family for family, ops in FAMILIES.items() for op in ops}


@dataclass(frozen=True)
class Weight:
    """A ``param`` that an op reads directly."""

    path: str
    kind: str
    type: TensorType


@dataclass(frozen=True)
class Box:
    """One op as it is shown.

    ``path`` is its weight path or label, ``block`` the components of the path it sits in (inherited
    from its producers where the op has no path of its own). ``reads`` leaves out weights and
    constants. A weight is counted at the first op that reads it; ``recursive`` says that this op
    reads one that was counted before.
    """

    index: int
    op: str
    path: str
    block: tuple[str, ...]
    label: str
    family: str
    types: tuple[TensorType, ...]
    reads: tuple[Value, ...]
    weights: tuple[Weight, ...]
    parameters: DimLike
    buffers: DimLike
    macs: DimLike
    written_bytes: DimLike
    recursive: bool = False
    span: Span | None = None


def boxes(
    graph: Graph, bindings: Mapping[str, DimLike] | None = None, costs: Cost | None = None
) -> list[Box]:
    """Boxes of a graph in canonical order; ``costs`` saves computing them again."""
    rows = {row.index: row for row in (costs or cost(graph, bindings)).rows}
    blocks = _blocks(graph)
    counted: set[int] = set()
    found: list[Box] = []
    for index, (path, block) in blocks.items():
        operands = graph.operands(index)
        held = dict.fromkeys(v.node for v in operands if graph.node(v.node).op == "param")
        fresh = [i for i in held if i not in counted]
        counted.update(fresh)
        reads = tuple(v for v in operands if v.node in blocks)
        weights = tuple(_weight(graph.node(i)) for i in held)
        own = [rows[i] for i in fresh]
        found.append(_box(graph.node(index), path, block, reads, weights, own, rows[index]))
    return found


def common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The longest sequence of components that all paths start with."""
    if not paths:
        return ()
    first, last = min(paths), max(paths)
    size = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first[: min(len(first), len(last)) if size is None else size]


def family_of(op: str) -> str:
    """The family that gives an op its colour."""
    return _FAMILY.get(op, "other")


def dims_text(kind: TensorType) -> str:
    """A shape as drawings show it: ``N×64×56×56``, or in brackets where a size is a formula."""
    if not kind.shape:
        return "scalar"
    sizes = [str(d) for d in kind.shape]
    if all(s.isalnum() for s in sizes):
        return "×".join(sizes)
    return "[" + ", ".join(sizes) + "]"


def count_text(count: DimLike) -> str:
    """A number as people say it: ``25.6 M``; a symbolic one as it is."""
    if not isinstance(count, int):
        return str(count)
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if abs(count) >= size:
            return f"{count / size:.3g} {unit}" if abs(count) < 999.5 * size else f"{count:.3g}"
    return str(count)


# ---------------------------------------------------------------- helpers


def _blocks(graph: Graph) -> dict[int, tuple[str, tuple[str, ...]]]:
    """The path and the block of every op."""
    paths = {}
    for index, node in graph.nodes():
        if node.op not in ("param", "constant"):
            held = {v.node for v in graph.operands(index) if graph.node(v.node).op == "param"}
            paths[index] = _path(node, [_weight(graph.node(i)) for i in sorted(held)])
    named = {index: tuple(path.split(".")[:-1]) for index, path in paths.items() if path}
    placed: dict[int, tuple[str, ...]] = {}
    ancestors: dict[int, int] = {}
    for index in paths:
        reads = {v.node for v in graph.operands(index) if v.node in paths}
        above = 0
        for source in reads:
            above |= ancestors[source] | 1 << source
        ancestors[index] = above
        if index in named:
            placed[index] = named[index]
        elif family_of(graph.node(index).op) == "pooling" and len(reads) == 1:
            placed[index] = _between(graph, index, placed[min(reads)], min(reads), named)
        else:
            placed[index] = _inherited(reads, placed, ancestors)
    return {index: (paths[index], placed[index]) for index in paths}


def _inherited(
    reads: set[int], placed: Mapping[int, tuple[str, ...]], ancestors: Mapping[int, int]
) -> tuple[str, ...]:
    """The block that an op without a path continues.

    A producer that another producer already follows from is a skip connection into the block, not
    a part of it; the branches that remain meet in the block they share.
    """
    ends = [i for i in reads if not any(ancestors[j] >> i & 1 for j in reads)]
    return common([placed[i] for i in ends])


def _between(
    graph: Graph,
    index: int,
    before: tuple[str, ...],
    source: int,
    named: Mapping[int, tuple[str, ...]],
) -> tuple[str, ...]:
    """The block of a pooling without a path.

    It belongs with the branches beside it where there are any, else to what holds both its sides.
    """
    beside = [named[user] for user, _, _ in graph.users(source) if user in named]
    after = [named[user] for user, _, _ in graph.users(index) if user in named]
    return common(beside + after) if beside else common([before, *after])


def _box(
    node: Node,
    path: str,
    block: tuple[str, ...],
    reads: tuple[Value, ...],
    weights: tuple[Weight, ...],
    fresh: Sequence[NodeCost],
    row: NodeCost,
) -> Box:
    parameters: DimLike = row.parameters
    buffers: DimLike = row.buffers
    for held in fresh:
        parameters, buffers = parameters + held.parameters, buffers + held.buffers
    return Box(
        row.index,
        node.op,
        path,
        block,
        _label(node, weights),
        family_of(node.op),
        node.types,
        reads,
        weights,
        parameters,
        buffers,
        row.macs,
        row.written_bytes,
        recursive=len(weights) > sum(1 for held in fresh if held.parameters or held.buffers),
        span=node.span,
    )


def _weight(node: Node) -> Weight:
    return Weight(weight_path(node), str(node.attrs.get("kind", "weight")), node.type)


def _path(node: Node, weights: Iterable[Weight]) -> str:
    """The path of the module that holds the op's weights, else the op's name."""
    holders = [tuple(w.path.split(".")[:-1]) for w in weights]
    return ".".join(common(holders)) or node.name


def _label(node: Node, weights: Sequence[Weight]) -> str:
    attrs, shape = node.attrs, node.types[0].shape if node.types else ()
    if node.op in ("conv", "conv_transpose"):
        kernel = next((w.type.shape[2:] for w in weights if w.type.rank > 2), ())
        name = "conv" if node.op == "conv" else "deconv"
        channels = f", {shape[1]}" if len(shape) > 1 else ""
        groups = f" ÷{attrs['groups']}" if attrs.get("groups", 1) != 1 else ""
        return f"{name}{_window(kernel, attrs.get('stride'))}{channels}{groups}"
    if "kernel" in attrs:
        return node.op + _window(attrs["kernel"], attrs.get("stride"))
    if node.op == "linear" and shape:
        return f"linear {shape[-1]}"
    if node.op == "input":
        return node.name or "input"
    if node.op == "reduce":
        return f"{attrs.get('kind', 'reduce')} {_numbers(attrs.get('axes'))}".rstrip()
    if node.op == "contract":
        return f"contract {attrs.get('spec', '')}".rstrip()
    if node.op == "scan" and "length" in attrs:
        return f"scan {attrs['length']} steps"
    return node.op


def _window(kernel: object, stride: object) -> str:
    sizes = [str(k) for k in kernel] if isinstance(kernel, tuple) else []
    steps = [str(s) for s in stride] if isinstance(stride, tuple) else []
    text = " " + "×".join(sizes) if sizes else ""
    if any(s != "1" for s in steps):
        text += "/" + (steps[0] if len(set(steps)) == 1 else "×".join(steps))
    return text


def _numbers(axes: object) -> str:
    return ", ".join(str(a) for a in axes) if isinstance(axes, tuple) else ""
