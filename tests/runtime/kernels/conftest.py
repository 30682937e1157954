"""Fixtures for kernel tests: run a kernel on arrays, blocked layouts, widths to test."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tilth.runtime.kernel_cache import kernel as compiled
from tilth.runtime.simd import lanes

WIDTHS = [w for w in (16, 8, 4) if w <= lanes()]


@pytest.fixture(params=[pytest.param(w, marks=() if w == WIDTHS[0] else pytest.mark.slow)
                        for w in WIDTHS])  # fmt: skip
def width(request: pytest.FixtureRequest) -> int:
    """Every vector width of this machine; the narrower ones are slow tests."""
    return request.param


@pytest.fixture
def drive() -> Callable[..., None]:
    """Run all tasks of a kernel on a row of words: whole numbers, arrays and float64 constants."""

    def run(kernel: Any, tasks: int, words: Sequence[Any]) -> None:
        address = compiled(kernel.name, kernel.source()).address
        call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address)
        row = np.array([_word(word) for word in words], np.int64)
        # The last task first: tasks must not depend on their order.
        for task in reversed(range(tasks)):
            call(row.ctypes.data, task, 0)

    return run


def _word(word: Any) -> int:
    if isinstance(word, np.ndarray):
        assert word.flags.c_contiguous
        return word.ctypes.data
    if isinstance(word, float):
        return int(np.float64(word).view(np.int64))
    return int(word)


@pytest.fixture
def block() -> Callable[..., np.ndarray]:
    """[N, C, H, W] to [N, ceil(C/16), H, W, 16], pad lanes NaN."""

    def convert(x: np.ndarray) -> np.ndarray:
        n, c, h, w = x.shape
        blocks = -(-c // 16)
        full = np.full((n, blocks * 16, h, w), np.nan, np.float32)
        full[:, :c] = x
        return np.ascontiguousarray(full.reshape(n, blocks, 16, h, w).transpose(0, 1, 3, 4, 2))

    return convert


@pytest.fixture
def unblock() -> Callable[..., np.ndarray]:
    """The inverse of ``block`` for a number of channels."""

    def convert(y: np.ndarray, channels: int) -> np.ndarray:
        n, blocks, h, w, _ = y.shape
        return y.transpose(0, 1, 4, 2, 3).reshape(n, blocks * 16, h, w)[:, :channels]

    return convert


@pytest.fixture
def agree() -> Callable[..., None]:
    """Assert ``max|a - b| <= tolerance * max|b|``, NaN and infinities in equal places."""

    def check(ours: np.ndarray, reference: np.ndarray, tolerance: float = 1e-6) -> None:
        assert ours.shape == reference.shape
        ours, reference = ours.astype(np.float64), reference.astype(np.float64)
        odd = ~np.isfinite(reference)
        np.testing.assert_array_equal(ours[odd], reference[odd])
        gap = np.abs(ours[~odd] - reference[~odd]).max(initial=0)
        assert gap <= tolerance * max(np.abs(reference[~odd]).max(initial=0), 1e-30), gap

    return check
