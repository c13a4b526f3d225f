"""A server whose disk is full, or that may open no more files: it says so, and loses nothing."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2 as httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e

BALLAST_BYTES = 1 << 19


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB where the server puts its data, with some ballast on it."""
    path = tmp_path / "data"
    path.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mount.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mount.stderr.strip()}")
    try:
        (path / "ballast").write_bytes(bytes(BALLAST_BYTES))
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def write(server: Server, number: int) -> httpx.Response:
    """Write 100 points of a time that noise fills, so that nothing compresses them."""
    noise = os.urandom(15_000).hex()
    lines = [
        f'm,i={i} v={number}i,s="{noise[i * 300 : i * 300 + 300]}" {number}' for i in range(100)
    ]
    return server.client.post("/write?db=t", content="\n".join(lines))


def stored(server: Server) -> dict[int, int]:
    """Return how many points there are of each time."""
    (result,) = server.query("SELECT v FROM m", db="t", epoch="ns")
    assert "error" not in result, result
    assert "messages" not in result, result
    found: dict[int, int] = {}
    series: Any = result.get("series", [])
    for time, value in series[0]["values"] if series else ():
        assert time == value
        found[time] = found.get(time, 0) + 1
    return found


def test_a_full_disk_refuses_writes_until_there_is_room(
    small_disk: Path, start: Callable[..., Server]
) -> None:
    server = start("--memtable-bytes", "300000")
    server.query("CREATE DATABASE t")
    acknowledged: set[int] = set()
    refusals: list[httpx.Response] = []
    number = 0
    while len(refusals) < 8:
        number += 1
        response = write(server, number)
        if response.status_code == 204:
            acknowledged.add(number)
        else:
            refusals.append(response)
        assert number < 1000, "the disk is not full"
    assert {response.status_code for response in refusals} == {503}
    assert all("No space left on device" in r.json()["error"] for r in refusals)
    assert stored(server) == dict.fromkeys(acknowledged, 100)
    for number in sorted(acknowledged)[:3]:  # so short a frame may still have room
        (result,) = server.query(f"DELETE FROM m WHERE time = {number}", db="t")
        if "error" in result:
            assert "No space left on device" in str(result["error"])
        else:
            acknowledged.remove(number)
        assert stored(server) == dict.fromkeys(acknowledged, 100)
    assert "Traceback" not in "".join(response.text for response in refusals)
    (small_disk / "ballast").unlink()
    for number in range(2000, 2005):
        assert write(server, number).status_code == 204
        acknowledged.add(number)
    assert stored(server) == dict.fromkeys(acknowledged, 100)
    server.stop()
    again = start()
    assert stored(again) == dict.fromkeys(acknowledged, 100)
    tables: Any = again.query("SHOW STATS FOR 'store'")[0]["series"]
    (stats,) = tables
    counters = dict(zip(stats["columns"], stats["values"][0], strict=True))
    assert counters["log_damaged"] == counters["segments_damaged"] == 0
    (result,) = again.query("DELETE FROM m", db="t")
    assert "error" not in result
    assert stored(again) == {}


@contextmanager
def no_more_files(pid: int) -> Iterator[None]:
    """Keep a process from opening files beyond those it has."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_without_file_handles_errors_say_so_and_all_goes_on_afterwards(
    start: Callable[..., Server],
) -> None:
    server = start("--memtable-bytes", "100000")  # a segment every few writes
    server.query("CREATE DATABASE t")
    acknowledged = set(range(1, 12))
    for number in acknowledged:
        assert write(server, number).status_code == 204
    server.stop()
    server = start("--memtable-bytes", "100000")
    server.query("SELECT v FROM nothing", db="t")  # the store is open, the segments are not
    with no_more_files(server.process.pid):
        for number in range(100, 115):
            response = write(server, number)
            if response.status_code == 204:
                acknowledged.add(number)
            else:
                assert response.status_code == 503
                assert "Too many open files" in response.json()["error"]
        (result,) = server.query("SELECT v FROM m", db="t")
        assert "Too many open files" in str(result["error"])
        (result,) = server.query("CREATE DATABASE other")
        assert "Too many open files" in str(result["error"])
        assert server.client.get("/ping").status_code == 204
    assert stored(server) == dict.fromkeys(acknowledged, 100)
    assert write(server, 500).status_code == 204
    acknowledged.add(500)
    with httpx.Client(base_url=server.url, timeout=30) as another:  # accepting works again too
        assert another.get("/ping").status_code == 204
    assert stored(server) == dict.fromkeys(acknowledged, 100)
    server.stop()
    assert stored(start()) == dict.fromkeys(acknowledged, 100)
