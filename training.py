"""Training a program: its ``train:`` section, its data and compiled steps put together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .compiler.autodiff import How
from .compiler.inference.expand import expand
from .compiler.training.optimisers import has_momentum
from .compiler.training.step import Objective, Recipe, Rule
from .feeding import Feeding, confusable, feeding
from .given_weights import fit_weights, weight_arrays
from .program import Program, located_faults
from .runtime.faults import RuntimeFault
from .runtime.train.checkpoints import BEST, LAST, made_folder, read_checkpoint
from .runtime.train.confusion import Confusion
from .runtime.train.loop import RATE, Loop, Outcome, Settings, Stopping, Turn, Watcher
from .runtime.train.progress import Display
from .runtime.train.range_test import RangeTest, is_over, require_steps
from .runtime.train.schedules import Schedule, Sweep
from .runtime.train.step import LOSS
from .spec.calls import Call
from .spec.diagnostics import Diagnostic, SpecError
from .spec.elaborate.objectives import Loss, Training
from .spec.sections import Train
from .steps import ENGINES, MEASURES, Budget, Steps, default_memory

EPOCHS = 10
"""Epochs of a spec that states neither epochs nor steps."""

PLAIN = Rule(
    "sgd",
    {"lr": 0.01, "momentum": 0.9, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0},
)
"""The optimiser where none is named."""

LOGGED = 50
"""Rows of ``metrics.csv`` that an epoch of training has at most."""


@dataclass(frozen=True)
class Run:
    """What training gave.

    ``weights`` are arrays by path: the averaged ones under ``ema``. ``best`` are those of the best
    validation, where there was one. ``history`` has a row for each line of ``metrics.csv``: updates
    made, epochs made, ``train`` or ``validate``, and values by name. ``reason`` is ``epochs``,
    ``steps``, ``early_stop`` or ``interrupted``. ``best_score`` is the metric by which the best
    were kept, its value, and the updates made by then. ``confusion`` counts, for a loss of classes,
    which was taken for which in the last validation; its ``recall`` is the accuracy by class.
    """

    program: Program
    weights: Mapping[str, np.ndarray]
    best: Mapping[str, np.ndarray] | None
    history: tuple[tuple[int, float, str, dict[str, float]], ...]
    metrics: Mapping[str, float]
    epochs: int
    updates: int
    reason: str
    folder: Path | None = None
    confusion: Confusion | None = None
    best_score: tuple[str, float, int] | None = None


def train(
    program: Program,
    data: Any = None,
    *,
    validate: Any = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    weights: Any = None,
    engine: str | None = None,
    precise: bool = False,
    show: bool | Watcher = True,
) -> Run:
    """Train a program; see :meth:`Program.train`.

    ``precise`` compiles steps without Winograd and what else rounds differently from the reference.
    """
    with located_faults(program.sources):
        training, section = stated(program)
        section = _with(section, epochs=epochs, steps=steps, batch=batch, seed=seed)
        if section.epochs is None and section.steps is None:
            section = replace(section, epochs=EPOCHS)
        fed = feeding(program, training, section, data, validate)
        work = Work(program, training, section, fed, engine, precise)
        return work.run(_folder(out, resume), resume, weights, show)


def range_test(
    program: Program,
    data: Any = None,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    out: str | os.PathLike[str] | None = None,
    engine: str | None = None,
    precise: bool = False,
    **given: Any,
) -> RangeTest:
    """Train for a while with a rate that grows from ``low`` to ``high``; what the loss does.

    The section's schedule is left out; its weights start as they would. The test ends early where
    the loss diverges. ``out`` is a folder for ``range_test.csv``; ``given`` are ``batch``, ``seed``
    and ``weights`` as for :func:`train`. Raises :class:`SpecError` as that does, E016 for rates out
    of order, and E810 where the first rates diverge already.
    """
    with located_faults(program.sources):
        if not 0 < low < high or steps < 2:
            message = f"a range test goes from a rate above 0 to a larger one, not {low} to {high}"
            raise RuntimeFault("E016", message)
        weights = given.pop("weights", None)
        training, section = stated(program)
        section = replace(_with(section, **given), epochs=None, steps=steps, schedule=(), ema=None)
        fed = feeding(program, training, section, data, None)
        work = Work(program, training, section, fed, engine, precise)
        found = work.range_test(Sweep(low, high, steps), weights)
        if out is not None:
            found.save(made_folder(out))
        return require_steps(found)


def stated(program: Program) -> tuple[Training, Train]:
    """What the spec says about training; E007 when it says nothing."""
    training, section = program.model.training, program.model.envelope.train
    if training is None or section is None:
        message = f"`{program.name}` does not say what training makes small"
        hint = "add `train:` with an `objective:`, such as `cross_entropy(logits, label)`"
        # A section of `--set` alone has no place in the file.
        own = section is not None and section.span != program.model.envelope.model.span
        place = section.span if section is not None and own else None
        raise SpecError([Diagnostic("E007", message, place, hint=hint)], program.sources)
    return training, section


class Work:
    """One run, put together."""

    def __init__(
        self,
        program: Program,
        training: Training,
        section: Train,
        fed: Feeding,
        engine: str | None = None,
        precise: bool = False,
    ) -> None:
        if engine is not None and engine not in ENGINES:
            hint = f"there is {', '.join(ENGINES)}"
            raise RuntimeFault("E804", f"there is no engine `{engine}` for training", hint)
        self.program, self.training, self.section, self.fed = program, training, section, fed
        self.objectives = [_objective(loss, section) for loss in training.losses]
        average = section.ema
        how = How(truncate=section.tbptt)
        recipe = Recipe(training.metrics, training.decayed, training.frozen, average, how)
        graph = expand(training.graph.bind(fed.sizes))
        compile, measure = None, default_memory
        if engine is not None:
            compile, measure = ENGINES[engine], MEASURES[engine]
        budget = Budget(section.memory, measure) if section.memory is not None else None
        self.confusable = confusable(graph, fed) if fed.held_out is not None else None
        scores = None if self.confusable is None else self.confusable[0]
        self.steps = Steps(
            graph, self.objectives, recipe, compile, section.accumulate, budget, scores,
            precise=precise,
        )  # fmt: skip
        batches = fed.batches if section.epochs is not None else None
        unit = max(1, (batches or 1) // section.accumulate)
        self.turns = [
            Turn(loss.name, self._schedule(loss, objective, unit), loss.steps, _momentum(objective))
            for loss, objective in zip(training.losses, self.objectives, strict=True)
        ]

    def weights(self, given: Any, note: Callable[[str], None]) -> dict[str, np.ndarray]:
        """The weights to start from: given ones where they fit, the rest by the initialisers."""
        seed, sizes = self.section.seed, self.fed.sizes
        found: dict[str, np.ndarray] = {}
        arrays = weight_arrays(given)
        # The model's weights, and those that only training uses.
        for one in (replace(self.program, graph=self.training.graph), self.program):
            if arrays is not None:
                found |= fit_weights(one, arrays, "the weights", sizes, False, note)
            found |= one.initial_weights(seed, sizes, found.keys())
        return found

    def run(self, folder: Path | None, resume: bool, weights: Any, show: bool | Watcher) -> Run:
        """Train."""
        settings = self._settings(folder)
        epochs = settings.epochs or -(-(settings.steps or 1) // (self.fed.batches or 1))
        with _watching(show, epochs, self.fed.batches, self._unit()) as watcher:
            self.steps.note = watcher.say
            state = self.steps.state(self.weights(weights, watcher.say))
            loop = Loop(self.steps, self.turns, settings, watcher)
            outcome = loop.run(state, self.fed.train, self.fed.held_out, resume)
        return self._run(outcome, folder, settings.best)

    def range_test(self, sweep: Sweep, weights: Any) -> RangeTest:
        """Train by rates that grow until the loss diverges."""
        turns = [replace(turn, schedule=sweep) for turn in self.turns]
        settings = Settings(None, sweep.steps, self.fed.batches, self.section.seed,
                            self.section.accumulate)  # fmt: skip
        watcher = _Testing(turns[0].name if len(turns) > 1 else LOSS)
        loop = Loop(self.steps, turns, settings, watcher)
        watcher.loop, diverged = loop, True
        self.steps.note = watcher.say
        state = self.steps.state(self.weights(weights, watcher.say))
        try:
            diverged = loop.run(state, self.fed.train).reason == "interrupted"
        except RuntimeFault as fault:
            if fault.code != "E810":
                raise
        rows = [values for _, _, _, values in loop.rows if watcher.loss in values]
        rates, losses = ([row[name] for row in rows] for name in (RATE, watcher.loss))
        return RangeTest(np.array(rates), np.array(losses), diverged)

    # ------------------------------------------------------------ helpers

    def _unit(self) -> str:
        """What an example is called while training."""
        kinds = self.program.inputs.values()
        return "images" if any(kind.rank == 4 for kind in kinds) else "examples"

    def _run(self, outcome: Outcome, folder: Path | None, judged_by: str | None) -> Run:
        best = outcome.best
        if best is None and folder is not None and (folder / BEST).exists():
            best = read_checkpoint(folder / BEST).weights
        progress, score = outcome.progress, None
        if judged_by is not None and progress.best is not None:
            score = (judged_by, progress.best, progress.best_update)
        return Run(
            self.program,
            outcome.state.averaged,
            best,
            outcome.rows,
            progress.last,
            progress.epoch,
            progress.updates,
            outcome.reason,
            folder,
            outcome.confusion,
            score,
        )

    def _settings(self, folder: Path | None) -> Settings:
        section = self.section
        names = [o.name for o in self.objectives] if len(self.objectives) > 1 else [LOSS]
        saving, stop = section.checkpoint, section.early_stop
        held = self.fed.held_out is not None
        if stop is not None and not held:
            message = "`early_stop` needs data to validate on"
            hint = "add `validate: {fraction: 0.1}`"
            raise SpecError(
                [Diagnostic("E016", message, stop.span, hint=hint)], self.program.sources
            )
        best = saving.best if saving is not None and saving.best is not None else LOSS
        best = best if held and (best != LOSS or len(self.objectives) == 1) else None
        largest = best not in (LOSS, None)
        if stop is not None and stop.metric == best:
            largest = stop.mode == "max"
        return Settings(
            section.epochs,
            section.steps,
            self.fed.batches,
            section.seed,
            section.accumulate,
            folder,
            saving.every if saving is not None else 1,
            max(2, saving.keep) if saving is not None else 2,
            best,
            largest,
            _stopping(stop),
            section.validate.every if section.validate is not None else 1,
            max(1, (self.fed.batches or 0) // LOGGED),
            (*names, *self.training.metrics),
            {"model": _fingerprint(self.steps), "data": self.fed.fingerprint},
            None if self.confusable is None else self.confusable[1],
        )

    def _schedule(self, loss: Loss, objective: Objective, unit: int) -> Schedule:
        calls = _own(loss, "schedule") or self.section.schedule
        batch = self.fed.batch and self.fed.batch * self.section.accumulate
        return Schedule(calls, objective.optimiser.settings["lr"], unit, batch)


def _with(section: Train, **given: Any) -> Train:
    """The section with what a caller gave instead."""
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        least = 0 if name == "seed" else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            message = f"`{name}` must be a whole number of at least {least}, not {value!r}"
            raise RuntimeFault("E016", message)
    return replace(section, **given)


def _own(loss: Loss, name: str) -> Any:
    """What an entry of ``objectives`` has of its own."""
    return None if loss.stated is None else getattr(loss.stated, name)


def _objective(loss: Loss, section: Train) -> Objective:
    optimiser = _rule(_own(loss, "optimizer") or section.optimizer) or PLAIN
    clip = _rule(_own(loss, "clip") or section.clip)
    calls = _own(loss, "schedule") or section.schedule
    moving = next((call for call in calls if call.settings.get("momentum")), None)
    if moving is not None and not has_momentum(optimiser.name, optimiser.settings):
        message = f"the schedule moves a momentum, and `{optimiser.name}` has none"
        hint = "give it one: `sgd(momentum=0.9)`" if optimiser.name == "sgd" else None
        raise SpecError([Diagnostic("E016", message, moving.span, hint=hint)], {})
    return Objective(loss.name, loss.output, loss.weights, optimiser, clip, moving is not None)


def _rule(call: Call | None) -> Rule | None:
    return None if call is None else Rule(call.name, call.settings)


def _momentum(objective: Objective) -> float:
    settings = objective.optimiser.settings
    return float(settings["betas"][0] if "betas" in settings else settings.get("momentum", 0.0))


def _stopping(stop: Any) -> Stopping | None:
    if stop is None:
        return None
    return Stopping(stop.metric, stop.patience, stop.mode == "max", stop.min_delta)


def _fingerprint(steps: Steps) -> str:
    """What must agree for a checkpoint to fit: the weights that are moved, and by what rules."""
    rows = [(group.name, group.paths, group.shapes, group.dtype) for group in steps.groups]
    rules = [(o.name, o.optimiser.name, o.weights) for o in steps.objectives]
    return hashlib.sha256(repr((rows, rules)).encode()).hexdigest()[:16]


def _folder(out: str | os.PathLike[str] | None, resume: bool) -> Path | None:
    """The run's folder; E808 when it holds another run already."""
    if out is None:
        if resume:
            raise RuntimeFault("E808", "there is nothing to resume without the run's folder",
                               "give it: `out=...`")  # fmt: skip
        return None
    folder = Path(out)
    if not resume and (folder / LAST).exists():
        hint = "go on with `--resume`, or choose another folder"
        raise RuntimeFault("E808", f"`{folder}` holds a run already", hint)
    return folder


@contextmanager
def _watching(
    show: bool | Watcher, epochs: int, batches: int | None, unit: str
) -> Iterator[Watcher]:
    if isinstance(show, bool):
        if not show:
            yield Silent()
            return
        with Display(epochs, batches, unit) as display:
            yield display
    else:
        yield show


class Silent:
    """Shows nothing."""

    def prepared(self, seconds: float) -> None:
        """After code was compiled."""

    def step(self, epoch: int, done: int, examples: int, values: Mapping[str, float]) -> None:
        """After a step."""

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """After an epoch."""

    def say(self, text: str) -> None:
        """A line about something else."""


class _Testing(Silent):
    """Stops a range test when the loss has risen enough."""

    def __init__(self, loss: str) -> None:
        self.loss = loss
        self.loop: Loop | None = None

    def step(self, epoch: int, done: int, examples: int, values: Mapping[str, float]) -> None:
        """After a step."""
        assert self.loop is not None
        losses = [row[self.loss] for _, _, _, row in self.loop.rows if self.loss in row]
        if is_over(losses):
            self.loop.interrupt()
