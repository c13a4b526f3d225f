"""Points as rows: scans of the engine put together, sorted by group and time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.budget import check_points, check_rows
from gateway.fill import fill
from gateway.functions.types import CASTS
from gateway.logic import walk
from gateway.rows import Axis, Col
from grammar import ast
from tinyflux.batch import Bools, FieldType, Int64s

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from gateway.plan import Plan
    from gateway.session import Session
    from gateway.sources import Table
    from tinyflux.columnar.base import FieldColumn, Frame, ScanRequest, SeriesSet
from tinyflux.columnar.evaluate import needs_rows
from tinyflux.columnar.scan import concat

_STRETCHES: Final = (20_000, 160_000)  # points
_WORTH_IT: Final = 4  # times as many must be left out
MOST_NEEDED: Final = 100_000  # rows of a group: above that a scan of everything is not slower


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Rows of points.

    Attributes:
        groups: The GROUP BY values, one tuple a group, in the order of the query.
        rows: int64[n], the position in `groups` of each row, ascending.
        times: int64[n] ns, ascending within a group, or descending as the query says.
        leaves: A column for each name that the query reads.
    """

    groups: list[tuple[str, ...]]
    rows: Int64s
    times: Int64s
    leaves: Mapping[ast.Expr, Col]

    def axis(self) -> Axis:
        """Return the rows as an axis."""
        return Axis(self.rows, self.times, np.ones(len(self.rows), np.bool_))

    def take(self, rows: Int64s | Bools | slice) -> Points:
        """Return the chosen rows."""
        leaves = {ref: column.take(rows) for ref, column in self.leaves.items()}
        return Points(self.groups, self.rows[rows], self.times[rows], leaves)


def references(made: Plan) -> list[ast.VarRef]:
    """Return the names that the columns of a plan read, each once."""
    found: dict[ast.VarRef, None] = {}
    for column in made.columns:
        for part in walk(column.expr):
            if isinstance(part, ast.VarRef):
                found[part] = None
    return list(found)


def read_points(made: Plan, table: Table, scan: ScanRequest, session: Session) -> Points | None:
    """Return the points that a plan reads of a table; None when there are none.

    Under a LIMIT, points behind it may be missing.

    Raises:
        StatementError: More points than `max_select_points`, or than memory is given for.
    """
    if n_rows := _needed(made, table):
        limited = replace(scan, limit=-n_rows if made.shape.select.descending else n_rows)
        if scan.query is not None and needs_rows(scan.query):  # no reader heeds a limit then
            points = _read_nearest(n_rows, made, table, limited, session)
            is_enough = points is not None
        else:
            points, is_enough = _read(made, table, limited, session)
        if is_enough:
            return points
    return _read(made, table, scan, session)[0]


def _needed(made: Plan, table: Table) -> int:
    """Return how many rows of a group are needed, where its other rows do not matter; else 0."""
    select = made.shape.select
    is_alone = made.shape.is_raw and select.fill in {None, ast.Fill.NULL}
    is_alone = is_alone and select.having is None and not select.sort_fields
    if not is_alone or not select.limit or table.is_subquery:
        return 0
    n_rows = select.limit + select.offset
    return n_rows if n_rows <= MOST_NEEDED else 0


