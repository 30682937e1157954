"""The corpus of wrong envelopes: each file's messages, to the letter.

``TILTH_UPDATE=1`` writes the expected messages anew. A case without a file is one that is absent.
"""

import os
import re
from pathlib import Path

import pytest
from tilth.spec.diagnostics import CODES, Reporter, SpecError
from tilth.spec.envelope import load_envelope

CORPUS = Path(__file__).parents[1] / "bad" / "envelope"
NAMES = sorted({path.stem for path in CORPUS.iterdir() if path.suffix in (".yaml", ".expected")})


def messages(name: str) -> str:
    reporter = Reporter()
    load_envelope(CORPUS / f"{name}.yaml", reporter, f"{name}.yaml")
    try:
        reporter.raise_if_failed()
    except SpecError as error:
        return f"{error}\n"
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_messages(name):
    found = messages(name)
    expected = CORPUS / f"{name}.expected"
    if os.environ.get("TILTH_UPDATE") == "1":
        expected.write_text(found, encoding="utf-8")
    assert found, "a case of this corpus has a fault"
    assert found == expected.read_text(encoding="utf-8")


def test_the_corpus_has_every_code_of_the_envelope():
    texts = "".join(path.read_text(encoding="utf-8") for path in CORPUS.glob("*.expected"))
    found = set(re.findall(r"error\[(E0\d\d)\]", texts))
    assert found == {code for code in CODES if code.startswith("E0")}
    assert len(NAMES) >= 60
