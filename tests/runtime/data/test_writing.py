"""Text by sampling: its law, its window, its seed."""

from itertools import pairwise

import numpy as np
from scipy import stats
from tilth.runtime.data.writing import write_text

ALPHABET = "abc"
NEXT = np.array([[0.1, 0.6, 0.3], [0.5, 0.0, 0.5], [0.2, 0.2, 0.6]])


def markov(window):
    with np.errstate(divide="ignore"):
        return np.log(NEXT)[window]


def test_text_follows_its_law():
    text = write_text(markov, ALPHABET, "a", 6000, length=5)
    for first in range(3):
        after = [ALPHABET.index(y) for x, y in pairwise(text) if x == ALPHABET[first]]
        counts, want = np.bincount(after, minlength=3), NEXT[first] * len(after)
        assert np.all(counts[want == 0] == 0)
        some = want > 0
        assert stats.chisquare(counts[some], want[some]).pvalue > 1e-3


def test_the_seed_decides():
    texts = [write_text(markov, ALPHABET, "ab", 50, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2] and len(texts[0]) == 50


def test_temperatures():
    assert write_text(markov, ALPHABET, "a", 6, temperature=0) == "bababa"
    cold = write_text(markov, ALPHABET, "c", 300, temperature=0.05)
    assert cold.count("c") > 290


def test_the_model_sees_what_came_last():
    seen = []

    def scores(window):
        seen.append(window[0].tolist())
        return np.eye(3)[window] * 100

    assert write_text(scores, ALPHABET, "abcab", 2, length=4) == "bb"
    assert seen == [[1, 2, 0, 1], [2, 0, 1, 1]]
    seen.clear()
    write_text(scores, ALPHABET, "c", 2, length=4)
    assert seen == [[2, 0, 0, 0], [2, 2, 0, 0]]


def test_prompts_that_cannot_be_read(fault_of):
    for prompt, said in (("", "the prompt is empty"), ("abz", "does not know 'z'")):
        fault = fault_of(lambda p=prompt: write_text(markov, ALPHABET, p, 3))
        assert fault.code == "E802" and said in fault.message
