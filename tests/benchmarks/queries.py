"""Queries side by side with influxd: `python -m tests.benchmarks.queries`.

TSBS-like data go into both servers, then both answer the same texts in turn: the query set of the
Time Series Benchmark Suite and what Grafana's panels send. Every text is another one, so no cache
of answers helps; the answers are compared, and a row says so when they differ.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.benchmarks.data import START_S, TSBS_FIELDS, bodies, tsbs
from tests.benchmarks.load import Load, post
from tests.benchmarks.servers import both_servers
from tests.conformance.cases import Answer, Case
from tests.conformance.replay import Client, difference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.servers import Server


class Texts:
    """Texts of one run: hosts and ranges are drawn, the same at every run.

    Attributes:
        hosts: How many hosts the data have.
        seconds: The length of the data.
    """

    def __init__(self, hosts: int, hours: float) -> None:
        self.hosts = hosts
        self.seconds = int(hours * 3600)
        self._rng = random.Random(3)

    def range(self, seconds: int) -> str:
        """Return a condition on time over some seconds of the data, as TSBS writes it."""
        length = min(seconds, self.seconds)
        start_s = START_S + self._rng.randrange(self.seconds - length + 1)
        return f"time >= '{_rfc3339(start_s)}' AND time < '{_rfc3339(start_s + length)}'"

    def panel(self, seconds: int) -> str:
        """Return a condition on time as Grafana writes it."""
        length = min(seconds, self.seconds)
        start_s = START_S + self._rng.randrange(self.seconds - length + 1)
        return f"time >= {start_s}000ms and time <= {start_s + length}000ms"

    def names(self, count: int) -> list[str]:
        """Return the names of some hosts."""
        return [f"host_{n}" for n in self._rng.sample(range(self.hosts), min(count, self.hosts))]

    def any_of(self, count: int) -> str:
        """Return a condition on some hosts, as TSBS writes it."""
        return "(" + " OR ".join(f"hostname = '{name}'" for name in self.names(count)) + ")"


def _rfc3339(time_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))


def _calls(function: str, count: int) -> str:
    return ", ".join(f"{function}({field})" for field in TSBS_FIELDS[:count])


def _max(t: Texts, fields: int, hosts: int, seconds: int, window: str) -> str:
    where = f"{t.any_of(hosts)} AND {t.range(seconds)}"
    return f"SELECT {_calls('max', fields)} FROM cpu WHERE {where} GROUP BY time({window})"


def _mean(t: Texts, fields: int) -> str:
    where = t.range(12 * 3600)
    return f"SELECT {_calls('mean', fields)} FROM cpu WHERE {where} GROUP BY time(1h), hostname"


def _last_windows(t: Texts) -> str:
    end = t.range(60).rpartition("AND ")[2]
    return (
        f"SELECT max(usage_user) FROM cpu WHERE {end} GROUP BY time(1m) ORDER BY time DESC LIMIT 5"
    )


def _high_cpu(t: Texts, hosts: str) -> str:
    return f"SELECT * FROM cpu WHERE {hosts}usage_user > 90.0 AND {t.range(12 * 3600)}"


def _panel(calls: str, where: str, time: str, dims: str) -> str:
    return (
        f'SELECT {calls} FROM "cpu" WHERE ({where}) AND {time} '
        f"GROUP BY {dims} fill(null) ORDER BY time ASC"
    )


MEAN = 'mean("usage_user")'
QUERIES: dict[str, Callable[[Texts], str]] = {
    "single-groupby-1-1-1": lambda t: _max(t, 1, 1, 3600, "1m"),
    "single-groupby-5-8-1": lambda t: _max(t, 5, 8, 3600, "1m"),
    "cpu-max-all-1": lambda t: _max(t, 10, 1, 8 * 3600, "1h"),
    "cpu-max-all-8": lambda t: _max(t, 10, 8, 8 * 3600, "1h"),
    "double-groupby-1": lambda t: _mean(t, 1),
    "double-groupby-5": lambda t: _mean(t, 5),
    "double-groupby-all": lambda t: _mean(t, 10),
    "high-cpu-1": lambda t: _high_cpu(t, f"{t.any_of(1)} AND "),
    "high-cpu-all": lambda t: _high_cpu(t, ""),
    "lastpoint": lambda _: 'SELECT * FROM cpu GROUP BY "hostname" ORDER BY time DESC LIMIT 1',
    "groupby-orderby-limit": _last_windows,
    "panel, 1 host, 10s": lambda t: _panel(
        MEAN, f"\"hostname\" = '{t.names(1)[0]}'", t.panel(3600), "time(10s)"
    ),
    "panel, 10 hosts, 1m": lambda t: _panel(
        MEAN, f'"hostname" =~ /^({"|".join(t.names(10))})$/', t.panel(3600), 'time(1m), "hostname"'
    ),
    "panel, 2 fields by region": lambda t: _panel(
        f'{MEAN}, max("usage_system")', "\"arch\" = 'x64'", t.panel(3600), 'time(1m), "region"'
    ),
    "panel, 15 min by datacenter": lambda t: _panel(
        MEAN, '"region" =~ /.*/', t.panel(900), 'time(10s), "datacenter"'
    ),
    "SHOW TAG VALUES": lambda _: 'SHOW TAG VALUES FROM "cpu" WITH KEY = "hostname"',
    "SHOW TAG VALUES WHERE": lambda _: (
        'SHOW TAG VALUES FROM "cpu" WITH KEY = "hostname" WHERE "region" = \'eu-west-1\''
    ),
}


def ask(client: Client, text: str) -> tuple[float, Answer]:
    """Return the milliseconds of one query and its answer."""
    path = "/query?" + urlencode({"db": "bench", "epoch": "ms", "q": text})
    before_s = time.perf_counter()
    answer = client.request("GET", path)
    return (time.perf_counter() - before_s) * 1e3, answer


def fill(servers: Sequence[Server], hosts: int, hours: float) -> None:
    """Write the data to both servers."""
    found = bodies(tsbs(hosts, hours))
    load = Load("tsbs", found)
    for server in servers:
        with Client(server.url) as client:
            client.execute("CREATE DATABASE bench")
        post(server.url, "bench", load, 2)


def _whole(answer: Answer) -> Answer:
    """Influxd 1.6 calls a whole answer of more than 10,000 rows partial."""
    return Answer(answer.status, answer.body.replace(',"partial":true', ""))


def _row(clients: Sequence[tuple[Server, Client]], name: str, texts: Sequence[str]) -> str:
    took_ms: list[list[float]] = [[] for _ in clients]
    before_s = [server.cpu_s() for server, _ in clients]
    found = ""
    for text in texts:
        answers = []
        for (_, client), times in zip(clients, took_ms, strict=True):
            ms, answer = ask(client, text)
            times.append(ms)
            answers.append(answer)
        case = Case(name, ("any order",), "query db=bench", text)
        found = found or difference(case, _whole(answers[1]), answers[0])
    ours, theirs = (statistics.median(times) for times in took_ms)
    cpu_s = [server.cpu_s() - b for (server, _), b in zip(clients, before_s, strict=True)]
    note = f" differs: {found[:120]} |" if found else ""
    return (
        f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f}x "
        f"| {cpu_s[1] / max(cpu_s[0], 0.01):.1f}x |{note}"
    )


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Queries side by side with influxd.")
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--texts", type=int, default=40, help="texts of each query")
    arguments = parser.parse_args()
    print("| query | tinyflux p50 ms | influxd p50 ms | ratio | CPU ratio |")  # noqa: T201
    print("|---|---|---|---|---|")  # noqa: T201
    with both_servers() as servers:
        fill(servers, arguments.hosts, arguments.hours)
        texts = Texts(arguments.hosts, arguments.hours)
        with Client(servers[0].url) as ours, Client(servers[1].url) as theirs:
            clients = tuple(zip(servers, (ours, theirs), strict=True))
            for name, query in QUERIES.items():
                drawn = [query(texts) for _ in range(arguments.texts)]
                print(_row(clients, name, drawn), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
