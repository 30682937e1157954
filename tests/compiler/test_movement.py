"""Ops that place elements, and the layers over them, against index arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OpError, infer

RNG = np.random.default_rng(3)
N = symbol("N")
DTYPES = [np.float32, np.float64, np.int32]


def numbers(*shape: int, dtype=np.float32) -> np.ndarray:
    return RNG.permutation(int(np.prod(shape))).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reshape_and_transpose(run_op, dtype) -> None:
    x = numbers(2, 3, 5, dtype=dtype)
    assert run_op("reshape", x, shape=(5, 6)).reshape(-1).tolist() == x.reshape(-1).tolist()
    y = run_op("transpose", x, perm=(2, 0, 1))
    for i, j, k in itertools.product(range(2), range(3), range(5)):
        assert y[k, i, j] == x[i, j, k]


def test_slice(run_op) -> None:
    x = numbers(7, 9)
    got = run_op("slice", x, starts=(1, 0), stops=(6, 9), steps=(2, 4))
    assert got.tolist() == [[x[i, j] for j in (0, 4, 8)] for i in (1, 3, 5)]


def test_symbolic_slice() -> None:
    x = TensorType("f32", (N, 4))
    (got,) = infer("slice", [x], {"starts": (1, 0), "stops": (N, 4), "steps": (1, 3)})
    assert got.shape == (N - 1, 2)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat_and_split_are_inverse(run_op, axis) -> None:
    x = numbers(6, 5, 7)
    sizes = (2, x.shape[axis] - 3, 1)
    parts = run_op("split", x, axis=axis, sizes=sizes)
    assert [p.shape[axis] for p in parts] == list(sizes)
    np.testing.assert_array_equal(run_op("concat", *parts, axis=axis), x)
    assert run_op("split", x, axis=axis, sizes=(x.shape[axis],)).shape == x.shape


def test_pad(run_op) -> None:
    x = np.array([1, 2, 3], np.float32)
    for mode, expected in (
        ("constant", [9, 1, 2, 3, 9, 9]),
        ("reflect", [2, 1, 2, 3, 2, 1]),
        ("edge", [1, 1, 2, 3, 3, 3]),
    ):
        got = run_op("pad", x, before=(1,), after=(2,), value=9, mode=mode)
        assert got.tolist() == expected
    lowest = run_op("pad", x, before=(0,), after=(1,), value=-np.inf, mode="constant")
    assert lowest[-1] == -np.inf and lowest.dtype == np.float32


def test_flip_tile_broadcast(run_op) -> None:
    x = numbers(2, 3)
    assert run_op("flip", x, axes=(1,)).tolist() == [row[::-1] for row in x.tolist()]
    assert run_op("tile", x, reps=(2, 1)).tolist() == x.tolist() * 2
    assert run_op("broadcast", x, shape=(4, 2, 3)).tolist() == [x.tolist()] * 4
    assert run_op("broadcast", x[:, :1], shape=(2, 3)).tolist() == [[v] * 3 for v in x[:, 0]]


@pytest.mark.parametrize(("channels", "groups"), [(6, 3), (6, 2), (5, 5), (4, 1)])
def test_channel_shuffle(run_op, channels, groups) -> None:
    x = numbers(2, channels, 3)
    got = run_op("channel_shuffle", x, groups=groups, axis=1)
    width = channels // groups
    for c in range(channels):
        group, place = c % groups, c // groups
        np.testing.assert_array_equal(got[:, c], x[:, group * width + place])


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices(run_op, dtype) -> None:
    v = numbers(2, 3, dtype=dtype)
    m = run_op("diag", v)
    for b, i, j in itertools.product(range(2), range(3), range(3)):
        assert m[b, i, j] == (v[b, i] if i == j else 0)
    np.testing.assert_array_equal(run_op("diagonal", m), v)
    x = numbers(2, 3, 4, dtype=dtype)
    for k in (-1, 0, 2):
        low, high = run_op("tril", x, k=k), run_op("triu", x, k=k)
        for i, j in itertools.product(range(3), range(4)):
            np.testing.assert_array_equal(low[:, i, j], x[:, i, j] * (j <= i + k))
            np.testing.assert_array_equal(high[:, i, j], x[:, i, j] * (j >= i + k))


def test_made_from_nothing(run_op) -> None:
    assert run_op("iota", size=4, dtype="i32").tolist() == [0, 1, 2, 3]
    assert run_op("fill", shape=(2, 1), value=2.5, dtype="f32").tolist() == [[2.5], [2.5]]
    assert run_op("fill", shape=(), value=True, dtype="bool").tolist() is True
    assert run_op("eye", size=2, dtype="f64").tolist() == [[1, 0], [0, 1]]
    one_hot = run_op("one_hot", np.array([[2], [0]], np.int32), size=3, dtype="f32")
    assert one_hot.tolist() == [[[0, 0, 1]], [[1, 0, 0]]]
    with pytest.raises(OpError, match=r"index 3 is not in 0\.\.3") as caught:
        run_op("one_hot", np.array([3], np.int32), size=3, dtype="f32")
    assert caught.value.code == "E504"


X = TensorType("f32", (N, 6, 4))


@pytest.mark.parametrize(
    ("op", "types", "attrs", "code"),
    [
        ("reshape", [X], {"shape": (N, 25)}, "E103"),
        ("reshape", [X], {"shape": (N, 0)}, "E106"),
        ("transpose", [X], {"perm": (0, 1)}, "E107"),
        ("transpose", [X], {"perm": (0, 1, 1)}, "E107"),
        ("slice", [X], {"starts": (0, 0, 0), "stops": (N, 7, 4), "steps": (1, 1, 1)}, "E504"),
        ("slice", [X], {"starts": (0, 2, 0), "stops": (N, 2, 4), "steps": (1, 1, 1)}, "E106"),
        ("slice", [X], {"starts": (0,), "stops": (N,), "steps": (1,)}, "E101"),
        (
            "pad",
            [X],
            {"before": (0, 0, 4), "after": (0,) * 3, "value": 0, "mode": "reflect"},
            "E408",
        ),
        ("pad", [X], {"before": (0, -1, 0), "after": (0,) * 3, "value": 0, "mode": "edge"}, "E408"),
        ("concat", [X, TensorType("f32", (N, 5, 3))], {"axis": 1}, "E109"),
        ("concat", [X, TensorType("f32", (N, 5))], {"axis": 1}, "E109"),
        ("concat", [X, X.with_dtype("f64")], {"axis": 1}, "E104"),
        ("concat", [X], {"axis": 3}, "E107"),
        ("split", [X], {"axis": 1, "sizes": (2, 3)}, "E103"),
        ("broadcast", [X], {"shape": (N, 6, 5)}, "E103"),
        ("broadcast", [X], {"shape": (6, 4)}, "E103"),
        ("tile", [X], {"reps": (1, 2)}, "E101"),
        ("channel_shuffle", [X], {"groups": 4, "axis": 1}, "E108"),
        ("channel_shuffle", [X], {"groups": 0, "axis": 1}, "E408"),
        ("diagonal", [X], {}, "E103"),
        ("fill", [], {"shape": (2,), "value": 0, "dtype": "f8"}, "E404"),
        ("iota", [], {"size": 0, "dtype": "i32"}, "E106"),
        ("one_hot", [X], {"size": 3, "dtype": "f32"}, "E104"),
    ],
)
def test_faults(op, types, attrs, code) -> None:
    with pytest.raises(OpError) as caught:
        infer(op, types, attrs)
    assert caught.value.code == code


def test_reshape_of_undecided_sizes_passes() -> None:
    (got,) = infer("reshape", [TensorType("f32", (N, 6))], {"shape": (symbol("M"), 3)})
    assert got.shape == (symbol("M"), 3)


# ---------------------------------------------------------------- layers


def test_shape_layers(run_layer) -> None:
    x = numbers(2, 3, 4)
    assert run_layer("transpose", x).shape == (2, 4, 3)
    np.testing.assert_array_equal(run_layer("transpose", x, perm=(1, 0, -1)), x.transpose(1, 0, 2))
    assert run_layer("reshape", x, shape=(4, -1)).shape == (4, 6)
    assert run_layer("flatten", x).shape == (2, 12)
    assert run_layer("flatten", x, start=0).shape == (24,)
    assert run_layer("unsqueeze", x, axis=-1).shape == (2, 3, 4, 1)
    assert run_layer("squeeze", x[:, :1], axis=1).shape == (2, 4)
    assert run_layer("flip", x, axis=-1)[0, 0].tolist() == x[0, 0, ::-1].tolist()


def test_symbolic_reshape(bench) -> None:
    value = bench.apply("reshape", [N, 6, 4], shape=(N, -1))
    assert bench.type_of(value).shape == (N, 24)
    value = bench.apply("flatten", [N, 6, 4])
    assert bench.type_of(value).shape == (N, 24)


def test_joining_layers(run_layer) -> None:
    x, y = numbers(2, 3, 4), numbers(2, 5, 4)
    assert run_layer("concat", x, y).shape == (2, 8, 4)
    stacked = run_layer("stack", x, x + 1, axis=-1)
    np.testing.assert_array_equal(stacked, np.stack([x, x + 1], -1))
    parts = run_layer("split", numbers(2, 6), parts=3)
    assert [p.shape for p in parts] == [(2, 2)] * 3
    assert run_layer("shuffle", numbers(1, 6), groups=3).shape == (1, 6)
    with pytest.raises(OpError, match="5 does not divide into 2") as caught:
        run_layer("split", y, parts=2)
    assert caught.value.code == "E108"
    with pytest.raises(OpError) as caught:
        run_layer("stack", x, y)
    assert caught.value.code == "E109"


def test_pad_layer(run_layer) -> None:
    x = numbers(1, 2, 3, 4)
    np.testing.assert_array_equal(
        run_layer("pad", x, before=1), np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    )
    np.testing.assert_array_equal(
        run_layer("pad", x, before=(1, 0), after=(0, 2), value=5),
        np.pad(x, [(0, 0), (0, 0), (1, 0), (0, 2)], constant_values=5),
    )
    np.testing.assert_array_equal(
        run_layer("pad", x, before=2, axis=-1, mode="reflect"),
        np.pad(x, [(0, 0), (0, 0), (0, 0), (2, 2)], mode="reflect"),
    )
    with pytest.raises(OpError):
        run_layer("pad", x, before=(1, 2, 3))


def test_constant_layers(run_layer) -> None:
    assert run_layer("zeros", shape=(2,)).tolist() == [0, 0]
    assert run_layer("ones", shape=(1, 2), dtype="i32").tolist() == [[1, 1]]
    assert run_layer("eye", size=2).dtype == np.float32
    np.testing.assert_array_equal(run_layer("tril", np.ones((3, 3))), np.tri(3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gauss(run_layer, dtype) -> None:
    d = RNG.standard_normal((3, 5, 2)).astype(dtype)
    expected = np.exp(-(d.astype(float) ** 2).sum(-1) / (2 * 1.7**2))
    np.testing.assert_allclose(run_layer("gauss", d, width=1.7), expected, rtol=1e-6)
    with pytest.raises(OpError):
        run_layer("gauss", d, width=0.0)
