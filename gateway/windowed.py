"""Groups x windows as rows: the engine's aggregates on the grid of the query, filled.

A transformation of windows reads one window before the range (behind it when the query descends);
aggregates that stand by themselves do not. So there are up to two requests, and one grid that holds
both: `leaves` for what stands alone, `inner` for what stands inside of a transformation. Under
`fill(previous, 1h)` each comes with the newest values before its range, which the first windows
carry on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gateway.aggregated import Aggregated, aggregate, most_cells, n_columns
from gateway.budget import check_rows, check_windows
from gateway.fill import fill
from gateway.rows import DTYPES, Axis, Col
from grammar import ast
from tinyflux.batch import Bools, FieldType, Int64s

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.plan import Plan, Shape
    from gateway.session import Session
    from gateway.sources import Table
    from gateway.timerange import TimeRange
    from tinyflux.columnar.base import AggregateTable, ScanRequest, Values


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Rows of windows: groups x windows of them, group after group.

    Attributes:
        axis: The rows.
        groups: The GROUP BY values, in the order of the query.
        leaves: The columns of the calls that stand outside of transformations, and of names beside
            a selector.
        inner: The columns of the calls that stand inside of transformations.
        own: The leaves before rows were filled.
    """

    axis: Axis
    groups: list[tuple[str, ...]]
    leaves: Mapping[ast.Expr, Col]
    inner: Mapping[ast.Expr, Col]
    own: Mapping[ast.Expr, Col]

    @property
    def has_all(self) -> bool:
        """Whether every leaf has a value somewhere in every group.

        How a column without one is filled is another matter: a count gives null, and `fill(0)` of
        strings 0.
        """
        n_groups = len(self.groups)
        return all(c.valid.reshape(n_groups, -1).any(axis=1).all() for c in self.own.values())


def read_grid(made: Plan, table: Table, scan: ScanRequest, session: Session) -> Grid | None:
    """Return the windows of a query; None when no point is in its range.

    Raises:
        StatementError: More windows than `max_select_buckets`, or than memory is given for.
    """
    shape = made.shape
    bounds, wide = shape.bounds, None
    aux = _aux(made, table)
    points = made.lone_selector is not None and (shape.windows is None or bool(made.beside))
    plain = aggregate(made, table, scan, made.leaves, aux, session, points=points)
    if made.transformed:
        widened = widen(shape)
        wide_scan = replace(scan, start_ns=widened.start_ns, end_ns=widened.end_ns)
        wide = aggregate(made, table, wide_scan, made.transformed, (), session)
        bounds = bounds if wide is None else widened
    answers = [answer for answer in (plain, wide) if answer is not None]
    groups = sorted(set[tuple[str, ...]]().union(*(answer.groups() for answer in answers)))
    if not groups:
        return None
    session.interrupt.check()
    frame = _frame(made, groups, bounds, plain, wide, session)
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
    filled = frame.fill_rows(leaves)
    return Grid(frame.axis(times), frame.ordered_groups(), filled, inner, leaves)


def widen(shape: Shape) -> TimeRange:
    """Return the range of a query with the window that transformations read before it."""
    bounds, reach = shape.bounds, shape.reach
    if shape.windows is None:
        return bounds
    start_ns, end_ns = shape.windows.widened(bounds.start_ns, bounds.end_ns)
    if reach is not None:  # as in influxd: the query around it reads no more than its interval
        start_ns, end_ns = max(start_ns, reach.start_ns), min(end_ns, reach.end_ns)
    if shape.select.descending:
        return bounds._replace(end_ns=end_ns)
    return bounds._replace(start_ns=start_ns) if bounds.has_start else bounds


def _aux(made: Plan, table: Table) -> tuple[str, ...]:
    """Return the fields to bring from the point that a lone selector chose."""
    return tuple(ref.name for ref in made.beside if table.schema.is_field(ref))


