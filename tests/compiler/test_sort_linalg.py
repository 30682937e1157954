"""Sorting with its ties, and linear algebra by what its results must satisfy."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OpError, infer

RNG = np.random.default_rng(5)
FLOATS = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_sorting_is_stable(run_op, axis, descending, dtype) -> None:
    x = RNG.integers(0, 3, (6, 7)).astype(dtype)
    lines = np.moveaxis(x, axis, -1)
    expected = np.array(
        [
            sorted(range(len(row)), key=lambda i: (-row[i] if descending else row[i], i))
            for row in lines
        ]
    )
    order = run_op("argsort", x, axis=axis, descending=descending)
    np.testing.assert_array_equal(np.moveaxis(order, axis, -1), expected)
    values = run_op("sort", x, axis=axis, descending=descending)
    np.testing.assert_array_equal(
        np.moveaxis(values, axis, -1), np.take_along_axis(lines, expected, -1)
    )


@pytest.mark.parametrize("largest", [False, True])
def test_topk(run_op, run_layer, largest) -> None:
    x = np.array([[3, 1, 3, 2], [0, 0, 0, 0]], np.float32)
    values, index = run_op("topk", x, k=2, axis=1, largest=largest)
    assert index.tolist() == ([[0, 2], [0, 1]] if largest else [[1, 3], [0, 1]])
    assert values.tolist() == ([[3, 3], [0, 0]] if largest else [[1, 2], [0, 0]])
    assert run_layer("topk", x, k=2, largest=largest)[1].tolist() == index.tolist()


def test_topk_faults() -> None:
    x = TensorType("f32", (4, 3))
    for k in (0, 4):
        with pytest.raises(OpError) as caught:
            infer("topk", [x], {"k": k, "axis": 1, "largest": True})
        assert caught.value.code == "E408"


def near(a: np.ndarray, b: np.ndarray, dtype: type) -> None:
    np.testing.assert_allclose(a, b, atol=1e-4 if dtype == np.float32 else 1e-11)


def matrices(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return (RNG.standard_normal(shape) + 3 * np.eye(*shape[-2:])).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 1)])
def test_square_matrices(run_op, batch, dtype) -> None:
    a = matrices((*batch, 5, 5), dtype)
    near(a @ run_op("inverse", a), np.broadcast_to(np.eye(5), a.shape), dtype)
    spd = a @ np.swapaxes(a, -1, -2)
    root = run_op("cholesky", spd)
    near(root @ np.swapaxes(root, -1, -2), spd, dtype)
    assert (np.triu(root, 1) == 0).all()
    eigenvalues, vectors = run_op("eigh", spd)
    near(spd @ vectors, vectors * eigenvalues[..., None, :], dtype)
    near(run_op("logdet", spd), np.log(eigenvalues).sum(-1), dtype)
    np.testing.assert_allclose(run_op("det", spd), eigenvalues.prod(-1), rtol=1e-4)
    near(run_op("trace", spd), eigenvalues.sum(-1), dtype)


def test_logdet_edges(run_op) -> None:
    stack = np.array([np.diag([1.0, -1.0]), np.diag([1.0, 0.0])])
    got = run_op("logdet", stack)
    assert np.isnan(got[0]) and got[1] == -np.inf


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["solve", "triangular_solve"])
@pytest.mark.parametrize(
    ("a", "b"), [((4, 4), (4,)), ((4, 4), (4, 3)), ((2, 4, 4), (2, 4)), ((2, 1, 4, 4), (5, 4, 3))]
)
def test_solving(run_op, a, b, name, dtype) -> None:
    if len(b) < len(a) - 1:
        return
    if len(b) == 3 and len(a) == 4:
        b = (1, *b)
    left, right = matrices(a, dtype), RNG.standard_normal(b).astype(dtype)
    for lower in (True, False) if name == "triangular_solve" else (None,):
        attrs = {} if lower is None else {"lower": lower}
        got = run_op(name, left, right, **attrs)
        used = left if lower is None else (np.tril(left) if lower else np.triu(left))
        vector = len(b) < len(a)
        product = used @ (got[..., None] if vector else got)
        near(product[..., 0] if vector else product, np.broadcast_to(right, got.shape), dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6), (2, 5, 3)])
def test_svd_and_qr(run_op, shape, dtype) -> None:
    a = RNG.standard_normal(shape).astype(dtype)
    u, s, vt = run_op("svd", a)
    near(u * s[..., None, :] @ vt, a, dtype)
    assert (np.diff(s, axis=-1) <= 0).all()
    identity = np.eye(min(shape[-2:]))
    near(
        np.swapaxes(u, -1, -2) @ u, np.broadcast_to(identity, (*shape[:-2], *identity.shape)), dtype
    )
    q, r = run_op("qr", a)
    near(q @ r, a, dtype)
    near(np.tril(r, -1), np.zeros_like(r), dtype)


def test_half_precision_goes_through_single(run_op) -> None:
    a = (2 * np.eye(3)).astype(np.float16)
    assert run_op("inverse", a).tolist() == (np.eye(3) / 2).tolist()


def test_faults(run_op) -> None:
    n = symbol("N")
    assert infer("svd", [TensorType("f32", (n, n))], {})[1].shape == (n,)
    for op, types, code in (
        ("inverse", [TensorType("f32", (3, 4))], "E103"),
        ("inverse", [TensorType("f32", (3,))], "E101"),
        ("inverse", [TensorType("i32", (3, 3))], "E104"),
        ("solve", [TensorType("f32", (3, 3)), TensorType("f32", (4,))], "E103"),
    ):
        with pytest.raises(OpError) as caught:
            infer(op, types, {})
        assert caught.value.code == code
    for op, a in (("inverse", np.zeros((2, 2))), ("cholesky", -np.eye(2))):
        with pytest.raises(OpError) as caught:
            run_op(op, a)
        assert caught.value.code == "E408"
