"""The verifier accepts what is well formed and names the node of every fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ir.verify import VerifyError, verify

N = symbol("N")
VECTOR, SCALAR = TensorType("f32", (N,)), TensorType("f32", ())
PARAM = {"path": "w", "init": ("zeros",), "kind": "weight", "domain": "real"}


def step() -> Graph:
    body = Graph("step")
    x, w = body.add_input("x", VECTOR), body.add_input("w", SCALAR)
    body.set_output("x", Value(body.add("mul", [x, w], {}, (VECTOR,))))
    return body


def model() -> Graph:
    """Nodes 0 input, 1 weight, 2 constant, 3 mul, 4 add, 5 fix."""
    g = Graph("model")
    x = g.add_input("x", VECTOR)
    w = Value(g.add("param", (), PARAM, (SCALAR,)))
    one = g.add_constant(np.ones((), np.float32), "f32")
    scaled = Value(g.add("mul", [x, w], {}, (VECTOR,)))
    moved = Value(g.add("add", [scaled, one], {}, (VECTOR,)))
    attrs = {"n_carry": 1, "tol": 1e-3, "max_steps": 9}
    fixed = g.add("fix", [moved, w], attrs, (VECTOR,), regions=(step(),))
    g.set_output("y", Value(fixed))
    return g


def change(index: int, **parts: Any) -> Callable[[Graph], None]:
    return lambda g: g.set_node(index, replace(g.node(index), **parts))


def in_region(edit: Callable[[Graph], Any]) -> Callable[[Graph], None]:
    def apply(g: Graph) -> None:
        body = g.node(5).regions[0].copy()
        edit(body)
        g.set_node(5, replace(g.node(5), regions=(body,)))

    return apply


def swap_constant(g: Graph) -> None:
    g.constants = {digest: np.zeros_like(a) for digest, a in g.constants.items()}


def test_a_good_graph_passes() -> None:
    verify(model())
    verify(model().bind({"N": 4}))


FAULTS: dict[str, tuple[Callable[[Graph], Any], int | None, str]] = {
    "unknown op": (change(3, op="mull"), 3, "mull is not an op"),
    "wrong type": (change(3, types=(SCALAR,)), 3, "mul is declared f32[] but gives f32[N]"),
    "wrong dtype": (change(3, types=(VECTOR.with_dtype("f64"),)), 3, "declared f64[N]"),
    "rule fails": (lambda g: change(0, types=(VECTOR.with_dtype("i32"),))(g), 3, "E104"),
    "too few operands": (lambda g: g.set_operands(4, [Value(3)]), 4, "does not take 1 operands"),
    "too many operands": (lambda g: g.set_operands(4, [Value(3)] * 3), 4, "does not take 3"),
    "missing result": (lambda g: g.set_operands(4, [Value(3, 1), Value(2)]), 4, "result 1 of %3"),
    "missing node": (lambda g: g.set_operands(4, [Value(3), Value(77)]), 77, "does not exist"),
    "cycle": (lambda g: g.set_operands(3, [Value(4), Value(1)]), None, "cycle"),
    "operand of a leaf": (lambda g: g.set_operands(1, [Value(0)]), 1, "param takes no operands"),
    "unlisted input": (lambda g: g.inputs.clear(), 0, "not among the graph's inputs"),
    "listed twice": (lambda g: g.inputs.append(0), None, "listed twice"),
    "not an input": (lambda g: g.inputs.append(3), 3, "is not one"),
    "weight without path": (change(1, attrs={**PARAM, "path": ""}), 1, "without a path"),
    "unknown attribute": (change(3, attrs={"axis": 1}), 3, "does not know ['axis']"),
    "missing attribute": (change(5, attrs={"n_carry": 1, "tol": 1.0}), 5, "lacks ['max_steps']"),
    "missing constant": (lambda g: g.constants.clear(), 2, "not in the table"),
    "changed constant": (swap_constant, 2, "content of its hash"),
    "constant's type": (change(2, types=(TensorType("f64", ()),)), 2, "not f64[]"),
    "output node": (lambda g: g.set_output("z", Value(99)), 99, "output 'z'"),
    "output result": (lambda g: g.set_output("z", Value(3, 2)), 3, "result 2"),
    "output name": (lambda g: g.set_output("y", Value(3)), None, "output name 'y'"),
    "region on a plain op": (change(3, regions=(step(),)), 3, "mul has no regions"),
    "no region": (change(5, regions=()), 5, "one region"),
    "capture's type": (lambda g: g.set_operands(5, [Value(4), Value(4)]), 5, "operand 1"),
    "region's fault": (
        in_region(lambda b: b.set_node(2, replace(b.node(2), op="div_"))),
        5,
        "in its region: node %2: div_ is not an op",
    ),
    "weight in a region": (
        in_region(lambda b: b.add("param", (), PARAM, (SCALAR,))),
        5,
        "must come in as a capture",
    ),
    "carry changes": (
        in_region(lambda b: setattr(b, "outputs", [("x", Value(1))])),
        5,
        "carry 0 starts as f32[N] and becomes f32[]",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_names_its_node(name) -> None:
    edit, node, reason = FAULTS[name]
    g = model()
    edit(g)
    with pytest.raises(VerifyError) as caught:
        verify(g)
    assert caught.value.node == node
    assert reason in caught.value.reason
    assert node is None or f"%{node}" in str(caught.value)
