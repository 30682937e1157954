"""ONNX files: what they hold, that onnx accepts them, that ONNX Runtime computes the same."""

import math

import numpy as np
import pytest
import tilth
from tilth import zoo
from tilth.bench.problem import bench_inputs, bench_weights
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.graph import Graph, Value
from tilth.compiler.ir.types import DTYPES, TensorType
from tilth.compiler.ops import infer
from tilth.compiler.ops.base import OpError
from tilth.export import onnx_writer
from tilth.export.onnx_writer import emit, write_onnx

NO_ONNX = "writing ONNX needs the extra `onnx`"


def net(*rows, batch=2, channels=4, size=9, dtype="f32"):
    """A graph that applies ``(op, weight shapes, attrs)`` one after the other to an image."""
    graph = Graph("net")
    value = graph.add_input("image", TensorType(dtype, (batch, channels, size, size)))
    for place, (op, shapes, attrs) in enumerate(rows):
        weights = []
        for number, shape in enumerate(shapes):
            named = {"path": f"layer{place}.w{number}", "init": ("zeros",), "kind": "weight"}
            kinds = (TensorType(dtype, shape),)
            weights.append(Value(graph.add("param", (), {**named, "domain": "real"}, kinds)))
        operands = [value, *weights]
        types = infer(op, [graph.type_of(v) for v in operands], attrs)
        value = Value(graph.add(op, operands, attrs, types))
    graph.set_output("y", value)
    return graph


def weights_of(graph, seed=0):
    rng = np.random.default_rng(seed)
    return {
        str(node.attrs["path"]): rng.uniform(0.5, 1.5, node.type.shape).astype(np.float32)
        for _, node in graph.of_op("param")
    }


def window(kernel=3, stride=1, pad=1, dilation=1, **more):
    sides = {"kernel": kernel, "stride": stride, "pad": (pad, pad), "dilation": dilation}
    return {name: (value, value) for name, value in sides.items()} | more


def conv(channels=6, inputs=4, **how):
    how = {name: v for name, v in window(**how, groups=1).items() if name != "kernel"}
    return ("conv", [(channels, inputs, 3, 3), (channels,)], how)


def avgpool(**how):
    attrs = window(**how)
    return ("avgpool", [], {name: v for name, v in attrs.items() if name != "dilation"})


POOL = ("reduce", [], {"kind": "mean", "axes": (2, 3), "keepdims": False})
SMALL = (conv(), ("relu", [], {}), POOL)


def test_records_keep_names_and_order():
    graph = net(*SMALL)
    weights = weights_of(graph)
    body, arrays = emit(graph, weights)
    assert [name for name, _ in body.inputs] == ["image"]
    assert body.outputs == [("y", TensorType("f32", (2, 6)))]
    assert [call.op for call in body.calls] == ["Conv", "Relu", "GlobalAveragePool", "Squeeze"]
    assert body.calls[0].inputs == ("image", "layer0.w0", "layer0.w1")
    assert body.calls[0].attrs["pads"] == [1, 1, 1, 1]
    assert body.calls[-1].outputs == ("y",)
    assert np.array_equal(arrays["layer0.w0"], weights["layer0.w0"])


def test_open_sizes_become_named_dimensions():
    graph = net(*SMALL, batch=symbol("N"), size=symbol("H"))
    body, _ = emit(graph, weights_of(graph))
    assert str(body.inputs[0][1]) == "f32[N, 4, H, H]"
    bound, _ = emit(graph, weights_of(graph), {"N": 3, "H": 8})
    assert str(bound.inputs[0][1]) == "f32[3, 4, 8, 8]"


def test_one_value_under_two_names():
    graph = net(("relu", [], {}))
    graph.set_output("again", graph.outputs[0][1])
    graph.set_output("input_too", Value(graph.inputs[0]))
    body, _ = emit(graph, {})
    assert [(c.op, c.inputs, c.outputs) for c in body.calls] == [
        ("Relu", ("image",), ("y",)),
        ("Identity", ("y",), ("again",)),
        ("Identity", ("image",), ("input_too",)),
    ]


