"""Elementary functions on SIMD vectors of any width, float32 and float64.

Errors in units in the last place (ulp), largest over the whole range, denormal results included;
the tests measure them. float32: exp 1.0, expm1 1.4, log and log1p 0.9, tanh 2.6, sigmoid, sinh and
cosh 2.3, erf 2.8, erfc 5.5, sin, cos and softplus 1.6, pow 0.6. float64: expm1 1.8, tanh 2.8, erf
4.1, erfc 6, the others as above; sin, cos and pow are the scalar library's. NaN stays NaN.
Functions without a vector form run lane by lane on the scalar library in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.extending import overload

from ..simd import (
    VectorType,
    copysign,
    exponent,
    fma,
    intrinsic,
    narrow,
    polynomial,
    scale_by_power,
    splat,
    vabs,
    vfloor,
    vmax,
    vmin,
    vround,
    vselect,
    widen,
)  # fmt: skip
from .masks import any_lane, pick

LOG2_E = 1 / math.log(2)


def _by_precision(single: Any, double: Any) -> Any:
    """A function of vectors (one or two, of equal type) with a float32 and a float64 form."""
    if single.__code__.co_argcount == 1:

        def one(x):
            raise TypeError("this function is for compiled kernels")

        @overload(one)
        def choose_one(x):
            if not isinstance(x, VectorType):
                return None
            return single if x.bits == 32 else double

        return one

    def two(a, b):
        raise TypeError("this function is for compiled kernels")

    @overload(two)
    def choose_two(a, b):
        if not isinstance(a, VectorType) or a != b:
            return None
        return single if a.bits == 32 else double

    return two


# ---------------------------------------------------------------- lane by lane


def lane_by_lane(function: Callable[..., float]) -> Any:
    """A vector function that applies a scalar float64 function (of one or two) to each lane."""

    def build(typingctx: Any, kinds: tuple[Any, ...]) -> Any:
        kind = kinds[0]
        double = types.float64

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            scalar = double(*(double for _ in args))
            result = cgutils.alloca_once(builder, args[0].type)
            element = args[0].type.element.as_pointer()
            slots = [cgutils.alloca_once_value(builder, a) for a in args]
            slots = [builder.bitcast(slot, element) for slot in slots]
            target = builder.bitcast(result, element)
            with cgutils.for_range(builder, ir.Constant(ir.IntType(32), kind.count)) as loop:
                places = [builder.gep(slot, [loop.index]) for slot in slots]
                lanes = [builder.load(p) for p in places]
                if kind.bits == 32:
                    lanes = [builder.fpext(lane, ir.DoubleType()) for lane in lanes]
                value = context.compile_internal(builder, function, scalar, lanes)
                if kind.bits == 32:
                    value = builder.fptrunc(value, ir.FloatType())
                builder.store(value, builder.gep(target, [loop.index]))
            return builder.load(result)

        return kind(*kinds), codegen

    if function.__code__.co_argcount == 1:

        @intrinsic
        def one(typingctx: Any, x: Any) -> Any:
            return build(typingctx, (x,)) if isinstance(x, VectorType) else None

        return one

    @intrinsic
    def two(typingctx: Any, a: Any, b: Any) -> Any:
        return build(typingctx, (a, b)) if isinstance(a, VectorType) and a == b else None

    return two


# ---------------------------------------------------------------- exponentials

# A lane that underflows to 0 skips the arithmetic on denormal numbers, which is slow.
_EXP_SINGLE = (1.991661225e-4, 1.394729919e-3, 8.333268018e-3, 4.166625236e-2, 1.666666684e-1, 0.5)
_EXP_DOUBLE = tuple(1 / math.factorial(k) for k in range(13, 1, -1))


@njit(error_model="numpy")
def _power_of_two(x, n):
    """Two to a whole power n of normal size, in the type of x."""
    return scale_by_power(splat(x, 1.0), n)


@njit(error_model="numpy")
def _scaled(y, n):
    """Multiply y by 2**n, rounded once where the result is denormal."""
    half = vfloor(n * 0.5)
    return y * _power_of_two(y, half) * _power_of_two(y, n - half)


def _exp_single(x):
    gone = x < -103.97208
    bounded = pick(gone, splat(x, 0.0), vmin(x, splat(x, 89.0)))
    n = vround(bounded * LOG2_E)
    r = fma(n, splat(x, -0.693145751953125), bounded)
    r = fma(n, splat(x, -1.4286068203094172e-06), r)
    value = _scaled(fma(r * r, polynomial(r, _EXP_SINGLE), r) + 1.0, n)
    return pick(gone, splat(x, 0.0), value)


def _exp_double(x):
    gone = x < -745.13321910194122
    bounded = pick(gone, splat(x, 0.0), vmin(x, splat(x, 710.0)))
    n = vround(bounded * LOG2_E)
    r = fma(n, splat(x, -0.6931471803691238), bounded)
    r = fma(n, splat(x, -1.9082149292705877e-10), r)
    value = _scaled(fma(r * r, polynomial(r, _EXP_DOUBLE), r) + 1.0, n)
    return pick(gone, splat(x, 0.0), value)


exp = _by_precision(_exp_single, _exp_double)
"""e to the power x: x = n log 2 + r, a polynomial in r, times 2**n in two steps."""


@njit(error_model="numpy")
def _joined(p, n, last):
    """Join 2**n * (1 + p) - 1; ``last`` is the exponent at which 2**n would overflow."""
    # Halved at the top, where 2**n is infinite and the result is not.
    top = n < last
    lower = pick(top, n, n - 1.0)
    power = _power_of_two(p, lower)
    value = fma(power, p, power - pick(top, splat(p, 1.0), splat(p, 0.5)))
    return pick(top, value, value * 2.0)


@njit(error_model="numpy")
def exp_parts(x):
    """``(m, n)`` with exp(x) = m 2**n of float64 x: m between 0.7 and 1.5, or 0 with n = -inf.

    As wide as a double's whole numbers are: nothing under- or overflows.
    """
    n = vround(x * LOG2_E)
    r = fma(n, splat(x, -0.6931471803691238), x)
    r = fma(n, splat(x, -1.9082149292705877e-10), r)
    # Far out, where x has no fraction left, r is as coarse as x itself.
    r = vmin(vmax(r, splat(x, -0.35)), splat(x, 0.35))
    m = fma(r * r, polynomial(r, _EXP_DOUBLE), r) + 1.0
    return pick(x == -math.inf, splat(x, 0.0), m), n


def _expm1_single(x):
    bounded = vmin(vmax(x, splat(x, -40.0)), splat(x, 89.0))
    n = vround(bounded * LOG2_E)
    r = fma(n, splat(x, -0.693145751953125), bounded)
    r = fma(n, splat(x, -1.4286068203094172e-06), r)
    return _joined(fma(r * r, polynomial(r, _EXP_SINGLE), r), n, 128.0)


def _expm1_double(x):
    bounded = vmin(vmax(x, splat(x, -60.0)), splat(x, 710.0))
    n = vround(bounded * LOG2_E)
    r = fma(n, splat(x, -0.6931471803691238), bounded)
    r = fma(n, splat(x, -1.9082149292705877e-10), r)
    return _joined(fma(r * r, polynomial(r, _EXP_DOUBLE), r), n, 1024.0)


expm1 = _by_precision(_expm1_single, _expm1_double)
"""exp(x) - 1 without cancellation near 0."""


@njit(error_model="numpy")
def tanh(x):
    """The hyperbolic tangent by z = exp(-2|x|) - 1: -z / (z + 2), or 1 less the rest above 1/2."""
    z = expm1(vabs(x) * -2.0)
    small = z > -0.66
    quotient = pick(small, -z, (z + 1.0) * 2.0) / (z + 2.0)
    return copysign(pick(small, quotient, 1.0 - quotient), x)


@njit(error_model="numpy")
def sigmoid(x):
    """1 / (1 + exp(-x)), from exp of a negative number only, so the small tail keeps its digits."""
    e = exp(-vabs(x))
    return vselect(x, splat(x, 0.0), e, splat(x, 1.0)) / (e + 1.0)


@njit(error_model="numpy")
def sinh(x):
    """The hyperbolic sine; by halves at the top, where exp overflows before the result."""
    size = vabs(x)
    u = expm1(size)
    half = exp(size * 0.5)
    value = pick(u < math.inf, (u + u / (u + 1.0)) * 0.5, half * 0.5 * half)
    return copysign(value, x)


@njit(error_model="numpy")
def cosh(x):
    """The hyperbolic cosine."""
    size = vabs(x)
    e = exp(size)
    half = exp(size * 0.5)
    return pick(e < math.inf, e * 0.5 + 0.5 / e, half * 0.5 * half)


# ---------------------------------------------------------------- logarithms

_LOG_SINGLE = (0.2988524187, 0.3997707729, 0.6666677979)
_LOG_DOUBLE = tuple(2 / k for k in range(23, 1, -2))
_LN2_SINGLE = (0.693145751953125, 1.4286068203094172e-06)
_LN2_DOUBLE = (0.6931471803691238, 1.9082149292705877e-10)


@njit(error_model="numpy")
def _log_sum(series, n, f, s, c, ln2):
    """The sum n log 2 + log(1 + f) + c, by log(1 + f) = f - f*f/2 + s (f*f/2 + series)."""
    half = f * f * 0.5
    low = fma(n, splat(f, ln2[1]), c)
    return fma(n, splat(f, ln2[0]), f - (half - fma(s, half + series, low)))


@njit(error_model="numpy")
def _split(u):
    """Find n and f of u = 2**n (1 + f), 1 + f between sqrt(1/2) and sqrt(2), for normal u > 0."""
    n = exponent(u)
    m = scale_by_power(u, -n)
    upper = m > 1.4142135
    n = pick(upper, n + 1.0, n)
    return n, pick(upper, m * 0.5, m) - 1.0


@njit(error_model="numpy")
def _log_edges(x, value):
    """The logarithm's values at 0, at infinity, of negative numbers and of NaN."""
    value = pick(x < math.inf, value, x)
    value = pick(x < 0.0, splat(x, math.nan), value)
    return pick(x == 0.0, splat(x, -math.inf), value)


