"""The segments of one store: opened, added, merged, removed. Owner of the manifest.

Every step that changes files has three parts, so that readers and writers are hardly held up:

    begin    with the writer's lock: what is to be done is settled
    write    without it: new files, then the manifest, all durable; from here on a crash keeps it
    finish   with the lock again: readers get the new layer; files no longer named are let go

One step runs at a time (`step`, a lock that the caller holds around all three). A crash before the
manifest is replaced leaves files that nobody names, which the next opening removes. Deletes are in
the log and mask segments in memory; the next flush writes the segments without those rows before
the log that says so is dropped.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyflux.columnar.base import Gap
from tinyflux.columnar.compaction import MAX_ROWS, Choose, choose, choose_all
from tinyflux.columnar.deletion import FieldDrop
from tinyflux.columnar.files import (
    QUARANTINE_DIRECTORY,
)
from tinyflux.columnar.footer import ROW_GROUP_ROWS, SegmentInfo
from tinyflux.columnar.manifest import (
    Manifest,
    SeriesFile,
    read_manifest,
    write_names,
)
from tinyflux.columnar.quarantine import Quarantine
from tinyflux.columnar.scan import empty_run, merge_runs
from tinyflux.columnar.segment import Segment
from tinyflux.columnar.series import SeriesIndex
from tinyflux.columnar.shard import DEFAULT_SHARD_DURATION_NS, SegmentLayer, ShardMap, layer_of
from tinyflux.columnar.storefiles import StoreFiles
from tinyflux.errors import CorruptionError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tinyflux.batch import FieldType, Int64s
    from tinyflux.columnar.base import SeriesSet
    from tinyflux.columnar.chunks import ChunkCache
    from tinyflux.columnar.deletion import Mask
    from tinyflux.columnar.files import FileSystem
    from tinyflux.columnar.memtable import MemtableView
    from tinyflux.columnar.scan import Run
    from tinyflux.columnar.series import IndexView

logger = logging.getLogger(__name__)

_MERGE_COPIES = 3  # of all columns that a merge has in memory: sources, result, Parquet
_MIN_MERGE_ROWS = 100_000  # merged at once however small the cache is, unless they take
_MIN_MERGE_BYTES = 32 << 20  # more than this
_SERIES_MERGE_RATIO = 2  # a new series file swallows older ones at most this many times larger


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """What a flush writes: the state of a store when a new log file was begun.

    Attributes:
        memtables: What is in memory, oldest first.
        index: The series index.
        series: Ids and keys of series, ids ascending: those that no series file has yet, or all
            where the files do not hold any more.
        keeps_files: Whether the series files there are still hold.
        renames: How many renames of measurements no manifest knows of yet.
        first_log: The new log file: all of this is in older ones.
        layer: The segments, with the deletions that the flush makes unnecessary.
    """

    memtables: Sequence[MemtableView]
    index: IndexView
    series: Sequence[tuple[int, bytes]]
    keeps_files: bool
    renames: int
    first_log: int
    layer: SegmentLayer


class Change(NamedTuple):
    """A step that is written and waits for `finish`.

    Attributes:
        manifest: What is on disk now.
        added: The new segments with the numbers of their measurements.
        removed: The segments that are no longer named.
        done: Deletions that the new segments no longer need.
        flushed: What was written, of a flush.
        mended: Those of the removed segments that go into the quarantine.
    """

    manifest: Manifest
    added: Sequence[tuple[int, Segment]]
    removed: frozenset[int]
    done: frozenset[Mask]
    flushed: Frozen | None
    mended: frozenset[int] = frozenset()


class Segments:
    """The segments of a store.

    Args:
        directory: Of the store; it exists.
        files: The file system.
        cache: For decoded chunks.
        overwrite: Whether points of equal series and time are one.
        shard_duration_ns: How long new shards are; None leaves it to the manifest, or to a default.
        row_group_rows: Rows of a row group of new segments.

    Attributes:
        step: Held around a step.
        layer: What readers see.
        manifest: What is on disk.
        quarantine: What damaged segments took along.
        on_damage: Called when a damaged segment was found; it should have `mend` called soon.
    """

    def __init__(
        self,
        directory: Path,
        files: FileSystem,
        cache: ChunkCache,
        *,
        overwrite: bool,
        shard_duration_ns: int | None,
        row_group_rows: int = ROW_GROUP_ROWS,
    ) -> None:
        self.step = threading.Lock()
        self.layer = SegmentLayer()
        manifest = read_manifest(files, directory) or Manifest(DEFAULT_SHARD_DURATION_NS)
        # What was asked for is in the file from the next step on.
        self.manifest = replace(
            manifest, shard_duration_ns=shard_duration_ns or manifest.shard_duration_ns
        )
        self.quarantine = Quarantine(directory / QUARANTINE_DIRECTORY, files)
        self.on_damage: Callable[[], None] = lambda: None
        self._index = SeriesIndex()
        self._store = StoreFiles(directory, files, self.manifest.next_file, row_group_rows)
        self._directory = directory
        self._files = files
        self._cache = cache
        self._overwrite = overwrite
        self._flushing = False
        self._renames = 0  # that no manifest knows of yet
        self._lacks_series = False  # a series file was found damaged: the index has what it said
        self._hidden: list[Segment] = []

    # Opening

    def restore(self, index: SeriesIndex) -> None:
        """Fill an empty series index with what the files know, and open the layer.

        Raises:
            CorruptionError: A series file is missing or damaged.
        """
        self._index = index
        entries: list[tuple[int, bytes]] = []
        for file in self.manifest.series:
            entries += self._read_series(file)
        index.restore(entries, self.manifest.next_series)
        numbers: dict[str, int] = {}
        for name, fields in self.manifest.fields.items():
            numbers[name] = index.open_measurement(name).number
            index.set_fields(numbers[name], fields)
        self.layer = layer_of(
            (
                (numbers[info.measurement], self._segment(info))
                for info in self.manifest.segments
                if info.measurement in numbers
            ),
            {},
        )
        live = {info.number for info in self.manifest.segments}
        self.quarantine.restore()
        self.quarantine.forget(lambda gap: gap.number in live)  # `mend` stopped before its end
        gaps = {gap.number for gap in self.quarantine.gaps}
        for path in self._store.remove_rubbish(self.manifest, gaps):
            self.quarantine.take(path)

    def sweep(self) -> None:
        """Remove the files that nobody reads any more. Called between steps."""
        self._store.sweep()

    @property
    def shard_map(self) -> ShardMap:
        """Which shard a time belongs to."""
        return ShardMap(self.manifest.shard_duration_ns, self.manifest.shards)

    def set_shard_duration(self, duration_ns: int) -> None:
        """Say how long new shards are, durably. A step by itself."""
        manifest = replace(self.manifest, shard_duration_ns=duration_ns)
        with self._store.undone_on_error():
            self.manifest = self._store.commit(manifest)

    # Begin: the caller holds the writer's lock

    def delete(self, measurement: int, deletion: Mask) -> None:
        """Mask rows or a field of a measurement (its number) that the log says are deleted."""
        if self._flushing or self.layer.segments.get(measurement):
            self.layer = self.layer.deleting(measurement, deletion)

    def rename(self, measurement: str, name: str) -> None:
        """Note that a measurement was renamed: the next flush writes the names anew."""
        self._renames += 1
        self.quarantine.rename(measurement, name)

    def has_dropped(self, index: IndexView) -> bool:
        """Return whether there are segments of measurements that are no more."""
        return not self.layer.segments.keys() <= index.names().keys()

    def freeze(
        self, memtables: Sequence[MemtableView], index: SeriesIndex, first_log: int
    ) -> Frozen:
        """Return what a flush is to write; deletions from now on also mask what it will write."""
        self._flushing = True
        fresh = range(self.manifest.next_series, index.next_id)
        pairs = zip(fresh, index.keys(fresh), strict=True)
        series = [(series_id, key) for series_id, key in pairs if key]
        known = sum(file.series for file in self.manifest.series)
        is_same = known + len(series) == len(index)
        keeps_files = is_same and not self._renames and not self._lacks_series
        if not keeps_files:  # some are gone, or called otherwise: write all anew
            series = index.entries()
        return Frozen(
            memtables, index.view(), series, keeps_files, self._renames, first_log, self.layer
        )

    def hide(self, first_ns: int, last_ns: int) -> tuple[list[int], set[int]]:
        """Take the shards that lie in a closed interval from readers.

        They are removed by the next flush, in one step with the series that go with them.

        Returns:
            numbers, shards: whose rows were hidden, and the first ns of the shards.
        """
        kept: list[tuple[int, Segment]] = []
        numbers: set[int] = set()
        shards: set[int] = set()
        doomed = {
            start for start, end in self.manifest.shards if first_ns <= start and end <= last_ns
        }
        for number, segments in self.layer.segments.items():
            for segment in segments:
                if segment.info.shard_ns in doomed:
                    numbers.add(number)
                    shards.add(segment.info.shard_ns)
                    self._hidden.append(segment)
                else:
                    kept.append((number, segment))
        if numbers:
            self.layer = layer_of(kept, self.layer.deletions)
        self.quarantine.forget(lambda gap: first_ns <= gap.first_ns and gap.last_ns <= last_ns)
        return sorted(numbers), shards

    # Write: without the lock

    def flush(self, frozen: Frozen) -> Change:
        """Write what is frozen and what deletions left of old segments, durably.

        Raises:
            OSError: It could not be written; nothing was changed.
        """
        with self._store.undone_on_error():
            return self._flush(frozen)

    def _flush(self, frozen: Frozen) -> Change:
        layer = frozen.layer
        names = frozen.index.names()
        added: list[tuple[int, Segment]] = []
        named = {info.number for info in self.manifest.segments}
        removed = named - {segment.info.number for segment in layer.all_segments()}
        for number in _measurements(frozen.memtables):
            if number in names:
                runs = [run for view in frozen.memtables for run in view.sources(number)]
                run = merge_runs(runs, overwrite=self._overwrite)
                added += self._add(number, run, frozen.index.series(names[number]))
        for number, segments in layer.segments.items():
            if number not in names:  # the measurement was dropped
                removed.update(segment.info.number for segment in segments)
            elif number in layer.deletions:
                series = frozen.index.series(names[number])
                for segment in segments:
                    replaced = self._without_deleted(layer, number, segment, series)
                    if replaced is not None:
                        removed.add(segment.info.number)
                        added += replaced
        name_of = {
            segment.info.number: names[number]
            for number, segments in layer.segments.items()
            if number in names
            for segment in segments
        }
        manifest = replace(
            self._manifest_with(added, removed, name_of),
            first_log=frozen.first_log,
            next_series=frozen.index.limit,
            series=self._series_files(frozen),
            fields=_fields(frozen.index),
        )
        done = frozenset(d for found in layer.deletions.values() for d in found)
        if frozen.renames:  # first: until the manifest is there, the log has the rename as well
            write_names(self._files, self._directory, name_of)
        return self._commit(manifest, added, removed, done, frozen)

    def compact(self, index: IndexView, *, fully: bool = False) -> Change | None:
        """Merge some segments into one, durably; None when there is nothing to do.

        Args:
            index: The series.
            fully: Whether to go on when that is more work than it is worth.

        Raises:
            OSError: It could not be written; nothing was changed.
        """
        with self._store.undone_on_error():
            return self._compact(index, choose_all if fully else choose)

    def _compact(self, index: IndexView, choose: Choose) -> Change | None:
        layer, names = self.layer, index.names()
        number, chosen = self._choose(layer, names, choose)
        if not chosen:
            return None
        # The log may have a rename that the manifest does not have: its name stays until a flush.
        series = replace(index.series(names[number]), measurement=chosen[0].measurement)
        numbers = {info.number for info in chosen}
        sources = [s for s in layer.segments.get(number, ()) if s.info.number in numbers]
        runs = [layer.masked(number, segment).read_all() for segment in sources]
        run = _living(merge_runs(runs, overwrite=self._overwrite), series)
        added = []
        if len(run):
            info = self._store.write_segment(run, series, chosen[0].shard_ns, chosen[-1].order)
            added.append((number, self._segment(info)))
        return self._commit(self._manifest_with(added, numbers), added, numbers, frozenset())

    def damaged(self, index: IndexView) -> list[tuple[int, Segment]]:
        """Return the measurements (their numbers) and segments that `mend` has to look at."""
        names = index.names()
        return [
            (number, segment)
            for number, segments in self.layer.segments.items()
            if number in names
            for segment in segments
            if segment.damage is not None
        ]

    def mend(self, index: IndexView) -> Change | None:
        """Write what is left of damaged segments anew, durably; None when none is damaged.

        The damaged files go into the quarantine with a note of what is lost.

        Raises:
            OSError: It could not be written; nothing was changed.
        """
        damaged = self.damaged(index)
        if not damaged:
            return None
        if not self._store.has_manifest:
            raise StorageError(f"the manifest is gone, as if a disk was: {self._directory}")
        with self._store.undone_on_error():
            return self._mend(index, damaged)

    def _mend(self, index: IndexView, damaged: Sequence[tuple[int, Segment]]) -> Change:
        names = index.names()
        named = {info.number: info.measurement for info in self.manifest.segments}
        added, lossy = [], set[int]()
        for number, segment in damaged:
            info = segment.info
            series = replace(index.series(names[number]), measurement=named[info.number])
            run, gap = _salvage(segment, names[number])
            run = _living(self.layer.masked(number, segment).apply(run), series)
            if len(run):
                fresh = self._store.write_segment(run, series, info.shard_ns, info.order)
                added.append((number, self._segment(fresh)))
            if gap.rows:
                self.quarantine.write(gap)
                lossy.add(gap.number)
        gone = {segment.info.number for _, segment in damaged}
        change = self._commit(self._manifest_with(added, gone), added, gone, frozenset())
        return change._replace(mended=frozenset(lossy))

    def _choose(
        self, layer: SegmentLayer, names: Iterable[int], choose: Choose
    ) -> tuple[int, Sequence[SegmentInfo]]:
        """Return the measurement (its number) and the segments whose merge is worth most.

        They fit into memory; none when there is nothing to do.

        Args:
            layer: The segments.
            names: Numbers of the measurements that exist.
            choose: Of `compaction`.
        """
        known = {info.number: info for info in self.manifest.segments}
        best: tuple[int, Sequence[SegmentInfo]] = (-1, ())
        for number in names:
            segments = layer.segments.get(number, ())
            if len(segments) > len(best[1]):
                infos = [known[segment.info.number] for segment in segments]
                chosen = choose(infos, max_rows=self._most_rows(infos[0].measurement))
                best = max(best, (number, chosen), key=lambda found: len(found[1]))
        return best

    def _most_rows(self, measurement: str) -> int:
        """Return how many rows of a measurement are merged at once, all columns in memory."""
        row_bytes = 8 * (2 + len(self.manifest.fields.get(measurement, ())))
        fits = self._cache.max_bytes // (_MERGE_COPIES * row_bytes)
        least = min(_MIN_MERGE_ROWS, _MIN_MERGE_BYTES // (_MERGE_COPIES * row_bytes))
        return min(MAX_ROWS, max(least, fits))

    def _without_deleted(
        self, layer: SegmentLayer, number: int, segment: Segment, series: SeriesSet
    ) -> list[tuple[int, Segment]] | None:
        """Return what is left of a segment, written anew; None when all of it is."""
        masks = layer.masks(number, segment)
        if not masks:
            return None
        ids = segment.series_ids()
        if not any(mask.touches(ids).any() for mask in masks):
            return None
        run = layer.masked(number, segment).read_all()
        if len(run) == len(segment) and not any(isinstance(mask, FieldDrop) for mask in masks):
            return None
        run = _living(run, series)
        if not len(run):
            return []
        info = self._store.write_segment(run, series, segment.info.shard_ns, segment.info.order)
        return [(number, self._segment(info))]

    def _add(self, number: int, run: Run, series: SeriesSet) -> list[tuple[int, Segment]]:
        added = []
        run = _living(run, series)
        if len(run):
            for shard, part in self.shard_map.split(run):
                info = self._store.write_segment(part, series, shard.first_ns)
                added.append((number, self._segment(info)))
        return added

    def _series_files(self, frozen: Frozen) -> tuple[SeriesFile, ...]:
        """Return the series files after a flush, written where new; few, by geometric merging."""
        old = list(self.manifest.series) if frozen.keeps_files else []
        entries = list(frozen.series)
        while entries and old and old[-1].series <= _SERIES_MERGE_RATIO * len(entries):
            entries = self._read_series(old.pop()) + entries
        if not entries:
            return tuple(old)
        return (*old, self._store.write_series(entries))

    def _read_series(self, file: SeriesFile) -> list[tuple[int, bytes]]:
        """Return ids and keys of a series file.

        Raises:
            CorruptionError: It is missing or damaged; the next flush writes all anew.
        """
        try:
            return self._store.read_series(file)
        except CorruptionError:
            self._lacks_series = True
            raise

    def _manifest_with(
        self,
        added: Iterable[tuple[int, Segment]],
        removed: set[int],
        name_of: Mapping[int, str] | None = None,
    ) -> Manifest:
        """Return the manifest after a step; name_of has the names of segments that may be new."""
        kept = [info for info in self.manifest.segments if info.number not in removed]
        if name_of is not None:
            kept = [replace(info, measurement=name_of[info.number]) for info in kept]
        infos = (*kept, *(segment.info for _, segment in added))
        shards = map(self.shard_map.at, sorted({info.shard_ns for info in infos}))
        return replace(self.manifest, segments=infos, shards=tuple(shards))

    def _commit(
        self,
        manifest: Manifest,
        added: Sequence[tuple[int, Segment]],
        removed: set[int],
        done: frozenset[Mask],
        flushed: Frozen | None = None,
    ) -> Change:
        """Make a step real."""
        manifest = self._store.commit(manifest)
        return Change(manifest, added, frozenset(removed), done, flushed)

    # Finish: the caller holds the writer's lock

    def finish(self, change: Change) -> None:
        """Show readers a step that is written, and let go of the files it replaced."""
        layer = self.layer
        gone: list[Segment] = []
        members = list(change.added)
        for number, segments in layer.segments.items():
            for segment in segments:
                if segment.info.number in change.removed:
                    gone.append(segment)
                else:
                    members.append((number, segment))
        deletions = {
            number: tuple(d for d in found if d not in change.done)
            for number, found in layer.deletions.items()
        }
        if change.flushed is not None:
            self._flushing = False
            self._renames -= change.flushed.renames
            self._lacks_series = False
            gone += self._hidden
            self._hidden = []
        dead = set(self.manifest.series) - set(change.manifest.series)
        self.layer = layer_of(members, deletions)
        self.manifest = change.manifest
        for segment in gone:
            segment.forget_chunks()
            if segment.info.number in change.mended:
                self.quarantine.take(segment.path)
            else:
                self._store.retire(segment)
        self.quarantine.keep_live({info.number for info in self.manifest.segments})
        self._store.drop_series(file.number for file in dead)

    def _segment(self, info: SegmentInfo) -> Segment:
        return Segment(
            self._store.segment_path(info), info, self._cache, self._files, self._found_damage
        )

    def _found_damage(self, segment: Segment) -> None:
        """Note a damaged segment, called by whoever reads it."""
        info, error = segment.info, segment.damage
        assert error is not None
        name = next(
            (
                self._index.measurement(number).name
                for number, segments in self.layer.segments.items()
                if segment in segments
            ),
            info.measurement,
        )
        logger.error(
            "segment is damaged: measurement=%s points=%d error=%s", name, info.rows, error
        )
        self.quarantine.note(
            Gap(info.number, name, info.first_ns, info.last_ns, info.rows, error.reason)
        )
        self.on_damage()


def _measurements(memtables: Iterable[MemtableView]) -> list[int]:
    return sorted({number for view in memtables for number in view.measurements()})


def _fields(index: IndexView) -> dict[str, Mapping[str, FieldType]]:
    """Return the field types of all measurements that have series."""
    return {
        name: fields
        for name, (entry, fields) in index.catalog.items()
        if entry.members_below(index.limit)
    }


def _salvage(segment: Segment, measurement: str) -> tuple[Run, Gap]:
    """Return what can be read of a damaged segment, and what cannot."""
    info, error = segment.info, segment.damage
    assert error is not None
    try:
        run, lossy = segment.salvage()
        first_ns, last_ns, rows = segment.bounds(lossy) if lossy else (0, -1, 0)
    except CorruptionError:
        run, (first_ns, last_ns, rows) = empty_run(), (info.first_ns, info.last_ns, info.rows)
    return run, Gap(info.number, measurement, first_ns, last_ns, rows, error.reason)


def _living(run: Run, series: SeriesSet) -> Run:
    """Return the rows of a run whose series still exist."""
    at = np.minimum(np.searchsorted(series.ids, run.ids), max(len(series) - 1, 0))
    alive: Int64s = series.ids[at] == run.ids if len(series) else np.zeros(len(run.ids), np.bool_)
    if alive.all():
        return run
    return run.keep(np.repeat(alive, np.diff(run.offsets)))
