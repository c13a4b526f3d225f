"""Access: how a database reaches the points of its storage. One path, asked by every operation.

    Access          what can be asked; everything follows from `points` and `describe`
      ScanAccess    any Storage: walk over the items, test each Point
        MemoryAccess, CsvAccess   ours: the index knows the positions, only answers are touched
      ColumnarAccess              queries are pushed down (tinyflux.pushdown)

Answers do not depend on which of them is used; tests hold them to that.
"""

# ruff: noqa: SLF001  (the underscored half of Storage, Index and Point is the contract here)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import UTC
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from tinyflux.matching import count_matching, matching_rows
from tinyflux.point import Point
from tinyflux.queries import MeasurementQuery
from tinyflux.storages import CSVStorage, MemoryStorage
from tinyflux.times import datetimes_from_us

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from tinyflux.batch import Int64s
    from tinyflux.changes import Change, State
    from tinyflux.columns import PointColumns
    from tinyflux.index import Index
    from tinyflux.queries import Query
    from tinyflux.storages import Storage

_ITEMS_AT_ONCE: Final = 1000
_GONE: Final = object()


class Key(NamedTuple):
    """What `select` asks for: `time`, `measurement`, or a key of `tags` or `fields`."""

    attribute: str
    name: str = ""

    def of(self, point: Point) -> Any:
        """Return the value in a Point, or None."""
        value = getattr(point, self.attribute)
        return value.get(self.name) if self.attribute in ("tags", "fields") else value


def keys_of(select_keys: object) -> list[Key]:
    """Return what `select` is asked for.

    Raises:
        ValueError: Not a key or an iterable of keys.
    """
    if isinstance(select_keys, str):
        return [_key(select_keys)]
    if not isinstance(select_keys, Iterable):
        raise ValueError("Select keys must be a string or an iterable of strings.")
    return [_key(key) for key in select_keys]


def _key(key: object) -> Key:
    if isinstance(key, str):
        if key in ("time", "measurement"):
            return Key(key)
        attribute, _, name = key.partition(".")
        if attribute in ("tags", "fields") and name:
            return Key(attribute, name)
    raise ValueError(
        f"Invalid select key {key!r}: time, measurement, tags.<key> or fields.<key> is."
    )


class Match(NamedTuple):
    """A point that matches, and the position of its item in the storage."""

    position: int
    point: Point


class Access(ABC):
    """What can be asked of the points of a storage. `measurement` always narrows the question."""

    @abstractmethod
    def points(self, query: Query | None, measurement: str | None) -> Iterator[Point]:
        """Yield the matching points in insertion order; None matches all."""

    @abstractmethod
    def describe(
        self, measurement: str | None
    ) -> Iterable[tuple[Mapping[str, str | None], Iterable[str]]]:
        """Yield the tags and the field keys of all points; repetitions may be left out."""

    @abstractmethod
    def measurements(self) -> set[str]:
        """Return the names of all measurements."""

    @abstractmethod
    def update(self, query: Query | None, measurement: str | None, change: Change) -> int:
        """Change the matching points, all or none; return how many really changed."""

    @abstractmethod
    def remove(self, query: Query | None, measurement: str | None) -> int:
        """Remove the matching points; return how many."""

    def length(self, measurement: str) -> int:
        """Return how many points a measurement has."""
        return self.count(_named(measurement), None)

    def drop(self, measurement: str) -> int:
        """Remove a measurement; return how many points it had."""
        return self.remove(_named(measurement), None)

    def count(self, query: Query | None, measurement: str | None) -> int:
        """Return how many points match."""
        return sum(1 for _ in self.points(query, measurement))

    def first(self, query: Query | None, measurement: str | None) -> Point | None:
        """Return the first matching point in insertion order."""
        return next(self.points(query, measurement), None)

    def contains(self, query: Query | None, measurement: str | None) -> bool:
        """Return whether a point matches."""
        return self.first(query, measurement) is not None

    def select(
        self, keys: Sequence[Key], query: Query | None, measurement: str | None
    ) -> list[tuple[Any, ...]]:
        """Return the values of keys of the matching points, in insertion order."""
        return [tuple(key.of(point) for key in keys) for point in self.points(query, measurement)]

    def tag_keys(self, measurement: str | None) -> set[str]:
        """Return all tag keys."""
        return {key for tags, _ in self.describe(measurement) for key in tags}

    def field_keys(self, measurement: str | None) -> set[str]:
        """Return all field keys."""
        return {key for _, names in self.describe(measurement) for key in names}

    def tag_values(
        self, keys: Sequence[str], measurement: str | None
    ) -> dict[str, set[str | None]]:
        """Return the values of these tags, of all tags when none are named."""
        values: dict[str, set[str | None]] = {key: set() for key in keys}
        for tags, _ in self.describe(measurement):
            for key, value in tags.items():
                if not keys or key in values:
                    values.setdefault(key, set()).add(value)
        return values

    def field_values(self, key: str, measurement: str | None) -> list[Any]:
        """Return all values of a field, in insertion order."""
        points = self.points(None, measurement)
        return [point.fields[key] for point in points if key in point.fields]

    def timestamps(self, measurement: str | None) -> list[datetime]:
        """Return all times in UTC, in insertion order."""
        times = (point.time for point in self.points(None, measurement))
        return [time for time in times if time is not None]


