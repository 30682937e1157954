"""What can be asked of a model whose elimination is too large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..ops.base import OpError
from .approximate import METHODS, Asked, approximation
from .gibbs import MOST_COLOURS, colouring, joined_pairs
from .local import Local

if TYPE_CHECKING:
    from .answers import Answers
    from .structure import Component

QUICK_EDGES = 1 << 16
"""Pairs up to which groups are counted; beyond it the most that an element is joined with tells."""


def ways_out(answers: Answers, component: Component) -> str:
    """A hint that names every approximation that takes this part of the model."""
    name = component.families[0].name
    found = [f"`{method}({name})`" for method in METHODS if _takes(answers, component, method)]
    if not found:
        return "make it smaller: no approximation takes its tables either"
    last = f" or {found[-1]}" if len(found) > 1 else ""
    texts = ", ".join(found[:-1]) + last if last else found[0]
    return f"ask for an approximation: `output p = ..` of {texts}"


def _takes(answers: Answers, component: Component, method: str) -> bool:
    """Whether an approximation can be made of a component."""
    try:
        if method == "gibbs" and not _few_groups(answers, component):
            return False
        if method != "gibbs":
            approximation(answers.graph, Asked(method, component.families[0].name))
    except OpError:
        return False
    return True


def _few_groups(answers: Answers, component: Component) -> bool:
    local = Local(answers, component)
    pairs = joined_pairs(answers, local, None)
    # Greedy colouring needs one group more than the most neighbours of an element at most.
    if not len(pairs) or np.bincount(pairs.ravel()).max() < MOST_COLOURS:
        return True
    return len(pairs) <= QUICK_EDGES and bool(colouring(answers, local, None))
