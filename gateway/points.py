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

    from gateway.plan import Plan
    from gateway.session import Session
    from gateway.sources import Table
    from tinyflux.columnar.base import FieldColumn, Frame, ScanRequest, SeriesSet
from tinyflux.columnar.scan import concat

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
        limit = -n_rows if made.shape.select.descending else n_rows
        points, is_enough = _read(made, table, replace(scan, limit=limit), session)
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
            check_rows(n_rows, n_columns, self._session)
        return frames

    def points(self, frames: Sequence[Frame]) -> Points:
        """Return the rows of frames, at least one, in the order of the query."""
        return self.arranged(self.unordered(frames))

    def arranged(self, points: Points) -> Points:
        """Return points in the order of the query, their null cells filled as it says."""
        ordered = _ordered(points, self._made.shape.select.descending)
        return fill_points(self._made, ordered) if self._made.shape.is_raw else ordered

    def unordered(self, frames: Sequence[Frame]) -> Points:
        """Return the rows of frames, at least one, frame after frame."""
        table = self._table
        groups, rows = _group(frames, self._made.dimensions)
        leaves: dict[ast.Expr, Col] = {}
        for ref in self._fields:
            column = _join([frame.columns.get(ref.name) for frame in frames], frames)
            if table.is_subquery:  # its rows are rows of this query, whatever is asked of them
                column = replace(column, emits=np.ones_like(column.emits))
            leaves[ref] = column.cast(CASTS[ref.cast]) if ref.cast in CASTS else column
        for ref in self._tags:
            if ref.name in table.schema.tags:
                leaves[ref] = _tag_column(ref, frames)
            else:
                leaves[ref] = Col.nothing(len(rows))
        times = np.concatenate([frame.times for frame in frames])
        return Points(groups, rows, times, leaves)


def _read(
    made: Plan, table: Table, scan: ScanRequest, session: Session
) -> tuple[Points | None, bool]:
    """Return the points of a scan, and whether its limit left out none that the query needs."""
    reader = PointReader(made, table, session)
    frames = reader.frames_in_memory(scan)
    if not frames:
        return None, True
    points = reader.unordered(frames)
    is_enough = not scan.limit or _has_enough(points, frames, abs(scan.limit))
    return reader.arranged(points), is_enough


def _has_enough(points: Points, frames: Sequence[Frame], n_rows: int) -> bool:
    """Return whether each series gave so many rows that show, or else all rows it has."""
    emits = np.logical_or.reduce([column.emits for column in points.leaves.values()])
    lengths = np.concatenate([np.diff(frame.offsets) for frame in frames])
    shown = np.add.reduceat(emits.astype(np.int64), np.cumsum(lengths) - lengths)
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


def _join(columns: Sequence[FieldColumn | None], frames: Sequence[Frame]) -> Col:
    """Return one column of the rows of all frames; it emits where it has a value."""
    first = columns[0]
    if len(columns) > 1 or first is None:
        first = concat(columns, [len(frame) for frame in frames])
    known = first.mask()
    return Col(first.type, first.values, known, known)


def _tag_column(ref: ast.VarRef, frames: Sequence[Frame]) -> Col:
    """Return a tag as a column of text; it emits no rows by itself."""
    parts = []
    for frame in frames:
        column = frame.series.columns.get(ref.name)
        if column is None or ref.cast in {"field", "float", "integer", "boolean"}:
            parts.append(np.full(len(frame), None, np.object_))
            continue
        codes, known = column.codes, column.values
        if len(codes) < len(known):
            used = codes.tolist()
            texts = np.array([(known[c] or None) if c >= 0 else None for c in used], np.object_)
            parts.append(texts.repeat(np.diff(frame.offsets)))
        else:
            texts = np.array([*(value or None for value in known), None], np.object_)
            parts.append(texts[codes.repeat(np.diff(frame.offsets))])
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return Col(FieldType.STRING, values, values.astype(np.bool_), np.zeros(len(values), np.bool_))


def _ordered(points: Points, descending: bool) -> Points:
    rows, times = points.rows, points.times
    is_sorted = (rows[1:] > rows[:-1]) | ((rows[1:] == rows[:-1]) & (times[1:] >= times[:-1]))
    if not is_sorted.all():
        points = points.take(np.lexsort((times, rows)))
    if not descending:
        return points
    last = len(points.groups) - 1
    turned = points.take(slice(None, None, -1))
    return Points(points.groups[::-1], last - turned.rows, turned.times, turned.leaves)


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
