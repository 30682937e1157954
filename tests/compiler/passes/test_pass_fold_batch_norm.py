"""Fold batch norm: after every kind of product, before one where legal, and not elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from pass_bench import Sketch, assert_same, check, only, ops
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.options import Options
from tilth.compiler.passes.fold_batch_norm import fold_batch_norm
from tilth.compiler.passes.simplify import simplify
from tilth.compiler.phase import phase
from tilth.compiler.pipeline import Pass, run


def transposed(s: Sketch, x: Value, groups: int) -> Value:
    weight = s.w(6, 4 // groups, 3, 3)
    attrs = {"stride": (2, 2), "pad": ((1, 1), (1, 1)), "out_pad": (1, 1), "dilation": (1, 1)}
    return s.op("conv_transpose", x, weight, s.w(4), groups=groups, **attrs)


AFTER: dict[str, Any] = {
    "dense": lambda s: s.conv(s.x(2, 6, 5, 5), 4, 3),
    "with bias": lambda s: s.conv(s.x(2, 6, 5, 5), 4, 3, bias=True),
    "grouped": lambda s: s.conv(s.x(2, 6, 5, 5), 4, 3, groups=2, stride=2),
    "depthwise": lambda s: s.conv(s.x(2, 6, 5, 5), 12, 3, groups=6),
    "one axis": lambda s: s.conv(s.x(2, 6, 9), 4, 3),
    "three axes": lambda s: s.conv(s.x(1, 2, 4, 4, 4), 3, 3),
    "transposed": lambda s: transposed(s, s.x(2, 6, 4, 4), 1),
    "transposed, grouped": lambda s: transposed(s, s.x(2, 6, 4, 4), 2),
    "linear": lambda s: s.op("linear", s.x(3, 5), s.w(4, 5)),
    "linear with bias": lambda s: s.op("linear", s.x(3, 5), s.w(4, 5), s.w(4)),
}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("case", AFTER)
def test_folds_into_the_product_before_it(case: str, affine: bool) -> None:
    s = Sketch()
    after = check(s.out(y=s.bn(AFTER[case](s), affine)), fold_batch_norm)
    (made,) = ops(after, call_only=True)
    index, _ = only(after, made)
    assert len(after.operands(index)) == 3
    when = phase(after)
    assert [when[v.node] for v in after.operands(index)] == ["call", "load", "load"]


def before(pad: int, groups: int = 1, bias: bool = False) -> Graph:
    s = Sketch()
    return s.out(y=s.conv(s.bn(s.x(2, 6, 5, 5)), 4, 3, pad=pad, groups=groups, bias=bias))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_folds_into_the_convolution_behind_it_without_padding(groups: int, bias: bool) -> None:
    after = check(before(0, groups, bias), fold_batch_norm)
    assert ops(after, call_only=True) == ["conv"]


@pytest.mark.parametrize("groups", [1, 2])
def test_stays_in_front_of_zero_padding(groups: int) -> None:
    after = check(before(1, groups), fold_batch_norm)
    assert ops(after, call_only=True) == ["affine", "conv"]


def test_folding_through_padding_would_be_wrong() -> None:
    # The same graph without padding folds; its weights on the padded one give other values.
    folded = check(before(0), fold_batch_norm)
    for index, node in folded.of_op("conv"):
        padded = {**node.attrs, "pad": ((1, 1), (1, 1))}
        assert padded != node.attrs
        types = (before(1).node(before(1).outputs[0][1].node).type,)
        folded.set_node(index, type(node)(node.op, padded, types, node.name))
    with pytest.raises(AssertionError):
        assert_same(before(1), folded)


@pytest.mark.parametrize("pad", [0, 1])
def test_a_scale_without_shift_folds_through_padding(pad: int) -> None:
    s = Sketch()
    zero = s.number(0.0, 6)
    y = s.conv(s.op("affine", s.x(2, 6, 5, 5), s.w(6), zero), 4, 3, pad=pad)
    after = check(s.out(y=y), fold_batch_norm)
    assert ops(after, call_only=True) == ["conv"]


def test_folds_into_the_linear_layer_behind_it() -> None:
    s = Sketch()
    y = s.op("linear", s.bn(s.x(3, 5)), s.w(4, 5), s.w(4))
    assert ops(check(s.out(y=y), fold_batch_norm), call_only=True) == ["linear"]


def test_channels_that_are_not_features_do_not_fold() -> None:
    s = Sketch()
    y = s.bn(s.op("linear", s.x(2, 3, 5), s.w(4, 5)))
    z = s.op("linear", s.bn(s.x(2, 3, 5)), s.w(4, 5))
    after = check(s.out(y=y, z=z), fold_batch_norm)
    assert sorted(ops(after, call_only=True)) == ["affine", "affine", "linear", "linear"]


def test_a_product_that_others_read_keeps_its_weights() -> None:
    s = Sketch()
    y = s.conv(s.x(1, 2, 4, 4), 3, 3)
    after = check(s.out(y=s.bn(y), raw=y), fold_batch_norm)
    assert ops(after, call_only=True) == ["conv", "affine"]


def test_a_norm_after_two_products_folds_into_neither() -> None:
    s = Sketch()
    x = s.x(1, 2, 4, 4)
    total = s.op("add", s.conv(x, 3), s.conv(x, 3))
    after = check(s.out(y=s.bn(total)), fold_batch_norm)
    assert ops(after, call_only=True) == ["conv", "conv", "add", "affine"]


def test_a_chain_of_norms_folds_whole() -> None:
    s = Sketch()
    after = check(s.out(y=s.bn(s.bn(s.conv(s.x(1, 2, 4, 4), 3)))), fold_batch_norm)
    assert ops(after, call_only=True) == ["conv"]


def test_statistics_that_come_with_the_call_do_not_enter_weights() -> None:
    s = Sketch()
    y = s.conv(s.x(1, 2, 4, 4), 3)
    mean, var = s.x(3, name="mean"), s.op("exp", s.x(3, name="logvar"))
    graph = s.out(y=s.op("batch_norm", y, mean, var, eps=1e-5, momentum=0.1))
    assert "affine" in ops(check(graph, fold_batch_norm))


@pytest.mark.parametrize("options", [Options(precise=True), Options(training=True)])
def test_precise_and_training_leave_norms_alone(options: Options) -> None:
    s = Sketch()
    graph = s.out(y=s.bn(s.conv(s.x(1, 2, 4, 4), 3)))
    assert check(graph, fold_batch_norm, options=options) == graph


def test_weights_shared_by_two_convolutions_fold_apart() -> None:
    s = Sketch()
    weight = s.w(3, 2, 1, 1)
    attrs = {"stride": (1, 1), "pad": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    first = s.op("conv", s.x(1, 2, 4, 4), weight, **attrs)
    second = s.op("conv", s.x(1, 2, 4, 4), weight, **attrs)
    after = check(s.out(y=s.bn(first), z=s.bn(second), w=weight), fold_batch_norm)
    assert ops(after, call_only=True) == ["conv", "conv"]


def test_an_unfolded_norm_says_why() -> None:
    step = Pass("fold_batch_norm", fold_batch_norm, "")
    reasons = run(before(1), passes=[step]).refusals.values()
    assert any("padding" in reason for reason in reasons)
    reasons = run(before(0), Options(precise=True), [step]).refusals.values()
    assert any("precise" in reason for reason in reasons)


def test_names_of_convolutions_survive() -> None:
    s = Sketch()
    graph = s.out(y=s.bn(s.conv(s.x(1, 2, 4, 4), 3, name="stem.conv"), name="stem.bn"))
    assert only(check(graph, fold_batch_norm, simplify), "conv")[1].name == "stem.conv"
