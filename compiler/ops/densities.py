"""Log densities, in float64: each takes a value and parameters and sums its event axes.

A value outside the support has log density -inf, never nan. ``x`` and the parameters broadcast;
densities over vectors read the last axis (matrices the last two).
"""

from __future__ import annotations

import math

import numpy as np

from .special import lgamma, log_bessel_k, logsumexp, softplus, xlog1py, xlogy

_LOG_2PI = math.log(2 * math.pi)


def normal(x: np.ndarray, mu: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Mean mu, standard deviation sd."""
    z = (x - mu) / sd
    return -0.5 * z * z - np.log(sd) - 0.5 * _LOG_2PI


def mvnormal(x: np.ndarray, mu: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Mean vector mu, covariance matrix cov."""
    root = np.linalg.cholesky(cov)
    z = np.linalg.solve(root, (x - mu)[..., None])[..., 0]
    log_det = np.sum(np.log(np.diagonal(root, axis1=-2, axis2=-1)), axis=-1)
    return -0.5 * np.sum(z * z, axis=-1) - log_det - 0.5 * x.shape[-1] * _LOG_2PI


def laplace(x: np.ndarray, mu: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Location mu, scale b."""
    return -np.abs(x - mu) / b - np.log(2 * b)


def student_t(x: np.ndarray, nu: np.ndarray, mu: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Nu degrees of freedom, location mu, scale sd."""
    z = (x - mu) / sd
    norm = _half_step(nu / 2) - 0.5 * math.log(2 * math.pi) - np.log(sd)
    return norm - (nu + 1) / 2 * np.log1p(z * z / nu)


def _half_step(a: np.ndarray) -> np.ndarray:
    """``lgamma(a + 1/2) - lgamma(a) - log(a) / 2``: of large numbers by its series in 1/a."""
    far = a > 1e3
    near, wide = np.where(far, 1.0, a), np.where(far, a, 1e3)
    series = (-1 / 8 + (1 / 192 - 1 / (640 * wide * wide)) / (wide * wide)) / wide
    return np.where(far, series, lgamma(near + 0.5) - lgamma(near) - 0.5 * np.log(near))


def cauchy(x: np.ndarray, x0: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Location x0, half width gamma."""
    z = (x - x0) / gamma
    return -np.log(math.pi * gamma) - np.log1p(z * z)


def beta(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Density proportional to x^(a-1) (1-x)^(b-1) on [0, 1]."""
    inside = (x >= 0) & (x <= 1)
    y = np.where(inside, x, 0.5)
    body = xlogy(a - 1, y) + xlog1py(b - 1, -y)
    return np.where(inside, body + lgamma(a + b) - lgamma(a) - lgamma(b), -np.inf)


def gamma(x: np.ndarray, shape: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Density proportional to x^(shape-1) exp(-rate x)."""
    inside = x >= 0
    y = np.where(inside, x, 1.0)
    body = xlogy(shape - 1, y) - rate * y + shape * np.log(rate) - lgamma(shape)
    return np.where(inside, body, -np.inf)


def inverse_gamma(x: np.ndarray, shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The density of 1/y for y of gamma(shape, rate=scale)."""
    inside = x > 0
    y = np.where(inside, x, 1.0)
    body = shape * np.log(scale) - lgamma(shape) - (shape + 1) * np.log(y) - scale / y
    return np.where(inside, body, -np.inf)


def inverse_gaussian(x: np.ndarray, mu: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """Mean mu, shape lam."""
    inside = x > 0
    y = np.where(inside, x, 1.0)
    z = (y - mu) / mu
    body = 0.5 * (np.log(lam) - _LOG_2PI - 3 * np.log(y)) - lam * z * z / (2 * y)
    return np.where(inside, body, -np.inf)


def generalised_inverse_gaussian(
    x: np.ndarray, p: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Density proportional to x^(p-1) exp(-(a x + b/x) / 2)."""
    inside = x > 0
    y = np.where(inside, x, 1.0)
    norm = 0.5 * p * np.log(a / b) - math.log(2) - log_bessel_k(p, np.sqrt(a * b))
    return np.where(inside, norm + (p - 1) * np.log(y) - 0.5 * (a * y + b / y), -np.inf)


def uniform(x: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Constant on [lo, hi]."""
    return np.where((x >= lo) & (x <= hi), -np.log(hi - lo), -np.inf)


def exponential(x: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Density rate exp(-rate x)."""
    return np.where(x >= 0, np.log(rate) - rate * np.where(x >= 0, x, 0.0), -np.inf)


def dirichlet(x: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Density proportional to the product of x_k^(alpha_k - 1) on the simplex."""
    # A sum of rounded shares misses 1 by rounding; float32 data is held to its own precision.
    inside = np.all(x >= 0, axis=-1) & (np.abs(np.sum(x, axis=-1) - 1) <= 1e-5)
    y = np.where(inside[..., None], x, 0.5)
    norm = lgamma(np.sum(alpha, axis=-1)) - np.sum(lgamma(alpha), axis=-1)
    return np.where(inside, norm + np.sum(xlogy(alpha - 1, y), axis=-1), -np.inf)


# ---------------------------------------------------------------- discrete


def _counted(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether values are counts, and the values with all others at 0."""
    inside = (x >= 0) & (x == np.floor(x))
    return inside, np.where(inside, x, 0.0)


def bernoulli(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """1 with probability p; a value between 0 and 1 is an expected value (cross-entropy)."""
    inside = (x >= 0) & (x <= 1)
    y = np.where(inside, x, 0.0)
    return np.where(inside, xlogy(y, p) + xlog1py(1 - y, -p), -np.inf)


def bernoulli_logits(x: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """1 with probability sigmoid(logits); values as in :func:`bernoulli`."""
    inside = (x >= 0) & (x <= 1)
    y = np.where(inside, x, 0.0)
    return np.where(inside, y * logits - softplus(logits), -np.inf)


def categorical(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Index k with probability p_k."""
    return _at_index(x, np.log(p))


def categorical_logits(x: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Index k with probability softmax(logits)_k."""
    return _at_index(x, logits - logsumexp(logits, (-1,), keepdims=True))


def _at_index(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    inside = (x >= 0) & (x < table.shape[-1]) & (x == np.floor(x))
    shape = np.broadcast_shapes(x.shape, table.shape[:-1])
    index = np.broadcast_to(np.where(inside, x, 0).astype(np.int64), shape)
    rows = np.broadcast_to(table, (*shape, table.shape[-1]))
    return np.where(inside, np.take_along_axis(rows, index[..., None], -1)[..., 0], -np.inf)


def labels(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The counting measure on 0..n: every label has log density 0, so that log Z counts labels."""
    inside, y = _counted(x)
    return np.where(inside & (y < n), 0.0, -np.inf)


def poisson(x: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Mean rate."""
    inside, y = _counted(x)
    return np.where(inside, xlogy(y, rate) - rate - lgamma(y + 1), -np.inf)


def negative_binomial(x: np.ndarray, r: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Failures before the r-th success, each trial a success with probability p."""
    inside, y = _counted(x)
    choose = lgamma(y + r) - lgamma(r) - lgamma(y + 1)
    return np.where(inside, choose + xlogy(r, p) + xlog1py(y, -p), -np.inf)


def geometric(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Failures before the first success."""
    inside, y = _counted(x)
    return np.where(inside, np.log(p) + xlog1py(y, -p), -np.inf)


def binomial(x: np.ndarray, n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Successes in n trials."""
    inside, y = _counted(x)
    inside = inside & (y <= n)
    y = np.where(inside, y, 0.0)
    choose = lgamma(n + 1) - lgamma(y + 1) - lgamma(n - y + 1)
    return np.where(inside, choose + xlogy(y, p) + xlog1py(n - y, -p), -np.inf)


def multinomial(x: np.ndarray, n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Counts of each outcome in n trials; parts of a whole are expected counts (cross-entropy)."""
    y = np.where(x >= 0, x, 0.0)
    # A sum of parts misses n by rounding.
    inside = np.all(x >= 0, axis=-1) & (np.abs(np.sum(y, axis=-1) - n) <= 1e-6 * (1 + n))
    body = np.sum(xlogy(y, p) - lgamma(y + 1), axis=-1)
    return np.where(inside, lgamma(n + 1) + body, -np.inf)


def dpp(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The determinantal point process of an L-ensemble: det(L_Y) / det(L + I)."""
    held = x != 0
    identity = np.eye(kernel.shape[-1])
    # Rows and columns outside Y become those of the identity, which leaves det(L_Y).
    chosen = np.where(held[..., :, None] & held[..., None, :], kernel, identity)
    sign, size = np.linalg.slogdet(chosen)
    # A singular L_Y may come out as a rounding error below zero.
    return np.where(sign > 0, size, -np.inf) - np.linalg.slogdet(kernel + identity)[1]