def test_a_ceiling_is_written_as_padding():
    graph = net(("maxpool", [], window(3, 2, 0, ceil=True)), size=8)
    body, _ = emit(graph, {})
    assert body.outputs[0][1].shape == (2, 4, 4, 4)
    assert body.calls[0].attrs["pads"] == [0, 0, 1, 1]


def test_what_does_not_fit_is_named():
    def fault(graph, params=None, sizes=None):
        with pytest.raises(OpError) as found:
            emit(graph, params or {}, sizes)
        return found.value.code, found.value.message

    code, message = fault(net(("lgamma", [], {})))
    assert code == "E804"
    assert message == "%1 lgamma cannot be written as ONNX: there is no form of `lgamma`"
    code, message = fault(net(("adaptive_avgpool", [], {"size": (2, 2)}), size=symbol("H")))
    assert code == "E805"
    assert "while the size H is open" in message
    assert fault(net(conv()))[0] == "E801"
    assert fault(net(conv()), {"layer0.w0": np.zeros(3)})[0] == "E801"


def test_a_missing_package_is_said_with_its_command(monkeypatch):
    monkeypatch.setattr(onnx_writer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OpError) as found:
        write_onnx(net(("relu", [], {})), {})
    assert found.value.hint == "pip install 'tilth[onnx]'"


