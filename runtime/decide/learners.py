"""Learning a process from episodes: many seeds side by side, each with tables of its own.

The rules are those of ``runtime/kernels/temporal.py``; here experience comes from the process's own
simulator, or from an environment with Gymnasium's interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from ..faults import RuntimeFault
from ..machine import cores
from .process import INDEX, Process
from .sweeps import DecisionKernel, Sweeper, run_kernel

CONTROL = ("sarsa", "expected_sarsa", "q_learning", "double_q")
PREDICTION = ("td0", "td_n", "td_lambda")
METHODS = ("monte_carlo", *PREDICTION, *CONTROL)
TRACES = ("accumulating", "replacing")
VISITS = ("first", "every")
IMPORTANCE = ("ordinary", "weighted")


@dataclass(frozen=True)
class Lesson:
    """How to learn.

    ``alpha``, ``epsilon`` and ``temperature`` are by episode (a temperature above 0 is softmax);
    ``longest`` cuts episodes. ``n`` are the steps of ``td_n``, ``decay`` the lambda of
    ``td_lambda``. ``importance`` makes Monte Carlo learn a policy from random episodes.
    """

    method: str
    alpha: np.ndarray
    epsilon: np.ndarray
    temperature: np.ndarray
    seeds: tuple[int, ...] = (0,)
    longest: int = 1000
    n: int = 1
    decay: float = 0.0
    traces: str = "accumulating"
    visits: str = "every"
    importance: str | None = None
    threads: int | None = None

    @property
    def episodes(self) -> int:
        """Episodes of each seed."""
        return len(self.alpha)


@dataclass
class Learned:
    """What was learned, by seed.

    ``q`` are values of rows (control and Monte Carlo), ``values`` of states (prediction).
    ``returns`` are undiscounted sums of rewards by episode, ``lengths`` its steps, ``errors`` the
    root mean square error of the values (prediction, where the truth is known).
    """

    returns: np.ndarray
    lengths: np.ndarray
    q: np.ndarray | None = None
    values: np.ndarray | None = None
    errors: np.ndarray | None = None
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Steps of all episodes of all seeds."""
        return int(self.lengths.sum())


class Simulator:
    """A process to draw episodes from; ``starts`` are the states they start in."""

    def __init__(self, process: Process, starts: Sequence[int] | None = None) -> None:
        assert process.outcomes is not None
        self.process = process
        chance = process.outcomes.chance
        sums = np.concatenate([[0.0], np.cumsum(chance)])
        self.cumulative = sums[1:] - np.repeat(sums[process.start[:-1]], np.diff(process.start))
        lasting = Sweeper(process).lasting.view(bool)
        earning = np.zeros(process.states, bool)
        earning[process.state_of_row[process.reward != 0]] = True
        acting = process.counts > 0
        self.stop = (~acting | (~lasting & ~earning)).astype(np.uint8)
        self.starts = np.flatnonzero(self.stop == 0).astype(INDEX)
        if starts is not None:
            self.starts = np.asarray(starts, INDEX)
        if not len(self.starts) or (process.counts[self.starts] == 0).any():
            message = "an episode would start in a state where there is nothing to do"
            raise RuntimeFault("E408", message)

    def run(self, name: str, lesson: Lesson, q: np.ndarray, words: Sequence[Any]) -> Learned:
        """Run a kernel of ``runtime/kernels/episodes.py``, a task a seed."""
        p, outcomes = self.process, self.process.outcomes
        assert outcomes is not None
        shape = (len(lesson.seeds), lesson.episodes)
        returns, lengths = np.zeros(shape), np.zeros(shape, np.int64)
        streams = np.array([_stream(seed) for seed in lesson.seeds], np.uint64)
        base = [
            p.states, p.rows, p.entries, p.first, p.start, p.next, self.cumulative,
            outcomes.reward, outcomes.discount, self.stop, self.starts, len(self.starts),
            lesson.episodes, lesson.longest, lesson.alpha, lesson.epsilon, lesson.temperature,
            streams, q, returns, lengths,
        ]  # fmt: skip
        threads = lesson.threads or cores()
        kernel = DecisionKernel("episodes", name)
        run_kernel(kernel, 0, [*base, *words])  # compiled before the clock starts
        started = perf_counter()
        run_kernel(kernel, len(lesson.seeds), [*base, *words], threads)
        return Learned(returns, lengths, seconds=perf_counter() - started)


