"""The process: banner, signals, a second one on the same directory, bad settings, crashes."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import ROOT, Server, until
from tinyflux.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.e2e


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_banner_says_where_and_which_version_and_the_server_answers_then(server: Server) -> None:
    assert server.banner.startswith(f"tinyflux-gateway {__version__} ")
    assert server.banner.endswith(f", data in {server.data}\n")
    assert server.client.get("/ping").status_code == 204


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_with_exit_code_0_and_keeps_the_points(
    start: Callable[..., Server], number: signal.Signals
) -> None:
    server = start()
    server.query("CREATE DATABASE t")
    server.client.post("/write?db=t", content=b"cpu v=1 1\n")
    assert server.stop(number) == 0
    assert server.log == ""
    again = start()
    assert again.query("SELECT v FROM cpu", db="t", epoch="ns")[0]["series"] == [
        {"name": "cpu", "columns": ["time", "v"], "values": [[1, 1]]}
    ]


def test_second_server_on_the_same_directory_is_refused(server: Server) -> None:
    second = run("serve", "--port", "0", "--data", str(server.data))
    assert second.returncode == 1
    assert "another process owns this data directory" in second.stderr
    assert "Traceback" not in second.stderr


def test_address_in_use_is_refused_with_the_address(server: Server, tmp_path: Path) -> None:
    port = str(server.address[1])
    second = run("serve", "--port", port, "--data", str(tmp_path / "other"))
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr
    assert "Traceback" not in second.stderr


def test_bad_setting_is_refused_with_its_name(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("colour = 'red'\n")
    refused = run("serve", "--config", str(config))
    assert refused.returncode == 1
    assert refused.stderr == "Error: unknown setting: 'colour'\n"


def test_damaged_catalog_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text("{")
    refused = run("serve", "--port", "0", "--data", str(tmp_path))
    assert refused.returncode == 1
    assert "catalog.json" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_version_and_help_print_and_name_every_setting() -> None:
    assert run("--version").stdout == f"tinyflux-gateway, version {__version__}\n"
    text = run("serve", "--help").stdout
    assert "--max-body-bytes" in text
    assert "TINYFLUX_MAX_BODY_BYTES" in text


@pytest.mark.parametrize("sync", ["group", "always"])
def test_every_acknowledged_point_survives_kill_9(start: Callable[..., Server], sync: str) -> None:
    server = start("--sync", sync)
    server.query("CREATE DATABASE t")
    acknowledged: list[int] = []

    def write(first: int) -> None:
        connection = http.client.HTTPConnection(*server.address, timeout=30)
        number = first
        try:
            while True:
                body = "".join(f"m,w=w{first} v={number}i {number + i}\n" for i in range(10))
                connection.request("POST", "/write?db=t", body)
                response = connection.getresponse()
                response.read()
                if response.status != 204:
                    return
                acknowledged.append(number)
                number += 10
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()

    writers = [threading.Thread(target=write, args=(i * 10_000_000,)) for i in range(4)]
    for writer in writers:
        writer.start()
    until(lambda: len(acknowledged) > 200, "the writers do not come forward")
    server.stop(signal.SIGKILL)
    for writer in writers:
        writer.join(30)

    again = start()
    [result] = again.query("SELECT v FROM m", db="t", epoch="ns")
    found = {time for time, _ in result["series"][0]["values"]}  # type: ignore[index]  # JSON
    missing = [n for n in acknowledged if not found.issuperset(range(n, n + 10))]
    assert missing == []


def test_stop_lets_a_running_write_finish(start: Callable[..., Server]) -> None:
    server = start()
    server.query("CREATE DATABASE t")
    body = "".join(f"m v={i} {i}\n" for i in range(20_000)).encode()
    statuses: list[int] = []

    def write() -> None:
        connection = http.client.HTTPConnection(*server.address, timeout=30)
        connection.putrequest("POST", "/write?db=t")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:1000])
        begun.set()
        stopping.wait(30)
        connection.send(body[1000:])
        statuses.append(connection.getresponse().status)
        connection.close()

    begun, stopping = threading.Event(), threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(30)
    server.client.close()
    server.process.send_signal(signal.SIGTERM)
    stopping.set()
    writer.join(30)
    assert server.process.wait(30) == 0
    assert statuses == [204]
    [result] = start().query("SELECT count(v) FROM m", db="t", epoch="ns")
    assert result["series"] == [
        {"name": "m", "columns": ["time", "count"], "values": [[0, 20_000]]}
    ]
