"""Latent-variable models beside hmmlearn and scikit-learn: refusals, rows, and both sides agree."""

import json
import sys

import numpy as np
import pytest
import tilth
from tilth.bench import latent
from tilth.bench.latent import LatentRow, compare_latent
from tilth.cli.main import main
from tilth.runtime.faults import RuntimeFault

QUESTIONS = {
    "hmmlearn": [("score", "log"), ("score", "scaling"), ("posteriors", "log"),
                 ("posteriors", "scaling"), ("viterbi", "log"), ("em", "log"), ("em", "scaling")],
    "sklearn": [("em, 3 rounds", "")],
}  # fmt: skip


def small(name):
    return tilth.load(name, set=["K=3", "D=2"])


@pytest.mark.parametrize(("name", "peer"), [("hmm", "sklearn"), ("gmm", "hmmlearn"),
                                            ("hmm_full", "hmmlearn")])  # fmt: skip
def test_a_peer_without_the_model_is_refused(name, peer):
    with pytest.raises(RuntimeFault) as caught:
        compare_latent(small(name), peer, 50, 1)
    assert caught.value.code == "E408" and peer in caught.value.message


def test_a_peer_that_is_missing_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "hmmlearn.hmm", None)
    monkeypatch.setitem(sys.modules, "hmmlearn", None)
    with pytest.raises(RuntimeFault) as caught:
        compare_latent(small("hmm"), "hmmlearn", 50, 1)
    assert caught.value.code == "E804" and caught.value.hint == "pip install hmmlearn"


def row(monkeypatch, ours, theirs, seconds, tolerance=1e-6):
    """The row of a question whose calls take the given seconds: ours and theirs, round by round."""
    taken = iter(seconds)
    monkeypatch.setattr(latent, "_seconds", lambda call: next(taken))
    monkeypatch.setattr(latent.metadata, "version", lambda package: "1.0")
    question = latent._Question("score", lambda: (ours,), {"log": lambda: (theirs,)}, tolerance)
    return latent._row("hmm", "hmmlearn", (3, 2), 50, question, "log", len(seconds) // 2)


def test_a_row_has_medians_and_the_median_of_paired_ratios(monkeypatch):
    same = np.ones(4)
    found = row(monkeypatch, same, same, [0.001, 0.010, 0.002, 0.040, 0.004, 0.080])
    assert (found.ms, found.peer_ms, found.ratio) == pytest.approx((2.0, 40.0, 20.0))
    assert found.agrees and found.difference == 0
    assert LatentRow(**json.loads(json.dumps(found.as_json()))) == found


def test_answers_that_differ_do_not_agree(monkeypatch):
    ours, theirs = np.array([1.0, 100.0]), np.array([1.5, 100.0])
    found = row(monkeypatch, ours, theirs, [1.0, 1.0])
    assert not found.agrees and found.difference == pytest.approx(0.5 / 100)
    assert row(monkeypatch, ours, theirs, [1.0, 1.0], tolerance=0.01).agrees


@pytest.mark.peer
@pytest.mark.parametrize(("name", "peer"), [("hmm", "hmmlearn"), ("gmm", "sklearn")])
def test_both_sides_agree_on_every_question(name, peer):
    # The round of EM too: from the same parameters, one E-step and one M-step give the same ones.
    pytest.importorskip(peer, reason="the peer is not installed")
    rows = compare_latent(small(name), peer, 400, 1)
    assert [(r.question, r.setting) for r in rows] == QUESTIONS[peer]
    for found in rows:
        assert found.agrees, f"{found.question} {found.setting}: {found.difference}"
        assert (found.states, found.dims, found.count) == (3, 2, 400)
        assert found.ms > 0 and found.peer_ms > 0 and found.ratio > 0


@pytest.mark.peer
def test_rows_are_printed_and_kept(tmp_path, capsys):
    pytest.importorskip("hmmlearn", reason="the peer is not installed")
    call = ["bench", "hmm", "--against", "hmmlearn", "--set", "K=3", "--set", "D=2"]
    call += ["--shape", "T=300", "--rounds", "1", "--json", "--save", str(tmp_path)]
    assert main(call) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [r["question"] for r in shown] == [q for q, _ in QUESTIONS["hmmlearn"]]
    (file,) = tmp_path.glob("*/latent/hmm.json")
    kept = json.loads(file.read_text())["rows"]
    assert len(kept) == len(shown) and all(r["count"] == 300 for r in kept)
