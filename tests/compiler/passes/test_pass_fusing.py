"""Prologues, epilogues and element-wise groups: what fuses, what may not, and that values hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pass_bench import Sketch, assert_same, check, from_zoo, only, ops, scan_body
from tilth.compiler.cost import cost
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ops import OPS
from tilth.compiler.ops.base import OpError
from tilth.compiler.ops.fused import ACTIVATIONS
from tilth.compiler.passes.fuse_elementwise import MAX_OPS, fuse_elementwise
from tilth.compiler.passes.fuse_epilogue import fuse_epilogue
from tilth.compiler.passes.fuse_prologue import fuse_prologue
from tilth.compiler.passes.sink_into_concat import sink_into_concat
from tilth.compiler.pipeline import Pass, run


def reasons(graph: Graph, step: Any) -> str:
    return "; ".join(run(graph, passes=[Pass("under_test", step, "")]).refusals.values())


# ---------------------------------------------------------------- epilogues

SETTINGS: dict[str, dict[str, Any]] = {
    "leaky_relu": {"slope": 0.2},
    "elu": {"alpha": 0.7},
    "gelu": {"approximate": "tanh"},
    "sigmoid": {"slope": 1.5},
    "softplus": {"beta": 2.0},
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_ends_an_epilogue(name: str) -> None:
    s = Sketch()
    y = s.op(name, s.conv(s.x(1, 2, 4, 4), 3, 3), **SETTINGS.get(name, {}))
    _, node = only(check(s.out(y=y), fuse_epilogue), "fused_conv")
    assert node.attrs["activation"] == name
    assert dict(node.attrs["activation_attrs"]) == SETTINGS.get(name, {})


UP = {"stride": (2, 2), "pad": ((0, 0), (0, 0)), "out_pad": (0, 0), "dilation": (1, 1)}
PRODUCTS: dict[str, Any] = {
    "fused_conv": lambda s: s.conv(s.x(2, 4, 5, 5), 6, 3, stride=2, groups=2),
    "fused_conv_transpose": lambda s: s.op(
        "conv_transpose", s.x(2, 4, 3, 3), s.w(4, 6, 2, 2), groups=1, **UP
    ),
    "fused_linear": lambda s: s.op("linear", s.x(2, 3, 4), s.w(6, 4)),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("parts", ["b", "r", "a", "br", "rb", "ba", "bra", "rba", "bbra"])
def test_bias_residual_and_activation_fuse_in_any_mix(name: str, parts: str) -> None:
    s = Sketch()
    y = PRODUCTS[name](s)
    kind = s.graph.type_of(y)
    vector = (6,) if name == "fused_linear" else (6, 1, 1)
    residual = s.x(*kind.shape, name="shortcut")
    for part in parts:
        if part == "b":
            y = s.op("add", s.w(*vector), y)
        elif part == "r":
            y = s.op("add", y, residual)
        else:
            y = s.op("relu", y)
    after = check(s.out(y=y), fuse_epilogue)
    _, node = only(after, name)
    wanted = [n for n, letter in (("bias", "b"), ("residual", "r")) if letter in parts]
    assert list(node.attrs["extras"]) == wanted
    assert node.attrs["activation"] == ("relu" if "a" in parts else "")
    assert ops(after, call_only=True) == [name]


def test_of_two_products_that_are_added_one_adds_the_other() -> None:
    s = Sketch()
    x = s.x(1, 4, 5, 5)
    main = s.conv(s.op("relu", s.conv(x, 4, 3)), 4, 3)
    y = s.op("relu", s.op("add", s.conv(x, 4, name="shortcut"), main))
    after = check(s.out(y=y), fuse_epilogue)
    index, node = next((i, n) for i, n in after.of_op("fused_conv") if n.attrs["extras"])
    assert node.attrs["extras"] == ("residual",)
    assert after.node(after.operands(index)[2].node).name == "shortcut"
    assert sorted(ops(after)) == ["conv", "fused_conv", "fused_conv"]


def test_a_result_with_two_readers_is_written_as_it_is() -> None:
    s = Sketch()
    y = s.conv(s.x(1, 2, 4, 4), 3)
    graph = s.out(y=s.op("relu", y), z=s.op("tanh", y))
    assert check(graph, fuse_epilogue) == graph
    assert "read in 2 places" in reasons(graph, fuse_epilogue)
    s = Sketch()
    y = s.conv(s.x(1, 2, 4, 4), 3)
    graph = s.out(raw=y, y=s.op("relu", y))
    assert check(graph, fuse_epilogue) == graph


def test_adding_a_result_to_itself_is_no_residual() -> None:
    s = Sketch()
    y = s.conv(s.x(1, 2, 4, 4), 3)
    graph = s.out(y=s.op("add", y, y))
    assert check(graph, fuse_epilogue) == graph


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("after activation", "after the activation"),
        ("second residual", "one residual"),
        ("spread", "no bias"),
        ("other op", "cannot be part"),
    ],
)
def test_an_epilogue_says_what_it_cannot_take(what: str, why: str) -> None:
    s = Sketch()
    y = s.conv(s.x(2, 2, 4, 4), 3)
    shape = s.graph.type_of(y).shape
    if what == "after activation":
        y = s.op("add", s.op("relu", y), s.x(*shape))
    elif what == "second residual":
        y = s.op("add", s.op("add", y, s.x(*shape)), s.x(*shape))
    elif what == "spread":
        y = s.op("add", y, s.x(2, 3, 1, 1))
    else:
        y = s.op("maximum", y, s.x(*shape))
    graph = s.out(y=y)
    check(graph, fuse_epilogue)
    assert why in reasons(graph, fuse_epilogue)


def test_weights_made_by_products_stay_plain() -> None:
    s = Sketch()
    weight = s.op("tanh", s.op("linear", s.w(3, 4), s.w(5, 4)))
    after = check(s.out(y=s.op("linear", s.x(2, 5), weight)), fuse_epilogue)
    assert not after.of_op("fused_linear")


def test_epilogues_fuse_inside_loops() -> None:
    body = scan_body(
        lambda s, v: {"h": s.op("tanh", s.op("add", s.op("linear", v[0], v[1]), v[2]))},
        (2, 3), (3, 3), (2, 3),
    )  # fmt: skip
    s = Sketch()
    loop = s.loop("scan", body, s.x(2, 3), s.w(3, 3), s.x(2, 3), n_carry=1, n_xs=0, length=3,
                  reverse=False)  # fmt: skip
    after = check(s.out(y=loop[0]), fuse_epilogue)
    assert ops(only(after, "scan")[1].regions[0]) == ["fused_linear"]


def test_fused_products_cost_what_their_plain_forms_do() -> None:
    s = Sketch()
    graph = s.out(y=s.op("relu", s.conv(s.x(1, 2, 8, 8), 3, 3, bias=True)))
    assert cost(check(graph, fuse_epilogue)).macs == cost(graph).macs == 3 * 8 * 8 * 2 * 9


def test_a_fused_op_refuses_operands_it_has_no_names_for() -> None:
    s = Sketch()
    x, w = s.x(1, 2, 4, 4), s.w(3, 2, 1, 1)
    attrs: Any = {"stride": (1, 1), "pad": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1,
                  "activation": "", "activation_attrs": (), "prologue": ""}  # fmt: skip
    types = [s.graph.type_of(v) for v in (x, w)]
    for wrong in (("bias",), ("residual", "bias"), ("scale", "shift"), ("other",)):
        with pytest.raises(OpError):
            OPS["fused_conv"].shape(types, {**attrs, "extras": wrong})
    with pytest.raises(OpError):
        OPS["fused_conv"].shape(types, {**attrs, "extras": (), "prologue": "affine"})
    with pytest.raises(OpError):
        OPS["fused_conv"].shape(types, {**attrs, "extras": (), "activation": "exp"})


# ---------------------------------------------------------------- activations behind a join


def test_an_activation_behind_a_join_moves_to_the_convolutions_before_it() -> None:
    s = Sketch()
    x = s.x(1, 2, 4, 4)
    inner = s.op("concat", s.conv(x, 3, 3), s.conv(x, 2), axis=1)
    y = s.op("relu", s.op("concat", inner, s.conv(x, 4), axis=1))
    after = check(s.out(y=y), sink_into_concat, fuse_epilogue)
    assert sorted(ops(after)) == ["concat", "concat", *["fused_conv"] * 3]


@pytest.mark.parametrize("case", ["an input", "an output", "two readers", "twice"])
def test_an_activation_stays_behind_a_join_of_other_things(case: str) -> None:
    s = Sketch()
    x = s.x(1, 2, 4, 4)
    first, second = s.conv(x, 3), s.conv(x, 2)
    parts = {"an input": (first, x), "twice": (first, first)}.get(case, (first, second))
    joined = s.op("concat", *parts, axis=1)
    outputs = {"y": s.op("relu", joined)}
    if case == "an output":
        outputs["z"] = first
    elif case == "two readers":
        outputs["z"] = s.op("tanh", joined)
    graph = s.out(**outputs)
    assert check(graph, sink_into_concat) == graph


# ---------------------------------------------------------------- prologues


def affine(s: Sketch, x: Value) -> Value:
    size = s.graph.type_of(x).shape[1]
    return s.op("affine", x, s.w(size), s.w(size))


@pytest.mark.parametrize("prologue", ["affine", "affine_relu"])
@pytest.mark.parametrize("groups", [1, 4])
def test_padding_stays_zero_behind_a_prologue(prologue: str, groups: int) -> None:
    s = Sketch()
    y = affine(s, s.x(2, 4, 5, 5))
    y = s.op("relu", y) if prologue == "affine_relu" else y
    after = check(s.out(y=s.conv(y, 4, 3, groups=groups, bias=True)), fuse_prologue)
    _, node = only(after, "fused_conv")
    assert node.attrs["prologue"] == prologue
    assert node.attrs["extras"] == ("bias", "scale", "shift")
    assert ops(after) == ["fused_conv"]


def test_all_convolutions_that_read_a_norm_take_it() -> None:
    s = Sketch()
    y = s.op("relu", affine(s, s.x(1, 4, 5, 5)))
    after = check(s.out(y=s.conv(y, 4, 3), z=s.conv(y, 2)), fuse_prologue)
    assert ops(after) == ["fused_conv", "fused_conv"]


@pytest.mark.parametrize("case", ["another op", "an output", "rank three", "norm and relu"])
def test_a_norm_that_must_be_written_anyway_stays(case: str) -> None:
    s = Sketch()
    scaled = affine(s, s.x(2, 4, 5, 5) if case != "rank three" else s.x(2, 4, 6))
    y = s.op("relu", scaled)
    outputs = {"y": s.op("linear", y, s.w(3, 6)) if case == "rank three" else s.conv(y, 4, 3)}
    if case == "another op":
        outputs["z"] = s.op("exp", y)
    elif case == "an output":
        outputs["z"] = y
    elif case == "norm and relu":
        outputs["z"] = s.op("exp", scaled)
    graph = s.out(**outputs)
    assert check(graph, fuse_prologue) == graph
    assert reasons(graph, fuse_prologue)


def test_a_linear_layer_takes_a_prologue_on_its_features() -> None:
    s = Sketch()
    y = s.op("linear", s.op("relu", affine(s, s.x(2, 4))), s.w(3, 4), s.w(3))
    assert ops(check(s.out(y=y), fuse_prologue)) == ["fused_linear"]


def test_prologue_and_epilogue_meet_in_one_node() -> None:
    s = Sketch()
    y = s.conv(s.op("relu", affine(s, s.x(2, 4, 5, 5))), 6, 3)
    y = s.op("relu", s.op("add", y, s.x(2, 6, 5, 5)))
    after = check(s.out(y=y), fuse_prologue, fuse_epilogue)
    _, node = only(after, "fused_conv")
    assert node.attrs["extras"] == ("residual", "scale", "shift")
    assert ops(after) == ["fused_conv"]


@pytest.mark.parametrize(
    ("name", "overrides", "left"),
    [
        ("densenet121", ("depths=[2,2,2,2]", "growth=8"), {"conv", "concat", "avgpool"}),
        ("resnet18", ("depths=[1,1,1,1]",), {"conv"}),
        ("resnet50", ("depths=[1,1,1,1]",), {"conv"}),
    ],
)
def test_whole_nets_are_convolutions_and_what_moves(
    name: str, overrides: tuple[str, ...], left: set[str]
) -> None:
    graph = from_zoo(name, *overrides, N=1, H=32, W=32)
    after = run(graph, verify=True).graph
    always = {"fused_conv", "maxpool", "reduce", "linear", "fused_elementwise"}
    assert set(ops(after, call_only=True)) <= left | always
    assert_same(graph, after, rtol=1e-8)


# ---------------------------------------------------------------- element-wise groups


def inside(graph: Graph) -> list[str]:
    return ops(only(graph, "fused_elementwise")[1].regions[0])


def test_a_chain_is_one_group() -> None:
    s = Sketch()
    x, z = s.x(2, 3, 4), s.x(3, 1)
    y = s.op("exp", s.op("neg", s.op("square", s.op("sub", x, z))))
    after = check(s.out(y=y), fuse_elementwise)
    assert inside(after) == ["sub", "square", "neg", "exp"]


def test_a_group_may_put_out_several_values() -> None:
    s = Sketch()
    x = s.x(2, 3)
    a = s.op("exp", x)
    b = s.op("tanh", a)
    after = check(s.out(a=a, b=b, c=s.op("add", a, b)), fuse_elementwise)
    assert len(only(after, "fused_elementwise")[1].types) == 3


def test_scalars_known_now_move_inside_and_vectors_do_not() -> None:
    s = Sketch()
    scalar = s.graph.add_constant(np.array(2.0), "f64")
    y = s.op("mul", s.op("add", s.x(2, 3), s.number(1.0)), scalar)
    y = s.op("add", y, s.number(1.0, 3))
    after = check(s.out(y=y), fuse_elementwise)
    index, node = only(after, "fused_elementwise")
    assert len(after.operands(index)) == 2
    assert len(node.regions[0].of_op("fill", "constant")) == 2


def test_per_channel_ops_join() -> None:
    s = Sketch()
    y = s.op("prelu", affine(s, s.op("exp", s.x(2, 3, 4))), s.w(3))
    assert inside(check(s.out(y=y), fuse_elementwise)) == ["exp", "affine", "prelu"]


def test_element_types_may_differ_within_a_group() -> None:
    s = Sketch()
    x, z = s.x(2, 3), s.x(2, 3)
    y = s.op("where", s.op("lt", x, z), s.op("neg", x), s.op("cast", s.op("cast", z, dtype="i32"),
             dtype="f64"))  # fmt: skip
    assert len(inside(check(s.out(y=y), fuse_elementwise))) == 5


def test_different_shapes_stay_apart() -> None:
    s = Sketch()
    a = s.op("exp", s.x(3))
    y = s.op("add", s.op("tanh", s.x(2, 3)), a)
    graph = s.out(y=y)
    after = check(graph, fuse_elementwise)
    assert inside(after) == ["tanh", "add"] and "exp" in ops(after)
    assert "different shapes" in reasons(graph, fuse_elementwise)


def test_a_path_through_another_op_keeps_groups_apart() -> None:
    s = Sketch()
    e = s.op("exp", s.op("neg", s.x(2, 3)))
    total = s.op("reduce", e, kind="sum", axes=(1,), keepdims=True)
    graph = s.out(y=s.op("sqrt", s.op("div", e, total)))
    after = check(graph, fuse_elementwise)
    assert ops(after) == ["fused_elementwise", "fused_elementwise"]
    assert "cycle" in reasons(graph, fuse_elementwise)


def test_two_groups_never_wait_for_each_other() -> None:
    # a1 -> b2 and b1 -> a2 through other shapes: {a1, a2} and {b1, b2} would make a cycle.
    s = Sketch()
    x, z = s.x(2, 3), s.x(4, 5)
    a1, b1 = s.op("exp", x), s.op("exp", z)
    to_b = s.op("reduce", a1, kind="sum", axes=(0, 1), keepdims=False)
    to_a = s.op("reduce", b1, kind="sum", axes=(0, 1), keepdims=False)
    y = s.op("tanh", s.op("add", a1, to_a))
    w = s.op("tanh", s.op("add", b1, to_b))
    after = check(s.out(y=y, w=w), fuse_elementwise)
    assert len(after.of_op("fused_elementwise")) >= 3


def test_a_reduction_ends_a_group() -> None:
    s = Sketch()
    y = s.op("reduce", s.op("square", s.x(2, 3)), kind="sum", axes=(1,), keepdims=False)
    after = check(s.out(y=y), fuse_elementwise)
    assert inside(after) == ["square", "reduce"]


def test_a_second_reduction_stays_outside() -> None:
    s = Sketch()
    e = s.op("square", s.op("exp", s.x(2, 3)))
    totals = [s.op("reduce", e, kind=k, axes=(1,), keepdims=False) for k in ("sum", "max")]
    graph = s.out(y=totals[0], z=totals[1])
    after = check(graph, fuse_elementwise, stable=False)
    assert ops(after) == ["fused_elementwise", "reduce"]
    assert "another reduction" in reasons(graph, fuse_elementwise)


def test_single_ops_and_work_on_weights_stay_as_they_are() -> None:
    s = Sketch()
    w = s.op("exp", s.op("neg", s.w(3)))
    graph = s.out(y=s.op("add", s.x(2, 3), w))
    assert check(graph, fuse_elementwise) == graph


def test_groups_have_a_largest_size() -> None:
    s = Sketch()
    y = s.x(2, 3)
    for _ in range(MAX_OPS + 10):
        y = s.op("tanh", y)
    graph = s.out(y=y)
    after = check(graph, fuse_elementwise)
    sizes = [len(ops(n.regions[0])) for _, n in after.of_op("fused_elementwise")]
    assert sorted(sizes) == [10, MAX_OPS]
    assert "more than" in reasons(graph, fuse_elementwise)


def test_a_group_moves_only_what_it_reads_and_puts_out() -> None:
    s = Sketch()
    y = s.op("exp", s.op("neg", s.op("tanh", s.x(2, 3))))
    graph = s.out(y=y)
    before, after = cost(graph), cost(check(graph, fuse_elementwise))
    assert after.moved_bytes == 2 * 6 * 8 < before.moved_bytes
    assert after.open_loops == ()
