"""Measurement: the points of one measurement, with the methods of the database.

A Measurement holds no points; it asks its database, narrowed to its name.
"""

# ruff: noqa: SLF001  (a Measurement is a part of its database)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyflux.queries import MeasurementQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from tinyflux.changes import FieldsUpdate, MeasurementUpdate, TagsUpdate, TimeUpdate
    from tinyflux.database import TinyFlux
    from tinyflux.index import Index
    from tinyflux.point import Point
    from tinyflux.queries import Query
    from tinyflux.storages import Storage

__all__ = ["Measurement"]


class Measurement:
    """The points of one measurement. Made by `TinyFlux.measurement`.

    Usage:
        >>> from tinyflux import MemoryStorage, Point, TinyFlux
        >>> db = TinyFlux(storage=MemoryStorage)
        >>> air = db.measurement("air")
        >>> air.insert(Point(fields={"aqi": 112}))
        1
        >>> len(air)
        1

    Args:
        name: The name.
        db: The database.
    """

    def __init__(self, name: str, db: TinyFlux) -> None:
        self._name = name
        self._db = db

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    @property
    def storage(self) -> Storage:
        """The storage of the database."""
        return self._db.storage

    @property
    def index(self) -> Index:
        """The index of the database."""
        return self._db.index

    def __iter__(self) -> Iterator[Point]:
        """Yield the Points of this measurement in insertion order."""
        points = iter(self._db)
        return (point for point in points if point.measurement == self._name)

    def __len__(self) -> int:
        return self._db._length(self._name)

    def __repr__(self) -> str:
        total = f"total={len(self)}, " if self.index.valid else ""
        return f"<Measurement name={self._name}, {total}storage={self.storage}>"

    def all(self, sorted: bool = True) -> list[Point]:
        """Return all Points.

        Args:
            sorted: By time, ties in insertion order; otherwise in insertion order.
        """
        points = list(self)
        if sorted:
            points.sort(key=lambda point: point.time)  # type: ignore[arg-type,return-value]
        return points

    def insert(self, point: Point) -> int:
        """Insert a Point; its measurement becomes this one.

        Raises:
            TypeError: Not a Point.
        """
        return self._db.insert(point, self._name)

    def insert_multiple(self, points: Iterable[Any], batch_size: int = 1000) -> int:
        """Insert Points; their measurement becomes this one.

        Args:
            points: Points.
            batch_size: How many points the storage gets at once.

        Returns:
            How many were inserted.

        Raises:
            TypeError: Not an iterable, or not a Point in it; earlier batches stay.
            ValueError: A `batch_size` below 1.
        """
        return self._db.insert_multiple(points, self._name, batch_size=batch_size)

    def search(self, query: Query, sorted: bool = True) -> list[Point]:
        """Return the Points that match a query.

        Args:
            query: The query.
            sorted: By time, ties in insertion order; otherwise in insertion order.
        """
        return self._db.search(query, self._name, sorted)

    def get(self, query: Query) -> Point | None:
        """Return the first Point in insertion order that matches a query, or None."""
        return self._db.get(query, self._name)

    def contains(self, query: Query) -> bool:
        """Return whether a Point matches a query."""
        return self._db.contains(query, self._name)

    def count(self, query: Query) -> int:
        """Return how many Points match a query."""
        return self._db.count(query, self._name)

    def select(self, keys: str | Iterable[str], query: Query) -> list[Any]:
        """Return values of the Points that match a query; see `TinyFlux.select`."""
        return self._db.select(keys, query, self._name)

    def get_tag_keys(self) -> list[str]:
        """Return all tag keys, sorted."""
        return self._db.get_tag_keys(self._name)

    def get_tag_values(self, tag_keys: Iterable[str] = ()) -> dict[str, list[str | None]]:
        """Return the values of tags, sorted, None last; of all tags when none are named."""
        return self._db.get_tag_values(tag_keys, self._name)

    def get_field_keys(self) -> list[str]:
        """Return all field keys, sorted."""
        return self._db.get_field_keys(self._name)

    def get_field_values(self, field_key: str) -> list[Any]:
        """Return all values of a field in insertion order, also None."""
        return self._db.get_field_values(field_key, self._name)

    def get_timestamps(self) -> list[datetime]:
        """Return all times in insertion order, in UTC."""
        return self._db.get_timestamps(self._name)

    def update(
        self,
        query: Query,
        time: TimeUpdate | None = None,
        measurement: MeasurementUpdate | None = None,
        tags: TagsUpdate | None = None,
        fields: FieldsUpdate | None = None,
        unset_fields: str | Iterable[str] | None = None,
        unset_tags: str | Iterable[str] | None = None,
    ) -> int:
        """Update the Points that match a query; see `TinyFlux.update`.

        Returns:
            How many Points really changed.
        """
        return self._db.update(
            query, time, measurement, tags, fields, unset_fields, unset_tags, self._name
        )

    def update_all(
        self,
        time: TimeUpdate | None = None,
        measurement: MeasurementUpdate | None = None,
        tags: TagsUpdate | None = None,
        fields: FieldsUpdate | None = None,
        unset_fields: str | Iterable[str] | None = None,
        unset_tags: str | Iterable[str] | None = None,
    ) -> int:
        """Update all Points of this measurement; see `TinyFlux.update`.

        Returns:
            How many Points really changed.
        """
        everything = MeasurementQuery() == self._name
        return self.update(everything, time, measurement, tags, fields, unset_fields, unset_tags)

    def remove(self, query: Query) -> int:
        """Remove the Points that match a query; return how many."""
        return self._db.remove(query, self._name)

    def remove_all(self) -> int:
        """Remove all Points of this measurement; return how many."""
        return self._db.remove(MeasurementQuery() == self._name)
