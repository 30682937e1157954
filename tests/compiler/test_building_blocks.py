"""Every building block by name: how one writes it, its values and its slope, and that it compiles.

The blocks are those that the papers' notes list: convolutions, pools, resampling, activations,
norms, losses; what only training has is in ``training/test_training_blocks.py``. Each is a line of
the language here, beside a few lines of numpy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pytest
from tilth.compiled import lowered
from tilth.program import load

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Block:
    """One thing of a row of the list.

    ``text`` is the model, which defines ``y``; the first letter of float types is left out, so that
    one text serves every precision. ``formula`` gives y from inputs and weights by name; ``drawn``
    holds the inputs that are not normal numbers.
    """

    row: str
    name: str
    text: str
    formula: Callable[[Arrays], np.ndarray]
    drawn: Arrays = field(default_factory=dict)


IMAGE = "input x : F[N, 6, 9, 7]\n"
SCORES = "input x : F[N, 5]\n"
CLASSES = SCORES + "input label : i32[N]\n"
LABELS = {"label": np.array([3, 0, 4])}
SIGNS = {"t": np.array([1.0, -1.0, -1.0])}
ROWS = {"label": np.array([1, 0, 1, 2, 0, 1])}
BOXES = np.array([[0, 0, 4, 3.1], [1.2, 1, 5, 4.3], [2.1, 0.4, 3.7, 5.2], [0.3, 2.2, 2.9, 6.0]])
OWN = np.array([0, 1, 1, 2])


# ---------------------------------------------------------------- numpy, a few lines each


def conv(g, stride=1, pad=0, dilation=1, groups=1):
    """By sliding each tap of the kernel over the picture."""
    x, w = g["x"], g["c.weight"]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    # O = floor((W - F + 2P) / S) + 1, with F what a dilated kernel spans.
    sizes = [
        (m - (dilation * (k - 1) + 1)) // stride + 1
        for m, k in zip(x.shape[2:], w.shape[2:], strict=True)
    ]
    total = np.zeros((len(x), len(w), *sizes))
    for i, j in np.ndindex(*w.shape[2:]):
        ends = [at * dilation + stride * (n - 1) + 1 for at, n in zip((i, j), sizes, strict=True)]
        seen = x[:, :, i * dilation : ends[0] : stride, j * dilation : ends[1] : stride]
        parts = zip(np.split(seen, groups, 1), np.split(w[:, :, i, j], groups), strict=True)
        total += np.concatenate([np.einsum("nchw,oc->nohw", s, v) for s, v in parts], axis=1)
    return total + g["c.bias"][:, None, None]


def transposed(g, stride, pad):
    """Each pixel puts down the kernel, scaled."""
    x, w = g["x"], g["c.weight"]
    (n, _, h, v), (_, outputs, k, _) = x.shape, w.shape
    total = np.zeros((n, outputs, (h - 1) * stride + k, (v - 1) * stride + k))
    for i, j in np.ndindex(h, v):
        at = (slice(i * stride, i * stride + k), slice(j * stride, j * stride + k))
        total[:, :, *at] += np.einsum("nc,cokl->nokl", x[:, :, i, j], w)
    return total[:, :, pad:-pad, pad:-pad] + g["c.bias"][:, None, None]


def pooled(x, fold, rows, columns):
    """A fold over each cell of ``rows`` by ``columns`` pairs (first, end)."""
    return np.stack(
        [np.stack([fold(x[:, :, a:b, c:d], (2, 3)) for c, d in columns], -1) for a, b in rows], -2
    )


def cells(length, count):
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def windows(length, kernel, stride):
    return [(i, i + kernel) for i in range(0, length - kernel + 1, stride)]


def adaptive(x, fold, height, width):
    return pooled(x, fold, cells(x.shape[2], height), cells(x.shape[3], width))


def unpooled(g):
    """Of each 2 by 2 square only the largest stays."""
    x = g["x"]
    kept = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2):
        square = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        a, b = np.unravel_index(square.argmax(), (2, 2))
        kept[n, c, 2 * i + a, 2 * j + b] = square[a, b]
    return kept


def pyramid(g):
    parts = [adaptive(g["x"], np.max, n, n).reshape(len(g["x"]), -1) for n in (4, 2, 1)]
    return np.concatenate(parts, axis=1)


def bilinear(x, factor):
    """Straight lines between pixel centres, first along rows, then along columns."""
    for axis in (2, 3):
        length = x.shape[axis]
        at = (np.arange(length * factor) + 0.5) / factor - 0.5
        x = np.apply_along_axis(lambda v, at=at, n=length: np.interp(at, range(n), v), axis, x)
    return x


def sampled(g):
    """A spatial transformer: the picture at a turned grid, nothing around it."""
    x, theta = g["x"], g["theta"]
    (n, c, h, w), (rows, columns) = x.shape, (5, 4)
    y = np.zeros((n, c, rows, columns))
    for b, i, j in np.ndindex(n, rows, columns):
        u, v = theta[b] @ [(2 * j + 1) / columns - 1, (2 * i + 1) / rows - 1, 1]
        u, v = ((u + 1) * w - 1) / 2, ((v + 1) * h - 1) / 2
        for q, p in product((math.floor(v), math.floor(v) + 1), (math.floor(u), math.floor(u) + 1)):
            if 0 <= q < h and 0 <= p < w:
                y[b, :, i, j] += (1 - abs(v - q)) * (1 - abs(u - p)) * x[b, :, q, p]
    return y


def normalised(x, axes, eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def affine(g, x, name="norm"):
    return x * g[f"{name}.weight"][:, None, None] + g[f"{name}.bias"][:, None, None]


def layer_norm(g):
    return normalised(g["x"], -1) * g["norm.weight"] + g["norm.bias"]


def group_norm(g):
    x = g["x"]
    return affine(g, normalised(x.reshape(len(x), 3, -1), 2).reshape(x.shape))


def batch_norm(g):
    mean, var = (g[f"norm.running_{kind}"][:, None, None] for kind in ("mean", "var"))
    return affine(g, (g["x"] - mean) / np.sqrt(var + 1e-5))


def switchable(g):
    x, kinds = g["x"], ((2, 3), (1, 2, 3), (0, 2, 3))
    shares = [softmax(g[f"norm.{name}_weight"], 0) for name in ("mean", "var")]
    mean = sum(w * x.mean(axes, keepdims=True) for w, axes in zip(shares[0], kinds, strict=True))
    var = sum(w * x.var(axes, keepdims=True) for w, axes in zip(shares[1], kinds, strict=True))
    return affine(g, (x - mean) / np.sqrt(var + 1e-5))


def local_response(g):
    x, total = g["x"], np.zeros(g["x"].shape)
    for c, d in product(range(x.shape[1]), repeat=2):
        total[:, c] += x[:, d] ** 2 if abs(c - d) <= 2 else 0
    return x / (2 + 0.1 * total) ** 0.75


def softmax(x, axis=1):
    return np.exp(x) / np.exp(x).sum(axis, keepdims=True)


def entropies(g, smoothing=0.0):
    x = g["x"]
    hit = np.eye(x.shape[1])[g["label"]]
    target = (1 - smoothing) * hit + smoothing / x.shape[1]
    return -(target * np.log(softmax(x))).sum(1)


def binary(p, t):
    return -(t * np.log(p) + (1 - t) * np.log(1 - p))


def logistic(x):
    return 1 / (1 + np.exp(-x))


def focal(g):
    p, t = logistic(g["x"]), g["t"]
    right = np.where(t == 1, p, 1 - p)
    return (np.where(t == 1, 0.25, 0.75) * -((1 - right) ** 2) * np.log(right)).mean()


def distances(x):
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))


def batch_hard(g):
    d, same = distances(g["x"]), g["label"][:, None] == g["label"]
    found = []
    for i in range(len(d)):
        others = same[i] & (np.arange(len(d)) != i)
        if others.any():
            found.append(max(0, 0.3 + d[i][others].max() - d[i][~same[i]].min()))
    return np.mean(found)


def batch_all(g):
    d, label = distances(g["x"]), g["label"]
    rows = product(range(len(d)), repeat=3)
    gaps = [
        max(0, 0.3 + d[a, p] - d[a, n])
        for a, p, n in rows
        if a != p and label[a] == label[p] != label[n]
    ]
    return np.mean(gaps)


def hardest(g):
    return np.sort(entropies(g))[-2:].mean()


def ssd(g):
    """All positives, and twice as many negatives, of each picture."""
    total = 0.0
    for x, label in zip(g["x"], g["label"], strict=True):
        losses, positive = entropies({"x": x, "label": label}), label > 0
        total += losses[positive].sum() + np.sort(losses[~positive])[-2 * positive.sum() :].sum()
    return total / (g["label"] > 0).sum()


def smooth_l1(g):
    d = np.abs(g["x"] - g["t"])
    return np.where(d < 1, d**2 / 2, d - 0.5).mean()


def kl(p, q):
    return (p * np.log(p / q)).sum(1).mean()


def shares_of(g):
    return softmax(g["a"]), softmax(g["b"])


def js(g):
    p, q = shares_of(g)
    return (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2


def overlap(a, b):
    """What two boxes share, the second one's area, and their intersection over union."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = max(sides[0], 0) * max(sides[1], 0)
    first, second = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return both, second, both / (first + second - both)


