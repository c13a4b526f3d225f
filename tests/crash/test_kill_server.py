"""A real server is killed with SIGKILL under concurrent writers, while it flushes and compacts.

After each start every acknowledged batch is there, whole and once, and nothing that was not sent. A
batch whose answer did not come may be there, but then whole.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WRITERS = 3
POINTS_A_BATCH = 10
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")
TIMEOUT_S = 60
FLAGS = ("--memtable-bytes", "30000", "--log-level", "error")


@dataclass
class Writer:
    """One client: sends batch after batch, each with a number of its own.

    Attributes:
        name: Its tag.
        sent: The number of the last batch that was sent.
        acknowledged: The numbers of the batches that were answered with 204.
    """

    name: str
    sent: int = 0
    acknowledged: set[int] = field(default_factory=set)

    def run(self, port: int, until: threading.Semaphore) -> None:
        """Write until the server is gone; tell of each acknowledgement."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        with suppress(OSError, http.client.HTTPException):
            while True:
                self.sent += 1
                connection.request("POST", "/write?db=d", self.batch(self.sent))
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 204
                self.acknowledged.add(self.sent)
                until.release()
        connection.close()

    def batch(self, number: int) -> str:
        """Return lines of different series, all at the time of the number."""
        text = "x" * (number % 100)
        lines = [
            f'm,w={self.name},i={i} v={number}i,s="{text}" {number}' for i in range(POINTS_A_BATCH)
        ]
        return "\n".join(lines)


def ask(port: int, query: str) -> list[dict[str, object]]:
    """Return the series of the answer to a query."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("POST", f"/query?db=d&epoch=ns&q={quote(query)}")
    result = json.loads(connection.getresponse().read())["results"][0]
    connection.close()
    assert "error" not in result
    found: list[dict[str, object]] = result.get("series", [])
    return found


def check(port: int, writers: list[Writer], first: dict[str, int]) -> None:
    """Compare what the server has from some batch on with what the writers sent."""
    for writer in writers:
        start = first[writer.name]
        seen: dict[int, int] = {}
        query = f"SELECT v, s FROM m WHERE w = '{writer.name}' AND time >= {start} GROUP BY i"
        for series in ask(port, query):
            rows = series["values"]
            assert isinstance(rows, list)
            times = [time for time, _, _ in rows]
            assert len(set(times)) == len(times)
            for time, value, text in rows:
                assert (value, text) == (time, "x" * (time % 100))
                seen[time] = seen.get(time, 0) + 1
        assert set(seen.values()) <= {POINTS_A_BATCH}
        expected = {number for number in writer.acknowledged if number >= start}
        assert set(seen) >= expected
        # beyond these only a batch that was under way when the server was killed
        assert set(seen) <= expected | set(range(start, writer.sent + 1))
        writer.acknowledged |= set(seen)  # it was seen: it has to stay


def serve(process: subprocess.Popen[str]) -> tuple[int, int]:
    """Start the server; return its process id and port."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    pid = 0
    for line in process.stdout:
        if line.startswith("pid "):
            pid = int(line.split()[1])
        if found := ADDRESS.search(line):
            port = int(found[1])
            if pid:
                return pid, port
            pid = int(next(process.stdout).split()[1])
            return pid, port
        assert not line.startswith("dead"), "the server did not start"
    raise AssertionError("the server did not start")


def wait_until_dead(process: subprocess.Popen[str]) -> int:
    """Return the exit code of the server."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("dead "):
            return int(line.split()[1])
    raise AssertionError("the parent of the server is gone")


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.server", str(tmp_path / "data"), *FLAGS],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(TIMEOUT_S) == 0


@pytest.mark.e2e
@pytest.mark.parametrize("kills", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_what_a_killed_server_acknowledged_is_there_once(
    parent: subprocess.Popen[str], kills: int
) -> None:
    chance = random.Random(kills)
    writers = [Writer(str(number)) for number in range(WRITERS)]
    first = {writer.name: 1 for writer in writers}
    pid, port = serve(parent)
    ask(port, "CREATE DATABASE d")
    for _ in range(kills):
        acknowledgements = threading.Semaphore(0)
        threads = [
            threading.Thread(target=writer.run, args=(port, acknowledgements)) for writer in writers
        ]
        for thread in threads:
            thread.start()
        for _ in range(chance.randint(1, chance.choice((30, 400)))):  # long enough to flush
            assert acknowledgements.acquire(timeout=TIMEOUT_S)
        os.kill(pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert wait_until_dead(parent) == -signal.SIGKILL
        pid, port = serve(parent)
        check(port, writers, first)
        first = {writer.name: max(1, writer.sent - 20) for writer in writers}
    check(port, writers, dict.fromkeys(first, 1))
    os.kill(pid, signal.SIGTERM)
    assert wait_until_dead(parent) == 0
    assert list(Path(str(parent.args[3]), "d").rglob("*.parquet"))  # type: ignore[index]  # a list
