"""The parser never raises and always answers soon, whatever it is given."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilth.spec.diagnostics import Reporter, render_all
from tilth.spec.formatter import format_formula, format_model
from tilth.spec.layout import EXPRESSION_WORDS, MAX_FAULTS, STATEMENT_WORDS
from tilth.spec.parser import lark, parse_formula, parse_model
from tilth.spec.syntax import dump

SECONDS = 10.0
"""Of processor time: what grows exponentially takes longer by far, a busy machine does not."""
WORDS = [
    *"()[]{},:=~+-*/@%^|.<>#\"'$\n", ">>", "++", "==", "..", "sum{", "E{", "}", "x", "f(", "x[",
    "s'", "1", "2.5", "1e9", '"a"', "\n", " ", "\n  ", "é", "\t", "\r\n", *STATEMENT_WORDS,
    *EXPRESSION_WORDS,
]  # fmt: skip
soups = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
glued = st.lists(st.sampled_from(WORDS), max_size=60).map("".join)


def answer(text):
    """The statements and the faults of a text; fails when they take too long."""
    lark()
    reporter = Reporter({"m": text})
    before = time.process_time()
    statements = parse_model(text, 0, len(text), "m", reporter)
    assert time.process_time() - before < SECONDS
    return statements, reporter.diagnostics


def check_any_text(text):
    statements, faults = answer(text)
    assert isinstance(render_all(faults, {"m": text}), str)
    assert len(faults) <= 2 * MAX_FAULTS
    for statement in statements:
        assert dump(statement)
    reporter = Reporter({"m": text})
    formula = parse_formula(text, 0, len(text), "m", reporter)
    assert formula is None or not reporter.diagnostics
    if not faults:
        styled = format_model(text)
        assert format_model(styled) == styled
    if formula is not None:
        styled = format_formula(text)
        assert format_formula(styled) == styled


@settings(max_examples=300, deadline=None)
@given(soups | glued)
def test_token_soup(text):
    check_any_text(text)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_bytes(data):
    check_any_text(data.decode("utf-8", "replace"))
    check_any_text(data.decode("latin-1"))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=100))
def test_unicode(text):
    check_any_text(text)


JUNK = {
    "dollars": "$" * 100_000,
    "dollars on lines": "$\n" * 50_000,
    "quotes": '"' * 100_000,
    "new lines": "\n" * 100_000,
    "a comment": "#" * 100_000,
    "backslashes": "y = a \\\n" * 12_000,
    "one word": "x" * 100_000,
    "words": "x " * 50_000,
    "keywords": "def " * 25_000,
    "keywords on lines": "def\n" * 25_000,
    "equals on lines": "y = = 2\n" * 12_000,
    "open calls on lines": "y = f(1\n" * 12_000,
    "unicode": "\u2028\u0662\u00e9\x0b\x0c\ufeff" * 16_000,
    "bytes": bytes(i * i % 251 for i in range(100_000)).decode("latin-1"),
    "closing": ")]}" * 33_000,
    "soup": " ".join(WORDS[i * i * 7 % 83 % len(WORDS)] for i in range(30_000)),
}


@pytest.mark.parametrize("name", JUNK)
def test_a_hundred_kilobytes_of_junk(name):
    assert len(JUNK[name]) >= 75_000
    _, faults = answer(JUNK[name])
    assert len(faults) <= 2 * MAX_FAULTS


DEEP = {
    "brackets": "y = " + "(" * 10_000 + "x" + ")" * 10_000,
    "open brackets": "y = " + "(" * 10_000,
    "mixed brackets": "y = " + "f([" * 5_000,
    "blocks": "def f() " + "{ def g() " * 5_000 + "{ x = 1 }" + "}" * 5_000,
    "braces": "{" * 10_000,
    "a sum": "y = " + " + ".join(["x"] * 20_000),
    "minuses": "y = " + "- " * 5_000 + "x",
    "nots": "y = " + "not " * 5_000 + "x",
    "conditions": "y = " + "if a then b else " * 3_000 + "x",
    "calls": "y = f" + "(1)" * 5_000,
    "subscripts": "y = x" + "[1]" * 5_000,
    "members": "y = v" + ".w" * 5_000,
    "reducers": "y = " + "sum{k} " * 5_000 + "x",
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_trees_are_refused(name):
    statements, faults = answer(DEEP[name] + "\nz = 1" * (name != "open brackets"))
    assert faults[0].code == "E207" and len(faults) == 1
    assert len(statements) <= 1


def test_a_long_chain_is_not_deep():
    ((equation,), faults) = answer("y = " + " >> ".join(["x"] * 10_000))
    assert not faults
    assert len(equation.value.parts) == 10_000


def test_nesting_up_to_the_limit_is_handled_everywhere():
    for text in ("y = " + "(" * 59 + "x" + ")" * 59, "y = " + " + ".join(["x"] * 140)):
        ((equation,), faults) = answer(text)
        assert not faults
        assert hash(equation) == hash(equation) and equation == equation and repr(equation)
        assert dump(equation) and format_model(text) == text + "\n"


@pytest.mark.parametrize("number", ["9" * 400, "9" * 100_000, "1e999", "1e" + "9" * 5_000])
def test_numbers_beyond_floats_are_refused(number):
    statements, faults = answer(f"y = {number}\nx = 1")
    assert [d.code for d in faults] == ["E201"]
    assert len(statements) == 1


def test_other_digits_are_no_numbers():
    assert [d.code for d in answer("y = \u0661")[1]] == ["E202"]
