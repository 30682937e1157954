"""Resampling against stored references and exact small cases."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ops import OpError

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-6}
H, W, N, C = symbol("H"), symbol("W"), symbol("N"), symbol("C")
UP, DOWN = [11, 13], [4, 3]


def resize(size, mode, **how):
    return "resize", {"size": size, "mode": mode, **how}


GOLDENS = {
    "resize_bicubic_half_pixel_down": resize(DOWN, "bicubic"),
    "resize_bicubic_half_pixel_up": resize(UP, "bicubic"),
    "resize_bilinear_align_corners_down": resize(DOWN, "bilinear", align_corners=True),
    "resize_bilinear_align_corners_up": resize(UP, "bilinear", align_corners=True),
    "resize_bilinear_antialias_down": resize(DOWN, "bilinear", antialias=True),
    "resize_bilinear_antialias_up": resize(UP, "bilinear", antialias=True),
    "resize_bilinear_half_pixel_down": resize(DOWN, "bilinear"),
    "resize_bilinear_half_pixel_up": resize(UP, "bilinear"),
    "resize_bilinear_scale_factor_given": ("upsample", {"factor": 1.7, "mode": "bilinear"}),
    "resize_bilinear_scale_recomputed": resize([11, 8], "bilinear"),
    "resize_nearest_down": resize(DOWN, "nearest"),
    "resize_nearest_exact_down": resize(DOWN, "nearest_exact"),
    "resize_nearest_exact_up": resize(UP, "nearest_exact"),
    "resize_nearest_up": resize(UP, "nearest"),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", GOLDENS)
def test_matches_reference(case, dtype, golden, run_layer, agree):
    layer, settings = GOLDENS[case]
    data = golden(f"ops/{case}")
    agree(run_layer(layer, data["in_x"].astype(dtype), **settings), data["y"], TOLERANCE[dtype])


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample_matches_reference(mode, padding, align, golden, run_layer, agree):
    data = golden(f"ops/grid_sample_{mode}_{padding}_ac{align}")
    x, grid = (data[k].astype(np.float64) for k in ("in_x", "in_grid"))
    settings = {"mode": mode, "padding": padding, "align_corners": bool(align)}
    agree(run_layer("grid_sample", x, grid, **settings), data["y"], 1e-6)
    single = run_layer("grid_sample", data["in_x"], data["in_grid"], **settings)
    agree(single, data["y"], 1e-5)


@pytest.mark.parametrize("align", [0, 1])
def test_spatial_transformer_matches_reference(align, golden, run_layer, agree):
    data = golden(f"ops/spatial_transformer_ac{align}")
    how = {"align_corners": bool(align)}
    for dtype, tolerance in TOLERANCE.items():
        grid = run_layer("affine_grid", data["in_theta"].astype(dtype), size=[8, 9], **how)
        y = run_layer("grid_sample", data["in_x"].astype(dtype), grid, **how)
        agree(y, data["y"], tolerance)


def test_the_identity_transform_returns_the_image(run_layer, agree):
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 6))
    theta = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    for align in (False, True):
        grid = run_layer("affine_grid", theta, size=[5, 6], align_corners=align)
        agree(run_layer("grid_sample", x, grid, align_corners=align), x, 1e-12)


def test_reflection_of_a_single_pixel(run_layer):
    grid = np.random.default_rng(0).uniform(-3, 3, (1, 2, 2, 2))
    for align in (False, True):
        y = run_layer(
            "grid_sample", np.ones((1, 1, 1, 1)), grid, padding="reflection", align_corners=align
        )
        np.testing.assert_allclose(y, 1)


def test_upsample_nearest_repeats(run_layer):
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    np.testing.assert_array_equal(
        run_layer("upsample", x, factor=2), x.repeat(2, axis=2).repeat(2, axis=3)
    )
    np.testing.assert_array_equal(run_layer("upsample", x, factor=0.5), x[:, :, :1, :1])
    line = np.arange(3.0).reshape(1, 1, 3)
    assert run_layer("upsample", line, factor=3).tolist() == [[[0, 0, 0, 1, 1, 1, 2, 2, 2]]]


@pytest.mark.parametrize(("length", "count"), [(5, 13), (7, 21), (9, 4), (49, 7), (6, 10)])
def test_nearest_is_exact_in_whole_numbers(length, count, run_layer):
    x = np.arange(length).reshape(1, 1, length)
    y = run_layer("resize", x, size=count)
    assert y[0, 0].tolist() == [i * length // count for i in range(count)]


def test_linear_resize_keeps_a_ramp(run_layer, agree):
    ramp = np.linspace(0, 1, 7).reshape(1, 1, 7)
    y = run_layer("resize", ramp, size=25, mode="bilinear", align_corners=True)
    agree(y[0, 0], np.linspace(0, 1, 25), 1e-14)
    volume = np.ones((1, 1, 2, 3, 4))
    agree(run_layer("resize", volume, size=5, mode="bilinear"), np.ones((1, 1, 5, 5, 5)), 1e-14)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_constants_stay(mode, antialias, run_layer, agree):
    x = np.full((1, 1, 11, 5), 3.0)
    agree(
        run_layer("resize", x, size=[3, 9], mode=mode, antialias=antialias),
        np.full((1, 1, 3, 9), 3.0),
        1e-14,
    )


def test_pixel_shuffle_and_back(run_layer):
    x = np.arange(2 * 12 * 2 * 3).reshape(2, 12, 2, 3)
    y = run_layer("pixel_shuffle", x, factor=2)
    assert y.shape == (2, 3, 4, 6)
    for n, c, i, j in np.ndindex(y.shape):
        assert y[n, c, i, j] == x[n, c * 4 + (i % 2) * 2 + j % 2, i // 2, j // 2]
    np.testing.assert_array_equal(run_layer("pixel_unshuffle", y, factor=2), x)


def test_symbolic_sizes(bench):
    x = bench.input([N, 12, H, W])
    assert bench.type_of(bench.apply("upsample", x, factor=2)).shape == (N, 12, 2 * H, 2 * W)
    half = bench.type_of(bench.apply("upsample", x, factor=0.5)).shape
    assert half == (N, 12, H // 2, W // 2)
    assert bench.type_of(bench.apply("resize", x, size=[2 * H, 5])).shape == (N, 12, 2 * H, 5)
    y = bench.apply("pixel_shuffle", x, factor=2)
    assert bench.type_of(y).shape == (N, 3, 2 * H, 2 * W)
    assert bench.type_of(bench.apply("pixel_unshuffle", y, factor=2)).shape == (N, 12, H, W)
    grid = bench.apply("affine_grid", [N, 2, 3], size=[H, W])
    assert bench.type_of(grid).shape == (N, H, W, 2)
    assert bench.type_of(bench.apply("grid_sample", x, grid)).shape == (N, 12, H, W)


@pytest.mark.parametrize(
    ("layer", "shapes", "settings", "code", "words"),
    [
        ("upsample", [[N, 10]], {"factor": 2}, "E101", "[N, C, spatial...]"),
        ("upsample", [[N, 1, 4]], {"factor": 0}, "E408", "factor is 0"),
        ("upsample", [[N, 1, 4]], {"factor": 0.1}, "E106", "would be 0"),
        ("resize", [[N, 1, 4]], {"size": [2, 2]}, "E408", "per spatial axis"),
        ("resize", [[N, 1, 4]], {"size": 2, "mode": "linear"}, "E408", "bilinear"),
        ("resize", [[N, 1, 4]], {"size": 2, "antialias": True}, "E408", "antialias is True"),
        ("grid_sample", [[N, 1, 4], [N, 1, 4, 2]], {}, "E101", "[N, C, H, W]"),
        ("grid_sample", [[N, 1, 4, 4], [N, 1, 4, 3]], {}, "E103", "is 3, expected 2"),
        ("grid_sample", [[2, 1, 4, 4], [3, 1, 4, 2]], {}, "E103", "batch"),
        ("grid_sample", [[2, 1, 4, 4], [2, 1, 4, 2]], {"padding": "wrap"}, "E408", "wrap"),
        ("affine_grid", [[N, 3, 3]], {"size": 4}, "E103", "row count"),
        ("affine_grid", [[N, 6]], {"size": 4}, "E101", "[N, 2, 3]"),
        ("pixel_shuffle", [[N, 6, H, W]], {"factor": 2}, "E108", "6 is not divisible by 4"),
        ("pixel_unshuffle", [[N, 6, 5, W]], {"factor": 2}, "E108", "height 5"),
        ("pixel_shuffle", [[N, 6, H]], {"factor": 2}, "E101", "[N, C, H, W]"),
    ],
)
def test_messages(layer, shapes, settings, code, words, bench):
    with pytest.raises(OpError) as caught:
        bench.apply(layer, *shapes, **settings)
    assert caught.value.code == code
    assert words in caught.value.message
