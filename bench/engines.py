"""The engines that can be measured: our own and its peers, as one table.

``prepare(problem, threads, setting)`` readies an engine and returns a call without arguments: one
inference on the problem's inputs, which gives the outputs by name. Where an engine has several
``settings`` that may be best, each is tried on the problem and the fastest is measured.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .problem import Arrays, Problem
from .profiles import Profiled

Call = Callable[[], Arrays]
Prepare = Callable[[Problem, int, str], Call]
Profile = Callable[[Problem, int, str], list[Profiled]]


@dataclass(frozen=True)
class Engine:
    """One engine.

    ``training`` are the settings of steps of training, none where the engine does not train.
    ``package`` must be installed. ``write`` makes the file that the engine reads, before its
    process starts, and gives the bytes of memory that it should need; ``reads_onnx`` says that it
    is ``model.onnx``. ``profile`` tells where its time goes, if it can.
    ``wake`` imports all that the engine needs whatever the model: a bare process, beyond which its
    memory is counted.
    """

    name: str
    prepare: Prepare
    settings: tuple[str, ...] = ("",)
    training: tuple[str, ...] = ()
    package: str = "numpy"
    reads_onnx: bool = False
    write: Callable[[Problem, int], int] | None = None
    profile: Profile | None = None
    wake: Callable[[], Any] = lambda: None

    @property
    def installed(self) -> bool:
        """Whether its package is here."""
        return importlib.util.find_spec(self.package) is not None


def late(module: str, name: str) -> Callable[..., Any]:
    """A function of another module here; it is imported when the function is called.

    So the process of one engine is not charged for what the others import.
    """

    def call(*args: Any) -> Any:
        return getattr(importlib.import_module(f".{module}", __package__), name)(*args)

    return call


def package(name: str) -> Callable[[], Any]:
    """What imports a package."""
    return lambda: importlib.import_module(name)


PEAK = "peak"
"""The engine that only multiplies and adds; what the others reach is a share of it."""

MEMORY = "memory"
"""The engine that only copies memory."""

OWN = ("tilth", "reference")
"""Engines of ours, the one that is measured by default first."""

PEERS = ("onnxruntime", "openvino", "torch")

ENGINES = {
    engine.name: engine
    for engine in (
        Engine(PEAK, late("peak", "prepare_peak")),
        Engine(MEMORY, late("peak", "prepare_memory")),
        Engine(
            "tilth",
            late("own", "prepare_tilth"),
            training=("",),
            package="numba",
            write=late("own", "write_tilth"),
            profile=late("own", "profile_tilth"),
            wake=late("own", "wake_tilth"),
        ),
        Engine("reference", late("own", "prepare_reference"), training=("",)),
        Engine(
            "onnxruntime",
            late("peers", "prepare_onnxruntime"),
            package="onnxruntime",
            reads_onnx=True,
            profile=late("peers", "profile_onnxruntime"),
            wake=package("onnxruntime"),
        ),
        Engine(
            "openvino",
            late("peers", "prepare_openvino"),
            ("LATENCY", "THROUGHPUT"),
            package="openvino",
            reads_onnx=True,
            profile=late("peers", "profile_openvino"),
            wake=package("openvino"),
        ),
        Engine(
            "torch",
            late("torch_net", "prepare_torch"),
            ("eager channels_last", "eager", "frozen channels_last", "frozen"),
            ("channels_last foreach", "channels_last fused"),
            package="torch",
            wake=package("torch"),
        ),
    )
}
