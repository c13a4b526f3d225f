"""Shards by InfluxQL: their numbers, dropping them, and what a new duration does to them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import orjson
import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings
from tinyflux.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEEKS = b"m,h=a v=1 1700000000\nm,h=a v=2 1690000000\nm,h=b v=3 1710000000\n"


@contextmanager
def server(path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(data=path))) as client:
        yield client


def run(client: TestClient, text: str, db: str = "t") -> dict[str, object]:
    response = client.post("/query", data={"q": text, "db": db, "epoch": "s"})
    [*_, result] = orjson.loads(response.content)["results"]
    assert "error" not in result, result
    return dict(result)


def rows(client: TestClient, text: str) -> list[list[object]]:
    series = run(client, text).get("series", [])
    assert isinstance(series, list)
    return [row for table in series for row in table.get("values", [])]


def shards(client: TestClient) -> list[tuple[object, str]]:
    """Number and first day of each shard."""
    return [(row[0], str(row[4])[:10]) for row in rows(client, "SHOW SHARDS")]


def write(client: TestClient, body: bytes, **parameters: str) -> None:
    response = client.post(
        "/write", params={"db": "t", "precision": "s", **parameters}, content=body
    )
    assert response.status_code == 204, response.text


def test_numbers_outlive_a_restart_and_are_never_given_again(tmp_path: Path) -> None:
    with server(tmp_path) as client:
        run(client, "CREATE DATABASE t")
        write(client, WEEKS)
        assert shards(client) == [(1, "2023-07-17"), (2, "2023-11-13"), (3, "2024-03-04")]
        write(client, b"m v=1 1600000000")
    with server(tmp_path) as client:
        expected = [(4, "2020-09-07"), (1, "2023-07-17"), (2, "2023-11-13"), (3, "2024-03-04")]
        assert shards(client) == expected
        assert [row[0] for row in rows(client, "SHOW SHARD GROUPS")] == [4, 1, 2, 3]
        run(client, "DROP SHARD 3")
        assert shards(client) == expected[:3]
        write(client, WEEKS)
        assert shards(client) == [*expected[:3], (5, "2024-03-04")]
        run(client, "DROP DATABASE t; CREATE DATABASE t")
        write(client, WEEKS)
        assert [number for number, _ in shards(client)] == [6, 7, 8]
        run(client, "DROP SHARD 1; DROP SHARD 5; DROP SHARD 99")
        assert len(rows(client, "SELECT v FROM m")) == 3


def test_a_dropped_shard_takes_its_points_and_series_also_after_a_restart(tmp_path: Path) -> None:
    with server(tmp_path) as client:
        run(client, "CREATE DATABASE t; CREATE RETENTION POLICY r ON t DURATION 0s REPLICATION 1")
        write(client, WEEKS)
        write(client, WEEKS, rp="r")
        assert len(shards(client)) == 6
        run(client, "DROP SHARD 3")
        assert rows(client, "SELECT v FROM m") == [[1690000000, 2], [1700000000, 1]]
        assert len(rows(client, "SELECT v FROM r.m")) == 3
    with server(tmp_path) as client:
        assert rows(client, "SELECT v FROM m") == [[1690000000, 2], [1700000000, 1]]
        assert [number for number, _ in shards(client)] == [1, 2, 4, 5, 6]
        run(client, "DROP RETENTION POLICY r ON t")
        assert [number for number, _ in shards(client)] == [1, 2]
        assert rows(client, "SHOW SERIES") == [["m,h=a"]]


def test_a_new_shard_duration_holds_at_once_and_outlives_a_restart(tmp_path: Path) -> None:
    with server(tmp_path) as client:
        run(client, "CREATE DATABASE t")
        write(client, b"m v=1 1700000000")
        run(client, "ALTER RETENTION POLICY autogen ON t SHARD DURATION 1d")
        write(client, b"m v=2 1700000001\nm v=3 1700500000")
        bounds = [["2023-11-13", "2023-11-20"], ["2023-11-20", "2023-11-21"]]
        groups = rows(client, "SHOW SHARD GROUPS")
        assert [[str(row[3])[:10], str(row[4])[:10]] for row in groups] == bounds
    with server(tmp_path) as client:
        write(client, b"m v=4 1700600000")
        groups = rows(client, "SHOW SHARD GROUPS")
        bounds.append(["2023-11-21", "2023-11-22"])
        assert [[str(row[3])[:10], str(row[4])[:10]] for row in groups] == bounds
        assert rows(client, "SELECT sum(v) FROM m") == [[0, 10]]


def test_expiry_time_is_the_end_and_the_duration_of_the_policy(tmp_path: Path) -> None:
    with server(tmp_path) as client:
        run(client, "CREATE DATABASE t WITH DURATION 1000000h SHARD DURATION 1h")
        write(client, b"m v=1 1700000000")
        [row] = rows(client, "SHOW SHARD GROUPS")
        assert row[3:] == ["2023-11-14T22:00:00Z", "2023-11-14T23:00:00Z", "2137-12-13T15:00:00Z"]


def test_damaged_numbers_keep_the_server_from_starting(tmp_path: Path) -> None:
    with server(tmp_path):
        pass
    (tmp_path / "shards.json").write_bytes(b'{"version":1}')
    with pytest.raises(CorruptionError, match=r"shards\.json"):
        create_app(Settings(data=tmp_path))
