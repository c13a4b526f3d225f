"""TinyFlux: the database. It opens a storage, keeps its index, and answers.

Every operation is three steps: may the storage do it (`tinyflux.operations`), ask the
storage through an Access (`tinyflux.access`), give the answer its form. One lock orders all
operations of a database, so threads may share it.

When the index is valid, and what makes it so, is decided here; what it contains is its own matter.
"""

# ruff: noqa: SLF001  (the underscored half of Storage and Index is the contract here)

from __future__ import annotations

import threading
from contextlib import nullcontext
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

from tinyflux.access import Access, CsvAccess, ScanAccess, access_class, keys_of
from tinyflux.batch import PointBatch
from tinyflux.changes import Change
from tinyflux.columnar.base import ColumnarStorage, WriteResult
from tinyflux.downsample import downsample
from tinyflux.errors import FieldTypeConflict
from tinyflux.export import to_arrow, to_columns, to_pandas
from tinyflux.index import Index
from tinyflux.measurement import Measurement
from tinyflux.operations import append_op, demand, read_op, temp_storage_op, write_op
from tinyflux.point import Point
from tinyflux.pushdown import ColumnarAccess, StorageIndex, batch_from_points
from tinyflux.queries import CompoundQuery, SimpleQuery
from tinyflux.storages import CSVStorage, Storage
from tinyflux.times import now, to_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta
    from types import TracebackType

    from tinyflux.changes import FieldsUpdate, MeasurementUpdate, TagsUpdate, TimeUpdate
    from tinyflux.downsample import Calls
    from tinyflux.queries import Query

__all__ = ["TinyFlux", "append_op", "read_op", "temp_storage_op", "write_op"]


