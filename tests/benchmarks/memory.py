"""Memory of the server under a budget: `python -m tests.benchmarks.memory` (Linux).

Writes TSBS-like data, asks what dashboards ask, asks for everything, and opens the data again. For
each phase it prints the peak of resident memory (VmHWM, which the kernel is told to forget between
the phases) and of open files, and what the phase took.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.benchmarks.data import TSBS_FIELDS, each_body, repeated_tsbs
from tests.benchmarks.load import Load, post
from tests.benchmarks.questions import GRAFANA, TSBS, Draw
from tests.conformance.replay import Client
from tests.gateway_process import running_gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TICKS_PER_HOUR = 360
SAMPLE_S = 0.05
# Over all the data there are, which may be far more than the budget.
WHOLE: dict[str, str] = {
    "count of all fields": "SELECT count(*) FROM cpu",
    "mean of 1 field by hour and host": (
        "SELECT mean(usage_user) FROM cpu WHERE {0} GROUP BY time(1h), hostname"
    ),
    "10 functions by day and host": (
        "SELECT count(usage_user), mean(usage_system), max(usage_idle), min(usage_nice), "
        "first(usage_iowait), last(usage_irq), sum(usage_softirq), spread(usage_steal), "
        "stddev(usage_guest), mean(usage_guest_nice) FROM cpu "
        "WHERE {0} GROUP BY time(1d), hostname fill(none)"
    ),
    "median by day": "SELECT median(usage_user) FROM cpu WHERE {0} GROUP BY time(1d)",
    "percentile by host": "SELECT percentile(usage_user, 95) FROM cpu GROUP BY hostname",
    "usage over 99": "SELECT usage_user, hostname FROM cpu WHERE usage_user > 99 LIMIT 1000",
    "derivative by hour": (
        "SELECT derivative(mean(usage_user), 1m) FROM cpu WHERE {0} GROUP BY time(1h), hostname"
    ),
    "subquery": (
        "SELECT max(m) FROM (SELECT mean(usage_user) AS m FROM cpu WHERE {0} "
        "GROUP BY time(10m), hostname) WHERE {0} GROUP BY time(1d)"
    ),
    "rows of everything": "SELECT * FROM cpu",
}


def status_kib(pid: int, name: str) -> int:
    """Return a line of /proc/PID/status in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(name)


def forget_peak(pid: int) -> None:
    """Have the kernel count the peak of resident memory from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass(slots=True)
class Peak:
    """The peaks of a process during a phase, filled in when it ends.

    Attributes:
        rss_mb: Resident memory, in 10^6 bytes.
        after_mb: Resident memory at the end.
        files: Open files, sampled.
        took_s: How long the phase was.
    """

    rss_mb: float = 0.0
    after_mb: float = 0.0
    files: int = 0
    took_s: float = 0.0

    def row(self, name: str) -> str:
        """Return it as a row of a table."""
        return (
            f"| {name} | {self.rss_mb:.0f} | {self.after_mb:.0f} | {self.files} "
            f"| {self.took_s:.2f} |"
        )


@contextmanager
def peak_of(pid: int) -> Iterator[Peak]:
    """Watch a process."""
    peak = Peak()
    is_over = threading.Event()

    def sample() -> None:
        while not is_over.wait(SAMPLE_S):
            peak.files = max(peak.files, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))

    forget_peak(pid)
    watch = threading.Thread(target=sample)
    watch.start()
    before_s = time.perf_counter()
    try:
        yield peak
    finally:
        peak.took_s = time.perf_counter() - before_s
        is_over.set()
        watch.join()
        peak.rss_mb = status_kib(pid, "VmHWM") * 1024 / 1e6
        peak.after_mb = status_kib(pid, "VmRSS") * 1024 / 1e6


def ask(client: Client, text: str) -> str:
    """Return what became of a query: "" or its error."""
    path = "/query?" + urlencode({"db": "bench", "epoch": "ms", "q": text})
    answer = client.request("GET", path)
    if '"error"' in answer.body[:2000]:
        return answer.body[:300]
    return "" if answer.status == 200 else str(answer)


def _phase(name: str, pid: int, work: Callable[[], str]) -> None:
    with peak_of(pid) as peak:
        note = work()
    _print(f"{peak.row(name)} {note}".rstrip())


def _write(url: str, hosts: int, hours: float, connections: int) -> str:
    found = each_body(repeated_tsbs(hosts, hours))
    post(url, "bench", Load("tsbs", found), connections)
    return ""


def _ask_all(client: Client, texts: list[str]) -> str:
    return next(filter(None, (ask(client, text) for text in texts)), "")


def measure(directory: Path, arguments: argparse.Namespace) -> None:
    """Run all phases in a directory."""
    hosts = arguments.hosts
    hours = arguments.values / (len(TSBS_FIELDS) * TICKS_PER_HOUR * hosts)
    flags = ("--memory-bytes", str(arguments.budget * 10**6))
    _print(f"{arguments.values:,} values, {hosts} hosts, {hours:.1f} h, {arguments.budget} MB\n")
    _print("| phase | peak MB | after MB | open files | s |")
    _print("|---|---|---|---|---|")
    if not (directory / "data").exists():
        with running_gateway(directory, *flags) as (url, pid), Client(url) as client:
            client.execute("CREATE DATABASE bench")
            _phase("ingest", pid, lambda: _write(url, hosts, hours, arguments.connections))
    before_s = time.perf_counter()
    with running_gateway(directory, *flags) as (url, pid), Client(url) as client:
        started_s = time.perf_counter() - before_s
        _phase("first question", pid, lambda: ask(client, "SHOW MEASUREMENTS"))
        _print(f"| start | {status_kib(pid, 'VmHWM') * 1024 / 1e6:.0f} | | | {started_s:.2f} |")
        draw = Draw(hosts, hours)
        for name, make in (TSBS | GRAFANA).items():
            drawn = [make(draw).text for _ in range(arguments.texts)]
            _phase(name, pid, partial(_ask_all, client, drawn))
        everything = draw.span(int(hours * 3600)).tsbs()
        for name, form in WHOLE.items():
            _phase(f"all: {name}", pid, partial(ask, client, form.format(everything)))


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Memory of the server under a budget.")
    parser.add_argument("--values", type=int, default=50_000_000)
    parser.add_argument("--budget", type=int, default=256, help="memory_bytes in MB")
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--texts", type=int, default=10, help="texts of each query")
    parser.add_argument("--directory", type=Path, help="kept; data in it are not written again")
    arguments = parser.parse_args()
    if arguments.directory is not None:
        arguments.directory.mkdir(exist_ok=True)
        measure(arguments.directory, arguments)
        return
    with tempfile.TemporaryDirectory(prefix="tinyflux-memory-") as temporary:
        measure(Path(temporary), arguments)


if __name__ == "__main__":
    main()
