"""A compiled module: packed weights, a plan, and calls that share nothing but those.

Each call takes an arena and scratch from a pool, fills in the addresses of its rows and walks the
plan; so one module may be called from several Python threads at once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, product
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .abi import HEADER, LOOP_END, SPACES, Address, Step
from .faults import RuntimeFault
from .inputs import Declared, check_input
from .machine import give_back_memory
from .memory import address, aligned
from .row_wise import Sources
from .weights import Piece

if TYPE_CHECKING:
    from .walker import Walk

IO = SPACES.index("io")
"""Bases from this on are inputs and outputs, whose memory is another at every call."""


class KernelSpec(Protocol):
    """What a row of a plan says about its kernel (see ``runtime/kernels``)."""

    @property
    def name(self) -> str:
        """A readable name."""
        ...

    def source(self) -> str:
        """The Python source that defines ``kernel(row, task, slot)``."""
        ...


@dataclass(frozen=True)
class Port:
    """An input or output of a module."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One step: the kernel, how many tasks, its words, and a label; no kernel ends a loop."""

    kernel: KernelSpec | None
    step: Step


@dataclass(frozen=True)
class Check:
    """A fault that kernels report: the call's cell ``cell`` is not 0 when it ends."""

    cell: int
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything a module is, apart from its weights.

    ``load`` yields packed arrays by name from weights by name, whole or as consecutive pieces;
    ``packed`` gives each packed array's place in the weights' memory. ``live_bytes`` is the most
    that values of one call need at one time; the arena, which holds them, is little larger.
    ``wanted`` are element types and shapes by weight path, ``rules`` how checkpoints name them.
    ``cells`` counts the int64 that a call starts with at 0; ``team`` is the most threads that pay.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    rows: tuple[Row, ...]
    arena_bytes: int
    scratch_bytes: int
    load: Callable[[Any], Iterable[tuple[str, np.ndarray | Iterable[np.ndarray]]]]
    packed: Mapping[str, int]
    weight_bytes: int
    cells: int = 0
    checks: tuple[Check, ...] = ()
    live_bytes: int = 0
    wanted: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    rules: Mapping[str, Sequence[Piece]] = field(default_factory=dict)
    team: int | None = None

    def memory_bound(self, threads: int) -> int:
        """Bytes that a process should need for the module, beyond what it needs without one.

        The packed weights, and 1.25 times the most that one call holds at a time: values that are
        alive, its threads' scratch, its inputs and outputs.
        """
        ports = sum(
            np.dtype(port.dtype).itemsize * math.prod(port.shape)
            for port in (*self.inputs, *self.outputs)
        )
        held = self.live_bytes + threads * self.scratch_bytes + ports
        return self.weight_bytes + held + held // 4


@dataclass
class _Frame:
    """Memory of one call in flight, and the plan's rows on it."""

    arena: np.ndarray
    scratch: np.ndarray
    cells: np.ndarray
    walk: Walk


