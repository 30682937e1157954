"""Where values live while a plan runs: buffers in one arena, and views of them.

Activations of image nets are *blocked*: [C/16, N, H, W, 16], so a range of whole blocks of a bigger
value is a view of it, which is how concatenation and splitting cost nothing. All else is *flat*,
by strides.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import accumulate

from ...runtime.abi import Address
from ...runtime.kernels.pointwise import row_major
from .load import Packed

BLOCK = 16
LINE = 64


@dataclass(eq=False)
class Loop:
    """Steps that run up to ``trips`` times: the first and last of them, the loop they stand in.

    ``moving`` lists words of its rows that go on from turn to turn: (step, word, start, bytes).
    """

    outer: Loop | None
    number: int
    trips: int
    first: int
    last: int = -1
    moving: list[tuple[int, int, Place | Packed, int]] = field(default_factory=list)


@dataclass(eq=False)
class Buffer:
    """Memory with a life: from the first step that touches it to the last.

    ``home`` is the innermost loop that it was made in; all of a loop it comes from outside of is
    one moment of its life.
    """

    size: int
    home: Loop | None = None
    first: int = 1 << 60
    last: int = -1
    offset: int = 0

    def touch(self, step: int) -> None:
        """Keep the buffer alive at a step."""
        self.first = min(self.first, step)
        self.last = max(self.last, step)

    def touch_loop(self, loop: Loop | None) -> None:
        """Keep the buffer alive through the loops around a step that touches it."""
        while loop is not None and loop is not self.home:
            self.touch(loop.first)
            self.touch(loop.last)
            loop = loop.outer


@dataclass(frozen=True)
class Place:
    """A spot in a buffer, or in an input or output of the call (``port``).

    ``turns`` lists loops, outermost first, and the bytes by which the spot moves on a turn of each.
    """

    buffer: Buffer | None
    offset: int = 0
    port: int = -1
    turns: tuple[tuple[Loop, int], ...] = ()

    def resolve(self) -> Address:
        """The address word."""
        if self.buffer is None:
            return Address("io", self.offset, self.port)
        return Address("arena", self.buffer.offset + self.offset)

    def moved(self, offset: int) -> Place:
        """Some bytes further on."""
        return replace(self, offset=self.offset + offset)

    def turning(self, loop: Loop, step: int) -> Place:
        """The spot in a loop, ``step`` bytes further on at each turn."""
        return replace(self, turns=(*self.turns, (loop, step)))


@dataclass(frozen=True)
class Blocked:
    """A blocked image value; ``plane`` is the bytes of one image's block (H * W * 64)."""

    place: Place
    images: int
    channels: int
    height: int
    width: int

    @property
    def plane(self) -> int:
        """Bytes from one image to the next."""
        return self.height * self.width * LINE

    @property
    def block(self) -> int:
        """Bytes from one block of channels to the next."""
        return self.images * self.plane

    @property
    def blocks(self) -> int:
        """Number of 16-channel blocks."""
        return -(-self.channels // BLOCK)

    @property
    def bytes(self) -> int:
        """Size of the whole value."""
        return self.blocks * self.block


@dataclass(frozen=True)
class Flat:
    """A value by strides, in elements: row-major, or a view (transposed, cut, repeated, turned)."""

    place: Place | Packed
    shape: tuple[int, ...]
    dtype: str
    steps: tuple[int, ...] | None = None

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next, along each axis."""
        return row_major(self.shape) if self.steps is None else self.steps

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie one after the other in row-major order."""
        return self.steps is None or all(
            size == 1 or a == b
            for size, a, b in zip(self.shape, self.steps, row_major(self.shape), strict=True)
        )


@dataclass(frozen=True)
class Lane:
    """One channel: the place of its block's first plane, and its lane there."""

    block: Place
    lane: int

    @property
    def place(self) -> Place:
        """The channel's value at the first pixel."""
        return self.block.moved(self.lane * 4)


@dataclass(frozen=True)
class Mapped:
    """An image value whose channels lie anywhere: a channel map instead of a copy.

    ``whole`` is a value that has these channels in ``groups`` of equal size, in their order, each
    group from a block's first lane; what lies between the groups means nothing.
    """

    lanes: tuple[Lane, ...]
    images: int
    height: int
    width: int
    whole: Blocked | None = None
    groups: int = 1

    @staticmethod
    def gapped(whole: Blocked, groups: int, each: int) -> Mapped:
        """The first ``each`` channels of every group of a value."""
        lanes = lanes_of(whole)
        room = whole.channels // groups
        picked = tuple(lanes[group * room + c] for group in range(groups) for c in range(each))
        return Mapped(picked, whole.images, whole.height, whole.width, whole, groups)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.lanes)


def lanes_of(stored: Blocked | Mapped) -> tuple[Lane, ...]:
    """Every channel's place."""
    if isinstance(stored, Mapped):
        return stored.lanes
    return tuple(
        Lane(stored.place.moved(c // BLOCK * stored.block), c % BLOCK)
        for c in range(stored.channels)
    )


Storage = Blocked | Flat | Mapped


@dataclass
class Arena:
    """All buffers of a plan."""

    buffers: list[Buffer] = field(default_factory=list)

    def new(self, size: int, home: Loop | None = None) -> Buffer:
        """A buffer whose life starts when it is first touched."""
        buffer = Buffer(-(-size // LINE) * LINE, home)
        self.buffers.append(buffer)
        return buffer

    def layout(self) -> int:
        """Give every buffer an offset so that lives that overlap do not; the total size.

        Largest first, each at the lowest gap that is free during its life (Pisarchyk and Lee,
        Efficient Memory Management for Deep Neural Net Inference, 2020, greedy by size).
        """
        placed: list[Buffer] = []
        total = 0
        for buffer in sorted(self.buffers, key=lambda b: (-b.size, b.first)):
            if buffer.last < 0:
                continue
            start = 0
            for other in sorted(placed, key=lambda b: b.offset):
                apart = other.last < buffer.first or buffer.last < other.first
                if apart:
                    continue
                if start + buffer.size <= other.offset:
                    break
                start = max(start, other.offset + other.size)
            buffer.offset = start
            placed.append(buffer)
            total = max(total, start + buffer.size)
        return total

    def live(self) -> int:
        """The most bytes that are alive at one step: no arena can be smaller."""
        change: Counter[int] = Counter()
        for buffer in self.buffers:
            if buffer.last >= 0:
                change[buffer.first] += buffer.size
                change[buffer.last + 1] -= buffer.size
        return max(accumulate(change[step] for step in sorted(change)), default=0)
