"""Costs of small graphs, counted by hand."""

import numpy as np
import pytest
from tilth.compiler.cost import cost
from tilth.compiler.ir.dims import dim_max, symbol
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OPS
from tilth.compiler.ops.base import Op, Operand

N, T = symbol("N"), symbol("T")


def f32(*shape) -> TensorType:
    return TensorType("f32", shape)


@pytest.fixture(autouse=True)
def matmul_op(monkeypatch: pytest.MonkeyPatch) -> None:
    def macs(reads, results, attrs):
        return results[0].elements * reads[0].shape[-1]

    row = Op(
        "test_matmul",
        (Operand("x"), Operand("w")),
        lambda types, attrs: (f32(types[0].shape[0], types[1].shape[1]),),
        None,
        "x @ w",
        macs=macs,
        why_no_reference="only its cost is tested",
    )
    monkeypatch.setitem(OPS, row.name, row)


def param(g: Graph, path: str, kind: TensorType, of: str = "weight") -> Value:
    return Value(g.add("param", (), {"path": path, "kind": of}, (kind,), path))


def matmul(g: Graph, x: Value, w: Value) -> Value:
    kind = f32(g.type_of(x).shape[0], g.type_of(w).shape[1])
    return Value(g.add("test_matmul", (x, w), {}, (kind,)))


def mlp() -> Graph:
    g = Graph("mlp")
    x = g.add_input("x", f32(N, 10))
    h = matmul(g, x, param(g, "w1", f32(10, 20)))
    h = Value(g.add("relu", (h,), {}, (g.type_of(h),)))
    y = matmul(g, h, param(g, "w2", f32(20, 5)))
    shift = param(g, "mean", f32(5), "buffer")
    y = Value(g.add("sub", (y, shift), {}, (g.type_of(y),)))
    g.set_output("y", y)
    return g


def test_totals_of_a_perceptron_at_batch_one() -> None:
    c = cost(mlp())
    assert c.parameters == 10 * 20 + 20 * 5
    assert c.buffers == 5
    assert c.parameter_bytes == 4 * 300
    assert c.buffer_bytes == 20
    assert c.macs == 300
    assert c.activation_bytes == 4 * (20 + 20 + 5 + 5)
    reads = (10 + 200) + 20 + (20 + 100) + (5 + 5)
    assert c.moved_bytes == 4 * (reads + 50)
    assert c.intensity == pytest.approx(300 / (4 * (reads + 50)))
    # h and relu(h) are live together; x is dead by then.
    assert c.peak_bytes == 4 * 40
    assert c.open_loops == ()


def test_rows_follow_canonical_order() -> None:
    c = cost(mlp())
    assert [(r.op, r.macs) for r in c.rows if r.macs] == [
        ("test_matmul", 200),
        ("test_matmul", 100),
    ]
    relu = next(r for r in c.rows if r.op == "relu")
    assert (relu.read_bytes, relu.written_bytes, relu.moved_bytes) == (80, 80, 160)
    assert relu.intensity == 0.0


def test_a_kept_symbol_stays_symbolic() -> None:
    c = cost(mlp(), {"N": N})
    assert c.parameters == 300
    assert c.macs == 300 * N
    assert c.activation_bytes == 200 * N
    assert c.peak_bytes == 160 * N
    assert c.intensity is None
    assert cost(mlp(), {"N": 8}).macs == 2400


def test_a_weight_path_counts_once() -> None:
    g = Graph("shared")
    x = g.add_input("x", f32(1, 4))
    for _ in range(3):
        x = matmul(g, x, param(g, "w", f32(4, 4)))
    g.set_output("y", x)
    c = cost(g)
    assert c.parameters == 16
    assert c.macs == 48


def test_the_peak_keeps_what_a_skip_connection_needs() -> None:
    g = Graph("skip")
    x = g.add_input("x", f32(100))
    a = Value(g.add("relu", (x,), {}, (f32(100),)))
    b = Value(g.add("relu", (a,), {}, (f32(100),)))
    unread = g.add("relu", (b,), {}, (f32(7),))
    y = Value(g.add("add", (b, x), {}, (f32(100),)))
    g.set_output("y", y)
    c = cost(g)
    assert c.peak_bytes == 4 * 300
    assert g.node(unread).op == "relu"
    # A constant and a value read twice by one node are not freed twice.
    twice = Graph("twice")
    k = twice.add_constant(np.ones(3, np.float32), "f32")
    s = Value(twice.add("add", (k, k), {}, (f32(3),)))
    t = Value(twice.add("mul", (s, s), {}, (f32(3),)))
    twice.set_output("t", Value(twice.add("relu", (t,), {}, (f32(3),))))
    assert cost(twice).peak_bytes == 24


def test_a_symbolic_peak_is_the_larger_case() -> None:
    g = Graph("cases")
    x = g.add_input("x", f32(T))
    a = Value(g.add("grow", (x,), {}, (f32(2 * T),)))
    b = Value(g.add("pool", (a,), {}, (f32(1),)))
    c = Value(g.add("wide", (b,), {}, (f32(1000),)))
    g.set_output("c", c)
    assert cost(g).peak_bytes == dim_max(12 * T, 4004)
    assert cost(g, {"T": 10}).peak_bytes == 4004


def body() -> Graph:
    g = Graph("body")
    h = g.add_input("h", f32(N, 8))
    w = g.add_input("w", f32(8, 8))
    g.set_output("h", matmul(g, h, w))
    return g


def loop(op: str, **attrs) -> Graph:
    g = Graph(op)
    x = g.add_input("x", f32(N, 8))
    w = param(g, "w", f32(8, 8))
    y = g.add(op, (x, w), attrs, (f32(N, 8),), regions=(body(),))
    g.set_output("y", Value(y))
    return g


def test_a_scan_costs_its_length_times_its_body() -> None:
    c = cost(loop("scan", length=T))
    assert c.macs == 64 * T
    assert c.parameters == 64
    assert c.open_loops == ()
    assert c.activation_bytes == 32 * T + 32
    row = c.rows[-1]
    assert row.repeats == T
    assert row.bodies[0].macs == 64
    # A step reads h and w and writes h; the node itself reads x and w and writes y.
    assert row.moved_bytes == T * 4 * (8 + 64 + 8) + 4 * (8 + 64 + 8)
    # x and y outside; h, w and the new h inside.
    assert row.bodies[0].peak_bytes == 4 * (8 + 64 + 8)
    assert c.peak_bytes == 4 * 16 + 4 * 80


def test_open_loops_are_counted_for_one_step_and_named() -> None:
    c = cost(loop("iterate"))
    assert c.macs == 64
    assert c.open_loops == (c.rows[-1].index,)
    assert c.rows[-1].repeats is None


def test_an_empty_graph_costs_nothing() -> None:
    c = cost(Graph("empty"))
    assert (c.parameters, c.macs, c.peak_bytes, c.rows) == (0, 0, 0, ())
    assert c.intensity is None
