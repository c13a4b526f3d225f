"""Index: what an open database knows about its points without asking the storage.

It is a flag and a PointColumns. The flag, `valid`, is the visible part: an index is valid while
points arrive in time order, and after a rebuild. A point from the past makes it invalid at once (it
then claims to be empty) until the next read; the columns go on mirroring the storage meanwhile, so
that the rebuild costs nothing.

The database uses the underscored half. The public half is the Index of the TinyFlux API, usable
alone.
"""

from __future__ import annotations

import operator as operators
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tinyflux.columns import PointColumns
from tinyflux.matching import matching_rows
from tinyflux.queries import CompoundQuery, MeasurementQuery, SimpleQuery
from tinyflux.times import datetime_from_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from tinyflux.batch import Int64s
    from tinyflux.columns import Shape
    from tinyflux.point import Point
    from tinyflux.queries import Query

__all__ = ["Index", "IndexResult"]

_MAX_PENDING: Final = 10_000


class IndexResult:
    """Positions of points in a storage: what an Index answers.

    Usage:
        >>> (IndexResult({0, 1}, 3) & ~IndexResult({1}, 3)).items
        {0}

    Args:
        items: The positions.
        index_count: How many points the index has; what `~` is taken from.
    """

    __slots__ = ("_index_count", "_items")

    def __init__(self, items: set[int], index_count: int) -> None:
        self._items = items
        self._index_count = index_count

    @property
    def items(self) -> set[int]:
        """The positions."""
        return self._items

    def __and__(self, other: IndexResult) -> IndexResult:
        return IndexResult(self.items & other.items, self._index_count)

    def __or__(self, other: IndexResult) -> IndexResult:
        return IndexResult(self.items | other.items, self._index_count)

    def __invert__(self) -> IndexResult:
        return IndexResult(set(range(self._index_count)) - self.items, self._index_count)

    def __repr__(self) -> str:
        return f"IndexResult(items={self._items}, index_count={self._index_count})"


