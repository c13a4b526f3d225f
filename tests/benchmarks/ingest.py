"""Writes side by side with influxd and VictoriaMetrics: `python -m tests.benchmarks.ingest`.

All servers get the same bodies in turn, each round into a new database; medians of the rounds are
printed. Client and servers share the machine, so look at the ratios. influxd and we sync before we
answer, VictoriaMetrics does not.

    --no-core   ours once more, without the compiled reader of line protocol
    --reads     instead: what queries of a dashboard take while one connection writes at full speed
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks import reads
from tests.benchmarks.data import bodies, lines_of, many_floats, telegraf, tsbs, values_of
from tests.benchmarks.load import HEADERS, Load, post
from tests.benchmarks.servers import running_servers
from tests.conformance.replay import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tests.benchmarks.servers import Server

GZIP = HEADERS | {"Content-Encoding": "gzip"}


@dataclass(frozen=True, slots=True)
class Case:
    """What one row of the table measures.

    Attributes:
        load: What is written.
        lines: How many lines that is.
        values: How many field values.
        connections: Over how many connections.
    """

    load: Load
    lines: int
    values: int
    connections: int


class Measured(NamedTuple):
    """One round of one server.

    Attributes:
        lines_per_s: Lines acknowledged in a second.
        cpu_ns: CPU of the server for a field value, ns.
        p99_ms: How long a body takes to be acknowledged.
        peak_mb: Most resident memory.
    """

    lines_per_s: float
    cpu_ns: float
    p99_ms: float
    peak_mb: float


def measure(server: Server, case: Case, number: int) -> Measured:
    """Return what one round gives."""
    database = f"bench{number}"
    has_databases = server.name != "victoria"
    with Client(server.url) as client:
        if has_databases:
            client.execute(f"CREATE DATABASE {database}")
        server.forget_peak()
        before_s, cpu_s = time.perf_counter(), server.cpu_s()
        took_s = post(server.url, database, case.load, case.connections)
        elapsed_s, cpu_s = time.perf_counter() - before_s, server.cpu_s() - cpu_s
        peak = server.peak_bytes()
        if has_databases:
            client.execute(f"DROP DATABASE {database}")
    p99_s = sorted(took_s)[int(len(took_s) * 0.99)]
    return Measured(case.lines / elapsed_s, cpu_s / case.values * 1e9, p99_s * 1e3, peak / 1e6)


def cases(hosts: int, hours: float) -> Iterator[Case]:
    """Give the cases: TSBS and Telegraf in large bodies, plain and gzip, Telegraf in small ones."""
    sets: dict[str, Callable[[], Iterable[str]]] = {
        "devops, integers": lambda: tsbs(hosts, hours),
        "devops, 17 digits": lambda: many_floats(tsbs(hosts, hours)),
        "Telegraf-like": lambda: telegraf(hosts // 5, hours),
    }
    for name, lines in sets.items():
        plain = bodies(lines())
        zipped = [gzip.compress(body, 6) for body in plain]
        for load in (Load(name, plain), Load(f"{name}, gzip", zipped, GZIP)):
            for connections in (1, 2):
                yield _case(load, plain, connections)
    for size, part in ((16, 5), (100, 2)):
        small = bodies(telegraf(hosts // 5, hours / part), size)
        for connections in (8, 1):
            yield _case(Load(f"Telegraf-like, {size} lines a body", small), small, connections)


def _case(load: Load, plain: Sequence[bytes], connections: int) -> Case:
    return Case(load, sum(map(lines_of, plain)), sum(map(values_of, plain)), connections)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Writes side by side with other servers.")
    parser.add_argument("--hosts", type=int, default=100, help="TSBS hosts; Telegraf has a fifth")
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--no-core", action="store_true", help="ours without the core, too")
    parser.add_argument("--reads", action="store_true", help="queries while writing")
    arguments = parser.parse_args()
    if arguments.reads:
        reads.run(arguments.hosts, arguments.hours)
        return
    names = ["tinyflux", *(["no core"] if arguments.no_core else []), "influxd", "victoria"]
    with running_servers(names) as servers:
        others = [server.name for server in servers[1:]]
        shown = " | ".join(server.name for server in servers)
        ratios = " | ".join(f"/ {name}" for name in others)
        head = f"| data | conns | lines/s: {shown} | {ratios} | CPU ns/value: {shown} "
        head += f"| p99 ms: {shown} | peak MB: {shown} |"
        print(head)  # noqa: T201
        print("|" + "---|" * (head.count("|") - 1))  # noqa: T201
        for case in cases(arguments.hosts, arguments.hours):
            if arguments.only in case.load.name:
                print(_row(servers, case, arguments.rounds), flush=True)  # noqa: T201


def _row(servers: Sequence[Server], case: Case, rounds: int) -> str:
    measured: list[list[Measured]] = [[] for _ in servers]
    for number in range(rounds):
        for server, results in zip(servers, measured, strict=True):
            results.append(measure(server, case, number))
    medians = [Measured(*map(statistics.median, zip(*r, strict=True))) for r in measured]
    ours, *others = medians
    cells = [
        case.load.name,
        str(case.connections),
        *[f"{found.lines_per_s:,.0f}" for found in medians],
        *[f"{ours.lines_per_s / other.lines_per_s:.1f}x" for other in others],
        *[f"{found.cpu_ns:,.0f}" for found in medians],
        *[f"{found.p99_ms:.1f}" for found in medians],
        *[f"{found.peak_mb:,.0f}" for found in medians],
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
