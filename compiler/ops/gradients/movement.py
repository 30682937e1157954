"""Gradients of ops that only place elements: the same elements placed back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir.dims import DimLike, floordiv
from ..base import gradient_of, zero_gradient
from ..expr import Expr, Pullback

zero_gradient("it has no operands", "iota", "fill", "eye", "size_of", "grid_edges")
zero_gradient("positions are whole numbers and carry no derivative", "one_hot")
zero_gradient("it has no operands", "input", "param", "constant")


@gradient_of("reshape")
def _reshape(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.reshape(pull.x[0].shape)]


@gradient_of("transpose")
def _transpose(pull: Pullback) -> Sequence[Expr | None]:
    perm: Any = pull.attrs["perm"]
    return [pull.d.transpose([perm.index(axis) for axis in range(len(perm))])]


@gradient_of("flip")
def _flip(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("flip", axes=pull.attrs["axes"])]


@gradient_of("channel_shuffle")
def _channel_shuffle(pull: Pullback) -> Sequence[Expr | None]:
    attrs: Any = pull.attrs
    size = pull.x[0].shape[attrs["axis"]]
    back = floordiv(size, attrs["groups"])
    if isinstance(back, int):
        return [pull.d.op("channel_shuffle", groups=back, axis=attrs["axis"])]
    shape, axis = list(pull.d.shape), attrs["axis"]
    split = pull.d.reshape([*shape[:axis], back, attrs["groups"], *shape[axis + 1 :]])
    return [split.moved(axis, axis + 1).reshape(shape)]


@gradient_of("slice")
def _slice(pull: Pullback) -> Sequence[Expr | None]:
    attrs: Any = pull.attrs
    x, d = pull.x[0], pull.d
    before, after = [], []
    for axis, (start, step) in enumerate(zip(attrs["starts"], attrs["steps"], strict=True)):
        d, filled = _spaced(d, axis, step)
        before.append(start)
        after.append(x.shape[axis] - start - filled)
    return [d.pad(before, after)]


def _spaced(x: Expr, axis: int, step: int) -> tuple[Expr, DimLike]:
    """Elements ``step`` apart along an axis, zeros between; and how many that makes."""
    size = x.shape[axis]
    if step == 1:
        return x, size
    apart = x.unsqueeze(axis + 1)
    apart = apart.pad(
        [0] * apart.rank, [step - 1 if a == axis + 1 else 0 for a in range(apart.rank)]
    )
    full = apart.reshape([*x.shape[:axis], size * step, *x.shape[axis + 1 :]])
    filled = size * step - (step - 1)
    return full.slice(axis, 0, filled), filled


@gradient_of("concat")
def _concat(pull: Pullback) -> Sequence[Expr | None]:
    axis: Any = pull.attrs["axis"]
    if len(pull.x) == 1:
        return [pull.d]
    sizes = tuple(x.shape[axis] for x in pull.x)
    return pull.d.ops("split", axis=axis, sizes=sizes)


@gradient_of("split")
def _split(pull: Pullback) -> Sequence[Expr | None]:
    parts = [pull.cotangent(place) for place in range(len(pull.y))]
    return [parts[0].concat(*parts[1:], axis=pull.attrs["axis"])]  # type: ignore[arg-type]


@gradient_of("broadcast")
def _broadcast(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.sum_to(pull.x[0].shape)]


@gradient_of("tile")
def _tile(pull: Pullback) -> Sequence[Expr | None]:
    reps: Any = pull.attrs["reps"]
    x = pull.x[0]
    shape = [size for pair in zip(reps, x.shape, strict=True) for size in pair]
    return [pull.d.reshape(shape).sum(range(0, 2 * x.rank, 2))]


@gradient_of("pad")
def _pad(pull: Pullback) -> Sequence[Expr | None]:
    attrs: Any = pull.attrs
    d = pull.d
    for axis, (before, after) in enumerate(zip(attrs["before"], attrs["after"], strict=True)):
        if before != 0 or after != 0:
            d = _unpad(d, axis, before, after, attrs["mode"])
    return [d]


def _unpad(d: Expr, axis: int, before: DimLike, after: DimLike, mode: str) -> Expr:
    """The cotangent of what was padded: the middle, and the borders added where they came from."""
    size = d.shape[axis]
    end = size - after
    middle = d.slice(axis, before, end)
    if mode == "constant":
        return middle
    inner = middle.shape[axis]
    for amount, part in ((before, (0, before)), (after, (end, size))):
        if amount == 0:
            continue
        border, left = d.slice(axis, *part), part[0] == 0
        if mode == "reflect":
            border = border.flip(axis)
            ahead = 1 if left else inner - amount - 1
        else:
            border = border.sum([axis], keepdims=True)
            amount, ahead = 1, 0 if left else inner - 1
        middle = middle + border.pad(
            _at_axis(d.rank, axis, ahead), _at_axis(d.rank, axis, inner - amount - ahead)
        )
    return middle


def _at_axis(rank: int, axis: int, amount: DimLike) -> list[DimLike]:
    return [amount if a == axis else 0 for a in range(rank)]


@gradient_of("diag")
def _diag(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("diagonal")]


@gradient_of("diagonal")
def _diagonal(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("diag")]


@gradient_of("tril")
def _tril(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("tril", k=pull.attrs["k"])]


@gradient_of("triu")
def _triu(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("triu", k=pull.attrs["k"])]
