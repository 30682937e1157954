"""Tables, drawings, pages and plain data of small graphs."""

import io
import json
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import Span, TensorType
from tilth.view.boxes import boxes, count_text, dims_text
from tilth.view.dot import render_dot
from tilth.view.html import render_html
from tilth.view.jsonview import graph_json
from tilth.view.layout import Layout, lay_out
from tilth.view.scene import FONT, SMALL, scene, text_width
from tilth.view.svg import render_svg
from tilth.view.table import rich_table, summarise

N, T = symbol("N"), symbol("T")


class Net:
    """Builds graphs node by node, with every map of size 8 x 8."""

    def __init__(self, name: str) -> None:
        self.graph = Graph(name)

    def input(self, name: str = "image", channels: int = 16) -> Value:
        return self.graph.add_input(name, self.map(channels), Span("net.yaml", 2, 1))

    def map(self, channels: int) -> TensorType:
        return TensorType("f32", (N, channels, 8, 8))

    def op(self, op: str, *reads: Value, channels: int = 16, **attrs) -> Value:
        span = Span("net.yaml", 3, 5)
        return Value(self.graph.add(op, reads, attrs, (self.map(channels),), "", span))

    def param(self, path: str, *shape: int, kind: str = "weight") -> Value:
        attrs = {"path": path, "kind": kind}
        return Value(self.graph.add("param", (), attrs, (TensorType("f32", shape),), path))

    def conv(self, x: Value, path: str, channels: int = 16) -> Value:
        read = self.graph.type_of(x).shape[1]
        assert isinstance(read, int)
        weight = self.param(f"{path}.weight", channels, read, 3, 3)
        kind = self.map(channels)
        attrs = {"stride": (1, 1), "pad": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
        return Value(self.graph.add("conv", (x, weight), attrs, (kind,), path))


def residual(blocks: int = 3) -> Graph:
    net = Net("residual")
    x = net.conv(net.input(), "stem")
    for i in range(blocks):
        y = net.conv(net.op("relu", net.conv(x, f"body.{i}.conv1")), f"body.{i}.conv2")
        x = net.op("relu", net.op("add", y, x))
    net.graph.set_output("y", net.conv(x, "head"))
    return net.graph


def inception() -> Graph:
    net = Net("inception")
    x = net.conv(net.input(), "stem")
    for i in range(2):
        a = net.conv(x, f"mix{i}.a")
        b = net.conv(net.conv(net.conv(x, f"mix{i}.b.0"), f"mix{i}.b.1"), f"mix{i}.b.2")
        c = net.conv(net.op("maxpool", x, kernel=(3, 3), stride=(1, 1)), f"mix{i}.c")
        x = net.op("concat", a, b, c, channels=48)
    net.graph.set_output("y", net.op("reduce", x, kind="mean", axes=(2, 3)))
    return net.graph


def looped() -> Graph:
    body = Graph("body")
    h = body.add_input("h", TensorType("f32", (N, 4)))
    step = Value(body.add("tanh", (h,), {}, (TensorType("f32", (N, 4)),)))
    body.set_output("h", step)
    g = Graph("looped")
    x = g.add_input("x", TensorType("f32", (N, 4)))
    attrs = {"length": T, "bound": float("inf"), "size": 2 * T}
    y = g.add("scan", (x,), attrs, (TensorType("f32", (N, 4)),), "cell", regions=(body,))
    g.set_output("y", Value(y))
    return g


# ---------------------------------------------------------------- boxes


def by_op(graph: Graph, op: str) -> list:
    return [box for box in boxes(graph) if box.op == op]


def test_weights_are_part_of_the_op_that_reads_them() -> None:
    found = boxes(residual())
    assert not any(box.op == "param" for box in found)
    stem = next(box for box in found if box.path == "stem")
    assert stem.parameters == 16 * 16 * 9
    assert [w.path for w in stem.weights] == ["stem.weight"]
    assert stem.label == "conv 3×3, 16"


def test_ops_without_a_path_continue_the_block_before_them() -> None:
    adds = by_op(residual(), "add")
    assert [".".join(box.block) for box in adds] == ["body.0", "body.1", "body.2"]
    relus = by_op(residual(2), "relu")
    assert [".".join(box.block) for box in relus] == ["body.0", "body.0", "body.1", "body.1"]


def test_joins_and_poolings_find_their_block() -> None:
    assert [box.block for box in by_op(inception(), "concat")] == [("mix0",), ("mix1",)]
    assert [box.block for box in by_op(inception(), "maxpool")] == [("mix0",), ("mix1",)]
    # After the last block nothing follows that belongs to it.
    assert by_op(inception(), "reduce")[0].block == ("mix1",)


def test_a_shared_weight_counts_at_its_first_reader() -> None:
    net = Net("shared")
    w = net.param("w.weight", 16, 16, 3, 3)
    x = net.input()
    for _ in range(2):
        x = net.op("conv", x, w, stride=(2, 2))
    net.graph.set_output("x", x)
    first, second = by_op(net.graph, "conv")
    assert (first.parameters, first.recursive) == (2304, False)
    assert (second.parameters, second.recursive) == (0, True)
    assert first.label == "conv 3×3/2, 16"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (25_557_032, "25.6 M"), (4_089_184_256, "4.09 G")],
)
def test_counts_read_well(count: int, text: str) -> None:
    assert count_text(count) == text
    assert count_text(2 * N) == "2*N"


