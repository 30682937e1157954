"""Solvers of decision processes from their model.

Sources: Puterman, Markov Decision Processes (Wiley 1994): value iteration 6.3, policy iteration
6.4, modified policy iteration 6.5, bounds 6.6, linear programming 6.9, average reward 8.5, finite
horizon 4.5. Sutton, Barto, Reinforcement Learning (2nd edition 2018): prioritised sweeping 8.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..faults import RuntimeFault
from .process import INDEX, Process
from .sweeps import Sweeper

EPSILON = float(np.finfo(np.float64).eps)
PATIENCE = 50
"""Sweeps without any progress of the bound after which rounding is taken to be all that is left."""


@dataclass(frozen=True)
class Settings:
    """How to solve.

    ``tol`` is the error of the values that is allowed (where it can be bounded, else the change of
    the last sweep), ``max_steps`` the sweeps (or improvements) to make, ``sweeps`` the evaluation
    sweeps of modified policy iteration, ``evaluation`` ``iterative`` or ``direct``.
    """

    method: str = "value_iteration"
    tol: float = 1e-8
    max_steps: int = 100_000
    sweeps: int = 5
    evaluation: str = "iterative"
    threads: int | None = None


@dataclass
class Answer:
    """Values by state, the best row of each, and how sure they are.

    ``error_bound`` bounds the error of every value; ``None`` where nothing bounds it. ``residual``
    is the largest change of one more sweep. ``steps`` counts what the method counts; ``history``
    has after each the bound (or the change). ``gain`` is the reward a step in the long run.
    """

    values: np.ndarray
    rows: np.ndarray
    error_bound: float | None = None
    residual: float = 0.0
    steps: int = 0
    history: list[float] = field(default_factory=list)
    gain: tuple[float, float] | None = None


def solve(process: Process, settings: Settings) -> Answer:
    """Optimal values and rows; raises :class:`RuntimeFault` E408 when ``max_steps`` do not do."""
    sweeper = Sweeper(process, settings.threads)
    return METHODS[settings.method](sweeper, settings)


def require_end(sweeper: Sweeper) -> int | None:
    """A state with a reward from which there is no way to an end, if nothing is discounted."""
    if sweeper.discounts[1] < 1 - 1e-12:
        return None
    endless = sweeper.endless()
    if not endless.any():
        return None
    process = sweeper.process.plain
    earning = endless[process.state_of_row] & (process.reward != 0)
    return int(process.state_of_row[earning.argmax()]) if earning.any() else None


# ---------------------------------------------------------------- stopping


class _Stop:
    """Decides when a method is done, from the changes of its sweeps."""

    def __init__(self, sweeper: Sweeper, settings: Settings) -> None:
        self.sweeper, self.settings = sweeper, settings
        self.history: list[float] = []
        self.bounds: tuple[float, float] | None = None
        self.residual = np.inf
        self._idle = 0

    def met(self, low: float, high: float, values: np.ndarray) -> bool:
        """Whether values that a sweep changed by ``low .. high`` are good enough."""
        self.bounds = self.sweeper.bounds(low, high)
        self.residual = max(abs(low), abs(high))
        error = self.residual if self.bounds is None else (self.bounds[1] - self.bounds[0]) / 2
        best = min(self.history, default=np.inf)
        self._idle = 0 if error < best else self._idle + 1
        self.history.append(error)
        if error <= self.settings.tol:
            return True
        if self._idle < PATIENCE:
            return False
        return self.residual <= 64 * EPSILON * float(np.max(np.abs(values), initial=0.0))

    def centre(self, values: np.ndarray) -> float | None:
        """Move values to the middle of their bounds; the bound on their error that is left."""
        if self.bounds is None:
            return None
        low, high = self.bounds
        lasting = self.sweeper.lasting.view(bool)
        np.add(values, (low + high) / 2, out=values, where=lasting)
        return (high - low) / 2

    def answer(self, values: np.ndarray, steps: int) -> Answer:
        """The answer: values in the middle of their bounds, and the best rows there."""
        bound = self.centre(values)
        rows, new = np.empty(len(values), INDEX), np.empty_like(values)
        low, high = self.sweeper.backup(values, new, rows)
        return Answer(values, rows, bound, max(abs(low), abs(high)), steps, self.history)

    def refuse(self, what: str) -> RuntimeFault:
        """The fault of a method that took too many steps."""
        if not self.history:
            return RuntimeFault("E408", f"not solved within {self.settings.max_steps} {what}")
        kind = "the change" if self.bounds is None else "the error bound"
        message = f"not solved within {self.settings.max_steps} {what}"
        hint = f"raise `max_steps`, or `tol` above {self.history[-1]:.2g}"
        if self.sweeper.discounts[1] > 1 - 1e-12:
            hint += "; with nothing discounted, values may grow without bound"
        return RuntimeFault("E408", message, hint, [f"{kind} is {self.history[-1]:.3g}"])


def _start(sweeper: Sweeper) -> np.ndarray:
    """Zeros, and the exact value of states from which no value flows."""
    values = np.zeros(sweeper.process.states)
    new = np.empty_like(values)
    sweeper.backup(values, new)
    new[sweeper.lasting.view(bool)] = 0.0
    return new


# ---------------------------------------------------------------- methods


def value_iteration(sweeper: Sweeper, settings: Settings) -> Answer:
    """Every state from the values before the sweep (Jacobi)."""
    values = _start(sweeper)
    new = np.empty_like(values)
    stop = _Stop(sweeper, settings)
    for step in range(1, settings.max_steps + 1):
        low, high = sweeper.backup(values, new)
        values, new = new, values
        if stop.met(low, high, values):
            return stop.answer(values, step)
    raise stop.refuse("sweeps")


def modified_policy_iteration(sweeper: Sweeper, settings: Settings) -> Answer:
    """An improvement, then ``sweeps`` sweeps that follow its policy."""
    values = _start(sweeper)
    new, rows = np.empty_like(values), np.empty(len(values), INDEX)
    stop = _Stop(sweeper, settings)
    for step in range(1, settings.max_steps + 1):
        low, high = sweeper.backup(values, new, rows)
        values, new = new, values
        if stop.met(low, high, values):
            return stop.answer(values, step)
        follower = sweeper.following(rows)
        for _ in range(settings.sweeps):
            follower.follow(values, new)
            values, new = new, values
    raise stop.refuse("improvements")


def gauss_seidel(sweeper: Sweeper, settings: Settings) -> Answer:
    """Each state from the values that were just written, forward and backward in turn."""

    def refine(values: np.ndarray, change: float, most: int) -> int:
        out = np.empty(2)
        sweeper.serial("bellman", "gauss_seidel", [values, most, change, out])
        return int(out[0])

    return _in_place(sweeper, settings, refine, "sweeps")


def prioritised(sweeper: Sweeper, settings: Settings) -> Answer:
    """The state whose value is most wrong first; ``steps`` counts states divided by all states."""
    process = sweeper.process.plain
    sweeper = sweeper if process is sweeper.process else Sweeper(process, settings.threads)
    start, before, weight = _predecessors(process)

    def refine(values: np.ndarray, change: float, most: int) -> int:
        new = np.empty_like(values)
        sweeper.backup(values, new)
        wrong = np.abs(new - values)
        heap = np.arange(process.states, dtype=INDEX)
        place, out = heap.copy(), np.empty(2)
        words = [values, wrong, heap, place, start, before, weight]
        backups = most * process.states
        sweeper.serial("prioritised", "prioritised", [*words, change, backups, out])
        return -(-int(out[0]) // process.states)

    return _in_place(sweeper, settings, refine, "sweeps")


def _in_place(
    sweeper: Sweeper, settings: Settings, refine: Callable[[np.ndarray, float, int], int], what: str
) -> Answer:
    """Refine in place until changes are small; one sweep then proves a bound."""
    values = _start(sweeper)
    new = np.empty_like(values)
    stop = _Stop(sweeper, settings)
    most = min(sweeper.discounts[1], 1 - 1e-6)
    change = settings.tol * max(1 - most, 1e-6)
    steps = 0
    while steps < settings.max_steps:
        steps += 1 + refine(values, change, settings.max_steps - steps)
        low, high = sweeper.backup(values, new)
        values, new = new, values
        if stop.met(low, high, values):
            return stop.answer(values, steps)
        change = max(change / 10, EPSILON * float(np.abs(values).max()))
    raise stop.refuse(what)


def _predecessors(process: Process) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each state its predecessors, and the largest weight of one of their rows into it."""
    row, there = process.row_of_entry.astype(np.int64), process.next
    order = np.lexsort((row, there))
    row, there, weight = row[order], there[order], process.weight[order]
    fresh = np.append(True, (row[1:] != row[:-1]) | (there[1:] != there[:-1]))
    weight = np.add.reduceat(weight, np.flatnonzero(fresh)) if len(weight) else weight
    row, there = row[fresh[: len(row)]], there[fresh[: len(there)]]
    state = process.state_of_row[row]
    fresh = np.append(True, (state[1:] != state[:-1]) | (there[1:] != there[:-1]))
    weight = np.maximum.reduceat(weight, np.flatnonzero(fresh)) if len(weight) else weight
    state, there = state[fresh[: len(state)]], there[fresh[: len(there)]]
    start = np.searchsorted(there, np.arange(process.states + 1)).astype(INDEX)
    return start, np.ascontiguousarray(state), np.ascontiguousarray(weight)


