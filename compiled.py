"""Compiled programs: a spec specialised to input shapes, as readable text and as a module."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .compiler import pipeline
from .compiler.cost import cost
from .compiler.inference.expand import expand
from .compiler.ir.graph import Graph
from .compiler.options import Options
from .given_weights import wanted_weights, weight_rules
from .program import Program, load, located_faults

KEPT = 8
"""Specialisations that a compiled program keeps; the one not used for longest goes."""


def module_source(
    program: Program,
    sizes: Mapping[str, int],
    threads: int | None = None,
    precise: bool = False,
    weights: str | None = None,
) -> str:
    """The runnable module of a program at given sizes, as the text of one Python file.

    Raises
    ------
    SpecError
        E805 when a size is missing, E804 for what has no kernel yet.
    """
    from .compiler.lower.source import module_text

    title = program.model.envelope.title or program.name
    plan, _ = lowered(program, sizes, threads, precise)
    with located_faults(program.sources):
        wanted, rules = wanted_weights(program, sizes), weight_rules(program, sizes)
    kinds = {path: (str(want.dtype), want.shape) for path, want in wanted.items()}
    return module_text(plan, title, weights, kinds, rules)


def lowered(
    program: Program, sizes: Mapping[str, int], threads: int | None = None, precise: bool = False
) -> tuple[Any, Graph]:
    """The lowered plan of a program at given sizes, and the fused graph that it computes.

    Raises ``SpecError`` as :func:`module_source` does.
    """
    with located_faults(program.sources):
        program.require_runnable()
        return lowered_graph(bound_graph(program, sizes), threads, Options(precise=precise))


def lowered_graph(graph: Graph, threads: int | None, options: Options) -> tuple[Any, Graph]:
    """As :func:`lowered`, of a graph whose sizes are all known; raises :class:`OpError` E804."""
    from .compiler.lower.cpu import lower
    from .compiler.lower.target import Target
    from .runtime import machine
    from .runtime.simd import lanes

    asked = threads or machine.cores()
    fused = pipeline.run(graph, replace(options, threads=asked)).graph
    alone = 1 if _is_tiny(fused) else None
    target = Target(lanes(), alone or asked, *machine.cache_sizes(), precise=options.precise)
    return replace(lower(fused, target), team=alone), fused


TINY = 1_000_000
"""Multiply-accumulates, or bytes moved, up to which waking a second thread takes longer than it
saves: some ten microseconds against half of twenty."""


def _is_tiny(graph: Graph) -> bool:
    total = cost(graph)
    sizes = (total.macs, total.moved_bytes)
    return not total.open_loops and all(isinstance(n, int) and n <= TINY for n in sizes)


def graph_source(graph: Graph, title: str, threads: int | None, options: Options) -> str:
    """The runnable module of a graph whose sizes are all known; raises :class:`OpError` E804."""
    from .compiler.lower.source import module_text

    return module_text(lowered_graph(graph, threads, options)[0], title)


@dataclass(frozen=True)
class PlanKernel:
    """A kernel of a plan, how many rows call it, and its Python source."""

    name: str
    rows: int
    source: str

    def machine_code(self) -> tuple[str, str]:
        """LLVM IR and assembler, compiled for this machine here and now."""
        from .runtime import kernel_cache

        made = kernel_cache.compiled(kernel_cache.key_of(self.name, self.source), self.source)
        return made.inspect_llvm(), made._library.get_asm_str()


def plan_kernels(
    program: Program, sizes: Mapping[str, int], precise: bool = False
) -> tuple[PlanKernel, ...]:
    """The kernels of a program's plan, those of the first rows first."""
    plan = plan_of(module_source(program, sizes, precise=precise), program.name)
    specs = [row.kernel for row in plan.rows if row.kernel is not None]
    counts = Counter(spec.name for spec in specs)
    named = {spec.name: spec for spec in specs}
    return tuple(PlanKernel(name, counts[name], spec.source()) for name, spec in named.items())


def bound_graph(program: Program, sizes: Mapping[str, int]) -> Graph:
    """The program's graph with every size a number, and questions to its model answered."""
    program.require_sizes(sizes)
    graph = program.graph.bind(sizes)
    return expand(graph) if graph.of_op("site", "factor") else graph


@dataclass
class CompiledProgram:
    """A program that compiles itself for each input shape it meets.

    Callable from several threads at once. ``weights`` are arrays by path.
    """

    program: Program
    weights: Mapping[str, np.ndarray]
    threads: int | None = None
    precise: bool = False
    _modules: OrderedDict[tuple[Any, ...], Any] = field(default_factory=OrderedDict, repr=False)
    _known: dict[Any, dict[str, int]] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def __call__(self, **inputs: Any) -> Any:
        """Run on arrays by input name; one array, or a dictionary of several outputs."""
        results = self.run(inputs)
        return next(iter(results.values())) if len(results) == 1 else results

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run on arrays by input name; outputs by name."""
        with located_faults(self.program.sources):
            arrays = {name: np.asarray(array) for name, array in inputs.items()}
            return self.module(self._sizes_of(arrays)).run(arrays)

    def _sizes_of(self, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        """The open sizes; worked out once for each set of shapes, since it takes milliseconds."""
        shapes = tuple((name, array.shape) for name, array in arrays.items())
        sizes = self._known.get(shapes)
        if sizes is None:
            sizes = self.program.sizes_of(arrays, self.weights)
            with self._lock:
                if len(self._known) >= KEPT:
                    self._known.clear()
                self._known[shapes] = sizes
        return sizes

    def module(self, sizes: Mapping[str, int]) -> Any:
        """The module for these sizes, compiled on first use."""
        from .runtime.module import Module

        key = tuple(sorted(sizes.items()))
        with self._lock:
            if key not in self._modules:
                text = module_source(self.program, sizes, self.threads, self.precise)
                plan = plan_of(text, self.program.name)
                self._modules[key] = Module(plan, self.weights, self.threads)
                if len(self._modules) > KEPT:
                    self._modules.popitem(last=False)
            self._modules.move_to_end(key)
            return self._modules[key]


def plan_of(text: str, name: str) -> Any:
    """The plan of a compiled file's text (our own, made by :func:`module_source`)."""
    space: dict[str, Any] = {"__name__": f"tilth_compiled.{name}"}
    exec(compile(text, f"<compiled {name}>", "exec"), space)
    return space["plan"]


def compile_program(
    spec: str | Program,
    *,
    weights: Any = None,
    set: Mapping[str, Any] | Sequence[str] = (),
    variant: str | None = None,
    seed: int = 0,
    threads: int | None = None,
    precise: bool = False,
) -> CompiledProgram:
    """Compile a spec for this machine's CPU; ``tilth.compile`` in Python.

    Parameters
    ----------
    spec
        A path, a name from the zoo, or a loaded program.
    weights
        A ``.safetensors`` or ``.npz`` file or arrays by path; the spec's initialisers with
        ``seed`` without it.
    threads
        Threads a call may use; all of the machine's by default.
    precise
        No Winograd and no reassociation.
    """
    program = spec if isinstance(spec, Program) else load(spec, set=set, variant=variant)
    with located_faults(program.sources):
        return CompiledProgram(program, program.weights_for(weights, seed), threads, precise)


def write_module(
    program: Program, path: Path, sizes: Mapping[str, int], threads: int | None, precise: bool,
    weights: str | None,
) -> str:  # fmt: skip
    """Write the runnable module to a file; its text."""
    text = module_source(program, sizes, threads, precise, weights)
    path.write_text(text, encoding="utf-8")
    return text
