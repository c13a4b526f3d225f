"""When a continuous query runs, and over which windows. Pure: no clock, no data.

The rules are influxd's. A query runs at each multiple of EVERY (its window when not given), on the
grid of its windows: their offset, their time zone. It covers whole windows: up to the last complete
one, with EVERY below the window also the one that runs; from one window back, or FOR back. Whatever
time passed since the last run is covered too.
Source: spec influxql.md section 14.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.errors import StatementError
from gateway.logic import both
from gateway.planner import compile_select
from gateway.timerange import split_condition
from grammar import ast
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.calendars import CalendarWindows
from tinyflux.windows import Windows, ZonedWindows

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_WINDOWS: Final = 2048  # of one run, beyond what the query itself asks for: a day of minutes


@dataclass(frozen=True, slots=True)
class Schedule:
    """The times of one continuous query; all in ns.

    Attributes:
        windows: The grid of its GROUP BY time.
        runs: The grid of its runs.
        look_back_ns: How far a run looks back: one window, EVERY or FOR, whichever it is.
        late_ns: How far a run looks back when late points came; 0 does not look for them.
    """

    windows: Windows
    runs: Windows
    look_back_ns: int
    late_ns: int = 0

    @staticmethod
    def of(statement: ast.CreateContinuousQuery) -> Schedule:
        """Return the schedule of a continuous query.

        Raises:
            StatementError: It has no windows, or its SELECT is not sound.
        """
        shape = compile_select(statement.select, 0)
        windows = shape.windows
        if shape.is_raw or windows is None:
            raise StatementError("continuous queries must be aggregate queries")
        runs = _runs(statement.every_ns, windows) if statement.every_ns else windows
        look_back_ns = statement.for_ns or max(windows.every_ns, runs.every_ns)
        return Schedule(windows, runs, look_back_ns, statement.late_ns)

    def last_run(self, time_ns: int) -> int:
        """Return when it runs last, up to and with a time."""
        return _start(self.runs, time_ns)

    def next_run(self, time_ns: int) -> int:
        """Return when it runs next after a time."""
        return _start(self.runs, time_ns, 1)

    def span(self, due_ns: int, now_ns: int) -> tuple[int, int]:
        """Return the range, from start up to end, of a run.

        Args:
            due_ns: The first run that was not made yet; now when there never was one.
            now_ns: When it runs.

        Returns:
            Borders of windows; no windows when the end is not after the start.
        """
        windows = self.windows
        if self.look_back_ns == windows.every_ns:
            start = _start(windows, due_ns - 1)
        else:  # the first window that begins as far back as that, or later
            start = _start(windows, due_ns - self.look_back_ns - 1, 1)
        if self.runs.every_ns >= windows.every_ns:
            return start, _start(windows, now_ns)
        return start, _start(windows, now_ns - self.runs.every_ns, 1)

    def late_start(self, late_ns: int, due_ns: int) -> int:
        """Return where a run starts that takes in a late point, as far back as LATE allows."""
        return _start(self.windows, max(late_ns, due_ns - self.late_ns))

    def longest_ns(self, attempts: int = 0) -> int:
        """Return the longest range of one run: all that is asked for, and so many windows more.

        Args:
            attempts: How often it was tried; each time it is tried with less.
        """
        own = self.look_back_ns + self.late_ns + self.runs.every_ns
        return own + max(MAX_WINDOWS >> attempts, 1) * self.windows.every_ns

    def end_of_piece(self, start_ns: int, end_ns: int, attempts: int = 0) -> int:
        """Return where a run has to end that starts here and wants to go there."""
        longest_ns = self.longest_ns(attempts)
        if end_ns - start_ns <= longest_ns:
            return end_ns
        return _start(self.windows, start_ns + longest_ns)

    def pieces(self, start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the runs that cover every window a range of time touches."""
        if end_ns <= start_ns:
            return
        start, stop = _start(self.windows, start_ns), _start(self.windows, end_ns - 1, 1)
        while start < stop:
            end = self.end_of_piece(start, stop)
            yield start, end
            start = end


def _runs(every_ns: int, windows: Windows) -> Windows:
    """Return the grid of `RESAMPLE EVERY`, on the clock of the windows."""
    if isinstance(windows, CalendarWindows):
        return ZonedWindows(every_ns, 0, windows.zone)
    if isinstance(windows, ZonedWindows):
        return ZonedWindows(every_ns, windows.offset_ns, windows.zone)
    return Windows(every_ns, windows.offset_ns)


def within(select: ast.Select, start_ns: int, end_ns: int, now_ns: int) -> ast.Select:
    """Return a SELECT with a range of time instead of its own bounds on time, if it has some.

    Args:
        select: The statement of a continuous query.
        start_ns: The first time.
        end_ns: The time behind the last one.
        now_ns: What `now()` is.
    """
    rest, _ = split_condition(select.condition, now_ns, select.timezone)
    time = ast.VarRef("time")
    start = ast.BinaryExpr(">=", time, ast.IntegerLiteral(start_ns))
    end = ast.BinaryExpr("<", time, ast.IntegerLiteral(end_ns))
    return replace(select, condition=both(both(rest, start), end))


def _start(windows: Windows, time_ns: int, later: int = 0) -> int:
    """Return the start of the window a time lies in, or of one so many windows later."""
    times = np.array([min(max(time_ns, MIN_TIME_NS), MAX_TIME_NS)], np.int64)
    return int(windows.start(windows.number(times) + later)[0])
