"""Samplers: each turns counter-based draws and parameters into values of one distribution.

``draws`` gives uniforms and normals of the result's shape; ``n`` numbers the draws of one element.
Scalar parameters are already broadcast to that shape; vectors and matrices broadcast. Continuous
samplers are smooth in their parameters wherever the method allows it (Kingma and Welling 2014).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ...runtime import philox
from .random import pick

_CHUNK = 500.0
"""Largest mean that one inversion walks; larger counts are sums of independent smaller ones."""


@dataclass(frozen=True)
class Draws:
    """Independent draws for every element of ``shape``."""

    source: philox.Stream
    shape: tuple[int, ...]
    dtype: np.dtype

    def uniform(self, n: int = 0, event: tuple[int, ...] = ()) -> np.ndarray:
        """The ``n``-th uniform in [0, 1) of each element (and event position)."""
        return philox.uniform(self._at(n), (*self.shape, *event), self.dtype)

    def normal(self, n: int = 0, event: tuple[int, ...] = ()) -> np.ndarray:
        """The ``n``-th standard normal of each element (and event position)."""
        return philox.normal(self._at(n), (*self.shape, *event), self.dtype)

    def child(self, name: str, event: tuple[int, ...] = ()) -> Draws:
        """Draws that are independent of these, on a path below."""
        below = replace(self.source, path=f"{self.source.path}/{name}")
        return Draws(below, (*self.shape, *event), self.dtype)

    def _at(self, n: int) -> philox.Stream:
        return self.source.at(self.source.draw + n)


def normal(draws: Draws, mu: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Mu + sd z."""
    return mu + sd * draws.normal()


