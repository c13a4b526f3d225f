"""What influxd does not have: UNDROP, SHOW TRASH, PURGE TRASH, and ALTER MEASUREMENT ... RENAME."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway import measurements, retention
from gateway.encoding.times import to_rfc3339
from gateway.statements.table import table
from grammar import ast
from tinyflux.batch import MAX_TIME_NS

if TYPE_CHECKING:
    from gateway.results import Series
    from gateway.session import Session
    from gateway.statements.table import Runner


def undrop_database(statement: ast.UndropDatabase, session: Session) -> list[Series]:
    """Bring a dropped database back."""
    session.catalog.undrop_database(statement.name, statement.new_name)
    return []


def undrop_policy(statement: ast.UndropRetentionPolicy, session: Session) -> list[Series]:
    """Bring a dropped retention policy back."""
    session.catalog.undrop_policy(statement.database, statement.name, statement.new_name)
    return []


def undrop_measurement(statement: ast.UndropMeasurement, session: Session) -> list[Series]:
    """Bring a dropped measurement of the request's database back."""
    measurements.undrop(session.catalog, session.database, statement.name, statement.new_name)
    return []


def rename_measurement(statement: ast.RenameMeasurement, session: Session) -> list[Series]:
    """Give a measurement of the request's database another name, in all its policies."""
    measurements.rename(session.catalog, session.database, statement.name, statement.new_name)
    return []


def show_trash(_: ast.ShowTrash, session: Session) -> list[Series]:
    """List what UNDROP can bring back, what was dropped last first."""
    entries = session.catalog.trash[::-1]
    dropped_ns = np.array([entry.id for entry in entries], np.int64)
    dropped = to_rfc3339(dropped_ns)
    expires = to_rfc3339(dropped_ns + session.catalog.kept_ns)
    rows = [
        (entry.kind, entry.name, entry.database, dropped[n], expires[n], entry.size_bytes)
        for n, entry in enumerate(entries)
    ]
    return [table(["kind", "name", "database", "dropped", "expires", "bytes"], rows, "trash")]


def purge_trash(_: ast.PurgeTrash, session: Session) -> list[Series]:
    """Delete all that is in the trash."""
    retention.purge_trash(session.catalog, MAX_TIME_NS)
    return []


RUNNERS: Final[dict[type[ast.Statement], Runner]] = {
    ast.UndropDatabase: undrop_database,
    ast.UndropRetentionPolicy: undrop_policy,
    ast.UndropMeasurement: undrop_measurement,
    ast.RenameMeasurement: rename_measurement,
    ast.ShowTrash: show_trash,
    ast.PurgeTrash: purge_trash,
}
