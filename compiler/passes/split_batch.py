"""Split the batch: images go through the net in parts whose values stay in cache.

Before::

    %1 = fused_conv(%image, %W)               # f32[8, 64, 112, 112]
    %2 = reduce(%1) {kind="mean", axes=(2, 3)}
    %3 = linear(%2, %F)

After::

    %1 = reshape(%image)                      # f32[8, 1, 3, 224, 224]
    %2 = scan(%1, %W) {n_carry=0, n_xs=1, length=8} (
      image, W: reduce(fused_conv(image, W))
    )
    %3 = linear(reshape(%2), %F)

A layer that writes a whole batch sends it to memory, and the next one fetches it; a part is still
there. It pays where a batch's values are more than a cache holds and more than the weights, which
are read once a part. Dense layers on vectors stay outside: they read their weights once for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..cost import cost
from ..ir.graph import Graph, Node, Value
from ..ir.types import TensorType
from ..ops.base import OPS, OpError, infer
from ..ops.control import region_result_types
from ..ops.fused import FUSED
from ..options import Options
from ..rewrite import Rewriter
from .fuse_elementwise import PER_CHANNEL

LAST_LEVEL = 16 << 20
"""Bytes of values up to which a batch stays whole: a cautious share of a last-level cache."""

WEIGHTS = 2
"""Times that a batch's values must be larger than the weights, which each part reads again."""

DENSE = ("linear", "fused_linear")


