"""Interleaved timing: engines take turns, and what is compared was measured side by side.

In every round each engine has one turn: a pause, in which threads of the one before stop spinning,
one call that is not counted, then as many calls as fill the turn. The order rotates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

Turn = Callable[[int], Sequence[float]]
"""Runs so many calls in a row and gives the seconds of each."""


@dataclass(frozen=True)
class Schedule:
    """How long to measure: at least ``rounds`` rounds and ``seconds`` seconds in all.

    ``turn_s`` is how long a turn should last, within ``most_calls`` calls; ``pause_s`` the pause
    before each.
    """

    rounds: int = 15
    seconds: float = 2.0
    turn_s: float = 0.05
    most_calls: int = 50
    pause_s: float = 0.02


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> Spread:
        """In another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


def measure(
    turns: Mapping[str, Turn],
    schedule: Schedule,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, list[float]]:
    """Seconds a call by engine, one number (the median of its turn) a round."""
    names = list(turns)
    calls = {name: _calls(turns[name], schedule) for name in names}
    taken: dict[str, list[float]] = {name: [] for name in names}
    start, done = clock(), 0
    while names and (done < schedule.rounds or clock() - start < schedule.seconds):
        first = done % len(names)
        for name in names[first:] + names[:first]:
            sleep(schedule.pause_s)
            seconds = turns[name](calls[name] + 1)
            taken[name].append(median(seconds[1:]))
        done += 1
    return taken


def fastest(
    choices: Mapping[str, Turn],
    schedule: Schedule,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """The choice of the lowest median, after a short interleaved trial."""
    if len(choices) == 1:
        return next(iter(choices))
    trial = Schedule(5, 0.0, schedule.turn_s, schedule.most_calls, schedule.pause_s)
    taken = measure(choices, trial, clock, sleep)
    return min(choices, key=lambda name: median(taken[name]))


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles (of one value: itself)."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How many times faster we are: theirs over ours, round by round."""
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])


def _calls(turn: Turn, schedule: Schedule) -> int:
    """How many calls fill a turn, from a few that also warm up."""
    seconds = min(turn(3)[1:])
    wanted = math.ceil(schedule.turn_s / seconds) if seconds > 0 else schedule.most_calls
    return max(1, min(wanted, schedule.most_calls))