def test_onnx_accepts_the_file(tmp_path):
    onnx = pytest.importorskip("onnx", reason=NO_ONNX)
    graph = net(*SMALL)
    weights = weights_of(graph)
    write_onnx(graph, weights, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 17
    assert [i.name for i in model.graph.input] == ["image"]
    assert [o.name for o in model.graph.output] == ["y"]
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert weights.keys() <= held.keys()
    assert all(np.array_equal(held[path], array) for path, array in weights.items())


# ---------------------------------------------------------------- against ONNX Runtime


def peer(graph, weights, feeds, sizes=None):
    """Largest difference to ONNX Runtime, over the largest value."""
    onnx = pytest.importorskip("onnx", reason=NO_ONNX)
    runtime = pytest.importorskip("onnxruntime", reason="the peer is not installed")
    model = write_onnx(graph, weights, sizes=sizes)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = interpret(graph, feeds, weights)
    found = session.run(list(expected), feeds)
    worst = 0.0
    for wanted, array in zip(expected.values(), found, strict=True):
        assert array.dtype == wanted.dtype
        assert array.shape == wanted.shape
        scale = max(float(np.abs(wanted).max()), 1e-30)
        worst = max(worst, float(np.abs(array.astype(float) - wanted).max()) / scale)
    return worst


LAYERS = {
    "conv": [conv()],
    "conv strided": [conv(stride=2, dilation=2)],
    "conv_transpose": [
        ("conv_transpose", [(4, 3, 3, 3), (6,)],
         {"stride": (2, 2), "pad": ((1, 0), (1, 1)), "out_pad": (1, 0), "dilation": (1, 1),
          "groups": 2}),
    ],
    "linear": [("linear", [(5, 9), (5,)], {})],
    "batch_norm": [("batch_norm", [(4,)] * 4, {"eps": 1e-5, "momentum": 0.1})],
    "batch_norm plain": [("batch_norm", [(4,)] * 2, {"eps": 1e-3, "momentum": 0.1})],
    "layer_norm": [("layer_norm", [(9, 9)] * 2, {"axes": 2, "eps": 1e-5})],
    "instance_norm": [("instance_norm", [], {"eps": 1e-5})],
    "group_norm": [("group_norm", [(4,)] * 2, {"groups": 2, "eps": 1e-5})],
    "lrn": [("lrn", [], {"size": 5, "alpha": 0.1, "beta": 0.75, "k": 2.0, "average": False})],
    "l2norm": [("l2norm", [], {"axis": 1, "eps": 1e-12})],
    "prelu": [("prelu", [(4,)], {})],
    "maxout": [("maxout", [], {"pieces": 2})],
    "maxpool ceil": [("maxpool", [], window(3, 2, 0, ceil=True))],
    "maxpool dilated": [("maxpool", [], window(2, 1, 1, 2, ceil=False))],
    "avgpool counting": [avgpool(kernel=3, stride=2, pad=1, ceil=True, count_pad=True)],
    "avgpool hanging": [avgpool(kernel=4, stride=3, pad=1, ceil=True, count_pad=True)],
    "avgpool hanging, pad not counted": [avgpool(kernel=4, stride=3, ceil=True, count_pad=False)],
    "adaptive_avgpool": [("adaptive_avgpool", [], {"size": (4, 3)})],
    "adaptive_maxpool": [("adaptive_maxpool", [], {"size": (4, 9)})],
    "channel_shuffle": [("channel_shuffle", [], {"groups": 2, "axis": 1})],
    "channel_shuffle last": [("channel_shuffle", [], {"groups": 3, "axis": 3})],
    "pixel_shuffle": [("pixel_shuffle", [], {"factor": 2})],
    "pixel_unshuffle": [("pixel_unshuffle", [], {"factor": 3})],
    "slice": [
        ("slice", [], {"starts": (0, 1, 2, 0), "stops": (2, 4, 9, 9), "steps": (1, 2, 3, 1)}),
    ],
    "flip": [("flip", [], {"axes": (1, 3)})],
    "transpose": [("transpose", [], {"perm": (0, 2, 3, 1)})],
    "reshape": [("reshape", [], {"shape": (2, 324)})],
    "tile": [("tile", [], {"reps": (1, 2, 1, 3)})],
    "broadcast": [("broadcast", [], {"shape": (3, 2, 4, 9, 9)})],
    "diag": [("diag", [], {})],
    "diagonal": [("diagonal", [], {})],
    "tril": [("tril", [], {"k": -1})],
    "triu": [("triu", [], {"k": 2})],
    "var": [("var", [], {"axes": (1, 2), "keepdims": True, "unbiased": True})],
    "cumsum": [("cumsum", [], {"axis": 2, "reverse": True})],
    "sort": [("sort", [], {"axis": 3, "descending": False})],
    "argmax": [("argmax", [], {"axis": 1, "keepdims": False})],
    "softmax": [("softmax", [], {"axis": 1, "beta": 2.0})],
    "log_softmax": [("log_softmax", [], {"axis": 3})],
    "clamp": [("clamp", [], {"min": None, "max": 0.5})],
    "cast": [("cast", [], {"dtype": "i32"})],
}  # fmt: skip
LAYERS |= {
    f"pad {mode}": [
        ("pad", [], {"before": (0, 0, 1, 2), "after": (0, 1, 0, 3), "value": 1.5, "mode": mode})
    ]
    for mode in ("constant", "reflect", "edge")
}
LAYERS |= {
    f"reduce {kind}": [("reduce", [], {"kind": kind, "axes": (1, 3), "keepdims": False})]
    for kind in ("sum", "prod", "max", "min", "mean", "lse")
}
LAYERS |= {
    f"resize {mode} {corners} {size}": [
        ("resize", [],
         {"size": size, "scale": scale, "mode": mode, "align_corners": corners,
          "antialias": False})
    ]
    for mode in ("nearest", "nearest_exact", "bilinear", "bicubic")
    for corners in ((False, True) if mode.startswith("bi") else (False,))
    for size, scale in (((18, 27), None), ((5, 12), None), ((13, 13), (1.5, 1.5)))
}  # fmt: skip
LAYERS |= {
    op: [(op, [], attrs)]
    for op, attrs in {
        "relu6": {}, "leaky_relu": {"slope": 0.1}, "elu": {"alpha": 0.7}, "selu": {},
        "gelu": {"approximate": "tanh"}, "sigmoid": {"slope": 2.0}, "hardsigmoid": {},
        "hardswish": {}, "swish": {}, "mish": {}, "softplus": {"beta": 2.0}, "softsign": {},
        "tanh": {}, "erf": {}, "exp": {}, "log1p": {}, "expm1": {}, "rsqrt": {}, "square": {},
        "round": {}, "sign": {}, "abs": {}, "reciprocal": {}, "logit": {}, "dropout": {"rate": 0.5},
    }.items()
}  # fmt: skip
POSITIVE = {"log1p", "rsqrt", "logit", "reciprocal"}


@pytest.mark.peer
@pytest.mark.parametrize("name", LAYERS)
def test_layers_agree(name):
    graph = net(*LAYERS[name])
    rng = np.random.default_rng(1)
    shape = graph.node(graph.inputs[0]).type.shape
    image = rng.uniform(0.05, 0.95, shape) if name in POSITIVE else 2 * rng.standard_normal(shape)
    tolerance = 1e-5 if name not in ("argmax", "cast", "sort") else 0
    assert peer(graph, weights_of(graph), {"image": image.astype(np.float32)}) <= tolerance


def of_tensors(op, attrs, *kinds):
    """A graph of one op on inputs ``a``, ``b`` and so on."""
    graph = Graph("op")
    values = [graph.add_input("abc"[i], TensorType(*kind)) for i, kind in enumerate(kinds)]
    types = infer(op, list(map(graph.type_of, values)), attrs)
    index = graph.add(op, values, attrs, types)
    for place in range(len(types)):
        graph.set_output(f"y{place}", Value(index, place))
    return graph


MATRICES = [("f32", (3, 4)), ("f32", (4, 5))]
OPS = [
    *(("contract", {"semiring": ring, "spec": "ij,jk->ki"}, *MATRICES)
      for ring in ("sum_product", "max_plus", "lse_plus", "min_product")),
    ("contract", {"semiring": "sum_product", "spec": "ij,jk->ik"}, *MATRICES),
    ("contract", {"semiring": "max_plus", "spec": "ii,ij->j"}, ("f32", (4, 4)), MATRICES[1]),
    ("matmul", {}, ("f32", (2, 3, 4)), MATRICES[1]),
    *((op, {}, (dtype, (7, 5)), (dtype, (5,)))
      for op in ("floordiv", "mod", "minimum", "eq", "ne", "le")
      for dtype in ("f32", "i32")),
    ("take", {"axis": 1}, ("f32", (3, 6, 2)), ("i32", (4, 2))),
    ("gather", {"axes": (2,)}, ("f32", (3, 4, 6)), ("i32", (2, 2))),
    ("gather", {"axes": (0, 2)}, ("f32", (6, 4, 6)), ("i32", (5, 1)), ("i32", (3,))),
    ("scatter_add", {}, ("f32", (6, 2)), ("i32", (9,)), ("f32", (9, 2))),
    ("segment_sum", {"segments": 6}, ("f32", (9, 2)), ("i32", (9,))),
    ("one_hot", {"size": 6, "dtype": "f32"}, ("i32", (4,))),
    ("split", {"axis": 1, "sizes": (1, 3, 2)}, ("f32", (2, 6))),
    ("topk", {"k": 3, "axis": 0, "largest": True}, ("f32", (7, 2))),
    ("argsort", {"axis": 1, "descending": True}, ("f32", (2, 7))),
    ("concat", {"axis": 1}, ("f32", (2, 3)), ("f32", (2, 4))),
    ("grid_sample", {"mode": "bilinear", "padding": "border", "align_corners": False},
     ("f32", (2, 3, 6, 5)), ("f32", (2, 4, 4, 2))),
    ("affine_grid", {"size": (4, 5), "align_corners": False}, ("f32", (2, 2, 3))),
    ("maxpool_with_indices", window(2, 2, 0, ceil=False), ("f32", (2, 3, 6, 6))),
    ("maxunpool", {"size": (3, 3)}, ("f32", (1, 2, 1, 3)), ("i64", (1, 2, 1, 3))),
]  # fmt: skip


@pytest.mark.peer
@pytest.mark.parametrize("row", OPS, ids=lambda row: f"{row[0]} {row[1]} {row[2][0]}")
def test_ops_on_tensors_agree(row):
    op, attrs, *kinds = row
    rng = np.random.default_rng(2)
    feeds = {}
    for name, (dtype, shape) in zip("abc", kinds, strict=False):
        if dtype == "f32":
            feeds[name] = rng.standard_normal(shape).astype(np.float32)
        else:
            # Distinct, so that nothing depends on the order of writes; zero only as an index.
            low = 3 if op in ("floordiv", "mod") else 0
            chosen = rng.permutation(np.arange(max(6, math.prod(shape))) % 6) - low
            feeds[name] = np.resize(chosen, shape).astype(DTYPES[dtype])
            if op == "mod":
                feeds[name] = np.where(feeds[name] == 0, -4, feeds[name])
    assert peer(of_tensors(op, attrs, *kinds), {}, feeds) <= 1e-5


def loop(op):
    """``h <- tanh(h) + x[t]`` over rows, or six times without rows."""
    vector, stacked = TensorType("f32", (3,)), TensorType("f32", (6, 3))
    body = Graph("body")
    h, x = body.add_input("h", vector), body.add_input("x", vector)
    squashed = Value(body.add("tanh", [h], {}, (vector,)))
    new = Value(body.add("add", [squashed, x], {}, (vector,)))
    graph = Graph("loop")
    start = graph.add_input("start", vector)
    rows = graph.add_input("rows", stacked if op == "scan" else vector)
    body.set_output("h", new)
    if op == "scan":
        body.set_output("all", new)
        attrs, types = {"n_carry": 1, "n_xs": 1, "length": 6, "reverse": True}, (vector, stacked)
    else:
        total = Value(body.add("reduce", [new], {"kind": "sum", "axes": (0,), "keepdims": False},
                               (TensorType("f32", ()),)))  # fmt: skip
        limit = body.add_constant(np.float32(4), "f32")
        stop = body.add("gt", [total, limit], {}, (TensorType("bool", ()),))
        body.set_output("stop", Value(stop))
        attrs, types = {"n_carry": 1, "max_steps": 6}, (vector,)
    node = graph.add(op, [start, rows], attrs, types, regions=[body])
    for place in range(len(types)):
        graph.set_output(f"y{place}", Value(node, place))
    return graph


@pytest.mark.peer
@pytest.mark.parametrize("op", ["scan", "iterate"])
def test_loops_agree(op):
    rng = np.random.default_rng(3)
    shape = (6, 3) if op == "scan" else (3,)
    feeds = {"start": np.ones(3, np.float32), "rows": rng.random(shape).astype(np.float32)}
    assert peer(loop(op), {}, feeds) <= 1e-6


NETS = [
    (entry.name, variant)
    for entry in zoo.entries()
    if entry.family in ("classification", "compression", "recurrent")
    for variant in entry.variants or (None,)
]
SIZES = {"N": 2, "T": 5, "H": 96, "W": 96}
LARGER = {"scnet": 128, "googlenet_paper": 224}


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("name, variant", NETS)
def test_nets_of_the_zoo_agree(name, variant):
    program = tilth.load(name, variant=variant)
    side = LARGER.get(name, 96)
    wanted = SIZES | {"H": side, "W": side}
    sizes = {s: n for s, n in wanted.items() if s in program.graph.symbols}
    weights = bench_weights(program, sizes, 4)
    feeds = bench_inputs(program.graph.bind(sizes), 4)
    assert peer(program.graph, weights, feeds, sizes) <= 1e-4