def test_shapes_read_well() -> None:
    assert dims_text(TensorType("f32", (N, 3, 8))) == "N×3×8"
    assert dims_text(TensorType("f32", (N, T + 1))) == "[N, T + 1]"
    assert dims_text(TensorType("f32", ())) == "scalar"


# ---------------------------------------------------------------- table


def test_table_rows_and_totals() -> None:
    summary = summarise(residual(1))
    assert [(row.path, row.op) for row in summary.rows] == [
        ("image", "input"),
        ("stem", "conv 3×3, 16"),
        ("body.0.conv1", "conv 3×3, 16"),
        ("body.0", "relu"),
        ("body.0.conv2", "conv 3×3, 16"),
        ("body.0", "add"),
        ("body.0", "relu"),
        ("head", "conv 3×3, 16"),
    ]
    assert summary.total.parameters == 4 * 2304
    assert sum(row.parameters for row in summary.rows) == 4 * 2304


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_folding_keeps_the_sums(depth: int) -> None:
    full, folded = summarise(residual()), summarise(residual(), depth=depth)
    for name in ("parameters", "macs", "bytes", "ops"):
        assert sum(getattr(r, name) for r in full.rows) == sum(
            getattr(r, name) for r in folded.rows
        )
    paths = {1: 4, 2: 6, 3: len(full.rows)}
    assert len(folded.rows) == paths[depth]


def test_a_folded_row_shows_what_the_block_gives() -> None:
    row = summarise(inception(), depth=1).rows[2]
    assert (row.path, row.op, row.ops, row.shape) == ("mix0", "7 ops", 7, "[N, 48, 8, 8]")


def test_loop_bodies_are_indented_rows() -> None:
    summary = summarise(looped())
    assert [(row.level, row.op) for row in summary.rows] == [
        (0, "input"),
        (0, "scan T steps"),
        (1, "input"),
        (1, "tanh"),
    ]
    text = printed(summary)
    assert "│   tanh" in text


def printed(summary) -> str:
    console = Console(width=140, file=io.StringIO())
    console.print(rich_table(summary))
    return console.file.getvalue()


def test_the_printed_table_shows_shapes_and_totals() -> None:
    text = printed(summarise(residual(), title="[bold]res[/]"))
    assert "[bold]res[/]" in text
    assert "[N, 16, 8, 8]" in text
    assert "18,432" in text
    assert "counted for one step" not in text


