"""What a compiled file imports: words of its rows, and how it presents itself.

A compiled file can be run (``python model.py --help``), or imported and called like a function.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .abi import LOOP_END, LOOP_WORDS, Address, Step
from .faults import RuntimeFault
from .inputs import Declared, check_input, read_input
from .module import Check, KernelSpec, Module, Plan, Port, Row
from .outputs import save_outputs
from .weights import Wanted, load_weights

FORMAT = 1

_LOADING = threading.Lock()
"""Of two first calls at once, one reads and packs the weights."""


def arena(offset: int) -> Address:
    """A place in the call's arena."""
    return Address("arena", offset)


def packed(offset: int) -> Address:
    """A place in the packed weights."""
    return Address("weights", offset)


def scratch(offset: int) -> Address:
    """A place in the call's scratch."""
    return Address("scratch", offset)


def cells(offset: int) -> Address:
    """A cell of the call."""
    return Address("cells", offset)


def word(step: int, number: int) -> Address:
    """A word of another row."""
    return Address("rows", number, step)


def loop(**words: Any) -> Row:
    """The end of a loop."""
    return Row(None, Step("loop", LOOP_END, tuple(words[name] for name in LOOP_WORDS), "loop"))


def io(index: int, offset: int = 0) -> Address:
    """The n-th input, then output, of the call."""
    return Address("io", offset, index)


def row(kernel: KernelSpec, tasks: int, label: str, **words: Any) -> Row:
    """One kernel call; named words that are missing are 0, or all in order as ``words=[...]``."""
    if "words" in words:
        return Row(kernel, Step(kernel.name, tasks, tuple(words["words"]), label))
    module = importlib.import_module(type(kernel).__module__)
    names = getattr(module, "ROWS", {}).get(type(kernel).__name__) or module.WORDS
    unknown = set(words) - set(names)
    if unknown:
        raise RuntimeFault("E804", f"{kernel.name} has no words {sorted(unknown)}",
                           "compile the spec again with this version")  # fmt: skip
    return Row(kernel, Step(kernel.name, tasks, tuple(words.get(n, 0) for n in names), label))


GIVE_WEIGHTS = (
    'give them: `--weights FILE.safetensors`, or in Python `load_weights("FILE.safetensors")`'
)


class CompiledModule(ModuleType):
    """An imported compiled file: call it with inputs by name."""

    plan: Plan
    _weights: str | None = None
    _ready: Module | None = None

    def __call__(self, **inputs: Any) -> Any:
        """Run on arrays by input name; weights are read at the first call."""
        if self._ready is None:
            with _LOADING:
                if self._ready is None:
                    self.load_weights()
        assert self._ready is not None
        return self._ready(**inputs)

    def load_weights(self, path: str | None = None, threads: int | None = None) -> Module:
        """Read and pack weights; ``path`` defaults to the file named when compiling."""
        chosen = path or self._weights
        if chosen is None:
            raise RuntimeFault("E801", "this module was compiled without weights", GIVE_WEIGHTS)
        file = Path(chosen)
        if path is None:
            file = Path(self.__file__ or ".").parent / file
            if not file.exists():
                message = f"there is no `{file}`, where the weights were when this was compiled"
                raise RuntimeFault("E803", message, GIVE_WEIGHTS)
        self._ready = Module(self.plan, _fitting(self.plan, file), threads)
        return self._ready


def _fitting(plan: Plan, file: Path) -> Mapping[str, np.ndarray]:
    """The weights of a file, when they are those that the module was compiled for."""
    wanted = {
        path: Wanted(tuple(shape), np.dtype(kind)) for path, (kind, shape) in plan.wanted.items()
    }
    try:
        return load_weights(file, wanted, plan.rules).arrays
    except RuntimeFault as fault:
        if fault.code != "E801":
            raise
        hint = "sizes are fixed in this file: for another model compile its spec"
        raise RuntimeFault(fault.code, fault.message, hint, fault.details) from fault


def publish(name: str, plan: Plan, weights: str | None, format: int) -> None:
    """Make the compiled file callable, or run it when it is the program."""
    if format != FORMAT:
        fault = RuntimeFault("E804", f"this file has format {format}; this version reads {FORMAT}",
                             "compile the spec again")  # fmt: skip
        if name == "__main__":
            sys.exit(_told(fault))
        raise fault
    module = sys.modules.get(name)
    if module is None:
        return
    module.plan = plan  # type: ignore[attr-defined]
    module._weights = weights  # type: ignore[attr-defined]
    module.__class__ = CompiledModule
    if name == "__main__":
        sys.exit(_main(module, plan))  # type: ignore[arg-type]


OPTIONS = ("weights", "output", "threads", "help")
"""Options of every compiled file; an input of such a name is given as ``--input-NAME``."""


def _main(module: CompiledModule, plan: Plan, argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=f"{plan.name}, compiled by Tilth",
        epilog="exit codes: 0 fine, 1 fault found, 2 wrong command line",
    )
    for port in plan.inputs:
        text = f"{port.dtype}{list(port.shape)}: .npy, .npz, picture, `random` or `zeros`"
        flag = f"--input-{port.name}" if port.name in OPTIONS else f"--{port.name}"
        parser.add_argument(
            flag, dest=f"input {port.name}", required=True, metavar="VALUE", help=text
        )
    default = f"; default: {module._weights}" if module._weights else ""
    parser.add_argument("--weights", help=f"a .safetensors or .npz file{default}")
    parser.add_argument("--output", metavar="FILE.npz", help="write the results there")
    parser.add_argument("--threads", type=_positive, metavar="N", help="default: all processors")
    options = vars(parser.parse_args(argv))
    try:
        # Inputs first: reading them is quick, packing weights is not.
        inputs = {
            p.name: check_input(p.name, read_input(p.name, options[f"input {p.name}"], want), want)
            for p in plan.inputs
            for want in [Declared(np.dtype(p.dtype), p.shape)]
        }
        ready = module.load_weights(options["weights"], options["threads"])
        results: Mapping[str, np.ndarray] = ready.run(inputs)
        for key, value in results.items():
            print(f"{key}: {value.dtype}{list(value.shape)}{_ends(value)}")
        if options["output"]:
            save_outputs(options["output"], dict(results))
    except RuntimeFault as fault:
        return _told(fault)
    return 0


def _told(fault: RuntimeFault) -> int:
    print(f"error[{fault.code}]: {fault.message}", file=sys.stderr)
    for line in fault.details:
        print(f"   {line}", file=sys.stderr)
    if fault.hint:
        print(f"   hint: {fault.hint}", file=sys.stderr)
    return 1


def _ends(value: np.ndarray) -> str:
    if not value.size:
        return ""
    return f"  min {float(value.min()):.6g}  max {float(value.max()):.6g}"


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number of at least 1")
    return int(text)


__all__ = [
    "Check",
    "Plan",
    "Port",
    "arena",
    "cells",
    "io",
    "loop",
    "packed",
    "publish",
    "row",
    "scratch",
    "word",
]
