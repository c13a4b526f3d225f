"""When continuous queries run and over which windows; the answers are influxd's rules by hand."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.errors import StatementError
from gateway.schedule import MAX_WINDOWS, Schedule, within
from grammar import ast
from grammar.parser import parse
from grammar.printer import to_influxql

S = 1_000_000_000
MINUTE = 60 * S
HOUR = 60 * MINUTE
BASE = 1_700_000_040 * S  # 2023-11-14T22:14:00Z, a whole minute


def schedule(grouping: str = "time(1m)", resample: str = "", clauses: str = "") -> Schedule:
    (statement,) = parse(
        f"CREATE CONTINUOUS QUERY c ON d {resample} "
        f"BEGIN SELECT mean(v) INTO o FROM m GROUP BY {grouping} {clauses} END"
    )
    assert isinstance(statement, ast.CreateContinuousQuery)
    return Schedule.of(statement)


def next_span(made: Schedule, last_run_ns: int) -> tuple[int, int, int]:
    """Return when the next run is, and the range it covers when it is in time."""
    due_ns = made.next_run(last_run_ns)
    return due_ns, *made.span(due_ns, due_ns)


@pytest.mark.parametrize(
    ("resample", "due", "start", "end"),
    [
        pytest.param("", 60, 0, 60, id="one window back"),
        pytest.param("RESAMPLE EVERY 20s", 20, 0, 60, id="EVERY below: the running window"),
        pytest.param("RESAMPLE FOR 3m", 60, -120, 60, id="FOR: more windows"),
        pytest.param("RESAMPLE EVERY 20s FOR 2m", 20, -60, 60, id="EVERY and FOR"),
        pytest.param("RESAMPLE EVERY 2m", 120, 0, 120, id="EVERY above: all windows of it"),
        pytest.param("RESAMPLE EVERY 2m FOR 6m", 120, -240, 120, id="EVERY above, FOR more"),
        pytest.param("RESAMPLE LATE 1h", 60, 0, 60, id="LATE alone changes nothing"),
    ],
)
def test_run_in_time_covers_its_windows(resample: str, due: int, start: int, end: int) -> None:
    expected = tuple(BASE + seconds * S for seconds in (due, start, end))
    assert next_span(schedule(resample=resample), BASE) == expected


def test_first_run_of_a_started_window_covers_nothing() -> None:
    now_ns = BASE + 30 * S
    start, end = schedule().span(now_ns, now_ns)
    assert end <= start


def test_missed_runs_are_covered_from_the_first_one() -> None:
    made = schedule()
    assert made.span(made.next_run(BASE), BASE + 10 * MINUTE + 5 * S) == (BASE, BASE + 10 * MINUTE)


def test_offset_of_the_windows_moves_runs_and_ranges() -> None:
    expected = (BASE + 75 * S, BASE + 15 * S, BASE + 75 * S)
    assert next_span(schedule("time(1m, 15s)"), BASE + 15 * S) == expected


def test_days_of_a_zone_run_at_its_midnight_also_when_they_have_25_hours() -> None:
    def berlin(day: int) -> int:
        return int(datetime(2023, 10, day, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * S

    made = schedule("time(1d)", clauses="tz('Europe/Berlin')")
    assert next_span(made, berlin(28)) == (berlin(29), berlin(28), berlin(29))
    assert next_span(made, berlin(29)) == (berlin(30), berlin(29), berlin(30))
    assert berlin(30) - berlin(29) == 25 * HOUR


@pytest.mark.parametrize(
    ("resample", "last", "due", "start", "end"),
    [
        pytest.param("", (2, 1), (3, 1), (2, 1), (3, 1), id="the month that ended, of 29 days"),
        pytest.param("", (3, 1), (4, 1), (3, 1), (4, 1), id="the month of the clock change"),
        pytest.param("RESAMPLE EVERY 1d", (3, 30), (3, 31), (3, 1), (4, 1), id="EVERY: this month"),
        pytest.param("RESAMPLE EVERY 1d", (2, 29), (3, 1), (2, 1), (3, 1), id="EVERY, first day"),
        pytest.param("RESAMPLE FOR 70d", (3, 1), (4, 1), (2, 1), (4, 1), id="FOR: two months"),
    ],
)
def test_months_of_a_zone_run_at_its_midnight(
    resample: str,
    last: tuple[int, int],
    due: tuple[int, int],
    start: tuple[int, int],
    end: tuple[int, int],
) -> None:
    def berlin(date: tuple[int, int]) -> int:
        return int(datetime(2024, *date, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * S

    made = schedule("time(1mo)", resample, "tz('Europe/Berlin')")
    expected = berlin(due), berlin(start), berlin(end)
    assert next_span(made, berlin(last)) == expected


def test_missed_months_are_covered_and_every_piece_is_whole_months() -> None:
    def utc(year: int, month: int) -> int:
        return int(datetime(year, month, 1, tzinfo=ZoneInfo("UTC")).timestamp()) * S

    made = schedule("time(1mo)")
    due_ns = made.next_run(utc(2023, 11))
    assert made.span(due_ns, utc(2024, 3) + HOUR) == (utc(2023, 11), utc(2024, 3))
    assert list(made.pieces(utc(2024, 1) + S, utc(2024, 3) + S)) == [(utc(2024, 1), utc(2024, 4))]
    assert made.end_of_piece(utc(1800, 1), utc(2024, 1), attempts=20) == utc(1800, 4)


def test_late_points_move_the_start_at_most_as_far_as_late_says() -> None:
    made = schedule(resample="RESAMPLE LATE 10m")
    due_ns = BASE + HOUR
    assert made.late_start(due_ns - 90 * S, due_ns) == due_ns - 2 * MINUTE
    assert made.late_start(0, due_ns) == due_ns - 10 * MINUTE


def test_pieces_cover_every_window_that_a_range_touches() -> None:
    made = schedule()
    assert list(made.pieces(BASE + S, BASE + MINUTE + S)) == [(BASE, BASE + 2 * MINUTE)]
    assert list(made.pieces(BASE, BASE + MINUTE)) == [(BASE, BASE + MINUTE)]
    assert list(made.pieces(BASE + 1, BASE + 1)) == []


def test_pieces_follow_one_another_and_none_is_too_long() -> None:
    made = schedule(resample="RESAMPLE FOR 1h LATE 1d")
    stop = BASE + 20 * MAX_WINDOWS * MINUTE
    pieces = list(made.pieces(BASE, stop))
    assert len(pieces) > 3
    assert [start for start, _ in pieces[1:]] == [end for _, end in pieces[:-1]]
    assert (pieces[0][0], pieces[-1][1]) == (BASE, stop)
    assert max(end - start for start, end in pieces) <= made.longest_ns()


@pytest.mark.parametrize("attempts", [0, 3, 9])
@pytest.mark.parametrize("resample", ["", "RESAMPLE EVERY 7m", "RESAMPLE EVERY 10s FOR 3h LATE 2h"])
def test_run_that_had_to_stop_early_is_followed_by_one_without_a_gap(
    resample: str, attempts: int
) -> None:
    made = schedule(resample=resample)
    now_ns = BASE + 12 * made.longest_ns(attempts)
    last_ns = made.last_run(BASE)
    start, wanted = made.span(made.next_run(last_ns), now_ns)
    n_runs = 0
    while (end := made.end_of_piece(start, wanted, attempts)) < wanted:
        resumed = made.last_run(end)
        assert resumed > last_ns
        last_ns, before = resumed, end
        start, wanted = made.span(made.next_run(last_ns), now_ns)
        assert start <= before
        n_runs += 1
    assert n_runs >= 3


@pytest.mark.parametrize(
    ("select", "error"),
    [
        ("SELECT v INTO o FROM m", "continuous queries must be aggregate queries"),
        ("SELECT foo(v) INTO o FROM m GROUP BY time(1m)", "undefined function foo()"),
        (
            "SELECT v INTO o FROM m GROUP BY time(1m)",
            "GROUP BY requires at least one aggregate function",
        ),
    ],
)
def test_query_that_can_never_run_is_refused(select: str, error: str) -> None:
    (statement,) = parse(f"CREATE CONTINUOUS QUERY c ON d BEGIN {select} END")
    assert isinstance(statement, ast.CreateContinuousQuery)
    with pytest.raises(StatementError) as caught:
        Schedule.of(statement)
    assert caught.value.text == error


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("", "time >= 60 AND time < 120"),
        ("WHERE a = 'b'", "a = 'b' AND time >= 60 AND time < 120"),
        ("WHERE a = 'b' OR c = 'd'", "(a = 'b' OR c = 'd') AND time >= 60 AND time < 120"),
        ("WHERE time > now() - 1h AND a = 'b'", "a = 'b' AND time >= 60 AND time < 120"),
    ],
)
def test_range_takes_the_place_of_own_bounds_on_time(condition: str, expected: str) -> None:
    (select,) = parse(f"SELECT mean(v) FROM m {condition} GROUP BY time(1m)")
    assert isinstance(select, ast.Select)
    bounded = within(select, 60, 120, 10**18)
    assert to_influxql(bounded) == f"SELECT mean(v) FROM m WHERE {expected} GROUP BY time(1m)"
    assert parse(to_influxql(bounded)) == (bounded,)
