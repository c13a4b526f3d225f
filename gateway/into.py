"""SELECT INTO: the answer of a query becomes points of another measurement.

GROUP BY tags become tags; everything else that was selected becomes fields, also tags (as text),
but the tags of `top` and `bottom` stay tags. Null cells are not written.
Source: measured, `tests/conformance/into.case`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gateway.errors import StatementError
from gateway.results import Series
from tinyflux.batch import BatchBuilder, FieldValue, PointBatch, series_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.answers import Answer
    from gateway.rows import Col
    from gateway.session import Session
    from grammar import ast
    from tinyflux.batch import Int64s

_POINTS_A_BATCH = 10_000  # what influxd writes at once, too


def write_into(
    target: ast.Measurement,
    answers: Iterable[Answer],
    tags_of_calls: Sequence[str],
    session: Session,
) -> Series:
    """Write answers and return the table that says how many points were written.

    Args:
        target: Where to.
        answers: What to write.
        tags_of_calls: The columns that `top` and `bottom` give for their tags.
        session: Who writes.

    Raises:
        StatementError: No database is named, or points were rejected.
        DatabaseNotFound, RetentionPolicyNotFound: The target does not exist.
    """
    database, policy = _place(target, session)
    storage = session.catalog.storage(database, policy)
    written = 0
    for batch in _batches(target, answers, tags_of_calls):
        session.interrupt.check()
        result = storage.append_batch(batch)
        written += result.stored
        if result.stored:
            session.catalog.stored(database, policy, batch)
        if result.rejected:
            dropped = sum(rejection.points for rejection in result.rejected)
            over = sum(rejection.points for rejection in result.rejected if rejection.is_limit)
            session.metrics.count(write_points_over_limit=over)
            reason = result.rejected[0].reason
            raise StatementError(f"partial write: {reason} dropped={dropped}")
    return Series("result", ["time", "written"], [[0], [written]], has_time=True)


def _place(target: ast.Measurement, session: Session) -> tuple[str, str]:
    """Return the database and the retention policy that points go to."""
    database = target.database or session.database
    if not database:
        raise StatementError("database name required")
    policy = target.retention_policy
    if not policy and database == session.database:
        policy = session.retention_policy
    return database, session.catalog.database(database).policy(policy).name


def _batches(
    target: ast.Measurement, answers: Iterable[Answer], tags_of_calls: Sequence[str]
) -> Iterator[PointBatch]:
    """Yield the points of all answers, in full batches but for the last one."""
    builder, n_points = BatchBuilder(), 0
    for answer in answers:
        name = answer.name if target.is_target_name else target.name
        for key, time_ns, cells in _points(answer, name, tags_of_calls):
            builder.add(key, time_ns, cells)
            n_points += 1
            if n_points == _POINTS_A_BATCH:
                yield builder.build()
                builder, n_points = BatchBuilder(), 0
    if n_points:
        yield builder.build()


def _points(
    answer: Answer, measurement: str, tags_of_calls: Sequence[str]
) -> Iterator[tuple[bytes, int, list[tuple[str, FieldValue]]]]:
    """Yield series key, time and fields of each row that has some."""
    fields = [(name, column) for name, column in answer.columns if name not in tags_of_calls]
    tags = [(name, column) for name, column in answer.columns if name in tags_of_calls]
    for group, where in answer.slices():
        fixed = zip(answer.dimensions, answer.groups[group], strict=True)
        group_tags = [(key, value) for key, value in fixed if value]
        group_key = series_key(measurement, group_tags)
        written = _rows_with_a_value(fields, where)  # most windows of a long range are empty
        for start in range(0, len(written), _POINTS_A_BATCH):
            rows = written[start : start + _POINTS_A_BATCH]
            tag_rows = list(_cells(tags, rows)) if tags else None
            times = answer.times[rows].tolist()
            for row, (time_ns, cells) in enumerate(zip(times, _cells(fields, rows), strict=True)):
                key = group_key
                if tag_rows is not None:
                    own = [(name, str(value)) for name, value in tag_rows[row] if value]
                    key = series_key(measurement, [*group_tags, *own])
                yield key, time_ns, cells


def _rows_with_a_value(columns: Sequence[tuple[str, Col]], where: slice) -> Int64s:
    """Return the rows of a slice, int64[n] ascending, in which some column is not null."""
    known = np.zeros(where.stop - where.start, np.bool_)
    for _, column in columns:
        known |= column.valid[where]
    rows: Int64s = where.start + np.flatnonzero(known)
    return rows


def _cells(
    columns: Sequence[tuple[str, Col]], rows: Int64s
) -> Iterator[list[tuple[str, FieldValue]]]:
    """Yield the names and values of each row, without nulls; of equal names the last one counts."""
    names = [name for name, _ in columns]
    values = [column.values[rows].tolist() for _, column in columns]
    valid = [column.valid[rows].tolist() for _, column in columns]
    for cells, known in zip(zip(*values, strict=True), zip(*valid, strict=True), strict=True):
        row = {n: v for n, v, k in zip(names, cells, known, strict=True) if k}
        yield list(row.items())
