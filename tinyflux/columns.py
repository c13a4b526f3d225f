"""PointColumns: points in columns, in insertion order. What an Index knows, kept as arrays.

A point is a time, a shape and a few slots. The *shape* holds once what repeats: measurement, tag
set, field keys with the type of each value. The slots of a point are its field values, one float64
each; what no float64 can hold exactly (text, integers beyond 2**53) lies in a list, and the slot
holds its place there.

    times     int64    us since 1970        shapes    int32    which shape
    starts    int64    the first slot       values    float64  slots of all points, point after
    point

So a million points with three fields cost about 45 MB, a question about tags is asked once a shape,
and a question about a number is one comparison of arrays. `tinyflux.matching` asks; this module
only keeps.
"""

# ruff: noqa: SLF001  (reads the inside of Points: the properties cost more than the work)

from __future__ import annotations

import enum
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tinyflux.csvfile import is_sound
from tinyflux.point import (
    MAX_FLOAT_INTEGER,
    Point,
    field_key_from_cell,
    make_point,
    split_row,
    tag_key_from_cell,
    time_from_cell,
)
from tinyflux.times import (
    datetimes_from_us,
    now,
    to_utc,
    us_from_datetimes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from tinyflux.batch import Bools, Float64s, Int32s, Int64s

_ROWS_AT_ONCE: Final = 1024  # more do not stay in the cache of a processor
_INTEGER_CELL: Final = re.compile(r"^-?[0-9]+$", re.MULTILINE)
_SEPARATORS: Final = [4, 7, 10, 13, 16]
_SEPARATOR_LETTERS: Final = np.array([ord(letter) for letter in "--T::"])
# The lengths of YYYY-MM-DDTHH:MM:SS, and of that with microseconds.
_PLAIN_TIMES: Final = frozenset((19, 26))


class SlotKind(enum.IntEnum):
    """How the slot of a field value is to be read."""

    FLOAT = 0
    INTEGER = 1  # exact in a float64
    NONE = 2
    OBJECT = 3  # the slot is a position in `objects`


class _BigInteger:
    """Stands for the type of an integer that no float64 holds exactly."""


class Shape:
    """What many points share.

    Attributes:
        measurement: Their measurement.
        tags: Their tags, in the order of the Point.
        names: Their field keys, in the order of the Point.
        kinds: How each field's slot is to be read.
        plain: All slots are floats.
    """

    __slots__ = ("kinds", "measurement", "names", "plain", "tags")

    def __init__(
        self,
        measurement: str,
        tags: dict[str, str | None],
        names: tuple[str, ...],
        kinds: tuple[SlotKind, ...],
    ) -> None:
        self.measurement = measurement
        self.tags = tags
        self.names = names
        self.kinds = kinds
        self.plain = all(kind is SlotKind.FLOAT for kind in kinds)


class _Growing:
    """An array that grows at its end; doubling keeps an append cheap."""

    __slots__ = ("_buffer", "_size")

    def __init__(self, dtype: type[np.generic]) -> None:
        self._buffer: NDArray[Any] = np.empty(64, dtype)
        self._size = 0

    def extend(self, values: NDArray[Any]) -> None:
        end = self._size + len(values)
        if end > len(self._buffer):
            grown = np.empty(max(end, 2 * len(self._buffer)), self._buffer.dtype)
            grown[: self._size] = self.view()
            self._buffer = grown
        self._buffer[self._size : end] = values
        self._size = end

    def view(self) -> NDArray[Any]:
        return self._buffer[: self._size]

    def replace(self, values: NDArray[Any]) -> None:
        self._buffer = values
        self._size = len(values)


class PointColumns:
    """Points as arrays, numbered 0, 1, ... in insertion order."""

    def __init__(self) -> None:
        self._times = _Growing(np.int64)
        self._shape_rows = _Growing(np.int32)
        self._starts = _Growing(np.int64)
        self._values = _Growing(np.float64)
        self.objects: list[Any] = []
        self.shapes: list[Shape] = []
        self._shape_ids: dict[object, int] = {}
        self._row_shapes: dict[int, dict[tuple[str, ...], int]] = {}
        self._counts: Int64s = np.zeros(0, np.int64)
        self._widths: Int64s = np.zeros(0, np.int64)
        self._order: Int64s | None = None
        self.ascending = True

    def __len__(self) -> int:
        return len(self.times)

    @property
    def times(self) -> Int64s:
        """int64[n], us since 1970; not a copy."""
        return self._times.view()

    @property
    def shape_rows(self) -> Int32s:
        """int32[n], an index into `shapes`; not a copy."""
        return self._shape_rows.view()

    @property
    def starts(self) -> Int64s:
        """int64[n], the first slot of each point; not a copy."""
        return self._starts.view()

    @property
    def values(self) -> Float64s:
        """float64[m], the slots of all points; not a copy."""
        return self._values.view()

    def live_shapes(self) -> list[int]:
        """Return the numbers of the shapes that some point has."""
        return np.flatnonzero(self.shape_counts()).tolist()

    def shape_counts(self) -> Int64s:
        """Return int64[shapes], how many points have each shape."""
        missing = len(self.shapes) - len(self._counts)
        if missing:
            self._counts = np.concatenate((self._counts, np.zeros(missing, np.int64)))
        return self._counts

    def rows_between(self, first_us: int, last_us: int) -> slice | Int64s:
        """Return the points of a closed time interval: a slice, or ascending positions."""
        if self.ascending:
            times = self.times
            low = int(np.searchsorted(times, first_us, "left"))
            return slice(low, int(np.searchsorted(times, last_us, "right")))
        if self._order is None:
            self._order = np.argsort(self.times, kind="stable")
        ordered = self.times[self._order]
        low = int(np.searchsorted(ordered, first_us, "left"))
        high = int(np.searchsorted(ordered, last_us, "right"))
        return np.sort(self._order[low:high])

    def extend(self, points: Sequence[Point]) -> None:
        """Append points. About a microsecond each."""
        values: list[Any] = []
        shape_rows = [
            self._add_fields(point._measurement, point._tags, point._fields, values)
            for point in points
        ]
        self._extend(_us_of(points), shape_rows, np.array(values, np.float64))

    def extend_rows(self, rows: Iterable[list[str]]) -> int:
        """Append points in their row form (see `Point._serialize_to_list`).

        Returns:
            How many rows were damaged, and left out.
        """
        source = iter(rows)
        damaged = 0
        while chunk := list(islice(source, _ROWS_AT_ONCE)):
            if not self._extend_plain(chunk):
                sound = [row for row in chunk if is_sound(row)]
                damaged += sum(1 for row in chunk if row) - len(sound)
                self.extend([Point()._deserialize_from_list(row) for row in sound])
        return damaged

    def _extend_plain(self, rows: list[list[str]]) -> bool:
        """Append rows that are whole and have only floats; False, and nothing done, for others."""
        shape_rows: list[int] = []
        cells: list[str] = []
        at = 2
        numbers = self._row_shapes.setdefault(at, {})
        for row in rows:
            # Rows of equal text but for time and values are one shape, if split in the same place;
            # mostly that is where the row before was split.
            number = numbers.get((*row[1:at], *row[at::2]))
            if number is None:
                at = _split_of_plain(row)
                if not at:
                    return False
                numbers = self._row_shapes.setdefault(at, {})
                number = numbers.get((*row[1:at], *row[at::2]))
                if number is None:
                    number = self._row_shape(row, at)
            if len(row) & 1:
                return False
            shape_rows.append(number)
            cells += row[at + 1 :: 2]
        values = _floats_from_cells(cells)
        times = None if values is None else _us_from_cells([row[0] for row in rows])
        if values is None or times is None:
            return False
        self._extend(times, shape_rows, values)
        return True

    def _row_shape(self, row: list[str], at: int) -> int:
        """Return the shape of a row as if all its values were floats; they begin at `at`."""
        tags = {
            tag_key_from_cell(row[i]): None if row[i + 1] == Point._none_str else row[i + 1]
            for i in range(2, at, 2)
        }
        names = tuple(field_key_from_cell(cell) for cell in row[at::2])
        number = self._shape_number(row[1], tags, names, (float,) * len(names))
        self._row_shapes[at][*row[1:at], *row[at::2]] = number
        return number

    def _add_fields(
        self, measurement: str, tags: dict[str, str | None], fields: dict[str, Any], out: list[Any]
    ) -> int:
        """Append the slots of a field set to `out`; return the number of its shape."""
        types: tuple[type, ...] = tuple(map(type, fields.values()))
        if types.count(float) == len(types):
            out += fields.values()
        else:
            types = self._add_mixed(types, fields.values(), out)
        return self._shape_number(measurement, tags, tuple(fields), types)

    def _add_mixed(
        self, types: tuple[type, ...], values: Iterable[Any], out: list[Any]
    ) -> tuple[type, ...]:
        actual = list(types)
        for i, value in enumerate(values):
            kind = types[i]
            if kind is float or (kind is int and abs(value) <= MAX_FLOAT_INTEGER):
                out.append(value)
            elif value is None:
                out.append(0.0)
            elif _slot_kind(kind) is SlotKind.FLOAT:  # of numpy, for one
                out.append(value)
            else:
                if isinstance(value, int) and not isinstance(value, bool):
                    actual[i] = _BigInteger
                out.append(len(self.objects))
                self.objects.append(value)
        return tuple(actual)

    def _shape_number(
        self,
        measurement: str,
        tags: dict[str, str | None],
        names: tuple[str, ...],
        types: tuple[type, ...],
    ) -> int:
        key = (measurement, tuple(tags.items()), names, types)
        number = self._shape_ids.get(key)
        if number is None:
            number = self._shape_ids[key] = len(self.shapes)
            kinds = tuple(_slot_kind(kind) for kind in types)
            self.shapes.append(Shape(measurement, dict(tags), names, kinds))
        return number

    def _extend(self, times: Int64s, shape_rows: list[int], values: Float64s) -> None:
        if not len(times):
            return
        if self.ascending:
            latest = self.times[-1] if len(self) else times[0]
            self.ascending = bool(times[0] >= latest and np.all(times[1:] >= times[:-1]))
        self._order = None
        shapes = np.array(shape_rows, np.int32)
        self._counts = np.bincount(shapes, minlength=len(self.shapes)) + self.shape_counts()
        self._times.extend(times)
        self._shape_rows.extend(shapes)
        ends = np.cumsum(self.widths()[shapes]) + len(self.values)
        self._starts.extend(ends - self.widths()[shapes])
        self._values.extend(values)

    def take(self, rows: Int64s | Bools) -> None:
        """Keep only these points, in this order: positions, or a mask.

        The slots of the others stay until they are the larger part.
        """
        self._times.replace(self.times[rows])
        self._shape_rows.replace(self.shape_rows[rows])
        self._starts.replace(self.starts[rows])
        self._counts = np.bincount(self.shape_rows, minlength=len(self.shapes))
        self._order = None
        self.ascending = bool(np.all(self.times[1:] >= self.times[:-1]))
        if self.shapes and 2 * int(self._counts @ self.widths()) < len(self.values):
            self._drop_dead_slots()

    def _drop_dead_slots(self) -> None:
        widths = self.widths()[self.shape_rows]
        self._values.replace(self.values[_slots(self.starts, widths)])
        self._starts.replace(np.cumsum(widths) - widths)
        objects: list[Any] = []
        for number in self.live_shapes():
            kinds = self.shapes[number].kinds
            if SlotKind.OBJECT in kinds:
                starts = self.starts[self.shape_rows == number]
                for i in np.flatnonzero(np.array(kinds) == SlotKind.OBJECT):
                    slots = starts + i
                    kept = [self.objects[int(place)] for place in self.values[slots]]
                    self.values[slots] = np.arange(len(objects), len(objects) + len(kept))
                    objects += kept
        self.objects = objects

    def replace(self, rows: Int64s, points: Sequence[Point]) -> None:
        """Put points in the place of others.

        Args:
            rows: Ascending positions.
            points: As many points.
        """
        n = len(self)
        self.extend(points)
        order = np.arange(n)
        order[rows] = np.arange(n, n + len(rows))
        self.take(order)

    def widths(self) -> Int64s:
        """Return int64[shapes], how many slots each shape has."""
        known = len(self._widths)
        if known < len(self.shapes):
            new = [len(shape.names) for shape in self.shapes[known:]]
            self._widths = np.concatenate((self._widths, np.array(new, np.int64)))
        return self._widths

    def value(self, kind: SlotKind, slot: float) -> Any:
        """Return the field value that a slot of a kind stands for."""
        if kind is SlotKind.FLOAT:
            return slot
        if kind is SlotKind.INTEGER:
            return int(slot)
        return None if kind is SlotKind.NONE else self.objects[int(slot)]

    def slots_of(self, key: str) -> tuple[Int64s, Int64s]:
        """Return int64[shapes] twice: which slot of a point a field is, or -1; and its kind."""
        offsets = np.full(len(self.shapes), -1, np.int64)
        kinds = np.zeros(len(self.shapes), np.int64)
        for number, shape in enumerate(self.shapes):
            if key in shape.names:
                offsets[number] = shape.names.index(key)
                kinds[number] = shape.kinds[offsets[number]]
        return offsets, kinds

    def field_values(self, key: str, rows: Int64s | slice) -> tuple[Int64s, list[Any]]:
        """Return at which places of `rows` a field is there, ascending, and its values there."""
        offsets, kinds = self.slots_of(key)
        shape_rows = self.shape_rows[rows]
        offset = offsets[shape_rows]
        places = np.flatnonzero(offset >= 0)
        slots = self.values[self.starts[rows][places] + offset[places]].tolist()
        kind_rows = kinds[shape_rows[places]]
        if not kind_rows.any():
            return places, slots
        pairs = zip(map(SlotKind, kind_rows.tolist()), slots, strict=True)
        return places, [self.value(kind, slot) for kind, slot in pairs]

    def points(self, rows: Int64s | slice) -> list[Point]:
        """Return new Points of these positions. About 1.5 us each."""
        return [
            make_point(time, shape.measurement, dict(shape.tags), fields)
            for time, (shape, fields) in zip(
                datetimes_from_us(self.times[rows]), self.field_sets(rows), strict=True
            )
        ]

    def field_sets(self, rows: Int64s | slice) -> Iterable[tuple[Shape, dict[str, Any]]]:
        """Yield the shape and the fields of each of these positions."""
        shape_rows = self.shape_rows[rows]
        widths = self.widths()[shape_rows] if self.shapes else np.zeros(0, np.int64)
        slots = self.values[_slots(self.starts[rows], widths)].tolist()
        end = 0
        for shape_row, width in zip(shape_rows.tolist(), widths.tolist(), strict=True):
            shape = self.shapes[shape_row]
            start, end = end, end + width
            values = slots[start:end]
            if not shape.plain:
                values = [
                    self.value(kind, slot) for kind, slot in zip(shape.kinds, values, strict=True)
                ]
            yield shape, dict(zip(shape.names, values, strict=True))


def _split_of_plain(row: list[str]) -> int:
    """Return where the fields of a row form begin; 0 when it is damaged or has a key twice."""
    if len(row) < 2 or len(row) % 2:
        return 0
    at = split_row(row)
    cells = row[at::2]
    distinct = len({field_key_from_cell(cell) for cell in cells}) == len(cells)
    return at if all(cells) and distinct else 0


def _slots(starts: Int64s, widths: Int64s) -> Int64s:
    """Return the slot numbers of points, one after another."""
    ends = np.cumsum(widths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - widths), widths) + np.arange(total)


