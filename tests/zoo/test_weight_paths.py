"""Every classifier's weights in order, and its outputs, as written down in ``paths/``.

``TILTH_UPDATE=1`` writes the files anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tilth import zoo
from tilth.compiler.ir.types import shape_text
from tilth.compiler.ir.verify import verify
from tilth.proof import prove

PATHS = Path(__file__).with_name("paths")
FAMILIES = ("classification", "compression")
ENTRIES = [entry for entry in zoo.entries() if entry.family in FAMILIES]
VARIANTS = [name for entry in ENTRIES for name in entry.variants or (entry.name,)]


def describe(graph):
    lines = [
        f"{node.attrs['path']} {shape_text(node.type.shape)} {node.attrs['kind']}"
        for _, node in graph.of_op("param")
    ]
    lines += [f"-> {name} {shape_text(graph.type_of(v).shape)}" for name, v in graph.outputs]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", VARIANTS)
def test_weight_paths(name, zoo_model):
    found = describe(zoo_model(name).graph)
    golden = PATHS / f"{name}.txt"
    if os.environ.get("TILTH_UPDATE") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_facts_of_the_paper_hold(name, zoo_model):
    model = zoo_model(name)
    verify(model.graph)
    report = prove(model, model.graph, set)
    assert not report.diagnostics
    assert {"parameters"} <= {proof.name for proof in report.proofs}
    assert all(proof.proven for proof in report.proofs)


def test_no_file_is_left_over():
    assert {path.stem for path in PATHS.glob("*.txt")} == set(VARIANTS)
