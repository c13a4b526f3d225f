"""Writes to a store until it is killed, again and again.

    python -m tests.crash.writer <directory> [<bytes in memory before a flush>]

For each line on stdin a fresh process is forked, which opens the store and writes one batch after
another. On stdout: `pid <n>` of that process, `ack <n>` after each acknowledged batch, `dead` when
it is gone.
"""

from __future__ import annotations

import itertools
import os
import sys

from tinyflux.batch import BatchBuilder, PointBatch, series_key
from tinyflux.columnar.base import ScanRequest
from tinyflux.columnar.parquet import ParquetStorage

POINTS_A_BATCH = 10


def batch(number: int) -> PointBatch:
    """Points of different series, all at the time `number`."""
    builder = BatchBuilder()
    for i in range(POINTS_A_BATCH):
        key = series_key("m", [("i", str(i)), ("n", str(number % 7))])
        builder.add(key, number, [("v", number), ("s", "x" * (number % 100))])
    return builder.build()


def batches(store: ParquetStorage) -> dict[int, int]:
    """Batch number to how many of its points are stored."""
    found: dict[int, int] = {}
    for frame in store.scan(ScanRequest("m", fields=("v",))):
        for time in frame.times.tolist():
            found[time] = found.get(time, 0) + 1
    return found


def write(directory: str, flush_bytes: int) -> None:
    store = ParquetStorage(
        directory, overwrite=True, log_file_bytes=50_000, flush_bytes=flush_bytes
    )
    first = max(batches(store), default=0) + 1
    for number in itertools.count(first):
        store.append_batch(batch(number))
        os.write(1, b"ack %d\n" % number)


def main() -> None:
    for _ in sys.stdin:
        pid = os.fork()
        if not pid:
            write(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1 << 30)
        os.write(1, b"pid %d\n" % pid)
        os.waitpid(pid, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    main()
