"""Continuous queries and subscriptions of a real server, on the real clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import pytest

from tests.e2e.conftest import Server, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.e2e

S = 1_000_000_000
CREATE = (
    "CREATE CONTINUOUS QUERY c ON t RESAMPLE LATE 1h "
    "BEGIN SELECT sum(v) AS v INTO out FROM m GROUP BY time(1s), * END"
)


def write(server: Server, *times: int) -> None:
    body = "".join(f"m,h=a v=1 {time_ns}\n" for time_ns in times)
    response = server.client.post("/write?db=t", content=body)
    assert response.status_code == 204, response.text


def sums(server: Server) -> dict[int, float]:
    """Return the computed sums by time."""
    [result] = server.query("SELECT v FROM out WHERE h = 'a'", db="t", epoch="ns")
    series = cast("list[dict[str, list[list[float]]]]", result.get("series", []))
    return {int(time_ns): value for table in series for time_ns, value in table["values"]}


def metric(server: Server, name: str) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return float(value)


def test_windows_are_rolled_up_as_time_goes_on_and_late_points_too(
    start: Callable[..., Server],
) -> None:
    server = start("--continuous-interval-s", "0.05")
    server.query("CREATE DATABASE t")
    server.query(CREATE)
    until(lambda: "c" in str(server.query("SHOW STATS FOR 'continuous_query'")), "it is known")
    second = time.time_ns() // S * S
    write(server, second, second + 1, second + S)
    until(lambda: sums(server) == {second: 2, second + S: 1}, "two windows")
    write(server, second + 2, second - 60 * S)
    expected = {second - 60 * S: 1, second: 3, second + S: 1}
    until(lambda: sums(server) == expected, "the late points")
    assert metric(server, "tinyflux_continuous_failures_total") == 0
    assert metric(server, "tinyflux_continuous_lag_seconds") < 5


def test_what_a_stopped_server_missed_is_rolled_up_when_it_is_back(
    start: Callable[..., Server],
) -> None:
    server = start()
    server.query("CREATE DATABASE t")
    server.query(CREATE.replace("RESAMPLE LATE 1h ", ""))
    until(lambda: metric(server, "tinyflux_continuous_runs_total") > 0, "a first run")
    second = time.time_ns() // S * S + S
    write(server, second)
    assert server.stop() == 0
    again = start("--continuous-interval-s", "0.05")
    until(lambda: sums(again) == {second: 1}, "the window of the stop")


def test_points_are_forwarded_to_another_server(tmp_path: Path) -> None:
    near = Server(tmp_path / "near", tmp_path / "near.log")
    far = Server(tmp_path / "far", tmp_path / "far.log")
    try:
        for server in (near, far):
            server.query("CREATE DATABASE t")
        near.query(f"CREATE SUBSCRIPTION s ON t.autogen DESTINATIONS ALL '{far.url}'")
        write(near, *range(1, 101))
        counted = "SELECT count(v) FROM m"
        until(lambda: far.query(counted, db="t") == near.query(counted, db="t"), "100 points")
        assert metric(near, "tinyflux_subscription_points_total") == 100
    finally:
        near.stop()
        far.stop()
