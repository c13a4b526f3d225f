"""The real server as a process, with everything a signal or a socket can do to it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[2]
BANNER = re.compile(r"listening on (http://\S+), data in ")
PATIENCE_S = 30.0


class Server:
    """A server process: started, spoken to, stopped, killed."""

    def __init__(self, data: Path, log: Path, *flags: str) -> None:
        self.data = data
        self._log = log
        command = [sys.executable, "-m", "gateway", "serve", "--data", str(data), "--port", "0"]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.banner = self._banner()
        found = BANNER.search(self.banner)
        assert found, f"no banner: {self.banner!r} {log.read_text()[-2000:]}"
        self.url = found[1]
        address = urlsplit(self.url)
        assert address.hostname is not None
        assert address.port is not None
        self.address = address.hostname, address.port
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def _banner(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def query(self, text: str, **parameters: str) -> list[dict[str, object]]:
        """Run statements and return their results."""
        response = self.client.post("/query", data={"q": text, **parameters})
        assert response.status_code == 200, response.text
        results: list[dict[str, object]] = response.json()["results"]
        return results

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit code."""
        self.client.close()
        self.process.send_signal(number)  # nothing happens when it has ended already
        code = self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    @property
    def log(self) -> str:
        """What the process wrote to stderr."""
        return self._log.read_text()


def values(server: Server, text: str, db: str = "t") -> object:
    """Run one statement and return the rows of its first series."""
    [result] = server.query(text, db=db, epoch="ns")
    return result["series"][0]["values"]  # type: ignore[index]  # JSON


@pytest.fixture(scope="module")
def process(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that the tests of a module share; `FLAGS` there are its flags."""
    directory = tmp_path_factory.mktemp("server")
    flags: Sequence[str] = getattr(request.module, "FLAGS", ())
    started = Server(directory / "data", directory / "server.log", *flags)
    yield started
    assert "Traceback" not in started.log
    assert started.stop() == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers on one data directory, one after another; those still there are ended."""
    servers: list[Server] = []

    def started(*flags: str) -> Server:
        server = Server(tmp_path / "data", tmp_path / "server.log", *flags)
        servers.append(server)
        return server

    yield started
    for server in servers:
        server.stop()


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    """A server that has the database `t`."""
    started = start()
    started.query("CREATE DATABASE t")
    return started


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll until a condition holds, for a bounded time."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
