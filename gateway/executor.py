"""Runs the plan of a SELECT: asks the engine, then transforms, fills, computes, orders, limits.

Two ways lead to rows (`gateway.rows.Axis` and its columns), everything after them is shared:

    read_rows       a row a point: raw queries, transformations of fields, and the points that
                    distinct, top, bottom and sample choose
    read_grid       a row a group and window: aggregates and selectors, by the engine's `aggregate`

A statement reads one snapshot of each store, taken when it starts.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gateway.answers import Answer
from gateway.budget import check_rows, check_series
from gateway.conditions import compile_condition
from gateway.errors import StatementError
from gateway.expansion import Schema
from gateway.forecast import with_forecasts
from gateway.gaps import warnings_of
from gateway.into import write_into
from gateway.joins import join
from gateway.logic import calls_of, has_interval, walk
from gateway.narrowing import is_enough, narrowed
from gateway.ordering import having_rows, ordered
from gateway.parts import GroupLimit, can_be_read_in_parts, limit_rows, opened, read_parts
from gateway.planner import compile_select, plan, takes_windows
from gateway.points import group_series
from gateway.rows import Axis, Col, evaluate
from gateway.sources import Snapshots, SubqueryReader, Table, resolve, tables_of
from gateway.streams import axis_of, read_rows, read_streams
from gateway.timerange import TimeRange
from gateway.windowed import Grid, read_grid
from grammar import ast
from tinyflux.batch import MIN_TIME_NS
from tinyflux.columnar.base import ScanRequest
from tinyflux.errors import LimitExceeded, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from gateway.plan import Plan, Shape
    from gateway.points import Points
    from gateway.results import Series
    from gateway.session import Session
    from tinyflux.batch import Bools
    from tinyflux.columnar.base import Reader


def run_select(
    select: ast.Select, session: Session, snapshots: Snapshots | None = None
) -> list[Series]:
    """Return the answer of a SELECT as series, in InfluxDB's order.

    Args:
        select: What to answer.
        session: Who asks.
        snapshots: What to read it from; without, what is there now.

    Raises:
        StatementError: What InfluxDB refuses, and what would pass a limit.
        DatabaseNotFound, RetentionPolicyNotFound: A source that does not exist.
    """
    if select.target is not None:
        with _told_as_influxd():
            answers = _Run(session, snapshots or Snapshots(session)).run_to_write(select)
            written = (answer for answer, _ in answers)
            return [write_into(select.target, written, _tags_of_calls(select), session)]
    answers = run_answers(select, session, snapshots)
    return [
        series for answer, names in answers for series in answer.to_series(names, select.timezone)
    ]


def stream_select(
    select: ast.Select, session: Session, snapshots: Snapshots | None = None
) -> Iterator[Series]:
    """Yield the answer of a SELECT as `run_select` returns it, read while it is taken.

    Args:
        select: One that `can_be_read_in_parts`.
        session: Who asks.
        snapshots: As in `run_select`.

    Yields:
        Series; of those that are open, more rows follow.

    Raises:
        As `run_select`, also after the first series.
    """
    with _told_as_influxd():
        parts = _Run(session, snapshots or Snapshots(session)).run_in_parts(select)
        series = (one for part, names in parts for one in part.to_series(names, select.timezone))
        yield from opened(limit_rows(series, select.limit, select.offset))


def _tags_of_calls(select: ast.Select) -> list[str]:
    """Return the names of the tags that top and bottom look at."""
    return [
        arg.name
        for item in select.fields
        if isinstance(item.expr, ast.Call) and item.expr.name in {"top", "bottom"}
        for arg in item.expr.args[1:-1]
        if isinstance(arg, ast.VarRef)
    ]


def run_answers(
    select: ast.Select, session: Session, snapshots: Snapshots | None = None
) -> list[tuple[Answer, list[str]]]:
    """Return the answer of a SELECT by measurement, with the names of its columns."""
    with _told_as_influxd():
        return _Run(session, snapshots or Snapshots(session)).run(select, None)


@contextmanager
def _told_as_influxd() -> Iterator[None]:
    """Turn what the engine refuses into errors of the statement."""
    try:
        yield
    except (QueryError, LimitExceeded) as exc:
        raise StatementError(str(exc)) from exc
    except MemoryError as exc:
        raise StatementError(
            "out of memory: ask for a shorter time range, fewer fields or wider windows"
        ) from exc


@dataclass(slots=True)
class _Run:
    """One statement on its snapshots."""

    session: Session
    snapshots: Snapshots
    n_series: int = 0  # that were asked for

    def run(self, select: ast.Select, within: Shape | None) -> list[tuple[Answer, list[str]]]:
        shape = compile_select(select, self.session.now_ns, within)
        tables = self._tables(shape)
        if not tables:
            return []
        made = plan(shape, [table.schema for table in tables])
        limits = select.limit, select.offset, select.slimit, select.soffset
        answers = []
        for table in reversed(tables) if select.descending else tables:
            self.session.interrupt.check()
            answer = self._run_table(made, table)
            if answer is not None:
                answers.append((answer.limit(*limits), made.names()))
                self.session.claim.keep()
        return answers

    def _tables(self, shape: Shape) -> list[Table]:
        sources = shape.select.sources
        unnamed = [one for one in sources if not isinstance(one, ast.NamedSource)]
        if len(unnamed) == len(sources):
            run = self._subquery
            tables = resolve(
                unnamed, self.snapshots, lambda inner: _reader(shape, partial(run, inner))
            )
        else:
            joined = tables_of(_reader(shape, self._join))
            tables = [replace(table, is_join=True) for table in joined]
        if not any(table.is_subquery for table in tables):
            if len(tables) < 2:
                return tables
            fields = Schema.union(table.schema for table in tables).fields
            return [replace(table, other_fields=fields) for table in tables]
        names = list(_columns(shape.select))
        return [table.with_tags_as_fields(names) for table in tables]

    def _join(self, shape: Shape) -> list[Answer]:
        return join(
            replace(shape.select, condition=shape.condition),
            self.snapshots,
            lambda inner: self._subquery(inner, shape),
            is_complete=shape.is_raw and shape.select.fill is ast.Fill.NONE,
        )

    def run_in_parts(self, select: ast.Select) -> Iterator[tuple[Answer, list[str]]]:
        """Yield what `run` returns without its limits, long groups in several answers."""
        shape = compile_select(select, self.session.now_ns)
        tables = self._tables(shape)
        if not tables:
            return
        made = plan(shape, [table.schema for table in tables])
        for table in reversed(tables) if select.descending else tables:
            self.session.interrupt.check()
            for answer in self._groups_of_table(made, table):
                yield answer, made.names()

    def run_to_write(self, select: ast.Select) -> Iterable[tuple[Answer, list[str]]]:
        """Return what a SELECT INTO writes, in parts where it can be read in parts."""
        in_parts = can_be_read_in_parts(replace(select, target=None))
        is_whole = not (select.limit or select.offset)
        return self.run_in_parts(select) if in_parts and is_whole else self.run(select, None)

    def _groups_of_table(self, made: Plan, table: Table) -> Iterator[Answer]:
        """Yield the groups that SLIMIT and SOFFSET leave.

        They are counted in ascending order: where they are printed descending, which ones these are
        is found out before.
        """
        select = made.shape.select
        limit = GroupLimit(select.slimit, select.soffset)
        if not select.descending or not (select.slimit or select.soffset):
            for answer in self._parts_of_table(made, table, limit):
                yield limit.kept(answer)
        elif table.reader.can_stretch:
            ascending = made.shape._replace(select=replace(select, descending=False))
            wanted: set[tuple[str, ...]] = set()
            for answer in self._parts_of_table(replace(made, shape=ascending), table, limit):
                kept = limit.kept(answer)
                wanted.update(kept.groups[group] for group, _ in kept.slices())
            yield from self._parts_of_table(made, table, GroupLimit(0, 0), wanted)
        else:
            for answer in self._parts_of_table(made, table, limit):
                yield answer.limit(0, 0, select.slimit, select.soffset)

    def _parts_of_table(
        self,
        made: Plan,
        table: Table,
        groups: GroupLimit,
        wanted: Container[tuple[str, ...]] | None = None,
    ) -> Iterator[Answer]:
        """Yield the answer over a table in parts, until there are groups enough.

        Args:
            made: The plan.
            table: Of what.
            groups: Knows when there are enough.
            wanted: The groups to read; None is all.
        """
        if not table.reader.can_stretch:
            answer = self._run_table(made, table)
            if answer is not None:
                yield answer
            return
        scan = self._scan(made, table)
        if wanted is not None:
            series = table.series(scan)
            rows = [group in wanted for group in group_series(series, made.dimensions)]
            scan = replace(scan, series=series.take(np.array(rows, np.bool_)))
        if scan.start_ns <= scan.end_ns:
            for points in read_parts(made, table, scan, self.session):
                answer = _answer(made, table.name, _from_points(made, points))
                chosen = None if answer is None else self._chosen(made, answer)
                if chosen is not None:
                    yield chosen
                if groups.is_over:
                    break
            self._warn_of_gaps(table, scan)

    def _subquery(self, select: ast.Select, outer: Shape) -> list[Answer]:
        if outer.select.is_ordered and select.is_ordered:
            is_same = outer.select.descending == select.descending
        else:
            is_same = outer.select.descending or not select.descending
        if not is_same:
            raise StatementError(
                "subqueries must be ordered in the same direction as the query itself"
            )
        if (
            outer.select.descending and not select.sort_fields
        ):  # as in influxd: LIMIT and transformations go that way too
            select = replace(select, is_ordered=True, descending=True)
        if select.fill is None or select.fill is ast.Fill.NULL:
            # An empty window of a subquery is no row for the query around it.
            select = replace(select, fill=ast.Fill.NONE) if _has_windows(select, outer) else select
        return [answer for answer, _ in self.run(select, outer)]

    def _run_table(self, made: Plan, table: Table) -> Answer | None:
        scan = self._scan(made, table)
        if scan.start_ns > scan.end_ns:
            return None
        for part in narrowed(made) if table.reader.can_stretch else ():
            bounds = part.shape.bounds
            some = replace(scan, start_ns=bounds.start_ns, end_ns=bounds.end_ns)
            grid = read_grid(part, table, some, self.session)
            if grid is None or not grid.has_all:
                continue
            answer = self._finished(part, table, some, _from_grid(grid))
            if answer is not None and is_enough(answer, made, table, scan):
                return answer
        return self._run_scan(made, table, scan)

    def _run_scan(self, made: Plan, table: Table, scan: ScanRequest) -> Answer | None:
        if made.streams:
            streams = read_streams(made, table, scan, self.session)
            rows = (
                None if streams is None else _Rows(streams.axis(), streams.groups, streams.leaves)
            )
        elif made.shape.rows_call is None and (made.leaves or made.transformed):
            grid = read_grid(made, table, scan, self.session)
            rows = _from_grid(with_forecasts(grid, made, self.session))
        else:
            points = read_rows(made, table, scan, self.session)
            rows = None if points is None else _from_points(made, points)
        return self._finished(made, table, scan, rows)

    def _finished(
        self, made: Plan, table: Table, scan: ScanRequest, rows: _Rows | None
    ) -> Answer | None:
        """Return the answer of what was read; None when it has no row."""
        self.session.interrupt.check()
        self._warn_of_gaps(table, scan)
        if rows is None:
            return None
        check_rows(len(rows.axis), len(made.columns), self.session)
        answer = _answer(made, table.name, rows)
        return None if answer is None else self._chosen(made, answer)

    def _chosen(self, made: Plan, answer: Answer) -> Answer | None:
        """Return the rows that HAVING leaves, as ORDER BY sorts them; None when there are none."""
        select = made.shape.select
        if made.having is not None:
            keep = having_rows(answer, made.having, self.session.now_ns, select.timezone)
            if not keep.any():
                return None
            answer = answer.take(keep)
        if not made.order:
            return answer
        # A copy of the answer, and a column for each key.
        check_rows(len(answer.rows), len(answer.columns) + len(made.order), self.session)
        return ordered(answer, made.order, made.time_name)

    def _scan(self, made: Plan, table: Table) -> ScanRequest:
        """Return which rows of a table are wanted.

        Raises:
            StatementError: With those of other tables, of more series than may be read.
        """
        bounds = made.shape.bounds
        query = compile_condition(made.shape.condition, table.condition_fields)
        settings = self.session.settings
        if table.is_subquery or not settings.max_select_series:
            return ScanRequest(table.name, query, bounds.start_ns, bounds.end_ns)
        series = table.reader.series(table.name, query)
        self.n_series += len(series)
        check_series(self.n_series, settings)
        return ScanRequest(table.name, query, bounds.start_ns, bounds.end_ns, series=series)

    def _warn_of_gaps(self, table: Table, scan: ScanRequest) -> None:
        if gaps := table.reader.gaps(table.name, scan.start_ns, scan.end_ns):
            self.session.warnings.extend(warnings_of(gaps))


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows with the columns that were read for them."""

    axis: Axis
    groups: list[tuple[str, ...]]
    leaves: Mapping[ast.Expr, Col]
    inner: Mapping[ast.Expr, Col] | None = None


