"""Models, weights and data that inference refuses, with the exact message for each.

``tests/bad/inference/NAME.yaml`` is asked about ``DATA`` with ``WEIGHTS``; ``TILTH_UPDATE=1``
writes what was said.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import tilth
from tilth.program import load

CASES = sorted((Path(__file__).parents[1] / "bad" / "inference").glob("*.yaml"))
HMM = {"pi": [0.5, 0.5], "A": [[0.5, 0.5], [0.5, 0.5]], "mu": [0.0, 1.0]}
WEIGHTS = {
    "row_too_little": {**HMM, "A": [[0.5, 0.5], [0.6, 0.3999]]},
    "row_negative": {**HMM, "A": [[1.1, -0.1], [0.5, 0.5]]},
    "spread_not_positive": {**HMM, "s": -2.0},
    "symbol_outside": {"pi": HMM["pi"], "A": HMM["A"], "B": np.full((2, 4), 0.25)},
    "count_negative": {**HMM, "mu": [1.0, 2.0]},
    "observation_infinite": HMM,
    "given_outside": HMM,
}
DATA = {
    "symbol_outside": {"y": [0, 3, 4]},
    "count_negative": {"y": [5, -1, 2]},
    "observation_infinite": {"y": [0.0, 1.0, np.inf]},
    "given_outside": {"y": [0.0, 1.0, 2.0], "z": [0, 2, 1]},
}


def ask(case):
    program = load(case)
    if case.stem == "drawn_from_itself":
        return program.simulate({"T": 3})
    sizes = {"T": 3, "M": 3, "L": 3}
    empty = {
        name: np.zeros([sizes[str(d)] for d in kind.shape]) for name, kind in program.inputs.items()
    }
    data = DATA.get(case.stem, empty)
    if case.stem == "parameter_of_a_factor":
        return program.fit(data)
    return program.query(data, ["loglik"], WEIGHTS.get(case.stem))


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.stem)
def test_messages(case, monkeypatch):
    monkeypatch.chdir(case.parent)
    with pytest.raises(tilth.SpecError) as caught:
        ask(case)
    golden = case.with_suffix(".expected")
    if os.environ.get("TILTH_UPDATE") == "1":
        golden.write_text(f"{caught.value}\n", encoding="utf-8")
    assert f"{caught.value}\n" == golden.read_text(encoding="utf-8")


def test_the_corpus_is_whole():
    folder = CASES[0].parent
    assert len(CASES) >= 16
    assert {p.stem for p in folder.glob("*.expected")} == {p.stem for p in CASES}
    assert {*WEIGHTS, *DATA} <= {p.stem for p in CASES}
