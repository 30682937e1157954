"""Element-wise ops and fused groups of them to rows of generated kernels.

A group over images runs on blocks when all that it reads can be read so; else it runs by strides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.kernels import pointwise as pw
from ..ir.graph import Graph, Node, Value
from ..ops import OPS, OpError
from .convolution import BLOCK
from .cpu import Lowering, rule
from .cpu_batch_norm import channel_sums
from .cpu_nest import Strided, Walk, emit_nest, fold_axes, readable, region_constant, signed, under
from .cpu_simple import global_pool
from .storage import Blocked, Mapped

PER_CHANNEL = ("affine", "prelu")
"""Ops whose later operands are vectors along axis 1."""

ELEMENTWISE = tuple(name for name, op in OPS.items() if op.batching == "elementwise")

OUTSIDE = ("input", "constant", "fill")
"""Nodes of a region that compute nothing."""

Role = tuple[Value, bool]
"""A value of a region, and whether it is read as a vector along axis 1."""


@dataclass(frozen=True)
class Group:
    """A region and what stands for its inputs in the graph around it."""

    region: Graph
    inputs: Mapping[int, Value]
    name: str

    def roles(self, results: Sequence[Value]) -> list[Role]:
        """What the nodes that lead to some results read of the region's inputs, each once."""
        wanted = {value.node for value in results}
        found: dict[Role, None] = {}
        for index, node in reversed(list(self.region.nodes())):
            if index not in wanted or node.op in OUTSIDE:
                continue
            for place, value in enumerate(self.region.operands(index)):
                wanted.add(value.node)
                if value.node in self.inputs:
                    found[value, node.op in PER_CHANNEL and place > 0] = None
        for value in results:
            if value.node in self.inputs:
                found[value, False] = None
        return sorted(found, key=lambda role: (role[0].node, role[1]))

    def write(self, results: Sequence[Value], writer: pw.Writer, names: dict[Role, str]) -> list:
        """The nodes that lead to some results as steps; the results' names."""
        wanted = {value.node for value in results}
        order = list(self.region.nodes())
        for index, _ in reversed(order):
            if index in wanted:
                wanted |= {v.node for v in self.region.operands(index)}
        made: dict[Value, str] = {}
        for index, node in order:
            if index not in wanted or node.op == "input":
                continue
            number = region_constant(self.region, index)
            if number is not None:
                made[Value(index)] = writer.constant(node.type.dtype, number)
                continue
            channel = node.op in PER_CHANNEL
            operands = [
                made[v] if v in made else names[v, channel and place > 0]
                for place, v in enumerate(self.region.operands(index))
            ]
            if node.op == "affine":
                operands = [writer.apply("mul", operands[:2]), operands[2]]
            op = "add" if node.op == "affine" else node.op
            made[Value(index)] = writer.apply(op, operands, node.attrs)
        return [made[v] if v in made else names[v, False] for v in results]


@rule("fused_elementwise")
def lower_group(state: Lowering, index: int, node: Node) -> None:
    """A fused group: one kernel for its element-wise results, one for a reduction at its end."""
    region = node.regions[0]
    inputs = dict(zip(region.inputs, state.graph.operands(index), strict=True))
    group = Group(region, inputs, node.name)
    plain, folded = [], []
    for place, (_, value) in enumerate(region.outputs):
        is_fold = region.node(value.node).op == "reduce"
        (folded if is_fold else plain).append((Value(index, place), value))
    if plain:
        _elementwise(state, group, plain)
    for value, inner in folded:
        _reduced(state, group, value, inner)


def lower_single(state: Lowering, index: int, node: Node) -> None:
    """One element-wise op as a group of its own."""
    region = Graph("single")
    inputs = {}
    operands = []
    for value in state.graph.operands(index):
        inner = region.add_input("a", state.graph.type_of(value))
        inputs[inner.node] = value
        operands.append(inner)
    result = Value(region.add(node.op, operands, node.attrs, node.types, node.name))
    _elementwise(state, Group(region, inputs, node.name or node.op), [(Value(index), result)])


