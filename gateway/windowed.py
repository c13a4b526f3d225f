"""Groups x windows as rows: the engine's aggregates on the grid of the query, filled.

A transformation of windows reads one window before the range (behind it when the query descends);
aggregates that stand by themselves do not. So there are up to two requests, and one grid that holds
both: `leaves` for what stands alone, `inner` for what stands inside of a transformation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gateway.budget import check_rows, most_rows
from gateway.errors import StatementError
from gateway.fill import fill
from gateway.functions.types import CASTS, cast_type
from gateway.rows import Axis, Col
from gateway.sources import CastReader
from grammar import ast
from tinyflux.batch import Bools, FieldType, Int64s
from tinyflux.columnar.base import (
    AggregateRequest,
    AggregateTable,
    Call,
    CallColumn,
    Reader,
    ScanRequest,
    SeriesSet,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config import Settings
    from gateway.plan import Plan
    from gateway.session import Session
    from gateway.sources import Table
    from gateway.timerange import TimeRange
    from tinyflux.windows import Windows


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Rows of windows: groups x windows of them, group after group.

    Attributes:
        axis: The rows.
        groups: The GROUP BY values, in the order of the query.
        leaves: The columns of the calls that stand outside of transformations, and of names beside
            a selector.
        inner: The columns of the calls that stand inside of transformations.
    """

    axis: Axis
    groups: list[tuple[str, ...]]
    leaves: Mapping[ast.Expr, Col]
    inner: Mapping[ast.Expr, Col]


def read_grid(made: Plan, table: Table, scan: ScanRequest, session: Session) -> Grid | None:
    """Return the windows of a query; None when no point is in its range.

    Raises:
        StatementError: More windows than `max_select_buckets`, or than memory is given for.
    """
    shape = made.shape
    bounds, wide = shape.bounds, None
    aux = _aux(made, table)
    plain = _aggregate(made, table, scan, made.leaves, aux, session)
    if made.transformed:
        widened = _widen(shape.bounds, shape.windows, descending=shape.select.descending)
        wide_scan = replace(scan, start_ns=widened.start_ns, end_ns=widened.end_ns)
        wide = _aggregate(made, table, wide_scan, made.transformed, (), session)
        bounds = bounds if wide is None else widened
    answers = [answer for answer in (plain, wide) if answer is not None]
    groups = sorted({group for answer in answers for group in answer.table.groups})
    if not groups:
        return None
    session.interrupt.check()
    frame = _frame(made, groups, bounds, answers, session.settings)
    leaves: dict[ast.Expr, Col] = {}
    times = None
    if plain is not None:
        leaves |= {call: frame.column(plain, call) for call in plain.calls}
        if made.lone_selector is not None:
            times = frame.selector_times(plain, made.lone_selector)
            leaves |= frame.beside(plain, made.lone_selector, table, scan, aux)
    inner: dict[ast.Expr, Col] = {}
    if wide is not None:
        inner |= {call: frame.column(wide, call, is_inner=True) for call in wide.calls}
    return Grid(frame.axis(times), frame.ordered_groups(), frame.fill_rows(leaves), inner)


def _widen(bounds: TimeRange, windows: Windows | None, *, descending: bool) -> TimeRange:
    if windows is None:
        return bounds
    start_ns, end_ns = windows.widened(bounds.start_ns, bounds.end_ns)
    if descending:
        return replace(bounds, end_ns=end_ns)
    return replace(bounds, start_ns=start_ns) if bounds.has_start else bounds


def _aux(made: Plan, table: Table) -> tuple[str, ...]:
    """Return the fields to bring from the point that a lone selector chose."""
    if made.lone_selector is None:
        return ()
    return tuple(ref.name for ref in _beside(made) if table.schema.is_field(ref))


