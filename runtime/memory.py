"""Plain memory: bytes that start on a cache line, and where an array lies."""

from __future__ import annotations

import numpy as np

ALIGNMENT = 64


def aligned(size: int) -> np.ndarray:
    """Uninitialised bytes that start on a cache line; at least one line."""
    raw = np.empty(max(size, ALIGNMENT) + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + max(size, ALIGNMENT)]


def address(array: np.ndarray) -> int:
    """The address of an array's first byte."""
    # The same as ``array.ctypes.data``, which takes several times as long.
    return array.__array_interface__["data"][0]
