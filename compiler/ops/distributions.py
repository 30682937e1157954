"""The table of distributions, and the ops on them: log density, sample, kl, entropy, pmf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...runtime import philox
from ..ir.dims import DimLike
from ..ir.types import DTYPES, FLOATS, Attrs, TensorType, shape_text
from . import densities, samplers
from .base import Op, Operand, OpError, define
from .divergences import ENTROPY, KL
from .random import require_key
from .rules import broadcast_shapes, quiet, require_equal, require_kind, require_rank, sizes_attr
from .special import log_bessel_k

Function = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Parameter:
    """One parameter: its domain (as in ``param``, or ``count``), its own axes, its default."""

    name: str
    domain: str
    rank: int = 0
    default: float | None = None


@dataclass(frozen=True)
class Form:
    """Another way to give the parameters; ``canonical`` turns them into the usual ones."""

    params: tuple[Parameter, ...]
    canonical: Callable[..., tuple[np.ndarray, ...]]
    log_prob: Function


@dataclass(frozen=True)
class Distribution:
    """One distribution.

    ``support`` is real, positive, unit, count, finite, bool, simplex or vector; ``rank`` counts the
    axes of one value. ``mean`` and ``variance`` take the parameters and are absent where there is
    no closed form. ``smooth`` says that samples are differentiable in the parameters.
    """

    name: str
    params: tuple[Parameter, ...]
    support: str
    log_prob: Function
    sample: Function
    mean: Function | None = None
    variance: Function | None = None
    rank: int = 0
    value_dtype: str = "float"
    smooth: bool = False
    forms: Mapping[str, Form] = field(default_factory=dict)

    def params_of(self, form: str) -> tuple[Parameter, ...]:
        """Parameters in a form (``""`` for the usual one)."""
        return self.forms[form].params if form else self.params

    def canonical(self, form: str, params: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The usual parameters."""
        return self.forms[form].canonical(*params) if form else params


def distribution(name: str, form: str = "") -> Distribution:
    """The distribution of a name that has the form; raises E601."""
    found = DISTRIBUTIONS.get(name)
    if found is None:
        raise OpError("E601", f"{name} is not a distribution")
    if form and form not in found.forms:
        raise OpError("E601", f"{name} has no form {form}")
    return found


def _real(name: str, default: float | None = None) -> Parameter:
    return Parameter(name, "real", 0, default)


def _positive(name: str, default: float | None = None) -> Parameter:
    return Parameter(name, "positive", 0, default)


def _unit(name: str) -> Parameter:
    return Parameter(name, "unit")


def _softmax(logits: np.ndarray) -> tuple[np.ndarray]:
    weights = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return (weights / np.sum(weights, axis=-1, keepdims=True),)


def _logistic(logits: np.ndarray) -> tuple[np.ndarray]:
    small = np.exp(-np.abs(logits))
    return (np.where(logits < 0, small, 1) / (1 + small),)