def _beside(made: Plan) -> list[ast.VarRef]:
    """Return the names that stand beside a lone selector."""

    def outside(expr: ast.Expr) -> list[ast.VarRef]:
        match expr:
            case ast.VarRef():
                return [expr]
            case ast.ParenExpr(inner):
                return outside(inner)
            case ast.BinaryExpr(_, lhs, rhs):
                return outside(lhs) + outside(rhs)
        return []

    found = [ref for column in made.columns for ref in outside(column.expr)]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, eq=False)
class _Aggregated:
    """An answer of the engine with the calls it is for; calls of unknown names have no column."""

    calls: tuple[ast.Call, ...]
    columns: Mapping[ast.Call, CallColumn]
    table: AggregateTable


def _aggregate(
    made: Plan,
    table: Table,
    scan: ScanRequest,
    calls: tuple[ast.Call, ...],
    aux: tuple[str, ...],
    session: Session,
) -> _Aggregated | None:
    fields = {call: _field_of(call, table) for call in calls}
    known = [call for call in calls if fields[call]]
    if not known:
        return None
    request = AggregateRequest(
        scan=scan,
        calls=tuple(Call(call.name, fields[call], _numbers(call)) for call in known),
        group_by=made.dimensions,
        windows=made.shape.windows,
        aux=aux,
        max_cells=_most_cells(made, session.settings),
    )
    answer = _with_casts(table, known).aggregate(request)
    return _Aggregated(calls, dict(zip(known, answer.columns, strict=True)), answer)


def _n_columns(made: Plan) -> int:
    """Return how many columns of the grid stand in memory at once, for the estimate."""
    is_searching = made.shape.select.fill in {ast.Fill.LINEAR, ast.Fill.PREVIOUS}
    return (len(made.leaves) + len(made.transformed)) * (4 if is_searching else 1)


def _most_cells(made: Plan, settings: Settings) -> int:
    """Return how many groups x windows the engine may answer with."""
    most = most_rows(_n_columns(made), settings.max_query_bytes)
    return min(settings.max_select_buckets or most, most)


def _field_of(call: ast.Call, table: Table) -> str:
    """Return the field that a call reads, a cast one under its own name; "" when there is none."""
    ref = call.args[0]
    if not isinstance(ref, ast.VarRef) or not table.schema.is_field(ref):
        return ""
    stored = table.schema.fields[ref.name]
    kind = cast_type(ref, stored)
    if kind is FieldType.NONE:
        return ""
    return ref.name if kind is stored else f"{ref.name}::{ref.cast}"


def _with_casts(table: Table, calls: Sequence[ast.Call]) -> Reader:
    """Return the reader of a table with the fields that `_field_of` names."""
    casts = {}
    for call in calls:
        ref, name = call.args[0], _field_of(call, table)
        if isinstance(ref, ast.VarRef) and name != ref.name:
            casts[name] = ref.name, CASTS[ref.cast]
    return CastReader(table.reader, casts) if casts else table.reader


def _numbers(call: ast.Call) -> tuple[float, ...]:
    numbers: list[float] = []
    for arg in call.args[1:]:
        if isinstance(arg, ast.DurationLiteral):
            numbers.append(arg.ns)
        elif isinstance(arg, ast.IntegerLiteral | ast.NumberLiteral):
            numbers.append(arg.value)
    return tuple(numbers)


