"""Depth as papers count it: layers with weights on the longest path."""

from tilth.compiler.depth import depth
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import TensorType

N = symbol("N")
X = TensorType("f32", (N, 4))
W = TensorType("f32", (4, 4))


def linear(graph, x, path):
    weight = Value(graph.add("param", (), {"path": path, "kind": "weight"}, (W,), path))
    return Value(graph.add("linear", (x, weight), {}, (X,), path))


def test_the_longest_of_two_branches_counts():
    graph = Graph("g")
    x = graph.add_input("x", X)
    deep = linear(graph, Value(graph.add("relu", (linear(graph, x, "a"),), {}, (X,))), "b")
    graph.set_output("y", Value(graph.add("add", (deep, linear(graph, x, "c")), {}, (X,))))
    assert depth(graph) == 2


def test_products_of_two_activations_and_of_two_weights_are_no_layers():
    graph = Graph("g")
    x = graph.add_input("x", X)
    a, b = (
        Value(graph.add("param", (), {"path": p, "kind": "param"}, (W,), p)) for p in ("a", "b")
    )
    product = Value(graph.add("matmul", (a, b), {}, (W,)))
    y = Value(graph.add("linear", (x, product), {}, (X,)))
    gram = Value(graph.add("contract", (y, y), {"spec": "ab,ab->"}, (TensorType("f32", ()),)))
    graph.set_output("y", gram)
    assert depth(graph) == 1


def test_a_net_without_weights_has_depth_zero():
    graph = Graph("g")
    graph.set_output("y", graph.add_input("x", X))
    assert depth(graph) == 0


def test_a_loop_counts_as_one_step():
    body = Graph("body")
    carry = body.add_input("h", X)
    inner = body.add_input("w", W)
    stepped = Value(body.add("linear", (carry, inner), {}, (X,)))
    body.set_output("h", stepped)
    graph = Graph("g")
    x = graph.add_input("x", X)
    weight = Value(graph.add("param", (), {"path": "w", "kind": "weight"}, (W,), "w"))
    attrs = {"n_carry": 1, "n_xs": 0, "length": 5, "reverse": False}
    looped = Value(graph.add("scan", (x, weight), attrs, (X,), "", None, (body,)))
    graph.set_output("y", linear(graph, looped, "head"))
    assert depth(graph) == 2
