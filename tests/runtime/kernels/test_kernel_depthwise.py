"""Depthwise convolution on blocks against the convolution's reference."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ops import OPS
from tilth.runtime.kernels import depthwise, window
from tilth.runtime.kernels.window import Window
from tilth.runtime.packing import vector

CASES = {
    "k3": ((2, 17, 9, 14), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "k3 stride 2": ((1, 32, 15, 15), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "k5 one pixel": ((3, 3, 1, 1), (5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1)),
    "k5 wide": ((1, 16, 6, 40), (5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1)),
    "k7 stride 3": ((1, 5, 13, 22), (7, 7), (3, 3), ((3, 3), (3, 3)), (1, 1)),
    "even, asymmetric": ((1, 20, 8, 11), (2, 4), (1, 1), ((0, 1), (1, 2)), (1, 1)),
    "dilated": ((1, 16, 12, 19), (3, 3), (1, 1), ((2, 2), (4, 4)), (2, 4)),
    "dilated stride 2": ((1, 16, 12, 19), (3, 3), (2, 1), ((3, 0), (0, 3)), (3, 2)),
    "no padding": ((1, 16, 10, 10), (3, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "padding wider than the kernel": ((1, 3, 2, 3), (3, 3), (1, 1), ((4, 4), (5, 5)), (1, 1)),
    "a column": ((1, 16, 9, 1), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "k31": ((1, 16, 5, 40), (1, 31), (1, 1), ((0, 0), (15, 15)), (1, 1)),
}


def _run(drive, block, unblock, case, width, residual, bands=None, limits=(-np.inf, np.inf)):
    (n, c, h, wd), kernel, stride, pad, dilation = case
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, c, h, wd)).astype(np.float32)
    weight = rng.standard_normal((c, 1, *kernel)).astype(np.float32)
    bias = rng.standard_normal(c).astype(np.float32)
    reference = OPS["conv"].reference(
        x.astype(np.float64),
        weight.astype(np.float64),
        bias.astype(np.float64),
        stride=stride,
        pad=pad,
        dilation=dilation,
        groups=c,
    )
    rows, columns = reference.shape[2:]
    pixels = window.tile_pixels(columns, kernel[1], stride[1], dilation[1], sum(pad[1]), width)
    blocks = -(-c // 16)
    split = bands or window.division(n * blocks, rows)
    source = block(x)
    found = np.zeros((n, blocks, rows, columns, 16), np.float32)
    extra = None
    if residual:
        added = rng.standard_normal(reference.shape).astype(np.float32)
        reference, extra = reference + added, block(added)
    reference = np.clip(reference, *limits)
    made = depthwise.DepthwiseKernel(Window(kernel[1], stride[1], dilation[1], pixels), width)
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
        depthwise.pack(weight),
        vector(np.zeros(c) if bias is None else bias, 16),
        0 if extra is None else extra,
        float(limits[0]),
        float(limits[1]),
    ]
    assert len(values) == len(depthwise.WORDS)
    drive(made, window.tasks(n, blocks, split[0]), values)
    return unblock(found, c), reference


@pytest.mark.parametrize(
    "name", ["k3", *(pytest.param(n, marks=pytest.mark.slow) for n in CASES if n != "k3")]
)
def test_matches_the_reference(drive, block, unblock, agree, width, name):
    ours, reference = _run(drive, block, unblock, CASES[name], width, residual=False)
    agree(ours, reference, 2e-6)


def test_bands_residual_and_clamp(drive, block, unblock, agree, width):
    case = CASES["k3"]
    ours, reference = _run(
        drive, block, unblock, case, width, residual=True, bands=(3, 4), limits=(0, 6)
    )
    agree(ours, reference, 2e-6)
    assert reference.min() == 0


def test_tiles_cover_the_middle_of_a_row():
    assert window.tile_pixels(7, 3, 1, 1, 2, 16) == 5
    assert window.tile_pixels(14, 3, 1, 1, 2, 16) == 6
    assert window.tile_pixels(1, 5, 1, 1, 4, 16) == 1
    assert window.division(32, 56) == (1, 56)
    assert window.division(1, 56) == (14, 4)
