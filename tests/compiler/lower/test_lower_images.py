"""Image ops of every shape through the lowering: groups that cut blocks, other ranks and types."""

import numpy as np
import pytest
from graphs import Build, check

slow = pytest.mark.slow

# images, channels, size, features, kernel, stride, pad, dilation, groups
CONVOLUTIONS = [
    pytest.param((2, 6, (9, 7), 8, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2), id="2 groups"),
    pytest.param((1, 21, (5, 6), 9, (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 1), 3), id="3 groups"),
    pytest.param((3, 20, (5, 5), 40, (1, 1), (1, 1), ((0, 0),) * 2, (1, 1), 5), id="5 groups"),
    pytest.param((1, 160, (3, 4), 120, (1, 1), (1, 1), ((0, 0),) * 2, (1, 1), 8), id="8 groups"),
    pytest.param((2, 48, (5, 6), 60, (3, 3), (2, 1), ((1, 1),) * 2, (1, 1), 3), id="gaps"),
    pytest.param((3, 60, (5, 5), 96, (1, 1), (1, 1), ((0, 0),) * 2, (1, 1), 3), id="uneven inputs"),
    pytest.param((1, 70, (5, 5), 70, (3, 3), (1, 1), ((1, 1),) * 2, (1, 1), 10), id="10 groups"),
    pytest.param((2, 17, (6, 5), 51, (3, 3), (3, 3), ((1, 1),) * 2, (1, 1), 17), id="multiplier"),
    pytest.param((2, 3, (11, 9), 17, (3, 3), (1, 1), ((2, 2),) * 2, (2, 2), 1), id="dilated first"),
    pytest.param((2, 5, (19,), 7, (4,), (2,), ((1, 2),), (1,), 1), id="one axis"),
    pytest.param((1, 4, (5, 4, 6), 6, (2, 3, 2), (1, 2, 1), ((0, 1), (1, 1), (1, 0)), (1, 1, 2), 2),
                 id="three axes"),
    pytest.param((3, 1, (1, 1), 17, (1, 1), (1, 1), ((0, 0),) * 2, (1, 1), 1), id="one pixel"),
    pytest.param((3, 3, (10, 11), 17, (4, 2), (3, 3), ((0, 1), (2, 0)), (1, 1), 1),
                 id="even first, stride 3"),
    pytest.param((3, 3, (1, 1), 17, (3, 3), (1, 1), ((1, 1),) * 2, (1, 1), 1), id="padded pixel"),
    pytest.param((1, 17, (1, 1), 17, (2, 4), (3, 3), ((0, 1), (2, 1)), (1, 1), 17),
                 id="even depthwise pixel"),
]  # fmt: skip


