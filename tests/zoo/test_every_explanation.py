"""Every probabilistic spec of the zoo, in every variant: what is explained agrees with enumeration,
and what it approximates does what theory says.
"""

from pathlib import Path

import pytest
import tilth
from tilth.program import load

FOLDER = Path(tilth.__file__).parent / "zoo_specs" / "probabilistic"
NAMES = sorted(
    name
    for path in FOLDER.glob("*.yaml")
    for name in (load(path).variants or (path.stem,))
)  # fmt: skip


APPROXIMATE = {
    "ising": ["bp"], "dense_crf": ["meanfield"], "dense_crf_normalised": ["meanfield"],
    "crf_as_rnn": ["meanfield"],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_derivation_agrees_with_enumeration(name):
    found = load(name).explain()
    plan, check = found.plan, found.check
    assert plan.steps and plan.result.startswith("Z = ")
    assert check.worst is not None, check.reason
    assert check.agrees and check.assignments > 1
    asked = [row.asked.method for row in found.approximations]
    assert asked == APPROXIMATE.get(name, [])
    for row in found.approximations:
        assert any(finding.exact for finding in row.findings), row.reason
        assert row.agrees and row.cost and row.memory
