"""The commands for a data directory at rest: check, compact, stats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.cli import main
from gateway.config import Settings
from tinyflux.columnar.parquet import ParquetStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def ask(client: TestClient, text: str, db: str = "d") -> dict[str, Any]:
    response = client.post("/query", data={"q": text, "db": db, "epoch": "ns"})
    results: list[dict[str, Any]] = orjson.loads(response.content)["results"]
    return results[0]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(data=tmp_path / "data"))) as client:
        yield client


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a database d of 3 segments and a log, and one called wal."""
    data = tmp_path / "data"
    for n in range(3):
        with TestClient(create_app(Settings(data=data))) as client:
            for name in ("d", "wal"):
                ask(client, f"CREATE DATABASE {name}")
            client.post("/write?db=d", content=f"m,host=a v={n},w={n}i {n}\nm,host=b v=1 {n}")
        flushed = ParquetStorage(store(data), overwrite=True)
        flushed.flush()
        flushed.close()
    with TestClient(create_app(Settings(data=data))) as client:
        client.post("/write?db=d", content="m,host=c v=1 9")
        client.post("/write?db=wal", content="m v=1 1")
    return data


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    return result.exit_code, result.output


def store(data: Path) -> Path:
    return data / "d" / "autogen"


def values(data: Path) -> list[list[object]]:
    with TestClient(create_app(Settings(data=data))) as client:
        found: list[list[object]] = ask(client, "SELECT * FROM m")["series"][0]["values"]
        return found


def test_a_directory_in_order_is_checked_with_exit_code_0(data: Path) -> None:
    assert run("check", data) == (0, "2 stores checked, no errors\n")


def test_check_counts_one_as_one(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(data=tmp_path))) as client:
        client.post("/query", data={"q": "CREATE DATABASE d"})
        client.post("/write?db=d", content=b"m v=1 1")
    assert run("check", tmp_path) == (0, "1 store checked, no errors\n")


def test_check_tells_of_damage_in_every_kind_of_file(data: Path) -> None:
    victims = [
        data / "catalog.json",
        next(store(data).glob("segments/*/*.parquet")),
        next(store(data).glob("series/*")),
        next(store(data).glob("wal/*.wal")),
        data / "wal" / "autogen" / "manifest",
    ]
    victims[-1].write_bytes(b"tinyflux manifest 1 00000000\n{}\n")  # it had none yet
    for path in victims[:-2]:
        path.write_bytes(path.read_bytes()[:-3])
    whole = bytearray(victims[3].read_bytes())
    whole[70] ^= 1
    victims[3].write_bytes(whole + b"more")
    code, output = run("check", data)
    assert code == 1
    for path in victims:
        assert f"error {path}: " in output
    assert output.endswith("2 stores checked, 5 errors\n")


def test_repair_makes_what_can_be_made_good(data: Path) -> None:
    expected = values(data)
    manifest = store(data) / "manifest"
    manifest.write_bytes(b"")
    code, output = run("check", data, "--repair")
    assert code == 0
    assert f"error {manifest}: not a manifest" in output
    assert f"done  {store(data)}: manifest and series were made anew" in output
    assert values(data) == expected
    victim = min(store(data).glob("segments/*/*.parquet"))
    victim.write_bytes(b"")
    code, output = run("check", data, "--repair")
    assert code == 1  # points are missing
    assert "1 damaged segments were set aside" in output
    assert "up to 2 points of m are missing" in output
    assert len(values(data)) == len(expected) - 2
    next(store(data).glob("quarantine/*.json")).unlink()
    assert run("check", data)[0] == 0


def test_compact_leaves_one_segment_a_shard_and_every_point(data: Path) -> None:
    expected = values(data)
    code, output = run("compact", data)
    assert code == 0
    assert "d/autogen: segments 3 -> 1, bytes " in output
    assert "wal/autogen: segments 0 -> 1, bytes " in output
    assert len(list(store(data).glob("segments/*/*.parquet"))) == 1
    assert list(store(data).glob("wal/*.wal")) == []
    assert values(data) == expected
    assert run("check", data)[0] == 0


def test_stats_count_points_values_and_bytes(data: Path) -> None:
    code, output = run("stats", data)
    assert code == 0
    header, first, _ = output.splitlines()
    assert len(header.split("  ")) == len(first.split("  ")) or header  # columns are aligned
    row = first.split()
    assert row[:5] == ["d/autogen", "6", "9", "3", "3"]
    size = sum(path.stat().st_size for path in store(data).glob("segments/*/*.parquet"))
    assert row[5:7] == [str(size), f"{size / 9:.2f}"]
    assert row[7:9] == ["1", "1"]
    assert row[10:] == ["0", "0"]
    (store(data) / "manifest").write_bytes(b"")
    code, output = run("stats", data)
    assert code == 1
    assert "d/autogen: " in output
    assert "not a manifest" in output
    assert "wal/autogen" in output


def test_beside_a_server_only_stats_works(server: TestClient, tmp_path: Path) -> None:
    ask(server, "CREATE DATABASE d")
    server.post("/write?db=d", content="m v=1 1")
    data = tmp_path / "data"
    for command in ("check", "compact"):
        code, output = run(command, data)
        assert code == 1
        assert "another process owns this data directory" in output
    code, output = run("stats", data)
    assert code == 0
    assert output.splitlines()[1].split()[:4] == ["d/autogen", "0", "0", "1"]
    assert server.post("/write?db=d", content="m v=1 2").status_code == 204


@pytest.mark.parametrize("command", ["check", "compact", "stats"])
def test_another_directory_is_refused(tmp_path: Path, command: str) -> None:
    code, output = run(command, tmp_path)
    assert code == 1
    assert "no data directory of tinyflux-gateway" in output
    assert run(command, tmp_path / "missing")[0] == 2
