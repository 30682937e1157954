"""Decision processes measured alone: a whole solution in a fresh process, and learning's speed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import Any

from ..program import Program, load
from .kind import Request
from .worker import memory

Chosen = tuple[str, str | None, tuple[str, ...]]
"""A spec, its variant and its options."""


@dataclass(frozen=True)
class SolveRow:
    """A process solved by the spec's own method.

    ``whole_s`` are seconds from the spec's name to values, policy and action values, kernels
    compiled before; of these ``solve_s`` go to the solver, and most of the others to the way from
    equations to rows. Both are medians. ``peak_mb`` is the most memory that the process held,
    Python and all.
    """

    model: str
    method: str
    tol: float
    threads: int
    states: int
    pairs: int
    entries: int
    whole_s: float
    solve_s: float
    peak_mb: float | None
    steps: int
    error_bound: float | None
    rounds: int

    @property
    def agrees(self) -> bool:
        """Whether the error is proven to be within the tolerance."""
        return self.error_bound is not None and self.error_bound <= self.tol

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {**asdict(self), "agrees": self.agrees}

    as_record = as_json

    def __str__(self) -> str:
        """A line for people."""
        held = "" if self.peak_mb is None else f", {self.peak_mb:,.0f} MB"
        return (
            f"{self.model}, {self.method}, {self.threads} threads: {self.whole_s:.3g} s in all,"
            f" {self.solve_s:.3g} s of them to solve{held}"
        )


@dataclass(frozen=True)
class LearnRow:
    """A process learned as its spec says: median steps a second of one thread, one seed."""

    model: str
    method: str
    states: int
    episodes: int
    steps: int
    steps_a_second: float
    rounds: int
    threads: int = 1
    tol: float | None = None

    agrees = True

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    as_record = as_json

    def __str__(self) -> str:
        """A line for people."""
        rate = self.steps_a_second / 1e6
        return f"{self.model}, {self.method}, one thread: {rate:.1f} million steps a second"


def measure_alone(program: Program, request: Request) -> Iterator[list[SolveRow | LearnRow]]:
    """The solution by each number of threads, then learning where the spec says how."""
    chosen = request.spec, request.variant, request.options
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        for threads in request.threads:
            yield [fresh.submit(solve_row, chosen, threads, request.rounds).result()]
    if program.model.envelope.learn is not None:
        yield [_learn_row(program, request.rounds)]


def solve_row(chosen: Chosen, threads: int, rounds: int) -> SolveRow:
    """Solve a spec, again and again, in the process that calls."""
    spec, variant, options = chosen
    # The first compiles what the cache of kernels lacks.
    solution = load(spec, variant=variant, set=options).solve(threads=threads)
    peak = memory("VmHWM")
    whole, inside = [], []
    for _ in range(rounds):
        del solution
        started = perf_counter()
        solution = load(spec, variant=variant, set=options).solve(threads=threads)
        whole.append(perf_counter() - started)
        inside.append(solution.seconds)
    bound = solution.error_bound
    return SolveRow(
        solution.name, solution.method, solution.tol, threads, solution.states, solution.rows,
        solution.entries, median(whole), median(inside), peak and peak / 2**20, solution.steps,
        bound, rounds,
    )  # fmt: skip


def _learn_row(program: Program, rounds: int) -> LearnRow:
    found = [program.learn(seeds=1, threads=1) for _ in range(rounds)]
    rate = median(lessons.steps / lessons.seconds for lessons in found)
    last = found[-1]
    return LearnRow(
        last.name, last.method, last.values[0].size, last.returns.shape[1], last.steps, rate, rounds
    )
