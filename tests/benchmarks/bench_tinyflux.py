"""The TinyFlux API on each storage, in CPU time: `python -m tests.benchmarks.bench_tinyflux`.

The last column is a storage of a third party, which can only be scanned: what every question costs
without an index. Look at the ratios to it, the machine is in the rest.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux import (
    FieldQuery,
    MeasurementQuery,
    MemoryStorage,
    ParquetStorage,
    Point,
    TagQuery,
    TimeQuery,
    TinyFlux,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Scanned(MemoryStorage):
    """A MemoryStorage that overrides a method, and so is taken item by item."""

    def _deserialize_storage_item(self, item: Point) -> Point:
        return item


def points(n: int) -> Iterator[Point]:
    """Yield a point a second: 2 measurements, 100 hosts, 4 regions, 3 fields."""
    for i in range(n):
        yield Point(
            time=START + i * SECOND,
            measurement=f"m{i % 2}",
            tags={"host": f"h{i % 100}", "region": f"r{i % 4}"},
            fields={"a": float(i % 1000), "b": i * 0.5, "c": 1.0},
        )


def operations(n: int) -> dict[str, Callable[[TinyFlux], Any]]:
    """Return the questions, in the order in which they are asked."""
    middle = START + n // 2 * SECOND
    hundred = (TimeQuery() >= middle) & (TimeQuery() < middle + 100 * SECOND)
    percent = (TimeQuery() >= middle) & (TimeQuery() < middle + n // 100 * SECOND)
    host = TagQuery().host == "h7"
    third = TimeQuery() == START + n // 3 * SECOND
    return {
        "search 100 points by time": lambda db: db.search(hundred),
        "count 100 points by time": lambda db: db.count(hundred),
        "search 1 % by time": lambda db: db.search(percent),
        "search 1 % by tag": lambda db: db.search(host),
        "count 1 % by tag": lambda db: db.count(host),
        "search 1 % by field": lambda db: db.search(FieldQuery().a >= 990),
        "count 1 % by field": lambda db: db.count(FieldQuery().a >= 990),
        "time & measurement & tag": lambda db: db.search(
            percent & (MeasurementQuery() == "m1") & host
        ),
        "select 1 %": lambda db: db.select(["time", "fields.a"], percent),
        "get the newest": lambda db: db.get(TimeQuery() == START + (n - 1) * SECOND),
        "contains by tag": lambda db: db.contains(host),
        "count ~tag": lambda db: db.count(~host),
        "get_tag_values": lambda db: db.get_tag_values(["host"]),
        "get_field_keys of one": lambda db: db.get_field_keys("m1"),
        "get_timestamps of one": lambda db: db.get_timestamps("m1"),
        "all": lambda db: db.all(),
        "late point, then read": lambda db: (db.insert(Point(time=START)), db.count(hundred)),
        "update one": lambda db: db.update(third, fields={"a": -1.0}),
        "remove one": lambda db: db.remove(third),
    }


def measured(run: Callable[[], Any], rounds: int) -> float:
    """Return the CPU milliseconds of the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return 1000 * best


def main(n: int) -> None:
    """Print a table of milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        openers: dict[str, Callable[[], TinyFlux]] = {
            "parquet": lambda: TinyFlux(path / "p", storage=ParquetStorage),
            "csv": lambda: TinyFlux(path / "a.csv"),
            "memory": lambda: TinyFlux(storage=MemoryStorage),
            "scanned": lambda: TinyFlux(storage=Scanned),
        }
        dbs = {name: opener() for name, opener in openers.items()}
        rows: dict[str, list[float]] = {"insert_multiple": [], "close and open": []}
        for name, db in dbs.items():
            rows["insert_multiple"].append(measured(partial(db.insert_multiple, points(n)), 1))
            if name in ("parquet", "csv"):
                db.close()
                start = time.process_time()
                dbs[name] = openers[name]()
                rows["close and open"].append(1000 * (time.process_time() - start))
        for label, ask in operations(n).items():
            once = label in ("all", "late point, then read", "update one", "remove one")
            rows[label] = [measured(partial(ask, db), 1 if once else 3) for db in dbs.values()]
        for db in dbs.values():
            db.close()
    print(f"{n} points, ms".ljust(28), *(name.rjust(11) for name in dbs))  # noqa: T201
    for label, row in rows.items():
        print(label.ljust(28), *(f"{value:11.3f}" for value in row))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
