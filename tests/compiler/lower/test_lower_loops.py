"""Loops: turns that move on, loops in loops, loops that decide for themselves, on one team."""

import numpy as np
import pytest
from graphs import Build, check, compiled, region
from tilth.compiler.ir.types import TensorType
from tilth.runtime.faults import RuntimeFault

ROW = TensorType("f32", (3, 4))
LATER = TensorType("f32", (4, 4))


def recurrence(reverse=False, length=6):
    """Carries that trade places, a stacked view, a stacked carry, a capture."""
    body = region(ROW, ROW, ROW, LATER)
    a, c, x, w = body.values
    product = body("contract", a, w, spec="ij,jk->ik", semiring="sum_product")
    fresh = body("tanh", body("add", product, x))
    body.output(c, fresh, fresh, body("flip", x, axes=(1,)), a)
    b = Build()
    operands = [b.input((3, 4)), b.input((3, 4)), b.input((length, 3, 4)), b.input((4, 4))]
    loop = b("scan", *operands, region=body.graph, n_carry=2, n_xs=1, length=length,
             reverse=reverse)  # fmt: skip
    return b.output(*(type(loop)(loop.node, i) for i in range(5)))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_carries_and_stacks(threads, reverse):
    check(recurrence(reverse), threads=threads)


def test_a_scan_of_no_steps_gives_its_carries_back():
    check(recurrence(length=0))


def test_loops_in_loops_start_anew_at_each_turn():
    inner = region(ROW, ROW)
    state, x = inner.values
    fresh = inner("tanh", inner("add", state, x))
    inner.output(fresh, fresh)
    outer = region(ROW, TensorType("f32", (5, 3, 4)))
    state, xs = outer.values
    loop = outer("scan", state, xs, region=inner.graph, n_carry=1, n_xs=1, length=5, reverse=True)
    outer.output(loop, type(loop)(loop.node, 1))
    b = Build()
    loop = b("scan", b.input((3, 4)), b.input((4, 5, 3, 4)), region=outer.graph, n_carry=1,
             n_xs=1, length=4, reverse=False)  # fmt: skip
    b.output(loop, type(loop)(loop.node, 1))
    check(b, threads=2)


def halving():
    """Halves a matrix until its largest element is below a bound."""
    body = region(ROW, TensorType("f32", ()))
    x, bound = body.values
    half = body("mul", x, body.constant(0.5, "f32"))
    most = body("reduce", body("abs", half), kind="max", axes=(0, 1), keepdims=False)
    return body.output(half, body("lt", most, bound)).graph


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bound, most", [(0.01, 50), (0.01, 3), (100.0, 50), (0.01, 0)])
def test_iterate_stops_when_its_condition_holds(bound, most, threads):
    b = Build()
    loop = b("iterate", b.input((3, 4)), b.input((), data=bound), region=halving(), n_carry=1,
             max_steps=most)  # fmt: skip
    check(b.output(loop), threads=threads)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_loop_that_decides_may_stand_in_a_loop(threads):
    body = region(ROW, TensorType("f32", ()), ROW)
    x, bound, row = body.values
    small = body("iterate", body("add", x, row), bound, region=halving(), n_carry=1, max_steps=40)
    body.output(small, body("reduce", small, kind="sum", axes=(0, 1), keepdims=False))
    b = Build()
    bounds = b.input((7,), data=[1, 0.5, 2, 0.1, 5, 0.01, 1])
    loop = b("scan", b.input((3, 4)), bounds, b.input((3, 4)), region=body.graph, n_carry=1,
             n_xs=1, length=7, reverse=False)  # fmt: skip
    b.output(loop, type(loop)(loop.node, 1))
    for _ in range(5):
        check(b, threads=threads)


def fixed_point(most):
    body = region(TensorType("f64", (5,)), TensorType("f64", (5, 5)))
    x, a = body.values
    moved = body("contract", a, x, spec="ij,j->i", semiring="sum_product")
    body.output(body("add", body("mul", moved, body.constant(0.1, "f64")),
                     body.constant(1.0, "f64")))  # fmt: skip
    b = Build()
    operands = [b.input((5,), "f64"), b.input((5, 5), "f64")]
    return b.output(b("fix", *operands, region=body.graph, n_carry=1, tol=1e-9, max_steps=most))


def test_fix_converges_or_says_that_it_does_not():
    check(fixed_point(200), 1e-8, threads=2)
    b = fixed_point(3)
    module = compiled(b.graph, {})
    with pytest.raises(RuntimeFault, match="no fixed point within 3 steps"):
        module.run(b.inputs)
    with pytest.raises(RuntimeFault, match="no fixed point"):
        module.run(b.inputs)


def test_a_sweep_inside_a_loop_meets_numbers_that_change_places():
    """Every turn reads what the turn before wrote, on many threads at once."""
    wide = TensorType("f32", (64, 64))
    body = region(wide, wide)
    a, b_ = body.values
    swapped = body("transpose", a, perm=(1, 0))
    body.output(body("add", b_, body.constant(1.0, "f32")), swapped)
    b = Build()
    loop = b("scan", b.input((64, 64)), b.input((64, 64)), region=body.graph, n_carry=2, n_xs=0,
             length=25, reverse=False)  # fmt: skip
    b.output(loop, type(loop)(loop.node, 1))
    module = compiled(b.graph, {}, threads=4)
    first = module.run(b.inputs)
    for _ in range(20):
        again = module.run(b.inputs)
        assert all(np.array_equal(first[name], again[name]) for name in first)
    check(b, threads=4)
