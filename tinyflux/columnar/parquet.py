"""ParquetStorage: the embedded columnar storage. This module opens, recovers, routes and closes.

    append_batch                    intake (types, series) -> log -> memtable
    scan, aggregate, series ...     snapshot
    delete, rewrite, ...            log -> memtable and segments -> series index
    flush                           memtable -> segments -> manifest; then old log files go

One lock orders the writers; whoever holds it is "the writer" that the parts speak of. Readers take
a snapshot, without that lock; a second one, `_visible`, is held while a change of several steps is
applied, so that no snapshot has half of it. Waiting for the disk happens outside the locks, so that
writers share one sync. A point can be read before it is durable; it is acknowledged only then.

With no path the store lives in memory, without a log.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.columnar import deletion as deletions
from tinyflux.columnar.base import DeleteRequest, WriteResult
from tinyflux.columnar.batchcodec import encode, encode_ranges, encode_rewrite
from tinyflux.columnar.chunks import DEFAULT_CHUNK_BYTES
from tinyflux.columnar.deletion import Deletion
from tinyflux.columnar.evaluate import needs_rows
from tinyflux.columnar.files import LOCK_NAME, LOG_DIRECTORY, OsFiles
from tinyflux.columnar.flusher import Flusher
from tinyflux.columnar.intake import Intake
from tinyflux.columnar.items import ItemStorage
from tinyflux.columnar.memory import Memory, trim
from tinyflux.columnar.memtable import Memtable
from tinyflux.columnar.recovery import Change, Recovery
from tinyflux.columnar.rewrite import plan_rewrite
from tinyflux.columnar.segment import release_memory
from tinyflux.columnar.segments import Segments
from tinyflux.columnar.series import SeriesIndex
from tinyflux.columnar.shard import DEFAULT_SHARD_DURATION_NS, SegmentLayer
from tinyflux.columnar.snapshot import LiveReader, Snapshot
from tinyflux.columnar.wal import SYNC_MODES, Kind, Log
from tinyflux.errors import QueryError, StorageClosed, StorageReadOnly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tinyflux.batch import Int64s, PointBatch
    from tinyflux.columnar.base import (
        Frame,
        Replacement,
        ScanRequest,
    )
    from tinyflux.columnar.files import FileSystem, Lock
    from tinyflux.columnar.memtable import Block
    from tinyflux.columnar.wal import Entry, SyncMode
    from tinyflux.point import Point

logger = logging.getLogger(__name__)

_LOG_FILE_BYTES: Final = 64 << 20
_FLUSH_BYTES: Final = 64 << 20
# A writer waits for the flusher when this many times the bytes of a flush are held.
_MOST_FLUSHES_HELD: Final = 4
# By age and on close, fewer points stay in the log: replaying it is cheaper than tiny segments.
_FLUSH_POINTS: Final = 50_000


class _Layers(NamedTuple):
    """Where the rows are, oldest first. Replaced as a whole, so that a reader sees one moment."""

    segments: SegmentLayer
    frozen: tuple[Memtable, ...]  # on their way into segments
    memtable: Memtable


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
        shard_duration_ns: How long a shard is. A store keeps what it was made with.
        chunk_cache_bytes: How much of what was read from segments is kept in memory.
        memory: Bounds that several stores share; in place of `chunk_cache_bytes`.
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
        shard_duration_ns: int = DEFAULT_SHARD_DURATION_NS,
        chunk_cache_bytes: int = DEFAULT_CHUNK_BYTES,
        memory: Memory | None = None,
        files: FileSystem | None = None,
    ) -> None:
        if sync not in SYNC_MODES:
            raise ValueError(f"sync mode {sync!r}: one of {', '.join(SYNC_MODES)}")
        self.overwrite = overwrite
        self.path = None if path is None else Path(path)
        self._lock = threading.RLock()
        self._visible = threading.Lock()
        self._closed = False
        self._index = SeriesIndex()
        self._intake = Intake(self._index, overwrite=overwrite)
        self._layers = _Layers(SegmentLayer(), (), self._new_memtable())
        self._temporary: list[Point] = []
        self._files: FileSystem = OsFiles() if files is None else files
        self._directory_lock: Lock | None = None
        self._log: Log | None = None
        self._recovered = (0, 0)  # frames read, damaged places
        self._flush_bytes = flush_bytes
        if memory is None:
            memory = Memory(_MOST_FLUSHES_HELD * flush_bytes, chunk_cache_bytes)
        self._memory = memory
        self._flush_after_s = flush_after_s
        self._shard_duration_ns = shard_duration_ns
        self._segments: Segments | None = None
        self._flusher = Flusher(f"flusher {path}", self._flush_and_compact)
        if self.path is not None:
            self._open(self.path, sync, log_file_bytes, shard_duration_ns)
        self._initially_empty = not self._index

    def _new_memtable(self) -> Memtable:
        self._memtable_since = time.monotonic()
        return Memtable(self._intake.shapes, overwrite=self.overwrite)

    # Opening and closing

    def _open(
        self,
        path: Path,
        sync: SyncMode,
        log_file_bytes: int,
        shard_duration_ns: int,
    ) -> None:
        directory = path / LOG_DIRECTORY
        self._files.make_directory(directory)
        self._directory_lock = self._files.lock(path / LOCK_NAME)
        try:
            self._segments = Segments(
                path,
                self._files,
                self._memory.chunks,
                overwrite=self.overwrite,
                shard_duration_ns=shard_duration_ns,
            )
            self._segments.restore(self._index)
            self._show_segments()
            self._shard_duration_ns = self._segments.manifest.shard_duration_ns
            first = self._segments.manifest.first_log
            recovery = Recovery(directory, self._files, first)
            for change in recovery.changes():
                self._redo(change)
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
        self._flush_when_due()

    def _redo(self, change: Change) -> None:
        """Do what a frame of the log says, as it was done when the frame was written."""
        if change.measurement is not None:
            self._drop(change.measurement)
        touched = None
        if change.ranges is not None:
            touched = self._delete_rows(deletions.from_ranges(change.ranges, self._index))
        if change.batch is not None:
            accepted = self._intake.take(change.batch)
            self._layers.memtable.append(accepted.block)
            for rejection in accepted.rejected:  # only behind damage
                logger.error(
                    "points of the log refused: points=%d reason=%s",
                    rejection.points,
                    rejection.reason,
                )
        if touched is not None:
            self._forget_empty(touched)

    def close(self) -> None:
        """Make everything durable and release the directory; called twice it does nothing.

        Raises:
            StorageReadOnly: The last writes could not be made durable.
        """
        if self._closed:
            return
        self._flusher.stop()
        is_suspect = self._log is not None and self._log.is_suspect
        if is_suspect or self._layers.frozen or self._layers.memtable.n_points >= _FLUSH_POINTS:
            try:
                self.flush()
            except Exception:
                # Whatever it was: what is not in segments is in the log.
                logger.exception("flush on close failed: path=%s", self.path)
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._memory.forget(self)
        try:
            if self._log is not None:
                self._log.close()
        finally:
            if self._directory_lock is not None:
                self._directory_lock.release()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageClosed("I/O operation on closed storage")

    def _check_writable(self) -> None:
        self._check_open()
        if self._log is not None:
            self._log.check()

    # Writing

    def append_batch(
        self,
        batch: PointBatch,
        on_durable: Callable[[Exception | None], None] | None = None,
    ) -> WriteResult:
        """Store the points whose field types agree with the stored ones; reject the others."""
        self._make_room()
        # Before the lock and before the index learns anything: it takes time and may refuse.
        payload = b"" if self._log is None else encode(batch)
        entry = None
        with self._lock:
            self._check_writable()
            if self._log is None or self._log.is_failing:
                return self._append_durably(batch, payload, on_durable)
            accepted = self._intake.take(batch)
            block, memtable = accepted.block, self._layers.memtable
            if len(block):
                if accepted.rejected:
                    payload = encode(accepted.batch)
                memtable.append(block)  # first: when the log fails it is taken back, maybe at once
                done = _taking_back(memtable, block, on_durable)
                try:
                    entry = self._log.append(Kind.BATCH, payload, done)
                except BaseException:
                    memtable.take_back(block)
                    raise
        self._flush_when_due()
        if entry is None and on_durable is not None:
            on_durable(None)
        elif on_durable is None:
            try:
                self._wait(entry)
            except StorageReadOnly:
                memtable.take_back(block)
                raise
        return WriteResult(len(block), accepted.rejected)

    def _append_durably(
        self,
        batch: PointBatch,
        payload: bytes,
        on_durable: Callable[[Exception | None], None] | None,
    ) -> WriteResult:
        """Show a batch only after its frame is durable. The caller holds the lock.

        So nothing piles up in memory while the log fails, and the first write that succeeds ends
        that state.
        """
        self._append_log(Kind.BATCH, payload)
        accepted = self._intake.take(batch)
        if len(accepted.block):
            self._layers.memtable.append(accepted.block)
        if on_durable is not None:
            on_durable(None)
        return WriteResult(len(accepted.block), accepted.rejected)

    # Flushing, compacting, expiring

    def flush(self) -> None:
        """Write what is in memory to segments, and drop the log files that said it.

        Without a path it does nothing.

        Raises:
            OSError: The segments could not be written; nothing is lost, and it can be tried again.
            StorageReadOnly: The log failed.
        """
        if self._segments is not None:
            with self._segments.step:
                self._flush()

    def _flush(self, *, anyway: bool = False) -> None:
        """Do a flush; the caller holds the step. anyway: also when nothing is in memory."""
        if self._segments is None or self._log is None:
            return
        with self._lock:
            self._check_open()
            segments, frozen, memtable = self._layers
            if not (anyway or memtable.n_points or frozen or segments.deletions):
                return
            first_log = self._log.rotate()
            frozen = (*frozen, memtable)
            views = [table.view() for table in frozen]
            work = self._segments.freeze(views, self._index, first_log)
            self._layers = _Layers(segments, frozen, self._new_memtable())
        change = self._segments.flush(work)
        with self._lock:
            self._segments.finish(change)
            self._layers = _Layers(self._segments.layer, (), self._layers.memtable)
        self._memory.note(self, self._held_bytes())
        self._log.drop_before(first_log)
        self._segments.sweep()

    def compact(self) -> bool:
        """Merge some segments into one; returns whether there was something to merge."""
        if self._segments is None:
            return False
        with self._segments.step:
            self._check_open()
            self._segments.sweep()
            change = self._segments.compact(self._index.view())
            if change is None:
                return False
            with self._lock:
                self._segments.finish(change)
                self._show_segments()
        return True

    def expire(self, before_ns: int) -> int:
        """Remove the shards that end at or before a time, durably. Returns how many shards it were.

        Series without points left are forgotten, and measurements without series.
        """
        border = before_ns // self._shard_duration_ns * self._shard_duration_ns
        with self._lock:
            self._check_open()
            if self._segments is None:
                numbers = self._layers.memtable.expire(border)
                self._forget_empty(numbers)
                return int(bool(numbers))
            must_flush = any(
                table.has_rows_before(border)
                for table in (*self._layers.frozen, self._layers.memtable)
            )
        with self._segments.step:
            if must_flush:
                self._flush()
            with self._lock:
                numbers, shards = self._segments.hide(border)
                self._show_segments()
                self._forget_empty(numbers)
            if shards:
                self._flush(anyway=True)
        return len(shards)

    def _show_segments(self) -> None:
        """Give new readers the segments as they are now. The caller holds the lock."""
        if self._segments is not None:
            self._layers = self._layers._replace(segments=self._segments.layer)

    def _flush_when_due(self) -> None:
        """Have the flusher work when enough is held in memory; wait for it when it is too much."""
        if self._segments is None or self._log is None:
            return
        memtable = self._layers.memtable
        old = time.monotonic() - self._memtable_since > self._flush_after_s
        if (
            memtable.n_bytes >= self._flush_bytes
            or (old and memtable.n_points >= _FLUSH_POINTS)
            or self._log.is_suspect
        ):
            self._flusher.wake()
        self._memory.hold(self, self._held_bytes())

    def _held_bytes(self) -> int:
        """Return how much the points in memory take, those on their way into segments included."""
        _, frozen, memtable = self._layers
        return memtable.n_bytes + sum(table.n_bytes for table in frozen)

    def _make_room(self) -> None:
        """Refuse a write that memory has no room for, because nothing can be flushed.

        Raises:
            StorageReadOnly: Flushing failed, and fails again.
        """
        if self._cannot_flush() is not None and self._memory.is_full:
            self.flush_soon()
            self.wait_for_flush()
            error = self._cannot_flush()
            if error is not None and self._memory.is_full:
                raise StorageReadOnly(f"memory is full, and points cannot be flushed: {error}")

    def _cannot_flush(self) -> Exception | None:
        """Return why the last flush failed; None when it did not."""
        return self._flusher.error

    def flush_soon(self) -> None:
        """Begin to flush, in the background."""
        self._flusher.wake()

    def wait_for_flush(self) -> None:
        """Return when no flush is wanted or under way."""
        self._flusher.wait()

    def _flush_and_compact(self) -> None:
        self.flush()
        while not self._flusher.is_stopped and self.compact():
            pass
        release_memory()
        trim()

    def _wait(self, entry: Entry | None) -> None:
        if entry is not None and self._log is not None:
            self._log.wait(entry)

    def _append_log(self, kind: Kind, payload: bytes) -> Entry | None:
        """Queue a frame; while the log fails, wait until it is durable before anything is applied.

        Raises:
            StorageReadOnly: The log still fails.
        """
        if self._log is None:
            return None
        was_failing = self._log.is_failing
        entry = self._log.append(kind, payload)
        if was_failing:
            self._log.wait(entry)
        return entry

    def delete(self, request: DeleteRequest) -> int:
        """Delete points, durably. Returns how many series had or might have had some removed.

        Series without points left are forgotten, and measurements without series.

        Raises:
            QueryError: A condition on a field or on time.
        """
        if request.query is not None and needs_rows(request.query):
            raise QueryError("fields not supported in WHERE clause during deletion")
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
            entry = self._append_log(Kind.DELETE, encode_ranges(deletion.ranges(self._index)))
            with self._visible:
                self._forget_empty(self._delete_rows(deletion))
        self._wait(entry)
        return len(ids)

    def rewrite(
        self,
        requests: Sequence[ScanRequest],
        change: Callable[[Frame], Replacement | None],
    ) -> int:
        """Take points out and put others in their place, durably, as one step."""
        with self._lock:
            self._check_writable()
            plan = plan_rewrite(self.snapshot(), self._index, requests, change)
            if not plan.n_out:
                return 0
            entry = self._replace(plan.deletion, plan.batch)
        self._flush_when_due()
        self._wait(entry)
        return plan.n_out

    def replace_all(self, batch: PointBatch) -> None:
        """Put a batch in the place of everything stored, durably, as one step.

        Raises:
            FieldTypeConflict: A value has another type than its field had; nothing is done.
        """
        with self._lock:
            self._check_writable()
            snapshot = self.snapshot()
            sets = [snapshot.series(name).ids for name in snapshot.measurements()]
            ids = np.concatenate([np.zeros(0, np.int64), *sets])
            everything = Deletion(
                ids, np.full(len(ids), MIN_TIME_NS), np.full(len(ids), MAX_TIME_NS)
            )
            entry = self._replace(everything, batch)
        self._flush_when_due()
        self._wait(entry)

    def _replace(self, deletion: Deletion, batch: PointBatch) -> Entry | None:
        """Delete and store as one step. The caller holds the lock, and waits for the entry."""
        payload = encode_rewrite(deletion.ranges(self._index), batch)
        accepted = self._intake.take(batch, strict=True)
        entry = self._append_log(Kind.REWRITE, payload)
        with self._visible:
            touched = self._delete_rows(deletion)
            self._layers.memtable.append(accepted.block)
            self._forget_empty(touched)
        return entry

    def drop_measurement(self, measurement: str) -> bool:
        """Delete a measurement with its field types, durably. Returns whether it existed."""
        with self._lock:
            self._check_writable()
            if measurement not in self._index.view().measurements():
                return False
            entry = self._append_log(Kind.DROP_MEASUREMENT, measurement.encode())
            with self._visible:
                self._drop(measurement)
        self._wait(entry)
        return True

    def _drop(self, measurement: str) -> None:
        view = self._index.view()
        series = view.series(measurement)
        if len(series):
            number = view.number(measurement)
            for table in (*self._layers.frozen, self._layers.memtable):
                table.drop(number)
            self._index.discard(measurement, np.ones(len(series), np.bool_))
            self._intake.forget(number)

    def _delete_rows(self, deletion: Deletion) -> list[int]:
        """Delete rows from all layers. Returns the numbers of the measurements concerned."""
        numbers: list[int] = np.unique(self._index.numbers(deletion.ids)).tolist()
        for table in (*self._layers.frozen, self._layers.memtable):
            table.rewrite(numbers, deletion.apply)
        if self._segments is not None:
            for number in numbers:
                self._segments.delete(number, deletion)
            self._show_segments()
        return numbers

    def _forget_empty(self, numbers: Sequence[int]) -> None:
        """Take series without a row out of the index."""
        snapshot = self._snapshot()
        for number in numbers:
            name = self._index.measurement(number).name
            ids = snapshot.series(name).ids
            rows: Int64s = np.zeros(len(ids), np.int64)
            for source in snapshot.sources(name):
                rows += source.rows(ids, MIN_TIME_NS, MAX_TIME_NS)
            self._index.discard(name, rows == 0)
            if not rows.any():
                self._intake.forget(number)

    # Reading

    def snapshot(self) -> Snapshot:
        """Return the state of now; later writes do not show in it."""
        self._check_open()
        with self._visible:
            return self._snapshot()

    def _snapshot(self) -> Snapshot:
        segments, frozen, memtable = self._layers
        # The rows first, then the index: it may know more series and fields than there are rows.
        views = [table.view() for table in (*frozen, memtable)]
        return Snapshot(self._index.view(), (segments, *views), overwrite=self.overwrite)

    # Watching

    def sync(self) -> None:
        """Make everything accepted so far durable, whatever the sync mode.

        Raises:
            StorageReadOnly: It cannot become durable.
        """
        self._check_open()
        if self._log is not None:
            self._log.sync()

    def stats(self) -> dict[str, int]:
        """Return counters.

        series, points_in_memory, bytes_in_memory; segments, segment_bytes, segment_points;
        flushes_failed, log_failures; log_bytes and log_syncs since the start;
        log_frames_recovered and log_damaged at the start.
        """
        memtable, log = self._layers.memtable, self._log
        infos = () if self._segments is None else self._segments.manifest.segments
        frames, damaged = self._recovered
        return {
            "series": len(self._index),
            "points_in_memory": memtable.n_points,
            "bytes_in_memory": memtable.n_bytes,
            "segments": len(infos),
            "segment_bytes": sum(info.size_bytes for info in infos),
            "segment_points": sum(info.rows for info in infos),
            "flushes_failed": self._flusher.n_failed,
            "log_failures": 0 if log is None else log.n_failures,
            "log_bytes": 0 if log is None else log.n_bytes,
            "log_syncs": 0 if log is None else log.n_syncs,
            "log_frames_recovered": frames,
            "log_damaged": damaged,
        }


def _taking_back(
    memtable: Memtable, block: Block, on_durable: Callable[[Exception | None], None] | None
) -> Callable[[Exception | None], None] | None:
    """Return a callback that takes a block out of memory again when it is not durable."""
    if on_durable is None:
        return None

    def done(error: Exception | None) -> None:
        if error is not None:
            memtable.take_back(block)
        on_durable(error)

    return done
