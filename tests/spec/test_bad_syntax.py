"""Every faulty model under tests/bad/syntax gives exactly the messages beside it."""

import os
from pathlib import Path

import pytest
from tilth.spec.diagnostics import Reporter, SpecError
from tilth.spec.formatter import format_model
from tilth.spec.parser import parse_model

CASES = sorted((Path(__file__).parents[1] / "bad" / "syntax").glob("*.tilth"))


def read(case):
    with case.open(encoding="utf-8", newline="") as stream:
        return stream.read()


def refuse(text, file):
    reporter = Reporter({file: text})
    parse_model(text, 0, len(text), file, reporter)
    with pytest.raises(SpecError) as refusal:
        reporter.raise_if_failed()
    return refusal.value


def test_corpus_is_there():
    assert len(CASES) >= 80
    assert {p.stem for p in CASES[0].parent.glob("*.expected")} == {p.stem for p in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.stem)
def test_messages(case):
    error = refuse(read(case), case.name)
    golden = case.with_suffix(".expected")
    if os.environ.get("TILTH_UPDATE") == "1":
        golden.write_text(str(error) + "\n", encoding="utf-8")
    assert str(error) + "\n" == golden.read_text(encoding="utf-8")


def test_every_code_of_the_syntax_is_met():
    met = {d.code for case in CASES for d in refuse(read(case), case.name).diagnostics}
    assert met == {"E201", "E202", "E203", "E205", "E206", "E207"}


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.stem)
def test_the_formatter_refuses_with_the_same_messages(case):
    text = read(case)
    with pytest.raises(SpecError) as refusal:
        format_model(text, case.name)
    assert str(refusal.value) == str(refuse(text, case.name))