# --- the grid -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """The grid before it has columns.

    Attributes:
        made: The plan.
        groups: Sorted.
        first: The number of the first window.
        size: How many windows.
        in_range: bool[w]; false for the window that only transformations read.
    """

    made: Plan
    groups: list[tuple[str, ...]]
    first: int
    size: int
    in_range: Bools

    def axis(self, times: Int64s | None) -> Axis:
        """Return the rows, with the times of the chosen points where given."""
        windows = self.made.shape.windows
        count = len(self.groups)
        if times is None:
            if windows is None:
                starts = np.array([self._start_ns()])
            else:
                starts = windows.start(np.arange(self.first, self.first + self.size))
            times = self._repeated(starts)
        in_range = self._repeated(self.in_range)
        interval_ns = 0 if windows is None else windows.every_ns
        return Axis(np.repeat(np.arange(count), self.size), times, in_range, interval_ns)

    def _repeated(self, of_windows: np.ndarray) -> np.ndarray:
        """Return what is given for each window as one entry a row, in the order of the query."""
        rows = np.empty((len(self.groups), self.size), of_windows.dtype)
        rows[:] = of_windows[::-1] if self._descending else of_windows
        return rows.ravel()

    def _start_ns(self) -> int:
        """Return the time of the row of a query without windows."""
        shape = self.made.shape
        is_integral = any(call.name == "integral" for call in shape.aggregates)
        return shape.bounds.start_ns if shape.bounds.has_start and not is_integral else 0

    @property
    def _descending(self) -> bool:
        return self.made.shape.select.descending

    def ordered_groups(self) -> list[tuple[str, ...]]:
        """Return the groups in the order of the query."""
        return self.groups[::-1] if self._descending else self.groups

    def place(self, answer: _Aggregated, values: np.ndarray) -> np.ndarray:
        """Return a [g, w] array of the engine in this grid, in its order; 0 elsewhere."""
        shape = len(self.groups), self.size
        table = answer.table
        first = 0 if self.made.shape.windows is None else int(table.windows[0]) - self.first
        stop = min(first + len(table.windows), self.size)
        skip = max(-first, 0)
        whole = table.groups == self.groups and (first, stop, skip) == (0, self.size, 0)
        if whole and values.shape == shape:
            placed = values
        else:
            placed = np.zeros(shape, values.dtype)
            if values.dtype == np.object_:
                placed[:] = None
            rows = _positions(table.groups, self.groups)
            placed[rows, first + skip : stop] = values[:, skip : stop - first]
        return placed[::-1, ::-1] if self._descending else placed

    def column(self, answer: _Aggregated, call: ast.Call, *, is_inner: bool = False) -> Col:
        """Return the filled column of a call."""
        found = answer.columns.get(call)
        if found is None:
            return Col.nothing(len(self.groups) * self.size)
        values, valid = self.place(answer, found.values), self.place(answer, found.valid)
        select = self.made.shape.select
        emits = valid
        if self.made.shape.windows is not None and select.fill is not ast.Fill.NONE:
            emits = self._within(valid, is_inner=is_inner)
            values, valid = fill(
                select.fill or ast.Fill.NULL,
                select.fill_value,
                found.type,
                values,
                valid,
                emits,
                is_count=call.name in {"count", "count_distinct"},
            )
        return Col(found.type, values.ravel(), valid.ravel(), emits.ravel())

    def _within(self, valid: Bools, *, is_inner: bool) -> Bools:
        """Return the windows of each group: all of the range, or from its first point on."""
        in_range = self.in_range[::-1] if self._descending else self.in_range
        every = np.ones_like(in_range) if is_inner else in_range
        within: Bools = np.outer(valid.any(axis=1), every)
        if not self.made.shape.bounds.has_start:
            way = slice(None, None, -1 if self._descending else 1)
            begun: Bools = np.maximum.accumulate(valid[:, way], axis=1)
            within[:, way] &= begun
        return within

    def fill_rows(self, leaves: Mapping[ast.Expr, Col]) -> Mapping[ast.Expr, Col]:
        """Fill what is still null in the rows of the answer, as influxd's row writer does.

        That is cells beside a selector, and calls that have no point in a group. Number and
        previous do it.
        """
        select = self.made.shape.select
        mode = select.fill
        if self.made.shape.windows is None or not leaves:
            return leaves
        if mode is not ast.Fill.NUMBER and mode is not ast.Fill.PREVIOUS:
            return leaves
        shape = len(self.groups), self.size
        rows = np.logical_or.reduce([column.emits for column in leaves.values()]).reshape(shape)
        filled: dict[ast.Expr, Col] = {}
        for leaf, column in leaves.items():
            kind, values = column.type or FieldType.FLOAT, column.values
            if mode is ast.Fill.NUMBER and kind in {FieldType.STRING, FieldType.BOOLEAN}:
                kind, values = FieldType.STRING, values.astype(np.object_)
                empty = rows.ravel() & ~column.valid
                values[empty] = select.fill_value
                filled[leaf] = Col(kind, values, column.valid | empty, column.emits)
                continue
            values, valid = fill(
                mode,
                select.fill_value,
                kind,
                values.reshape(shape),
                column.valid.reshape(shape),
                rows,
                is_count=False,
            )
            filled[leaf] = Col(kind, values.ravel(), valid.ravel(), column.emits)
        return filled

    def selector_times(self, answer: _Aggregated, call: ast.Call) -> Int64s | None:
        """Return the times of the chosen points of a query without windows."""
        found = answer.columns.get(call)
        if self.made.shape.windows is not None or found is None or found.times is None:
            return None
        return self.place(answer, found.times).ravel()

    def beside(
        self,
        answer: _Aggregated,
        call: ast.Call,
        table: Table,
        scan: ScanRequest,
        aux: Sequence[str],
    ) -> dict[ast.Expr, Col]:
        """Return the columns of the fields and tags of the point that a selector chose."""
        found = answer.columns.get(call)
        columns: dict[ast.Expr, Col] = {}
        refs = _beside(self.made)
        if found is None or not refs:
            return columns
        nowhere = np.zeros(len(self.groups) * self.size, np.bool_)
        for ref in refs:
            if ref.name in aux and ref.cast != "tag":
                column = answer.table.aux.get(ref.name)
                if column is not None:
                    values = self.place(answer, column.values).ravel()
                    valid = self.place(answer, column.valid).ravel()
                    columns[ref] = Col(column.type, values, valid, nowhere)
                continue
            assert found.series is not None
            ids = self.place(answer, found.series).ravel()
            valid = self.place(answer, found.valid).ravel()
            values = _tags_of(ids, valid, ref.name, table.reader.series(table.name, scan.query))
            columns[ref] = Col(FieldType.STRING, values, values.astype(np.bool_), nowhere)
        return columns


def _tags_of(ids: Int64s, valid: Bools, key: str, series: SeriesSet) -> np.ndarray:
    values = np.full(len(ids), None, np.object_)
    column = series.columns.get(key)
    if column is None or not len(series):
        return values
    texts = np.array([*(value or None for value in column.values), None], np.object_)
    rows = np.minimum(np.searchsorted(series.ids, ids), len(series) - 1)
    known = valid & (series.ids[rows] == ids)
    values[known] = texts[column.codes[rows[known]]]
    return values


def _positions(groups: list[tuple[str, ...]], within: list[tuple[str, ...]]) -> Int64s:
    number = {group: position for position, group in enumerate(within)}
    return np.array([number[group] for group in groups], np.int64)


def _frame(
    made: Plan,
    groups: list[tuple[str, ...]],
    bounds: TimeRange,
    answers: list[_Aggregated],
    settings: Settings,
) -> _Frame:
    windows = made.shape.windows
    if windows is None:
        return _Frame(made, groups, 0, 1, np.ones(1, np.bool_))
    inner = made.shape.bounds
    ends = np.array((bounds.start_ns, bounds.end_ns, inner.start_ns, inner.end_ns), np.int64)
    first, last, inner_first, inner_last = windows.number(ends).tolist()
    if not bounds.has_start:
        first = min(int(a.table.windows[0]) for a in answers if len(a.table.windows))
    cells = (last - first + 1) * len(groups)
    if 0 < settings.max_select_buckets < cells:
        raise StatementError(
            f"max-select-buckets limit exceeded: ({cells}/{settings.max_select_buckets})"
        )
    check_rows(cells, _n_columns(made), settings.max_query_bytes)
    numbers = np.arange(first, last + 1)
    in_range = numbers <= inner_last
    if inner.has_start:
        in_range &= numbers >= inner_first
    return _Frame(made, groups, first, last - first + 1, in_range)
