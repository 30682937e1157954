"""Gradients of loops against differences, unrolled loops, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from test_gradients import agree, central
from tilth.compiler.autodiff import How, gradients
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Graph
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ir.verify import verify
from tilth.compiler.ops.expr import Writer


def f64(*shape):
    return TensorType("f64", shape)


def cell(dtype="f64"):
    """h' = tanh(U h + x + count), with a whole-number carry that counts; puts out h'^2 twice."""
    region = Graph("cell")
    w = Writer(region)
    h, count, x, u = (
        w.expr(region.add_input(n, k))
        for n, k in (
            ("h", f64(3)),
            ("count", TensorType("i64", ())),
            ("x", f64(3)),
            ("u", f64(3, 3)),
        )
    )
    after = (u.contract("ij,j->i", h) + x + count.cast("f64") * 0.1).op("tanh")
    region.set_output("h", after.value)
    region.set_output("count", (count + 1).value)
    region.set_output("row", after.square().value)
    region.set_output("again", after.value)
    return region


def recurrence(reverse=False, steps=5):
    graph = Graph("recurrence")
    w = Writer(graph)
    h, x, u = (
        w.expr(graph.add_input(n, k))
        for n, k in (("h", f64(3)), ("x", f64(steps, 3)), ("u", f64(3, 3)))
    )
    attrs = {"n_carry": 2, "n_xs": 1, "length": steps, "reverse": reverse}
    last, _, rows, again = w.loop("scan", [h, w.fill((), 0, "i64"), x, u], attrs, cell())
    weight = w.expr(graph.add_constant(np.linspace(-1, 2, steps * 3).reshape(steps, 3), "f64"))
    loss = last.sum() + (rows * weight).sum() + (again * weight * 0.3).sum()
    return graph, loss, [h.value, x.value, u.value]


def arrays(steps=5, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=3), rng.normal(size=(steps, 3)), rng.normal(size=(3, 3)) * 0.7]


def feeds(values, names=("h", "x", "u")):
    return dict(zip(names, values, strict=True))


def run(graph, values, inputs):
    twin = graph.copy()
    twin.outputs = [(f"y{i}", v) for i, v in enumerate(values)]
    twin.prune()
    verify(twin)
    found = interpret(twin, inputs, {})
    return [found[f"y{i}"] for i in range(len(values))]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_scan(reverse, recompute):
    graph, loss, wrt = recurrence(reverse)
    source = graph.copy()
    found = run(graph, gradients(graph, loss.value, wrt, How(recompute=recompute)), feeds(arrays()))

    def value(at):
        return run(source, [loss.value], feeds(at))[0]

    for place, gradient in enumerate(found):
        agree(gradient, central(value, arrays(), place))


@pytest.mark.parametrize("recompute", [False, True])
def test_scan_twice(recompute):
    graph, loss, wrt = recurrence()
    how = How(recompute=recompute)
    first = gradients(graph, loss.value, wrt, how)
    w = Writer(graph)
    total = w.expr(first[0]).square().sum() + w.expr(first[2]).op("sin").sum()
    source = graph.copy()
    found = run(graph, gradients(graph, total.value, wrt, how), feeds(arrays()))

    def value(at):
        return run(source, [total.value], feeds(at))[0]

    for place, gradient in enumerate(found):
        agree(gradient, central(value, arrays(), place))


def test_recomputing_stacks_only_carries():
    stacked = []
    for recompute in (False, True):
        graph, loss, wrt = recurrence()
        gradients(graph, loss.value, wrt, How(recompute=recompute))
        graph.set_output("loss", loss.value)
        forward = [n for _, n in graph.of_op("scan") if n.regions[0].name == "cell"][-1]
        stacked.append(len(forward.types) - 4)
    # The cell puts out tanh's result anyway: h is added; to compute it again, the count too.
    assert stacked == [1, 2]


def test_gradients_of_weights_are_products_over_all_steps():
    """No total travels from step to step, unless memory counts."""
    carried = []
    for recompute in (False, True):
        graph, loss, wrt = recurrence()
        for place, value in enumerate(gradients(graph, loss.value, wrt, How(recompute=recompute))):
            graph.set_output(f"d{place}", value)
        graph.prune()
        back = [n for _, n in graph.of_op("scan") if n.regions[0].name == "backward"]
        carried += [n.attrs["n_carry"] for n in back]
    assert carried == [1, 2]  # the cotangent of h; and the total of u's


def test_truncation_is_a_stop_between_blocks():
    """Blocks of two steps, each started from the value, but not the gradient, of the last."""
    graph, loss, wrt = recurrence(steps=5)
    found = run(graph, gradients(graph, loss.value, wrt, How(truncate=2)), feeds(arrays()))
    h, x, u = arrays()
    weight = np.linspace(-1, 2, 15).reshape(5, 3)
    states, total = [h], 0
    for t in range(5):
        states.append(np.tanh(u @ states[-1] + x[t] + 0.1 * t))
    dh, dx, du = np.zeros(3), np.zeros((5, 3)), np.zeros((3, 3))
    carry = np.ones(3)
    for t in reversed(range(5)):
        s = states[t + 1]
        d = (carry + 2 * s * weight[t] + 0.3 * weight[t]) * (1 - s * s)
        dx[t], du = d, du + np.outer(d, states[t])
        carry = u.T @ d
        if t == 0:
            dh = carry
        elif t % 2 == 0:
            carry = np.zeros(3)
    assert total == 0
    for ours, theirs in zip(found, (dh, dx, du), strict=True):
        agree(ours, theirs, 1e-12)


def fixed_point(tol=1e-13):
    """x = tanh(A x + b): the body contracts."""
    region = Graph("body")
    w = Writer(region)
    x, a, b = (
        w.expr(region.add_input(n, k)) for n, k in (("x", f64(3)), ("a", f64(3, 3)), ("b", f64(3)))
    )
    region.set_output("x", (a.contract("ij,j->i", x) + b).op("tanh").value)
    graph = Graph("fixed")
    w = Writer(graph)
    x, a, b = (
        w.expr(graph.add_input(n, k)) for n, k in (("x", f64(3)), ("a", f64(3, 3)), ("b", f64(3)))
    )
    (found,) = w.loop("fix", [x, a, b], {"n_carry": 1, "tol": tol, "max_steps": 500}, region)
    weight = w.expr(graph.add_constant(np.array([1.0, -2.0, 0.5]), "f64"))
    return graph, (found * weight).sum(), [x.value, a.value, b.value]


def fixed_arrays():
    rng = np.random.default_rng(2)
    return [np.zeros(3), 0.3 * rng.normal(size=(3, 3)), rng.normal(size=3)]


def test_fix_is_differentiated_implicitly():
    graph, loss, wrt = fixed_point()
    source = graph.copy()
    inputs = feeds(fixed_arrays(), ("x", "a", "b"))
    found = run(graph, gradients(graph, loss.value, wrt), inputs)
    assert (found[0] == 0).all()  # where the search starts does not matter

    def value(at):
        return run(source, [loss.value], feeds(at, ("x", "a", "b")))[0]

    for place in (1, 2):
        agree(found[place], central(value, fixed_arrays(), place))


@pytest.mark.parametrize("scale", [1e-12, 1e12, 0.0])
def test_the_adjoint_of_fix_converges_at_any_scale(scale):
    graph, loss, wrt = fixed_point(tol=1e-9)
    inputs = feeds(fixed_arrays(), ("x", "a", "b"))
    plain = run(graph, gradients(graph, loss.value, wrt), inputs)
    graph, loss, wrt = fixed_point(tol=1e-9)
    found = run(graph, gradients(graph, (loss * scale).value, wrt), inputs)
    for ours, theirs in zip(found, plain, strict=True):
        assert np.abs(ours - scale * theirs).max() <= 1e-7 * scale * np.abs(theirs).max()


def test_fix_twice():
    graph, loss, wrt = fixed_point()
    first = gradients(graph, loss.value, wrt)
    total = Writer(graph).expr(first[2]).square().sum()
    source = graph.copy()
    inputs = feeds(fixed_arrays(), ("x", "a", "b"))
    found = run(graph, gradients(graph, total.value, wrt), inputs)

    def value(at):
        return run(source, [total.value], feeds(at, ("x", "a", "b")))[0]

    for place in (1, 2):
        agree(found[place], central(value, fixed_arrays(), place))


def open_loop(limit=3.0):
    """y = y * a + b until it passes a limit; also counts."""
    region = Graph("body")
    w = Writer(region)
    y, count, a, b = (
        w.expr(region.add_input(n, k))
        for n, k in (("y", f64()), ("count", TensorType("i64", ())), ("a", f64()), ("b", f64()))
    )
    after = y * a + b
    region.set_output("y", after.value)
    region.set_output("count", (count + 1).value)
    region.set_output("stop", (after > limit).value)
    graph = Graph("open")
    w = Writer(graph)
    y, a, b = (w.expr(graph.add_input(n, f64())) for n in ("y", "a", "b"))
    attrs = {"n_carry": 2, "max_steps": 20}
    found, _ = w.loop("iterate", [y, w.fill((), 0, "i64"), a, b], attrs, region)
    return graph, found.square(), [y.value, a.value, b.value]


@pytest.mark.parametrize("start", [0.5, 2.9])
def test_iterate_goes_back_over_the_steps_it_made(start):
    graph, loss, wrt = open_loop()
    source = graph.copy()
    at = [np.array(start), np.array(1.3), np.array(0.4)]
    names = ("y", "a", "b")
    found = run(graph, gradients(graph, loss.value, wrt), feeds(at, names))

    def value(at):
        return run(source, [loss.value], feeds(at, names))[0]

    for place, gradient in enumerate(found):
        agree(gradient, central(value, at, place))


def test_iterate_twice():
    graph, loss, wrt = open_loop()
    first = gradients(graph, loss.value, wrt)
    total = Writer(graph).expr(first[1]).square()
    source = graph.copy()
    names = ("y", "a", "b")
    at = [np.array(0.5), np.array(1.3), np.array(0.4)]
    found = run(graph, gradients(graph, total.value, wrt), feeds(at, names))

    def value(at):
        return run(source, [total.value], feeds(at, names))[0]

    for place, gradient in enumerate(found):
        agree(gradient, central(value, at, place))


def test_loop_within_a_loop():
    """Each step of the outer loop runs the inner one over the same rows."""
    inner = Graph("inner")
    w = Writer(inner)
    s, x, a = (w.expr(inner.add_input(n, f64())) for n in ("s", "x", "a"))
    after = (s * a + x).op("sin")
    inner.set_output("s", after.value)
    inner.set_output("row", after.value)
    outer = Graph("outer")
    w = Writer(outer)
    s, x, a = (
        w.expr(outer.add_input(n, k)) for n, k in (("s", f64()), ("x", f64(3)), ("a", f64()))
    )
    attrs = {"n_carry": 1, "n_xs": 1, "length": 3, "reverse": False}
    last, rows = w.loop("scan", [s, x, a], attrs, inner)
    outer.set_output("s", (last * 0.7 + rows.square().sum()).value)
    graph = Graph("both")
    w = Writer(graph)
    s, x, a = (
        w.expr(graph.add_input(n, k)) for n, k in (("s", f64()), ("x", f64(4, 3)), ("a", f64()))
    )
    attrs = {**attrs, "length": 4}
    (last,) = w.loop("scan", [s, x, a], attrs, outer)
    source, wrt = graph.copy(), [s.value, x.value, a.value]
    rng = np.random.default_rng(1)
    at = [np.array(0.3), rng.normal(size=(4, 3)), np.array(0.8)]
    names = ("s", "x", "a")
    for how in (How(), How(recompute=True)):
        graph = source.copy()
        found = run(graph, gradients(graph, last.value, wrt, how), feeds(at, names))

        def value(at):
            return run(source, [last.value], feeds(at, names))[0]

        for place, gradient in enumerate(found):
            agree(gradient, central(value, at, place))