def _log_parts_single(a, b):
    n, f = _split(a)
    s = f / (f + 2.0)
    z = s * s
    return _log_sum(z * polynomial(z, _LOG_SINGLE), n, f, s, b, _LN2_SINGLE)


def _log_parts_double(a, b):
    n, f = _split(a)
    s = f / (f + 2.0)
    z = s * s
    return _log_sum(z * polynomial(z, _LOG_DOUBLE), n, f, s, b, _LN2_DOUBLE)


log_parts = _by_precision(_log_parts_single, _log_parts_double)
"""log(a) + b for positive normal a and a small correction b."""


def _log_single(x):
    small = x < 1.1754944e-38
    u = pick(small, x * 8388608.0, x)
    zero = splat(x, 0.0)
    raised = pick(small, splat(x, 23.0), zero)
    value = log_parts(u, zero)
    # The two parts of 23 log 2 are subtracted apart; only denormal numbers get here.
    value = fma(raised, splat(x, -0.6931471805599453), value)
    return _log_edges(x, value)


def _log_double(x):
    small = x < 2.2250738585072014e-308
    u = pick(small, x * 4503599627370496.0, x)
    zero = splat(x, 0.0)
    raised = pick(small, splat(x, 52.0), zero)
    value = fma(raised, splat(x, -0.6931471805599453), log_parts(u, zero))
    return _log_edges(x, value)


