"""Sketches, examples of the language page and zoo specs elaborate to the graphs written down."""

import os
from collections import Counter
from pathlib import Path

import pytest
from tilth.compiler.ir.text import parse_graph, print_graph
from tilth.compiler.ir.verify import verify
from tilth.spec.diagnostics import Reporter
from tilth.spec.elaborate import elaborate
from tilth.spec.envelope import read_envelope

CORPUS = Path(__file__).with_name("elaborated")
ZOO = Path(__file__).parents[2] / "zoo_specs"
ZOO_SPECS = (
    "pose/stacked_hourglass",
    *(f"recurrent/{name}" for name in ("rnn", "lstm", "lstm_peephole", "lstm_coupled")),
    *(f"recurrent/{name}" for name in ("gru", "sru", "birnn", "mdrnn")),
    *(f"probabilistic/{name}" for name in ("hmm", "hmm_categorical", "gmm", "naive_bayes")),
    *(f"probabilistic/{name}" for name in ("linear_chain_crf", "dense_crf", "crf_as_rnn")),
    "probabilistic/ising",
    *(f"decision/{name}" for name in ("gridworld", "cliff_walking", "frozen_lake", "taxi")),
    *(f"decision/{name}" for name in ("random_walk", "gamblers_problem", "inventory")),
)


def read(path):
    """The envelope of a spec file, under the file's own name (graphs keep it)."""
    reporter = Reporter({})
    envelope = read_envelope(path.read_text(encoding="utf-8"), path.name, reporter)
    reporter.raise_if_failed()
    return envelope, reporter


def cases():
    for path in sorted(CORPUS.glob("*.yaml")):
        for variant in read(path)[0].variants or [None]:
            yield path, variant, CORPUS / golden_name(path, variant)
    for name in ZOO_SPECS:
        path = ZOO / f"{name}.yaml"
        for variant in read(path)[0].variants or [None]:
            yield path, variant, CORPUS / "zoo" / golden_name(path, variant)


def golden_name(path, variant):
    return f"{path.stem}.{variant}.graph.txt" if variant else f"{path.stem}.graph.txt"


CASES = list(cases())


def describe(graph):
    """What a spec promises: weights, inputs, outputs, sizes that must agree, and how many ops."""
    lines = []
    for _, node in graph.of_op("param"):
        domain = "" if node.attrs["domain"] == "real" else f" {node.attrs['domain']}"
        lines.append(f"weight {node.attrs['path']} {node.type} {node.attrs['kind']}{domain}")
    lines += [f"input {graph.node(i).name} {graph.node(i).type}" for i in graph.inputs]
    lines += [f"output {name} {graph.type_of(value)}" for name, value in graph.outputs]
    lines += [f"where {c.left} = {c.right} ({c.why})" for c in graph.constraints]
    for op, count in sorted(count_ops(graph).items()):
        lines.append(f"op {op} {count}")
    return "\n".join(lines) + "\n"


def count_ops(graph, prefix=""):
    counts = Counter()
    for _, node in graph.nodes():
        if node.op not in ("input", "param"):
            counts[prefix + node.op] += 1
        for region in node.regions:
            counts.update(count_ops(region, f"{prefix}{node.op}/"))
    return counts


def test_corpus_is_there():
    assert len({path for path, _, _ in CASES}) >= 60
    goldens = set(CORPUS.rglob("*.graph.txt"))
    assert goldens == {golden for _, _, golden in CASES}


@pytest.mark.parametrize(
    ("path", "variant", "golden"), CASES, ids=[golden.name[:-10] for _, _, golden in CASES]
)
def test_graph(path, variant, golden):
    envelope, reporter = read(path)
    graph = elaborate(envelope, reporter, variant).graph
    verify(graph)
    assert parse_graph(print_graph(graph)) == graph
    found = describe(graph)
    if os.environ.get("TILTH_UPDATE") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")