def smooth_ln(x, sigma=0.5):
    return -math.log(1 - x) if x <= sigma else (x - sigma) / (1 - sigma) - math.log(1 - sigma)


def rep_gt(g):
    found = []
    for box, own in zip(g["boxes"], OWN, strict=True):
        rivals = [target for k, target in enumerate(g["targets"]) if k != own]
        both, area, _ = max((overlap(box, r) for r in rivals), key=lambda row: row[2])
        found.append(smooth_ln(both / area))
    return np.mean(found)


def rep_box(g):
    boxes = g["boxes"]
    pairs = [(i, j) for i in range(4) for j in range(i) if OWN[i] != OWN[j]]
    ious = [overlap(boxes[i], boxes[j])[2] for i, j in pairs]
    return sum(map(smooth_ln, ious)) / (sum(iou > 0 for iou in ious) + 1e-6)


# ---------------------------------------------------------------- the list

CONVOLUTIONS = [
    ("stride, padding", IMAGE + "y = x >> conv(4, 3, stride=2, pad=2) as c",
     lambda g: conv(g, 2, 2)),
    ("dilation", IMAGE + "y = x >> conv(4, 3, dilation=2, pad=1) as c",
     lambda g: conv(g, 1, 1, 2)),
    ("groups", IMAGE + "y = x >> conv(4, 3, groups=2) as c", lambda g: conv(g, 1, 1, 1, 2)),
    ("depthwise", IMAGE + "y = x >> depthwise(3) as c", lambda g: conv(g, 1, 1, 1, 6)),
    ("pointwise", IMAGE + "y = x >> conv(4, 1) as c", conv),
    ("transposed", IMAGE + "y = x >> convt(4, 3, stride=2, pad=1) as c",
     lambda g: transposed(g, 2, 1)),
]  # fmt: skip
POOLS = [
    ("max", IMAGE + "y = x >> maxpool(3, stride=2)",
     lambda g: pooled(g["x"], np.max, windows(9, 3, 2), windows(7, 3, 2))),
    ("average", IMAGE + "y = x >> avgpool(3, stride=2)",
     lambda g: pooled(g["x"], np.mean, windows(9, 3, 2), windows(7, 3, 2))),
    ("global average", IMAGE + "y = x >> gap", lambda g: g["x"].mean((2, 3))),
    ("max-unpool", IMAGE + "most, places = x >> maxpool_with_indices(2)\n"
     "y = maxunpool(most, places, 2, size=[9, 7])", unpooled),
    ("adaptive average", IMAGE + "y = x >> adaptive_avgpool([4, 3])",
     lambda g: adaptive(g["x"], np.mean, 4, 3)),
    ("adaptive max", IMAGE + "y = x >> adaptive_maxpool([4, 3])",
     lambda g: adaptive(g["x"], np.max, 4, 3)),
    ("spatial pyramid", IMAGE + "y = x >> spp([4, 2, 1])", pyramid),
    ("strip 1xW", IMAGE + "y = x >> strip_pool(w)", lambda g: g["x"].mean(3, keepdims=True)),
    ("strip Hx1", IMAGE + "y = x >> strip_pool(h)", lambda g: g["x"].mean(2, keepdims=True)),
]  # fmt: skip
RESAMPLING = [
    ("nearest", IMAGE + "y = x >> upsample(2)", lambda g: g["x"].repeat(2, 2).repeat(2, 3)),
    ("bilinear", IMAGE + "y = x >> upsample(3, mode=bilinear)", lambda g: bilinear(g["x"], 3)),
    ("grid sampling (spatial transformer)",
     IMAGE + "input theta : F[N, 2, 3]\ny = grid_sample(x, affine_grid(theta, [5, 4]))", sampled),
    ("pixel shuffle (DUC)", "input x : F[N, 8, 3, 5]\ny = x >> pixel_shuffle(2)",
     lambda g: np.einsum("ncijhw->nchiwj", g["x"].reshape(3, 2, 2, 2, 3, 5)).reshape(3, 2, 6, 10)),
]  # fmt: skip
ACTIVATIONS = [
    ("sigmoid with slope a", SCORES + "y = x >> sigmoid(2.5)", lambda g: logistic(2.5 * g["x"])),
    ("tanh", SCORES + "y = x >> tanh", lambda g: 2 * logistic(2 * g["x"]) - 1),
    ("relu", SCORES + "y = x >> relu", lambda g: g["x"] * (g["x"] > 0)),
    ("leaky relu", SCORES + "y = x >> leaky_relu(0.2)",
     lambda g: g["x"] * np.where(g["x"] > 0, 1, 0.2)),
    ("elu", SCORES + "y = x >> elu(1.5)",
     lambda g: np.where(g["x"] > 0, g["x"], 1.5 * (np.exp(g["x"]) - 1))),
    ("softsign", SCORES + "y = x >> softsign", lambda g: g["x"] / (1 + np.abs(g["x"]))),
    ("softmax with inverse temperature beta", SCORES + "y = x >> softmax(beta=0.3)",
     lambda g: softmax(0.3 * g["x"])),
    ("maxout", "input x : F[N, 6, 3]\ny = x >> maxout(2)",
     lambda g: np.maximum(g["x"][:, ::2], g["x"][:, 1::2])),
]  # fmt: skip
NORMS = [
    ("batch (eval)", IMAGE + "y = x >> bn as norm", batch_norm),
    ("layer", SCORES + "y = x >> layernorm as norm", layer_norm),
    ("instance", IMAGE + "y = x >> instancenorm", lambda g: normalised(g["x"], (2, 3))),
    ("group", IMAGE + "y = x >> groupnorm(3) as norm", group_norm),
    ("switchable", IMAGE + "y = x >> switchable_norm as norm", switchable),
    ("local response", IMAGE + "y = x >> lrn(5, alpha=0.1, k=2)", local_response),
]
PAIR = "input a, b : F[N, 5]\np = a >> softmax\nq = b >> softmax\n"
LOSSES = [
    ("hinge", "input s, t : F[N]\ny = hinge(s, t)",
     lambda g: np.maximum(0, 1 - g["t"] * g["s"]).mean(), SIGNS),
    ("log", "input s, t : F[N]\ny = logistic(s, t)",
     lambda g: np.log(1 + np.exp(-g["t"] * g["s"])).mean(), SIGNS),
    # With t of -1 and 1, (1 - t*s)^2 is (s - t)^2.
    ("square", "input s, t : F[N]\ny = mse(s, t)",
     lambda g: ((1 - g["t"] * g["s"]) ** 2).mean(), SIGNS),
    ("BCE", "input x, t : F[N]\ny = bce(sigmoid(x), t)",
     lambda g: binary(logistic(g["x"]), g["t"]).mean(), {"t": np.array([1.0, 0, 1])}),
    ("BCE of logits", "input x, t : F[N]\ny = bce_logits(x, t)",
     lambda g: binary(logistic(g["x"]), g["t"]).mean(), {"t": np.array([1.0, 0, 1])}),
    ("cross entropy", CLASSES + "y = cross_entropy(x, label)",
     lambda g: entropies(g).mean(), LABELS),
    ("label smoothing", CLASSES + "y = cross_entropy(x, label, smoothing=0.1)",
     lambda g: entropies(g, 0.1).mean(), LABELS),
    ("center", CLASSES + "y = center_loss(x, label, 5)",
     lambda g: ((g["x"] - g["y.centers"][g["label"]]) ** 2).sum(1).mean() / 2, LABELS),
    ("triplet batch-hard", CLASSES + "y = triplet(x, label)", batch_hard, ROWS),
    ("triplet batch-all", CLASSES + "y = triplet(x, label, mining=batch_all)", batch_all, ROWS),
    ("focal", "input x, t : F[N]\ny = focal(x, t)", focal, {"t": np.array([1.0, 0, 1])}),
    ("online hard negative mining: OHEM", CLASSES + "y = ohem(x, label, keep=0.6)", hardest,
     LABELS),
    ("online hard negative mining: SSD",
     "input x : F[N, 7, 4]\ninput label : i32[N, 7]\ny = hard_negative(x, label, ratio=2)", ssd,
     {"label": np.array([[0, 3, 0, 0, 0, 0, 0], [1, 0, 0, 2, 0, 0, 0]])}),
    ("smooth-L1", "input x, t : F[N]\ny = smooth_l1(x, t)", smooth_l1),
    ("KL", PAIR + "y = kl_div(p, q)", lambda g: kl(*shares_of(g))),
    ("JS", PAIR + "y = js_div(p, q)", js),
    ("f-divergence: KL", PAIR + "y = f_divergence(p, q, kind=kl)", lambda g: kl(*shares_of(g))),
    ("f-divergence: reverse KL", PAIR + "y = f_divergence(p, q, kind=rev_kl)",
     lambda g: kl(*shares_of(g)[::-1])),
    ("f-divergence: JS", PAIR + "y = f_divergence(p, q, kind=js)", js),
    ("f-divergence: chi2", PAIR + "y = f_divergence(p, q, kind=chi2)",
     lambda g: (np.subtract(*shares_of(g)) ** 2 / shares_of(g)[1]).sum(1).mean()),
    ("f-divergence: total variation", PAIR + "y = f_divergence(p, q, kind=tv)",
     lambda g: np.abs(np.subtract(*shares_of(g))).sum(1).mean() / 2),
    ("f-divergence: Hellinger", PAIR + "y = f_divergence(p, q, kind=hellinger2)",
     lambda g: (np.subtract(*map(np.sqrt, shares_of(g))) ** 2).sum(1).mean() / 2),
    ("repulsion: RepGT",
     "input boxes, targets : F[4, 4]\ninput own : i32[4]\ny = repulsion_gt(boxes, targets, own)",
     rep_gt, {"boxes": BOXES, "targets": BOXES[[1, 2, 0, 3]] + 0.37, "own": OWN}),
    ("repulsion: RepBox",
     "input boxes : F[4, 4]\ninput own : i32[4]\ny = repulsion_box(boxes, own)",
     rep_box, {"boxes": BOXES, "own": OWN}),
]  # fmt: skip
LIST = {
    "conv_arithmetic": CONVOLUTIONS,
    "pooling": POOLS,
    "resampling": RESAMPLING,
    "activations": ACTIVATIONS,
    "normalisation": NORMS,
    "losses": LOSSES,
}
BLOCKS = [Block(row, *entry) for row, entries in LIST.items() for entry in entries]


