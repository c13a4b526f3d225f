"""Flushed, compacted, expired, reopened in between: a store holds what the naive model holds."""

from __future__ import annotations

import shutil
import tempfile

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import rule

from tests.unit.columnar.test_store_model import StoreMachine
from tinyflux.columnar.parquet import ParquetStorage


class FlushedStoreMachine(StoreMachine):
    """The rules of the store on disk, and what moves rows into segments. Shards are 3 ns long."""

    on_disk = True

    def _open(self) -> ParquetStorage:
        return ParquetStorage(
            self.path, overwrite=self.model.overwrite, sync="off", shard_duration_ns=3
        )

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
        self.store.expire(border)
        shard = border // 3 * 3
        self.model.rows = [row for row in self.model.rows if row[2] >= shard]

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
