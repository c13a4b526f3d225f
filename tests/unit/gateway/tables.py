"""Results to print in tests: one series of every type, as influxd 1.6.7 was asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from gateway.results import Result, Series
from tinyflux.batch import FieldType
from tinyflux.columnar.base import FieldColumn

if TYPE_CHECKING:
    from gateway.results import Column


def times(*times_ns: int) -> Column:
    """Return a time column: int64[n], as the executor gives it."""
    return cast("Column", np.array(times_ns, np.int64))


def every_type() -> Series:
    """Return what `SELECT * FROM m` answered for three points with fields of all types."""
    valid_b = np.array([True, False, False])
    return Series(
        "m",
        ["time", "b", "f", "g", "host", "i", "s"],
        [
            times(-1_500_000_001, 1_500_000_000_000_000_000, 1_500_000_000_123_456_789),
            FieldColumn(FieldType.BOOLEAN, np.array([True, False, False]), valid_b),
            FieldColumn(FieldType.FLOAT, np.array([1.0, -0.0, 1e21])),
            FieldColumn(FieldType.FLOAT, np.array([0.5, 123456789012345680.0, 1e-7])),
            ["a", "c d", "b"],
            FieldColumn(FieldType.INTEGER, np.array([3, 0, 0]), valid_b),
            FieldColumn(FieldType.STRING, np.array(['x<>&é,"q', "", ""], object), valid_b),
        ],
        has_time=True,
    )


def by_tag(host: str, time_ns: int, value: float) -> Series:
    """Return a series of one row that has tags."""
    column = FieldColumn(FieldType.FLOAT, np.array([value]))
    return Series("m", ["time", "f"], [times(time_ns), column], {"host": host}, has_time=True)


def many_rows(n_rows: int) -> Series:
    """Return a series whose row i is (i seconds, i / 2)."""
    seconds = np.arange(n_rows)
    column = FieldColumn(FieldType.FLOAT, seconds / 2)
    return Series(
        "m", ["time", "f"], [times(*(seconds * 1_000_000_000).tolist()), column], has_time=True
    )


def failed(number: int, error: str) -> Result:
    """Return the result of a statement that failed."""
    return Result(number, error=error)
