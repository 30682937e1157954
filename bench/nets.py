"""Nets on several engines, for every batch and number of threads that was asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence

from ..program import Program
from ..runtime.faults import RuntimeFault
from ..runtime.simd import lanes
from .compare import Row, compare
from .engines import ENGINES, PEERS
from .kind import Measured, Request
from .problem import Chosen, nominal_sizes
from .runner import Schedule


def measure(program: Program, request: Request) -> Iterator[Sequence[Row]]:
    """Rows of a net, a list for each batch and number of threads.

    Raises :class:`RuntimeFault` E804 for a peer that is not installed and an unknown `TILTH_LANES`.
    """
    lanes()  # a width that this machine lacks is refused here, not by the process of each engine
    peers = _peers(request)
    label = program.variant or program.name
    schedule = Schedule(rounds=request.rounds, seconds=request.seconds)
    for batch in request.batch:
        sizes = nominal_sizes(program, batch, dict(request.sizes))
        chosen = Chosen(request.spec, request.variant, request.options, sizes, request.train)
        parts = (chosen, label, peers, request.engine, request.threads, schedule, request.note)
        yield from compare(*parts, request.profile)


def file_name(row: Measured) -> str:
    """What the file of a row is called: steps of training have one of their own."""
    return f"{row.model}.train" if row.as_json().get("train") else row.model


def _peers(request: Request) -> tuple[str, ...]:
    if request.peers is None:
        installed = (name for name in PEERS if ENGINES[name].installed)
        return tuple(name for name in installed if ENGINES[name].training or not request.train)
    missing = [name for name in request.peers if not ENGINES[name].installed]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        message = f"{', '.join(f'`{name}`' for name in missing)} {verb} not installed"
        packages = " ".join(ENGINES[name].package for name in missing)
        raise RuntimeFault("E804", message, f"pip install {packages}")
    for name in request.peers:
        if ENGINES[name].reads_onnx and importlib.util.find_spec("onnx") is None:
            message = f"`{name}` reads the model as ONNX, and `onnx`, which writes it, is not there"
            raise RuntimeFault("E804", message, "pip install onnx")
    return request.peers
