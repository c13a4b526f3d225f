"""SHOW ... CARDINALITY: how many series, measurements, tag keys, tag values, field keys.

Without EXACT or any clause, SERIES and MEASUREMENT answer one number of the whole database, which
influxd estimates and we count. All others are counted over one retention policy, as influxd does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from gateway.statements.schema import (
    Scope,
    all_policies,
    check_tag_condition,
    one_policy,
    series_keys,
    tag_keys,
    tag_values,
)
from gateway.statements.table import database_of, page, table
from gateway.statements.tagkeys import chosen_keys, of_series
from grammar import ast

if TYPE_CHECKING:
    from gateway.results import Series
    from gateway.session import Session
    from gateway.statements.table import Runner


def show_cardinality(statement: ast.ShowCardinality, session: Session) -> list[Series]:
    """Answer the number asked for."""
    if _is_estimate(statement):
        database = database_of(session, statement.database)
        return [table(["cardinality estimation"], [(_estimate(statement, session, database),)])]
    if statement.dimensions:
        raise StatementError("GROUP BY is not supported in SHOW CARDINALITY")
    check_tag_condition(statement.condition)
    stores = {
        (database_of(session, source.database or statement.database), source.retention_policy)
        for source in statement.sources or (ast.Measurement(),)
    }
    readers = [reader for store in sorted(stores) for reader in one_policy(session, *store)]
    scope = Scope(readers, statement.sources, of_series(statement.condition), session.now_ns)
    if statement.what is ast.Countable.MEASUREMENT:
        counts = [("", sum(1 for name in scope.measurements() if scope.series(name)))]
    else:
        counts = [(name, _count(statement, scope, name)) for name in scope.measurements()]
    return [
        table(["count"], rows, name)
        for name, count in counts
        if count and (rows := page([(count,)], statement.limit, statement.offset))
    ]


def _is_estimate(statement: ast.ShowCardinality) -> bool:
    return statement.what in {ast.Countable.SERIES, ast.Countable.MEASUREMENT} and not (
        statement.is_exact
        or statement.sources
        or statement.condition
        or statement.dimensions
        or statement.limit
        or statement.offset
    )


def _estimate(statement: ast.ShowCardinality, session: Session, database: str) -> int:
    if database not in session.catalog.databases:
        return 0
    readers = all_policies(session, database)
    if statement.what is ast.Countable.SERIES:
        if len(readers) == 1:
            return readers[0].series_count()
        scope = Scope(readers, (), None, session.now_ns)
        return sum(_count_series(scope, name) for name in scope.measurements())
    return len({name for reader in readers for name in reader.measurements()})


def _count(statement: ast.ShowCardinality, scope: Scope, measurement: str) -> int:
    found = scope.series(measurement)
    match statement.what:
        case ast.Countable.SERIES:
            return _count_series(scope, measurement)
        case ast.Countable.TAG_KEY:
            return len(tag_keys(found))
        case ast.Countable.FIELD_KEY:
            if not found:
                return 0
            return len({key for reader in scope.readers for key in reader.field_keys(measurement)})
    keys = chosen_keys(tag_keys(found, statement.key), statement.condition)
    return sum(len(tag_values(found, key)) for key in keys)


def _count_series(scope: Scope, measurement: str) -> int:
    found = scope.series(measurement)
    if len(found) < 2:
        return sum(map(len, found))
    return len({key for series in found for key in series_keys(measurement, series)})


RUNNERS: Final[dict[type[ast.Statement], Runner]] = {ast.ShowCardinality: show_cardinality}
