"""Version 2's endpoints: buckets are databases with their policies; errors that v2 clients read."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings
from gateway.errors import BadRequest
from gateway.v2 import read_predicate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.gateway.conftest import Ask

WRITE = "/api/v2/write?org=me&bucket="


def error_of(code: str, text: str) -> dict[str, str]:
    return {"code": code, "message": text, "error": text}


@pytest.fixture
def cautious() -> Iterator[TestClient]:
    """A server that creates no database by itself."""
    settings = Settings(v2_creates_databases=False, max_body_bytes=1000)
    with TestClient(create_app(settings, in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        yield client


# --- write --------------------------------------------------------------------------------------
@pytest.mark.parametrize("bucket", ["t", "t/autogen", "t%2Fautogen", "t/"])
def test_bucket_is_a_database_with_or_without_its_policy(
    db: TestClient, ask: Ask, bucket: str
) -> None:
    response = db.post(WRITE + bucket, content=b"m v=1 1\n")
    assert (response.status_code, response.content) == (204, b"")
    assert ask("SELECT v FROM t.autogen.m", epoch="ns")[0]["series"] == [
        {"name": "m", "columns": ["time", "v"], "values": [[1, 1]]}
    ]


def test_bucket_with_another_policy_writes_there(db: TestClient, ask: Ask) -> None:
    ask("CREATE RETENTION POLICY p ON t DURATION INF REPLICATION 1")
    assert db.post(WRITE + "t%2Fp", content=b"m v=1 1\n").status_code == 204
    assert "series" in ask("SELECT v FROM t.p.m")[0]
    assert "series" not in ask("SELECT v FROM t.autogen.m")[0]


@pytest.mark.parametrize(
    ("precision", "time_ns"),
    [("", 7), ("ns", 7), ("us", 7_000), ("ms", 7_000_000), ("s", 7_000_000_000)],
)
def test_precision_is_one_of_version_2(
    db: TestClient, ask: Ask, precision: str, time_ns: int
) -> None:
    response = db.post(f"{WRITE}t&precision={precision}", content=b"m v=1 7\n")
    assert response.status_code == 204
    assert ask("SELECT v FROM m", "t", epoch="ns")[0]["series"] == [
        {"name": "m", "columns": ["time", "v"], "values": [[time_ns, 1]]}
    ]


@pytest.mark.parametrize("bucket", ["new", "new/autogen"])
def test_missing_database_is_created(client: TestClient, ask: Ask, bucket: str) -> None:
    assert client.post(WRITE + bucket, content=b"m v=1 1\n").status_code == 204
    assert "series" in ask("SELECT v FROM m", "new")[0]


@pytest.mark.parametrize(
    ("parameters", "status", "body"),
    [
        ("", 400, error_of("invalid", "bucket is required: database or database/policy")),
        ("?bucket=", 400, error_of("invalid", "bucket is required: database or database/policy")),
        ("?bucket=t/x", 404, error_of("not found", "retention policy not found: x")),
        ("?bucket=x/y", 404, error_of("not found", 'database not found: "x"')),
        ("?bucket=..", 400, error_of("invalid", "invalid name")),
        (
            "?bucket=t&precision=m",
            400,
            error_of("invalid", 'invalid precision "m" (use ns, us, ms or s)'),
        ),
    ],
)
def test_bad_parameters_are_refused_for_clients_of_every_version(
    db: TestClient, parameters: str, status: int, body: dict[str, str]
) -> None:
    response = db.post("/api/v2/write" + parameters, content=b"m v=1 1\n")
    assert (response.status_code, response.json()) == (status, body)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-influxdb-error"] == body["error"]
    assert int(response.headers["content-length"]) == len(response.content)


def test_database_is_not_created_where_the_setting_says_so(cautious: TestClient) -> None:
    response = cautious.post(WRITE + "new", content=b"m v=1 1\n")
    assert response.status_code == 404
    assert response.json() == error_of("not found", 'database not found: "new"')
    assert cautious.post(WRITE + "t", content=b"m v=1 1\n").status_code == 204


def test_body_over_the_limit_answers_413_with_a_code(cautious: TestClient) -> None:
    response = cautious.post(WRITE + "t", content=b"m v=1 1\n" * 200)
    assert response.status_code == 413
    assert response.json() == error_of("request too large", "Request Entity Too Large")


def test_partial_write_keeps_the_good_lines_and_says_400(db: TestClient, ask: Ask) -> None:
    response = db.post(WRITE + "t", content=b"m v=1 1\nbad\nm v=2 2\n")
    text = "partial write: unable to parse 'bad': missing fields dropped=0"
    assert (response.status_code, response.json()) == (400, error_of("invalid", text))
    assert ask("SELECT count(v) FROM m", "t", epoch="ns")[0]["series"] == [
        {"name": "m", "columns": ["time", "count"], "values": [[0, 2]]}
    ]


def test_flux_is_refused_as_where_it_is_switched_off(client: TestClient) -> None:
    response = client.post("/api/v2/query?org=o", json={"query": 'from(bucket: "t")'})
    text = "Flux query service disabled. Ask InfluxQL at /query instead."
    assert (response.status_code, response.json()) == (403, error_of("forbidden", text))


def test_unknown_path_and_method_have_a_code_too(client: TestClient) -> None:
    response = client.get("/api/v2/setup")
    assert (response.status_code, response.json()) == (404, error_of("not found", "Not Found"))
    response = client.get("/api/v2/write")
    assert response.status_code == 405
    assert response.json() == error_of("method not allowed", "Method Not Allowed")
    assert set(response.headers["allow"].split(", ")) == {"POST", "OPTIONS"}
    for path in ("/ready", "/api/v2/ready", "/api/v2/ping", "/api/v2/health", "/api/v2/orgs"):
        assert client.get(path).status_code == 404
    for path in ("/api/v2/write", "/api/v2/query", "/health"):
        answer = client.options(path)
        assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("scheme", ["Token ", "Token me:secret", "Bearer x", "Basic eDp5"])
def test_credentials_are_not_looked_at_without_authentication(db: TestClient, scheme: str) -> None:
    body = gzip.compress(b"m v=1 1\n")
    headers = {"authorization": scheme, "content-encoding": "gzip"}
    assert db.post(WRITE + "t", content=body, headers=headers).status_code == 204


def test_home_assistants_first_write_is_empty_and_taken(db: TestClient) -> None:
    assert db.post(WRITE + "t", content=b"").status_code == 204


# --- rights -------------------------------------------------------------------------------------
@pytest.fixture
def guarded() -> Iterator[TestClient]:
    """A server with the users root (admin), w (may write to t) and r (may read t)."""
    settings = Settings(auth_enabled=True, failed_login_delay_s=0)
    with TestClient(create_app(settings, in_memory=True)) as client:
        for statement in (
            "CREATE USER root WITH PASSWORD 'root' WITH ALL PRIVILEGES",
            "CREATE DATABASE t; CREATE DATABASE other; CREATE USER w WITH PASSWORD 'w'; "
            "CREATE USER r WITH PASSWORD 'r'; GRANT WRITE ON t TO w; GRANT READ ON t TO r",
        ):
            parameters = {"q": statement, "u": "root", "p": "root"}
            assert "error" not in client.post("/query", data={}, params=parameters).text
        yield client


@pytest.mark.parametrize(
    ("token", "bucket", "status", "code"),
    [
        ("", "t", 401, "unauthorized"),
        ("w:wrong", "t", 401, "unauthorized"),
        ("w:w", "t", 204, ""),
        ("w:w", "other", 403, "forbidden"),
        ("w:w", "new", 404, "not found"),
        ("r:r", "t", 403, "forbidden"),
        ("root:root", "new", 204, ""),
    ],
)
def test_only_admins_create_databases_and_only_writers_write(
    guarded: TestClient, token: str, bucket: str, status: int, code: str
) -> None:
    headers = {"authorization": f"Token {token}"}
    for path in (WRITE + bucket, f"/api/v3/write_lp?db={bucket}"):
        response = guarded.post(path, content=b"m v=1 1\n", headers=headers)
        assert response.status_code == status, path
    if code:
        response = guarded.post(WRITE + bucket, content=b"m v=1 1\n", headers=headers)
        assert response.json()["code"] == code


def test_deleting_asks_for_the_right_to_write_and_new_buckets_for_an_admin(
    guarded: TestClient,
) -> None:
    document = {"start": "1970-01-01T00:00:00Z", "stop": "1970-01-02T00:00:00Z"}
    for token, status in (("r:r", 403), ("w:w", 200), ("root:root", 200)):
        headers = {"authorization": f"Token {token}"}
        response = guarded.post("/api/v2/delete?bucket=t", json=document, headers=headers)
        assert response.status_code == status
    for token, status in (("w:w", 403), ("root:root", 201)):
        headers = {"authorization": f"Token {token}"}
        response = guarded.post("/api/v2/buckets", json={"name": "t/p"}, headers=headers)
        assert response.status_code == status
    for token, status, left in (("w:w", 403, 403), ("root:root", 200, 204)):
        headers = {"authorization": f"Token {token}"}
        assert guarded.patch("/api/v2/buckets/t/p", json={}, headers=headers).status_code == status
        assert guarded.delete("/api/v2/buckets/t/p", headers=headers).status_code == left


def test_buckets_of_databases_that_a_user_does_not_see_are_not_there(guarded: TestClient) -> None:
    headers = {"authorization": "Token r:r"}
    listed = guarded.get("/api/v2/buckets", headers=headers).json()["buckets"]
    assert [bucket["name"] for bucket in listed] == ["t/autogen"]
    assert guarded.get("/api/v2/buckets/other/autogen", headers=headers).status_code == 404
    assert guarded.get("/api/v2/buckets").status_code == 401


# --- delete -------------------------------------------------------------------------------------
def times_left(ask: Ask) -> list[str]:
    [result] = ask("SELECT v, host FROM m, n", "t", epoch="s")
    return sorted(
        f"{series['name']} {host} {time}"
        for series in result.get("series", [])  # type: ignore[attr-defined]  # JSON
        for time, _, host in series["values"]
    )


@pytest.fixture
def filled(db: TestClient) -> TestClient:
    """The database t with the measurements m and n, hosts a and b, at 0 s and 60 s."""
    lines = [f"{m},host={h} v=1 {s}" for m in "mn" for h in "ab" for s in (0, 60)]
    assert db.post("/write?db=t&precision=s", content="\n".join(lines)).status_code == 204
    return db


@pytest.mark.parametrize(
    ("predicate", "stop", "left"),
    [
        ("", "1970-01-02T00:00:00Z", []),
        ("", "1970-01-01T00:01:00Z", ["m a 60", "m b 60", "n a 60", "n b 60"]),
        ('_measurement="m"', "9999-12-31T00:00:00Z", None),
        ("_measurement='m' and host=\"a\"", "1970-01-01T00:01:00.1Z", None),
        ('host="b"', "1970-01-01T01:00:00+01:00", None),
        ('_measurement="m" AND _measurement="n"', "1970-01-02T00:00:00Z", None),
        ('missing="b"', "1970-01-02T00:00:00Z", None),
    ],
)
def test_delete_takes_what_the_predicate_matches_before_stop(
    filled: TestClient, ask: Ask, predicate: str, stop: str, left: list[str] | None
) -> None:
    everything = [f"{m} {h} {s}" for m in "mn" for h in "ab" for s in (0, 60)]
    by_hand = {
        '_measurement="m"': everything[4:],
        "_measurement='m' and host=\"a\"": everything[2:],
        'host="b"': everything,  # 01:00+01:00 is 00:00Z, which is start
    }
    document = {"start": "1970-01-01T00:00:00Z", "stop": stop, "predicate": predicate}
    response = filled.post("/api/v2/delete?org=me&bucket=t", json=document)
    assert (response.status_code, response.content) == (200, b"")
    assert times_left(ask) == (by_hand.get(predicate, everything) if left is None else left)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "start must be a time like 2009-01-02T23:00:00Z"),
        ({"start": "1970-01-01T00:00:00Z"}, "stop must be a time like 2009-01-02T23:00:00Z"),
        ({"start": 1, "stop": 2}, "start must be a time like 2009-01-02T23:00:00Z"),
        ({"predicate": 'v="1"'}, 'only tags can be in a predicate: "v"'),
        ({"predicate": '_field="v"'}, 'only tags can be in a predicate: "_field"'),
        ({"predicate": 'host="a" OR host="b"'}, None),
        ({"predicate": 'host!="a"'}, None),
        ({"predicate": "host=a"}, None),
        ({"predicate": 'host="a" AND'}, None),
    ],
)
def test_delete_refuses_what_it_does_not_understand_and_deletes_nothing(
    filled: TestClient, ask: Ask, document: dict[str, object], text: str | None
) -> None:
    if "predicate" in document:
        document = {"start": "1970-01-01T00:00:00Z", "stop": "2000-01-01T00:00:00Z", **document}
    response = filled.post("/api/v2/delete?bucket=t", json=document)
    assert response.status_code == 400
    message = response.json()["message"]
    assert message == text if text else message.startswith('predicate must be key="value" AND ...')
    assert len(times_left(ask)) == 8


def test_delete_of_an_unknown_bucket_or_without_json_is_refused(db: TestClient) -> None:
    assert db.post("/api/v2/delete?bucket=x", json={}).status_code == 404
    assert db.post("/api/v2/delete?bucket=t/x", json={}).status_code == 404
    assert db.post("/api/v2/delete?bucket=t", content=b"{").status_code == 400
    assert db.post("/api/v2/delete?bucket=t", content=b"[]").status_code == 400


def test_predicate_is_read_with_its_quotes_and_escapes() -> None:
    text = ' "a key" = "say \\"AND\\"" and b-c.d=\'it\\\'s\' '
    assert read_predicate(text) == [("a key", 'say "AND"'), ("b-c.d", "it's")]
    assert read_predicate(" ") == []
    with pytest.raises(BadRequest):
        read_predicate('a="b" c="d"')