class PointReader:
    """Reads the points of a plan, as long as there are not more than may be read.

    Args:
        made: What is asked.
        table: Of what.
        session: The limits, and the switch that stops it.
    """

    def __init__(self, made: Plan, table: Table, session: Session) -> None:
        self._made = made
        self._table = table
        self._session = session
        refs = references(made)
        self._fields = [ref for ref in refs if table.schema.is_field(ref)]
        self._tags = [ref for ref in refs if not table.schema.is_field(ref)]
        self._count = 0

    def frames(self, scan: ScanRequest) -> Iterator[Frame]:
        """Yield the frames of a scan.

        Raises:
            StatementError: They and those before are more points than `max_select_points`.
        """
        names = tuple(dict.fromkeys(ref.name for ref in self._fields))
        if not names:
            return
        for frame in self._table.reader.scan(replace(scan, fields=names)):
            self._session.interrupt.check()
            self._count += len(frame)
            check_points(self._count, self._session.settings)
            yield frame

    def frames_in_memory(self, scan: ScanRequest) -> list[Frame]:
        """Return the frames of a scan.

        Raises:
            StatementError: As `frames` does, or more than memory is given for.
        """
        frames: list[Frame] = []
        n_columns = len(self._fields) + len(self._tags)
        for frame in self.frames(scan):
            frames.append(frame)
            n_rows = sum(map(len, frames))
            n_texts = sum(c.type is FieldType.STRING for c in frame.columns.values())
            check_rows(n_rows, n_columns, self._session, n_texts)
        return frames

    def points(self, frames: Sequence[Frame]) -> Points:
        """Return the rows of frames, at least one, in the order of the query; nulls filled."""
        return self.arranged(frames)[0]

    def arranged(self, frames: Sequence[Frame]) -> tuple[Points, Int64s | slice]:
        """Return what `points` does, and int64[n], where in the frames each row was."""
        table, shape = self._table, self._made.shape
        groups, rows = _group(frames, self._made.dimensions)
        times = _concatenated([frame.times for frame in frames])
        descending = shape.select.descending
        order = _order(rows, times, descending=descending)
        leaves: dict[ast.Expr, Col] = {}
        for ref in self._fields:
            column = _field_column(ref, frames, order)
            if table.is_subquery:  # its rows are rows of this query, whatever is asked of them
                column = replace(column, emits=np.ones_like(column.emits))
            leaves[ref] = column
        tags = [ref for ref in self._tags if ref.name in table.schema.tags]
        series = _series_rows(frames)[order] if tags else rows
        for ref in self._tags:
            if ref not in tags:
                leaves[ref] = Col.nothing(len(rows))
                continue
            column = _tag_column(ref, frames, series)
            leaves[ref] = (
                column if table.missing_tag is None else _filled(column, table.missing_tag)
            )
        rows = rows[order]
        if descending:
            groups, rows = groups[::-1], len(groups) - 1 - rows
        points = Points(groups, rows, times[order], leaves)
        return (fill_points(self._made, points) if shape.is_raw else points), order


def _read(
    made: Plan, table: Table, scan: ScanRequest, session: Session
) -> tuple[Points | None, bool]:
    """Return the points of a scan, and whether its limit left out none that the query needs."""
    reader = PointReader(made, table, session)
    frames = reader.frames_in_memory(scan)
    if not frames:
        return None, True
    points, order = reader.arranged(frames)
    return points, not scan.limit or _has_enough(points, order, frames, abs(scan.limit))


def _read_nearest(
    n_rows: int, made: Plan, table: Table, scan: ScanRequest, session: Session
) -> Points | None:
    """Return the points of a stretch in which each group has so many rows that show; None if not.

    How many points have to be read until so many of them match shows when they are read. Where
    matching ones are rare all must be, so they are looked for in few before.
    """
    if not table.reader.can_stretch:
        return None
    series = table.series(scan)
    scan = replace(scan, series=series)
    n_groups = len(set(group_series(series, made.dimensions)))
    n_points = int(table.reader.row_counts(scan).sum())
    for size in _STRETCHES:
        if n_points < _WORTH_IT * size:
            return None
        start_ns, end_ns = table.reader.stretch(scan, size)
        some = replace(scan, start_ns=start_ns, end_ns=end_ns, limit=0)
        points, _ = _read(made, table, some, session)
        if points is not None and len(points.groups) == n_groups:
            shown = np.logical_or.reduce([column.emits for column in points.leaves.values()])
            if np.bincount(points.rows[shown], minlength=n_groups).min() >= n_rows:
                return points
    return None


def _has_enough(
    points: Points, order: Int64s | slice, frames: Sequence[Frame], n_rows: int
) -> bool:
    """Return whether each series gave so many rows that show, or else all rows it has."""
    emits = np.empty(len(points.rows), np.int64)
    emits[order] = np.logical_or.reduce([column.emits for column in points.leaves.values()])
    lengths = _concatenated([np.diff(frame.offsets) for frame in frames])
    shown = np.add.reduceat(emits, np.cumsum(lengths) - lengths)
    return not bool(((shown < n_rows) & (lengths >= n_rows)).any())


