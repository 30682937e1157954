"""Sets cut into parts, the same for a seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..faults import RuntimeFault
from .dataset import Dataset, Subset, strata
from .order import sample, shares, stratified


def split(dataset: Dataset, fractions: Mapping[str, float], seed: int) -> dict[str, Dataset]:
    """Parts of a set by fraction.

    Classes keep their shares. Windows of a text stay together, the parts one behind the other:
    drawn at random, what is held out would be known from its neighbours. Raises
    :class:`RuntimeFault` E807 for a part without examples.
    """
    if getattr(dataset, "consecutive", False):
        ends = np.cumsum(shares(len(dataset), list(fractions.values())))
        pieces = np.split(np.arange(len(dataset)), ends)
        chosen = dict(zip(fractions, pieces, strict=False))
    else:
        chosen = stratified(strata(dataset), fractions, seed)
    empty = [name for name, examples in chosen.items() if len(examples) == 0]
    if empty:
        message = f"the part `{empty[0]}` of {len(dataset)} examples would be empty"
        raise RuntimeFault("E807", message, "give it a larger fraction")
    return {name: Subset(dataset, examples) for name, examples in chosen.items()}


def limited(dataset: Dataset, count: int, seed: int) -> Dataset:
    """``count`` examples at most, in which classes keep their shares."""
    if count >= len(dataset):
        return dataset
    return Subset(dataset, sample(strata(dataset), count, seed))
