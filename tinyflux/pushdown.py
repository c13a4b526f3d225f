"""The TinyFlux API over a columnar storage: queries go down to it, Points are made only of answers.

    ColumnarAccess      what a database asks (see tinyflux.access), said in scans and rewrites
    StorageIndex        the Index of such a database: the storage is its own, so it is always valid
    batch_from_points   Points -> PointBatch, with the number rules of the API

What differs from other storages: insertion order is the order of iteration (measurement, series,
time); a column has one type, so an int in a float column becomes a float and a value that does not
fit raises FieldTypeConflict; times lie within int64 nanoseconds.
"""

# ruff: noqa: SLF001  (reads the inside of Points)

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tinyflux.access import Access, Key
from tinyflux.batch import (
    MAX_TIME_NS,
    MIN_TIME_NS,
    BatchBuilder,
    FieldType,
    PointBatch,
    field_type_of,
    series_key,
)
from tinyflux.columnar.base import Replacement, ScanRequest
from tinyflux.columnar.points import present_values, to_points
from tinyflux.columnar.scan import filter_rows
from tinyflux.errors import FieldTypeConflict
from tinyflux.index import Index, IndexResult
from tinyflux.queries import CompoundQuery, FieldQuery, SimpleQuery
from tinyflux.times import (
    datetime_from_us,
    datetimes_from_us,
    us_from_datetime,
    us_from_datetimes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from tinyflux.batch import FieldLayout, FieldValue, Int64s
    from tinyflux.changes import Change
    from tinyflux.columnar.base import ColumnarStorage, Frame, Reader
    from tinyflux.point import Point
    from tinyflux.queries import Query


_UNKNOWN: Final[Any] = object()
_NUMBERS: Final = (FieldType.FLOAT, FieldType.INTEGER)
_FLOAT: Final = struct.Struct("=d")
_INTEGER: Final = struct.Struct("=q")


class ColumnarAccess(Access):
    """Over a columnar storage. A question reads one snapshot."""

    def __init__(self, storage: ColumnarStorage) -> None:
        self._storage = storage

    def points(self, query: Query | None, measurement: str | None) -> Iterator[Point]:
        """Yield the matching points in the order of the storage."""
        for frame in self._frames(query, measurement):
            yield from to_points(frame)

    def count(self, query: Query | None, measurement: str | None) -> int:
        """Return how many points match."""
        return sum(len(frame) for frame in self._frames(query, measurement, ()))

    def contains(self, query: Query | None, measurement: str | None) -> bool:
        """Return whether a point matches."""
        return next(self._frames(query, measurement, ()), None) is not None

    def first(self, query: Query | None, measurement: str | None) -> Point | None:
        """Return the first matching point in the order of the storage."""
        frame = next(self._frames(query, measurement), None)
        return None if frame is None else to_points(filter_rows(frame, _only_first(len(frame))))[0]

    def select(
        self, keys: Sequence[Key], query: Query | None, measurement: str | None
    ) -> list[tuple[Any, ...]]:
        """Return the values of keys of the matching points, in the order of the storage."""
        fields = tuple({key.name for key in keys if key.attribute == "fields"})
        rows: list[tuple[Any, ...]] = []
        for frame in self._frames(query, measurement, fields):
            columns = [_values(frame, key) for key in keys]
            rows += zip(*columns, strict=True) if columns else [()] * len(frame)
        return rows

    def describe(
        self, measurement: str | None
    ) -> Iterable[tuple[Mapping[str, str | None], Iterable[str]]]:
        """Yield the tags and the field keys of each series."""
        for name in self._names(self._storage.snapshot(), measurement):
            series = self._storage.series(name)
            names = self.field_keys(name)
            for number in range(len(series)):
                yield series.tags(number), names

    def measurements(self) -> set[str]:
        """Return the names of all measurements that have points."""
        names = self._storage.measurements()
        return {name for name in names if self.contains(None, name)}

    def tag_keys(self, measurement: str | None) -> set[str]:
        """Return all tag keys, from the index."""
        reader = self._storage.snapshot()
        return {
            key
            for name in self._names(reader, measurement)
            for key, column in reader.series(name).columns.items()
            if (column.codes >= 0).any()
        }

    def field_keys(self, measurement: str | None) -> set[str]:
        """Return the field keys that points have. A key without any costs a scan of its column."""
        return {
            key
            for name in self._names(self._storage.snapshot(), measurement)
            for key in self._storage.field_keys(name)
            if self.contains(FieldQuery()[key].exists(), name)
        }

    def tag_values(
        self, keys: Sequence[str], measurement: str | None
    ) -> dict[str, set[str | None]]:
        """Return the values of these tags, of all tags when none are named. From the index."""
        values: dict[str, set[str | None]] = {key: set() for key in keys}
        reader = self._storage.snapshot()
        for name in self._names(reader, measurement):
            for key, column in reader.series(name).columns.items():
                codes = np.unique(column.codes[column.codes >= 0]).tolist()
                if codes and (not keys or key in values):
                    values.setdefault(key, set()).update(column.values[code] for code in codes)
        return values

    def field_values(self, key: str, measurement: str | None) -> list[Any]:
        """Return all values of a field, in the order of the storage."""
        values: list[Any] = []
        for frame in self._frames(None, measurement, (key,)):
            if key in frame.columns:
                values += present_values(frame.columns[key], np.arange(len(frame)))[1]
        return values

    def timestamps(self, measurement: str | None) -> list[datetime]:
        """Return all times in UTC, in the order of the storage."""
        frames = self._frames(None, measurement, ())
        return [time for frame in frames for time in datetimes_from_us(frame.times // 1000)]

    def drop(self, measurement: str) -> int:
        """Remove a measurement with its field types; return how many points it had."""
        count = self.count(None, measurement) if measurement in self._storage.measurements() else 0
        self._storage.drop_measurement(measurement)
        return count

    def remove(self, query: Query | None, measurement: str | None) -> int:
        """Remove the matching points; return how many."""
        return self._storage.rewrite(
            self._requests(self._storage, query, measurement),
            lambda frame: Replacement(np.ones(len(frame), np.bool_)),
        )

    def update(self, query: Query | None, measurement: str | None, change: Change) -> int:
        """Change the matching points, all or none; return how many really changed."""
        columns = _Columns(self._storage)

        def changed(frame: Frame) -> Replacement | None:
            out = np.zeros(len(frame), np.bool_)
            builder = BatchBuilder()
            for row, (point, ns) in enumerate(
                zip(to_points(frame), frame.times.tolist(), strict=True)
            ):
                state = change(point)
                if state is not None:
                    out[row] = True
                    # Only a new time loses the nanoseconds.
                    if state.time != point.time:
                        ns = us_from_datetime(state.time) * 1000  # noqa: PLW2901
                    key = series_key(state.measurement, state.tags.items())
                    builder.add(key, ns, columns.fitted(state.measurement, state.fields))
            return Replacement(out, builder.build()) if out.any() else None

        return self._storage.rewrite(self._requests(self._storage, query, measurement), changed)

    def _frames(
        self, query: Query | None, measurement: str | None, fields: tuple[str, ...] | None = None
    ) -> Iterator[Frame]:
        reader = self._storage.snapshot()
        for request in self._requests(reader, query, measurement, fields):
            yield from reader.scan(request)

    def _requests(
        self,
        reader: Reader,
        query: Query | None,
        measurement: str | None,
        fields: tuple[str, ...] | None = None,
    ) -> list[ScanRequest]:
        names = self._names(reader, measurement)
        pushed = None if query is None else _balanced(query)
        return [ScanRequest(name, pushed, fields=fields) for name in names]

    @staticmethod
    def _names(reader: Reader, measurement: str | None) -> list[str]:
        names = reader.measurements()
        return [name for name in names if name == measurement] if measurement else names


class StorageIndex(Index):
    """The index of a database over a columnar storage: what the storage says. Always valid."""

    def __init__(self, storage: ColumnarStorage) -> None:
        super().__init__(valid=True)
        self._storage = storage
        self._access = ColumnarAccess(storage)

    @property
    def valid(self) -> bool:
        """True: the storage keeps its own index, whatever the order of times."""
        return True

    def __len__(self) -> int:
        return len(self._storage)

    @property
    def latest_time(self) -> datetime:
        """The latest time of all points.

        Raises:
            IndexError: There are none.
        """
        latest = [
            int(frame.times.max())
            for name in self._storage.measurements()
            for frame in self._storage.scan(ScanRequest(name, fields=()))
        ]
        if not latest:
            raise IndexError("the index is empty")
        return datetime_from_us(max(latest) // 1000)

    def build(self, points: Iterable[Point]) -> None:
        """Do nothing: the storage is its own index."""

    def insert(self, points: Sequence[Point] = ()) -> None:
        """Do nothing: the storage is its own index."""

    def invalidate(self) -> None:
        """Do nothing: the storage is its own index."""

    def remove(self, r_items: set[int]) -> None:
        """Do nothing: the storage is its own index."""

    def update(self, u_items: Mapping[int, int]) -> None:
        """Do nothing: the storage is its own index."""

    def search(self, query: Query) -> IndexResult:
        """Return the positions, in the order of the storage, of the points that match.

        Raises:
            TypeError: Not a SimpleQuery or CompoundQuery.
        """
        if not isinstance(query, (SimpleQuery, CompoundQuery)):
            raise TypeError("Query must be SimpleQuery or CompoundQuery.")
        answers = [query(point) for point in self._access.points(None, None)]
        return IndexResult({i for i, matches in enumerate(answers) if matches}, len(answers))

    def get_measurements(self) -> set[str]:
        """Return the names of all measurements."""
        return self._access.measurements()

    def get_tag_keys(self, measurement: str | None = None) -> set[str]:
        """Return all tag keys, of one measurement if it is given."""
        return self._access.tag_keys(measurement)

    def get_field_keys(self, measurement: str | None = None) -> set[str]:
        """Return all field keys, of one measurement if it is given."""
        return self._access.field_keys(measurement)

    def get_tag_values(
        self, tag_keys: Iterable[str] = (), measurement: str | None = None
    ) -> dict[str, set[str | None]]:
        """Return the values of tags; see `Index.get_tag_values`."""
        return self._access.tag_values(list(tag_keys), measurement)

    def get_field_values(self, field_key: str, measurement: str | None = None) -> list[Any]:
        """Return all values of a field in the order of the storage."""
        return self._access.field_values(field_key, measurement)

    def get_timestamps(self, measurement: str | None = None) -> list[float]:
        """Return all times in the order of the storage, as seconds since 1970."""
        return [time.timestamp() for time in self._access.timestamps(measurement)]


class _Columns:
    """The types of the columns that values have to fit."""

    def __init__(self, storage: ColumnarStorage) -> None:
        self._storage = storage
        self._types: dict[str, dict[str, FieldType]] = {}

    def fitted(self, measurement: str, fields: Mapping[str, Any]) -> list[tuple[str, FieldValue]]:
        """Return fields with their numbers in the types of the columns.

        Raises:
            FieldTypeConflict: A value that its column cannot hold.
        """
        types = self.types(measurement)
        return [(key, _fit(key, value, types)) for key, value in fields.items()]

    def types(self, measurement: str) -> dict[str, FieldType]:
        """Return the types of the columns, also of those that `fitted` has met first."""
        types = self._types.get(measurement)
        if types is None:
            types = self._types[measurement] = dict(self._storage.field_keys(measurement))
        return types


def _fit(key: str, value: Any, types: dict[str, FieldType]) -> FieldValue:
    if value is None:
        return None
    kind = field_type_of(value)
    column = types.get(key, FieldType.NONE)
    if column is FieldType.NONE:
        # The API knows numbers only: a new column must take whatever number comes next.
        column = types[key] = FieldType.FLOAT if kind is FieldType.INTEGER else kind
    if column is kind:
        return value  # type: ignore[no-any-return]
    if column is FieldType.FLOAT and kind is FieldType.INTEGER:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"integer field value is beyond a float: field {key!r}") from None
    if column is FieldType.INTEGER and kind is FieldType.FLOAT and value.is_integer():
        return int(value)
    raise FieldTypeConflict(
        f"field type conflict: field {key!r} is {column.name.lower()}, not {kind.name.lower()}"
    )


def batch_from_points(points: Sequence[Point], storage: ColumnarStorage) -> PointBatch:
    """Return Points as a batch that a storage takes as a whole. About 2 us a point.

    Args:
        points: Points with times in UTC.
        storage: Its columns say which type a number gets.

    Raises:
        FieldTypeConflict: A value that its column cannot hold.
        ValueError: A time outside int64 nanoseconds, or a number outside its type.
    """
    series: dict[tuple[str, tuple[tuple[str, str | None], ...]], int] = {}
    key_rows: list[int] = []
    fields = _FieldSlots(storage)
    times: list[datetime] = []
    for point in points:
        assert point._time is not None  # an insert gave it one
        times.append(point._time)
        name = (point._measurement, tuple(point._tags.items()))
        key_rows.append(series.setdefault(name, len(series)))
        fields.add(point._measurement, point._fields)
    keys: dict[bytes, int] = {}  # tags in another order are the same series
    key_of = [keys.setdefault(series_key(*name), len(keys)) for name in series]
    return PointBatch(
        list(keys),
        np.array(key_of, np.int32)[key_rows] if key_rows else np.zeros(0, np.int32),
        _ns_from_datetimes(times),
        list(fields.layouts),
        np.array(fields.layout_rows, np.int32),
        np.frombuffer(b"".join(fields.slots), np.int64),
        fields.strings,
    )


class _FieldSlots:
    """Packs field sets into slots; those of equal keys and value types are packed one way."""

    def __init__(self, storage: ColumnarStorage) -> None:
        self.layouts: dict[FieldLayout, int] = {}
        self.layout_rows: list[int] = []
        self.slots: list[bytes] = []
        self.strings: list[str] = []
        self._columns = _Columns(storage)
        self._ways: dict[object, tuple[int, Callable[..., bytes]] | None] = {}

    def add(self, measurement: str, fields: dict[str, Any]) -> None:
        values = fields.values()
        shape = (measurement, tuple(fields), tuple(map(type, values)))
        way = self._ways.get(shape, _UNKNOWN)
        if way is _UNKNOWN:
            way = self._ways[shape] = self._way(measurement, fields)
        if way is None:
            self._add_fitted(self._columns.fitted(measurement, fields))
            return
        layout, pack = way
        try:
            self.slots.append(pack(*values))
        except (struct.error, OverflowError):
            raise ValueError("integer field value is outside the range of its column") from None
        self.layout_rows.append(layout)

    def _way(
        self, measurement: str, fields: dict[str, Any]
    ) -> tuple[int, Callable[..., bytes]] | None:
        """Return how field sets like this one are packed; None when it depends on the values."""
        self._columns.fitted(measurement, fields)  # refuses, and settles the types of new columns
        types = self._columns.types(measurement)
        layout = tuple((key, types.get(key, FieldType.NONE)) for key in fields)
        for (_, column), value in zip(layout, fields.values(), strict=True):
            same = type(value) is float and column is FieldType.FLOAT
            if not same and not (type(value) is int and column in _NUMBERS):
                return None
        codes = "".join("d" if column is FieldType.FLOAT else "q" for _, column in layout)
        return self._number(layout), struct.Struct("=" + codes).pack

    def _number(self, layout: FieldLayout) -> int:
        return self.layouts.setdefault(layout, len(self.layouts))

    def _add_fitted(self, fields: list[tuple[str, FieldValue]]) -> None:
        layout = tuple((key, field_type_of(value)) for key, value in fields)
        packed = [b""]
        for _, value in fields:
            if isinstance(value, float):
                packed.append(_FLOAT.pack(value))
            elif isinstance(value, str):
                packed.append(_INTEGER.pack(len(self.strings)))
                self.strings.append(value)
            else:
                packed.append(_INTEGER.pack(0 if value is None else value))
        self.layout_rows.append(self._number(layout))
        self.slots.append(b"".join(packed))


def _ns_from_datetimes(times: list[datetime]) -> Int64s:
    us = us_from_datetimes(times)
    limit = MAX_TIME_NS // 1000
    if len(us) and (us.min() < -limit or us.max() > limit):
        raise ValueError(f"time outside range {MIN_TIME_NS} - {MAX_TIME_NS}")
    return us * 1000


def _balanced(query: Query) -> Query:
    """Return the same query with long chains of operands as flat trees: storages recurse."""
    if isinstance(query, SimpleQuery):
        return query
    if query.query2 is None:
        return ~_balanced(query.query1)
    parts = [_balanced(operand) for operand in query.operands]
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        odd = parts[-1:] if len(parts) % 2 else []
        parts = [query.operator(first, second) for first, second in pairs] + odd
    return parts[0]


def _only_first(n: int) -> Any:
    mask = np.zeros(n, np.bool_)
    mask[0] = True
    return mask


def _values(frame: Frame, key: Key) -> Sequence[Any]:
    if key.attribute == "time":
        return datetimes_from_us(frame.times // 1000)
    if key.attribute == "measurement":
        return [frame.series.measurement] * len(frame)
    if key.attribute == "tags":
        column = frame.series.columns.get(key.name)
        if column is None:
            return [None] * len(frame)
        of_series = [column.values[code] if code >= 0 else None for code in column.codes.tolist()]
        return [of_series[number] for number in frame.series_rows().tolist()]
    values: list[Any] = [None] * len(frame)
    if key.name in frame.columns:
        places, found = present_values(frame.columns[key.name], np.arange(len(frame)))
        for place, value in zip(places.tolist(), found, strict=True):
            values[place] = value
    return values
