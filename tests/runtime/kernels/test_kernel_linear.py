"""Dense layers on flat and blocked inputs against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.runtime.kernels import linear
from tilth.runtime.packing import vector


def _run(
    drive,
    x,
    weight,
    bias,
    width,
    reading,
    packed,
    n,
    blocks,
    tile_rows,
    residual=None,
    limits=(-np.inf, np.inf),
):
    k = len(weight)
    guard = np.full((n + 1, k), 7, np.float32)
    found = guard[:n]
    groups = linear.division(n, tile_rows)
    values = [
        x,
        packed,
        vector(np.zeros(k) if bias is None else bias, 16 * blocks),
        found,
        0 if residual is None else residual,
        x[0].nbytes,
        4 * k,
        *groups,
        n,
        k,
        packed[0].nbytes,
        *reading,
        float(limits[0]),
        float(limits[1]),
    ]
    assert len(values) == len(linear.WORDS)
    made = linear.LinearKernel(tile_rows, blocks, reading[1] > 0, width)
    drive(made, linear.tasks(k, blocks, groups[0]), values)
    assert (guard[n] == 7).all()
    return found


def _slow(cases):
    return [cases[0], *(pytest.param(*c, marks=pytest.mark.slow) for c in cases[1:])]


@pytest.mark.parametrize(
    "n, c, k",
    _slow(
        [
            (5, 37, 21),
            (1, 130, 77),
            (1, 8, 3),
            (2, 64, 64),
            (33, 19, 50),
            (150, 12, 16),
            (14, 1, 1),
            (3, 40, 160),
        ]
    ),
)
def test_flat_input(drive, agree, width, n, c, k):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, c)).astype(np.float32)
    weight = rng.standard_normal((k, c)).astype(np.float32)
    bias = rng.standard_normal(k).astype(np.float32)
    tile_rows, blocks = linear.tile_shape(n, k, width)
    ours = _run(
        drive,
        x,
        weight,
        bias,
        width,
        linear.reading(c),
        linear.pack(weight, blocks),
        n,
        blocks,
        tile_rows,
    )
    agree(ours, x.astype(np.float64) @ weight.T + bias, 1e-6)


def test_residual_and_clamp(drive, agree, width):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 37)).astype(np.float32)
    weight = rng.standard_normal((21, 37)).astype(np.float32)
    residual = rng.standard_normal((5, 21)).astype(np.float32)
    tile_rows, blocks = linear.tile_shape(5, 21, width)
    ours = _run(
        drive,
        x,
        weight,
        None,
        width,
        linear.reading(37),
        linear.pack(weight, blocks),
        5,
        blocks,
        tile_rows,
        residual,
        (0, 6),
    )
    agree(ours, np.clip(x.astype(np.float64) @ weight.T + residual, 0, 6), 1e-6)


@pytest.mark.parametrize(
    "channels, h, w", _slow([(19, 2, 3), (32, 3, 3), (3, 1, 1), (16, 1, 1), (49, 1, 5)])
)
def test_blocked_input(drive, block, agree, width, channels, h, w):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((5, channels, h, w)).astype(np.float32)
    weight = rng.standard_normal((21, channels * h * w)).astype(np.float32)
    tile_rows, blocks = linear.tile_shape(5, 21, width)
    packed = linear.pack_blocked(weight, blocks, channels)
    ours = _run(
        drive,
        block(x),
        weight,
        None,
        width,
        linear.reading(channels, h * w, True),
        packed,
        5,
        blocks,
        tile_rows,
    )
    agree(ours, x.reshape(5, -1).astype(np.float64) @ weight.T, 1e-6)


def test_tiles_fit_the_registers():
    assert linear.tile_shape(1, 1000, 16) == (1, 4)
    assert linear.tile_shape(8, 1000, 16) == (8, 2)
    assert linear.tile_shape(64, 1000, 16) == (13, 2)
    for width in (16, 8, 4):
        for rows in range(1, 80):
            tile_rows, blocks = linear.tile_shape(rows, 100, width)
            vectors = tile_rows * blocks * 16 // width
            assert tile_rows <= rows and vectors <= 32
            _, group = linear.division(rows, tile_rows)
            assert (group >= tile_rows and group % tile_rows == 0) or group == rows
