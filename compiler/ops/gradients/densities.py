"""Log densities by simpler ops, as functions of a value and parameters that broadcast.

They follow ``compiler/ops/densities.py`` line by line. A branch that is not taken is computed at a
harmless value, so that neither it nor its derivative is ever nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..expr import Expr

Density = Callable[..., Expr]

_LOG_2PI = math.log(2 * math.pi)
_OUTSIDE = float("-inf")


def xlogy(x: Expr, y: Expr) -> Expr:
    """``x log y``, zero where both are zero; where only ``x`` is, its derivative is ``log y``."""
    none = x.same(0) & y.same(0)
    return x * none.where(1, y).log()


def xlog1py(x: Expr, y: Expr) -> Expr:
    """``x log(1 + y)``, zero where ``x`` is 0 and ``y`` is -1."""
    none = x.same(0) & y.same(-1)
    return x * none.where(0, y).log1p()


def lgamma(x: Expr) -> Expr:
    """The logarithm of the gamma function."""
    return x.op("lgamma")


def last(x: Expr) -> Expr:
    """The sum over the last axis."""
    return x.sum([x.rank - 1])


def _normal(x: Expr, mu: Expr, sd: Expr) -> Expr:
    return -0.5 * ((x - mu) / sd).square() - sd.log() - 0.5 * _LOG_2PI


def _mvnormal(x: Expr, mu: Expr, cov: Expr) -> Expr:
    root = cov.op("cholesky")
    apart = (x - mu).unsqueeze(max(x.rank, mu.rank))
    if apart.rank < root.rank:
        apart = apart.broadcast((*root.shape[: root.rank - apart.rank], *apart.shape))
    lead = root.rank - apart.rank
    if lead < 0:
        root = root.broadcast((*apart.shape[:-lead], *root.shape))
    z = root.op("triangular_solve", apart, lower=True).square()
    log_det = last(root.op("diagonal").log())
    return -0.5 * z.sum([z.rank - 2, z.rank - 1]) - log_det - 0.5 * _LOG_2PI * x.count([x.rank - 1])


def _laplace(x: Expr, mu: Expr, b: Expr) -> Expr:
    return -(x - mu).abs() / b - (2.0 * b).log()


def _student_t(x: Expr, nu: Expr, mu: Expr, sd: Expr) -> Expr:
    half = (nu + 1.0) * 0.5
    norm = _half_step(nu * 0.5) - 0.5 * _LOG_2PI - sd.log()
    return norm - half * (((x - mu) / sd).square() / nu).log1p()


def _half_step(a: Expr) -> Expr:
    far = a > 1e3
    near, wide = far.where(1, a), far.where(a, 1e3)
    square = wide * wide
    series = (-1 / 8 + (1 / 192 - 1 / (640.0 * square)) / square) / wide
    return far.where(series, lgamma(near + 0.5) - lgamma(near) - 0.5 * near.log())


def _cauchy(x: Expr, x0: Expr, gamma: Expr) -> Expr:
    return -(gamma * math.pi).log() - ((x - x0) / gamma).square().log1p()


def _beta(x: Expr, a: Expr, b: Expr) -> Expr:
    inside = (x >= 0) & (x <= 1)
    y = inside.where(x, 0.5)
    body = xlogy(a - 1.0, y) + xlog1py(b - 1.0, -y)
    return inside.where(body + lgamma(a + b) - lgamma(a) - lgamma(b), _OUTSIDE)


def _gamma(x: Expr, shape: Expr, rate: Expr) -> Expr:
    inside = x >= 0
    y = inside.where(x, 1)
    body = xlogy(shape - 1.0, y) - rate * y + shape * rate.log() - lgamma(shape)
    return inside.where(body, _OUTSIDE)


def _inverse_gamma(x: Expr, shape: Expr, scale: Expr) -> Expr:
    inside = x > 0
    y = inside.where(x, 1)
    body = shape * scale.log() - lgamma(shape) - (shape + 1.0) * y.log() - scale / y
    return inside.where(body, _OUTSIDE)


def _inverse_gaussian(x: Expr, mu: Expr, lam: Expr) -> Expr:
    inside = x > 0
    y = inside.where(x, 1)
    z = (y - mu) / mu
    body = 0.5 * (lam.log() - _LOG_2PI - 3.0 * y.log()) - lam * z.square() / (2.0 * y)
    return inside.where(body, _OUTSIDE)


def _generalised_inverse_gaussian(x: Expr, p: Expr, a: Expr, b: Expr) -> Expr:
    inside = x > 0
    y = inside.where(x, 1)
    norm = 0.5 * p * (a / b).log() - math.log(2) - p.op("log_bessel_k", (a * b).sqrt())
    return inside.where(norm + (p - 1.0) * y.log() - 0.5 * (a * y + b / y), _OUTSIDE)


def _uniform(x: Expr, lo: Expr, hi: Expr) -> Expr:
    return ((x >= lo) & (x <= hi)).where(-(hi - lo).log(), _OUTSIDE)


def _exponential(x: Expr, rate: Expr) -> Expr:
    inside = x >= 0
    return inside.where(rate.log() - rate * inside.where(x, 0), _OUTSIDE)


def _dirichlet(x: Expr, alpha: Expr) -> Expr:
    axis = x.rank - 1
    inside = (x >= 0).reduce("all", [axis]) & ((last(x) - 1.0).abs() <= 1e-5)
    y = inside.unsqueeze(axis).where(x, 0.5)
    norm = lgamma(last(alpha)) - last(lgamma(alpha))
    return inside.where(norm + last(xlogy(alpha - 1.0, y)), _OUTSIDE)


def _counted(x: Expr) -> tuple[Expr, Expr]:
    """Whether values are counts, and the values with all others at 0."""
    inside = (x >= 0) & x.same(x.op("floor"))
    return inside, inside.where(x, 0)


def _bernoulli(x: Expr, p: Expr) -> Expr:
    inside = (x >= 0) & (x <= 1)
    y = inside.where(x, 0)
    return inside.where(xlogy(y, p) + xlog1py(1.0 - y, -p), _OUTSIDE)


def _bernoulli_logits(x: Expr, logits: Expr) -> Expr:
    inside = (x >= 0) & (x <= 1)
    y = inside.where(x, 0)
    return inside.where(y * logits - logits.op("softplus", beta=1.0), _OUTSIDE)


def _chosen(x: Expr, table: Expr) -> tuple[Expr, Expr]:
    """Whether values are indices of the last axis, and where they point, one axis more."""
    places = x.writer.make("iota", size=table.shape[-1], dtype=x.dtype)
    hit = x.unsqueeze(x.rank).same(places)
    return hit.reduce("any", [x.rank]), hit


def _categorical(x: Expr, p: Expr) -> Expr:
    inside, hit = _chosen(x, p)
    return inside.where(last(hit.where(p, 1).log()), _OUTSIDE)


def _categorical_logits(x: Expr, logits: Expr) -> Expr:
    inside, hit = _chosen(x, logits)
    table = logits.op("log_softmax", axis=logits.rank - 1)
    return inside.where(last(hit.where(table, 0)), _OUTSIDE)


def _labels(x: Expr, n: Expr) -> Expr:
    inside, y = _counted(x)
    return (inside & (y < n)).where(y.filled(0), _OUTSIDE)


def _poisson(x: Expr, rate: Expr) -> Expr:
    inside, y = _counted(x)
    return inside.where(xlogy(y, rate) - rate - lgamma(y + 1.0), _OUTSIDE)


def _negative_binomial(x: Expr, r: Expr, p: Expr) -> Expr:
    inside, y = _counted(x)
    choose = lgamma(y + r) - lgamma(r) - lgamma(y + 1.0)
    return inside.where(choose + xlogy(r, p) + xlog1py(y, -p), _OUTSIDE)


def _geometric(x: Expr, p: Expr) -> Expr:
    inside, y = _counted(x)
    return inside.where(p.log() + xlog1py(y, -p), _OUTSIDE)


def _binomial(x: Expr, n: Expr, p: Expr) -> Expr:
    inside, y = _counted(x)
    inside = inside & (y <= n)
    y = inside.where(y, 0)
    choose = lgamma(n + 1.0) - lgamma(y + 1.0) - lgamma(n - y + 1.0)
    return inside.where(choose + xlogy(y, p) + xlog1py(n - y, -p), _OUTSIDE)


def _multinomial(x: Expr, n: Expr, p: Expr) -> Expr:
    counted = x >= 0
    y = counted.where(x, 0)
    inside = counted.reduce("all", [x.rank - 1]) & ((last(y) - n).abs() <= 1e-6 * (n + 1.0))
    return inside.where(lgamma(n + 1.0) + last(xlogy(y, p) - lgamma(y + 1.0)), _OUTSIDE)


def _dpp(x: Expr, kernel: Expr) -> Expr:
    held = ~x.same(0)
    identity = x.writer.make("eye", size=kernel.shape[-1], dtype=kernel.dtype)
    both = held.unsqueeze(held.rank) & held.unsqueeze(held.rank - 1)
    size = both.where(kernel, identity).op("logdet")
    # A singular L_Y may come out as a rounding error below zero.
    size = size.op("isnan").where(_OUTSIDE, size)
    return size - (kernel + identity).op("logdet")


LOG_PROB: dict[tuple[str, str], Density] = {
    ("normal", ""): _normal,
    ("mvnormal", ""): _mvnormal,
    ("laplace", ""): _laplace,
    ("student_t", ""): _student_t,
    ("cauchy", ""): _cauchy,
    ("beta", ""): _beta,
    ("gamma", ""): _gamma,
    ("inverse_gamma", ""): _inverse_gamma,
    ("inverse_gaussian", ""): _inverse_gaussian,
    ("generalised_inverse_gaussian", ""): _generalised_inverse_gaussian,
    ("uniform", ""): _uniform,
    ("exponential", ""): _exponential,
    ("dirichlet", ""): _dirichlet,
    ("bernoulli", ""): _bernoulli,
    ("bernoulli", "logits"): _bernoulli_logits,
    ("categorical", ""): _categorical,
    ("categorical", "logits"): _categorical_logits,
    ("labels", ""): _labels,
    ("poisson", ""): _poisson,
    ("negative_binomial", ""): _negative_binomial,
    ("geometric", ""): _geometric,
    ("binomial", ""): _binomial,
    ("multinomial", ""): _multinomial,
    ("dpp", ""): _dpp,
}
"""The log density by distribution and form."""
