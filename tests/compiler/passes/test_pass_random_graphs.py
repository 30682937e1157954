"""Random small graphs: every pass and the whole pipeline keep outputs, types and their peace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pass_bench import Sketch, assert_same, scan_body, values_for
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.text import parse_graph, print_graph
from tilth.compiler.options import Options
from tilth.compiler.passes import split_batch as splitting
from tilth.compiler.passes.common_subexpressions import common_subexpressions
from tilth.compiler.passes.dead_code import dead_code
from tilth.compiler.passes.fold_batch_norm import fold_batch_norm
from tilth.compiler.passes.fuse_elementwise import fuse_elementwise
from tilth.compiler.passes.fuse_epilogue import fuse_epilogue
from tilth.compiler.passes.fuse_prologue import fuse_prologue
from tilth.compiler.passes.hoist_from_loops import hoist_from_loops
from tilth.compiler.passes.merge_channel_shuffles import merge_channel_shuffles
from tilth.compiler.passes.merge_sibling_contractions import merge_sibling_contractions
from tilth.compiler.passes.simplify import simplify
from tilth.compiler.passes.sink_into_concat import sink_into_concat
from tilth.compiler.pipeline import PASSES, Pass, run

STEPS = (
    simplify,
    common_subexpressions,
    dead_code,
    hoist_from_loops,
    merge_sibling_contractions,
    fold_batch_norm,
    merge_channel_shuffles,
    fuse_prologue,
    sink_into_concat,
    fuse_epilogue,
    fuse_elementwise,
)
AT_REST = (
    simplify,
    common_subexpressions,
    dead_code,
    merge_sibling_contractions,
    merge_channel_shuffles,
    fuse_epilogue,
)
"""Passes that a second run must leave alone. The others may meet what their first run opened up."""

Draw = Callable[..., Any]
UNARY = ("relu", "tanh", "neg", "square", "abs", "sin", "softsign")
BINARY = ("add", "sub", "mul", "maximum")
POOL: dict[str, Any] = {"kernel": (2, 2), "stride": (1, 1), "pad": ((0, 0), (0, 0)), "ceil": False}


# ---------------------------------------------------------------- images


@st.composite
def image_graphs(draw: Draw, batch: int = 1) -> Graph:
    """Convolutions, norms, shuffles, pools and sums over values [batch, C, 3, 3] or smaller."""
    s = Sketch("images")
    values = [s.x(batch, 4, 3, 3), s.x(batch, 8, 3, 3)]
    for _ in range(draw(st.integers(1, 9))):
        values.append(_image_op(draw, s, values))
    for place in sorted(draw(st.sets(st.integers(2, len(values) - 1), min_size=1, max_size=3))):
        s.graph.set_output(f"y{place}", values[place])
    return s.out()


def _image_op(draw: Draw, s: Sketch, values: list[Value]) -> Value:
    x = values[draw(st.integers(max(0, len(values) - 4), len(values) - 1))]
    shape = s.graph.type_of(x).shape
    channels, least = int(str(shape[1])), min(int(str(size)) for size in shape[2:])
    kind = draw(st.sampled_from(
        ("conv", "conv", "bn", "relu", "unary", "shuffle", "binary", "binary", "concat", "split",
         "pool", "mean", "gate", "scale", "drop", "spelled", "number",
         *(["mixed", "row"] if shape[0] != 1 else []))
    ))  # fmt: skip
    like = [v for v in values if s.graph.type_of(v).shape == shape]
    if kind == "conv":
        groups = draw(st.sampled_from([g for g in (1, 1, 2, 4, channels) if channels % g == 0]))
        kernel = draw(st.sampled_from((1, 3)))
        outputs = groups * draw(st.sampled_from((1, 2))) if groups > 2 else 8
        pad = draw(st.sampled_from((0, 1))) if kernel == 3 and least >= 3 else kernel // 2
        bias = draw(st.booleans())
        return s.conv(x, outputs, kernel, groups=groups, pad=pad, bias=bias)
    if kind == "concat":
        others = [v for v in values if s.graph.type_of(v).shape[2:] == shape[2:]]
        return s.op("concat", x, draw(st.sampled_from(others)), axis=1)
    if kind == "split" and channels >= 2:
        cut = draw(st.integers(1, channels - 1))
        parts = s.parts("split", x, axis=1, sizes=(cut, channels - cut))
        values.append(parts[0])
        return parts[1]
    if kind in ("shuffle", "spelled"):
        groups = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == 0]))
        return _shuffle(s, x, groups, kind == "spelled")
    if kind == "pool" and least >= 2:
        if draw(st.booleans()):
            return s.op("maxpool", x, dilation=(1, 1), **POOL)
        return s.op("avgpool", x, count_pad=True, **POOL)
    if kind == "mean":
        keep = draw(st.booleans())
        pooled = s.op("reduce", x, kind="mean", axes=(2, 3), keepdims=keep)
        return pooled if keep else s.op("reshape", pooled, shape=(shape[0], channels, 1, 1))
    if kind == "gate":
        pooled = s.op("reduce", x, kind="max", axes=(2, 3), keepdims=True)
        return s.op("mul", x, s.op("sigmoid", pooled, slope=1.0))
    if kind == "binary":
        return s.op(draw(st.sampled_from(BINARY)), x, draw(st.sampled_from(like)))
    return _small_image_op(draw, s, x, kind)


def _small_image_op(draw: Draw, s: Sketch, x: Value, kind: str) -> Value:
    channels = s.graph.type_of(x).shape[1]
    if kind == "bn":
        return s.bn(x, affine=draw(st.booleans()))
    if kind == "scale":
        return s.op("mul", s.w(channels, 1, 1), x)
    if kind == "mixed":
        axes = draw(st.sampled_from(((0,), (0, 2, 3))))
        return s.op("sub", x, s.op("reduce", x, kind="mean", axes=axes, keepdims=True))
    if kind == "row":
        # As many weights as images, of another meaning.
        return s.op("mul", x, s.w(s.graph.type_of(x).shape[0], 1, 1, 1))
    if kind == "drop":
        return s.op("dropout", x, rate=0.5)
    if kind == "number":
        value = draw(st.sampled_from((0.0, 1.0, 2.0, 3.0)))
        return s.op(draw(st.sampled_from(BINARY)), x, s.number(value))
    return s.op("relu" if kind == "relu" else draw(st.sampled_from(UNARY)), x)


def _shuffle(s: Sketch, x: Value, groups: int, spelled: bool) -> Value:
    if not spelled:
        return s.op("channel_shuffle", x, groups=groups, axis=1)
    shape = s.graph.type_of(x).shape
    parts = (shape[0], groups, shape[1] // groups, *shape[2:])
    turned = s.op("transpose", s.op("reshape", x, shape=parts), perm=(0, 2, 1, 3, 4))
    return s.op("reshape", turned, shape=shape)


# ---------------------------------------------------------------- vectors and loops


@st.composite
def vector_graphs(draw: Draw) -> Graph:
    """Products, sums, moves and scans over values [2, 4] and stacks [3, 2, 4]."""
    s = Sketch("vectors")
    values = [s.x(2, 4), s.x(2, 4)]
    stack = s.x(3, 2, 4)
    for _ in range(draw(st.integers(1, 8))):
        values.append(_vector_op(draw, s, values, stack))
    for place in sorted(draw(st.sets(st.integers(2, len(values) - 1), min_size=1, max_size=3))):
        s.graph.set_output(f"y{place}", values[place])
    return s.out()


def _vector_op(draw: Draw, s: Sketch, values: list[Value], stack: Value | None) -> Value:
    x, y = (draw(st.sampled_from(values[-4:])) for _ in range(2))
    kind = draw(st.sampled_from(
        ("linear", "contract", "unary", "binary", "vector", "turn", "reshape", "slice", "softmax",
         "joined", *(["scan", "scan"] if stack is not None else []))
    ))  # fmt: skip
    if kind == "linear":
        bias = [s.w(4)] if draw(st.booleans()) else []
        return s.op("linear", x, s.w(4, 4), *bias)
    if kind == "contract":
        spec = draw(st.sampled_from(("ik,nk->ni", "ki,nk->ni", "nk,ik->ni")))
        operands = (x, s.w(4, 4)) if spec[0] == "n" else (s.w(4, 4), x)
        semiring = draw(st.sampled_from(("sum_product", "max_plus")))
        return s.op("contract", *operands, semiring=semiring, spec=spec)
    if kind == "joined":
        return s.op("linear", s.op("concat", x, y, axis=1), s.w(4, 8))
    if kind == "vector":
        return s.op(draw(st.sampled_from(BINARY)), x, s.w(*draw(st.sampled_from(((4,), (1, 4))))))
    if kind == "turn":
        turned = s.op("tanh", s.op("transpose", x, perm=(1, 0)))
        return s.op("transpose", turned, perm=(1, 0))
    if kind == "reshape":
        return s.op("reshape", s.op("reshape", x, shape=(8,)), shape=(2, 4))
    if kind == "slice":
        joined = s.op("concat", x, y, axis=0)
        return s.op("slice", joined, starts=(1, 0), stops=(3, 4), steps=(1, 1))
    if kind == "softmax":
        return s.op("softmax", x, axis=1, beta=1.0)
    if kind == "binary":
        return s.op(draw(st.sampled_from(BINARY)), x, y)
    if kind == "scan" and stack is not None:
        return _scan(draw, s, values, stack)
    return s.op(draw(st.sampled_from(UNARY)), x)


def _scan(draw: Draw, s: Sketch, values: list[Value], stack: Value) -> Value:
    """A scan with two carries over a stack, which captures weights that it multiplies with."""
    captured = [s.w(4, 4), s.w(4, 4), s.w(4)]

    def body(inner: Sketch, v: Any) -> dict[str, Value]:
        a, b, row, w, u, bias = v
        found = [a, b, row, inner.op("linear", row, w), inner.op("linear", a, u)]
        found += [inner.op("add", found[3], bias)]
        for _ in range(draw(st.integers(1, 6))):
            found.append(_body_op(draw, inner, found, (w, u)))
        ends = [inner.op("tanh", draw(st.sampled_from(found))) for _ in range(2)]
        return {"a": ends[0], "b": ends[1], "rows": draw(st.sampled_from(found))}

    region = scan_body(body, (2, 4), (2, 4), (2, 4), (4, 4), (4, 4), (4,))
    starts = [draw(st.sampled_from(values)) for _ in range(2)]
    attrs: Any = {"n_carry": 2, "n_xs": 1, "length": 3, "reverse": draw(st.booleans())}
    loop = s.loop("scan", region, *starts, stack, *captured, **attrs)
    last = s.op("slice", loop[2], starts=(2, 0, 0), stops=(3, 2, 4), steps=(1, 1, 1))
    which = draw(st.sampled_from((0, 1, 2)))
    return loop[which] if which < 2 else s.op("reshape", last, shape=(2, 4))


def _body_op(draw: Draw, s: Sketch, found: list[Value], weights: tuple[Value, ...]) -> Value:
    x, y = (draw(st.sampled_from(found[-5:])) for _ in range(2))
    kind = draw(st.sampled_from(("unary", "binary", "linear", "joined", "sum")))
    if kind == "linear":
        return s.op("linear", x, draw(st.sampled_from(weights)))
    if kind == "joined":
        matrix = s.op("concat", *weights, axis=1)
        return s.op("linear", s.op("concat", x, y, axis=1), matrix)
    if kind == "sum":
        return s.op("add", s.op("add", x, y), draw(st.sampled_from(found)))
    if kind == "binary":
        return s.op(draw(st.sampled_from(BINARY)), x, y)
    return s.op(draw(st.sampled_from(("tanh", "sin", "relu"))), x)


# ---------------------------------------------------------------- properties

GRAPHS = st.one_of(image_graphs(), vector_graphs())
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@FEW
@given(graph=GRAPHS)
def test_a_pass_alone_keeps_values(step: Any, graph: Graph) -> None:
    passes = [Pass(step.__name__, step, "under test")]
    after = run(graph, passes=passes, verify=True).graph
    assert_same(graph, after)
    if step in AT_REST:
        assert run(after, passes=passes, verify=True).graph == after


@MANY
@given(graph=GRAPHS)
def test_the_pipeline_keeps_values(graph: Graph) -> None:
    seen: dict[str, Graph] = {}
    after = run(graph, after=seen.__setitem__, verify=True).graph
    assert_same(graph, after)
    assert parse_graph(print_graph(after)) == after
    assert list(seen) == [step.name for step in PASSES]


@FEW
@given(graph=GRAPHS, options=st.sampled_from((Options(precise=True), Options(training=True))))
def test_options_keep_values(graph: Graph, options: Options) -> None:
    assert_same(graph, run(graph, options, verify=True).graph)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(graph=GRAPHS)
def test_the_compiled_graph_keeps_values(graph: Graph) -> None:
    """What the lowering and its kernels make of a fused graph, against the interpreter."""
    from tilth.compiled import plan_of
    from tilth.compiler.interpret import interpret
    from tilth.compiler.lower.cpu import lower
    from tilth.compiler.lower.source import module_text
    from tilth.compiler.lower.target import Target
    from tilth.runtime.module import Module
    from tilth.runtime.simd import lanes

    inputs, params = values_for(graph)
    expected = interpret(graph, inputs, params, precision="f64")
    text = module_text(lower(run(graph).graph, Target(lanes(), 2)), "random")
    found = Module(plan_of(text, "random"), params, 2).run(inputs)
    for name, reference in expected.items():
        gap = np.abs(found[name].astype(np.float64) - reference).max(initial=0)
        assert gap <= 1e-4 * max(np.abs(reference).max(initial=0), 1e-3), (name, gap)


@MANY
@given(graph=image_graphs(batch=4), threads=st.sampled_from((1, 2)))
def test_a_split_batch_keeps_values(graph: Graph, threads: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "LAST_LEVEL", 0)
        patch.setattr(splitting, "WEIGHTS", 0)
        after = run(graph, Options(threads=threads), verify=True).graph
    assert_same(graph, after)
    assert parse_graph(print_graph(after)) == after
