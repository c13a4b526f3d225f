"""A store beside the same points as plain Python: newest field wins at one series and time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tinyflux.batch import BatchBuilder, series_key
from tinyflux.columnar.parquet import ParquetStorage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tinyflux.columnar.base import DeleteRequest, ScanRequest

Row: TypeAlias = tuple[int, float | None, float | None]  # time, fields a and b


@dataclass
class Store:
    """A storage, and what was written to it.

    Attributes:
        storage: The storage.
        rng: Draws the points.
        points: (host, time) -> the fields a and b.
    """

    storage: ParquetStorage
    rng: random.Random
    points: dict[tuple[str, int], list[float | None]] = field(default_factory=dict)

    def write(self, points: Sequence[tuple[str, int, float | None, float | None]]) -> None:
        """Write points of (host, time, a, b) as one batch."""
        builder = BatchBuilder()
        for host, time, *values in points:
            present = [(key, v) for key, v in zip("ab", values, strict=True) if v is not None]
            builder.add(series_key("cpu", [("host", host)]), time, present)
            kept = self.points.setdefault((host, time), [None, None])
            kept[:] = [old if new is None else new for old, new in zip(kept, values, strict=True)]
        self.storage.append_batch(builder.build())

    def write_random(self, count: int) -> None:
        """Write points of six hosts in disorder; most have a, few have b."""
        points = []
        for _ in range(count):
            host, time = f"h{self.rng.randrange(6)}", self.rng.randrange(100)
            has_b = self.rng.random() < 0.15
            points.append((host, time, *self._values(has_b=has_b)))
        self.write(points)

    def _values(self, *, has_b: bool) -> tuple[float | None, float | None]:
        value = float(self.rng.randrange(100))
        return (None if has_b else value), (value if has_b else None)

    def delete(self, request: DeleteRequest) -> None:
        """Delete a range of times of every host."""
        self.storage.delete(request)
        gone = [key for key in self.points if request.start_ns <= key[1] <= request.end_ns]
        for key in gone:
            del self.points[key]

    def rows(self, start_ns: int = -(10**9), end_ns: int = 10**9) -> dict[str, list[Row]]:
        """Return the rows of each host that has some in a closed interval, by time."""
        found: dict[str, list[Row]] = {}
        for (host, time), (a, b) in sorted(self.points.items(), key=lambda item: item[0]):
            if start_ns <= time <= end_ns:
                found.setdefault(host, []).append((time, a, b))
        return found

    def read(self, request: ScanRequest) -> dict[str, list[Row]]:
        """Return the rows that a scan gives for each host."""
        found: dict[str, list[Row]] = {}
        for frame in self.storage.scan(request):
            hosts = [frame.series.tags(row)["host"] for row in range(len(frame.series))]
            columns = [frame.columns[key] for key in "ab"]
            cells = [
                [v if ok else None for v, ok in zip(c.values.tolist(), c.mask(), strict=True)]
                for c in columns
            ]
            for row, series in enumerate(frame.series_rows().tolist()):
                host = hosts[series]
                assert host is not None
                row_of = (int(frame.times[row]), cells[0][row], cells[1][row])
                found.setdefault(host, []).append(row_of)
        return found


def random_store(directory: Path, place: str) -> Store:
    """Return a store with a few hundred points: in memory, in segments, or in both."""
    path = None if place == "memory" else directory / "store"
    store = Store(ParquetStorage(path, overwrite=True, sync="off"), random.Random(7))
    for _ in range(4):
        store.write_random(60)
        if place != "memory":
            store.storage.flush()
    if place == "segments and memory":
        store.write_random(40)
    return store
