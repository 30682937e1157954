"""A small spec of each sort for the command line's tests, and a way to call it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from tilth.cli.main import main

NET = """\
tilth: 1
name: tiny
options: {width: 4, classes: 3}
defaults: {conv: {bias: false, init: he}}
variants:
  tiny_wide: {width: 8}
  tiny: {}
expect:
  tiny: {parameters: 131, macs: 6.9e3, depth: 2,
         at: {image: [1, 3, 8, 8]}, outputs: {logits: [1,3]}}
  tiny_wide: {parameters: 259}
model: |
  input image : f32[N, 3, H, W]
  logits = image >> conv(width, 3) as conv1 >> bn as bn1 >> relu >> gap >> linear(classes) as fc
  output logits
"""

HMM = """\
tilth: 1
name: chain
options: {K: 2, D: 1}
model: |
  input y : f32[T, D]
  param pi : simplex[K]
  param A : simplex[K, K]
  param mu : real[K, D]
  z[0] ~ categorical(pi)
  z[t] ~ categorical(A[z[t-1]]) for t in 1..T
  y[t] ~ normal(mu[z[t]], 1) for t in 0..T
"""

SHAPES_DISAGREE = """\
tilth: 1
name: bad
model: |
  input image : f32[N, 3, 8, 8]
  y = image >> (conv(4, 3) as a + conv(5, 3) as b)
  output y
"""


@pytest.fixture
def specs(tmp_path, monkeypatch):
    """A working folder with the specs in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    for name, text in (("tiny", NET), ("chain", HMM), ("bad", SHAPES_DISAGREE)):
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def tilth(capsys):
    """Call the command line in this process."""

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        written = capsys.readouterr()
        assert "Traceback" not in written.err
        return Outcome(code, written.out, written.err)

    return call
