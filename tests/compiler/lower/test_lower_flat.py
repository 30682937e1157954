"""Ops by strides: reductions, contractions, movement, gathers, sorting, against the reference."""

import numpy as np
import pytest
from graphs import Build, check, compiled
from tilth.compiler.ops import OpError
from tilth.runtime.faults import RuntimeFault
from tilth.runtime.simd import lanes

slow = pytest.mark.slow


def late(cases, first=2):
    """The first cases by default, the others in the slow tier."""
    return [*cases[:first], *(pytest.param(*c, marks=slow) for c in cases[first:])]


# ---------------------------------------------------------------- reductions

REDUCTIONS = [
    ((7, 37), (1,), "sum"),
    ((4, 3, 6, 50), (0, 2), "lse"),
    ((7, 37), (0,), "mean"),
    ((3, 5, 90), (1,), "max"),
    ((4, 3, 6, 5), (1, 3), "min"),
    ((2, 3, 1, 4, 1), (1, 3), "prod"),
    ((9,), (0,), "sum"),
    ((5, 1), (1,), "max"),
    ((2, 200, 3), (0, 1, 2), "lse"),
    ((1, 1), (0, 1), "mean"),
    ((2, 40_000), (1,), "sum"),
    ((70_001,), (0,), "sum"),
    ((33_000, 5), (0,), "lse"),
]


@pytest.mark.parametrize("shape, axes, kind", late(REDUCTIONS))
@pytest.mark.parametrize("dtype", ["f32", pytest.param("f64", marks=slow)])
def test_reductions(shape, axes, kind, dtype):
    b = Build()
    x = b.input(shape, dtype)
    y = b("reduce", x, kind=kind, axes=axes, keepdims=False)
    check(b.output(y), 2e-6 if dtype == "f32" else 1e-13)


@pytest.mark.parametrize("kind", ["sum", pytest.param("max", marks=slow)])
def test_reductions_of_whole_numbers(kind):
    b = Build()
    x = b.input((5, 9), "i32")
    check(b.output(*(b("reduce", x, kind=kind, axes=a, keepdims=True) for a in ((0,), (1,)))))


def test_any_and_all_and_positions():
    b = Build()
    x, flags = b.input((6, 21)), b.input((6, 21), "bool")
    outs = [b("reduce", flags, kind=k, axes=(1,), keepdims=False) for k in ("any", "all")]
    outs += [b(op, x, axis=axis, keepdims=False) for op, axis in (("argmax", 1), ("argmin", 0))]
    check(b.output(*outs))


def test_extremes_keep_nan_and_the_first_of_equals():
    b = Build()
    data = np.zeros((3, 40), np.float32)
    data[0, 7] = data[0, 30] = 5
    data[1, 9] = np.nan
    x = b.input((3, 40), data=data)
    outs = [b("argmax", x, axis=1, keepdims=False),
            b("reduce", x, kind="max", axes=(1,), keepdims=False)]  # fmt: skip
    check(b.output(*outs))


def test_a_reduction_reads_a_turned_operand_where_it_lies():
    b = Build()
    x = b.input((6, 35, 4))
    turned = b("transpose", x, perm=(2, 0, 1))
    check(b.output(b("reduce", turned, kind="sum", axes=(0,), keepdims=False)))


# ---------------------------------------------------------------- contractions

CONTRACTIONS = [
    ("ij,jk->ik", ((7, 19), (19, 37)), "sum_product"),
    ("ij,kj->ik", ((7, 37), (5, 37)), "sum_product"),
    ("ab,bc->ac", ((5, 16), (16, 16)), "lse_plus"),
    ("bij,bjk->bik", ((3, 7, 19), (3, 19, 40)), "sum_product"),
    ("ij,j->i", ((33, 70), (70,)), "sum_product"),
    ("ij,ij->", ((13, 21), (13, 21)), "sum_product"),
    ("ii->i", ((9, 9),), "sum_product"),
    ("ij->ji", ((9, 5),), "sum_product"),
    ("i,j->ij", ((9,), (50,)), "sum_product"),
    ("sab,tb->sta", ((3, 4, 5), (7, 5)), "max_plus"),
    ("ij,jk->ik", ((5, 6), (6, 4)), "min_plus"),
    ("ij,jk->ik", ((5, 6), (6, 40)), "max_product"),
    ("ij,jk,kl->il", ((5, 6), (6, 7), (7, 8)), "sum_product"),
    ("ij,jk,k->i", ((5, 6), (6, 7), (7,)), "lse_plus"),
    ("ij,ik,il->jkl", ((5, 2), (5, 3), (5, 4)), "min_product"),
    ("ik,jk->ij", ((65, 129), (66, 129)), "sum_product"),
]


