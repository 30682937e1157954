"""The stacked hourglass has the reference's weights by name, and its numbers."""

import json

import numpy as np
import pytest
from seeded import GOLDEN, ZOO, draw_all, error, generator, golden, model_of
from tilth.compiler.interpret import interpret

CASE = "hourglass_2stack"
ROWS = json.loads((GOLDEN / "dense" / f"{CASE}.params.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model():
    return model_of(ZOO / "pose" / "stacked_hourglass.yaml", "hourglass2")


def trained(graph):
    params = (node for _, node in graph.of_op("param"))
    return {n.attrs["path"]: n.type.shape for n in params if n.attrs["kind"] != "buffer"}


def test_weights_have_the_references_names_and_shapes(model):
    reference = {name: tuple(shape) for name, shape, _, _ in ROWS}
    mine = {node.attrs["path"]: node.type.shape for _, node in model.graph.of_op("param")}
    assert mine.items() <= reference.items()
    # The reference owns a projection in every residual; where channels stay, nothing reads it.
    unused = {name: shape for name, shape in reference.items() if name not in mine}
    assert all(".skip_layer.conv." in name for name in unused)
    count = sum(int(np.prod(shape)) for shape in trained(model.graph).values())
    total = count + sum(int(np.prod(shape)) for shape in unused.values())
    assert total == golden("dense", CASE)[1]["param_count"] == 8429088
    assert count == model.envelope.expect["hourglass2"].facts["parameters"].value


def test_heatmaps(model):
    arrays, facts = golden("dense", CASE)
    image = generator(facts["input"]["key"]).standard_normal(facts["input"]["shape"])
    used = {node.attrs["path"] for _, node in model.graph.of_op("param")}
    weights = draw_all([row for row in ROWS if row[0] in used])
    heat = interpret(model.graph, {"image": image.astype(np.float32)}, weights)["heat"]
    assert heat.shape == (1, 2, 16, 32, 32)
    assert error(heat[..., ::4, ::4], arrays["out__sub"]) < 1e-3
    stats = [heat.mean(), heat.std(), np.linalg.norm(heat), np.abs(heat).max()]
    assert error(np.array(stats), arrays["out__stats"]) < 1e-3
