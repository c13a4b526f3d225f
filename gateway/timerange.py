"""Time in a WHERE clause: literals, `now()`, and the interval that a condition selects.

InfluxDB takes the bounds on `time` out of the whole condition and intersects them, whether they
were joined by AND or by OR; what is left is the condition on tags and fields. Bounds here are
closed: int64 ns, first and last.
Source: measured, spec in `tests/conformance/time.case`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from gateway.errors import StatementError
from grammar import ast
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.calendars import add_months
from tinyflux.errors import QueryError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COMPARISONS: Final = frozenset(["=", "!=", "<", "<=", ">", ">="])
_FLIPPED: Final = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

# influxd takes a string for a time only when it looks like one; other strings are a type error.
_LOOKS_LIKE_TIME: Final = re.compile(r"^\d{4}-\d{2}-\d{2}.*")
_LOCAL_TIME: Final = re.compile(
    r"^(\d{4})-(\d{2})-(\d{2})(?: (\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?)?$"
)
_RFC3339: Final = re.compile(
    r"^(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9})\d*)?(Z|[+-]\d{2}:\d{2})$"
)


@dataclass(frozen=True, slots=True)
class TimeRange:
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


def split_condition(
    condition: ast.Expr | None, now_ns: int, timezone: str = ""
) -> tuple[ast.Expr | None, TimeRange]:
    """Return a condition without its bounds on time, and the interval they select.

    Args:
        condition: A WHERE clause.
        now_ns: What `now()` is.
        timezone: The zone in which times without a zone are read; "" is UTC.

    Raises:
        StatementError: A comparison with time that InfluxDB refuses.
    """
    if condition is None:
        return None, TimeRange()
    if isinstance(condition, ast.ParenExpr):
        inner, bounds = split_condition(condition.expr, now_ns, timezone)
        is_compound = isinstance(inner, ast.BinaryExpr) and inner.op in {"AND", "OR"}
        return (ast.ParenExpr(inner) if inner is not None and is_compound else inner), bounds
    if not isinstance(condition, ast.BinaryExpr):
        return condition, TimeRange()
    if condition.op in {"AND", "OR"}:
        left, left_bounds = split_condition(condition.lhs, now_ns, timezone)
        right, right_bounds = split_condition(condition.rhs, now_ns, timezone)
        bounds = left_bounds.intersect(right_bounds)
        if left is None or right is None:
            return (right if left is None else left), bounds
        return ast.BinaryExpr(condition.op, left, right), bounds
    if _is_time(condition.lhs):
        return None, _bounds(condition.op, condition.rhs, now_ns, timezone)
    if _is_time(condition.rhs):
        return None, _bounds(
            _FLIPPED.get(condition.op, condition.op), condition.lhs, now_ns, timezone
        )
    return condition, TimeRange()


def _is_time(expr: ast.Expr) -> bool:
    return isinstance(expr, ast.VarRef) and expr.name.lower() == "time"


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
    if not _LOOKS_LIKE_TIME.match(text):
        raise StatementError(
            "invalid operation: time and *influxql.StringLiteral are not compatible"
        )
    if match := _LOCAL_TIME.match(text):
        *parts, fraction = match.groups()
        zone = ZoneInfo(timezone) if timezone else None
    elif match := _RFC3339.match(text):
        *parts, fraction, offset = match.groups()
        zone = None
        shift = _offset(offset)
    else:
        raise StatementError("invalid timestamp string")
    numbers = [int(part or 0) for part in parts]
    try:
        naive = datetime(*numbers)  # type: ignore[arg-type]  # noqa: DTZ001  # the zone is below
    except ValueError:
        raise StatementError("invalid timestamp string") from None
    if _RFC3339.match(text):
        moment = naive.replace(tzinfo=UTC) - shift
    elif zone is None:
        moment = naive.replace(tzinfo=UTC)
    else:
        # Of the two readings that a switch of summer time allows, influxd takes the later.
        moment = max(naive.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


def _offset(text: str) -> timedelta:
    if text == "Z":
        return timedelta()
    minutes = int(text[1:3]) * 60 + int(text[4:6])
    return timedelta(minutes=minutes if text[0] == "+" else -minutes)


def _go_type(expr: ast.Expr) -> str:
    return f"*influxql.{type(expr).__name__}"
