"""Batch norms of training steps take their residual, activation and the mask of the way back."""

import numpy as np
import pytest
from tilth.compiler.autodiff import expand_gradients, gradients
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Graph
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops.expr import Writer
from tilth.compiler.options import Options
from tilth.compiler.pipeline import run

SHAPE = (2, 3, 4, 5)


def step(activation: str, residual: bool, affine: bool = True, twice: bool = False) -> Graph:
    """A norm, perhaps a sum, an activation, and the gradients of all that goes in."""
    graph = Graph("step")
    writer = Writer(graph)

    def given(name: str, shape: tuple[int, ...]):
        return writer.expr(graph.add_input(name, TensorType("f32", shape)))

    x, r, d = given("x", SHAPE), given("r", SHAPE), given("d", SHAPE)
    vectors = [given(name, (3,)) for name in ("mean", "var", *(("w", "b") if affine else ()))]
    y, *others = x.ops("batch_norm_train", *vectors, eps=1e-5, momentum=0.1)
    y = y + r if residual else y
    z = y.op(activation) if activation else y
    loss = (z * d).sum(range(4))
    loss = loss + (y * d).square().sum(range(4)) if twice else loss
    graph.set_output("z", z.value)
    for place, value in enumerate(others[:2]):
        graph.set_output(f"statistic{place}", value.value)
    wanted = [x, *([r] if residual else []), *vectors[2:]]
    for place, value in enumerate(gradients(graph, loss.value, [w.value for w in wanted])):
        graph.set_output(f"gradient{place}", value)
    return expand_gradients(graph)


def same(before: Graph, after: Graph) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        before.node(i).name: np.abs(rng.standard_normal(before.node(i).type.shape)) + 0.1
        for i in before.inputs
    }
    for name in ("x", "r", "d"):
        arrays[name] = rng.standard_normal(SHAPE)
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    expected = interpret(before, arrays, {}, precision="f64")
    found = interpret(after, arrays, {}, precision="f64")
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("activation", ["", "relu", "relu6"])
def test_means_the_same(activation: str, residual: bool, affine: bool) -> None:
    before = step(activation, residual, affine)
    after = run(before, Options(training=True), verify=True).graph
    same(before, after)
    found = [node for _, node in after.of_op("fused_batch_norm_train")]
    assert bool(found) == bool(activation or residual)
    assert all(node.attrs["activation"] == activation for node in found)


def test_the_mask_is_computed_anew_where_nothing_is_added() -> None:
    after = run(step("relu", False), Options(training=True)).graph
    (node,) = (node for _, node in after.of_op("fused_batch_norm_backward"))
    assert node.attrs["extras"] == ("weight", "bias")
    assert not after.of_op("clamp_backward")


def test_a_cotangent_that_the_shortcut_reads_too_keeps_its_mask() -> None:
    after = run(step("relu", True), Options(training=True)).graph
    assert not after.of_op("fused_batch_norm_backward")
    assert after.of_op("batch_norm_backward")


def test_a_norm_that_is_read_twice_stays_plain() -> None:
    before = step("relu", False, twice=True)
    after = run(before, Options(training=True), verify=True).graph
    same(before, after)
    assert not after.of_op("fused_batch_norm_train")
