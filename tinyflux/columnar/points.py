"""Frames as Python objects, for the TinyFlux API: Points, and fields of rows as dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinyflux.batch import FieldType
from tinyflux.point import make_point
from tinyflux.times import datetimes_from_us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyflux.batch import FieldValue, Int64s
    from tinyflux.columnar.base import FieldColumn, Frame
    from tinyflux.point import Point


def to_points(frame: Frame) -> list[Point]:
    """Return the rows of a frame as Points, in row order; nothing is validated. About 1 us a point.

    Every Point has tags and fields of its own. Its time is the microsecond that its nanosecond lies
    in.
    """
    rows = np.arange(len(frame))
    times = datetimes_from_us(frame.times // 1000)
    tags = [frame.series.tags(number) for number in range(len(frame.series))]
    name = frame.series.measurement
    return [
        make_point(time, name, dict(tags[number]), fields)
        for time, number, fields in zip(
            times, frame.series_rows().tolist(), field_dicts(frame, rows), strict=True
        )
    ]


def field_dicts(frame: Frame, rows: Int64s) -> list[dict[str, FieldValue]]:
    """Return the fields of rows (int64[r], ascending), those that are present."""
    dicts: list[dict[str, FieldValue]] = [{} for _ in range(len(rows))]
    for name, column in frame.columns.items():
        places, values = present_values(column, rows)
        if len(places) == len(dicts):
            for fields, value in zip(dicts, values, strict=True):
                fields[name] = value
        else:
            for place, value in zip(places.tolist(), values, strict=True):
                dicts[place][name] = value
    return dicts


def present_values(column: FieldColumn, rows: Int64s) -> tuple[Int64s, Sequence[FieldValue]]:
    """Return the Python values of a column in some rows.

    Args:
        column: Any column.
        rows: int64[r], which rows.

    Returns:
        The places in `rows` where the field is present, ascending, and the values there (None is an
        explicit None).
    """
    if column.valid is None:
        return np.arange(len(rows)), column.values[rows].tolist()
    present = column.valid[rows]
    if column.none is None:
        places = np.flatnonzero(present)
        return places, column.values[rows[places]].tolist()
    nones = column.none[rows]
    places = np.flatnonzero(present | nones)
    if column.type is FieldType.NONE:
        return places, [None] * len(places)
    values = column.values[rows[places]].tolist()
    for at in np.flatnonzero(nones[places]).tolist():
        values[at] = None
    return places, values
