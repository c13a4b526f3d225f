"""The item-by-item storage contract of the TinyFlux API, on top of the columnar one.

TinyFlux itself pushes its queries down and needs little of this; it is here so that a columnar
storage is a `Storage` like any other, for third parties and for the generic path.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from tinyflux.batch import BatchBuilder, series_key
from tinyflux.columnar.base import ColumnarStorage, ScanRequest
from tinyflux.columnar.points import to_points
from tinyflux.errors import FieldTypeConflict
from tinyflux.times import us_from_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from typing import Any

    from tinyflux.batch import PointBatch
    from tinyflux.point import Point


class ItemStorage(ColumnarStorage):
    """A columnar storage as a storage of Points, in the order measurement, series, time."""

    _temporary: list[Point]

    @abstractmethod
    def replace_all(self, batch: PointBatch) -> None:
        """Put a batch in the place of everything stored, durably, as one step."""

    def __iter__(self) -> Iterator[Point]:
        """Yield all points of now."""
        snapshot = self.snapshot()
        for name in snapshot.measurements():
            for frame in snapshot.scan(ScanRequest(name)):
                yield from to_points(frame)

    def append(self, points: Sequence[Point], temporary: bool = False) -> None:
        """Store points.

        Args:
            points: Points with times.
            temporary: Keep them aside for `_swap_temp_with_primary` instead.

        Raises:
            FieldTypeConflict: A value of another type than its field has. The other points are
                stored.
            ValueError: A time or an integer outside int64.
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
        self.replace_all(BatchBuilder().build())

    def _deserialize_measurement(self, item: Point) -> str:
        return item.measurement

    def _deserialize_timestamp(self, item: Point) -> datetime:
        assert item.time is not None  # stored points have a time
        return item.time

    def _deserialize_storage_item(self, item: Point) -> Point:
        return item

    def _serialize_point(self, point: Point, *args: Any, **kwargs: Any) -> Point:  # noqa: ARG002
        return point

    def _write(self, items: Sequence[Point]) -> None:
        self.replace_all(batch_from_points(items))

    def _init_temp_storage(self) -> None:
        self._temporary = []

    def _cleanup_temp_storage(self) -> None:
        self._temporary = []

    def _swap_temp_with_primary(self) -> None:
        self._write(self._temporary)
        self._temporary = []


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