# --- the grid -------------------------------------------------------------------------------------
class _Fit(NamedTuple):
    """Where a table of the engine lies in the grid.

    Attributes:
        shape: Of the grid.
        rows: int64[g], the rows of the grid that its groups are.
        here: int64[w], the windows of the grid that it has, by their place.
        there: int64[w], the same, by their place in the table; None where the table is as large as
            the grid, and in its order: nothing has to be moved then.
        way: The steps in which the query goes through groups and windows.
    """

    shape: tuple[int, int]
    rows: Int64s
    here: Int64s
    there: Int64s | None
    way: int

    def place(self, values: np.ndarray) -> np.ndarray:
        """Return a [g, w] array of the table in the grid, row after row as the query goes; else 0.

        Text is None elsewhere.
        """
        if self.there is not None:
            found, values = values[:, self.there], np.zeros(self.shape, values.dtype)
            if values.dtype == np.object_:
                values[:] = None
            values[np.ix_(self.rows, self.here)] = found
        return values[:: self.way, :: self.way].ravel()


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """The grid before it has columns.

    Attributes:
        made: The plan.
        groups: Sorted.
        numbers: int64[w], the numbers of the windows, ascending; under `fill(none)` not of all.
        in_range: bool[w]; false for the window that only transformations read.
        is_all_in_range: It is true everywhere.
    """

    made: Plan
    groups: list[tuple[str, ...]]
    numbers: Int64s
    in_range: Bools
    is_all_in_range: bool = True
    _fits: dict[int, _Fit] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many windows."""
        return len(self.numbers)

    def axis(self, times: Int64s | None) -> Axis:
        """Return the rows, with the times of the chosen points where given."""
        windows = self.made.shape.windows
        count = len(self.groups)
        if times is None:
            if windows is None:
                starts = np.array([self._start_ns()])
            else:
                starts = windows.start(self.numbers)
            times = self._repeated(starts)
        in_range = self._repeated(self.in_range)
        interval_ns = 0 if windows is None else windows.every_ns
        groups = np.arange(count).repeat(self.size)
        return Axis(groups, times, in_range, interval_ns)

    def _repeated(self, of_windows: np.ndarray) -> np.ndarray:
        """Return what is given for each window as one entry a row, in the order of the query."""
        if len(self.groups) == 1:
            return of_windows[::-1] if self._descending else of_windows
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

    def fit(self, table: AggregateTable) -> _Fit:
        """Return where a table lies in this grid."""
        found = self._fits.get(id(table))
        if found is None:
            found = self._fits[id(table)] = self._find_fit(table)
        return found

    def _find_fit(self, table: AggregateTable) -> _Fit:
        shape, way = (len(self.groups), self.size), -1 if self._descending else 1
        windows = table.windows
        if table.groups == self.groups and np.array_equal(windows, self.numbers):
            return _Fit(shape, windows, windows, None, way)
        at = np.minimum(np.searchsorted(self.numbers, windows), self.size - 1)
        there = np.flatnonzero(self.numbers[at] == windows)
        return _Fit(shape, _positions(table.groups, self.groups), at[there], there, way)

    def column(self, answer: Aggregated, call: ast.Call, *, is_inner: bool = False) -> Col:
        """Return the filled column of a call."""
        cells = self.cells(answer, call)
        select = self.made.shape.select
        if self.made.shape.windows is None or select.fill is ast.Fill.NONE:
            return cells
        if (is_inner or self.is_all_in_range) and cells.valid.all():
            return cells  # nothing is empty
        if answer.earlier is not None:
            before = self._before().cells(answer.earlier, call)
            return self._carried(before, cells, self._within(cells, before, is_inner=is_inner))
        emits = self._within(cells, is_inner=is_inner)
        values, valid = fill(
            select.fill or ast.Fill.NULL,
            select.fill_value,
            cells.type,
            cells.values.reshape(emits.shape),
            cells.valid.reshape(emits.shape),
            emits,
            is_count=call.name in {"count", "count_distinct"},
        )
        return Col(cells.type, values.ravel(), valid.ravel(), emits.ravel())

    def cells(self, answer: Aggregated, call: ast.Call) -> Col:
        """Return the column of a call as the engine gave it."""
        found = answer.columns.get(call)
        if found is None:
            return Col.nothing(len(self.groups) * self.size)
        fit = self.fit(answer.table)
        valid = fit.place(found.valid)
        return Col(found.type, fit.place(found.values), valid, valid)

    def _before(self) -> _Frame:
        """Return the grid of one window that has what is before the range."""
        return _Frame(self.made, self.groups, np.zeros(1, np.int64), np.ones(1, np.bool_))

    def _carried(self, before: Col, cells: Col, rows: Bools) -> Col:
        """Return cells whose empty windows have the last value earlier in time, be it from before.

        Whatever the order of the query: what `fill(previous, 1h)` carries comes from the past.
        """
        kind = cells.type if cells.valid.any() else before.type
        if before.valid.any() and {kind, before.type} == {FieldType.FLOAT, FieldType.INTEGER}:
            kind = FieldType.FLOAT
        before, cells = before.cast(kind), cells.cast(kind)
        way = slice(None, None, -1 if self._descending else 1)
        values: Values = np.empty((len(rows), 1 + self.size), DTYPES[kind])
        values[:, 0], values[:, 1:] = before.values, cells.values.reshape(rows.shape)[:, way]
        valid, within = np.empty(values.shape, np.bool_), np.empty(values.shape, np.bool_)
        valid[:, 0], valid[:, 1:] = before.valid, cells.valid.reshape(rows.shape)[:, way]
        within[:, 0], within[:, 1:] = False, rows[:, way]
        values, valid = fill(ast.Fill.PREVIOUS, 0, kind, values, valid, within, is_count=False)
        values, valid = values[:, 1:][:, way], valid[:, 1:][:, way]
        return Col(kind, values.ravel(), valid.ravel(), rows.ravel())

    def _within(self, cells: Col, before: Col | None = None, *, is_inner: bool) -> Bools:
        """Return bool[g, w]: the windows of each group: all of the range, or from its first on."""
        valid = cells.valid.reshape(len(self.groups), self.size)
        known: Bools = np.logical_or.reduce(valid, axis=1)
        if before is not None:
            known = known | before.valid
        in_range = self.in_range[::-1] if self._descending else self.in_range
        every = np.ones_like(in_range) if is_inner else in_range
        within: Bools = known[:, None] & every
        if not self.made.shape.bounds.has_start:
            way = slice(None, None, -1 if self._descending else 1)
            begun: Bools = np.maximum.accumulate(valid[:, way], axis=1)
            within[:, way] &= begun
        return within

    def fill_rows(self, leaves: Mapping[ast.Expr, Col]) -> Mapping[ast.Expr, Col]:
        """Fill what is still null in the rows of the answer, as influxd's row writer does.

        That is cells beside a selector, and calls that have no point in a group. Number and
        previous do it; what `fill(previous, 1h)` fills has been filled.
        """
        select = self.made.shape.select
        mode = select.fill
        if self.made.shape.windows is None or not leaves or self.made.shape.fill_age_ns:
            return leaves
        if mode is not ast.Fill.NUMBER and mode is not ast.Fill.PREVIOUS:
            return leaves
        shape = len(self.groups), self.size
        rows = np.logical_or.reduce([column.emits for column in leaves.values()]).reshape(shape)
        filled: dict[ast.Expr, Col] = {}
        types: dict[ast.Expr, FieldType] = {}
        types.update(zip(self.made.leaves, self.made.leaf_types, strict=True))
        for leaf, column in leaves.items():
            kind, values = column.type, column.values
            if not kind:  # what a measurement lacks
                kind = types.get(leaf, FieldType.FLOAT)
                values = values.astype(DTYPES[kind])
            if not kind:  # what nothing has: nobody knows what the number would be
                filled[leaf] = column
                continue
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

    def selector_times(self, answer: Aggregated, call: ast.Call) -> Int64s | None:
        """Return the times of the chosen points of a query without windows."""
        found = answer.columns.get(call)
        if self.made.shape.windows is not None or found is None or found.times is None:
            return None
        return self.fit(answer.table).place(found.times)

    def beside(
        self,
        answer: Aggregated,
        call: ast.Call,
        table: Table,
        scan: ScanRequest,
        aux: Sequence[str],
    ) -> dict[ast.Expr, Col]:
        """Return the columns of the fields and tags of the point that a selector chose, filled."""
        columns = self.chosen(answer, call, table, scan, aux)
        if answer.earlier is None:
            return columns
        one = self._before()
        before = one.chosen(answer.earlier, call, table, scan, aux)
        cells = self.cells(answer, call)
        rows = self._within(cells, one.cells(answer.earlier, call), is_inner=False)
        n_groups, n_rows = len(self.groups), len(self.groups) * self.size
        return {
            ref: self._carried(
                before.get(ref, Col.nothing(n_groups)), columns.get(ref, Col.nothing(n_rows)), rows
            )
            for ref in {**columns, **before}
        }

    def chosen(
        self,
        answer: Aggregated,
        call: ast.Call,
        table: Table,
        scan: ScanRequest,
        aux: Sequence[str],
    ) -> dict[ast.Expr, Col]:
        """Return the columns of the fields and tags of the point that a selector chose."""
        found = answer.columns.get(call)
        columns: dict[ast.Expr, Col] = {}
        refs = self.made.beside
        if found is None or not refs:
            return columns
        fit = self.fit(answer.table)
        nowhere = np.zeros(len(self.groups) * self.size, np.bool_)
        for ref in refs:
            if ref.name in aux and ref.cast != "tag":
                column = answer.table.aux.get(ref.name)
                if column is not None:
                    values, valid = fit.place(column.values), fit.place(column.valid)
                    columns[ref] = Col(column.type, values, valid, nowhere)
                continue
            assert found.series is not None
            ids, valid = fit.place(found.series), fit.place(found.valid)
            columns[ref] = _tag_column(ids, valid, ref.name, table, scan)
        return columns


def _tag_column(ids: Int64s, valid: Bools, key: str, table: Table, scan: ScanRequest) -> Col:
    """Return a tag of each of these series as text that emits no rows by itself."""
    series = table.series(scan)
    values = np.full(len(ids), None, np.object_)
    shown, nowhere = np.zeros((2, len(ids)), np.bool_)
    column = series.columns.get(key)
    if column is not None and len(series):
        missing = table.missing_tag
        texts = np.array([*(value or missing for value in column.values), missing], np.object_)
        is_text = np.array([text is not None for text in texts.tolist()])
        rows = np.minimum(np.searchsorted(series.ids, ids), len(series) - 1)
        known = valid & (series.ids[rows] == ids)
        codes = column.codes[rows[known]]  # -1, no tag, is the last
        values[known], shown[known] = texts[codes], is_text[codes]
    return Col(FieldType.STRING, values, shown, nowhere)


_ENDS_EARLY: Final = (
    "the windows up to now() are more than max_select_buckets or max_query_bytes allow: the last "
    "one that has a value is the last one here; an upper bound of time says otherwise"
)


def _positions(groups: list[tuple[str, ...]], within: list[tuple[str, ...]]) -> Int64s:
    number = {group: position for position, group in enumerate(within)}
    return np.array([number[group] for group in groups], np.int64)


def _frame(
    made: Plan,
    groups: list[tuple[str, ...]],
    bounds: TimeRange,
    plain: Aggregated | None,
    wide: Aggregated | None,
    session: Session,
) -> _Frame:
    windows = made.shape.windows
    if windows is None:
        return _Frame(made, groups, np.zeros(1, np.int64), np.ones(1, np.bool_))
    inner = made.shape.bounds
    ends = np.array((bounds.start_ns, bounds.end_ns, inner.start_ns, inner.end_ns), np.int64)
    first, last, inner_first, inner_last = windows.number(ends).tolist()
    found = [one.table.windows for one in (plain, wide) if one and len(one.table.windows)]
    # What a subquery answers in an interval may begin before it, and forecasts come behind it.
    first = min([first, *(int(numbers[0]) for numbers in found)])
    last = max([last, *(int(numbers[-1]) for numbers in found)])
    if plain is not None and len(plain.table.windows):
        inner_first = min(inner_first, int(plain.table.windows[0]))
        inner_last = max(inner_last, int(plain.table.windows[-1]))
    numbers = None
    if made.shape.select.fill is ast.Fill.NONE:  # no row outside of the data: "all time" is cheap
        numbers = found[0] if len(found) == 1 else np.unique(np.concatenate(found))
        numbers = numbers[(numbers >= first) & (numbers <= last)]
    elif not bounds.has_start or made.shape.skips_empty:
        first = max(first, min(int(windows[0]) for windows in found))
    newest = max((int(windows[-1]) for windows in found), default=last)
    if made.shape.skips_empty:
        last = min(last, newest)
    elif (
        numbers is None
        and not bounds.has_end
        and newest < last
        and (last - first + 1) * len(groups) > most_cells(made, session)
    ):  # up to now() it is far where the data are old: better a shorter answer than none
        last = newest
        session.warnings.append(_ENDS_EARLY)
    cells = (last - first + 1 if numbers is None else len(numbers)) * len(groups)
    check_windows(cells, session.settings)
    check_rows(cells, n_columns(made), session)
    numbers = np.arange(first, last + 1) if numbers is None else numbers
    in_range = numbers <= inner_last
    if inner.has_start:
        in_range &= numbers >= inner_first
    return _Frame(made, groups, numbers, in_range, bool(in_range.all()))
