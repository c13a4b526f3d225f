"""Damaged files under a server: the rest is answered, and what is missing is said."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.catalog import Catalog
from gateway.config import Settings
from tinyflux.columnar.files import OsFiles
from tinyflux.columnar.parquet import ParquetStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEEK = 7 * 86_400 * 10**9


def ask(client: TestClient, text: str, **parameters: str) -> dict[str, Any]:
    response = client.post("/query", data={"q": text, "db": "d", "epoch": "ns", **parameters})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = orjson.loads(response.content)["results"]
    return results[0]


def store_path(data: Path, database: str = "d") -> Path:
    return data / database / "autogen"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with the databases d, of three segments of m and one of other, and e."""
    data = tmp_path / "data"
    with TestClient(create_app(Settings(data=data))) as client:
        for name in "de":
            client.post("/query", data={"q": f"CREATE DATABASE {name}"})
        for week in range(1, 4):
            client.post("/write?db=d", content=f"m v={week} {week * WEEK}")
        client.post("/write?db=d", content="other v=1 1")
        client.post("/write?db=e", content="m v=1 1")
    catalog = Catalog(data, Settings())
    for name in "de":
        store = catalog.storage(name)
        assert isinstance(store, ParquetStorage)
        store.flush()
    catalog.close()
    return data


@pytest.fixture
def client(data: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(data=data))) as client:
        yield client


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_a_query_over_a_damaged_segment_answers_the_rest_with_a_warning(
    data: Path, client: TestClient
) -> None:
    damage(sorted(store_path(data).glob("segments/*/*.parquet"))[2])
    for _ in range(2):
        result = ask(client, "SELECT v FROM m")
        assert result["series"][0]["values"] == [[WEEK, 1], [3 * WEEK, 3]]
        (message,) = result["messages"]
        assert message["level"] == "warning"
        assert "up to 1 points of m between 1970-01-15T00:00:00Z and" in message["text"]
    assert "messages" not in ask(client, f"SELECT v FROM m WHERE time <= {WEEK}")
    assert "messages" not in ask(client, "SELECT v FROM other")
    inner = ask(client, "SELECT max(v) FROM (SELECT mean(v) AS v FROM m GROUP BY time(1w))")
    assert len(inner["messages"]) == 1
    assert inner["series"][0]["values"][0][1] == 3
    empty = ask(client, f"SELECT v FROM m WHERE time = {2 * WEEK}")
    assert "series" not in empty
    assert len(empty["messages"]) == 1  # not a silently empty answer
    first = orjson.loads(
        client.get("/query", params={"q": "SELECT v FROM m", "db": "d", "chunked": "true"}).content
    )
    assert len(first["results"][0]["messages"]) == 1


def test_damage_shows_in_statistics_diagnostics_metrics_and_vars(
    data: Path, client: TestClient
) -> None:
    assert all(t["name"] != "quarantine" for t in ask(client, "SHOW DIAGNOSTICS")["series"])
    damage(sorted(store_path(data).glob("segments/*/*.parquet"))[2])
    ask(client, "SELECT v FROM m")
    (table,) = ask(client, "SHOW DIAGNOSTICS FOR 'quarantine'")["series"]
    row = dict(zip(table["columns"], table["values"][0], strict=True))
    assert row["database"] == "d"
    assert row["measurement"] == "m"
    assert row["first"] == row["last"] == "1970-01-15T00:00:00Z"
    assert row["points"] == 1
    stats = ask(client, "SHOW STATS FOR 'store'")["series"]
    (table,) = [t for t in stats if t["tags"]["database"] == "d"]
    assert dict(zip(table["columns"], table["values"][0], strict=True))["segments_damaged"] == 1
    assert "tinyflux_store_segments_damaged 1\n" in client.get("/metrics").text
    values = client.get("/debug/vars").json()["store:d:autogen"]["values"]
    assert values["points_missing"] == 1


@pytest.mark.parametrize("pattern", ["manifest", "series/*"])
def test_a_store_that_cannot_be_opened_says_so_and_the_others_work(
    data: Path, pattern: str
) -> None:
    (path,) = store_path(data).glob(pattern)
    damage(path)
    with TestClient(create_app(Settings(data=data))) as client:
        for _ in range(2):
            result = ask(client, "SELECT v FROM m")
            assert str(path) in result["error"]
            assert "tinyflux-gateway check" in result["error"]
            refused = client.post("/write?db=d", content="m v=1 1")
            assert refused.status_code == 500
            assert str(path) in refused.json()["error"]
        assert "series" in ask(client, "SELECT v FROM e.autogen.m")
        assert client.post("/write?db=e", content="m v=2 2").status_code == 204
        assert client.get("/ping").status_code == 204
        assert client.get("/metrics").status_code == 200
        assert "error" not in ask(client, "DROP DATABASE d")
        assert "error" not in ask(client, "CREATE DATABASE d")
        assert client.post("/write?db=d", content="m v=1 1").status_code == 204
        assert ask(client, "SELECT v FROM m")["series"][0]["values"] == [[1, 1]]


def test_a_machine_that_is_out_of_something_says_what(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    ask(client, "SELECT v FROM other")  # the store is open
    with monkeypatch.context() as patched:
        patched.setattr(OsFiles, "readable", fail)
        result = ask(client, "SELECT v FROM m")
        assert "Too many open files" in result["error"]
        patched.setattr(OsFiles, "make_directory", fail)  # of a store that is not open yet
        refused = client.post("/write?db=e", content="m v=2 2")
        assert refused.status_code == 503
        assert "Too many open files" in refused.json()["error"]
        assert "Too many open files" in ask(client, "SELECT v FROM e.autogen.m")["error"]
    assert len(ask(client, "SELECT v FROM m")["series"][0]["values"]) == 3
    assert client.post("/write?db=e", content="m v=2 2").status_code == 204
