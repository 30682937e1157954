"""What a run shows while it trains: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, Any

QUIET = 30.0
"""Seconds between lines inside an epoch where there is no terminal."""

MEMORY = 10.0
"""Seconds after which a step counts for a third in the rate that is shown."""


class Display:
    """Progress of a run: epoch, metrics, examples a second, and the time that is left.

    On a terminal a bar moves and each epoch leaves a line above it; elsewhere there is a line for
    each epoch, and one every half minute in long ones.

    Parameters
    ----------
    epochs
        How many there will be.
    batches
        Steps of an epoch, ``None`` where nobody knows.
    unit
        What an example is called, in the plural.
    stream
        Where it goes; standard error unless given.
    terminal
        Whether the stream is one; found out unless given.
    """

    def __init__(
        self,
        epochs: int,
        batches: int | None,
        unit: str = "examples",
        stream: IO[str] | None = None,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epochs, self._batches, self._unit = epochs, batches, unit
        self._stream = sys.stderr if stream is None else stream
        self._clock, self._started, self._said = clock, clock(), clock()
        self._steps_here = 0
        self._rate = _Rate(clock)
        live = self._stream.isatty() if terminal is None else terminal
        self._bar = _Bar(self._stream) if live else None

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def prepared(self, seconds: float) -> None:
        """Code was made for that long: it is no part of a step, and steps to come need none."""
        self._started += seconds
        self._rate.leave_out(seconds)

    def step(self, epoch: int, done: int, examples: int, values: Mapping[str, float]) -> None:
        """After a step: ``done`` steps of the epoch (from 0) are made, this one of ``examples``."""
        self._steps_here += 1
        self._rate.add(examples)
        if self._bar is not None:
            share = (epoch + self._share(done)) / self._epochs
            self._bar.move(share, f"{self._text(epoch, values)}{self._left(epoch, done)}")
        elif self._clock() - self._said > QUIET:
            where = f"step {done}" + (f"/{self._batches}" if self._batches else "")
            self._line(f"{self._text(epoch, values)}  {where}{self._left(epoch, done)}")

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """After an epoch and its validation: a line that stays."""
        left = self._left(epoch + 1, 0) if epoch + 1 < self._epochs else ""
        self._line(f"{self._text(epoch, values)}{left}")
        self._rate.start()

    def say(self, text: str) -> None:
        """A line about something else, such as a checkpoint that was taken up."""
        self._line(text)

    # ------------------------------------------------------------ helpers

    def _share(self, done: int) -> float:
        return done / self._batches if self._batches else 0.0

    def _text(self, epoch: int, values: Mapping[str, float]) -> str:
        parts = [f"epoch {epoch + 1}/{self._epochs}"]
        parts += [f"{name} {value:.4g}" for name, value in values.items()]
        rate = self._rate.value
        return "  ".join(parts + ([f"{rate:,.0f} {self._unit}/s"] if rate else []))

    def _left(self, epoch: int, done: int) -> str:
        """The time that is left, from the steps that this process made, compiling left out."""
        if not self._batches or not self._steps_here:
            return ""
        left = (self._epochs - epoch) * self._batches - done
        return f"  {duration(left * (self._clock() - self._started) / self._steps_here)} left"

    def _line(self, text: str) -> None:
        self._said = self._clock()
        if self._bar is not None:
            self._bar.print(text)
        else:
            print(text, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """Seconds as ``4 s``, ``3:05`` or ``2:03:05``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Rate:
    """Examples a second, older steps counting less."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._last = clock, clock()
        self._examples = self._seconds = 0.0

    def add(self, examples: int) -> None:
        now = self._clock()
        passed, self._last = now - self._last, now
        kept = 3 ** (-passed / MEMORY)
        self._examples = self._examples * kept + examples
        self._seconds = self._seconds * kept + passed

    def start(self) -> None:
        """Count from now on, and not what went on since the last step."""
        self._last = self._clock()

    def leave_out(self, seconds: float) -> None:
        """Count so much of the time since the last step for nothing."""
        self._last += seconds

    @property
    def value(self) -> float:
        return self._examples / self._seconds if self._seconds > 0 else 0.0


class _Bar:
    """A bar over the whole run, with its text, by rich."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(file=stream, force_terminal=True, highlight=False)
        self._progress = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        self._task: Any = self._progress.add_task("", total=1.0)

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def move(self, done: float, text: str) -> None:
        """Show a share of the run."""
        self._progress.update(self._task, completed=done, description=text)

    def print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
