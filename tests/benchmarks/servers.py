"""The servers that a benchmark asks in turn, each with its name, URL and process."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conformance.replay import Client
from tests.gateway_process import running_gateway
from tests.oracle import START_TIMEOUT_S, free_ports, running_influxd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

VICTORIA = "victoria-metrics"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        name: What the tables call it.
        url: Where it listens.
        pid: Its process.
        directory: Where its data lie.
    """

    name: str
    url: str
    pid: int
    directory: Path

    def cpu_s(self) -> float:
        """Return the CPU time the process has used, in seconds (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def forget_peak(self) -> None:
        """Begin to look for the peak of the resident memory (Linux)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """Return the most resident memory there was since `forget_peak` (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def resident_bytes(self) -> int:
        """Return the resident memory of the process (Linux)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def disk_bytes(self) -> int:
        """Return the space its files take on disk; holes in files do not count."""
        return sum(path.stat().st_blocks * 512 for path in self.directory.rglob("*"))


@contextmanager
def both_servers() -> Iterator[tuple[Server, ...]]:
    """Run ours and an influxd on temporary directories; end them and remove the data afterwards."""
    with running_servers(["tinyflux", "influxd"]) as servers:
        yield servers


@contextmanager
def running_servers(names: Iterable[str]) -> Iterator[tuple[Server, ...]]:
    """Run servers on temporary directories; end them and remove the data afterwards.

    Args:
        names: "tinyflux", "no core" (ours without the compiled reader), "influxd", "victoria"; the
            last only if it is installed.
    """
    runs: dict[str, Callable[[Path], AbstractContextManager[tuple[str, int]]]] = {
        "tinyflux": running_gateway,
        "no core": partial(running_gateway, core=False),
        "influxd": running_influxd,
        "victoria": _running_victoria,
    }
    with ExitStack() as stack:
        servers = []
        for name in names:
            if name == "victoria" and shutil.which(VICTORIA) is None:
                continue
            temporary = tempfile.TemporaryDirectory(prefix="tinyflux-bench-")
            directory = Path(stack.enter_context(temporary))
            servers.append(Server(name, *stack.enter_context(runs[name](directory)), directory))
        yield tuple(servers)


@contextmanager
def _running_victoria(directory: Path) -> Iterator[tuple[str, int]]:
    """Run a VictoriaMetrics; it takes line protocol at /write, and has no databases."""
    [port] = free_ports(1)
    address = f"127.0.0.1:{port}"
    flags = [
        f"-storageDataPath={directory}",
        f"-httpListenAddr={address}",
        "-retentionPeriod=100y",  # the data of the benchmarks are of 2023
        "-search.disableCache",  # of answers
        "-http.connTimeout=1h",
        "-http.idleConnTimeout=1h",
    ]
    with (directory / "victoria.log").open("wb") as output:
        process = subprocess.Popen([VICTORIA, *flags], stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"http://{address}"
        _wait_until_ready(url)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with Client(url) as client:
                client.request("GET", "/health")
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
