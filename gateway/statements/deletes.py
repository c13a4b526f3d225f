"""DELETE, DROP SERIES, DROP MEASUREMENT, DROP FIELD: in all policies of the request's database.

A point that DELETE deletes is one that `SELECT *` with the same WHERE shows.
Differs from influxd: DELETE takes conditions on fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway import measurements
from gateway.errors import StatementError
from gateway.logic import alternatives, bounds_time, walk
from gateway.planner import where
from gateway.retention import empty_trash
from gateway.statements.schema import has_time, is_source
from gateway.timerange import split_condition
from grammar import ast
from tinyflux.columnar.base import DeleteRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.results import Series
    from gateway.session import Session
    from gateway.statements.table import Runner
    from tinyflux.columnar.base import ColumnarStorage


def delete(statement: ast.Delete, session: Session) -> list[Series]:
    """Delete the points that match."""
    _delete(statement.sources, statement.condition, session)
    return []


def drop_series(statement: ast.DropSeries, session: Session) -> list[Series]:
    """Delete matching series with all their points."""
    if has_time(statement.condition):
        raise StatementError("DROP SERIES doesn't support time in WHERE clause")
    _delete(statement.sources, statement.condition, session, takes_fields=False)
    return []


def drop_field(statement: ast.DropField, session: Session) -> list[Series]:
    """Delete a field of a measurement, and the points without another; unknown ones are no error.

    It is not kept in the trash.
    """
    for storage in session.catalog.storages(session.database):
        session.interrupt.check()
        storage.drop_field(statement.measurement, statement.name)
    return []


def drop_measurement(statement: ast.DropMeasurement, session: Session) -> list[Series]:
    """Delete a measurement, also its field types; an unknown one is no error."""
    measurements.drop(session.catalog, session.database, statement.name)
    empty_trash(session.catalog, session.now_ns)
    return []


def _delete(
    sources: tuple[ast.Measurement, ...],
    condition: ast.Expr | None,
    session: Session,
    *,
    takes_fields: bool = True,
) -> None:
    requests: list[tuple[ColumnarStorage, DeleteRequest]] = []
    parts = _parts(condition, session.now_ns)
    for storage in session.catalog.storages(session.database):
        for name in storage.measurements():
            if sources and not any(is_source(name, source) for source in sources):
                continue
            fields = storage.field_keys(name)
            if not takes_fields:
                _check_tags_only(condition, fields)
            for part in parts:
                query, start_ns, end_ns = where(part, fields, session.now_ns)
                requests.append((storage, DeleteRequest(name, query, start_ns, end_ns)))
    for storage, request in requests:  # nothing is deleted when any of it is refused
        session.interrupt.check()
        storage.delete(request)


def _parts(condition: ast.Expr | None, now_ns: int) -> Sequence[ast.Expr | None]:
    """Return conditions that together delete what one does, each in one interval of time."""
    rest, bounds = split_condition(condition, now_ns)
    if rest is None or not bounds_time(rest):
        return [condition]
    time = ast.VarRef("time")
    start = ast.BinaryExpr(">=", time, ast.IntegerLiteral(bounds.start_ns))
    end = ast.BinaryExpr("<=", time, ast.IntegerLiteral(bounds.end_ns))
    within = ast.BinaryExpr("AND", start, end)
    return alternatives(ast.BinaryExpr("AND", ast.ParenExpr(rest), within))


def _check_tags_only(condition: ast.Expr | None, fields: Iterable[str]) -> None:
    for expr in walk(condition) if condition is not None else ():
        if isinstance(expr, ast.VarRef) and expr.name in fields:
            raise StatementError("fields not supported in WHERE clause during deletion")


RUNNERS: Final[dict[type[ast.Statement], Runner]] = {
    ast.Delete: delete,
    ast.DropSeries: drop_series,
    ast.DropMeasurement: drop_measurement,
    ast.DropField: drop_field,
}
