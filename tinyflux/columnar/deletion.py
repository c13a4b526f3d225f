"""Deletions: which rows go, as closed time ranges of series.

Deletes, and updates and removes of the TinyFlux API, are all said in this form, in memory and in
the log. A point is named by its series and time; where several points share them, they go together,
and those that were to stay are stored again (see `ParquetStorage.rewrite`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinyflux.columnar.batchcodec import Ranges
from tinyflux.columnar.scan import search

if TYPE_CHECKING:
    from tinyflux.batch import Bools, Int64s
    from tinyflux.columnar.base import Frame
    from tinyflux.columnar.scan import Run
    from tinyflux.columnar.series import SeriesIndex


@dataclass(frozen=True, slots=True, eq=False)
class Deletion:
    """Rows to delete.

    Attributes:
        ids: int64[r], the series of each range.
        starts: int64[r], first ns.
        ends: int64[r], last ns, inclusive.
    """

    ids: Int64s
    starts: Int64s
    ends: Int64s

    def __len__(self) -> int:
        return len(self.ids)

    def covers(self, run: Run) -> Bools:
        """Return bool[n], the rows of a run that go."""
        hits = np.zeros(len(run) + 1, np.int64)
        if len(run):
            at = np.minimum(np.searchsorted(run.ids, self.ids), len(run.ids) - 1)
            here = run.ids[at] == self.ids
            low, high = run.offsets[at[here]], run.offsets[at[here] + 1]
            first = search(run.times, low, high, self.starts[here], "left")
            last = search(run.times, low, high, self.ends[here], "right")
            last = np.maximum(first, last)
            hits += np.bincount(first, minlength=len(hits))
            hits -= np.bincount(last, minlength=len(hits))
        return np.cumsum(hits)[:-1] > 0

    def apply(self, run: Run) -> Run:
        """Return the rows of a run that stay; the run itself when all do."""
        gone = self.covers(run)
        return run.keep(~gone) if gone.any() else run

    def ranges(self, index: SeriesIndex) -> Ranges:
        """Return the same with series keys in place of ids, as the log wants it."""
        distinct, key_rows = np.unique(self.ids, return_inverse=True)
        keys = index.keys(distinct.tolist())
        return Ranges(keys, key_rows.astype(np.int32), self.starts, self.ends)


def from_ranges(ranges: Ranges, index: SeriesIndex) -> Deletion:
    """Return ranges with the ids of a store; ranges of unknown series are left out."""
    ids = np.array(index.lookup(ranges.keys), np.int64)[ranges.key_rows]
    known = ids >= 0
    return Deletion(ids[known], ranges.starts[known], ranges.ends[known])


def from_rows(frame: Frame, gone: Bools) -> Deletion:
    """Return the deletion of rows of a frame, neighbours joined in one range.

    Args:
        frame: All rows that its series have in some time interval.
        gone: bool[n], which rows; of rows with equal series and time all or none.
    """
    series = frame.series_rows()
    breaks = np.ones(len(frame), np.bool_)
    breaks[1:] = ~(gone[1:] & gone[:-1] & (series[1:] == series[:-1]))
    starts = np.flatnonzero(gone & breaks)
    after = np.append(np.flatnonzero(breaks), len(frame))
    ends = after[np.searchsorted(after, starts, "right")] - 1
    return Deletion(frame.series.ids[series[starts]], frame.times[starts], frame.times[ends])


def concat(deletions: list[Deletion]) -> Deletion:
    """Return several deletions as one."""
    if not deletions:
        nothing = np.zeros(0, np.int64)
        return Deletion(nothing, nothing, nothing)
    return Deletion(
        np.concatenate([d.ids for d in deletions]),
        np.concatenate([d.starts for d in deletions]),
        np.concatenate([d.ends for d in deletions]),
    )
