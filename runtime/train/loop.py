"""The training loop: it drives compiled steps over batches and keeps what a run needs to go on.

What a step computes depends on the state, the batch and the seed alone, and everything that changes
is in the state or the checkpoint. So a run that is taken up again gives the same bits as one that
never stopped.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from ..faults import RuntimeFault
from .checkpoints import LAST, Checkpoint, load_checkpoint, save_best, save_checkpoint
from .confusion import Confusion
from .logging import MetricsLog
from .schedules import Schedule, Sweep
from .step import (
    COUNT,
    LOSS,
    LR,
    MOMENTUM,
    NORM,
    Arrays,
    Call,
    Layout,
    State,
    advanced,
    inputs_of,
)

RATE, GRADIENT_NORM = "lr", "gradient norm"
UNSEEN = (RATE, GRADIENT_NORM)
"""What is logged but not shown while training."""

SCORES = "@scores"
"""The output of an evaluation that holds the scores of classes, where there are classes."""

Batch = Mapping[str, np.ndarray]
Values = dict[str, float]
Made = TypeVar("Made")


class Batches(Protocol):
    """Where batches come from (see ``runtime/data``)."""

    def epoch(self, number: int, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """The batches of an epoch from the ``start``-th on."""
        ...


@dataclass(frozen=True)
class Stage:
    """A compiled graph and the names of what goes in and out of it."""

    layout: Layout
    call: Call


@dataclass(frozen=True)
class Turn:
    """One objective: ``steps`` updates in a row when its turn comes."""

    name: str
    schedule: Schedule | Sweep
    steps: int = 1
    momentum: float = 0.0


class Engine(Protocol):
    """Compiled code for the shapes of a batch; it compiles where it meets new ones."""

    def step(self, turn: int, batch: Batch) -> Stage:
        """The step of an objective; with ``accumulate``, the gradients of one batch."""
        ...

    def update(self, turn: int) -> Stage:
        """With ``accumulate``: what follows after the batches of an update."""
        ...

    def evaluate(self, batch: Batch) -> Call:
        """Losses and metrics by name, in the mode of inference."""
        ...

    def culprit(self, turn: int, stage: Stage, inputs: Arrays, weights: Arrays) -> str | None:
        """Where the first NaN or infinity of a step came from, in words."""
        ...


class Watcher(Protocol):
    """What shows progress (see ``progress.py``)."""

    def prepared(self, seconds: float) -> None:
        """After code was compiled, or found, for batches of some shape."""
        ...

    def step(self, epoch: int, done: int, examples: int, values: Mapping[str, float]) -> None:
        """After a step."""
        ...

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """After an epoch."""
        ...

    def say(self, text: str) -> None:
        """A line about something else."""
        ...


@dataclass(frozen=True)
class Stopping:
    """Stop when ``metric`` has not improved by ``min_delta`` for ``patience`` validations."""

    metric: str
    patience: int
    largest: bool
    min_delta: float = 0.0


@dataclass(frozen=True)
class Classes:
    """What validation counts confusions of: the batch's ``label`` and the scores' class ``axis``.

    ``names`` are those of the classes.
    """

    label: str
    axis: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """How a run goes.

    ``epochs`` and ``steps`` both bound it (``None``: not). ``batches`` is the number of an epoch,
    where it is known. ``best`` is the metric by which the best weights are kept, ``largest``
    whether the largest is. ``log_every`` is in updates, ``save_every`` and ``validate_every`` in
    epochs. ``columns`` are the names of what is logged. ``identity`` is what must agree for a run
    to be taken up again.
    """

    epochs: int | None
    steps: int | None = None
    batches: int | None = None
    seed: int = 0
    accumulate: int = 1
    folder: str | os.PathLike[str] | None = None
    save_every: int = 1
    keep: int = 2
    best: str | None = None
    largest: bool = False
    stopping: Stopping | None = None
    validate_every: int = 1
    log_every: int = 1
    columns: tuple[str, ...] = (LOSS,)
    identity: Mapping[str, Any] = field(default_factory=dict)
    classes: Classes | None = None


@dataclass
class Progress:
    """Where a run stands; what JSON can hold of it goes into each checkpoint."""

    epoch: int = 0
    batch: int = 0
    batches: int = 0
    updates: int = 0
    best: float | None = None
    best_update: int = 0
    watched: float | None = None
    waited: int = 0
    finished: str = ""
    last: Values = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Outcome:
    """What a run gave: the state, where it ended, and the rows that it logged.

    ``reason`` is ``epochs``, ``steps``, ``early_stop`` or ``interrupted``. ``best`` are the weights
    of the best validation, where it was asked for; ``confusion`` the counts of the last one.
    """

    state: State
    progress: Progress
    reason: str
    rows: tuple[tuple[int, float, str, Values], ...]
    best: Arrays | None = None
    confusion: Confusion | None = None


class Loop:
    """A run over batches.

    Parameters
    ----------
    engine
        Compiles and runs the steps.
    turns
        The objectives.
    settings
        How the run goes.
    watcher
        Shows progress.
    """

    def __init__(
        self, engine: Engine, turns: Sequence[Turn], settings: Settings, watcher: Watcher
    ) -> None:
        self.engine, self.turns, self.settings, self.watcher = engine, turns, settings, watcher
        self._round = [place for place, turn in enumerate(turns) for _ in range(turn.steps)]
        self._rows: list[tuple[int, float, str, Values]] = []
        self._log: MetricsLog | None = None
        self._best: Arrays | None = None
        self._confusion: Confusion | None = None
        self._stop = threading.Event()

    def run(
        self, state: State, train: Batches, held_out: Batches | None = None, resume: bool = False
    ) -> Outcome:
        """Train from a state, or from the folder's newest checkpoint.

        Raises :class:`RuntimeFault` E806 where the folder cannot be written, E808 for a checkpoint
        of another run, E810 where a number is no longer finite.
        """
        progress = Progress()
        if resume and self.settings.folder is not None:
            state, progress = self._resumed(state)
        with self._logging(progress, resume), _interruptible(self._stop):
            reason = progress.finished
            while not reason:
                state, progress, reason = self._epoch(state, progress, train, held_out)
        return Outcome(state, progress, reason, self.rows, self._best, self._confusion)

    @property
    def rows(self) -> tuple[tuple[int, float, str, Values], ...]:
        """What was logged until now: updates, epochs, part, values by name."""
        return tuple(self._rows)

    def interrupt(self) -> None:
        """Stop after the step that is being made, and save."""
        self._stop.set()

    # ------------------------------------------------------------ epochs

    def _epoch(
        self, state: State, progress: Progress, train: Batches, held_out: Batches | None
    ) -> tuple[State, Progress, str]:
        settings, means = self.settings, _Means()
        batches = train.epoch(progress.epoch, progress.batch)
        shown: Values = {}
        try:
            for batch in batches:
                state, values = self._step(state, progress, batch)
                progress.batch, progress.batches = progress.batch + 1, progress.batches + 1
                means.add({n: v for n, v in values.items() if n not in UNSEEN}, 1)
                shown = means.values
                self.watcher.step(progress.epoch, progress.batch, _examples(batch), shown)
                if RATE in values and progress.updates % settings.log_every == 0:
                    self._write(progress, "train", values)
                if self._is_over(progress):
                    break
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()
        reason = self._reason(progress)
        if reason == "interrupted":
            self._save(state, progress)
            return state, progress, reason
        progress.epoch, progress.batch = progress.epoch + 1, 0
        reason = reason or ("epochs" if progress.epoch == settings.epochs else "")
        if held_out is not None and (reason or progress.epoch % settings.validate_every == 0):
            found, self._confusion = self.validate(state, held_out)
            self._write(progress, "validate", found)
            if self._confusion is not None and settings.folder is not None:
                self._confusion.save(settings.folder)
            shown = {**shown, **{f"val {name}": value for name, value in found.items()}}
            reason = self._judge(state, progress, found) or reason
        progress.last = shown
        self.watcher.epoch(progress.epoch - 1, shown)
        progress.finished = reason
        if reason or progress.epoch % settings.save_every == 0:
            self._save(state, progress)
        return state, progress, reason

    def validate(self, state: State, held_out: Batches) -> tuple[Values, Confusion | None]:
        """Losses and metrics over all batches, weighted by examples; confusions of classes."""
        means, weights, classes = _Means(), state.averaged, self.settings.classes
        confusion = None if classes is None else Confusion(classes.names)
        for batch in held_out.epoch(0):
            found = dict(self._prepared(self.engine.evaluate, batch)(batch, weights))
            if classes is not None and confusion is not None:
                scores = np.moveaxis(found.pop(SCORES), classes.axis, 1)
                confusion.add(batch[classes.label], scores)
            means.add({name: float(value) for name, value in found.items()}, _examples(batch))
        return means.values, confusion

    def _is_over(self, progress: Progress) -> bool:
        return self._stop.is_set() or progress.updates == self.settings.steps

    def _reason(self, progress: Progress) -> str:
        if self._stop.is_set():
            return "interrupted"
        return "steps" if progress.updates == self.settings.steps else ""

    # ------------------------------------------------------------ steps

    def _step(self, state: State, progress: Progress, batch: Batch) -> tuple[State, Values]:
        """One batch: a whole update, or its share of one."""
        place = self._round[progress.updates % len(self._round)]
        turn = self.turns[place]
        rates = turn.schedule.at(state.counts[turn.name])
        scalars = {LR: rates.lr, COUNT: float(state.counts[turn.name] + 1)}
        scalars[MOMENTUM] = turn.momentum if rates.momentum is None else rates.momentum
        key = np.array([self.settings.seed, progress.batches], np.uint64)
        batch = {**batch, "key": key}
        stage = self._prepared(self.engine.step, place, batch)
        state, values = self._call(place, stage, state, batch, scalars)
        if self.settings.accumulate > 1:
            if (progress.batches + 1) % self.settings.accumulate:
                return state, values
            update = self._prepared(self.engine.update, place)
            state, more = self._call(place, update, state, {}, scalars)
            values |= more
        progress.updates += 1
        return state, {**values, RATE: rates.lr}

    def _prepared(self, make: Callable[..., Made], *what: Any) -> Made:
        """What the engine makes; the watcher is told how long that took."""
        begun = time.monotonic()
        made = make(*what)
        self.watcher.prepared(time.monotonic() - begun)
        return made

    def _call(
        self, place: int, stage: Stage, state: State, batch: Batch, scalars: Values
    ) -> tuple[State, Values]:
        layout, name = stage.layout, self.turns[place].name
        inputs, weights = inputs_of(layout, state, batch, scalars), state.weights
        results = stage.call(inputs, weights)
        watched = {key: float(results[key]) for key in (LOSS, NORM) if key in results}
        if not all(map(math.isfinite, watched.values())):
            raise _unfit(batch) or self._diverged(place, stage, inputs, weights, watched)
        values = {metric: float(results[output]) for metric, output in layout.metrics.items()}
        if LOSS in watched:
            values = {LOSS if len(self.turns) == 1 else name: watched[LOSS], **values}
        if NORM in watched:
            values[GRADIENT_NORM] = watched[NORM]
        return advanced(layout, state, results), values

    def _diverged(
        self, place: int, stage: Stage, inputs: Arrays, weights: Arrays, values: Values
    ) -> RuntimeFault:
        shown = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in values.items())
        culprit = self.engine.culprit(place, stage, inputs, weights)
        details = [] if culprit is None else [culprit]
        message = f"training has left the finite numbers ({shown})"
        hint = "lower the rate, warm it up, or bound gradients with `clip: norm(1.0)`"
        folder = self.settings.folder
        if folder is not None and (Path(folder) / LAST).exists():
            hint += "; the last checkpoint is untouched"
        return RuntimeFault("E810", message, hint, details)

    # ------------------------------------------------------------ records

    def _judge(self, state: State, progress: Progress, found: Values) -> str:
        """Keep the best weights; tell when it is time to stop early."""
        settings = self.settings
        if settings.best is not None and _beats(
            found[settings.best], progress.best, settings.largest, 0.0
        ):
            progress.best, progress.best_update = found[settings.best], progress.updates
            self._best = {path: np.array(array) for path, array in state.averaged.items()}
            if settings.folder is not None:
                about = {"epoch": progress.epoch, "updates": progress.updates, **found}
                save_best(settings.folder, self._best, about)
        stopping = settings.stopping
        if stopping is None:
            return ""
        value = found[stopping.metric]
        if _beats(value, progress.watched, stopping.largest, stopping.min_delta):
            progress.watched, progress.waited = value, 0
        else:
            progress.waited += 1
        return "early_stop" if progress.waited >= stopping.patience else ""

    def _save(self, state: State, progress: Progress) -> None:
        if self.settings.folder is None:
            return
        about = {**self.settings.identity, **progress.as_json(), "counts": state.counts}
        checkpoint = Checkpoint(state.weights, state.slots, about)
        save_checkpoint(self.settings.folder, checkpoint, self.settings.keep)

    def _resumed(self, state: State) -> tuple[State, Progress]:
        assert self.settings.folder is not None
        found = load_checkpoint(self.settings.folder, self.watcher.say)
        if found is None:
            self.watcher.say(f"`{self.settings.folder}` holds no checkpoint yet: starting anew")
            return state, Progress()
        found.require(self.settings.identity)
        fields = {name: found.state[name] for name in Progress().as_json()}
        if fields["finished"] in ("epochs", "steps"):
            fields["finished"] = ""  # perhaps more of them were asked for
        progress = Progress(**fields)
        if self._is_over(progress) or progress.epoch == self.settings.epochs:
            progress.finished = self._reason(progress) or "epochs"
        self.watcher.say(f"going on after epoch {progress.epoch}, update {progress.updates}")
        flat = {group.name: group.flat(found.weights) for group in state.groups}
        fixed = {path: found.weights[path] for path in state.fixed}
        slots = {name: found.slots[name] for name in state.slots}
        counts = {name: int(count) for name, count in found.state["counts"].items()}
        return State(state.groups, flat, slots, fixed, counts), progress

    @contextmanager
    def _logging(self, progress: Progress, resume: bool) -> Iterator[None]:
        if self.settings.folder is None:
            yield
            return
        step = progress.updates if resume and progress.updates else None
        columns = (*self.settings.columns, *UNSEEN)
        with MetricsLog(self.settings.folder, columns, step) as self._log:
            yield
        self._log = None

    def _write(self, progress: Progress, part: str, values: Values) -> None:
        epoch = progress.epoch + progress.batch / (self.settings.batches or 1)
        self._rows.append((progress.updates, epoch, part, dict(values)))
        if self._log is not None:
            self._log.write(progress.updates, epoch, part, values)


# ---------------------------------------------------------------- helpers


class _Means:
    """Means of values as they come, by name."""

    def __init__(self) -> None:
        self._totals: dict[str, tuple[float, float]] = {}

    def add(self, values: Mapping[str, float], weight: float) -> None:
        for name, value in values.items():
            total, count = self._totals.get(name, (0.0, 0.0))
            self._totals[name] = (total + weight * value, count + weight)

    @property
    def values(self) -> Values:
        return {name: total / count for name, (total, count) in self._totals.items()}


def _unfit(batch: Batch) -> RuntimeFault | None:
    """E807 for the first field of a batch with a number that is not finite."""
    for name, array in batch.items():
        if np.asarray(array).dtype.kind == "f" and not (finite := np.isfinite(array)).all():
            bad = np.asarray(array)[~finite][0]
            message = f"`{name}` of an example holds {bad}, and training needs finite numbers"
            return RuntimeFault("E807", message, "leave such examples out, or fill them in")
    return None


def _beats(value: float, best: float | None, largest: bool, least: float) -> bool:
    if best is None or math.isnan(best):
        return not math.isnan(value)
    return value > best + least if largest else value < best - least


def _examples(batch: Batch) -> int:
    return max((len(a) for name, a in batch.items() if name != "key" and np.ndim(a)), default=1)


@contextmanager
def _interruptible(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C asks the loop to stop after its step; the second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
