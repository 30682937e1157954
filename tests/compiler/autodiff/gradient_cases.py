"""Attributes and operands at which every op's gradient is checked: odd sizes, many settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from drawn_operands import (
    KEY,
    UNLIKE,
    Case,
    Draw,
    between,
    case,
    definite,
    fixed,
    matrix,
    positive,
    real,
    shares,
    signs,
    truth,
    unit,
    whole,
)
from tilth.compiler.ops import OPS

__all__ = ["CASES", "Case"]

# ---------------------------------------------------------------- elements

_DOMAINS = {
    **dict.fromkeys(("log", "sqrt", "rsqrt", "reciprocal", "lgamma", "digamma"), positive),
    **dict.fromkeys(("asin", "acos"), lambda *s: between(-0.9, 0.9, *s)),
    "log1p": lambda *s: between(-0.8, 2.0, *s),
    "logit": unit,
    "tan": lambda *s: between(-1.2, 1.2, *s),
}
_PLAIN = (
    *("neg", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "abs", "square"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "logit", "lgamma", "digamma"),
    *("relu", "relu6", "selu", "hardsigmoid", "hardswish", "swish", "mish", "softsign", "tanh"),
    "erf",
)
CASES: list[Case] = [case(op, _DOMAINS.get(op, real)(3, 5)) for op in _PLAIN]
CASES += [
    case("relu6", between(-2, 9, 15)),
    case("hardswish", between(-5, 5, 17)),
    case("hardsigmoid", between(-5, 5, 17)),
    case("leaky_relu", real(3, 5), slope=0.2),
    case("elu", real(3, 5), alpha=1.5),
    case("gelu", real(3, 5), approximate="none"),
    case("gelu", real(3, 5), approximate="tanh"),
    case("sigmoid", real(3, 5), slope=1.0),
    case("sigmoid", real(7), slope=-2.5),
    case("softplus", real(3, 5), beta=1.0),
    case("softplus", real(7), beta=3.0),
    case("polygamma", positive(5), n=1),
    case("polygamma", positive(5), n=2),
    case("cast", real(5), dtype="f64"),
    case("clamp", real(3, 5), min=-0.5, max=0.9),
    case("clamp", real(7), min=None, max=0.3),
    case("clamp", real(7), min=0.1, max=None),
    case("where", truth(3, 1), real(3, 5), real(5)),
    case("pow", positive(3, 5), real(5)),
    case("pow", positive(4), real(3, 4)),
    case("mod", real(3, 5), positive(5)),
    case("atan2", real(3, 5), real(3, 1)),
    case("prelu", real(2, 3, 5), real(3)),
    case("prelu", real(4, 3), real(3)),
    case("stop_gradient", real(3)),
    replace(case("after", real(3), real(2)), held=(1,)),
]
for _op in ("add", "sub", "mul", "maximum", "minimum"):
    CASES += [case(_op, real(2, 1, 3), real(4, 1)), case(_op, real(), real(3))]
CASES += [case("div", real(2, 3), positive(3)), case("div", real(), positive(2, 3))]

# ---------------------------------------------------------------- reductions and axes

for _kind in ("sum", "mean", "max", "min", "lse", "prod"):
    for _axes, _keep in (((1,), False), ((0, 2), True), ((0, 1, 2), False), ((), False)):
        CASES.append(case("reduce", real(3, 4, 2), kind=_kind, axes=_axes, keepdims=_keep))
_zeros = fixed(np.array([[1.5, 0.0, 2.0], [0.0, 0.0, 3.0], [1.0, 2.0, -1.5]]))
CASES += [
    case("reduce", _zeros, kind="prod", axes=(1,), keepdims=False),
    case("reduce", real(3, 1), kind="prod", axes=(1,), keepdims=False),
    case("cumprod", _zeros, axis=1, reverse=False),
    case("cumprod", _zeros, axis=0, reverse=True),
    case("cumprod", real(2, 1), axis=1, reverse=False),
]
for _reverse in (False, True):
    CASES += [
        case("cumsum", real(3, 4), axis=1, reverse=_reverse),
        case("cumsum", real(3, 4), axis=0, reverse=_reverse),
        case("cumprod", real(3, 4), axis=1, reverse=_reverse),
        case("cumprod", real(3, 4), axis=0, reverse=_reverse),
    ]
CASES += [
    case("var", real(3, 4, 2), axes=(0, 2), keepdims=False, unbiased=False),
    case("var", real(3, 4), axes=(1,), keepdims=True, unbiased=True),
    case("softmax", real(3, 4, 2), axis=1, beta=1.0),
    case("softmax", real(5), axis=0, beta=-2.0),
    case("log_softmax", real(3, 4), axis=0),
    case("maxout", real(2, 6, 3), pieces=3),
    case("sort", real(3, 5), axis=1, descending=False),
    case("sort", real(3, 5, 2), axis=0, descending=True),
    case("topk", real(3, 5), k=2, axis=1, largest=True),
    case("topk", real(5, 3), k=3, axis=0, largest=False),
]

# ---------------------------------------------------------------- movement

CASES += [
    case("reshape", real(3, 4), shape=(2, 6)),
    case("transpose", real(2, 3, 4), perm=(2, 0, 1)),
    case("flip", real(2, 3, 2), axes=(0, 2)),
    case("channel_shuffle", real(2, 6, 3), groups=2, axis=1),
    case("slice", real(7, 4), starts=(1, 0), stops=(6, 4), steps=(2, 1)),
    case("slice", real(8, 5), starts=(0, 2), stops=(8, 4), steps=(3, 1)),
    case("concat", real(2, 3), real(2, 1), real(2, 2), axis=1),
    case("concat", real(2, 3), axis=0),
    case("split", real(2, 6), axis=1, sizes=(1, 3, 2)),
    case("broadcast", real(3, 1), shape=(2, 3, 4)),
    case("tile", real(2, 3), reps=(3, 2)),
    case("pad", real(3, 4), before=(1, 0), after=(0, 2), value=1.5, mode="constant"),
    case("pad", real(3, 5), before=(2, 1), after=(1, 4), value=0, mode="reflect"),
    case("pad", real(3, 2), before=(2, 0), after=(1, 3), value=0, mode="edge"),
    case("diag", real(2, 3)),
    case("diagonal", real(2, 3, 3)),
    case("tril", real(3, 4), k=1),
    case("triu", real(2, 4, 3), k=-1),
    case("gather", real(5, 3), whole(5, 4), axes=(0,)),
    case("gather", real(4, 3, 5), whole(4, 2, 1), whole(5, 3), axes=(0, 2)),
    case("gather", real(4, 3, 5), whole(5, 6), whole(3, 6), axes=(2, 1)),
    case("take", real(5, 3), whole(5, 2, 4), axis=0),
    case("take", real(2, 4, 3), whole(4, 6), axis=1),
    case("take", real(2, 4), whole(4), axis=1),
    case("scatter_add", real(4, 3), whole(4, 5), real(5, 3)),
    case("scatter_add", real(4), whole(4, 2, 3), real(2, 3)),
    case("segment_sum", real(6, 2), whole(3, 6), segments=3),
    case("densify", fixed([0, 2, 2, 5]), fixed([0, 3, 1, 1, 2]), real(5), columns=4),
]

# ---------------------------------------------------------------- products

for _spec, _shapes in (
    ("ij,jk->ik", ((2, 3), (3, 4))),
    ("bij,bjk,k->bi", ((2, 3, 2), (2, 2, 3), (3,))),
    ("ij->i", ((3, 4),)),
    ("ij,k->k", ((2, 3), (4,))),
    ("ii->i", ((3, 3),)),
    ("ii,ij->j", ((3, 3), (3, 2))),
    ("iij->j", ((2, 2, 3),)),
):
    CASES.append(case("contract", *(real(*s) for s in _shapes), semiring="sum_product", spec=_spec))
for _semiring in ("max_plus", "min_plus", "lse_plus", "max_product", "min_product"):
    CASES += [
        case("contract", real(2, 3), real(3, 4), semiring=_semiring, spec="ij,jk->ik"),
        case("contract", real(3), real(4, 3), real(2), semiring=_semiring, spec="i,ki,m->k"),
        case("contract", real(3, 3), semiring=_semiring, spec="ii->"),
    ]
CASES += [
    case("matmul", real(2, 3), real(3, 4)),
    case("matmul", real(3), real(3)),
    case("matmul", real(3), real(2, 3, 4)),
    case("matmul", real(2, 4, 3), real(3)),
    case("matmul", real(2, 1, 2, 3), real(4, 3, 2)),
    case("linear", real(2, 3), real(4, 3), real(4)),
    case("linear", real(2, 2, 3), real(4, 3)),
    case("linear", real(3), real(4, 3), real(4)),
]


def _window(n: int, stride=1, pad=0, dilation=1, groups=1, **more: Any) -> dict[str, Any]:
    def each(v: Any) -> tuple:
        return tuple(v) if isinstance(v, (tuple, list)) else (v,) * n

    pads = tuple(p if isinstance(p, tuple) else (p, p) for p in each(pad))
    return {
        "stride": each(stride), "pad": pads, "dilation": each(dilation), "groups": groups, **more,
    }  # fmt: skip


CASES += [
    case("conv", real(2, 3, 5, 6), real(4, 3, 3, 2), real(4), **_window(2, pad=1)),
    case("conv", real(2, 4, 7, 5), real(6, 2, 3, 3), **_window(2, 2, 1, groups=2)),
    case("conv", real(1, 3, 8, 7), real(3, 1, 2, 3), **_window(2, (3, 2), (1, (0, 2)), (2, 1), 3)),
    case("conv", real(2, 3, 9), real(2, 3, 4), real(2), **_window(1, 3, 2)),
    case("conv", real(1, 2, 4, 3, 5), real(2, 2, 2, 2, 2), **_window(3, (1, 1, 2))),
    case(
        "conv_transpose", real(2, 3, 4, 3), real(3, 2, 3, 2), real(2),
        **_window(2, 2, 1, out_pad=(1, 0)),
    ),
    case(
        "conv_transpose", real(1, 4, 3, 3), real(4, 1, 2, 3),
        **_window(2, (1, 3), (0, (1, 2)), (3, 1), 2, out_pad=(2, 1)),
    ),
    case("conv_transpose", real(2, 2, 5), real(2, 3, 3), **_window(1, 2, out_pad=(0,))),
    case(
        "conv_backward_weight", real(2, 4, 7, 5), real(2, 6, 4, 3),
        **_window(2, 2, 1, groups=2, kernel=(3, 3)),
    ),
    case(
        "conv_backward_weight", real(1, 2, 8), real(1, 3, 3),
        **_window(1, 2, (1,), 2, kernel=(3,)),
    ),
]  # fmt: skip

# ---------------------------------------------------------------- pooling and resampling

for _op in ("maxpool", "maxpool_with_indices"):
    CASES += [
        case(
            _op, real(2, 2, 6, 5), kernel=(3, 2), stride=(2, 2), pad=((1, 1), (0, 1)),
            dilation=(1, 1), ceil=False,
        ),
        case(
            _op, real(1, 2, 7), kernel=(3,), stride=(2,), pad=((0, 0),), dilation=(2,), ceil=True
        ),
    ]  # fmt: skip
CASES += [
    replace(case("clamp_backward", real(3, 5), real(3, 5), low=0.0, high=1.5), held=(0,)),
    replace(
        case(
            "maxpool_backward", real(2, 2, 6, 5), fixed(np.zeros((2, 2, 3, 3))),
            real(2, 2, 3, 3), kernel=(3, 2), stride=(2, 2), pad=((1, 1), (0, 1)),
            dilation=(1, 1), ceil=False,
        ),
        held=(0, 1),
    ),
]  # fmt: skip
for _ceil in (False, True):
    for _count_pad in (False, True):
        _how = {"kernel": (3, 2), "stride": (2, 3), "pad": ((1, 1), (0, 1)), "ceil": _ceil,
                "count_pad": _count_pad}  # fmt: skip
        _sizes = (4, 2) if _ceil else (3, 2)
        CASES += [
            case("avgpool", real(2, 2, 6, 5), **_how),
            case("avgpool_backward", real(1, 2, *_sizes), **_how, size=(6, 5)),
        ]
CASES += [
    case("adaptive_avgpool", real(2, 2, 5, 7), size=(3, 2)),
    case("adaptive_avgpool", real(1, 2, 3), size=(5,)),
    case("adaptive_maxpool", real(2, 2, 5, 7), size=(3, 2)),
    case("adaptive_avgpool_backward", real(2, 2, 3, 2), count=(3, 2), size=(5, 7)),
    case("maxunpool", real(1, 2, 3), fixed([[[0, 3, 4], [1, 2, 5]]]), size=(6,)),
    case("add_at_places", real(2, 1, 2, 2), whole(6, 2, 1, 2, 2), size=(2, 3)),
    case("take_at_places", real(2, 1, 2, 3), whole(6, 2, 1, 4)),
]
_RESIZES = (
    {"mode": "nearest", "align_corners": False, "antialias": False},
    {"mode": "nearest_exact", "align_corners": False, "antialias": False},
    {"mode": "bilinear", "align_corners": True, "antialias": False},
    {"mode": "bilinear", "align_corners": False, "antialias": True},
    {"mode": "bicubic", "align_corners": False, "antialias": False},
)
for _how in _RESIZES:
    CASES += [
        case("resize", real(1, 2, 5, 4), size=(3, 7), scale=None, **_how),
        case("resize_backward", real(1, 2, 3, 7), size=(3, 7), scale=None, **_how,
             input_size=(5, 4)),
    ]  # fmt: skip
CASES += [
    case("resize", real(1, 1, 4), size=(7,), scale=(1.8,), mode="bilinear", align_corners=False,
         antialias=False),
    case("pixel_shuffle", real(1, 8, 2, 3), factor=2),
    case("pixel_unshuffle", real(1, 2, 4, 6), factor=2),
    case("affine_grid", real(2, 2, 3), size=(3, 4), align_corners=False),
    case("affine_grid", real(1, 2, 3), size=(1, 3), align_corners=True),
]  # fmt: skip
for _mode in ("bilinear", "nearest"):
    for _padding in ("zeros", "border", "reflection"):
        for _align in (False, True):
            CASES.append(
                case("grid_sample", real(2, 2, 3, 4), between(-1.6, 1.6, 2, 3, 2, 2),
                     mode=_mode, padding=_padding, align_corners=_align)
            )  # fmt: skip

# ---------------------------------------------------------------- normalisation

for _shape in ((3, 2), (2, 3, 2, 3)):
    c = _shape[1]
    CASES += [
        case("batch_norm", real(*_shape), real(c), positive(c), real(c), real(c), eps=1e-2,
             momentum=0.1),
        case("batch_norm", real(*_shape), real(c), positive(c), eps=1e-2, momentum=0.1),
        case("batch_norm_train", real(*_shape), real(c), positive(c), real(c), real(c), eps=1e-2,
             momentum=0.3),
        case("batch_norm_train", real(*_shape), real(c), positive(c), eps=1e-2, momentum=0.3),
        case("batch_norm_backward", real(*_shape), real(*_shape), real(c), positive(c), real(c)),
        case("batch_norm_backward", real(*_shape), real(*_shape), real(c), positive(c)),
        case("affine", real(*_shape), real(c), real(c)),
    ]  # fmt: skip
CASES += [
    case("layer_norm", real(2, 3, 4), real(3, 4), real(3, 4), axes=2, eps=1e-2),
    case("layer_norm", real(3, 5), axes=1, eps=1e-5),
    case("instance_norm", real(2, 3, 4), real(3), real(3), eps=1e-2),
    case("instance_norm", real(2, 1, 2, 3), eps=1e-2),
    case("group_norm", real(2, 6, 3), real(6), real(6), groups=3, eps=1e-2),
    case("group_norm", real(2, 4), groups=2, eps=1e-2),
    case("switchable_norm", real(2, 3, 2, 2), real(3), real(3), real(3), real(3), eps=1e-2),
    case("lrn", real(2, 5, 3), size=3, alpha=0.5, beta=0.75, k=1.5, average=False),
    case("lrn", real(1, 4, 2, 2), size=4, alpha=0.5, beta=0.5, k=1.0, average=True),
    case("l2norm", real(3, 4), axis=1, eps=1e-12),
    case("l2norm", real(3, 4), axis=-2, eps=1.9),
    case("dropout", real(3, 4), rate=0.5),
    case("drop_path", real(3, 4), rate=0.5, ramp=0),
]

# ---------------------------------------------------------------- losses

for _reduction in ("mean", "sum", "none"):
    _r = {"reduction": _reduction}
    CASES += [
        case("mse", real(2, 3), real(2, 3), **_r),
        case("l1", real(2, 3), between(2.1, 3, 2, 3), **_r),
        case("smooth_l1", real(2, 4), fixed(np.zeros((2, 4))), beta=0.7, **_r),
        case("huber", real(2, 4), fixed(np.zeros((2, 4))), delta=0.7, **_r),
        case("bce", unit(2, 3), unit(2, 3), **_r),
        case("bce_logits", real(2, 3), unit(2, 3), pos_weight=2.5, **_r),
        case("focal", real(2, 3), unit(2, 3), alpha=0.25, gamma=2.0, **_r),
        case("focal", real(2, 3), unit(2, 3), alpha=-1.0, gamma=1.5, **_r),
        case("hinge", real(2, 4), signs(2, 4), margin=1.0, **_r),
        case("square_hinge", real(2, 4), signs(2, 4), margin=1.3, **_r),
        case("logistic", real(2, 4), signs(2, 4), **_r),
        case("cross_entropy", real(4, 3), whole(3, 4), smoothing=0.0, axis=1, ignore=-100, **_r),
        case("cross_entropy", real(2, 3, 4), fixed([[0, 2, 1, 7], [7, 1, 2, 2]]), positive(3),
             smoothing=0.2, axis=1, ignore=7, **_r),
        case("cross_entropy", real(4, 3), shares(4, 3), positive(3), smoothing=0.1, axis=-1,
             ignore=-100, **_r),
        case("nll", real(4, 3), fixed([0, 2, -1, 1]), positive(3), axis=1, ignore=-1, **_r),
        case("nll", real(3, 4), whole(3, 4), axis=0, ignore=-1, **_r),
        case("softmax_focal", real(4, 3), whole(3, 4), gamma=2.0, axis=1, **_r),
        case("multi_margin", real(4, 3), whole(3, 4), p=1, margin=0.83, **_r),
        case("multi_margin", real(4, 3), whole(3, 4), p=2, margin=0.83, **_r),
        case("crammer_singer", real(4, 3), whole(3, 4), margin=0.83, **_r),
        *(
            case("f_divergence", shares(3, 4), UNLIKE, kind=_kind, axis=1, **_r)
            for _kind in ("kl", "rev_kl", "js", "chi2", "tv", "hellinger2")
        ),
    ]  # fmt: skip
CASES += [
    case("smooth_l1", real(2, 4), fixed(np.zeros((2, 4))), beta=0.0, reduction="mean"),
    case("dice", unit(3, 4), unit(3, 4), smooth=0.5),
    case("jaccard", unit(3, 4), unit(3, 4), smooth=0.0),
]

for _transition in ((1, 3, 3), (4, 3, 3)):
    CASES.append(case("chain", real(3), real(*_transition), real(2, 4, 3), mode="sum", path=""))

_LATTICE = OPS["lattice"].reference(np.random.default_rng(0).normal(size=(2, 9, 3)))  # type: ignore[misc]
CASES += [
    case("gauss_filter", real(2, 5, 3), real(2, 5, 2)),
    case("gauss_grid_filter", real(2, 4, 3, 2), sigmas=(1.3, 0.6)),
    *(
        Case("lattice_filter", (real(2, 9, 4), *map(fixed, _LATTICE)), {"reverse": way}, held=(2,))
        for way in (False, True)
    ),
]

# ---------------------------------------------------------------- linear algebra

CASES += [
    case("inverse", matrix(2, 3, 3)),
    case("det", matrix(2, 3, 3)),
    case("logdet", definite(2, 3, 3)),
    case("trace", real(2, 3, 3)),
    case("cholesky", definite(2, 3, 3)),
    case("eigh", definite(2, 3, 3)),
    case("solve", matrix(2, 3, 3), real(2, 3, 2)),
    case("solve", matrix(3, 3), real(3)),
    case("solve", matrix(2, 3, 3), real(1, 3)),
    case("triangular_solve", matrix(2, 3, 3), real(2, 3, 2), lower=True),
    case("triangular_solve", matrix(3, 3), real(3), lower=False),
    *(case("svd", matrix(*shape)) for shape in ((2, 4, 3), (2, 4), (3, 3))),
    *(case("qr", matrix(*shape)) for shape in ((2, 4, 3), (2, 4), (3, 3))),
]

# ---------------------------------------------------------------- hard items and boxes

_LABELS = fixed([0, 1, 0, 2, 1])
for _reduction in ("mean", "sum", "mean_nonzero"):
    CASES += [
        case("triplet", real(5, 3), _LABELS, margin=0.3, mining=_mining, soft=_soft,
             reduction=_reduction)
        for _mining in ("batch_hard", "batch_all")
        for _soft in (False, True)
    ]  # fmt: skip
CASES += [
    case("triplet", real(3, 2), fixed([1, 1, 1]), margin=0.3, mining="batch_hard", soft=False,
         reduction="mean"),
    case("center_loss", real(5, 2), _LABELS, real(3, 2), reduction="mean"),
    case("triplet_margin", real(3, 2), real(3, 2), real(3, 2), margin=1.0, norm=2.0, eps=1e-6,
         swap=False, reduction="mean"),
    case("triplet_margin", real(3, 2), real(3, 2), real(3, 2), margin=2.5, norm=3.0, eps=1e-6,
         swap=True, reduction="none"),
    case("contrastive", real(4, 3), real(4, 3), fixed([1, 0, 0, 1]), margin=2.0, reduction="sum"),
    case("contrastive", real(4, 3), real(4, 3), truth(4), margin=2.5, reduction="mean"),
    case("ohem", real(5, 3), fixed([0, 2, 7, 1, 1]), keep=0.5, axis=1, ignore=7),
    case("ohem", real(2, 3, 4), whole(3, 2, 4), keep=0.3, axis=1, ignore=-100),
    case("hard_negative", real(2, 6, 3), fixed([[1, 0, 0, 0, 0, 0], [0, 2, 0, 0, 1, 0]]),
         ratio=1.5, axis=2),
]  # fmt: skip
_BOXES = fixed(
    np.array([[0, 0, 4, 3.1], [1.2, 1, 5, 4.3], [2.1, 0.4, 3.7, 5.2], [0.3, 2.2, 2.9, 6.0]])
)
_TARGETS = fixed(np.array([[0.1, 0.2, 3.9, 3.3], [1.4, 0.7, 4.8, 4.9], [2.3, 2.6, 6.1, 5.8]]))
CASES += [
    case("repulsion_gt", _BOXES, _TARGETS, fixed([0, 1, 1, 2]), sigma=0.3),
    case("repulsion_gt", _BOXES, fixed(np.array([[0.1, 0.2, 3.9, 3.3]])), whole(1, 4), sigma=0.3),
    case("repulsion_box", _BOXES, fixed([0, 1, 1, 2]), sigma=0.1, eps=1e-6),
]

# ---------------------------------------------------------------- probability

# No derivative by the order, which test_backward.py asks for in vain.
CASES.append(
    replace(case("log_bessel_k", fixed(np.array([0.5, 1.0, -2.3])), positive(3)), held=(0,))
)


def _density(dist: str, *draws: Draw, form: str = "") -> Case:
    return case("log_prob", *draws, dist=dist, form=form)


_OFF = fixed(np.array([0.31, 0.77, 1.4]))
_SOME = fixed(np.array([[0, 2, 1], [5, -1, 3]]))
CASES += [
    _density("normal", real(2, 3), real(3), positive(2, 1)),
    _density("mvnormal", real(4, 3), real(3), definite(3, 3)),
    _density("mvnormal", real(3), real(2, 3), definite(2, 3, 3)),
    _density("laplace", real(2, 3), fixed(np.array(0.013)), positive(2, 3)),
    _density("student_t", real(5), positive(5), real(), positive()),
    _density("cauchy", real(5), real(), positive(5)),
    _density("beta", fixed(np.array([0.2, 0.9, 1.5])), positive(3), positive(3)),
    _density("gamma", fixed(np.array([0.2, 3.0, -1.0])), positive(3), positive(3)),
    # At 1 the power is 0, and its derivative is not.
    _density("beta", fixed(np.array([0.2, 0.9])), fixed(np.ones(2)), fixed(np.ones(2))),
    _density("gamma", fixed(np.array([0.2, 3.0])), fixed(np.ones(2)), positive(2)),
    replace(_density("dirichlet", shares(2, 3), fixed(np.ones(3))), step=1e-6),
    _density("inverse_gamma", positive(3), positive(3), positive(3)),
    _density("inverse_gaussian", positive(3), positive(3), positive(3)),
    replace(
        _density("generalised_inverse_gaussian", positive(3), _OFF, positive(3), positive(3)),
        held=(1,),
    ),
    _density("uniform", unit(3), between(-3, -1, 3), between(2, 4, 3)),
    _density("exponential", positive(3), positive(3)),
    # Off the simplex by more than 1e-5 the density is zero.
    replace(_density("dirichlet", shares(2, 3), positive(3)), step=1e-6),
    _density("bernoulli", whole(2, 2, 3), unit(3)),
    _density("bernoulli", unit(3), unit(2, 3)),
    _density("bernoulli", whole(2, 2, 3), real(3), form="logits"),
    _density("categorical", whole(4, 5), shares(4)),
    _density("categorical", whole(4, 2, 1), shares(3, 4)),
    _density("categorical", fixed([0, 3, 4]), real(3, 4), form="logits"),
    _density("labels", whole(4, 3), fixed(4)),
    _density("poisson", _SOME, positive(3)),
    _density("negative_binomial", _SOME, positive(3), unit(3)),
    _density("geometric", _SOME, unit(3)),
    _density("binomial", _SOME, fixed(4), unit(3)),
    _density("multinomial", fixed([[1, 0, 3], [2, 2, 1]]), fixed([4, 4]), shares(3)),
    _density("dpp", truth(2, 4), definite(4, 4)),
]


CASES += [
    case("log_densities", real(4), real(3), positive(3), dist="normal", form="", lead=1, rest=0),
    case("log_densities", real(4, 2), real(3, 2), positive(3, 2), dist="normal", form="", lead=1,
         rest=1),
    case("log_densities", real(4, 2), real(3, 2), definite(3, 2, 2), dist="mvnormal", form="",
         lead=1, rest=0),
    case("log_densities", whole(3, 2, 4), shares(5, 3), dist="categorical", form="", lead=2,
         rest=0),
]  # fmt: skip


def _entropy(dist: str, *draws: Draw, form: str = "") -> Case:
    return case("entropy", *draws, dist=dist, form=form)


CASES += [
    *(_entropy(dist, real(2, 1), positive(3)) for dist in ("normal", "laplace", "cauchy")),
    *(_entropy(dist, positive(3), positive(3)) for dist in ("beta", "gamma", "inverse_gamma")),
    _entropy("mvnormal", real(2, 3), definite(3, 3)),
    _entropy("student_t", positive(3), real(), positive(2, 1)),
    _entropy("uniform", between(-3, -1, 3), between(2, 4, 3)),
    _entropy("exponential", positive(3)),
    _entropy("dirichlet", positive(2, 3)),
    _entropy("bernoulli", unit(3)),
    _entropy("bernoulli", real(3), form="logits"),
    _entropy("categorical", shares(2, 3)),
    _entropy("categorical", real(2, 3), form="logits"),
    _entropy("labels", fixed(np.array([2.0, 5.0]))),
    _entropy("geometric", unit(3)),
]


def _kl(p: str, *draws: Draw, form: str = "") -> Case:
    return case("kl", *draws, p=p, q=p, p_form=form, q_form=form)


CASES += [
    _kl("normal", real(2, 3), positive(3), real(3), positive(2, 1)),
    _kl("laplace", between(-2, -1, 3), positive(3), between(1, 2, 3), positive(3)),
    *(_kl(p, *(positive(3) for _ in range(4))) for p in ("gamma", "beta")),
    _kl("mvnormal", real(2, 3), definite(3, 3), real(3), definite(2, 3, 3)),
    _kl("dirichlet", positive(2, 3), positive(3)),
    _kl("uniform", between(-1, 0, 3), between(1, 2, 3), between(-3, -2, 3), between(3, 4, 3)),
    _kl("exponential", positive(3), positive(3)),
    _kl("bernoulli", unit(3), unit(2, 3)),
    _kl("bernoulli", real(3), real(3), form="logits"),
    _kl("categorical", shares(2, 3), shares(3)),
    _kl("categorical", real(2, 3), real(3), form="logits"),
    _kl("geometric", unit(3), unit(3)),
    _kl("poisson", positive(3), positive(3)),
    case("pmf", positive(3), dist="poisson", form="", lo=0, hi=5),
    case("pmf", unit(2), dist="geometric", form="", lo=1, hi=4),
    case("pmf", shares(2, 4), dist="categorical", form="", lo=0, hi=3),
]


def _sample(dist: str, *draws: Draw, shape: tuple[int, ...]) -> Case:
    return case("sample", *draws, KEY, dist=dist, form="", path="z", shape=shape)


CASES += [
    *(
        _sample(dist, real(3), positive(2, 1), shape=(2, 3))
        for dist in ("normal", "laplace", "cauchy")
    ),
    _sample("uniform", between(-3, -1, 3), between(2, 4, 3), shape=(2, 3)),
    _sample("exponential", positive(3), shape=(2, 3)),
    _sample("mvnormal", real(3), definite(3, 3), shape=(2,)),
    _sample("mvnormal", real(2, 3), definite(2, 3, 3), shape=(2,)),
]
for _dist, _draws in (
    ("gamma", (positive(3), positive(2, 1))),
    ("inverse_gamma", (positive(3), positive(2, 1))),
    ("student_t", (positive(3), real(2, 1), positive(3))),
):
    CASES.append(replace(_sample(_dist, *_draws, shape=(2, 3)), held=(0,)))
