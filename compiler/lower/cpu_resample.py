"""Resampling: image kernels by tables of taps; any rank and element type as products by axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...runtime.kernels import resize
from ..ir.graph import Node, Value
from ..ops import OPS
from .cpu import Lowering, expand, rule
from .recipe import Recipe


@rule("resize")
def lower_resize(state: Lowering, index: int, node: Node) -> None:
    """Every output is a weighted sum of a few taps along each axis."""
    attrs: Any = node.attrs
    if node.type.dtype != "f32" or node.type.rank != 4 or attrs["antialias"]:
        _resize_by_axis(state, index, node)
        return
    x, out = state.blocked(state.graph.operands(index)[0]), state.new_blocked(Value(index))
    tables = [
        _table(state, attrs, i, length, count)
        for i, (length, count) in enumerate(
            zip((x.height, x.width), (out.height, out.width), strict=True)
        )
    ]
    taps = tables[0][2]
    words = {
        "x": x.place, "y": out.place, "x_image": x.plane, "x_block": x.block,
        "y_image": out.plane, "y_block": out.block, "blocks": x.blocks, "width": x.width,
        "rows": out.height, "columns": out.width, "row_places": tables[0][0],
        "row_weights": tables[0][1], "column_places": tables[1][0],
        "column_weights": tables[1][1],
    }  # fmt: skip
    kernel = resize.ResizeKernel(taps, state.target.lanes)
    tasks = resize.tasks(x.images, x.blocks, out.height)
    state.emit(kernel, tasks, resize.WORDS, words, node.name or "resize")


def _table(state: Lowering, attrs: Any, axis: int, length: int, count: int) -> tuple[Any, Any, int]:
    """Places and weights along one axis, computed when weights are loaded, and taps."""
    scale = None if attrs["scale"] is None else float(attrs["scale"][axis])
    mode = attrs["mode"]
    if mode.startswith("nearest"):
        text, taps = f"nearest({length}, {count}, {scale}, {mode == 'nearest_exact'})", 1
    else:
        kind, taps = ("linear", 2) if mode == "bilinear" else ("cubic", 4)
        text = f"{kind}({length}, {count}, {scale}, {attrs['align_corners']})"
    places = state.load.pack("places", f"pack.taps_{text}[0]", count * taps * 8)
    return places, state.load.pack("taps", f"pack.taps_{text}[1]", count * taps * 4), taps


def _resize_by_axis(state: Lowering, index: int, node: Node) -> None:
    """A product with a matrix for each axis; its columns are the op on unit vectors."""
    attrs: Any = node.attrs
    r = Recipe(state, state.graph.operands(index))
    x = r.inputs[0]
    for i, count in enumerate(attrs["size"]):
        length: Any = r.type_of(x).shape[2 + i]
        scale = None if attrs["scale"] is None else (attrs["scale"][i],)
        along = {**attrs, "size": (count,), "scale": scale}
        x = _along(r, x, 2 + i, _matrix("resize", length, along))
    r.finish(index, x)


def adaptive_by_axis(state: Lowering, index: int, node: Node) -> None:
    """Adaptive pooling axis by axis: means as a product, maxima over cells of repeated elements."""
    attrs: Any = node.attrs
    r = Recipe(state, state.graph.operands(index))
    x = r.inputs[0]
    for i, count in enumerate(attrs["size"]):
        length: Any = r.type_of(x).shape[2 + i]
        if node.op == "adaptive_avgpool":
            x = _along(r, x, 2 + i, _matrix(node.op, length, {"size": (count,)}))
            continue
        places = r.graph.add_constant(cells(length, count).astype(np.int32), "i32")
        x = r("take", x, places, attrs={"axis": 2 + i})
        x = r("reduce", x, attrs={"kind": "max", "axes": (3 + i,), "keepdims": False})
    r.finish(index, x)


@rule("avgpool_backward", "adaptive_avgpool_backward", "resize_backward")
def lower_adjoint(state: Lowering, index: int, node: Node) -> None:
    """The products with transposed matrices, axis by axis."""
    attrs: Any = node.attrs
    forward = node.op.removesuffix("_backward")
    r = Recipe(state, state.graph.operands(index))
    x = r.inputs[0]
    for i, length in enumerate(state.shape(Value(index))[2:]):
        along = {"count": "size"} if forward == "adaptive_avgpool" else {}
        names = [name for name in attrs if name not in ("size", "input_size", "count")]
        settings = {name: _one(attrs[name], i) for name in names}
        if forward != "avgpool":
            settings["size"] = (attrs["count" if along else "size"][i],)
        x = _along(r, x, 2 + i, np.ascontiguousarray(_matrix(forward, length, settings).T))
    r.finish(index, x)


def _one(value: Any, axis: int) -> Any:
    """A setting of one axis alone."""
    return (value[axis],) if isinstance(value, (tuple, list)) else value


def _matrix(op: str, length: int, attrs: Any) -> np.ndarray:
    """[outputs, inputs] of an op that is linear along one axis."""
    reference: Any = OPS[op].reference
    return np.ascontiguousarray(reference(np.eye(length)[None], **attrs)[0].T)


def cells(length: int, count: int) -> np.ndarray:
    """Positions of the elements of each cell; the last is repeated where a cell is short."""
    i = np.arange(count)
    first, last = i * length // count, -(-(i + 1) * length // count)
    places = first[:, None] + np.arange((last - first).max())
    return np.minimum(places, last[:, None] - 1)


def _along(r: Recipe, x: Value, axis: int, matrix: np.ndarray) -> Value:
    """The product of a matrix and one axis of x."""
    kind = r.type_of(x)
    weights = r.graph.add_constant(matrix.astype(kind.dtype.replace("f", "float")), kind.dtype)
    letters = "abcdefg"[: kind.rank]
    result = letters.replace(letters[axis], "z")
    spec = f"z{letters[axis]},{letters}->{result}"
    return r("contract", weights, x, attrs={"semiring": "sum_product", "spec": spec})


@rule("grid_sample")
def lower_grid_sample(state: Lowering, index: int, node: Node) -> None:
    """Images read at points of a grid."""
    attrs: Any = node.attrs
    value, points = state.graph.operands(index)
    kinds = state.type_of(value), state.type_of(points)
    if any(kind.dtype != "f32" for kind in kinds):
        expand(state, index, node)
        return
    x, grid = state.blocked(value), state.flat(points)
    out = state.new_blocked(Value(index))
    words = {
        "x": x.place, "grid": grid.place, "y": out.place, "x_image": x.plane,
        "x_block": x.block, "y_image": out.plane, "y_block": out.block, "blocks": x.blocks,
        "height": x.height, "width": x.width, "rows": out.height, "columns": out.width,
    }  # fmt: skip
    kernel = resize.GridSampleKernel(
        attrs["mode"], attrs["padding"], attrs["align_corners"], state.target.lanes
    )
    tasks = resize.tasks(x.images, x.blocks, out.height)
    state.emit(kernel, tasks, resize.GRID_WORDS, words, node.name or "grid_sample")
