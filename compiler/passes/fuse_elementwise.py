"""Fuse element-wise ops: a group over one shape becomes one loop over memory.

Before::

    %2 = sub(%0, %1)
    %3 = square(%2)
    %4 = exp(neg(%3))
    %5 = reduce(%4) {kind="sum", axes=(1,)}

After::

    %5 = fused_elementwise(%0, %1) (
      a0, a1: reduce(exp(neg(square(sub(a0, a1)))))
    )

A group is convex: no path leaves it and comes back, through other groups either. Operands that
broadcast (scalars, vectors) are read as they are; scalars known now move inside.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..ir.graph import Graph, Value
from ..ir.types import TensorType
from ..ops.base import OPS
from ..options import Options
from ..rewrite import Rewriter, within_loops

MAX_OPS = 64
"""The most ops of one group: generated loops must fit the registers and compile quickly."""

PER_CHANNEL = ("affine", "prelu")
"""Ops that are element-wise but for a vector along axis 1."""

_APART = ("dropout", "drop_path", "size_of", "stop_gradient")


@dataclass
class _Group:
    """Nodes that will be one loop; ``reduce`` is the reduction at its end."""

    nodes: set[int]
    reduce: int | None = None


@dataclass
class _Groups:
    rewriter: Rewriter
    of: dict[int, _Group] = field(default_factory=dict)


def fuse_elementwise(rewriter: Rewriter, options: Options) -> None:
    """Fuse groups of two ops or more, computed at call; those done once at load stay apart."""
    within_loops(rewriter, lambda inner: fuse_elementwise(inner, options))
    groups = _Groups(rewriter)
    for index in rewriter.all():
        if _is_elementwise(rewriter, index):
            _join(groups, index)
    for index in rewriter.of_op("reduce"):
        _end_with(groups, index)
    distinct = {id(group): group for group in groups.of.values()}
    for group in distinct.values():
        if len(group.nodes) > 1:
            _emit(rewriter, group)


def _is_elementwise(rewriter: Rewriter, index: int) -> bool:
    node = rewriter.node(index)
    row = OPS[node.op]
    if rewriter.steady(Value(index)) or node.op in _APART or not rewriter.operands(index):
        return False
    return row.batching == "elementwise" or node.op in PER_CHANNEL


# ---------------------------------------------------------------- growing groups


def _join(groups: _Groups, index: int) -> None:
    """Put a node into one group with its producers where that is legal."""
    rewriter = groups.rewriter
    group = groups.of[index] = _Group({index})
    shape = rewriter.node(index).type.shape
    producers = sorted({v.node for v in rewriter.operands(index)}, key=rewriter.rank, reverse=True)
    for producer in producers:
        other = groups.of.get(producer)
        if other is None or other is group:
            if other is None and not rewriter.steady(Value(producer)):
                name = rewriter.node(producer).op
                rewriter.refuse(producer, index, f"{name} is not element-wise")
            continue
        reason = _why_not(groups, other, group, shape)
        if reason is not None:
            rewriter.refuse(producer, index, reason)
            continue
        group.nodes |= other.nodes
        for member in other.nodes:
            groups.of[member] = group


def _why_not(groups: _Groups, above: _Group, below: _Group, shape: tuple) -> str | None:
    rewriter = groups.rewriter
    found = rewriter.node(next(iter(above.nodes))).type.shape
    if found != shape:
        kind = TensorType("", found)
        return f"they run over different shapes, {kind} and {TensorType('', shape)}"
    if len(above.nodes) + len(below.nodes) > MAX_OPS:
        return f"the group would have more than {MAX_OPS} ops"
    if _reaches(groups, above, below) or _reaches(groups, below, above):
        return "a path between them leaves the group, so that fusing would make a cycle"
    return None


def _reaches(groups: _Groups, above: _Group, below: _Group) -> bool:
    """Whether a path leads from one group to another by way of something else."""
    rewriter = groups.rewriter
    limit = max(map(rewriter.rank, below.nodes))
    seen: set[int] = set()
    stack = [u for u in _users(rewriter, above.nodes) if u not in above.nodes | below.nodes]
    while stack:
        index = stack.pop()
        if index in seen:
            continue
        # What is fused runs as one: to reach a member is to reach all of its group.
        together = groups.of[index].nodes if index in groups.of else {index}
        seen |= together
        for user in _users(rewriter, [i for i in together if rewriter.rank(i) < limit]):
            if user in below.nodes:
                return True
            if user not in above.nodes:
                stack.append(user)
    return False


def _users(rewriter: Rewriter, nodes: Iterable[int]) -> set[int]:
    return {user for index in nodes for user, _, _ in rewriter.graph.users(index)}


def _end_with(groups: _Groups, index: int) -> None:
    """Put a reduction at the end of the group that makes its operand."""
    rewriter = groups.rewriter
    (value,) = rewriter.operands(index)
    group = groups.of.get(value.node)
    if group is None:
        return
    if group.reduce is not None:
        rewriter.refuse(value.node, index, "the group ends with another reduction already")
        return
    group.reduce = index
    group.nodes.add(index)
    groups.of[index] = group


# ---------------------------------------------------------------- making one node of a group


def _emit(rewriter: Rewriter, group: _Group) -> None:
    members = sorted(group.nodes, key=lambda index: (rewriter.rank(index), index))
    region, operands, inner = Graph("fused"), [], {}
    for index in members:
        for value in rewriter.operands(index):
            if value in inner or value.node in group.nodes:
                continue
            inner[value] = _inside(rewriter, region, value, len(operands))
            if region.node(inner[value].node).op == "input":
                operands.append(value)
        node = rewriter.node(index)
        read = [inner[value] for value in rewriter.operands(index)]
        made = region.add(node.op, read, node.attrs, node.types, node.name, node.span)
        inner[Value(index)] = Value(made)
    results = [i for i in members if _is_read_outside(rewriter, i, group.nodes)]
    for place, index in enumerate(results):
        region.set_output(f"r{place}", inner[Value(index)])
    fused = rewriter.emit("fused_elementwise", operands, {}, members[-1], (region,))
    for index in members:
        rewriter.became[index] = fused.node
    for place, index in enumerate(results):
        rewriter.replace(Value(index), Value(fused.node, place))


def _inside(rewriter: Rewriter, region: Graph, value: Value, place: int) -> Value:
    """What a group reads from outside: a scalar known now, or an input of the region."""
    node = rewriter.node(value.node)
    if rewriter.scalar(value) is not None and node.type.shape == ():
        if node.op == "constant":
            return region.add_constant(rewriter.graph.constant(value.node), node.type.dtype)
        return Value(region.add("fill", (), node.attrs, node.types))
    return region.add_input(f"a{place}", rewriter.type_of(value))


def _is_read_outside(rewriter: Rewriter, index: int, nodes: set[int]) -> bool:
    value = Value(index)
    return rewriter.is_output(value) or any(u not in nodes for u, _ in rewriter.readers(value))
