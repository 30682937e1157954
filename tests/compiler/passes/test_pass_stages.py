"""Looking at stages: after a pass, as a diff, with times."""

from __future__ import annotations

import pytest
from pass_bench import Sketch, ops
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