class ScanAccess(Access):
    """Over any Storage, by its item contract alone.

    Args:
        storage: The storage.
        index: Kept in step with the changes made here, if it mirrors the storage.
    """

    def __init__(self, storage: Storage, index: Index) -> None:
        self._storage = storage
        self._index = index

    def matches(self, query: Query | None, measurement: str | None) -> Iterator[Match]:
        """Yield what matches, in insertion order."""
        storage = self._storage
        for position, item in enumerate(storage):
            if measurement and storage._deserialize_measurement(item) != measurement:
                continue
            point = storage._deserialize_storage_item(item)
            if query is None or query(point):
                yield Match(position, point)

    def points(self, query: Query | None, measurement: str | None) -> Iterator[Point]:
        """Yield the matching points in insertion order."""
        return (match.point for match in self.matches(query, measurement))

    def describe(
        self, measurement: str | None
    ) -> Iterable[tuple[Mapping[str, str | None], Iterable[str]]]:
        """Yield the tags and the field keys of each point."""
        return ((point.tags, point.fields) for point in self.points(None, measurement))

    def measurements(self) -> set[str]:
        """Return the names of all measurements."""
        storage = self._storage
        return {storage._deserialize_measurement(item) for item in storage}

    def timestamps(self, measurement: str | None) -> list[datetime]:
        """Return all times in UTC, in insertion order."""
        storage = self._storage
        return [
            time.replace(tzinfo=UTC) if time.tzinfo is None else time
            for item in storage
            if not measurement or storage._deserialize_measurement(item) == measurement
            for time in (storage._deserialize_timestamp(item),)
        ]

    def remove(self, query: Query | None, measurement: str | None) -> int:
        """Remove the matching points; return how many."""
        positions = [match.position for match in self.matches(query, measurement)]
        if positions:
            self._rewrite(dict.fromkeys(positions, _GONE))
            if self._index._complete:
                keep = np.ones(len(self._index._columns), np.bool_)
                keep[positions] = False
                self._index._remove(keep)
        return len(positions)

    def update(self, query: Query | None, measurement: str | None, change: Change) -> int:
        """Change the matching points, all or none; return how many really changed."""
        changed = [
            (match, state)
            for match in self.matches(query, measurement)
            if (state := change(match.point)) is not None
        ]
        if changed:
            self._store_changes(changed)
        return len(changed)

    def _store_changes(self, changed: list[tuple[Match, State]]) -> None:
        before = [_state(match.point) for match, _ in changed]
        try:
            for match, state in changed:
                _set_state(match.point, state)
            self._rewrite(
                {
                    match.position: self._storage._serialize_point(
                        match.point, compact_key_prefixes=False
                    )
                    for match, _ in changed
                }
            )
        except BaseException:
            # A storage may hold these very Points.
            for (match, _), old in zip(changed, before, strict=True):
                _set_state(match.point, old)
            raise
        if self._index._complete:
            positions = np.array([match.position for match, _ in changed], np.int64)
            self._index._replace(positions, self._reread([match.point for match, _ in changed]))

    def _reread(self, points: list[Point]) -> list[Point]:
        """Return the points as the storage will give them back."""
        return points

    def _rewrite(self, changes: dict[int, Any]) -> None:
        """Write all items anew; those at some positions become others, or go."""
        storage = self._storage
        items = (
            item
            for position, stored in enumerate(storage)
            if (item := changes.get(position, stored)) is not _GONE
        )
        batch = list(islice(items, _ITEMS_AT_ONCE))
        if not batch:
            storage.reset()
            return
        while batch:
            storage.append(batch, temporary=True)
            batch = list(islice(items, _ITEMS_AT_ONCE))
        storage._swap_temp_with_primary()


class _IndexAccess(ScanAccess):
    """Over a storage of ours whose index mirrors it: positions come from the index."""

    @property
    def _columns(self) -> PointColumns:
        return self._index._columns

    def _rows(self, query: Query | None, measurement: str | None) -> Int64s | slice:
        return matching_rows(self._columns, _narrowed(query, measurement))

    @abstractmethod
    def _points_at(self, rows: Int64s | slice) -> Sequence[Point]:
        """Return the points at ascending positions."""

    def matches(self, query: Query | None, measurement: str | None) -> Iterator[Match]:
        """Yield what matches, in insertion order."""
        rows = self._rows(query, measurement)
        return map(Match, _positions(rows), self._points_at(rows))

    def points(self, query: Query | None, measurement: str | None) -> Iterator[Point]:
        """Yield the matching points in insertion order."""
        return iter(self._points_at(self._rows(query, measurement)))

    def first(self, query: Query | None, measurement: str | None) -> Point | None:
        """Return the first matching point in insertion order."""
        rows = self._rows(query, measurement)
        if isinstance(rows, slice):
            rows = slice(rows.start, min(rows.start + 1, rows.stop))
        return next(iter(self._points_at(rows if isinstance(rows, slice) else rows[:1])), None)

    def count(self, query: Query | None, measurement: str | None) -> int:
        """Return how many points match. No point is touched."""
        return count_matching(self._columns, _narrowed(query, measurement))

    def contains(self, query: Query | None, measurement: str | None) -> bool:
        """Return whether a point matches."""
        return self.count(query, measurement) > 0

    def describe(
        self, measurement: str | None
    ) -> Iterable[tuple[Mapping[str, str | None], Iterable[str]]]:
        """Yield the tags and the field keys of each shape."""
        return ((shape.tags, shape.names) for shape in self._index._shapes(measurement))

    def measurements(self) -> set[str]:
        """Return the names of all measurements."""
        return {shape.measurement for shape in self._index._shapes(None)}

    def field_values(self, key: str, measurement: str | None) -> list[Any]:
        """Return all values of a field, in insertion order."""
        _, values = self._columns.field_values(key, self._rows(None, measurement))
        return values

    def timestamps(self, measurement: str | None) -> list[datetime]:
        """Return all times in UTC, in insertion order."""
        return datetimes_from_us(self._columns.times[self._rows(None, measurement)])