def _slot_kind(kind: type) -> SlotKind:
    if issubclass(kind, float):
        return SlotKind.FLOAT
    if kind is bool or not issubclass(kind, (int, type(None))):
        return SlotKind.OBJECT
    return SlotKind.NONE if kind is type(None) else SlotKind.INTEGER


def _us_of(points: Sequence[Point]) -> Int64s:
    present = None
    times: list[datetime] = []
    for point in points:
        time = point._time
        if time is None:
            present = time = present or now()
        times.append(to_utc(time))
    return us_from_datetimes(times)


def _floats_from_cells(cells: list[str]) -> Float64s | None:
    """Return float64[n] of value cells; None when some are an int, None or text."""
    text = "\n".join(cells)
    if text.count(".") != len(cells) and _INTEGER_CELL.search(text):
        return None
    try:
        return np.array(list(map(float, cells)), np.float64)
    except ValueError:
        return None


def _us_from_cells(cells: list[str]) -> Int64s | None:
    """Return int64[n], us since 1970 of time cells; None when one is no time."""
    if set(map(len, cells)) <= _PLAIN_TIMES:
        letters = np.array(cells, "U26").view(np.uint32).reshape(-1, 26)
        fraction = letters[:, 20:]
        digits = (fraction == 0) | ((fraction >= ord("0")) & (fraction <= ord("9")))
        if digits.all() and (letters[:, _SEPARATORS] == _SEPARATOR_LETTERS).all():
            try:
                return np.array(cells, "M8[us]").view(np.int64)
            except ValueError:
                pass  # whatever it is, the slow way says so
    try:
        return us_from_datetimes([time_from_cell(cell) for cell in cells])
    except ValueError:
        return None
