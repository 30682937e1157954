"""Log Z comes out of a posterior's pass where both are wanted."""

from __future__ import annotations

import numpy as np
from pass_bench import Sketch, assert_same
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.pipeline import run


def chains(graph: Graph) -> list[str]:
    return sorted(str(node.attrs["mode"]) for _, node in graph.of_op("chain"))


def sketch(other: bool) -> Graph:
    s = Sketch("chains")
    tables = [s.x(3, name="init"), s.x(1, 3, 3, name="change"), s.x(5, 3, name="seen")]
    total = s.op("chain", *tables, mode="sum", path="")
    if other:
        tables[2] = s.x(5, 3, name="elsewhere")
    made = s.op("chain", *tables, mode="posterior", path="")
    return s.out(total=total, marginals=made, pairs=Value(made.node, 1))


def test_a_sum_is_read_off_the_posterior_of_the_same_chain() -> None:
    graph = sketch(other=False)
    fused = run(graph, verify=True).graph
    assert chains(graph) == ["posterior", "sum"] and chains(fused) == ["posterior"]
    assert_same(graph, fused)


def test_another_chains_sum_stays() -> None:
    graph = sketch(other=True)
    assert chains(run(graph, verify=True).graph) == ["posterior", "sum"]


def test_a_posterior_alone_is_as_it_was() -> None:
    graph = sketch(other=False)
    graph.outputs = graph.outputs[1:]
    graph.prune()
    assert run(graph).graph == graph and np.all(chains(graph) == ["posterior"])
