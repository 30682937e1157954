"""Training within a memory budget: the same numbers from less memory."""

from __future__ import annotations

import numpy as np
import pytest
from test_gradients import agree
from tilth.compiler import pipeline
from tilth.compiler.autodiff import fit_memory, gradients, memory_of, to_training
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ir.verify import verify
from tilth.compiler.ops import OpError
from tilth.compiler.ops.expr import Writer


def tower(depth=16, width=6, batch=64):
    """A deep net of norms, dropout and skips, differentiated; and its forward nodes."""
    graph = Graph("tower")
    w = Writer(graph)
    x = w.expr(graph.add_input("x", TensorType("f32", (batch, width))))
    params = []

    def param(name, shape, kind="weight"):
        attrs = {"path": name, "init": ("zeros",), "kind": kind, "domain": "real"}
        value = Value(graph.add("param", (), attrs, (TensorType("f32", shape),), name))
        if kind != "buffer":
            params.append(value)
        return w.expr(value)

    for i in range(depth):
        before = x
        x = x.op("linear", param(f"{i}.w", (width, width)), param(f"{i}.b", (width,)))
        norm = [param(f"{i}.{n}", (width,), "buffer") for n in ("mean", "var")]
        x = x.op("batch_norm", *norm, eps=1e-5, momentum=0.1).op("tanh")
        x = x.op("dropout", rate=0.1)
        x = before + x if i % 2 else x
    graph.set_output("loss", x.square().sum().value)
    graph = to_training(graph).graph
    forward = set(graph.order())
    for value, d in zip(params, gradients(graph, graph.outputs[0][1], params), strict=True):
        graph.set_output(f"grad({graph.node(value.node).name})", d)
    return graph, forward


def run(graph):
    rng = np.random.default_rng(0)
    params = {
        str(n.attrs["path"]): rng.uniform(0.5, 1, n.type.shape) for _, n in graph.of_op("param")
    }
    x = rng.normal(size=graph.node(graph.inputs[0]).type.shape)
    return interpret(graph, {"x": x}, params, seed=3, precision="f64")


@pytest.mark.parametrize("share", [0.7, 0.5, 0.4])
def test_less_memory_and_the_same_gradients(share):
    graph, forward = tower()
    budget = int(memory_of(graph) * share)
    made = fit_memory(graph, forward, budget)
    verify(made)
    assert memory_of(made) <= budget
    before, after = run(graph), run(made)
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert (after[name] == array).all(), name


def test_a_budget_that_is_kept_anyway_changes_nothing():
    graph, forward = tower(depth=2)
    assert fit_memory(graph, forward, memory_of(graph)) is graph


def test_each_segment_runs_twice_at_most():
    graph, forward = tower()
    made = fit_memory(graph, forward, int(memory_of(graph) * 0.4))
    layers = len(graph.of_op("batch_norm_train"))
    assert layers < len(made.of_op("batch_norm_train")) <= 2 * layers


def test_passes_do_not_merge_what_runs_twice():
    graph, forward = tower()
    made = fit_memory(graph, forward, int(memory_of(graph) * 0.5))
    found = pipeline.run(made, verify=True).graph
    assert len(found.of_op("batch_norm_train")) == len(made.of_op("batch_norm_train"))
    before, after = run(graph), run(found)
    for name, array in before.items():
        agree(after[name], array, 1e-9)
    plain = pipeline.run(graph, verify=True).graph
    assert memory_of(found) < memory_of(plain)


def test_too_little_memory_is_refused_with_the_least_that_would_do():
    graph, forward = tower()
    with pytest.raises(OpError, match=r"training needs [\d.]+ MB at least, more than the 0.001 MB"):
        fit_memory(graph, forward, 1000)


def test_an_open_size_is_named():
    graph = Graph("open")
    x = Writer(graph).expr(graph.add_input("x", TensorType("f32", (symbol("T"), 3))))
    graph.set_output("y", x.square().value)
    with pytest.raises(OpError, match="depends on sizes without a value"):
        memory_of(graph)
    assert memory_of(graph, {"T": 4}) == 2 * 4 * 3 * 4