def mvnormal(draws: Draws, mu: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Mu + cholesky(cov) z."""
    z = draws.normal(event=mu.shape[-1:])
    return mu + np.matmul(np.linalg.cholesky(cov), z[..., None])[..., 0]


def laplace(draws: Draws, mu: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By inversion of the CDF, each half from its own side."""
    u = draws.uniform() - draws.dtype.type(0.5)
    return mu - b * np.sign(u) * np.log1p(-2 * np.abs(u))


def student_t(draws: Draws, nu: np.ndarray, mu: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """A normal over the root of a chi-square per degree of freedom."""
    chi = _standard_gamma(draws.child("gamma"), nu / 2) * 2 / nu
    return mu + sd * draws.normal() / np.sqrt(chi)


def cauchy(draws: Draws, x0: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """By inversion of the CDF."""
    return x0 + gamma * np.tan(draws.dtype.type(np.pi) * (draws.uniform() - draws.dtype.type(0.5)))


def gamma(draws: Draws, shape: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """A standard gamma over the rate."""
    return _standard_gamma(draws, shape) / rate


def inverse_gamma(draws: Draws, shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The scale over a standard gamma."""
    return scale / _standard_gamma(draws, shape)


def beta(draws: Draws, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The share of the first of two gammas."""
    x = _standard_gamma(draws.child("a"), a)
    return x / (x + _standard_gamma(draws.child("b"), b))


def dirichlet(draws: Draws, alpha: np.ndarray) -> np.ndarray:
    """Shares of independent gammas."""
    x = _standard_gamma(draws.child("gamma", alpha.shape[-1:]), alpha)
    return x / np.sum(x, axis=-1, keepdims=True)


def uniform(draws: Draws, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Lo + (hi - lo) u."""
    return lo + (hi - lo) * draws.uniform()


def exponential(draws: Draws, rate: np.ndarray) -> np.ndarray:
    """By inversion of the CDF."""
    return -np.log1p(-draws.uniform()) / rate


def inverse_gaussian(draws: Draws, mu: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """Michael, Schucany and Haas (1976): the root of a quadratic in a chi-square."""
    z = draws.normal()
    w = mu * z * z / (2 * lam)
    # 1 + w - sqrt(w^2 + 2w) without cancellation.
    x = mu / (1 + w + np.sqrt(w * w + 2 * w))
    return np.where(draws.child("root").uniform() * (mu + x) <= mu, x, mu * mu / x)


def generalised_inverse_gaussian(
    draws: Draws, p: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Devroye (2014): rejection for the logarithm, whose density is log-concave."""
    order, omega = np.abs(p), np.sqrt(a * b)
    alpha = omega * omega / (np.hypot(omega, order) + order)
    right, left = _gig_points(alpha, order)
    eta, zeta = -_gig_log(right, alpha, order), -_gig_slope(right, alpha, order)
    theta, xi = -_gig_log(-left, alpha, order), _gig_slope(-left, alpha, order)
    flat_right, flat_left = right - eta / zeta, left - theta / xi
    middle = flat_right + flat_left
    total = middle + 1 / xi + 1 / zeta

    def attempt(n: int) -> tuple[np.ndarray, np.ndarray]:
        u, v, w = (draws.uniform(3 * n + k) for k in range(3))
        tail = -np.log1p(-v)
        low = -flat_left - tail / xi
        high = flat_right + tail / zeta
        in_middle, in_high = u * total < middle, u * total < middle + 1 / zeta
        x = np.where(in_middle, -flat_left + middle * v, np.where(in_high, high, low))
        cover = np.where(x > flat_right, -eta - zeta * (x - right), 0)
        cover = np.where(x < -flat_left, -theta + xi * (x + left), cover)
        return x, np.log1p(-w) + cover <= _gig_log(x, alpha, order)

    x = np.exp(_accepted(attempt, draws)) * (order + np.hypot(order, omega)) / omega
    return np.where(p < 0, 1 / x, x) * np.sqrt(b / a)


def _gig_points(alpha: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the exponential tails of the envelope touch: a drop of about 1 on either side."""
    one = np.ones_like(alpha)
    drop = -_gig_log(one, alpha, order)
    right = np.where(drop > 2, np.sqrt(2 / (alpha + order)), np.log(4 / (alpha + 2 * order)))
    right = np.where((drop >= 0.5) & (drop <= 2), one, right)
    drop = -_gig_log(-one, alpha, order)
    turn = np.log(1 + 1 / alpha + np.sqrt(1 / (alpha * alpha) + 2 / alpha))
    left = np.where(
        drop > 2, np.sqrt(4 / (alpha * np.cosh(one) + order)), np.minimum(1 / order, turn)
    )
    return right, np.where((drop >= 0.5) & (drop <= 2), one, left)


def _gig_log(x: np.ndarray, alpha: np.ndarray, order: np.ndarray) -> np.ndarray:
    return -alpha * (np.cosh(x) - 1) - order * (np.expm1(x) - x)


def _gig_slope(x: np.ndarray, alpha: np.ndarray, order: np.ndarray) -> np.ndarray:
    return -alpha * np.sinh(x) - order * np.expm1(x)


# ---------------------------------------------------------------- discrete


def bernoulli(draws: Draws, p: np.ndarray) -> np.ndarray:
    """Whether u < p."""
    return draws.uniform() < p


def categorical(draws: Draws, p: np.ndarray) -> np.ndarray:
    """By inversion of the CDF."""
    return pick(p, draws.uniform())


def labels(draws: Draws, n: np.ndarray) -> np.ndarray:
    """floor(u n)."""
    return np.floor(draws.uniform() * n)


def geometric(draws: Draws, p: np.ndarray) -> np.ndarray:
    """By inversion of the CDF."""
    return np.floor(np.log1p(-draws.uniform()) / np.log1p(-p))


def poisson(draws: Draws, rate: np.ndarray) -> np.ndarray:
    """By inversion, in parts of at most ``_CHUNK`` whose counts add up."""
    rate = rate.astype(np.float64)
    parts = max(1, int(np.ceil(np.max(rate, initial=0) / _CHUNK)))
    mean = rate / parts

    def ratio(k: int) -> np.ndarray:
        return mean / k

    return sum(
        (_invert(draws.uniform(n), np.exp(-mean), ratio) for n in range(parts)),
        start=np.zeros(draws.shape),
    )


def negative_binomial(draws: Draws, r: np.ndarray, p: np.ndarray) -> np.ndarray:
    """A Poisson count whose rate is a gamma."""
    rate = _standard_gamma(draws.child("rate"), r) * (1 - p) / p
    return poisson(draws, rate)


def binomial(draws: Draws, n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """By inversion over the rarer outcome, in parts of at most ``_CHUNK`` trials."""
    trials, share = n.astype(np.float64), np.minimum(p, 1 - p).astype(np.float64)
    parts = max(1, int(np.ceil(np.max(trials, initial=0) / _CHUNK)))
    total = np.zeros(draws.shape)
    for part in range(parts):
        count = np.floor((trials + part) / parts)

        def ratio(k: int, count: np.ndarray = count) -> np.ndarray:
            return np.maximum(count - k + 1, 0) / k * share / (1 - share)

        total = total + _invert(draws.uniform(part), np.exp(count * np.log1p(-share)), ratio)
    return np.where(p > 0.5, trials - total, total)


def multinomial(draws: Draws, n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """One outcome after the other, each binomial among the trials that are left."""
    left, share = n.astype(np.float64), np.ones(draws.shape)
    counts = []
    for k in range(p.shape[-1] - 1):
        chance = np.clip(p[..., k] / np.maximum(share, np.finfo(np.float64).tiny), 0, 1)
        counts.append(binomial(draws.child(str(k)), left, chance))
        left, share = left - counts[-1], share - p[..., k]
    return np.stack([*counts, left], axis=-1)


def dpp(draws: Draws, kernel: np.ndarray) -> np.ndarray:
    """Sequential choice on the marginal kernel L (L + I)^-1 (Poulson 2019, algorithm 1)."""
    size = kernel.shape[-1]
    u = draws.uniform(event=(size,))
    identity = np.eye(size, dtype=kernel.dtype)
    marginal = identity - np.linalg.inv(kernel + identity)
    marginal = np.broadcast_to(marginal, (*draws.shape, size, size)).copy()
    held = np.zeros(u.shape, bool)
    for j in range(size):
        held[..., j] = u[..., j] < marginal[..., j, j]
        marginal[..., j, j] -= ~held[..., j]
        column = marginal[..., j + 1 :, j] / marginal[..., j, j, None]
        row = marginal[..., j, j + 1 :]
        marginal[..., j + 1 :, j + 1 :] -= column[..., :, None] * row[..., None, :]
    return held


# ---------------------------------------------------------------- helpers


def _accepted(
    attempt: Callable[[int], tuple[np.ndarray, np.ndarray]], draws: Draws, most: int = 1000
) -> np.ndarray:
    """The first accepted proposal of each element."""
    value, open_ = np.full(draws.shape, np.nan, draws.dtype), np.ones(draws.shape, bool)
    for n in range(most):
        proposal, good = attempt(n)
        value = np.where(open_ & good, proposal, value)
        open_ = open_ & ~good
        if not open_.any():
            break
    # Parameters outside their domain never accept and stay nan.
    return value


def _standard_gamma(draws: Draws, shape: np.ndarray) -> np.ndarray:
    """Marsaglia and Tsang (2000), with the boost u^(1/shape) below shape 1."""
    small = shape < 1
    d = np.where(small, shape + 1, shape) - draws.dtype.type(1 / 3)
    c = 1 / np.sqrt(9 * d)
    tries = draws.child("try")

    def attempt(n: int) -> tuple[np.ndarray, np.ndarray]:
        z = draws.normal(n)
        v = (1 + c * z) ** 3
        bound = 0.5 * z * z + d - d * v + d * np.log(v)
        return d * v, (v > 0) & (np.log1p(-tries.uniform(n)) < bound)

    value = _accepted(attempt, draws)
    boost = np.exp(np.log1p(-draws.child("boost").uniform()) / np.where(small, shape, 1))
    return np.where(small, value * boost, value)


def _invert(u: np.ndarray, first: np.ndarray, ratio: Callable[[int], np.ndarray]) -> np.ndarray:
    """The smallest count whose CDF exceeds u, walking up by p_k = p_(k-1) ratio(k)."""
    u = u.astype(np.float64)
    mass = np.broadcast_to(first, u.shape).copy()
    total, count = mass.copy(), np.zeros(u.shape)
    for k in itertools.count(1):
        mass = mass * ratio(k)
        grown = total + mass
        # Where the sum no longer grows it is as near to 1 as float64 comes.
        climbs = (u >= total) & (grown > total)
        if not climbs.any():
            break
        count, total = np.where(climbs, k, count), np.where(climbs, grown, total)
    return count
