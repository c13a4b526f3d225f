"""Calendar windows: months, years, and weeks from a weekday, on the clock of a time zone.

They are of unequal lengths, so they are kept as their borders: a month of every year there can be
is 7,000 of them, worked out once for a grid.
"""

from __future__ import annotations

import datetime as dt
from calendar import monthrange
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.errors import QueryError
from tinyflux.windows import Windows, transitions

if TYPE_CHECKING:
    from tinyflux.batch import Int64s

__all__ = ["CalendarWindows", "add_months"]

_SECOND_NS: Final = 1_000_000_000
_DAY_S: Final = 86_400
_WEEK_S: Final = 7 * _DAY_S
_MONDAY_S: Final = -3 * _DAY_S  # 1970-01-01 was a Thursday
_MONTH_NS: Final = 2_629_746 * _SECOND_NS  # on average: a year has 365.2425 days
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class CalendarWindows(Windows):
    """A grid of so many months, or so many weeks, that begin at local midnight.

    Months are counted from January 1970, weeks from Monday 1969-12-29. Window i is
    `[start(i), start(i + 1))`. A border that the clock skips lies where the skipped hour would have
    begun; of one that comes twice, the first counts.

    Attributes:
        every_ns: What a window takes on average.
        offset_ns: Shift of all borders on the local clock; any integer.
        months: Months of a window; 0 for weeks.
        weeks: Weeks of a window; 0 for months.
        offset_months: Shift of all borders in months, before that in ns.
        zone: IANA name of the time zone.
    """

    every_ns: int = field(init=False)
    offset_ns: int = 0
    months: int = 0
    weeks: int = 0
    offset_months: int = 0
    zone: str = "UTC"

    def __post_init__(self) -> None:
        every_ns = self.months * _MONTH_NS + self.weeks * _WEEK_S * _SECOND_NS
        object.__setattr__(self, "every_ns", every_ns)
        Windows.__post_init__(self)
        if self.months and self.weeks:
            raise QueryError("calendar windows are of months or of weeks, not both")
        transitions(self.zone)

    def number(self, times: Int64s) -> Int64s:
        """Return int64[n]: the number of the window that each time (ns) lies in."""
        first, borders = _borders(self)
        return np.searchsorted(borders, times, "right") + first

    def start(self, numbers: Int64s) -> Int64s:
        """Return int64[n]: the first ns of each window, cut to the range of times there are."""
        first, borders = _borders(self)
        padded = np.concatenate(([MIN_TIME_NS], borders, [MAX_TIME_NS]))
        starts: Int64s = padded[np.clip(numbers - first, 0, len(padded) - 1)]
        return starts

    def widened(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Return an interval that takes in the whole windows before and behind it."""
        numbers = self.number(np.array([start_ns, end_ns], np.int64)) + np.array([-1, 2])
        first, behind = self.start(numbers).tolist()
        return first, behind - (behind < MAX_TIME_NS)


@lru_cache(maxsize=128)
def _borders(windows: CalendarWindows) -> tuple[int, Int64s]:
    """Return the number of the window of the first time there is, and all borders behind it."""
    offset_s, rest_ns = divmod(windows.offset_ns, _SECOND_NS)
    reach = np.array([MIN_TIME_NS, MAX_TIME_NS]) // _SECOND_NS - offset_s
    low, high = (reach + np.array([-_WEEK_S, _WEEK_S])).tolist()  # clocks are within a week of UTC
    if windows.months:
        low, high = (np.array([low, high], "M8[s]").astype("M8[M]").astype(np.int64)).tolist()
        low, high = low - windows.offset_months, high - windows.offset_months
        numbers = np.arange(low // windows.months, high // windows.months + 2)
        months = numbers * windows.months + windows.offset_months
        local = months.astype("M8[M]").astype("M8[s]").astype(np.int64)
    else:
        size = windows.weeks * _WEEK_S
        numbers = np.arange((low - _MONDAY_S) // size, (high - _MONDAY_S) // size + 2)
        local = numbers * size + _MONDAY_S
    seconds = _utc(local + offset_s, windows.zone)
    first_s, last_s = MIN_TIME_NS // _SECOND_NS + 1, MAX_TIME_NS // _SECOND_NS - 1
    n_before = int(np.searchsorted(seconds, first_s))
    borders = seconds[n_before : np.searchsorted(seconds, last_s, "right")] * _SECOND_NS + rest_ns
    return int(numbers[0]) + n_before - 1, borders


def _utc(local: Int64s, zone: str) -> Int64s:
    """Return when a clock shows a time, for the first time; both in seconds.

    A time that it skips is read by the offset from before.
    """
    since, offsets = (np.array(transitions(zone), np.int64) // _SECOND_NS).T
    # The new offset counts from where the clock has shown all times of the old one.
    since = since + np.maximum(offsets, np.concatenate((offsets[:1], offsets[:-1])))
    segment = np.maximum(np.searchsorted(since, local, "right") - 1, 0)
    utc: Int64s = local - offsets[segment]
    return utc


def add_months(time_ns: int, months: int, zone: str = "") -> int:
    """Return the same day and time of the clock so many months later, in ns.

    A day that the month does not have is its last one. Cost: no more than datetime's.

    Raises:
        QueryError: It is outside of the years 1 to 9999.
    """
    seconds, rest_ns = divmod(time_ns, _SECOND_NS)
    try:
        local = (_EPOCH + dt.timedelta(seconds=seconds)).astimezone(ZoneInfo(zone or "UTC"))
        year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
        day = min(local.day, monthrange(year, month + 1)[1])
        moved = local.replace(year=year, month=month + 1, day=day)
        return (moved.astimezone(dt.UTC) - _EPOCH) // dt.timedelta(seconds=1) * _SECOND_NS + rest_ns
    except (ValueError, OverflowError) as exc:
        raise QueryError("there is no such year") from exc