def _stream(seed: int) -> int:
    """Where a seed's random stream starts; neighbouring seeds start far apart."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])


# ---------------------------------------------------------------- methods


def control(simulator: Simulator, lesson: Lesson) -> Learned:
    """Action values by SARSA, expected SARSA, Q-learning or double Q-learning."""
    shape = (len(lesson.seeds), simulator.process.rows)
    q, other = np.zeros(shape), np.zeros(shape)
    found = simulator.run("control", lesson, q, [CONTROL.index(lesson.method), other])
    found.q = (q + other) / 2 if lesson.method == "double_q" else q
    return found


def predict(
    simulator: Simulator, lesson: Lesson, policy: np.ndarray, truth: np.ndarray | None = None
) -> Learned:
    """Values of a policy (chances by row) by TD(0), TD(n), TD(lambda) or Monte Carlo.

    ``truth`` has the values that errors are measured from, NaN for states that do not count.
    """
    process = simulator.process
    seeds, states, longest = len(lesson.seeds), process.states, lesson.longest
    values, errors = np.zeros((seeds, states)), np.zeros((seeds, lesson.episodes))
    numbers = {"td_lambda": 1, "monte_carlo": 2}
    method = numbers.get(lesson.method, 0)
    kind = TRACES.index(lesson.traces) if method == 1 else VISITS.index(lesson.visits)
    n = lesson.n if lesson.method == "td_n" else 1
    words = 2 * longest + 2 * states + longest + 1 + longest
    room = np.zeros((seeds, words + 8))
    known = np.full(states, np.nan) if truth is None else np.ascontiguousarray(truth)
    cumulative = _cumulative(process, policy)
    found = simulator.run(
        "predict", lesson, np.zeros(1),
        [cumulative, method, n, float(lesson.decay), kind, values, known, errors, room,
         room.shape[1] * 8],
    )  # fmt: skip
    found.values, found.errors = values, errors if truth is not None else None
    return found


def monte_carlo_control(
    simulator: Simulator, lesson: Lesson, target: np.ndarray | None = None
) -> Learned:
    """Action values by Monte Carlo: of what it does, or of ``target`` (else the greedy policy)."""
    process = simulator.process
    seeds, rows, longest = len(lesson.seeds), process.rows, lesson.longest
    q = np.zeros((seeds, rows))
    mode = 0 if lesson.importance is None else 1 + IMPORTANCE.index(lesson.importance)
    chances = np.full(rows, -1.0) if target is None else np.ascontiguousarray(target)
    counts = process.counts[process.state_of_row]
    room = np.zeros((seeds, 3 * longest + 2 * rows + longest + 8))
    words = [
        chances, mode, VISITS.index(lesson.visits), _cumulative(process, 1.0 / counts),
        np.zeros(rows), room, room.shape[1] * 8,
    ]  # fmt: skip
    found = simulator.run("monte_carlo_control", lesson, q, words)
    found.q = q
    return found


def _cumulative(process: Process, chances: np.ndarray) -> np.ndarray:
    """Chances of rows, summed up within each state."""
    sums = np.concatenate([[0.0], np.cumsum(chances)])
    return sums[1:] - np.repeat(sums[process.first[:-1]], process.counts)


def in_environment(
    env: Any, states: int, actions: int, discount: float, lesson: Lesson
) -> Learned:  # fmt: skip
    """A control method in an environment with Gymnasium's interface and whole-number spaces."""
    from ..kernels import temporal as td

    shape = (len(lesson.seeds), lesson.episodes)
    found = Learned(np.zeros(shape), np.zeros(shape, np.int64))
    found.q = np.zeros((len(lesson.seeds), states * actions))
    method = CONTROL.index(lesson.method)
    started = perf_counter()
    for place, seed in enumerate(lesson.seeds):
        random = np.array([_stream(seed)], np.uint64)
        q, other = found.q[place], np.zeros(states * actions)
        for episode in range(lesson.episodes):
            rates = lesson.epsilon[episode], lesson.temperature[episode]
            state, _ = env.reset(seed=seed if episode == 0 else None)
            total, length = 0.0, 0
            r = td.choose(q, other, state * actions, (state + 1) * actions, *rates, random)
            while length < lesson.longest:
                state, reward, ended, cut, _ = env.step(r - r // actions * actions)
                begin, end = int(state) * actions, (int(state) + 1) * actions
                then = td.choose(q, other, begin, end, *rates, random)
                coin = td.uniform(random)
                td.step_update(method, q, other, r, float(reward), 0.0 if ended else discount,
                               begin, end, then, lesson.alpha[episode], *rates, coin)  # fmt: skip
                total, length = total + float(reward), length + 1
                if ended or cut:
                    break
                if lesson.method != "sarsa":
                    then = td.choose(q, other, begin, end, *rates, random)
                r = then
            found.returns[place, episode], found.lengths[place, episode] = total, length
        if lesson.method == "double_q":
            found.q[place] = (q + other) / 2
    found.seconds = perf_counter() - started
    return found
