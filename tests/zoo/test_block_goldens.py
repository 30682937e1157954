"""Blocks of the zoo's specs alone, and their gradients, against the references'."""

import numpy as np
import pytest
from seeded import ZOO, draw_all, error, generator, golden
from tilth.compiler.autodiff import adjoint, gradient_name
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.graph import Value
from tilth.spec.diagnostics import Reporter
from tilth.spec.elaborate import elaborate
from tilth.spec.envelope import read_envelope

BLOCKS = {
    "block_se_reduction4": ("senet", "squeeze_excite", ("reduction=4",)),
    "block_scconv": ("scnet", "self_calibrated(8, 1)", ("rate=4",)),
    "block_igc_l4m3": ("igc", "block", ("L=4", "M=3")),
}


def block(name, call, overrides, shape):
    """A definition of a spec, with its options, as the whole net."""
    text = (ZOO / "classification" / f"{name}.yaml").read_text(encoding="utf-8")
    definitions, found, _ = text.partition("\n  input image")
    assert found
    size = ", ".join(map(str, shape))
    text = f"{definitions}\n  input x : f32[{size}]\n  y = x >> {call}\n  output y\n"
    reporter = Reporter({})
    envelope = read_envelope(text, f"{name}.yaml", reporter)
    reporter.raise_if_failed()
    return elaborate(envelope, reporter, None, overrides, None).graph


@pytest.mark.parametrize("case", BLOCKS)
def test_a_block_and_its_gradient_are_the_references(case):
    arrays, facts = golden("ops", case)
    x = arrays["in_x"].astype(np.float64)
    graph = block(*BLOCKS[case], x.shape)
    weights = draw_all(facts["params"])
    assert weights.keys() == {str(n.attrs["path"]) for _, n in graph.of_op("param")}
    y = interpret(graph, {"x": x}, weights, precision="f64")["y"]
    assert error(y, arrays["y"]) < 1e-6
    made = adjoint(graph, [Value(graph.inputs[0])], ["x"])
    seed = generator(f"cot:{case}:y").standard_normal(y.shape)
    found = interpret(made, {"x": x, "d(y)": seed}, weights, precision="f64")
    assert error(found[gradient_name("x")], arrays["grad_x"]) < 1e-6
