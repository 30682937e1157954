"""Resizing and grid sampling of blocks against the op table's references."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ops import OPS
from tilth.runtime.kernels import resize

SIZES = [((5, 7), (10, 14)), ((6, 4), (3, 9)), ((1, 1), (4, 3)), ((7, 9), (1, 1)), ((4, 4), (4, 4))]


def _table(mode, length, count, scale, align):
    if mode.startswith("nearest"):
        return resize.nearest_table(length, count, scale, mode == "nearest_exact")
    return (resize.linear_table if mode == "bilinear" else resize.cubic_table)(
        length, count, scale, align
    )


def _resize(drive, x, size, scale, mode, align, width, channels, unblock):
    n, blocks, h, w, _ = x.shape
    found = np.zeros((n, blocks, *size, 16), np.float32)
    places, weights = zip(
        *(_table(mode, a, b, s, align) for a, b, s in zip((h, w), size, scale, strict=True)),
        strict=True,
    )
    places = [np.ascontiguousarray(p) for p in places]
    weights = [np.ascontiguousarray(p) for p in weights]
    row = [
        x,
        found,
        x[0].nbytes,
        x[0, 0].nbytes,
        found[0].nbytes,
        found[0, 0].nbytes,
        blocks,
        w,
        *size,
        places[0],
        weights[0],
        places[1],
        weights[1],
    ]
    assert len(row) == len(resize.WORDS)
    kernel = resize.ResizeKernel(places[0].shape[1], width)
    drive(kernel, resize.tasks(n, blocks, size[0]), row)
    return unblock(found, channels)


@pytest.mark.parametrize(
    "mode, align",
    [
        ("nearest", False),
        ("bilinear", False),
        ("bilinear", True),
        ("bicubic", False),
        *(
            pytest.param(*p, marks=pytest.mark.slow)
            for p in [("nearest_exact", False), ("bicubic", True)]
        ),
    ],
)
def test_resize(drive, block, unblock, agree, width, mode, align):
    for (h, w), size in SIZES:
        x = np.random.default_rng(0).standard_normal((2, 19, h, w)).astype(np.float32)
        reference = OPS["resize"].reference(
            x.astype(np.float64),
            size=size,
            scale=None,
            mode=mode,
            align_corners=align,
            antialias=False,
        )
        ours = _resize(drive, block(x), size, (None, None), mode, align, width, 19, unblock)
        agree(ours, reference, 1e-6)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resize_with_a_given_scale(drive, block, unblock, agree, width, mode):
    x = np.random.default_rng(1).standard_normal((1, 3, 6, 5)).astype(np.float32)
    reference = OPS["resize"].reference(
        x.astype(np.float64),
        size=(9, 7),
        scale=(1.5, 1.5),
        mode=mode,
        align_corners=False,
        antialias=False,
    )
    ours = _resize(drive, block(x), (9, 7), (1.5, 1.5), mode, False, width, 3, unblock)
    agree(ours, reference, 1e-6)


@pytest.mark.parametrize(
    "mode, padding, align",
    [
        ("bilinear", "zeros", False),
        *(
            pytest.param(m, p, a, marks=pytest.mark.slow)
            for m in ("bilinear", "nearest")
            for p in ("zeros", "border", "reflection")
            for a in (False, True)
        ),
    ],
)
def test_grid_sample(drive, block, unblock, agree, width, mode, padding, align):
    rng = np.random.default_rng(2)
    for h, w in ((6, 9), (1, 1), (1, 4)):
        x = rng.standard_normal((2, 19, h, w)).astype(np.float32)
        grid = rng.uniform(-1.8, 1.8, (2, 4, 5, 2)).astype(np.float32)
        grid[0, 0, :4] = [[-1, -1], [1, 1], [0, 0], [1e9, -1e9]]
        if mode == "bilinear":
            grid[1, 1, 1] = np.nan
        with np.errstate(all="ignore"):
            reference = OPS["grid_sample"].reference(
                x.astype(np.float64), grid, mode=mode, padding=padding, align_corners=align
            )
        source, found = block(x), np.zeros((2, 2, 4, 5, 16), np.float32)
        row = [
            source,
            grid,
            found,
            source[0].nbytes,
            source[0, 0].nbytes,
            found[0].nbytes,
            found[0, 0].nbytes,
            2,
            h,
            w,
            4,
            5,
        ]
        assert len(row) == len(resize.GRID_WORDS)
        drive(resize.GridSampleKernel(mode, padding, align, width), resize.tasks(2, 2, 4), row)
        agree(unblock(found, 19), reference, 1e-6)
