"""Gradients of resampling, and of moving channels to space and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base import expansion_of, gradient_of
from ..expr import Expr, Pullback


@gradient_of("resize")
def _resize(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("resize_backward", **pull.attrs, input_size=pull.x[0].shape[2:])]


@gradient_of("resize_backward")
def _resize_backward(pull: Pullback) -> Sequence[Expr | None]:
    plain: Any = {key: value for key, value in pull.attrs.items() if key != "input_size"}
    return [pull.d.op("resize", **plain)]


@gradient_of("pixel_shuffle")
def _pixel_shuffle(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("pixel_unshuffle", factor=pull.attrs["factor"])]


@gradient_of("pixel_unshuffle")
def _pixel_unshuffle(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("pixel_shuffle", factor=pull.attrs["factor"])]


@expansion_of("affine_grid")
def _affine_grid(x: Sequence[Expr], attrs: Any) -> Expr:
    theta, (height, width) = x[0], attrs["size"]
    rows, columns = (_base(theta, count, attrs["align_corners"]) for count in (height, width))
    across = columns.unsqueeze(0).broadcast((height, width))
    down = rows.unsqueeze(1).broadcast((height, width))
    parts = [part.unsqueeze(2) for part in (across, down, across.filled(1))]
    base = parts[0].concat(*parts[1:], axis=2)
    return base.contract("hwk,njk->nhwj", theta)


def _base(theta: Expr, count: Any, align_corners: bool) -> Expr:
    """Positions of pixels in -1..1 along one axis."""
    writer = theta.writer
    if align_corners and count == 1:
        return writer.fill((1,), 0, theta.dtype)
    place, size = (
        writer.make("iota", size=count, dtype=theta.dtype),
        writer.size(count, theta.dtype),
    )
    if align_corners:
        return place * 2.0 / (size - 1.0) - 1.0
    return (place * 2.0 + 1.0) / size - 1.0


@expansion_of("grid_sample")
def _grid_sample(x: Sequence[Expr], attrs: Any) -> Expr:
    image, grid = x
    height, width = image.shape[2:]
    align, padding = attrs["align_corners"], attrs["padding"]
    u = _to_pixels(_part(grid, 0), width, padding, align)
    v = _to_pixels(_part(grid, 1), height, padding, align)
    if attrs["mode"] == "nearest":
        return _at(image, v.op("round"), u.op("round"))
    top, left = v.op("floor"), u.op("floor")
    down, right = (v - top).unsqueeze(1), (u - left).unsqueeze(1)
    upper = _at(image, top, left) * (1.0 - right) + _at(image, top, left + 1.0) * right
    low = top + 1.0
    lower = _at(image, low, left) * (1.0 - right) + _at(image, low, left + 1.0) * right
    return upper * (1.0 - down) + lower * down


def _part(grid: Expr, place: int) -> Expr:
    return grid.slice(3, place, place + 1).reshape(grid.shape[:3])


def _to_pixels(g: Expr, size: Any, padding: str, align: bool) -> Expr:
    """Pixel positions of grid values in -1..1, moved inside as ``padding`` says."""
    count = g.writer.size(size, g.dtype)
    p = (g + 1.0) * 0.5 * (count - 1.0) if align else ((g + 1.0) * count - 1.0) * 0.5
    if padding == "zeros":
        return p
    if padding == "reflection" and align and size == 1:
        p = p * 0.0
    elif padding == "reflection":
        low, span = (0.0, count - 1.0) if align else (-0.5, count)
        turned = (p - low).abs().op("mod", span * 2.0)
        p = turned.minimum(span * 2.0 - turned) + low
    return p.maximum(0).minimum(count - 1.0)


def _at(image: Expr, rows: Expr, columns: Expr) -> Expr:
    """Elements ``image[n, :, row, column]`` as ``[N, C, h, w]``; zero outside the image."""
    batch, _, height, width = image.shape
    writer = image.writer
    tall, wide = (writer.size(size, rows.dtype) for size in (height, width))
    inside = (rows >= 0) & (rows < tall) & (columns >= 0) & (columns < wide)
    row, column = (
        inside.where(place, 0).cast("i64").op("stop_gradient") for place in (rows, columns)
    )
    first = writer.make("iota", size=batch, dtype="i64").reshape((batch, 1, 1))
    found = image.op("gather", first, row, column, axes=(0, 2, 3)).moved(3, 1)
    return inside.unsqueeze(1).where(found, 0)
