"""TensorBoard's event files, written directly: TFRecord frames around Event messages.

A frame is the length (u64), the masked CRC-32C of those eight bytes (u32), the message, and its
masked CRC-32C; all little-endian. The messages are protocol buffers, of which these fields are
written: Event {1: wall_time double, 2: step int64, 3: file_version string, 5: Summary summary,
7: SessionLog}; Summary {1: repeated Value}; Value {1: tag string, 2: simple_value float};
SessionLog {1: status}. (tensorflow/core/util/event.proto, framework/summary.proto,
lib/io/record_writer.h.)
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..faults import unwritable

_POLYNOMIAL = 0x82F63B78
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_START = 1
"""SessionLog.START: TensorBoard drops earlier events from this step on."""


class EventWriter:
    """Scalars to a new event file in ``folder``; raises :class:`RuntimeFault` E806.

    ``resume_step`` is the step from which an interrupted run goes on.
    """

    def __init__(self, folder: str | os.PathLike[str], resume_step: int | None = None) -> None:
        place, now = Path(folder), time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}"
        count = sum(1 for _ in place.glob("events.out.tfevents.*"))
        self.path = place / f"{name}.{count}"
        try:
            self._stream = self.path.open("xb")
            self._write(_event(now, 0) + _text(3, "brain.Event:2"))
            if resume_step is not None:
                session = _field(1, _VARINT) + _varint(_START)
                self._write(_event(now, resume_step + 1) + _block(7, session))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One event with a value for each tag."""
        points = b"".join(_block(1, _value(tag, value)) for tag, value in values.items())
        self._write(_event(time.time(), step) + _block(5, points))

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _write(self, message: bytes) -> None:
        # A whole frame at once, so that a kill between writes cannot cut one in two.
        self._stream.write(frame(message))
        self._stream.flush()


def frame(message: bytes) -> bytes:
    """A TFRecord frame."""
    length = struct.pack("<Q", len(message))
    return length + _masked(length) + message + _masked(message)


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of ``data``."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


# ---------------------------------------------------------------- helpers


def _table() -> tuple[int, ...]:
    entries = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


_TABLE = _table()


def _masked(data: bytes) -> bytes:
    """The checksum turned and shifted, as a checksum of data that holds checksums is a bad one."""
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _event(wall_time: float, step: int) -> bytes:
    head = _field(1, _FIXED64) + struct.pack("<d", wall_time)
    return head + (_field(2, _VARINT) + _varint(step) if step else b"")


def _value(tag: str, value: float) -> bytes:
    with np.errstate(over="ignore"):
        number = np.array(value, "<f4")
    return _text(1, tag) + _field(2, _FIXED32) + number.tobytes()


def _text(number: int, text: str) -> bytes:
    return _block(number, text.encode())


def _block(number: int, data: bytes) -> bytes:
    return _field(number, _BYTES) + _varint(len(data)) + data


def _field(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
