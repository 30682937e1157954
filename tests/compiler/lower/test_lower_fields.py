"""Gaussian filters compiled for the CPU, against the reference."""

import numpy as np
import pytest
from graphs import Build, check, compiled
from tilth.compiler.interpret import interpret
from tilth.runtime.faults import RuntimeFault
from tilth.runtime.simd import lanes

slow = pytest.mark.slow


def filtered(shape, channels, dtype="f64", reverse=False, seed=0):
    b = Build(seed)
    features = b.input(shape, dtype)
    values = b.input((*shape[:-1], channels), dtype)
    node = b("lattice", features)
    from tilth.compiler.ir.graph import Value

    built = [Value(node.node, place) for place in range(4)]
    return b, built, b("lattice_filter", values, *built, reverse=reverse)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape, channels, reverse", [
    ((700, 5), 21, False),
    ((2, 61, 2), 3, True),
    pytest.param((33, 1), 8, False, marks=slow),
    pytest.param((1, 3), 60, True, marks=slow),
    pytest.param((3000, 6), 1, True, marks=slow),
])  # fmt: skip
def test_lattice_filter(shape, channels, reverse, threads):
    b, _, y = filtered(shape, channels, "f64", reverse)
    check(b.output(y), 1e-12, threads=threads)


def test_lattice_filter_in_float32():
    b, _, y = filtered((900, 5), 21, "f32")
    check(b.output(y), 2e-4, threads=2)


@pytest.mark.parametrize("width", [w for w in (4, 8, 16) if w <= lanes()])
def test_lattice_filter_at_every_width(width):
    b, _, y = filtered((50, 2), 9, "f32")
    check(b.output(y), 1e-4, threads=2, width=width)


def test_corners_are_numbered_and_linked_as_in_the_reference():
    b, built, _ = filtered((5000, 3), 1)
    b.output(*built)
    want = interpret(b.graph, b.inputs, {})
    found = compiled(b.graph, {}, threads=2).run(b.inputs)
    count = int(want["y3"][0])
    assert int(found["y3"][0]) == count
    np.testing.assert_array_equal(found["y0"], want["y0"])
    np.testing.assert_allclose(found["y1"], want["y1"], atol=1e-12)
    np.testing.assert_array_equal(found["y2"][:, :count], want["y2"][:, :count])


def test_results_are_the_same_bits_each_time():
    b, _, y = filtered((2000, 4), 5, "f32")
    module = compiled(b.output(y).graph, {}, threads=2)
    first = module.run(b.inputs)["y0"].copy()
    assert all((module.run(b.inputs)["y0"] == first).all() for _ in range(3))


@pytest.mark.parametrize("bad", [1e9, np.nan, np.inf])
def test_features_that_a_lattice_cannot_hold(bad):
    b, _, y = filtered((40, 5), 2, "f32")
    b.inputs["x0"][7, 1] = bad
    module = compiled(b.output(y).graph, {})
    with pytest.raises(RuntimeFault, match="spread too far"):
        module.run(b.inputs)


@pytest.mark.parametrize("shape, sigmas", [
    ((9, 13, 21), (1.5, 3.0)),
    ((2, 30, 7, 3), (0.3, 40.0)),
    pytest.param((5, 6, 7, 2), (1.0, 2.0, 0.7), marks=slow),
    pytest.param((40, 1), (3.0,), marks=slow),
    pytest.param((3, 200, 150), (4.0, 2.0), marks=slow),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_filter_along_axes(shape, sigmas, dtype):
    b = Build()
    x = b.input(shape, dtype)
    check(b.output(b("gauss_grid_filter", x, sigmas=sigmas)), 1e-6 if dtype == "f32" else 1e-14)


def test_exact_filter_as_a_product():
    b = Build()
    features, values = b.input((2, 40, 5)), b.input((2, 40, 3))
    check(b.output(b("gauss_filter", features, values)), 1e-5)
