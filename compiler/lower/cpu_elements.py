"""Element-wise ops and fused groups of them to rows of generated kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.kernels import pointwise as pw
from ...runtime.kernels.elements import VECTOR_FLOAT
from ..ir.graph import Graph, Node, Value
from ..ops import OPS, OpError
from .convolution import BLOCK
from .cpu import Lowering, rule
from .cpu_simple import global_pool
from .storage import Blocked, Flat

ELEMENTWISE = tuple(
    name for name, op in OPS.items() if op.batching == "elementwise" and name in VECTOR_FLOAT
)


@dataclass(frozen=True)
class Operand:
    """An operand of a walk: its word, and its strides in elements under the result's shape."""

    word: Any
    strides: tuple[int, ...]
    dtype: str


@rule("fused_elementwise")
def lower_group(state: Lowering, index: int, node: Node) -> None:
    """A fused group: one kernel, or a kernel and the reduction that ends it."""
    region = node.regions[0]
    inputs = dict(zip(region.inputs, state.graph.operands(index), strict=True))
    result = region.outputs[0][1]
    last = region.node(result.node)
    if len(region.outputs) != 1:
        raise OpError("E804", "there is no CPU kernel for a group with several results yet")
    if last.op == "reduce":
        _reduced(state, index, node, region, inputs, last)
        return
    _walk(state, _goal(state, Value(index), inputs), region, result, inputs, node.name)


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
    _walk(state, _goal(state, Value(index), inputs), region, result, inputs, node.name)


for _name in (*ELEMENTWISE, "affine"):
    rule(_name)(lower_single)


def _goal(state: Lowering, value: Value, inputs: dict[int, Value]) -> Blocked | Flat:
    """Storage of a group's result: blocked when an image goes in and comes out."""
    images = any(isinstance(state.stored.get(v), Blocked) for v in inputs.values())
    if images and len(state.shape(value)) == 4:
        return state.new_blocked(value)
    return state.new_flat(value)


def _walk(
    state: Lowering, goal: Blocked | Flat, region: Graph, result: Value,
    inputs: dict[int, Value], name: str,
) -> None:  # fmt: skip
    """Emit the kernel of a region whose result is element-wise in its inputs."""
    blocked = isinstance(goal, Blocked)
    if isinstance(goal, Blocked):
        walk = (goal.blocks, goal.images, goal.height * goal.width, BLOCK)
    else:
        walk = goal.shape or (1,)
    operands = {
        inner: _operand(state, outer, region.node(inner).type.shape, goal, walk, blocked, name)
        for inner, outer in inputs.items()
    }
    writer = pw.Writer()
    places = pw.places(walk, [o.strides for o in operands.values()])
    names: dict[Value, str] = {}
    for (inner, operand), access in zip(operands.items(), places.access, strict=True):
        names[Value(inner)] = writer.argument(operand.dtype, access)
    final = _write(region, result, writer, names)
    expression = writer.finish(final)
    kernel = pw.PointwiseKernel(expression, len(places.outer), state.target.lanes)
    words = pw.words(
        expression, places, [o.word for o in operands.values()], [goal.place], writer.values
    )
    state.emit_words(kernel, pw.tasks(places), words, name or "elementwise")


def _write(region: Graph, result: Value, writer: pw.Writer, names: dict[Value, str]) -> str:
    """The region's nodes as steps of the expression."""
    for index, node in region.nodes():
        if node.op == "input" or node.op == "reduce":
            continue
        operands = [names[v] for v in region.operands(index)]
        if node.op == "constant":
            number = region.constants[str(node.attrs["hash"])]
            if number.size != 1:
                raise OpError("E804", "a fused group holds constants of one element")
            names[Value(index)] = writer.constant(node.type.dtype, number.item())
        elif node.op == "affine":
            scaled = writer.apply("mul", operands[:2])
            names[Value(index)] = writer.apply("add", [scaled, operands[2]])
        else:
            names[Value(index)] = writer.apply(node.op, operands, node.attrs)
    return names[result]


def _operand(
    state: Lowering, value: Value, shape: Any, goal: Any, walk: Sequence[int], blocked: bool,
    name: str,
) -> Operand:  # fmt: skip
    sizes = tuple(int(d) for d in shape)
    if not blocked:
        source = state.flat_or_packed(value)
        return Operand(source[0], pw.broadcast_strides(sizes, walk), source[1])
    if value.node in state.phases:
        if len(sizes) == 1 or (len(sizes) == 4 and sizes[0] == sizes[2] == sizes[3] == 1):
            text = f"{state.load.text(value)}.reshape(-1)"
            count = sizes[0] if len(sizes) == 1 else sizes[1]
            if count == 1:
                packed = state.load.pack(f"{name}.number", f"np.float32({text}).reshape(1)", 4)
                return Operand(packed, (0, 0, 0, 0), "f32")
            packed = _vector(state, text, name, count)
            return Operand(packed, (BLOCK, 0, 0, 1), "f32")
        raise OpError("E804", f"there is no CPU kernel for a weight of shape {list(sizes)} here")
    stored = state.blocked(value) if len(sizes) == 4 else None
    if stored is None or stored.channels != goal.channels:
        raise OpError("E804", f"there is no CPU kernel to broadcast {list(sizes)} here yet")
    block, image = stored.block // 4, stored.plane // 4
    strides = (block, image, BLOCK, 1)
    if (stored.height, stored.width) == (1, 1) and walk[2] != 1:
        strides = (block, image, 0, 1)
    if stored.images == 1 and walk[1] != 1:
        strides = (strides[0], 0, *strides[2:])
    return Operand(stored.place, strides, "f32")


def _vector(state: Lowering, text: str, name: str, count: int) -> Any:
    size = -(-count // BLOCK) * BLOCK
    return state.load.pack(f"{name}.vector", f"pack.vector({text}, {BLOCK})", size * 4)


def _reduced(
    state: Lowering, index: int, node: Node, region: Graph, inputs: dict[int, Value], last: Node
) -> None:
    """A group that ends in a mean or maximum over planes."""
    kind, axes = str(last.attrs["kind"]), last.attrs["axes"]
    source = region.operands(region.outputs[0][1].node)[0]
    if kind not in ("mean", "max") or axes != (2, 3):
        raise OpError("E804", f"there is no CPU kernel for a group that ends in {kind} yet")
    shape = tuple(int(d) for d in region.type_of(source).shape)  # type: ignore[arg-type]
    before = state.loose_blocked(shape)
    _walk(state, before, region, source, inputs, node.name)
    global_pool(state, before, state.new_flat(Value(index)), kind, node.name)
