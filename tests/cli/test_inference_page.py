"""docs/inference.md is true: its commands and its Python run, and print what stands below them.

``TILTH_UPDATE=1`` writes what the commands print into the page.
"""

import doctest
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "inference.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


def commands(block):
    """``(command, what the page shows below it)``."""
    rows = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(row.partition("\n")[0], row.partition("\n")[2]) for row in rows]


def same(found, shown):
    """Equal words, and numbers that differ by rounding at most; tiny ones are rounding itself."""
    if NUMBER.sub("#", found).split() != NUMBER.sub("#", shown).split():
        return False
    a, b = ([float(x) for x in NUMBER.findall(text)] for text in (found, shown))
    return len(a) == len(b) and np.allclose(a, b, rtol=1e-4, atol=1e-10)


def without_time(text):
    return re.sub(r"[\d.]+ s\b", "TIME s", text)


@pytest.fixture
def updated():
    """The page, written anew in the end where that is asked for."""
    rows = {"text": PAGE.read_text(encoding="utf-8")}
    yield rows
    if os.environ.get("TILTH_UPDATE") == "1":
        PAGE.write_text(rows["text"], encoding="utf-8")


def test_what_stands_there_happens(tilth, tmp_path, monkeypatch, updated):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    names, ran = {}, 0
    for kind, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "python":
            test = doctest.DocTestParser().get_doctest(block, names, "inference.md", str(PAGE), 0)
            failures = []
            runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
            done = runner.run(test, out=failures.append, clear_globs=False)
            assert not done.failed, "".join(failures)
            names, ran = test.globs, ran + done.attempted
            continue
        if kind:
            continue
        made = ""
        for command, shown in commands(block):
            done = tilth(*shlex.split(command.removeprefix("tilth ")))
            assert done.code == 0, done.err
            made += f"$ {command}\n{done.out}"
            ran += 1
            if os.environ.get("TILTH_UPDATE") != "1":
                assert same(without_time(done.out), without_time(shown)), done.out
        updated["text"] = updated["text"].replace(f"```\n{block}```", f"```\n{made}```", 1)
    assert ran > 20


def test_it_names_every_question_spec_and_estimator():
    from tilth import estimators
    from tilth.inference import ASKS, METHODS

    text = PAGE.read_text(encoding="utf-8")
    specs = [path.stem for path in (PAGE.parents[1] / "zoo_specs" / "probabilistic").glob("*.yaml")]
    named = [n for n in vars(estimators) if re.fullmatch(r"[A-Z]\w+(Mixture|HMM|NB)", n)]
    assert len(named) >= 6 and len(specs) >= 13
    for name in (*ASKS, *METHODS, *specs, *named):
        assert re.search(rf"\b{name}\b", text), name
