"""Kernels that move elements: blocks, channels, transposes, gathers."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ops import OPS
from tilth.runtime.kernels import layout
from tilth.runtime.kernels.pointwise import row_major


@pytest.mark.parametrize(
    "shape",
    [
        (2, 35, 3, 7),
        *(
            pytest.param(s, marks=pytest.mark.slow)
            for s in [(1, 3, 1, 1), (3, 16, 20, 20), (1, 17, 1, 5), (1, 20, 17, 31)]
        ),
    ],
    ids=str,
)
def test_blocks_and_back(drive, block, unblock, width, shape):
    n, c, h, w = shape
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = np.nan_to_num(block(x))
    found = np.full_like(expected, 5)
    blocks = expected.shape[1]
    groups = -(-h * w // layout.PIXELS)
    strides = [x[0].nbytes, found[0].nbytes, found[0, 0].nbytes]
    tasks = layout.block_tasks(n, blocks, h * w)
    drive(layout.BlockKernel(True, width), tasks, [x, found, *strides, blocks, c, h * w, groups])
    np.testing.assert_array_equal(found, expected)
    guard = np.full((n + 1, c, h, w), 7, np.float32)
    back = guard[:n]
    drive(
        layout.BlockKernel(False, width),
        tasks,
        [back, block(x), *strides, blocks, c, h * w, groups],
    )
    np.testing.assert_array_equal(back, x)
    assert (guard[n] == 7).all()


@pytest.mark.parametrize(
    "parts",
    [
        (5, 20, 16),
        *(
            pytest.param(p, marks=pytest.mark.slow)
            for p in [(1, 1), (16, 3), (29, 29), (58, 58, 58)]
        ),
    ],
    ids=str,
)
def test_channels_join_and_split(drive, block, unblock, width, parts):
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((2, c, 3, 5)).astype(np.float32) for c in parts]
    total = sum(parts)
    joined = np.full((2, -(-total // 16), 3, 5, 16), 9, np.float32)
    kernel, tasks = layout.ChannelCopyKernel(width), layout.channel_tasks(2, 15)
    first = 0
    for x in arrays:
        source = block(x)
        row = [
            source,
            joined,
            source[0].nbytes,
            source[0, 0].nbytes,
            joined[0].nbytes,
            joined[0, 0].nbytes,
            0,
            first,
            x.shape[1],
            15,
            1,
        ]
        assert len(row) == len(layout.CHANNEL_WORDS)
        drive(kernel, tasks, row)
        first += x.shape[1]
    np.testing.assert_array_equal(unblock(joined, total), np.concatenate(arrays, 1))
    assert (unblock(joined, joined.shape[1] * 16)[:, total:] == 9).all()
    first = 0
    for x in arrays:
        source = np.full((2, -(-x.shape[1] // 16), 3, 5, 16), 9, np.float32)
        row = [
            joined,
            source,
            joined[0].nbytes,
            joined[0, 0].nbytes,
            source[0].nbytes,
            source[0, 0].nbytes,
            first,
            0,
            x.shape[1],
            15,
            1,
        ]
        drive(kernel, tasks, row)
        np.testing.assert_array_equal(unblock(source, x.shape[1]), x)
        first += x.shape[1]


PERMS = [
    ((70, 33), (1, 0)),
    ((3, 5, 40), (0, 2, 1)),
    ((4, 5, 6), (1, 0, 2)),
    ((2, 3, 4, 5), (3, 1, 0, 2)),
    ((6,), (0,)),
    ((1, 1), (1, 0)),
    ((2, 3, 4, 5), (0, 2, 3, 1)),
    ((2, 3, 4, 5, 6), (4, 3, 2, 1, 0)),
    ((200, 3, 65), (2, 0, 1)),
    ((7, 1, 9), (2, 1, 0)),
]


@pytest.mark.parametrize(
    "dtype",
    [np.float32, *(pytest.param(d, marks=pytest.mark.slow) for d in (np.float64, np.int32, bool))],
)
@pytest.mark.parametrize(
    "shape, perm", [*PERMS[:3], *(pytest.param(*p, marks=pytest.mark.slow) for p in PERMS[3:])]
)
def test_transpose(drive, width, shape, perm, dtype):
    x = np.random.default_rng(2).integers(0, 2 if dtype is bool else 99, shape).astype(dtype)
    reference = OPS["transpose"].reference(x, perm=perm)
    strides = row_major(shape)
    where = layout.transposition([shape[a] for a in perm], [strides[a] for a in perm])
    guard = np.full(x.size + 64, 1, dtype)
    kernel = layout.TransposeKernel(x.itemsize, where.columns > 1, len(where.outer), width)
    row = layout.transpose_words(where, x.itemsize, x, guard)
    drive(kernel, layout.transpose_tasks(where), row)
    np.testing.assert_array_equal(guard[: x.size].reshape(reference.shape), reference)
    assert (guard[x.size :] == 1).all()


@pytest.mark.parametrize(
    "dtype, index",
    [
        (np.float32, np.int32),
        *(
            pytest.param(d, i, marks=pytest.mark.slow)
            for d, i in [(np.float64, np.int64), (bool, np.int64)]
        ),
    ],
)
def test_gather(drive, width, dtype, index):
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2, (4, 10, 19)).astype(dtype)
    fault = np.zeros(1, np.int64)
    name = "i32" if index is np.int32 else "i64"
    for axis in (0, 1, 2):
        places = rng.integers(0, x.shape[axis], 7).astype(index)
        reference = OPS["take"].reference(x, places, axis=axis)
        found = np.zeros(reference.shape, dtype)
        outer = int(np.prod(x.shape[:axis]))
        inner = int(np.prod(x.shape[axis + 1 :])) * x.itemsize
        per_task = layout.gather_division(outer, 7, inner)
        row = [x, places, found, outer, 7, x.shape[axis], inner, per_task, fault]
        drive(
            layout.GatherKernel(name, x.itemsize, width), layout.gather_tasks(outer, 7, inner), row
        )
        np.testing.assert_array_equal(found, reference)
    assert fault[0] == 0


def test_gather_reports_an_index_outside(drive, width):
    x, found = np.ones((3, 4), np.float32), np.full((2, 4), 9, np.float32)
    fault = np.zeros(1, np.int64)
    row = [x, np.array([1, 3], np.int32), found, 1, 2, 3, 16, 2, fault]
    drive(layout.GatherKernel("i32", 4, width), 1, row)
    assert fault[0] == 2
    np.testing.assert_array_equal(found, [[1] * 4, [9] * 4])
