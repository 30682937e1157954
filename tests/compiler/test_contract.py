"""Contractions over six semirings against nested loops, and the matrix product."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OPS, OpError, contract, infer

RNG = np.random.default_rng(2)


def lse(values: list[float]) -> float:
    top = max(values)
    return top if math.isinf(top) else top + math.log(sum(math.exp(v - top) for v in values))


RULES = {
    "sum_product": (math.prod, math.fsum),
    "max_product": (math.prod, max),
    "min_product": (math.prod, min),
    "max_plus": (math.fsum, max),
    "min_plus": (math.fsum, min),
    "lse_plus": (sum, lse),
}
SPECS = [
    ("ab,bc->ac", [(3, 5), (5, 4)]),
    ("ab,b->a", [(3, 5), (5,)]),
    ("a,b->ba", [(3,), (4,)]),
    ("ab->", [(3, 5)]),
    ("ab->b", [(3, 5)]),
    ("abc->cab", [(2, 3, 4)]),
    ("aab->b", [(3, 3, 2)]),
    ("ab,ab->", [(3, 5), (3, 5)]),
    ("nab,bc,cd->nad", [(2, 3, 2), (2, 4), (4, 3)]),
    ("a,,b->b", [(3,), (), (2,)]),
    ("Za,aZ->Z", [(3, 2), (2, 3)]),
]


def by_loop(semiring: str, spec: str, operands: list[np.ndarray]) -> np.ndarray:
    times, plus = RULES[semiring]
    left, output = spec.split("->")
    inputs = left.split(",")
    sizes = {
        c: n
        for part, x in zip(inputs, operands, strict=True)
        for c, n in zip(part, x.shape, strict=True)
    }
    rest = [c for c in sizes if c not in output]
    result = np.empty([sizes[c] for c in output])
    for place in itertools.product(*(range(sizes[c]) for c in output)):
        terms = []
        for inner in itertools.product(*(range(sizes[c]) for c in rest)):
            at = dict(zip(output, place, strict=True)) | dict(zip(rest, inner, strict=True))
            terms.append(
                times(
                    [
                        float(x[tuple(at[c] for c in part)])
                        for part, x in zip(inputs, operands, strict=True)
                    ]
                )
            )
        result[place] = plus(terms)
    return result


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("semiring", RULES)
@pytest.mark.parametrize(("spec", "shapes"), SPECS)
def test_contract_matches_a_loop(run_op, spec, shapes, semiring, dtype) -> None:
    operands = [np.asarray(RNG.standard_normal(shape)).astype(dtype) for shape in shapes]
    got = run_op("contract", *operands, semiring=semiring, spec=spec)
    expected = by_loop(semiring, spec, operands)
    np.testing.assert_allclose(
        got, expected, rtol=50 * np.finfo(dtype).eps, atol=1e-6 if dtype == np.float32 else 1e-14
    )


@pytest.mark.parametrize("semiring", RULES)
def test_blocks_do_not_change_the_result(run_op, monkeypatch, semiring) -> None:
    a, b = RNG.standard_normal((9, 31)), RNG.standard_normal((31, 7))
    whole = run_op("contract", a, b, semiring=semiring, spec="ab,bc->ca")
    monkeypatch.setattr(contract, "BLOCK", 50)
    np.testing.assert_allclose(
        run_op("contract", a, b, semiring=semiring, spec="ab,bc->ca"), whole, rtol=1e-13
    )


def test_lse_plus_with_impossible_paths(run_op, recwarn) -> None:
    a = np.log(
        np.array([[1.0, 0.0], [0.0, 0.0]]),
        where=np.array([[True, False], [False, False]]),
        out=np.full((2, 2), -np.inf),
    )
    b = np.full((2, 2), -np.inf)
    b[0, 1] = 2.0
    got = run_op("contract", a, b, semiring="lse_plus", spec="ab,bc->ac")
    assert got.tolist() == [[-np.inf, 2.0], [-np.inf, -np.inf]]
    assert not recwarn.list


def test_integers_and_half_precision(run_op) -> None:
    a, b = RNG.integers(0, 9, (3, 4)).astype(np.int32), RNG.integers(0, 9, (4, 2)).astype(np.int32)
    assert (run_op("contract", a, b, semiring="sum_product", spec="ab,bc->ac") == a @ b).all()
    ones = np.full((1, 5000), 1, np.float16)
    # Accumulating in half precision would stop at 2048.
    assert run_op("contract", ones, semiring="sum_product", spec="ab->a")[0] == 5000
    assert run_op("matmul", ones, ones.T)[0, 0] == 5000


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3, 4)),
        ((5, 1, 2, 3), (6, 3, 4)),
        ((5, 2, 3), (3,)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matmul_is_numpys(run_op, a, b, dtype) -> None:
    x, y = np.asarray(RNG.standard_normal(a)).astype(dtype), RNG.standard_normal(b).astype(dtype)
    got = run_op("matmul", x, y)
    np.testing.assert_allclose(got, x.astype(float) @ y.astype(float), rtol=1e-5, atol=1e-6)


def test_macs() -> None:
    n = symbol("N")
    a, b, c = (TensorType("f32", s) for s in ((n, 3), (3, 4), (4, 5)))
    attrs = {"semiring": "sum_product", "spec": "ab,bc,cd->ad"}
    macs = OPS["contract"].macs
    assert (
        macs is not None and macs([a, b, c], infer("contract", [a, b, c], attrs), attrs) == 120 * n
    )
    single = {"semiring": "sum_product", "spec": "ab->a"}
    assert macs([a], infer("contract", [a], single), single) == 3 * n
    macs = OPS["matmul"].macs
    assert macs is not None and macs([a, b], infer("matmul", [a, b], {}), {}) == 12 * n


@pytest.mark.parametrize(
    ("types", "spec", "code"),
    [
        ([("f32", (2, 3)), ("f32", (4, 5))], "ab,bc->ac", "E103"),
        ([("f32", (2, 1)), ("f32", (3, 5))], "ab,bc->ac", "E103"),
        ([("f32", (2, 3)), ("f64", (3, 5))], "ab,bc->ac", "E104"),
        ([("f32", (2, 3))], "abc->a", "E101"),
        ([("f32", (2, 3))], "ab,b->a", "E407"),
        ([("f32", (2, 3))], "ab->ac", "E407"),
        ([("f32", (2, 3))], "ab->aa", "E407"),
        ([("f32", (2, 3))], "ab", "E407"),
        ([("f32", (2, 3))], "a1->a", "E407"),
    ],
)
def test_faults(types, spec, code) -> None:
    kinds = [TensorType(dtype, shape) for dtype, shape in types]
    with pytest.raises(OpError) as caught:
        infer("contract", kinds, {"semiring": "sum_product", "spec": spec})
    assert caught.value.code == code


def test_semiring_faults() -> None:
    x = TensorType("i32", (2,))
    for semiring, code in (("lse_plus", "E104"), ("xor_and", "E404")):
        with pytest.raises(OpError) as caught:
            infer("contract", [x], {"semiring": semiring, "spec": "a->"})
        assert caught.value.code == code
    with pytest.raises(OpError) as caught:
        infer("matmul", [TensorType("f32", (2, 3)), TensorType("f32", (2, 3))], {})
    assert caught.value.code == "E103" and "[2, 3]" in caught.value.message
