"""Classifiers of the zoo have the weights of torchvision's, timm's and the authors' nets.

Names and shapes of all weights, parameter and multiply-accumulate counts, and the logits at a
small input are those of the reference nets.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tilth.compiler.cost import cost
from tilth.compiler.interpret import interpret

GOLDEN = Path(__file__).parent.parent / "golden" / "classification"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
OVERRIDES = {"nasnetalarge": ("side=96",)}
"""Its padding depends on the input's size, which is therefore an option."""
TOLERANCE = 1e-4


@cache
def parameters(net):
    """Rows of name, shape, kind and scale, in state-dict order."""
    rows = json.loads((GOLDEN / f"{net}.params.json").read_text())
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
def test_logits_are_those_of_the_reference(net, zoo_model, weights_of, reference_input, logits):
    row = MANIFEST[net]
    image = reference_input(row["input_key"], row["input"], row["input_sha256"])
    graph = zoo_model(net, *OVERRIDES.get(net, ())).graph
    found = interpret(graph, {"image": image}, weights_of(net))
    assert set(found) == {"logits"}
    assert found["logits"].shape == logits[net].shape
    error = np.abs(found["logits"] - logits[net]).max() / np.abs(logits[net]).max()
    assert error < TOLERANCE


@pytest.fixture(scope="module")
def logits():
    with np.load(GOLDEN / "logits.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def weights_of(det):
    """The weights of a net; large ones are kept, as several nets share them."""
    large = {}

    def weights(net):
        made = {}
        for name, shape, kind, scale in parameters(net):
            if np.prod(shape) < 1e7:
                made[name] = det(name, shape, kind, scale)
                continue
            key = (name, shape, scale)
            if key not in large:
                large[key] = det(name, shape, kind, scale)
            made[name] = large[key]
        return made

    yield weights
    large.clear()
