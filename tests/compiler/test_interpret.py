"""The interpreter: binding sizes, running nodes and regions, precision, messages."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tilth.compiler import interpret as interpreter
from tilth.compiler.interpret import bind_sizes, interpret
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.graph import Constraint, Graph, Value
from tilth.compiler.ir.types import Span, TensorType
from tilth.compiler.ir.verify import verify
from tilth.compiler.ops import OPS, OpError, infer
from tilth.compiler.ops.control import region_result_types

N, T, H = symbol("N"), symbol("T"), symbol("H")
RNG = np.random.default_rng(7)


def emit(graph: Graph, op: str, *operands: Value, region: Graph | None = None, **attrs: Any) -> Any:
    types = [graph.type_of(v) for v in operands]
    if region is None:
        results, regions = infer(op, types, attrs), ()
    else:
        results, regions = region_result_types(op, types, attrs, region), (region,)
    index = graph.add(op, operands, attrs, results, regions=regions)
    values = tuple(Value(index, place) for place in range(len(results)))
    return values[0] if len(values) == 1 else values


def weight(graph: Graph, path: str, shape: Sequence[Any], dtype: str = "f32") -> Value:
    attrs = {"path": path, "init": ("zeros",), "kind": "weight", "domain": "real"}
    return Value(graph.add("param", (), attrs, (TensorType(dtype, tuple(shape)),)))


def linear(dtype: str = "f32") -> Graph:
    g = Graph("linear")
    x = g.add_input("x", TensorType(dtype, (N, 3)))
    product = emit(
        g, "contract", x, weight(g, "w", (H, 3), dtype), semiring="sum_product", spec="nc,hc->nh"
    )
    g.set_output("y", emit(g, "add", product, weight(g, "b", (H,), dtype)))
    verify(g)
    return g


def feeds() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    params = {"w": RNG.standard_normal((5, 3)), "b": RNG.standard_normal(5)}
    return {"x": RNG.standard_normal((4, 3))}, params


def test_runs_and_binds_sizes_from_inputs_and_weights() -> None:
    inputs, params = feeds()
    got = interpret(linear(), inputs, params)["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, inputs["x"] @ params["w"].T + params["b"], rtol=1e-5)


def test_double_precision_reaches_inputs_weights_constants_and_attributes() -> None:
    g = linear()
    third = g.add_constant(np.array(1 / 3), "f64")
    single = emit(g, "cast", third, dtype="f32")
    drawn = emit(g, "fill", shape=(5,), value=0.1, dtype="f32")
    g.set_output("z", emit(g, "add", emit(g, "mul", g.outputs[0][1], single), drawn))
    inputs, params = feeds()
    got = interpret(g, inputs, params, precision="f64")
    expected = (inputs["x"] @ params["w"].T + params["b"]) / 3 + 0.1
    assert got["z"].dtype == np.float64
    np.testing.assert_allclose(got["z"], expected, rtol=1e-14)
    assert interpret(g, inputs, params)["z"].dtype == np.float32


def test_keep_returns_inner_values() -> None:
    g = Graph()
    x = g.add_input("x", TensorType("f32", (4,)))
    parts = emit(g, "split", x, axis=0, sizes=(1, 3))
    g.set_output("y", emit(g, "neg", parts[1]))
    got = interpret(g, {"x": np.arange(4)}, {}, keep=[parts[0].node, x.node])
    assert got[f"%{parts[0].node}"].tolist() == [0]
    assert got[f"%{parts[0].node}.1"].tolist() == [1, 2, 3]
    assert got[f"%{x.node}"].tolist() == [0, 1, 2, 3]
    assert got["y"].tolist() == [-1, -2, -3]


def test_values_are_freed_after_their_last_reader(monkeypatch) -> None:
    g = Graph()
    value = g.add_input("x", TensorType("f32", (8,)))
    for _ in range(6):
        value = emit(g, "exp", emit(g, "neg", value))
    g.set_output("y", value)
    made: list[weakref.ref] = []
    most = 0
    run = OPS["exp"].reference
    assert run is not None

    def counted(x: np.ndarray) -> np.ndarray:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in made))
        made.append(weakref.ref(result := np.array(run(x))))
        return result

    monkeypatch.setitem(interpreter.OPS, "exp", _with_reference("exp", counted))
    interpret(g, {"x": np.zeros(8)}, {})
    assert len(made) == 6 and most <= 1


def _with_reference(name: str, reference: Any) -> Any:
    return replace(OPS[name], reference=reference)


def test_seed_and_step_feed_the_key() -> None:
    g = Graph()
    key = g.add_input("key", TensorType("u64", (2,)))
    g.set_output("z", emit(g, "random_normal", key, path="a", shape=(3,), dtype="f32"))
    first = interpret(g, {}, {}, seed=1, step=2)["z"]
    assert (first == interpret(g, {"key": np.array([1, 2], np.uint64)}, {})["z"]).all()
    assert not (first == interpret(g, {}, {}, seed=1, step=3)["z"]).any()
    double = interpret(g, {}, {}, seed=1, step=2, precision="f64")["z"]
    np.testing.assert_allclose(double, first, atol=2e-3)


# ---------------------------------------------------------------- sizes


def message(code: str, graph: Graph, inputs: Mapping, params: Mapping, **settings: Any) -> str:
    with pytest.raises(OpError) as caught:
        interpret(graph, inputs, params, **settings)
    assert caught.value.code == code
    return caught.value.message


def test_faults_name_the_input_what_is_expected_and_what_is_found() -> None:
    inputs, params = feeds()
    assert "input x is missing; expected f32[N, 3]" in message("E802", linear(), {}, params)
    text = message("E802", linear(), {"x": np.zeros((4, 2))}, params)
    assert "input x: expected f32[N, 3]" in text and "found [4, 2]" in text
    assert "found [4]" in message("E802", linear(), {"x": np.zeros(4)}, params)
    assert "weight b is missing" in message("E801", linear(), inputs, {"w": params["w"]})
    text = message("E801", linear(), inputs, {**params, "b": np.zeros(6)})
    assert "weight b: H is 6 here but 5 in weight w" in text
    assert "found complex128" in message("E802", linear(), {"x": np.zeros((4, 3), complex)}, params)


def test_types_of_inputs() -> None:
    g = Graph()
    g.set_output("y", g.add_input("i", TensorType("i32", (2,))))
    got = interpret(g, {"i": np.array([1, 2], np.int64)}, {})["y"]
    assert got.dtype == np.int32
    assert "i32[2]" in message("E802", g, {"i": np.array([1, 2**40])}, {})
    assert "float64" in message("E802", g, {"i": np.array([1.0, 2.0])}, {})


def test_derived_sizes_and_constraints() -> None:
    g = Graph()
    x = g.add_input("x", TensorType("f32", (N, 2 * H)))
    y = g.add_input("y", TensorType("f32", (T, H + 1)))
    g.set_output("z", x)
    g.set_output("w", y)
    g.constraints.append(Constraint(N, T, "x and y are added", Span("a.yaml", 3, 4)))
    assert bind_sizes(g, {"x": (4, 6), "y": (4, 4)}, bindings={"H": 3}) == {"N": 4, "T": 4, "H": 3}
    fits, bad = (
        {"x": np.zeros((4, 6)), "y": np.zeros((4, 4))},
        {"x": np.zeros((4, 6)), "y": np.zeros((5, 4))},
    )
    assert message("E805", g, fits, {}) == "the size H has no value"
    text = message("E802", g, fits, {}, bindings={"H": 2})
    assert text == "input x: expected f32[N, 2*H] (that is f32[4, 4]), found [4, 6]"
    text = message("E802", g, bad, {}, bindings={"H": 3})
    assert "N is 4 but T is 5: x and y are added (at 3:4)" in text


def test_sizes_that_could_not_be_compared_are_checked_when_known() -> None:
    g = Graph()
    x, y = (g.add_input(n, TensorType("f32", (s,))) for n, s in (("x", N), ("y", T)))
    g.set_output("z", emit(g, "add", x, y))
    assert interpret(g, {"x": np.ones(3), "y": np.ones(3)}, {})["z"].tolist() == [2, 2, 2]
    assert "[3]" in message("E103", g, {"x": np.ones(3), "y": np.ones(4)}, {})
    # The left size was assumed, so that broadcasting a single element is refused too.
    message("E103", g, {"x": np.ones(1), "y": np.ones(4)}, {})


def test_an_op_without_reference_is_refused(monkeypatch) -> None:
    g = Graph()
    g.set_output("y", emit(g, "neg", g.add_input("x", TensorType("f32", (1,)))))
    bare = replace(OPS["neg"], reference=None, why_no_reference="of a test")
    monkeypatch.setitem(interpreter.OPS, "neg", bare)
    assert "of a test" in message("E804", g, {"x": np.ones(1)}, {})


def test_a_reference_of_the_wrong_type_is_an_internal_fault(monkeypatch) -> None:
    g = Graph()
    g.set_output("y", emit(g, "neg", g.add_input("x", TensorType("f32", (1,)))))
    for wrong in (lambda x: x.astype(int), lambda x: x[None]):
        monkeypatch.setitem(interpreter.OPS, "neg", _with_reference("neg", wrong))
        with pytest.raises(AssertionError, match="%1 neg"):
            interpret(g, {"x": np.ones(1)}, {})


# ---------------------------------------------------------------- regions


def rnn_cell() -> Graph:
    body = Graph("body")
    h = body.add_input("h", TensorType("f32", (H,)))
    x = body.add_input("x", TensorType("f32", (H,)))
    u = body.add_input("u", TensorType("f32", (H, H)))
    moved = emit(body, "matmul", u, h)
    new = emit(body, "sin", emit(body, "add", moved, x))
    body.set_output("h", new)
    body.set_output("y", emit(body, "square", new))
    return body


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(reverse) -> None:
    g = Graph()
    h0 = g.add_input("h0", TensorType("f32", (H,)))
    xs = g.add_input("xs", TensorType("f32", (T, H)))
    u = g.add_input("u", TensorType("f32", (H, H)))
    last, ys = emit(
        g, "scan", h0, xs, u, region=rnn_cell(), n_carry=1, n_xs=1, length=T, reverse=reverse
    )
    g.set_output("last", last)
    g.set_output("ys", ys)
    verify(g)
    inputs = {n: RNG.standard_normal(s) for n, s in (("h0", 3), ("xs", (5, 3)), ("u", (3, 3)))}
    got = interpret(g, inputs, {}, precision="f64")
    state, expected = inputs["h0"], np.empty((5, 3))
    for t in range(4, -1, -1) if reverse else range(5):
        state = np.sin(inputs["u"] @ state + inputs["xs"][t])
        expected[t] = state**2
    np.testing.assert_allclose(got["ys"], expected, rtol=1e-12)
    np.testing.assert_allclose(got["last"], state, rtol=1e-12)
    assert interpret(g, inputs, {})["ys"].dtype == np.float32


def newton(with_stop: bool) -> Graph:
    """One Newton step towards the root of ``a``."""
    body = Graph("newton")
    x = body.add_input("x", TensorType("f64", (2,)))
    a = body.add_input("a", TensorType("f64", (2,)))
    half = body.add_constant(np.array(0.5), "f64")
    new = emit(body, "mul", half, emit(body, "add", x, emit(body, "div", a, x)))
    body.set_output("x", new)
    if with_stop:
        error = emit(body, "abs", emit(body, "sub", emit(body, "square", new), a))
        close = emit(body, "lt", error, body.add_constant(np.array(1e-2), "f64"))
        body.set_output("stop", emit(body, "reduce", close, kind="all", axes=(0,), keepdims=False))
    return body


def root(op: str, **attrs: Any) -> Graph:
    g = Graph()
    x = g.add_input("x", TensorType("f64", (2,)))
    a = g.add_input("a", TensorType("f64", (2,)))
    g.set_output("r", emit(g, op, x, a, region=newton(op == "iterate"), n_carry=1, **attrs))
    verify(g)
    return g


INPUTS = {"x": np.ones(2), "a": np.array([2.0, 9.0])}


def test_fix_converges_or_says_so() -> None:
    got = interpret(root("fix", tol=1e-12, max_steps=50), INPUTS, {})["r"]
    np.testing.assert_allclose(got, np.sqrt(INPUTS["a"]), rtol=1e-14)
    with pytest.raises(OpError, match="no fixed point within 3 steps") as caught:
        interpret(root("fix", tol=1e-12, max_steps=3), INPUTS, {})
    assert caught.value.code == "E408" and "iterate" in str(caught.value.hint)


def test_fix_with_infinite_values() -> None:
    body = Graph()
    x = body.add_input("x", TensorType("f64", (2,)))
    body.set_output(
        "x", emit(body, "minimum", x, body.add_constant(np.array([3.0, np.inf]), "f64"))
    )
    g = Graph()
    start = g.add_input("x", TensorType("f64", (2,)))
    g.set_output("y", emit(g, "fix", start, region=body, n_carry=1, tol=1e-9, max_steps=5))
    assert interpret(g, {"x": np.full(2, np.inf)}, {})["y"].tolist() == [3, np.inf]


def test_iterate_stops_on_the_new_values() -> None:
    state, steps = np.ones(2), 0
    while not (np.abs(state**2 - INPUTS["a"]) < 1e-2).all():
        state, steps = 0.5 * (state + INPUTS["a"] / state), steps + 1
    assert steps > 2
    got = interpret(root("iterate", max_steps=50), INPUTS, {})["r"]
    np.testing.assert_array_equal(got, state)
    cut = interpret(root("iterate", max_steps=1), INPUTS, {})["r"]
    np.testing.assert_array_equal(cut, 0.5 * (1 + INPUTS["a"]))


def test_region_typing() -> None:
    body = rnn_cell()
    h, m = TensorType("f32", (H,)), TensorType("f32", (H, H))
    xs = TensorType("f32", (T, H))
    attrs = {"n_carry": 1, "n_xs": 1, "length": T, "reverse": False}
    assert region_result_types("scan", [h, xs, m], attrs, body) == (h, xs)
    for types, code in (
        ([h, xs], "E407"),
        ([h, xs, xs], "E103"),
        ([h, xs, m.with_dtype("f64")], "E104"),
        ([h, TensorType("f32", (T + 1, H)), m], "E103"),
    ):
        with pytest.raises(OpError) as caught:
            region_result_types("scan", types, attrs, body)
        assert caught.value.code == code
    with pytest.raises(OpError) as caught:
        region_result_types("fix", [h, h, m], {"n_carry": 1, "tol": 1e-3, "max_steps": 2}, body)
    assert caught.value.code == "E407"
    with pytest.raises(OpError) as caught:
        region_result_types("iterate", [h, h, m], {"n_carry": 1, "max_steps": 2}, body)
    assert caught.value.code == "E104"
    grown = Graph()
    grown.set_output("x", emit(grown, "tile", grown.add_input("x", h), reps=(2,)))
    with pytest.raises(OpError) as caught:
        region_result_types("fix", [h], {"n_carry": 1, "tol": 1e-3, "max_steps": 2}, grown)
    assert caught.value.code == "E102"


def test_outputs_share_no_memory_with_the_callers_arrays() -> None:
    g = Graph("moves")
    x = g.add_input("x", TensorType("f32", (2, 3)))
    g.set_output("same", x)
    g.set_output("turned", emit(g, "transpose", x, perm=(1, 0)))
    given = RNG.normal(size=(2, 3)).astype(np.float32)
    before = given.copy()
    found = interpret(g, {"x": given}, {})
    given[:] = 0
    np.testing.assert_array_equal(found["same"], before)
    np.testing.assert_array_equal(found["turned"], before.T)
