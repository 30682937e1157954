"""One model on several engines: checked first, then measured side by side, as rows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from ..compiler.cost import cost
from ..program import SpecError
from .engines import ENGINES, MEMORY, PEAK
from .peak import bytes_of_copy, flops_of_call
from .problem import Chosen, Problem, relative_error, write_problem
from .profiles import Machine, Profiled
from .runner import Schedule, Spread, fastest, measure, paired_ratio, spread
from .station import EngineFault, Start, Station
from .training import STEP_TOLERANCE, step_error

TOLERANCE = 1e-3
"""An engine further than this from the float64 reference is not timed: it does other work."""

MIB = 2**20
Note = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """What one engine showed; ``None`` for what was not measured.

    ``train`` rows are of whole steps of training: loss, gradients and update.
    ``ratio`` is ``ratio_to_best_peer``: the best peer's time over ours, paired by round (above 1
    we are faster); only on our own row. ``peak_share`` is the part of the machine's multiply-add
    peak that the model's arithmetic took, which an engine that multiplies less may exceed.
    """

    model: str
    batch: int
    threads: int
    engine: str
    setting: str = ""
    ms: Spread | None = None
    peak_mb: float | None = None
    bound_mb: float | None = None
    cold_s: float | None = None
    warm_s: float | None = None
    max_rel_err: float | None = None
    ratio: Spread | None = None
    peak_share: float | None = None
    rounds: int = 0
    note: str = ""
    train: bool = False
    profile: tuple[Profiled, ...] = field(default=(), repr=False)
    machine: Machine | None = field(default=None, repr=False)

    @property
    def agrees(self) -> bool:
        """Whether the engine ran and gave the reference's outputs."""
        return not self.note

    def as_json(self) -> dict[str, Any]:
        """The row of ``tilth bench --json``: plain, rounded numbers."""
        ms, ratio = self.ms, self.ratio
        return {
            "model": self.model,
            "batch": self.batch,
            "threads": self.threads,
            "engine": self.engine,
            "median_ms": _rounded(ms and ms.median),
            "peak_mb": _rounded(self.peak_mb),
            "cold_s": _rounded(self.cold_s),
            "warm_s": _rounded(self.warm_s),
            "max_rel_err": _rounded(self.max_rel_err),
            "ratio_to_best_peer": _rounded(ratio and ratio.median),
            **({"train": True} if self.train else {}),
        }

    def as_record(self) -> dict[str, Any]:
        """The row with all that is kept of it: spreads, shares, settings, the profile."""
        return {
            **self.as_json(),
            "quartiles_ms": _ends(self.ms),
            "ratio_quartiles": _ends(self.ratio),
            "memory_bound_mb": _rounded(self.bound_mb),
            "peak_share": _rounded(self.peak_share),
            "rounds": self.rounds,
            "setting": self.setting,
            "note": self.note,
            "profile": [
                {"op": op.name, "ms": _rounded(op.ms), "flops": op.flops, "bytes": op.moved}
                for op in self.profile
            ],
        }


def compare(
    chosen: Chosen,
    label: str,
    engines: Sequence[str],
    own: str,
    threads: Sequence[int],
    schedule: Schedule,
    note: Note,
    profile: bool = False,
) -> Iterator[list[Row]]:
    """Rows of one model at one batch, a list for each number of threads.

    Raises ``OpError`` when the problem cannot be made; a fault of one engine is a note in its row.
    """
    names = [own, *(name for name in engines if name != own)]
    with _folder() as folder:
        note(f"{label}: reference outputs in float64")
        problem = write_problem(folder, chosen, any(ENGINES[n].reads_onnx for n in names))
        macs = cost(problem.step.graph if chosen.train else problem.graph).macs
        for count in threads:
            note(f"{label}: {count} threads")
            batch, train = chosen.sizes.get("N", 1), chosen.train
            rows = [Row(label, batch, count, name, train=train) for name in names]
            flops = 2 * macs if isinstance(macs, int) else None
            yield _measured(problem, rows, own, schedule, flops, profile)


# ---------------------------------------------------------------- helpers


