"""Classifiers of the zoo have the weights of torchvision's, timm's and the authors' nets.

Names and shapes of all weights, parameter and multiply-accumulate counts, and the logits at a
small input are those of the reference nets.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache

import numpy as np
import pytest
from seeded import GOLDEN, draw, error, generator
from tilth.compiler.cost import cost
from tilth.compiler.interpret import interpret

NETS = GOLDEN / "classification"
MANIFEST = json.loads((NETS / "manifest.json").read_text(encoding="utf-8"))
OVERRIDES = {"nasnetalarge": ("side=96",)}
"""Its padding depends on the input's size, which is therefore an option."""
TOLERANCE = 1e-4


@cache
def parameters(net):
    """Rows of name, shape, kind and scale, in state-dict order."""
    rows = json.loads((NETS / f"{net}.params.json").read_text(encoding="utf-8"))
    return [(name, tuple(shape), kind, scale) for name, shape, kind, scale in rows]


@pytest.mark.parametrize("net", MANIFEST)
def test_weights_have_the_names_and_shapes_of_the_reference(net, zoo_model):
    graph = zoo_model(net).graph
    found = {str(node.attrs["path"]): node.type.shape for _, node in graph.of_op("param")}
    assert found == {name: shape for name, shape, _, _ in parameters(net)}


@pytest.mark.parametrize("net", MANIFEST)
def test_running_statistics_are_buffers(net, zoo_model):
    graph = zoo_model(net).graph
    buffers = {str(n.attrs["path"]) for _, n in graph.of_op("param") if n.attrs["kind"] == "buffer"}
    assert buffers == {name for name, _, kind, _ in parameters(net) if kind in ("mean", "var")}


@pytest.mark.parametrize("net", MANIFEST)
def test_parameters_and_macs_are_those_of_the_reference(net, zoo_model):
    _, _, height, width = MANIFEST[net]["macs_input"]
    graph = zoo_model(net).graph
    total = cost(graph, {"H": height, "W": width} if graph.symbols - {"N"} else {})
    assert total.parameters == MANIFEST[net]["parameters"]
    assert total.macs == MANIFEST[net]["macs"]


@pytest.mark.parametrize("net", MANIFEST)
def test_logits_are_those_of_the_reference(net, zoo_model, weights_of, logits):
    graph = zoo_model(net, *OVERRIDES.get(net, ())).graph
    found = interpret(graph, {"image": image_of(net)}, weights_of(net))
    assert set(found) == {"logits"}
    assert found["logits"].shape == logits[net].shape
    assert error(found["logits"], logits[net]) < TOLERANCE


def image_of(net):
    """The input that the stored logits answer."""
    row = MANIFEST[net]
    image = generator(row["input_key"]).standard_normal(row["input"]).astype(np.float32)
    assert hashlib.sha256(image.tobytes()).hexdigest() == row["input_sha256"]
    return image


@pytest.fixture(scope="module")
def logits():
    with np.load(NETS / "logits.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def weights_of():
    """The weights of a net; large ones are kept, as several nets share them."""
    large = {}

    def weights(net):
        made = {}
        for row in parameters(net):
            name, shape, _, _ = row
            tensor = large.get(row)
            if tensor is None:
                tensor = draw(*row)
                if np.prod(shape) >= 1e7:
                    large[row] = tensor
            made[name] = tensor
        return made

    yield weights
    large.clear()
