"""Subscriptions: CREATE, DROP, SHOW. What they forward: `gateway.subscriptions`.

Source: measured, `tests/conformance/subscriptions.case`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from gateway.policies import Subscription
from gateway.statements.table import table
from gateway.subscriptions import check_destination
from grammar import ast

if TYPE_CHECKING:
    from gateway.policies import Database
    from gateway.results import Series
    from gateway.session import Session
    from gateway.statements.table import Runner


def create_subscription(statement: ast.CreateSubscription, session: Session) -> list[Series]:
    """Create a subscription."""
    for destination in statement.destinations:
        check_destination(destination)
    made = Subscription(
        statement.name, statement.retention_policy, statement.mode, statement.destinations
    )

    def with_subscription(known: Database) -> Database:
        policy = known.policy(statement.retention_policy).name
        if known.subscription(policy, made.name) is not None:
            raise StatementError("subscription already exists")
        return replace(known, subscriptions=(*known.subscriptions, made))

    session.catalog.change_database(statement.database, with_subscription)
    return []


def drop_subscription(statement: ast.DropSubscription, session: Session) -> list[Series]:
    """Drop a subscription."""

    def without_subscription(known: Database) -> Database:
        policy = known.policy(statement.retention_policy).name
        dropped = known.subscription(policy, statement.name)
        if dropped is None:
            raise StatementError("subscription not found")
        return replace(known, subscriptions=tuple(s for s in known.subscriptions if s != dropped))

    session.catalog.change_database(statement.database, without_subscription)
    return []


def show_subscriptions(_: ast.ShowSubscriptions, session: Session) -> list[Series]:
    """List the subscriptions of each database that has some, by retention policy."""
    columns = ["retention_policy", "name", "mode", "destinations"]
    return [
        table(
            columns,
            [
                (s.retention_policy, s.name, s.mode, list(s.destinations))
                for policy in database.policies
                for s in database.subscriptions
                if s.retention_policy == policy.name
            ],
            name,
        )
        for name, database in session.catalog.databases.items()
        if database.subscriptions
    ]


RUNNERS: Final[dict[type[ast.Statement], Runner]] = {
    ast.CreateSubscription: create_subscription,
    ast.DropSubscription: drop_subscription,
    ast.ShowSubscriptions: show_subscriptions,
}
