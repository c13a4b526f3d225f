"""PointBatch: many points as a few arrays, the one currency of the write path.

A batch is a sequence of points in rows. What repeats is held once and named by number: the series
key (measurement and tag set) and the field layout (field keys with their types). What differs is
flat: one int64 time a row, and one 8-byte slot a field value, all rows one after another. Nothing
is grouped here: small requests stay cheap, blocks concatenate, and the memtable groups by series
when it is first read.

    keys     [b'["cpu","host","a"]', ...]           the distinct series of the batch
    layouts  [(("usage", FLOAT), ("n", INTEGER))]   the distinct field layouts of the batch
    strings  ["up", ...]                            the string values, named by number
    key_rows, times, layout_rows                    one entry a point
    values                                          the slots of all points, row after row

The series key is canonical JSON (`series_key`): an array of the measurement and then tag key, tag
value, ... sorted by tag key. Bytes hash once, compare fast, and any tag set of the TinyFlux API
fits (None, "", any text).

Two contracts meet in the engine; this is the one place that says so. TinyFlux keeps points of equal
series and time; InfluxDB merges their fields, newest value wins. A storage opened with
`overwrite=True` follows InfluxDB, with `overwrite=False` (the default) TinyFlux. TinyFlux times are
datetimes (microseconds); inside, and in a batch, they are int64 nanoseconds since 1970, UTC. A
field that is None in the API is a value here too: its slot has type NONE.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from tinyflux.point import make_point
from tinyflux.times import datetime_from_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tinyflux.point import Point

Int32s: TypeAlias = NDArray[np.int32]
Int64s: TypeAlias = NDArray[np.int64]
Float64s: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

MIN_TIME_NS: Final = -9223372036854775806  # influxd 1.x: models.MinNanoTime
MAX_TIME_NS: Final = 9223372036854775806  # influxd 1.x: models.MaxNanoTime

Tags: TypeAlias = tuple[tuple[str, str | None], ...]
FieldValue: TypeAlias = float | int | str | bool | None


class FieldType(enum.IntEnum):
    """The type of a field value. The numbers are stored on disk and never change."""

    NONE = 0
    FLOAT = 1
    INTEGER = 2
    STRING = 3
    BOOLEAN = 4


FieldLayout: TypeAlias = tuple[tuple[str, FieldType], ...]


def series_key(measurement: str, tags: Iterable[tuple[str, str | None]]) -> bytes:
    """Return the canonical key of a series.

    Args:
        measurement: Any text, also "".
        tags: Tag key and value pairs in any order; keys are distinct.

    Raises:
        ValueError: Text that is not valid Unicode (lone surrogates).
    """
    parts: list[str | None] = [measurement]
    for key, value in sorted(tags):
        parts += (key, value)
    # A copy: orjson leaves some 4 kB allocated behind each of its results, and keys are kept.
    return bytes(memoryview(orjson.dumps(parts)))


def parse_series_key(key: bytes) -> tuple[str, Tags]:
    """Return the measurement and the tags, sorted by tag key, that `series_key` was made from."""
    measurement, *rest = orjson.loads(key)
    return measurement, tuple(zip(rest[::2], rest[1::2], strict=True))


def renamed_series_key(key: bytes, measurement: str, name: str) -> bytes:
    """Return the key of a series of `measurement` as it is with another measurement's name."""
    return orjson.dumps(name).join((b"[", key[1 + len(orjson.dumps(measurement)) :]))


