"""Philox4x32-10 and what is made of its bits, for kernels; see :mod:`tilth.runtime.philox`."""

from __future__ import annotations

from numba import float64, int32, int64, njit, uint64

from ..simd import load_f32, load_f64

LOW = uint64(0xFFFFFFFF)
M0, M1 = uint64(0xD2511F53), uint64(0xCD9E8D57)
W0, W1 = uint64(0x9E3779B9), uint64(0xBB67AE85)
HALF = uint64(32)


@njit(error_model="numpy")
def block(seed, step, number):
    """The 64 bits of the two elements of a block, first draw."""
    c0, c1, c2, c3 = number & LOW, uint64(0), step & LOW, step >> HALF
    k0, k1 = seed & LOW, seed >> HALF
    for _ in range(10):
        high, low = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (low >> HALF) ^ c1 ^ k0, low & LOW, (high >> HALF) ^ c3 ^ k1, high & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0 << HALF | c1, c2 << HALF | c3


@njit(error_model="numpy")
def fraction(bits, width):
    """The top ``width`` bits over their range, in [0, 1)."""
    return float64(bits >> uint64(64 - width)) * 0.5**width


def _weighted(load, step):
    """A function ``(p, size, u)`` over weights that ``load`` reads, ``step`` bytes apart."""

    @njit(error_model="numpy")
    def index(p, size, u):
        """The index whose share of ``size`` weights holds ``u``, never one without weight."""
        total = load(p)
        last = int64(0)
        for i in range(1, size):
            value = load(p + i * step)
            total += value
            if value > 0:
                last = i
        goal = (load(p) * 0 + u) * total
        found = int64(0)
        sums = load(p) * 0
        for i in range(size):
            sums += load(p + i * step)
            if sums <= goal:
                found += 1
        return int32(min(found, last))

    return index


weighted_f32 = _weighted(load_f32, 4)
weighted_f64 = _weighted(load_f64, 8)
