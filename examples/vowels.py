"""Vowels and consonants, found by a two-state hidden Markov model in English text.

Nobody tells it which letters are which: it only reads some thousand letters of the licence that
ships with Python (Cave, Neuwirth: Hidden Markov models for English, 1980).
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz "
ROWS, LENGTH = 200, 50


def text() -> str:
    """English text that comes with Python: its licence, or else the topics of its help."""
    licence = Path(os.__file__).with_name("LICENSE.txt")
    if licence.is_file():
        return licence.read_text(encoding="utf-8")
    from pydoc_data.topics import topics

    return " ".join(topics[name] for name in sorted(topics))


def letters() -> np.ndarray:
    """Letters and spaces by number, as many rows of one length: ``i32[200, 50]``."""
    plain = re.sub(r"[^a-z]+", " ", text().lower())
    numbers = np.array([LETTERS.index(letter) for letter in plain[: ROWS * LENGTH]], np.int32)
    return numbers[: len(numbers) // LENGTH * LENGTH].reshape(-1, LENGTH)


def start(seed: int = 0) -> dict[str, np.ndarray]:
    """Where EM begins: states that take turns more often than not, letters nearly at random."""
    emission = np.random.default_rng(seed).dirichlet(np.full(len(LETTERS), 50.0), 2)
    return {
        "pi": np.array([0.5, 0.5]),
        "A": np.array([[0.3, 0.7], [0.7, 0.3]]),
        "B": emission,
    }


def groups(emission: np.ndarray) -> tuple[str, str]:
    """The letters that each state is likelier to emit than the other; the state of `e` first."""
    first = emission[:, LETTERS.index("e")].argmax()
    more = emission[first] > emission[1 - first]
    own = "".join(a for a, is_more in zip(LETTERS, more, strict=True) if is_more)
    return own, "".join(a for a in LETTERS if a not in own)


def main() -> int:
    """Learn, and show what was found."""
    import tilth

    found = tilth.load("letters").fit({"letter": letters()}, start(), iterations=60, tol=0.1)
    vowels, consonants = groups(found.params["B"])
    print(f"{len(found.history) - 1} rounds of EM, {found.history[-1]:.1f} nats")
    print(f"one state:   {' '.join(vowels.replace(' ', '_'))}")
    print(f"the other:   {' '.join(consonants.replace(' ', '_'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
