"""POST /write: who may send what in which form, and what comes back."""

from __future__ import annotations

import gzip
import time
import zlib
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.gateway.conftest import Ask

HOUR_NS = 3_600_000_000_000


def error_of(body: str) -> str:
    return '{"error":' + body + "}\n"


@pytest.fixture
def small() -> Iterator[TestClient]:
    """A server whose limits are small."""
    settings = Settings(max_body_bytes=1000, max_inflated_bytes=5000)
    with TestClient(create_app(settings, in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        yield client


def test_stored_points_answer_204_without_a_body(db: TestClient, ask: Ask) -> None:
    response = db.post("/write?db=t", content=b"cpu,host=a usage=1.5,n=2i 1000\n")
    assert response.status_code == 204
    assert response.content == b""
    assert response.headers["content-type"] == "application/json"
    assert ask("SELECT * FROM cpu", "t", epoch="ns") == [
        {
            "statement_id": 0,
            "series": [
                {
                    "name": "cpu",
                    "columns": ["time", "host", "n", "usage"],
                    "values": [[1000, "a", 2, 1.5]],
                }
            ],
        }
    ]


@pytest.mark.parametrize(
    "body",
    [b"", b"\n", b" \t\n\n", b"# only a comment\n"],
    ids=["none", "line", "blanks", "comment"],
)
def test_body_without_points_answers_204(db: TestClient, body: bytes) -> None:
    assert db.post("/write?db=t", content=body).status_code == 204


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json",
        "text/plain; charset=utf-8",
        "",
    ],
)
def test_content_type_of_a_write_is_ignored(db: TestClient, ask: Ask, content_type: str) -> None:
    response = db.post(
        "/write?db=t", content=b"cpu,a=b&c v=1 1\n", headers={"content-type": content_type}
    )
    assert response.status_code == 204
    [result] = ask("SHOW SERIES", "t")
    assert result["series"] == [{"columns": ["key"], "values": [["cpu,a=b&c"]]}]


@pytest.mark.parametrize(
    ("parameters", "status", "body"),
    [
        pytest.param("", 400, error_of('"database is required"'), id="no db"),
        pytest.param("?db=", 400, error_of('"database is required"'), id="empty db"),
        pytest.param("?db=x", 404, error_of('"database not found: \\"x\\""'), id="unknown db"),
        pytest.param(
            "?db=t&rp=x", 500, error_of('"retention policy not found: x"'), id="unknown rp"
        ),
        pytest.param(
            "?db=t&precision=zz",
            400,
            error_of('"invalid precision \\"zz\\" (use n, u, ms, s, m or h)"'),
            id="unknown precision",
        ),
        pytest.param(
            "?db=t&consistency=some", 400, error_of('"invalid consistency level"'), id="consistency"
        ),
    ],
)
def test_bad_parameters_are_refused_in_influxds_words(
    db: TestClient, parameters: str, status: int, body: str
) -> None:
    response = db.post("/write" + parameters, content=b"cpu v=1 1\n")
    assert (response.status_code, response.text) == (status, body)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("level", ["", "any", "one", "quorum", "all"])
def test_consistency_levels_of_influxd_are_taken(db: TestClient, level: str) -> None:
    response = db.post(f"/write?db=t&consistency={level}", content=b"cpu v=1 1\n")
    assert response.status_code == 204


@pytest.mark.parametrize(
    ("precision", "time_ns"),
    [
        ("", 7),
        ("n", 7),
        ("ns", 7),
        ("u", 7_000),
        ("ms", 7_000_000),
        ("s", 7_000_000_000),
        ("m", 420_000_000_000),
        ("h", 25_200_000_000_000),
    ],
)
def test_precision_is_the_unit_of_the_timestamps(
    db: TestClient, ask: Ask, precision: str, time_ns: int
) -> None:
    db.post(f"/write?db=t&precision={precision}", content=b"cpu v=1 7\n")
    [result] = ask("SELECT v FROM cpu", "t", epoch="ns")
    assert result["series"] == [{"name": "cpu", "columns": ["time", "v"], "values": [[time_ns, 1]]}]


