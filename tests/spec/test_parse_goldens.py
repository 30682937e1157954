"""Every example of the language page and every sketch parses to the tree beside it."""

import os
from pathlib import Path

import pytest
from tilth.spec.diagnostics import Reporter
from tilth.spec.formatter import format_model
from tilth.spec.parser import parse_model
from tilth.spec.syntax import dump, walk

CORPUS = Path(__file__).with_name("corpus")
MODELS = sorted(CORPUS.glob("*.tilth"))


def parse(text, name):
    reporter = Reporter({name: text})
    statements = parse_model(text, 0, len(text), name, reporter)
    reporter.raise_if_failed()
    return statements


def test_corpus_is_there():
    assert len(MODELS) >= 80
    assert {p.stem for p in CORPUS.glob("*.tree")} == {p.stem for p in MODELS}


@pytest.mark.parametrize("model", MODELS, ids=lambda p: p.stem)
def test_tree(model):
    text = model.read_text(encoding="utf-8")
    tree = "".join(dump(statement) + "\n" for statement in parse(text, model.name))
    golden = model.with_suffix(".tree")
    if os.environ.get("TILTH_UPDATE") == "1":
        golden.write_text(tree, encoding="utf-8")
    assert tree == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("model", MODELS, ids=lambda p: p.stem)
def test_spans_cover_the_text(model):
    text = model.read_text(encoding="utf-8")
    for node in (n for statement in parse(text, model.name) for n in walk(statement)):
        assert 0 <= node.span.start < node.span.end <= len(text)
        before = text[: node.span.start]
        assert node.span.line == before.count("\n") + 1
        assert node.span.column == len(before) - before.rfind("\n")


@pytest.mark.parametrize("model", MODELS, ids=lambda p: p.stem)
def test_formatted_text_has_the_same_tree(model):
    text = model.read_text(encoding="utf-8")
    styled = format_model(text)
    assert parse(styled, model.name) == parse(text, model.name)
    assert format_model(styled) == styled
