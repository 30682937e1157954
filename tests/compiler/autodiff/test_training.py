"""Training mode: batch statistics with explicit state, dropout with counted random numbers."""

from __future__ import annotations

import numpy as np
import pytest
from test_gradients import agree, central
from tilth.compiler.autodiff import differentiate, gradient_name, to_training
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ir.verify import verify
from tilth.compiler.ops import OpError
from tilth.compiler.ops.expr import Writer

VECTOR = TensorType("f64", (3,))


def param(graph, path, kind):
    attrs = {"path": path, "init": ("zeros",), "kind": kind, "domain": "real"}
    return Writer(graph).expr(Value(graph.add("param", (), attrs, (VECTOR,), path)))


def normed(times=1):
    graph = Graph("net")
    w = Writer(graph)
    x = w.expr(graph.add_input("x", TensorType("f64", (4, 3, 2))))
    mean, var = (param(graph, f"bn.{n}", "buffer") for n in ("running_mean", "running_var"))
    weight, bias = (param(graph, f"bn.{n}", "norm") for n in ("weight", "bias"))
    y = x
    for _ in range(times):
        y = y.op("batch_norm", mean, var, weight, bias, eps=1e-3, momentum=0.25).op("tanh")
    graph.set_output("loss", (y * (y + 0.5)).sum().value)
    return graph


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "bn.running_mean": rng.normal(size=3),
        "bn.running_var": rng.uniform(0.5, 2, 3),
        "bn.weight": rng.normal(size=3),
        "bn.bias": rng.normal(size=3),
    }


def put_out(training):
    graph = training.graph.copy()
    for path, value in training.state.items():
        graph.set_output(f"new({path})", value)
    verify(graph)
    return graph


def test_statistics_of_the_batch_and_their_running_means():
    x, params = np.random.default_rng(1).normal(size=(4, 3, 2)), weights()
    got = interpret(put_out(to_training(normed())), {"x": x}, params)
    mean, var = x.mean(axis=(0, 2)), x.var(axis=(0, 2))
    agree(got["new(bn.running_mean)"], 0.75 * params["bn.running_mean"] + 0.25 * mean, 1e-12)
    agree(got["new(bn.running_var)"], 0.75 * params["bn.running_var"] + 0.25 * var * 8 / 7, 1e-12)
    y = (x - mean[:, None]) / np.sqrt(var + 1e-3)[:, None]
    y = np.tanh(y * params["bn.weight"][:, None] + params["bn.bias"][:, None])
    agree(got["loss"], (y * (y + 0.5)).sum(), 1e-12)


def test_a_norm_used_twice_moves_its_statistics_twice():
    x, params = np.random.default_rng(1).normal(size=(4, 3, 2)), weights()
    once = interpret(put_out(to_training(normed())), {"x": x}, params)
    twice = interpret(put_out(to_training(normed(2))), {"x": x}, params)
    moved = once["new(bn.running_mean)"]
    assert np.abs(twice["new(bn.running_mean)"] - 0.75 * moved).max() < 0.25
    assert not np.allclose(twice["new(bn.running_mean)"], moved)


def test_gradient_goes_through_the_statistics_of_the_batch():
    graph = to_training(normed()).graph
    found = [(i, n) for i, n in graph.of_op("param") if n.attrs["kind"] == "norm"]
    wrt = [Value(graph.inputs[0]), *(Value(i) for i, _ in found)]
    names = ["x", *(n.name for _, n in found)]
    made = differentiate(graph, graph.outputs[0][1], wrt, names)
    x, params = np.random.default_rng(1).normal(size=(4, 3, 2)), weights()
    got = interpret(made, {"x": x}, params)

    def loss(arrays):
        return float(interpret(graph, {"x": arrays[0]}, params)["loss"])

    agree(got[gradient_name("x")], central(loss, [x], 0))
    assert len(made.of_op("batch_norm_backward")) == 1


