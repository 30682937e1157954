"""Backward graphs lower too: loss, gradients and new statistics of small nets in one module."""

import numpy as np
import pytest
from graphs import Build, check, region
from tilth.compiler.autodiff import differentiate, to_training
from tilth.compiler.ir.graph import Value
from tilth.compiler.ir.types import TensorType


def conv(b, x, features, kernel, stride=1, groups=1):
    inputs = b.graph.type_of(x).shape[1]
    around = (kernel // 2, kernel // 2)
    weight = b.weight((features, inputs // groups, kernel, kernel))
    return b("conv", x, weight, stride=(stride,) * 2, pad=(around,) * 2, dilation=(1, 1),
             groups=groups)  # fmt: skip


def norm(b, x):
    size = b.graph.type_of(x).shape[1]
    vectors = [b.weight((size,)) for _ in range(4)]
    b.weights[f"w{len(b.weights) - 3}"][:] = 1
    return b("batch_norm", x, *vectors, eps=1e-3, momentum=0.1)


def image_net():
    b = Build()
    x = b.input((4, 3, 9, 9))
    y = b("relu", norm(b, conv(b, x, 20, 3, stride=2)))
    y = b("maxpool", y, kernel=(3, 3), stride=(2, 2), pad=((1, 1),) * 2, dilation=(1, 1),
          ceil=False)  # fmt: skip
    y = b("add", y, b("relu", conv(b, y, 20, 3, groups=2)))
    y = b("sigmoid", conv(b, y, 20, 3, groups=20), slope=1.0)
    y = b("reduce", y, kind="mean", axes=(2, 3), keepdims=False)
    logits = b("linear", y, b.weight((7, 20)), b.weight((7,)))
    label = b.input((4,), "i32", [1, 6, 0, 3])
    return b, b("cross_entropy", logits, label, smoothing=0.1, axis=1, ignore=-100,
                reduction="mean")  # fmt: skip


def backward(b, loss):
    """The graph with every weight's derivative and the new statistics put out."""
    b.output(loss)
    training = to_training(b.graph)
    graph = training.graph
    for path, value in training.state.items():
        graph.set_output(f"new({path})", value)
    named = {node.attrs["path"]: Value(i) for i, node in graph.of_op("param")}
    learned = [path for path in named if path not in training.state]
    b.graph = differentiate(graph, graph.outputs[0][1], [named[p] for p in learned], learned)
    return b


@pytest.mark.parametrize("threads", [2])
def test_the_step_of_a_small_image_net(threads):
    check(backward(*image_net()), 2e-4, fused=True, threads=threads)


def test_the_step_of_a_recurrent_net():
    row = TensorType("f32", (3, 8))
    body = region(row, row, TensorType("f32", (8, 8)))
    h, x, w = body.values
    fresh = body("tanh", body("add", body("linear", h, w), x))
    body.output(fresh, fresh)
    b = Build()
    loop = b("scan", b.input((3, 8)), b.input((6, 3, 8)), b.weight((8, 8)), region=body.graph,
             n_carry=1, n_xs=1, length=6, reverse=False)  # fmt: skip
    total = b("reduce", b("square", Value(loop.node, 1)), kind="sum", axes=(0, 1, 2),
              keepdims=False)  # fmt: skip
    check(backward(b, total), 2e-4, fused=True, threads=2)


def test_the_step_of_a_net_with_dropout_repeats_its_draws():
    b = Build()
    x = b.input((5, 12))
    y = b("dropout", b("relu", b("linear", x, b.weight((9, 12)), b.weight((9,)))), rate=0.4)
    loss = b("reduce", b("square", b("linear", y, b.weight((2, 9)), b.weight((2,)))), kind="mean",
             axes=(0, 1), keepdims=False)  # fmt: skip
    b = backward(b, loss)
    b.inputs["key"] = np.array([3, 17], np.uint64)
    check(b, 2e-4, fused=True)
