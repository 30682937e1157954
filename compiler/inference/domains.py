"""Parameters of every domain as unconstrained numbers, for learning by gradient.

positive = exp(u), unit = sigmoid(u), simplex = softmax(u), posdef = L L^T with exp on the diagonal
of L (Pinheiro, Bates: Unconstrained parametrizations for variance-covariance matrices, Statistics
and Computing 6, 1996). Fixed elements keep their values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Coordinates:
    """The free coordinates of one parameter around a value; ``fixed`` marks what stays."""

    domain: str
    start: np.ndarray
    fixed: np.ndarray

    def values(self) -> np.ndarray:
        """The coordinates of ``start``, flat."""
        x = self.start.astype(np.float64)
        with np.errstate(all="ignore"):
            if self.domain == "positive":
                u = np.log(x)
            elif self.domain == "unit":
                u = np.log(x) - np.log1p(-x)
            elif self.domain == "simplex":
                u = np.log(x)
            elif self.domain == "posdef":
                u = np.linalg.cholesky(x)
                spot = np.arange(x.shape[-1])
                u[..., spot, spot] = np.log(u[..., spot, spot])
            else:
                u = x
        # What lies on the border of its domain stays there.
        return np.where(np.isfinite(u), u, 0.0).ravel()

    @property
    def held(self) -> np.ndarray:
        """Elements that do not move: fixed ones, and those on the border of their domain."""
        x = self.start
        if self.domain == "simplex":
            return self.fixed | (x <= 0)
        if self.domain == "unit":
            return self.fixed | (x <= 0) | (x >= 1)
        return self.fixed

    def parameter(self, u: np.ndarray) -> np.ndarray:
        """The parameter at some coordinates."""
        u, x = u.reshape(self.start.shape), self.start.astype(np.float64)
        if self.domain == "positive":
            return np.where(self.held, x, np.exp(u))
        if self.domain == "unit":
            return np.where(self.held, x, 1 / (1 + np.exp(-u)))
        if self.domain == "simplex":
            share, room = self._shares(u)
            return np.where(self.held, x, share * room)
        if self.domain == "posdef":
            root = self._root(u)
            return np.where(self.held, x, root @ np.swapaxes(root, -1, -2))
        if self.domain == "symmetric":
            return np.where(self.held, x, (u + np.swapaxes(u, -1, -2)) / 2)
        return np.where(self.held, x, u)

    def gradient(self, u: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """The gradient by the coordinates, from that by the parameter; flat."""
        u, x = u.reshape(self.start.shape), self.parameter(u)
        slope = np.where(self.held, 0.0, slope)
        if self.domain == "positive":
            found = slope * x
        elif self.domain == "unit":
            found = slope * x * (1 - x)
        elif self.domain == "simplex":
            share, room = self._shares(u)
            found = share * room * (slope - np.sum(slope * share, -1, keepdims=True))
        elif self.domain == "posdef":
            root = self._root(u)
            found = np.tril((slope + np.swapaxes(slope, -1, -2)) @ root)
            spot = np.arange(x.shape[-1])
            found[..., spot, spot] *= root[..., spot, spot]
        elif self.domain == "symmetric":
            found = (slope + np.swapaxes(slope, -1, -2)) / 2
        else:
            found = slope
        return np.where(self.held, 0.0, found).ravel()

    def _shares(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each free element's share of what the fixed ones leave, and how much that is."""
        held, x = self.held, self.start
        room = 1 - np.where(held, x, 0).sum(-1, keepdims=True)
        top = np.max(np.where(held, -np.inf, u), -1, keepdims=True, initial=-np.inf)
        weights = np.where(held, 0.0, np.exp(u - np.where(np.isfinite(top), top, 0)))
        total = weights.sum(-1, keepdims=True)
        return weights / np.where(total > 0, total, 1), room

    def _root(self, u: np.ndarray) -> np.ndarray:
        root, spot = np.tril(u), np.arange(u.shape[-1])
        root[..., spot, spot] = np.exp(root[..., spot, spot])
        return root
