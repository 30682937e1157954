"""The pipeline as a whole, what it says about fusing, phases, and the rewrite engine under it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tilth
from pass_bench import Sketch, assert_same, from_zoo, ops
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.verify import VerifyError
from tilth.compiler.options import Options
from tilth.compiler.phase import phase
from tilth.compiler.pipeline import PASSES, Pass, run
from tilth.compiler.rewrite import Number, RewriteError, Rewriter, Rule, Wild, matches, op, rewrite
from tilth.compiler.why import find, why


def small_net() -> Graph:
    s = Sketch("net")
    x = s.x(2, 3, 8, 8, name="image")
    y = s.op("relu", s.bn(s.conv(x, 8, 3, name="conv1"), name="bn1"), name="relu1")
    z = s.bn(s.conv(y, 8, 3, name="conv2"), name="bn2")
    y = s.op("relu", s.op("add", z, y, name="sum"), name="relu2")
    y = s.op("relu", s.bn(y, name="bn3"), name="relu3")
    y = s.op("maxpool", y, name="pool", kernel=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0)),
             dilation=(1, 1), ceil=False)  # fmt: skip
    return s.out(y=y)


# ---------------------------------------------------------------- the pipeline


def test_passes_have_names_and_reasons() -> None:
    names = [step.name for step in PASSES]
    assert len(set(names)) == len(names)
    assert all(step.why_here for step in PASSES)


def test_the_source_is_not_touched_and_every_pass_is_seen() -> None:
    graph = small_net()
    before, seen = graph.signature(), []
    outcome = run(graph, after=lambda name, g: seen.append((name, len(g))), verify=True)
    assert graph.signature() == before
    assert [name for name, _ in seen] == [step.name for step in PASSES]
    assert [name for name, _ in outcome.seconds] == [step.name for step in PASSES]
    assert all(seconds >= 0 for _, seconds in outcome.seconds)
    assert_same(graph, outcome.graph)


def test_the_pipeline_is_deterministic_and_at_rest() -> None:
    graph = small_net()
    once, again = run(graph).graph, run(graph).graph
    assert once.signature() == again.signature()
    assert run(once, verify=True).graph.signature() == once.signature()


def test_a_pass_that_breaks_a_graph_is_named() -> None:
    def breaking(rewriter: Rewriter, options: Options) -> None:
        rewriter.graph.set_output("y", Value(10_000))

    with pytest.raises(VerifyError, match="after breaking"):
        run(small_net(), passes=[Pass("breaking", breaking, "")], verify=True)


def test_debugging_turns_the_verifier_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(rewriter: Rewriter, options: Options) -> None:
        rewriter.graph.set_output("y", Value(10_000))

    step = [Pass("breaking", breaking, "")]
    run(small_net(), passes=step)
    monkeypatch.setenv("TILTH_DEBUG", "1")
    with pytest.raises(VerifyError):
        run(small_net(), passes=step)


@pytest.mark.parametrize("options", [Options(precise=True), Options(training=True)])
def test_options_keep_values(options: Options) -> None:
    graph = small_net()
    after = run(graph, options, verify=True).graph
    assert_same(graph, after)
    assert len(after.of_op("batch_norm")) == 3


# ---------------------------------------------------------------- why


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ("conv1", "relu1", "one node: fused_conv"),
        ("conv1", "bn1", "one node: fused_conv"),
        ("conv2", "sum", "one node: fused_conv"),
        ("bn3", "relu3", "one node: fused_elementwise"),
        ("relu2", "bn3", "after the activation"),
        ("relu3", "pool", "maxpool reads the normalised value too"),
        ("conv1", "pool", "stand between them"),
        ("conv1", "relu2", "read in 2 places"),
    ],
)
def test_why_two_nodes_are_or_are_not_one(a: str, b: str, wanted: str) -> None:
    assert wanted in why(small_net(), a, b)
    assert wanted in why(small_net(), b, a)


def test_why_knows_the_options() -> None:
    assert "precise" in why(small_net(), "conv1", "bn1", Options(precise=True))
    assert "training" in why(small_net(), "conv1", "bn1", Options(training=True))


def test_why_speaks_of_the_ops_that_answer_questions() -> None:
    graph = tilth.load("hmm").graph
    assert "stay apart" in why(graph, "z[0]", "y[t]")
    with pytest.raises(KeyError, match="no node is called"):
        why(graph, "z[0]", "nothing")


def test_why_names_nodes_by_number_text_or_name() -> None:
    graph = small_net()
    assert find(graph, "%0") == graph.order()[0]
    assert find(graph, "conv1") == next(i for i, n in graph.nodes() if n.name == "conv1")
    assert find(graph, graph.order()[-1]) == graph.order()[-1]
    for wrong, hint in (("conv9", "conv1"), ("%999", "the last is"), (10_000, "no node")):
        with pytest.raises(KeyError, match=hint):
            find(graph, wrong)


# ---------------------------------------------------------------- phases


def test_phases_follow_weights_inputs_and_sizes() -> None:
    s = Sketch()
    x, w = s.x(symbol("N"), 3), s.w(3)
    early = s.op("exp", s.op("add", w, s.number(1.0)))
    late = s.op("mul", x, early)
    sized = s.op("fill", shape=(symbol("N"), 3), value=0.0, dtype="f64")
    graph = s.out(y=s.op("add", late, sized))
    when = phase(graph)
    assert [when[v.node] for v in (x, w, early, late, sized)] == [
        *("call", "load", "load", "call", "call"),
    ]


def test_sizes_that_weights_tell_are_known_at_load() -> None:
    s = Sketch()
    w = s.w(symbol("H"), 3)
    zeros = s.op("fill", shape=(symbol("H"), 3), value=0.0, dtype="f64")
    total = s.op("add", w, zeros)
    graph = s.out(y=s.op("linear", s.x(2, 3), total))
    assert phase(graph)[total.node] == "load"


# ---------------------------------------------------------------- the rewriter


def test_ranks_put_producers_first_while_the_graph_changes() -> None:
    s = Sketch()
    x = s.x(3)
    a = s.op("exp", x)
    b = s.op("tanh", a)
    rw = Rewriter(s.out(y=s.op("neg", b)).copy())
    deep = x
    for _ in range(5):
        deep = rw.emit("sin", (deep,))
    rw.replace(a, deep)
    for index in rw.all():
        assert all(rw.rank(v.node) < rw.rank(index) for v in rw.operands(index))
    assert rw.became == {a.node: deep.node} and a.node not in rw.graph


def test_replacing_by_another_type_is_refused_by_name() -> None:
    s = Sketch()
    graph = s.out(y=s.op("exp", s.x(3)))
    wrong = Rule("wrong", op("exp", Wild("x")), lambda m: m.emit("reshape", m["x"], shape=(3, 1)))
    with pytest.raises(RewriteError, match=r"rule wrong.*f64\[3\] became f64\[3, 1\]"):
        rewrite(Rewriter(graph.copy()), [wrong])


def test_rules_that_never_rest_are_named() -> None:
    s = Sketch()
    graph = s.out(y=s.op("exp", s.x(3)))
    there = Rule("there", op("exp", Wild("x")), lambda m: m.emit("tanh", m["x"]))
    back = Rule("back", op("tanh", Wild("x")), lambda m: m.emit("exp", m["x"]))
    with pytest.raises(RewriteError, match=r"there.*back|back.*there"):
        rewrite(Rewriter(graph.copy()), [there, back])


def test_patterns_match_both_orders_equal_values_and_known_numbers() -> None:
    s = Sketch()
    x, z = s.x(3), s.x(3)
    two = s.number(2.0)
    graph = s.out(a=s.op("mul", two, x), b=s.op("sub", two, x), c=s.op("add", x, z),
                  d=s.op("add", x, x))  # fmt: skip
    rw = Rewriter(graph.copy())
    roots: Any = {name: value.node for name, value in graph.outputs}

    def fits(name: str, pattern: Any) -> bool:
        return any(True for _ in matches(rw, roots[name], pattern))

    assert fits("a", op("mul", Wild("x"), Number("n", 2)))
    assert not fits("a", op("mul", Wild("x"), Number("n", 3)))
    assert not fits("b", op("sub", Wild("x"), Number("n")))
    assert fits("d", op("add", Wild("x"), Wild("x"))) and not fits(
        "c", op("add", Wild("x"), Wild("x"))
    )


def test_a_value_that_others_read_is_not_alone() -> None:
    s = Sketch()
    inner = s.op("exp", s.x(3))
    outer = s.op("neg", inner)
    graph = s.out(y=outer, z=s.op("tanh", inner))
    pattern = op("neg", op("exp", Wild("x"), alone=True))
    assert not list(matches(Rewriter(graph.copy()), outer.node, pattern))


# ---------------------------------------------------------------- nets and constants


def test_zoo_nets_have_no_norms_or_shuffles_left() -> None:
    for name in ("scnet50", "mobilenet_v2"):
        found = set(ops(run(from_zoo(name), verify=True).graph, call_only=True))
        assert not found & {"batch_norm", "channel_shuffle", "dropout"}


def test_folded_constants_keep_their_type() -> None:
    s = Sketch()
    table = s.graph.add_constant(np.arange(3, dtype=np.int32), "i32")
    y = s.op("take", s.x(4, 2), s.op("add", table, table), axis=0)
    with pytest.raises(Exception, match="index"):
        assert_same(s.out(y=y), run(s.graph).graph)
