"""Ops that lower by way of simpler ones, and draws that repeat the reference's."""

import numpy as np
import pytest
from graphs import Build, agree, check, compiled
from tilth.compiler.interpret import interpret
from tilth.compiler.ops import OPS

slow = pytest.mark.slow


def built(op, *shapes, kind="f32", weights=(), labels=None, **attrs):
    b = Build()
    operands = [b.input(shape, kind) for shape in shapes]
    operands += [b.input((), "i32", labels)] if labels is not None else []
    operands += [b.weight(shape, kind) for shape in weights]
    made = b(op, *operands, **attrs)
    count = len(b.graph.node(made.node).types)
    return b.output(*(type(made)(made.node, i) for i in range(count)))


CASES = {
    "layer_norm": dict(shapes=[(3, 5, 20)], weights=[(20,), (20,)], axes=1, eps=1e-5),
    "group_norm": dict(shapes=[(2, 6, 4, 5)], weights=[(6,), (6,)], groups=3, eps=1e-5),
    "instance_norm": dict(shapes=[(2, 6, 4, 5)], eps=1e-5),
    "lrn": dict(shapes=[(2, 17, 4, 5)], size=5, alpha=1e-2, beta=0.75, k=2.0, average=False),
    "l2norm": dict(shapes=[(2, 7, 5)], axis=1, eps=1e-6),
    "batch_norm_train": dict(
        shapes=[(4, 5, 3, 3)], weights=[(5,), (5,), (5,), (5,)], eps=1e-5, momentum=0.1
    ),
    "maxout": dict(shapes=[(2, 6, 4)], pieces=3),
    "channel_shuffle": dict(shapes=[(2, 6, 4)], groups=3, axis=1),
    "pixel_shuffle": dict(shapes=[(2, 12, 3, 2)], factor=2),
    "pixel_unshuffle": dict(shapes=[(2, 3, 4, 6)], factor=2),
    "var": dict(shapes=[(4, 5, 6)], axes=(0, 2), keepdims=True, unbiased=True),
    "tril": dict(shapes=[(2, 5, 4)], k=-1),
    "triu": dict(shapes=[(2, 5, 4)], k=1),
    "diag": dict(shapes=[(3, 4)]),
    "diagonal": dict(shapes=[(3, 4, 4)]),
    "trace": dict(shapes=[(3, 4, 4)]),
    "mse": dict(shapes=[(4, 5), (4, 5)], reduction="mean"),
    "huber": dict(shapes=[(4, 5), (4, 5)], delta=0.5, reduction="sum"),
    "affine_grid": dict(shapes=[(2, 2, 3)], size=(4, 5), align_corners=False),
    "cross_entropy": dict(
        shapes=[(4, 7)], labels=[0, 3, 6, 2], smoothing=0.1, axis=1, ignore=-100, reduction="mean"
    ),
}
QUICK = ("layer_norm", "group_norm", "lrn", "cross_entropy", "batch_norm_train", "tril")


@pytest.mark.parametrize("op", [c if c in QUICK else pytest.param(c, marks=slow) for c in CASES])
def test_an_op_lowers_as_simpler_ones(op):
    case = dict(CASES[op])
    check(built(op, *case.pop("shapes"), **case), 2e-5)


def test_every_expansion_is_what_its_op_is():
    """Without kernels: the interpreter on the expansion and on the op."""
    from tilth.compiler.ir.graph import Graph
    from tilth.compiler.ops.expr import Expr, Writer

    for op, case in CASES.items():
        case = dict(case)
        b = built(op, *case.pop("shapes"), **case)
        expansion = OPS[op].expansion
        if expansion is None:
            continue
        index = b.graph.outputs[0][1].node
        twin = b.graph.copy()
        writer = Writer(twin)
        made = expansion([writer.expr(v) for v in twin.operands(index)], twin.node(index).attrs)
        results = [made] if isinstance(made, Expr) else list(made)
        for place, result in enumerate(results):
            twin.set_output(f"e{place}", result.value)
        assert isinstance(twin, Graph)
        found = interpret(twin, b.inputs, b.weights, precision="f64")
        for place in range(len(results)):
            agree(found[f"e{place}"], found[f"y{place}"], 1e-12, op)


def test_a_norm_that_stays_runs_on_blocks():
    b = Build()
    x = b("conv", b.input((2, 20, 4, 4)), b.weight((20, 20, 1, 1)), stride=(1, 1),
          pad=((0, 0),) * 2, dilation=(1, 1), groups=1)  # fmt: skip
    mean, var, scale, shift = (b.weight((20,)) for _ in range(4))
    b.weights["w2"] = np.abs(b.weights["w2"]) + 0.5
    y = b("batch_norm", x, mean, var, scale, shift, eps=1e-5, momentum=0.1)
    check(b.output(b("relu", y)), 2e-5)


def test_draws_are_those_of_the_reference():
    b = Build()
    key = b.input((2,), "u64", np.array([2**63 + 5, 2**33 + 7], np.uint64))
    kinds = (("uniform", "f32"), ("normal", "f64"), ("bits", "i32"))
    outs = [
        b(f"random_{kind}", key, path=f"a.{kind}.{dtype}", shape=(3, 5), dtype=dtype)
        for kind, dtype in kinds
    ]
    p = b.input((7, 4), "f64", np.abs(b.rng.standard_normal((7, 4))))
    outs.append(b("random_categorical", p, key, path="c"))
    outs.append(b("random_permutation", key, path="p", size=23))
    b.output(*outs)
    expected = interpret(b.graph, b.inputs, b.weights)
    found = compiled(b.graph, b.weights, threads=2).run(b.inputs)
    for name, reference in expected.items():
        agree(found[name], reference, 1e-12 if reference.dtype == np.float64 else 1e-6, name)
