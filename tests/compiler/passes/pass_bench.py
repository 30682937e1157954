"""What pass tests share: small graphs, random values, and a check that outputs stay the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Graph, Node, Value, content_hash
from tilth.compiler.ir.text import parse_graph, print_graph
from tilth.compiler.ir.types import DTYPES, TensorType
from tilth.compiler.ir.verify import verify
from tilth.compiler.ops import infer
from tilth.compiler.ops.control import region_result_types
from tilth.compiler.options import Options
from tilth.compiler.pipeline import Pass, Transform, run
from tilth.spec.diagnostics import Reporter
from tilth.spec.elaborate import elaborate
from tilth.spec.envelope import load_envelope
from tilth.zoo import find


class Sketch:
    """A graph in float64 that is written down quickly."""

    def __init__(self, name: str = "sketch") -> None:
        self.graph = Graph(name)

    def x(self, *shape: Any, name: str = "", dtype: str = "f64") -> Value:
        name = name or f"x{len(self.graph.inputs)}"
        return self.graph.add_input(name, TensorType(dtype, shape))

    def w(self, *shape: Any, path: str = "", kind: str = "weight") -> Value:
        path = path or f"w{len(self.graph)}"
        attrs = {"path": path, "init": ("he",), "kind": kind, "domain": "real"}
        types = (TensorType("f64", shape),)
        return Value(self.graph.add("param", (), attrs, types, path))

    def number(self, value: float, *shape: int) -> Value:
        return self.op("fill", shape=tuple(shape), value=value, dtype="f64")

    def op(self, op: str, *operands: Value, name: str = "", **attrs: Any) -> Value:
        types = infer(op, [self.graph.type_of(v) for v in operands], attrs)
        return Value(self.graph.add(op, operands, attrs, types, name))

    def parts(self, op: str, *operands: Value, **attrs: Any) -> list[Value]:
        first = self.op(op, *operands, **attrs)
        return [Value(first.node, i) for i in range(len(self.graph.node(first.node).types))]

    def loop(self, op: str, region: Graph, *operands: Value, **attrs: Any) -> list[Value]:
        types = [self.graph.type_of(v) for v in operands]
        results = region_result_types(op, types, attrs, region)
        index = self.graph.add(op, operands, attrs, results, regions=(region,))
        return [Value(index, place) for place in range(len(results))]

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        pad: int | None = None,
        groups: int = 1,
        bias: bool = False,
        name: str = "",
    ) -> Value:
        around = kernel // 2 if pad is None else pad
        kind = self.graph.type_of(x)
        n = kind.rank - 2
        weight = self.w(channels, int(str(kind.shape[1])) // groups, *(kernel,) * n)
        operands = [x, weight, *([self.w(channels)] if bias else [])]
        attrs = {
            "stride": (stride,) * n,
            "pad": ((around, around),) * n,
            "dilation": (1,) * n,
            "groups": groups,
        }
        return self.op("conv", *operands, name=name, **attrs)

    def bn(self, x: Value, affine: bool = True, name: str = "") -> Value:
        size = self.graph.type_of(x).shape[1]
        vectors = [self.w(size), self.w(size, path=f"var{len(self.graph)}", kind="buffer")]
        vectors += [self.w(size), self.w(size)] if affine else []
        return self.op("batch_norm", x, *vectors, name=name, eps=1e-3, momentum=0.1)

    def out(self, **values: Value) -> Graph:
        for name, value in values.items():
            self.graph.set_output(name, value)
        verify(self.graph)
        return self.graph


def ops(graph: Graph, call_only: bool = False) -> list[str]:
    """Ops of a graph without leaves, in order."""
    from tilth.compiler.phase import phase

    when = phase(graph)
    return [
        node.op
        for index, node in graph.nodes()
        if node.op not in ("input", "param", "constant", "fill")
        and not (call_only and when[index] == "load")
    ]


def only(graph: Graph, op: str) -> tuple[int, Node]:
    """The one node of an op."""
    ((index, node),) = graph.of_op(op)
    return index, node


def in_f64(graph: Graph) -> Graph:
    """A graph with every float in float64, regions and constants included."""
    twin = graph.copy()
    for index in twin.order():
        node = twin.node(index)
        attrs = dict(node.attrs)
        if attrs.get("dtype") in ("f16", "f32"):
            attrs["dtype"] = "f64"
        types = tuple(k.with_dtype("f64") if k.is_float else k for k in node.types)
        if node.op == "constant":
            array = twin.constant(index).astype(DTYPES[types[0].dtype])
            attrs["hash"] = content_hash(array)
            twin.constants[attrs["hash"]] = array
        regions = tuple(in_f64(region) for region in node.regions)
        twin.set_node(index, replace(node, attrs=attrs, types=types, regions=regions))
    verify(twin)
    return twin


def values_for(graph: Graph, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random inputs and weights of a graph whose sizes are known; variances are positive.

    Weights are small enough that deep nets neither explode nor turn chaotic.
    """
    rng = np.random.default_rng(seed)

    def array(kind: TensorType, positive: bool) -> np.ndarray:
        shape = tuple(int(str(size)) for size in kind.shape)
        if kind.dtype == "bool":
            return rng.random(shape) < 0.5
        if not kind.is_float:
            return rng.integers(0, 3, shape).astype(DTYPES[kind.dtype])
        drawn = rng.random(shape) + 0.5 if positive else rng.standard_normal(shape)
        return drawn.astype(DTYPES[kind.dtype])

    inputs = {graph.node(i).name: array(graph.node(i).type, False) for i in graph.inputs}
    params = {}
    for _, node in graph.of_op("param"):
        path = str(node.attrs["path"])
        params[path] = array(node.type, "var" in path)
        if node.type.rank > 1:
            params[path] = params[path] / np.sqrt(np.prod(params[path].shape[1:]))
    return inputs, params