def _from_grid(grid: Grid | None) -> _Rows | None:
    return None if grid is None else _Rows(grid.axis, grid.groups, grid.leaves, grid.inner)


def _from_points(made: Plan, points: Points) -> _Rows:
    return _Rows(axis_of(points, made), points.groups, points.leaves)


def _answer(made: Plan, name: str, rows: _Rows) -> Answer | None:
    columns = [
        (column.name, evaluate(column.expr, rows.axis, rows.leaves, rows.inner))
        for column in made.columns
    ]
    emitted = _emitted(columns, rows.axis)
    n_emitted = np.count_nonzero(emitted)
    if not n_emitted:
        return None
    keep = slice(None) if n_emitted == len(emitted) else emitted  # mostly all are: no copies then
    return Answer(
        name,
        made.dimensions,
        rows.groups,
        rows.axis.groups[keep],
        rows.axis.times[keep],
        [(label, column.take(keep)) for label, column in columns],
        made.shape.select.descending,
    )


def _emitted(columns: list[tuple[str, Col]], axis: Axis) -> Bools:
    (_, first), *others = columns
    emits = first.emits
    for _, column in others:
        emits = emits | column.emits
    return axis.in_range & emits


def _reader(shape: Shape, run: Callable[[Shape], list[Answer]]) -> Reader:
    """Return the answers to a query around a subquery, in each range that it asks for."""
    bounds = shape.bounds
    ranges = [(bounds.start_ns, bounds.end_ns)]
    if shape.fill_age_ns:  # a series may have points before the range alone
        before_ns = max(bounds.start_ns - shape.fill_age_ns, MIN_TIME_NS)
        ranges.append((before_ns, bounds.start_ns - 1))

    def within(start_ns: int, end_ns: int) -> list[Answer]:
        has_end = bounds.has_end or end_ns != bounds.end_ns
        return run(shape._replace(bounds=TimeRange(start_ns, end_ns, bounds.has_start, has_end)))

    return SubqueryReader(within, ranges)


def _columns(select: ast.Select) -> Iterator[str]:
    """Yield the names in the columns of a query, but for the tags of top() and bottom().

    None beside a wildcard, which finds fields and tags itself.
    """
    parts = [part for item in select.fields for part in walk(item.expr)]
    if any(isinstance(part, ast.Wildcard | ast.RegexLiteral) for part in parts):
        return
    for item in select.fields:
        tags = {
            arg
            for call in calls_of(item.expr)
            if call.name in {"top", "bottom"}
            for arg in call.args[1:]
        }
        for part in walk(item.expr):
            if isinstance(part, ast.VarRef) and not part.cast and part not in tags:
                yield part.name


def _has_windows(select: ast.Select, outer: Shape) -> bool:
    calls = [call for item in select.fields for call in calls_of(item.expr)]
    return any(map(takes_windows, calls)) and (has_interval(select) or outer.windows is not None)
