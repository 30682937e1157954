"""The engines that can be measured: our own and its peers, as one table.

``prepare(problem, threads, setting)`` readies an engine and returns a call without arguments: one
inference on the problem's inputs, which gives the outputs by name. Where an engine has several
``settings`` that may be best, each is tried on the problem and the fastest is measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..compiler.interpret import interpret
from . import peak, peers, torch_net
from .problem import Arrays, Problem

Call = Callable[[], Arrays]
Prepare = Callable[[Problem, int, str], Call]
Profile = Callable[[Problem, int, str], list[tuple[str, float]]]


@dataclass(frozen=True)
class Engine:
    """One engine.

    ``package`` must be installed; ``reads_onnx`` says that it needs ``model.onnx``; ``profile``
    gives milliseconds by operation, where the engine can tell.
    """

    name: str
    prepare: Prepare
    settings: tuple[str, ...] = ("",)
    package: str = "numpy"
    reads_onnx: bool = False
    profile: Profile | None = None

    @property
    def installed(self) -> bool:
        """Whether its package is here."""
        return importlib.util.find_spec(self.package) is not None


def prepare_reference(problem: Problem, threads: int, setting: str) -> Call:
    """The reference interpreter in the graph's own precision."""
    graph, weights, inputs = problem.graph, problem.weights, problem.inputs

    def call() -> dict[str, np.ndarray]:
        return interpret(graph, inputs, weights)

    return call


def prepare_tilth(problem: Problem, threads: int, setting: str) -> Call:
    """Our compiled module."""
    from ..compiled import CompiledProgram

    made = CompiledProgram(problem.program, problem.weights, threads)
    module = made.module(problem.program.sizes_of(problem.inputs, problem.weights))
    inputs = problem.inputs

    def call() -> dict[str, np.ndarray]:
        return module.run(inputs)

    return call


def profile_tilth(problem: Problem, threads: int, setting: str) -> list[tuple[str, float]]:
    """Milliseconds of each row of the plan."""
    from ..compiled import CompiledProgram

    made = CompiledProgram(problem.program, problem.weights, threads)
    module = made.module(problem.program.sizes_of(problem.inputs, problem.weights))
    rows = module.profile(problem.inputs)
    return [(f"{label} {kernel}", seconds * 1e3) for label, kernel, seconds in rows]


PEAK = "peak"
"""The engine that only multiplies and adds; what the others reach is a share of it."""

OWN = ("tilth", "reference")
"""Engines of ours, the one that is measured by default first."""

PEERS = ("onnxruntime", "openvino", "torch")

ENGINES = {
    engine.name: engine
    for engine in (
        Engine("peak", peak.prepare_peak),
        Engine("tilth", prepare_tilth, package="numba", profile=profile_tilth),
        Engine("reference", prepare_reference),
        Engine(
            "onnxruntime",
            peers.prepare_onnxruntime,
            package="onnxruntime",
            reads_onnx=True,
            profile=peers.profile_onnxruntime,
        ),
        Engine(
            "openvino",
            peers.prepare_openvino,
            peers.OPENVINO_HINTS,
            package="openvino",
            reads_onnx=True,
            profile=peers.profile_openvino,
        ),
        Engine("torch", torch_net.prepare_torch, torch_net.SETTINGS, package="torch"),
    )
}
