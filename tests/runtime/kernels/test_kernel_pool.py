"""Pooling on blocks against the op table's references."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ops import OPS
from tilth.runtime.kernels import pool, window
from tilth.runtime.kernels.window import Window

NONE = ((0, 0), (0, 0))
CASES = {
    "k3 stride 2": ((2, 17, 11, 18), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), False),
    "k2": ((1, 16, 8, 9), (2, 2), (2, 2), NONE, (1, 1), False),
    "ceil": ((1, 3, 8, 10), (3, 3), (2, 2), NONE, (1, 1), True),
    "ceil and pad": ((1, 3, 7, 6), (3, 2), (3, 3), ((1, 1), (1, 0)), (1, 1), True),
    "stride 1": ((3, 20, 5, 13), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), False),
    "k5 stride 3, asymmetric": ((1, 16, 9, 11), (5, 4), (3, 3), ((2, 1), (0, 2)), (1, 1), False),
    "dilated": ((1, 16, 9, 15), (3, 3), (1, 2), ((1, 1), (2, 2)), (2, 2), False),
    "one pixel": ((1, 5, 1, 1), (1, 1), (1, 1), NONE, (1, 1), False),
    "row": ((1, 5, 1, 9), (1, 3), (1, 1), ((0, 0), (1, 1)), (1, 1), False),
}


def _run(drive, block, unblock, x, kind, case, shape, width):
    (n, c, h, wd), kernel, stride, pad, dilation, _ = case
    rows, columns = shape[2:]
    blocks = -(-c // 16)
    pixels = window.tile_pixels(columns, kernel[1], stride[1], dilation[1], sum(pad[1]), width)
    split = window.division(n * blocks, rows)
    source = block(x)
    found = np.zeros((n, blocks, rows, columns, 16), np.float32)
    made = pool.PoolKernel(kind, Window(kernel[1], stride[1], dilation[1], pixels), width)
    values = [
        source,
        found,
        source[0].nbytes,
        source[0, 0].nbytes,
        found[0].nbytes,
        found[0, 0].nbytes,
        blocks,
        *split,
        h,
        wd,
        rows,
        columns,
        kernel[0],
        stride[0],
        dilation[0],
        pad[0][0],
        pad[1][0],
        pad[0][1],
        pad[1][1],
    ]
    assert len(values) == len(pool.WORDS)
    drive(made, window.tasks(n, blocks, split[0]), values)
    return unblock(found, c)


def _slow_but_first(names):
    first, *rest = names
    return [first, *(pytest.param(name, marks=pytest.mark.slow) for name in rest)]


@pytest.mark.parametrize("name", _slow_but_first(CASES))
def test_maximum(drive, block, unblock, agree, width, name):
    case = CASES[name]
    _, kernel, stride, pad, dilation, ceil = case
    x = np.random.default_rng(0).standard_normal(case[0]).astype(np.float32)
    x[0, 1, 0, 0] = np.nan
    x[0, 0] = -np.inf
    reference = OPS["maxpool"].reference(
        x, kernel=kernel, stride=stride, pad=pad, dilation=dilation, ceil=ceil
    )
    ours = _run(drive, block, unblock, x, "max", case, reference.shape, width)
    np.testing.assert_array_equal(ours, reference)


@pytest.mark.parametrize("count_pad", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", _slow_but_first([n for n in CASES if CASES[n][4] == (1, 1)]))
def test_mean(drive, block, unblock, agree, width, name, count_pad):
    case = CASES[name]
    _, kernel, stride, pad, _, ceil = case
    x = np.random.default_rng(1).standard_normal(case[0]).astype(np.float32)
    reference = OPS["avgpool"].reference(
        x.astype(np.float64), kernel=kernel, stride=stride, pad=pad, ceil=ceil, count_pad=count_pad
    )
    kind = "mean_padded" if count_pad else "mean"
    ours = _run(drive, block, unblock, x, kind, case, reference.shape, width)
    agree(ours, reference)


@pytest.mark.parametrize("kind", ["mean", "max"])
@pytest.mark.parametrize(
    "shape", [(2, 19, 15, 13), pytest.param((1, 3, 1, 1), marks=pytest.mark.slow)], ids=str
)
def test_whole_images(drive, block, agree, width, kind, shape):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    n, c, h, w = shape
    source, found = block(x), np.full((n, c), 7, np.float32)
    guard = np.full((n + 1, c), 7, np.float32)
    found = guard[:n]
    blocks = -(-c // 16)
    values = [
        source,
        found,
        source[0].nbytes,
        source[0, 0].nbytes,
        found[0].nbytes,
        blocks,
        c,
        h * w,
    ]
    drive(pool.GlobalPoolKernel(kind, width), pool.global_tasks(n, blocks), values)
    agree(found, getattr(np, kind)(x.astype(np.float64), axis=(2, 3)), 3e-7)
    assert (guard[n] == 7).all()


@pytest.mark.parametrize("kind", ["mean", pytest.param("max", marks=pytest.mark.slow)])
def test_adaptive_cells(drive, block, unblock, agree, width, kind):
    x = np.random.default_rng(3).standard_normal((2, 17, 11, 7)).astype(np.float32)
    op = "adaptive_avgpool" if kind == "mean" else "adaptive_maxpool"
    for size in ((3, 5), (1, 1), (11, 7), (14, 2)):
        reference = OPS[op].reference(x.astype(np.float64), size=size)
        source, found = block(x), np.zeros((2, 2, *size, 16), np.float32)
        values = [
            source,
            found,
            source[0].nbytes,
            source[0, 0].nbytes,
            found[0].nbytes,
            found[0, 0].nbytes,
            2,
            11,
            7,
            *size,
        ]
        drive(pool.AdaptivePoolKernel(kind, width), pool.adaptive_tasks(2, 2, size[0]), values)
        agree(unblock(found, 17), reference)
