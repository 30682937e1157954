"""Decision processes behind the public face: a program's process, solved, and its outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from .compiler.decisions.extract import Extracted, extract, the_fix
from .compiler.decisions.faults import DecisionFault
from .compiler.interpret import bind_sizes, interpret
from .compiler.ir.graph import Graph, Value
from .compiler.ir.types import DTYPES
from .compiler.options import Options
from .compiler.passes.common_subexpressions import common_subexpressions
from .compiler.rewrite import Rewriter
from .runtime.decide import solvers
from .runtime.decide.process import Process
from .runtime.decide.solvers import Answer, Settings
from .runtime.decide.sweeps import Sweeper
from .runtime.decide.tables import FIELDS, GYM, read_table
from .runtime.faults import RuntimeFault
from .runtime.inputs import array_from_file
from .spec import syntax as s
from .spec.diagnostics import Diagnostic, SpecError

if TYPE_CHECKING:
    from .program import Program

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Decision:
    """A program's decision process: what is solved and learned.

    ``grid`` is the shape of the states as the spec has them, ``actions`` their names.
    """

    program: Program
    graph: Graph
    feeds: Arrays
    extracted: Extracted
    grid: tuple[int, ...]
    actions: tuple[str, ...]

    @property
    def process(self) -> Process:
        """The process."""
        return self.extracted.process

    def state(self, number: int) -> str:
        """A state as the spec counts it."""
        places = np.unravel_index(number, self.grid) if self.grid else ()
        return "[" + ", ".join(str(int(i)) for i in places) + "]"

    def outputs(self, unknown: np.ndarray) -> Arrays:
        """The spec's outputs, once the unknown values are known."""
        graph = self.graph.copy()
        node = graph.node(self.extracted.fix)
        feeds = dict(self.feeds)
        for place, kind in enumerate(node.types):
            old = Value(self.extracted.fix, place)
            if not any(result == place for _, _, result in graph.users(old.node)) and all(
                value != old for _, value in graph.outputs
            ):
                continue
            name = f"{node.regions[0].outputs[place][0]} solved"
            feeds[name] = self.extracted.values(place, unknown).astype(DTYPES[kind.dtype])
            graph.replace_uses(old, graph.add_input(name, kind))
        graph.inputs = [i for i in graph.inputs if graph.node(i).name in feeds]
        graph.prune()
        with np.errstate(all="ignore"):
            return interpret(graph, feeds, {})


