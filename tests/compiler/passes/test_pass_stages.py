"""Looking at stages: after a pass, as a diff, with times."""

from __future__ import annotations

import pytest
from pass_bench import Sketch, ops
from tilth import load
from tilth.compiler.ir.graph import Graph
from tilth.compiler.options import Options
from tilth.view.stages import after_pass, pass_diff, pass_names, pass_times, stages


def net() -> Graph:
    s = Sketch("net")
    return s.out(y=s.op("relu", s.bn(s.conv(s.x(1, 3, 4, 4), 2, 3))))


def test_every_stage_can_be_looked_at() -> None:
    graph = net()
    found = stages(graph)
    assert list(found) == ["graph", *pass_names(), "fused"]
    assert found["graph"] == graph
    assert ops(found["fused"], call_only=True) == ["fused_conv"]
    assert after_pass(graph, "fused") == found["fused"]
    assert after_pass(graph, "simplify") == found["simplify"] == graph


def test_a_diff_shows_what_one_pass_did() -> None:
    graph = net()
    text = pass_diff(graph, "fold_batch_norm")
    assert text.startswith("--- before fold_batch_norm\n+++ after fold_batch_norm\n")
    assert any(line.startswith("-") and "batch_norm" in line for line in text.splitlines())
    assert any(line.startswith("+") and "rsqrt" in line for line in text.splitlines())
    assert pass_diff(graph, "fold_batch_norm", Options(precise=True)) == ""


def test_times_name_every_pass() -> None:
    assert tuple(name for name, _ in pass_times(net())) == pass_names()


def test_an_unknown_pass_is_refused_with_a_hint() -> None:
    with pytest.raises(KeyError, match="close are fold_batch_norm"):
        after_pass(net(), "fold_batchnorm")
    with pytest.raises(KeyError, match="there are simplify"):
        pass_diff(net(), "zzz")


def test_a_diff_shows_no_node_that_the_pass_left_alone() -> None:
    s = Sketch("net")
    first = s.op("relu", s.bn(s.conv(s.x(1, 3, 4, 4), 2, 3)))
    graph = s.out(y=s.op("tanh", first))
    changed = [line for line in pass_diff(graph, "fuse_epilogue").splitlines() if line[:1] in "+-"]
    gone = [line.split()[3].partition("(")[0] for line in changed if line.startswith("-  %")]
    made = [line.split()[3].partition("(")[0] for line in changed if line.startswith("+  %")]
    # The tanh now reads another node.
    assert (gone, made) == (["conv", "relu", "tanh"], ["fused_conv", "tanh"])


def test_a_diff_goes_into_loops() -> None:
    text = pass_diff(load("lstm").graph, "hoist_from_loops")
    assert any(line.startswith("+  %") and "linear(%0" in line for line in text.splitlines())
    assert any(line.startswith("-      %") and "linear(" in line for line in text.splitlines())
    # What stays in the loop keeps its number, and so is not shown as changed.
    assert not any(line[:1] in "+-" and "= tanh(" in line and '"h"' in line
                   for line in text.splitlines())  # fmt: skip


def test_a_model_with_latent_variables_is_shown_as_it_is_compiled() -> None:
    found = ops(after_pass(load("hmm").graph, "fused"))
    assert "chain" in found and not {"site", "query"} & set(found)
    assert [name for name, _ in pass_times(load("hmm").graph)] == list(pass_names())