def test_a_norm_that_learns_nothing():
    graph = Graph("net")
    x = Writer(graph).expr(graph.add_input("x", TensorType("f64", (4, 3))))
    mean, var = (param(graph, f"bn.{n}", "buffer") for n in ("running_mean", "running_var"))
    y = x.op("batch_norm", mean, var, eps=1e-3, momentum=0.25).op("tanh")
    graph.set_output("loss", (y * (y + 0.5)).sum().value)
    graph = to_training(graph).graph
    made = differentiate(graph, graph.outputs[0][1], [Value(graph.inputs[0])])
    at, params = np.random.default_rng(1).normal(size=(4, 3)), weights()

    def loss(arrays):
        return float(interpret(graph, {"x": arrays[0]}, params)["loss"])

    agree(interpret(made, {"x": at}, params)["grad(x)"], central(loss, [at], 0))


def test_frozen_norms_keep_their_statistics():
    training = to_training(normed(), frozen=lambda path: path.startswith("bn."))
    assert training.graph == normed() and training.state == {}


def dropped(op="dropout", rate=0.25, shape=(40, 50), ramp=0):
    graph = Graph("net")
    attrs = {"rate": rate, "ramp": ramp} if op == "drop_path" else {"rate": rate}
    x = Writer(graph).expr(graph.add_input("x", TensorType("f64", shape)))
    first = x.op(op, **attrs)
    graph.set_output("y", first.value)
    graph.set_output("z", x.op(op, **attrs).value)
    graph.set_output("loss", first.square().sum().value)
    return graph


def test_dropout_scales_what_it_keeps_and_draws_by_key():
    training = to_training(dropped())
    verify(training.graph)
    x = np.ones((40, 50))
    run = [interpret(training.graph, {"x": x}, {}, seed=3, step=s) for s in (0, 0, 1)]
    assert set(np.unique(run[0]["y"])) == {0, 1 / 0.75}
    assert abs(run[0]["y"].mean() - 1) < 0.05
    assert (run[0]["y"] == run[1]["y"]).all() and (run[0]["y"] != run[2]["y"]).any()
    assert (run[0]["y"] != run[0]["z"]).any()  # each place draws for itself


def test_dropout_passes_gradients_where_it_kept():
    graph = to_training(dropped()).graph
    made = differentiate(graph, dict(graph.outputs)["loss"], [Value(graph.inputs[0])])
    got = interpret(made, {"x": np.full((40, 50), 2.0)}, {}, seed=3)
    agree(got["grad(x)"], 2 * got["y"] / 0.75, 1e-12)


def test_drop_path_drops_whole_samples():
    got = interpret(to_training(dropped("drop_path")).graph, {"x": np.ones((40, 50))}, {}, seed=1)
    rows = got["y"]
    assert (rows == rows[:, :1]).all() and set(np.unique(rows)) == {0, 1 / 0.75}


def test_a_scheduled_drop_path_drops_more_and_more():
    graph = to_training(dropped("drop_path", 0.5, (4000, 1), ramp=10)).graph
    verify(graph)
    for step, rate in ((0, 0.0), (4, 0.2), (10, 0.5), (99, 0.5)):
        y = interpret(graph, {"x": np.ones((4000, 1))}, {}, seed=1, step=step)["y"]
        assert abs((y == 0).mean() - rate) < 0.03
        np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-12)


@pytest.mark.parametrize("op", ["batch_norm", "dropout", "drop_path"])
def test_state_inside_a_recurrence_is_refused(op):
    region = normed() if op == "batch_norm" else dropped(op, shape=(4, 3, 2))
    region.outputs = [("x", Value(region.inputs[0]))]
    graph = Graph("net")
    x = graph.add_input("x", TensorType("f64", (4, 3, 2)))
    attrs = {"n_carry": 1, "n_xs": 0, "length": 2, "reverse": False}
    graph.add("scan", [x], attrs, (TensorType("f64", (4, 3, 2)),), regions=(region,))
    with pytest.raises(OpError, match=f"{op} inside a recurrence cannot train"):
        to_training(graph)