def split_batch(rewriter: Rewriter, options: Options) -> None:
    """Put what works image by image into a loop over parts of the batch, where that pays."""
    if not options.threads or options.training or rewriter.graph.symbols:
        return
    images = _images(rewriter)
    if not images:
        return
    batch = _batch(rewriter, images[0])
    size = _part(rewriter.graph, batch, options.threads)
    if size == batch:
        return
    made, nodes = _by_image(rewriter, images, batch, size)
    if any(node.op in OPS and OPS[node.op].macs for node in nodes.values()):
        _put_loop(rewriter, images, made, nodes, batch // size)


def _images(rewriter: Rewriter) -> list[Value]:
    """Inputs that are batches of images, if there is one batch and not a single image."""
    inputs = [Value(index) for index in rewriter.graph.inputs]
    found = [v for v in inputs if rewriter.type_of(v).rank == 4 and rewriter.type_of(v).is_float]
    batches = {_batch(rewriter, value) for value in found}
    return found if len(batches) == 1 and batches != {1} else []


def _batch(rewriter: Rewriter, value: Value) -> int:
    size: Any = rewriter.type_of(value).shape[0]
    return size


def _part(graph: Graph, batch: int, threads: int) -> int:
    """Images of a part: one a thread at least, so that few values go from core to core.

    All of the batch where splitting does not pay.
    """
    whole = cost(graph)
    live, weights = whole.peak_bytes, whole.parameter_bytes
    if not isinstance(live, int) or not isinstance(weights, int):
        return batch
    if live <= LAST_LEVEL or live < WEIGHTS * weights:
        return batch
    return next(size for size in range(min(threads, batch), batch + 1) if batch % size == 0)


# ---------------------------------------------------------------- what works by image


def _by_image(
    rewriter: Rewriter, images: Sequence[Value], batch: int, size: int
) -> tuple[dict[Value, TensorType], dict[int, Node]]:
    """Values that the images make one by one, with their types in a part, and their nodes there."""
    part = {value: _of_size(rewriter.type_of(value), size) for value in images}
    nodes: dict[int, Node] = {}
    # What is made of a whole batch cannot be read inside the loop that makes the batch.
    beyond: set[int] = set()
    for index in rewriter.all():
        operands = rewriter.operands(index)
        if any(value.node in beyond for value in operands):
            beyond.add(index)
        elif any(value in part for value in operands):
            made = _in_part(rewriter, index, part, batch, size)
            if made is None:
                beyond.add(index)
                continue
            nodes[index] = made
            part |= {Value(index, place): kind for place, kind in enumerate(made.types)}
    return part, nodes


def _in_part(
    rewriter: Rewriter, index: int, part: Mapping[Value, TensorType], batch: int, size: int
) -> Node | None:
    """A node as it stands in a part, or ``None`` if it does not work image by image."""
    node, operands = rewriter.node(index), rewriter.operands(index)
    kinds = [rewriter.type_of(value) for value in operands]
    inside = [value in part for value in operands]
    # What a call gives, weights of a validation too, would be packed again for every part.
    known = all(rewriter.steady(v) for v, flag in zip(operands, inside, strict=True) if not flag)
    if not known or (node.op in DENSE and kinds[0].rank == 2):
        return None
    made = _retyped(node, kinds, [part.get(v, k) for v, k in zip(operands, kinds, strict=True)],
                    inside, size)  # fmt: skip
    wanted = tuple(_of_size(kind, size) for kind in node.types)
    heads = {kind.shape[0] if kind.rank else None for kind in node.types}
    return made if made is not None and made.types == wanted and heads == {batch} else None


def _retyped(
    node: Node, kinds: Sequence[TensorType], parts: Sequence[TensorType], inside: Sequence[bool],
    size: int,
) -> Node | None:  # fmt: skip
    """A node on operands of a part; ``None`` where images would meet."""
    if node.op == "fused_elementwise":
        region = _region(node.regions[0], parts, inside, size)
        if region is None:
            return None
        types = region_result_types(node.op, parts, node.attrs, region)
        return replace(node, types=types, regions=(region,))
    if node.op not in OPS or node.regions or not _apart(node, kinds, inside):
        return None
    attrs = dict(node.attrs)
    if node.op == "reshape":
        attrs["shape"] = (size, *node.type.shape[1:])
    try:
        return replace(node, attrs=attrs, types=infer(node.op, parts, attrs))
    except OpError:
        return None


def _region(
    region: Graph, parts: Sequence[TensorType], inside: Sequence[bool], size: int
) -> Graph | None:
    """A fused group on operands of a part."""
    made = region.copy()
    given = dict(zip(region.inputs, parts, strict=True))
    flags = {Value(i): flag for i, flag in zip(region.inputs, inside, strict=True)}
    for index, node in region.nodes():
        if node.op == "input":
            made.set_node(index, replace(node, types=(given[index],)))
            continue
        operands = region.operands(index)
        marks = [flags.get(value, False) for value in operands]
        if not any(marks):
            continue
        found = _retyped(node, [region.type_of(v) for v in operands],
                         [made.type_of(v) for v in operands], marks, size)  # fmt: skip
        if found is None:
            return None
        made.set_node(index, found)
        flags |= {Value(index, place): True for place in range(len(found.types))}
    return made


def _apart(node: Node, kinds: Sequence[TensorType], inside: Sequence[bool]) -> bool:
    """Whether an op keeps images apart: by how it maps over a leading axis (see :class:`Op`)."""
    row, attrs = OPS[node.op], node.attrs
    if row.random:
        return False
    if node.op == "reshape":
        return kinds[0].rank > 0 and node.type.rank > 0 and node.type.shape[0] == kinds[0].shape[0]
    if node.op == "transpose":
        perm: Any = attrs["perm"]
        return perm[0] == 0
    if row.batching == "elementwise" or node.op in PER_CHANNEL:
        rank = node.type.rank
        return all(
            kind.rank == rank if flag else kind.rank < rank or kind.shape[0] == 1
            for flag, kind in zip(inside, kinds, strict=True)
        )
    if row.batching == "axis":
        axes = [axis % kinds[0].rank for name in row.axis_attrs for axis in _axes(attrs.get(name))]
        return all(inside) and bool(axes) and 0 not in axes
    if row.batching == "last":
        return inside[0] and not any(inside[1:]) and kinds[0].rank > 1
    return inside[0] and (row.batching == "leading" or node.op in FUSED.values())


def _axes(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value or ())


def _of_size(kind: TensorType, size: int) -> TensorType:
    return kind.with_shape((size, *kind.shape[1:])) if kind.rank else kind


# ---------------------------------------------------------------- the loop


def _put_loop(
    rewriter: Rewriter,
    images: Sequence[Value],
    part: Mapping[Value, TensorType],
    nodes: Mapping[int, Node],
    turns: int,
) -> None:
    """One loop in the place of the nodes."""
    region = Graph("part")
    stacks = [_stacked(rewriter, value, part[value], turns) for value in images]
    inner = {v: region.add_input(rewriter.node(v.node).name, part[v]) for v in images}
    captured: list[Value] = []
    for index in nodes:
        for value in rewriter.operands(index):
            if value not in inner and value not in part:
                inner[value] = region.add_input(f"c{len(captured)}", rewriter.type_of(value))
                captured.append(value)
    for index, node in nodes.items():
        operands = [inner[value] for value in rewriter.operands(index)]
        new = region.add(node.op, operands, node.attrs, node.types, node.name, node.span,
                         node.regions)  # fmt: skip
        inner |= {Value(index, place): Value(new, place) for place in range(len(node.types))}
    results = [value for value in part if value not in images and _leaves(rewriter, value, nodes)]
    for value in results:
        region.set_output(f"r{len(region.outputs)}", inner[value])
    attrs = {"n_carry": 0, "n_xs": len(images), "length": turns, "reverse": False}
    loop = rewriter.emit("scan", [*stacks, *captured], attrs, None, (region,))
    for place, value in enumerate(results):
        shape = rewriter.type_of(value).shape
        whole = rewriter.emit("reshape", (Value(loop.node, place),), {"shape": shape}, value.node)
        rewriter.replace(value, whole)


def _stacked(rewriter: Rewriter, value: Value, kind: TensorType, turns: int) -> Value:
    return rewriter.emit("reshape", (value,), {"shape": (turns, *kind.shape)})


def _leaves(rewriter: Rewriter, value: Value, nodes: Mapping[int, Node]) -> bool:
    """Whether something after the loop reads a value."""
    outside = any(reader not in nodes for reader, _ in rewriter.readers(value))
    return outside or rewriter.is_output(value)
