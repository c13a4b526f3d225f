"""The time grids. Where a comment says influxd, the numbers were recorded from influxd 1.6.7."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, Int64s
from tinyflux.errors import QueryError
from tinyflux.windows import Windows, ZonedWindows, find_runs

S = 1_000_000_000
MINUTE, HOUR, DAY = 60 * S, 3600 * S, 86_400 * S


def ints(*values: int) -> Int64s:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("every", "offset", "time", "number", "start"),
    [
        pytest.param(10, 0, 0, 0, 0, id="zero"),
        pytest.param(10, 0, -1, -1, -10, id="before 1970"),
        pytest.param(10, 3, 2, -1, -7, id="offset"),
        pytest.param(10, -3, 7, 0, 7, id="negative offset counts modulo the length"),
        pytest.param(10, 123, 12, 0, 3, id="offset longer than a window"),
        pytest.param(7 * DAY, 0, 5 * DAY, 0, 0, id="weeks begin on Thursday"),
        pytest.param(HOUR, 0, MAX_TIME_NS, 2562047, 2562047 * HOUR, id="last time"),
        pytest.param(HOUR, 0, MIN_TIME_NS, -2562048, MIN_TIME_NS, id="first time"),
        pytest.param(HOUR, 5, MIN_TIME_NS, -2562048, MIN_TIME_NS, id="first time, offset"),
        pytest.param(10, 3, MIN_TIME_NS, -922337203685477581, MIN_TIME_NS, id="small windows"),
        pytest.param(2**62, 1, MIN_TIME_NS, -2, MIN_TIME_NS, id="huge windows before 1970"),
        pytest.param(2**62, 1, MAX_TIME_NS, 1, 2**62 + 1, id="huge windows"),
    ],
)
def test_windows_number_and_start(
    every: int, offset: int, time: int, number: int, start: int
) -> None:
    windows = Windows(every, offset)
    assert windows.number(ints(time)).tolist() == [number]
    assert windows.start(ints(number)).tolist() == [start]


def test_windows_behind_the_last_time_start_at_the_end_of_time() -> None:
    windows = Windows(HOUR)
    last = windows.number(ints(MAX_TIME_NS))
    assert windows.start(last + 1).tolist() == [MAX_TIME_NS]
    assert windows.start(last + 5).tolist() == [MAX_TIME_NS]


@pytest.mark.parametrize("every", [0, -1])
def test_windows_refuse_a_length_that_is_not_positive(every: int) -> None:
    with pytest.raises(QueryError, match="must be positive"):
        Windows(every)


def test_windows_of_no_times_are_none() -> None:
    for windows in (Windows(10, 3), ZonedWindows(10, 3, "Europe/Berlin")):
        assert windows.number(ints()).tolist() == []
        assert windows.start(ints()).tolist() == []


# influxd: points at these seconds around the autumn change in Berlin (01:00Z of 2023-10-29), and
# the starts of their windows for time(every, offset) tz('Europe/Berlin').
AUTUMN = [1698534000, 1698537600, 1698541200, 1698544800, 1698548400, 1698620400]


@pytest.mark.parametrize(
    ("every", "offset", "starts"),
    [
        (DAY, 0, [1698530400] * 5 + [1698620400]),
        (7 * DAY, 0, [1698271200] * 6),
        (12 * HOUR, 0, [1698530400] * 5 + [1698620400]),
        (3 * HOUR, 0, [1698530400] * 3 + [1698544800] * 2 + [1698620400]),
        (2 * HOUR, 0, [1698530400] + [1698537600] * 3 + [1698548400, 1698620400]),
        (2 * HOUR, 30 * MINUTE, [1698532200] * 2 + [1698539400] * 3 + [1698615000]),
        (3 * HOUR, -10 * MINUTE, [1698529800] * 3 + [1698544200] * 2 + [1698619800]),
        (HOUR, 0, AUTUMN),
        (30 * MINUTE, 0, AUTUMN),
    ],
)
def test_zoned_windows_follow_the_clock_that_is_set_back(
    every: int, offset: int, starts: list[int]
) -> None:
    windows = ZonedWindows(every, offset, "Europe/Berlin")
    numbers = windows.number(np.array(AUTUMN, np.int64) * S)
    assert (windows.start(numbers) // S).tolist() == starts


# The spring change in Berlin: 01:00Z of 2023-03-26, 02:00 becomes 03:00.
SPRING = 1679792400


@pytest.mark.parametrize(
    ("every", "offset", "starts"),
    [
        (DAY, 0, [SPRING - 7200] * 3),
        (2 * HOUR, 0, [SPRING - 7200, SPRING, SPRING + 3600]),
        (HOUR, 0, [SPRING - 3600, SPRING, SPRING + 3600]),
        # influxd: [00:30, 03:30) and [03:30, 04:30), the clock is read at the time less the offset
        (2 * HOUR, 30 * MINUTE, [SPRING - 5400, SPRING - 5400, SPRING + 1800]),
    ],
)
def test_zoned_windows_follow_the_clock_that_is_set_forward(
    every: int, offset: int, starts: list[int]
) -> None:
    windows = ZonedWindows(every, offset, "Europe/Berlin")
    numbers = windows.number(ints(SPRING - 1, SPRING, SPRING + 3600) * S)
    assert (windows.start(numbers) // S).tolist() == starts


def test_zoned_days_are_23_and_25_hours_long() -> None:
    windows = ZonedWindows(DAY, 0, "Europe/Berlin")
    for second, hours in ((SPRING, 23), (AUTUMN[0], 25), (1690000000, 24)):
        number = windows.number(ints(second * S))
        length = windows.start(number + 1) - windows.start(number)
        assert length.tolist() == [hours * HOUR]


def test_zoned_windows_in_utc_are_plain_windows() -> None:
    times = np.arange(-50, 50, dtype=np.int64) * (7 * HOUR + 13)
    for zone in ("UTC", ""):
        windows = ZonedWindows(3 * HOUR, HOUR, zone)
        numbers = windows.number(times)
        assert numbers.tolist() == Windows(3 * HOUR, HOUR).number(times).tolist()
        assert windows.start(numbers).tolist() == Windows(3 * HOUR, HOUR).start(numbers).tolist()


def test_zoned_windows_refuse_an_unknown_zone() -> None:
    for zone in ("Mars/Olympus", "../etc/passwd", "europe/berlin "):
        with pytest.raises(QueryError, match="unable to find time zone"):
            ZonedWindows(DAY, 0, zone)


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Pacific/Apia", "Asia/Tehran"]
)
@pytest.mark.parametrize("every", [20 * MINUTE, 45 * MINUTE, HOUR, 7 * HOUR, DAY, 30 * DAY])
def test_zoned_windows_are_consecutive_and_hold_their_own_start(zone: str, every: int) -> None:
    windows = ZonedWindows(every, 5 * MINUTE, zone)
    times = np.arange(1_293_000_000, 1_330_000_000, 600, dtype=np.int64) * S  # 2010-12 .. 2012-02
    numbers = windows.number(times)
    assert set(np.diff(numbers).tolist()) <= {0, 1}
    starts = windows.start(numbers)
    assert (starts <= times).all()
    assert (times < windows.start(numbers + 1)).all()
    assert (windows.number(starts) == numbers).all()
    assert (windows.number(starts - 1) == numbers - 1).all()


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo"])
def test_zoned_days_begin_at_local_midnight(zone: str) -> None:
    windows = ZonedWindows(DAY, 0, zone)
    times = np.arange(0, 2_000_000_000, 40_000, dtype=np.int64) * S
    starts = np.unique(windows.start(windows.number(times)))
    clocks = {
        dt.datetime.fromtimestamp(second, ZoneInfo(zone)).time()
        for second in (starts // S).tolist()
    }
    # Where midnight itself is skipped by the change, the day begins with the change.
    assert clocks <= {dt.time(0), dt.time(1)}
    assert dt.time(0) in clocks


def test_zoned_windows_hold_over_all_times() -> None:
    windows = ZonedWindows(HOUR, 0, "Europe/Berlin")
    numbers = windows.number(ints(MIN_TIME_NS, MAX_TIME_NS))
    starts = windows.start(numbers)
    assert starts[0] == MIN_TIME_NS
    assert MAX_TIME_NS - HOUR < starts[1] <= MAX_TIME_NS


def test_runs_are_the_same_by_edges_and_by_rows() -> None:
    rng = np.random.default_rng(7)
    lengths = rng.integers(1, 4000, 12)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    times = np.concatenate([np.sort(rng.integers(-(10**6), 10**6, n)) for n in lengths])
    for every in (5 * 10**5, 3 * 10**5, 10**4, 50):  # from few windows to many
        windows = Windows(every, 17)
        runs = find_runs(times, offsets, windows)
        numbers = windows.number(times)
        series = np.repeat(np.arange(len(lengths)), lengths)
        expected = [0, *(np.flatnonzero((np.diff(numbers) != 0) | (np.diff(series) != 0)) + 1)]
        assert runs.starts.tolist() == expected
        assert runs.lengths.tolist() == np.diff([*expected, len(times)]).tolist()
        assert runs.numbers.tolist() == numbers[expected].tolist()
        assert runs.series.tolist() == series[expected].tolist()


def test_runs_without_windows_are_the_series() -> None:
    runs = find_runs(ints(1, 2, 9), ints(0, 2, 3), None)
    assert runs.starts.tolist() == [0, 2]
    assert runs.lengths.tolist() == [2, 1]
    assert runs.series.tolist() == [0, 1]
    assert runs.numbers.tolist() == [0, 0]