class MemoryAccess(_IndexAccess):
    """Over a MemoryStorage: the stored Points themselves."""

    _storage: MemoryStorage

    def _points_at(self, rows: Int64s | slice) -> Sequence[Point]:
        memory = self._storage._memory
        if isinstance(rows, slice):
            return memory[rows]
        return [memory[row] for row in rows.tolist()]


class CsvAccess(_IndexAccess):
    """Over a CSVStorage: the index holds all of a row, so the file is not read again."""

    _storage: CSVStorage

    def _points_at(self, rows: Int64s | slice) -> Sequence[Point]:
        return self._columns.points(rows)

    def _rewrite(self, changes: dict[int, Any]) -> None:
        n_rows = len(self._columns)
        if len(changes) == n_rows and all(item is _GONE for item in changes.values()):
            self._storage.reset()
            return
        rows = {row: None if item is _GONE else item for row, item in changes.items()}
        if not self._storage._rewrite_rows(rows, n_rows):
            super()._rewrite(changes)

    def _reread(self, points: list[Point]) -> list[Point]:
        return [Point()._deserialize_from_list(point._serialize_to_list()) for point in points]

    def select(
        self, keys: Sequence[Key], query: Query | None, measurement: str | None
    ) -> list[tuple[Any, ...]]:
        """Return the values of keys of the matching points, in insertion order."""
        rows = self._rows(query, measurement)
        if not keys:
            return [()] * len(self._columns.times[rows])
        return list(zip(*(self._values(key, rows) for key in keys), strict=True))

    def _values(self, key: Key, rows: Int64s | slice) -> Sequence[Any]:
        columns = self._columns
        if key.attribute == "time":
            return datetimes_from_us(columns.times[rows])
        if key.attribute == "fields":
            places, found = columns.field_values(key.name, rows)
            if len(places) == len(columns.times[rows]):
                return found
            values: list[Any] = [None] * len(columns.times[rows])
            for place, value in zip(places.tolist(), found, strict=True):
                values[place] = value
            return values
        of_shape: list[str | None] = [
            shape.measurement if key.attribute == "measurement" else shape.tags.get(key.name)
            for shape in columns.shapes
        ]
        return [of_shape[number] for number in columns.shape_rows[rows].tolist()]


_ITEM_CONTRACT = (
    "__iter__",
    "__len__",
    "append",
    "read",
    "reset",
    "_deserialize_measurement",
    "_deserialize_timestamp",
    "_deserialize_storage_item",
    "_serialize_point",
    "_swap_temp_with_primary",
    "_write",
)


def access_class(storage: Storage) -> type[ScanAccess]:
    """Return the quickest access that sees whatever a subclass of ours overrides."""
    kind = type(storage)
    ours: Sequence[tuple[type[Storage], type[ScanAccess]]] = (
        (MemoryStorage, MemoryAccess),
        (CSVStorage, CsvAccess),
    )
    for base, access in ours:
        if all(getattr(kind, name) is getattr(base, name, None) for name in _ITEM_CONTRACT):
            plain = not isinstance(storage, CSVStorage) or storage._is_plain
            return access if plain else ScanAccess
    return ScanAccess


def _narrowed(query: Query | None, measurement: str | None) -> Query | None:
    if not measurement:
        return query
    own = _named(measurement)
    return own if query is None else own & query


def _named(measurement: object) -> Query:
    if isinstance(measurement, str):
        return MeasurementQuery() == measurement
    return MeasurementQuery().test(lambda name: bool(name == measurement))  # no name is that


def _positions(rows: Int64s | slice) -> Iterable[int]:
    return range(rows.start, rows.stop) if isinstance(rows, slice) else rows.tolist()


def _state(point: Point) -> tuple[Any, ...]:
    return point._time, point._measurement, point._tags, point._fields


def _set_state(point: Point, state: Iterable[Any]) -> None:
    # Not by the checking properties: a store may hold text and booleans.
    point._time, point._measurement, point._tags, point._fields = state
