"""Writes side by side with influxd: `python -m tests.benchmarks.ingest`.

Both servers get the same bodies of 5000 lines in turn, each round into a new database; the median
of the rounds is printed. Client and servers share the machine, so look at the ratio.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks.data import bodies, telegraf, tsbs
from tests.benchmarks.servers import both_servers
from tests.conformance.replay import Client

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.benchmarks.servers import Server

HEADERS = {"Content-Type": "text/plain; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class Load:
    """Bodies to write.

    Attributes:
        name: What the table calls them.
        bodies: As they are sent, once.
        lines: How many lines they hold.
        headers: Of each request.
        connections: How many connections to try.
    """

    name: str
    bodies: Iterable[bytes]
    lines: int
    headers: dict[str, str]
    connections: Sequence[int] = (1, 2)


def post(url: str, database: str, load: Load, connections: int) -> None:
    """Write all bodies over some connections; return when all are acknowledged."""
    waiting = iter(load.bodies)
    lock = threading.Lock()
    failures: list[str] = []

    def run() -> None:
        with Client(url) as client:
            while not failures:
                with lock:
                    body = next(waiting, None)
                if body is None:
                    return
                answer = client.request("POST", f"/write?db={database}", body, load.headers)
                if answer.status != 204:
                    failures.append(str(answer))

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])


def measure(server: Server, load: Load, connections: int) -> tuple[float, float]:
    """Return lines per second and the server's CPU nanoseconds per line of one round."""
    with Client(server.url) as client:
        client.execute("CREATE DATABASE bench")
        before_s, cpu_s = time.perf_counter(), server.cpu_s()
        post(server.url, "bench", load, connections)
        took_s, cpu_s = time.perf_counter() - before_s, server.cpu_s() - cpu_s
        client.execute("DROP DATABASE bench")
    return load.lines / took_s, cpu_s / load.lines * 1e9


def loads(hosts: int, hours: float) -> list[Load]:
    """Return the loads: TSBS and Telegraf, plain and gzip, and Telegraf in small requests."""
    found = []
    for name, lines in (("tsbs", tsbs(hosts, hours)), ("telegraf", telegraf(hosts // 5, hours))):
        plain = bodies(lines)
        count = sum(body.count(b"\n") + 1 for body in plain)
        zipped = [gzip.compress(body, 6) for body in plain]
        found.append(Load(name, plain, count, HEADERS))
        found.append(Load(f"{name} gzip", zipped, count, HEADERS | {"Content-Encoding": "gzip"}))
    for size in (16, 100):
        small = bodies(telegraf(hosts // 5, hours / 20), size)
        count = sum(body.count(b"\n") + 1 for body in small)
        found.append(Load(f"telegraf, {size} lines", small, count, HEADERS, (1, 8)))
    return found


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Writes side by side with influxd.")
    parser.add_argument("--hosts", type=int, default=100, help="TSBS hosts; Telegraf has a fifth")
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("| data | connections | tinyflux lines/s | influxd lines/s | ratio | CPU ratio |")  # noqa: T201
    print("|---|---|---|---|---|---|")  # noqa: T201
    with both_servers() as servers:
        for load in loads(arguments.hosts, arguments.hours):
            for connections in load.connections:
                print(_row(servers, load, connections, arguments.rounds), flush=True)  # noqa: T201


def _row(servers: Sequence[Server], load: Load, connections: int, rounds: int) -> str:
    measured: list[list[tuple[float, float]]] = [[] for _ in servers]
    for _ in range(rounds):
        for server, results in zip(servers, measured, strict=True):
            results.append(measure(server, load, connections))
    rates = [statistics.median(rate for rate, _ in results) for results in measured]
    cpu = [statistics.median(cpu for _, cpu in results) for results in measured]
    return (
        f"| {load.name} | {connections} | {rates[0]:,.0f} | {rates[1]:,.0f} "
        f"| {rates[0] / rates[1]:.1f}x | {cpu[1] / max(cpu[0], 1e-9):.1f}x |"
    )


if __name__ == "__main__":
    main()
