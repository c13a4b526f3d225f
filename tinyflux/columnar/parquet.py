"""ParquetStorage: the embedded columnar storage. This module opens, recovers, logs and closes.

    append_batch                    intake (types, series) -> log -> memtable
    scan, aggregate, series ...     snapshot
    delete, rewrite, ...            log -> memtable and segments -> series index
    flush, compact, expire          `flushing`
    what all of these change        `state`

One lock orders the writers; whoever holds it is "the writer" that the parts speak of. Readers take
a snapshot, without that lock. Appends wait for the disk outside the lock, so that writers share one
sync; what deletes waits inside it. A change is made in memory when its frame is durable, so what
the log refuses was never seen.

With no path the store lives in memory, without a log.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tinyflux.batch import MIN_TIME_NS
from tinyflux.columnar.base import DeleteRequest, Replacement, ScanRequest, WriteResult
from tinyflux.columnar.batchcodec import encode, encode_names, encode_ranges, encode_rewrite
from tinyflux.columnar.chunks import DEFAULT_CHUNK_BYTES
from tinyflux.columnar.deletion import Deletion
from tinyflux.columnar.evaluate import needs_rows, prepare
from tinyflux.columnar.files import LOCK_NAME, LOG_DIRECTORY, OsFiles
from tinyflux.columnar.flushing import Flushing
from tinyflux.columnar.items import ItemStorage
from tinyflux.columnar.memory import Memory
from tinyflux.columnar.recovery import Recovery
from tinyflux.columnar.rewrite import plan_rewrite
from tinyflux.columnar.segments import Segments
from tinyflux.columnar.shard import DEFAULT_SHARD_DURATION_NS
from tinyflux.columnar.snapshot import LiveReader
from tinyflux.columnar.state import State
from tinyflux.columnar.wal import SYNC_MODES, Kind, Log
from tinyflux.errors import CorruptionError, QueryError, StorageReadOnly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tinyflux.batch import PointBatch
    from tinyflux.columnar.base import (
        Frame,
        Rejection,
        Shard,
    )
    from tinyflux.columnar.chunks import ChunkCache
    from tinyflux.columnar.files import FileSystem, Lock
    from tinyflux.columnar.limits import SeriesLimits
    from tinyflux.columnar.rewrite import Rewrite
    from tinyflux.columnar.snapshot import Snapshot
    from tinyflux.columnar.wal import Entry, SyncMode
    from tinyflux.point import Point

_LOG_FILE_BYTES: Final = 64 << 20
_FLUSH_BYTES: Final = 64 << 20
# A writer waits for the flusher when this many times the bytes of a flush are held.
_MOST_FLUSHES_HELD: Final = 4
# Of a delete with conditions on fields, how many ranges (of 24 bytes) are held until a flush.
_MOST_RANGES: Final = 1_000_000


class ParquetStorage(LiveReader, ItemStorage):
    """A columnar storage in a directory, or in memory.

    Usage:
        >>> from tinyflux import Point
        >>> storage = ParquetStorage()
        >>> storage.append([Point(measurement="air", fields={"aqi": 112})])
        >>> storage.measurements()
        ['air']

    Args:
        path: The directory, made when missing; None keeps everything in memory.
        overwrite: Whether points of equal series and time become one (InfluxDB), or all stay
            (TinyFlux).
        sync: When a write counts as durable: "always", "group", "interval" or "off"; FORMAT.md has
            the promises.
        log_file_bytes: About how long a log file gets.
        flush_bytes: How many bytes of points are held in memory before they go into segments.
        flush_after_s: How long points are held in memory, when there are many enough.
        shard_duration_ns: How long new shards are; None leaves it as it was, a week in a new store.
        chunk_cache_bytes: How much of what was read from segments is kept in memory.
        memory: Bounds that several stores share; in place of `chunk_cache_bytes`.
        limits: Of series, that several stores share.
        files: The file system; for tests.

    Raises:
        StorageLocked: Another process has the directory open.
        OSError: The directory cannot be read or made.
        ValueError: An unknown sync mode.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        overwrite: bool = False,
        sync: SyncMode = "group",
        log_file_bytes: int = _LOG_FILE_BYTES,
        flush_bytes: int = _FLUSH_BYTES,
        flush_after_s: float = 600.0,
        shard_duration_ns: int | None = None,
        chunk_cache_bytes: int = DEFAULT_CHUNK_BYTES,
        memory: Memory | None = None,
        limits: SeriesLimits | None = None,
        files: FileSystem | None = None,
    ) -> None:
        if sync not in SYNC_MODES:
            raise ValueError(f"sync mode {sync!r}: one of {', '.join(SYNC_MODES)}")
        self.overwrite = overwrite
        self.path = None if path is None else Path(path)
        self._lock = threading.RLock()
        if memory is None:
            memory = Memory(_MOST_FLUSHES_HELD * flush_bytes, chunk_cache_bytes)
        self._state = State(
            memory,
            overwrite=overwrite,
            shard_duration_ns=shard_duration_ns or DEFAULT_SHARD_DURATION_NS,
        )
        self._temporary: list[Point] = []
        self._files: FileSystem = OsFiles() if files is None else files
        self._directory_lock: Lock | None = None
        self._log: Log | None = None
        self._flushing: Flushing | None = None
        self._recovered = (0, 0)  # frames read, damaged places
        if self.path is not None:
            segments = self._open(self.path, memory.chunks, sync, log_file_bytes, shard_duration_ns)
            assert self._log is not None
            self._flushing = Flushing(
                f"flusher {path}",
                self._state,
                segments,
                self._log,
                self._lock,
                memory,
                flush_bytes=flush_bytes,
                flush_after_s=flush_after_s,
            )
            self._flushing.flush_when_due()
        self._initially_empty = not self._state.index
        self._limits = limits  # from now on: what the log says is not refused
        if limits is not None:
            limits.join(self._state.index)

    # Opening and closing

    def _open(
        self,
        path: Path,
        chunks: ChunkCache,
        sync: SyncMode,
        log_file_bytes: int,
        shard_duration_ns: int | None,
    ) -> Segments:
        """Take the directory, and read what it says. The log is open afterwards."""
        directory = path / LOG_DIRECTORY
        self._files.make_directory(directory)
        self._directory_lock = self._files.lock(path / LOCK_NAME)
        try:
            segments = Segments(
                path,
                self._files,
                chunks,
                overwrite=self.overwrite,
                shard_duration_ns=shard_duration_ns,
            )
            segments.restore(self._state.index)
            self._state.segments = segments
            self._state.show_segments()
            first = segments.manifest.first_log
            recovery = Recovery(directory, self._files, first)
            for change in recovery.changes():
                self._state.redo(change)
            self._recovered = recovery.n_frames, recovery.n_damaged
            self._log = Log(
                directory,
                self._files,
                recovery.next_number,
                sync=sync,
                max_file_bytes=log_file_bytes,
            )
            self._log.drop_before(first)
        except BaseException:
            self._directory_lock.release()
            raise
        return segments

    def close(self) -> None:
        """Make everything durable and release the directory; called twice it does nothing.

        Raises:
            StorageReadOnly: The last writes could not be made durable.
        """
        if self._state.is_closed:
            return
        if self._flushing is not None:
            self._flushing.close()
        with self._lock:
            if self._state.is_closed:
                return
            self._state.is_closed = True
        if self._limits is not None:
            self._limits.leave(self._state.index)
        if self._flushing is not None:
            self._flushing.forget()
        try:
            if self._log is not None:
                self._log.close()
        finally:
            if self._directory_lock is not None:
                self._directory_lock.release()

    def _check_writable(self) -> None:
        self._state.check_open()
        if self._log is not None:
            self._log.check()

    # Writing

    def append_batch(
        self,
        batch: PointBatch,
        on_durable: Callable[[Exception | None], None] | None = None,
        *,
        strict: bool = False,
    ) -> WriteResult:
        """Store the points that types and limits allow; reject the others."""
        if self._flushing is not None:
            self._flushing.make_room()
        self._state.layers.memtable.tidy()
        # Before the lock and before the index learns anything: it takes time and may refuse.
        payload = b"" if self._log is None else encode(batch)
        entry = None
        with self._lock:
            self._check_writable()
            if self._log is None or self._log.is_failing:
                if strict:
                    self._state.intake.check(batch, self._limits)
                return self._append_durably(batch, on_durable)
            if self._state.refused:
                self._log.drain()
                self._state.forget_refused()
            accepted = self._state.intake.take(batch, strict=strict, limits=self._limits)
            block = accepted.block
            if len(block):
                if accepted.rejected:
                    payload = encode(accepted.batch)
                settle = functools.partial(self._state.settle, block)
                entry = self._log.append(Kind.BATCH, payload, settle=settle, callback=on_durable)
        self._flush_when_due()
        if on_durable is None:
            self._wait(entry)
        elif entry is None:
            on_durable(None)
        return WriteResult(len(block), accepted.rejected)

    def _append_durably(
        self,
        batch: PointBatch,
        on_durable: Callable[[Exception | None], None] | None,
    ) -> WriteResult:
        """Let the index learn of a batch only after its frame is durable. The caller has the lock.

        So the index does not grow by what is refused while the log fails. The first write that
        succeeds ends that state.
        """
        batch, over = self._admitted(batch)  # the log must not say what is refused
        self._append_log(Kind.BATCH, b"" if self._log is None else encode(batch))
        accepted = self._state.intake.take(batch)
        if len(accepted.block):
            self._state.append(accepted.block)
        if on_durable is not None:
            on_durable(None)
        return WriteResult(len(accepted.block), (*over, *accepted.rejected))

    def _admitted(self, batch: PointBatch) -> tuple[PointBatch, tuple[Rejection, ...]]:
        """Return the points of a batch that the limits let in, and what they refuse."""
        if self._limits is None:
            return batch, ()
        index = self._state.index
        return self._limits.admit(batch, index.lookup(batch.keys), index)

    def delete(self, request: DeleteRequest) -> int:
        """Delete points, durably. Returns how many series had or might have had some removed.

        Series without points left are forgotten, and measurements without series.
        """
        if request.query is not None and needs_rows(request.query):
            return self._delete_matching(request)
        with self._lock:
            self._check_writable()
            snapshot = self.snapshot()
            asked = request.measurement
            names = snapshot.measurements() if asked is None else [asked]
            sets = [snapshot.series(name, request.query).ids for name in names]
            ids = np.concatenate([np.zeros(0, np.int64), *sets])
            if not len(ids) or request.start_ns > request.end_ns:
                return 0
            deletion = Deletion(
                ids, np.full(len(ids), request.start_ns), np.full(len(ids), request.end_ns)
            )
            self._append_log(Kind.DELETE, encode_ranges(deletion.ranges(self._state.index)))
            self._state.delete(deletion)
        return len(ids)

    def _delete_matching(self, request: DeleteRequest) -> int:
        """Delete the points that a scan finds, a shard at a time: so long do writers wait."""
        touched: set[int] = set()
        # Where points have no twins, what else they hold does not matter.
        needed = prepare(request.query).fields() if self.overwrite else None
        fields = None if needed is None else tuple(needed)
        names = self.measurements() if request.measurement is None else [request.measurement]
        for shard in self.shards():
            start_ns = max(request.start_ns, shard.first_ns)
            end_ns = min(request.end_ns, shard.last_ns)
            for name in names if start_ns <= end_ns else ():
                scan = ScanRequest(name, request.query, start_ns, end_ns, fields)
                while self._delete_some(scan, touched):
                    self.flush()
        if touched and self._flushing is not None:
            self._flushing.flush_soon()  # reads would go through all of these ranges
        return len(touched)

    def _delete_some(self, scan: ScanRequest, touched: set[int]) -> bool:
        """Delete points that a scan finds; return whether there may be more, behind a flush.

        Args:
            scan: Which points.
            touched: Gets the ids of their series.
        """
        plan = self._rewrite([scan], _all, most_ranges=_MOST_RANGES)
        touched.update(plan.deletion.ids.tolist())
        return not plan.is_complete or self._state.layers.segments.n_deleted > _MOST_RANGES

    def rewrite(
        self,
        requests: Sequence[ScanRequest],
        change: Callable[[Frame], Replacement | None],
    ) -> int:
        """Take points out and put others in their place, durably, as one step."""
        return self._rewrite(requests, change).n_out

    def _rewrite(
        self,
        requests: Sequence[ScanRequest],
        change: Callable[[Frame], Replacement | None],
        most_ranges: int = 0,
    ) -> Rewrite:
        """Plan a rewrite and do it, as one step.

        When the plan finds damage, that is mended and the plan made anew: rows that can still be
        read must not be overlooked.
        """
        while True:
            with self._lock:
                self._check_writable()
                self._drain()
                plan = plan_rewrite(
                    self.snapshot(), self._state.index, requests, change, most_ranges=most_ranges
                )
                if self._flushing is None or not self._flushing.is_damaged:
                    if plan.n_out:
                        self._replace(plan.deletion, plan.batch)
                    break
            self._flushing.mend()
        self._flush_when_due()
        return plan

    def replace_all(self, batch: PointBatch) -> None:
        """Put a batch in the place of everything stored, durably, as one step.

        Raises:
            FieldTypeConflict: A value has another type than its field had; nothing is done.
        """
        with self._lock:
            self._check_writable()
            self._replace(self._state.everything(), batch)
        self._flush_when_due()

    def _replace(self, deletion: Deletion, batch: PointBatch) -> None:
        """Delete and store as one step. The caller holds the lock."""
        payload = encode_rewrite(deletion.ranges(self._state.index), batch)
        accepted = self._state.intake.take(batch, strict=True)
        try:
            self._append_log(Kind.REWRITE, payload)
        except StorageReadOnly:
            self._state.refuse(accepted.block)
            raise
        self._state.replace(deletion, accepted.block)

    def drop_measurement(self, measurement: str) -> bool:
        """Delete a measurement with its field types, durably. Returns whether it existed."""
        with self._lock:
            self._check_writable()
            if not self._state.index.view().has(measurement):
                return False
            self._append_log(Kind.DROP_MEASUREMENT, measurement.encode())
            self._state.drop(measurement)
        return True

    def drop_field(self, measurement: str, field: str) -> bool:
        """Delete a field of a measurement, durably; returns whether it existed.

        Points that have no other field go with it, and series without points. The segments that
        have it are written anew in the background; until then reads of them read all fields.
        """
        with self._lock:
            self._check_writable()
            if field not in self._state.index.view().fields(measurement):
                return False
            self._append_log(Kind.DROP_FIELD, encode_names(measurement, field))
            self._state.drop_field(measurement, field)
        if self._flushing is not None:
            self._flushing.flush_soon()
        return True

    def rename_measurement(self, measurement: str, name: str) -> bool:
        """Give a measurement another name, durably. Returns whether it existed. O(its series)."""
        with self._lock:
            self._check_writable()
            known = self._state.index.view()
            if not known.has(measurement):
                return False
            if known.has(name):
                raise QueryError(f"measurement already exists: {name}")
            payload = encode_names(measurement, name)
            self._append_log(Kind.RENAME_MEASUREMENT, payload)
            self._state.rename(measurement, name)
        return True

    def size_bytes(self, measurement: str) -> int:
        """Return how many bytes the segments of a measurement take; 0 when unknown."""
        number = self._state.index.view().number(measurement)
        segments = self._state.layers.segments.segments.get(number, ())
        return sum(segment.info.size_bytes for segment in segments)

    def _wait(self, entry: Entry | None) -> None:
        if entry is not None and self._log is not None:
            self._log.wait(entry)

    def _append_log(self, kind: Kind, payload: bytes) -> None:
        """Return when a frame is durable, and all before it. The caller holds the lock.

        Raises:
            StorageReadOnly: It is not: nothing may be applied.
        """
        if self._log is not None:
            self._log.wait(self._log.append(kind, payload))

    def _drain(self) -> None:
        """Have all that was accepted in memory, or refused. The caller holds the lock."""
        if self._log is not None:
            self._log.drain()

    # Flushing, compacting, expiring

    def flush(self) -> None:
        """Write what is in memory to segments, and drop the log files that said it.

        Without a path it does nothing.

        Raises:
            OSError: The segments could not be written; nothing is lost, and it can be tried again.
            StorageReadOnly: The log failed.
        """
        if self._flushing is not None:
            self._flushing.flush()

    def compact(self, *, fully: bool = False) -> bool:
        """Merge some segments into one; returns whether there was something to merge.

        Args:
            fully: Whether to go on when that is more work than it is worth: for data that is old.
        """
        return self._flushing is not None and self._flushing.compact(fully=fully)

    def verify(self) -> None:
        """Read everything, and set aside what is damaged; `gaps` tells.

        Raises:
            OSError: A file cannot be read, or what is left of damaged ones not be written.
        """
        segments = self._state.segments
        for segment in () if segments is None else list(segments.layer.all_segments()):
            with contextlib.suppress(CorruptionError):
                segment.verify()
        self.flush()

    def expire(self, before_ns: int) -> int:
        """Remove the shards that end at or before a time, durably. Returns how many shards it were.

        Series without points left are forgotten, and measurements without series.
        """
        with self._lock:
            border = self._state.shard_map.at(before_ns).first_ns
        return self._remove_shards(MIN_TIME_NS, border - 1)

    def shards(self) -> list[Shard]:
        """Return the shards that have points, ascending.

        One whose points were all deleted may be among them until the next flush.
        """
        with self._lock:
            self._state.check_open()
            shard_map, layers = self._state.shard_map, self._state.layers
            views = [table.view() for table in layers.memtables]
        return shard_map.occupied(layers.segments, views)

    def drop_shard(self, shard: Shard) -> bool:
        """Remove a shard with its points, durably; returns whether it was there."""
        return shard in self.shards() and self._remove_shards(*shard) > 0

    def _remove_shards(self, first_ns: int, last_ns: int) -> int:
        """Remove all shards between two borders; returns how many it were."""
        if self._flushing is not None:
            return self._flushing.remove_shards(first_ns, last_ns)
        with self._lock:
            self._state.check_open()
            return self._state.remove_shards(first_ns, last_ns)

    def set_shard_duration(self, duration_ns: int) -> None:
        """Say how long new shards are, durably; those that are there keep their bounds.

        In memory all shards become so long.
        """
        self._state.check_open()
        if duration_ns == self._state.shard_map.duration_ns:
            return
        if self._flushing is not None:
            self._flushing.set_shard_duration(duration_ns)
        else:
            self._state.set_shard_duration(duration_ns)

    def _flush_when_due(self) -> None:
        if self._flushing is not None:
            self._flushing.flush_when_due()

    # Reading

    def snapshot(self) -> Snapshot:
        """Return the state of now; later writes do not show in it."""
        self._state.check_open()
        return self._state.snapshot()

    # Watching

    def sync(self) -> None:
        """Make everything accepted so far durable, whatever the sync mode.

        Raises:
            StorageReadOnly: It cannot become durable.
        """
        self._state.check_open()
        if self._log is not None:
            self._log.sync()

    def stats(self) -> dict[str, int]:
        """Return counters.

        series, points_in_memory, bytes_in_memory; segments, segment_bytes, segment_points;
        segments_damaged and points_missing, as the quarantine knows; flushes_failed, log_failures;
        log_bytes and log_syncs since the start; log_frames_recovered and log_damaged at the start.
        """
        memtable, log, segments = self._state.layers.memtable, self._log, self._state.segments
        infos = () if segments is None else segments.manifest.segments
        gaps = () if segments is None else segments.quarantine.gaps
        frames, damaged = self._recovered
        return {
            "series": self._state.index.view().count,
            "points_in_memory": memtable.n_points,
            "bytes_in_memory": memtable.n_bytes,
            "segments": len(infos),
            "segment_bytes": sum(info.size_bytes for info in infos),
            "segment_points": sum(info.rows for info in infos),
            "segments_damaged": len(gaps),
            "points_missing": sum(gap.rows for gap in gaps),
            "flushes_failed": 0 if self._flushing is None else self._flushing.n_failed,
            "log_failures": 0 if log is None else log.n_failures,
            "log_bytes": 0 if log is None else log.n_bytes,
            "log_syncs": 0 if log is None else log.n_syncs,
            "log_frames_recovered": frames,
            "log_damaged": damaged,
        }


def _all(frame: Frame) -> Replacement:
    """Take out all points of a frame."""
    return Replacement(np.ones(len(frame), np.bool_))