def _bessel_ratio(p: np.ndarray, a: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    """The k-th moment of the generalised inverse Gaussian."""
    omega = np.sqrt(a * b)
    ratio = np.exp(log_bessel_k(p + k, omega) - log_bessel_k(p, omega))
    return (b / a) ** (k / 2) * ratio


def _index_moment(p: np.ndarray, k: int) -> np.ndarray:
    return np.sum(p * np.arange(p.shape[-1]) ** k, axis=-1)


def _dirichlet_variance(alpha: np.ndarray) -> np.ndarray:
    total = np.sum(alpha, axis=-1, keepdims=True)
    share = alpha / total
    return share * (1 - share) / (total + 1)


def _student_variance(nu: np.ndarray, mu: np.ndarray, sd: np.ndarray) -> np.ndarray:
    finite = np.where(nu > 2, sd * sd * nu / (nu - 2), np.inf)
    return np.where(nu > 1, finite, np.nan)


def _inverse_gamma_variance(shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.where(shape > 2, scale**2 / ((shape - 1) ** 2 * (shape - 2)), np.inf)


_ROWS = (
    Distribution(
        "normal",
        (_real("mu"), _positive("sd")),
        "real",
        densities.normal,
        samplers.normal,
        lambda mu, sd: mu,
        lambda mu, sd: sd * sd,
        smooth=True,
    ),
    Distribution(
        "mvnormal",
        (Parameter("mu", "real", 1), Parameter("cov", "posdef", 2)),
        "vector",
        densities.mvnormal,
        samplers.mvnormal,
        lambda mu, cov: mu,
        lambda mu, cov: np.diagonal(cov, axis1=-2, axis2=-1),
        rank=1,
        smooth=True,
    ),
    Distribution(
        "laplace",
        (_real("mu"), _positive("b")),
        "real",
        densities.laplace,
        samplers.laplace,
        lambda mu, b: mu,
        lambda mu, b: 2 * b * b,
        smooth=True,
    ),
    Distribution(
        "student_t",
        (_positive("nu"), _real("mu", 0.0), _positive("sd", 1.0)),
        "real",
        densities.student_t,
        samplers.student_t,
        lambda nu, mu, sd: np.where(nu > 1, mu, np.nan),
        _student_variance,
    ),
    Distribution(
        "cauchy",
        (_real("x0"), _positive("gamma")),
        "real",
        densities.cauchy,
        samplers.cauchy,
        lambda x0, gamma: np.full_like(x0, np.nan),
        lambda x0, gamma: np.full_like(x0, np.nan),
        smooth=True,
    ),
    Distribution(
        "beta",
        (_positive("a"), _positive("b")),
        "unit",
        densities.beta,
        samplers.beta,
        lambda a, b: a / (a + b),
        lambda a, b: a * b / ((a + b) ** 2 * (a + b + 1)),
    ),
    Distribution(
        "gamma",
        (_positive("shape"), _positive("rate")),
        "positive",
        densities.gamma,
        samplers.gamma,
        lambda shape, rate: shape / rate,
        lambda shape, rate: shape / rate**2,
    ),
    Distribution(
        "inverse_gamma",
        (_positive("shape"), _positive("scale")),
        "positive",
        densities.inverse_gamma,
        samplers.inverse_gamma,
        lambda shape, scale: np.where(shape > 1, scale / (shape - 1), np.inf),
        _inverse_gamma_variance,
    ),
    Distribution(
        "inverse_gaussian",
        (_positive("mu"), _positive("lam")),
        "positive",
        densities.inverse_gaussian,
        samplers.inverse_gaussian,
        lambda mu, lam: mu,
        lambda mu, lam: mu**3 / lam,
    ),
    Distribution(
        "generalised_inverse_gaussian",
        (_real("p"), _positive("a"), _positive("b")),
        "positive",
        densities.generalised_inverse_gaussian,
        samplers.generalised_inverse_gaussian,
        lambda p, a, b: _bessel_ratio(p, a, b, 1),
        lambda p, a, b: _bessel_ratio(p, a, b, 2) - _bessel_ratio(p, a, b, 1) ** 2,
    ),
    Distribution(
        "uniform",
        (_real("lo"), _real("hi")),
        "real",
        densities.uniform,
        samplers.uniform,
        lambda lo, hi: (lo + hi) / 2,
        lambda lo, hi: (hi - lo) ** 2 / 12,
        smooth=True,
    ),
    Distribution(
        "exponential",
        (_positive("rate"),),
        "positive",
        densities.exponential,
        samplers.exponential,
        lambda rate: 1 / rate,
        lambda rate: 1 / rate**2,
        smooth=True,
    ),
    Distribution(
        "dirichlet",
        (Parameter("alpha", "positive", 1),),
        "simplex",
        densities.dirichlet,
        samplers.dirichlet,
        lambda alpha: alpha / np.sum(alpha, axis=-1, keepdims=True),
        _dirichlet_variance,
        rank=1,
    ),
    Distribution(
        "bernoulli",
        (_unit("p"),),
        "bool",
        densities.bernoulli,
        samplers.bernoulli,
        lambda p: p,
        lambda p: p * (1 - p),
        value_dtype="i32",
        forms={"logits": Form((_real("logits"),), _logistic, densities.bernoulli_logits)},
    ),
    Distribution(
        "categorical",
        (Parameter("p", "simplex", 1),),
        "finite",
        densities.categorical,
        samplers.categorical,
        lambda p: _index_moment(p, 1),
        lambda p: _index_moment(p, 2) - _index_moment(p, 1) ** 2,
        value_dtype="i32",
        forms={
            "logits": Form(
                (Parameter("logits", "real", 1),), _softmax, densities.categorical_logits
            )
        },
    ),
    Distribution(
        "labels",
        (Parameter("n", "count"),),
        "finite",
        densities.labels,
        samplers.labels,
        lambda n: (n - 1) / 2,
        lambda n: (n * n - 1) / 12,
        value_dtype="i32",
    ),
    Distribution(
        "poisson",
        (_positive("rate"),),
        "count",
        densities.poisson,
        samplers.poisson,
        lambda rate: rate,
        lambda rate: rate,
        value_dtype="i32",
    ),
    Distribution(
        "negative_binomial",
        (_positive("r"), _unit("p")),
        "count",
        densities.negative_binomial,
        samplers.negative_binomial,
        lambda r, p: r * (1 - p) / p,
        lambda r, p: r * (1 - p) / p**2,
        value_dtype="i32",
    ),
    Distribution(
        "geometric",
        (_unit("p"),),
        "count",
        densities.geometric,
        samplers.geometric,
        lambda p: (1 - p) / p,
        lambda p: (1 - p) / p**2,
        value_dtype="i32",
    ),
    Distribution(
        "binomial",
        (Parameter("n", "count"), _unit("p")),
        "count",
        densities.binomial,
        samplers.binomial,
        lambda n, p: n * p,
        lambda n, p: n * p * (1 - p),
        value_dtype="i32",
    ),
    Distribution(
        "multinomial",
        (Parameter("n", "count"), Parameter("p", "simplex", 1)),
        "vector",
        densities.multinomial,
        samplers.multinomial,
        lambda n, p: n[..., None] * p,
        lambda n, p: n[..., None] * p * (1 - p),
        rank=1,
        value_dtype="i32",
    ),
    Distribution(
        "dpp",
        (Parameter("L", "posdef", 2),),
        "vector",
        densities.dpp,
        samplers.dpp,
        rank=1,
        value_dtype="bool",
    ),
)
DISTRIBUTIONS: dict[str, Distribution] = {row.name: row for row in _ROWS}
"""Every distribution by name."""


# ---------------------------------------------------------------- types


def _named(attrs: Attrs, name: str = "dist", form: str = "form") -> Distribution:
    return distribution(str(attrs[name]), str(attrs[form]))


def _split_params(
    found: Distribution, form: str, types: Sequence[TensorType]
) -> tuple[tuple[DimLike, ...], tuple[DimLike, ...]]:
    """Batch shape and event shape that parameters agree on; raises E407, E101, E103 and E104."""
    rows = found.params_of(form)
    if len(types) != len(rows):
        names = ", ".join(row.name for row in rows)
        raise OpError(
            "E407", f"{found.name} takes {len(rows)} parameters ({names}), found {len(types)}"
        )
    batches: list[tuple[DimLike, ...]] = [()]
    event: tuple[DimLike, ...] = ()
    for row, kind in zip(rows, types, strict=True):
        what = f"{found.name}: {row.name}"
        require_kind(what, kind, "number" if row.domain == "count" else "float")
        require_rank(what, kind, row.rank)
        batches.append(kind.shape[: kind.rank - row.rank])
        if found.rank:
            for size in kind.shape[kind.rank - row.rank :]:
                event = event or (size,)
                require_equal(what, event[0], size, types)
    return broadcast_shapes(found.name, batches), event


def _density_dtype(types: Sequence[TensorType]) -> str:
    """The common floating type of the operands; f64 when there is none."""
    floats = [kind for kind in types if kind.dtype in FLOATS]
    for kind in floats[1:]:
        if kind.dtype != floats[0].dtype:
            raise OpError(
                "E104", f"equal element types are needed, found {floats[0].dtype} and {kind.dtype}"
            )
    return floats[0].dtype if floats else "f64"


def _log_prob_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    found = _named(attrs)
    value, params = types[0], types[1:]
    batch, event = _split_params(found, str(attrs["form"]), params)
    require_rank(f"{found.name}: a value", value, found.rank)
    for a, b in zip(value.shape[value.rank - found.rank :], event, strict=True):
        require_equal(f"{found.name}: a value", a, b, types)
    joined = broadcast_shapes(found.name, [value.shape[: value.rank - found.rank], batch])
    # A bool or whole value takes the parameters' type; an image under bernoulli must match it.
    return (TensorType(_density_dtype(types), joined),)


def _sample_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    found, shape = _named(attrs), sizes_attr(attrs, "shape")
    params, key = types[:-1], types[-1]
    require_key(f"sample {found.name}", key)
    batch, event = _split_params(found, str(attrs["form"]), params)
    if broadcast_shapes(found.name, [shape, batch]) != shape:
        raise OpError(
            "E103",
            f"sample {found.name}: parameters of shape {shape_text(batch)}"
            f" do not fit {shape_text(shape)}",
        )
    dtype = _density_dtype(params) if found.value_dtype == "float" else found.value_dtype
    return (TensorType(dtype, (*shape, *event)),)


def _kl_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    p, q = _named(attrs, "p", "p_form"), _named(attrs, "q", "q_form")
    if (p.name, q.name) not in KL:
        raise OpError("E601", f"kl: no closed form for {p.name} and {q.name}")
    split = len(p.params_of(str(attrs["p_form"])))
    first = _split_params(p, str(attrs["p_form"]), types[:split])
    second = _split_params(q, str(attrs["q_form"]), types[split:])
    for a, b in zip(first[1], second[1], strict=True):
        require_equal("kl", a, b, types)
    return (TensorType(_density_dtype(types), broadcast_shapes("kl", [first[0], second[0]])),)


def _entropy_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    found = _named(attrs)
    if found.name not in ENTROPY:
        raise OpError("E601", f"entropy: no closed form for {found.name}")
    batch, _ = _split_params(found, str(attrs["form"]), types)
    return (TensorType(_density_dtype(types), batch),)


def _pmf_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    found = _named(attrs)
    if found.support not in ("count", "finite", "bool"):
        raise OpError("E601", f"pmf: {found.name} is not a distribution over whole numbers")
    lo, hi = attrs["lo"], attrs["hi"]
    if not isinstance(lo, int) or not isinstance(hi, int) or not lo < hi:
        raise OpError("E408", f"pmf: {lo}..{hi} is not a range")
    batch, _ = _split_params(found, str(attrs["form"]), types)
    return (TensorType(_density_dtype(types), (*batch, hi - lo)),)


# ---------------------------------------------------------------- references


def _density_type(arrays: Sequence[np.ndarray]) -> np.dtype:
    return next((a.dtype for a in arrays if a.dtype.kind == "f"), DTYPES["f64"])


def _in_double(function: Function, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The function in float64, as the element type of the operands."""
    try:
        result = function(*(a.astype(np.float64) for a in arrays))
    except np.linalg.LinAlgError as fault:
        raise OpError("E408", f"a matrix parameter: {fault}".lower()) from fault
    return np.asarray(result).astype(_density_type(arrays))


@quiet
def _log_prob(value: np.ndarray, *params: np.ndarray, dist: str, form: str) -> np.ndarray:
    found = distribution(dist, form)
    density = found.forms[form].log_prob if form else found.log_prob
    return _in_double(density, (value, *params))


@quiet
def _sample(*operands: np.ndarray, dist: str, form: str, path: str, shape: Any) -> np.ndarray:
    found, key = distribution(dist, form), operands[-1]
    dtype = _density_type(operands[:-1])
    params = found.canonical(form, [p.astype(dtype) for p in operands[:-1]])
    spread = [
        np.broadcast_to(p, shape) if row.rank == 0 else p
        for p, row in zip(params, found.params, strict=True)
    ]
    draws = samplers.Draws(philox.stream(key, path), tuple(shape), dtype)
    result = np.asarray(found.sample(draws, *spread))
    return result.astype(dtype if found.value_dtype == "float" else DTYPES[found.value_dtype])


@quiet
def _kl(*params: np.ndarray, p: str, q: str, p_form: str, q_form: str) -> np.ndarray:
    first, second = distribution(p, p_form), distribution(q, q_form)
    split = len(first.params_of(p_form))

    def divergence(*wide: np.ndarray) -> np.ndarray:
        left = first.canonical(p_form, wide[:split])
        return KL[p, q](*left, *second.canonical(q_form, wide[split:]))

    return _in_double(divergence, params)


@quiet
def _entropy(*params: np.ndarray, dist: str, form: str) -> np.ndarray:
    found = distribution(dist, form)
    result = _in_double(lambda *wide: ENTROPY[dist](*found.canonical(form, wide)), params)
    # A location that the entropy does not depend on still broadcasts.
    rows = found.params_of(form)
    batches = [a.shape[: a.ndim - row.rank] for a, row in zip(params, rows, strict=True)]
    return np.broadcast_to(result, np.broadcast_shapes(*batches))


@quiet
def _pmf(*params: np.ndarray, dist: str, form: str, lo: int, hi: int) -> np.ndarray:
    found = distribution(dist, form)
    density = found.forms[form].log_prob if form else found.log_prob

    def table(*wide: np.ndarray) -> np.ndarray:
        # One new axis for the values, in front of a vector parameter's own.
        rows = zip(wide, found.params_of(form), strict=True)
        raised = [np.expand_dims(a, a.ndim - row.rank) for a, row in rows]
        mass = np.exp(density(np.arange(lo, hi, dtype=np.float64), *raised))
        return mass / np.sum(mass, axis=-1, keepdims=True)

    return _in_double(table, params)


_PARAMS = Operand("params", variadic=True)
for _op in (
    Op(
        "log_prob",
        (Operand("value"), _PARAMS),
        _log_prob_shape,
        _log_prob,
        "The log density of a value; -inf outside the support.",
        attrs=("dist", "form"),
        batching="last",
    ),
    Op(
        "sample",
        (Operand("operands", variadic=True),),
        _sample_shape,
        _sample,
        "A value for each element of a batch shape; the parameters, then the random key.",
        attrs=("dist", "form", "path", "shape"),
        random=True,
    ),
    Op(
        "kl",
        (_PARAMS,),
        _kl_shape,
        _kl,
        "KL(p || q) in closed form; the parameters of p, then those of q.",
        attrs=("p", "q", "p_form", "q_form"),
        batching="last",
    ),
    Op(
        "entropy",
        (_PARAMS,),
        _entropy_shape,
        _entropy,
        "The entropy in nats, in closed form.",
        attrs=("dist", "form"),
        batching="last",
    ),
    Op(
        "pmf",
        (_PARAMS,),
        _pmf_shape,
        _pmf,
        "Probabilities of lo, ..., hi - 1 in a new last axis, scaled to add up to 1 (truncation).",
        attrs=("dist", "form", "lo", "hi"),
        batching="last",
    ),
):
    define(_op)
