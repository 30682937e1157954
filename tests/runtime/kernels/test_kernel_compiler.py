"""Kernels' own compiler pipeline gives the machine code that Numba's gives."""

from __future__ import annotations

import re
from typing import Any

import numba
import pytest
from tilth.runtime import kernel_cache
from tilth.runtime.kernels.conv import ConvKernel
from tilth.runtime.kernels.linear import LinearKernel
from tilth.runtime.kernels.pool import PoolKernel
from tilth.runtime.kernels.softmax import SoftmaxKernel
from tilth.runtime.kernels.window import Window
from tilth.runtime.kernels.winograd import WinogradKernel

NAMED = re.compile(r"[\w.$]*(kernel|transform|part|helper)[\w.$]*|\.L[\w.$]+|_ZN[\w.$]+")


def instructions(library: Any) -> list[str]:
    """What the processor is told, symbols left out."""
    lines = (line.split("#")[0].strip() for line in library.get_asm_str().splitlines())
    return [NAMED.sub("symbol", line) for line in lines if line and not line.startswith(".")]


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(LinearKernel(2, 1, False, 4), id="linear"),
        pytest.param(PoolKernel("max", Window(3, 2, 1, 3), 4), id="pool"),
        pytest.param(SoftmaxKernel("softmax", "f32", True, 4, 3), id="softmax"),
        pytest.param(ConvKernel(3, 1, 64, "blocked", False, 4), marks=pytest.mark.slow, id="conv"),
        pytest.param(WinogradKernel(3, 1, 4), marks=pytest.mark.slow, id="winograd"),
    ],
)
def test_the_machine_code_is_that_of_all_passes(spec, monkeypatch):
    ours = instructions(kernel_cache.compiled("lean", spec.source())._library)
    monkeypatch.setattr(kernel_cache, "compiler_of", lambda module: numba.core.compiler.Compiler)
    theirs = instructions(kernel_cache.compiled("whole", spec.source())._library)
    assert len(ours) > 100
    assert ours == theirs
