"""Servers for the conformance cases: ours or the one at INFLUX_URL; and the real influxd."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.replay import Client
from tests.oracle import influxd_path, running_influxd

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT_S = 30.0
ROOT = Path(__file__).parents[2]
ADDRESS = re.compile(r"https?://[\w.:\[\]-]+")


def _start_server(directory: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start our server on a free port; return it and the URL of its banner."""
    log = directory / "server.log"
    command = [sys.executable, "-m", "gateway", "serve", "--data", str(directory / "data")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", "0"], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := ADDRESS.search(log.read_text(errors="replace")):
            return process, found.group()
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-4000:]}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of the server under test: INFLUX_URL, or one of ours started for this run."""
    if url := os.environ.get("INFLUX_URL"):
        yield url
        return
    process, url = _start_server(tmp_path_factory.mktemp("server"))
    yield url
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def client(server: str) -> Iterator[Client]:
    """Give a connection to the server under test."""
    with Client(server) as client:
        yield client


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Give a connection to a real influxd; skip where it is not installed."""
    if influxd_path() is None:
        pytest.skip("influxd is not installed (Debian package influxdb)")
    with running_influxd(tmp_path_factory.mktemp("influxd")) as url, Client(url) as client:
        yield client
