"""Time at the edge of the TinyFlux API: UTC, microseconds since 1970, and nothing lost.

The engine counts in integers; `datetime` exists only in Points, queries and answers. No float is
ever involved, so all years from 1 to 9999 keep their microseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyflux.batch import Int64s

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # numpy's epoch has no time zone
_MICROSECOND: Final = timedelta(microseconds=1)


def now() -> datetime:
    """Return the present in UTC."""
    return datetime.now(UTC)


def to_utc(time: datetime) -> datetime:
    """Return the same instant in UTC; a naive time is local time, with `fold` respected.

    Raises:
        ValueError: The instant lies outside the years 1 to 9999 of UTC.
    """
    if time.tzinfo is UTC:
        return time
    try:
        return time.astimezone(UTC)
    except (ValueError, OverflowError):
        return _to_utc_at_the_rim(time)


def _to_utc_at_the_rim(time: datetime) -> datetime:
    # astimezone looks a day around a naive time and fails on the first and the last days there are.
    inward = timedelta(days=2 if time.year < 5000 else -2)
    offset = time.utcoffset() or (time + inward).astimezone().utcoffset() or timedelta(0)
    try:
        return (time.replace(tzinfo=None) - offset).replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(f"time outside the years 1 to 9999 in UTC: {time.isoformat()}") from None


def us_from_datetime(time: datetime) -> int:
    """Return microseconds since 1970 of an aware time."""
    return (time - EPOCH) // _MICROSECOND


def datetime_from_us(us: int) -> datetime:
    """Return the aware UTC time of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=us)


def utc_from_naive(time: datetime) -> datetime:
    """Return a naive time that is meant in UTC as an aware one."""
    return EPOCH + (time - _NAIVE_EPOCH)


def us_from_datetimes(times: Sequence[datetime]) -> Int64s:
    """Return int64[n], microseconds since 1970 of aware times. About 0.3 us each."""
    # Differences, because `replace(tzinfo=...)` and numpy's own conversion cost 5 to 20 times that.
    since = [time - EPOCH for time in times]
    seconds = np.array([delta.days for delta in since], np.int64) * 86_400
    seconds += np.array([delta.seconds for delta in since], np.int64)
    return seconds * 1_000_000 + np.array([delta.microseconds for delta in since], np.int64)


def datetimes_from_us(us: Int64s) -> list[datetime]:
    """Return the aware UTC times of int64[n] microseconds since 1970. About 0.1 us each."""
    return list(map(EPOCH.__add__, us.astype("m8[us]", copy=False).tolist()))