def policy_iteration(sweeper: Sweeper, settings: Settings) -> Answer:
    """Evaluate a policy, improve it, until no action is better by more than evaluation's error."""
    process = sweeper.process
    values = _start(sweeper)
    new, rows = np.empty_like(values), np.empty(process.states, INDEX)
    sweeper.backup(values, new, rows)
    values, new = new, values
    stop = _Stop(sweeper, settings)
    tol = settings.tol * 1e-2
    for step in range(1, settings.max_steps + 1):
        values, error = _evaluate_rows(sweeper, settings, rows, values, tol)
        rounding = 64 * EPSILON * float(np.abs(values).max(initial=1.0))
        if sweeper.improve(values, rows, 4 * error + rounding):
            continue
        new = np.empty_like(values)
        low, high = sweeper.backup(values, new)
        if stop.met(low, high, new) or settings.evaluation == "direct" or tol < rounding:
            return stop.answer(new, step)
        tol /= 10
    raise stop.refuse("improvements")


def _evaluate_rows(
    sweeper: Sweeper, settings: Settings, rows: np.ndarray, values: np.ndarray, tol: float
) -> tuple[np.ndarray, float]:
    """The values of the policy that takes these rows, and their error."""
    follower = sweeper.following(rows)
    if settings.evaluation == "direct":
        return direct_values(follower.process.plain), 0.0
    inner = _Stop(follower, Settings(tol=tol))
    new = np.empty_like(values)
    for _ in range(settings.max_steps):
        low, high = follower.backup(values, new)
        values, new = new, values
        if inner.met(low, high, values):
            error = inner.centre(values)
            return values, inner.residual if error is None else error
    raise inner.refuse("evaluation sweeps")


