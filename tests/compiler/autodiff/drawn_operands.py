"""What gradients are checked at: operands drawn by seed, away from kinks and ties.

Elements that are compared are at least 0.01 apart.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Draw = Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Case:
    """``held`` operands are not differentiated; ``step`` is that of the differences."""

    op: str
    draws: tuple[Draw, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    held: tuple[int, ...] = ()
    step: float = 2e-4

    @property
    def name(self) -> str:
        shown = ",".join(f"{k}={v}" for k, v in self.attrs.items())
        return f"{self.op}({shown})".replace(" ", "")

    def arrays(self, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return [draw(rng) for draw in self.draws]


def real(*shape: int) -> Draw:
    """Distinct numbers around zero, none near it or near another."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        count = int(np.prod(shape))
        gap = 4.0 / count
        # A quarter of a gap off the middle, so that an odd one out is not zero.
        steps = (np.arange(count) - (count - 1) / 2 + 0.25) * gap
        jitter = rng.uniform(-0.1, 0.1, count) * min(gap, 1)
        return rng.permutation(steps + jitter).reshape(shape)

    return draw


def between(low: float, high: float, *shape: int) -> Draw:
    def draw(rng: np.random.Generator) -> np.ndarray:
        count = int(np.prod(shape))
        grid = (np.arange(count) + rng.uniform(0.3, 0.7, count)) / count
        return rng.permutation(low + (high - low) * grid).reshape(shape)

    return draw


def positive(*shape: int) -> Draw:
    return between(0.3, 3.0, *shape)


def unit(*shape: int) -> Draw:
    return between(0.05, 0.95, *shape)


def whole(high: int, *shape: int, low: int = 0) -> Draw:
    return lambda rng: rng.integers(low, high, shape)


def signs(*shape: int) -> Draw:
    return lambda rng: rng.choice([-1.0, 1.0], shape)


def truth(*shape: int) -> Draw:
    return lambda rng: rng.random(shape) < 0.5


def shares(*shape: int) -> Draw:
    def draw(rng: np.random.Generator) -> np.ndarray:
        weights = rng.uniform(0.2, 1.0, shape)
        return weights / weights.sum(axis=-1, keepdims=True)

    return draw


def definite(*shape: int) -> Draw:
    def draw(rng: np.random.Generator) -> np.ndarray:
        root = rng.normal(size=shape)
        return root @ np.swapaxes(root, -1, -2) + shape[-1] * np.eye(shape[-1])

    return draw


def matrix(*shape: int) -> Draw:
    """Far from singular, singular values apart."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        u, s, v = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
        return (u * (np.arange(s.shape[-1], 0, -1) + 0.3 * s)[..., None, :]) @ v

    return draw


def fixed(values: Any) -> Draw:
    return lambda rng: np.asarray(values)


def case(op: str, *draws: Draw, **attrs: Any) -> Case:
    return Case(op, draws, attrs)


UNLIKE = fixed(np.array([[0.05, 0.15, 0.1, 0.7], [0.8, 0.1, 0.04, 0.06], [0.6, 0.02, 0.3, 0.08]]))
"""Rows of shares of which no element is near that of a draw of :func:`shares`."""

KEY = fixed(np.array([3, 5], np.uint64))
