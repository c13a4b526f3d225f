"""Time windows: which one a time lies in, where they begin, and where rows change window.

`Windows` is the plain grid counted from 1970 in UTC, `ZonedWindows` the grid of a local clock
(InfluxQL's `tz()`), whose windows are longer or shorter where the clock is changed; months and
years are in `tinyflux.calendars`. All are pure: arrays in, arrays out, no storage, no clock. The
functions over the windows (`mean`, `percentile`, ...) are in `tinyflux.kernels`; `KERNELS` names
them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.bisection import search
from tinyflux.errors import QueryError
from tinyflux.kernels import KERNELS

if TYPE_CHECKING:
    from tinyflux.batch import Int64s

__all__ = ["KERNELS", "Runs", "Windows", "ZonedWindows", "find_runs"]

_SECOND_NS: Final = 1_000_000_000
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

# Where bisecting every window border in every series beats numbering every row: a step of the one
# costs about as much as this many rows of the other (1000 series x 1080 rows,
# tests/benchmarks/bench_aggregate.py).
_ROWS_PER_STEP: Final = 5


@dataclass(frozen=True, slots=True)
class Windows:
    """A grid of half-open time windows `[start, start + every)` counted from 1970-01-01T00:00:00Z.

    Windows have consecutive numbers; number 0 starts at `offset_ns` modulo `every_ns`.

    Attributes:
        every_ns: Length of a window, > 0.
        offset_ns: Shift of the grid; any integer.
    """

    every_ns: int
    offset_ns: int = 0

    def __post_init__(self) -> None:
        if self.every_ns <= 0:
            raise QueryError(f"window length must be positive, got {self.every_ns}ns")

    def number(self, times: Int64s) -> Int64s:
        """Return int64[n]: the number of the window that each time (ns) lies in."""
        return _floor_numbers(times, self.every_ns, self.offset_ns % self.every_ns)

    def start(self, numbers: Int64s) -> Int64s:
        """Return int64[n]: the first ns of each window, cut to the range of times there are."""
        return _starts(numbers, self.every_ns, self.offset_ns % self.every_ns)

    def widened(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Return an interval that reaches one window farther at both ends."""
        start_ns, end_ns = start_ns - self.every_ns, end_ns + self.every_ns
        return max(start_ns, MIN_TIME_NS), min(end_ns, MAX_TIME_NS)


@dataclass(frozen=True, slots=True)
class ZonedWindows(Windows):
    """A grid of windows on the clock of a time zone: days start at local midnight.

    Where the clock is changed by less than a window, the window around the change is longer or
    shorter (a day has 23 or 25 hours). Where the clock is set back by a window or more, the local
    hours that come twice are windows of their own, as in InfluxDB.

    Attributes:
        zone: IANA name of the time zone.

    Source: influxd 1.6.7 answers; spec influxql.md section 8.
    """

    # Differs from influxd: where a border falls into an hour that is skipped or comes twice (only
    # lengths like 45m make it), influxd's windows overlap; ours never do.

    zone: str = "UTC"

    def __post_init__(self) -> None:
        Windows.__post_init__(self)
        transitions(self.zone)

    def number(self, times: Int64s) -> Int64s:
        """Return int64[n]: the number of the window that each time (ns) lies in."""
        grid = _zone_grid(self.zone, self.every_ns, self.offset_ns)
        if not len(times):
            return np.zeros(0, np.int64)
        first, last = np.searchsorted(grid.since, (times.min(), times.max()), "right") - 1
        if first == last:  # one offset over all times, as most often: no search for each time
            segment: Int64s = first
        else:
            segment = np.searchsorted(grid.since, times, "right") - 1
        local = _floor_numbers(times, self.every_ns, grid.anchors[segment])
        numbers: Int64s = np.maximum(local + grid.shifts[segment], grid.floors[segment])
        return numbers

    def start(self, numbers: Int64s) -> Int64s:
        """Return int64[n]: the first ns of each window, cut to the range of times there are."""
        grid = _zone_grid(self.zone, self.every_ns, self.offset_ns)
        segment = np.minimum(np.searchsorted(grid.lasts, numbers), len(grid.lasts) - 1)
        starts = _starts(numbers - grid.shifts[segment], self.every_ns, grid.anchors[segment])
        return np.maximum(starts, grid.since[segment])


