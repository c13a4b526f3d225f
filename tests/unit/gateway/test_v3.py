"""POST /api/v3/write_lp: guessed units, all or nothing, bad lines with their numbers."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gateway.lineprotocol.parser import LineError
from gateway.v3 import in_guessed_units, numbered

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from tests.unit.gateway.conftest import Ask

PATH = "/api/v3/write_lp?db=t"


def values(ask: Ask, field: str = "v", measurement: str = "m") -> object:
    [result] = ask(f"SELECT {field} FROM {measurement}", "t", epoch="ns")
    if "series" not in result:
        return []
    return result["series"][0]["values"]  # type: ignore[index]  # JSON


def test_missing_database_is_created(client: TestClient, ask: Ask) -> None:
    response = client.post(PATH, content=b"m v=1 7\n")
    assert (response.status_code, response.content) == (204, b"")
    assert values(ask) == [[7_000_000_000, 1]]


@pytest.mark.parametrize(
    ("sent", "time_ns"),
    [
        (0, 0),
        (1, 1_000_000_000),
        (1_700_000_000, 1_700_000_000_000_000_000),
        (-1_700_000_000, -1_700_000_000_000_000_000),
        (4_999_999_999, 4_999_999_999_000_000_000),
        (5_000_000_000, 5_000_000_000_000_000),
        (1_700_000_000_123, 1_700_000_000_123_000_000),
        (5_000_000_000_000, 5_000_000_000_000_000),
        (1_700_000_000_123_456, 1_700_000_000_123_456_000),
        (5_000_000_000_000_000, 5_000_000_000_000_000),
        (1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (-9_223_372_036_854_775_806, -9_223_372_036_854_775_806),
    ],
)
def test_unit_of_a_time_is_guessed_from_its_size(sent: int, time_ns: int) -> None:
    times = np.array([sent, 1_700_000_000], np.int64)
    assert in_guessed_units(times).tolist() == [time_ns, 1_700_000_000_000_000_000]
    assert times.tolist() == [sent, 1_700_000_000]


@pytest.mark.parametrize(
    ("precision", "unit_ns"),
    [
        ("nanosecond", 1),
        ("microsecond", 1_000),
        ("millisecond", 1_000_000),
        ("second", 1_000_000_000),
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
    ],
)
def test_precision_says_the_unit(db: TestClient, ask: Ask, precision: str, unit_ns: int) -> None:
    response = db.post(f"{PATH}&precision={precision}", content=b"m v=1 1700000000\n")
    assert response.status_code == 204
    assert values(ask) == [[1_700_000_000 * unit_ns, 1]]


def test_lines_without_time_are_of_now_whatever_the_precision(db: TestClient, ask: Ask) -> None:
    assert db.post(PATH, content=b"m v=1\n").status_code == 204
    assert db.post(f"{PATH}&precision=second", content=b"m v=1\n").status_code == 204
    [result] = ask("SELECT count(v) FROM m WHERE time > now() - 1m", "t")
    assert "series" in result


def test_good_lines_are_stored_and_bad_ones_listed_with_their_numbers(
    db: TestClient, ask: Ask
) -> None:
    body = b'# comment\n\nm v=1 1\nbad\nm s="two\nlines" 2\n  m v= 3\nm v=4 4\n'
    response = db.post(f"{PATH}&precision=ns", content=body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "error": "partial write of line protocol occurred",
        "data": [
            {"original_line": "bad", "line_number": 4, "error_message": "missing fields"},
            {"original_line": "m v= 3", "line_number": 7, "error_message": "missing field value"},
        ],
    }
    assert values(ask) == [[1, 1], [4, 4]]


def test_without_partial_writes_one_bad_line_refuses_all(db: TestClient, ask: Ask) -> None:
    response = db.post(f"{PATH}&accept_partial=false", content=b"m v=1 1\nbad\n")
    assert response.status_code == 400
    assert response.json() == {
        "error": "parsing failed for write_lp endpoint",
        "data": [{"original_line": "bad", "line_number": 2, "error_message": "missing fields"}],
    }
    assert values(ask) == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            b"m v=2 2\nm v=1i 3\n",
            'field type conflict: input field "v" on measurement "m" is type integer, already '
            "exists as type float",
        ),
        (
            b"n w=2 2\nn w=true 3\n",
            'field type conflict: input field "w" on measurement "n" is type boolean, already '
            "exists as type float",
        ),
        (
            b"m,time=1 v=1 2\nm v=2 3\n",
            'invalid tag key: input tag "time" on measurement "m" is invalid',
        ),
    ],
    ids=["stored type", "type within the body", "tag called time"],
)
def test_without_partial_writes_a_point_that_cannot_be_stored_refuses_all(
    db: TestClient, ask: Ask, body: bytes, error: str
) -> None:
    db.post("/write?db=t", content=b"m v=1 1\n")
    response = db.post(f"{PATH}&accept_partial=false&precision=ns", content=body)
    assert (response.status_code, response.json()) == (400, {"error": error})
    assert values(ask) == [[1, 1]]
    assert ask("SHOW MEASUREMENTS", "t")[0]["series"] == [
        {"name": "measurements", "columns": ["name"], "values": [["m"]]}
    ]


def test_without_partial_writes_points_beyond_the_retention_policy_refuse_all(
    db: TestClient, ask: Ask
) -> None:
    ask("ALTER RETENTION POLICY autogen ON t DURATION 1h SHARD DURATION 1h")
    response = db.post(f"{PATH}&accept_partial=false", content=b"m v=1\nm v=2 1\n")
    assert (response.status_code, response.json()) == (
        400,
        {"error": "points beyond retention policy"},
    )
    assert values(ask) == []
    assert db.post(f"{PATH}&accept_partial=false", content=b"m v=1\n").status_code == 204


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ("", 'missing required parameter "db"'),
        ("?db=", 'missing required parameter "db"'),
        ("?db=a/b", "invalid name"),
        (
            "?db=t&precision=m",
            'invalid precision "m" (use auto, nanosecond, microsecond, millisecond or second)',
        ),
        ("?db=t&accept_partial=maybe", 'accept_partial must be true or false: "maybe"'),
        ("?db=t&no_sync=1", 'no_sync must be true or false: "1"'),
    ],
)
def test_bad_parameters_are_refused(db: TestClient, parameters: str, error: str) -> None:
    response = db.post("/api/v3/write_lp" + parameters, content=b"m v=1 1\n")
    assert (response.status_code, response.json()) == (400, {"error": error})


def test_telegraf_v3_output_is_taken_as_it_sends(client: TestClient, ask: Ask) -> None:
    body = gzip.compress(b"m,host=a v=1 1700000000000000000\n")
    headers = {
        "authorization": "Bearer ",
        "content-encoding": "gzip",
        "content-type": "text/plain; charset=utf-8",
    }
    response = client.post(f"{PATH}&no_sync=true", content=body, headers=headers)
    assert response.status_code == 204
    assert values(ask) == [[1_700_000_000_000_000_000, 1]]


def test_numbers_count_the_line_feeds_of_the_body() -> None:
    body = b"\nbad\r\nm v=1\nbad\n" + b"x" * 2000 + b"\nm\\\n v=1\nlast\xff"
    errors = [
        LineError(text, "why") for text in ("bad", "bad", "x" * 1024, "last\ufffd", "not there")
    ]
    found = [(error.line[:5], error.number) for error in numbered(body, errors)]
    assert found == [("bad", 2), ("bad", 4), ("xxxxx", 5), ("last\ufffd", 8)]
