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
from concurrent.futures import ThreadPoolExecutor
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
    from collections.abc import Callable, Iterator, Sequence

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


def status_mb(pid: int, name: str) -> float:
    """Return a line of /proc/PID/status in 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(name)


def forget_peak(pid: int) -> None:
    """Have the kernel count the peak of resident memory from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure with.

    Attributes:
        values: How many field values, of lines with ten.
        hosts: How many hosts they are of.
        texts: How many texts of each query of a dashboard; 0 asks for everything only.
    """

    values: int
    hosts: int = 100
    texts: int = 5

    @property
    def hours(self) -> float:
        """How long the data are."""
        return self.values / (len(TSBS_FIELDS) * TICKS_PER_HOUR * self.hosts)


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
        peak.rss_mb = status_mb(pid, "VmHWM")
        peak.after_mb = status_mb(pid, "VmRSS")


def ask(client: Client, text: str) -> str:
    """Return what became of a query: "" or its error."""
    path = "/query?" + urlencode({"db": "bench", "epoch": "ms", "q": text})
    answer = client.request("GET", path)
    for part in (answer.body[:2000], answer.body[-2000:]):  # a streamed answer ends with it
        if '"error"' in part:
            return part[part.index('"error"') :]
    return "" if answer.status == 200 else str(answer)


def _ask_all(client: Client, texts: Sequence[str]) -> str:
    return next(filter(None, (ask(client, text) for text in texts)), "")


def _write(url: str, database: str, hosts: int, hours: float, connections: int) -> str:
    found = each_body(repeated_tsbs(hosts, hours))
    post(url, database, Load("tsbs", found), connections)
    return ""


def _mixed(url: str, texts: list[str], hosts: int) -> str:
    """Ask from four clients while a fifth writes an hour to another database."""

    def ask_all(first: int) -> str:
        with Client(url) as client:
            return _ask_all(client, texts[first:] + texts[:first])

    with ThreadPoolExecutor(5) as threads:
        writing = threads.submit(_write, url, "other", hosts, 1.0, 1)
        notes = threads.map(ask_all, range(4))
        return next(filter(None, notes), "") or writing.result()


def measure(directory: Path, size: Size, budget_mb: int) -> Iterator[tuple[str, Peak, str]]:
    """Run all phases in a directory; give the name, the peaks and what went wrong of each."""
    flags = ("--memory-bytes", str(budget_mb * 10**6))
    if not (directory / "data").exists():
        with running_gateway(directory, *flags) as (url, pid), Client(url) as client:
            client.execute("CREATE DATABASE bench")
            yield _phase("ingest", pid, partial(_write, url, "bench", size.hosts, size.hours, 2))
    before_s = time.perf_counter()
    with running_gateway(directory, *flags) as (url, pid), Client(url) as client:
        start_mb, started_s = status_mb(pid, "VmHWM"), time.perf_counter() - before_s
        yield "start", Peak(start_mb, status_mb(pid, "VmRSS"), took_s=started_s), ""
        yield _phase("first question", pid, partial(ask, client, "SHOW MEASUREMENTS"))
        draw = Draw(size.hosts, size.hours)
        makes = TSBS | GRAFANA
        for name, make in makes.items() if size.texts else ():
            drawn = [make(draw).text for _ in range(size.texts)]
            yield _phase(name, pid, partial(_ask_all, client, drawn))
        if size.texts:
            client.execute("CREATE DATABASE other")
            drawn = [make(draw).text for make in makes.values() for _ in range(2)]
            yield _phase("4 clients ask, 1 writes", pid, partial(_mixed, url, drawn, size.hosts))
        everything = draw.span(int(size.hours * 3600)).tsbs()
        for name, form in WHOLE.items():
            yield _phase(f"all: {name}", pid, partial(ask, client, form.format(everything)))


def _phase(name: str, pid: int, work: Callable[[], str]) -> tuple[str, Peak, str]:
    with peak_of(pid) as peak:
        note = work()
    return name, peak, note


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Memory of the server under a budget.")
    parser.add_argument("--values", type=int, default=50_000_000)
    parser.add_argument("--budget", type=int, default=256, help="memory_bytes in MB")
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--texts", type=int, default=10, help="texts of each query")
    parser.add_argument("--directory", type=Path, help="kept; data in it are not written again")
    arguments = parser.parse_args()
    size = Size(arguments.values, arguments.hosts, arguments.texts)
    _print(
        f"{size.values:,} values, {size.hosts} hosts, {size.hours:.1f} h, {arguments.budget} MB\n"
    )
    _print("| phase | peak MB | after MB | open files | s |")
    _print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="tinyflux-memory-") as temporary:
        directory = arguments.directory or Path(temporary)
        directory.mkdir(exist_ok=True)
        for name, peak, note in measure(directory, size, arguments.budget):
            _print(f"{peak.row(name)} {note}".rstrip())


if __name__ == "__main__":
    main()
