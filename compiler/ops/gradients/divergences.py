"""Entropies and Kullback-Leibler divergences by simpler ops, as ``compiler/ops/divergences.py``."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..expr import Expr
from .densities import last, lgamma, xlogy

Closed = Callable[..., Expr]


def _digamma(x: Expr) -> Expr:
    return x.op("digamma")


def _log_beta(a: Expr, b: Expr) -> Expr:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _relative(p: Expr, q: Expr) -> Expr:
    """P log(p / q), zero where p is zero."""
    none = p.same(0)
    return xlogy(p, p) - none.where(0, p * none.where(1, q).log())


def _pair(p: Expr) -> Expr:
    return -xlogy(p, p) - xlogy(1.0 - p, 1.0 - p)


def _beta_entropy(a: Expr, b: Expr) -> Expr:
    mixed = (a - 1.0) * _digamma(a) + (b - 1.0) * _digamma(b) - (a + b - 2.0) * _digamma(a + b)
    return _log_beta(a, b) - mixed


def _dirichlet_entropy(alpha: Expr) -> Expr:
    total = last(alpha)
    norm = last(lgamma(alpha)) - lgamma(total)
    inner = last((alpha - 1.0) * _digamma(alpha))
    return norm + (total - alpha.count([alpha.rank - 1])) * _digamma(total) - inner


def _student_entropy(nu: Expr, mu: Expr, sd: Expr) -> Expr:
    half = (nu + 1.0) * 0.5
    spread = half * (_digamma(half) - _digamma(nu * 0.5))
    return spread + 0.5 * nu.log() + _log_beta(nu * 0.5, nu.filled(0.5)) + sd.log()


def _mvnormal_entropy(mu: Expr, cov: Expr) -> Expr:
    return 0.5 * (mu.count([mu.rank - 1]) * math.log(2 * math.pi * math.e) + cov.op("logdet"))


ENTROPY: dict[str, Closed] = {
    "normal": lambda mu, sd: sd.log() + 0.5 * math.log(2 * math.pi * math.e),
    "mvnormal": _mvnormal_entropy,
    "laplace": lambda mu, b: (2.0 * b).log() + 1.0,
    "student_t": _student_entropy,
    "cauchy": lambda x0, gamma: (4 * math.pi * gamma).log(),
    "beta": _beta_entropy,
    "gamma": lambda shape, rate: (
        shape - rate.log() + lgamma(shape) + (1.0 - shape) * _digamma(shape)
    ),
    "inverse_gamma": lambda shape, scale: (
        shape + scale.log() + lgamma(shape) - (shape + 1.0) * _digamma(shape)
    ),
    "uniform": lambda lo, hi: (hi - lo).log(),
    "exponential": lambda rate: 1.0 - rate.log(),
    "dirichlet": _dirichlet_entropy,
    "bernoulli": _pair,
    "categorical": lambda p: -last(xlogy(p, p)),
    "labels": lambda n: n.log(),
    "geometric": lambda p: _pair(p) / p,
}
"""The entropy by distribution."""


def _kl_normal(m: Expr, s: Expr, n: Expr, t: Expr) -> Expr:
    return (t / s).log() + (s.square() + (m - n).square()) / (2.0 * t.square()) - 0.5


def _kl_mvnormal(m: Expr, s: Expr, n: Expr, t: Expr) -> Expr:
    batch = max(m.rank - 1, n.rank - 1, s.rank - 2, t.rank - 2)
    m, n = (v.unsqueeze(*range(batch + 1 - v.rank)) for v in (m, n))
    s, t = (v.unsqueeze(*range(batch + 2 - v.rank)) for v in (s, t))
    d = (m - n).unsqueeze(batch + 1)
    inverse = t.op("inverse")
    trace = (inverse @ s).op("trace")
    distance = (d.T @ inverse @ d).sum([batch, batch + 1])
    size = d.count([batch])
    return 0.5 * (trace + distance - size + t.op("logdet") - s.op("logdet"))


def _kl_laplace(m: Expr, b: Expr, n: Expr, c: Expr) -> Expr:
    gap = (m - n).abs()
    return (c / b).log() + (gap + b * (-gap / b).exp()) / c - 1.0


def _kl_gamma(a: Expr, r: Expr, b: Expr, q: Expr) -> Expr:
    norm = lgamma(b) - lgamma(a) + b * (r / q).log()
    return (a - b) * _digamma(a) + norm + a * (q / r - 1.0)


def _kl_beta(a: Expr, b: Expr, c: Expr, d: Expr) -> Expr:
    inner = (a - c) * _digamma(a) + (b - d) * _digamma(b) + (c + d - a - b) * _digamma(a + b)
    return _log_beta(c, d) - _log_beta(a, b) + inner


def _kl_dirichlet(a: Expr, b: Expr) -> Expr:
    total, other = last(a), last(b)
    norm = lgamma(total) - lgamma(other) + last(lgamma(b) - lgamma(a))
    return norm + last((a - b) * (_digamma(a) - _digamma(total).unsqueeze(total.rank)))


def _kl_uniform(a: Expr, b: Expr, c: Expr, d: Expr) -> Expr:
    return ((c <= a) & (b <= d)).where(((d - c) / (b - a)).log(), float("inf"))


def _kl_bernoulli(p: Expr, q: Expr) -> Expr:
    return _relative(p, q) + _relative(1.0 - p, 1.0 - q)


KL: dict[tuple[str, str], Closed] = {
    ("normal", "normal"): _kl_normal,
    ("mvnormal", "mvnormal"): _kl_mvnormal,
    ("laplace", "laplace"): _kl_laplace,
    ("gamma", "gamma"): _kl_gamma,
    ("beta", "beta"): _kl_beta,
    ("dirichlet", "dirichlet"): _kl_dirichlet,
    ("uniform", "uniform"): _kl_uniform,
    ("exponential", "exponential"): lambda r, q: (r / q).log() + q / r - 1.0,
    ("bernoulli", "bernoulli"): _kl_bernoulli,
    ("categorical", "categorical"): lambda p, q: last(_relative(p, q)),
    ("geometric", "geometric"): lambda p, q: _kl_bernoulli(p, q) / p,
    ("poisson", "poisson"): lambda r, q: _relative(r, q) + q - r,
}
"""KL(p || q) by the two distributions."""
