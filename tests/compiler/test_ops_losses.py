"""Losses against stored references, formulas and hand-made batches."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ops import OPS, OpError

N, H, W = symbol("N"), symbol("H"), symbol("W")
EXACT = 1e-10

# The stored value added 1e-6 to a count of 6 in float32.
REFERENCE_EPS = {"eps": float(np.float32(6 + 1e-6)) - 6}


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


GOLDENS = [
    ("bce", "x t", "bce_logits", {}, "with_logits"),
    ("bce", "x t", "bce_logits", {"pos_weight": 3.0}, "pos_weight3"),
    ("bce", "x t", "bce_logits", {"reduction": "sum"}, "sum"),
    ("binary_margin_losses", "y t", "hinge", {"reduction": "sum"}, "hinge"),
    ("binary_margin_losses", "y t", "logistic", {"reduction": "sum"}, "log"),
    ("binary_margin_losses", "y t", "mse", {"reduction": "sum"}, "square"),
    ("binary_margin_losses", "y t", "square_hinge", {"reduction": "sum"}, "squared_hinge"),
    ("binary_margin_losses", "y t", "zero_one", {"reduction": "sum"}, "zero_one"),
    ("cross_entropy", "x y", "cross_entropy", {}, "mean"),
    ("cross_entropy", "x y", "cross_entropy", {"reduction": "sum"}, "sum"),
    ("cross_entropy", "x y", "cross_entropy", {"smoothing": 0.1}, "smooth01"),
    ("cross_entropy", "x y w", "cross_entropy", {}, "weighted"),
    ("cross_entropy", "x y w", "cross_entropy", {"smoothing": 0.1}, "weighted_smooth"),
    ("cross_entropy", "x y", "cross_entropy", {"ignore": 1}, "ignore1"),
    ("cross_entropy_2d", "x y", "cross_entropy", {"ignore": 255}, "loss"),
    ("cross_entropy_soft", "x q", "cross_entropy", {}, "loss"),
    ("focal", "x t", "focal", {}, "mean"),
    ("focal", "x t", "focal", {"reduction": "sum"}, "sum"),
    ("focal", "x t", "focal", {"alpha": -1.0, "reduction": "sum"}, "noalpha_g2"),
    (
        "focal",
        "x t",
        "focal",
        {"alpha": -1.0, "gamma": 1.0, "reduction": "sum"},
        "seed_gamma1",
    ),
    ("multiclass_margin", "x y", "multi_margin", {}, "multi_margin_mean"),
    (
        "multiclass_margin",
        "x y",
        "crammer_singer",
        {"reduction": "sum"},
        "crammer_singer_sum",
    ),
    ("regression_losses", "x t", "mse", {}, "mse"),
    ("regression_losses", "x t", "mse", {"reduction": "sum"}, "sum_sq"),
    ("regression_losses", "x t", "l1", {}, "l1"),
    ("regression_losses", "x t", "smooth_l1", {}, "smooth_l1"),
    ("regression_losses", "x t", "smooth_l1", {"beta": 0.1}, "smooth_l1_b01"),
    ("regression_losses", "x t", "huber", {"delta": 2.0}, "huber2"),
    ("repulsion", "P gt assign", "repulsion_gt", {}, "rep_gt"),
    ("repulsion", "P assign", "repulsion_box", REFERENCE_EPS, "rep_box"),
    ("ssd_hard_negative", "x y", "hard_negative", {}, "loss"),
    ("triplet", "x y", "triplet", {"reduction": "sum"}, "batch_hard"),
    ("triplet", "x y", "triplet", {}, "batch_hard_mean"),
    ("triplet", "x y", "triplet", {"soft": True, "reduction": "sum"}, "batch_hard_soft"),
    ("triplet", "x y", "triplet", {"mining": "batch_all", "reduction": "sum"}, "batch_all"),
    ("triplet", "x y", "triplet", {"mining": "batch_all"}, "batch_all_mean"),
    (
        "triplet",
        "x y",
        "triplet",
        {"mining": "batch_all", "reduction": "mean_nonzero"},
        "batch_all_mean_nonzero",
    ),
    ("triplet_margin_torch", "a p n", "triplet_margin", {"margin": 0.5}, "mean"),
    ("triplet_margin_torch", "a p n", "triplet_margin", {"margin": 0.5, "swap": True}, "swap"),
]


@pytest.mark.parametrize(("case", "operands", "layer", "settings", "result"), GOLDENS)
def test_matches_reference(case, operands, layer, settings, result, golden, run_layer, agree):
    data = golden(f"losses/{case}")
    arrays = [data[f"in_{name}"] for name in operands.split()]
    agree(run_layer(layer, *arrays, **settings), data[result], EXACT)


@pytest.mark.parametrize("kind", ["kl", "rev_kl", "js", "chi2", "tv", "hellinger2"])
def test_divergences_match_reference(kind, golden, run_layer, agree):
    data = golden("losses/divergences")
    p, q = softmax(data["in_x"]), softmax(data["in_z"])
    agree(run_layer("f_divergence", p, q, kind=kind), data[kind], EXACT)
    if kind in ("kl", "js"):
        agree(run_layer(f"{kind}_div", p, q), data[kind], EXACT)


def test_distillation_matches_reference(golden, run_layer, agree):
    data = golden("losses/divergences")
    student, teacher = softmax(data["in_x"] / 4), softmax(data["in_z"] / 4)
    agree(run_layer("kl_div", teacher, student) * 16, data["distill_T4"], EXACT)


def test_probability_losses_match_reference(golden, run_layer, agree):
    data = golden("losses/bce")
    agree(run_layer("bce", sigmoid(data["in_x"]), data["in_t"]), data["on_prob"], EXACT)
    data = golden("losses/overlap_losses")
    for name in ("dice", "jaccard"):
        agree(run_layer(name, sigmoid(data["in_x"]), data["in_y"]), data[name], EXACT)


def test_softmax_focal_matches_reference(golden, run_layer, agree):
    data = golden("losses/focal")
    label = data["in_t"].argmax(axis=1)
    agree(run_layer("softmax_focal", data["in_x"], label), data["softmax_focal"], EXACT)


def test_focal_of_every_element_matches_reference(golden, run_layer, agree):
    data = golden("ops/focal_loss")
    y = run_layer("focal", data["logits"], data["target"], reduction="none")
    agree(y, data["loss"], 1e-5)


def test_center_loss_matches_reference(golden, run_layer, agree):
    data = golden("losses/center_loss")
    x, label = data["in_x"], data["in_y"]
    center = run_layer(
        "center_loss", x, label, _params={"centers": data["in_centers"]}, classes=5, reduction="sum"
    )
    agree(center, data["center"], EXACT)
    logits = x @ data["in_W"].T + data["in_b"]
    both = run_layer("cross_entropy", logits, label, reduction="sum") + 0.1 * center
    agree(both, data["total"], EXACT)


def test_mixup_is_cross_entropy_with_soft_labels(golden, run_layer, agree):
    data = golden("losses/mixup")
    lam, perm, labels = data["in_lam"][:, None], data["in_perm"], np.eye(5)[data["in_y"]]
    mixed = lam * data["in_x"] + (1 - lam) * data["in_x"][perm]
    soft = lam * labels + (1 - lam) * labels[perm]
    agree(run_layer("cross_entropy", mixed @ data["in_W"].T, soft), data["loss"], EXACT)


def test_items_that_do_not_count_cost_nothing(run_layer):
    logits = np.random.default_rng(0).standard_normal((4, 3))
    label = np.array([0, -100, 2, -100])
    each = run_layer("cross_entropy", logits, label, reduction="none")
    assert each[1] == each[3] == 0
    mean = run_layer("cross_entropy", logits, label, smoothing=0.2)
    kept = run_layer("cross_entropy", logits[::2], label[::2], smoothing=0.2)
    assert mean == pytest.approx(kept, rel=1e-14)


def test_smoothing_is_a_soft_label(run_layer):
    logits = np.random.default_rng(0).standard_normal((4, 3, 2))
    label = np.random.default_rng(1).integers(0, 3, (4, 2))
    hard = np.moveaxis(np.eye(3)[label], -1, 1)
    np.testing.assert_allclose(
        run_layer("cross_entropy", logits, label, smoothing=0.3),
        run_layer("cross_entropy", logits, hard, smoothing=0.3),
        rtol=1e-13,
    )


def test_nll_takes_log_probabilities(golden, run_layer, agree):
    data = golden("losses/cross_entropy")
    logp = run_layer("log_softmax", data["in_x"])
    agree(run_layer("nll", logp, data["in_y"]), data["mean"], EXACT)
    agree(run_layer("nll", logp, data["in_y"], data["in_w"]), data["weighted"], EXACT)
    vector = run_layer("nll", logp[0], np.asarray(data["in_y"][0]))
    assert vector == -logp[0, data["in_y"][0]]


def test_certain_answers(run_layer):
    p, target = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    assert run_layer("bce", p, target, reduction="none").tolist() == [0, 0, 100, 100]
    x = np.array([-1e4, 1e4, 1e4])
    each = run_layer("bce_logits", x, np.array([0.0, 1.0, 0.0]), reduction="none")
    assert each.tolist() == [0, 0, 1e4]
    one_hot = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert run_layer("kl_div", one_hot, one_hot) == 0
    assert run_layer("js_div", one_hot, one_hot[::-1].copy()) == pytest.approx(np.log(2))


def test_multi_margin_by_hand(run_layer):
    x, label = np.array([[0.2, 0.5, -1.0]]), np.array([0])
    assert run_layer("multi_margin", x, label) == pytest.approx((1.3 + 0.0) / 3)
    assert run_layer("multi_margin", x, label, p=2) == pytest.approx(1.3**2 / 3)
    assert run_layer("crammer_singer", x, label) == pytest.approx(1.3)


def test_contrastive_by_hand(run_layer):
    a, b = np.zeros((3, 2)), np.array([[3.0, 4.0], [0.3, 0.4], [3.0, 4.0]])
    each = run_layer("contrastive", a, b, np.array([1, 0, 0]), margin=1.0, reduction="none")
    np.testing.assert_allclose(each, [12.5, 0.125, 0.0], rtol=1e-14)
    np.testing.assert_array_equal(
        each, run_layer("contrastive", a, b, np.array([True, False, False]), reduction="none")
    )


def test_swap_uses_the_nearer_of_two_negatives(run_layer):
    anchor, positive, negative = (np.array([[v, 0.0]]) for v in (0.0, 1.0, 1.5))
    settings = {"eps": 0.0, "margin": 1.0}
    assert run_layer("triplet_margin", anchor, positive, negative, **settings) == 0.5
    assert run_layer("triplet_margin", anchor, positive, negative, swap=True, **settings) == 1.5


def test_ohem_keeps_the_hardest(run_layer):
    logits = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    label = np.random.default_rng(1).integers(0, 3, (2, 4, 5))
    each = np.sort(run_layer("cross_entropy", logits, label, reduction="none"), axis=None)
    assert run_layer("ohem", logits, label, keep=0.25) == pytest.approx(each[-10:].mean())
    assert run_layer("ohem", logits, label, keep=1.0) == pytest.approx(each.mean())


def test_batches_without_a_triplet_cost_nothing(run_layer):
    x = np.random.default_rng(0).standard_normal((4, 3))
    for label in (np.zeros(4, np.int64), np.arange(4)):
        for mining in ("batch_hard", "batch_all"):
            assert run_layer("triplet", x, label, mining=mining) == 0


def test_a_lone_target_repels_nothing(run_layer):
    boxes, assign = np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([0])
    assert run_layer("repulsion_gt", boxes, boxes, assign) == 0
    assert run_layer("repulsion_box", boxes, assign) == 0


def test_labels_out_of_range():
    attrs = {"axis": 1, "ignore": -100, "reduction": "mean"}
    with pytest.raises(ValueError, match=r"0\.\.3"):
        OPS["nll"].reference(np.zeros((2, 3)), np.array([0, 3]), **attrs)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_f32_stays_f32(reduction, run_layer):
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    label = np.array([0, 1, 2, 0], np.int32)
    weight = np.ones(3, np.float32)
    how = {"reduction": reduction}
    for smoothing in (0.0, 0.1):
        y = run_layer("cross_entropy", x, label, weight, smoothing=smoothing, **how)
        assert y.dtype == np.float32
    for name in ("mse", "huber", "bce_logits", "focal", "logistic", "zero_one"):
        assert run_layer(name, x, x, **how).dtype == np.float32
    assert run_layer("triplet", x, label, **how).dtype == np.float32


def test_shapes_of_unreduced_losses(bench):
    label = bench.input([N, H, W], "i32")
    y = bench.apply("cross_entropy", [N, 21, H, W], label, reduction="none")
    assert bench.type_of(y).shape == (N, H, W)
    y = bench.apply("mse", [N, 4], [N, 4], reduction="none")
    assert bench.type_of(y).shape == (N, 4)
    y = bench.apply("kl_div", [N, 4], [N, 4], reduction="none")
    assert bench.type_of(y).shape == (N,)
    assert bench.type_of(bench.apply("mse", [N, 4], [N, 4])).shape == ()


@pytest.mark.parametrize(
    ("layer", "operands", "settings", "code", "words"),
    [
        ("mse", [([N, 4], "f32"), ([N, 5], "f32")], {}, "E103", "one shape"),
        ("mse", [([N, 4], "f32"), ([N, 4], "i32")], {}, "E104", "i32[N, 4]"),
        ("mse", [([N], "f32"), ([N], "f32")], {"reduction": "max"}, "E408", "mean, sum, none"),
        ("cross_entropy", [([N, 9], "f32"), ([N, 1], "i32")], {}, "E103", "class axis 1"),
        ("cross_entropy", [([N, 9], "f32"), ([N, 8], "f32")], {}, "E103", "one shape"),
        ("cross_entropy", [([N, 9], "f32"), ([N], "bool")], {}, "E104", "whole-number"),
        (
            "cross_entropy",
            [([N, 9], "f32"), ([N], "i32")],
            {"smoothing": 1.5},
            "E408",
            "from 0 to 1",
        ),
        ("cross_entropy", [([N, 9], "f32"), ([N], "i32")], {"axis": 3}, "E107", "axis 3"),
        (
            "cross_entropy",
            [([N, 9], "f32"), ([N], "i32"), ([8], "f32")],
            {},
            "E103",
            "is 8, expected 9",
        ),
        ("nll", [([N, 9], "f32"), ([N], "f32")], {}, "E104", "whole-number"),
        ("multi_margin", [([N, 9, 2], "f32"), ([N, 2], "i32")], {}, "E101", "[N, classes]"),
        ("triplet", [([N, 9, 2], "f32"), ([N], "i32")], {}, "E101", "[N, D]"),
        ("triplet", [([N, 9], "f32"), ([N], "i32")], {"reduction": "none"}, "E408", "mean_nonzero"),
        ("center_loss", [([N, 9], "f32"), ([N], "i32")], {"classes": 0}, "E106", "would be 0"),
        ("ohem", [([N, 9], "f32"), ([N], "i32")], {"keep": 0.0}, "E408", "keep is 0.0"),
        ("hard_negative", [([N, 9], "f32"), ([N], "i32")], {}, "E107", "axis 2"),
        ("repulsion_box", [([N, 5], "f32"), ([N], "i32")], {}, "E103", "is 5, expected 4"),
        (
            "repulsion_box",
            [([N, 4], "f32"), ([N], "i32")],
            {"sigma": 1.0},
            "E408",
            "sigma is 1.0",
        ),
    ],
)
def test_messages(layer, operands, settings, code, words, bench):
    values = [bench.input(shape, dtype) for shape, dtype in operands]
    with pytest.raises(OpError) as caught:
        bench.apply(layer, *values, **settings)
    assert caught.value.code == code
    assert words in caught.value.message
