"""Whole graphs differentiated: names, `grad` nodes, refusals, passes over backward graphs."""

from __future__ import annotations

import numpy as np
import pytest
import tilth
from test_gradients import agree, central
from tilth.compiler import pipeline
from tilth.compiler.autodiff import (
    adjoint,
    differentiate,
    expand_gradients,
    gradient_name,
    gradients,
    to_training,
)
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.text import parse_graph, print_graph
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ir.verify import verify
from tilth.compiler.ops import OpError
from tilth.compiler.ops.expr import Writer


def f64(*shape):
    return TensorType("f64", shape)


def with_loss(spec, **options):
    """A model with the sum of its squared first output as a loss."""
    program = tilth.load(spec, **options)
    graph = program.graph.copy()
    writer = Writer(graph)
    value = writer.expr(graph.outputs[0][1])
    graph.set_output("loss", value.square().sum().value)
    return program, graph


def params_of(graph):
    found = [(i, n) for i, n in graph.of_op("param") if n.attrs["kind"] != "buffer"]
    return [Value(i) for i, _ in found], [str(n.attrs["path"]) for _, n in found]


def test_differentiate_names_what_it_puts_out():
    graph = Graph("f")
    w = Writer(graph)
    x, y = (w.expr(graph.add_input(n, f64(3))) for n in "xy")
    loss = (x * y).sum()
    graph.set_output("loss", loss.value)
    found = differentiate(graph, loss.value, [x.value, y.value])
    verify(found)
    assert [name for name, _ in found.outputs] == ["loss", "grad(x)", "grad(y)"]
    assert [name for name, _ in graph.outputs] == ["loss"]
    assert parse_graph(print_graph(found)) == found
    got = interpret(found, {"x": np.arange(3.0), "y": np.ones(3)}, {})
    assert (got["grad(x)"] == 1).all() and (got["grad(y)"] == np.arange(3)).all()


def test_what_the_scalar_does_not_depend_on_gets_zeros():
    graph = Graph("f")
    w = Writer(graph)
    x, y = (w.expr(graph.add_input(n, f64(2))) for n in "xy")
    found = differentiate(graph, x.sum().value, [x.value, y.value])
    assert (interpret(found, {"x": np.ones(2), "y": np.ones(2)}, {})["grad(y)"] == 0).all()


def test_stop_keeps_gradients_from_passing():
    graph = Graph("f")
    x = Writer(graph).expr(graph.add_input("x", f64()))
    loss = x * x.op("stop_gradient")
    found = differentiate(graph, loss.value, [x.value])
    assert interpret(found, {"x": np.array(3.0)}, {})["grad(x)"] == 3


def test_a_derivative_is_that_of_one_number():
    graph = Graph("f")
    x = graph.add_input("x", f64(2))
    with pytest.raises(OpError, match=r"a single number, found f64\[2\]"):
        gradients(graph, x, [x])
    n = graph.add_input("n", TensorType("i32", ()))
    with pytest.raises(OpError, match=r"floating-point values have derivatives, found i32\[\]"):
        gradients(graph, Writer(graph).expr(x).sum().value, [n])


def test_an_op_without_a_gradient_is_named():
    graph = Graph("f")
    w = Writer(graph)
    x = w.expr(graph.add_input("x", f64(1, 2, 3, 3)))
    how = {"extras": (), "activation": "", "activation_attrs": (), "prologue": "", "groups": 1,
           "stride": (1, 1), "pad": ((0, 0), (0, 0)), "dilation": (1, 1)}  # fmt: skip
    fused = x.op("fused_conv", w.fill((1, 2, 1, 1), 1, "f64"), **how)
    with pytest.raises(OpError, match="fused_conv cannot be differentiated: fusion makes it") as e:
        gradients(graph, fused.sum().value, [x.value])
    assert e.value.code == "E809"


def test_noise_that_depends_on_a_parameter_is_refused():
    graph = Graph("f")
    w = Writer(graph)
    shape, rate = (w.expr(graph.add_input(n, f64(3))) for n in ("shape", "rate"))
    key = w.expr(graph.add_input("key", TensorType("u64", (2,))))
    drawn = shape.op("sample", rate, key, dist="gamma", form="", path="g", shape=(3,))
    gradients(graph, drawn.sum().value, [rate.value])
    with pytest.raises(OpError, match="samples of gamma have no derivative by shape"):
        gradients(graph, drawn.sum().value, [shape.value])
    mixed = shape.op("sample", rate, key, dist="beta", form="", path="g", shape=(3,))
    with pytest.raises(OpError, match="samples of beta have no derivative by a"):
        gradients(graph, mixed.sum().value, [shape.value])


def test_the_order_of_a_bessel_function_is_refused():
    graph = Graph("f")
    order, x = (Writer(graph).expr(graph.add_input(n, f64(3))) for n in ("order", "x"))
    with pytest.raises(OpError, match="no closed derivative in its order"):
        gradients(graph, order.op("log_bessel_k", x).sum().value, [order.value])


