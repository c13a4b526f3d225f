"""Months, years and weeks, against `datetime` and `zoneinfo` asked for one date at a time."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.calendars import CalendarWindows, add_months
from tinyflux.errors import QueryError

S = 1_000_000_000
DAY_NS = 86_400 * S
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Summer time on both halves of the globe; a clock that skips midnight, one that shows it twice;
# half hours; one that skipped a day.
ZONES = ["UTC", "Europe/Berlin", "Australia/Sydney", "America/Sao_Paulo", "America/Havana"]
ZONES += ["Asia/Kolkata", "Pacific/Apia"]


def ns(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1) * 1000


def local(zone: str, *date: int) -> int:
    year, month, day, hour = (*date, 0)[:4]
    return ns(dt.datetime(year, month, day, hour, tzinfo=ZoneInfo(zone)))


def month_start(index: int, offset_months: int, offset_ns: int, zone: str) -> int:
    """Return where a month begins that is counted from January 1970, as a datetime says it."""
    year, month = divmod(1970 * 12 + index + offset_months, 12)
    wall = dt.datetime(year, month + 1, 1) + dt.timedelta(seconds=offset_ns // S)  # noqa: DTZ001
    return ns(wall.replace(tzinfo=ZoneInfo(zone))) + offset_ns % S


def week_start(index: int, offset_ns: int, zone: str) -> int:
    wall = dt.datetime(1969, 12, 29) + dt.timedelta(weeks=index, seconds=offset_ns // S)  # noqa: DTZ001
    return ns(wall.replace(tzinfo=ZoneInfo(zone))) + offset_ns % S


_times = st.integers(local("UTC", 1930, 1, 1), local("UTC", 2037, 1, 1))
_offsets = st.one_of(
    st.sampled_from([0, 14 * DAY_NS, -DAY_NS, 6 * 3600 * S]), st.integers(-(10**16), 10**16)
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([1, 2, 3, 5, 12, 120]),
    st.integers(-5, 15),
    _offsets,
    st.sampled_from(ZONES),
    st.lists(_times, min_size=1, max_size=6),
)
def test_months_are_those_of_the_calendar(
    months: int, offset_months: int, offset_ns: int, zone: str, times: list[int]
) -> None:
    windows = CalendarWindows(offset_ns, months=months, offset_months=offset_months, zone=zone)
    numbers = windows.number(np.array(times, np.int64))
    starts, ends = windows.start(numbers), windows.start(numbers + 1)

    for time, number, start, end in zip(times, numbers.tolist(), starts, ends, strict=True):
        assert start <= time < end
        assert start == month_start(number * months, offset_months, offset_ns, zone)
        assert end == month_start((number + 1) * months, offset_months, offset_ns, zone)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([1, 2, 13]),
    _offsets,
    st.sampled_from(ZONES),
    st.lists(_times, min_size=1, max_size=6),
)
def test_weeks_are_those_of_the_calendar(
    weeks: int, offset_ns: int, zone: str, times: list[int]
) -> None:
    windows = CalendarWindows(offset_ns, weeks=weeks, zone=zone)
    numbers = windows.number(np.array(times, np.int64))
    starts, ends = windows.start(numbers), windows.start(numbers + 1)

    for time, number, start, end in zip(times, numbers.tolist(), starts, ends, strict=True):
        assert start <= time < end
        assert start == week_start(number * weeks, offset_ns, zone)
        assert end == week_start((number + 1) * weeks, offset_ns, zone)


@pytest.mark.parametrize(
    ("windows", "starts"),
    [
        pytest.param(
            CalendarWindows(months=1),
            [(2024, 1, 1), (2024, 2, 1), (2024, 3, 1), (2024, 4, 1)],
            id="a leap year",
        ),
        pytest.param(
            CalendarWindows(14 * DAY_NS, months=1),
            [(2023, 12, 15), (2024, 1, 15), (2024, 2, 15), (2024, 3, 15)],
            id="from the 15th",
        ),
        pytest.param(
            CalendarWindows(months=3), [(2024, 1, 1), (2024, 4, 1), (2024, 7, 1)], id="quarters"
        ),
        pytest.param(
            CalendarWindows(5 * DAY_NS, months=12, offset_months=3),
            [(2023, 4, 6), (2024, 4, 6), (2025, 4, 6)],
            id="years from 6 April",
        ),
        pytest.param(CalendarWindows(weeks=1), [(2024, 1, 8), (2024, 1, 15)], id="Mondays"),
        pytest.param(
            CalendarWindows(6 * DAY_NS, weeks=1), [(2024, 1, 7), (2024, 1, 14)], id="Sundays"
        ),
    ],
)
def test_borders_by_hand(windows: CalendarWindows, starts: list[tuple[int, ...]]) -> None:
    borders = [local("UTC", *start) for start in starts]

    for border, following in pairwise(borders):
        numbers = windows.number(np.array([border - 1, border, following - 1], np.int64))
        assert (numbers - numbers[1]).tolist() == [-1, 0, 0]
        assert windows.start(numbers[1:2]).tolist() == [border]


def test_a_month_of_berlin_has_an_hour_less_in_spring() -> None:
    windows = CalendarWindows(months=1, zone="Europe/Berlin")
    starts = windows.start(windows.number(np.array([local("UTC", 2024, 3, 15)])) + np.arange(2))

    assert starts.tolist() == [
        local("Europe/Berlin", 2024, 3, 1),
        local("Europe/Berlin", 2024, 4, 1),
    ]
    assert int(np.diff(starts)[0]) == 31 * DAY_NS - 3600 * S


@pytest.mark.parametrize(
    "windows",
    [
        CalendarWindows(months=1, zone="Europe/Berlin"),
        CalendarWindows(-DAY_NS, months=3504),
        CalendarWindows(months=100_000),
        CalendarWindows(weeks=1, zone="Asia/Kolkata"),
    ],
)
def test_every_time_there_is_has_a_window(windows: CalendarWindows) -> None:
    times = np.array([MIN_TIME_NS, -1, 0, MAX_TIME_NS], np.int64)
    numbers = windows.number(times)

    assert (windows.start(numbers) <= times).all()
    assert windows.start(numbers[:1]).tolist() == [MIN_TIME_NS]
    assert windows.start(numbers[-1:] + 1).tolist() == [MAX_TIME_NS]
    assert windows.start(numbers[:1] - 9).tolist() == [MIN_TIME_NS]
    assert windows.number(np.zeros(0, np.int64)).tolist() == []


def test_widened_takes_in_the_whole_windows_beside() -> None:
    windows = CalendarWindows(months=1)
    start, end = local("UTC", 2024, 3, 15), local("UTC", 2024, 3, 20)

    assert windows.widened(start, end) == (
        local("UTC", 2024, 2, 1),
        local("UTC", 2024, 5, 1) - 1,
    )
    assert windows.widened(MIN_TIME_NS, MAX_TIME_NS) == (MIN_TIME_NS, MAX_TIME_NS)


@pytest.mark.parametrize(("months", "weeks"), [(0, 0), (1, 1), (-1, 0), (0, -1)])
def test_windows_are_of_months_or_of_weeks(months: int, weeks: int) -> None:
    with pytest.raises(QueryError):
        CalendarWindows(months=months, weeks=weeks)


def test_windows_are_of_a_zone_that_there_is() -> None:
    with pytest.raises(QueryError, match="unable to find time zone No/Where"):
        CalendarWindows(months=1, zone="No/Where")


@pytest.mark.parametrize(
    ("zone", "date", "months", "expected"),
    [
        ("UTC", (2024, 3, 31, 12), -1, (2024, 2, 29, 12)),
        ("UTC", (2023, 3, 31), -1, (2023, 2, 28)),
        ("UTC", (2024, 2, 29), 12, (2025, 2, 28)),
        ("UTC", (2024, 12, 1), 1, (2025, 1, 1)),
        ("Europe/Berlin", (2024, 3, 1, 8), 1, (2024, 4, 1, 8)),
    ],
)
def test_months_are_added_on_the_calendar(
    zone: str, date: tuple[int, ...], months: int, expected: tuple[int, ...]
) -> None:
    assert add_months(local(zone, *date) + 7, months, zone) == local(zone, *expected) + 7


def test_years_end_at_9999() -> None:
    with pytest.raises(QueryError):
        add_months(0, 12 * 9000)
