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
from tinyflux.batch import PointBatch, series_key
from tinyflux.columnar.base import FieldColumn
from tinyflux.columnar.intake import join
from tinyflux.columnar.packing import pack

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
    """Yield the points of all answers, in batches of `_POINTS_A_BATCH` and somewhat more."""
    waiting: list[PointBatch] = []
    for answer in answers:
        name = answer.name if target.is_target_name else target.name
        for batch in _packed(answer, name, tags_of_calls):
            waiting.append(batch)
            if sum(map(len, waiting)) >= _POINTS_A_BATCH:
                yield _joined(waiting)
                waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(batches: Sequence[PointBatch]) -> PointBatch:
    return batches[0] if len(batches) == 1 else join(batches)


def _packed(answer: Answer, measurement: str, tags_of_calls: Sequence[str]) -> Iterator[PointBatch]:
    """Yield the rows of an answer that have a field."""
    fields = [(name, column) for name, column in answer.columns if name not in tags_of_calls]
    tags = [(name, column) for name, column in answer.columns if name in tags_of_calls]
    known = np.zeros(len(answer.rows), np.bool_)
    for _, column in fields:
        known |= column.valid
    written = np.flatnonzero(known)  # most windows of a long range are empty
    for start in range(0, len(written), _POINTS_A_BATCH):
        rows = written[start : start + _POINTS_A_BATCH]
        columns = [
            (name, FieldColumn(column.type, column.values[rows], column.valid[rows]))
            for name, column in fields
        ]
        keys, key_rows = _keys(answer, measurement, tags, rows)
        yield pack(keys, key_rows, answer.times[rows], columns)


def _keys(
    answer: Answer, measurement: str, tags: Sequence[tuple[str, Col]], rows: Int64s
) -> tuple[list[bytes], Int64s]:
    """Return the series keys of rows, and int64[n], which of them each row has."""
    used, key_rows = np.unique(answer.rows[rows], return_inverse=True)
    of_groups = [
        [tag for tag in zip(answer.dimensions, answer.groups[group], strict=True) if tag[1]]
        for group in used.tolist()
    ]
    if not tags:
        return [series_key(measurement, group_tags) for group_tags in of_groups], key_rows
    keys: dict[bytes, int] = {}
    names = [name for name, _ in tags]
    texts = zip(*(column.values[rows].tolist() for _, column in tags), strict=True)
    numbers = []
    for group, own in zip(key_rows.tolist(), texts, strict=True):
        given = [(name, str(text)) for name, text in zip(names, own, strict=True) if text]
        key = series_key(measurement, [*of_groups[group], *given])
        numbers.append(keys.setdefault(key, len(keys)))
    return list(keys), np.array(numbers, np.int64)