def test_retention_policy_of_the_request_gets_the_points(db: TestClient, ask: Ask) -> None:
    ask("CREATE RETENTION POLICY p ON t DURATION INF REPLICATION 1")
    assert db.post("/write?db=t&rp=p", content=b"cpu v=1 1\n").status_code == 204
    assert "series" in ask("SELECT v FROM p.cpu", "t")[0]
    assert "series" not in ask("SELECT v FROM cpu", "t")[0]


def test_bad_lines_answer_400_and_nothing_else_is_kept(db: TestClient) -> None:
    response = db.post("/write?db=t", content=b"bad\ncpu v= 1\n")
    assert response.status_code == 400
    assert response.json() == {
        "error": "unable to parse 'bad': missing fields\n"
        "unable to parse 'cpu v= 1': missing field value"
    }
    assert response.headers["x-influxdb-error"] == (
        "unable to parse 'bad': missing fields unable to parse 'cpu v= 1': missing field value"
    )


def test_good_lines_of_a_bad_body_are_stored(db: TestClient, ask: Ask) -> None:
    response = db.post("/write?db=t", content=b"cpu v=1 1\nbad\ncpu v=2 2\n")
    assert response.status_code == 400
    assert response.json() == {
        "error": "partial write: unable to parse 'bad': missing fields dropped=0"
    }
    assert ask("SELECT count(v) FROM cpu", "t", epoch="ns")[0]["series"] == [
        {"name": "cpu", "columns": ["time", "count"], "values": [[0, 2]]}
    ]


def test_many_bad_lines_are_named_up_to_a_bound(db: TestClient) -> None:
    response = db.post("/write?db=t", content=b"bad\n" * 5000)
    assert response.status_code == 400
    lines = response.json()["error"].split("\n")
    assert len(lines) == 101
    assert lines[-1] == "and 4900 more lines"


def test_type_conflict_drops_its_points_and_stores_the_others(db: TestClient, ask: Ask) -> None:
    db.post("/write?db=t", content=b"m f=1 1\n")
    response = db.post("/write?db=t", content=b"m f=2i 2\nm f=3 3\nm f=true 4\n")
    assert response.status_code == 400
    assert response.json()["error"] == (
        'partial write: field type conflict: input field "f" on measurement "m" is type integer, '
        "already exists as type float dropped=2"
    )
    assert ask("SELECT f FROM m", "t", epoch="ns")[0]["series"] == [
        {"name": "m", "columns": ["time", "f"], "values": [[1, 1], [3, 3]]}
    ]


def test_points_beyond_the_retention_policy_are_dropped(db: TestClient, ask: Ask) -> None:
    ask("CREATE RETENTION POLICY short ON t DURATION 1h REPLICATION 1")
    response = db.post("/write?db=t&rp=short", content=b"cpu v=1 1\ncpu v=2\n")
    assert response.status_code == 400
    assert response.json()["error"] == ("partial write: points beyond retention policy dropped=1")
    [result] = ask("SELECT v FROM short.cpu", "t")
    assert "series" in result


def test_points_outside_the_write_limits_are_dropped(db: TestClient, ask: Ask) -> None:
    """InfluxDB 1.12's FUTURE and PAST LIMIT; the words are those that Telegraf looks for."""
    ask("CREATE RETENTION POLICY p ON t DURATION INF REPLICATION 1 FUTURE LIMIT 1h PAST LIMIT 2h")
    now = int(time.time())
    lines = [f"m v={hours} {now + hours * 3600 + 60 * (hours < 0)}" for hours in range(-3, 3)]
    response = db.post("/write?db=t&rp=p&precision=s", content="\n".join(lines))
    text = "partial write: points beyond retention policy dropped=2"
    assert (response.status_code, response.json()) == (400, {"error": text})
    [result] = ask("SELECT v FROM p.m", "t")
    assert [row[1] for row in result["series"][0]["values"]] == [-2, -1, 0, 1]  # type: ignore[index]


