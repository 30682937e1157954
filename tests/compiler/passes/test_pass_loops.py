"""What moves out of loops, what is merged around them, and what becomes of what nothing reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from pass_bench import Sketch, assert_same, check, from_zoo, only, ops, scan_body
from tilth.compiler.ir.graph import Graph, Node, Value
from tilth.compiler.ops import OPS
from tilth.compiler.options import Options
from tilth.compiler.passes.common_subexpressions import common_subexpressions
from tilth.compiler.passes.dead_code import dead_code
from tilth.compiler.passes.hoist_from_loops import hoist_from_loops
from tilth.compiler.passes.merge_sibling_contractions import merge_sibling_contractions
from tilth.compiler.passes.simplify import simplify
from tilth.compiler.pipeline import run

T, N, D, H = 4, 2, 3, 5


class Read(NamedTuple):
    """What the body of :func:`cell` reads."""

    h: Value
    x: Value
    w: Value
    u: Value
    b: Value


def body_of(graph: Graph, op: str = "scan") -> tuple[Node, list[str]]:
    """The one loop of a graph and the ops of its region."""
    _, node = only(graph, op)
    return node, ops(node.regions[0])


def cell(build: Callable[[Sketch, Any], dict[str, Value]], reverse: bool = False) -> Graph:
    """A scan over x [T, N, D] with carry h [N, H] that captures W [H, D], U [H, H], b [H]."""
    body = scan_body(lambda s, v: build(s, Read(*v)), (N, H), (N, D), (H, D), (H, H), (H,))
    s = Sketch()
    operands = [s.x(N, H), s.x(T, N, D), s.w(H, D), s.w(H, H), s.w(H)]
    loop = s.loop("scan", body, *operands, n_carry=1, n_xs=1, length=T, reverse=reverse)
    return s.out(**{f"y{i}": value for i, value in enumerate(loop)})


def rnn(s: Sketch, v: Any) -> dict[str, Value]:
    total = s.op("add", s.op("linear", v.x, v.w), s.op("linear", v.h, v.u))
    new = s.op("tanh", s.op("add", total, s.op("reshape", v.b, shape=(1, H))))
    return {"h": new, "row": new}


@pytest.mark.parametrize("reverse", [False, True])
def test_the_input_product_of_a_recurrence_is_made_for_all_steps(reverse: bool) -> None:
    after = check(cell(rnn, reverse), hoist_from_loops, dead_code)
    node, inside = body_of(after)
    assert inside.count("linear") == 1
    outside = [n for _, n in after.of_op("linear")]
    assert [n.type.shape for n in outside] == [(T, N, H)]
    assert node.attrs["n_xs"] == 1


def test_the_bias_leaves_too_unless_precise() -> None:
    loose = check(cell(rnn), hoist_from_loops, simplify, dead_code)
    assert body_of(loose)[1] == ["linear", "add", "tanh"]
    assert len(loose.operands(only(loose, "linear")[0])) == 3
    strict = check(cell(rnn), hoist_from_loops, dead_code, options=Options(precise=True))
    assert body_of(strict)[1].count("add") == 2


def test_what_depends_on_captures_only_is_computed_once() -> None:
    def build(s: Sketch, v: Any) -> dict[str, Value]:
        scale = s.op("exp", s.op("mul", v.b, s.number(0.5)))
        return {"h": s.op("tanh", s.op("mul", s.op("linear", v.h, v.u), scale))}

    after = check(cell(build), hoist_from_loops, dead_code)
    assert body_of(after)[1] == ["linear", "mul", "tanh"]


def test_cheap_work_on_rows_stays_in_the_loop() -> None:
    def build(s: Sketch, v: Any) -> dict[str, Value]:
        gate = s.op("sigmoid", s.op("reduce", v.x, kind="sum", axes=(1,), keepdims=True), slope=1.0)
        return {"h": s.op("mul", v.h, gate), "row": v.h}

    after = check(cell(build), hoist_from_loops, dead_code)
    assert body_of(after)[1] == ["reduce", "sigmoid", "mul"]


def test_what_follows_a_moved_product_moves_while_it_adds_no_rows() -> None:
    def build(s: Sketch, v: Any) -> dict[str, Value]:
        gate = s.op("sigmoid", s.op("linear", v.x, v.w), slope=1.0)
        rest = s.op("sub", s.number(1.0), gate)
        return {"h": s.op("add", s.op("mul", gate, v.h), rest), "row": v.h}

    node, inside = body_of(check(cell(build), hoist_from_loops, dead_code))
    assert inside == ["sub", "mul", "add"]
    assert node.attrs["n_xs"] == 1


def test_a_stack_that_waits_for_no_carry_needs_no_loop() -> None:
    def build(s: Sketch, v: Any) -> dict[str, Value]:
        return {"h": s.op("tanh", v.h), "row": s.op("relu", s.op("linear", v.x, v.w))}

    after = check(cell(build), hoist_from_loops, dead_code)
    node, inside = body_of(after)
    assert inside == ["tanh"]
    assert (node.attrs["n_xs"], len(node.types)) == (0, 1)


STEPWISE: dict[str, Any] = {
    "contract": lambda s, y: s.op("contract", y, y, semiring="max_plus", spec="ni,mi->nm"),
    "matmul": lambda s, y: s.op("matmul", y, s.op("transpose", s.number(1.5, H, H), perm=(1, 0))),
    "reshape": lambda s, y: s.op("reshape", y, shape=(H, N)),
    "transpose": lambda s, y: s.op("transpose", y, perm=(1, 0)),
    "slice": lambda s, y: s.op("slice", y, starts=(0, 1), stops=(N, H), steps=(1, 2)),
    "broadcast": lambda s, y: s.op("broadcast", y, shape=(3, N, H)),
    "reduce": lambda s, y: s.op("reduce", y, kind="sum", axes=(1,), keepdims=False),
    "softmax": lambda s, y: s.op("softmax", y, axis=1, beta=1.0),
    "layer norm": lambda s, y: s.op("layer_norm", y, axes=1, eps=1e-5),
    "smaller rank": lambda s, y: s.op(
        "add", y, s.op("reduce", y, kind="max", axes=(0,), keepdims=False)),
    "convolution": lambda s, y: s.op(
        "conv", s.op("reshape", y, shape=(N, 1, H)), s.number(0.5, 2, 1, 3), stride=(1,),
        pad=((1, 1),), dilation=(1,), groups=1),
    "split": lambda s, y: s.op("concat", *s.parts("split", y, axis=1, sizes=(2, 3))[::-1], axis=1),
}  # fmt: skip


@pytest.mark.parametrize("case", STEPWISE)
def test_ops_over_all_steps_are_what_they_are_at_each(case: str) -> None:
    def build(s: Sketch, v: Any) -> dict[str, Value]:
        return {"h": s.op("tanh", v.h), "row": STEPWISE[case](s, s.op("linear", v.x, v.w))}

    after = check(cell(build), hoist_from_loops, dead_code)
    assert body_of(after)[1] == ["tanh"]


def test_random_numbers_stay_where_they_are_drawn() -> None:
    body = Sketch("body")
    h, key, w = body.x(3), body.x(2, dtype="u64"), body.x(3, 3)
    bits = body.op("random_uniform", key, shape=(3,), dtype="f64", path="noise")
    body.graph.set_output("h", body.op("add", h, body.op("linear", bits, w)))
    s = Sketch()
    keys = s.x(T, 2, dtype="u64")
    graph = s.out(y=s.loop("scan", body.graph, s.x(3), keys, s.w(3, 3), n_carry=1, n_xs=1,
                           length=T, reverse=False)[0])  # fmt: skip
    assert "random_uniform" in body_of(check(graph, hoist_from_loops, compare=False))[1]


def test_invariants_leave_fixpoints_and_loops_inside_loops() -> None:
    inner = scan_body(
        lambda s, v: {"z": s.op("mul", s.op("tanh", v[0]), s.op("exp", s.op("neg", v[1])))},
        (3,), (3,),
    )  # fmt: skip
    s = Sketch()
    graph = s.out(y=s.loop("fix", inner, s.x(3), s.number(3.0, 3), n_carry=1, tol=1e-12,
                           max_steps=500)[0])  # fmt: skip
    assert body_of(check(graph, hoist_from_loops), "fix")[1] == ["tanh", "mul"]
    outer = Sketch("outer")
    h, c = outer.x(3), outer.x(3)
    outer.graph.set_output("h", outer.loop("iterate", with_end(inner), h, c, n_carry=1,
                                           max_steps=2)[0])  # fmt: skip
    s = Sketch()
    graph = s.out(y=s.loop("scan", outer.graph, s.x(3), s.x(3), n_carry=1, n_xs=0, length=T,
                           reverse=False)[0])  # fmt: skip
    after = check(graph, hoist_from_loops, dead_code)
    assert ops(after)[:2] == ["neg", "exp"]
    assert body_of(after)[1] == ["iterate"]


def with_end(body: Graph) -> Graph:
    body = body.copy()
    body.set_output("stop", body.add_constant(np.array(False), "bool"))
    return body


# ---------------------------------------------------------------- siblings


def test_products_of_one_value_are_merged() -> None:
    s = Sketch()
    x = s.x(2, 4, 3)
    a, b, c = (
        s.op("linear", x, s.w(5, 3)),
        s.op("linear", x, s.w(2, 3)),
        s.op("linear", x, s.w(5, 3)),
    )
    after = check(s.out(a=a, b=b, c=c), merge_sibling_contractions)
    assert ops(after, call_only=True) == ["linear", "split"]
    assert only(after, "split")[1].attrs["sizes"] == (5, 2, 5)


def test_a_missing_bias_is_zero() -> None:
    s = Sketch()
    x = s.x(4, 3)
    a, b = s.op("linear", x, s.w(5, 3), s.w(5)), s.op("linear", x, s.w(2, 3))
    assert ops(check(s.out(a=a, b=b), merge_sibling_contractions), True) == ["linear", "split"]


def test_contractions_with_equal_letters_are_merged() -> None:
    s = Sketch()
    x = s.x(4, 3)
    a, b = (s.op("contract", s.w(n, 3, 2), x, semiring="max_plus", spec="okj,nk->njo")
            for n in (5, 6))  # fmt: skip
    assert ops(check(s.out(a=a, b=b), merge_sibling_contractions), True) == ["contract", "split"]


def test_other_products_stay_apart() -> None:
    s = Sketch()
    x, z = s.x(4, 3), s.x(4, 3)
    a, b = s.op("linear", x, s.w(5, 3)), s.op("linear", z, s.w(5, 3))
    c = s.op("linear", x, s.x(5, 3))
    d = s.op("contract", s.w(5, 3), x, semiring="max_plus", spec="ok,nk->no")
    e = s.op("contract", s.w(5, 3), x, semiring="min_plus", spec="ok,nk->no")
    graph = s.out(a=a, b=b, c=c, d=d, e=e)
    assert check(graph, merge_sibling_contractions) == graph


@pytest.mark.parametrize("name", ["lstm", "gru", "sru", "rnn", "lstm_peephole", "lstm_coupled"])
def test_recurrent_nets_make_one_product_outside(name: str) -> None:
    graph = from_zoo(name, T=3, N=2)
    after = run(graph, verify=True).graph
    assert_same(graph, after)
    index, loop = after.of_op("scan")[0]
    stacks = after.operands(index)[: len(loop.regions[0].inputs)]
    assert name == "sru" or any(after.node(v.node).op == "linear" for v in stacks)


def test_the_lstm_makes_one_product_a_step() -> None:
    node, inside = body_of(run(from_zoo("lstm", T=3, N=2)).graph)
    assert inside == ["fused_linear", "split", "fused_elementwise"]
    assert node.attrs["n_xs"] == 1


# ---------------------------------------------------------------- dead code, common subexpressions


def test_unread_carries_rows_and_captures_go() -> None:
    def build(s: Sketch, v: Any) -> dict[str, Value]:
        a, b, row, spare, w = v[:5]
        return {
            "a": s.op("add", a, s.op("mul", row, w)),
            "b": s.op("add", b, spare),
            "rows": s.op("exp", b),
        }

    body = scan_body(build, *[(3,)] * 6)
    s = Sketch()
    operands = [s.x(3), s.x(3), s.x(T, 3), s.x(T, 3), s.w(3), s.w(3)]
    loop = s.loop("scan", body, *operands, n_carry=2, n_xs=2, length=T, reverse=False)
    node, _ = body_of(check(s.out(y=loop[0]), dead_code))
    assert (node.attrs["n_carry"], node.attrs["n_xs"], len(node.regions[0].inputs)) == (1, 1, 3)


def test_a_carry_that_feeds_what_is_read_stays() -> None:
    body = scan_body(
        lambda s, v: {"a": s.op("add", v[0], v[1]), "b": s.op("neg", v[1])}, (3,), (3,)
    )
    s = Sketch()
    loop = s.loop("scan", body, s.x(3), s.x(3), n_carry=2, n_xs=0, length=T, reverse=False)
    node, _ = body_of(check(s.out(y=loop[0]), dead_code))
    assert node.attrs["n_carry"] == 2


def test_carries_of_fix_decide_when_it_stops() -> None:
    body = scan_body(
        lambda s, v: {"a": s.op("mul", v[0], s.number(0.1)), "b": s.op("mul", v[1], s.number(0.5))},
        (3,), (3,),
    )  # fmt: skip
    s = Sketch()
    loop = s.loop("fix", body, s.x(3), s.x(3), n_carry=2, tol=1e-3, max_steps=99)
    node, _ = body_of(check(s.out(y=loop[0]), dead_code), "fix")
    assert node.attrs["n_carry"] == 2


def test_the_condition_of_iterate_keeps_what_it_reads() -> None:
    def build(s: Sketch, v: Any) -> dict[str, Value]:
        low = s.op("reduce", v[1], kind="max", axes=(0,), keepdims=False)
        return {
            "a": s.op("mul", v[0], s.number(2.0)),
            "b": s.op("sub", v[1], s.number(1.0)),
            "c": s.op("neg", v[2]),
            "stop": s.op("lt", low, s.number(0.0)),
        }

    body = scan_body(build, (3,), (3,), (3,))
    s = Sketch()
    loop = s.loop("iterate", body, s.x(3), s.x(3), s.x(3), n_carry=3, max_steps=9)
    node, _ = body_of(check(s.out(y=loop[0]), dead_code), "iterate")
    assert node.attrs["n_carry"] == 2


def test_unread_nodes_go_and_inputs_stay() -> None:
    s = Sketch()
    x = s.x(3)
    s.op("exp", s.op("neg", x))
    s.x(4)
    after = check(s.out(y=s.op("tanh", x)), dead_code)
    assert ops(after) == ["tanh"] and len(after.inputs) == 2


def test_stacks_of_the_same_rows_are_shared() -> None:
    body = scan_body(lambda s, v: (lambda h: {"h": h, "a": h, "b": h})(s.op("tanh", v[0])), (3,))
    s = Sketch()
    loop = s.loop("scan", body, s.x(3), n_carry=1, n_xs=0, length=T, reverse=False)
    node, _ = body_of(check(s.out(y=s.op("add", loop[1], loop[2])), dead_code))
    assert len(node.types) == 2


def test_equal_nodes_are_one_whatever_their_names() -> None:
    s = Sketch()
    x, z = s.x(3), s.x(3)
    a = s.op("add", x, z, name="a")
    b = s.op("add", z, x, name="b")
    c = s.op("sub", x, z)
    d = s.op("sub", z, x)
    y = s.op("mul", s.op("mul", a, b), s.op("mul", c, d))
    assert ops(check(s.out(y=y), common_subexpressions)).count("add") == 1
    assert ops(check(s.graph, common_subexpressions)).count("sub") == 2


def test_values_that_only_look_alike_are_kept_apart() -> None:
    s = Sketch()
    x = s.x(3)
    ratio = s.op("div", s.number(1.0, 3), s.op("mul", s.number(0.0), s.op("abs", x)))
    other = s.op("div", s.number(1.0, 3), s.op("mul", s.number(-0.0), s.op("abs", x)))
    graph = s.out(y=s.op("atan", ratio), z=s.op("atan", other))
    assert check(graph, common_subexpressions).of_op("fill")[0][1].attrs["value"] is not None
    assert len(check(graph, common_subexpressions).of_op("div")) == 2


def test_equal_loops_are_one_and_operands_are_read_once() -> None:
    def build(s: Sketch, v: Any) -> dict[str, Value]:
        return {"h": s.op("add", s.op("mul", v[0], v[1]), s.op("mul", v[0], v[2]))}

    s = Sketch()
    x, w = s.x(3), s.w(3)
    attrs: Any = {"n_carry": 1, "n_xs": 0, "length": T, "reverse": False}
    first = s.loop("scan", scan_body(build, *[(3,)] * 3), x, w, w, **attrs)
    renamed = scan_body(build, *[(3,)] * 3)
    renamed.name = "another"
    second = s.loop("scan", renamed, x, w, w, **attrs)
    graph = s.out(y=s.op("add", first[0], second[0]))
    node, inside = body_of(check(graph, common_subexpressions, dead_code))
    assert inside == ["mul", "add"] and len(node.regions[0].inputs) == 2


def test_statements_of_a_model_are_never_merged() -> None:
    s = Sketch()
    x = s.x()
    attrs: Any = {**dict.fromkeys(OPS["factor"].attrs, ()), "dtype": "f64"}
    graph = s.out(a=s.op("factor", x, **attrs), b=s.op("factor", x, **attrs))
    after = check(graph, common_subexpressions, compare=False)
    assert len(after.of_op("factor")) == 2