def _measured(
    problem: Problem, rows: list[Row], own: str, schedule: Schedule, flops: int | None,
    profile: bool,
) -> list[Row]:  # fmt: skip
    """Rows filled in: starts and errors of each engine alone, then times in turns."""
    with ExitStack() as stack:
        stations: dict[str, Station] = {}
        started = [_started(problem, row, schedule, stack, stations) for row in rows]
        profiles = {n: s.profile() for n, s in stations.items()} if profile else {}
        threads = rows[0].threads
        copied = _memory_rate(problem, threads) if profile else None
        stations[PEAK] = stack.enter_context(Station(problem, PEAK, "", threads))
        taken = measure({name: station.turn for name, station in stations.items()}, schedule)
    peak = taken.pop(PEAK)
    most = [flops_of_call(threads) / seconds for seconds in peak]
    filled = [_timed(row, taken, own, profiles) for row in started]
    if copied is not None:
        filled = [replace(row, machine=Machine(median(most), copied)) for row in filled]
    return filled if flops is None else [_shared(row, taken, flops, most) for row in filled]


def _memory_rate(problem: Problem, threads: int) -> float:
    """Bytes a second that copies move."""
    with Station(problem, MEMORY, "", threads) as station:
        return bytes_of_copy() / median(station.turn(7))


def _started(
    problem: Problem, row: Row, schedule: Schedule, stack: ExitStack, stations: dict[str, Station]
) -> Row:
    """Start one engine cold, then warm; it joins ``stations`` when its outputs are right."""
    cache = problem.folder / f"cache-{row.engine}"
    shutil.rmtree(cache, ignore_errors=True)
    write = ENGINES[row.engine].write
    try:
        if write is not None:
            row = replace(row, bound_mb=write(problem, row.threads) / MIB)
        setting = _best_setting(problem, row, schedule)
        with Station(problem, row.engine, setting, row.threads, cache) as cold:
            cold_s = cold.start.first_s
        warm = Station(problem, row.engine, setting, row.threads, cache)
    except EngineFault as fault:
        return replace(row, note=str(fault))
    except SpecError as fault:
        return replace(row, note=fault.diagnostics[0].message)
    stack.enter_context(warm)
    measure, most = (step_error, STEP_TOLERANCE) if row.train else (relative_error, TOLERANCE)
    error = measure(warm.outputs, problem.reference)
    if error <= most:
        stations[row.engine] = warm
    said = "" if error <= most else f"not timed: its outputs are off by {error:.1e}"
    seen = _seen(warm.start)
    return replace(row, setting=setting, cold_s=cold_s, max_rel_err=error, note=said, **seen)


def _seen(start: Start) -> dict[str, Any]:
    peak_mb = None if start.peak is None else start.peak / MIB
    return {"warm_s": start.first_s, "peak_mb": peak_mb}


def _best_setting(problem: Problem, row: Row, schedule: Schedule) -> str:
    """The engine's fastest setting here; one that fails is passed over unless all do."""
    engine = ENGINES[row.engine]
    settings = engine.training if problem.chosen.train else engine.settings
    if len(settings) == 1:
        return settings[0]
    with ExitStack() as stack:
        ready: dict[str, Station] = {}
        faults: list[EngineFault] = []
        for setting in settings:
            cache = problem.folder / "cache-trial"
            try:
                station = Station(problem, row.engine, setting, row.threads, cache)
            except EngineFault as fault:
                faults.append(fault)
                continue
            ready[setting] = stack.enter_context(station)
        if not ready:
            raise faults[0]
        return fastest({name: station.turn for name, station in ready.items()}, schedule)


def _timed(
    row: Row,
    taken: Mapping[str, list[float]],
    own: str,
    profiles: Mapping[str, list[Profiled]],
) -> Row:
    """The row with its times, and on our own the ratio to the fastest peer."""
    if row.engine not in taken:
        return row
    seconds = taken[row.engine]
    others = [name for name in taken if name != own]
    ratio = None
    if row.engine == own and others:
        best = min(others, key=lambda name: median(taken[name]))
        ratio = paired_ratio(seconds, taken[best])
    profile = tuple(profiles.get(row.engine, ()))
    ms = spread(seconds).scaled(1e3)
    return replace(row, ms=ms, rounds=len(seconds), ratio=ratio, profile=profile)


def _shared(row: Row, taken: Mapping[str, list[float]], flops: int, most: Sequence[float]) -> Row:
    """The row with its share of what the machine could do in the same rounds."""
    if row.engine not in taken:
        return row
    pairs = zip(taken[row.engine], most, strict=True)
    return replace(row, peak_share=median(flops / seconds / peak for seconds, peak in pairs))


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tilth-bench-") as name:
        yield Path(name)


def _ends(values: Spread | None) -> list[float | None] | None:
    return None if values is None else [_rounded(values.low), _rounded(values.high)]


def _rounded(value: float | None) -> float | None:
    """Four significant digits; an infinite error is no number in JSON."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.4g}")