log = _by_precision(_log_single, _log_double)
"""The natural logarithm: f = x / 2**n - 1, an odd series in s = f / (2 + f)."""


@njit(error_model="numpy")
def log1p(x):
    """log(1 + x): the rounding error of 1 + x goes in as a correction."""
    u = x + 1.0
    lost = pick(u < 2.0, x - (u - 1.0), (x - u) + 1.0)
    value = log_parts(u, lost / u)
    value = pick(x < math.inf, value, x)
    value = pick(x < -1.0, splat(x, math.nan), value)
    return pick(x == -1.0, splat(x, -math.inf), value)


@njit(error_model="numpy")
def softplus(x):
    """log(1 + exp(x)) without overflow."""
    return vmax(x, splat(x, 0.0)) + log1p(exp(-vabs(x)))


_scalar_pow = lane_by_lane(lambda a, b: math.pow(a, b))


def _pow_single(a, b):
    wide_a, wide_b = widen(a), widen(b)
    size = exp(wide_b * log(vabs(wide_a)))
    whole = vfloor(wide_b) == wide_b
    half = wide_b * 0.5
    odd = whole & (vfloor(half) != half)
    value = pick(odd, copysign(size, wide_a), size)
    endless = vabs(wide_b) == math.inf
    value = pick((wide_a < 0.0) & ~whole & ~endless & (wide_a > -math.inf),
                 splat(wide_a, math.nan), value)  # fmt: skip
    one = splat(wide_a, 1.0)
    value = pick((wide_b == 0.0) | (wide_a == 1.0), one, value)
    return narrow(pick((wide_a == -1.0) & endless, one, value))


def _pow_double(a, b):
    return _scalar_pow(a, b)


pow = _by_precision(_pow_single, _pow_double)
"""a to the power b as C and numpy have it."""


# ---------------------------------------------------------------- the error function

_ERF_SMALL = (-6.76108985e-4, 5.115980876e-3, -2.683543416e-2, 1.128339297e-1, -3.761261992e-1,
              1.283791656e-1)  # fmt: skip
