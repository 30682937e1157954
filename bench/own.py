"""Our own engines: the runnable module, which needs the runtime alone, and the reference."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

from .problem import Arrays, Problem


def write_tilth(problem: Problem, threads: int) -> int:
    """Compile the model to its runnable module, as peers get an ONNX file; its memory's bound.

    Raises ``SpecError`` for what has no kernel.
    """
    from ..compiled import module_source, plan_of

    text = module_source(problem.program, problem.chosen.sizes, threads)
    problem.module(threads).write_text(text, encoding="utf-8")
    return plan_of(text, problem.program.name).memory_bound(threads)


def wake_tilth() -> None:
    """Import the runtime with all its kernels, and link the walkers."""
    from ..runtime import compiled, kernels, walker

    for found in pkgutil.iter_modules(kernels.__path__):
        importlib.import_module(f"{kernels.__name__}.{found.name}")
    _ = compiled
    walker.wake()


def prepare_tilth(problem: Problem, threads: int, setting: str) -> Callable[[], Arrays]:
    """The runnable module with its weights."""
    module, inputs = _module(problem, threads), problem.inputs

    def call() -> Arrays:
        return module.run(inputs)

    return call


def profile_tilth(problem: Problem, threads: int, setting: str) -> list[tuple[str, float]]:
    """Milliseconds of each row of the plan."""
    rows = _module(problem, threads).profile(problem.inputs)
    return [(f"{label} {kernel}", seconds * 1e3) for label, kernel, seconds in rows]


def prepare_reference(problem: Problem, threads: int, setting: str) -> Callable[[], Arrays]:
    """The reference interpreter in the graph's own precision."""
    from ..compiler.interpret import interpret

    graph, weights, inputs = problem.graph, problem.weights, problem.inputs

    def call() -> Arrays:
        return interpret(graph, inputs, weights)

    return call


def _module(problem: Problem, threads: int) -> Any:
    path = problem.module(threads)
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    made = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = made  # where a compiled file looks itself up
    found.loader.exec_module(made)
    return made.load_weights(str(problem.folder / "weights.safetensors"), threads)
