"""Databases and retention policies: CREATE, ALTER, DROP, SHOW."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.policies import PolicyChange
from gateway.retention import empty_trash
from gateway.statements.table import database_of, go_duration, table
from grammar import ast

if TYPE_CHECKING:
    from gateway.results import Series
    from gateway.session import Session
    from gateway.statements.table import Runner


def create_database(statement: ast.CreateDatabase, session: Session) -> list[Series]:
    """Create a database; again is no error."""
    change = None if statement.options is None else _change(statement.options)
    session.catalog.create_database(statement.name, change, statement.policy)
    return []


def drop_database(statement: ast.DropDatabase, session: Session) -> list[Series]:
    """Drop a database; an unknown one is no error."""
    session.catalog.drop_database(statement.name)
    empty_trash(session.catalog, session.now_ns)
    return []


def show_databases(_: ast.ShowDatabases, session: Session) -> list[Series]:
    """List the databases the user sees, in the order they were created."""
    names = filter(session.sees, session.catalog.databases)
    return [table(["name"], [(name,) for name in names], "databases")]


def create_retention_policy(statement: ast.CreateRetentionPolicy, session: Session) -> list[Series]:
    """Create a retention policy; the same one again is no error."""
    change = _change(statement.options)
    session.catalog.create_policy(statement.database, statement.name, change)
    return []


def alter_retention_policy(statement: ast.AlterRetentionPolicy, session: Session) -> list[Series]:
    """Change a retention policy."""
    change = _change(statement.options)
    session.catalog.alter_policy(statement.database, statement.name, change)
    return []


def drop_retention_policy(statement: ast.DropRetentionPolicy, session: Session) -> list[Series]:
    """Drop a retention policy; an unknown one, also of an unknown database, is no error."""
    if statement.database in session.catalog.databases:
        session.catalog.drop_policy(statement.database, statement.name)
        empty_trash(session.catalog, session.now_ns)
    return []


def show_retention_policies(statement: ast.ShowRetentionPolicies, session: Session) -> list[Series]:
    """List the policies of a database in the order they were created.

    The limits of 1.12 are shown once a policy has one; until then the answer is that of 1.6.
    """
    database = session.catalog.database(database_of(session, statement.database))
    columns = {
        "name": [policy.name for policy in database.policies],
        "duration": [go_duration(policy.duration_ns) for policy in database.policies],
        "shardGroupDuration": [
            go_duration(policy.shard_duration_ns) for policy in database.policies
        ],
        "replicaN": [policy.replication for policy in database.policies],
        "futureWriteLimit": [go_duration(policy.future_limit_ns) for policy in database.policies],
        "pastWriteLimit": [go_duration(policy.past_limit_ns) for policy in database.policies],
        "default": [policy.name == database.default_policy for policy in database.policies],
    }
    if not any(policy.future_limit_ns or policy.past_limit_ns for policy in database.policies):
        del columns["futureWriteLimit"], columns["pastWriteLimit"]
    return [table(list(columns), list(zip(*columns.values(), strict=True)))]


def _change(options: ast.PolicyOptions) -> PolicyChange:
    return PolicyChange(
        options.duration_ns,
        options.shard_duration_ns,
        options.replication,
        options.is_default,
        options.future_limit_ns,
        options.past_limit_ns,
    )


RUNNERS: Final[dict[type[ast.Statement], Runner]] = {
    ast.CreateDatabase: create_database,
    ast.DropDatabase: drop_database,
    ast.ShowDatabases: show_databases,
    ast.CreateRetentionPolicy: create_retention_policy,
    ast.AlterRetentionPolicy: alter_retention_policy,
    ast.DropRetentionPolicy: drop_retention_policy,
    ast.ShowRetentionPolicies: show_retention_policies,
}