def assert_same(before: Graph, after: Graph, seed: int = 0, rtol: float = 1e-9) -> None:
    """Both graphs give the same outputs for random inputs and weights."""
    inputs, params = values_for(before, seed)
    wanted = interpret(before, inputs, params)
    found = interpret(after, inputs, params)
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        scale = np.max(np.abs(array), initial=1e-30) if array.dtype.kind == "f" else 1
        assert np.allclose(found[name], array, rtol=rtol, atol=rtol * scale), name


def check(
    graph: Graph,
    *steps: Transform,
    options: Options | None = None,
    stable: bool = True,
    compare: bool = True,
) -> Graph:
    """Run passes and return the result; it is valid, equal in value, printable and at rest.

    ``stable`` demands that running the same passes again changes nothing.
    """
    passes = [Pass(step.__name__, step, "under test") for step in steps]
    before = print_graph(graph)
    after = run(graph, options, passes, verify=True).graph
    assert print_graph(graph) == before, "a pass changed the graph it was given"
    assert parse_graph(print_graph(after)) == after
    if compare:
        assert_same(graph, after)
    if stable:
        again = run(after, options, passes, verify=True).graph
        assert print_graph(again) == print_graph(after)
    return after


def scan_body(
    build: Callable[[Sketch, Sequence[Value]], Mapping[str, Value]], *shapes: Sequence[int]
) -> Graph:
    """A region with float64 inputs of the given shapes, and what ``build`` puts out."""
    body = Sketch("body")
    inputs = [body.x(*shape) for shape in shapes]
    for name, value in build(body, inputs).items():
        body.graph.set_output(name, value)
    verify(body.graph)
    return body.graph


def from_spec(tmp_path: Path, model: str, sizes: Mapping[str, int] | None = None) -> Graph:
    """The graph of a model text, in float64 and with its sizes known."""
    lines = "\n".join("  " + line for line in model.strip().splitlines())
    head = "tilth: 1\nname: small\ntitle: A small model\nsource: none\nmodel: |\n"
    path = tmp_path / "small.yaml"
    path.write_text(head + lines + "\n")
    return in_f64(_elaborated(path, None).bind(sizes or {}))


def from_zoo(name: str, *overrides: str, **sizes: int) -> Graph:
    """A zoo spec's graph in float64 at the given sizes; ``name`` is a spec or a variant."""
    found = find(name)
    assert found is not None
    return in_f64(_elaborated(found[0].path, found[1], overrides).bind(sizes))


def _elaborated(path: Path, variant: str | None, overrides: Sequence[str] = ()) -> Graph:
    reporter = Reporter()
    envelope = load_envelope(path, reporter)
    reporter.raise_if_failed()
    assert envelope is not None
    return elaborate(envelope, reporter, variant, overrides).graph
