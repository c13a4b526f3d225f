"""Rights: what each statement needs, and whether who asks has it.

    nothing            SHOW DATABASES, which lists what the user sees
    READ               SELECT, EXPLAIN, SHOW of what is in a database
    WRITE              INTO, DELETE, DROP SERIES, FIELD, RETENTION POLICY, continuous queries
    admin              everything else, whatever is added later too

Everything a request says is allowed before any of it runs. Source: measured on influxd 1.6.7,
tests/conformance/auth/rights.txt, which marks where we ask for more: influxd lets exact
cardinalities, measurements of other databases in SHOW ... FROM, and the sources and targets of
continuous queries go unchecked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from gateway.errors import Forbidden
from gateway.users import Access
from grammar import ast
from grammar.printer import to_influxql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.users import User

_REFUSED: Final = "error authorizing query: "


class Need(NamedTuple):
    """One right that a statement needs.

    Attributes:
        access: On the database; None asks for an admin.
        database: Its name, "" when the statement and the request name none.
    """

    access: Access | None
    database: str = ""


def authorize(statements: Sequence[ast.Statement], user: User | None, database: str) -> None:
    """Let the statements of a request pass, all or none.

    Args:
        statements: What is to run.
        user: Who asks; None while there is no admin.
        database: The database of the request.

    Raises:
        Forbidden: The user may not do one of them, in influxd's words.
    """
    if user is None:
        _authorize_first_admin(statements)
        return
    for statement in statements:
        for need in needs_of(statement, database):
            if need.access is None and not user.is_admin:
                raise _refusal(user, statement, "admin privilege")
            if need.access is not None and not user.may(need.access, need.database):
                raise _refusal(user, statement, f"{need.access.text} on {need.database}")


def authorize_write(user: User | None, database: str) -> None:
    """Let line protocol into a database.

    Raises:
        Forbidden: The user may not write there, in influxd's words.
    """
    if user is None:
        raise Forbidden(f'user is required to write to database "{database}"')
    if not user.may(Access.WRITE, database):
        raise Forbidden(f'"{user.name}" user is not authorized to write to database "{database}"')


def needs_of(statement: ast.Statement, database: str) -> Iterator[Need]:
    """Yield the rights that a statement needs, in the order influxd looks at them.

    Args:
        statement: Any.
        database: What it means where it names no database.
    """
    rule = _RULES.get(type(statement))
    if rule is None:
        yield Need(None)
    else:
        yield from rule(statement, database)


def _authorize_first_admin(statements: Sequence[ast.Statement]) -> None:
    """Let a request through that begins with making an admin: who sends it is admin from then."""
    first = statements[0] if statements else None
    if not (isinstance(first, ast.CreateUser) and first.is_admin):
        raise Forbidden(f"{_REFUSED}create admin user first or disable authentication")


def _refusal(user: User, statement: ast.Statement, what: str) -> Forbidden:
    return Forbidden(
        f"{_REFUSED}{user.name} not authorized to execute statement "
        f"'{to_influxql(statement)}', requires {what}"
    )


# --- the rules ------------------------------------------------------------------------------------
_Rule: TypeAlias = Callable[..., Iterator[Need]]  # each takes the statement of its own type
_Show: TypeAlias = (
    ast.ShowTagKeys | ast.ShowTagValues | ast.ShowFieldKeys | ast.ShowSeries | ast.ShowCardinality
)


def _select(select: ast.Select, database: str) -> Iterator[Need]:
    for named in select.sources:
        source = named.source if isinstance(named, ast.NamedSource) else named
        if isinstance(source, ast.SubQuery):
            yield from _select(source.select, database)
        else:
            yield Need(Access.READ, source.database or database)
    if select.target is not None:
        yield Need(Access.WRITE, select.target.database or database)


def _explain(statement: ast.Explain, database: str) -> Iterator[Need]:
    return _select(statement.select, database)


def _create_continuous_query(statement: ast.CreateContinuousQuery, database: str) -> Iterator[Need]:
    yield Need(Access.READ, statement.database)
    # As it is stored: names without a database mean the one of the request, if it has one.
    yield from _select(statement.select, database or statement.database)


def _nothing(_: ast.Statement, database: str) -> Iterator[Need]:  # noqa: ARG001
    return iter(())


def _read_here(_: ast.Statement, database: str) -> Iterator[Need]:
    yield Need(Access.READ, database)


def _read_named(
    statement: ast.ShowRetentionPolicies | ast.ShowMeasurements, database: str
) -> Iterator[Need]:
    yield Need(Access.READ, statement.database or database)


def _read_sources(statement: _Show, database: str) -> Iterator[Need]:
    yield Need(Access.READ, statement.database or database)
    for source in statement.sources:
        if source.database:
            yield Need(Access.READ, source.database)


def _write_sources(statement: ast.Delete | ast.DropSeries, database: str) -> Iterator[Need]:
    yield Need(Access.WRITE, database)
    for source in statement.sources:
        if source.database:
            yield Need(Access.WRITE, source.database)


def _write_here(_: ast.Statement, database: str) -> Iterator[Need]:
    yield Need(Access.WRITE, database)


def _write_named(
    statement: ast.DropRetentionPolicy | ast.DropContinuousQuery | ast.RunContinuousQuery, _: str
) -> Iterator[Need]:
    yield Need(Access.WRITE, statement.database)


_RULES: Final[dict[type[ast.Statement], _Rule]] = {
    ast.Select: _select,
    ast.Explain: _explain,
    ast.ShowDatabases: _nothing,
    ast.ShowQueries: _read_here,
    ast.ShowContinuousQueries: _read_here,
    ast.ShowRetentionPolicies: _read_named,
    ast.ShowMeasurements: _read_named,
    ast.ShowTagKeys: _read_sources,
    ast.ShowTagValues: _read_sources,
    ast.ShowFieldKeys: _read_sources,
    ast.ShowSeries: _read_sources,
    ast.ShowCardinality: _read_sources,
    ast.Delete: _write_sources,
    ast.DropSeries: _write_sources,
    ast.DropField: _write_here,
    ast.DropRetentionPolicy: _write_named,
    ast.CreateContinuousQuery: _create_continuous_query,
    ast.DropContinuousQuery: _write_named,
    ast.RunContinuousQuery: _write_named,  # and what its SELECT needs, once that is looked up
}
