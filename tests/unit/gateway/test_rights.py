"""Which right each kind of statement needs; the matrix of users is in tests/conformance/auth."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway.errors import Forbidden
from gateway.rights import Need, authorize, authorize_write, needs_of
from gateway.users import EVERYBODY, Access, User
from grammar import ast, parser

ADMINS = {
    ast.CreateDatabase,
    ast.DropDatabase,
    ast.CreateRetentionPolicy,
    ast.AlterRetentionPolicy,
    ast.DropMeasurement,
    ast.DropShard,
    ast.UndropDatabase,
    ast.UndropRetentionPolicy,
    ast.UndropMeasurement,
    ast.RenameMeasurement,
    ast.ShowTrash,
    ast.PurgeTrash,
    ast.CreateUser,
    ast.SetPassword,
    ast.DropUser,
    ast.Grant,
    ast.Revoke,
    ast.CreateSubscription,
    ast.DropSubscription,
    ast.KillQuery,
    ast.ShowUsers,
    ast.ShowGrants,
    ast.ShowSubscriptions,
    ast.ShowShards,
    ast.ShowShardGroups,
    ast.ShowStats,
    ast.ShowDiagnostics,
}
READ, WRITE = Access.READ, Access.WRITE
NEEDS = [  # for a request with db=t
    ("SELECT v FROM m", [Need(READ, "t")]),
    ("SELECT v FROM a..m, m, /x/, b..m", [Need(READ, name) for name in ("a", "t", "t", "b")]),
    (
        "SELECT v FROM (SELECT v FROM a..m), (SELECT v FROM (SELECT v FROM b..m))",
        [Need(READ, "a"), Need(READ, "b")],
    ),
    (
        "SELECT x.v FROM a..m AS x, (SELECT v FROM b..m) AS y, (SELECT z.v FROM c..m AS z) AS u",
        [Need(READ, "a"), Need(READ, "b"), Need(READ, "c")],
    ),
    ("SELECT v INTO n FROM m", [Need(READ, "t"), Need(WRITE, "t")]),
    ("SELECT v INTO a..n FROM m", [Need(READ, "t"), Need(WRITE, "a")]),
    ("EXPLAIN ANALYZE SELECT v FROM a..m", [Need(READ, "a")]),
    ("SHOW DATABASES", []),
    ("SHOW QUERIES", [Need(READ, "t")]),
    ("SHOW CONTINUOUS QUERIES", [Need(READ, "t")]),
    ("SHOW RETENTION POLICIES", [Need(READ, "t")]),
    ("SHOW RETENTION POLICIES ON a", [Need(READ, "a")]),
    ("SHOW MEASUREMENTS ON a", [Need(READ, "a")]),
    ("SHOW MEASUREMENTS ON *.*", [Need(READ, "*")]),
    ("SHOW TAG KEYS ON a FROM m", [Need(READ, "a")]),
    ("SHOW TAG KEYS FROM b..m", [Need(READ, "t"), Need(READ, "b")]),
    ("SHOW TAG VALUES FROM b..m WITH KEY = k", [Need(READ, "t"), Need(READ, "b")]),
    ("SHOW FIELD KEYS ON a FROM b..m", [Need(READ, "a"), Need(READ, "b")]),
    ("SHOW SERIES FROM b..m", [Need(READ, "t"), Need(READ, "b")]),
    ("SHOW SERIES EXACT CARDINALITY", [Need(READ, "t")]),
    ("SHOW TAG KEY CARDINALITY ON a", [Need(READ, "a")]),
    ("DELETE FROM m", [Need(WRITE, "t")]),
    ("DROP SERIES FROM m", [Need(WRITE, "t")]),
    ("DROP FIELD f FROM m", [Need(WRITE, "t")]),
    ("DROP RETENTION POLICY p ON a", [Need(WRITE, "a")]),
    ("DROP CONTINUOUS QUERY c ON a", [Need(WRITE, "a")]),
    (
        "CREATE CONTINUOUS QUERY c ON a BEGIN SELECT mean(v) INTO b..n FROM m "
        "GROUP BY time(1m) END",
        [Need(READ, "a"), Need(READ, "t"), Need(WRITE, "b")],
    ),
    ("RUN CONTINUOUS QUERY c ON a FROM 0s TO 1h", [Need(WRITE, "a")]),
    ("SHOW USERS", [Need(None)]),
    ("SET PASSWORD FOR u = 'x'", [Need(None)]),
]


@pytest.mark.parametrize(("text", "needs"), NEEDS)
def test_statement_needs(text: str, needs: list[Need]) -> None:
    [statement] = parser.parse(text)
    assert list(needs_of(statement, "t")) == needs


def test_every_kind_of_statement_was_thought_of() -> None:
    kinds = {type(statement) for text, _ in NEEDS for statement in parser.parse(text)}
    assert kinds | ADMINS == set(get_args(ast.Statement))
    assert kinds & ADMINS == {ast.ShowUsers, ast.SetPassword}


def test_continuous_query_of_a_request_without_database_means_its_own() -> None:
    text = "CREATE CONTINUOUS QUERY c ON a BEGIN SELECT mean(v) INTO n FROM m GROUP BY time(1m) END"
    [statement] = parser.parse(text)
    assert list(needs_of(statement, "")) == [Need(READ, "a"), Need(READ, "a"), Need(WRITE, "a")]


def test_kind_that_nobody_thought_of_is_for_admins() -> None:
    class New:
        pass

    assert list(needs_of(New(), "t")) == [Need(None)]  # type: ignore[arg-type]  # on purpose


def test_everybody_may_do_everything() -> None:
    for text, _ in NEEDS:
        authorize(parser.parse(text), EVERYBODY, "")
    authorize_write(EVERYBODY, "t")


def test_nobody_may_write_and_only_make_the_first_admin() -> None:
    with pytest.raises(Forbidden, match=r'^user is required to write to database "t"$'):
        authorize_write(None, "t")
    authorize(parser.parse("CREATE USER a WITH PASSWORD 'b' WITH ALL PRIVILEGES"), None, "")
    for text in ("CREATE USER a WITH PASSWORD 'b'", "SHOW DATABASES", ";"):
        with pytest.raises(Forbidden, match="create admin user first"):
            authorize(parser.parse(text), None, "")


def test_refusal_hides_passwords() -> None:
    user = User("ann", "")
    for text in ("SET PASSWORD FOR ann = 'hidden'", "CREATE USER b WITH PASSWORD 'hidden'"):
        with pytest.raises(Forbidden, match=r"\[REDACTED\]") as raised:
            authorize(parser.parse(text), user, "t")
        assert "hidden" not in raised.value.text