def test_write_limits_are_shown_once_there_are_some_and_can_be_altered(ask: Ask) -> None:
    ask("CREATE DATABASE t WITH FUTURE LIMIT 90m NAME p")
    [result] = ask("SHOW RETENTION POLICIES ON t")
    columns = ["name", "duration", "shardGroupDuration", "replicaN"]
    limits = ["futureWriteLimit", "pastWriteLimit"]
    assert result["series"] == [
        {
            "columns": [*columns, *limits, "default"],
            "values": [["p", "0s", "168h0m0s", 1, "1h30m0s", "0s", True]],
        }
    ]
    ask("ALTER RETENTION POLICY p ON t PAST LIMIT 1d")
    [result] = ask("SHOW RETENTION POLICIES ON t")
    assert result["series"][0]["values"] == [  # type: ignore[index]
        ["p", "0s", "168h0m0s", 1, "1h30m0s", "24h0m0s", True]
    ]
    ask("ALTER RETENTION POLICY p ON t FUTURE LIMIT 0s PAST LIMIT 0s")
    [result] = ask("SHOW RETENTION POLICIES ON t")
    assert result["series"][0]["columns"] == [*columns, "default"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            b"m,time=1 f=1 1",
            'partial write: invalid tag key: input tag "time" on measurement "m" is invalid '
            "dropped=1",
        ),
        (
            b"m time=1 1",
            'partial write: invalid field name: input field "time" on measurement "m" is invalid '
            "dropped=1",
        ),
    ],
)
def test_time_as_tag_or_only_field_is_refused(db: TestClient, line: bytes, error: str) -> None:
    response = db.post("/write?db=t", content=line)
    assert response.status_code == 400
    assert response.json()["error"] == error


# --- codings ------------------------------------------------------------------------------------
LINES = b"cpu,host=a v=1 1\ncpu,host=b v=2 2\n"
PACKED = gzip.compress(LINES)


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param("gzip", gzip.compress(LINES), id="gzip"),
        pytest.param("x-gzip", gzip.compress(LINES), id="x-gzip"),
        pytest.param("GZIP", gzip.compress(LINES), id="upper case"),
        pytest.param(
            "gzip", gzip.compress(LINES[:17]) + gzip.compress(LINES[17:]), id="two members"
        ),
        pytest.param("deflate", zlib.compress(LINES), id="deflate"),
        pytest.param("deflate", raw_deflate(LINES), id="raw deflate"),
        pytest.param("identity", LINES, id="identity"),
        pytest.param("br", LINES, id="unknown codings are no codings"),
    ],
)
def test_coded_body_is_stored_as_what_it_holds(
    db: TestClient, ask: Ask, coding: str, body: bytes
) -> None:
    response = db.post("/write?db=t", content=body, headers={"content-encoding": coding})
    assert response.status_code == 204
    assert ask("SHOW SERIES", "t")[0]["series"] == [
        {"columns": ["key"], "values": [["cpu,host=a"], ["cpu,host=b"]]}
    ]


def test_body_in_chunks_is_read_to_its_end(db: TestClient, ask: Ask) -> None:
    packed = gzip.compress(LINES)

    def chunks() -> Iterator[bytes]:
        for position in range(0, len(packed), 7):
            yield packed[position : position + 7]

    response = db.post("/write?db=t", content=chunks(), headers={"content-encoding": "gzip"})
    assert response.status_code == 204
    assert len(str(ask("SHOW SERIES", "t"))) > 50


