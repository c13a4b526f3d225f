"""Frames as Points and dicts."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from tinyflux.batch import FieldType
from tinyflux.columnar.base import FieldColumn, Frame, SeriesSet, TagColumn
from tinyflux.columnar.points import field_dicts, present_values, to_points
from tinyflux.point import make_point


def a_frame() -> Frame:
    host = TagColumn(np.array([0, -1], np.int32), ["a"])
    series = SeriesSet("cpu", np.array([3, 5]), {"host": host})
    columns = {
        "f": FieldColumn(FieldType.FLOAT, np.array([0.5, 1.5, 2.5])),
        "s": FieldColumn(
            FieldType.STRING,
            np.array(["x", None, None], np.object_),
            np.array([True, False, False]),
            np.array([False, True, False]),
        ),
        "n": FieldColumn(
            FieldType.NONE,
            np.zeros(3, np.bool_),
            np.zeros(3, np.bool_),
            np.array([False, False, True]),
        ),
    }
    return Frame(series, np.array([0, 2, 3]), np.array([-1, 1999, 2000]), columns)


def time(us: int) -> datetime:
    return datetime(1970, 1, 1, 0, 0, 0, us, tzinfo=UTC)


def test_points_have_the_microsecond_their_nanosecond_lies_in() -> None:
    before = datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert to_points(a_frame()) == [
        make_point(before, "cpu", {"host": "a"}, {"f": 0.5, "s": "x"}),
        make_point(time(1), "cpu", {"host": "a"}, {"f": 1.5, "s": None}),
        make_point(time(2), "cpu", {}, {"f": 2.5, "n": None}),
    ]


def test_fields_of_some_rows_are_those_that_are_present() -> None:
    assert field_dicts(a_frame(), np.array([0, 2])) == [{"f": 0.5, "s": "x"}, {"f": 2.5, "n": None}]
    assert field_dicts(a_frame(), np.zeros(0, np.int64)) == []


def test_values_are_python_values() -> None:
    column = FieldColumn(FieldType.INTEGER, np.array([1, 2]), np.array([True, False]))
    places, values = present_values(column, np.array([0, 1]))
    assert places.tolist() == [0]
    assert values == [1]
    assert type(values[0]) is int
