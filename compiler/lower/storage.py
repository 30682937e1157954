"""Where values live while a plan runs: buffers in one arena, and views of them.

Activations of image nets are *blocked*: [C/16, N, H, W, 16], so a range of whole blocks of a bigger
value is a view of it, which is how concatenation and splitting cost nothing. All else is *flat*,
row-major.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...runtime.abi import Address

BLOCK = 16
LINE = 64


@dataclass(eq=False)
class Buffer:
    """Memory with a life: from the first step that touches it to the last."""

    size: int
    first: int = 1 << 60
    last: int = -1
    offset: int = 0

    def touch(self, step: int) -> None:
        """Keep the buffer alive at a step."""
        self.first = min(self.first, step)
        self.last = max(self.last, step)


@dataclass(frozen=True)
class Place:
    """A spot in a buffer, or in an input or output of the call (``port``)."""

    buffer: Buffer | None
    offset: int = 0
    port: int = -1

    def word(self) -> Place:
        """The place itself; resolved to an address once buffers have offsets."""
        return self

    def resolve(self) -> Address:
        """The address word."""
        if self.buffer is None:
            return Address("io", self.offset, self.port)
        return Address("arena", self.buffer.offset + self.offset)

    def moved(self, offset: int) -> Place:
        """Some bytes further on."""
        return Place(self.buffer, self.offset + offset, self.port)


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
    """A row-major value."""

    place: Place
    shape: tuple[int, ...]
    dtype: str


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
    """An image value whose channels lie anywhere: a channel map instead of a copy."""

    lanes: tuple[Lane, ...]
    images: int
    height: int
    width: int

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

    def new(self, size: int) -> Buffer:
        """A buffer whose life starts when it is first touched."""
        buffer = Buffer(-(-size // LINE) * LINE)
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
