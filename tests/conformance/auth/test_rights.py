"""Who may do what: the table, requests of several statements, writes, the first admin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conformance.auth.rights import FIRST, USERS, read_rows

if TYPE_CHECKING:
    from tests.conformance.auth.conftest import Server
    from tests.conformance.auth.rights import Row

ROWS = read_rows()
pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row.database}: {row.statement}") for row in ROWS]
)
def test_statement_is_served_or_refused_as_the_table_says(asked: Server, row: Row) -> None:
    for user in USERS:
        answer = asked.query(row.statement, user, db=row.database)
        status, body = row.answer(asked.name, user)
        assert (answer.status, answer.body if status != 200 else "") == (status, body), user


def test_nobody_is_served_without_credentials(asked: Server) -> None:
    for row in ROWS:
        answer = asked.query(row.statement, db=row.database)
        assert answer.status == 401
        assert answer.body == '{"error":"unable to parse authentication credentials"}'


def _refused(user: str, statement: str, need: str) -> str:
    text = f"{user} not authorized to execute statement '{statement}', requires {need}"
    return json.dumps({"error": f"error authorizing query: {text}"}, separators=(",", ":"))


@pytest.mark.parametrize(
    ("user", "text", "statement", "need"),
    [
        ("reader", "SHOW MEASUREMENTS; SHOW USERS", "SHOW USERS", "admin privilege"),
        ("writer", "SHOW MEASUREMENTS; SHOW USERS", "SHOW MEASUREMENTS", "READ on t"),
        ("reader", "DROP MEASUREMENT m; SHOW SERIES", "DROP MEASUREMENT m", "admin privilege"),
        ("both", "SELECT * FROM m; SELECT * FROM t2..m", "SELECT * FROM t2..m", "READ on t2"),
        ("writer", "DELETE FROM m; SELECT * FROM m", "SELECT * FROM m", "READ on t"),
    ],
)
def test_request_with_one_refused_statement_runs_none(
    asked: Server, user: str, text: str, statement: str, need: str
) -> None:
    answer = asked.query(text, user, db="t")
    assert (answer.status, answer.body) == (403, _refused(user, statement, need))
    kept = asked.query("SELECT * FROM m", "root", db="t", epoch="ns")
    assert '"values":[[1,"a",1]]' in kept.body


@pytest.mark.parametrize(
    ("user", "names"),
    [
        ("reader", ["t"]),
        ("writer", ["t"]),
        ("both", ["t"]),
        ("other", ["t2"]),
        ("none", None),
    ],
)
def test_show_databases_lists_what_the_user_has_a_right_on(
    asked: Server, user: str, names: list[str] | None
) -> None:
    series = {"name": "databases", "columns": ["name"]}
    expected = series if names is None else series | {"values": [[name] for name in names]}
    answer = asked.query("SHOW DATABASES", user)
    assert json.loads(answer.body) == {"results": [{"statement_id": 0, "series": [expected]}]}


def _not_to(user: str, database: str) -> tuple[int, str]:
    text = f'"{user}" user is not authorized to write to database "{database}"'
    return 403, json.dumps({"error": text}, separators=(",", ":"))


UNKNOWN = (404, '{"error":"database not found: \\"nodb\\""}')
UNNAMED = (400, '{"error":"database is required"}')
WRITTEN = (204, "")


@pytest.mark.parametrize(
    ("user", "to_t", "to_t2"),
    [
        ("reader", _not_to("reader", "t"), _not_to("reader", "t2")),
        ("writer", WRITTEN, _not_to("writer", "t2")),
        ("both", WRITTEN, _not_to("both", "t2")),
        ("other", _not_to("other", "t"), WRITTEN),
        ("none", _not_to("none", "t"), _not_to("none", "t2")),
        ("root", WRITTEN, WRITTEN),
    ],
)
def test_points_are_written_by_whom_may(
    asked: Server, user: str, to_t: tuple[int, str], to_t2: tuple[int, str]
) -> None:
    line = "w,host=a v=1 1"
    expected = {"t": to_t, "t2": to_t2, "nodb": UNKNOWN, "": UNNAMED}
    for database, (status, body) in expected.items():
        answer = asked.write(line, user, db=database)
        assert (answer.status, answer.body) == (status, body), database
        assert asked.write(line, db=database).status == 401


def test_what_is_refused_is_not_parsed_and_not_stored(asked: Server) -> None:
    assert asked.write("not a line", "reader", db="t").status == 403
    assert asked.write("not a line", "writer", db="t").status == 400
    assert asked.write("secret,host=a v=1 1", "reader", db="t").status == 403
    found = asked.query("SHOW MEASUREMENTS WITH MEASUREMENT = secret", "root", db="t")
    assert json.loads(found.body) == {"results": [{"statement_id": 0}]}


NO_ADMIN = '{"error":"error authorizing query: create admin user first or disable authentication"}'


def test_nothing_is_served_before_there_is_an_admin(empty: Server) -> None:
    for text in (
        "SHOW DATABASES",
        "CREATE DATABASE t",
        "CREATE USER root WITH PASSWORD 'secret'",
        f"SHOW USERS; {FIRST}",
        ";",
    ):
        for user in ("", "root"):
            answer = empty.query(text, user)
            assert (answer.status, answer.body) == (403, NO_ADMIN), text
    assert empty.query("FOO").status == 400
    assert empty.write("m v=1", db="t").status == 404


def test_first_admin_may_go_on_in_the_same_request(empty: Server) -> None:
    answer = empty.query(f"{FIRST}; CREATE DATABASE t; SHOW USERS")
    assert '"values":[["root",true]]' in answer.body
    assert empty.query("SHOW DATABASES").status == 401
    assert empty.query("SHOW DATABASES", "root").status == 200


def test_rights_change_at_once(empty: Server) -> None:
    empty.query(f"{FIRST}; CREATE DATABASE t; CREATE USER ann WITH PASSWORD 'secret'")

    def status() -> tuple[int, int]:
        read = empty.query("SHOW MEASUREMENTS", "ann", db="t").status
        return read, empty.write("m v=1 1", "ann", db="t").status

    seen = [status()]
    for text in (
        "GRANT READ ON t TO ann",
        "GRANT WRITE ON t TO ann",
        "GRANT ALL ON t TO ann",
        "REVOKE READ ON t FROM ann",
        "REVOKE ALL ON t FROM ann",
        "GRANT ALL ON t TO ann",
        "DROP DATABASE t; CREATE DATABASE t",
        "GRANT ALL TO ann",
        "REVOKE ALL PRIVILEGES FROM ann",
    ):
        assert "error" not in empty.query(text, "root").body
        seen.append(status())
    nothing, reading, writing, all_rights = (403, 403), (200, 403), (403, 204), (200, 204)
    assert seen == [
        nothing,
        reading,
        writing,
        all_rights,
        writing,
        nothing,
        all_rights,
        nothing,
        all_rights,
        nothing,
    ]


def test_password_counts_until_it_is_changed_and_the_user_until_dropped(empty: Server) -> None:
    empty.query(f"{FIRST}; CREATE USER ann WITH PASSWORD 'old'")

    def status(password: str) -> int:
        return empty.query("SHOW DATABASES", "ann", password=password).status

    assert (status("old"), status("new")) == (200, 401)
    empty.query("SET PASSWORD FOR ann = 'new'", "root")
    assert (status("old"), status("new")) == (401, 200)
    empty.query("DROP USER ann", "root")
    assert (status("old"), status("new")) == (401, 401)
    empty.query("CREATE USER ann WITH PASSWORD 'old'", "root")
    assert (status("old"), status("new")) == (200, 401)
