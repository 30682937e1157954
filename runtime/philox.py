"""Counter-based random numbers: Philox4x32-10 and the draws that every engine repeats.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3, SC 2011)
turns a counter of four 32-bit words under a key of two into four random words. Here

* key     = seed XOR the first 8 bytes (little-endian) of SHA-256 of the path, low word first,
* counter = (block, draw, step low word, step high word),

and element ``i`` (row-major) of a tensor reads words ``2 (i mod 2)`` and the next one of block
``i // 2`` as ``bits = first << 32 | second``. ``draw`` counts the draws that one op makes for the
same element. All types read the top of the same bits: a float32 draw is the float64 one cut short.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
MANTISSA = {2: 11, 4: 24, 8: 53}
"""Random bits of a uniform draw, by bytes of the element."""


@dataclass(frozen=True)
class Stream:
    """Where draws come from: seed, step and path, and the number of the draw for each element."""

    seed: int
    step: int
    path: str
    draw: int = 0

    def at(self, draw: int) -> Stream:
        """The same stream at another draw."""
        return replace(self, draw=draw)


def stream(key: np.ndarray, path: str) -> Stream:
    """The stream of a path under a key tensor ``u64[2]`` of (seed, step)."""
    return Stream(int(key[0]), int(key[1]), path)


def path_hash(path: str) -> int:
    """The 64-bit number that stands for a path."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "little")


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox on counters ``u32[4, n]``; words ``u32[4, n]``."""
    c0, c1, c2, c3 = counter.astype(np.uint64)
    k0, k1 = key
    for _ in range(10):
        high, low = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (
            (low >> _HALF) ^ c1 ^ np.uint64(k0),
            low & _LOW,
            (high >> _HALF) ^ c3 ^ np.uint64(k1),
            high & _LOW,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def bits(source: Stream, count: int) -> np.ndarray:
    """64 random bits for each of ``count`` elements, ``u64[count]``."""
    blocks = np.arange((count + 1) // 2, dtype=np.uint32)
    words = _words(source, blocks)
    pairs = np.stack([words[0] << _HALF | words[1], words[2] << _HALF | words[3]], axis=1)
    return pairs.reshape(-1)[:count]


def bits_at(source: Stream, elements: np.ndarray) -> np.ndarray:
    """The same bits for some elements only: ``bits(source, n)[elements]`` without the rest."""
    words = _words(source, (elements // 2).astype(np.uint32))
    odd = elements % 2 == 1
    high, low = np.where(odd, words[2], words[0]), np.where(odd, words[3], words[1])
    return high << _HALF | low


def uniform_at(source: Stream, elements: np.ndarray) -> np.ndarray:
    """Uniform in [0, 1) as float64 for some elements only."""
    return _fraction(bits_at(source, elements), np.dtype(np.float64))


def uniform(source: Stream, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uniform in [0, 1): the top 11, 24 or 53 bits over their range."""
    return _fraction(bits(source, math.prod(shape)), dtype).reshape(shape)


def normal(source: Stream, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Standard normal by Box and Muller, float16 through float32.

    Elements ``2b`` and ``2b + 1`` share a radius ``sqrt(-2 log(1 - u))`` with ``u`` the uniform of
    the first and an angle ``2 pi v`` with ``v`` the uniform of the second, and are its cosine and
    its sine.
    """
    count = math.prod(shape)
    wide = np.dtype(np.float32) if dtype.itemsize == 2 else dtype
    u, v = _fraction(bits(source, count + count % 2), wide).reshape(-1, 2).T
    radius = np.sqrt(wide.type(-2) * np.log1p(-u))
    angle = wide.type(2 * math.pi) * v
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1)[:count].reshape(shape).astype(dtype)


def _words(source: Stream, blocks: np.ndarray) -> np.ndarray:
    """The four words of each block, ``u64[4, blocks]``."""
    key = source.seed ^ path_hash(source.path)
    counter = np.empty((4, len(blocks)), np.uint32)
    counter[0] = blocks
    counter[1] = source.draw
    counter[2] = source.step & 0xFFFFFFFF
    counter[3] = source.step >> 32
    return philox4x32(counter, (key & 0xFFFFFFFF, key >> 32)).astype(np.uint64)


def _fraction(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    width = MANTISSA[dtype.itemsize]
    return (value >> np.uint64(64 - width)).astype(dtype) * dtype.type(2.0**-width)