@dataclass(slots=True, eq=False)
class PointBatch:
    """Points in columnar form. Treat as immutable once built.

    Attributes:
        keys: Distinct series keys.
        key_rows: int32[n], which key each point has.
        times: int64[n], ns since 1970 UTC, in the order the points were given.
        layouts: Distinct field layouts; a field key occurs once in a layout.
        layout_rows: int32[n], which layout each point has.
        values: int64[m], one slot a field value, point after point: the bits of a float64, an
            integer, 0 or 1 for a boolean, an index into `strings`, 0 for None.
        strings: The string values.
    """

    keys: list[bytes]
    key_rows: Int32s
    times: Int64s
    layouts: list[FieldLayout]
    layout_rows: Int32s
    values: Int64s
    strings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.times)

    def widths(self) -> Int64s:
        """Return int64[n], the number of slots of each point."""
        per_layout = np.array([len(layout) for layout in self.layouts], np.int64)
        return per_layout[self.layout_rows] if len(self.layouts) else np.zeros(0, np.int64)

    def offsets(self) -> Int64s:
        """Return int64[n + 1]: the slots of point i are values[offsets[i]:offsets[i + 1]]."""
        offsets = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.widths(), out=offsets[1:])
        return offsets

    def __iter__(self) -> Iterator[Point]:
        """Yield the points as Points, unchecked: text and booleans survive. Times lose their ns."""
        for measurement, tags, time_ns, fields in self.rows():
            yield make_point(datetime_from_us(time_ns // 1000), measurement, dict(tags), fields)

    def rows(self) -> Iterator[tuple[str, Tags, int, dict[str, FieldValue]]]:
        """Yield measurement, tags, time in ns and fields of each point. A loop in Python: slow."""
        parsed = [parse_series_key(key) for key in self.keys]
        floats = self.values.view(np.float64)
        start = 0
        for key_row, time, layout_row in zip(
            self.key_rows.tolist(), self.times.tolist(), self.layout_rows.tolist(), strict=True
        ):
            fields: dict[str, FieldValue] = {}
            layout = self.layouts[layout_row]
            for slot, (name, kind) in enumerate(layout, start):
                if kind is FieldType.FLOAT:
                    fields[name] = float(floats[slot])
                elif kind is FieldType.INTEGER:
                    fields[name] = int(self.values[slot])
                elif kind is FieldType.STRING:
                    fields[name] = self.strings[int(self.values[slot])]
                elif kind is FieldType.BOOLEAN:
                    fields[name] = bool(self.values[slot])
                else:
                    fields[name] = None
            start += len(layout)
            measurement, tags = parsed[key_row]
            yield measurement, tags, time, fields

    def take(self, keep: Bools) -> PointBatch:
        """Return the points where keep (bool[n]) is true; keys, layouts and strings are shared."""
        slots = np.repeat(keep, self.widths())
        return PointBatch(
            self.keys,
            self.key_rows[keep],
            self.times[keep],
            self.layouts,
            self.layout_rows[keep],
            self.values[slots],
            self.strings,
        )


class BatchBuilder:
    """Builds a PointBatch row by row, for callers that have Python values.

    Cost: about a microsecond a point; the line protocol parser fills arrays by itself.
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, int] = {}
        self._key_rows: list[int] = []
        self._times: list[int] = []
        self._layouts: dict[FieldLayout, tuple[int, struct.Struct]] = {}
        self._layout_rows: list[int] = []
        self._slots: list[bytes] = []
        self._strings: list[str] = []

    def add(self, key: bytes, time_ns: int, fields: Iterable[tuple[str, FieldValue]]) -> None:
        """Append one point.

        Args:
            key: The series key, from `series_key`.
            time_ns: ns since 1970 UTC.
            fields: Field keys, each once, with their values.

        Raises:
            ValueError: An integer beyond int64, a value of no field type, or a time outside int64.
        """
        layout: list[tuple[str, FieldType]] = []
        slots: list[float | int] = []
        strings: list[str] = []
        for name, value in fields:
            kind = field_type_of(value)
            layout.append((name, kind))
            if kind is FieldType.STRING:
                slots.append(len(self._strings) + len(strings))
                strings.append(str(value))
            else:
                slots.append(0 if value is None else value)  # type: ignore[arg-type]
        shape = tuple(layout)
        if shape not in self._layouts:
            codes = "".join("d" if kind is FieldType.FLOAT else "q" for _, kind in shape)
            self._layouts[shape] = len(self._layouts), struct.Struct("<" + codes)
        row, packer = self._layouts[shape]
        try:
            packed = packer.pack(*slots)
        except struct.error:
            raise ValueError("integer field value is outside the 64-bit range") from None
        if not MIN_TIME_NS <= time_ns <= MAX_TIME_NS:
            raise ValueError(f"time outside range {MIN_TIME_NS} - {MAX_TIME_NS}")
        self._key_rows.append(self._keys.setdefault(key, len(self._keys)))
        self._times.append(time_ns)
        self._layout_rows.append(row)
        self._slots.append(packed)
        self._strings += strings

    def build(self) -> PointBatch:
        """Return the batch of all points added so far."""
        return PointBatch(
            list(self._keys),
            np.array(self._key_rows, np.int32),
            np.array(self._times, np.int64),
            list(self._layouts),
            np.array(self._layout_rows, np.int32),
            np.frombuffer(b"".join(self._slots), "<i8").astype(np.int64, copy=False),
            self._strings,
        )


def field_type_of(value: object) -> FieldType:
    """Return the field type of a Python value.

    Raises:
        ValueError: A value of any other type.
    """
    if value is None:
        return FieldType.NONE
    if isinstance(value, (bool, np.bool_)):
        return FieldType.BOOLEAN
    if isinstance(value, (int, np.integer)):
        return FieldType.INTEGER
    if isinstance(value, (float, np.floating)):
        return FieldType.FLOAT
    if isinstance(value, str):
        return FieldType.STRING
    raise ValueError(f"field value has no field type: {type(value).__name__}")
