"""Rows of points, and functions side by side that give rows at times of their own.

sample() and transformations of fields do that, beside each other and beside aggregates: each call
is read as if it stood alone, a stream of rows. Then rows of one group and time stand side by side:
the first ones of every stream, then the second ones, and so on. What a stream lacks there is null,
or what `fill(0)` and `fill(previous)` say, also without windows.
Source: measured, `tests/conformance/streams.case`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gateway.budget import check_rows
from gateway.forecast import with_forecasts
from gateway.functions.rows import choose, place_in_run
from gateway.functions.transforms import READS_ONE_WINDOW_BEFORE
from gateway.logic import calls_of
from gateway.plan import is_of_windows
from gateway.points import Points, fill_points, read_points
from gateway.rows import DTYPES, Col, evaluate
from gateway.windowed import read_grid, widen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.plan import Plan
    from gateway.rows import Axis
    from gateway.session import Session
    from gateway.sources import Table
    from grammar import ast
    from tinyflux.batch import Bools, Int64s
    from tinyflux.columnar.base import ScanRequest, Values


@dataclass(frozen=True, slots=True, eq=False)
class _Stream:
    """The rows of one call: group, time and value of each, int64[n] both and n values."""

    call: ast.Call
    groups: Sequence[tuple[str, ...]]
    rows: Int64s
    times: Int64s
    column: Col


def read_rows(made: Plan, table: Table, scan: ScanRequest, session: Session) -> Points | None:
    """Return the points of a plan, or those that its function of several rows chooses.

    Raises:
        StatementError: More points or memory than a SELECT may take.
    """
    call, shape = made.rows_call, made.shape
    if call is None:
        return read_points(made, table, scan, session)
    if _is_transformed(call, made):
        wide = widen(shape)
        scan = replace(scan, start_ns=wide.start_ns, end_ns=wide.end_ns)
    points = read_points(made, table, scan, session)
    return None if points is None else choose(call, points, made, table)


def axis_of(points: Points, made: Plan) -> Axis:
    """Return the rows of points as an axis: in range is what is in the windows of the query."""
    windows, bounds = made.shape.windows, made.shape.bounds
    axis = replace(points.axis(), interval_ns=made.shape.unit_ns)
    if windows is None:
        return axis
    ends = np.array((bounds.start_ns, bounds.end_ns), np.int64)
    first, last = windows.number(ends).tolist()
    numbers = windows.number(points.times)
    in_range = (numbers >= first) & (numbers <= last)
    return replace(axis, in_range=in_range)


def _is_transformed(call: ast.Call, made: Plan) -> bool:
    """Return whether a call stands in a transformation that reads a window before the range."""
    return any(
        other.name in READS_ONE_WINDOW_BEFORE and call in calls_of(other)
        for column in made.columns
        for other in calls_of(column.expr)
    )


def read_streams(made: Plan, table: Table, scan: ScanRequest, session: Session) -> Points | None:
    """Return the rows of a plan's streams, side by side where their times are; None without any.

    Raises:
        StatementError: More points, windows or memory than a SELECT may take.
    """
    found: list[_Stream] = []
    n_rows = 0
    for stream in _streams(made, table, scan, session):
        session.interrupt.check()
        n_rows += len(stream.rows)
        check_rows(n_rows, len(made.streams), session)
        found.append(stream)
    if not n_rows:
        return None
    points = _side_by_side(found, descending=made.shape.select.descending)
    nothing: dict[ast.Expr, Col] = {call: Col.nothing(len(points.rows)) for call in made.streams}
    return fill_points(made, replace(points, leaves={**nothing, **points.leaves}))


def _streams(made: Plan, table: Table, scan: ScanRequest, session: Session) -> Iterator[_Stream]:
    windowed = tuple(filter(is_of_windows, made.streams))
    if windowed:
        part = made.only(windowed)
        grid = with_forecasts(read_grid(part, table, scan, session), part, session)
        if grid is not None:
            yield from _from_rows(windowed, grid.axis, grid.groups, grid.leaves, grid.inner)
    for call in made.streams:
        if call in windowed:
            continue
        part = made.only((call,))
        points = read_rows(part, table, scan, session)
        if points is not None:
            axis = axis_of(points, part)
            yield from _from_rows((call,), axis, points.groups, points.leaves, None)


def _from_rows(
    calls: tuple[ast.Call, ...],
    axis: Axis,
    groups: Sequence[tuple[str, ...]],
    leaves: Mapping[ast.Expr, Col],
    inner: Mapping[ast.Expr, Col] | None,
) -> Iterator[_Stream]:
    for call in calls:
        column = evaluate(call, axis, leaves, inner)
        chosen = np.flatnonzero(column.emits & axis.in_range)
        yield _Stream(call, groups, axis.groups[chosen], axis.times[chosen], column.take(chosen))


def _side_by_side(streams: Sequence[_Stream], *, descending: bool) -> Points:
    groups = sorted({group for s in streams for group in s.groups}, reverse=descending)
    number = {group: position for position, group in enumerate(groups)}
    parts = [_keys(stream, number, descending=descending) for stream in streams]
    rows, times, places = (np.concatenate(keys) for keys in zip(*parts, strict=True))
    order = np.lexsort((places, times, rows))
    is_new = _changes(rows[order], times[order], places[order])
    line = np.empty(len(order), np.int64)
    line[order] = np.cumsum(is_new) - 1
    first = order[is_new]
    leaves: dict[ast.Expr, Col] = {}
    start = 0
    for stream in streams:
        stop = start + len(stream.rows)
        leaves[stream.call] = _placed(stream.column, line[start:stop], len(first))
        start = stop
    return Points(groups, rows[first], -times[first] if descending else times[first], leaves)


def _keys(
    stream: _Stream, number: Mapping[tuple[str, ...], int], *, descending: bool
) -> tuple[Int64s, Int64s, Int64s]:
    """Return what rows stand side by side that share it, int64[n] each, to ascend by.

    That is the group, the time (negative if it is to descend), and how many rows of the stream
    with the same group and time come before.
    """
    positions = np.array([number[group] for group in stream.groups], np.int64)
    rows = positions[stream.rows]
    times = -stream.times if descending else stream.times
    order = np.lexsort((times, rows))
    same = np.cumsum(_changes(rows[order], times[order]), dtype=np.int64)
    places = np.empty(len(order), np.int64)
    places[order] = place_in_run(same)
    return rows, times, places


def _changes(*columns: Int64s) -> Bools:
    """Return bool[n]: where a row differs from the one before it, in equally long columns."""
    differs = np.zeros(len(columns[0]), np.bool_)
    differs[:1] = True
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    return differs


def _placed(column: Col, at: Int64s, size: int) -> Col:
    values: Values = np.zeros(size, DTYPES[column.type])
    values[at] = column.values
    valid, emits = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    valid[at], emits[at] = column.valid, True
    return Col(column.type, values, valid, emits)
