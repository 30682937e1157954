"""The op table's elementary functions on one float64: for rare ops and mixed element types."""

from __future__ import annotations

import math
from typing import Any

from numba import njit, types

from ..simd import intrinsic

_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
"""B_2k / 2k, the coefficients of the asymptotic series of digamma."""

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


@intrinsic
def remainder(typingctx: Any, a: Any, b: Any) -> Any:
    """The exact remainder of a / b with the sign of a, as C's fmod."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.frem(args[0], args[1])

    return types.float64(types.float64, types.float64), codegen


@njit(error_model="numpy")
def floordiv(a, b):
    """floor(a / b) by the exact remainder, as numpy has it."""
    if b == 0.0:
        return a / b
    rest = remainder(a, b)
    quotient = (a - rest) / b
    if rest != 0.0 and (b < 0.0) != (rest < 0.0):
        quotient -= 1.0
    whole = math.floor(quotient) * 1.0
    return whole + 1.0 if quotient - whole > 0.5 else whole


@njit(error_model="numpy")
def mod(a, b):
    """The remainder a - b * floor(a / b): the sign is that of b."""
    if b == 0.0:
        return math.nan
    rest = remainder(a, b)
    if rest != 0.0 and (b < 0.0) != (rest < 0.0):
        return rest + b
    return rest if rest != 0.0 else math.copysign(0.0, b)


@njit(error_model="numpy")
def power(a, b):
    """The power a ** b."""
    return math.pow(a, b)


@njit(error_model="numpy")
def sign(x):
    """-1, 0 or 1; NaN stays."""
    return 1.0 if x > 0.0 else -1.0 if x < 0.0 else x


@njit(error_model="numpy")
def round_even(x):
    """The nearest whole number, halves to the even one."""
    if abs(x) >= 4503599627370496.0 or x != x:
        return x
    shift = math.copysign(4503599627370496.0, x)
    return math.copysign((x + shift) - shift, x)


@njit(error_model="numpy")
def floor(x):
    """The largest whole number not above x."""
    near = round_even(x)
    return near - 1.0 if near > x else near


@njit(error_model="numpy")
def ceil(x):
    """The smallest whole number not below x."""
    return -floor(-x)


@njit(error_model="numpy")
def sigmoid(x):
    """1 / (1 + exp(-x)) without overflow."""
    e = math.exp(-abs(x))
    return (1.0 if x >= 0.0 else e) / (1.0 + e)


@njit(error_model="numpy")
def softplus(x):
    """log(1 + exp(x)) without overflow."""
    return (x if x > 0.0 or x != x else 0.0) + math.log1p(math.exp(-abs(x)))


@njit(error_model="numpy")
def gelu(x):
    """The value times the standard normal distribution function."""
    return 0.5 * x * math.erfc(-x * math.sqrt(0.5))


@njit(error_model="numpy")
def gelu_tanh(x):
    """The approximation of gelu by tanh."""
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


@njit(error_model="numpy")
def elu(x, alpha):
    """Itself above zero, alpha * (exp(x) - 1) below."""
    return x if x > 0.0 else alpha * math.expm1(x)


@njit(error_model="numpy")
def hardsigmoid(x):
    """min(max(x + 3, 0), 6) / 6."""
    moved = x + 3.0
    return (0.0 if moved < 0.0 else 6.0 if moved > 6.0 else moved) / 6.0


@njit(error_model="numpy")
def log(x):
    """The natural logarithm; -inf at 0 and NaN below."""
    return math.nan if x < 0.0 else -math.inf if x == 0.0 else math.log(x)


@njit(error_model="numpy")
def lgamma(x):
    """The logarithm of |gamma(x)|; +inf at 0, -1, -2, ... and at both infinities."""
    if math.isinf(x) or (x <= 0.0 and floor(x) == x):
        return math.inf
    return math.lgamma(x)


@njit(error_model="numpy")
def digamma(x):
    """The derivative of lgamma: recurrence up to 12, then the asymptotic series; reflected left."""
    if x == 0.0:
        return -math.inf
    if x < 0.5:
        if floor(x) == x:
            return math.nan
        turn = x - 2.0 * round_even(x / 2.0)
        return digamma_right(1.0 - x) - math.pi / math.tan(math.pi * turn)
    return digamma_right(x)


@njit(error_model="numpy")
def digamma_right(x):
    """Digamma for x of 1/2 or more."""
    total = 0.0
    while x < 12.0:
        total -= 1.0 / x
        x += 1.0
    z = 1.0 / (x * x)
    series = 0.0
    for k in range(len(_SERIES) - 1, -1, -1):
        series = (series + _SERIES[k]) * z
    return total + math.log(x) - 0.5 / x - series


@njit(error_model="numpy")
def polygamma(x, order):
    """The derivative of digamma of a whole order, for x > 0; NaN elsewhere."""
    if not x > 0.0:
        return math.nan
    total = 0.0
    while x < 12.0 + order:
        total += math.pow(x, -(order + 1.0))
        x += 1.0
    series = math.pow(x, -order) / order + 0.5 * math.pow(x, -(order + 1.0))
    for k in range(len(_BERNOULLI)):
        twice = 2.0 * (k + 1)
        rising = math.lgamma(twice + order) - math.lgamma(twice + 1.0) - math.lgamma(order + 1.0)
        series += _BERNOULLI[k] * math.exp(rising) * math.pow(x, -(twice + order))
    value = math.exp(math.lgamma(order + 1.0)) * (total + series)
    return value if order % 2.0 == 1.0 else -value


# ---------------------------------------------------------------- whole numbers


@njit(error_model="numpy")
def whole_floordiv(a, b):
    """floor(a / b); 0 when b is 0. Dividing by -1 is apart: the smallest number would trap."""
    if b == 0:
        return 0
    if b == -1:
        return -a
    return a // b


@njit(error_model="numpy")
def whole_mod(a, b):
    """The remainder with the sign of b; 0 when b is 0."""
    if b == 0 or b == -1:
        return 0
    return a % b


@njit(error_model="numpy")
def whole_power(a, b):
    """The power a ** b, wrapping around; 0 for a negative b."""
    result = 1 if b >= 0 else 0
    while b > 0:
        if b & 1:
            result *= a
        a *= a
        b >>= 1
    return result


# ---------------------------------------------------------------- sampling


@njit(error_model="numpy")
def grid_position(g, size, align_corners, padding):
    """The pixel position of a grid value; padding 0 zeros, 1 border, 2 reflection."""
    g = float(g)
    p = (g + 1.0) / 2.0 * (size - 1.0) if align_corners else ((g + 1.0) * size - 1.0) / 2.0
    if padding == 0:
        return p
    if padding == 2:
        low = 0.0 if align_corners else -0.5
        span = size - 1.0 if align_corners else size * 1.0
        if span > 0.0:
            turned = mod(abs(p - low), 2.0 * span)
            p = min(turned, 2.0 * span - turned) + low
        else:
            p = 0.0
    # Written so that NaN passes.
    p = 0.0 if p < 0.0 else p
    return size - 1.0 if p > size - 1.0 else p