@pytest.mark.parametrize("spec, shapes, semiring", late(CONTRACTIONS, 3))
@pytest.mark.parametrize("dtype", ["f32", pytest.param("f64", marks=slow)])
def test_contractions(spec, shapes, semiring, dtype):
    b = Build()
    operands = [b.input(shape, dtype) for shape in shapes]
    y = b("contract", *operands, spec=spec, semiring=semiring)
    check(b.output(y), 3e-6 if dtype == "f32" else 1e-13, threads=2)


def test_a_log_sum_exp_of_nothing_but_minus_infinity_is_one():
    b = Build()
    x = b.input((2, 3), data=[[-np.inf] * 3, [0, -np.inf, 1]])
    y = b("contract", x, b.input((3, 20)), spec="ij,jk->ik", semiring="lse_plus")
    check(b.output(y))


@pytest.mark.parametrize(
    "a, b_", late([((4, 6), (6, 5)), ((2, 1, 4, 6), (3, 6, 5)), ((6,), (6, 5)), ((4, 6), (6,))], 1)
)
def test_matmul(a, b_):
    b = Build()
    check(b.output(b("matmul", b.input(a), b.input(b_))))


def test_a_dense_layer_with_weights_of_the_call():
    b = Build()
    x, w, bias = b.input((3, 5, 19)), b.input((21, 19)), b.input((21,))
    check(b.output(b("linear", x, w, bias)), fused=True)


# ---------------------------------------------------------------- movement


def test_views_meet_no_copy_until_an_op_needs_one():
    b = Build()
    x = b.input((4, 6, 10))
    view = b("transpose", x, perm=(1, 0, 2))
    view = b("flip", view, axes=(2,))
    view = b("slice", view, starts=(0, 1, 1), stops=(6, 4, 9), steps=(2, 1, 3))
    module = check(b.output(b("add", view, view)))
    assert len(module.plan.rows) == 1


def test_reshapes_split_a_view_where_strides_allow():
    b = Build()
    x = b.input((6, 10))
    turned = b("transpose", x, perm=(1, 0))
    kept = b("reshape", turned, shape=(2, 5, 6))
    copied = b("reshape", turned, shape=(60,))
    module = check(b.output(b("neg", kept), copied))
    assert len(module.plan.rows) == 3


MOVES = [
    ("concat", 2, {"axis": 1}),
    ("pad", 1, {"before": (1, 2, 0), "after": (0, 3, 1), "value": 0.5, "mode": "constant"}),
    ("pad", 1, {"before": (1, 2, 0), "after": (2, 3, 1), "value": 0.0, "mode": "reflect"}),
    ("pad", 1, {"before": (1, 2, 0), "after": (0, 3, 1), "value": 0.0, "mode": "edge"}),
    ("tile", 1, {"reps": (2, 1, 3)}),
    ("broadcast", 1, {"shape": (2, 3, 5, 7)}),
    ("transpose", 1, {"perm": (2, 0, 1)}),
    ("cumsum", 1, {"axis": 1, "reverse": False}),
    ("cumprod", 1, {"axis": 0, "reverse": True}),
    ("sort", 1, {"axis": 1, "descending": False}),
    ("argsort", 1, {"axis": 2, "descending": True}),
    ("softmax", 1, {"axis": 1, "beta": 1.5}),
    ("log_softmax", 1, {"axis": 2}),
]


@pytest.mark.parametrize("op, count, attrs", MOVES)
def test_moves_and_rows(op, count, attrs):
    b = Build()
    operands = [b.input((3, 5, 7)) for _ in range(count)]
    check(b.output(b(op, *operands, **attrs)), 1e-6)


@slow
@pytest.mark.parametrize("dtype", ["f64", "i32", "i64", "bool"])
def test_moves_of_other_types(dtype):
    b = Build()
    x, y = b.input((3, 5, 7), dtype), b.input((3, 2, 7), dtype)
    turned = b("transpose", x, perm=(2, 1, 0))
    joined = b("concat", x, y, axis=1)
    cut = b("slice", joined, starts=(0, 1, 0), stops=(3, 7, 6), steps=(1, 2, 3))
    check(b.output(turned, joined, cut))


def test_topk_and_ties():
    b = Build()
    x = b.input((3, 8), data=np.round(b.rng.standard_normal((3, 8))))
    top = b("topk", x, k=3, axis=1, largest=True)
    check(b.output(top, type(top)(top.node, 1)))


# ---------------------------------------------------------------- by index


def test_gathers_and_scatters():
    b = Build()
    i, j = b.input((4, 3), "i32"), b.input((3,), "i64")
    outs = [
        b("take", b.input((2, 9, 11)), i, axis=1),
        b("gather", b.input((8, 9, 4)), i, j, axes=(0, 1)),
        b("gather", b.input((4, 8)), i, axes=(1,)),
        b("segment_sum", b.input((4, 3)), b.input((4,), "i32"), segments=8),
        b("scatter_add", b.input((7, 2)), b.input((5,), "i32"), b.input((5, 2))),
    ]
    check(b.output(*outs))


