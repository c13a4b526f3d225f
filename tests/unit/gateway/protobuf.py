"""Prometheus' remote write as bytes, for tests: the messages of prometheus/prompb by hand."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cramjam

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""The NaN that marks a series as stale."""


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def message(number: int, content: bytes) -> bytes:
    """Return a field that holds bytes or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def label(name: str, value: str) -> bytes:
    return message(1, message(1, name.encode()) + message(2, value.encode()))


def sample(value: float, time_ms: int) -> bytes:
    return message(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(time_ms))


def series(
    labels: Mapping[str, str], samples: Sequence[tuple[float, int]], more: bytes = b""
) -> bytes:
    parts = [label(*pair) for pair in labels.items()]
    parts += [sample(*pair) for pair in samples]
    return message(1, b"".join(parts) + more)


def snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))
