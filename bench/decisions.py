"""Decision processes against QuantEcon: the same process, the same accuracy, turn by turn.

Both sides compute in float64 from sparse rows of state-action pairs, to the same error of the
values; results are compared before anything is timed.
"""

# The package is an extra, and absent where only the default ones are installed.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from ..decide import decision
from ..program import Program
from ..runtime.decide import solvers
from ..runtime.decide.process import Process
from ..runtime.decide.solvers import Settings
from ..runtime.decide.sweeps import Sweeper
from ..runtime.faults import RuntimeFault
from .deciding import measure_alone
from .kind import Measured, Request

METHODS = ("value_iteration", "modified_policy_iteration", "policy_iteration")
EXTRA = "pip install 'tilth[solve]' quantecon"
MOST_SWEEPS = 100_000
FACTORISED = 2_000
"""States up to which policy iteration is compared: QuantEcon factorises I - P, which fills in."""


@dataclass(frozen=True)
class DecisionRow:
    """One method side by side: median milliseconds, how many times faster ours is, the check.

    ``max_difference`` is the largest difference of the two sides' values, ``tol`` the error that
    either may have; ``pairs`` are of state and action, ``entries`` their next states; ``steps``
    are the sweeps (or improvements) of each.
    """

    model: str
    method: str
    tol: float
    threads: int
    states: int
    pairs: int
    entries: int
    ms: float
    quantecon_ms: float
    ratio: float
    max_difference: float
    steps: int
    quantecon_steps: int
    agrees: bool

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    as_record = as_json

    def __str__(self) -> str:
        """A line for people."""
        return (
            f"{self.model}, {self.method}, {self.threads} threads: {self.ms:.2f} ms,"
            f" quantecon {self.quantecon_ms:.2f} ms, {self.ratio:.2f} times faster,"
            f" difference {self.max_difference:.1e}"
        )


def is_decision(program: Program) -> bool:
    """Whether a program is a decision process rather than a net."""
    return bool(program.graph.of_op("fix"))


def measure(program: Program, request: Request) -> Iterator[Sequence[Measured]]:
    """Rows of a process, a list for each number of threads; without QuantEcon, ours alone."""
    if request.peers == () or (request.peers is None and not find_spec("quantecon")):
        yield from measure_alone(program, request)
        return
    for threads in request.threads:
        yield compare_decisions(program, request.rounds, threads)


def compare_decisions(
    program: Program, rounds: int, threads: int, tol: float | None = None
) -> list[DecisionRow]:
    """Measure every method; a row a method."""
    try:
        import quantecon
    except ImportError as missing:
        raise RuntimeFault("E804", "`quantecon` is not installed", EXTRA) from missing
    found = decision(program, {})
    node = found.graph.node(found.extracted.fix)
    tol = tol or float(node.attrs["tol"])  # type: ignore[arg-type]
    process = found.process.plain
    peer = _peer(quantecon, process)
    name = program.variant or program.name
    methods = METHODS if process.states <= FACTORISED else METHODS[:2]
    return [_row(name, method, process, peer, tol, threads, rounds) for method in methods]


def _row(
    name: str,
    method: str,
    process: Process,
    peer: Any,
    tol: float,
    threads: int,
    rounds: int,
) -> DecisionRow:
    settings = Settings(method, tol=tol, threads=threads)
    short = {"value_iteration": "vi", "modified_policy_iteration": "mpi", "policy_iteration": "pi"}

    def ours() -> Any:
        return solvers.solve(process, settings)

    def theirs() -> Any:
        # Their epsilon bounds the policy's value: half of it on either side of the optimum.
        return peer.solve(method=short[method], epsilon=2 * tol, max_iter=MOST_SWEEPS)

    mine, other = ours(), theirs()
    difference = float(np.abs(mine.values - other.v).max())
    times = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    here, there = (median(column) * 1e3 for column in zip(*times, strict=True))
    return DecisionRow(
        model=name,
        method=method,
        tol=tol,
        threads=threads,
        states=process.states,
        pairs=process.rows,
        entries=process.entries,
        ms=here,
        quantecon_ms=there,
        ratio=median(b / a for a, b in times),
        max_difference=difference,
        steps=mine.steps,
        quantecon_steps=int(other.num_iter),
        agrees=difference <= 4 * tol,
    )


def _seconds(call: Callable[[], Any]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def _peer(quantecon: Any, process: Process) -> Any:
    """QuantEcon's problem in its own sparse form of state-action pairs."""
    from scipy import sparse

    low, discount = Sweeper(process).discounts
    if discount - low > 1e-9 or (np.diff(process.first) == 0).any() or discount >= 1:
        message = "QuantEcon needs one discount below 1 and no end"
        raise RuntimeFault("E408", message, "measure a process such as `garnet`")
    shape = (process.rows, process.states)
    # Summing duplicates sorts in place: the copy keeps our own rows as they are.
    parts = (process.weight / discount, process.next, process.start)
    moves = sparse.csr_matrix(parts, shape, copy=True)
    moves.sum_duplicates()
    actions = process.action.astype(np.int64)
    states = process.state_of_row
    return quantecon.markov.DiscreteDP(process.reward, moves, discount, states, actions)