def direct_values(process: Process) -> np.ndarray:
    """The values of a process with at most one row a state, by factorising ``I - P``."""
    sparse, linalg = _scipy()
    shape = (process.states, process.states)
    entries = (process.weight, process.next, process.start[process.first])
    moves = sparse.csr_matrix(entries, shape)
    system = sparse.identity(process.states, format="csc") - moves.tocsc()
    reward = np.zeros(process.states)
    reward[process.state_of_row] = process.reward
    with np.errstate(all="ignore"):
        values = np.asarray(linalg.spsolve(system, reward))
    if not np.isfinite(values).all():
        message = "the values of this policy have no unique solution"
        raise RuntimeFault("E408", message, "some state never ends, and nothing is discounted")
    return values


def linear_program(sweeper: Sweeper, settings: Settings) -> Answer:
    """The least values that no action exceeds, by HiGHS."""
    sparse, _ = _scipy()
    from scipy.optimize import linprog

    process = sweeper.process.plain
    shape = (process.rows, process.states)
    moves = sparse.csr_matrix((process.weight, process.next, process.start), shape)
    ones = np.ones(process.rows)
    own = sparse.csr_matrix((ones, (np.arange(process.rows), process.state_of_row)), shape)
    empty = process.counts == 0
    bounds = [(0.0, 0.0) if none else (None, None) for none in empty]
    cost = np.ones(process.states)
    found = linprog(cost, (moves - own).tocsr(), -process.reward, bounds=bounds, method="highs")
    if found.status != 0:
        raise RuntimeFault("E408", "the linear program has no solution", None, [found.message])
    values = np.ascontiguousarray(found.x)
    new = np.empty_like(values)
    stop = _Stop(sweeper, settings)
    low, high = sweeper.backup(values, new)
    stop.met(low, high, new)
    return stop.answer(new, int(found.nit))


