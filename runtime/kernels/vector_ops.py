"""The op table's element-wise float ops on SIMD vectors, beyond the operators themselves."""

from __future__ import annotations

import math

from numba import njit

from ..simd import splat, vabs, vmax, vmin, vsqrt
from . import scalar_math, vector_math
from .masks import pick
from .vector_math import lane_by_lane

ROOT_HALF = math.sqrt(0.5)
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@njit(error_model="numpy")
def maximum(a, b):
    """The larger of two; NaN wins."""
    return pick(a == a, pick(a > b, a, b), a)


@njit(error_model="numpy")
def minimum(a, b):
    """The smaller of two; NaN wins."""
    return pick(a == a, pick(a < b, a, b), a)


@njit(error_model="numpy")
def sign(x):
    """-1, 0 or 1; NaN stays."""
    return pick(x > 0.0, splat(x, 1.0), pick(x < 0.0, splat(x, -1.0), x))


@njit(error_model="numpy")
def rsqrt(x):
    """1 / sqrt(x)."""
    return 1.0 / vsqrt(x)


@njit(error_model="numpy")
def logit(p):
    """log(p / (1 - p))."""
    return vector_math.log(p) - vector_math.log1p(-p)


@njit(error_model="numpy")
def relu(x):
    """max(x, 0); NaN stays."""
    return vmax(x, splat(x, 0.0))


@njit(error_model="numpy")
def relu6(x):
    """Moved into 0..6; NaN stays."""
    return vmin(vmax(x, splat(x, 0.0)), splat(x, 6.0))


@njit(error_model="numpy")
def leaky_relu(x, slope):
    """Itself above zero, slope * x below."""
    return pick(x > 0.0, x, slope * x)


@njit(error_model="numpy")
def elu(x, alpha):
    """Itself above zero, alpha * (exp(x) - 1) below."""
    return pick(x > 0.0, x, alpha * vector_math.expm1(vmin(x, splat(x, 0.0))))


@njit(error_model="numpy")
def selu(x):
    """The scaled ELU."""
    return elu(x, splat(x, SELU_ALPHA)) * SELU_SCALE


@njit(error_model="numpy")
def gelu(x):
    """The value times the standard normal distribution function."""
    return x * 0.5 * vector_math.erfc(x * -ROOT_HALF)


@njit(error_model="numpy")
def gelu_tanh(x):
    """The approximation of gelu by tanh."""
    inner = (x + x * x * x * 0.044715) * math.sqrt(2.0 / math.pi)
    return x * 0.5 * (vector_math.tanh(inner) + 1.0)


@njit(error_model="numpy")
def hardsigmoid(x):
    """min(max(x + 3, 0), 6) / 6."""
    return relu6(x + 3.0) / 6.0


@njit(error_model="numpy")
def mish(x):
    """The product x * tanh(softplus(x)); the second factor is n / (n + 2), n = e**x (e**x + 2)."""
    e = vector_math.exp(vmin(x, splat(x, 20.0)))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


@njit(error_model="numpy")
def softsign(x):
    """The quotient x / (1 + abs(x))."""
    return x / (vabs(x) + 1.0)


floordiv = lane_by_lane(lambda a, b: scalar_math.floordiv(a, b))
mod = lane_by_lane(lambda a, b: scalar_math.mod(a, b))
atan2 = lane_by_lane(lambda a, b: math.atan2(a, b))
tan = lane_by_lane(lambda x: math.tan(x))
asin = lane_by_lane(lambda x: math.asin(x))
acos = lane_by_lane(lambda x: math.acos(x))
atan = lane_by_lane(lambda x: math.atan(x))
lgamma = lane_by_lane(lambda x: scalar_math.lgamma(x))
digamma = lane_by_lane(lambda x: scalar_math.digamma(x))
polygamma = lane_by_lane(lambda x, n: scalar_math.polygamma(x, n))
