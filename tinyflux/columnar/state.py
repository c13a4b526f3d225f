"""What a store holds, and what each frame of the log does to it: when written, and when reopened.

No log, no thread, no path: `ParquetStorage` logs a change and then makes it here; recovery makes
the same changes here again. The caller is the one writer. Readers take a snapshot, for which
`_visible` is held while a change of several steps is made: no snapshot has half of it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.columnar.deletion import Deletion, FieldDrop, from_ranges
from tinyflux.columnar.intake import Intake
from tinyflux.columnar.memtable import Memtable
from tinyflux.columnar.series import SeriesIndex
from tinyflux.columnar.shard import DEFAULT_SHARD_DURATION_NS, Masked, SegmentLayer, ShardMap
from tinyflux.columnar.snapshot import Snapshot
from tinyflux.errors import StorageClosed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tinyflux.columnar.deletion import Mask
    from tinyflux.columnar.memory import Memory
    from tinyflux.columnar.memtable import Block, MemtableView
    from tinyflux.columnar.recovery import Change
    from tinyflux.columnar.segments import Segments

logger = logging.getLogger(__name__)


class Layers(NamedTuple):
    """Where the rows are, oldest first. Replaced as a whole, so that a reader sees one moment."""

    segments: SegmentLayer
    frozen: tuple[Memtable, ...]  # on their way into segments
    memtable: Memtable

    @property
    def memtables(self) -> tuple[Memtable, ...]:
        """All rows that are in no segment, oldest first."""
        return (*self.frozen, self.memtable)


class State:
    """The series and rows of one open store.

    Args:
        memory: Bounds what reading takes.
        overwrite: Whether points of equal series and time are one.
        shard_duration_ns: How long shards are, in memory; segments know theirs.

    Attributes:
        index: The series.
        intake: Checks batches against the field types, and numbers them.
        layers: The rows.
        segments: The files behind the layer of segments; None in memory.
        memtable_since: When the memtable was begun, of `time.monotonic`.
        is_closed: Whether nothing may be asked or done any more.
        refused: Numbers of the measurements for whose points the log had no room: the index may
            know series without a point.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        overwrite: bool,
        shard_duration_ns: int = DEFAULT_SHARD_DURATION_NS,
    ) -> None:
        self._shard_map = ShardMap(shard_duration_ns)
        self.index = SeriesIndex()
        self.intake = Intake(self.index, overwrite=overwrite)
        self.segments: Segments | None = None
        self.is_closed = False
        self.refused: set[int] = set()
        self._overwrite = overwrite
        self._memory = memory
        self._visible = threading.Lock()
        self.layers = Layers(SegmentLayer(), (), self._new_memtable({}))

    def check_open(self) -> None:
        """Raise StorageClosed once the store is closed."""
        if self.is_closed:
            raise StorageClosed("I/O operation on closed storage")

    @property
    def held_bytes(self) -> int:
        """How much the points in memory take, those on their way into segments included."""
        return sum(table.n_bytes for table in self.layers.memtables)

    # Reading

    def snapshot(self) -> Snapshot:
        """Return the state of now; later changes do not show in it."""
        with self._visible:
            return self._snapshot()

    def _snapshot(self) -> Snapshot:
        # The rows first, then the index: it may know more series and fields than there are rows.
        layers = self.layers
        views = [table.view() for table in layers.memtables]
        return Snapshot(
            self.index.view(),
            (layers.segments, *views),
            overwrite=self._overwrite,
            quarantine=None if self.segments is None else self.segments.quarantine,
            memory=self._memory,
        )

    @property
    def shard_map(self) -> ShardMap:
        """Which shard a time belongs to."""
        return self._shard_map if self.segments is None else self.segments.shard_map

    # Changing

    def set_shard_duration(self, duration_ns: int) -> None:
        """Say how long new shards are; on disk, rows in memory are flushed before."""
        if self.segments is None:
            self._shard_map = ShardMap(duration_ns)
        else:
            self.segments.set_shard_duration(duration_ns)

    def redo(self, change: Change) -> None:
        """Do what a frame of the log says, as it was done when the frame was written."""
        if change.measurement is not None:
            self._drop(change.measurement)
        if change.names is not None:
            self._rename(*change.names)
        if change.field is not None:
            self._drop_field(*change.field)
        touched = None
        if change.ranges is not None:
            touched = self._delete_rows(from_ranges(change.ranges, self.index))
        if change.batch is not None:
            accepted = self.intake.take(change.batch)
            self.append(accepted.block)
            for rejection in accepted.rejected:  # only behind damage
                logger.error(
                    "points of the log refused: points=%d reason=%s",
                    rejection.points,
                    rejection.reason,
                )
        if touched is not None:
            self._forget_empty(touched)

    def append(self, block: Block) -> None:
        """Add the points of a batch."""
        self.layers.memtable.append(block)

    def settle(self, block: Block, error: Exception | None) -> None:
        """Add the points of a batch when the log has them. Called from any thread."""
        if error is None:
            self.append(block)
        else:
            self.refuse(block)

    def refuse(self, block: Block) -> None:
        """Note that a batch was taken in, and then not stored."""
        shapes = np.unique(block.shapes).tolist()
        self.refused.update(self.intake.shapes[shape].measurement for shape in shapes)

    def forget_refused(self) -> None:
        """Take out of the index what only refused batches put there. Nothing is waiting now."""
        if self.refused:
            numbers, self.refused = self.refused, set()
            with self._visible:
                self._forget_empty(numbers)

    def delete(self, deletion: Deletion) -> None:
        """Delete rows, and the series that lose their last one."""
        with self._visible:
            self._forget_empty(self._delete_rows(deletion))

    def replace(self, deletion: Deletion, block: Block) -> None:
        """Delete rows and add points, as one step."""
        with self._visible:
            touched = self._delete_rows(deletion)
            self.append(block)
            self._forget_empty(touched)

    def drop(self, measurement: str) -> None:
        """Delete a measurement with its field types; one that is not there is fine."""
        with self._visible:
            self._drop(measurement)

    def drop_field(self, measurement: str, field: str) -> None:
        """Delete a field, and the points that have no other; one that is not there is fine."""
        with self._visible:
            self._drop_field(measurement, field)

    def rename(self, measurement: str, name: str) -> None:
        """Give a measurement another name; no rows move. One that is not there is fine."""
        with self._visible:
            self._rename(measurement, name)

    def remove_shards(self, first_ns: int, last_ns: int) -> int:
        """Remove the shards that lie in a closed interval; returns how many there were.

        Files go with the next flush, and rows that are to become files are not looked at.
        """
        numbers: Sequence[int]
        if self.segments is None:
            memtable = self.layers.memtable
            found = self.shard_map.occupied(self.layers.segments, [memtable.view()])
            n_shards = sum(first_ns <= start and end <= last_ns for start, end in found)
            numbers = memtable.cut(first_ns, last_ns)
        else:
            numbers, shards = self.segments.hide(first_ns, last_ns)
            self.show_segments()
            n_shards = len(shards)
        self._forget_empty(numbers)
        return n_shards

    def everything(self) -> Deletion:
        """Return the deletion of all there is."""
        snapshot = self.snapshot()
        sets = [snapshot.series(name).ids for name in snapshot.measurements()]
        ids = np.concatenate([np.zeros(0, np.int64), *sets])
        return Deletion(ids, np.full(len(ids), MIN_TIME_NS), np.full(len(ids), MAX_TIME_NS))

    def freeze(self) -> list[MemtableView]:
        """Begin a new memtable. Returns what is in memory besides, oldest first, for a flush."""
        segments, frozen, memtable = self.layers
        frozen = (*frozen, memtable)
        views = [table.view() for table in frozen]
        self.layers = Layers(segments, frozen, self._new_memtable(memtable.read_s))
        return views

    def thaw(self) -> None:
        """Show the segments as they are now in place of the frozen memtables that they hold."""
        self.layers = self.layers._replace(frozen=())
        self.show_segments()

    def show_segments(self) -> None:
        """Give new readers the segments as they are now."""
        if self.segments is not None:
            self.layers = self.layers._replace(segments=self.segments.layer)

    def _new_memtable(self, read_s: Mapping[int, float]) -> Memtable:
        self.memtable_since = time.monotonic()
        return Memtable(self.intake.shapes, overwrite=self._overwrite, read_s=read_s)

    def _drop(self, measurement: str) -> None:
        view = self.index.view()
        series = view.series(measurement)
        if len(series):
            number = view.number(measurement)
            for table in self.layers.memtables:
                table.drop(number)
            self.index.discard(measurement, np.ones(len(series), np.bool_))
            self.intake.forget(number)
            if self.segments is not None:
                self.segments.quarantine.forget(lambda gap: gap.measurement == measurement)

    def _drop_field(self, measurement: str, field: str) -> None:
        view = self.index.view()
        fields = dict(view.fields(measurement))
        if field in fields:
            number = view.number(measurement)
            self._take_out(FieldDrop(field), [number])
            del fields[field]
            self.index.set_fields(number, fields)
            self.intake.forget(number)
            self._forget_empty([number])

    def _rename(self, measurement: str, name: str) -> None:
        if self.index.view().has(measurement):
            self.index.rename(measurement, name)
            if self.segments is not None:
                self.segments.rename(measurement, name)

    def _delete_rows(self, deletion: Deletion) -> Sequence[int]:
        """Delete rows from all layers. Returns the numbers of the measurements concerned."""
        numbers: list[int] = np.unique(self.index.numbers(deletion.ids)).tolist()
        self._take_out(deletion, numbers)
        return numbers

    def _take_out(self, mask: Mask, numbers: Sequence[int]) -> None:
        """Take something out of the rows of measurements, in all layers."""
        for table in self.layers.memtables:
            table.rewrite(numbers, mask.apply)
        if self.segments is not None:
            for number in numbers:
                self.segments.delete(number, mask)
            self.show_segments()

    def _forget_empty(self, numbers: Iterable[int]) -> None:
        """Take series without a row out of the index."""
        snapshot = self._snapshot()
        for number in numbers:
            name = self.index.measurement(number).name
            ids = snapshot.series(name).ids
            alive = np.zeros(len(ids), np.bool_)
            # Those that something was deleted from are read for it: they come last.
            for source in sorted(snapshot.sources(name), key=lambda s: isinstance(s, Masked)):
                doubtful = np.flatnonzero(~alive)
                if not len(doubtful):
                    break
                rows = source.rows(ids[doubtful], MIN_TIME_NS, MAX_TIME_NS)
                alive[doubtful] = rows > 0
            self.index.discard(name, ~alive)
            if not alive.any():
                self.intake.forget(number)