@dataclass
class Module:
    """A plan with weights, ready to be called.

    Parameters
    ----------
    plan
        The plan.
    weights
        Parameters by name (float32), as a checkpoint holds them.
    threads
        Threads a call may use; ``None`` takes all the machine's.
    """

    plan: Plan
    weights: Mapping[str, np.ndarray]
    threads: int | None = None
    _pool: list[_Frame] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        from . import kernel_cache, walker
        from .machine import cores

        wanted = self.threads or cores()
        self.threads = min(wanted, self.plan.team or wanted)
        self._lock = threading.Lock()
        self._in_flight = 0
        specs = [row.kernel for row in self.plan.rows if row.kernel is not None]
        found = iter(kernel_cache.kernels(specs, [walker.job(self.threads > 1)]))
        self._kernels = [None if row.kernel is None else next(found) for row in self.plan.rows]
        self._loops = sum(row.kernel is None for row in self.plan.rows)
        self._packed = self._pack(self.weights, aligned(self.plan.weight_bytes))
        give_back_memory()
        self.weights = {}
        self._template()

    # ------------------------------------------------------------ preparing

    def reload(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take other weights, as training does at every step; not while a call is in flight."""
        self._pack(weights, self._packed)

    def _pack(self, weights: Mapping[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        """Every packed array in its place, the weights read once and not kept."""
        sources = Sources(weights)
        for name, packed in self.plan.load(sources):
            start = self.plan.packed[name]
            for piece in (packed,) if isinstance(packed, np.ndarray) else packed:
                flat = np.ascontiguousarray(piece).view(np.uint8).reshape(-1)
                memory[start : start + flat.nbytes] = flat
                start += flat.nbytes
                sources.release()
        return memory

    def _template(self) -> None:
        """Rows with offsets filled in, and which base each word is relative to."""
        flat: list[int] = []
        bases: list[int] = []
        sizes = [HEADER + len(row.step.words) for row in self.plan.rows]
        starts = [0, *accumulate(sizes)][:-1]
        for row, kernel in zip(self.plan.rows, self._kernels, strict=True):
            flat += [LOOP_END, LOOP_END] if kernel is None else [kernel.address, row.step.tasks]
            bases += [0, 0]
            for word in row.step.words:
                if not isinstance(word, Address):
                    flat.append(word)
                    bases.append(0)
                    continue
                in_rows = word.space == "rows"
                step = starts[word.index] + HEADER if in_rows else 0
                flat.append((step + word.offset) * 8 if in_rows else word.offset)
                bases.append(SPACES.index(word.space) + word.index * (word.space == "io"))
        self._flat = np.array(flat, np.int64)
        self._bases = np.array(bases, np.int64)
        self._starts = np.array(starts, np.int64)
        places = np.flatnonzero(self._bases >= IO)
        self._open = np.stack([places, self._bases[places] - IO], axis=1)
        self._kinds = {port.name: np.dtype(port.dtype) for port in self.plan.inputs}
        self._made = [np.dtype(port.dtype) for port in self.plan.outputs]

    def _take(self) -> _Frame:
        """A frame that no call uses."""
        with self._lock:
            if self._pool:
                return self._pool.pop()
        return self._frame()

    def _frame(self) -> _Frame:
        from .walker import Filling, Walk

        threads = self.threads or 1
        arena = aligned(self.plan.arena_bytes)
        scratch = aligned(self.plan.scratch_bytes * threads)
        cells = np.zeros(max(1, self.plan.cells), np.int64)
        rows = np.empty_like(self._flat)
        bases = [0, *map(address, (arena, self._packed, scratch, cells, rows))]
        known = np.append(np.array(bases, np.int64), 0)[np.minimum(self._bases, IO)]
        ports = len(self.plan.inputs) + len(self.plan.outputs)
        filling = Filling(self._flat + known, ports, self._open, cells)
        walk = Walk(rows, self._starts, threads, self._loops, filling)
        return _Frame(arena, scratch, cells, walk)

    # ------------------------------------------------------------ calling

    def __call__(self, **inputs: Any) -> Any:
        """Run on arrays by input name; one array, or a dictionary of several outputs."""
        results = self.run(inputs)
        return next(iter(results.values())) if len(results) == 1 else results

    def run(
        self, inputs: Mapping[str, Any], into: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Run on arrays by input name; outputs by name.

        ``into`` are arrays, by output, that may be overwritten: an output is put there where it
        fits, else in a new array. They must share no memory with the inputs.
        """
        arrays = [self._input(port, inputs) for port in self.plan.inputs]
        if len(inputs) > len(arrays):
            self._unknown(inputs)
        results = self._results(into or {})
        frame = self._take()
        with self._lock:
            team = self.threads if self._in_flight == 0 else 1
            self._in_flight += 1
        try:
            frame.walk.run([*arrays, *results], team)
            self._check(frame.cells)
        finally:
            with self._lock:
                self._in_flight -= 1
                self._pool.append(frame)
        return {port.name: a for port, a in zip(self.plan.outputs, results, strict=True)}

    def profile(self, inputs: Mapping[str, Any], rounds: int = 20) -> list[tuple[str, str, float]]:
        """``(label, kernel, seconds)`` of each row: medians, rows walked one at a time.

        Rows in loops run once, as in the first turn, and ends of loops are left out.
        """
        arrays = [self._input(port, inputs) for port in self.plan.inputs]
        arrays += self._results({})
        times = np.zeros((rounds, len(self._starts)))
        frame = self._take()
        try:
            for turn, (place, row) in product(range(rounds), enumerate(self.plan.rows)):
                if row.kernel is not None:
                    start = perf_counter()
                    frame.walk.run_row(place, arrays)
                    times[turn, place] = perf_counter() - start
        finally:
            self._pool.append(frame)
        medians = np.median(times, axis=0)
        rows = zip(self.plan.rows, medians, strict=True)
        return [
            (row.step.label, row.kernel.name, float(seconds))
            for row, seconds in rows
            if row.kernel is not None
        ]

    def _results(self, into: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Arrays for the outputs: those given where they fit, else new ones."""
        found = []
        for port, kind in zip(self.plan.outputs, self._made, strict=True):
            given = into.get(port.name)
            fits = given is not None and given.shape == port.shape and given.dtype == kind
            if given is not None and fits and given.flags.c_contiguous and given.flags.writeable:
                found.append(given)
            else:
                found.append(np.empty(port.shape, kind))
        return found

    def _check(self, cells: np.ndarray) -> None:
        for check in self.plan.checks:
            if cells[check.cell]:
                raise RuntimeFault(check.code, check.message, check.hint or None)

    def _input(self, port: Port, inputs: Mapping[str, Any]) -> np.ndarray:
        if port.name not in inputs:
            names = ", ".join(p.name for p in self.plan.inputs)
            raise RuntimeFault("E802", f"input `{port.name}` is missing", f"inputs: {names}")
        array, kind = np.asarray(inputs[port.name]), self._kinds[port.name]
        if array.shape != port.shape or array.dtype != kind:
            array = check_input(port.name, array, Declared(kind, port.shape))
        return np.ascontiguousarray(array)

    def _unknown(self, inputs: Mapping[str, Any]) -> None:
        known = [port.name for port in self.plan.inputs]
        for name in inputs:
            if name not in known:
                raise RuntimeFault(
                    "E802", f"there is no input `{name}`", f"inputs: {', '.join(known)}"
                )
