"""Lowered convolutions against the reference: odd sizes, poisoned pad lanes, every tile width."""

import numpy as np
import pytest
from lower_support import error, reference, run_blocked
from tilth.compiler.lower.target import Target
from tilth.runtime.simd import lanes

CASES = [
    # images, channels, height, width, features, kernel, stride, pad, dilation, groups
    (1, 16, 1, 1, 16, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    (2, 17, 9, 7, 33, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    (3, 40, 15, 15, 48, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    (1, 17, 13, 11, 20, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
    (2, 32, 10, 12, 35, (3, 3), (3, 3), ((0, 1), (2, 1)), (1, 1), 1),
    (1, 48, 14, 14, 32, (2, 4), (1, 1), ((1, 0), (2, 1)), (1, 1), 1),
    (1, 20, 17, 16, 16, (3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2), 1),
    (1, 32, 8, 8, 64, (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    (1, 64, 7, 7, 64, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 4),
    (2, 64, 9, 9, 64, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 16),
    (1, 16, 5, 6, 24, (5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1), 1),
]


def check(case, lane_count: int, threads: int, extras: bool, precise: bool = False) -> None:
    n, c, h, w, k, kernel, stride, pad, dilation, groups = case
    rng = np.random.default_rng(7)
    x = rng.standard_normal((n, c, h, w)).astype(np.float32)
    weight = rng.standard_normal((k, c // groups, *kernel)).astype(np.float32)
    bias = rng.standard_normal(k).astype(np.float32)
    plain = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    expected = reference("conv", [x, weight, bias], plain)
    images, weights = {"x": x}, {"weight": weight, "bias": bias}
    target = Target(lane_count, threads, precise=precise)
    if not extras:
        found = run_blocked("conv", images, weights, dict(plain), target)
    else:
        residual = rng.standard_normal(expected.shape).astype(np.float32)
        expected = np.maximum(expected + residual, 0)
        attrs = {**plain, "extras": ("bias", "residual"), "activation": "relu",
                 "activation_attrs": (), "prologue": "",
                 "order": ("x", "weight", "bias", "residual")}  # fmt: skip
        found = run_blocked("fused_conv", {**images, "residual": residual}, weights, attrs, target)
    assert error(found, expected) < 2e-5


@pytest.mark.parametrize("case", CASES)
def test_convolution_agrees_with_the_reference(case):
    check(case, lanes(), 2, extras=False)


@pytest.mark.parametrize("case", CASES[1:5])
def test_residual_and_relu_belong_to_the_epilogue(case):
    check(case, lanes(), 1, extras=True)


@pytest.mark.slow
@pytest.mark.parametrize("width", [4, 8, 16])
@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_every_width_agrees(case, width, precise):
    if width > lanes():
        pytest.skip(f"this machine has {lanes()} lanes")
    check(case, width, 2, extras=False, precise=precise)


@pytest.mark.parametrize("width", [w for w in (4, 8) if w < lanes()])
def test_narrow_widths_agree_on_one_shape_each(width):
    check(CASES[2], width, 2, extras=False)


def test_a_prologue_is_applied_before_the_padding():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 20, 6, 5)).astype(np.float32)
    weights = {
        "weight": rng.standard_normal((18, 20, 3, 3)).astype(np.float32),
        "scale": rng.standard_normal(20).astype(np.float32),
        "shift": rng.standard_normal(20).astype(np.float32),
    }
    plain = {"stride": (1, 1), "pad": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    before = x * weights["scale"][:, None, None] + weights["shift"][:, None, None]
    expected = reference("conv", [np.maximum(before, 0), weights["weight"]], plain)
    attrs = {**plain, "extras": ("scale", "shift"), "activation": "", "activation_attrs": (),
             "prologue": "affine_relu"}  # fmt: skip
    found = run_blocked("fused_conv", {"x": x}, weights, attrs, Target(lanes(), 2))
    assert error(found, expected) < 2e-5