def test_grad_nodes_nest():
    """grad(grad(x^3, x), x) = 6x."""
    graph = Graph("f")
    w = Writer(graph)
    x = w.expr(graph.add_input("x", f64()))
    once = (x**3.0).op("grad", x)
    twice = (once * 1.0).op("grad", x)
    graph.set_output("once", once.value)
    graph.set_output("twice", twice.value)
    found = expand_gradients(graph)
    assert not found.of_op("grad")
    verify(found)
    got = interpret(found, {"x": np.array(2.0)}, {})
    assert (got["once"], got["twice"]) == (12, 12)


NET = """
tilth: 1
name: net
title: Small and of many parts
model: |
  def unit(c) = conv(c, 3, groups=2, bias=false) as a >> bn as b >> relu >> shuffle(2)
  input image : f32[N, 3, 9, 8]
  y = image >> conv(8, 3, stride=2) as stem >> bn as norm >> relu >> maxpool(3, stride=2, pad=1)
  z = y >> (id + unit(8) as u) >> (id ++ depthwise(3) as d) >> avgpool(2) >> swish
  logits = z >> (id * (gap >> linear(16) as se >> sigmoid)) >> flatten >> linear(4) as fc
  output logits
"""
RECURRENT = {"set": {"F": 3, "H": 2, "layers": 1}}
NETS = {
    "net": (NET, {}, {"N": 2}),
    "bilstm": ("bilstm", RECURRENT, {"T": 4, "N": 2}),
    "bigru": ("bigru", RECURRENT, {"T": 3, "N": 2}),
    "mdrnn": ("mdrnn", {"set": {"I": 2, "K": 3}}, {"N": 1, "H": 3, "W": 2}),
}


@pytest.fixture
def net(tmp_path):
    def load(name):
        spec, options, sizes = NETS[name]
        if "\n" in spec:
            path = tmp_path / "net.yaml"
            path.write_text(spec, encoding="utf-8")
            spec = path
        program, graph = with_loss(spec, **options)
        return program, graph, sizes

    return load


def test_cost_is_a_small_multiple_of_the_forward(net):
    _, graph, _ = net("net")
    wrt, names = params_of(graph)
    made = differentiate(graph, dict(graph.outputs)["loss"], wrt, names)
    assert len(made) < 5 * len(graph)
    through = pipeline.run(made, verify=True).graph
    assert len(through) < len(made)


@pytest.mark.parametrize(("name", "training"), [("net", True), *((name, False) for name in NETS)])
def test_passes_keep_backward_graphs(net, name, training):
    program, graph, sizes = net(name)
    graph = (to_training(graph).graph if training else graph).bind(sizes)
    wrt, names = params_of(graph)
    made = differentiate(graph, dict(graph.outputs)["loss"], wrt, names)
    verify(made)
    assert parse_graph(print_graph(made)) == made
    rng = np.random.default_rng(0)
    params = {k: v.astype(np.float64) for k, v in program.initial_weights(0, sizes).items()}
    for path, array in params.items():
        # Away from the zeros and ones of the initialisers, where terms vanish.
        params[path] = array + rng.uniform(0.05, 0.2, array.shape)
    inputs = {n: rng.normal(size=k.bind(sizes).shape) for n, k in program.inputs.items()}
    before = interpret(made, inputs, params, precision="f64")

    def compare(name, after):
        got = interpret(after, inputs, params, precision="f64")
        for output, array in before.items():
            agree(got[output], array, 1e-9)

    pipeline.run(made, after=compare, verify=True)
    for _ in range(2):
        way = {path: rng.normal(size=params[path].shape) for path in names}

        def loss(arrays, way=way):
            moved = {path: params[path] + arrays[0] * way[path] for path in names}
            found = interpret(graph, inputs, params | moved, precision="f64")
            return float(found["loss"])

        slope = sum((before[gradient_name(path)] * way[path]).sum() for path in names)
        agree(slope, central(loss, [np.zeros(())], 0, 1e-5), 1e-6)


ZOO = (
    *("resnet18", "densenet121", "googlenet_paper", "shufflenet_v2", "mobilenet_v1", "senet"),
    *("alexnet_paper", "sru", "lstm_peephole", "mdrnn", "gridworld", "stacked_hourglass"),
)


@pytest.mark.parametrize("name", ZOO)
def test_models_of_the_zoo_flow_back_at_any_size(name):
    """With open sizes; the passes find nothing that breaks a rule."""
    program = tilth.load(name)
    graph = to_training(program.graph).graph
    wrt, names = params_of(graph)
    made = adjoint(graph, wrt, names)
    verify(made)
    assert len(made) < 5 * len(graph)
    for value, name in zip(wrt, names, strict=True):
        found = dict(made.outputs)[gradient_name(name)]
        assert made.type_of(found) == graph.type_of(value), name
    if len(made) < 3000:
        verify(pipeline.run(made).graph)