# ---------------------------------------------------------------- what holds for each


def program_of(block, tmp_path, kind):
    lines = re.sub(r"\bF\b", kind, block.text).splitlines()
    lines += ["loss = sum(y * y)", "output y, loss"]
    text = f"tilth: 1\nname: block\ndtype: {kind}\nmodel: |\n"
    path = tmp_path / "block.yaml"
    path.write_text(text + "".join(f"  {line}\n" for line in lines), encoding="utf-8")
    return load(path)


def drawn(block, program):
    """Inputs and weights, batches of three where nothing else is said; variances above zero."""
    rng = np.random.default_rng(5)
    inputs, weights = {}, {}
    batch = next((len(array) for array in block.drawn.values()), 3)
    for name, kind in program.inputs.items():
        shape = [batch if str(d) == "N" else int(d) for d in kind.shape]
        inputs[name] = block.drawn.get(name, rng.standard_normal(shape))
    for path, kind in program.parameters().items():
        values = rng.standard_normal([int(d) for d in kind.shape])
        weights[path] = np.abs(values) + 0.5 if path.endswith("running_var") else values
    return inputs, weights


every_block = pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"{b.row}: {b.name}")


@every_block
def test_values_and_slope(block, tmp_path, agree):
    program = program_of(block, tmp_path, "f64")
    inputs, weights = drawn(block, program)
    agree(program.run(inputs, weights)["y"], block.formula({**inputs, **weights}), 1e-12)
    floats = [name for name, array in inputs.items() if np.asarray(array).dtype.kind == "f"]
    learnt = [path for path in weights if "running" not in path]
    slopes = program.value_and_grad("loss", [*floats, *learnt])(inputs, weights)[1]
    way = np.random.default_rng(6)
    ahead = {name: way.standard_normal(slopes[name].shape) for name in slopes}

    def at(step):
        moved = {name: (inputs | weights)[name] + step * ahead[name] for name in slopes}
        found = program.run(
            {name: moved.get(name, array) for name, array in inputs.items()},
            {path: moved.get(path, array) for path, array in weights.items()},
        )
        return float(found["loss"])

    h = 1e-4
    central = (at(-2 * h) - 8 * at(-h) + 8 * at(h) - at(2 * h)) / (12 * h)
    found = sum(float((slopes[name] * ahead[name]).sum()) for name in slopes)
    assert central != 0
    agree(found, central, 1e-6)


