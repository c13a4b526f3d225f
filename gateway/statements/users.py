"""Users and their rights: CREATE, DROP, SET PASSWORD, GRANT, REVOKE, SHOW.

Passwords are hashed before the catalog is locked: other changes do not wait for scrypt.
Source: measured on influxd 1.6.7, tests/conformance/users.case.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from gateway.statements.table import table
from gateway.users import Access, User, hash_password, is_password
from grammar import ast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.results import Series
    from gateway.session import Session
    from gateway.statements.table import Runner

_ACCESS: Final = {
    ast.Privilege.READ: Access.READ,
    ast.Privilege.WRITE: Access.WRITE,
    ast.Privilege.ALL: Access.ALL,
}


def create_user(statement: ast.CreateUser, session: Session) -> list[Series]:
    """Create a user; again with the same password and rights is no error.

    Raises:
        StatementError: `username required`, or `user already exists` and differs.
    """
    if not statement.name:
        raise StatementError("username required")
    new = User(statement.name, hash_password(statement.password), statement.is_admin)
    session.catalog.change_users(
        lambda users: users if new.name in users else {**users, new.name: new}
    )
    user = session.catalog.users.get(new.name, new)
    if user is not new and not (
        user.is_admin == new.is_admin and is_password(statement.password, user.password_hash)
    ):
        raise StatementError("user already exists")
    return []


def set_password(statement: ast.SetPassword, session: Session) -> list[Series]:
    """Give a user another password; the old one is refused from now on."""
    _user(session.catalog.users, statement.name)  # before the hashing
    password_hash = hash_password(statement.password)
    _change(session, statement.name, lambda user: replace(user, password_hash=password_hash))
    return []


def drop_user(statement: ast.DropUser, session: Session) -> list[Series]:
    """Remove a user with all rights."""

    def without(users: Mapping[str, User]) -> Mapping[str, User]:
        _user(users, statement.name)
        return {name: user for name, user in users.items() if name != statement.name}

    session.catalog.change_users(without)
    return []


def grant(statement: ast.Grant, session: Session) -> list[Series]:
    """Give a user a right on a database, in place of those there; without a database all rights."""
    access = _ACCESS[statement.privilege]

    def changed(user: User) -> User:
        if not statement.database:
            return replace(user, is_admin=True)
        session.catalog.database(statement.database)
        return user.with_access(statement.database, access)

    _change(session, statement.user, changed)
    return []


def revoke(statement: ast.Revoke, session: Session) -> list[Series]:
    """Take a right on a database from a user; without a database the rights of an admin."""
    access = _ACCESS[statement.privilege]

    def changed(user: User) -> User:
        if not statement.database:
            return replace(user, is_admin=False)
        session.catalog.database(statement.database)
        return user.without_access(statement.database, access)

    _change(session, statement.user, changed)
    return []


def show_users(_: ast.ShowUsers, session: Session) -> list[Series]:
    """List the users in the order they were created."""
    rows = [(user.name, user.is_admin) for user in session.catalog.users.values()]
    return [table(["user", "admin"], rows)]


def show_grants(statement: ast.ShowGrants, session: Session) -> list[Series]:
    """List the rights of a user on databases."""
    user = _user(session.catalog.users, statement.user)
    rows = [(database, access.text) for database, access in user.grants.items()]
    return [table(["database", "privilege"], rows)]


def _user(users: Mapping[str, User], name: str) -> User:
    try:
        return users[name]
    except KeyError:
        raise StatementError("user not found") from None


def _change(session: Session, name: str, change: Callable[[User], User]) -> None:
    session.catalog.change_users(lambda users: {**users, name: change(_user(users, name))})


RUNNERS: Final[dict[type[ast.Statement], Runner]] = {
    ast.CreateUser: create_user,
    ast.SetPassword: set_password,
    ast.DropUser: drop_user,
    ast.Grant: grant,
    ast.Revoke: revoke,
    ast.ShowUsers: show_users,
    ast.ShowGrants: show_grants,
}
