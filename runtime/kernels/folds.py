"""How vectors join lane by lane and how lanes join in a fixed order, for reductions."""

from __future__ import annotations

import math

from numba import njit

from ..simd import splat, vabs
from .masks import cross1, cross2, cross4, cross8, lane_count, pick
from .vector_ops import maximum as maximum
from .vector_ops import minimum as minimum


@njit(error_model="numpy")
def sum_across(x):
    """The sum of all lanes, in every lane."""
    if lane_count(x) > 8:
        x = x + cross8(x)
    if lane_count(x) > 4:
        x = x + cross4(x)
    if lane_count(x) > 2:
        x = x + cross2(x)
    return x + cross1(x)


@njit(error_model="numpy")
def product_across(x):
    """The product of all lanes, in every lane."""
    if lane_count(x) > 8:
        x = x * cross8(x)
    if lane_count(x) > 4:
        x = x * cross4(x)
    if lane_count(x) > 2:
        x = x * cross2(x)
    return x * cross1(x)


@njit(error_model="numpy")
def maximum_across(x):
    """The largest lane, in every lane; NaN wins."""
    x = maximum(x, cross8(x))
    x = maximum(x, cross4(x))
    x = maximum(x, cross2(x))
    return maximum(x, cross1(x))


@njit(error_model="numpy")
def minimum_across(x):
    """The smallest lane, in every lane; NaN wins."""
    x = minimum(x, cross8(x))
    x = minimum(x, cross4(x))
    x = minimum(x, cross2(x))
    return minimum(x, cross1(x))


@njit(error_model="numpy")
def finite_or_zero(x):
    """Keep x where it is finite, else 0: what a log-sum-exp is measured from."""
    return pick(vabs(x) < math.inf, x, splat(x, 0.0))


@njit(error_model="numpy")
def leads(value, place, best, found):
    """Where a value comes before the best one: larger, NaN first of all, the earlier of equals."""
    value_odd, best_odd = value != value, best != best
    equal = (value == best) | (value_odd & best_odd)
    return (value > best) | (value_odd & ~best_odd) | (equal & (place < found))


@njit(error_model="numpy")
def _lead_of(value, place, other, elsewhere):
    ahead = leads(other, elsewhere, value, place)
    return pick(ahead, other, value), pick(ahead, elsewhere, place)


@njit(error_model="numpy")
def leader(value, place):
    """The place of the leading lane, in every lane."""
    value, place = _lead_of(value, place, cross8(value), cross8(place))
    value, place = _lead_of(value, place, cross4(value), cross4(place))
    value, place = _lead_of(value, place, cross2(value), cross2(place))
    value, place = _lead_of(value, place, cross1(value), cross1(place))
    return place
