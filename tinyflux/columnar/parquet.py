"""ParquetStorage: the embedded columnar storage. This module opens, recovers, routes and closes;
the parts do the work.

    append_batch -> intake (types, series) -> log -> memtable
    scan, aggregate, series ... -> snapshot
    delete, rewrite, drop_measurement -> log -> memtable and segments

One lock orders the writers; whoever holds it is "the writer" of the parts. Readers take a snapshot,
without the lock.

With no path the store lives in memory, without a log.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyflux.batch import BatchBuilder, series_key
from tinyflux.columnar.base import ColumnarStorage, DeleteRequest, ScanRequest, WriteResult
from tinyflux.columnar.evaluate import matching_series, needs_rows
from tinyflux.columnar.intake import Intake
from tinyflux.columnar.memtable import Memtable
from tinyflux.columnar.points import to_points
from tinyflux.columnar.series import SeriesIndex
from tinyflux.columnar.snapshot import Snapshot
from tinyflux.errors import FieldTypeConflict, QueryError, StorageClosed
from tinyflux.times import us_from_datetime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path
    from typing import Any

    from tinyflux.batch import FieldType, PointBatch
    from tinyflux.columnar.base import (
        AggregateRequest,
        AggregateTable,
        Frame,
        Query,
        SeriesSet,
    )
    from tinyflux.columnar.snapshot import Layer
    from tinyflux.point import Point


class _Layers(NamedTuple):
    """Where the rows are. Replaced as a whole, so that a reader sees one moment."""

    older: tuple[Layer, ...]  # segments, then memtables that are being flushed; oldest first
    memtable: Memtable


class ParquetStorage(ColumnarStorage):
    """A columnar storage in a directory, or in memory.

    Args:
        path: The directory, made when missing; None keeps everything in memory.
        overwrite: Whether points of equal series and time become one (InfluxDB), or all stay
            (TinyFlux).
    """

    def __init__(self, path: str | Path | None = None, *, overwrite: bool = False) -> None:
        self.overwrite = overwrite
        self.path = path
        self._lock = threading.RLock()
        self._closed = False
        self._index = SeriesIndex()
        self._intake = Intake(self._index, overwrite=overwrite)
        self._layers = _Layers((), self._new_memtable())
        self._temporary: list[Point] = []
        self._initially_empty = len(self) == 0

    def _new_memtable(self) -> Memtable:
        return Memtable(self._intake.shapes, overwrite=self.overwrite)

    # Writing

    def append_batch(
        self,
        batch: PointBatch,
        on_durable: Callable[[Exception | None], None] | None = None,
    ) -> WriteResult:
        """Store the points whose field types agree with the stored ones; reject the others."""
        with self._lock:
            self._check_open()
            accepted = self._intake.take(batch)
            if len(accepted.block):
                self._layers.memtable.append(accepted.block)
        if on_durable is not None:
            on_durable(None)
        return WriteResult(len(accepted.block), accepted.rejected)

    def delete(self, request: DeleteRequest) -> int:
        """Delete points, durably. Returns how many series had points removed or might have had."""
        if request.query is not None and needs_rows(request.query):
            raise QueryError("fields not supported in WHERE clause during deletion")
        raise NotImplementedError

    def drop_measurement(self, measurement: str) -> bool:
        """Delete a measurement with its field types, durably. Returns whether it existed."""
        raise NotImplementedError

    # Reading

    def snapshot(self) -> Snapshot:
        """Return the state of now; later writes do not show in it."""
        self._check_open()
        layers = self._layers
        # The rows first, then the index: it may know more series and fields than there are rows,
        # never fewer.
        memtable = layers.memtable.view()
        return Snapshot(self._index.view(), (*layers.older, memtable), overwrite=self.overwrite)

    def measurements(self) -> list[str]:
        """Return the names of all measurements, sorted."""
        return self.snapshot().measurements()

    def field_keys(self, measurement: str) -> dict[str, FieldType]:
        """Return the fields of a measurement with their types, sorted by key."""
        return self.snapshot().field_keys(measurement)

    def tag_keys(self, measurement: str) -> list[str]:
        """Return the tag keys of a measurement, sorted."""
        return self.snapshot().tag_keys(measurement)

    def series(self, measurement: str, query: Query | None = None) -> SeriesSet:
        """Return the series that can match the query."""
        return self.snapshot().series(measurement, query)

    def series_count(self) -> int:
        """Return the number of series."""
        return self.snapshot().series_count()

    def scan(self, request: ScanRequest) -> Iterator[Frame]:
        """Yield the matching rows of now, in frames of bounded size."""
        return self.snapshot().scan(request)

    def aggregate(self, request: AggregateRequest) -> AggregateTable:
        """Return functions of the matching rows of now per group and window."""
        return self.snapshot().aggregate(request)

    # Life

    def sync(self) -> None:
        """Make everything accepted so far durable, whatever the sync mode."""
        self._check_open()

    def stats(self) -> dict[str, int]:
        """Return counters."""
        return {"series": len(self._index), "points_in_memory": self._layers.memtable.n_points}

    def close(self) -> None:
        """Make everything durable and release the directory; called twice it does nothing."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StorageClosed("I/O operation on closed storage")

    # The TinyFlux API, item by item: an item is a Point

    def __iter__(self) -> Iterator[Point]:
        """Yield all points: by measurement, series and time."""
        snapshot = self.snapshot()
        for name in snapshot.measurements():
            for frame in snapshot.scan(ScanRequest(name)):
                yield from to_points(frame)

    def __len__(self) -> int:
        """Return the number of points. Costs a scan of the series and times where points may have
        merged.
        """
        snapshot = self.snapshot()
        return sum(
            len(frame)
            for name in snapshot.measurements()
            for frame in snapshot.scan(ScanRequest(name, fields=()))
        )

    def append(self, points: Sequence[Point], temporary: bool = False) -> None:
        """Store points.

        Args:
            points: Points with times.
            temporary: Keep them aside for `_swap_temp_with_primary` instead.

        Raises:
            FieldTypeConflict: A value of another type than its field has. The other points are
            stored. ValueError: A time or an integer outside int64.
        """
        if temporary:
            self._temporary += points
            return
        result = self.append_batch(batch_from_points(points))
        if result.rejected:
            raise FieldTypeConflict(result.rejected[0].reason)

    def read(self) -> list[Point]:
        """Return all points in the order of iteration."""
        return list(self)

    def reset(self) -> None:
        """Remove all points."""
        raise NotImplementedError

    def _deserialize_measurement(self, item: Point) -> str:
        return item.measurement

    def _deserialize_timestamp(self, item: Point) -> datetime:
        assert item.time is not None  # stored points have a time
        return item.time

    def _deserialize_storage_item(self, item: Point) -> Point:
        return item

    def _serialize_point(self, point: Point, *args: Any, **kwargs: Any) -> Point:  # noqa: ARG002
        return point

    def _init_temp_storage(self) -> None:
        self._temporary = []

    def _cleanup_temp_storage(self) -> None:
        self._temporary = []

    def _swap_temp_with_primary(self) -> None:
        self._write(self._temporary)
        self._temporary = []

    def _write(self, items: Sequence[Point]) -> None:
        raise NotImplementedError


def batch_from_points(points: Iterable[Point]) -> PointBatch:
    """Return Points as a batch.

    Raises:
        ValueError: A time or an integer outside int64, or a value of no field type.
    """
    builder = BatchBuilder()
    for point in points:
        assert point.time is not None  # stored points have a time
        key = series_key(point.measurement, point.tags.items())
        builder.add(key, us_from_datetime(point.time) * 1000, point.fields.items())
    return builder.build()