def test_summaries_are_plain_data() -> None:
    data = json.loads(json.dumps(summarise(looped()).as_json()))
    assert data["total"]["activation_bytes"] == "16*T + 16"
    assert data["rows"][1]["op"] == "scan T steps"


# ---------------------------------------------------------------- layout


@st.composite
def dags(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    count = draw(st.integers(0, 14))
    size = st.tuples(st.integers(20, 200), st.integers(20, 60))
    sizes = [(float(w), float(h)) for w, h in draw(st.lists(size, min_size=count, max_size=count))]
    pairs = [(u, v) for v in range(count) for u in range(v)]
    edges = draw(st.lists(st.sampled_from(pairs), max_size=24, unique=True)) if pairs else []
    return sizes, edges


def curve(points: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
    """Points along an edge as the SVG draws it."""
    found = []
    for (x, y), (to_x, to_y) in pairwise(points):
        for k in range(13):
            t = k / 12
            ease = 3 * (1 - t) * t * t + t**3
            half = (y + to_y) / 2
            rise = 3 * (1 - t) ** 2 * t * half + 3 * (1 - t) * t * t * half
            found.append((x + (to_x - x) * ease, (1 - t) ** 3 * y + rise + t**3 * to_y))
    return found


def assert_readable(layout: Layout, sizes, edges) -> None:
    frames = [
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        for (x, y), (w, h) in zip(layout.centres, sizes, strict=True)
    ]
    for left, top, right, bottom in frames:
        assert left >= -0.01
        assert top >= -0.01
        assert right <= layout.width + 0.01
        assert bottom <= layout.height + 0.01
    for i, a in enumerate(frames):
        for b in frames[:i]:
            gaps = (b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])
            assert max(gaps) >= -0.01
    for (u, v), points in zip(edges, layout.edges, strict=True):
        assert points[0] == pytest.approx((layout.centres[u][0], frames[u][3]))
        assert points[-1] == pytest.approx((layout.centres[v][0], frames[v][1]))
        for x, y in curve(points):
            assert -0.01 <= x <= layout.width + 0.01
            for left, top, right, bottom in frames:
                assert not (left + 0.5 < x < right - 0.5 and top + 0.5 < y < bottom - 0.5)


@settings(max_examples=80, deadline=None)
@given(dags())
def test_boxes_stand_apart_and_no_edge_runs_through_one(dag) -> None:
    sizes, edges = dag
    assert_readable(lay_out(sizes, edges), sizes, edges)


def test_the_trunk_of_a_residual_net_is_one_straight_line() -> None:
    drawn = scene(residual(6))
    sizes = [(item.width, item.height) for item in drawn.items]
    layout = lay_out(sizes, drawn.edges)
    assert len({x for x, _ in layout.centres}) == 1
    assert layout.crossings == 0
    assert_readable(layout, sizes, drawn.edges)


def test_branches_do_not_cross() -> None:
    drawn = scene(inception())
    sizes = [(item.width, item.height) for item in drawn.items]
    layout = lay_out(sizes, drawn.edges)
    assert layout.crossings == 0
    assert_readable(layout, sizes, drawn.edges)


def test_two_chains_that_swap_are_untangled() -> None:
    # Without reordering, 0-3, 1-2 would cross.
    layout = lay_out([(40.0, 20.0)] * 4, [(0, 3), (1, 2)])
    assert layout.crossings == 0


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="from a lower box number"):
        lay_out([(10.0, 10.0)] * 2, [(1, 0)])


def test_five_hundred_ops_lay_out_quickly() -> None:
    graph = residual(100)
    start = time.perf_counter()
    render_svg(graph)
    assert time.perf_counter() - start < 2.0


# ---------------------------------------------------------------- scenes and drawings


