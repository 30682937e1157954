"""Graphs survive printing and parsing; broken texts are refused with a line number."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilth.compiler.ir import dims
from tilth.compiler.ir.graph import Constraint, Graph, Value
from tilth.compiler.ir.text import GraphSyntaxError, attr_text, parse_graph, print_graph
from tilth.compiler.ir.types import DTYPES, Span, TensorType

N, H = dims.symbol("N"), dims.symbol("H")


def small_net() -> Graph:
    g = Graph("net")
    at = Span("net.yaml", 17, 8, 300, 305)
    image = g.add_input("image", TensorType("f32", (N, 3, H, 224)), at)
    kind = TensorType("f32", (64, 3, 7, 7))
    weight = g.add("param", (), {"path": "conv1.weight", "init": ("he",)}, (kind,), "conv1.weight")
    out = TensorType("f32", (N, 64, (H - 1) // 2 + 1, 112))
    conv = g.add("conv", (image, Value(weight)), {"stride": (2, 2)}, (out,), "conv1", at)
    half = out.with_shape((N, 32, *out.shape[2:]))
    split = g.add("split", (Value(conv),), {"n": 2, "by": H * 2}, (half, half))
    g.constraints.append(Constraint(H, 2 * (H // 2), "halves", Span("net.yaml", 4, 2)))
    g.set_output("a", Value(split, 1))
    g.set_output("b", Value(split))
    return g


def test_text_of_a_small_net() -> None:
    assert print_graph(small_net()) == (
        'source "net.yaml"\n'
        'graph "net" {\n'
        '  %0 = input "image" : f32[N, 3, H, 224] @17:8\n'
        '  %1 = param "conv1.weight" {path="conv1.weight", init=("he",)} : f32[64, 3, 7, 7]\n'
        '  %2 = conv(%0, %1) "conv1" {stride=(2, 2)} : f32[N, 64, (H + 1)//2, 112] @17:8\n'
        "  %3:2 = split(%2) {n=2, by=<2*H>} : "
        "f32[N, 32, (H + 1)//2, 112], f32[N, 32, (H + 1)//2, 112]\n"
        '  require H == 2*(H//2) "halves" @4:2\n'
        '  output "a" = %3:1\n'
        '  output "b" = %3\n'
        "}\n"
    )


def test_small_net_comes_back_with_its_spans() -> None:
    g = small_net()
    back = parse_graph(print_graph(g))
    assert back == g
    assert back.node(0).span == Span("net.yaml", 17, 8)
    assert back.constraints[0].span == Span("net.yaml", 4, 2)
    assert back.inputs == [0]


def test_spans_of_several_files_are_told_apart() -> None:
    g = Graph("two")
    g.add_input("x", TensorType("f32", ()), Span("a.yaml", 1, 2))
    g.add_input("y", TensorType("f32", ()), Span("b.yaml", 3, 4))
    back = parse_graph(print_graph(g))
    assert [back.node(i).span for i in (0, 1)] == [Span("a.yaml", 1, 2), Span("b.yaml", 3, 4)]


def test_numbers_of_deleted_nodes_do_not_matter() -> None:
    g = small_net()
    extra = g.add("relu", (Value(2),), {}, (g.node(2).type,))
    g.set_output("c", Value(g.add("relu", (Value(extra),), {}, (g.node(2).type,))))
    g.outputs.pop()
    g.prune()
    assert parse_graph(print_graph(g)) == g


def test_order_of_inputs_is_kept() -> None:
    g = Graph("swap")
    g.add_input("x", TensorType("f32", (2,)))
    g.add_input("y", TensorType("f32", (3,)))
    g.inputs.reverse()
    back = parse_graph(print_graph(g))
    assert back == g
    assert back.inputs == [1, 0]
    g.inputs.clear()
    assert parse_graph(print_graph(g)).inputs == []


def test_large_constants_are_exact_bytes() -> None:
    g = Graph("k")
    table = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    table[0, 0] = -0.0
    value = g.add_constant(table, "f32")
    g.set_output("y", value)
    text = print_graph(g)
    assert "f32[5, 7] base64" in text
    back = parse_graph(text)
    assert back.constant(0).tobytes() == table.tobytes()
    assert back == g


def test_a_constant_keeps_its_own_dtype_and_rank() -> None:
    g = Graph("k")
    g.constants["mine"] = np.array(0.1, np.float64)
    g.add("constant", (), {"hash": "mine"}, (TensorType("f32", ()),))
    back = parse_graph(print_graph(g))
    assert back == g
    assert back.constant(0).dtype == np.float64
    assert back.constant(0).shape == ()


def test_nan_payloads_survive() -> None:
    g = Graph("k")
    g.add_constant(np.array([0x7FC00001, 0x7F800000], np.uint32).view(np.float32), "f32")
    assert parse_graph(print_graph(g)) == g


def test_a_size_is_not_a_string_nor_a_number() -> None:
    texts = [attr_text(v) for v in (H, "H", 1, 1.0, True, None, (), (1,), -math.inf)]
    assert texts == ["<H>", '"H"', "1", "1.0", "True", "None", "()", "(1,)", "-inf"]
    with pytest.raises(TypeError, match="float64"):
        attr_text(np.float64(1.0))


# ---------------------------------------------------------------- random graphs


def sizes() -> st.SearchStrategy[dims.DimLike]:
    atoms = st.one_of(
        st.integers(1, 300), st.sampled_from(["N", "H", "inf", "None", "x1"]).map(dims.symbol)
    )

    def grow(inner: st.SearchStrategy[dims.DimLike]) -> st.SearchStrategy[dims.DimLike]:
        pairs = st.tuples(inner, inner)
        return st.one_of(
            pairs.map(lambda p: p[0] + p[1]),
            pairs.map(lambda p: p[0] * p[1]),
            pairs.map(lambda p: p[0] - p[1]),
            pairs.map(lambda p: dims.dim_max(*p)),
            st.tuples(inner, st.integers(2, 9)).map(lambda p: p[0] // p[1]),
            st.tuples(inner, st.integers(2, 9)).map(lambda p: p[0] % p[1]),
        )

    return st.recursive(atoms, grow, max_leaves=4)


def types() -> st.SearchStrategy[TensorType]:
    shapes = st.lists(sizes(), max_size=3).map(tuple)
    return st.builds(TensorType, st.sampled_from(sorted(DTYPES)), shapes)


def attr_values() -> st.SearchStrategy:
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), sizes()
    )
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)


def arrays() -> st.SearchStrategy[np.ndarray]:
    def build(dtype: str, shape: list[int], raw: bytes) -> np.ndarray:
        kind = DTYPES[dtype]
        count = math.prod(shape) * kind.itemsize
        data = np.frombuffer((raw * (count // 8 + 1))[:count], np.uint8).copy()
        return (data % 2 if dtype == "bool" else data).view(kind).reshape(shape)

    return st.builds(
        build,
        st.sampled_from(sorted(DTYPES)),
        st.lists(st.integers(0, 5), max_size=3),
        st.binary(min_size=8, max_size=8),
    )


words = st.one_of(
    st.sampled_from(["conv", "add", "inf", "output", "constant", "a.b", "two words", "ü"]),
    st.text(min_size=1, max_size=5),
)
spans = st.one_of(
    st.none(),
    st.builds(Span, st.sampled_from(["a.yaml", 'b "q".yaml']), st.integers(1, 9), st.just(3)),
)


@st.composite
def graphs(draw: st.DrawFn, depth: int = 1) -> Graph:
    g = Graph(draw(st.text(max_size=5)))
    values: list[Value] = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["input", "constant", "op", "op", "op"]))
        if kind == "input":
            values.append(g.add_input(draw(st.text(max_size=4)), draw(types()), draw(spans)))
        elif kind == "constant":
            array = draw(arrays())
            values.append(g.add_constant(array, draw(st.sampled_from(["f32", "i64"]))))
        else:
            count = draw(st.integers(0, 3)) if values else 0
            operands = [draw(st.sampled_from(values)) for _ in range(count)]
            attrs = draw(st.dictionaries(words, attr_values(), max_size=3))
            results = draw(st.lists(types(), max_size=3))
            regions = draw(st.lists(graphs(depth - 1), max_size=2)) if depth else []
            op = draw(words.filter(lambda w: w not in ("input", "constant")))
            name = draw(st.text(max_size=4))
            index = g.add(op, operands, attrs, results, name, draw(spans), regions)
            values += [Value(index, i) for i in range(len(results))]
    if values:
        for name in draw(st.lists(st.text(max_size=3), max_size=2)):
            g.set_output(name, draw(st.sampled_from(values)))
    g.inputs = draw(st.permutations(g.inputs))
    for left, right in draw(st.lists(st.tuples(sizes(), sizes()), max_size=2)):
        g.constraints.append(Constraint(left, right, draw(st.text(max_size=4)), draw(spans)))
    return g


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_every_graph_comes_back(graph: Graph) -> None:
    text = print_graph(graph)
    back = parse_graph(text)
    assert back == graph
    assert print_graph(back) == text


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_text_is_refused_or_read_but_never_crashes(data: st.DataObject) -> None:
    text = print_graph(small_net())
    start = data.draw(st.integers(0, len(text) - 1))
    stop = data.draw(st.integers(start, min(len(text), start + 8)))
    damaged = text[:start] + data.draw(st.text('%:="{}()[]<>N1@#\n', max_size=3)) + text[stop:]
    try:
        parse_graph(damaged)
    except GraphSyntaxError as error:
        assert 1 <= error.line <= damaged.count("\n") + 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("%0 = relu(%1) : f32[2]", "line 2: expected a value that is defined above, found %1"),
        ("%1 = relu : f32[2]", "line 2: expected %0, as nodes are numbered in order, found %1"),
        ("%0 = relu", r"line 3: expected ':', found }"),
        ("%0 = relu : f31[2]", r"line 2: expected an element type \(f16, .*\), found f31"),
        ("%0 = relu : f32[2*]", "line 2: expected a size: size ends too early: '2\\*'"),
        ("%0 = relu {a=b} : f32[]", "line 2: expected an attribute value .* found b"),
        ("%0 = relu {a=<N} : f32[]", "line 2: expected a size"),
        ("%0 = constant f32[2] [1.0] : f32[2]", r"line 2: expected the values of f32\[2\]"),
        ("%0 = constant i8[1] [300] : i8[1]", r"line 2: expected the values of i8\[1\]"),
        ('%0 = constant f32[1] base64 "!" : f32[1]', "line 2: expected the values of"),
        ("%0 = constant f32[N] 1 : f32[1]", "line 2: expected a constant of known size"),
        ("%0 = relu : f32[2] @1:2", "line 2: expected the number of a source"),
        ("\n\noutput logits = %0", "line 4: expected the output's name in double quotes"),
        ('%0 = a : f32[]\noutput "y" = %0:1', "line 3: expected one of the results of %0"),
        ("while true", "line 2: expected a node .* found while"),
        ("%0 = relu : f32[2] !", "line 2: unexpected character '!'"),
        ("%0 = relu {a=" + "(" * 200, "line 2: expected at most 100 nested brackets"),
        ('%0 = relu "\\q" : f32[]', "line 2: expected a name: "),
    ],
)
def test_what_is_wrong_is_said_with_its_line(body: str, message: str) -> None:
    with pytest.raises(GraphSyntaxError, match=message):
        parse_graph('graph "g" {\n' + body + "\n}\n")


def test_text_after_the_graph_is_refused() -> None:
    with pytest.raises(GraphSyntaxError, match="line 2: expected the end of the text"):
        parse_graph('graph "g" {}\ngraph')
