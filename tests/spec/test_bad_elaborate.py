"""The corpus of specs that parse but mean nothing: each file's messages, to the letter.

``TILTH_UPDATE=1`` writes the expected messages anew.
"""

import os
import re
from pathlib import Path

import pytest
from tilth.spec.diagnostics import CODES, Reporter, SpecError
from tilth.spec.elaborate import elaborate
from tilth.spec.envelope import read_envelope

BAD = Path(__file__).parents[1] / "bad"
CASES = sorted((BAD / "elaborate").glob("*.yaml"))

ELSEWHERE = {
    "E613": "compiler/test_questions.py",
    "E614": "compiler/test_beliefs.py",
    "E801": "runtime/test_weights.py",
    "E802": "runtime/test_inputs.py",
    "E803": "runtime/test_inputs.py",
    "E805": "spec/test_constraints.py",
    "E806": "runtime/test_outputs.py",
    "E807": "runtime/data/test_bad_data.py",
    "E808": "runtime/train/test_checkpoints.py",
    "E809": "compiler/autodiff/test_backward.py",
    "E810": "runtime/train/test_loop.py",
    "E901": "cli/test_check.py",
}
"""Codes that no spec gives on its own: it takes weights, inputs or a run to meet them."""


def refuse(case):
    reporter = Reporter()
    with pytest.raises(SpecError) as refusal:
        envelope = read_envelope(case.read_text(encoding="utf-8"), case.name, reporter)
        assert envelope is not None
        elaborate(envelope, reporter)
    return refusal.value


def test_corpus_is_there():
    assert len(CASES) >= 120
    assert {p.stem for p in CASES[0].parent.glob("*.expected")} == {p.stem for p in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.stem)
def test_messages(case):
    error = refuse(case)
    golden = case.with_suffix(".expected")
    if os.environ.get("TILTH_UPDATE") == "1":
        golden.write_text(f"{error}\n", encoding="utf-8")
    assert f"{error}\n" == golden.read_text(encoding="utf-8")
    places = [(d.span.line, d.span.column) for d in error.diagnostics]
    assert places == sorted(places)


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.stem)
def test_messages_say_nothing_of_the_inside(case):
    text = case.with_suffix(".expected").read_text(encoding="utf-8")
    messages = [line for line in text.splitlines() if not re.match(r" *\d* \| ", line)]
    for word in ("Traceback", "Error:", "Tensor(", "Span(", "None", "dtype='", "@t", "__"):
        assert not any(word in line for line in messages), word


def test_every_code_has_a_case():
    texts = [path.read_text(encoding="utf-8") for path in BAD.rglob("*.expected")]
    met = {code for text in texts for code in re.findall(r"(?:error|warning)\[(E\d\d\d)\]", text)}
    assert met | set(ELSEWHERE) == set(CODES)
    assert not met & set(ELSEWHERE)
    for code, file in ELSEWHERE.items():
        assert code in (BAD.parent / file).read_text(encoding="utf-8")