@every_block
def test_forward_and_backward_have_kernels(block, tmp_path):
    program = program_of(block, tmp_path, "f32")
    sizes = {"N": 3} if any("N" in map(str, k.shape) for k in program.inputs.values()) else {}
    for made in (program, program.value_and_grad("loss", training=True).program):
        plan, _ = lowered(made, sizes)
        assert plan.rows


SHAPES = {2: "N, 6", 3: "N, 6, 9", 4: "N, 6, 9, 7", 5: "N, 6, 4, 3, 5"}
SPATIAL = ("instancenorm", "switchable_norm")


@pytest.mark.parametrize("rank", SHAPES)
def test_norms_of_every_rank_have_kernels_with_what_follows(rank, tmp_path):
    norms = ["bn", "layernorm", "groupnorm(3)", "lrn", "l2norm", *(SPATIAL if rank > 2 else ())]
    for norm, after in product(norms, ("relu", "relu6 >> dropout", "swish", "maxout(2)")):
        texts = [f"y = x >> {norm} >> {after}"]
        texts += [f"y = x >> (id + {norm}) >> {after}"] if after == "relu" else []
        for text in texts:
            block = Block("", "", f"input x : F[{SHAPES[rank]}]\n{text}", np.asarray)
            program = program_of(block, tmp_path, "f32")
            made = program.value_and_grad("loss", ["x"], training=True)
            assert lowered(made.program, {"N": 3})[0].rows, text
