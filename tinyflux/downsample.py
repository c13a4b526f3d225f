"""Downsampling: functions over windows of time, per measurement and group of tags, as Points again.

A columnar storage computes them on its columns. The points of any other storage are put into
columns first, so that the answers are the same everywhere. The functions are those of
`tinyflux.kernels`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tinyflux.columnar.base import AggregateRequest, Call, ColumnarStorage, ScanRequest
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.point import make_point
from tinyflux.pushdown import batch_from_points
from tinyflux.times import datetimes_from_us
from tinyflux.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tinyflux.access import Access
    from tinyflux.columnar.base import AggregateTable
    from tinyflux.point import Point
    from tinyflux.queries import Query
    from tinyflux.storages import Storage

Calls: TypeAlias = "Mapping[str, tuple[Any, ...]]"

_MICROSECOND = timedelta(microseconds=1)


def downsample(
    storage: Storage,
    access: Access,
    calls: Calls,
    query: Query | None,
    measurement: str | None,
    every: timedelta | None,
    by: Iterable[str],
) -> list[Point]:
    """Return what `TinyFlux.aggregate` promises.

    Raises:
        ValueError: A call that is no function and field, no call, or a bad window.
        QueryError: An unknown function, or one that does not take the field's type.
    """
    wanted = [_call(name, call) for name, call in calls.items()]
    if not wanted:
        raise ValueError("Nothing to aggregate: give a function and a field.")
    windows = None if every is None else Windows(every // _MICROSECOND * 1000)
    columnar = (
        storage
        if isinstance(storage, ColumnarStorage)
        else _columns_of(access.points(query, measurement))
    )
    names = columnar.measurements()
    points: list[Point] = []
    for name in [name for name in names if not measurement or name == measurement]:
        request = AggregateRequest(ScanRequest(name, query), tuple(wanted), tuple(by), windows)
        points += _points(name, list(calls), request, columnar.aggregate(request))
    points.sort(key=lambda point: point.time)  # type: ignore[arg-type,return-value]
    return points


def _call(name: str, call: Any) -> Call:
    if isinstance(call, tuple) and len(call) >= 2 and all(isinstance(c, str) for c in call[:2]):
        return Call(call[0], call[1], tuple(call[2:]))
    raise ValueError(f"Aggregate {name!r} must be a tuple of function, field and arguments.")


def _columns_of(points: Iterable[Point]) -> ColumnarStorage:
    storage = ParquetStorage()
    storage.append_batch(batch_from_points(list(points), storage))
    return storage


def _points(
    measurement: str, names: list[str], request: AggregateRequest, table: AggregateTable
) -> Iterator[Point]:
    """Yield a Point for every group and window that has a value."""
    starts = table.windows if request.windows is None else request.windows.start(table.windows)
    times = datetimes_from_us(starts // 1000)
    if not table.groups or not len(starts):
        return
    filled = np.logical_or.reduce([column.valid for column in table.columns])
    for group, window in np.argwhere(filled).tolist():
        tags: dict[str, str | None] = {
            key: value
            for key, value in zip(request.group_by, table.groups[group], strict=True)
            if value
        }
        fields = {
            name: column.values[group, window].item()
            if isinstance(column.values[group, window], np.generic)
            else column.values[group, window]
            for name, column in zip(names, table.columns, strict=True)
            if column.valid[group, window]
        }
        yield make_point(times[window], measurement, tags, fields)