def convolution(case, dtype="f32", late=False, bias=True):
    images, channels, size, features, kernel, stride, pad, dilation, groups = case
    b = Build()
    x = b.input((images, channels, *size), dtype)
    make = b.input if late else b.weight
    operands = [x, make((features, channels // groups, *kernel), dtype)]
    operands += [make((features,), dtype)] if bias else []
    attrs = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    return b, b("conv", *operands, **attrs)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case):
    b, y = convolution(case)
    check(b.output(b("relu", y)), 2e-5, fused=True, threads=2)


@pytest.mark.parametrize("images", [1, 3])
def test_groups_that_cut_blocks_are_neither_multiplied_by_zeros_nor_copied(images):
    """ShuffleNet's unit: each group's outputs have blocks of their own up to the next product."""
    plain = {"pad": ((0, 0),) * 2, "dilation": (1, 1), "stride": (1, 1)}
    b = Build()
    y = b("conv", b.input((images, 48, 7, 6)), b.weight((60, 16, 1, 1)), b.weight((60,)),
          groups=3, **plain)  # fmt: skip
    y = b("conv", b("relu", y), b.weight((60, 1, 3, 3)), b.weight((60,)), groups=60,
          **plain | {"pad": ((1, 1),) * 2})  # fmt: skip
    y = b("channel_shuffle", y, groups=20, axis=1)
    y = b("conv", y, b.weight((96, 20, 1, 1)), b.weight((96,)), groups=3, **plain)
    module = check(b.output(b("relu", y)), 2e-5, fused=True, threads=2)
    names = [row.kernel.name.split("_")[0] for row in module.plan.rows]
    assert sorted(names) == ["conv", "conv", "depthwise", "from", "to"]
    sizes = {name: array for name, array in _sizes(module).items() if "weight" in name}
    assert sorted(sizes.values()) == [96 * 9 * 4, 96 * 16 * 4, 96 * 20 * 4]


def test_groups_that_divide_a_block_leave_no_gaps():
    b = Build()
    attrs = {"pad": ((0, 0),) * 2, "dilation": (1, 1), "stride": (1, 1), "groups": 16}
    y = b("conv", b.input((2, 64, 5, 4)), b.weight((64, 4, 1, 1)), b.weight((64,)), **attrs)
    module = check(b.output(b("relu", y)), 2e-5, fused=True, threads=2)
    names = [row.kernel.name.split("_")[0] for row in module.plan.rows]
    assert sorted(names) == ["conv", "from", "to"]


def _sizes(module):
    """Bytes of the packed arrays, with what fills a line."""
    starts = sorted((start, name) for name, start in module.plan.packed.items())
    ends = [*(start for start, _ in starts[1:]), module.plan.weight_bytes]
    return {name: end - start for (start, name), end in zip(starts, ends, strict=True)}


def test_groups_with_gaps_are_read_like_any_image():
    b = Build()
    x = b.input((2, 48, 5, 4))
    attrs = {"pad": ((0, 0),) * 2, "dilation": (1, 1), "stride": (1, 1), "groups": 3}
    y = b("relu", b("conv", x, b.weight((60, 16, 1, 1)), b.weight((60,)), **attrs))
    pooled = b("reduce", y, kind="mean", axes=(2, 3), keepdims=False)
    check(b.output(y, b("tanh", b("mul", y, y)), pooled), 2e-5, fused=True)


@slow
@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("dtype, late", [("f64", False), ("f32", True), ("f64", True)])
def test_convolutions_of_doubles_and_of_weights_of_the_call(case, dtype, late):
    b, y = convolution(case, dtype, late)
    check(b.output(y), 2e-5 if dtype == "f32" else 1e-12, fused=True, threads=2)


def test_weights_of_the_call():
    b, y = convolution(CONVOLUTIONS[0].values[0], late=True)
    check(b.output(y), 2e-5, fused=True)


@pytest.mark.parametrize("op, attrs", [("sigmoid", {"slope": 1.0}), ("leaky_relu", {"slope": 0.1})])
def test_an_activation_that_is_no_clamp_follows_the_convolution(op, attrs):
    b, y = convolution((2, 18, (5, 5), 20, (3, 3), (1, 1), ((1, 1),) * 2, (1, 1), 1))
    shortcut = b.input((2, 20, 5, 5))
    check(b.output(b(op, b("add", y, shortcut), **attrs)), 2e-5, fused=True)


def test_a_norm_before_a_depthwise_convolution():
    b = Build()
    x = b("conv", b.input((2, 20, 6, 6)), b.weight((20, 20, 1, 1)), stride=(1, 1),
          pad=((0, 0),) * 2, dilation=(1, 1), groups=1)  # fmt: skip
    y = b("relu", b("affine", x, b.weight((20,)), b.weight((20,))))
    z = b("conv", y, b.weight((20, 1, 3, 3)), stride=(1, 1), pad=((1, 1),) * 2,
          dilation=(1, 1), groups=20)  # fmt: skip
    check(b.output(z, b("add", x, z)), 2e-5, fused=True)


TRANSPOSED = [
    ((2, 6, 5, 4), (6, 9, 4, 4), (2, 2), ((1, 1), (1, 1)), (0, 0), (1, 1), 1),
    ((1, 6, 3, 4), (6, 4, 3, 2), (3, 2), ((0, 1), (1, 0)), (1, 1), (1, 2), 2),
    ((1, 4, 7), (4, 5, 3), (1,), ((2, 2),), (0,), (1,), 1),
]


LATE = [TRANSPOSED[0], *(pytest.param(*case, marks=slow) for case in TRANSPOSED[1:])]


@pytest.mark.parametrize("shape, weight, stride, pad, out_pad, dilation, groups", LATE)
def test_transposed_convolutions(shape, weight, stride, pad, out_pad, dilation, groups):
    b = Build()
    operands = [b.input(shape), b.weight(weight), b.weight((weight[1] * groups,))]
    y = b("conv_transpose", *operands, stride=stride, pad=pad, out_pad=out_pad,
          dilation=dilation, groups=groups)  # fmt: skip
    check(b.output(b("relu", y)), 2e-5, fused=True)


POOLS = [
    ("maxpool", (3, 17, 9, 8), {"kernel": (3, 2), "stride": (2, 3), "pad": ((1, 1), (0, 1)),
                                "dilation": (1, 1), "ceil": True}),
    ("maxpool", (2, 5, 12), {"kernel": (3,), "stride": (2,), "pad": ((1, 1),), "dilation": (2,),
                             "ceil": False}),
    ("avgpool", (2, 5, 12), {"kernel": (4,), "stride": (3,), "pad": ((2, 1),), "ceil": True,
                             "count_pad": False}),
    ("avgpool", (1, 3, 5, 6, 4), {"kernel": (2, 3, 2), "stride": (2, 2, 2),
                                  "pad": ((1, 1), (1, 1), (0, 0)), "ceil": False,
                                  "count_pad": True}),
    ("maxpool", (3, 17, 1, 1), {"kernel": (2, 4), "stride": (3, 3), "pad": ((0, 1), (2, 1)),
                                "dilation": (1, 1), "ceil": False}),
    ("avgpool", (3, 3, 10, 11), {"kernel": (4, 2), "stride": (3, 3), "pad": ((0, 1), (1, 0)),
                                 "ceil": False, "count_pad": False}),
    ("adaptive_avgpool", (2, 5, 13), {"size": (5,)}),
    ("adaptive_maxpool", (2, 5, 13), {"size": (5,)}),
]  # fmt: skip


@pytest.mark.parametrize("op, shape, attrs", POOLS)
def test_pools(op, shape, attrs):
    b = Build()
    check(b.output(b(op, b.input(shape), **attrs)), 1e-6)


@slow
@pytest.mark.parametrize("op, shape, attrs", POOLS)
def test_pools_of_doubles(op, shape, attrs):
    b = Build()
    check(b.output(b(op, b.input(shape, "f64"), **attrs)), 1e-13)


RESIZES = [
    ((2, 5, 4, 6), (8, 12), "nearest", False, False),
    ((2, 5, 4, 6), (7, 5), "bilinear", True, False),
    ((2, 5, 9), (4,), "bicubic", False, True),
    ((1, 3, 4, 5, 3), (6, 5, 2), "bilinear", False, False),
]


@pytest.mark.parametrize("shape, size, mode, corners, antialias", RESIZES)
def test_resizes(shape, size, mode, corners, antialias):
    b = Build()
    y = b("resize", b.input(shape), size=size, scale=None, mode=mode, align_corners=corners,
          antialias=antialias)  # fmt: skip
    check(b.output(y), 1e-5)


def test_positions_of_maxima_go_there_and_back():
    b = Build()
    x = b.input((2, 3, 7, 8))
    attrs = {"kernel": (3, 2), "stride": (2, 2), "pad": ((1, 1), (0, 1)), "dilation": (1, 1)}
    values = b("maxpool_with_indices", x, **attrs, ceil=False)
    indices = type(values)(values.node, 1)
    back = b("maxunpool", values, indices, size=(7, 8))
    added = b("add_at_places", values, indices, size=(7, 8))
    taken = b("take_at_places", x, indices)
    check(
        b.output(values, indices, back, added, taken, b("adaptive_maxpool_places", x, size=(3, 3)))
    )


BACKWARD = [
    ("avgpool_backward", (2, 3, 4, 3), {"kernel": (3, 2), "stride": (2, 3), "ceil": False,
                                        "pad": ((1, 1), (0, 1)), "count_pad": False,
                                        "size": (8, 8)}),
    ("adaptive_avgpool_backward", (2, 3, 4, 3), {"count": (4, 3), "size": (9, 7)}),
    ("resize_backward", (2, 3, 8, 6), {"size": (8, 6), "scale": None, "mode": "bilinear",
                                       "align_corners": False, "antialias": False,
                                       "input_size": (5, 4)}),
]  # fmt: skip


@pytest.mark.parametrize("op, shape, attrs", BACKWARD)
def test_adjoints_of_pools_and_resizes(op, shape, attrs):
    b = Build()
    check(b.output(b(op, b.input(shape), **attrs)), 1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_the_adjoint_of_a_convolution_in_its_weights(groups):
    b = Build()
    y = b("conv_backward_weight", b.input((2, 6, 9, 8)), b.input((2, 9, 5, 4)), stride=(2, 2),
          pad=((1, 1), (1, 0)), dilation=(1, 1), groups=groups, kernel=(3, 3))  # fmt: skip
    check(b.output(y), 1e-5, threads=2)


def test_images_side_by_side_flat_and_in_blocks():
    b = Build()
    x = b.input((2, 16, 4, 4))
    y = b("conv", x, b.weight((16, 16, 1, 1)), stride=(1, 1), pad=((0, 0),) * 2, dilation=(1, 1),
          groups=1)  # fmt: skip
    mask = b("reduce", y, kind="max", axes=(1,), keepdims=True)
    gated = b("mul", y, b("sigmoid", mask, slope=1.0))
    row = b("add", y, b.constant(np.arange(4), "f32"))
    joined = b("concat", gated, x, row, axis=1)
    check(b.output(joined, b("transpose", gated, perm=(0, 2, 3, 1))), 1e-5, fused=True)
