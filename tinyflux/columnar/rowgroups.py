"""Row groups of a segment: the run table, which groups a read needs, and cutting rows out.

Pure: no file, no Parquet.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tinyflux.columnar import allowance
from tinyflux.columnar.scan import Run, concat, empty_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinyflux.batch import Int64s
    from tinyflux.columnar.base import FieldColumn


Ranges: TypeAlias = "tuple[Int64s, Int64s, Int64s]"
"""Series ids, and of each the first row and the row behind the last one."""


def pack_runs(run: Run) -> str:
    """Return the run table as text: ids, row counts, first and last time of each series.

    Four arrays of int64, little endian, the ids as differences, one after another, compressed.
    """
    starts, ends = run.offsets[:-1], run.offsets[1:] - 1
    table = np.stack(
        (
            np.diff(run.ids, prepend=0),
            np.diff(run.offsets),
            run.times[starts],
            run.times[ends],
        )
    ).astype("<i8")
    return base64.b64encode(zlib.compress(table.tobytes(), 1)).decode("ascii")


def unpack_runs(text: str) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """Return ids, offsets, first times and last times."""
    table = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i8").reshape(4, -1)
    offsets = np.zeros(table.shape[1] + 1, np.int64)
    np.cumsum(table[1], out=offsets[1:])
    return np.cumsum(table[0]), offsets, table[2].copy(), table[3].copy()


@dataclass(frozen=True, slots=True, eq=False)
class RowGroups:
    """The row groups of a segment.

    Attributes:
        size: Rows of a row group; the last one may have fewer.
        firsts: int64[r], the smallest time of each row group.
        lasts: int64[r], the greatest one.
    """

    size: int
    firsts: Int64s
    lasts: Int64s

    def __len__(self) -> int:
        return len(self.firsts)

    def needed(
        self, low: Int64s, high: Int64s, start_ns: int, end_ns: int
    ) -> tuple[Int64s, Int64s, Int64s]:
        """Return the row groups that can hold wanted rows, and the rows counted in these alone.

        Args:
            low: int64[k], starts of ranges of rows that are wanted.
            high: int64[k], their ends.
            start_ns: First time that is wanted.
            end_ns: Last time.

        Returns:
            groups, low, high: the numbers of the row groups, ascending; and the ranges when these
                row groups stand one after another, without the rows that are in no needed one.
        """
        size = self.size
        if len(low) == 1:  # one series, as dashboards ask: without the arithmetic over all groups
            first, last = int(low[0]) // size, (int(high[0]) - 1) // size + 1
            inside = (self.firsts[first:last] <= end_ns) & (self.lasts[first:last] >= start_ns)
            if inside.all():
                return np.arange(first, last), low - first * size, high - first * size
        changes = np.zeros(len(self) + 1, np.int64)
        np.add.at(changes, low // size, 1)
        np.add.at(changes, (high - 1) // size + 1, -1)
        needed = np.cumsum(changes)[:-1] > 0
        needed &= (self.firsts <= end_ns) & (self.lasts >= start_ns)
        before = np.zeros(len(self) + 1, np.int64)  # rows of needed groups before each group
        np.cumsum(needed * size, out=before[1:])
        kept = np.append(needed, False)
        low = before[low // size] + np.where(kept[low // size], low % size, 0)
        high = before[high // size] + np.where(kept[high // size], high % size, 0)
        return np.flatnonzero(needed), low, high

    def part(self, ranges: Ranges, first: int, stop: int) -> tuple[Ranges, slice]:
        """Return what of some ranges lies in some row groups, of those that `needed` gave.

        Args:
            ranges: As `needed` gave them.
            first: The first row group, a position among the needed ones.
            stop: The position behind the last one.

        Returns:
            ranges, groups: those that have rows there, counted from the first of these row groups;
                and where the row groups are among the needed ones.
        """
        ids, low, high = ranges
        start, end = first * self.size, stop * self.size
        low, high = np.clip(low, start, end) - start, np.clip(high, start, end) - start
        some = high > low
        return (ids[some], low[some], high[some]), slice(first, stop)


def cut(
    ids: Int64s, low: Int64s, high: Int64s, chunks: Mapping[str, list[FieldColumn]], time: str
) -> Run:
    """Return the rows low[i]:high[i] of series ids[i], of chunks one after another, as a run.

    Args:
        ids: int64[k], ascending.
        low: int64[k], the first row of each series.
        high: int64[k], the row behind its last one.
        chunks: The columns, each in as many chunks.
        time: The name of the column of times.
    """
    some = high > low
    if not some.all():
        ids, low, high = ids[some], low[some], high[some]
    if not len(ids):
        return empty_run()
    lengths = high - low
    offsets = np.zeros(len(ids) + 1, np.int64)
    lengths.cumsum(out=offsets[1:])
    allowance.spend(int(offsets[-1]), len(chunks))
    ends = list(accumulate(len(chunk.values) for chunk in chunks[time]))
    places: list[Int64s | slice] = []
    if len(ids) == 1 or np.array_equal(low[1:], high[:-1]):  # side by side: views
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            first, last = max(int(low[0]), start), min(int(high[-1]), end)
            places.append(slice(first - start, max(last, first) - start))
    else:
        rows = np.repeat(low - offsets[:-1], lengths) + np.arange(offsets[-1])
        parts: list[Int64s] = [rows]
        if len(ends) > 1:
            parts = np.split(rows, np.searchsorted(rows, ends)[:-1])
        for part, start in zip(parts[1:], ends[:-1], strict=True):
            part -= start  # noqa: PLW2901  # in place
        places += parts
    columns = {
        name: join([chunk.take(part) for chunk, part in zip(column, places, strict=True)])
        for name, column in chunks.items()
    }
    times: Int64s = columns.pop(time).values  # type: ignore[assignment]  # always int64
    return Run(ids, offsets, times, columns)


def chain(runs: Sequence[Run]) -> Run:
    """Return runs one after another; the first series of one may be the last of that before it."""
    runs = [run for run in runs if len(run)]
    if len(runs) < 2:
        return runs[0] if runs else empty_run()
    ids = np.concatenate([run.ids for run in runs])
    lengths = np.concatenate([np.diff(run.offsets) for run in runs])
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(np.add.reduceat(lengths, starts), out=offsets[1:])
    times = np.concatenate([run.times for run in runs])
    columns = {name: join([run.columns[name] for run in runs]) for name in runs[0].columns}
    return Run(ids[starts], offsets, times, columns)


def join(chunks: Sequence[FieldColumn]) -> FieldColumn:
    """Return chunks of one column one after another."""
    return chunks[0] if len(chunks) == 1 else concat(chunks, [len(c.values) for c in chunks])