def test_weights_are_no_boxes_and_outputs_are() -> None:
    drawn = scene(residual(1))
    names = [item.lines[0] for item in drawn.items]
    conv = "conv 3×3, 16"
    assert names == ["image", conv, conv, "relu", conv, "+", "relu", conv, "y"]
    assert len(drawn.edges) == 9


def test_folded_blocks_become_one_box() -> None:
    drawn = scene(residual(), fold=2)
    lines = [item.lines for item in drawn.items]
    assert lines[2] == ("body.0", "5 ops · 4.61 k params", "N×16×8×8")
    assert len(drawn.items) == 7
    assert len(scene(residual(), fold={"body.1"}).items) == len(scene(residual()).items) - 4
    assert len(scene(residual(), fold=1).items) == 5


def twice_with_something_between() -> Graph:
    net = Net("twice")
    x = net.input()
    for _ in range(2):
        a = net.conv(x, "cell.a")
        x = net.op("exp", net.conv(a, "cell.b"), channels=16)
        index = x.node
        node = net.graph.node(index)
        net.graph.set_node(index, type(node)(node.op, {}, node.types, "between"))
    net.graph.set_output("y", x)
    return net.graph


def test_a_fold_never_makes_a_circle() -> None:
    drawn = scene(twice_with_something_between(), fold=1)
    assert [item.lines[0] for item in drawn.items] == ["image", "cell", "exp", "cell", "exp", "y"]
    assert all(u < v for u, v in drawn.edges)


def test_blocks_that_interleave_stay_open() -> None:
    # p.a -> q.a and q.b -> p.b: either fold is fine, both at once would make a circle.
    net = Net("knot")
    x, z = net.input("x"), net.input("z")
    qa = net.conv(net.conv(x, "p.a"), "q.a")
    pb = net.conv(net.conv(z, "q.b"), "p.b")
    net.graph.set_output("y", net.op("add", qa, pb))
    drawn = scene(net.graph, fold=1)
    assert all(u < v for u, v in drawn.edges)
    assert sum(len(item.members) for item in drawn.items) == 7


@pytest.mark.parametrize("graph", [residual(), inception(), looped()], ids=lambda g: g.name)
def test_text_fits_its_box(graph: Graph) -> None:
    for item in scene(graph).items:
        for i, line in enumerate(item.lines):
            assert text_width(line, FONT if i == 0 else SMALL) <= item.width


def test_svg_is_well_formed_and_says_what_it_shows() -> None:
    text = render_svg(residual(), title="A <b> & \x01 c")
    root = ET.fromstring(text)
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == "A <b> & \ufffd c"
    assert words[1] is not None
    assert words[1].startswith("18.4 k parameters")
    assert {"convolution", "activation", "combination"} <= set(words)
    assert "pooling" not in words
    assert {"body.0", "body.1", "body.2"} <= set(words)
    edges = [p for p in root.iter("{http://www.w3.org/2000/svg}path") if p.get("marker-end")]
    assert len(edges) == len(scene(residual()).edges)


def test_svg_of_a_loop_shows_its_body() -> None:
    text = render_svg(looped())
    assert "body of scan cell" in text
    assert ">tanh<" in text


def test_an_empty_graph_can_be_drawn() -> None:
    ET.fromstring(render_svg(Graph("empty")))
    assert "digraph" in render_dot(Graph("empty"))
    assert "@@" not in render_html(Graph("empty"), "empty")
    assert printed(summarise(Graph("empty")))


def test_dot_has_clusters_and_quotes_everything() -> None:
    text = render_dot(residual(1), title='a "b" \\ c')
    assert text.startswith('digraph "a \\"b\\" \\\\ c" {')
    assert 'subgraph "cluster_g_body.0" {' in text
    assert text.count("->") == 9
    assert text.count("{") == text.count("}")
    assert 'subgraph "cluster_g_0" {' in render_dot(looped())


# ---------------------------------------------------------------- page and plain data


def page_data(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found.group(1))


