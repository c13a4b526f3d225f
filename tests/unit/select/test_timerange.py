from __future__ import annotations

import pytest

from gateway.errors import StatementError
from gateway.timerange import TimeRange, parse_time, split_condition, time_value
from grammar import ast
from grammar.parser import parse
from grammar.printer import to_influxql
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS

NOW = 1_700_000_000_000_000_000
TIME = ast.VarRef("time")
HOST = ast.BinaryExpr("=", ast.VarRef("host"), ast.StringLiteral("a"))


def compare(op: str, value: ast.Expr) -> ast.BinaryExpr:
    return ast.BinaryExpr(op, TIME, value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01", 0),
        ("1970-01-02", 86_400_000_000_000),
        ("1970-01-01 00:00:01", 1_000_000_000),
        ("1970-01-01 00:00:01.5", 1_500_000_000),
        ("1970-01-01 00:00:01.000000001", 1_000_000_001),
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T01:00:01+01:00", 1_000_000_000),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2017-07-14T02:40:00.1Z", 1_500_000_000_100_000_000),
    ],
)
def test_time_text_is_read_to_the_nanosecond(text: str, expected: int) -> None:
    assert parse_time(text) == expected


def test_time_text_without_zone_is_read_in_the_zone_of_the_query() -> None:
    assert parse_time("2023-07-01", "Europe/Berlin") == parse_time("2023-06-30T22:00:00Z")


def test_ambiguous_autumn_hour_is_the_later_one() -> None:
    autumn = parse_time("2023-10-29 02:30:00", "Europe/Berlin")
    assert autumn == parse_time("2023-10-29T01:30:00Z")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2023-11-14T22:00:00", "invalid timestamp string"),
        ("2023-11-14 22:00", "invalid timestamp string"),
        ("2023-13-14", "invalid timestamp string"),
        ("foo", "invalid operation: time and *influxql.StringLiteral are not compatible"),
    ],
)
def test_text_that_is_no_time_is_refused(text: str, message: str) -> None:
    with pytest.raises(StatementError) as caught:
        parse_time(text)
    assert caught.value.text == message


def test_now_and_durations_add_up() -> None:
    expr = ast.BinaryExpr("-", ast.Call("now"), ast.DurationLiteral(3_600_000_000_000))
    assert time_value(expr, NOW) == NOW - 3_600_000_000_000


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (">", TimeRange(6, MAX_TIME_NS, True, False)),
        (">=", TimeRange(5, MAX_TIME_NS, True, False)),
        ("<", TimeRange(MIN_TIME_NS, 4, False, True)),
        ("<=", TimeRange(MIN_TIME_NS, 5, False, True)),
        ("=", TimeRange(5, 5, True, True)),
    ],
)
def test_operator_gives_a_closed_interval(op: str, expected: TimeRange) -> None:
    assert split_condition(compare(op, ast.IntegerLiteral(5)), NOW) == (None, expected)


def test_time_may_stand_on_the_right() -> None:
    condition = ast.BinaryExpr("<", ast.IntegerLiteral(5), TIME)
    assert split_condition(condition, NOW)[1] == TimeRange(6, MAX_TIME_NS, True, False)


def test_bounds_leave_the_rest_of_the_condition() -> None:
    condition = ast.BinaryExpr("AND", HOST, compare(">=", ast.IntegerLiteral(5)))
    rest, bounds = split_condition(condition, NOW)
    assert rest == HOST
    assert (bounds.start_ns, bounds.has_start, bounds.has_end) == (5, True, False)


def split(text: str) -> tuple[str, tuple[int | None, int | None]]:
    """Return what is left of a condition, and its bounds in ns where they are written."""
    (select,) = parse(f"SELECT v FROM m WHERE {text}")
    assert isinstance(select, ast.Select)
    rest, bounds = split_condition(select.condition, NOW)
    start, end = (bounds.start_ns, bounds.has_start), (bounds.end_ns, bounds.has_end)
    written = [time_ns if has else None for time_ns, has in (start, end)]
    return "" if rest is None else to_influxql(rest), (written[0], written[1])


@pytest.mark.parametrize(
    ("text", "rest", "bounds"),
    [
        # Every branch bounds time: exact, within the hull.
        ("time > 10 OR time < 5", "time > 10 OR time < 5", (None, None)),
        (
            "(time >= 1 AND time < 5) OR (time >= 8 AND time <= 9)",
            "(time >= 1 AND time < 5) OR (time >= 8 AND time <= 9)",
            (1, 9),
        ),
        ("(time > 9 AND time < 5) OR time = 7", "(time > 9 AND time < 5) OR time = 7", (7, 7)),
        (
            "h = 'a' AND (3 < time OR time = now())",
            "h = 'a' AND (time > 3 OR time = 1700000000000000000)",
            (4, None),
        ),
        ("time IN (3, 7)", "time IN (3, 7)", (3, 7)),
        ("time NOT IN (3)", "time NOT IN (3)", (None, None)),
        ("NOT time = 3", "(time < 3 OR time > 3)", (None, None)),
        ("NOT time IN ('1970-01-01', 3)", "time NOT IN (0, 3)", (None, None)),
        # A branch without time: as in InfluxDB, the bounds are those of the whole.
        ("h = 'a' OR h = 'b' AND time > 5", "h = 'a' OR h = 'b'", (6, None)),
        ("time < 5 OR v = 1 OR time > 2", "v = 1", (3, 4)),
        # Under NOT everything is exact.
        ("NOT time > 5", "time <= 5", (None, 5)),
        ("NOT (h = 'a' AND time >= 5)", "(h != 'a' OR time < 5)", (None, None)),
        ("NOT (time < 2 OR time > 5)", "(time >= 2 AND time <= 5)", (2, 5)),
        ("NOT h = 'a' AND time > 5", "NOT h = 'a'", (6, None)),
    ],
)
def test_bounds_that_no_interval_can_say_stay_in_the_condition(
    text: str, rest: str, bounds: tuple[int | None, int | None]
) -> None:
    assert split(text) == (rest, bounds)


@pytest.mark.parametrize("text", ["time LIKE 'x'", "NOT time != 5", "time != 1 OR time > 5"])
def test_no_comparison_of_time_is_refused(text: str) -> None:
    with pytest.raises(StatementError, match="invalid time comparison operator"):
        split(text)


def test_inequality_with_time_is_refused() -> None:
    with pytest.raises(StatementError) as caught:
        split_condition(compare("!=", ast.IntegerLiteral(5)), NOW)
    assert caught.value.text == "invalid time comparison operator: !="
