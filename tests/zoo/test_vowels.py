"""A two-state hidden Markov model tells vowels from consonants in real English text."""

import runpy
from pathlib import Path

import numpy as np
from tilth.program import load

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "vowels.py"))


def test_vowels_come_out_of_english_text():
    letters = EXAMPLE["letters"]()
    assert letters.shape == (200, 50)
    found = load("letters").fit({"letter": letters}, EXAMPLE["start"](), iterations=60, tol=0.1)
    vowels, consonants = EXAMPLE["groups"](found.params["B"])
    assert set("aeiou") <= set(vowels) and len(vowels) <= 9
    assert set("bcdfklmnpqrstvwxz") <= set(consonants)
    # A vowel is seldom followed by a vowel.
    state = found.params["B"][:, 4].argmax()
    assert found.params["A"][state, state] < 0.5
    assert np.all(np.diff(found.history) >= -1e-6)
