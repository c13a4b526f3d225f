"""GROUP BY: which part of it is tags, and the grid of windows that the rest describes.

`time(5m)` and its offset are InfluxDB's, `time(1mo)`, `time(1y, 3mo)` and `time(1w, monday)` are
not.
Source: measured, `tests/conformance/group_by_time.case`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from gateway.errors import StatementError
from gateway.timerange import parse_time
from grammar import ast
from tinyflux.calendars import CalendarWindows
from tinyflux.windows import Windows, ZonedWindows

_DAY_NS: Final = 86_400_000_000_000
_WEEK_NS: Final = 7 * _DAY_NS
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def split_dimensions(
    select: ast.Select, now_ns: int
) -> tuple[tuple[ast.Expr, ...], Windows | None]:
    """Return the names and regexes of GROUP BY, and the grid of its `time(..)`; None without.

    Raises:
        StatementError: What InfluxDB refuses.
    """
    tags: list[ast.Expr] = []
    windows: Windows | None = None
    seen_time = False
    for dimension in select.dimensions:
        match dimension:
            case ast.Call("time", args):
                if seen_time:
                    raise StatementError("multiple time dimensions not allowed")
                seen_time = True
                windows = _windows(args, select.timezone, now_ns)
            case ast.Call():
                raise StatementError("only time() calls allowed in dimensions")
            case ast.VarRef(name) if name.lower() == "time":
                raise StatementError("time() is a function and expects at least one argument")
            case ast.VarRef() | ast.Wildcard() | ast.RegexLiteral():
                tags.append(dimension)
            case _:
                raise StatementError("only time and tag dimensions allowed")
    return tuple(tags), windows


def asks_for_now(dimension: ast.Expr) -> bool:
    """Return whether `split_dimensions` may look at the clock for a part of GROUP BY."""
    return isinstance(dimension, ast.Call) and any(type(arg) is ast.Call for arg in dimension.args)


def _windows(args: tuple[ast.Expr, ...], timezone: str, now_ns: int) -> Windows | None:
    if len(args) not in {1, 2}:
        raise StatementError("time dimension expected 1 or 2 arguments")
    if isinstance(args[0], ast.CalendarDuration):
        return _months(args[0], args[1:], timezone)
    if not isinstance(args[0], ast.DurationLiteral):
        raise StatementError("time dimension must have duration argument")
    every_ns = args[0].ns
    weeks, rest_ns = divmod(every_ns, _WEEK_NS)
    if weeks > 0 and not rest_ns and (weekday := _weekday(args[1:])) is not None:
        return CalendarWindows(weekday * _DAY_NS, weeks=weeks, zone=timezone or "UTC")
    offset_ns = _window_offset(args[1], now_ns) if len(args) == 2 else 0
    if every_ns <= 0:
        return None
    offset_ns = offset_ns - int(offset_ns / every_ns) * every_ns
    if timezone and timezone != "UTC":
        return ZonedWindows(every_ns, offset_ns, timezone)
    return Windows(every_ns, offset_ns)


def _months(
    every: ast.CalendarDuration, offset: tuple[ast.Expr, ...], timezone: str
) -> CalendarWindows:
    """Return the windows of `time(3mo)` or `time(1y, 3mo5d)`."""
    if every.months < 0 or every.ns:
        raise StatementError("time dimension must be whole months or years")
    match offset:
        case ():
            months, ns = 0, 0
        case (ast.CalendarDuration(months, ns),):
            pass
        case (ast.DurationLiteral(ns),):
            months = 0
        case _:
            raise StatementError("time dimension offset of months or years must be duration")
    return CalendarWindows(
        ns,
        months=every.months,
        offset_months=months % every.months,
        zone=timezone or "UTC",
    )


def _weekday(offset: tuple[ast.Expr, ...]) -> int | None:
    """Return the days from Monday to the weekday that stands in place of an offset, if one does."""
    match offset:
        case (ast.VarRef(name, ""),) if name.lower() in _WEEKDAYS:
            return _WEEKDAYS.index(name.lower())
    return None


def _window_offset(expr: ast.Expr, now_ns: int) -> int:
    match expr:
        case ast.DurationLiteral(ns):
            return ns
        case ast.BinaryExpr("*", ast.IntegerLiteral(sign), ast.DurationLiteral(ns)):
            return sign * ns
        case ast.Call("now", ()):
            return now_ns
        case ast.StringLiteral(text):
            with suppress(StatementError):
                return parse_time(text)
        case ast.Call(name):
            raise StatementError(f"time dimension offset function must be now(), got {name}()")
    raise StatementError("time dimension offset must be duration or now()")