def _floor_numbers(times: Int64s, every: int, anchor: int | Int64s) -> Int64s:
    """Return floor((times - anchor) / every) for 0 <= anchor < every, up to the ends of int64."""
    if isinstance(anchor, int) and anchor == 0:
        return times // every
    if not len(times) or int(times.min()) >= MIN_TIME_NS + every:
        return (times - anchor) // every
    numbers = times // every
    return numbers - (times - numbers * every < anchor)


def _starts(numbers: Int64s, every: int, anchor: int | Int64s) -> Int64s:
    """Return numbers * every + anchor, cut to the range of times."""
    low, high = -(-MIN_TIME_NS // every), MAX_TIME_NS // every  # the products that fit
    if not len(numbers) or (low < int(numbers.min()) and int(numbers.max()) < high):
        return numbers * every + anchor
    starts = np.clip(numbers, low, high) * every
    lowest = starts - np.minimum(every - anchor, starts - MIN_TIME_NS)
    starts = np.where(numbers < low, lowest, np.minimum(starts, MAX_TIME_NS - anchor) + anchor)
    starts[numbers > high] = MAX_TIME_NS
    return starts


@dataclass(frozen=True, slots=True, eq=False)
class _ZoneGrid:
    """A grid on a local clock, in segments of constant offset from UTC; all arrays int64[s].

    In segment i a time t has the number max((t - anchors[i]) // every + shifts[i], floors[i]).

    Attributes:
        since: First ns of the segment, ascending.
        anchors: Where the grid is anchored, in 0..every.
        shifts: What is added so that numbers stay consecutive over all segments.
        floors: The smallest number of the segment.
        lasts: The number of the last ns of the segment, ascending.
    """

    since: Int64s
    anchors: Int64s
    shifts: Int64s
    floors: Int64s
    lasts: Int64s


@lru_cache(maxsize=256)
def _zone_grid(zone: str, every: int, offset_ns: int) -> _ZoneGrid:
    # As in Go the remainder has the sign of the offset. And as in influxd the clock is read at the
    # time less the offset, so the changes of the clock move along with the grid.
    anchor = abs(offset_ns) % every * (-1 if offset_ns < 0 else 1)
    (first, before), *changes = transitions(zone)
    moved = [(first, before), *((since + anchor, offset) for since, offset in changes)]
    ends = [since for since, _ in moved[1:]] + [MAX_TIME_NS + 1]
    rows: list[tuple[int, int, int, int, int]] = []
    floor = MIN_TIME_NS  # the first segment has nothing before it to continue
    shift = 0
    for i, ((since, offset), end) in enumerate(zip(moved, ends, strict=True)):
        local = (since + offset - anchor) // every
        if i:
            before = moved[i - 1][1]
            last = rows[-1][4]
            floor = last
            if abs(offset - before) >= every:
                # Hours that come twice are windows of their own; hours that never come are none.
                starts_here = (
                    not (since + before - anchor) % every or not (since + offset - anchor) % every
                )
                floor = last + starts_here
                shift = floor - local
        turns, grid_anchor = divmod(anchor - offset, every)
        final = max((end - 1 + offset - anchor) // every + shift, floor)
        rows.append((since, grid_anchor, shift - turns, floor, final))
    return _ZoneGrid(*np.array(rows, np.int64).T.copy())


@lru_cache(maxsize=64)
def transitions(zone: str) -> tuple[tuple[int, int], ...]:
    """Return (since, offset from UTC), both in ns, of every stretch of constant offset of a zone.

    The zone database gives offsets, not changes, so the changes are looked for: a step of a week
    finds all but a change that is taken back within days. About 30 ms for a zone, once.
    """
    try:
        info = ZoneInfo(zone or "UTC")
    except (OSError, ValueError) as exc:  # ZoneInfoNotFoundError is a KeyError
        raise QueryError(f"unable to find time zone {zone}") from exc
    except KeyError as exc:
        raise QueryError(f"unable to find time zone {zone}") from exc

    def offset_at(second: int) -> int:
        offset = (_EPOCH + dt.timedelta(seconds=second)).astimezone(info).utcoffset()
        return int(offset.total_seconds()) if offset is not None else 0

    first, last, step = -(140 * 365 * 86_400), MAX_TIME_NS // _SECOND_NS, 7 * 86_400
    known = offset_at(first)
    found = [(MIN_TIME_NS, known * _SECOND_NS)]
    for second in range(first, last, step):
        if offset_at(second + step) == known:
            continue
        low, high = second, second + step  # the offset at low is `known`, at high it is not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset_at(middle) == known else (low, middle)
        known = offset_at(second + step)
        found.append((high * _SECOND_NS, known * _SECOND_NS))
    return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Neighbouring rows of the same series and window. Together the runs cover all rows, in order.

    Attributes:
        starts: int64[r], the first row of each run.
        lengths: int64[r], rows in each run, > 0.
        series: int64[r], the position of the series among the offsets.
        numbers: int64[r], the number of the window; 0 without windows.
    """

    starts: Int64s
    lengths: Int64s
    series: Int64s
    numbers: Int64s


def find_runs(times: Int64s, offsets: Int64s, windows: Windows | None) -> Runs:
    """Return the runs of rows that share series and window.

    Args:
        times: int64[n], ns, ascending within each series.
        offsets: int64[k + 1]; the rows of series i are offsets[i]:offsets[i + 1], never empty.
        windows: The grid; None is one window over everything.

    Cost: O(n), or O(k * windows * log(n / k)) when that is less.
    """
    lengths = offsets[1:] - offsets[:-1]
    n_series = len(lengths)
    if windows is None or not n_series:
        positions = np.arange(n_series)
        return Runs(offsets[:-1], lengths, positions, np.zeros(n_series, np.int64))
    if n_series == 1:
        bounds = times[[0, -1]]
    else:
        bounds = np.array((times[offsets[:-1]].min(), times[offsets[1:] - 1].max()), np.int64)
    first, last = windows.number(bounds).tolist()
    steps = n_series * (last - first) * int(lengths.max()).bit_length()
    if steps * _ROWS_PER_STEP < len(times):
        edges = windows.start(np.arange(first + 1, last + 1))
        return _runs_by_edges(times, offsets, first, edges)
    return _runs_by_rows(windows.number(times), offsets)


def _runs_by_rows(numbers: Int64s, offsets: Int64s) -> Runs:
    """Find the runs by numbering every row."""
    changes = np.empty(len(numbers), np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=changes[1:])
    changes[offsets[:-1]] = True
    [starts] = changes.nonzero()
    lengths = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1] = len(numbers) - starts[-1]
    if len(offsets) == 2:
        series = np.zeros(len(starts), np.int64)
    else:
        series = offsets.searchsorted(starts, "right") - 1
    return Runs(starts, lengths, series, numbers[starts])


def _runs_by_edges(times: Int64s, offsets: Int64s, first: int, edges: Int64s) -> Runs:
    """Find the runs by bisecting for every border between windows in every series, all at once."""
    n_series, n_windows = len(offsets) - 1, len(edges) + 1
    low = np.repeat(offsets[:-1], len(edges))
    high = np.repeat(offsets[1:], len(edges))
    found = search(times, low, high, np.tile(edges, n_series), "left")
    borders = np.empty((n_series, n_windows + 1), np.int64)
    borders[:, 0], borders[:, -1] = offsets[:-1], offsets[1:]
    borders[:, 1:-1] = found.reshape(n_series, len(edges))
    lengths = np.diff(borders, axis=1)
    series, window = np.nonzero(lengths)
    return Runs(borders[series, window], lengths[series, window], series, window + first)