def test_page_holds_the_graph_and_the_spec() -> None:
    data = page_data(render_html(looped(), "a title", "tilth: 1\nmodel: |"))
    assert data["title"] == "a title"
    assert data["source"] == "tilth: 1\nmodel: |"
    top, body = data["graphs"]
    assert [op["op"] for op in top["ops"]] == ["input", "scan"]
    assert top["ops"][1]["bodies"] == [1]
    assert top["ops"][1]["attrs"] == [["length", "<T>"], ["bound", "inf"], ["size", "<2*T>"]]
    assert body["title"] == "body of scan cell"
    conv = page_data(render_html(residual(), "r"))["graphs"][0]["ops"][1]
    assert conv["weights"] == [["stem.weight", "weight", "f32[16, 16, 3, 3]"]]
    assert conv["operands"] == ["image : f32[N, 16, 8, 8]", "stem.weight : f32[16, 16, 3, 3]"]
    assert ["parameters", "2,304 (2.3 k)"] in conv["cost"]


def test_nothing_in_a_spec_breaks_out_of_the_page() -> None:
    plain = render_html(residual(1), "t", "s")
    evil = "</script><script>alert(1)</script><!-- @@DATA@@ &"
    graph = residual(1)
    graph.name = evil
    graph.set_output(evil, graph.outputs[0][1])
    page = render_html(graph, evil, evil)
    assert page.count("<script") == plain.count("<script") == 3
    assert page.count("</script") == 3
    assert "<!--" not in page
    data = page_data(page)
    assert (data["title"], data["source"]) == (evil, evil)
    assert data["graphs"][0]["outputs"][1]["name"] == evil


def test_page_needs_no_network() -> None:
    page = render_html(residual(1), "t")
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_scripts_of_the_page_parse(tmp_path) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", render_html(residual(1), "t"), re.S)
    assert len(scripts) == 2
    for script in scripts:
        file = tmp_path / "page.js"
        file.write_text(script, encoding="utf-8")
        subprocess.run(["node", "--check", str(file)], check=True)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_page_lays_out_as_the_svg_does(tmp_path) -> None:
    script = re.findall(r"<script>(.*?)</script>", render_html(residual(1), "t"), re.S)[0]
    drawn = scene(residual(2))
    sizes = [(item.width, item.height) for item in drawn.items]
    call = f"console.log(JSON.stringify(layOut({json.dumps(sizes)}, {json.dumps(drawn.edges)})));"
    file = tmp_path / "layout.js"
    file.write_text(script + call, encoding="utf-8")
    run = subprocess.run(["node", str(file)], check=True, capture_output=True, text=True)
    centres = json.loads(run.stdout)["centres"]
    for ours, theirs in zip(lay_out(sizes, drawn.edges).centres, centres, strict=True):
        assert ours == pytest.approx(theirs)


def test_graphs_are_plain_data() -> None:
    data = json.loads(json.dumps(graph_json(looped()), allow_nan=False))
    assert data["inputs"] == [0]
    assert data["outputs"] == [{"name": "y", "node": 1, "result": 0}]
    assert data["edges"] == [{"from": 0, "result": 0, "to": 1, "operand": 0}]
    assert data["symbols"] == ["N"]
    scan = data["nodes"][1]
    assert scan["attrs"] == {
        "length": {"size": "T"},
        "bound": {"float": "inf"},
        "size": {"size": "2*T"},
    }
    assert scan["types"] == [{"dtype": "f32", "shape": ["N", 4]}]
    assert scan["cost"]["repeats"] == "T"
    assert scan["regions"][0]["nodes"][1]["op"] == "tanh"
    conv = graph_json(residual())["nodes"][3]
    assert conv["op"] in ("conv", "param")
    relu = next(n for n in graph_json(residual())["nodes"] if n["op"] == "relu")
    assert relu["span"] == {"file": "net.yaml", "line": 3, "column": 5}
