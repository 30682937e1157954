"""How the layers of nets are written as ONNX: convolutions, pools, norms, activations, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..compiler.ir.dims import floordiv
from ..compiler.ir.types import DTYPES
from .onnx_graph import Emitter, Site, rule

# ---------------------------------------------------------------- kernels of weights


@rule("conv")
def _conv(e: Emitter, site: Site) -> str:
    return e.call(
        "Conv",
        *site.x,
        kernel_shape=site.known(site.kinds[1].shape[2:]),
        strides=list(site.attrs["stride"]),
        pads=_pads(site.attrs["pad"]),
        dilations=list(site.attrs["dilation"]),
        group=site.known([site.attrs["groups"]])[0],
    )


@rule("conv_transpose")
def _conv_transpose(e: Emitter, site: Site) -> str:
    return e.call(
        "ConvTranspose",
        *site.x,
        kernel_shape=site.known(site.kinds[1].shape[2:]),
        strides=list(site.attrs["stride"]),
        pads=_pads(site.attrs["pad"]),
        output_padding=list(site.attrs["out_pad"]),
        dilations=list(site.attrs["dilation"]),
        group=site.known([site.attrs["groups"]])[0],
    )


@rule("linear")
def _linear(e: Emitter, site: Site) -> str:
    if site.kind.rank == 2:
        return e.call("Gemm", *site.x, transB=1)
    y = e.call("MatMul", site.x[0], e.transpose(site.x[1], (1, 0)))
    return e.call("Add", y, site.x[2]) if len(site.x) > 2 else y


# ---------------------------------------------------------------- norms


@rule("batch_norm")
def _batch_norm(e: Emitter, site: Site) -> str:
    x, mean, var, *learned = site.x
    channels = site.known(site.kinds[1].shape)
    weight, bias = learned or (e.full(channels, n, site.kind.dtype) for n in (1, 0))
    return e.call("BatchNormalization", x, weight, bias, mean, var, epsilon=site.attrs["eps"])


@rule("layer_norm")
def _layer_norm(e: Emitter, site: Site) -> str:
    axes = site.attrs["axes"]
    learned = list(site.x[1:])
    if not learned:
        learned = [e.full(site.known(site.kind.shape[-axes:]), 1, site.kind.dtype)]
    return e.call("LayerNormalization", site.x[0], *learned, axis=-axes, epsilon=site.attrs["eps"])


@rule("instance_norm")
def _instance_norm(e: Emitter, site: Site) -> str:
    channels = site.known(site.kind.shape[1:2])
    learned = site.x[1:] or [e.full(channels, n, site.kind.dtype) for n in (1, 0)]
    return e.call("InstanceNormalization", site.x[0], *learned, epsilon=site.attrs["eps"])


@rule("group_norm")
def _group_norm(e: Emitter, site: Site) -> str:
    (groups,) = site.known([site.attrs["groups"]])
    unit = [e.full([groups], n, site.kind.dtype) for n in (1, 0)]
    grouped = e.call("Reshape", site.x[0], e.ints([0, groups, -1]))
    y = e.call("InstanceNormalization", grouped, *unit, epsilon=site.attrs["eps"])
    y = e.call("Reshape", y, e.call("Shape", site.x[0]))
    if len(site.x) == 1:
        return y
    weight, bias = (_per_channel(e, v, site.kind.rank) for v in site.x[1:])
    return e.call("Add", e.call("Mul", y, weight), bias)


@rule("lrn")
def _lrn(e: Emitter, site: Site) -> str:
    size, alpha = site.attrs["size"], site.attrs["alpha"]
    if size % 2 == 0:
        site.refuse("LRN of an even size has its window on the other side there")
    # ONNX divides alpha by the size, whatever the graph says.
    alpha = alpha if site.attrs["average"] else alpha * size
    return e.call(
        "LRN", site.x[0], size=size, alpha=alpha, beta=site.attrs["beta"], bias=site.attrs["k"]
    )


@rule("l2norm")
def _l2norm(e: Emitter, site: Site) -> str:
    length = e.call("ReduceL2", site.x[0], e.ints([site.attrs["axis"]]), keepdims=1)
    floor = e.number(site.attrs["eps"], site.kind.dtype)
    return e.call("Div", site.x[0], e.call("Max", length, floor))


# ---------------------------------------------------------------- activations

_SAME = {
    "relu": "Relu", "selu": "Selu", "hardswish": "HardSwish", "mish": "Mish", "erf": "Erf",
    "softsign": "Softsign", "tanh": "Tanh",
}  # fmt: skip


@rule(*_SAME)
def _activation(e: Emitter, site: Site) -> str:
    return e.call(_SAME[site.node.op], site.x[0])


@rule("relu6")
def _relu6(e: Emitter, site: Site) -> str:
    bounds = (e.number(n, site.kind.dtype) for n in (0, 6))
    return e.call("Clip", site.x[0], *bounds)


@rule("leaky_relu")
def _leaky_relu(e: Emitter, site: Site) -> str:
    return e.call("LeakyRelu", site.x[0], alpha=site.attrs["slope"])


@rule("elu")
def _elu(e: Emitter, site: Site) -> str:
    return e.call("Elu", site.x[0], alpha=site.attrs["alpha"])


@rule("gelu")
def _gelu(e: Emitter, site: Site) -> str:
    return e.call("Gelu", site.x[0], approximate=site.attrs["approximate"])


@rule("sigmoid")
def _sigmoid(e: Emitter, site: Site) -> str:
    return e.call("Sigmoid", _scaled(e, site, site.attrs["slope"]))


@rule("hardsigmoid")
def _hardsigmoid(e: Emitter, site: Site) -> str:
    return e.call("HardSigmoid", site.x[0], alpha=1 / 6, beta=0.5)


@rule("swish")
def _swish(e: Emitter, site: Site) -> str:
    return e.call("Mul", site.x[0], e.call("Sigmoid", site.x[0]))


@rule("softplus")
def _softplus(e: Emitter, site: Site) -> str:
    beta = site.attrs["beta"]
    y = e.call("Softplus", _scaled(e, site, beta))
    return y if beta == 1 else e.call("Div", y, e.number(beta, site.kind.dtype))


@rule("prelu")
def _prelu(e: Emitter, site: Site) -> str:
    return e.call("PRelu", site.x[0], _per_channel(e, site.x[1], site.kind.rank))


@rule("softmax")
def _softmax(e: Emitter, site: Site) -> str:
    return e.call("Softmax", _scaled(e, site, site.attrs["beta"]), axis=site.attrs["axis"])


@rule("log_softmax")
def _log_softmax(e: Emitter, site: Site) -> str:
    return e.call("LogSoftmax", site.x[0], axis=site.attrs["axis"])


@rule("maxout")
def _maxout(e: Emitter, site: Site) -> str:
    pieces = site.attrs["pieces"]
    batch, channels, *rest = site.kind.shape
    shape = (batch, floordiv(channels, pieces), pieces, *rest)
    parts = e.reshape(site, site.x[0], shape, site.kind.shape)
    return e.call("ReduceMax", parts, e.ints([2]), keepdims=0)


@rule("dropout", "drop_path", "stop_gradient")
def _identity(e: Emitter, site: Site) -> str:
    return site.x[0]


# ---------------------------------------------------------------- pools


@rule("maxpool")
def _maxpool(e: Emitter, site: Site) -> str:
    return e.call("MaxPool", site.x[0], **_window(site), dilations=list(site.attrs["dilation"]))


@rule("maxpool_with_indices")
def _maxpool_with_indices(e: Emitter, site: Site) -> tuple[str, str]:
    how = {**_window(site), "dilations": list(site.attrs["dilation"])}
    values, flat = e.calls("MaxPool", site.x, 2, **how)
    # ONNX counts through the whole tensor, the graph within one channel.
    places = math.prod(site.known(site.kind.shape[2:]))
    return values, e.call("Mod", flat, e.number(places, "i64"))


@rule("maxunpool")
def _maxunpool(e: Emitter, site: Site) -> str:
    batch, channels, *size = site.known(site.result.shape)
    places = e.ints([batch, channels, -1])
    x, index = (e.call("Reshape", v, places) for v in site.x)
    empty = e.full([batch, channels, math.prod(size)], 0, site.kind.dtype)
    flat = e.call("ScatterElements", empty, e.cast(index, "i64"), x, axis=2)
    return e.call("Reshape", flat, e.ints([batch, channels, *size]))


@rule("avgpool")
def _avgpool(e: Emitter, site: Site) -> str:
    x, pad = site.x[0], site.attrs["pad"]
    how = _window(site)
    hangs = how["pads"] != _pads(pad)
    counts = bool(site.attrs["count_pad"]) and any(map(any, pad))
    if counts and hangs:
        # What hangs over never counts, the padding does: so the padding becomes part of the input.
        n = len(pad)
        before, after = how["pads"][:n], how["pads"][n:]
        own = [[0, 0, *(p[side] for p in pad)] for side in (0, 1)]
        x = e.call("Pad", x, e.ints(own[0] + own[1]), e.number(0, site.kind.dtype))
        over = [a - p[1] for a, p in zip(after, pad, strict=True)]
        how["pads"] = [b - p[0] for b, p in zip(before, pad, strict=True)] + over
        counts = False
    return e.call("AveragePool", x, **how, count_include_pad=int(counts))


@rule("adaptive_avgpool", "adaptive_maxpool")
def _adaptive(e: Emitter, site: Site) -> str:
    mean = site.node.op == "adaptive_avgpool"
    size = site.known(site.attrs["size"])
    if all(s == 1 for s in size):
        return e.call("GlobalAveragePool" if mean else "GlobalMaxPool", site.x[0])
    lengths = site.known(site.kind.shape[2:])
    if all(length % s == 0 for length, s in zip(lengths, size, strict=True)):
        kernel = [length // s for length, s in zip(lengths, size, strict=True)]
        if all(k == 1 for k in kernel):
            return site.x[0]
        op = "AveragePool" if mean else "MaxPool"
        return e.call(op, site.x[0], kernel_shape=kernel, strides=kernel)
    y = site.x[0]
    for axis, (length, count) in enumerate(zip(lengths, size, strict=True), 2):
        y = y if length == count else _cells(e, y, axis, length, count, mean)
    return y


def _cells(e: Emitter, x: str, axis: int, length: int, count: int, mean: bool) -> str:
    """One axis pooled to ``count`` cells of uneven length."""
    op = "ReduceMean" if mean else "ReduceMax"
    bounds = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
    parts = [e.part(x, axis, start, stop) for start, stop in bounds]
    cells = [e.call(op, part, e.ints([axis]), keepdims=1) for part in parts]
    return cells[0] if count == 1 else e.call("Concat", *cells, axis=axis)


# ---------------------------------------------------------------- resampling

_RESIZE = {
    "nearest": {
        "mode": "nearest", "nearest_mode": "floor",
        "coordinate_transformation_mode": "asymmetric",
    },
    "nearest_exact": {
        "mode": "nearest", "nearest_mode": "round_prefer_ceil",
        "coordinate_transformation_mode": "half_pixel",
    },
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.75},
}  # fmt: skip


@rule("resize")
def _resize(e: Emitter, site: Site) -> str:
    if site.attrs["antialias"]:
        site.refuse("antialiased resizing weighs borders in another way there")
    how = dict(_RESIZE[site.attrs["mode"]])
    if site.attrs["mode"] in ("bilinear", "bicubic"):
        corners = site.attrs["align_corners"]
        how["coordinate_transformation_mode"] = "align_corners" if corners else "half_pixel"
    scale = site.attrs["scale"] or _whole_factors(site)
    if scale is not None:
        return e.call("Resize", site.x[0], "", e.array(np.array([1, 1, *scale], np.float32)), **how)
    spatial = list(range(2, site.kind.rank))
    sizes = e.ints(site.known(site.attrs["size"]))
    return e.call("Resize", site.x[0], "", "", sizes, axes=spatial, **how)


def _whole_factors(site: Site) -> list[int] | None:
    """How many times larger each axis becomes, when that is a whole number for all of them."""
    pairs = list(zip(site.kind.shape[2:], site.attrs["size"], strict=True))
    factors = [size // length for length, size in pairs]
    good = all(
        isinstance(f, int) and length * f == size
        for f, (length, size) in zip(factors, pairs, strict=True)
    )
    return [int(f) for f in factors] if good else None


@rule("grid_sample")
def _grid_sample(e: Emitter, site: Site) -> str:
    return e.call(
        "GridSample",
        *site.x,
        mode={"bilinear": "linear", "nearest": "nearest"}[site.attrs["mode"]],
        padding_mode=site.attrs["padding"],
        align_corners=int(site.attrs["align_corners"]),
    )


@rule("affine_grid")
def _affine_grid(e: Emitter, site: Site) -> str:
    height, width = site.known(site.attrs["size"])
    rows, columns = (_positions(n, site.attrs["align_corners"]) for n in (height, width))
    base = np.stack(
        [*np.broadcast_arrays(columns[None, :], rows[:, None]), np.ones((height, width))], -1
    )
    points = e.array(base.reshape(-1, 3).astype(DTYPES[site.kind.dtype]))
    grid = e.call("MatMul", points, e.transpose(site.x[0], (0, 2, 1)))
    return e.call("Reshape", grid, e.ints([0, height, width, 2]))


def _positions(count: int, align_corners: bool) -> np.ndarray:
    if not align_corners:
        return (2 * np.arange(count) + 1) / count - 1
    return np.linspace(-1, 1, count) if count > 1 else np.zeros(1)


@rule("pixel_shuffle")
def _pixel_shuffle(e: Emitter, site: Site) -> str:
    return e.call("DepthToSpace", site.x[0], blocksize=site.attrs["factor"], mode="CRD")


@rule("pixel_unshuffle")
def _pixel_unshuffle(e: Emitter, site: Site) -> str:
    r = site.attrs["factor"]
    _, channels, height, width = site.known([1, *site.kind.shape[1:]])
    shape = e.ints([0, channels, height // r, r, width // r, r])
    split = e.transpose(e.call("Reshape", site.x[0], shape), (0, 1, 3, 5, 2, 4))
    return e.call("Reshape", split, e.ints([0, channels * r * r, height // r, width // r]))


@rule("channel_shuffle")
def _channel_shuffle(e: Emitter, site: Site) -> str:
    axis, groups = site.attrs["axis"], site.attrs["groups"]
    (channels,) = site.known([site.kind.shape[axis]])
    if site.kind.rank > axis + 1 and axis <= 1:
        split = e.ints([0] * axis + [groups, channels // groups, -1])
        perm = [*range(axis), axis + 1, axis, axis + 2]
    else:
        before, after = site.kind.shape[:axis], site.kind.shape[axis + 1 :]
        split = e.ints(site.known([*before, groups, channels // groups, *after]))
        perm = [*range(axis), axis + 1, axis, *range(axis + 2, site.kind.rank + 1)]
    mixed = e.transpose(e.call("Reshape", site.x[0], split), perm)
    return _back(e, site, mixed)


def _back(e: Emitter, site: Site, y: str) -> str:
    """``y`` in the shape of the operand."""
    if site.result.symbols:
        return e.call("Reshape", y, e.call("Shape", site.x[0]))
    return e.call("Reshape", y, e.ints(site.known(site.result.shape)))


# ---------------------------------------------------------------- helpers


def _pads(pairs: Sequence[tuple[int, int]]) -> list[int]:
    return [before for before, _ in pairs] + [after for _, after in pairs]


def _window(site: Site) -> dict[str, list[int]]:
    """A pool's window; one that hangs over the end is written as padding.

    Which windows a ceiling keeps differs between readers of ONNX, padding does not.
    """
    kernel, stride, pad = (site.attrs[name] for name in ("kernel", "stride", "pad"))
    pads = list(pad)
    if site.attrs["ceil"]:
        dilation = site.attrs.get("dilation", (1,) * len(kernel))
        sizes, counts = (site.known(kind.shape[2:]) for kind in (site.kind, site.result))
        for i, (before, after) in enumerate(pad):
            last = (counts[i] - 1) * stride[i] - before + dilation[i] * (kernel[i] - 1)
            pads[i] = (before, max(after, last + 1 - sizes[i]))
    return {"kernel_shape": list(kernel), "strides": list(stride), "pads": _pads(pads)}


def _per_channel(e: Emitter, vector: str, rank: int) -> str:
    return e.call("Reshape", vector, e.ints([-1] + [1] * (rank - 2)))


def _scaled(e: Emitter, site: Site, factor: float) -> str:
    if factor == 1:
        return site.x[0]
    return e.call("Mul", site.x[0], e.number(factor, site.kind.dtype))
