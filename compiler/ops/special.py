"""Special functions in plain numpy: log-gamma and its derivatives, Bessel K, safe logarithms.

All of them compute in float64 and return the element type they were given.
"""

from __future__ import annotations

import math

import numpy as np

from .rules import quiet

_SHIFT = 12.0
"""Arguments below are moved up by the recurrence before an asymptotic series is used."""

_STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)
"""B_2k / (2k (2k-1)), the coefficients of Stirling's series."""

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


@quiet
def lgamma(x: np.ndarray) -> np.ndarray:
    """The logarithm of |gamma(x)|; +inf at 0, -1, -2, ...

    Stirling's series above ``_SHIFT``, the recurrence below, Euler's reflection left of 1/2.
    """
    x = np.asarray(x)
    z = x.astype(np.float64)
    left = z < 0.5
    y = _lgamma_right(np.where(left, 1.0 - z, z))
    sine = np.abs(_sin_pi(z))
    y = np.where(left, math.log(math.pi) - np.log(sine) - y, y)
    # 0! and 1! come out exact.
    y = np.where((z == 1) | (z == 2), 0.0, y)
    return np.where(np.isneginf(z), np.inf, y).astype(x.dtype)


@quiet
def digamma(x: np.ndarray) -> np.ndarray:
    """The derivative of log-gamma; -inf at 0, nan at -1, -2, ..."""
    x = np.asarray(x)
    z = x.astype(np.float64)
    left = z < 0.5
    y = _digamma_right(np.where(left, 1.0 - z, z))
    reflected = y - math.pi * np.cos(math.pi * np.fmod(z, 2.0)) / _sin_pi(z)
    y = np.where(left, np.where((z < 0) & (z == np.floor(z)), np.nan, reflected), y)
    return np.where(z == 0, -np.inf, y).astype(x.dtype)


@quiet
def polygamma(x: np.ndarray, n: int) -> np.ndarray:
    """The ``n``-th derivative of digamma (n >= 1) for x > 0; nan elsewhere."""
    x = np.asarray(x)
    z = np.where(x > 0, x, np.nan).astype(np.float64)
    total = np.zeros_like(z)
    # The series starts to diverge near 2k = x, so larger n start further out.
    while np.any(z < _SHIFT + n):
        low = z < _SHIFT + n
        total = np.where(low, total + z ** -(n + 1.0), total)
        z = np.where(low, z + 1.0, z)
    series = z**-n / n + 0.5 * z ** -(n + 1.0)
    for k, b in enumerate(_BERNOULLI, 1):
        rising = math.exp(math.lgamma(2 * k + n) - math.lgamma(2 * k + 1) - math.lgamma(n + 1))
        series = series + b * rising * z ** -(2.0 * k + n)
    return ((-1) ** (n + 1) * math.factorial(n) * (total + series)).astype(x.dtype)


@quiet
def log_bessel_k(order: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The logarithm of K_order(x), the modified Bessel function of the second kind, for x > 0.

    Integrates exp(-x cosh t + order t) by the trapezoidal rule around its mode: the integrand is
    log-concave and analytic, so that 400 points give full precision for any order and argument.
    """
    order, x = np.broadcast_arrays(np.asarray(order), np.asarray(x))
    dtype = np.result_type(order, x)
    nu, z = np.abs(order.astype(np.float64)), x.astype(np.float64)
    radius = np.hypot(nu, z)
    excess = z * z / (radius + nu)  # radius - nu without cancellation

    def exponent(w: np.ndarray) -> np.ndarray:
        return -excess * 2 * np.sinh(w / 2) ** 2 - nu * (np.expm1(w) - w)

    right = _drop_point(lambda w: exponent(w), nu.shape)
    left = _drop_point(lambda w: exponent(-w), nu.shape)
    points = np.linspace(0.0, 1.0, 400).reshape((-1,) + (1,) * nu.ndim)
    width = left + right
    total = np.exp(exponent(points * width - left)).sum(axis=0) * width / 399
    mode = -radius + nu * (np.log(nu + radius) - np.log(z))
    return np.asarray(np.log(total) + mode - math.log(2.0)).astype(dtype)


@quiet
def xlogy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``x * log(y)``, zero where ``x`` is zero."""
    return np.where(x == 0, np.zeros_like(x), x * np.log(y))


@quiet
def xlog1py(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``x * log(1 + y)``, zero where ``x`` is zero."""
    return np.where(x == 0, np.zeros_like(x), x * np.log1p(y))


def softplus(x: np.ndarray) -> np.ndarray:
    """``log(1 + exp(x))`` without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@quiet
def logsumexp(x: np.ndarray, axes: tuple[int, ...], keepdims: bool = False) -> np.ndarray:
    """``log(sum(exp(x)))`` over axes; -inf where every term is -inf."""
    top = np.max(x, axis=axes, keepdims=True)
    top = np.where(np.isfinite(top), top, np.zeros_like(top))
    total = np.log(np.sum(np.exp(x - top), axis=axes, keepdims=True)) + top
    return total if keepdims else np.squeeze(total, axis=axes)


# ---------------------------------------------------------------- helpers


def _sin_pi(z: np.ndarray) -> np.ndarray:
    # Reduced to [-1, 1] first, so that the zeros at whole numbers are exact.
    turn = z - 2.0 * np.round(z / 2.0)
    folded = np.where(np.abs(turn) > 0.5, np.sign(turn) - turn, turn)
    return np.sin(math.pi * folded)


def _lgamma_right(z: np.ndarray) -> np.ndarray:
    product = np.ones_like(z)
    for _ in range(int(_SHIFT)):
        low = z < _SHIFT
        product = np.where(low, product * z, product)
        z = np.where(low, z + 1.0, z)
    # z log z - z overflows into inf - inf at z = inf.
    body = np.where(np.isinf(z), np.inf, (z - 0.5) * (np.log(z) - 1.0) - 0.5)
    inverse = 1.0 / z
    square = inverse * inverse
    series = np.zeros_like(z)
    for c in reversed(_STIRLING):
        series = series * square + c
    return body + 0.5 * math.log(2 * math.pi) + series * inverse - np.log(product)


def _digamma_right(z: np.ndarray) -> np.ndarray:
    total = np.zeros_like(z)
    for _ in range(int(_SHIFT)):
        low = z < _SHIFT
        total = np.where(low, total - 1.0 / z, total)
        z = np.where(low, z + 1.0, z)
    square = 1.0 / (z * z)
    series = np.zeros_like(z)
    for k, b in reversed(list(enumerate(_BERNOULLI, 1))):
        series = (series + b / (2 * k)) * square
    return total + np.log(z) - 0.5 / z - series


def _drop_point(exponent, shape: tuple[int, ...]) -> np.ndarray:
    """Where a concave function that is 0 at 0 has fallen to -45, by bisection."""
    low, high = np.zeros(shape), np.full(shape, 700.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = exponent(middle) > -45.0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return high
