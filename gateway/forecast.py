"""holt_winters over a grid: windows are added behind the range, and the forecasts put there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from gateway.budget import check_rows, check_windows
from gateway.functions.holt_winters import forecast, simplex_size
from gateway.functions.registry import FORECASTS
from gateway.logic import calls_of
from gateway.rows import Axis, Col, evaluate
from gateway.windowed import Grid
from grammar import ast
from tinyflux.batch import FieldType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.plan import Plan
    from gateway.session import Session
    from tinyflux.windows import Windows

_LISTS: Final = 3
_Leaves: TypeAlias = "Mapping[ast.Expr, Col]"


def with_forecasts(grid: Grid | None, made: Plan, session: Session) -> Grid | None:
    """Return a grid with a column for each call of holt_winters, and the windows these add.

    A forecast begins behind the last window of its group that has a value, so it may lie in the
    range. Other columns have nothing in the windows that are added.

    Raises:
        StatementError: More windows than `max_select_buckets`, or than memory is given for, as it
            may be to fit a long season; or the query was stopped.
    """
    windows = made.shape.windows
    if grid is None or windows is None or not made.has_forecasts:
        return grid
    calls = [_calls(column.expr) for column in made.columns]
    n_added = max(sum(map(_n_rows, found)) for found in calls)
    n_groups = len(grid.groups)
    count = len(grid.axis) + n_groups * n_added
    check_windows(count, session.settings)
    # One group at a time is lists of Python's floats.
    check_rows(count + _LISTS * (count // n_groups), len(made.columns), session)
    is_descending = made.shape.select.descending
    added = _Added(n_groups, n_added, is_descending=is_descending)
    axis = added.axis(grid.axis, windows)
    leaves = {expr: added.column(column) for expr, column in grid.leaves.items()}
    inner = {expr: added.column(column) for expr, column in grid.inner.items()}
    for call in reversed([call for found in calls for call in found]):  # what is inside comes first
        source = evaluate(call.args[0], axis, {**inner, **leaves}, inner)
        leaves[call] = inner[call] = _column(call, source, n_groups, session, is_descending)
    return Grid(axis, grid.groups, leaves, inner, grid.own)


def _calls(expr: ast.Expr) -> list[ast.Call]:
    """Return the calls of holt_winters in an expression, outermost first."""
    return [call for call in calls_of(expr) if call.name in FORECASTS]


def _n_rows(call: ast.Call) -> int:
    rows = call.args[1]
    assert isinstance(rows, ast.IntegerLiteral)
    return rows.value


class _Added:
    """Adds windows to the rows of each group, behind them in time."""

    def __init__(self, n_groups: int, n_added: int, *, is_descending: bool) -> None:
        self._n_groups = n_groups
        self._n_added = n_added
        self._is_descending = is_descending

    def axis(self, axis: Axis, windows: Windows) -> Axis:
        size = len(axis) // self._n_groups + self._n_added
        times = self._padded(axis.times, 0).reshape(self._n_groups, size)
        last = axis.times[0 if self._is_descending else -1 :][:1]
        ahead = windows.start(windows.number(last) + np.arange(1, self._n_added + 1))
        if self._is_descending:
            times[:, : self._n_added] = ahead[::-1]
        else:
            times[:, size - self._n_added :] = ahead
        groups = np.repeat(np.arange(self._n_groups), size)
        in_range = self._padded(axis.in_range, True)
        return replace(axis, groups=groups, times=times.ravel(), in_range=in_range)

    def column(self, column: Col) -> Col:
        nothing = None if column.values.dtype == np.object_ else 0
        values = self._padded(column.values, nothing)
        valid, emits = self._padded(column.valid, False), self._padded(column.emits, False)
        return Col(column.type, values, valid, emits)

    def _padded(self, of_rows: np.ndarray, value: object) -> np.ndarray:
        rows = of_rows.reshape(self._n_groups, -1)
        added = np.full((self._n_groups, self._n_added), value, of_rows.dtype)
        parts = (added, rows) if self._is_descending else (rows, added)
        return np.concatenate(parts, axis=1).ravel()


def _column(
    call: ast.Call, source: Col, n_groups: int, session: Session, is_descending: bool
) -> Col:
    """Return the column of a call: the forecasts of each group, and the fit if that is asked."""
    n_rows, season = (arg.value for arg in call.args[1:] if isinstance(arg, ast.IntegerLiteral))
    way = slice(None, None, -1 if is_descending else 1)
    given = source.values.reshape(n_groups, -1)[:, way].astype(np.float64)
    known = source.valid.reshape(n_groups, -1)[:, way]
    values, valid = np.zeros(given.shape), np.zeros(given.shape, np.bool_)
    for group in range(n_groups):
        places = np.flatnonzero(known[group])
        if not len(places):
            continue
        first, stop = int(places[0]), int(places[-1]) + 1
        series = np.where(known[group], given[group], np.nan)[first:stop]
        if len(series) >= season:
            check_rows(simplex_size(season) + 1, simplex_size(season), session)
        rows = forecast(series.tolist(), n_rows, season, session.interrupt.check)
        if rows is None:
            continue
        shown = first if call.name == "holt_winters_with_fit" else stop
        values[group, first : first + len(rows)] = rows
        valid[group, shown : first + len(rows)] = np.isfinite(rows[shown - first :])
    flat = valid[:, way].ravel()
    return Col(FieldType.FLOAT, values[:, way].ravel(), flat, flat)
