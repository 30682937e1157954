"""First values of parameters: an initialiser rule, a shape and a seed give an array.

A rule is a tuple of its name and numbers, such as ``("he",)`` or ``("normal", 0.0, 0.01)``. Values
depend on the seed and the parameter's path alone, never on the order in which parameters are made.
For a weight ``[O, I, kernel...]`` the fan-in is ``I * prod(kernel)``, the fan-out
``O * prod(kernel)``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from ..ir.types import DTYPES
from .base import OpError

Shape = tuple[int, ...]
VALUES = "values"
"""The rule ``("values", nested numbers)``: given values, as in ``param p : real[2] = [1, 2]``."""


def initialise(
    rule: str | Sequence[Any], shape: Sequence[int], dtype: str, seed: int, path: str
) -> np.ndarray:
    """Values of the parameter at ``path``.

    Drawn in float64 from a Philox generator keyed by ``(seed, path)``, then cast, so that f32 and
    f64 parameters agree to rounding. Raises :class:`OpError` E408 for an unknown or ill-formed
    rule and E101 for a shape that the rule cannot fill.
    """
    if not isinstance(rule, str) and rule[0] == VALUES:
        return np.array(np.broadcast_to(np.asarray(rule[1]), shape), DTYPES[dtype], order="C")
    found, numbers = check_rule(rule)
    values = found.fill(generator(seed, path), tuple(shape), *numbers)
    # ascontiguousarray would turn a single number into [1].
    return np.array(values, DTYPES[dtype], order="C")


def generator(seed: int, path: str) -> np.random.Generator:
    """The random stream of one path under one seed."""
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


@dataclass(frozen=True)
class Rule:
    """How an initialiser fills a shape; ``numbers`` is (fewest, most) it takes."""

    fill: Callable[..., np.ndarray]
    numbers: tuple[int, int]
    doc: str


def check_rule(rule: str | Sequence[Any]) -> tuple[Rule, Sequence[float]]:
    """The rule's row and its numbers; raises :class:`OpError` E408 when it is not one."""
    name, *numbers = (rule,) if isinstance(rule, str) else rule
    found = RULES.get(name)
    if found is None:
        raise OpError("E408", f"unknown initialiser {name}", _suggest(str(name)))
    fewest, most = found.numbers
    if not fewest <= len(numbers) <= most:
        wanted = str(most) if fewest == most else f"{fewest} to {most}"
        what = f"{wanted} number{'s' if most != 1 else ''}"
        raise OpError("E408", f"initialiser {name} takes {what}, found {list(numbers)}", found.doc)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise OpError("E408", f"initialiser {name} takes numbers, found {number!r}", found.doc)
    return found, numbers


# ---------------------------------------------------------------- plain values


def _constant(rng: np.random.Generator, shape: Shape, value: float) -> np.ndarray:
    return np.full(shape, value, np.float64)


def _normal(
    rng: np.random.Generator, shape: Shape, mean: float = 0.0, std: float = 1.0
) -> np.ndarray:
    _need_positive("normal", "standard deviation", std, zero=True)
    return mean + std * rng.standard_normal(shape)


def _uniform(
    rng: np.random.Generator, shape: Shape, low: float = 0.0, high: float = 1.0
) -> np.ndarray:
    if low > high:
        raise OpError("E408", f"initialiser uniform: lower bound {low} is above {high}")
    return rng.uniform(low, high, shape)


# ---------------------------------------------------------------- scaled by fan


