"""Every spec of the zoo states facts, and they hold for each variant that they are about."""

from pathlib import Path

import pytest
from tilth.program import load
from tilth.spec.diagnostics import Reporter
from tilth.spec.envelope import load_envelope

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "zoo_specs").glob("*/*.yaml"))
# Proven in test_weight_paths already, with their weights.
ELSEWHERE = ("classification", "compression")


def named(path):
    reporter = Reporter()
    envelope = load_envelope(path, reporter)
    assert envelope is not None and not reporter.failed
    return envelope


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_facts_are_stated_for_known_variants(path):
    envelope = named(path)
    assert envelope.expect, "a spec of the zoo states what is known of its model"
    assert set(envelope.expect) <= {envelope.name, *envelope.variants}
    assert envelope.title and envelope.source and envelope.implements


CASES = [
    (path, variant)
    for path in SPECS
    if path.parent.name not in ELSEWHERE
    for variant in named(path).expect
]


@pytest.mark.parametrize(("path", "variant"), CASES, ids=lambda x: getattr(x, "stem", x))
def test_facts_hold(path, variant):
    report = load(str(path), variant=variant).check()
    assert report.proofs and all(proof.proven for proof in report.proofs)
    assert not [d for d in report.diagnostics if d.severity == "error"]
