"""Gradients of ops on single elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..base import gradient_of, zero_gradient
from ..expr import Expr, Pullback

_Slope = Callable[[Expr, Expr, Expr], Expr]

_UNARY: dict[str, _Slope] = {
    # d(op(x)) from x, y = op(x) and the cotangent d of y
    "neg": lambda x, y, d: -d,
    "exp": lambda x, y, d: d * y,
    "log": lambda x, y, d: d / x,
    "log1p": lambda x, y, d: d / (x + 1.0),
    "expm1": lambda x, y, d: d * (y + 1.0),
    "sqrt": lambda x, y, d: d / (2.0 * y),
    "rsqrt": lambda x, y, d: -0.5 * d * y / x,
    "reciprocal": lambda x, y, d: -d * y.square(),
    "abs": lambda x, y, d: d * x.op("sign"),
    "square": lambda x, y, d: 2.0 * d * x,
    "sin": lambda x, y, d: d * x.op("cos"),
    "cos": lambda x, y, d: -d * x.op("sin"),
    "tan": lambda x, y, d: d * (y.square() + 1.0),
    "asin": lambda x, y, d: d * (1.0 - x.square()).op("rsqrt"),
    "acos": lambda x, y, d: -d * (1.0 - x.square()).op("rsqrt"),
    "atan": lambda x, y, d: d / (x.square() + 1.0),
    "sinh": lambda x, y, d: d * x.op("cosh"),
    "cosh": lambda x, y, d: d * x.op("sinh"),
    "logit": lambda x, y, d: d / (x * (1.0 - x)),
    "lgamma": lambda x, y, d: d * x.op("digamma"),
    "digamma": lambda x, y, d: d * x.op("polygamma", n=1),
}


def _unary(slope: _Slope) -> Callable[[Pullback], Sequence[Expr | None]]:
    return lambda pull: [slope(pull.x[0], pull.y[0], pull.d)]


for _name, _slope in _UNARY.items():
    gradient_of(_name)(_unary(_slope))

zero_gradient(
    "it is constant between its steps", "sign", "floor", "ceil", "round", "floordiv", "zero_one"
)
zero_gradient(
    "truth values carry no derivative",
    *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "isnan"),
)
zero_gradient("it keeps gradients from passing, by definition", "stop_gradient")


@gradient_of("polygamma")
def _polygamma(pull: Pullback) -> Sequence[Expr | None]:
    order: int = pull.attrs["n"]  # type: ignore[assignment]
    return [pull.d * pull.x[0].op("polygamma", n=order + 1)]


def unbroadcast(pull: Pullback, *cotangents: Expr | None) -> list[Expr | None]:
    """Cotangents of operands that were broadcast together, each summed to its operand's shape."""
    return [
        None if d is None or not need else d.sum_to(x.shape)
        for x, d, need in zip(pull.x, cotangents, pull.needs, strict=True)
    ]


@gradient_of("add")
def _add(pull: Pullback) -> Sequence[Expr | None]:
    return unbroadcast(pull, pull.d, pull.d)


@gradient_of("sub")
def _sub(pull: Pullback) -> Sequence[Expr | None]:
    return unbroadcast(pull, pull.d, -pull.d if pull.needs[1] else None)


@gradient_of("mul")
def _mul(pull: Pullback) -> Sequence[Expr | None]:
    a, b = pull.x
    left, right = pull.needs
    return unbroadcast(pull, pull.d * b if left else None, pull.d * a if right else None)


@gradient_of("div")
def _div(pull: Pullback) -> Sequence[Expr | None]:
    _, b = pull.x
    part = pull.d / b
    return unbroadcast(pull, part, -part * pull.y[0] if pull.needs[1] else None)


@gradient_of("mod")
def _mod(pull: Pullback) -> Sequence[Expr | None]:
    # a - b floor(a / b), with the floor constant
    a, b = pull.x
    return unbroadcast(pull, pull.d, -pull.d * a.op("floordiv", b) if pull.needs[1] else None)


@gradient_of("pow")
def _pow(pull: Pullback) -> Sequence[Expr | None]:
    a, b = pull.x
    left = right = None
    if pull.needs[0]:
        exponent = b.number
        slope = b * a ** (b - 1.0 if exponent is None else b._like(exponent - 1))
        # a^0 is 1 everywhere, 0^0 too
        left = pull.d * (slope if exponent else b.same(0).where(0, slope))
    if pull.needs[1]:
        # a^b log a, which goes to 0 with a
        log = (a > 0).where(a, 1).log()
        right = pull.d * pull.y[0] * log
        right = right if a.number else (a.same(0) & (b >= 0)).where(0, right)
    return unbroadcast(pull, left, right)


def _chosen(pull: Pullback, first: Expr) -> list[Expr | None]:
    """The cotangent to the first operand where it was chosen, else to the second."""
    return unbroadcast(pull, first.where(pull.d, 0), first.where(0, pull.d))


@gradient_of("maximum")
def _maximum(pull: Pullback) -> Sequence[Expr | None]:
    return _chosen(pull, pull.x[0] >= pull.x[1])


@gradient_of("minimum")
def _minimum(pull: Pullback) -> Sequence[Expr | None]:
    return _chosen(pull, pull.x[0] <= pull.x[1])


@gradient_of("atan2")
def _atan2(pull: Pullback) -> Sequence[Expr | None]:
    a, b = pull.x
    part = pull.d / (a.square() + b.square())
    return unbroadcast(pull, part * b, -part * a)


@gradient_of("where")
def _where(pull: Pullback) -> Sequence[Expr | None]:
    condition = pull.x[0]
    return unbroadcast(pull, None, condition.where(pull.d, 0), condition.where(0, pull.d))


@gradient_of("cast")
def _cast(pull: Pullback) -> Sequence[Expr | None]:
    if not pull.y[0].type.is_float:
        return [None]
    return [pull.d.cast(pull.x[0].dtype)]


@gradient_of("clamp")
def _clamp(pull: Pullback) -> Sequence[Expr | None]:
    d, x = pull.d, pull.x[0]
    low, high = pull.attrs["min"], pull.attrs["max"]
    if isinstance(low, (int, float)):
        d = (x >= low).where(d, 0)
    if isinstance(high, (int, float)):
        d = (x <= high).where(d, 0)
    return [d]