def test_an_index_outside_is_told():
    b = Build()
    x, i = b.input((3, 4)), b.input((2,), "i32", [1, 3])
    module = compiled(b.output(b("take", x, i, axis=0)).graph, {}, fused=False)
    with pytest.raises(RuntimeFault, match=r"an index of `take` lies outside 0\.\.3"):
        module.run(b.inputs)


# ---------------------------------------------------------------- element-wise


def test_mixed_types_broadcast_and_meet():
    b = Build()
    x, y = b.input((4, 1, 20)), b.input((3, 1))
    i = b.input((4, 3, 20), "i32")
    number = b("cast", i, dtype="f32")
    less = b("lt", b("mul", x, y), number)
    both = b("and", less, b.input((20,), "bool"))
    picked = b("where", both, b("add", x, y), b("exp", b("neg", number)))
    check(b.output(both, picked, b("cast", picked, dtype="f64")), fused=True)


def test_a_group_ends_in_a_fold_in_one_row():
    b = Build()
    x, y = b.input((6, 50)), b.input((50,))
    total = b("reduce", b("square", b("sub", x, y)), kind="sum", axes=(1,), keepdims=False)
    module = check(b.output(total), fused=True)
    assert len(module.plan.rows) == 1


WIDTHS = [w for w in (4, 8, 16) if w < lanes()]


@pytest.mark.parametrize("width", WIDTHS)
def test_other_vector_widths(width):
    b = Build()
    x, y = b.input((7, 19)), b.input((19, 37))
    product = b("contract", x, y, spec="ij,jk->ik", semiring="sum_product")
    check(b.output(product, b("reduce", product, kind="lse", axes=(1,), keepdims=False)),
          width=width)  # fmt: skip


# ---------------------------------------------------------------- linear algebra


@pytest.mark.parametrize("dtype", ["f64", pytest.param("f32", marks=slow)])
def test_linear_algebra(dtype):
    b = Build()
    data = b.rng.standard_normal((3, 5, 5))
    a = b.input((3, 5, 5), dtype, data + 4 * np.eye(5) * np.array([1, -1, 1])[:, None, None])
    spd = b.input((3, 5, 5), dtype, data @ data.swapaxes(1, 2) + np.eye(5))
    right, vectors = b.input((5, 2), dtype), b.input((3, 5), dtype)
    lower = b("cholesky", spd)
    outs = [lower, b("inverse", a), b("det", a), b("logdet", spd), b("logdet", a)]
    outs += [b("solve", a, b.input((3, 5, 2), dtype)), b("solve", a, vectors)]
    outs += [b("triangular_solve", lower, b.input((3, 5, 2), dtype), lower=True)]
    outs += [b("triangular_solve", a, vectors, lower=False)]
    outs += [b("solve", b.input((5, 5), dtype), right)]
    check(b.output(*outs), 1e-10 if dtype == "f64" else 1e-4, threads=2)


def test_a_matrix_without_an_answer_is_told():
    b = Build()
    module = compiled(b.output(b("cholesky", b.input((2, 2), "f64", [[1, 2], [2, 1]]))).graph, {})
    with pytest.raises(RuntimeFault, match="not positive definite"):
        module.run(b.inputs)


def test_numbers_of_a_key_become_others():
    b = Build()
    key = b.input((4,), "u64", [1, (1 << 53) + 1, (1 << 63) + 1025, (1 << 64) - 1])
    outs = [b("cast", key, dtype=dtype) for dtype in ("f32", "f64")]
    batch = b("cast", b("slice", key, starts=(0,), stops=(1,), steps=(1,)), dtype="f32")
    check(b.output(*outs, b("neg", batch)), 1e-12)


def test_numbers_without_a_kernel_are_told():
    b = Build()
    key = b.input((2,), "u64", [1, 2])
    with pytest.raises(OpError, match="no CPU kernel for `maximum` of u64"):
        compiled(b.output(b("maximum", key, key)).graph, {})
    for source, dtype, told in (("f32", "u64", "`cast` of u64"), ("f32", "i8", "type i8")):
        b = Build()
        with pytest.raises(OpError, match=f"no CPU kernel for .*{told}"):
            compiled(b.output(b("cast", b.input((2,), source), dtype=dtype)).graph, {})


def test_keys_are_added_bit_by_bit():
    b = Build()
    key = b.input((2,), "u64", [2**64 - 1, 2**63])
    step = b.constant([2, 2**63], "u64")
    out = b.output(b("add", key, step), b("eq", key, step), b("mul", key, step)).graph
    added, same, times = compiled(out, {}).run(b.inputs).values()
    assert added.dtype == np.uint64 and added.tolist() == [1, 0]
    assert same.tolist() == [False, True] and times.tolist() == [2**64 - 2, 0]
