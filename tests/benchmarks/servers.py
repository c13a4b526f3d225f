"""The two servers a benchmark asks in turn, each with its name, URL and process."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.gateway_process import running_gateway
from tests.oracle import running_influxd

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def resident_bytes(self) -> int:
        """Return the resident memory of the process (Linux)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def disk_bytes(self) -> int:
        """Return the space its files take on disk; holes in files do not count."""
        return sum(path.stat().st_blocks * 512 for path in self.directory.rglob("*"))


@contextmanager
def both_servers() -> Iterator[tuple[Server, Server]]:
    """Run ours and an influxd on temporary directories; end them and remove the data afterwards."""
    with ExitStack() as stack:
        directories = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinyflux-bench-")))
            for _ in range(2)
        ]
        ours = stack.enter_context(running_gateway(directories[0]))
        theirs = stack.enter_context(running_influxd(directories[1]))
        yield (
            Server("tinyflux", *ours, directories[0]),
            Server("influxd", *theirs, directories[1]),
        )
