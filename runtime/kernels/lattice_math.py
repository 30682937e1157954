"""Hash tables of lattice corners: numbers from 1 by key, with open addressing."""

from __future__ import annotations

from numba import int64, njit, uint64

from ..simd import load_i32, load_i64, store_i32, store_i64

GOLDEN = uint64(0x9E3779B97F4A7C15)


@njit(error_model="numpy", inline="always")
def _slot(key, size):
    """Where the search for a key begins; ``size`` is a power of two."""
    mixed = uint64(key) * GOLDEN
    return int64((mixed ^ (mixed >> uint64(32))) & uint64(size - 1))


@njit(error_model="numpy")
def enter(table, size, keys, key, held):
    """The number of a key; one that is not there becomes number ``held + 1``."""
    at = _slot(key, size)
    while True:
        number = int64(load_i32(table + 4 * at))
        if number == 0:
            store_i32(table + 4 * at, held + 1)
            store_i64(keys + 8 * held, key)
            return held + 1
        if load_i64(keys + 8 * (number - 1)) == key:
            return number
        at = (at + 1) & (size - 1)


@njit(error_model="numpy")
def find(table, size, keys, key):
    """The number of a key, 0 if it is not there."""
    at = _slot(key, size)
    while True:
        number = int64(load_i32(table + 4 * at))
        if number == 0 or load_i64(keys + 8 * (number - 1)) == key:
            return number
        at = (at + 1) & (size - 1)
