"""Bytes on disk for one field value, side by side with influxd: `python -m tests.benchmarks.disk`.

Both get the same bodies. Ours is flushed and compacted; influxd is waited for until its log is
empty and its files stand still. What counts are blocks on disk, index and series files included.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.data import bodies, few_floats, many_floats, telegraf, tsbs, values_of
from tests.benchmarks.load import Load, post
from tests.conformance.replay import Client
from tests.gateway_process import running_gateway
from tests.oracle import running_influxd
from tinyflux.columnar.parquet import ParquetStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CONNECTIONS = 2
STILL_S = 8.0
# influxd compacts what is cold; by default that is 4 hours after the last write.
COLD = {
    "INFLUXDB_DATA_CACHE_SNAPSHOT_WRITE_COLD_DURATION": "1s",
    "INFLUXDB_DATA_COMPACT_FULL_WRITE_COLD_DURATION": "2s",
}


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Bytes on disk side by side with influxd.")
    parser.add_argument("--hosts", type=int, default=100, help="TSBS hosts; Telegraf has a fifth")
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--only", default="", help="the name of one set of data")
    arguments = parser.parse_args()
    hosts, hours = arguments.hosts, arguments.hours
    sets: dict[str, Callable[[], Iterable[str]]] = {
        "tsbs": lambda: tsbs(hosts, hours),
        "tsbs few floats": lambda: few_floats(tsbs(hosts, hours)),
        "tsbs many floats": lambda: many_floats(tsbs(hosts, hours)),
        "telegraf": lambda: telegraf(hosts // 5, hours),
    }
    os.environ.update(COLD)
    print("| data | values | tinyflux B/value | influxd B/value | ratio |")  # noqa: T201
    print("|---|---|---|---|---|")  # noqa: T201
    for name, lines in sets.items():
        if arguments.only in ("", name):
            print(_row(name, lines()), flush=True)  # noqa: T201


def _row(name: str, lines: Iterable[str]) -> str:
    plain = bodies(lines)
    load = Load(name, plain)
    values = sum(map(values_of, plain))
    with tempfile.TemporaryDirectory(prefix="tinyflux-disk-") as temporary:
        ours, theirs = Path(temporary, "ours"), Path(temporary, "theirs")
        ours.mkdir()
        theirs.mkdir()
        with running_gateway(ours) as (url, _):
            _write(url, load)
        with closing(ParquetStorage(ours / "data/bench/autogen", overwrite=True)) as store:
            store.flush()
            while store.compact():
                pass
        with running_influxd(theirs) as (url, _):
            _write(url, load)
            _wait_until_still(theirs)
        sizes = [_disk_bytes(ours / "data") / values, _disk_bytes(theirs / "data") / values]
    ratio = sizes[0] / sizes[1]
    return f"| {name} | {values:,} | {sizes[0]:.3f} | {sizes[1]:.3f} | {ratio:.2f} |"


def _write(url: str, load: Load) -> None:
    with Client(url) as client:
        client.execute("CREATE DATABASE bench")
    post(url, "bench", load, CONNECTIONS)


def _wait_until_still(directory: Path) -> None:
    """Wait until influxd's log is empty and its files have not changed for some seconds."""
    before, since = -1, time.monotonic()
    while time.monotonic() - since < STILL_S:
        time.sleep(0.5)
        size = _disk_bytes(directory / "data")
        if size != before or _log_bytes(directory / "wal"):
            before, since = size, time.monotonic()


def _log_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*.wal"))


def _disk_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
