"""Raw points in parts: an answer of any length, read while it is printed.

Whole groups are read together as long as they fit into a part; a group that does not is read a
stretch of time after the other. So memory is bounded by a part and not by the answer, whatever the
GROUP BY.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gateway.budget import check_rows, most_rows
from gateway.functions.registry import Kind, is_kind
from gateway.logic import walk
from gateway.points import MOST_NEEDED, PointReader, group_series
from gateway.rows import Col
from grammar import ast
from tinyflux.columnar.evaluate import needs_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.answers import Answer
    from gateway.plan import Plan
    from gateway.points import Points
    from gateway.results import Series
    from gateway.session import Session
    from gateway.sources import Table
    from tinyflux.batch import Int64s
    from tinyflux.columnar.base import Frame, ScanRequest


class _Size(NamedTuple):
    """How much may be in memory: so many cells, but at least and at most so many rows."""

    cells: int
    least: int
    most: int


# To put an answer in order at once is up to twice as fast as to read it in parts.
_HELD: Final = _Size(4_000_000, 40_000, 400_000)
_PART: Final = _Size(2_000_000, 20_000, 200_000)
_SHARE: Final = 8  # of the memory of queries is for one of them at most, however slow its client


def can_be_read_in_parts(select: ast.Select) -> bool:
    """Return whether the rows of a statement depend on the points of one time and group each.

    And on what the rows before it carry on.
    """
    return (
        select.target is None
        and not select.sort_fields
        # The first rows of a few points are found without reading all of them.
        and (not select.limit or select.limit + select.offset > MOST_NEEDED)
        and all(isinstance(source, ast.Measurement) for source in select.sources)
        and all(_is_of_a_row(item.expr) for item in select.fields)
    )


def _is_of_a_row(expr: ast.Expr) -> bool:
    return not any(
        isinstance(part, ast.Distinct)
        or (isinstance(part, ast.Call) and not is_kind(part.name, Kind.MATH))
        for part in walk(expr)
    )


def read_parts(made: Plan, table: Table, scan: ScanRequest, session: Session) -> Iterator[Points]:
    """Yield the points that a plan reads of a table, in the order of the query.

    Memory is claimed for one part.

    Raises:
        StatementError: More points than `max_select_points`.
        LimitExceeded: Other queries have all the memory.
    """
    for points in _parts(made, table, scan, session):
        check_rows(len(points.rows), len(made.columns), session)
        yield points


def _parts(made: Plan, table: Table, scan: ScanRequest, session: Session) -> Iterator[Points]:
    series = table.series(scan)
    scan = replace(scan, series=series)
    counts = table.reader.row_counts(scan)
    held, part = _rows_of(_HELD, made, session), _rows_of(_PART, made, session)
    # A condition on fields may leave few of many rows: that shows when they are read.
    if int(counts.sum()) <= held or (scan.query is not None and needs_rows(scan.query)):
        points, is_all = _read_few(PointReader(made, table, session), scan, held)
        if is_all:
            if points is not None:
                yield points
            return
    reader = PointReader(made, table, session)
    members = _members(group_series(series, made.dimensions), made.shape.select.descending)
    for rows, is_small in _batches(members, counts, part):
        some = replace(scan, series=series.take(rows), max_rows=part)
        if is_small:
            frames = list(reader.frames(some))
            if frames:
                yield reader.points(frames)
            continue
        in_time = replace(some, in_time=-1 if made.shape.select.descending else 1)
        carried: dict[ast.Expr, Col] = {}
        for frame in reader.frames(in_time):
            points = reader.points([frame])
            if made.shape.select.fill is ast.Fill.PREVIOUS:
                points = _carry_on(points, carried)
            yield points


def _carry_on(points: Points, carried: dict[ast.Expr, Col]) -> Points:
    """Return points of a group of which the first ones were filled with nothing to carry on.

    Args:
        points: Filled; so a column is empty in its first rows only.
        carried: The last value of each column so far, one row each. It is brought up to date.
    """
    leaves = dict(points.leaves)
    for ref, column in points.leaves.items():
        last, empty = carried.get(ref), ~column.valid
        if last is not None and empty.any():
            kind = column.type or last.type
            values = column.cast(kind).values.copy()
            before = last.cast(kind)
            values[empty] = before.values[0]
            valid = column.valid | before.valid[0]
            leaves[ref] = Col(kind, values, valid, column.emits)
        if leaves[ref].valid[-1]:
            carried[ref] = leaves[ref].take(slice(-1, None))
    return replace(points, leaves=leaves)


class GroupLimit:
    """SLIMIT and SOFFSET over answers in parts: groups are counted as they come.

    Attributes:
        is_over: All groups were there that are wanted.
    """

    def __init__(self, slimit: int, soffset: int) -> None:
        self.is_over = False
        self._first = soffset
        self._stop = soffset + slimit if slimit else None
        self._position = -1
        self._group: tuple[str, ...] | None = None

    def kept(self, answer: Answer) -> Answer:
        """Return the rows of the groups that are wanted."""
        if not self._first and self._stop is None:
            return answer
        keep = np.zeros(len(answer.rows), np.bool_)
        for group, where in answer.slices():
            if answer.groups[group] != self._group:
                self._group = answer.groups[group]
                self._position += 1
            keep[where] = self._first <= self._position
            if self._stop is not None and self._position >= self._stop:
                keep[where] = False
                self.is_over = True
        return answer.take(keep)


def _rows_of(size: _Size, made: Plan, session: Session) -> int:
    n_columns = len(made.columns)
    wanted = max(size.least, min(size.most, size.cells // (1 + n_columns)))
    return min(wanted, max(1, most_rows(n_columns, session) // _SHARE))


def _read_few(reader: PointReader, scan: ScanRequest, most: int) -> tuple[Points | None, bool]:
    """Return the points of a scan (None when there are none), and whether these are all.

    When they are more than `most`, none are returned.
    """
    frames: list[Frame] = []
    n_rows = 0
    for frame in reader.frames(replace(scan, max_rows=most)):
        frames.append(frame)
        n_rows += len(frame)
        if n_rows > most:
            return None, False
    return (reader.points(frames) if frames else None), True


def _members(groups: list[tuple[str, ...]], descending: bool) -> list[Int64s]:
    """Return the series of each group, int64[..] ascending, in the order of the query."""
    members: dict[tuple[str, ...], list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    ordered = sorted(members, reverse=descending)
    return [np.array(members[group], np.int64) for group in ordered]


def _batches(
    members: Iterable[Int64s], counts: Int64s, max_rows: int
) -> Iterator[tuple[Int64s, bool]]:
    """Yield the series of groups that fit into a part together, or of one that does not (False)."""
    waiting: list[Int64s] = []
    n_rows = 0
    for rows in members:
        size = int(counts[rows].sum())
        if waiting and n_rows + size > max_rows:
            yield np.sort(np.concatenate(waiting)), True
            waiting, n_rows = [], 0
        if size > max_rows:
            yield rows, False
        elif size:
            waiting.append(rows)
            n_rows += size
    if waiting:
        yield np.sort(np.concatenate(waiting)), True


def opened(series: Iterable[Series]) -> Iterator[Series]:
    """Yield series, those open whose rows go on in the next one."""
    before: Series | None = None
    for item in series:
        if before is not None:
            goes_on = before.name == item.name and before.tags == item.tags
            yield replace(before, is_open=True) if goes_on else before
        before = item
    if before is not None:
        yield before


def limit_rows(series: Iterable[Series], limit: int, offset: int) -> Iterator[Series]:
    """Yield of each series the rows behind the first `offset`, at most `limit`; 0 is no limit."""
    here: tuple[str, dict[str, str] | None] | None = None
    skip, left = offset, limit
    for item in series:
        if here != (item.name, item.tags):
            here, skip, left = (item.name, item.tags), offset, limit
        span = item.span()
        start = min(span.start + skip, span.stop)
        stop = min(span.stop, start + left) if limit else span.stop
        skip -= start - span.start
        left -= stop - start
        if start < stop:
            yield replace(item, rows=slice(start, stop))