for _name in (*ELEMENTWISE, *PER_CHANNEL):
    rule(_name)(lower_single)


def _elementwise(state: Lowering, group: Group, results: list[tuple[Value, Value]]) -> None:
    """The kernel of results that are element-wise in the group's inputs, all of one shape."""
    roles = group.roles([inner for _, inner in results])
    kinds = [state.type_of(value) for value, _ in results]
    if all(kind.dtype == "f32" for kind in kinds) and _fits_blocks(state, group, roles, results[0]):
        goals = [state.new_blocked(value) for value, _ in results]
        blocked_walk(state, group, goals, [inner for _, inner in results])
        return
    shape = state.shape(results[0][0])
    ops = _key_ops(group.region)
    operands = [readable(_flat_operand(state, group, role, shape), ops) for role in roles]
    for kind in (*operands, *kinds):
        if kind.dtype not in pw.SIZES:
            raise OpError("E804", f"there is no CPU kernel for elements of type {kind.dtype}")
    writer = pw.Writer()
    names = {}
    goals = [state.new_flat(value) for value, _ in results]
    walk = shape or (1,)
    steps = [operand.strides or (0,) for operand in operands]
    places = pw.places(walk, steps)
    streams = "strided" not in places.access
    for role, operand, access in zip(roles, operands, places.access, strict=True):
        names[role] = writer.argument(operand.dtype, access if streams else "full")
    final = group.write([inner for _, inner in results], writer, names)
    expression = writer.finish(*final)
    targets = [signed(Strided(g.place, pw.row_major(shape), g.dtype), ops) for g in goals]
    label = group.name or "elementwise"
    if streams:
        kernel = pw.PointwiseKernel(expression, len(places.outer), state.target.lanes)
        words = pw.words(expression, places, [o.word for o in operands],
                         [goal.place for goal in goals], writer.values)  # fmt: skip
        state.emit_words(kernel, pw.tasks(places), words, label)
        return
    emit_nest(state, Walk(shape, (), tuple(operands), tuple(targets), expression,
                          tuple(writer.values)), label)  # fmt: skip


def _key_ops(region: Graph) -> list[str]:
    """The ops that read or make keys of random numbers, which are u64."""
    kinds = {index: [*map(region.type_of, region.operands(index)), *node.types]
             for index, node in region.nodes() if node.op not in OUTSIDE}  # fmt: skip
    return [region.node(i).op for i, own in kinds.items() if any(k.dtype == "u64" for k in own)]


def _flat_operand(state: Lowering, group: Group, role: Role, shape: Sequence[int]) -> Strided:
    value, channel = role
    view = state.view(group.inputs[value.node])
    if not channel:
        return under(view, shape)
    step = view.strides[0] if view.shape[0] != 1 else 0
    return Strided(view.place, (0, step, *(0 for _ in shape[2:])), view.dtype)


def _reduced(state: Lowering, group: Group, value: Value, inner: Value) -> None:
    """A reduction of what the group computes, in the same pass over memory."""
    region = group.region
    last = region.node(inner.node)
    kind, axes = str(last.attrs["kind"]), tuple(last.attrs["axes"])  # type: ignore[arg-type]
    source = region.operands(inner.node)[0]
    shape = tuple(int(d) for d in region.type_of(source).shape)  # type: ignore[arg-type]
    roles = group.roles([source])
    label = group.name or kind
    whole = kind == "sum" and axes == (0, 2, 3) and region.type_of(source).dtype == "f32"
    if whole and _fits_blocks(state, group, roles, (None, source)):
        stored = _stored_result(state, region, value, source)
        before = stored if isinstance(stored, Blocked) else state.loose_blocked(shape)
        if before is not stored:
            blocked_walk(state, group, [before], [source])
        channel_sums(state, before, state.new_flat(value), label)
        return
    pools = kind in ("mean", "max") and axes == (2, 3) and region.type_of(source).dtype == "f32"
    if pools and _fits_blocks(state, group, roles, (None, source)):
        before = state.loose_blocked(shape)
        blocked_walk(state, group, [before], [source])
        global_pool(state, before, state.new_flat(value), kind, label)
        return
    operands = [_flat_operand(state, group, role, shape) for role in roles]
    writer = pw.Writer()
    names = {r: writer.argument(o.dtype) for r, o in zip(roles, operands, strict=True)}
    expression = writer.finish(*group.write([source], writer, names))
    out = state.new_flat(value)
    fold_axes(state, operands, shape, axes, kind, expression, writer.values, out, label)