def test_client_that_asks_for_message_pack_gets_its_errors_in_it(db: TestClient) -> None:
    headers = {"accept": "application/x-msgpack"}  # of influxdb-python; this is influxd's answer
    response = db.post("/write?db=t", content=b"bad", headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (400, headers["accept"])
    assert response.content == b"\x81\xa5error\xd9%unable to parse 'bad': missing fields"
    for accept in ("text/csv", "*/*", "application/x-msgpack, application/json"):
        response = db.post("/write?db=t", content=b"bad", headers={"accept": accept})
        assert response.text == '{"error":"unable to parse \'bad\': missing fields"}\n'


def test_empty_body_that_claims_gzip_answers_204(db: TestClient) -> None:
    response = db.post("/write?db=t", content=b"", headers={"content-encoding": "gzip"})
    assert response.status_code == 204


@pytest.mark.parametrize(
    ("coding", "body", "error"),
    [
        # Texts of gzip are influxd 1.6.7's, but for "corrupt input", where it counts bytes.
        pytest.param("gzip", LINES, "gzip: invalid header", id="plain"),
        pytest.param("gzip", b"m v=1 1", "unexpected EOF", id="plain and short"),
        pytest.param("gzip", PACKED[:-9], "unexpected EOF", id="cut"),
        pytest.param("gzip", PACKED[:3], "unexpected EOF", id="cut in the header"),
        pytest.param("gzip", PACKED + b"junk", "unexpected EOF", id="junk behind"),
        pytest.param("gzip", PACKED + b"more junk!", "gzip: invalid header", id="more junk"),
        pytest.param("gzip", PACKED + bytes(20), "gzip: invalid header", id="zeros behind"),
        pytest.param("gzip", b"\x1f\x8b\x07" + PACKED[3:], "gzip: invalid header", id="method"),
        pytest.param(
            "gzip", PACKED[:-8] + bytes(4) + PACKED[-4:], "gzip: invalid checksum", id="checksum"
        ),
        pytest.param("gzip", PACKED[:-4] + bytes(4), "gzip: invalid checksum", id="length"),
        pytest.param(
            "gzip", PACKED[:10] + b"\x07" + PACKED[11:], "gzip: corrupt input", id="block"
        ),
        pytest.param("deflate", b"\xff\xff", "deflate: corrupt input", id="no deflate"),
    ],
)
def test_broken_coding_stores_nothing(
    db: TestClient, ask: Ask, coding: str, body: bytes, error: str
) -> None:
    response = db.post("/write?db=t", content=body, headers={"content-encoding": coding})
    assert response.status_code == 400
    assert response.json() == {"error": error}
    assert ask("SHOW SERIES", "t") == [{"statement_id": 0}]


# --- limits -------------------------------------------------------------------------------------
def test_body_over_the_limit_answers_413_as_json(small: TestClient) -> None:
    response = small.post("/write?db=t", content=b"cpu v=1 1\n" * 101)
    assert response.status_code == 413
    assert response.text == '{"error":"Request Entity Too Large"}\n'
    assert small.post("/write?db=t", content=b"cpu v=1 1\n" * 100).status_code == 204


def test_chunked_body_over_the_limit_answers_413(small: TestClient) -> None:
    response = small.post("/write?db=t", content=(b"cpu v=1 1\n" for _ in range(101)))
    assert response.status_code == 413


def test_body_that_inflates_over_the_limit_answers_413(small: TestClient) -> None:
    bomb = gzip.compress(b"cpu v=1 1\n" * 501)
    response = small.post("/write?db=t", content=bomb, headers={"content-encoding": "gzip"})
    assert response.status_code == 413
    fits = gzip.compress(b"cpu v=1 1\n" * 500)
    response = small.post("/write?db=t", content=fits, headers={"content-encoding": "gzip"})
    assert response.status_code == 204


def test_body_that_inflates_out_of_proportion_answers_413() -> None:
    settings = Settings(max_inflate_ratio=10)
    with TestClient(create_app(settings, in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        bomb = gzip.compress(b"#" * (1 << 21))
        response = client.post("/write?db=t", content=bomb, headers={"content-encoding": "gzip"})
        assert response.status_code == 413
        response = client.post(
            "/write?db=t",
            content=gzip.compress(b"#" * (1 << 19)),
            headers={"content-encoding": "gzip"},
        )
        assert response.status_code == 204


def test_too_many_bytes_at_once_answer_503_with_retry_after() -> None:
    settings = Settings(max_queued_write_bytes=500)
    with TestClient(create_app(settings, in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        response = client.post("/write?db=t", content=b"cpu v=1 1\n" * 51)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert "throttled" in response.json()["error"]
        assert client.post("/write?db=t", content=b"cpu v=1 1\n" * 50).status_code == 204


def test_options_answers_200_and_get_405(db: TestClient) -> None:
    assert db.options("/write").status_code == 200
    response = db.get("/write?db=t")
    assert response.status_code == 405
    assert response.json() == {"error": "Method Not Allowed"}
    assert set(response.headers["allow"].split(", ")) == {"POST", "OPTIONS"}
