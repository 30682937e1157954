"""Our own engines: the runnable module, which needs the runtime alone, and the reference."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .problem import Arrays, Problem
from .profiles import Profiled
from .training import compared, first_state, prepare_step, step_inputs, step_source


def write_tilth(problem: Problem, threads: int) -> int:
    """Compile the model to its runnable module, as peers get an ONNX file; its memory's bound.

    Beside it goes what each row of its plan belongs to: an op, its arithmetic, its bytes.
    Raises ``SpecError`` for what has no kernel.
    """
    from ..compiled import lowered, module_source, plan_of

    program, sizes = problem.program, problem.chosen.sizes
    path = problem.module(threads)
    if problem.chosen.train:
        text, parts = step_source(problem.step, f"A step of training {program.name}", threads)
        path.write_text(text, encoding="utf-8")
        path.with_suffix(".json").write_text(json.dumps(_owners(*parts)))
        return plan_of(text, program.name).memory_bound(threads)
    text = module_source(program, sizes, threads)
    path.write_text(text, encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(_owners(*lowered(program, sizes, threads))))
    return plan_of(text, program.name).memory_bound(threads)


def _owners(plan: Any, graph: Any) -> list[list[Any]]:
    """``[path, op, flops, bytes, turns]`` of each kernel row: of all turns of the loops around it.

    ``path`` are those loops and the node; flops and bytes are ``None`` where they are not known.
    """
    from ..compiler.cost import cost

    whole = cost(graph)
    owners = [*plan.owners, *[()] * (len(plan.rows) - len(plan.owners))]
    return [
        [owner, *_known(whole, owner)]
        for owner, row in zip(owners, plan.rows, strict=True)
        if row.kernel is not None
    ]


def _known(whole: Any, path: tuple[int, ...]) -> list[Any]:
    """``[op, flops, bytes, turns]`` of a node; turns count as one where data decides."""
    from ..compiler.ops.control import LOOPS

    if not path:
        return ["output", 0, None, 1]
    turns, known, body = 1, True, whole
    *loops, index = path
    for loop in loops:
        row = next(row for row in body.rows if row.index == loop)
        known = known and row.repeats is not None
        turns, body = turns * (row.repeats or 1), row.bodies[0]
    own = next(row for row in body.rows if row.index == index)
    if own.op in LOOPS or not known:
        return [own.op, None, None, turns]
    return [own.op, 2 * own.macs * turns, own.moved_bytes * turns, turns]


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
    if problem.chosen.train:
        return prepare_step(module, problem.step, problem.weights, inputs)

    def call() -> Arrays:
        return module.run(inputs)

    return call


def profile_tilth(problem: Problem, threads: int, setting: str) -> list[Profiled]:
    """Each op of the plan, its rows added up, in the order in which they run."""
    module, inputs = _module(problem, threads), problem.inputs
    rows = module.profile(_given(problem, module, inputs) if problem.chosen.train else inputs)
    owners = json.loads(problem.module(threads).with_suffix(".json").read_text())
    found: dict[tuple[int, ...], list[Profiled]] = {}
    for (label, kernel, seconds), (path, op, flops, moved, turns) in zip(rows, owners, strict=True):
        row = Profiled(f"{label or op} ({kernel})", seconds * 1e3 * turns, flops, moved)
        found.setdefault(tuple(path), []).append(row)
    return [_joined(parts) for parts in found.values()]


def _given(problem: Problem, module: Any, inputs: Arrays) -> Arrays:
    """All that the first step reads."""
    from ..steps import WEIGHT

    state = first_state(problem.step, problem.weights)
    known = step_inputs(problem.step, state, inputs)
    known |= {f"{WEIGHT}{path}": array for path, array in state.weights.items()}
    return {port.name: known[port.name] for port in module.plan.inputs}


def _joined(parts: list[Profiled]) -> Profiled:
    """The rows of one op; the longest names it, since layouts are often changed around it."""
    longest = max(parts, key=lambda row: row.ms)
    return replace(longest, ms=sum(row.ms for row in parts))


def prepare_reference(problem: Problem, threads: int, setting: str) -> Callable[[], Arrays]:
    """The reference interpreter in the graph's own precision."""
    from ..compiler.interpret import interpret

    if problem.chosen.train:
        step, known = problem.step, first_state(problem.step, problem.weights)
        given = step_inputs(step, known, problem.inputs)
        return lambda: compared(step, interpret(step.graph, given, problem.weights))
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
    if problem.chosen.train:
        from ..runtime.module import Module

        return Module(made.plan, {}, threads)  # a step is given its weights at every call
    return made.load_weights(str(problem.folder / "weights.safetensors"), threads)
