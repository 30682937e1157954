"""Learning behind the public face: a program's decision process, learned from episodes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .decide import Decision, decision, located, policy_chances, write_text
from .runtime.decide import learners, solvers
from .runtime.decide.learners import Learned, Lesson, Simulator
from .runtime.decide.process import Process
from .runtime.decide.sweeps import Sweeper
from .runtime.decide.tables import environment
from .runtime.faults import RuntimeFault
from .runtime.train.schedules import Schedule
from .spec.calls import Call
from .spec.diagnostics import Diagnostic, SpecError
from .spec.sections import Learn

if TYPE_CHECKING:
    from .program import Program

STATES_WITH_TRUTH = 20_000
"""States up to which errors of learned values are measured against the solved ones."""


@dataclass(frozen=True)
class Lessons:
    """What was learned, by seed (the first axis of each array).

    ``values`` are by state; ``action_values`` by state and action (NaN where a state lacks one),
    ``None`` for methods that learn values of states only, as is ``policy``, the greedy actions (-1
    where there is nothing to do). ``returns`` are undiscounted sums of rewards by episode,
    ``lengths`` its steps, ``errors`` the root mean square error of the values (prediction).
    ``optimum`` are the solved values where the model is small enough, else ``None``.
    """

    name: str
    method: str
    values: np.ndarray
    action_values: np.ndarray | None
    policy: np.ndarray | None
    returns: np.ndarray
    lengths: np.ndarray
    errors: np.ndarray | None
    optimum: np.ndarray | None
    seconds: float
    actions: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Steps of all seeds."""
        return int(self.lengths.sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, for a file."""
        names = ("values", "action_values", "policy", "returns", "lengths", "errors", "optimum")
        found = {name: getattr(self, name) for name in names}
        return {name: array for name, array in found.items() if array is not None}

    def curve(self, window: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The learning curve over episodes: mean over seeds, and a band of one standard deviation.

        It shows the error where there is one, else the return; each point averages ``window``
        episodes.
        """
        rows = self.returns if self.errors is None else self.errors
        count = max(1, rows.shape[1] // window)
        means = rows[:, : count * window].reshape(len(rows), count, -1).mean(axis=2)
        middle, spread = means.mean(axis=0), means.std(axis=0)
        return middle, middle - spread, middle + spread

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the learning curve into an ``.svg`` file."""
        from .view.decision import curves_svg

        window = max(1, self.returns.shape[1] // 200)
        up = "return" if self.errors is None else "error of the values"
        lines = {f"{self.method}, {len(self.returns)} seeds": self.curve(window)}
        write_text(path, curves_svg(lines, self.name, "episode", up, each=window))


def learn(
    program: Program,
    inputs: Mapping[str, Any] | None = None,
    *,
    policy: Any = None,
    env: Any = None,
    threads: int | None = None,
    **changes: Any,
) -> Lessons:
    """Learn a decision process from episodes.

    Parameters
    ----------
    inputs
        As for :func:`tilth.decide.solve`.
    policy
        The policy whose values are learned: probabilities by state and action, or a file of them.
        Without one, methods of prediction take actions uniformly at random.
    env
        A Gymnasium environment, or its name; the model's own simulator by default.
    changes
        Settings of the ``learn`` section (``method``, ``episodes``, ``alpha``, ``seeds`` ...),
        which replace the spec's.

    Raises
    ------
    SpecError
        Where the equations are no decision process, or settings do not fit.
    """
    section = _section(program, changes)
    found = decision(program, inputs or {}, outcomes=env is None)
    with located(program):
        lesson = _lesson(section, threads)
        if env is not None:
            return _in_environment(found, section, lesson, env)
        return _from_model(found, section, lesson, policy)


def _from_model(found: Decision, section: Learn, lesson: Lesson, policy: Any) -> Lessons:
    process = found.process.plain
    simulator = Simulator(process, _starts(found, section.start))
    given = None if policy is None else policy_chances(found, policy)
    truth = None
    if lesson.method in learners.CONTROL:
        made = learners.control(simulator, lesson)
    elif lesson.method in learners.PREDICTION or _predicts(process, lesson, given):
        chances = given
        if chances is None:
            chances = 1.0 / process.counts[process.state_of_row]
        truth = _truth(process.followed(chances))
        made = learners.predict(simulator, lesson, chances, truth)
    else:
        made = learners.monte_carlo_control(simulator, lesson, given)
    optimum = truth
    if truth is None and process.states <= STATES_WITH_TRUTH:
        optimum = _truth(process, given if lesson.importance is not None else None)
    return _lessons(found, process, lesson, made, optimum)


def _predicts(process: Process, lesson: Lesson, given: np.ndarray | None) -> bool:
    """Whether Monte Carlo learns the values of a policy that it follows."""
    return lesson.importance is None and (given is not None or process.actions == 1)


def _truth(process: Process, given: np.ndarray | None = None) -> np.ndarray | None:
    """Solved values, NaN where nothing is to be learned; ``None`` where they cannot be had."""
    if given is not None:
        process = process.followed(given)
    if process.states > STATES_WITH_TRUTH:
        return None
    try:
        values = solvers.value_iteration(Sweeper(process), solvers.Settings(tol=1e-9)).values
    except RuntimeFault:
        # A policy that never ends has no values; learning then goes on without a truth.
        return None
    acting = process.counts > 0
    return np.where(acting & Sweeper(process).lasting.view(bool), values, np.nan)


def _in_environment(found: Decision, section: Learn, lesson: Lesson, env: Any) -> Lessons:
    process = found.process.plain
    if lesson.method not in learners.CONTROL:
        message = f"`{lesson.method}` does not learn in an environment"
        raise RuntimeFault("E408", message, f"one of {', '.join(learners.CONTROL)} does")
    made_here = isinstance(env, str)
    world = environment(env.removeprefix("gym:")) if made_here else env
    sizes = [getattr(getattr(world, f"{k}_space"), "n", None) for k in ("observation", "action")]
    if sizes != [process.states, process.actions]:
        message = f"the environment has {sizes[0]} states and {sizes[1]} actions"
        hint = f"the spec has {process.states} and {process.actions}"
        raise RuntimeFault("E802", message, hint)
    discount = Sweeper(process).discounts[1]
    made = learners.in_environment(world, process.states, process.actions, discount, lesson)
    if made_here:
        world.close()
    assert made.q is not None
    table = made.q.reshape(len(made.q), process.states, process.actions)
    made.q = np.array([process.sign * process.rows_of(rows) for rows in table])
    optimum = _truth(process)
    return _lessons(found, process, lesson, made, optimum)


def _lessons(
    found: Decision, process: Process, lesson: Lesson, made: Learned, optimum: np.ndarray | None
) -> Lessons:
    seeds, sign = len(lesson.seeds), process.sign
    acting = process.counts > 0
    tables = policy = None
    if made.q is not None:
        known = np.array([process.table(q, -np.inf) for q in made.q])
        best = np.where(acting, known.argmax(axis=2), -1)
        values = np.where(acting, known.max(axis=2), 0.0)
        shape = (seeds, *found.grid, process.actions)
        tables = np.where(np.isinf(known), np.nan, sign * known).reshape(shape)
        policy = best.reshape(seeds, *found.grid)
    else:
        assert made.values is not None
        values = made.values
    return Lessons(
        name=found.program.variant or found.program.name,
        method=lesson.method,
        values=(sign * values).reshape(seeds, *found.grid),
        action_values=tables,
        policy=policy,
        returns=sign * made.returns,
        lengths=made.lengths,
        errors=made.errors,
        optimum=None if optimum is None else (sign * optimum).reshape(found.grid),
        seconds=made.seconds,
        actions=found.actions,
    )


# ---------------------------------------------------------------- settings


def _section(program: Program, changes: Mapping[str, Any]) -> Learn:
    """The spec's ``learn`` section with what the caller replaces."""
    envelope = program.model.envelope
    section = envelope.learn
    if section is None:
        section = Learn(span=envelope.model.span, spans={})
    given = {name: value for name, value in changes.items() if value is not None}
    if isinstance(given.get("seeds"), int):
        given["seeds"] = tuple(range(given["seeds"]))
    if "epsilon" in given:
        given["explore"] = None
    section = replace(section, **given)
    problem = None
    if section.method not in learners.METHODS:
        problem = "no method is chosen" if not section.method else f"no method `{section.method}`"
    if section.method == "td_n" and section.n is None:
        problem = "`td_n` needs `n`"
    if section.method == "td_lambda" and section.lambda_ is None:
        problem = "`td_lambda` needs `lambda`"
    if problem is not None:
        hint = f"the methods are {', '.join(learners.METHODS)}"
        raise SpecError([Diagnostic("E408", problem, None, hint=hint)], {})
    return section


def _lesson(section: Learn, threads: int | None) -> Lesson:
    epsilon, temperature = _exploration(section)
    return Lesson(
        method=section.method,
        alpha=Schedule(section.schedule, section.alpha).table(section.episodes),
        epsilon=epsilon,
        temperature=temperature,
        seeds=section.seeds,
        longest=section.max_steps,
        n=section.n or 1,
        decay=section.lambda_ or 0.0,
        traces=section.traces,
        visits=section.visits,
        importance=section.importance,
        threads=threads,
    )


def _exploration(section: Learn) -> tuple[np.ndarray, np.ndarray]:
    """Epsilon and temperature by episode."""
    zeros, rule = np.zeros(section.episodes), section.explore
    if rule is None:
        return zeros + (0.1 if section.epsilon is None else section.epsilon), zeros
    if rule.name == "softmax":
        return zeros, zeros + float(_setting(rule, "temperature"))
    if rule.name == "greedy":
        return zeros, zeros
    first, last = float(_setting(rule, "epsilon")), rule.settings.get("final")
    if last is None:
        return zeros + first, zeros
    span = int(rule.settings.get("episodes") or section.episodes)
    share = np.minimum(np.arange(section.episodes) / max(1, span - 1), 1.0)
    return first + (float(last) - first) * share, zeros


def _setting(rule: Call, name: str) -> Any:
    return rule.settings[name]


def _starts(found: Decision, start: Sequence[int] | int | None) -> list[int] | None:
    """The number of the state that every episode starts in; ``None`` for any."""
    if start is None:
        return None
    place = (start,) if isinstance(start, int) else tuple(start)
    grid = found.grid
    if len(place) == 1 and 0 <= place[0] < found.process.states:
        return [place[0]]
    if len(place) != len(grid) or any(not 0 <= i < n for i, n in zip(place, grid, strict=True)):
        message = f"no state is at {list(place)}"
        raise RuntimeFault("E408", message, f"states are {list(grid)}")
    return [int(np.ravel_multi_index(place, grid))]
