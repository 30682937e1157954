"""Log densities of normal distributions and the moments of what they drew, against references."""

import numpy as np
import pytest
from graphs import Build, check, compiled
from tilth.compiler.ops.base import OPS
from tilth.runtime.faults import RuntimeFault
from tilth.runtime.simd import lanes

reference = OPS["moments"].reference
assert reference is not None


def normal(points, settings, size):
    b = Build()
    x = b.input((points, size), "f64")
    mean = b.input((settings, size), "f64")
    spread = b.input((settings, size), "f64", np.abs(b.rng.normal(size=(settings, size))) + 0.1)
    return b.output(b("log_densities", x, mean, spread, dist="normal", form="", lead=1, rest=1))


def mvnormal(points, settings, size):
    b = Build()
    x = b.input((points, size), "f64")
    mean = b.input((settings, size), "f64")
    root = b.rng.normal(size=(settings, size, size))
    cov = b.input(root.shape, "f64", root @ root.transpose(0, 2, 1) + 0.1 * np.eye(size))
    return b.output(b("log_densities", x, mean, cov, dist="mvnormal", form="", lead=1, rest=0))


def moments(points, settings, size, event):
    b = Build()
    weights = b.input((points, settings), "f64")
    x = b.input((points, size), "f64", b.rng.normal(size=(points, size)) + 100)
    centre = b.input((settings, size), "f64", b.rng.normal(size=(settings, size)) + 100)
    made = b("moments", weights, x, centre, lead=1, event=event)
    return b.output(*(type(made)(made.node, place) for place in range(3)))


SHAPES = [(1, 1, 1), (37, 3, 2), (1030, 16, 4), (70, 19, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_normal_densities(shape):
    check(normal(*shape), 1e-12, threads=2)


@pytest.mark.parametrize("shape", [(1, 1, 1), (37, 3, 2), (1030, 5, 16), (70, 19, 7)])
def test_multivariate_densities(shape):
    check(mvnormal(*shape), 1e-10, threads=2)


@pytest.mark.parametrize("event", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_moments(shape, event):
    b = moments(*shape, event)
    found = compiled(b.graph, {}, 2).run(b.inputs)
    wanted = reference(*b.inputs.values(), lead=1, event=event)
    for a, c in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-11, atol=1e-11 * np.abs(c).max())


def test_moments_are_the_sums_that_they_say():
    b = moments(37, 3, 2, 1)
    w, x, c = b.inputs.values()
    gap = x[:, None] - c
    count, first, second = reference(w, x, c, lead=1, event=1)
    np.testing.assert_allclose(count, w.sum(0))
    np.testing.assert_allclose(first, np.einsum("nk,nkd->kd", w, gap))
    np.testing.assert_allclose(second, np.einsum("nk,nkd,nke->kde", w, gap, gap))


def test_moments_do_not_depend_on_threads():
    for event in (0, 1):
        b = moments(5000, 3, 3, event)
        runs = [compiled(b.graph, {}, threads).run(b.inputs) for threads in (1, 2, 3)]
        for other in runs[1:]:
            for name, array in other.items():
                np.testing.assert_array_equal(array, runs[0][name])


@pytest.mark.slow
@pytest.mark.parametrize("width", [4, 8, 16])
def test_every_width(width):
    if width > lanes():
        pytest.skip(f"this machine has {lanes()} lanes")
    check(normal(70, 19, 5), width=width)
    check(mvnormal(70, 19, 7), width=width)
    for event in (0, 1):
        check(moments(70, 19, 5, event), width=width)


def test_a_covariance_that_is_none_is_told():
    b = mvnormal(3, 2, 2)
    b.inputs["x2"][1] = [[1.0, 2.0], [2.0, 1.0]]
    with pytest.raises(RuntimeFault, match="not positive definite"):
        compiled(b.graph, {}).run(b.inputs)
