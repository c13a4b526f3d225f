"""A throw-away influxd as oracle: started on free local ports, ended with its data.

Debian has it as package `influxdb`; nothing here needs it to be a service. Tests use the
`influxd` fixture of their folder's conftest.py, which skips where the program is missing.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "influxd"
START_TIMEOUT_S = 30.0

CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc_port}"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{http_port}"
  log-enabled = false
{http}
"""


class OracleError(RuntimeError):
    """influxd is missing or did not start."""


def influxd_path() -> str | None:
    """Return the path of influxd, None where it is not installed."""
    return shutil.which(PROGRAM)


@contextmanager
def running_influxd(directory: Path | None = None, *, http: str = "") -> Iterator[tuple[str, int]]:
    """Run an influxd of its own and give its URL and process id; end it afterwards.

    Args:
        directory: Where its data lie; a temporary directory, removed afterwards, unless given.
        http: Further lines of the section `[http]` of its configuration.

    Raises:
        OracleError: influxd is not installed, or did not answer within 30 s.
    """
    if directory is not None:
        with _started(directory, http) as found:
            yield found
        return
    with (
        tempfile.TemporaryDirectory(prefix="influxd-") as temporary,
        _started(Path(temporary), http) as url,
    ):
        yield url


@contextmanager
def _started(directory: Path, http: str) -> Iterator[tuple[str, int]]:
    program = influxd_path()
    if program is None:
        raise OracleError(f"{PROGRAM} is not installed")
    http_port, rpc_port = free_ports(2)
    config = directory / "influxd.toml"
    config.write_text(
        CONFIG.format(directory=directory, http_port=http_port, rpc_port=rpc_port, http=http)
    )
    log = directory / "influxd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-config", str(config)], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_ready(http_port, process, log)
        yield f"http://127.0.0.1:{http_port}", process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    """Return local TCP ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/ping")
            if connection.getresponse().status == 204:
                return
        except OSError:
            time.sleep(0.02)
        finally:
            connection.close()
    raise OracleError(f"{PROGRAM} did not start: {log.read_text(errors='replace')[-2000:]}")
