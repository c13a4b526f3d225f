"""Queries of a dashboard while writes come at full speed, and before, when nothing else is done.

Run by `tests.benchmarks.ingest --reads` and `tests.benchmarks.queries --ingest`. A process of its
own writes bodies of 5000 lines without a pause, and this one asks for one panel
after another, at a steady rate. What a query takes is counted from when it was due, so an answer
that is late makes the next ones late too, as on a dashboard. In the end ours is asked once more
while it gets no more lines than influxd took.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.benchmarks.data import LINES_PER_BODY, START_S, bodies, tsbs
from tests.benchmarks.load import Load, post
from tests.benchmarks.servers import running_servers
from tests.conformance.replay import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Event

SECONDS = 10.0
INTERVAL_S = 0.02
ROUNDS = 3


def run(hosts: int, hours: float) -> None:
    """Run the benchmark and print its table."""
    history = bodies(tsbs(hosts, hours))
    with running_servers(["tinyflux", "influxd"]) as servers:
        for server in servers:
            with Client(server.url) as client:
                client.execute("CREATE DATABASE bench")
            post(server.url, "bench", Load("history", history), 2)
        idle_ms: list[list[float]] = [[] for _ in servers]
        took_ms: list[list[float]] = [[] for _ in servers]
        rates: list[list[float]] = [[] for _ in servers]
        for _ in range(ROUNDS):
            for server, idle, times, found in zip(servers, idle_ms, took_ms, rates, strict=True):
                idle.extend(_ask(server.url, hosts, hours))
                found.append(_ask_meanwhile(server.url, history, hosts, hours, times))
        paced_ms: list[float] = []
        rate = statistics.median(rates[1])
        paced = [
            _ask_meanwhile(servers[0].url, history, hosts, hours, paced_ms, rate)
            for _ in range(ROUNDS)
        ]
    print("| server | idle p50 ms | p99 ms | meanwhile p50 ms | p99 ms | lines/s meanwhile |")  # noqa: T201
    print("|---|---|---|---|---|---|")  # noqa: T201
    names = [*(server.name for server in servers), "tinyflux at influxd's rate"]
    rows = zip(names, [*idle_ms, idle_ms[0]], [*took_ms, paced_ms], [*rates, paced], strict=True)
    for name, idle, times, found in rows:
        cells = [f"{_percentile(ms, part):.2f}" for ms in (idle, times) for part in (0.5, 0.99)]
        print(f"| {name} | {' | '.join(cells)} | {statistics.median(found):,.0f} |")  # noqa: T201


def _ask_meanwhile(
    url: str,
    history: Sequence[bytes],
    hosts: int,
    hours: float,
    took_ms: list[float],
    most_lines_s: float = math.inf,
) -> float:
    """Ask while lines are written; adds the ms of each query, returns the lines a second."""
    with _writing(url, history, most_lines_s) as n_written:
        before, before_s = n_written.value, time.perf_counter()
        took_ms.extend(_ask(url, hosts, hours))
        n_lines = (n_written.value - before) * LINES_PER_BODY
        return float(n_lines / (time.perf_counter() - before_s))


def _percentile(times: Sequence[float], part: float) -> float:
    return sorted(times)[int(len(times) * part)]


@contextmanager
def _writing(
    url: str, history: Sequence[bytes], most_lines_s: float
) -> Iterator[Synchronized[int]]:
    """Write the same bodies over and over meanwhile; gives how many were acknowledged."""
    spawn = multiprocessing.get_context("spawn")
    stop, n_written = spawn.Event(), spawn.Value("q", 0)
    writer = spawn.Process(target=_write, args=(url, history, most_lines_s, stop, n_written))
    writer.start()
    try:
        while not n_written.value:  # the process begins
            time.sleep(0.01)
        yield n_written
    finally:
        stop.set()
        writer.join()


def _write(
    url: str,
    history: Sequence[bytes],
    most_lines_s: float,
    stop: Event,
    n_written: Synchronized[int],
) -> None:
    def until_stopped() -> Iterator[bytes]:
        began_s = time.perf_counter()
        for number, body in enumerate(itertools.cycle(history)):
            due_s = began_s + number * LINES_PER_BODY / most_lines_s
            if stop.wait(max(0.0, due_s - time.perf_counter())):
                return
            yield body
            n_written.value += 1  # it is asked for the next when this one is acknowledged

    post(url, "bench", Load("more", until_stopped()), 1)


def _ask(url: str, hosts: int, hours: float) -> list[float]:
    """Return the ms of each query, from when it was due."""
    seconds = int(hours * 3600)
    took_ms: list[float] = []
    with Client(url) as client:
        began_s = time.perf_counter()
        for number in range(int(SECONDS / INTERVAL_S)):
            due_s = began_s + number * INTERVAL_S
            time.sleep(max(0.0, due_s - time.perf_counter()))
            start_s = START_S + number * 61 % max(1, seconds - 3600)
            where = f"hostname = 'host_{number % hosts}' AND time >= {start_s}s"
            text = (
                f"SELECT mean(usage_user) FROM cpu WHERE {where} AND time < {start_s + 3600}s "
                "GROUP BY time(1m) fill(null)"
            )
            query = urlencode({"db": "bench", "epoch": "ms", "q": text})
            answer = client.request("GET", f"/query?{query}")
            if answer.status != 200:
                raise RuntimeError(str(answer))
            took_ms.append((time.perf_counter() - due_s) * 1e3)
    return took_ms
