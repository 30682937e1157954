"""Layers of a training step: weights that every call is given, forward and backward, at odd sizes.

The arena is poisoned between calls (``graphs.check``), so pad lanes and gaps hold NaN.
"""

import numpy as np
import pytest
from graphs import Build, check
from tilth.compiler.autodiff import expand_gradients, gradients
from tilth.compiler.ops.expr import Writer
from tilth.runtime.simd import lanes

PAIRS = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))


def conv(x, weight, *bias, stride=1, pad=PAIRS, groups=1, dilation=1):
    return x.op("conv", weight, *bias, stride=(stride,) * 2, pad=pad, dilation=(dilation,) * 2,
                groups=groups)  # fmt: skip


def pool(x, size, pad):
    return x.op("maxpool", kernel=(size,) * 2, stride=(2, 2), pad=pad, dilation=(1, 1), ceil=False)


def norm(x, vectors):
    return x.ops("batch_norm_train", *vectors, eps=1e-5, momentum=0.1)


def statistics(y):
    return [y[1], y[2]]


def plain(x, w):
    return [conv(x, w)]


def strided(x, w):
    return [conv(x, w, stride=2)]


def around(x, w, b):
    return [pool(conv(x, w, b).op("relu"), 2, NONE)]


def pointwise(x, w):
    return [conv(x, w, pad=NONE)]


def pointwise_strided(x, w):
    return [conv(x, w, pad=NONE, stride=2)]


def first_layer(x, w):
    return [conv(x, w, stride=2, pad=((3, 3), (3, 3)))]


def depthwise(x, w):
    return [conv(x, w, groups=20)]


def depthwise_strided(x, w):
    return [conv(x, w, groups=20, stride=2)]


def grouped(x, w):
    return [conv(x, w, groups=2)]


def dilated(x, w):
    return [conv(x, w, dilation=2, pad=((2, 2), (2, 2)))]


def rectifier(x, w):
    return [pool(conv(x, w).op("relu"), 3, PAIRS)]


def normed(x, *vectors):
    y = norm(x, vectors)
    return [y[0].op("relu"), *statistics(y)]


def residual(x, r, *vectors):
    y = norm(x, vectors)
    return [(y[0] + r).op("relu6"), *statistics(y)]


def shortcut(x, *vectors):
    """The sum is read twice, so its mask is an array of its own."""
    y = norm(x, vectors)
    z = (y[0] + x).op("relu")
    return [z + norm(z, vectors)[0], *statistics(y)]


def dense(x, w, b, v):
    return [x.op("linear", w, b).op("relu").op("linear", v)]


VECTORS = ((20,),) * 4
FAST = [
    (strided, ((2, 20, 9, 8), (35, 20, 3, 3))),
    (depthwise_strided, ((2, 20, 9, 8), (20, 1, 3, 3))),
    (residual, ((3, 20, 31, 9), (3, 20, 31, 9), *VECTORS)),
    (pointwise, ((3, 20, 13, 11), (35, 20, 1, 1))),  # several chunks of pixels
    (normed, ((45, 20), *VECTORS)),  # norms of what is no image
    (residual, ((3, 20, 9), (3, 20, 9), *VECTORS)),
]
SLOW = [
    (plain, ((2, 20, 9, 7), (35, 20, 3, 3))),
    (around, ((3, 18, 9, 9), (20, 18, 3, 3), (20,))),
    (pointwise, ((3, 20, 9, 7), (35, 20, 1, 1))),
    (strided, ((3, 20, 41, 37), (35, 20, 3, 3))),
    (pointwise_strided, ((3, 20, 41, 37), (35, 20, 1, 1))),
    (dilated, ((3, 20, 21, 17), (35, 20, 3, 3))),
    (pointwise_strided, ((3, 20, 9, 8), (35, 20, 1, 1))),
    (first_layer, ((2, 3, 19, 17), (24, 3, 7, 7))),
    (first_layer, ((3, 3, 61, 59), (24, 3, 7, 7))),
    (depthwise, ((2, 20, 9, 7), (20, 1, 3, 3))),
    (grouped, ((2, 32, 9, 8), (64, 16, 3, 3))),
    (dilated, ((2, 20, 9, 8), (35, 20, 3, 3))),
    (rectifier, ((3, 5, 9, 9), (20, 5, 3, 3))),
    (normed, ((3, 20, 31, 9), *VECTORS)),
    (normed, ((3, 20, 5, 3, 4), *VECTORS)),
    (shortcut, ((3, 20, 7, 9), *VECTORS)),
    (dense, ((5, 37), (50, 37), (50,), (21, 50))),
    (dense, ((45, 37), (50, 37), (50,), (21, 50))),
]
CASES = [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
WIDTHS = [lanes(), *(pytest.param(w, marks=pytest.mark.slow) for w in (8, 4) if w < lanes())]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("layer", "shapes"), CASES)
def test_a_layer_and_its_gradients(layer, shapes, width):
    b = Build()
    writer = Writer(b.graph)
    given = [b.input(shape) for shape in shapes]
    for array in b.inputs.values():
        if array.ndim == 1:
            array[:] = np.abs(array) + 0.5  # variances
    first, *others = layer(*(writer.expr(value) for value in given))
    d = writer.expr(b.input(tuple(int(n) for n in first.shape)))
    total = (first * d).sum(range(first.rank))
    wanted = [v for v, shape in zip(given, shapes, strict=True) if shape != VECTORS[0]] + given[-2:]
    found = gradients(b.graph, total.value, list(dict.fromkeys(wanted)))
    b.output(first.value, *(value.value for value in others), *found)
    b.graph = expand_gradients(b.graph)
    check(b, 3e-5, fused=True, width=width, threads=2)
