"""Flushing, compacting, expiring: how rows get from memory into segments, and out of the store.

    flush      begin a new log file and a new memtable; write the old one to segments; then the old
               log files go
    compact    some segments become one
    expire     whole shards go

One step runs at a time (`Segments.step`). The writer's lock is held only for its beginning and its
end, never while files are written. The background thread does a step when enough is in memory, and
a writer waits for it only when too much is.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Final

from tinyflux.columnar.flusher import Flusher
from tinyflux.columnar.memory import trim
from tinyflux.columnar.segment import release_memory
from tinyflux.errors import CorruptionError, StorageReadOnly

if TYPE_CHECKING:
    import threading

    from tinyflux.columnar.memory import Memory
    from tinyflux.columnar.segments import Change, Segments
    from tinyflux.columnar.state import State
    from tinyflux.columnar.wal import Log

logger = logging.getLogger(__name__)

# By age and on close, fewer points stay in the log: replaying it is cheaper than tiny segments.
FLUSH_POINTS: Final = 50_000


class Flushing:
    """The steps of one open store on disk (`memory.Holder`).

    Args:
        name: Of the background thread.
        state: What the store holds.
        segments: Its files.
        log: Its log.
        lock: The writer's.
        memory: What the stores of the process may hold.
        flush_bytes: How many bytes of points are held before they go into segments.
        flush_after_s: How long points are held, when there are many enough.
    """

    def __init__(
        self,
        name: str,
        state: State,
        segments: Segments,
        log: Log,
        lock: threading.RLock,
        memory: Memory,
        *,
        flush_bytes: int,
        flush_after_s: float,
    ) -> None:
        self._name = name
        self._state = state
        self._segments = segments
        self._log = log
        self._lock = lock
        self._memory = memory
        self._flush_bytes = flush_bytes
        self._flush_after_s = flush_after_s
        self._flusher = Flusher(name, self._flush_and_compact)
        segments.on_damage = self._flusher.wake

    @property
    def n_failed(self) -> int:
        """How often the work in the background failed."""
        return self._flusher.n_failed

    # The steps

    def flush(self) -> None:
        """Write what is in memory to segments, and drop the log files that said it.

        Raises:
            OSError: The segments could not be written; nothing is lost, and it can be tried again.
            StorageReadOnly: The log failed.
        """
        with self._segments.step:
            self._flush()

    def _flush(self, *, anyway: bool = False) -> None:
        """Do a flush; the caller holds the step. anyway: also when nothing is in memory.

        Damaged segments are mended, those that the flush finds too.
        """
        self._mend()
        for n_tries in itertools.count():
            try:
                self._flush_once(anyway=anyway)
            except CorruptionError:
                # A series file is not mended: the second try writes it anew.
                if not self._mend() and n_tries:
                    raise
            else:
                return

    def _flush_once(self, *, anyway: bool) -> None:
        anyway = anyway or self._log.is_suspect
        state = self._state
        with self._lock:
            state.check_open()
            segments, frozen, memtable = state.layers
            is_needed = memtable.n_points or frozen or segments.deletions
            if not (anyway or is_needed or self._segments.has_dropped(state.index.view())):
                return
            first_log = self._log.rotate()
            state.forget_refused()
            work = self._segments.freeze(state.freeze(), state.index, first_log)
        change = self._segments.flush(work)
        with self._lock:
            self._segments.finish(change)
            state.thaw()
        self._memory.note(self, state.held_bytes)
        self._log.drop_before(first_log)
        self._segments.sweep()

    def compact(self, *, fully: bool = False) -> bool:
        """Merge some segments into one; returns whether there was something to merge."""
        with self._segments.step:
            self._state.check_open()
            self._segments.sweep()
            try:
                change = self._segments.compact(self._state.index.view(), fully=fully)
            except CorruptionError:
                if not self._mend():
                    raise
                return True
            if change is None:
                return False
            self._finish(change)
        return True

    @property
    def is_damaged(self) -> bool:
        """Whether segments were found damaged of which it is not known what is left."""
        return bool(self._segments.damaged(self._state.index.view()))

    def mend(self) -> None:
        """Write what is left of damaged segments anew.

        Raises:
            OSError: It could not be written; nothing was changed.
        """
        with self._segments.step:
            self._mend()

    def _mend(self) -> bool:
        """Set damaged segments aside, and write what is left of them anew; return if there were."""
        self._state.check_open()
        change = self._segments.mend(self._state.index.view())
        if change is not None:
            self._finish(change)
        return change is not None

    def _finish(self, change: Change) -> None:
        with self._lock:
            self._segments.finish(change)
            self._state.show_segments()

    def remove_shards(self, first_ns: int, last_ns: int) -> int:
        """Remove all shards between two borders, durably. Returns how many it were."""
        with self._lock:
            self._state.check_open()
            self._log.drain()
            must_flush = any(
                table.with_rows_in(first_ns, last_ns) for table in self._state.layers.memtables
            )
        with self._segments.step:
            if must_flush:
                self._flush()
            with self._lock:
                self._log.drain()  # series whose first points are on their way are not empty
                n_shards = self._state.remove_shards(first_ns, last_ns)
            if n_shards:
                self._flush(anyway=True)
        return n_shards

    def set_shard_duration(self, duration_ns: int) -> None:
        """Say how long new shards are, durably; those of rows in memory get their bounds before."""
        with self._segments.step:
            self._flush()
            with self._lock:
                self._state.set_shard_duration(duration_ns)

    # In the background

    def flush_when_due(self) -> None:
        """Have a flush begin when enough is held in memory; wait for it when it is too much."""
        memtable = self._state.layers.memtable
        is_old = time.monotonic() - self._state.memtable_since > self._flush_after_s
        if (
            memtable.n_bytes >= self._flush_bytes
            or (is_old and memtable.n_points >= FLUSH_POINTS)
            or self._log.is_suspect
        ):
            self._flusher.wake()
        self._memory.hold(self, self._state.held_bytes)

    def make_room(self) -> None:
        """Refuse a write that memory has no room for, because nothing can be flushed.

        Raises:
            StorageReadOnly: Flushing failed, and fails again.
        """
        if self._is_stuck():
            self.flush_soon()
            self.wait_for_flush()
            if self._is_stuck():
                error = self._flusher.error
                raise StorageReadOnly(f"memory is full, and points cannot be flushed: {error}")

    def _is_stuck(self) -> bool:
        return self._flusher.error is not None and self._memory.is_full

    def flush_soon(self) -> None:
        """Begin to flush, in the background."""
        self._flusher.wake()

    def wait_for_flush(self) -> None:
        """Return when no flush is wanted or under way."""
        self._flusher.wait()

    def close(self) -> None:
        """End the background work, and flush when the log would be long to read again."""
        self._flusher.stop()
        _, frozen, memtable = self._state.layers
        if self._log.is_suspect or frozen or memtable.n_points >= FLUSH_POINTS:
            try:
                self.flush()
            except Exception:
                # Whatever it was: what is not in segments is in the log.
                logger.exception("flush on close failed: %s", self._name)

    def forget(self) -> None:
        """Give up the part of the memory: the store is closed."""
        self._memory.forget(self)

    def _flush_and_compact(self) -> None:
        self.flush()
        while not self._flusher.is_stopped and self.compact():
            pass
        release_memory()
        trim()
