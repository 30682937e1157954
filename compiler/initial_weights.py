"""Weights from a spec's initialisers, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .ir.dims import evaluate
from .ir.graph import Graph
from .ops.initialise import initialise


class InitialWeights(Mapping[str, np.ndarray]):
    """Arrays by weight path of a graph whose weights have known sizes.

    The same seed gives the same numbers whatever is asked for first. Only the matrix made last
    is kept, so a module that packs weights one by one never holds two copies of them all.
    """

    def __init__(self, graph: Graph, seed: int) -> None:
        self._nodes = {str(node.attrs["path"]): node for _, node in graph.of_op("param")}
        self._seed = seed
        self._last: tuple[str, np.ndarray] | None = None

    def __getitem__(self, path: str) -> np.ndarray:
        last = self._last
        if last is not None and last[0] == path:
            return last[1]
        node = self._nodes[path]
        shape = [evaluate(dim, {}) for dim in node.type.shape]
        rule: Any = node.attrs["init"]
        made = initialise(rule, shape, node.type.dtype, self._seed, path)
        if made.ndim > 1:
            self._last = path, made
        return made

    def __contains__(self, path: object) -> bool:
        return path in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)
