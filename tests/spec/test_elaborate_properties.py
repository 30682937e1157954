"""Mutated specs are refused by a located message or give a sound graph; generated nets run."""

import re
import time
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.text import parse_graph, print_graph
from tilth.compiler.ir.verify import verify
from tilth.spec.diagnostics import CODES, Reporter, SpecError
from tilth.spec.elaborate import elaborate
from tilth.spec.envelope import read_envelope

ROOT = Path(__file__).parents[2]
SPECS = sorted([*(ROOT / "zoo_specs").rglob("*.yaml"), *(ROOT / "tests/spec/elaborated").glob("*")])
SPECS = [path for path in SPECS if path.suffix == ".yaml"]
TOKEN = re.compile(r"[A-Za-z_]\w*'?|\d+(?:\.\d+)?(?:e-?\d+)?|>>|\+\+|\.\.|[<>=!]=|\s+|.", re.S)
OPERATORS = ["+", "-", "*", "/", "@", "%", "^", "|", "++", ">>", "..", "==", "<", "and", "~", "="]
NUMBERS = ["0", "1", "2", "3", "7", "64", "1.5", "1e9", "100000000000", "-1"]
SECONDS = 20.0
INTERNAL = re.compile(r"Traceback|Error\b|object at 0x|\w@\w|\w_\d+__|<class|NoneType")


def answer(text):
    """The model, or the refusal; anything else is a failure of the test."""
    reporter = Reporter()
    try:
        envelope = read_envelope(text, "mutant.yaml", reporter)
        if envelope is None:
            reporter.raise_if_failed()
        return elaborate(envelope, reporter)
    except SpecError as error:
        return error


def check(text):
    """A graph that verifies and prints round, or messages with code, place and plain words."""
    start = time.perf_counter()
    found = answer(text)
    if isinstance(found, SpecError):
        assert found.diagnostics
        for fault in found.diagnostics:
            assert fault.code in CODES and fault.message
            assert fault.span is not None or fault.code == "E014", str(found)
            words = f"{fault.message} {fault.found} {fault.hint}"
            assert not INTERNAL.search(words.replace("`", "")), words
    else:
        verify(found.graph)
        assert parse_graph(print_graph(found.graph)) == found.graph
    assert time.perf_counter() - start < SECONDS
    return found


def block_of(text):
    """Where the model block's statements begin and end."""
    begin = re.search(r"^model: \|\n", text, re.M).end()
    end = re.search(r"^\S", text[begin:], re.M)
    return begin, begin + end.start() if end else len(text)


def mutate(text, choices):
    """The text with a token-level change for each ``(kind, place, other)``."""
    begin, end = block_of(text)
    tokens = TOKEN.findall(text[begin:end])
    for kind, place, other in choices:
        solid = [i for i, token in enumerate(tokens) if not token.isspace()]
        if not solid:
            break
        here = solid[place % len(solid)]
        there = solid[other % len(solid)]
        names = [token for token in tokens if re.match(r"[A-Za-z_]", token)]
        if kind == "delete":
            tokens[here] = " "
        elif kind == "duplicate":
            tokens[here] = f"{tokens[here]} {tokens[here]}"
        elif kind == "swap":
            tokens[here], tokens[there] = tokens[there], tokens[here]
        elif kind == "number":
            numbers = [i for i in solid if tokens[i][0].isdigit()]
            if numbers:
                tokens[numbers[place % len(numbers)]] = NUMBERS[other % len(NUMBERS)]
        elif kind == "name":
            places = [i for i in solid if re.match(r"[A-Za-z_]", tokens[i])]
            if places:
                tokens[places[place % len(places)]] = names[other % len(names)]
        elif kind == "operator":
            places = [i for i in solid if tokens[i] in OPERATORS]
            if places:
                tokens[places[place % len(places)]] = OPERATORS[other % len(OPERATORS)]
        elif kind == "line":
            lines = "".join(tokens).splitlines(keepends=True)
            del lines[place % len(lines)]
            tokens = TOKEN.findall("".join(lines))
    return text[:begin] + "".join(tokens) + text[end:]


KINDS = ["delete", "duplicate", "swap", "number", "name", "operator", "line"]
CHOICE = st.tuples(st.sampled_from(KINDS), st.integers(0, 4000), st.integers(0, 4000))


@settings(max_examples=150, derandomize=True, deadline=None,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(st.sampled_from(SPECS), st.lists(CHOICE, min_size=1, max_size=3))
def test_mutants_are_refused_or_sound(path, choices):
    check(mutate(path.read_text(encoding="utf-8"), choices))
