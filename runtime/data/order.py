"""In which order examples come, and which belong to which part: by counter, from a seed.

Every order is a function of (seed, epoch) and every draw of (seed, epoch, position), so a run that
is taken up at any batch sees what it would have seen. All draws are those of ``runtime/philox``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import philox


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """0 to ``count`` in random order: the stable order of 64 random bits each."""
    drawn = philox.bits(philox.Stream(seed, epoch, "data.order"), count)
    return np.argsort(drawn, kind="stable")


def balanced(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many examples as there are, drawn so that every class is equally likely.

    Each position draws a class, then an example of it, with replacement.
    """
    classes, inverse = np.unique(labels, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    counts = np.bincount(inverse)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    source = philox.Stream(seed, epoch, "data.balanced")
    positions = np.arange(len(labels))
    chosen = _below(philox.uniform_at(source, positions), np.array(len(classes)))
    within = _below(philox.uniform_at(source.at(1), positions), counts[chosen])
    return order[starts[chosen] + within]


def stratified(
    labels: np.ndarray, fractions: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Parts of the examples in which classes have the shares that they have in the whole.

    Returns the examples' numbers by part, in ascending order. A part gets ``round`` of its
    fraction of each class, by largest remainders, so that no part is off by more than one example
    a class; what the fractions leave is in no part.
    """
    drawn = philox.bits(philox.Stream(seed, 0, "data.split"), len(labels))
    found: dict[str, list[np.ndarray]] = {name: [] for name in fractions}
    for value in np.unique(labels):
        members = np.flatnonzero(labels == value)
        members = members[np.argsort(drawn[members], kind="stable")]
        ends = np.cumsum(shares(len(members), list(fractions.values())))
        for name, part in zip(fractions, np.split(members, ends), strict=False):
            found[name].append(part)
    none = np.empty(0, np.int64)
    return {name: np.sort(np.concatenate([none, *parts])) for name, parts in found.items()}


def sample(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """``count`` examples, ascending, in which classes have the shares of the whole."""
    drawn = philox.bits(philox.Stream(seed, 0, "data.sample"), len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    chosen = []
    for value, size in zip(classes, shares(count, list(sizes / len(labels))), strict=True):
        members = np.flatnonzero(labels == value)
        chosen.append(members[np.argsort(drawn[members], kind="stable")][:size])
    return np.sort(np.concatenate(chosen))


def shares(count: int, fractions: list[float]) -> list[int]:
    """Whole numbers near ``count * fraction`` with their sum near the fractions' (Hamilton)."""
    exact = [count * fraction for fraction in fractions]
    # A fraction such as 0.8 of 10 is 8, whatever its binary digits say.
    whole = [int(np.floor(x + 1e-9)) for x in exact]
    left = min(count, round(sum(exact))) - sum(whole)
    by_rest = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
    for i in by_rest[:left]:
        whole[i] += 1
    return whole


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights ``[classes]`` float32 inverse to how often a class occurs, 1 on average by example.

    ``count / (classes * count of the class)``, as scikit-learn's ``balanced``; 0 for a class that
    does not occur.
    """
    counts = np.bincount(labels.reshape(-1), minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = labels.size / (present.sum() * counts[present])
    return weights.astype(np.float32)


def _below(uniform: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Whole numbers below ``limit`` from uniform numbers in [0, 1)."""
    return np.minimum((uniform * limit).astype(np.int64), limit - 1)
