"""Every op's gradient against central differences in float64, and the gradient's own gradient."""

from __future__ import annotations

import numpy as np
import pytest
from gradient_cases import CASES, Case
from tilth.compiler.autodiff import gradients
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import DTYPES, TensorType
from tilth.compiler.ir.verify import verify
from tilth.compiler.ops import OPS
from tilth.compiler.ops.base import ZERO, as_arrays
from tilth.compiler.ops.expr import Expr, Writer

NAMES = {kind: name for name, kind in DTYPES.items()}


def weighted(results, rng):
    """A random weight for each element of each floating-point result."""
    return [rng.uniform(0.5, 1.5, r.shape) * rng.choice([-1, 1], r.shape) for r in results]


class Probe:
    """The scalar sum of weighted results of one op, as a graph and as a function."""

    def __init__(self, case: Case) -> None:
        self.case, self.rng = case, np.random.default_rng(7)
        self.arrays = case.arrays()
        self.graph = Graph("probe")
        self.inputs = [
            self.graph.add_input(f"x{i}", TensorType(NAMES[a.dtype], a.shape))
            for i, a in enumerate(self.arrays)
        ]
        writer = Writer(self.graph)
        self.results = [writer.expr(v) for v in writer.emit(case.op, self.inputs, case.attrs)]
        floats = [r for r in self.results if r.type.is_float]
        self.weights = [w for w in weighted(self._reference(self.arrays), self.rng)]
        parts = [
            (r * writer.expr(self.graph.add_constant(w, "f64"))).sum()
            for r, w in zip(floats, self.weights, strict=True)
        ]
        self.scalar = parts[0]
        for part in parts[1:]:
            self.scalar = self.scalar + part
        self.places = [
            place
            for place, v in enumerate(self.inputs)
            if self.graph.type_of(v).is_float and place not in case.held
        ]
        self.wrt = [self.inputs[place] for place in self.places]

    def _reference(self, arrays):
        found = as_arrays(OPS[self.case.op].reference(*arrays, **self.case.attrs))
        return [a for a in found if a.dtype.kind == "f"]

    def value(self, arrays) -> float:
        parts = zip(self._reference(arrays), self.weights, strict=True)
        # Outside a support log densities are -inf wherever one moves.
        return float(sum((r * w)[np.isfinite(r)].sum() for r, w in parts))

    def feeds(self, arrays):
        return {f"x{i}": a for i, a in enumerate(arrays)}

    def run(self, values, arrays=None):
        twin = self.graph.copy()
        twin.outputs = [(f"y{i}", value) for i, value in enumerate(values)]
        twin.prune()
        verify(twin)
        found = interpret(twin, self.feeds(self.arrays if arrays is None else arrays), {})
        return [found[f"y{i}"] for i in range(len(values))]


def central(function, arrays, place, step=2e-4):
    """Derivatives of ``function(arrays)`` by each element of one array, to fourth order."""
    result = np.zeros(arrays[place].shape)
    for at in np.ndindex(*result.shape):
        moved = []
        for times in (-2, -1, 1, 2):
            twin = [a.copy() for a in arrays]
            twin[place][at] += times * step
            moved.append(function(twin))
        result[at] = (moved[0] - 8 * moved[1] + 8 * moved[2] - moved[3]) / (12 * step)
    return result


def agree(ours, theirs, tolerance=1e-6):
    ours, theirs = np.asarray(ours), np.asarray(theirs, np.float64)
    scale = max(1e-2, float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0)))
    differ = np.abs(np.subtract(ours, theirs, where=ours != theirs, out=np.zeros_like(theirs)))
    worst = float(differ.max(initial=0))
    assert worst <= tolerance * scale, f"off by {worst} at scale {scale}"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gradient_is_the_slope(case):
    probe = Probe(case)
    found = probe.run(gradients(probe.graph, probe.scalar.value, probe.wrt))
    if OPS[case.op].gradient is ZERO:
        assert all((g == 0).all() for g in found)
        return
    for place, gradient in zip(probe.places, found, strict=True):
        agree(gradient, central(probe.value, probe.arrays, place, case.step))


ONCE = {"chain"}
"""Ops whose gradient has no gradient: marginals of a chain would need second moments."""


@pytest.mark.parametrize("case", [c for c in CASES if c.op not in ONCE], ids=lambda c: c.name)
def test_gradient_of_the_gradient_is_its_slope(case):
    probe = Probe(case)
    writer = Writer(probe.graph)
    first = gradients(probe.graph, probe.scalar.value, probe.wrt)
    for index, node in probe.graph.nodes():
        row = OPS[node.op]
        assert row.gradient is not None or node.op == "input", f"{node.op} (%{index}) ends here"
    weights = weighted([np.empty(probe.arrays[p].shape) for p in probe.places], probe.rng)
    total = None
    for value, weight in zip(first, weights, strict=True):
        part = (writer.expr(value) * writer.expr(probe.graph.add_constant(weight, "f64"))).sum()
        total = part if total is None else total + part
    if total is None:
        assert not probe.wrt
        return
    second = probe.run(gradients(probe.graph, total.value, probe.wrt))

    def slope(arrays):
        found = probe.run(first, arrays)
        return sum((g * w).sum() for g, w in zip(found, weights, strict=True))

    for place, gradient in zip(probe.places, second, strict=True):
        for _ in range(2):
            direction = probe.rng.normal(size=probe.arrays[place].shape)
            direction /= max(1.0, np.abs(direction).max())

            def along(arrays, place=place, direction=direction):
                twin = list(probe.arrays)
                twin[place] = twin[place] + arrays[0] * direction
                return slope(twin)

            steps = central(along, [np.zeros(())], 0, case.step)
            agree((gradient * direction).sum(), steps, 1e-5)


@pytest.mark.parametrize("case", [c for c in CASES if OPS[c.op].expansion], ids=lambda c: c.name)
def test_expansion_gives_the_same(case):
    probe = Probe(case)
    writer = Writer(probe.graph)
    made = OPS[case.op].expansion([writer.expr(v) for v in probe.inputs], case.attrs)
    made = [made] if isinstance(made, Expr) else made
    assert [m.type for m in made] == [r.type for r in probe.results]
    for ours, theirs in zip(
        probe.run([m.value for m in made]), probe.run([r.value for r in probe.results]), strict=True
    ):
        agree(ours, theirs, 1e-12)


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_op_has_a_gradient_or_a_reason(name):
    row = OPS[name]
    assert (row.gradient is None or row.gradient is ZERO) == bool(row.why_no_gradient)


def test_every_gradient_is_checked():
    loops = {"scan", "fix", "iterate"}
    with_one = {n for n, op in OPS.items() if op.gradient not in (None, ZERO)}
    assert with_one - loops <= {case.op for case in CASES}


def test_operand_given_twice():
    graph = Graph("twice")
    x = graph.add_input("x", TensorType("f64", (2, 3)))
    loss = Value(graph.add("mse", [x, x], {"reduction": "sum"}, (TensorType("f64", ()),)))
    (found,) = gradients(graph, loss, [x])
    graph.set_output("d", found)
    assert (interpret(graph, {"x": np.ones((2, 3))}, {})["d"] == 0).all()
