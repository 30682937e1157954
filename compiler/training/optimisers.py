"""Optimisers as graphs: new weights and slots of a flat buffer, from its gradient.

Settings, defaults and the order of operations are PyTorch's (``torch.optim``). Slots start at the
numbers that :attr:`Optimiser.slots` gives; ``count`` is the number of this update, from 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..ops.expr import Expr, Number

Slots = dict[str, Expr]


@dataclass(frozen=True)
class Given:
    """What an update reads.

    ``w`` and ``g`` are weights and gradient, ``f[P]``; ``lr`` and ``count`` scalars of the same
    type; ``decay`` the weight decay of this buffer; ``momentum`` a scalar where a schedule moves
    it, which then stands for the optimiser's own momentum (``beta_1`` of Adam).
    """

    w: Expr
    g: Expr
    slots: Mapping[str, Expr]
    lr: Expr
    count: Expr
    decay: float
    settings: Mapping[str, Any]
    momentum: Expr | None = None

    @property
    def regularised(self) -> Expr:
        """The gradient with that of ``decay / 2 |w|^2`` (L2 regularisation)."""
        return self.g + self.w * self.decay if self.decay else self.g

    def moving(self, own: float) -> Expr | Number:
        """The scheduled momentum, else the optimiser's own."""
        return own if self.momentum is None else self.momentum


@dataclass(frozen=True)
class Optimiser:
    """``slots(settings)`` are first values by name; ``update`` gives new weights and slots."""

    slots: Callable[[Mapping[str, Any]], Mapping[str, float]]
    update: Callable[[Given], tuple[Expr, Slots]]


def has_momentum(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a schedule can move this optimiser's momentum."""
    return "betas" in settings or bool(settings.get("momentum"))


def _average(old: Expr, new: Expr, keep: Expr | Number) -> Expr:
    return old * keep + new * (1 - keep)


# ---------------------------------------------------------------- rules


def _sgd(given: Given) -> tuple[Expr, Slots]:
    # u' = m u + (1 - dampening) g, and the first u is g itself (Sutskever et al., ICML 2013, in
    # PyTorch's form, where the rate stands outside and may change freely).
    g, settings = given.regularised, given.settings
    if not settings["momentum"]:
        return given.w - g * given.lr, {}
    momentum = given.moving(settings["momentum"])
    velocity = given.slots["velocity"] * momentum + g * (1 - settings["dampening"])
    if settings["dampening"]:
        velocity = given.count.same(1).where(g, velocity)
    step = g + velocity * momentum if settings["nesterov"] else velocity
    return given.w - step * given.lr, {"velocity": velocity}


def _adagrad(given: Given) -> tuple[Expr, Slots]:
    # Duchi, Hazan, Singer, JMLR 2011.
    g, settings = given.regularised, given.settings
    total = given.slots["total"] + g.square()
    rate = given.lr
    if settings["lr_decay"]:
        rate = rate / ((given.count - 1) * settings["lr_decay"] + 1)
    return given.w - g / (total.sqrt() + settings["eps"]) * rate, {"total": total}


def _adadelta(given: Given) -> tuple[Expr, Slots]:
    # Zeiler 2012, arXiv:1212.5701.
    g, settings = given.regularised, given.settings
    rho, eps = settings["rho"], settings["eps"]
    square = _average(given.slots["square"], g.square(), rho)
    step = (given.slots["steps"] + eps).sqrt() / (square + eps).sqrt() * g
    steps = _average(given.slots["steps"], step.square(), rho)
    return given.w - step * given.lr, {"square": square, "steps": steps}


def _rmsprop(given: Given) -> tuple[Expr, Slots]:
    # Tieleman and Hinton 2012; centred: Graves 2013, arXiv:1308.0850.
    g, settings = given.regularised, given.settings
    alpha = settings["alpha"]
    slots = {"square": _average(given.slots["square"], g.square(), alpha)}
    variance = slots["square"]
    if settings["centered"]:
        slots["mean"] = _average(given.slots["mean"], g, alpha)
        variance = variance - slots["mean"].square()
    step = g / (variance.sqrt() + settings["eps"])
    if settings["momentum"]:
        slots["velocity"] = given.slots["velocity"] * given.moving(settings["momentum"]) + step
        step = slots["velocity"]
    return given.w - step * given.lr, slots


def _adam(given: Given) -> tuple[Expr, Slots]:
    # Kingma and Ba, ICLR 2015; AMSGrad: Reddi, Kale, Kumar, ICLR 2018.
    return _adaptive(given, given.w, given.regularised)


def _adamw(given: Given) -> tuple[Expr, Slots]:
    # Loshchilov and Hutter, ICLR 2019: the decay does not pass through the moments.
    w = given.w * (1 - given.lr * given.decay) if given.decay else given.w
    return _adaptive(given, w, given.g)


def _adaptive(given: Given, w: Expr, g: Expr) -> tuple[Expr, Slots]:
    settings = given.settings
    first, second = given.moving(settings["betas"][0]), settings["betas"][1]
    slots = {
        "mean": _average(given.slots["mean"], g, first),
        "square": _average(given.slots["square"], g.square(), second),
    }
    square = slots["square"]
    if settings["amsgrad"]:
        square = slots["largest"] = given.slots["largest"].maximum(square)
    spread = (square / _unbiased(given.count, second)).sqrt() + settings["eps"]
    rate = given.lr / _unbiased(given.count, first)
    return w - slots["mean"] / spread * rate, slots


def _unbiased(count: Expr, beta: Expr | Number) -> Expr:
    """``1 - beta^count``, exact where it is small."""
    log = math.log(beta) if isinstance(beta, (int, float)) else beta.log()
    return -(count * log).op("expm1")


# ---------------------------------------------------------------- the table


def _zeros(*names: str) -> Mapping[str, float]:
    return dict.fromkeys(names, 0.0)


def _rmsprop_slots(settings: Mapping[str, Any]) -> Mapping[str, float]:
    extra = [("mean", settings["centered"]), ("velocity", settings["momentum"])]
    return _zeros("square", *(name for name, used in extra if used))


def _adam_slots(settings: Mapping[str, Any]) -> Mapping[str, float]:
    return _zeros("mean", "square", *(("largest",) if settings["amsgrad"] else ()))


OPTIMISERS: dict[str, Optimiser] = {
    "sgd": Optimiser(lambda s: _zeros("velocity") if s["momentum"] else {}, _sgd),
    "adagrad": Optimiser(lambda s: {"total": s["initial"]}, _adagrad),
    "adadelta": Optimiser(lambda s: _zeros("square", "steps"), _adadelta),
    "rmsprop": Optimiser(_rmsprop_slots, _rmsprop),
    "adam": Optimiser(_adam_slots, _adam),
    "adamw": Optimiser(_adam_slots, _adamw),
}
"""Every optimiser of the language by name."""
