"""Time in a WHERE clause: literals, `now()`, and the interval that a condition selects.

InfluxDB takes the bounds on `time` out of the whole condition and intersects them, whether they
were joined by AND or by OR; what is left is the condition on tags and fields. Bounds here are
closed: int64 ns, first and last.
Source: measured, spec in `tests/conformance/where_time.case`.

# Differs from influxd: where every branch of an OR bounds time, they mean what they say. Then the
bounds stay in the condition, as comparisons of `time` with a literal in ns, and the interval is the
hull of them. A bound that only some branches have holds for the whole condition, as in InfluxDB:
`h = 'a' OR h = 'b' AND time > now() - 1h` is in many a dashboard. Under NOT, which InfluxDB does
not know, all of it is exact.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from gateway.errors import StatementError
from gateway.logic import bounds_time, disjuncts, is_time, negated
from grammar import ast
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.calendars import add_months
from tinyflux.errors import QueryError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COMPARISONS: Final = frozenset(["=", "!=", "<", "<=", ">", ">="])
_FLIPPED: Final = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

# influxd takes a string for a time only when it looks like one; other strings are a type error.
_LOOKS_LIKE_TIME: Final = re.compile(r"^\d{4}-\d{2}-\d{2}.*")
_DATE: Final = r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
_CLOCK: Final = r"((?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])"
_LOCAL_TIME: Final = re.compile(rf"{_DATE}(?: {_CLOCK}(?:\.([0-9]{{1,9}}))?)?")
_RFC3339: Final = re.compile(
    rf"{_DATE}T{_CLOCK}(?:\.([0-9]{{1,9}})[0-9]*)?(Z|[+-][0-9]{{2}}:[0-9]{{2}})"
)


class TimeRange(NamedTuple):
    """A closed interval of times; `has_start`/`has_end` tell a written bound from a default."""

    start_ns: int = MIN_TIME_NS
    end_ns: int = MAX_TIME_NS
    has_start: bool = False
    has_end: bool = False

    def intersect(self, other: TimeRange) -> TimeRange:
        """Return the times that lie in both."""
        return TimeRange(
            max(self.start_ns, other.start_ns),
            min(self.end_ns, other.end_ns),
            self.has_start or other.has_start,
            self.has_end or other.has_end,
        )

    def hull(self, other: TimeRange) -> TimeRange:
        """Return the least interval that holds both."""
        if self.start_ns > self.end_ns:
            return other
        if other.start_ns > other.end_ns:
            return self
        return TimeRange(
            min(self.start_ns, other.start_ns),
            max(self.end_ns, other.end_ns),
            self.has_start and other.has_start,
            self.has_end and other.has_end,
        )


ALWAYS: Final = TimeRange()


def split_condition(
    condition: ast.Expr | None, now_ns: int, timezone: str = ""
) -> tuple[ast.Expr | None, TimeRange]:
    """Return a condition without its bounds on time, and the interval they select.

    Bounds that an interval cannot say stay in it, as `time op <int64 ns>`.

    Args:
        condition: A WHERE clause.
        now_ns: What `now()` is.
        timezone: The zone in which times without a zone are read; "" is UTC.

    Raises:
        StatementError: A comparison with time that InfluxDB refuses.
    """
    match condition:
        case None:
            return None, ALWAYS
        case ast.ParenExpr(expr):
            inner, bounds = split_condition(expr, now_ns, timezone)
            is_compound = isinstance(inner, ast.BinaryExpr) and inner.op in {"AND", "OR"}
            return (ast.ParenExpr(inner) if inner is not None and is_compound else inner), bounds
        case ast.BinaryExpr("AND" | "OR" as op, lhs, rhs) if not _is_exact_or(condition):
            left, left_bounds = split_condition(lhs, now_ns, timezone)
            right, right_bounds = split_condition(rhs, now_ns, timezone)
            bounds = left_bounds.intersect(right_bounds)
            if left is None or right is None:
                return (right if left is None else left), bounds
            return ast.BinaryExpr(op, left, right), bounds
        case _ if not bounds_time(condition):
            return condition, ALWAYS
        case ast.BinaryExpr(op) if op != "OR":
            return None, _bounds(*_comparison(condition), now_ns, timezone)
    return _resolved(condition, now_ns, timezone)


def exact_condition(condition: ast.Expr, now_ns: int, timezone: str = "") -> ast.Expr:
    """Return a condition with its times as literals in ns, in their places wherever they stand.

    Raises:
        StatementError: As `split_condition` does.
    """
    return _resolved(condition, now_ns, timezone)[0]


def _is_exact_or(condition: ast.BinaryExpr) -> bool:
    """Return whether every branch of an OR compares time: the condition has to keep them then."""
    return condition.op == "OR" and all(map(bounds_time, disjuncts(condition)))


def _resolved(condition: ast.Expr, now_ns: int, timezone: str) -> tuple[ast.Expr, TimeRange]:
    """Return a condition with its times as literals in ns, and the hull of what it selects."""
    match condition:
        case _ if not bounds_time(condition):
            return condition, ALWAYS
        case ast.ParenExpr(inner):
            inner, bounds = _resolved(inner, now_ns, timezone)
            return ast.ParenExpr(inner), bounds
        case ast.NotExpr(inner):
            return _resolved(negated(inner), now_ns, timezone)
        case ast.InExpr(_, values, is_negated):
            times = [time_value(value, now_ns, timezone) for value in values]
            bounds = TimeRange(min(times), max(times), has_start=True, has_end=True)
            literals = tuple(map(ast.IntegerLiteral, times))
            chosen = ast.InExpr(ast.VarRef("time"), literals, is_negated)
            return chosen, ALWAYS if is_negated else bounds
        case ast.BinaryExpr("AND" | "OR" as op, lhs, rhs):
            left, left_bounds = _resolved(lhs, now_ns, timezone)
            right, right_bounds = _resolved(rhs, now_ns, timezone)
            join = left_bounds.intersect if op == "AND" else left_bounds.hull
            return ast.BinaryExpr(op, left, right), join(right_bounds)
        case ast.BinaryExpr():
            sign, value = _comparison(condition)
            bounds = _bounds(sign, value, now_ns, timezone)
            literal = ast.IntegerLiteral(time_value(value, now_ns, timezone))
            return ast.BinaryExpr(sign, ast.VarRef("time"), literal), bounds
    raise StatementError("invalid time comparison operator: LIKE")


def _comparison(condition: ast.BinaryExpr) -> tuple[str, ast.Expr]:
    """Return the operator and the value that time, on its left, is compared with."""
    if is_time(condition.lhs):
        return condition.op, condition.rhs
    return _FLIPPED.get(condition.op, condition.op), condition.lhs


def _bounds(op: str, value: ast.Expr, now_ns: int, timezone: str) -> TimeRange:
    time = time_value(value, now_ns, timezone)
    if op not in _COMPARISONS or op == "!=":
        raise StatementError(f"invalid time comparison operator: {op}")
    if op == "=":
        return TimeRange(time, time, has_start=True, has_end=True)
    if op in {">", ">="}:
        return TimeRange(start_ns=time + (op == ">"), has_start=True)
    return TimeRange(end_ns=time - (op == "<"), has_end=True)


def time_value(expr: ast.Expr, now_ns: int, timezone: str = "") -> int:
    """Return the time in ns that an expression of literals and `now()` stands for.

    Raises:
        StatementError: Something else in it, a string that is no time, or a time outside the range
            of InfluxDB.
    """
    value = _evaluate(expr, now_ns, timezone)
    if not MIN_TIME_NS <= value <= MAX_TIME_NS:
        way = "underflows" if value < 0 else "overflows"
        raise StatementError(f"time {_shown(value)} {way} time literal")
    return value


def _shown(value_ns: int) -> str:
    """Return a time outside of InfluxDB's range; one beyond the calendar's years as a number."""
    try:
        return (_EPOCH + timedelta(microseconds=value_ns // 1000)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return f"{value_ns:.6g}ns" if abs(value_ns) < 10**300 else "beyond all bounds"


def _evaluate(expr: ast.Expr, now_ns: int, timezone: str) -> int:
    match expr:
        case ast.ParenExpr(inner):
            return _evaluate(inner, now_ns, timezone)
        case ast.IntegerLiteral(value):
            return value
        case ast.NumberLiteral(number):
            if not math.isfinite(number):
                raise StatementError(f"time {number} overflows time literal")
            return int(number)
        case ast.DurationLiteral(ns):
            return ns
        case ast.Call("now", ()):
            return now_ns
        case ast.StringLiteral(text):
            return parse_time(text, timezone)
        case ast.BinaryExpr("+" | "-" as op, lhs, rhs):
            left = _evaluate(lhs, now_ns, timezone)
            if isinstance(rhs, ast.CalendarDuration):
                return _shifted(left, rhs, 1 if op == "+" else -1, timezone)
            right = _evaluate(rhs, now_ns, timezone)
            return left + right if op == "+" else left - right
        case ast.BinaryExpr("*", lhs, rhs):
            return _evaluate(lhs, now_ns, timezone) * _evaluate(rhs, now_ns, timezone)
    raise StatementError(f"invalid operation: time and {_go_type(expr)} are not compatible")


def _shifted(time_ns: int, by: ast.CalendarDuration, sign: int, timezone: str) -> int:
    """Return the same time of the clock so many months earlier or later, and ns added to it."""
    try:
        return add_months(time_ns, sign * by.months, timezone) + sign * by.ns
    except QueryError:
        raise StatementError(f"time {time_ns}ns overflows time literal") from None


def parse_time(text: str, timezone: str = "") -> int:
    """Return the time in ns of a time string, read in `timezone` when it names no zone itself.

    Raises:
        StatementError: Not one of InfluxDB's forms.
    """
    if match := _RFC3339.fullmatch(text):
        date, clock, fraction, offset = match.groups()
        shift_s = _offset_s(offset)
    elif match := _LOCAL_TIME.fullmatch(text):
        date, clock, fraction = match.groups()
        shift_s = None
    elif _LOOKS_LIKE_TIME.match(text):
        raise StatementError("invalid timestamp string")
    else:
        raise StatementError(
            "invalid operation: time and *influxql.StringLiteral are not compatible"
        )
    try:
        moment = datetime.fromisoformat(f"{date}T{clock or '00:00:00'}+00:00")
        if shift_s is None and timezone:
            # Of the two readings that a switch of summer time allows, influxd takes the later.
            local, zone = moment.replace(tzinfo=None), ZoneInfo(timezone)
            moment = max(local.replace(tzinfo=zone, fold=n).astimezone(UTC) for n in (0, 1))
    except (ValueError, OverflowError):
        raise StatementError("invalid timestamp string") from None
    since = moment - _EPOCH
    seconds = since.days * 86_400 + since.seconds - (shift_s or 0)
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") if fraction else 0)


def _offset_s(text: str) -> int:
    if text == "Z":
        return 0
    minutes = int(text[1:3]) * 60 + int(text[4:6])
    return 60 * (minutes if text[0] == "+" else -minutes)


def _go_type(expr: ast.Expr) -> str:
    return f"*influxql.{type(expr).__name__}"
