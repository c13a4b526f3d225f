"""The edge: headers of every answer, errors to statuses, CORS, the status endpoints."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import pytest

from gateway.http import INFLUXDB_VERSION
from tinyflux.errors import StorageError, StorageReadOnly, TinyFluxError

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from tests.unit.gateway.conftest import Ask

UUID1 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[0-9a-f]{4}-0{12}")


@pytest.mark.trap(15)
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/ping", 204),
        ("HEAD", "/ping", 204),
        ("POST", "/ping", 405),
        ("GET", "/ping/", 404),
        ("GET", "/ping?wait_for_leader=3s", 204),
        ("GET", "/status", 204),
        ("HEAD", "/status", 204),
        ("GET", "/health", 200),
        ("GET", "/ready", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/write", 405),
        ("POST", "/write", 400),
        ("GET", "/query", 400),
        ("DELETE", "/query", 405),
    ],
)
def test_every_answer_has_influxds_headers(
    client: TestClient, method: str, path: str, status: int
) -> None:
    response = client.request(method, path, follow_redirects=False)
    assert response.status_code == status
    assert response.headers["x-influxdb-version"] == INFLUXDB_VERSION
    assert response.headers["x-influxdb-build"] == "OSS"
    assert UUID1.fullmatch(response.headers["request-id"])
    assert response.headers["x-request-id"] == response.headers["request-id"]
    assert response.headers["content-type"] == "application/json"
    if status >= 400:
        assert response.headers["x-influxdb-error"] == response.json()["error"]


def test_version_is_digits_and_dots() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", INFLUXDB_VERSION)


@pytest.mark.parametrize("name", ["x-request-id", "request-id"])
def test_request_id_of_the_caller_is_echoed(client: TestClient, name: str) -> None:
    response = client.get("/ping", headers={name: "abc"})
    assert response.headers["request-id"] == response.headers["x-request-id"] == "abc"


def test_origin_gets_cors_headers(client: TestClient) -> None:
    response = client.options("/query", headers={"origin": "http://grafana:3000"})
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["access-control-allow-origin"] == "http://grafana:3000"
    assert response.headers["access-control-allow-methods"] == "DELETE, GET, OPTIONS, POST, PUT"
    assert "Authorization" in response.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in client.options("/query").headers


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (StorageReadOnly("the log failed"), 503, "the log failed"),
        (StorageError("disk on fire"), 503, "disk on fire"),
        (TinyFluxError("something"), 500, "something"),
        (RuntimeError("secret detail"), 500, "internal error"),
        (MemoryError(), 503, "out of memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_of_the_engine_becomes_json_and_no_traceback(
    db: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    text: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tinyflux.columnar.parquet.ParquetStorage.append_batch", fail)
    with caplog.at_level(logging.CRITICAL):
        response = db.post("/write?db=t", content=b"m v=1 1\n")
    assert (response.status_code, response.json()) == (status, {"error": text})


def test_defect_in_a_statement_stays_in_its_result(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gateway.running.RunningQueries.listed", fail)
    with caplog.at_level(logging.CRITICAL):
        results = client.get("/query?q=SHOW+QUERIES;SHOW+USERS").json()["results"]
    assert [result["error"] for result in results] == ["internal error", "not executed"]
    monkeypatch.undo()  # the server asks for the running queries when it stops


def test_error_header_is_bounded_and_has_no_line_breaks(db: TestClient) -> None:
    response = db.post("/write?db=t", content=b"bad\n" * 1000)
    value = response.headers["x-influxdb-error"]
    assert len(value) == 1024
    assert "\n" not in value


def test_error_header_of_any_text_can_be_sent(client: TestClient) -> None:
    client.post("/query", data={"q": "CREATE DATABASE t"})
    response = client.post("/write?db=t", content="é☃\r\r\nX-Evil: 1\n".encode())
    assert response.status_code == 400
    assert "x-evil" not in response.headers
    assert response.headers["x-influxdb-error"].startswith("unable to parse '\\xe9\\u2603")
    assert "é☃" in response.json()["error"]


# --- status -------------------------------------------------------------------------------------
@pytest.mark.parametrize("verbose", ["true", "1", "x"])
def test_verbose_ping_answers_the_version(client: TestClient, verbose: str) -> None:
    response = client.get(f"/ping?verbose={verbose}")
    assert response.status_code == 200
    assert response.json() == {"version": INFLUXDB_VERSION}


@pytest.mark.trap(15)
@pytest.mark.parametrize("verbose", ["", "0", "false"])
def test_ping_that_is_not_verbose_has_no_body(client: TestClient, verbose: str) -> None:
    response = client.get(f"/ping?verbose={verbose}")
    assert (response.status_code, response.content) == (204, b"")


def test_health_passes(client: TestClient) -> None:
    assert client.get("/health").json() == {
        "checks": [],
        "message": "ready for queries and writes",
        "name": "influxdb",
        "status": "pass",
        "version": INFLUXDB_VERSION,
    }


def test_metrics_count_what_was_asked_and_stored(db: TestClient) -> None:
    db.post("/write?db=t", content=b"m v=1 1\nm v=2 2\nbad\n")
    db.get("/query?q=SHOW+USERS;KILL+QUERY+7")
    response = db.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = dict(
        line.split(" ") for line in response.text.splitlines() if not line.startswith("#")
    )
    assert samples["tinyflux_http_requests_total"] == "3"
    assert samples["tinyflux_http_client_errors_total"] == "1"
    assert samples["tinyflux_write_points_total"] == "2"
    assert samples["tinyflux_write_points_dropped_total"] == "1"
    assert samples["tinyflux_write_body_bytes_total"] == "20"
    assert samples["tinyflux_query_statements_total"] == "3"
    assert samples["tinyflux_query_errors_total"] == "1"
    assert samples["tinyflux_databases"] == "1"
    assert float(samples["tinyflux_uptime_seconds"]) >= 0
    for name in samples:
        assert f"# TYPE {name} " in response.text
        assert f"# HELP {name} " in response.text


def test_debug_vars_is_what_telegraf_collects(db: TestClient) -> None:
    db.post("/write?db=t", content=b"m v=1 1\n")
    document = db.get("/debug/vars").json()
    assert document["httpd"]["values"]["pointsWrittenOK"] == 1
    statistics = [value for value in document.values() if "values" in value]
    for statistic in statistics:
        assert set(statistic) == {"name", "tags", "values"}
    [database] = [statistic for statistic in statistics if statistic["name"] == "database"]
    assert database["tags"] == {"database": "t", "retentionPolicy": "autogen"}
    assert database["values"] == {"numMeasurements": 1, "numSeries": 1}
    assert document["system"]["started"] <= document["system"]["currentTime"]


def test_stats_and_diagnostics_name_their_modules(db: TestClient, ask: Ask) -> None:
    stats, none = ask("SHOW STATS; SHOW STATS FOR 'nothing'")
    assert isinstance(stats["series"], list)
    assert {table["name"] for table in stats["series"]} >= {"http", "write", "query"}
    assert none == {"statement_id": 1}
    [build] = ask("SHOW DIAGNOSTICS FOR 'build'")
    assert isinstance(build["series"], list)
    assert build["series"][0]["values"][0][-1] == INFLUXDB_VERSION
