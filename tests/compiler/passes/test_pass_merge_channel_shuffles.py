"""Channel shuffles travel, die in weights, or become channel maps; values stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pass_bench import Sketch, assert_same, check, from_spec, from_zoo, only, ops
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.options import Options
from tilth.compiler.passes.channel_orders import compose, identity, inverse, shuffle_order
from tilth.compiler.passes.dead_code import dead_code
from tilth.compiler.passes.merge_channel_shuffles import merge_channel_shuffles
from tilth.compiler.pipeline import run


def shuffle(s: Sketch, x: Value, groups: int = 2) -> Value:
    return s.op("channel_shuffle", x, groups=groups, axis=1)


def merged(graph: Graph) -> list[str]:
    """Ops at call after the pass; no shuffle is among them."""
    after = check(graph, merge_channel_shuffles, dead_code)
    assert not after.of_op("channel_shuffle")
    return ops(after, call_only=True)


def test_orders_compose_and_invert() -> None:
    order = shuffle_order(12, 3)
    assert order[:4] == (0, 4, 8, 1)
    assert compose(order, inverse(order)) == identity(12) == compose(inverse(order), order)


BETWEEN: dict[str, Any] = {
    "nothing": lambda s, x: x,
    "norm": lambda s, x: s.bn(x),
    "plain norm": lambda s, x: s.bn(x, affine=False),
    "affine": lambda s, x: s.op("affine", x, s.w(8), s.w(8)),
    "relu": lambda s, x: s.op("relu", x),
    "prelu": lambda s, x: s.op("prelu", x, s.w(8)),
    "depthwise": lambda s, x: s.conv(x, 8, 3, groups=8, bias=True),
    "multiplier": lambda s, x: s.conv(x, 16, 3, groups=8),
    "instance norm": lambda s, x: s.op("instance_norm", x, s.w(8), s.w(8), eps=1e-5),
    "max pool": lambda s, x: s.op(
        "maxpool", x, kernel=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0)), dilation=(1, 1),
        ceil=False),
    "average pool": lambda s, x: s.op(
        "avgpool", x, kernel=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0)), ceil=False,
        count_pad=True),
    "channel softmax": lambda s, x: s.op("softmax", x, axis=1, beta=1.0),
    "vector": lambda s, x: s.op("mul", x, s.w(8, 1, 1)),
    "known image": lambda s, x: s.op("add", s.w(1, 8, 4, 4), x),
    "two moved alike": lambda s, x: s.op("add", s.op("exp", x), s.op("tanh", x)),
    "global mean": lambda s, x: s.op("reduce", x, kind="mean", axes=(2, 3), keepdims=True),
    "shuffle back": lambda s, x: shuffle(s, x, 4),
    "pad around": lambda s, x: s.op(
        "pad", x, before=(0, 0, 1, 1), after=(0, 0, 0, 1), value=0.0, mode="constant"),
}  # fmt: skip


@pytest.mark.parametrize("case", BETWEEN)
def test_dies_in_the_weights_of_a_later_convolution(case: str) -> None:
    s = Sketch()
    y = s.conv(BETWEEN[case](s, shuffle(s, s.x(2, 8, 4, 4))), 5, bias=True)
    found = merged(s.out(y=y))
    assert "take" not in found and "channel_shuffle" not in found


def test_dies_in_a_classifier_behind_a_global_pool() -> None:
    s = Sketch()
    y = s.op("reduce", shuffle(s, s.x(2, 8, 4, 4)), kind="mean", axes=(2, 3), keepdims=False)
    assert merged(s.out(y=s.op("linear", y, s.w(3, 8), s.w(3)))) == ["reduce", "linear"]


def test_dies_in_a_classifier_behind_flattening() -> None:
    s = Sketch()
    y = s.op("reshape", shuffle(s, s.x(2, 8, 2, 2)), shape=(2, 32))
    assert merged(s.out(y=s.op("linear", y, s.w(3, 32)))) == ["reshape", "linear"]


def test_dies_in_a_transposed_convolution() -> None:
    s = Sketch()
    attrs = {"stride": (2, 2), "pad": ((0, 0), (0, 0)), "out_pad": (0, 0), "dilation": (1, 1)}
    y = s.op("conv_transpose", shuffle(s, s.x(1, 8, 3, 3)), s.w(8, 5, 2, 2), groups=1, **attrs)
    assert merged(s.out(y=y)) == ["conv_transpose"]


def test_a_sum_over_channels_forgets_their_order() -> None:
    s = Sketch()
    y = s.op("reduce", shuffle(s, s.x(2, 8, 2, 2)), kind="max", axes=(1,), keepdims=True)
    assert merged(s.out(y=y)) == ["reduce"]


def test_a_grouped_convolution_takes_whole_groups_and_passes_them_on() -> None:
    s = Sketch()
    # Groups of 2 channels: 8 channels as 4 groups in another order, some turned round inside.
    wanted = (5, 4, 0, 1, 7, 6, 2, 3)
    index = np.array(compose(inverse(shuffle_order(8, 2)), wanted), np.int32)
    table = s.graph.add_constant(index, "i32")
    x = s.op("take", shuffle(s, s.x(2, 8, 4, 4), 2), table, axis=1)
    y = s.conv(s.op("relu", s.conv(x, 12, 3, groups=4, bias=True)), 3)
    assert merged(s.out(y=y)) == ["conv", "relu", "conv"]


def test_what_cuts_groups_becomes_a_channel_map() -> None:
    s = Sketch()
    y = s.conv(shuffle(s, s.conv(s.x(2, 8, 4, 4), 8, groups=2)), 8, groups=2)
    after = check(s.out(y=y), merge_channel_shuffles)
    index, node = next((i, n) for i, n in after.of_op("take"))
    assert node.name == "channel_map" and node.attrs["axis"] == 1
    assert tuple(after.constant(after.operands(index)[1].node)) == shuffle_order(8, 2)
    assert ops(after, call_only=True) == ["conv", "take", "conv"]


def test_goes_back_into_a_dense_convolution_when_forward_is_barred() -> None:
    s = Sketch()
    x = s.op("relu", s.bn(s.conv(s.x(2, 4, 4, 4), 8, 3, bias=True)))
    y = s.conv(shuffle(s, x), 8, groups=2)
    assert merged(s.out(y=y)) == ["conv", "batch_norm", "relu", "conv"]


def test_goes_back_for_an_output() -> None:
    s = Sketch()
    assert merged(s.out(y=shuffle(s, s.conv(s.x(2, 4, 4, 4), 8)))) == ["conv"]


def test_does_not_go_back_past_another_reader() -> None:
    s = Sketch()
    x = s.conv(s.x(2, 4, 4, 4), 8)
    assert merged(s.out(y=shuffle(s, x), raw=x)) == ["conv", "take"]
    s = Sketch()
    x = s.conv(s.x(2, 4, 4, 4), 8)
    moved = shuffle(s, x)
    found = merged(s.out(y=s.conv(moved, 8, groups=2), z=s.conv(moved, 3)))
    assert sorted(found) == ["conv", "conv", "conv", "take"]


def test_a_gate_is_brought_into_the_order_of_what_it_gates() -> None:
    s = Sketch()
    x = shuffle(s, s.conv(s.x(2, 8, 4, 4), 8, groups=2))
    pooled = s.op("reduce", x, kind="mean", axes=(2, 3), keepdims=True)
    gate = s.op("sigmoid", s.conv(s.op("relu", s.conv(pooled, 2)), 8), slope=1.0)
    y = s.conv(s.op("mul", x, gate), 3)
    assert "take" not in merged(s.out(y=y))


def test_operands_of_unlike_orders_are_put_right() -> None:
    s = Sketch()
    x, z = s.x(2, 8, 4, 4), s.x(2, 8, 4, 4)
    assert merged(s.out(y=s.op("add", shuffle(s, x), z))) == ["take", "add"]
    s = Sketch()
    x, z = s.x(2, 8, 4, 4), s.x(2, 8, 4, 4)
    both = s.op("mul", shuffle(s, x, 2), shuffle(s, z, 4))
    assert merged(s.out(y=both)) == ["take", "take", "mul"]


def test_joins_at_concat_and_parts_at_split() -> None:
    s = Sketch()
    x, z = s.x(2, 4, 3, 3), s.x(2, 6, 3, 3)
    joined = s.op("concat", shuffle(s, x), shuffle(s, z, 3), axis=1)
    a, b = s.parts("split", joined, axis=1, sizes=(4, 6))
    found = merged(s.out(y=s.conv(a, 3), z=s.conv(b, 2)))
    assert found == ["concat", "split", "conv", "conv"]


def test_a_split_across_the_order_picks_channels_in_rising_order() -> None:
    s = Sketch()
    a, b = s.parts("split", shuffle(s, s.x(2, 8, 3, 3)), axis=1, sizes=(4, 4))
    after = check(s.out(y=s.conv(a, 3), z=s.conv(b, 2)), merge_channel_shuffles)
    tables = [after.constant(after.operands(i)[1].node).tolist()
              for i, n in after.of_op("take") if n.name == "channel_map"]  # fmt: skip
    assert tables == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_parts_that_lie_side_by_side_are_slices() -> None:
    s = Sketch()
    back = shuffle(s, shuffle(s, s.x(2, 8, 3, 3), 2), 4)
    y = s.op("slice", shuffle(s, shuffle(s, back, 2), 4), starts=(0, 2, 0, 0), stops=(2, 5, 2, 3),
             steps=(1, 1, 1, 1))  # fmt: skip
    assert "take" not in merged(s.out(y=y))


def test_a_spelled_out_shuffle_is_one() -> None:
    s = Sketch()
    x = s.op("reshape", s.x(2, 8, 4, 4), shape=(2, 2, 4, 4, 4))
    x = s.op("reshape", s.op("transpose", x, perm=(0, 2, 1, 3, 4)), shape=(2, 8, 4, 4))
    assert merged(s.out(y=s.conv(x, 3))) == ["conv"]


def test_other_transposes_are_no_shuffle() -> None:
    s = Sketch()
    x = s.op("reshape", s.x(2, 8, 4, 4), shape=(2, 8, 2, 2, 4))
    x = s.op("reshape", s.op("transpose", x, perm=(0, 1, 3, 2, 4)), shape=(2, 8, 4, 4))
    assert merged(s.out(y=s.conv(x, 3))) == ["reshape", "transpose", "reshape", "conv"]


def test_ops_that_mix_channels_get_them_in_order() -> None:
    s = Sketch()
    norm = {"size": 3, "alpha": 0.1, "beta": 0.75, "k": 1.0, "average": False}
    y = s.op("lrn", shuffle(s, s.x(2, 8, 4, 4)), **norm)
    z = s.op("argmax", shuffle(s, s.x(2, 8, 4, 4)), axis=1, keepdims=False)
    v = s.op("group_norm", shuffle(s, s.x(2, 8, 4, 4)), groups=2, eps=1e-5)
    found = merged(s.out(y=y, z=z, v=v))
    assert sorted(found) == ["argmax", "group_norm", "lrn", "take", "take", "take"]


UNIT = """
def unit(c) = split(2) >> (id | (branch(c) as b)) >> concat >> shuffle(2)
def branch(c) = conv(c, 1) >> bn >> relu >> depthwise(3) >> bn >> conv(c, 1) >> bn >> relu
input image : f32[N, 3, 6, 6]
y = image >> conv(8, 1) >> unit(4) >> unit(4) >> unit(4) >> conv(5, 1)
output y
"""


def test_units_of_shufflenet_v2_keep_only_selections(tmp_path: Path) -> None:
    graph = from_spec(tmp_path, UNIT, {"N": 2})
    after = check(graph, merge_channel_shuffles)
    assert not after.of_op("channel_shuffle")
    for index, node in after.of_op("take"):
        table = after.constant(after.operands(index)[1].node).tolist()
        if node.name == "channel_map":
            assert table == sorted(table)


@pytest.mark.parametrize(
    ("name", "size", "maps"),
    [("shufflenet_v2_x0_5", 32, 26), ("shufflenet_v1_g3", 32, 16), ("igc_l24m2", 8, 5)],
)
def test_no_shuffle_is_left_in_the_zoo(name: str, size: int, maps: int) -> None:
    graph = from_zoo(name, N=2, H=size, W=size)
    assert graph.of_op("channel_shuffle")
    after = run(graph, Options(), verify=True).graph
    assert not after.of_op("channel_shuffle", "batch_norm", "affine")
    assert ops(after, call_only=True).count("take") == maps
    assert_same(graph, after, rtol=1e-8)


def test_sizes_not_known_yet_pass_through() -> None:
    from tilth.compiler.ir.dims import symbol

    s = Sketch()
    x = s.x(symbol("N"), 8, symbol("H"), symbol("W"))
    after = check(s.out(y=s.conv(shuffle(s, x), 3)), merge_channel_shuffles, compare=False)
    assert ops(after, call_only=True) == ["conv"]
    assert only(after, "conv")[1].type.shape[0] == symbol("N")
