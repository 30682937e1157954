"""Sizes that cannot be decided while compiling are required, and checked when sizes are bound."""

import pytest
from tilth.compiler.interpret import bind_sizes
from tilth.compiler.ir.verify import verify
from tilth.compiler.ops.base import OpError
from tilth.spec.diagnostics import Reporter
from tilth.spec.elaborate import elaborate
from tilth.spec.envelope import read_envelope


def graph_of(model):
    block = "".join(f"  {line}\n" for line in model.splitlines())
    reporter = Reporter()
    envelope = read_envelope(f"tilth: 1\nname: t\nmodel: |\n{block}", "t.yaml", reporter)
    assert envelope is not None, reporter.diagnostics
    return elaborate(envelope, reporter).graph


CASES = {
    "sum": (
        "input a : f32[N, A, 8, 8]\ninput b : f32[N, B, 8, 8]\ny = a + b\noutput y",
        {"a": (4, 3, 8, 8), "b": (4, 4, 8, 8)},
        "A is 3 but B is 4: sizes in `+` (at 6:7)",
    ),
    "skip connection": (
        "input x : f32[N, 4, H, W]\ny = x >> (id + (maxpool(2) >> upsample(2)))\noutput y",
        {"x": (1, 4, 5, 5)},
        "2*(H//2) is 4 but H is 5: sizes in `+` (at 5:13)",
    ),
    "join": (
        "input a : f32[N, A, 8]\ninput b : f32[N, 8, B]\ny = a ++ b\noutput y",
        {"a": (1, 2, 8), "b": (1, 8, 7)},
        "B is 7, not 8: sizes in `++` (at 6:7)",
    ),
    "half of a size": (
        "input x : f32[N, C]\ny = x >> linear(C / 2)\noutput y",
        {"x": (1, 5)},
        "2*(C//2) is 4 but C is 5: a size is divided (at 5:19)",
    ),
    "split": (
        "input x : f32[N, C, 8, 8]\ny = x >> split(2) >> (id | relu) >> concat\noutput y",
        {"x": (1, 5, 8, 8)},
        "2*(C//2) is 4 but C is 5: sizes in `split` (at 5:12)",
    ),
    "groups": (
        "input x : f32[N, C, 8, 8]\ny = x >> conv(6, 1, groups=3)\noutput y",
        {"x": (1, 5, 8, 8)},
        "C%3 is 2, not 0: sizes in `conv` (at 5:12)",
    ),
    "shuffle": (
        "input x : f32[N, C, 8, 8]\ny = x >> shuffle(2)\noutput y",
        {"x": (1, 5, 8, 8)},
        "C%2 is 1, not 0: sizes in `channel_shuffle` (at 5:12)",
    ),
    "matrix product": (
        "input a : f32[I, K]\ninput b : f32[L, J]\noutput y = a @ b",
        {"a": (2, 3), "b": (4, 2)},
        "K is 3 but L is 4: inner sizes of @ (at 6:14)",
    ),
    "uses of an index": (
        "input a : f32[A, K]\ninput b : f32[L]\ny[i] = sum{k} a[i, k] * b[k]\noutput y",
        {"a": (2, 3), "b": (4,)},
        "K is 3 but L is 4: uses of index k (at 6:29)",
    ),
    "merged axis": (
        "input x : f32[T, D]\ny[t, h] = sum{d in 0..5} x[t, (h, d)] for h in 0..3\noutput y",
        {"x": (5, 14)},
        "D is 14, not 15: a merged axis (at 5:33)",
    ),
    "position": (
        "input x : f32[N, H, W]\nindex s : grid(3, 4)\ny[s] = x[0, s]\noutput y",
        {"x": (1, 3, 5)},
        "W is 5, not 4: a position (at 6:15)",
    ),
    "ranges of a recurrence": (
        "input x : f32[5, 4]\ninput z : f32[T, 4]\n"
        "a[t] = b[t-1] + x[t]\nb[t] = a[t-1] + z[t]\noutput a",
        {"x": (5, 4), "z": (6, 4)},
        "T is 6, not 5: ranges of one recurrence (at 7:3)",
    ),
    "reshape": (
        "input x : f32[3, H, W]\ninput f : f32[K]\ny = x >> reshape([3, K])\noutput y, g = f",
        {"x": (3, 4, 4), "f": (15,)},
        "3*H*W is 48 but 3*K is 45: sizes in `reshape` (at 6:12)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_undecided_sizes_are_required(name):
    model, shapes, message = CASES[name]
    graph = graph_of(model)
    assert graph.constraints and all(c.span is not None for c in graph.constraints)
    with pytest.raises(OpError) as refusal:
        bind_sizes(graph, shapes)
    assert (refusal.value.code, refusal.value.message) == ("E802", message)


def test_sizes_that_agree_are_bound():
    model, _, _ = CASES["skip connection"]
    assert bind_sizes(graph_of(model), {"x": (2, 4, 6, 8)}) == {"N": 2, "H": 6, "W": 8}


def test_what_is_decided_is_not_required():
    graph = graph_of("input x : f32[N, 4, 2*H, 8]\ny = x >> (id + conv(4, 3))\noutput y")
    assert graph.constraints == []


def test_a_size_without_a_value_is_named():
    graph = graph_of("input x : f32[N, 4]\nparam w : real[K, 4]\noutput y = x, w")
    with pytest.raises(OpError) as refusal:
        bind_sizes(graph, {"x": (2, 4)})
    assert (refusal.value.code, refusal.value.message) == ("E805", "the size K has no value")


def test_a_given_size_is_filled_in_before_elaboration():
    text = "tilth: 1\nname: t\nmodel: |\n  input x : f32[N, C, H, W]\n"
    text += "  y = x >> (if H > 32 then maxpool(2) else id)\n  output y\n"
    reporter = Reporter()
    envelope = read_envelope(text, "t.yaml", reporter)
    assert envelope is not None
    graph = elaborate(envelope, reporter, sizes={"H": 64}).graph
    assert str(graph.type_of(graph.outputs[0][1])) == "f32[N, C, 32, W//2]"


def test_sizes_of_a_definition_stay_apart():
    # Nothing says what K is: each use of the definition has a K of its own.
    graph = graph_of(
        "input x : f32[N, 3]\n"
        "def scale() = fn(a) {\n  param w : real[K, 3]\n  output w @ [1.0, 2.0, 3.0]\n}\n"
        "y = x >> scale() as one\nz = x >> scale() as two\noutput y, z"
    )
    assert [str(graph.type_of(value)) for _, value in graph.outputs] == ["f32[K]", "f32[K2]"]


def test_sizes_that_a_recurrence_ties_together_have_one_name():
    graph = graph_of(
        "def rnn() = fn(x) {\n  param W : real[H, D]\n  param U : real[H, H]\n"
        "  h[t] = tanh(W @ x[t] + U @ h[t-1])\n  output h\n}\n"
        "input x : f32[N, T, 4]\ny = x >> rnn()^2 as layers\noutput y"
    )
    verify(graph)
    names = {str(node.attrs["path"]): str(node.type) for _, node in graph.of_op("param")}
    assert names["layers.0.U"] == "f32[H, H]"
    assert names["layers.1.W"].endswith(", H]")