def _stored_result(state: Lowering, region: Graph, like: Value, inner: Value) -> object:
    """Where a value of the region lies, if it is one of the group's results."""
    places = [place for place, (_, value) in enumerate(region.outputs) if value == inner]
    return state.stored.get(Value(like.node, places[0])) if places else None


# ---------------------------------------------------------------- on blocks


def _fits_blocks(
    state: Lowering, group: Group, roles: Sequence[Role], result: tuple[Any, Value]
) -> bool:
    """Whether an image comes in as blocks and all else can be read along with it."""
    shape = tuple(int(d) for d in group.region.type_of(result[1]).shape)  # type: ignore[arg-type]
    if len(shape) != 4:
        return False
    outer = [group.inputs[value.node] for value, _ in roles]
    images = any(isinstance(state.stored.get(v), (Blocked, Mapped)) for v in outer)
    return images and all(_fits(state, v, channel, shape) for v, (_, channel) in
                          zip(outer, roles, strict=True))  # fmt: skip


def _fits(state: Lowering, value: Value, channel: bool, shape: tuple[int, ...]) -> bool:
    kind, own = state.type_of(value), state.shape(value)
    if kind.dtype != "f32":
        return False
    if value.node in state.phases:
        per_channel = own[1:] == (shape[1], 1, 1) and own[0] == 1 if len(own) == 4 else channel
        return per_channel or all(size == 1 for size in own)
    return (
        len(own) == 4
        and own[1] == shape[1]
        and own[2:] in (shape[2:], (1, 1))
        and own[0] in (shape[0], 1)
    )


def blocked_walk(
    state: Lowering, group: Group, goals: Sequence[Blocked], results: Sequence[Value]
) -> None:
    """Emit the kernel of element-wise results on blocks."""
    goal = goals[0]
    walk = (goal.blocks, goal.images, goal.height * goal.width, BLOCK)
    roles = group.roles(results)
    operands = [_block_operand(state, group, role, goal, walk) for role in roles]
    writer = pw.Writer()
    places = pw.places(walk, [o.strides for o in operands])
    names = {
        role: writer.argument(operand.dtype, access)
        for role, operand, access in zip(roles, operands, places.access, strict=True)
    }
    expression = writer.finish(*group.write(results, writer, names))
    kernel = pw.PointwiseKernel(expression, len(places.outer), state.target.lanes)
    words = pw.words(expression, places, [o.word for o in operands],
                     [other.place for other in goals], writer.values)  # fmt: skip
    state.emit_words(kernel, pw.tasks(places), words, group.name or "elementwise")


def _block_operand(
    state: Lowering, group: Group, role: Role, goal: Blocked, walk: Sequence[int]
) -> Strided:
    value = group.inputs[role[0].node]
    if value.node in state.phases:
        text = f"{state.load.text(value)}.reshape(-1)"
        if all(size == 1 for size in state.shape(value)):
            number = f"np.float32({text}).reshape(1)"
            packed = state.load.pack(f"{group.name}.number", number, 4)
            return Strided(packed, (0, 0, 0, 0), "f32")
        size = -(-goal.channels // BLOCK) * BLOCK
        packed = state.load.pack(f"{group.name}.vector", f"pack.vector({text}, {BLOCK})", size * 4)
        return Strided(packed, (BLOCK, 0, 0, 1), "f32")
    stored = state.blocked(value)
    block, image = stored.block // 4, stored.plane // 4
    strides = (block, image, BLOCK, 1)
    if (stored.height, stored.width) == (1, 1) and walk[2] != 1:
        strides = (block, image, 0, 1)
    if stored.images == 1 and walk[1] != 1:
        strides = (strides[0], 0, *strides[2:])
    return Strided(stored.place, strides, "f32")
