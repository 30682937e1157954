"""Between layouts, and out of the plan: conversions, reshapes, and delivering outputs."""

from __future__ import annotations

from ...runtime.kernels import image_layout
from ..ir.graph import Node, Value
from ..ops import OpError
from .cpu import Lowering, rule
from .storage import Blocked, Flat, Place


def to_blocked(state: Lowering, value: Value, source: Flat) -> Blocked:
    """A row-major image as blocks."""
    if len(source.shape) != 4 or source.dtype != "f32":
        raise OpError("E804", f"there is no image layout for {source.dtype}{list(source.shape)}")
    n, c, h, w = source.shape
    blank = Blocked(Place(None), n, c, h, w)
    made = Blocked(Place(state.arena.new(blank.bytes)), n, c, h, w)
    words = {
        "x": source.place, "y": made.place, "images": n, "channels": c, "pixels": h * w,
        "plane": made.plane,
    }  # fmt: skip
    kernel = image_layout.LayoutKernel(True, state.target.lanes)
    state.emit(kernel, n * made.blocks, image_layout.WORDS, words, "layout")
    state.stored[value] = made
    return made


def to_flat(state: Lowering, value: Value, source: Blocked, port: int | None = None) -> Flat:
    """Blocks as a row-major image; into an output of the call when ``port`` is given."""
    n, c, h, w = source.images, source.channels, source.height, source.width
    place = Place(None, 0, port) if port is not None else Place(state.arena.new(n * c * h * w * 4))
    made = Flat(place, (n, c, h, w), "f32")
    words = {
        "x": source.place, "y": place, "images": n, "channels": c, "pixels": h * w,
        "plane": source.plane,
    }  # fmt: skip
    kernel = image_layout.LayoutKernel(False, state.target.lanes)
    state.emit(kernel, n * source.blocks, image_layout.WORDS, words, "layout")
    return made


@rule("reshape")
def lower_reshape(state: Lowering, index: int, node: Node) -> None:
    """The same elements: a view of row-major storage."""
    source = state.flat(state.graph.operands(index)[0])
    state.stored[Value(index)] = Flat(source.place, state.shape(Value(index)), source.dtype)


def deliver_outputs(state: Lowering) -> None:
    """Write every output that is not in the caller's array yet."""
    for place, (name, value) in enumerate(state.graph.outputs):
        port = len(state.graph.inputs) + place
        if value.node in state.phases or value not in state.stored:
            raise OpError("E804", f"the output `{name}` does not depend on an input")
        stored = state.stored[value]
        if stored.place.buffer is None and stored.place.port == port:
            continue
        if isinstance(stored, Blocked):
            to_flat(state, value, stored, port)
        else:
            copy_flat(state, stored, Place(None, 0, port))


def copy_flat(state: Lowering, source: Flat, goal: Place) -> None:
    """Copy a row-major value of float32."""
    count = 1
    for dim in source.shape:
        count *= dim
    if source.dtype != "f32":
        raise OpError("E804", f"there is no CPU kernel to copy {source.dtype} yet")
    words = {"x": source.place, "y": goal, "pixels": count}
    kernel = image_layout.CopyKernel(state.target.lanes)
    state.emit(kernel, 1, image_layout.WORDS, words, "copy")