class Index:
    """An index of points, numbered by their position in the storage.

    Usage:
        >>> from tinyflux.point import Point
        >>> index = Index()
        >>> index.build([Point(tags={"city": "LA"})])
        >>> index.get_tag_keys()
        {'city'}

    Args:
        valid: Whether the index (which starts empty) already says all there is.
    """

    def __init__(self, valid: bool = True) -> None:
        self._valid = valid
        self._complete = valid
        self._filled = PointColumns()
        self._pending: list[Any] = []
        self._pending_rows = False
        self._labels: Int64s | None = None
        self._latest: datetime | None = None

    @property
    def valid(self) -> bool:
        """Whether the index represents the storage."""
        return self._valid

    @property
    def empty(self) -> bool:
        """Whether the index has no points; an invalid index says yes."""
        return len(self) == 0

    def __len__(self) -> int:
        return len(self._filled) + len(self._pending) if self._valid else 0

    def __repr__(self) -> str:
        tags, names = len(self.get_tag_keys()), len(self.get_measurements())
        return f"<Index _tags={tags}, _measurements={names}, _timestamps={len(self)}>"

    @property
    def latest_time(self) -> datetime:
        """The latest time of all points.

        Raises:
            IndexError: There are none.
        """
        if self.empty:
            raise IndexError("the index is empty")
        latest = self._latest_or_none()
        assert latest is not None  # not empty
        return latest

    def build(self, points: Iterable[Point]) -> None:
        """Index these points instead; in any order. The index is valid then."""
        self._forget()
        self._filled.extend(list(points))
        self._valid = self._complete = True

    def insert(self, points: Sequence[Point] = ()) -> None:
        """Add points, of ascending times and not before the latest one; positions continue."""
        self._append(list(points), rows=False)

    def invalidate(self) -> None:
        """Say that the index no longer represents the storage. It forgets everything."""
        self._forget()
        self._valid = self._complete = False

    def remove(self, r_items: set[int]) -> None:
        """Remove positions. Those of the other points stay as they are, until `update`."""
        columns = self._columns
        labels = self._labels if self._labels is not None else np.arange(len(columns))
        keep = ~np.isin(labels, list(r_items))
        self._remove(keep)
        self._labels = labels[keep]

    def update(self, u_items: Mapping[int, int]) -> None:
        """Give points new positions.

        Args:
            u_items: Old positions to new ones; others keep theirs.
        """
        columns = self._columns
        labels = self._labels if self._labels is not None else np.arange(len(columns))
        moved = np.array([u_items.get(label, label) for label in labels.tolist()], np.int64)
        order = np.argsort(moved, kind="stable")
        columns.take(order)
        moved = moved[order]
        self._labels = None if np.array_equal(moved, np.arange(len(moved))) else moved

    def search(self, query: Query) -> IndexResult:
        """Return the positions that a query can match.

        Exact, but for the negation of a field query: that gives all positions.

        Raises:
            TypeError: Not a SimpleQuery or CompoundQuery.
        """
        if not isinstance(query, (SimpleQuery, CompoundQuery)):
            raise TypeError("Query must be SimpleQuery or CompoundQuery.")
        if isinstance(query, SimpleQuery):
            return self._result(matching_rows(self._columns, query))
        first = self.search(query.query1)
        if query.query2 is None:
            return self._result(slice(0, len(self))) if _asks_fields(query) else ~first
        second = self.search(query.query2)
        return first & second if query.operator is operators.and_ else first | second

    def get_measurements(self) -> set[str]:
        """Return the names of all measurements."""
        return {shape.measurement for shape in self._valid_shapes(None)}

    def get_tag_keys(self, measurement: str | None = None) -> set[str]:
        """Return all tag keys, of one measurement if it is given."""
        return {key for shape in self._valid_shapes(measurement) for key in shape.tags}

    def get_field_keys(self, measurement: str | None = None) -> set[str]:
        """Return all field keys, of one measurement if it is given."""
        return {key for shape in self._valid_shapes(measurement) for key in shape.names}

    def get_tag_values(
        self, tag_keys: Iterable[str] = (), measurement: str | None = None
    ) -> dict[str, set[str | None]]:
        """Return the values of tags.

        Args:
            tag_keys: Which tags; each of them has an entry in the answer. None given is all.
            measurement: Only of this one.
        """
        wanted = list(tag_keys)
        values: dict[str, set[str | None]] = {key: set() for key in wanted}
        for shape in self._valid_shapes(measurement):
            for key, value in shape.tags.items():
                if not wanted or key in values:
                    values.setdefault(key, set()).add(value)
        return values

    def get_field_values(self, field_key: str, measurement: str | None = None) -> list[Any]:
        """Return all values of a field in storage order, of one measurement if it is given."""
        _, values = self._columns.field_values(field_key, self._rows(measurement))
        return values

    def get_timestamps(self, measurement: str | None = None) -> list[float]:
        """Return all times in storage order, as seconds since 1970."""
        times = self._columns.times[self._rows(measurement)]
        seconds: list[float] = (times / 1e6).tolist()
        return seconds

    # What the database uses -----------------------------------------------------------------------

    @property
    def _columns(self) -> PointColumns:
        """All indexed points. Flushes what was added since the last look."""
        if self._pending:
            pending, self._pending = self._pending, []
            if self._pending_rows:
                self._filled.extend_rows(pending)
            else:
                self._filled.extend(pending)
        return self._filled

    def _forget(self) -> None:
        self._filled = PointColumns()
        self._pending = []
        self._labels = None
        self._latest = None

    def _build_rows(self, rows: Iterable[list[str]]) -> int:
        """Index rows of the row form instead; return how many were damaged and left out."""
        self._forget()
        damaged = self._filled.extend_rows(rows)
        self._valid = self._complete = True
        return damaged

    def _append(self, items: list[Any], *, rows: bool) -> None:
        """Add items at the end, in whatever order of time; the flag is the caller's."""
        if rows != self._pending_rows or len(self._pending) >= _MAX_PENDING:
            _ = self._columns
            self._pending_rows = rows
        self._pending += items

    def _latest_or_none(self) -> datetime | None:
        times = self._columns.times
        if not len(times):
            return None
        return datetime_from_us(int(times[-1] if self._filled.ascending else times.max()))

    def _add_stored(self, items: list[Any], times: list[datetime], *, rows: bool) -> None:
        """Take in points that were just stored. A step back in time makes the index invalid.

        Args:
            items: Points, or rows of their row form.
            times: Their times, in UTC.
            rows: Which of both.
        """
        if self._latest is None:
            self._latest = self._latest_or_none()
        latest = self._latest or times[0]
        for time in times:
            if time < latest:
                self._valid = False
                break
            latest = time
        self._latest = latest if self._valid else None
        self._append(items, rows=rows)

    def _revive(self) -> bool:
        """Make the index valid again, if it has gone on mirroring the storage; say whether."""
        self._valid = self._complete
        return self._valid

    def _remove(self, keep: Any) -> None:
        """Keep only the points of a mask, bool[n]; positions close up."""
        self._columns.take(keep)
        self._latest = None

    def _replace(self, rows: Int64s, points: Sequence[Point]) -> None:
        """Put points in the place of others, at ascending positions."""
        self._columns.replace(rows, points)
        self._latest = None

    def _shapes(self, measurement: str | None) -> list[Shape]:
        """Return the shapes that points have, whether the flag says valid or not."""
        columns = self._columns
        shapes = [columns.shapes[number] for number in columns.live_shapes()]
        return [s for s in shapes if not measurement or s.measurement == measurement]

    def _valid_shapes(self, measurement: str | None) -> list[Shape]:
        return self._shapes(measurement) if self._valid else []

    def _rows(self, measurement: str | None) -> Int64s | slice:
        if not self._valid:
            return slice(0, 0)
        query = MeasurementQuery() == measurement if measurement else None
        return matching_rows(self._columns, query)

    def _result(self, rows: Int64s | slice) -> IndexResult:
        labels = self._labels if self._labels is not None else np.arange(len(self))
        return IndexResult(set(labels[rows].tolist()), len(self))


def _asks_fields(query: Query) -> bool:
    if isinstance(query, SimpleQuery):
        return query.point_attr == "_fields"
    other = query.query2
    return _asks_fields(query.query1) or (other is not None and _asks_fields(other))