class TinyFlux:
    """A time series database over a storage.

    Usage:
        >>> from tinyflux import FieldQuery, MemoryStorage, Point, TinyFlux
        >>> db = TinyFlux(storage=MemoryStorage)
        >>> db.insert(Point(measurement="air", tags={"city": "LA"}, fields={"aqi": 112}))
        1
        >>> db.count(FieldQuery().aqi > 100)
        1

    Args:
        args: For the storage class.
        auto_index: Build the index at once, and again by itself when a read needs it.
        storage: The storage class; CSVStorage when not given.
        kwargs: For the storage class.

    Raises:
        TypeError: `auto_index` is no bool, or whatever the storage class raises.
        OSError: Points are there, and the storage cannot be read for the index.
    """

    default_measurement_name: ClassVar[str] = "_default"
    default_storage_class: ClassVar[type[Storage]] = CSVStorage

    def __init__(self, *args: Any, auto_index: bool = True, **kwargs: Any) -> None:
        storage_class = kwargs.pop("storage", self.default_storage_class)
        self._lock = threading.RLock()
        self._storage: Storage = storage_class(*args, **kwargs)
        # Readers of a columnar storage have snapshots; they wait for nobody.
        self._is_columnar = isinstance(self._storage, ColumnarStorage)
        self._read_lock = nullcontext() if self._is_columnar else self._lock
        try:
            if not isinstance(auto_index, bool):
                raise TypeError("'auto_index' must be True/False.")
            self._auto_index = auto_index
            self._measurements: dict[str, Measurement] = {}
            self._access_class = access_class(self._storage)
            self._index = self._open_index()
        except BaseException:
            self._storage.close()
            raise

    def _open_index(self) -> Index:
        if isinstance(self._storage, ColumnarStorage):
            return StorageIndex(self._storage)
        empty = getattr(self._storage, "_initially_empty", None)
        if len(self._storage) == 0 if empty is None else empty:
            return Index(valid=True)
        self._index = Index(valid=False)
        if self._auto_index:
            demand(self._storage.can_read, "read")
            self._build_index()
        return self._index

    def __enter__(self) -> TinyFlux:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        with self._read_lock:
            if self._index.valid and not self._is_columnar:
                return len(self._index)
            return len(self._storage)

    def _length(self, measurement: str) -> int:
        """Return the number of points of a measurement, in any state."""
        with self._read_lock:
            return self._access().length(measurement)

    def __iter__(self) -> Iterator[Point]:
        """Yield all Points of now in insertion order; what is written later does not show."""
        with self._read_lock:
            storage = self._storage
            items = iter(storage)
        return (storage._deserialize_storage_item(item) for item in items)

    def __repr__(self) -> str:
        auto, valid = self._auto_index, self._index.valid
        count = f"all_points_count={len(self)}, " if auto and valid else ""
        return f"<TinyFlux {count}auto_index_ON={auto}, index_valid={valid}>"

    @property
    def storage(self) -> Storage:
        """The storage."""
        return self._storage

    @property
    def index(self) -> Index:
        """The index."""
        return self._index

    def close(self) -> None:
        """Close the storage; called twice it does nothing."""
        with self._lock:
            self._storage.close()

    def measurement(self, name: str, **kwargs: Any) -> Measurement:
        """Return the Measurement of a name: one object each. It need not have points.

        Args:
            name: Its name.
            kwargs: For the Measurement class.
        """
        with self._lock:
            found = self._measurements.get(name)
            if found is None or kwargs:
                found = self._measurements[name] = Measurement(name, self, **kwargs)
            return found

    def reindex(self) -> None:
        """Make the index valid. On a valid one it says so on standard output.

        Raises:
            OSError: The storage cannot be read.
        """
        with self._lock:
            if self._index.valid:
                print("Index already valid.")  # noqa: T201  # the API promises it
                return
            demand(self._storage.can_read, "read")
            self._build_index()

    # Writing

    def insert(
        self, point: Point, measurement: str | None = None, compact_key_prefixes: bool = False
    ) -> int:
        """Insert a Point. Its time becomes UTC, or now; that shows in the Point.

        Args:
            point: The Point.
            measurement: Overwrites that of the Point.
            compact_key_prefixes: Write short key cells, where the storage knows any.

        Returns:
            1.

        Raises:
            TypeError: Not a Point.
            OSError: The storage cannot be appended to.
        """
        return self._insert([point], measurement, compact_key_prefixes)

    def insert_multiple(
        self,
        points: Iterable[Any],
        measurement: str | None = None,
        compact_key_prefixes: bool = False,
        batch_size: int = 1000,
    ) -> int:
        """Insert Points, a batch at a time. A batch is stored as a whole or not at all.

        Args:
            points: Points; a generator is read as it goes. A PointBatch is taken too, as it is.
            measurement: Overwrites that of the Points.
            compact_key_prefixes: Write short key cells, where the storage knows any.
            batch_size: How many points the storage gets at once.

        Returns:
            How many were inserted.

        Raises:
            TypeError: Not an iterable, or not a Point in it; earlier batches stay.
            ValueError: A `batch_size` below 1.
            FieldTypeConflict: A point of a PointBatch that a column refuses; the others are stored.
            OSError: The storage cannot be appended to.
        """
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        if isinstance(points, PointBatch) and self._is_columnar and not measurement:
            return self._insert_whole_batch(points)
        source = iter(points)
        stamp = now()
        count = self._insert([], measurement, compact_key_prefixes)
        while batch := list(islice(source, batch_size)):
            count += self._insert(batch, measurement, compact_key_prefixes, stamp)
        return count

    def _insert_whole_batch(self, batch: PointBatch) -> int:
        result = self.insert_batch(batch)
        if result.rejected:
            raise FieldTypeConflict(result.rejected[0].reason)
        return result.stored

    def insert_batch(self, batch: PointBatch) -> WriteResult:
        """Insert a PointBatch as it is; the quick way into a columnar storage.

        Returns:
            How many points were stored, and which were rejected (of another type than their field).

        Raises:
            OSError: The storage cannot be appended to.
        """
        with self._lock:
            demand(self._storage.can_append, "appended to")
            if isinstance(self._storage, ColumnarStorage):
                return self._storage.append_batch(batch)
            return WriteResult(self.insert_multiple(batch))

    @append_op
    def _insert(
        self,
        points: list[Point],
        measurement: str | None,
        compact: bool,
        stamp: datetime | None = None,
    ) -> int:
        for point in points:
            if not isinstance(point, Point):
                raise TypeError("Data must be a Point instance.")
        moment = stamp if stamp is not None else now()
        times = [_prepare(point, measurement, moment) for point in points]
        if not points:
            return 0
        storage = self._storage
        if isinstance(storage, ColumnarStorage):
            result = storage.append_batch(batch_from_points(points, storage))
            if result.rejected:  # a writer beside this database made a column in between
                raise FieldTypeConflict(result.rejected[0].reason)
            return len(points)
        items = [storage._serialize_point(point, compact_key_prefixes=compact) for point in points]
        storage.append(items)
        self._index_stored(points, items, times)
        return len(points)

    def _index_stored(self, points: list[Point], items: list[Any], times: list[datetime]) -> None:
        index = self._index
        if index._complete:
            rows = self._access_class is CsvAccess
            index._add_stored(items if rows else points, times, rows=rows)
        if not self._auto_index:
            index._valid = False

    # Reading

    @read_op
    def all(self, sorted: bool = True) -> list[Point]:
        """Return all Points.

        Args:
            sorted: By time, ties in insertion order; otherwise in insertion order.
        """
        access = self._access()
        points = self._storage.read() if type(access) is ScanAccess else access.points(None, None)
        return _in_order(points, by_time=sorted)

    @read_op
    def search(
        self, query: Query, measurement: str | None = None, sorted: bool = True
    ) -> list[Point]:
        """Return the Points that match a query.

        Args:
            query: The query.
            measurement: Only of this one.
            sorted: By time, ties in insertion order; otherwise in insertion order.

        Raises:
            ValueError: Not a query.
        """
        if not isinstance(query, (SimpleQuery, CompoundQuery)):
            raise ValueError("Query must be SimpleQuery or CompoundQuery.")
        return _in_order(self._access().points(query, measurement), by_time=sorted)

    @read_op
    def get(self, query: Query, measurement: str | None = None) -> Point | None:
        """Return the first Point in insertion order that matches a query, or None.

        Args:
            query: The query.
            measurement: Only of this one.

        Raises:
            TypeError: Not a query.
        """
        return self._access().first(_checked(query), measurement)

    @read_op
    def contains(self, query: Query, measurement: str | None = None) -> bool:
        """Return whether a Point matches a query.

        Args:
            query: The query.
            measurement: Only of this one.

        Raises:
            TypeError: Not a query.
        """
        return self._access().contains(_checked(query), measurement)

    @read_op
    def count(self, query: Query, measurement: str | None = None) -> int:
        """Return how many Points match a query.

        Args:
            query: The query.
            measurement: Only of this one.

        Raises:
            TypeError: Not a query.
        """
        return self._access().count(_checked(query), measurement)

    @read_op
    def select(
        self, select_keys: str | Iterable[str], query: Query, measurement: str | None = None
    ) -> list[Any]:
        """Return values of the Points that match a query, in insertion order.

        Args:
            select_keys: `time`, `measurement`, `tags.<key>`, `fields.<key>`; one, or several.
            query: The query.
            measurement: Only of this one.

        Returns:
            For one key its values; for several, tuples. What a Point lacks is None.

        Raises:
            ValueError: A key of another form.
            TypeError: Not a query.
        """
        keys = keys_of(select_keys)
        rows = self._access().select(keys, _checked(query), measurement)
        return [value for (value,) in rows] if len(keys) == 1 else rows

    @read_op
    def get_measurements(self) -> list[str]:
        """Return the names of all measurements, sorted."""
        return sorted(self._access().measurements())

    @read_op
    def get_tag_keys(self, measurement: str | None = None) -> list[str]:
        """Return all tag keys, sorted; those of one measurement if it is given."""
        return sorted(self._access().tag_keys(measurement))

    @read_op
    def get_tag_values(
        self, tag_keys: Iterable[str] = (), measurement: str | None = None
    ) -> dict[str, list[str | None]]:
        """Return the values of tags, sorted, None last.

        Args:
            tag_keys: Which tags; each of them has an entry in the answer. None given is all.
            measurement: Only of this one.
        """
        found = self._access().tag_values(list(tag_keys), measurement)
        return {
            key: sorted(values, key=lambda value: (value is None, value or ""))
            for key, values in found.items()
        }

    @read_op
    def get_field_keys(self, measurement: str | None = None) -> list[str]:
        """Return all field keys, sorted; those of one measurement if it is given."""
        return sorted(self._access().field_keys(measurement))

    @read_op
    def get_field_values(self, field_key: str, measurement: str | None = None) -> list[Any]:
        """Return all values of a field in insertion order, also None.

        Args:
            field_key: The field.
            measurement: Only of this one.
        """
        return self._access().field_values(field_key, measurement)

    @read_op
    def get_timestamps(self, measurement: str | None = None) -> list[datetime]:
        """Return all times in insertion order, in UTC; those of one measurement if it is given."""
        return self._access().timestamps(measurement)

    # Beyond the TinyFlux API

    @read_op
    def aggregate(
        self,
        calls: Calls,
        query: Query | None = None,
        measurement: str | None = None,
        *,
        every: timedelta | None = None,
        by: Iterable[str] = (),
    ) -> list[Point]:
        """Return functions of fields over windows of time, as Points; an extension.

        The Points have the start of their window as time (1970 when there is one window), the
        grouping tags, and the results as fields: they can be inserted again.

        Usage:
            >>> from datetime import datetime, timedelta, timezone
            >>> from tinyflux import MemoryStorage, Point, TinyFlux
            >>> db = TinyFlux(storage=MemoryStorage)
            >>> noon = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
            >>> for minute in range(90):
            ...     at = noon + timedelta(minutes=minute)
            ...     _ = db.insert(Point(time=at, tags={"city": "LA"}, fields={"t": minute}))
            >>> hourly = db.aggregate(
            ...     {"mean": ("mean", "t"), "p90": ("percentile", "t", 90)},
            ...     every=timedelta(hours=1),
            ...     by=["city"],
            ... )
            >>> [point.fields for point in hourly]
            [{'mean': 29.5, 'p90': 53.0}, {'mean': 74.5, 'p90': 86.0}]

        Args:
            calls: Names of results to (function, field, arguments ...). The functions are those of
                InfluxQL: count, sum, mean, min, max, first, last, median, percentile, ...
            query: Only matching Points.
            measurement: Only of this one; otherwise each gives Points of its own.
            every: The length of a window; None is one window over everything.
            by: Tag keys; Points of equal values form a group.

        Raises:
            ValueError: An unknown function, one that does not take the field, or no call.
        """
        checked = None if query is None else _checked(query)
        return downsample(self._storage, self._access(), calls, checked, measurement, every, by)

    @read_op
    def to_pandas(self, query: Query | None = None, measurement: str | None = None) -> Any:
        """Return Points as a pandas DataFrame; an extension.

        Args:
            query: Only matching Points; None is all.
            measurement: Only of this one.

        Returns:
            Columns `time`, `measurement`, `tags.<key>` and `fields.<key>`, in insertion order.

        Raises:
            ImportError: pandas is not installed.
        """
        checked = None if query is None else _checked(query)
        return to_pandas(to_columns(self._access(), checked, measurement))

    @read_op
    def to_arrow(self, query: Query | None = None, measurement: str | None = None) -> Any:
        """Return Points as an Arrow table; an extension. See `to_pandas`.

        Raises:
            ImportError: pyarrow is not installed.
        """
        checked = None if query is None else _checked(query)
        return to_arrow(to_columns(self._access(), checked, measurement))

    # Changing

    def update(
        self,
        query: Query | None,
        time: TimeUpdate | None = None,
        measurement: MeasurementUpdate | None = None,
        tags: TagsUpdate | None = None,
        fields: FieldsUpdate | None = None,
        unset_fields: str | Iterable[str] | None = None,
        unset_tags: str | Iterable[str] | None = None,
        _measurement: str | None = None,
    ) -> int:
        """Update the Points that match a query; all of them or, when something raises, none.

        Args:
            query: The query.
            time: A time, or a function of the old one.
            measurement: A name, or a function of the old one.
            tags: Tags to merge in, or a function of a copy of the old ones that returns them.
            fields: Fields to merge in, or a function of a copy of the old ones that returns them.
            unset_fields: Field keys to take away, after the merge.
            unset_tags: Tag keys to take away, after the merge.
            _measurement: Only Points of this one.

        Returns:
            How many Points really changed.

        Raises:
            ValueError: Not a query, nothing to update, or a value of the wrong type.
            OSError: The storage cannot be written.
        """
        if not isinstance(query, (SimpleQuery, CompoundQuery)):
            if query:
                raise ValueError("Argument 'query' must be a TinyFlux Query.")
            query = None  # nothing to match is no condition
        change = Change(time, measurement, tags, fields, unset_fields, unset_tags)
        return self._update(query, _measurement, change)

    def update_all(
        self,
        time: TimeUpdate | None = None,
        measurement: MeasurementUpdate | None = None,
        tags: TagsUpdate | None = None,
        fields: FieldsUpdate | None = None,
        unset_fields: str | Iterable[str] | None = None,
        unset_tags: str | Iterable[str] | None = None,
    ) -> int:
        """Update all Points, as `update` does.

        Returns:
            How many Points really changed.

        Raises:
            ValueError: Nothing to update, or a value of the wrong type.
            OSError: The storage cannot be written.
        """
        change = Change(time, measurement, tags, fields, unset_fields, unset_tags)
        return self._update(None, None, change)

    @read_op
    @write_op
    @temp_storage_op
    def _update(self, query: Query | None, measurement: str | None, change: Change) -> int:
        count = self._access().update(query, measurement, change)
        self._settle_index(count)
        return count

    def remove(self, query: Query, measurement: str | None = None) -> int:
        """Remove the Points that match a query.

        Args:
            query: The query.
            measurement: Only Points of this one.

        Returns:
            How many were removed.

        Raises:
            TypeError: Not a query.
            OSError: The storage cannot be written.
        """
        return self._remove(_checked(query), measurement)

    def drop_measurement(self, name: str) -> int:
        """Remove all Points of a measurement, and forget its Measurement object.

        Returns:
            How many were removed.

        Raises:
            OSError: The storage cannot be written.
        """
        count = self._drop(name)
        self._measurements.pop(name, None)
        return count

    @read_op
    @write_op
    @temp_storage_op
    def _remove(self, query: Query, measurement: str | None) -> int:
        count = self._access().remove(query, measurement)
        self._settle_index(count)
        return count

    @read_op
    @write_op
    @temp_storage_op
    def _drop(self, name: str) -> int:
        count = self._access().drop(name)
        self._settle_index(count)
        return count

    @write_op
    def remove_all(self) -> None:
        """Remove all Points, and forget all Measurement objects.

        Raises:
            OSError: The storage cannot be written.
        """
        self._storage.reset()
        self._measurements.clear()
        self._index.build([])
        if not self._auto_index:
            self._index._valid = False

    # The index

    def _access(self) -> Access:
        if isinstance(self._storage, ColumnarStorage):
            return ColumnarAccess(self._storage)
        if self._index._complete:
            return self._access_class(self._storage, self._index)
        return ScanAccess(self._storage, self._index)

    def _build_index(self) -> None:
        storage, index = self._storage, self._index
        if index._revive():
            return
        if isinstance(storage, CSVStorage) and self._access_class is CsvAccess:
            storage._index_rows(index._build_rows)
        else:
            index.build([storage._deserialize_storage_item(item) for item in storage])

    def _settle_index(self, changed: int) -> None:
        """After points changed: valid if the database keeps it so, invalid otherwise."""
        if changed:
            self._index._valid = self._auto_index and self._index._complete


def _prepare(point: Point, measurement: str | None, stamp: datetime) -> datetime:
    """Give a Point what an insert gives it: a time in UTC, and the name; return the time."""
    time = stamp if point._time is None else to_utc(point._time)
    point._time = time
    if measurement and measurement != point._measurement:
        point.measurement = measurement
    return time


def _checked(query: object) -> Query:
    if not isinstance(query, (SimpleQuery, CompoundQuery)):
        raise TypeError("Query must be SimpleQuery or CompoundQuery.")
    return query


def _in_order(points: Iterable[Point], *, by_time: bool) -> list[Point]:
    found = list(points)
    if by_time:
        found.sort(key=attrgetter("_time"))
    return found