def group_series(series: SeriesSet, keys: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the values of these tags for each series; "" where a tag is missing."""
    columns = []
    for key in keys:
        column = series.columns.get(key)
        if column is None:
            columns.append([""] * len(series))
        else:
            texts = [value or "" for value in column.values] + [""]  # code -1 is the last
            columns.append([texts[code] for code in column.codes.tolist()])
    return list(zip(*columns, strict=True)) if columns else [()] * len(series)


def _group(frames: Sequence[Frame], keys: Sequence[str]) -> tuple[list[tuple[str, ...]], Int64s]:
    per_frame = [group_series(frame.series, keys) for frame in frames]
    groups = sorted({values for found in per_frame for values in found})
    number = {values: position for position, values in enumerate(groups)}
    rows = [
        np.repeat([number[values] for values in found], np.diff(frame.offsets))
        for found, frame in zip(per_frame, frames, strict=True)
    ]
    return groups, np.concatenate(rows)


def _field_column(ref: ast.VarRef, frames: Sequence[Frame], order: Int64s | slice) -> Col:
    """Return a field as a column of the rows of all frames, in order; it emits where it has one."""
    columns: list[FieldColumn | None] = [frame.columns.get(ref.name) for frame in frames]
    first = columns[0]
    if len(columns) > 1 or first is None:
        first = concat(columns, [len(frame) for frame in frames])
    known = first.mask()[order]
    column = Col(first.type, first.values[order], known, known)
    return column.cast(CASTS[ref.cast]) if ref.cast in CASTS else column


def _series_rows(frames: Sequence[Frame]) -> Int64s:
    """Return int64[n], the series of each row: its place among those of all frames."""
    lengths = _concatenated([np.diff(frame.offsets) for frame in frames])
    return np.repeat(np.arange(len(lengths)), lengths)


def _tag_column(ref: ast.VarRef, frames: Sequence[Frame], series: Int64s) -> Col:
    """Return a tag as a column of text, of rows of these series; it emits no rows by itself."""
    is_text = ref.cast not in {"field", "float", "integer", "boolean"}
    parts = [_texts(frame.series, ref.name if is_text else "") for frame in frames]
    texts = parts[0] if len(parts) == 1 else np.concatenate(parts)
    known = texts.astype(np.bool_)
    valid = np.ones(len(series), np.bool_) if known.all() else known[series]
    return Col(FieldType.STRING, texts[series], valid, np.zeros(len(series), np.bool_))


def _filled(column: Col, text: str) -> Col:
    """Return a column of text with this text in its empty cells."""
    values = np.where(column.valid, column.values, text)
    return replace(column, values=values, valid=np.ones_like(column.valid))


def _texts(series: SeriesSet, key: str) -> NDArray[np.object_]:
    """Return object[k], the text of a tag of each series, None where it has none."""
    column = series.columns.get(key)
    if column is None:
        return np.full(len(series), None, np.object_)
    codes, known = column.codes, column.values
    if len(codes) < len(known):
        texts = [(known[c] or None) if c >= 0 else None for c in codes.tolist()]
        return np.array(texts, np.object_)
    return np.array([*(value or None for value in known), None], np.object_)[codes]


def _concatenated(parts: list[Int64s]) -> Int64s:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _order(rows: Int64s, times: Int64s, *, descending: bool) -> Int64s | slice:
    """Return int64[n], the places of rows by group and time, both the one way or the other."""
    is_sorted = (rows[1:] > rows[:-1]) | ((rows[1:] == rows[:-1]) & (times[1:] >= times[:-1]))
    if is_sorted.all():
        return slice(None, None, -1 if descending else None)
    is_one = rows[0] == 0 == rows.max()
    order = times.argsort(kind="stable") if is_one else np.lexsort((times, rows))
    return order[::-1] if descending else order


def fill_points(made: Plan, points: Points) -> Points:
    """Replace null cells as `fill(number)` and `fill(previous)` say where rows are points."""
    mode = made.shape.select.fill
    if mode not in {ast.Fill.NUMBER, ast.Fill.PREVIOUS}:
        return points
    number = made.shape.select.fill_value
    leaves: dict[ast.Expr, Col] = {}
    for ref, column in points.leaves.items():
        kind = column.type or FieldType.FLOAT  # of a name that nothing has, the number remains
        if mode is ast.Fill.PREVIOUS:
            rows = _last_known(points.rows, column.valid)
            values, valid = column.values[np.maximum(rows, 0)], rows >= 0
        elif kind in {FieldType.STRING, FieldType.BOOLEAN}:  # they take the number as it is
            kind, valid = FieldType.STRING, np.ones_like(column.valid)
            values = np.where(column.valid, column.values.astype(np.object_), number)
        else:
            values, valid = fill(
                mode, number, kind, column.values, column.valid, ~column.valid, is_count=False
            )
        leaves[ref] = Col(kind, values, valid, column.emits)
    return Points(points.groups, points.rows, points.times, leaves)


def _last_known(groups: Int64s, valid: Bools) -> Int64s:
    """Return int64[n]: the last valid row of the group up to and with each row; -1 without."""
    rows = np.arange(len(groups))
    begins = np.diff(groups, prepend=-1) != 0
    firsts = np.maximum.accumulate(np.where(begins, rows, 0))
    known = np.maximum.accumulate(np.where(valid, rows, -1))
    return np.where(known >= firsts, known, -1)
