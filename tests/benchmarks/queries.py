"""Queries side by side with influxd and VictoriaMetrics: `python -m tests.benchmarks.queries`.

TSBS-like data go into all servers, then all answer the same questions in turn: first from
segments on disk, then with some minutes more in memory on top. The answers of influxd and ours are
compared, and a row says so when they differ. `--ingest` asks panels while writes come at full
speed instead, and before it without.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.benchmarks import reads
from tests.benchmarks.data import bodies, times_s, tsbs
from tests.benchmarks.load import Load, post
from tests.benchmarks.questions import GRAFANA, TSBS, Draw
from tests.benchmarks.servers import Server, running_servers
from tests.conformance.cases import Answer, Case
from tests.conformance.replay import Client, difference
from tests.gateway_process import running_gateway

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.benchmarks.questions import Question

ON_TOP_HOURS = 1 / 6
_HEAD = (
    "| query | tinyflux p50 ms | p99 | influxd p50 | p99 | p50 ratio | p99 ratio | CPU ratio "
    "| victoria p50 | p50 ratio |\n|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(slots=True)
class _Asked:
    """A server, and what it took for the questions of one kind.

    Attributes:
        server: Which.
        client: The connection to it.
        took_ms: Of each question.
        cpu_s: Of the process, for all of them.
    """

    server: Server
    client: Client
    took_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def ask(self, path: str) -> Answer:
        """Ask, and note what it takes."""
        cpu_s, before_s = self.server.cpu_s(), time.perf_counter()
        answer = self.client.request("GET", path)
        self.took_ms.append((time.perf_counter() - before_s) * 1e3)
        self.cpu_s += self.server.cpu_s() - cpu_s
        return answer

    @property
    def p50(self) -> float:
        return statistics.median(self.took_ms)

    @property
    def p99(self) -> float:
        return sorted(self.took_ms)[min(len(self.took_ms) - 1, int(len(self.took_ms) * 0.99))]

    def forget(self) -> None:
        """Begin with other questions."""
        self.took_ms = []
        self.cpu_s = 0.0


def _path(text: str) -> str:
    return "/query?" + urlencode({"db": "bench", "epoch": "ms", "q": text})


def _whole(answer: Answer) -> Answer:
    """Influxd 1.6 calls a whole answer of more than 10,000 rows partial."""
    return Answer(answer.status, answer.body.replace(',"partial":true', ""))


def _ask_all(
    ours: _Asked, influxd: _Asked, victoria: _Asked | None, question: Question, turn: int
) -> str:
    """Ask all servers; return how the answers of ours and influxd's differ, "" if not.

    Ours and influxd are asked first in turn: whoever is asked behind a pause finds the caches of
    the processor cold.
    """
    first, second = (ours, influxd) if turn % 2 else (influxd, ours)
    answers = {id(asked): asked.ask(_path(question.text)) for asked in (first, second)}
    if victoria is not None and question.victoria:
        answer = victoria.ask(question.victoria)
        if answer.status != 200:
            raise RuntimeError(f"{answer}: {question.victoria}")
    case = Case("", ("any order",), "query db=bench", question.text)
    return difference(case, _whole(answers[id(influxd)]), answers[id(ours)])


def _row(
    name: str, ours: _Asked, influxd: _Asked, victoria: _Asked | None, found: str
) -> tuple[str, float]:
    """Return the row of a query, and how many times longer influxd took at the median."""
    ratio = influxd.p50 / ours.p50
    cells = [
        name,
        *(f"{ms:.2f}" for ms in (ours.p50, ours.p99, influxd.p50, influxd.p99)),
        f"{ratio:.2f}",
        f"{influxd.p99 / ours.p99:.2f}",
        f"{influxd.cpu_s / ours.cpu_s:.1f}" if ours.cpu_s and influxd.cpu_s else "",
    ]
    if victoria is not None and victoria.took_ms:
        cells += [f"{victoria.p50:.2f}", f"{victoria.p50 / ours.p50:.2f}"]
    else:
        cells += ["", ""]
    return f"| {' | '.join(cells)} |" + (f" differs: {found[:160]}" if found else ""), ratio


def _measure(servers: Sequence[Server], draw: Draw, n_texts: int) -> None:
    """Ask all questions and print the table."""
    _print(_HEAD)
    with ExitStack() as stack:
        asked = [_Asked(one, stack.enter_context(Client(one.url))) for one in servers]
        ours, influxd = asked[:2]
        victoria = asked[2] if len(asked) > 2 else None
        for one in asked:  # no server reads its files for the first time in the first row
            one.ask(_path("SELECT count(usage_user) FROM cpu WHERE hostname = 'host_0'"))
        ratios = []
        for name, make in (TSBS | GRAFANA).items():
            for one in asked:
                one.forget()
            found = [_ask_all(ours, influxd, victoria, make(draw), turn) for turn in range(n_texts)]
            row, ratio = _row(name, ours, influxd, victoria, "".join(found))
            ratios.append(ratio)
            _print(row)
    mean = math.exp(statistics.fmean(map(math.log, ratios[: len(TSBS)])))
    _print(f"\ngeometric mean over the {len(TSBS)} of TSBS: {mean:.1f}x influxd")


def _write(servers: Iterable[Server], found: Sequence[bytes]) -> None:
    for server in servers:
        post(server.url, "bench", Load("tsbs", found), 2)


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _run(hosts: int, hours: float, n_texts: int) -> None:
    all_bodies = bodies(tsbs(hosts, hours + ON_TOP_HOURS), hosts)
    n_bodies = len(times_s(hours))  # a body has the lines of one time
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinyflux-bench-")))
        others = stack.enter_context(running_servers(["influxd", "victoria"]))
        with running_gateway(data) as (url, pid):
            servers = (Server("tinyflux", url, pid, data), *others)
            for server in servers[:2]:
                with Client(server.url) as client:
                    client.execute("CREATE DATABASE bench")
            _write(servers, all_bodies[:n_bodies])
        # Whoever stops writes what it has in memory into segments.
        url, pid = stack.enter_context(running_gateway(data))
        servers = (Server("tinyflux", url, pid, data), *others)
        _print(f"{hosts} hosts, {hours} hours in segments:\n")
        _measure(servers, Draw(hosts, hours), n_texts)
        _write(servers, all_bodies[n_bodies:])
        _print("\nwith ten minutes more in memory:\n")
        _measure(servers, Draw(hosts, hours + ON_TOP_HOURS), n_texts)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--texts", type=int, default=20, help="questions of each kind")
    parser.add_argument("--ingest", action="store_true", help="panels while writes come instead")
    arguments = parser.parse_args()
    if arguments.ingest:
        reads.run(arguments.hosts, arguments.hours)
    else:
        _run(arguments.hosts, arguments.hours, arguments.texts)


if __name__ == "__main__":
    main()
