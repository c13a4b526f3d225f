"""PointColumns: what goes in comes out, by either way in, after any removal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tinyflux import Point, TypedPoint
from tinyflux.columns import PointColumns

T = datetime(2024, 1, 1, tzinfo=UTC)

values = st.one_of(
    st.none(),
    st.floats(allow_nan=False),
    st.integers(-(2**70), 2**70),
    st.booleans(),
    st.text(max_size=3),
)
points = st.builds(
    TypedPoint,
    time=st.datetimes(timezones=st.just(UTC)),
    measurement=st.sampled_from("ab"),
    tags=st.dictionaries(st.text(max_size=2), st.none() | st.text(max_size=2), max_size=3),
    fields=st.dictionaries(st.text(max_size=2), values, max_size=3),
)


def everything(columns: PointColumns) -> list[Point]:
    return columns.points(slice(0, len(columns)))


@given(st.lists(points, max_size=8), st.lists(points, max_size=8))
@settings(max_examples=60, deadline=None)
def test_points_come_back_as_they_went_in(first: list[Point], second: list[Point]) -> None:
    columns = PointColumns()
    columns.extend(first)
    columns.extend(second)
    assert list(map(repr, everything(columns))) == list(map(repr, first + second))


@given(st.lists(points, max_size=8))
@settings(max_examples=60, deadline=None)
def test_rows_give_what_a_point_reads_from_them(given_points: list[Point]) -> None:
    rows = [list(point._serialize_to_list()) for point in given_points]
    expected = [Point()._deserialize_from_list(row) for row in rows]
    columns = PointColumns()
    assert columns.extend_rows(iter([list(row) for row in rows])) == 0
    assert list(map(repr, everything(columns))) == list(map(repr, expected))


@given(st.lists(points, min_size=1, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_removed_and_replaced_points_leave_no_trace(
    given_points: list[Point], data: st.DataObject
) -> None:
    columns = PointColumns()
    columns.extend(given_points)
    n = len(given_points)
    keep = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    columns.take(np.array(keep, np.bool_))
    kept = [point for point, flag in zip(given_points, keep, strict=True) if flag]
    assert list(map(repr, everything(columns))) == list(map(repr, kept))
    rows = sorted(data.draw(st.sets(st.integers(0, max(0, len(kept) - 1)), max_size=len(kept))))
    others = data.draw(st.lists(points, min_size=len(rows), max_size=len(rows)))
    columns.replace(np.array(rows, np.int64), others)
    for row, other in zip(rows, others, strict=True):
        kept[row] = other
    assert list(map(repr, everything(columns))) == list(map(repr, kept))
    assert int(columns.shape_counts().sum()) == len(kept)


def test_dead_slots_are_dropped_when_they_are_the_larger_part() -> None:
    columns = PointColumns()
    columns.extend([TypedPoint(time=T, fields={"a": i, "s": str(i)}) for i in range(100)])
    columns.take(np.arange(90, 100))
    assert len(columns.values) == 20
    assert columns.objects == [str(i) for i in range(90, 100)]
    assert [point.fields for point in everything(columns)] == [
        {"a": i, "s": str(i)} for i in range(90, 100)
    ]


@pytest.mark.parametrize(
    "cell",
    [
        "2024-01-01T00:00:00",
        "2024-01-01 00:00:00",
        "2024-01-01T00:00:00.000001",
        "2024-01-01T00:00:00.0+0200",
        "2024-01-01T02:00:00+02:00",
        "2024-01-01T00:00:00Z",
        "2024-01-01",
        "20240101T000000",
        "2024-W01-1T00:00:00",
    ],
)
def test_time_cells_mean_what_a_point_reads(cell: str) -> None:
    columns = PointColumns()
    assert columns.extend_rows([[cell, "m", "_field_a", "1.5"]]) == 0
    expected = Point()._deserialize_from_list([cell, "m", "_field_a", "1.5"])
    assert everything(columns) == [expected]


@pytest.mark.parametrize(
    "row",
    [
        ["2024-13-01T00:00:00", "m"],
        ["2024-01-01T00:00:60", "m"],
        ["now", "m"],
        ["2024-01-01T00:00:00"],
        ["2024-01-01T00:00:00", "m", "_field_a"],
        ["\0\0\0", "m"],
    ],
)
def test_damaged_rows_are_counted_and_left_out(row: list[str]) -> None:
    sound = ["2024-01-01T00:00:00", "m", "_field_a", "1.5"]
    columns = PointColumns()
    assert columns.extend_rows([list(sound), row, [], list(sound)]) == 1
    assert len(columns) == 2


def test_rows_between_are_found_in_any_order_of_time() -> None:
    columns = PointColumns()
    order = [3, 1, 2, 1, 0]
    columns.extend([Point(time=T + timedelta(microseconds=n), fields={}) for n in order])
    first = int(columns.times.min())
    found = columns.rows_between(first + 1, first + 2)
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [1, 2, 3]
    columns.take(np.argsort(columns.times, kind="stable"))
    assert columns.rows_between(first + 1, first + 2) == slice(1, 4)