@dataclass(frozen=True)
class Solution:
    """A solved decision process.

    ``values`` are by state, ``action_values`` and ``advantage`` by state and action (NaN where a
    state lacks an action), ``policy`` has the number of the best action (-1 where there is
    nothing to do). ``error_bound`` bounds the error of every value, ``None`` where nothing does,
    and ``tol`` is what was allowed.
    With a horizon, values and policy have a first axis of times. ``gain`` is the reward a step in
    the long run.
    """

    name: str
    method: str
    values: np.ndarray
    action_values: np.ndarray
    policy: np.ndarray
    error_bound: float | None
    residual: float
    steps: int
    seconds: float
    states: int
    rows: int
    entries: int
    terminal: int
    history: tuple[float, ...]
    actions: tuple[str, ...]
    source: Decision
    tol: float
    gain: float | None = None

    @cached_property
    def outputs(self) -> Arrays:
        """The spec's outputs, worked out when they are asked for; none with a horizon."""
        if self.method == "finite_horizon":
            return {}
        return self.source.outputs(self.values.reshape(-1))

    @property
    def advantage(self) -> np.ndarray:
        """How much worse an action is than the best: ``Q - V``."""
        values = self.values[0] if self.method == "finite_horizon" else self.values
        return self.action_values - values[..., None]

    def arrays(self) -> Arrays:
        """Everything by name, for a file; the spec's outputs come first."""
        return {
            **{name: array for name, array in self.outputs.items()},
            "values": self.values,
            "action_values": self.action_values,
            "advantage": self.advantage,
            "policy": self.policy,
        }

    def plot(
        self,
        path: str | os.PathLike[str],
        draw: str = "policy",
        state: Sequence[int] | None = None,
    ) -> None:
        """Draw into an ``.svg`` file.

        ``policy``: values and actions by state. ``convergence``: the error bound (or the change)
        after each step. ``backup``: the backup diagram of the state with these indices.
        """
        from .view import decision as view

        if draw == "convergence":
            if not self.history:
                raise RuntimeFault("E408", f"`{self.method}` has no steps to draw")
            line = np.array(self.history)
            up = "change" if self.error_bound is None else "error bound"
            lines = {self.method: (line, line, line)}
            text = view.curves_svg(lines, self.name, "step", up, logarithmic=True)
        elif draw == "backup":
            text = view.backup_svg(*self._backup(state or ()), self.name)
        else:
            timed = self.method == "finite_horizon"
            values, policy = (self.values[0], self.policy[0]) if timed else (
                self.values, self.policy)  # fmt: skip
            text = view.policy_svg(values, policy, self.actions, self.name)
        write_text(path, text)

    def _backup(self, state: Sequence[int]) -> tuple[str, list]:
        """A state, and its actions with their outcomes, for a backup diagram."""
        process, grid = self.source.process.plain, self.source.grid
        fits = len(state) == len(grid) and all(0 <= i < n for i, n in zip(state, grid, strict=True))
        if not fits:
            message = f"no state is at {list(state)}"
            raise RuntimeFault("E408", message, f"states are {list(grid)}")
        number = int(np.ravel_multi_index(tuple(state), grid)) if grid else 0
        values = self.values.reshape(-1, process.states)[0]
        table = self.action_values.reshape(process.states, -1)
        rows = []
        for row in range(process.first[number], process.first[number + 1]):
            action = int(process.action[row])
            entries = range(process.start[row], process.start[row + 1])
            outcomes = [
                (float(process.weight[e]), self.source.state(int(process.next[e])),
                 float(values[process.next[e]]))
                for e in entries
            ]  # fmt: skip
            rows.append((self.actions[action], float(table[number, action]), outcomes))
        return self.source.state(number), rows


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """A text file; raises :class:`RuntimeFault` E803 where it cannot be written."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RuntimeFault("E803", f"cannot write `{os.fspath(path)}`: {reason}") from error


def decision(program: Program, inputs: Mapping[str, Any], outcomes: bool = False) -> Decision:
    """The decision process of a program; ``inputs`` may give a table by its name.

    Raises ``SpecError`` with the place of what is wrong.
    """
    with located(program):
        the_fix(program.graph)
        feeds = _feeds(program, inputs)
        sizes = bind_sizes(program.graph, {name: array.shape for name, array in feeds.items()})
        graph = _shared(program.graph.bind(sizes))
        extracted = extract(graph, feeds, outcomes)
        states = extracted.process.states
        body = extracted.bellman.graph
        shapes = [extracted.bellman.frame.shape(value) for _, value in body.outputs]
        grids = [shape for shape in shapes if prod(shape) == states]
        grid = max(grids, key=len, default=extracted.process.shape)
        return Decision(program, graph, feeds, extracted, grid, _actions(program, extracted))


def solve(
    program: Program,
    inputs: Mapping[str, Any] | None = None,
    *,
    method: str | None = None,
    tol: float | None = None,
    max_steps: int | None = None,
    sweeps: int | None = None,
    evaluation: str | None = None,
    threads: int | None = None,
    policy: np.ndarray | str | os.PathLike[str] | None = None,
    horizon: int | None = None,
    average: bool = False,
) -> Solution:
    """Solve a decision process from its model.

    What is not given is as the spec's ``solve`` section says.

    Parameters
    ----------
    inputs
        Arrays by input name; a table also under its own name, as a file, ``gym:NAME``, an
        environment or ``P[s][a]`` lists of ``(probability, next, reward, done)``.
    method
        One of the methods of the ``solve`` section.
    tol
        The error of the values that is allowed.
    evaluation
        How policy iteration evaluates: ``iterative``, or ``direct`` (needs SciPy).
    policy
        Evaluate this policy instead: probabilities by state and action, or a file of them.
    horizon
        A number of steps after which the process ends.
    average
        Whether the reward a step in the long run counts.

    Raises
    ------
    SpecError
        Where the equations are no decision process, or it has no solution.
    """
    changes = {
        "method": method, "tol": tol, "max_steps": max_steps, "sweeps": sweeps,
        "evaluation": evaluation, "threads": threads,
    }  # fmt: skip
    found = decision(program, inputs or {})
    settings = _settings(found, changes)
    section = program.model.envelope.solve
    if section is not None and policy is None and not average and horizon is None:
        horizon, average = section.horizon, section.average
    with located(program):
        started = perf_counter()
        process, answer, method = _answer(found, settings, policy, horizon, average)
        seconds = perf_counter() - started
        return _solution(found, process, answer, method, settings.tol, seconds)


def _shared(graph: Graph) -> Graph:
    """The graph with equal parts computed once: rules are called from several places."""
    rewriter = Rewriter(graph.copy())
    common_subexpressions(rewriter, Options())
    return rewriter.graph


def _answer(
    found: Decision, settings: Settings, policy: Any, horizon: int | None, average: bool
) -> tuple[Process, Answer, str]:
    process = found.process
    if sum((policy is not None, horizon is not None, average)) > 1:
        message = "a policy, a horizon and the average reward are solved one at a time"
        raise RuntimeFault("E408", message)
    if horizon is not None:
        values, rows = solvers.finite_horizon(process, settings, horizon)
        return process, Answer(values, rows, 0.0, 0.0, horizon), "finite_horizon"
    if average:
        _require_average(found)
        return process, solvers.average_reward(process, settings), "average_reward"
    if policy is not None:
        followed = process.plain.followed(policy_chances(found, policy))
        _require_end(found, followed, settings)
        return process, solvers.evaluate(followed, settings), "policy_evaluation"
    _require_end(found, process, settings)
    return process, solvers.solve(process, settings), settings.method


def _solution(
    found: Decision, process: Process, answer: Answer, method: str, tol: float, seconds: float
) -> Solution:
    timed = answer.values.ndim == 2
    now = answer.values[0] if timed else answer.values
    sweeper = Sweeper(process)
    table = sweeper.action_values(np.ascontiguousarray(now))
    table *= process.sign
    acting = process.counts > 0
    rows = np.minimum(answer.rows, max(len(process.action) - 1, 0))
    policy = np.where(acting, process.action[rows], -1)
    if method == "policy_evaluation":
        best = np.where(np.isnan(table), -np.inf, process.sign * table).argmax(axis=1)
        policy = np.where(acting, best, -1)
    lead = answer.values.shape[:-1]
    gain = answer.gain and process.sign * sum(answer.gain) / 2
    return Solution(
        name=found.program.variant or found.program.name,
        method=method,
        values=(process.sign * answer.values).reshape(*lead, *found.grid),
        action_values=table.reshape(*found.grid, process.actions),
        policy=policy.reshape(*answer.rows.shape[:-1], *found.grid),
        error_bound=answer.error_bound,
        residual=answer.residual,
        steps=answer.steps,
        seconds=seconds,
        states=process.states,
        rows=process.rows,
        entries=process.entries,
        terminal=int((~sweeper.lasting.view(bool)).sum()),
        history=tuple(answer.history),
        actions=found.actions,
        source=found,
        tol=tol,
        gain=gain,
    )


# ---------------------------------------------------------------- settings


def _settings(found: Decision, changes: Mapping[str, Any]) -> Settings:
    """The spec's settings (``solve:`` and those of its ``fix``), then the caller's."""
    node = found.graph.node(found.extracted.fix)
    settings = Settings(
        tol=float(node.attrs["tol"]),  # type: ignore[arg-type]
        max_steps=int(node.attrs["max_steps"]),  # type: ignore[arg-type]
    )
    section = found.program.model.envelope.solve
    if section is not None:
        settings = replace(
            settings,
            method=section.method,
            sweeps=section.sweeps,
            evaluation=section.evaluation,
        )
    given = {name: value for name, value in changes.items() if value is not None}
    method = given.get("method", settings.method)
    if method not in solvers.METHODS:
        message = f"there is no method `{method}`"
        hint = f"one of {', '.join(solvers.METHODS)}"
        raise SpecError([Diagnostic("E408", message, None, hint=hint)], {})
    return replace(settings, **given)


def _feeds(program: Program, inputs: Mapping[str, Any]) -> Arrays:
    """Arrays by input; a table ``P`` is the inputs ``P.probability``, ``P.next`` and so on."""
    wanted = program.inputs
    tables = {name.rpartition(".")[0] for name in wanted if name.rpartition(".")[2] in FIELDS}
    given = dict(inputs)
    for table in sorted(name for name in tables if f"{name}.{FIELDS[0]}" not in given):
        source = given.pop(table, None)
        if source is None:
            source = _data_source(program, table)
        if source is None:
            message = f"the table `{table}` is missing"
            hint = f"give a file or an environment: `--input {table}={GYM}Taxi-v4`"
            raise RuntimeFault("E802", message, hint)
        for name, array in read_table(source).items():
            given[f"{table}.{name}"] = array.astype(DTYPES[wanted[f"{table}.{name}"].dtype])
    return program.checked_inputs(given)


def read_inputs(program: Program, texts: Sequence[str]) -> dict[str, Any]:
    """Inputs from ``NAME=VALUE`` texts; the value of a table stays a text."""
    tables = {name.rpartition(".")[0] for name in program.inputs if "." in name}
    named = {text.partition("=")[0]: text.partition("=")[2] for text in texts}
    rest = [text for text in texts if text.partition("=")[0] not in tables]
    found: dict[str, Any] = program.read_inputs(rest) if rest else {}
    return found | {name: value for name, value in named.items() if name in tables}


def _data_source(program: Program, table: str) -> str | None:
    """Where the spec's ``data`` section says that a table comes from."""
    entry = program.model.envelope.data.get(table)
    if entry is None:
        return None
    if entry.path is not None:
        folder = os.path.dirname(program.model.envelope.document.file)
        return os.path.join(folder, entry.path)
    return entry.source


