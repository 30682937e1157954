"""Generated element-wise kernels against the op table's references, and their broadcasting."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ir.types import DTYPES, TensorType
from tilth.compiler.ops import OPS, infer
from tilth.runtime.kernels import elements
from tilth.runtime.kernels.pointwise import (
    PointwiseKernel,
    Writer,
    broadcast_strides,
    places,
    tasks,
    words,
)

NAMES = {v: k for k, v in DTYPES.items()}
ATTRS = {
    "leaky_relu": {"slope": 0.1},
    "elu": {"alpha": 0.7},
    "sigmoid": {"slope": 1.5},
    "softplus": {"beta": 0.5},
    "polygamma": {"n": 2},
    "gelu": {"approximate": "none"},
    "clamp": {"min": -1, "max": 2},
}
INSIDE = {
    "asin": (-1, 1),
    "acos": (-1, 1),
    "logit": (0, 1),
    "log": (0, 9),
    "sqrt": (0, 9),
    "rsqrt": (0, 9),
    "lgamma": (-4, 9),
    "digamma": (-4, 9),
    "polygamma": (0, 9),
}
"""Ranges of ops that are not defined everywhere."""

FLOATS = sorted((set(elements.VECTOR_FLOAT) | {"clamp"}) & set(OPS) - {"where", "prelu"})
WHOLES = sorted((set(elements.SCALAR_WHOLE) | {"clamp"}) & set(OPS) - {"where"})
BOOLS = sorted(set(elements.VECTOR_BOOL) & set(OPS) - {"where"})


def _run(drive, cases, arrays, result, width, scalar=False):
    """Several ops in one kernel on one array per operand; ``scalar`` forbids vectors."""
    writer = Writer()
    strides = [broadcast_strides(a.shape, result) for a in arrays]
    where = places(result, strides)
    access = [("strided" if a == "full" and scalar else a) for a in where.access]
    names = [writer.argument(NAMES[a.dtype], how) for a, how in zip(arrays, access, strict=True)]
    outputs = [writer.apply(op, names[: len(OPS[op].operands)], attrs) for op, attrs in cases]
    expression = writer.finish(*outputs)
    found = [np.zeros(result, DTYPES[expression.dtype(name)]) for name in outputs]
    kernel = PointwiseKernel(expression, len(where.outer), width)
    assert kernel.is_vector == (arrays[0].dtype.kind != "i" and not scalar)
    drive(kernel, tasks(where), words(expression, where, arrays, found, writer.values))
    return found


def _check(op, attrs, ours, arrays, tolerance):
    arrays = arrays[: len(OPS[op].operands)]
    types = [TensorType(NAMES[a.dtype], a.shape) for a in arrays]
    assert NAMES[ours.dtype] == infer(op, types, attrs)[0].dtype, op
    reference = OPS[op].reference(*arrays, **attrs)
    if reference.dtype.kind != "f":
        np.testing.assert_array_equal(ours, reference, op)
        return
    np.testing.assert_allclose(ours, reference, tolerance, tolerance, err_msg=op)


def _ops_in_groups(ops, size=14):
    return [ops[i : i + size] for i in range(0, len(ops), size)]


@pytest.mark.parametrize("scalar", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ops", _ops_in_groups(FLOATS), ids=lambda ops: ops[0])
def test_float_ops(drive, width, ops, dtype, scalar):
    rng = np.random.default_rng(0)
    if any(op in INSIDE for op in ops):
        low, high = 0.01, 0.99
    else:
        low, high = -4, 4
    a, b = rng.uniform(low, high, (2, 157)).astype(dtype)
    b = np.where(np.abs(b) < 0.1, dtype(0.7), b)
    odd = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 2.5, -2.5, 3], dtype)
    if not any(op in INSIDE for op in ops):
        a[: len(odd)], b[: len(odd)] = odd, odd[::-1]
        a[20:30], b[30:40] = odd, odd
    cases = [(op, ATTRS.get(op, {})) for op in ops]
    found = _run(drive, cases, [a, b], a.shape, width, scalar)
    tolerance = 3e-6 if dtype == np.float32 else 1e-12
    for (op, attrs), ours in zip(cases, found, strict=True):
        _check(op, attrs, ours, [a, b], tolerance)


@pytest.mark.parametrize("op", sorted(INSIDE))
@pytest.mark.slow
def test_ops_on_their_ranges(drive, op):
    x = np.random.default_rng(1).uniform(*INSIDE[op], 400)
    (ours,) = _run(drive, [(op, ATTRS.get(op, {}))], [x], x.shape, 8)
    with np.errstate(all="ignore"):
        _check(op, ATTRS.get(op, {}), ours, [x], 1e-9)


@pytest.mark.parametrize("dtype", [np.int32, pytest.param(np.int64, marks=pytest.mark.slow)])
def test_whole_ops(drive, dtype):
    rng = np.random.default_rng(2)
    a, b = rng.integers(-9, 9, (2, 300)).astype(dtype)
    a[:3] = np.iinfo(dtype).min, np.iinfo(dtype).max, np.iinfo(dtype).min
    b[:3] = -1, 2, 1
    powers = np.abs(b)
    cases = [(op, ATTRS.get(op, {})) for op in WHOLES if op != "pow"]
    found = _run(drive, cases, [a, b], a.shape, 4)
    for (op, attrs), ours in zip(cases, found, strict=True):
        _check(op, attrs, ours, [a, b], 0)
    (ours,) = _run(drive, [("pow", {})], [a, powers], a.shape, 4)
    _check("pow", {}, ours, [a, powers], 0)


def test_truth_ops(drive, width):
    a, b = np.random.default_rng(3).integers(0, 2, (2, 77)).astype(bool)
    cases = [(op, {}) for op in BOOLS]
    found = _run(drive, cases, [a, b], a.shape, width)
    for (op, attrs), ours in zip(cases, found, strict=True):
        _check(op, attrs, ours, [a, b], 0)


def test_where_and_casts(drive, width):
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((2, 61)).astype(np.float32)
    writer = Writer()
    c = writer.argument("bool")
    x, y = writer.argument("f32"), writer.argument("f32")
    chosen = writer.apply("where", [c, x, y])
    wide = writer.apply("cast", [chosen], {"dtype": "f64"})
    squared = writer.apply("square", [wide])
    narrow = writer.apply("cast", [squared], {"dtype": "f32"})
    as_bool = writer.apply("cast", [chosen], {"dtype": "bool"})
    number = writer.apply("cast", [as_bool], {"dtype": "f32"})
    expression = writer.finish(chosen, squared, narrow, as_bool, number)
    condition = a > b
    a[condition & (a > 0.5)] = 0
    where = places(a.shape, [(1,)] * 3)
    found = [np.zeros(a.shape, t) for t in (np.float32, np.float64, np.float32, bool, np.float32)]
    kernel = PointwiseKernel(expression, 0, width)
    drive(kernel, tasks(where), words(expression, where, [condition, a, b], found, ()))
    expected = np.where(condition, a, b)
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], expected.astype(np.float64) ** 2)
    np.testing.assert_array_equal(found[2], (expected.astype(np.float64) ** 2).astype(np.float32))
    np.testing.assert_array_equal(found[3], expected != 0)
    np.testing.assert_array_equal(found[4], expected != 0)


def test_one_condition_for_all(drive, width):
    a, b = np.random.default_rng(8).standard_normal((2, 21))
    for truth in (True, False):
        where = places(a.shape, [(0,), (1,), (1,)])
        writer = Writer()
        names = [
            writer.argument(t, how)
            for t, how in zip(["bool", "f64", "f64"], where.access, strict=True)
        ]
        expression = writer.finish(writer.apply("where", names))
        found = np.zeros_like(a)
        row = words(expression, where, [np.array([truth]), a, b], [found], ())
        drive(PointwiseKernel(expression, 0, width), tasks(where), row)
        np.testing.assert_array_equal(found, a if truth else b)


def test_bytes_to_floats(drive):
    x = np.arange(256, dtype=np.uint8)
    found = np.zeros(256, np.float32)
    writer = Writer()
    pixel = writer.apply("cast", [writer.argument("u8")], {"dtype": "f32"})
    scaled = writer.apply("mul", [pixel, writer.constant("f32", 1 / 255)])
    expression, where = writer.finish(scaled), places(x.shape, [(1,)])
    kernel = PointwiseKernel(expression, 0, 4)
    drive(kernel, tasks(where), words(expression, where, [x], [found], writer.values))
    np.testing.assert_allclose(found, x / 255, 1e-6)


SHAPES = [
    ((5, 7), (5, 7), (7,), ()),
    ((3, 1, 40), (3, 6, 40), (1, 6, 1), (40,)),
    ((2, 3, 4, 5), (2, 1, 4, 1), (3, 1, 5), (1, 3, 1, 1)),
    ((1, 1), (1,), (1, 1), ()),
    ((9_000,), (9_000,), (1,), (9_000,)),
    ((4, 3_001), (4, 1), (3_001,), (4, 3_001)),
    ((6, 2, 1, 3, 8), (2, 5, 1, 1), (6, 1, 1, 3, 1), (5, 3, 1)),
]


@pytest.mark.parametrize(
    "shapes", [SHAPES[2], *(pytest.param(s, marks=pytest.mark.slow) for s in SHAPES)], ids=str
)
def test_broadcasting(drive, width, shapes):
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    result = np.broadcast_shapes(*shapes)
    where = places(result, [broadcast_strides(shape, result) for shape in shapes])
    writer = Writer()
    a, b, c, d = (writer.argument("f32", how) for how in where.access)
    expression = writer.finish(
        writer.apply("add", [writer.apply("mul", [a, b]), writer.apply("sub", [c, d])])
    )
    found = np.zeros(result, np.float32)
    kernel = PointwiseKernel(expression, len(where.outer), width)
    drive(kernel, tasks(where), words(expression, where, arrays, [found], ()))
    a, b, c, d = (x.astype(np.float64) for x in arrays)
    np.testing.assert_allclose(found, a * b + (c - d), 1e-5, 1e-6)


@pytest.mark.parametrize("channels", [17, pytest.param(3, marks=pytest.mark.slow)])
def test_channel_vectors_on_blocks(drive, block, unblock, width, channels):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((3, channels, 5, 4)).astype(np.float32)
    gate = rng.standard_normal((3, channels, 1, 1)).astype(np.float32)
    scale = rng.standard_normal((1, channels, 1, 1)).astype(np.float32)
    number = np.float32([1.5])
    blocks = -(-channels // 16)
    result = (3, blocks, 20, 16)
    arrays = [block(x), block(gate), block(scale), number]
    shapes = [result, (3, blocks, 1, 16), (1, blocks, 1, 16), (1,)]
    where = places(result, [broadcast_strides(s, result) for s in shapes])
    assert where.access == ("full", "lanes", "lanes", "one") and where.run == 320
    writer = Writer()
    a, b, c, d = (writer.argument("f32", how) for how in where.access)
    scaled = writer.apply("mul", [writer.apply("mul", [a, b]), d])
    expression = writer.finish(writer.apply("relu", [writer.apply("add", [scaled, c])]))
    found = np.zeros((3, blocks, 5, 4, 16), np.float32)
    kernel = PointwiseKernel(expression, len(where.outer), width)
    drive(kernel, tasks(where), words(expression, where, arrays, [found], ()))
    expected = np.maximum(x * gate * np.float32(1.5) + scale, 0)
    np.testing.assert_allclose(unblock(found, channels), expected, 1e-5, 1e-6)


def test_lanes_of_float64_and_result_in_place(drive, width):
    rng = np.random.default_rng(7)
    x, v = rng.standard_normal((4, 9, 16)), rng.standard_normal((4, 16))
    expected = np.tanh(x) * v[:, None]
    shapes = [(4, 9, 16), (4, 1, 16)]
    where = places(shapes[0], [broadcast_strides(s, shapes[0]) for s in shapes])
    writer = Writer()
    a, b = (writer.argument("f64", how) for how in where.access)
    expression = writer.finish(writer.apply("mul", [writer.apply("tanh", [a]), b]))
    kernel = PointwiseKernel(expression, len(where.outer), width)
    drive(kernel, tasks(where), words(expression, where, [x, v], [x], ()))
    np.testing.assert_allclose(x, expected, 1e-13)


def test_strided_operands_copy_a_transpose(drive):
    x = np.arange(2 * 3 * 4, dtype=np.int32).reshape(2, 3, 4)
    result = (4, 2, 3)
    where = places(result, [(1, 12, 4)])
    writer = Writer()
    a = writer.argument("i32", where.access[0])
    expression = writer.finish(a)
    found = np.zeros(result, np.int32)
    kernel = PointwiseKernel(expression, len(where.outer), 4)
    drive(kernel, tasks(where), words(expression, where, [x], [found], ()))
    np.testing.assert_array_equal(found, x.transpose(2, 0, 1))


def test_every_element_wise_op_has_a_kernel():
    """But for those that draw random numbers and the one that is folded away."""
    written = (
        set(elements.VECTOR_FLOAT)
        | set(elements.VECTOR_BOOL)
        | {
            "cast",
            "clamp",
            "clamp_backward",
        }
    )
    elementwise = {name for name, op in OPS.items() if op.batching == "elementwise"}
    assert elementwise - written == {"drop_path", "dropout", "size_of"}


def test_one_name_for_one_structure():
    def named(value):
        writer = Writer()
        a = writer.argument("f32")
        e = writer.finish(writer.apply("leaky_relu", [a], {"slope": value}))
        return PointwiseKernel(e, 0, 8)

    assert named(0.1).source() == named(0.2).source() and named(0.1).name == named(0.2).name
    assert named(0.1).name != PointwiseKernel(named(0.1).expression, 1, 8).name
