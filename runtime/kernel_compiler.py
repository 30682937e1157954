"""What Numba does to a kernel: its own passes, without those that kernels have no use for.

Kernels have no closures, containers, array expressions, ``with`` blocks or exceptions. Looking for
them takes time before the first answer from an empty cache; the machine code is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from numba import njit
from numba.core import typed_passes as typed
from numba.core import untyped_passes as untyped
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager


def _passes(single: bool) -> list[PassManager]:
    """Bytecode, static single assignment where it is ``single``, types, machine code."""
    passes = PassManager("kernel")
    passes.add_pass(untyped.TranslateByteCode, "bytecode to intermediate form")
    passes.add_pass(untyped.FixupArgs, "arguments")
    passes.add_pass(untyped.IRProcessing, "checks of the intermediate form")
    passes.add_pass(untyped.GenericRewrites, "constant indices")
    passes.add_pass(untyped.InlineInlinables, "functions that ask for it inlined")
    if single:
        passes.add_pass(untyped.ReconstructSSA, "static single assignment")
    passes.add_pass(typed.NopythonTypeInference, "types")
    if single:
        passes.add_pass(typed.PreLowerStripPhis, "choices by variables")
    passes.add_pass(typed.IRLegalization, "ends of lifetimes")
    passes.add_pass(typed.NativeLowering, "lowering")
    passes.add_pass(typed.NoPythonBackend, "machine code")
    passes.finalize()
    return [passes]


class KernelCompiler(CompilerBase):
    """The pipeline of kernels on one thread, for ``pipeline_class``."""

    def define_pipelines(self) -> list[PassManager]:
        """With static single assignment: a variable may have one type here and another there."""
        return _passes(True)


class OneTypeCompiler(CompilerBase):
    """The same for kernels whose variables have one type each, which their files say."""

    def define_pipelines(self) -> list[PassManager]:
        """Without static single assignment, which is a fifth of the work and LLVM's anyway."""
        return _passes(False)


def compiler_of(module: ModuleType) -> type[CompilerBase]:
    """The pipeline of a kernel's file: one that says ``ONE_TYPE`` gets the shorter one."""
    return OneTypeCompiler if getattr(module, "ONE_TYPE", False) else KernelCompiler


def part(function: Callable[..., Any]) -> Any:
    """A function that a file which says ``ONE_TYPE`` defines for itself."""
    return njit(error_model="numpy", pipeline_class=OneTypeCompiler)(function)
