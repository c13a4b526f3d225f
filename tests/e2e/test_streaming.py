"""Long raw answers of a real server: memory stays flat, and a client that stalls lets go of all."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import pytest

from tests.conformance.replay import Client
from tests.gateway_process import running_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS = 20
SEND_TIMEOUT_S = 1.0


@contextmanager
def _server(directory: Path, n_rows: int) -> Iterator[tuple[str, int]]:
    """Run a server with points at 0, 1, 2 ... ns, most of them in segments."""
    flags = ("--memory-bytes=60000000", f"--body-timeout-s={SEND_TIMEOUT_S}")
    with running_gateway(directory, *flags) as (url, pid):
        with Client(url) as client:
            client.execute("CREATE DATABASE d")
            for start in range(0, n_rows, 20_000):
                rows = range(start, start + 20_000)
                body = "\n".join([f"m,h=h{n % HOSTS} v={n}i,w={n}.5 {n}" for n in rows])
                assert client.request("POST", "/write?db=d", body.encode()).status == 204
        yield url, pid


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with _server(tmp_path_factory.mktemp("streaming"), 300_000) as (url, _):
        yield url


def _peak_bytes(url: str, pid: int, text: str, **parameters: str) -> tuple[int, int]:
    """Return the length of an answer and the peak of resident memory while it was read."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    query = urlencode({"db": "d", "epoch": "ns", "q": text, **parameters})
    size = 0
    with urlopen(f"{url}/query?{query}", timeout=60) as response:
        while piece := response.read(1 << 16):
            size += len(piece)
    status = Path(f"/proc/{pid}/status").read_text()
    return size, int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_answer(tmp_path: Path) -> None:
    n_rows = 3_000_000
    with _server(tmp_path, n_rows) as server:
        for text, chunked in (
            ("SELECT * FROM m WHERE time < {}", "false"),
            ("SELECT * FROM m WHERE time < {} ORDER BY time DESC", "true"),
            ("SELECT * FROM m WHERE time < {} GROUP BY *", "false"),
        ):
            _, before = _peak_bytes(*server, text.format(n_rows // 6), chunked=chunked)
            size, peak = _peak_bytes(*server, text.format(n_rows), chunked=chunked)
            assert size > 80_000_000
            assert peak - before < size / 2  # read at once, it takes four times its size


def test_stalled_client_does_not_hold_a_query(server: str) -> None:
    address = urlsplit(server)
    with socket.create_connection((address.hostname or "", address.port or 0)) as stalled:
        query = urlencode({"db": "d", "q": "SELECT * FROM m"})
        stalled.sendall(f"GET /query?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        stalled.recv(1)
        with Client(server) as client:
            assert "SELECT * FROM m" in client.execute("SHOW QUERIES").body
            deadline_s = time.monotonic() + 10 * SEND_TIMEOUT_S
            while "SELECT * FROM m" in client.execute("SHOW QUERIES").body:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)


def test_client_that_leaves_does_not_hold_a_query(server: str) -> None:
    query = urlencode({"db": "d", "q": "SELECT * FROM m"})
    with urlopen(f"{server}/query?{query}") as response:
        response.read(1000)
    with Client(server) as client:
        deadline_s = time.monotonic() + 10
        while "SELECT * FROM m" in client.execute("SHOW QUERIES").body:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
