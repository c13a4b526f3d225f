"""Limits of series on every way to write; the texts up to the hint are influxd 1.6.7's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings
from tests.unit.gateway.protobuf import series, snappy

if TYPE_CHECKING:
    from collections.abc import Iterator

SERIES_TEXT = (
    'max-series-per-database limit exceeded: (3); tag "h" of measurement "m" has most values: 3'
)
VALUES_TEXT = 'max-values-per-tag limit exceeded (3/3): measurement="m" tag="h" value="d"'


def client_of(**limits: int) -> TestClient:
    return TestClient(create_app(Settings(**limits), in_memory=True))  # type: ignore[arg-type]


@pytest.fixture
def full() -> Iterator[TestClient]:
    """A server whose database has as many series as it may."""
    with client_of(max_series_per_database=3) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        client.post("/write?db=t", content=b"m,h=a v=1 1\nm,h=b v=1 1\nm,h=c v=1 1")
        yield client


def count(client: TestClient) -> int:
    answer = client.get("/query?db=t&q=SELECT count(v) FROM m").json()
    found: int = answer["results"][0]["series"][0]["values"][0][1]
    return found


def metric(client: TestClient, name: str) -> str:
    lines = client.get("/metrics").text.splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name} "))


@pytest.mark.parametrize("path", ["/write?db=t", "/api/v2/write?bucket=t", "/api/v3/write_lp?db=t"])
def test_points_of_known_series_are_kept_and_the_others_told(full: TestClient, path: str) -> None:
    response = full.post(path, content=b"m,h=d v=1 2\nm,h=a v=2 2\nm,h=e v=3 3\n")
    assert response.status_code == 400
    assert f"partial write: {SERIES_TEXT} dropped=2" in response.text.replace('\\"', '"')
    assert count(full) == 4
    assert metric(full, "tinyflux_write_points_over_limit_total") == "2"
    assert metric(full, "tinyflux_write_points_dropped_total") == "2"


def test_body_that_is_to_be_stored_as_a_whole_is_refused_as_a_whole(full: TestClient) -> None:
    path = "/api/v3/write_lp?db=t&accept_partial=false"
    response = full.post(path, content=b"m,h=a v=2 2\nm,h=e v=3 3\n")
    assert (response.status_code, response.json()) == (400, {"error": SERIES_TEXT})
    assert count(full) == 3


def test_remote_write_and_into_are_refused_too(full: TestClient) -> None:
    data = series({"__name__": "up", "h": "x"}, [(1.0, 1)])
    headers = {"content-encoding": "snappy", "content-type": "application/x-protobuf"}
    response = full.post("/api/v1/prom/write?db=t", content=snappy(data), headers=headers)
    assert response.json() == {"error": f"partial write: {SERIES_TEXT} dropped=1"}
    answer = full.post("/query?db=t", data={"q": "SELECT v INTO n FROM m GROUP BY h"}).json()
    error = f"partial write: {SERIES_TEXT} dropped=3"
    assert answer == {"results": [{"statement_id": 0, "error": error}]}
    assert metric(full, "tinyflux_write_points_over_limit_total") == "4"


def test_series_of_all_policies_count_and_dropping_makes_room(full: TestClient) -> None:
    statement = "CREATE RETENTION POLICY r ON t DURATION 0s REPLICATION 1"
    full.post("/query?db=t", data={"q": statement})
    assert full.post("/write?db=t&rp=r", content=b"m,h=a v=1 1").status_code == 400
    full.post("/query?db=t", data={"q": "DROP SERIES FROM m WHERE h = 'a'"})
    assert full.post("/write?db=t&rp=r", content=b"m,h=a v=1 1").status_code == 204
    full.post("/query", data={"q": "DROP DATABASE t; CREATE DATABASE t"})
    assert full.post("/write?db=t", content=b"m,h=1 v=1\nm,h=2 v=1\nm,h=3 v=1").status_code == 204


def test_values_of_a_tag_are_limited_in_influxds_words() -> None:
    with client_of(max_values_per_tag=3) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        body = b"m,h=a v=1 1\nm,h=b v=1 1\nm,h=c v=1 1\nm,h=d v=1 1\nm,h=a v=1 2\nm,g=d v=1 2"
        response = client.post("/write?db=t", content=body)
        assert response.json() == {"error": f"partial write: {VALUES_TEXT} dropped=1"}
        assert count(client) == 5


def test_a_limit_of_zero_is_none() -> None:
    with client_of(max_series_per_database=0, max_values_per_tag=0) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        assert client.post("/write?db=t", content=b"m,h=a v=1\nm,h=b v=1").status_code == 204
