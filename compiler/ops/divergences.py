"""Closed forms over whole distributions, in float64: entropies and Kullback-Leibler divergences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .special import digamma, lgamma, xlogy


def _log_beta(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _logdet(a: np.ndarray) -> np.ndarray:
    return np.linalg.slogdet(a)[1]


def _relative(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """P log(p / q), zero where p is zero."""
    return xlogy(p, p) - np.where(p == 0, 0.0, p * np.log(q))


def _beta_entropy(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    mixed = (a - 1) * digamma(a) + (b - 1) * digamma(b) - (a + b - 2) * digamma(a + b)
    return _log_beta(a, b) - mixed


def _dirichlet_entropy(alpha: np.ndarray) -> np.ndarray:
    total = np.sum(alpha, axis=-1)
    norm = np.sum(lgamma(alpha), axis=-1) - lgamma(total)
    inner = np.sum((alpha - 1) * digamma(alpha), axis=-1)
    return norm + (total - alpha.shape[-1]) * digamma(total) - inner


def _student_entropy(nu: np.ndarray, mu: np.ndarray, sd: np.ndarray) -> np.ndarray:
    half = (nu + 1) / 2
    spread = half * (digamma(half) - digamma(nu / 2))
    return spread + 0.5 * np.log(nu) + _log_beta(nu / 2, np.full_like(nu, 0.5)) + np.log(sd)


ENTROPY: dict[str, Callable[..., np.ndarray]] = {
    "normal": lambda mu, sd: 0.5 * math.log(2 * math.pi * math.e) + np.log(sd),
    "mvnormal": lambda mu, cov: (
        0.5 * (mu.shape[-1] * math.log(2 * math.pi * math.e) + _logdet(cov))
    ),
    "laplace": lambda mu, b: 1 + np.log(2 * b),
    "student_t": _student_entropy,
    "cauchy": lambda x0, gamma: np.log(4 * math.pi * gamma),
    "beta": _beta_entropy,
    "gamma": lambda shape, rate: (
        shape - np.log(rate) + lgamma(shape) + (1 - shape) * digamma(shape)
    ),
    "inverse_gamma": lambda shape, scale: (
        shape + np.log(scale) + lgamma(shape) - (1 + shape) * digamma(shape)
    ),
    "uniform": lambda lo, hi: np.log(hi - lo),
    "exponential": lambda rate: 1 - np.log(rate),
    "dirichlet": _dirichlet_entropy,
    "bernoulli": lambda p: -xlogy(p, p) - xlogy(1 - p, 1 - p),
    "categorical": lambda p: -np.sum(xlogy(p, p), axis=-1),
    "labels": lambda n: np.log(n),
    "geometric": lambda p: (-xlogy(p, p) - xlogy(1 - p, 1 - p)) / p,
}
"""Entropy in nats by distribution; it takes the distribution's parameters."""


def _kl_normal(m: np.ndarray, s: np.ndarray, n: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.log(t / s) + (s * s + (m - n) ** 2) / (2 * t * t) - 0.5


def _kl_mvnormal(m: np.ndarray, s: np.ndarray, n: np.ndarray, t: np.ndarray) -> np.ndarray:
    d = np.broadcast_arrays(m - n, n)[0]
    trace = np.trace(np.linalg.solve(t, s), axis1=-2, axis2=-1)
    distance = np.sum(d * np.linalg.solve(t, d[..., None])[..., 0], axis=-1)
    return 0.5 * (trace + distance - d.shape[-1] + _logdet(t) - _logdet(s))


def _kl_laplace(m: np.ndarray, b: np.ndarray, n: np.ndarray, c: np.ndarray) -> np.ndarray:
    gap = np.abs(m - n)
    return np.log(c / b) + (gap + b * np.exp(-gap / b)) / c - 1


def _kl_gamma(a: np.ndarray, r: np.ndarray, b: np.ndarray, q: np.ndarray) -> np.ndarray:
    norm = lgamma(b) - lgamma(a) + b * np.log(r / q)
    return (a - b) * digamma(a) + norm + a * (q / r - 1)


def _kl_beta(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    inner = (a - c) * digamma(a) + (b - d) * digamma(b) + (c + d - a - b) * digamma(a + b)
    return _log_beta(c, d) - _log_beta(a, b) + inner


def _kl_dirichlet(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total, other = np.sum(a, axis=-1), np.sum(b, axis=-1)
    norm = lgamma(total) - lgamma(other) + np.sum(lgamma(b) - lgamma(a), axis=-1)
    return norm + np.sum((a - b) * (digamma(a) - digamma(total)[..., None]), axis=-1)


def _kl_uniform(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.where((c <= a) & (b <= d), np.log((d - c) / (b - a)), np.inf)


KL: dict[tuple[str, str], Callable[..., np.ndarray]] = {
    ("normal", "normal"): _kl_normal,
    ("mvnormal", "mvnormal"): _kl_mvnormal,
    ("laplace", "laplace"): _kl_laplace,
    ("gamma", "gamma"): _kl_gamma,
    ("beta", "beta"): _kl_beta,
    ("dirichlet", "dirichlet"): _kl_dirichlet,
    ("uniform", "uniform"): _kl_uniform,
    ("exponential", "exponential"): lambda r, q: np.log(r / q) + q / r - 1,
    ("bernoulli", "bernoulli"): lambda p, q: _relative(p, q) + _relative(1 - p, 1 - q),
    ("categorical", "categorical"): lambda p, q: np.sum(_relative(p, q), axis=-1),
    ("geometric", "geometric"): lambda p, q: (_relative(p, q) + _relative(1 - p, 1 - q)) / p,
    ("poisson", "poisson"): lambda r, q: _relative(r, q) + q - r,
}
"""KL(p || q) by the two distributions; it takes the parameters of p, then those of q."""