def _scipy() -> tuple:
    try:
        import scipy.sparse as sparse
        import scipy.sparse.linalg as linalg
    except ImportError as missing:
        message = "this method needs SciPy"
        raise RuntimeFault("E804", message, "pip install 'tilth[solve]'") from missing
    return sparse, linalg


METHODS: dict[str, Callable[[Sweeper, Settings], Answer]] = {
    "value_iteration": value_iteration,
    "gauss_seidel": gauss_seidel,
    "prioritised": prioritised,
    "policy_iteration": policy_iteration,
    "modified_policy_iteration": modified_policy_iteration,
    "linear_program": linear_program,
}


# ---------------------------------------------------------------- other criteria


def evaluate(process: Process, settings: Settings) -> Answer:
    """The values of a process without choice: a policy's, by sweeps or directly."""
    sweeper = Sweeper(process, settings.threads)
    if settings.evaluation != "direct":
        return value_iteration(sweeper, settings)
    values = direct_values(process.plain)
    new = np.empty_like(values)
    stop = _Stop(sweeper, settings)
    low, high = sweeper.backup(values, new)
    stop.met(low, high, new)
    return stop.answer(new, 1)


def average_reward(process: Process, settings: Settings) -> Answer:
    """Relative values and the reward a step, by relative value iteration.

    Every state keeps part of its value (Schweitzer 1971), so that periodic chains converge too; the
    gain lies between the smallest and the largest change. ``values`` are 0 in state 0.
    """
    sweeper = Sweeper(process, settings.threads)
    sweeper.lasting[:] = 1
    values = np.zeros(process.states)
    new, rows = np.empty_like(values), np.empty(process.states, INDEX)
    history: list[float] = []
    keep = 0.9
    for step in range(1, settings.max_steps + 1):
        low, high = sweeper.backup(values, new, rows)
        history.append((high - low) / 2)
        if high - low <= 2 * settings.tol:
            bound = (high - low) / 2
            return Answer(values, rows, bound, bound, step, history, (low, high))
        values += keep * (new - values)
        values -= values[0]
    message = f"no gain within {settings.max_steps} sweeps"
    hint = "the gain may differ between states: then there is more than one closed class"
    details = [f"it lies between {low:.6g} and {high:.6g}"]
    raise RuntimeFault("E408", message, hint, details)


def finite_horizon(process: Process, settings: Settings, steps: int) -> tuple[np.ndarray, ...]:
    """Values ``[steps + 1, states]`` and rows ``[steps, states]`` with ``steps`` - t steps to go.

    The last values are zero (but for states from which no value flows).
    """
    sweeper = Sweeper(process, settings.threads)
    values = np.zeros((steps + 1, process.states))
    rows = np.empty((steps, process.states), INDEX)
    for step in range(steps - 1, -1, -1):
        sweeper.backup(values[step + 1], values[step], rows[step])
    return values, rows
