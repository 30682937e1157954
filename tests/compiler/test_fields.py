"""Gaussian filters against sums over all pairs, and against what the lattice promises."""

import numpy as np
import pytest
from tilth.compiler.ops import OPS, OpError
from tilth.compiler.ops.fields import lattice_corners, lattice_gain

gauss = OPS["gauss_filter"].reference
grid = OPS["gauss_grid_filter"].reference
lattice = OPS["lattice"].reference
lattice_filter = OPS["lattice_filter"].reference


def all_pairs(features, values):
    square = np.sum((features[:, None] - features[None]) ** 2, axis=-1)
    return np.exp(-square / 2) @ values


def test_exact_filter_sums_all_pairs():
    rng = np.random.default_rng(0)
    features, values = rng.normal(size=(2, 37, 5)), rng.normal(size=(2, 37, 3))
    want = np.stack([all_pairs(f, v) for f, v in zip(features, values, strict=True)])
    np.testing.assert_allclose(gauss(features, values), want, atol=1e-12)


@pytest.mark.parametrize("sigmas", [(1.5, 2.0), (0.4, 30.0)])
def test_filter_along_axes_is_the_exact_one_of_positions(sigmas):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(9, 13, 2))
    rows, columns = np.meshgrid(np.arange(9.0), np.arange(13.0), indexing="ij")
    features = np.stack([rows / sigmas[0], columns / sigmas[1]], -1).reshape(-1, 2)
    want = all_pairs(features, values.reshape(-1, 2)).reshape(values.shape)
    assert np.abs(grid(values, sigmas) - want).max() < 2e-6 * np.abs(want).max()


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
def test_points_are_the_weighted_means_of_their_corners(d):
    rng = np.random.default_rng(d)
    features = rng.normal(size=(61, d)) * 3
    corners, weights = lattice_corners(features)
    assert weights.min() >= -1e-12
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    # The last coordinate makes the sum 0; corners lie in d+1 classes by their remainder.
    full = np.concatenate([corners, -corners.sum(axis=2, keepdims=True)], axis=2)
    remainder = full[:, :, 0] % (d + 1)
    assert (full % (d + 1) == remainder[:, :, None]).all()
    assert (np.sort(remainder, axis=1) == np.arange(d + 1)).all()
    # In a simplex no corner is further than d from another along an axis.
    mean = np.sum(full * weights[:, :, None], axis=1)
    elevated = elevate(features)
    np.testing.assert_allclose(mean, elevated, atol=1e-10)


def elevate(features):
    """The isometry onto the plane of vectors that sum to 0, as a matrix; then the spread."""
    d = features.shape[1]
    basis = np.zeros((d + 1, d))
    for j in range(d):
        basis[: j + 1, j] = 1
        basis[j + 1, j] = -(j + 1)
        basis[:, j] /= np.sqrt((j + 1) * (j + 2))
    np.testing.assert_allclose(basis.T @ basis, np.eye(d), atol=1e-12)
    return features @ basis.T * np.sqrt(2 / 3) * (d + 1)


def test_neighbours_are_mutual_and_differ_by_one_step():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(40, 3))
    vertex, _, along, count = lattice(features)
    corners, _ = lattice_corners(features)
    place = {}
    for number, corner in zip(vertex.ravel(), corners.reshape(-1, 3), strict=True):
        assert place.setdefault(number, tuple(corner)) == tuple(corner)
    assert sorted(place) == list(range(1, count[0]))
    numbers = {corner: number for number, corner in place.items()}
    for axis in range(4):
        step = np.array([3 if k == axis else -1 for k in range(3)])
        for number, corner in place.items():
            for side, sign in enumerate((1, -1)):
                wanted = numbers.get(tuple(np.array(corner) + sign * step), 0)
                assert along[axis, number, side] == wanted
    assert (vertex.ravel()[0] == 1) and not along[:, count[0] :].any()


def test_lattice_filter_is_splat_blur_slice_by_matrices():
    rng = np.random.default_rng(3)
    features, values = rng.normal(size=(25, 2)), rng.normal(size=(25, 4))
    built = lattice(features)
    vertex, weight, along, count = built
    splat = np.zeros((count[0], 25))
    for n in range(25):
        splat[vertex[n], n] = weight[n]
    whole = splat
    for axis in range(3):
        blur = np.eye(count[0])
        for side in range(2):
            for v in range(1, count[0]):
                if along[axis, v, side]:
                    blur[v, along[axis, v, side]] += 0.5
        np.testing.assert_array_equal(blur, blur.T)
        whole = blur @ whole
    want = splat.T @ whole @ values * lattice_gain(2)
    np.testing.assert_allclose(lattice_filter(values, *built, False), want, atol=1e-12)


@pytest.mark.parametrize("d", [2, 5])
def test_transpose_reverses_the_blur(d):
    rng = np.random.default_rng(4)
    features = rng.normal(size=(2, 50, d))
    x, y = rng.normal(size=(2, 2, 50, 3))
    built = lattice(features)
    there = np.sum(lattice_filter(x, *built, False) * y)
    back = np.sum(x * lattice_filter(y, *built, True))
    assert abs(there - back) < 1e-10 * abs(there)


def test_normalised_lattice_filter_is_near_the_exact_one():
    rng = np.random.default_rng(5)
    features = rng.uniform(size=(900, 2)) * 6
    values = np.stack([np.sin(features[:, 0]), np.ones(900)], -1)
    exact = all_pairs(features, values)
    found = lattice_filter(values, *lattice(features), False)
    gap = found[:, 0] / found[:, 1] - exact[:, 0] / exact[:, 1]
    assert np.sqrt(np.mean(gap**2)) < 0.03


def test_what_a_lattice_cannot_hold_is_refused():
    with pytest.raises(OpError, match="spread too far"):
        lattice(np.array([[0.0, 0, 0, 0, 0], [1e4, 0, 0, 0, 0]]))
    with pytest.raises(OpError, match="not a finite number"):
        lattice(np.array([[np.nan, 0.0]]))


def test_no_points():
    built = lattice(np.zeros((0, 3)))
    assert built[3][0] == 1
    assert lattice_filter(np.zeros((0, 2)), *built, False).shape == (0, 2)