def _fans(name: str, shape: Shape) -> tuple[int, int]:
    if len(shape) < 2:
        raise OpError(
            "E101",
            f"initialiser {name} needs a weight of two axes or more, found shape {list(shape)}",
            "use zeros, constant, normal or uniform",
        )
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def _scaled(
    name: str, variance: Callable[[int, int], float], uniform: bool = False
) -> Callable[[np.random.Generator, Shape], np.ndarray]:
    """A zero-mean rule whose variance follows from the fans."""

    def fill(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        std = math.sqrt(variance(*_fans(name, shape)))
        if uniform:
            bound = math.sqrt(3) * std
            return rng.uniform(-bound, bound, shape)
        return std * rng.standard_normal(shape)

    return fill


def _multi_branch(
    rng: np.random.Generator, shape: Shape, inputs: float, outputs: float, alpha: float = 0.5
) -> np.ndarray:
    fan_in, fan_out = _fans("multi_branch", shape)
    for what, number in (("inputs", inputs), ("outputs", outputs), ("alpha", alpha)):
        _need_positive("multi_branch", what, number)
    variance = 1 / (alpha**2 * (inputs * fan_in + outputs * fan_out))
    return math.sqrt(variance) * rng.standard_normal(shape)


# ---------------------------------------------------------------- structured


def _orthogonal(rng: np.random.Generator, shape: Shape, gain: float = 1.0) -> np.ndarray:
    _fans("orthogonal", shape)
    rows, columns = shape[0], math.prod(shape[1:])
    flat = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(flat)
    # Fixing the signs of the diagonal makes the distribution uniform over orthogonal matrices.
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return gain * (q if rows >= columns else q.T).reshape(shape)


def _identity(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    _fans("identity", shape)
    values = np.zeros(shape)
    same = np.arange(min(shape[:2]))
    values[(same, same, *(k // 2 for k in shape[2:]))] = 1
    return values


def _eye(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    _fans("eye", shape[-2:])
    return np.broadcast_to(np.eye(shape[-2], shape[-1]), shape)


def _uniform_simplex(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return np.full(shape, 1 / _categories("uniform_simplex", shape))


def _random_simplex(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    _categories("random_simplex", shape)
    draws = rng.standard_exponential(shape)
    return draws / draws.sum(axis=-1, keepdims=True)


def _categories(name: str, shape: Shape) -> int:
    if not shape:
        raise OpError("E101", f"initialiser {name} needs an axis of probabilities, found a scalar")
    return shape[-1]


RULES: dict[str, Rule] = {
    "zeros": Rule(lambda rng, shape: np.zeros(shape), (0, 0), "zeros"),
    "ones": Rule(lambda rng, shape: np.ones(shape), (0, 0), "ones"),
    "constant": Rule(_constant, (1, 1), "constant(value)"),
    "normal": Rule(_normal, (0, 2), "normal(mean, std)"),
    "uniform": Rule(_uniform, (0, 2), "uniform(low, high)"),
    "he": Rule(
        _scaled("he", lambda i, o: 2 / i),
        (0, 0),
        "he: normal, variance 2/fan_in. He et al., ICCV 2015.",
    ),
    "he_fan_out": Rule(
        _scaled("he_fan_out", lambda i, o: 2 / o), (0, 0), "he_fan_out: normal, variance 2/fan_out"
    ),
    "he_uniform": Rule(
        _scaled("he_uniform", lambda i, o: 2 / i, uniform=True),
        (0, 0),
        "he_uniform: uniform, variance 2/fan_in",
    ),
    "xavier": Rule(
        _scaled("xavier", lambda i, o: 2 / (i + o), uniform=True),
        (0, 0),
        "xavier: uniform, variance 2/(fan_in + fan_out). Glorot and Bengio, AISTATS 2010.",
    ),
    "xavier_normal": Rule(
        _scaled("xavier_normal", lambda i, o: 2 / (i + o)),
        (0, 0),
        "xavier_normal: normal, variance 2/(fan_in + fan_out)",
    ),
    "lecun": Rule(
        _scaled("lecun", lambda i, o: 1 / i),
        (0, 0),
        "lecun: normal, variance 1/fan_in. LeCun et al., Efficient BackProp, 1998.",
    ),
    "torch": Rule(
        _scaled("torch", lambda i, o: 1 / (3 * i), uniform=True),
        (0, 0),
        "torch: uniform within 1/sqrt(fan_in), PyTorch's default for weights",
    ),
    "orthogonal": Rule(
        _orthogonal, (0, 1), "orthogonal(gain): orthonormal rows or columns. Saxe et al., 2014."
    ),
    "identity": Rule(_identity, (0, 0), "identity: passes channel i on to channel i"),
    "eye": Rule(_eye, (0, 0), "eye: the identity matrix in the last two axes"),
    "multi_branch": Rule(
        _multi_branch,
        (2, 3),
        "multi_branch(inputs, outputs, alpha): normal, variance 1/(alpha^2 (inputs*fan_in + "
        "outputs*fan_out)) for a layer with so many branches before and after it; alpha is 1/2 "
        "for ReLU, 1 for tanh. Yang et al., Learning Feature Pyramids, ICCV 2017.",
    ),
    "uniform_simplex": Rule(
        _uniform_simplex, (0, 0), "uniform_simplex: equal probabilities along the last axis"
    ),
    "random_simplex": Rule(
        _random_simplex, (0, 0), "random_simplex: uniform on the simplex of the last axis"
    ),
}
"""Every initialiser rule."""


def _need_positive(name: str, what: str, number: float, zero: bool = False) -> None:
    if number < 0 or (number == 0 and not zero):
        least = "at least 0" if zero else "above 0"
        raise OpError("E408", f"initialiser {name}: {what} is {number}, expected {least}")


def _suggest(name: str) -> str:
    close = get_close_matches(name, RULES, 1)
    return f"did you mean {close[0]}?" if close else "known are " + ", ".join(RULES)
