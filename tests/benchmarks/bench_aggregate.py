"""Aggregation over the shape of data set M, beside the same in plain Python.

    python -m tests.benchmarks.bench_aggregate

1000 series x 1080 rows, 10 s apart. Prints the best CPU time of each query, and how many times
faster it is than a loop over the rows with dicts. Ratios are what counts; the machine is what it
is.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tinyflux.batch import FieldType
from tinyflux.columnar.aggregate import aggregate_frames
from tinyflux.columnar.base import (
    AggregateRequest,
    Call,
    FieldColumn,
    Frame,
    ScanRequest,
    SeriesSet,
    TagColumn,
)
from tinyflux.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
FIELDS = tuple(f"f{i}" for i in range(10))


def frame(n_series: int, n_rows: int) -> Frame:
    """Return series by host and region, with ten float fields."""
    rng = np.random.default_rng(1)
    times = np.tile((1_700_000_000 + np.arange(n_rows) * 10) * 10**9, n_series)
    hosts = TagColumn(np.arange(n_series, dtype=np.int32), [f"host_{i}" for i in range(n_series)])
    regions = TagColumn((np.arange(n_series) % 9).astype(np.int32), [f"r{i}" for i in range(9)])
    series = SeriesSet("cpu", np.arange(n_series), {"host": hosts, "region": regions})
    columns = {
        name: FieldColumn(FieldType.FLOAT, rng.integers(0, 100, n_series * n_rows).astype(float))
        for name in FIELDS
    }
    return Frame(series, np.arange(n_series + 1) * n_rows, times, columns)


def in_python(data: Frame, every: int) -> dict[tuple[int, int], float]:
    """Return the mean of f0 by series and window, as a program without numpy would."""
    sums: dict[tuple[int, int], list[float]] = {}
    values = data.columns["f0"].values.tolist()
    for row, at, value in zip(
        data.series_rows().tolist(), data.times.tolist(), values, strict=True
    ):
        cell = sums.setdefault((row, at // every), [0.0, 0])
        cell[0] += value
        cell[1] += 1
    return {cell: total / n for cell, (total, n) in sums.items()}


def best(work: Callable[[], object], times: int) -> float:
    """Return the least CPU time of several runs in seconds."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    """Print the table."""
    data, few = frame(1000, 1080), frame(8, 1080)
    every_max = tuple(Call("max", name) for name in FIELDS)
    every_mean = tuple(Call("mean", name) for name in FIELDS)
    one = (Call("mean", "f0"),)
    scan = ScanRequest("cpu")
    queries = [
        ("double-groupby-1", data, AggregateRequest(scan, one, ("host",), Windows(HOUR))),
        ("double-groupby-all", data, AggregateRequest(scan, every_mean, ("host",), Windows(HOUR))),
        ("mean 1m by host", data, AggregateRequest(scan, one, ("host",), Windows(MINUTE))),
        ("mean 1m by region", data, AggregateRequest(scan, one, ("region",), Windows(MINUTE))),
        ("cpu-max-all-8", few, AggregateRequest(scan, every_max, ("host",), Windows(HOUR))),
        *[
            (f"{name} 1h by host", data, AggregateRequest(scan, (call,), ("host",), Windows(HOUR)))
            for name, call in (
                ("last", Call("last", "f0")),
                ("stddev", Call("stddev", "f0")),
                ("median", Call("median", "f0")),
                ("percentile", Call("percentile", "f0", (95,))),
                ("mode", Call("mode", "f0")),
                ("integral", Call("integral", "f0")),
            )
        ],
    ]
    python = best(partial(in_python, data, HOUR), 2)
    print(f"{'mean 1h by host, plain Python':32s} {python * 1e3:9.2f} ms")  # noqa: T201
    for name, rows, request in queries:
        took = best(partial(aggregate_frames, [rows], request), 7)
        print(f"{name:32s} {took * 1e3:9.2f} ms   {python / took:7.1f} x")  # noqa: T201


if __name__ == "__main__":
    main()
