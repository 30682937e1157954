"""Gradients of densities, entropies and divergences, and of samples through their parameters.

A sample is differentiated at fixed noise: for y = mu + sd z, dy/dmu = 1 and dy/dsd = z (Kingma and
Welling, ICLR 2014; Rezende, Mohamed and Wierstra, ICML 2014). The noise is found again from the
sample. Where noise and parameters meet in an accept or a choice, there is no such derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...ir.dims import DimLike
from ..base import OpError, expansion_of, gradient_of, no_gradient
from ..distributions import distribution
from ..expr import Expr, Pullback
from .densities import LOG_PROB
from .divergences import ENTROPY, KL

no_gradient("it sums what an M-step in closed form takes", "moments")


def _as_floats(x: Sequence[Expr]) -> list[Expr]:
    """Operands in the element type of the first floating-point one."""
    dtype = next((e.dtype for e in x if e.type.is_float), "f64")
    return [e.cast(dtype) for e in x]


@expansion_of("log_prob")
def _log_prob(x: Sequence[Expr], attrs: Any) -> Expr:
    return LOG_PROB[attrs["dist"], attrs["form"]](*_as_floats(x))


@expansion_of("log_densities")
def _log_densities(x: Sequence[Expr], attrs: Any) -> Expr:
    dist, form, lead, rest = (attrs[name] for name in ("dist", "form", "lead", "rest"))
    dtype = next((e.dtype for e in x[::-1] if e.type.is_float), "f64")
    value, *params = (e.cast(dtype) for e in x)
    rows = distribution(dist, form).params_of(form)
    names = params[0].rank - rows[0].rank - rest
    # Axes of the values, then of the settings; both have the axes of one observation.
    made = LOG_PROB[dist, form](value.unsqueeze(*range(lead, lead + names)), *params)
    return made.sum(range(made.rank - rest, made.rank)) if rest else made


def _canonical(dist: str, form: str, params: Sequence[Expr]) -> list[Expr]:
    """The usual parameters from those of a form."""
    if form != "logits":
        return list(params)
    (logits,) = params
    if dist == "bernoulli":
        return [logits.op("sigmoid", slope=1.0)]
    return [logits.op("softmax", axis=logits.rank - 1, beta=1.0)]


@expansion_of("entropy")
def _entropy(x: Sequence[Expr], attrs: Any) -> Expr:
    params, dist = _as_floats(x), attrs["dist"]
    made = ENTROPY[dist](*_canonical(dist, attrs["form"], params))
    # A location that the entropy does not depend on still broadcasts.
    rows = distribution(dist, attrs["form"]).params_of(attrs["form"])
    for param, row in zip(params, rows, strict=True):
        level = param.sum(range(param.rank - row.rank, param.rank)) if row.rank else param
        made = made + level.filled(0)
    return made


@expansion_of("kl")
def _kl(x: Sequence[Expr], attrs: Any) -> Expr:
    params = _as_floats(x)
    split = len(distribution(attrs["p"], attrs["p_form"]).params_of(attrs["p_form"]))
    left = _canonical(attrs["p"], attrs["p_form"], params[:split])
    right = _canonical(attrs["q"], attrs["q_form"], params[split:])
    return KL[attrs["p"], attrs["q"]](*left, *right)


@expansion_of("pmf")
def _pmf(x: Sequence[Expr], attrs: Any) -> Expr:
    params = _as_floats(x)
    rows = distribution(attrs["dist"], attrs["form"]).params_of(attrs["form"])
    raised = [p.unsqueeze(p.rank - row.rank) for p, row in zip(params, rows, strict=True)]
    lo, hi = attrs["lo"], attrs["hi"]
    values = x[0].writer.make("iota", size=hi - lo, dtype=params[0].dtype) + float(lo)
    mass = LOG_PROB[attrs["dist"], attrs["form"]](values, *raised).exp()
    return mass / mass.sum([mass.rank - 1], keepdims=True)


@gradient_of("log_bessel_k")
def _log_bessel_k(pull: Pullback) -> Sequence[Expr | None]:
    # d/dx log K_p(x) = p/x - K_(p+1)(x) / K_p(x) (Abramowitz and Stegun 9.6.26)
    order, x = pull.x
    if pull.needs[0]:
        raise OpError(
            "E809",
            "the Bessel function of the second kind has no closed derivative in its order",
            "hold the order constant with `stop(..)`",
        )
    ratio = ((order + 1.0).op("log_bessel_k", x) - pull.y[0]).exp()
    return [None, (pull.d * (order / x - ratio)).sum_to(x.shape)]


# ---------------------------------------------------------------- samples


def _scaled(params: Sequence[Expr], y: Expr) -> Expr:
    mu, sd = params
    return mu + sd * ((y - mu) / sd).op("stop_gradient")


def _uniform(params: Sequence[Expr], y: Expr) -> Expr:
    lo, hi = params
    return lo + (hi - lo) * ((y - lo) / (hi - lo)).op("stop_gradient")


def _mvnormal(params: Sequence[Expr], y: Expr) -> Expr:
    mu, root = params[0], params[1].op("cholesky")
    apart = (y - mu).unsqueeze(y.rank)
    if root.rank < apart.rank:
        root = root.broadcast((*apart.shape[: apart.rank - root.rank], *root.shape))
    z = root.op("triangular_solve", apart, lower=True).op("stop_gradient")
    return mu + (root @ z).reshape(y.shape)


def _student_t(params: Sequence[Expr], y: Expr) -> Expr:
    return _scaled(params[1:], y)


def _over(params: Sequence[Expr], y: Expr) -> Expr:
    """Noise over the last parameter."""
    return (y * params[-1]).op("stop_gradient") / params[-1]


def _times(params: Sequence[Expr], y: Expr) -> Expr:
    """Noise times the last parameter."""
    return (y / params[-1]).op("stop_gradient") * params[-1]


_PATHS: dict[str, tuple[Callable[[Sequence[Expr], Expr], Expr], tuple[int, ...]]] = {
    "normal": (_scaled, ()),
    "laplace": (_scaled, ()),
    "cauchy": (_scaled, ()),
    "uniform": (_uniform, ()),
    "exponential": (_over, ()),
    "mvnormal": (_mvnormal, ()),
    "student_t": (_student_t, (0,)),
    "gamma": (_over, (0,)),
    "inverse_gamma": (_times, (0,)),
}
"""The sample as a function of its parameters at fixed noise, and the parameters (by place) that the
noise itself depends on, so that it cannot be differentiated by them."""


@gradient_of("sample")
def _sample(pull: Pullback) -> Sequence[Expr | None]:
    name = str(pull.attrs["dist"])
    path, rough = _PATHS.get(name, (_scaled, tuple(range(len(pull.x)))))
    needed = [place for place in rough if place < len(pull.x) - 1 and pull.needs[place]]
    if needed:
        row = distribution(name).params[needed[0]]
        raise OpError(
            "E809",
            f"samples of {name} have no derivative by {row.name}: how one is drawn depends on it",
            "use a distribution that is a scaled and shifted noise, such as normal, or `stop(..)`",
        )
    apart = pull.apart()
    shape: tuple[DimLike, ...] = tuple(pull.attrs["shape"])  # type: ignore[arg-type]
    rows = distribution(name).params
    params = [
        x.broadcast((*shape, *x.shape[x.rank - row.rank :])) if row.rank == 0 else x
        for x, row in zip(apart.x[:-1], rows, strict=True)
    ]
    return apart.through([path(params, pull.y[0])])
