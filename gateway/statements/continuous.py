"""Continuous queries: CREATE, DROP, SHOW, and RUN by hand. Their schedule: `gateway.continuous`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.continuous import run_range
from gateway.errors import RetentionPolicyNotFound, StatementError
from gateway.names import measurements_of, qualified
from gateway.policies import ContinuousQuery
from gateway.results import Series
from gateway.rights import authorize
from gateway.schedule import Schedule
from gateway.statements.table import table
from gateway.timerange import time_value
from grammar import ast
from grammar.parser import parse
from grammar.printer import to_influxql

if TYPE_CHECKING:
    from gateway.catalog import Catalog
    from gateway.policies import Database
    from gateway.session import Session
    from gateway.statements.table import Runner


def create_continuous_query(statement: ast.CreateContinuousQuery, session: Session) -> list[Series]:
    """Create a continuous query; the same one again is no error.

    As in influxd, names without a database mean the one of the request, if it has one.

    Source: measured, `tests/conformance/continuous_queries.case`.
    """
    database = session.database or statement.database
    select = qualified(statement.select, session.catalog, database)
    for measurement in (*measurements_of(select), select.target):
        if measurement is not None:
            _check_place(measurement, session.catalog)
    query = ContinuousQuery(statement.name, to_influxql(replace(statement, select=select)))

    def with_query(known: Database) -> Database:
        same = known.continuous_query(query.name)
        if same is None:
            return replace(known, continuous_queries=(*known.continuous_queries, query))
        if same != query:
            raise StatementError("continuous query already exists")
        return known

    session.catalog.change_database(statement.database, with_query)
    return []


def drop_continuous_query(statement: ast.DropContinuousQuery, session: Session) -> list[Series]:
    """Drop a continuous query; an unknown one, also of an unknown database, is no error."""

    def without_query(known: Database) -> Database:
        kept = tuple(query for query in known.continuous_queries if query.name != statement.name)
        return replace(known, continuous_queries=kept)

    if statement.database in session.catalog.databases:
        session.catalog.change_database(statement.database, without_query)
    return []


def show_continuous_queries(_: ast.ShowContinuousQueries, session: Session) -> list[Series]:
    """List the continuous queries of each database the user sees."""
    return [
        table(["name", "query"], [(q.name, q.text) for q in database.continuous_queries], name)
        for name, database in session.catalog.databases.items()
        if session.sees(name)
    ]


def run_continuous_query(statement: ast.RunContinuousQuery, session: Session) -> list[Series]:
    """Run a continuous query over every window that a range of time touches.

    Returns:
        The table of SELECT INTO: how many points were written.

    Raises:
        StatementError: There is none of this name, or its SELECT fails.
        Forbidden: The user may not read its sources or write its target.
    """
    query = session.catalog.database(statement.database).continuous_query(statement.name)
    if query is None:
        raise StatementError(f"continuous query not found: {statement.name}")
    (created,) = parse(query.text)
    assert isinstance(created, ast.CreateContinuousQuery)
    authorize([created.select], session.user, statement.database)
    schedule = Schedule.of(created)
    zone = created.select.timezone
    start_ns = time_value(statement.start, session.now_ns, zone)
    end_ns = time_value(statement.end, session.now_ns, zone)
    written = 0
    for piece in schedule.pieces(start_ns, end_ns):
        session.interrupt.check()
        written += run_range(created.select, *piece, session)
    return [Series("result", ["time", "written"], [[0], [written]], has_time=True)]


def _check_place(measurement: ast.Measurement, catalog: Catalog) -> None:
    """Refuse a measurement in a database or policy that does not exist."""
    database, policy = measurement.database, measurement.retention_policy
    if not catalog.database(database).has_policy(policy):
        raise RetentionPolicyNotFound(f"{database}.{policy}")


RUNNERS: Final[dict[type[ast.Statement], Runner]] = {
    ast.CreateContinuousQuery: create_continuous_query,
    ast.DropContinuousQuery: drop_continuous_query,
    ast.ShowContinuousQueries: show_continuous_queries,
    ast.RunContinuousQuery: run_continuous_query,
}
