"""Batches and deletions as bytes: the payloads of the log. Pure; FORMAT.md draws the layout.

Decoding trusts nothing: every length and every number is checked, so a payload is either exactly
what was encoded or a ValueError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import orjson

from tinyflux.batch import FieldType, PointBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tinyflux.batch import FieldLayout, Int32s, Int64s

_BATCH_HEAD: Final = struct.Struct("<IIIIII")
_RANGES_HEAD: Final = struct.Struct("<IIII")
_REWRITE_HEAD: Final = struct.Struct("<II")

Buffer: TypeAlias = bytes | memoryview


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """Closed time ranges of series, to be deleted.

    Attributes:
        keys: Distinct series keys.
        key_rows: int32[r], which key each range has.
        starts: int64[r], first ns.
        ends: int64[r], last ns, inclusive.
    """

    keys: Sequence[bytes]
    key_rows: Int32s
    starts: Int64s
    ends: Int64s


def encode(batch: PointBatch) -> bytes:
    """Return a batch as bytes.

    Raises:
        ValueError: Text that is not valid Unicode (lone surrogates).
    """
    try:
        names = orjson.dumps([batch.layouts, batch.strings])  # a FieldType is its number there
    except TypeError:
        raise ValueError("text is not valid Unicode") from None
    keys = b"".join(batch.keys)
    head = _BATCH_HEAD.pack(
        len(batch), len(batch.values), len(batch.keys), len(keys), len(names), 0
    )
    return b"".join(
        (
            head,
            np.ascontiguousarray(batch.times, "<i8").data,
            np.ascontiguousarray(batch.values, "<i8").data,
            np.ascontiguousarray(batch.key_rows, "<i4").data,
            np.ascontiguousarray(batch.layout_rows, "<i4").data,
            _lengths(batch.keys),
            keys,
            names,
        )
    )


def decode(payload: Buffer) -> PointBatch:
    """Return the batch that was encoded. Its arrays own their memory.

    Raises:
        ValueError: The payload contradicts itself.
    """
    reader = _Reader(payload)
    n, m, k, key_bytes, name_bytes, _ = reader.head(_BATCH_HEAD)
    times, values = reader.int64s(n), reader.int64s(m)
    key_rows, layout_rows = reader.int32s(n), reader.int32s(n)
    keys = reader.keys(k, key_bytes)
    layouts, strings = _names(reader.rest(name_bytes))
    _check_numbers(key_rows, len(keys), "series key")
    _check_numbers(layout_rows, len(layouts), "field layout")
    batch = PointBatch(keys, key_rows, times, layouts, layout_rows, values, strings)
    offsets = batch.offsets()
    if int(offsets[-1]) != m:
        raise ValueError(f"{m} slots for layouts that take {offsets[-1]}")
    for row, layout in enumerate(layouts):
        for slot, (_, kind) in enumerate(layout):
            if kind is FieldType.STRING:
                numbers = values[offsets[:-1][layout_rows == row] + slot]
                _check_numbers(numbers, len(strings), "string")
    return batch


def encode_ranges(ranges: Ranges) -> bytes:
    """Return ranges as bytes."""
    keys = b"".join(ranges.keys)
    return b"".join(
        (
            _RANGES_HEAD.pack(len(ranges.starts), len(ranges.keys), len(keys), 0),
            np.ascontiguousarray(ranges.starts, "<i8").data,
            np.ascontiguousarray(ranges.ends, "<i8").data,
            np.ascontiguousarray(ranges.key_rows, "<i4").data,
            _lengths(ranges.keys),
            keys,
        )
    )


def decode_ranges(payload: Buffer) -> Ranges:
    """Return the ranges that were encoded.

    Raises:
        ValueError: The payload contradicts itself.
    """
    reader = _Reader(payload)
    r, k, key_bytes, _ = reader.head(_RANGES_HEAD)
    starts, ends, key_rows = reader.int64s(r), reader.int64s(r), reader.int32s(r)
    keys = reader.keys(k, key_bytes)
    reader.rest(0)
    _check_numbers(key_rows, len(keys), "series key")
    return Ranges(keys, key_rows, starts, ends)


def encode_rewrite(ranges: Ranges, batch: PointBatch) -> bytes:
    """Return ranges and a batch as one payload."""
    first = encode_ranges(ranges)
    return b"".join((_REWRITE_HEAD.pack(len(first), 0), first, encode(batch)))


def decode_rewrite(payload: Buffer) -> tuple[Ranges, PointBatch]:
    """Return the ranges and the batch that were encoded.

    Raises:
        ValueError: The payload contradicts itself.
    """
    reader = _Reader(payload)
    length, _ = reader.head(_REWRITE_HEAD)
    return decode_ranges(reader.take(length)), decode(reader.remaining())


def encode_names(measurement: str, name: str) -> bytes:
    """Return the name of a measurement, and its new name or that of a field, as bytes."""
    return orjson.dumps([measurement, name])


def decode_names(payload: Buffer) -> tuple[str, str]:
    """Return the two names that were encoded.

    Raises:
        ValueError: They are none.
    """
    names = orjson.loads(bytes(payload))
    if not (isinstance(names, list) and [type(name) for name in names] == [str, str]):
        raise ValueError("not two names")
    return names[0], names[1]


def _lengths(keys: Sequence[bytes]) -> bytes:
    return np.array([len(key) for key in keys], "<u4").tobytes()


def _check_numbers(numbers: NDArray[np.integer], count: int, what: str) -> None:
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < count):
        raise ValueError(f"number of a {what} outside 0..{count - 1}")


def _names(data: Buffer) -> tuple[list[FieldLayout], list[str]]:
    try:
        raw_layouts, strings = orjson.loads(data)
        layouts = [
            tuple((name, FieldType(kind)) for name, kind in layout) for layout in raw_layouts
        ]
    except TypeError as exc:
        raise ValueError(f"names have another shape: {exc}") from exc
    names_are_text = all(isinstance(name, str) for layout in layouts for name, _ in layout)
    if not names_are_text or not all(isinstance(text, str) for text in strings):
        raise ValueError("a name or a string is no text")
    if any(len(dict(layout)) != len(layout) for layout in layouts):
        raise ValueError("a field occurs twice in a layout")
    return layouts, strings


class _Reader:
    """Takes parts from the front of a payload; complains when there is not enough."""

    def __init__(self, payload: Buffer) -> None:
        self._view = memoryview(payload)
        self._at = 0

    def take(self, size: int) -> memoryview:
        if size > len(self._view) - self._at:
            raise ValueError(f"payload ends {size - len(self._view) + self._at} bytes early")
        part = self._view[self._at : self._at + size]
        self._at += size
        return part

    def remaining(self) -> memoryview:
        return self.take(len(self._view) - self._at)

    def rest(self, size: int) -> memoryview:
        part = self.take(size)
        if self._at != len(self._view):
            raise ValueError(f"payload is {len(self._view) - self._at} bytes too long")
        return part

    def head(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def int64s(self, count: int) -> Int64s:
        return np.frombuffer(self.take(8 * count), "<i8").astype(np.int64)

    def int32s(self, count: int) -> Int32s:
        return np.frombuffer(self.take(4 * count), "<i4").astype(np.int32)

    def keys(self, count: int, size: int) -> list[bytes]:
        lengths = np.frombuffer(self.take(4 * count), "<u4").tolist()
        data = bytes(self.take(size))
        if sum(lengths) != size:
            raise ValueError(f"series keys take {sum(lengths)} bytes, not {size}")
        keys, start = [], 0
        for length in lengths:
            keys.append(data[start : start + length])
            start += length
        return keys