def _actions(program: Program, extracted: Extracted) -> tuple[str, ...]:
    """The names of the actions, where one index with as many names is declared."""
    count = extracted.process.actions
    rows = [row for row in program.model.statements if isinstance(row, s.Index)]
    named = {row.domain.names for row in rows if isinstance(row.domain, s.NameSet)}
    fitting = [names for names in named if len(names) == count]
    return fitting[0] if len(fitting) == 1 else tuple(map(str, range(count)))


def policy_chances(found: Decision, policy: Any) -> np.ndarray:
    """Chances by row of a policy that is given as a file or an array."""
    return np.ascontiguousarray(found.process.plain.rows_of(_policy_table(found, policy)))


def _policy_table(found: Decision, policy: Any) -> np.ndarray:
    """Probabilities ``[states, actions]`` of a policy that is given as a file or an array."""
    process = found.process
    if isinstance(policy, (str, os.PathLike)):
        policy = array_from_file("policy", os.fspath(policy))
    table: np.ndarray = np.asarray(policy)
    shape = (process.states, process.actions)
    if table.dtype.kind in "iu" and table.size == process.states:
        table = np.equal.outer(table.reshape(-1), np.arange(process.actions)).astype(float)
    if table.size != prod(shape):
        message = f"the policy has the shape {list(np.shape(policy))}"
        hint = f"probabilities {[*found.grid, process.actions]}, or whole numbers {[*found.grid]}"
        raise RuntimeFault("E802", message, hint)
    table = table.astype(float).reshape(shape)
    allowed = process.plain.table(np.ones(process.rows), 0.0) > 0
    acting = process.counts > 0
    bad = np.argwhere(((table < 0) | ((table > 0) & ~allowed)) & np.expand_dims(acting, 1))
    if len(bad):
        state, action = bad[0]
        message = f"the policy takes action {action} in state {found.state(int(state))}"
        raise RuntimeFault("E603", message, "that state has no such action, or it is negative")
    sums = table.sum(axis=1)
    off = np.where(acting, np.abs(sums - 1), 0.0)
    if off.max(initial=0.0) > 1e-6:
        state = int(off.argmax())
        message = f"the policy sums to {sums[state]:.8g} in state {found.state(state)}"
        raise RuntimeFault("E603", message, "probabilities of actions sum to 1")
    return table / np.expand_dims(np.where(acting, sums, 1.0), 1)


# ---------------------------------------------------------------- checks


def _require_end(found: Decision, process: Process, settings: Settings) -> None:
    state = solvers.require_end(Sweeper(process, settings.threads))
    if state is not None:
        raise DecisionFault(
            "E622", "nothing is discounted, and there is no way to an end", found.extracted.span,
            f"from the state {found.state(state)}",
            "discount (`gamma` below 1), or let some next state end: `if s' == goal then 0 else`",
        )  # fmt: skip


def _require_average(found: Decision) -> None:
    least, state = Sweeper(found.process).least_kept()
    if least < 1 - 1e-9:
        raise DecisionFault(
            "E622", "the average reward needs a process that never ends and does not discount",
            found.extracted.span, f"next values count {least:.6g} in {found.state(state)}",
            "solve it with `--set gamma=1`",
        )  # fmt: skip


@contextmanager
def located(program: Program) -> Iterator[None]:
    """Turn faults into a ``SpecError`` with their place in the spec."""
    from .program import located_faults

    try:
        with located_faults(program.sources):
            yield
    except DecisionFault as fault:
        diagnostic = Diagnostic(fault.code, fault.message, fault.span, fault.found, hint=fault.hint)
        raise SpecError([diagnostic], program.sources) from fault
