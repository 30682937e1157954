"""Every probabilistic spec of the zoo, in every variant: its derivation agrees with enumeration."""

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


@pytest.mark.parametrize("name", NAMES)
def test_the_derivation_agrees_with_enumeration(name):
    plan, check = load(name).explain()
    assert plan.steps and plan.result.startswith("Z = ")
    assert check.worst is not None, check.reason
    assert check.agrees and check.assignments > 1
