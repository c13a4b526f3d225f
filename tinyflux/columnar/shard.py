"""Shards: time ranges of a store, each with segments of its own; and the layer of all segments.

A new shard is a cell of the grid of the duration that holds at its time, cut off where shards of an
earlier duration are: shards never overlap. A segment never crosses a border between shards, so
retention removes whole files. Inside a shard the segments of a measurement may overlap in time;
`order` says which is newer.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.columnar.base import Shard
from tinyflux.columnar.deletion import FieldDrop
from tinyflux.columnar.scan import Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tinyflux.batch import Int64s
    from tinyflux.columnar.deletion import Mask
    from tinyflux.columnar.memtable import MemtableView
    from tinyflux.columnar.scan import Source
    from tinyflux.columnar.segment import Segment

DEFAULT_SHARD_DURATION_NS: Final = 7 * 86_400 * 1_000_000_000  # influxd: of an infinite policy


# Where the grid begins, as in influxd: year 1, a Monday, so that weeks begin on Mondays.
_GRID_NS: Final = -719_162 * 86_400 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class ShardMap:
    """Which shard a time belongs to.

    Attributes:
        duration_ns: How long new shards are.
        shards: Those that have their bounds, ascending, without overlap.
    """

    duration_ns: int
    shards: tuple[Shard, ...] = ()

    def at(self, time_ns: int) -> Shard:
        """Return the shard of a time: one that is there, or the one that would be made."""
        time_ns = min(max(time_ns, MIN_TIME_NS), MAX_TIME_NS)
        after = bisect_right(self.shards, time_ns, key=lambda shard: shard.first_ns)
        if after and time_ns <= self.shards[after - 1].last_ns:
            return self.shards[after - 1]
        # The first cell there can be begins outside int64, where no time and no manifest goes.
        first = (time_ns - _GRID_NS) // self.duration_ns * self.duration_ns + _GRID_NS
        last = min(first + self.duration_ns - 1, MAX_TIME_NS)
        first = max(first, MIN_TIME_NS)
        if after:
            first = max(first, self.shards[after - 1].last_ns + 1)
        if after < len(self.shards):
            last = min(last, self.shards[after].first_ns - 1)
        return Shard(first, last)

    def of(self, run: Run) -> list[Shard]:
        """Return the shards that the rows of a run belong to, ascending."""
        shards: list[Shard] = []
        if not len(run):
            return shards
        if run.last_ns <= self.at(run.first_ns).last_ns:
            return [self.at(run.first_ns)]
        times = np.unique(run.times)
        row = 0
        while row < len(times):
            shards.append(self.at(int(times[row])))
            row = int(np.searchsorted(times, shards[-1].last_ns, "right"))
        return shards

    def occupied(self, segments: SegmentLayer, views: Iterable[MemtableView]) -> list[Shard]:
        """Return the shards that segments, also of deleted rows, or rows in memory are in."""
        found = {self.at(segment.info.shard_ns) for segment in segments.all_segments()}
        for view in views:
            for number in view.measurements():
                for run in view.sources(number):
                    found.update(self.of(run))
        return sorted(found)

    def split(self, run: Run) -> Iterator[tuple[Shard, Run]]:
        """Yield each shard that has rows of a run, ascending, with these rows."""
        shards = self.of(run)
        for shard in shards:
            yield shard, run if len(shards) == 1 else run.read(run.ids, *shard)


class Masked:
    """A segment without the rows that were deleted since it was written.

    Attributes:
        first_ns: A time that no row is before.
        last_ns: A time that no row is after.
    """

    def __init__(self, segment: Segment, deletions: Sequence[Mask]) -> None:
        self.first_ns = segment.first_ns
        self.last_ns = segment.last_ns
        self._segment = segment
        self._deletions = deletions

    def __len__(self) -> int:
        return len(self._segment)

    def rows(self, ids: Int64s, start_ns: int, end_ns: int) -> Int64s:
        """Return int64[k], at most how many rows each series has in the closed interval.

        Exact for series that something was deleted from: so it shows when nothing is left.
        """
        counts = self._segment.rows(ids, start_ns, end_ns)
        if self._segment.damage is not None:  # what is left is not known yet
            return counts
        touched = np.zeros(len(ids), np.bool_)
        for deletion in self._deletions:
            touched |= deletion.touches(ids)
        touched &= counts > 0
        if touched.any():
            left = self.read(ids[touched], start_ns, end_ns, ())
            counts[touched] = 0
            counts[np.searchsorted(ids, left.ids)] = np.diff(left.offsets)
        return counts

    def count(self, ids: Int64s, start_ns: int, end_ns: int) -> int:
        """Return how many rows the series have in the closed interval, deleted ones included."""
        return self._segment.count(ids, start_ns, end_ns)

    def read(
        self,
        ids: Int64s,
        start_ns: int,
        end_ns: int,
        fields: Sequence[str] | None = None,
        limit: int = 0,
    ) -> Run:
        """Return exactly the rows of these series in the closed interval; `limit` is 0."""
        assert not limit  # a row that is wanted may lie behind deleted ones
        if fields is None or not any(isinstance(mask, FieldDrop) for mask in self._deletions):
            return self.apply(self._segment.read(ids, start_ns, end_ns, fields))
        # All fields tell which rows are left.
        left = self.apply(self._segment.read(ids, start_ns, end_ns))
        columns = {name: left.columns[name] for name in fields if name in left.columns}
        return Run(left.ids, left.offsets, left.times, columns)

    def read_all(self) -> Run:
        """Return all rows that are left."""
        return self.apply(self._segment.read_all())

    def apply(self, run: Run) -> Run:
        """Return the rows of a run that are left."""
        for deletion in self._deletions:
            run = deletion.apply(run)
        return run


@dataclass(frozen=True, slots=True, eq=False)
class SegmentLayer:
    """All segments of a store at one moment (`snapshot.Layer`). Never changed, only replaced.

    Attributes:
        segments: Measurement number to its segments, by shard, in a shard oldest first.
        deletions: Measurement number to what was deleted since its segments were written.
    """

    segments: Mapping[int, tuple[Segment, ...]] = field(default_factory=dict)
    deletions: Mapping[int, tuple[Mask, ...]] = field(default_factory=dict)

    def sources(self, measurement: int) -> Sequence[Source]:
        """Return the rows of a measurement (its number in the series index), oldest first."""
        segments = self.segments.get(measurement, ())
        if not self.deletions.get(measurement):
            return segments
        return [
            Masked(segment, masks) if (masks := self.masks(measurement, segment)) else segment
            for segment in segments
        ]

    def masked(self, measurement: int, segment: Segment) -> Masked:
        """Return a segment of a measurement without its deleted rows."""
        return Masked(segment, self.masks(measurement, segment))

    def masks(self, measurement: int, segment: Segment) -> Sequence[Mask]:
        """Return what was deleted of a segment since it was written, as far as is known."""
        return [mask for mask in self.deletions.get(measurement, ()) if mask.concerns(segment)]

    @property
    def n_deleted(self) -> int:
        """How many ranges and fields were deleted since."""
        return sum(len(mask) for masks in self.deletions.values() for mask in masks)

    def deleting(self, measurement: int, deletion: Mask) -> SegmentLayer:
        """Return the layer after rows of a measurement were deleted."""
        before = self.deletions.get(measurement, ())
        return SegmentLayer(self.segments, {**self.deletions, measurement: (*before, deletion)})

    def all_segments(self) -> Iterator[Segment]:
        """Yield every segment."""
        for segments in self.segments.values():
            yield from segments


def layer_of(
    members: Iterable[tuple[int, Segment]], deletions: Mapping[int, tuple[Mask, ...]]
) -> SegmentLayer:
    """Return a layer of (measurement number, segment) pairs in any order."""
    grouped: dict[int, list[Segment]] = {}
    for number, segment in members:
        grouped.setdefault(number, []).append(segment)
    for segments in grouped.values():
        segments.sort(key=lambda segment: (segment.info.shard_ns, segment.info.order))
    return SegmentLayer(
        {number: tuple(segments) for number, segments in grouped.items()},
        {number: found for number, found in deletions.items() if found and number in grouped},
    )
