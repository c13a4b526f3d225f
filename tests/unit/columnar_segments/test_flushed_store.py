"""Flushed, compacted, expired, reopened in between: a store holds what the naive model holds."""

from __future__ import annotations

import shutil
import tempfile
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import invariant, rule

from tests.unit.columnar.test_store_model import StoreMachine
from tinyflux.columnar.parquet import ParquetStorage

if TYPE_CHECKING:
    from tinyflux.columnar.base import Shard


class FlushedStoreMachine(StoreMachine):
    """The rules of the store on disk, and what moves rows into segments, and whole shards out."""

    on_disk = True

    def _open(self) -> ParquetStorage:
        store = ParquetStorage(self.path, overwrite=self.model.overwrite, sync="off")
        # What was deleted stays hidden in memory until a rule flushes.
        store._flushing._flusher.stop()  # type: ignore[union-attr]
        return store

    @rule()
    def flush(self) -> None:
        self.store.flush()
        assert self.store.stats()["points_in_memory"] == 0

    @rule()
    def compact(self) -> None:
        while self.store.compact():
            pass

    @rule(border=st.integers(-6, 0))
    def expire(self, border: int) -> None:
        gone = [shard for shard in self.store.shards() if shard.last_ns < border]
        self.store.expire(border)
        self._remove(gone)

    @rule(number=st.integers(0, 3))
    def drop_shard(self, number: int) -> None:
        gone = self.store.shards()[number : number + 1]
        for shard in gone:
            self.store.drop_shard(shard)
        self._remove(gone)

    def _remove(self, shards: list[Shard]) -> None:
        self.model.rows = [
            row
            for row in self.model.rows
            if not any(first <= row[2] <= last for first, last in shards)
        ]

    @rule(duration=st.integers(1, 6))
    def change_shard_duration(self, duration: int) -> None:
        before = self.store.shards()
        self.store.set_shard_duration(duration)
        # Emptied ones may be gone: this was a flush.
        assert set(self.store.shards()) <= set(before)

    @invariant()
    def every_row_is_in_one_shard(self) -> None:
        if hasattr(self, "store"):
            shards = self.store.shards()
            times = {row[2] for row in self.model.rows}
            assert all(sum(a <= time <= b for a, b in shards) == 1 for time in times)
            assert all(one.last_ns < other.first_ns for one, other in pairwise(shards))

    @rule()
    def reopen_a_copy_as_after_a_crash(self) -> None:
        """Open what is on disk while the old store never closes: its log is all there is."""
        assert self.path is not None
        self.store.sync()
        copy = tempfile.mkdtemp()
        shutil.copytree(self.path, copy, dirs_exist_ok=True)
        old, old_path = self.store, self.path
        self.path = copy
        self.store = self._open()
        self.snapshots.clear()
        old.close()
        shutil.rmtree(old_path)


TestFlushedStore = FlushedStoreMachine.TestCase
TestFlushedStore.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
