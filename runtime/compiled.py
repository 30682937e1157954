"""What a compiled file imports: words of its rows, and how it presents itself.

A compiled file can be run (``python model.py --help``), or imported and called like a function.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .abi import LOOP_END, LOOP_WORDS, Address, Step
from .faults import RuntimeFault
from .inputs import Declared, read_input
from .module import Check, KernelSpec, Module, Plan, Port, Row
from .outputs import save_outputs
from .weights import read_arrays

FORMAT = 1


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


class CompiledModule(ModuleType):
    """An imported compiled file: call it with inputs by name."""

    plan: Plan
    _weights: str | None = None
    _ready: Module | None = None

    def __call__(self, **inputs: Any) -> Any:
        """Run on arrays by input name; weights are read at the first call."""
        if self._ready is None:
            self.load_weights()
        assert self._ready is not None
        return self._ready(**inputs)

    def load_weights(self, path: str | None = None, threads: int | None = None) -> Module:
        """Read and pack weights; ``path`` defaults to the file named when compiling."""
        chosen = path or self._weights
        if chosen is None:
            raise RuntimeFault("E801", "this module was compiled without weights",
                               "give them: `load_weights(\"weights.safetensors\")`")  # fmt: skip
        file = Path(chosen)
        if not file.is_absolute() and path is None:
            file = Path(self.__file__ or ".").parent / file
        self._ready = Module(self.plan, read_arrays(file), threads)
        return self._ready


def publish(name: str, plan: Plan, weights: str | None, format: int) -> None:
    """Make the compiled file callable, or run it when it is the program."""
    if format != FORMAT:
        raise RuntimeFault("E804", f"this file has format {format}; this version reads {FORMAT}",
                           "compile the spec again")  # fmt: skip
    module = sys.modules.get(name)
    if module is None:
        return
    module.plan = plan  # type: ignore[attr-defined]
    module._weights = weights  # type: ignore[attr-defined]
    module.__class__ = CompiledModule
    if name == "__main__":
        sys.exit(_main(module, plan))  # type: ignore[arg-type]


def _main(module: CompiledModule, plan: Plan, argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=f"{plan.name}, compiled by Tilth")
    for port in plan.inputs:
        text = f"{port.dtype}{list(port.shape)}: .npy, picture or `random`"
        parser.add_argument(f"--{port.name}", required=True, metavar="VALUE", help=text)
    parser.add_argument("--weights", help="a .safetensors or .npz file")
    parser.add_argument("--output", metavar="FILE.npz", help="write the results there")
    parser.add_argument("--threads", type=int)
    options = vars(parser.parse_args(argv))
    try:
        ready = module.load_weights(options["weights"], options["threads"])
        inputs = {
            p.name: read_input(p.name, options[p.name], Declared(np.dtype(p.dtype), p.shape))
            for p in plan.inputs
        }
        results: Mapping[str, np.ndarray] = ready.run(inputs)
    except RuntimeFault as fault:
        print(f"error[{fault.code}]: {fault.message}", file=sys.stderr)
        if fault.hint:
            print(f"   hint: {fault.hint}", file=sys.stderr)
        return 1
    for key, value in results.items():
        print(f"{key}: {value.dtype}{list(value.shape)}  min {value.min():.6g}  "
              f"max {value.max():.6g}")  # fmt: skip
    if options["output"]:
        save_outputs(options["output"], dict(results))
    return 0


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