_ERFC_TAIL = (-3.079531104e-2, 6.880036741e-2, 5.919536968e-2, -2.676823863e-1, 1.492865997e-1,
              1.981843906e-2, 1.926552751e-1, 2.442912618e-1, 2.82315228e-1,
              2.820866249e-1)  # fmt: skip

# Rational approximations of W. J. Cody, Math. Comp. 23 (1969) 631-637, highest power first.
_CODY_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
     2.84423683343917062e3),
)  # fmt: skip
_CODY_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
     1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
     1.23033935480374942e3),
)  # fmt: skip
_CODY_LARGE = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
     1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1,
     6.05183413124413191e-2, 2.33520497626869185e-3),
)  # fmt: skip


@njit(error_model="numpy")
def _bell(x):
    """exp(-x*x), the rounding error of the square put back."""
    square = x * x
    lost = fma(x, x, -square)
    e = exp(-square)
    return fma(-e, lost, e)


def _erfc_tail_single(x):
    x = vmin(x, splat(x, 12.0))
    t = 1.0 / fma(x, splat(x, 0.5), splat(x, 1.0))
    return t * polynomial(t, _ERFC_TAIL) * _bell(x)


def _erfc_tail_double(x):
    x = vmin(x, splat(x, 30.0))
    middle = polynomial(x, _CODY_MIDDLE[0]) / polynomial(x, _CODY_MIDDLE[1])
    z = 1.0 / (x * x)
    large = z * polynomial(z, _CODY_LARGE[0]) / polynomial(z, _CODY_LARGE[1])
    return pick(x <= 4.0, middle, (0.5641895835477563 - large) / x) * _bell(x)


erfc_tail = _by_precision(_erfc_tail_single, _erfc_tail_double)
"""The complementary error function for x above the small range."""


def _erf_small_single(x):
    return fma(x, polynomial(x * x, _ERF_SMALL), x)


def _erf_small_double(x):
    z = x * x
    return x * polynomial(z, _CODY_SMALL[0]) / polynomial(z, _CODY_SMALL[1])


erf_small = _by_precision(_erf_small_single, _erf_small_double)
"""The error function near 0."""


@njit(error_model="numpy")
def erf(x):
    """The error function: odd polynomial near 0, 1 - erfc beyond."""
    size = vabs(x)
    tail = copysign(1.0 - erfc_tail(size), x)
    return pick(size < 0.5, erf_small(x), tail)


@njit(error_model="numpy")
def erfc(x):
    """1 - erf(x), without cancellation on the right."""
    tail = erfc_tail(vabs(x))
    return pick(vabs(x) < 0.5, 1.0 - erf_small(x), pick(x < 0.0, 2.0 - tail, tail))


# ---------------------------------------------------------------- circular functions

_SIN = (-1.951083307e-4, 8.33213144e-3, -1.666665422e-1)
_COS = (2.443119419e-5, -1.388730593e-3, 4.166664565e-2)
_FAR = 40000.0
"""Beyond, three parts of pi / 2 no longer suffice and the scalar library takes over."""

_scalar_sin = lane_by_lane(lambda x: math.sin(x))
_scalar_cos = lane_by_lane(lambda x: math.cos(x))


@njit(error_model="numpy")
def _circular(x, quarter):
    """sin(x + quarter * pi / 2) for |x| below ``_FAR``."""
    n = vround(x * 0.6366197723675814)
    r = fma(n, splat(x, -1.5707964), x)
    r = fma(n, splat(x, 4.371139e-08), r)
    r = fma(n, splat(x, 1.7151245e-15), r)
    z = r * r
    sine = fma(r * z, polynomial(z, _SIN), r)
    cosine = fma(z * z, polynomial(z, _COS), 1.0 - z * 0.5)
    turn = n + quarter
    half = vfloor(turn * 0.5)
    value = pick(turn - half * 2.0 == 0.0, sine, cosine)
    return pick(half - vfloor(half * 0.5) * 2.0 == 0.0, value, -value)


def _sin_single(x):
    return _scalar_sin(x) if any_lane(vabs(x) > _FAR) else _circular(x, 0.0)


def _cos_single(x):
    return _scalar_cos(x) if any_lane(vabs(x) > _FAR) else _circular(x, 1.0)


def _sin_double(x):
    return _scalar_sin(x)


sin = _by_precision(_sin_single, _sin_double)
"""The sine."""


def _cos_double(x):
    return _scalar_cos(x)


cos = _by_precision(_cos_single, _cos_double)
"""The cosine."""
