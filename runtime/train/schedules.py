"""Learning rates over time: each schedule is a formula of the step, and ``>>`` puts them in a row.

A schedule counts its own time: in ``warmup(5) >> cosine(85)`` the cosine begins when the warm-up
ends. Times are in units (epochs, or steps where a run has no epochs) of ``unit`` steps each. Rates
change at every step, those of ``step``, ``multistep`` and ``exponential`` at whole units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np


class Call(Protocol):
    """A schedule as the spec gives it: its name and all its settings."""

    @property
    def name(self) -> str:
        """One of ``RULES`` or ``linear_scaling``."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every setting, defaults included."""
        ...


class Rates(NamedTuple):
    """What a schedule says about one step; ``momentum`` is ``None`` where it leaves it alone."""

    lr: float
    momentum: float | None = None


@dataclass(frozen=True)
class Moment:
    """A point of one schedule's own time.

    ``step`` counts steps from its beginning, ``unit`` is the number of steps in an epoch; ``base``
    is the learning rate that the optimiser was given.
    """

    step: int
    unit: int
    base: float

    @property
    def time(self) -> float:
        """Units gone by."""
        return self.step / self.unit


Formula = Callable[[Moment, Mapping[str, Any]], "Rates | float"]


@dataclass(frozen=True)
class Schedule:
    """Schedules in a row.

    Parameters
    ----------
    calls
        The schedules; none means a constant rate.
    lr
        The optimiser's learning rate.
    unit
        Steps in an epoch; 1 where times are steps.
    batch
        Examples in a step, for ``linear_scaling``.
    """

    calls: Sequence[Call]
    lr: float
    unit: int = 1
    batch: int | None = None

    def at(self, step: int) -> Rates:
        """Learning rate and momentum of the step with this number, counted from 0."""
        base, rows = self.lr, []
        for call in self.calls:
            if call.name == "linear_scaling":
                base *= (self.batch or call.settings["base_batch"]) / call.settings["base_batch"]
            else:
                rows.append(call)
        for place, call in enumerate(rows):
            steps = _length(call, self.unit)
            if place == len(rows) - 1 or steps is None or step < steps:
                # After its end, a schedule keeps its last rate.
                inside = step if steps is None else min(step, _last(call, steps))
                found = RULES[call.name](Moment(inside, self.unit, base), call.settings)
                return found if isinstance(found, Rates) else Rates(found)
            step -= steps
        return Rates(base)

    def table(self, steps: int) -> np.ndarray:
        """Learning rates of the first steps, ``f64[steps]``."""
        return np.array([self.at(step).lr for step in range(steps)])


@dataclass(frozen=True)
class Sweep:
    """Rates of a range test: from ``low`` to ``high`` in ``steps``, each the same times the last.

    Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3.
    """

    low: float
    high: float
    steps: int

    def at(self, step: int) -> Rates:
        """The learning rate of a step, counted from 0; it stays ``high`` after the last."""
        part = min(step / max(self.steps - 1, 1), 1.0)
        return Rates(self.low * (self.high / self.low) ** part)


def _length(call: Call, unit: int) -> int | None:
    """Steps that a schedule takes; ``None`` where it has no end."""
    epochs = call.settings.get("epochs")
    return None if epochs is None else round(epochs * unit)


def _last(call: Call, steps: int) -> int:
    return steps - 1 if call.name == "one_cycle" else steps


# ---------------------------------------------------------------- formulas


def _step(now: Moment, settings: Mapping[str, Any]) -> float:
    return now.base * settings["gamma"] ** (math.floor(now.time) // settings["size"])


def _multistep(now: Moment, settings: Mapping[str, Any]) -> float:
    passed = sum(math.floor(now.time) >= time for time in settings["at"])
    return now.base * settings["gamma"] ** passed


def _cosine(now: Moment, settings: Mapping[str, Any]) -> float:
    return _half_cosine(now.base, settings["min"], now.time / settings["epochs"])


def _cosine_restarts(now: Moment, settings: Mapping[str, Any]) -> float:
    """SGDR (Loshchilov and Hutter, ICLR 2017): periods grow by ``factor``."""
    time, period = now.time, settings["first"]
    while time >= period:
        time -= period
        period *= settings["factor"]
    return _half_cosine(now.base, settings["min"], time / period)


def _warmup(now: Moment, settings: Mapping[str, Any]) -> float:
    start = settings["start"]
    return now.base * (start + (1 - start) * now.time / settings["epochs"])


def _exponential(now: Moment, settings: Mapping[str, Any]) -> float:
    return now.base * settings["gamma"] ** math.floor(now.time)


def _poly(now: Moment, settings: Mapping[str, Any]) -> float:
    left = 1 - now.time / settings["epochs"]
    return settings["min"] + (now.base - settings["min"]) * left ** settings["power"]


def _cyclic(now: Moment, settings: Mapping[str, Any]) -> Rates:
    """Cyclical learning rates (Smith, WACV 2017); the momentum falls as the rate rises."""
    up = settings["up"]
    down = settings["down"] or up
    cycle, inside = divmod(now.time, up + down)
    height = inside / up if inside <= up else (up + down - inside) / down
    if settings["mode"] == "triangular2":
        height *= 0.5**cycle
    elif settings["mode"] == "exp_range":
        height *= settings["gamma"] ** now.step
    rate = settings["low"] + (settings["high"] - settings["low"]) * height
    return Rates(rate, _opposite(settings["momentum"], height))


def _one_cycle(now: Moment, settings: Mapping[str, Any]) -> Rates:
    """Super-convergence (Smith and Topin 2018), over the steps 0 to ``total - 1``.

    The rate goes from ``max / div`` up to ``max`` and down to ``max / div / final_div``; with
    ``phases=3`` it comes down as steeply as it went up before it vanishes.
    """
    total = round(settings["epochs"] * now.unit)
    high, low = settings["max"], settings["max"] / settings["div"]
    rise = settings["rise"] * total - 1
    ends = [(0.0, low, 0.0), (rise, high, 1.0)]
    ends += [(2 * rise, low, 0.0)] if settings["phases"] == 3 else []
    ends += [(total - 1.0, low / settings["final_div"], 0.0)]
    place = next((i for i, end in enumerate(ends[1:]) if now.step <= end[0]), len(ends) - 2)
    (start, first, m), (stop, last, n) = ends[place], ends[place + 1]
    part = 1.0 if stop <= start else min(1.0, max(0.0, (now.step - start) / (stop - start)))
    share = part if settings["shape"] == "linear" else (1 - math.cos(math.pi * part)) / 2
    return Rates(
        first + (last - first) * share, _opposite(settings["momentum"], m + (n - m) * share)
    )


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _opposite(range_: Sequence[float] | None, height: float) -> float | None:
    """The momentum when the rate is at ``height`` of its range: high where the rate is low."""
    if range_ is None:
        return None
    low, high = range_
    return high - (high - low) * height


RULES: dict[str, Formula] = {
    "constant": lambda now, settings: now.base * settings["factor"],
    "step": _step,
    "multistep": _multistep,
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
    "warmup": _warmup,
    "cyclic": _cyclic,
    "one_cycle": _one_cycle,
    "exponential": _exponential,
    "poly": _poly,
}
"""The formula of every schedule but ``linear_scaling``, which only changes the base rate."""
