"""Deletions: which rows go, as closed time ranges of series; and fields that go.

Deletes, and updates and removes of the TinyFlux API, are all said as ranges, in memory and in the
log. A point is named by its series and time; where several points share them, they go together, and
those that were to stay are stored again (see `ParquetStorage.rewrite`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tinyflux.bisection import search
from tinyflux.columnar.batchcodec import Ranges
from tinyflux.columnar.scan import Run

if TYPE_CHECKING:
    from tinyflux.batch import Bools, Int64s
    from tinyflux.columnar.base import Frame
    from tinyflux.columnar.segment import Segment
    from tinyflux.columnar.series import SeriesIndex


@dataclass(frozen=True, slots=True, eq=False)
class Deletion:
    """Rows to delete.

    Attributes:
        ids: int64[r], the series of each range.
        starts: int64[r], first ns.
        ends: int64[r], last ns, inclusive.
        first_ns: The smallest of the first ns.
        last_ns: The greatest of the last ns.
    """

    ids: Int64s
    starts: Int64s
    ends: Int64s
    first_ns: int = field(init=False)
    last_ns: int = field(init=False)

    def __post_init__(self) -> None:
        bounds = (int(self.starts.min()), int(self.ends.max())) if len(self) else (1, 0)
        object.__setattr__(self, "first_ns", bounds[0])
        object.__setattr__(self, "last_ns", bounds[1])

    def __len__(self) -> int:
        return len(self.ids)

    def concerns(self, segment: Segment) -> bool:
        """Return whether rows of a segment may go; False where its times say no."""
        return self.first_ns <= segment.last_ns and segment.first_ns <= self.last_ns

    def touches(self, ids: Int64s) -> Bools:
        """Return bool[k], of which series rows may go."""
        return np.isin(ids, self.ids)

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


@dataclass(frozen=True, slots=True, eq=False)
class FieldDrop:
    """A field that goes from all rows; a row that had no other field goes with it.

    Attributes:
        name: The field key.
    """

    name: str

    def __len__(self) -> int:
        return 1

    def concerns(self, segment: Segment) -> bool:
        """Return whether rows of a segment may go or change."""
        return segment.has_field(self.name)

    def touches(self, ids: Int64s) -> Bools:
        """Return bool[k], of which series rows may go."""
        return np.ones(len(ids), np.bool_)

    def apply(self, run: Run) -> Run:
        """Return a run without the field; the run itself when it has none of it.

        Args:
            run: Rows with all their fields.
        """
        dropped = run.columns.get(self.name)
        if dropped is None:
            return run
        others = {name: column for name, column in run.columns.items() if name != self.name}
        gone = dropped.present()
        for column in others.values():
            gone &= ~column.present()
        rest = Run(run.ids, run.offsets, run.times, others)
        return rest.keep(~gone) if gone.any() else rest


Mask: TypeAlias = Deletion | FieldDrop
"""What is taken out of the rows that were there when it was said."""


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
