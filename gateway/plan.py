"""The plan of a SELECT: everything that is decided before data is read.

    grammar.ast.Select --planner.compile_select--> Shape --planner.plan--> Plan --executor-->
    results

A Shape needs no schema: what kind of query it is, its interval, its window grid. A Plan adds the
    schema: wildcards are gone, every column is an expression over named leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from gateway.functions.registry import FORECASTS, Kind, is_kind
from gateway.logic import calls_of
from grammar import ast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.timerange import TimeRange
    from tinyflux.batch import FieldType
    from tinyflux.windows import Windows


class Shape(NamedTuple):
    """A SELECT that was found sound, as far as that can be told without a schema.

    Attributes:
        select: The statement, without its WHERE.
        is_raw: No function but math: one row a point.
        selectors: The distinct selector calls, in order of appearance.
        aggregates: The distinct aggregate calls.
        rows_call: The call of distinct, top, bottom or sample that gives several rows a window, if
            there is one.
        windows: The grid of `GROUP BY time(..)`; None without.
        tag_dimensions: The names and regexes of GROUP BY, `*` as a Wildcard.
        bounds: The selected interval, defaults filled in.
        condition: WHERE without time.
        reach: Of a subquery, the interval of the query around it: nothing beyond is looked at.
        skips_empty: A window without a value is no row.
        unit_ns: The default unit of derivative(): the length of the windows, be it of those around
            a subquery; 0 is a second.
    """

    select: ast.Select
    is_raw: bool
    selectors: tuple[ast.Call, ...]
    aggregates: tuple[ast.Call, ...]
    rows_call: ast.Call | None
    windows: Windows | None
    tag_dimensions: tuple[ast.Expr, ...]
    bounds: TimeRange
    condition: ast.Expr | None
    reach: TimeRange | None = None
    skips_empty: bool = False
    unit_ns: int = 0

    @property
    def fill_age_ns(self) -> int:
        """How far `fill(previous, 1h)` looks back before the range; 0 when nowhere."""
        return self.select.fill_age_ns if self.bounds.has_start else 0


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """A column of the answer: its name, and its value over the leaves."""

    name: str
    expr: ast.Expr


@dataclass(frozen=True, slots=True)
class Plan:
    """A Shape with its names resolved against a schema.

    Attributes:
        shape: What it was made from.
        columns: The columns after time, wildcards expanded.
        leaves: The aggregate and selector calls that the engine computes.
        dimensions: The GROUP BY tags, sorted.
        time_name: How the time column is called.
        transformed: The aggregate and selector calls that stand inside of transformations.
        streams: The calls that are read one by one because some give rows at times of their own;
            empty where all columns share their rows.
        lone_selector: The only function of the query, when it is a selector: rows keep its time. A
            wildcard counts as what it became: `last(*)` of one field keeps the time, of two not.
        beside: The names that stand beside a lone selector.
        has_forecasts: A column is a forecast: that counts the windows between those with a value.
        leaf_types: What each of `leaves` gives, also of a measurement that has no such field; NONE
            where no measurement of the query has it and the function does not say.
        having: Which rows of the answer stay, over the names of its columns; None is all.
        order: How they are sorted, by the names of its columns.
    """

    shape: Shape
    columns: tuple[OutputColumn, ...]
    leaves: tuple[ast.Call, ...]
    dimensions: tuple[str, ...]
    time_name: str = "time"
    transformed: tuple[ast.Call, ...] = ()
    streams: tuple[ast.Call, ...] = ()
    lone_selector: ast.Call | None = None
    beside: tuple[ast.VarRef, ...] = ()
    has_forecasts: bool = False
    leaf_types: tuple[FieldType, ...] = ()
    having: ast.Expr | None = None
    order: tuple[ast.SortField, ...] = ()

    @property
    def rows_call(self) -> ast.Call | None:
        """The call of the shape that gives several rows a window, with the field it reads."""
        if self.shape.rows_call is None:
            return None
        calls = (call for column in self.columns for call in calls_of(column.expr))
        return next((call for call in calls if is_kind(call.name, Kind.ROWS)), None)

    def only(self, calls: tuple[ast.Call, ...]) -> Plan:
        """Return the plan of some of its streams."""
        columns = tuple(OutputColumn(call.name, call) for call in calls)
        return replace(self, columns=columns, has_forecasts=has_forecasts(columns))

    def names(self) -> list[str]:
        """Return the column names of the answer, time first."""
        return [self.time_name, *(column.name for column in self.columns)]


def has_forecasts(columns: Iterable[OutputColumn]) -> bool:
    """Return whether a column is a forecast."""
    calls = (call for column in columns for call in calls_of(column.expr))
    return any(call.name in FORECASTS for call in calls)


def streams_of(columns: Iterable[OutputColumn], *, is_filled: bool) -> tuple[ast.Call, ...]:
    """Return the calls of columns that have to be read as streams, none where all share their rows.

    Calls of windows share them, and transformations of points do. Functions of a row, as abs(), are
    no streams: they stand over the rows of all.

    Args:
        columns: All of a plan.
        is_filled: Empty cells of a row are filled: a transformation is empty in some.
    """
    found = tuple(dict.fromkeys(call for one in columns for call in outermost_calls(one.expr)))
    if is_filled:
        is_shared = all(is_kind(call.name, Kind.AGGREGATE, Kind.SELECTOR) for call in found)
    else:
        of_points = [call for call in found if not is_of_windows(call)]
        of_rows = any(is_kind(c.name, Kind.ROWS) for call in of_points for c in calls_of(call))
        is_shared = not of_points or (len(of_points) == len(found) and not of_rows)
    return () if len(found) < 2 or is_shared else found


def outermost_calls(expr: ast.Expr) -> Iterator[ast.Call]:
    """Yield the calls that stand in no other call but functions of a row."""
    match expr:
        case ast.Call(name, args) if is_kind(name, Kind.MATH):
            for arg in args:
                yield from outermost_calls(arg)
        case ast.Call():
            yield expr
        case ast.ParenExpr(inner):
            yield from outermost_calls(inner)
        case ast.BinaryExpr(_, lhs, rhs):
            yield from outermost_calls(lhs)
            yield from outermost_calls(rhs)


def is_of_windows(call: ast.Call) -> bool:
    """Return whether a call gives at most one row a group and window, at the window's time."""
    return any(is_kind(one.name, Kind.AGGREGATE, Kind.SELECTOR) for one in calls_of(call))
