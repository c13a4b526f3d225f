"""A damaged segment: the rest of it is read, what is missing is told, nothing fails for ever."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.crash.crashfs import Crash, CrashFS
from tests.crash.test_power_cut import STORE
from tests.unit.columnar_segments.test_segments_in_a_store import batch, parquet_files
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.columnar.base import DeleteRequest, Replacement, ScanRequest
from tinyflux.columnar.check import check_store
from tinyflux.columnar.footer import ROW_GROUP_ROWS
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import CorruptionError, StorageError
from tinyflux.queries import FieldQuery, TagQuery

if TYPE_CHECKING:
    from pathlib import Path

    from tinyflux.columnar.base import Query

ALL = MIN_TIME_NS, MAX_TIME_NS


def times(store: ParquetStorage, measurement: str = "cpu", query: Query | None = None) -> list[int]:
    """Return the distinct times of a measurement, of all its fields."""
    frames = store.scan(ScanRequest(measurement, query))
    return sorted({int(time) for frame in frames for time in frame.times})


def flushed(path: Path, *batches: range) -> ParquetStorage:
    """Return a store with a segment of two hosts for each batch of times."""
    store = ParquetStorage(path, overwrite=True, shard_duration_ns=10**9)
    for one in batches:
        store.append_batch(batch(one))
        store.flush()
    return store


def damage(path: Path, column: str = "v", row_group: int = 0) -> None:
    """Flip a bit in the last value of a column."""
    group = pq.read_metadata(path).row_group(row_group)
    chunks = [group.column(i) for i in range(group.num_columns)]
    (chunk,) = [chunk for chunk in chunks if chunk.path_in_schema == column]
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    data[start + chunk.total_compressed_size - 1] ^= 4
    path.write_bytes(data)


def settled(store: ParquetStorage) -> None:
    assert store._flushing is not None
    store._flushing.wait_for_flush()


def test_a_query_answers_the_rest_and_the_gap_tells_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flushed(tmp_path, range(10), range(20, 30), range(40, 50)).close()
    victim = parquet_files(tmp_path)[1]
    victim.write_bytes(victim.read_bytes()[:-1])
    found = victim.read_bytes()
    store = ParquetStorage(tmp_path, overwrite=True)
    assert store.gaps("cpu", *ALL) == ()  # nobody looked yet
    assert store._state.segments is not None
    wake, store._state.segments.on_damage = store._state.segments.on_damage, lambda: None
    with caplog.at_level(logging.ERROR):
        assert len(store) == 40
        assert times(store) == [*range(10), *range(40, 50)]
    wake()
    assert "segment is damaged: measurement=cpu points=20" in caplog.text
    assert str(victim) in caplog.text
    for _ in range(2):  # as it is found, and when it was set aside
        (gap,) = store.gaps("cpu", *ALL)
        assert (gap.first_ns, gap.last_ns, gap.rows) == (20, 29, 20)
        assert "size" in gap.reason
        assert store.gaps("cpu", 0, 19) == store.gaps("cpu", 30, 99) == ()
        assert len(store.gaps("cpu", 29, 29)) == 1
        assert store.gaps("mem", *ALL) == ()
        settled(store)
    assert store.stats()["segments_damaged"] == 1
    assert store.stats()["points_missing"] == 20
    assert store.stats()["segments"] == 2
    assert not victim.exists()
    assert (tmp_path / "quarantine" / victim.name).read_bytes() == found
    store.append_batch(batch(range(20, 22)))  # sent again
    store.flush()
    assert times(store) == [*range(10), 20, 21, *range(40, 50)]
    store.close()
    again = ParquetStorage(tmp_path, overwrite=True)
    assert times(again) == [*range(10), 20, 21, *range(40, 50)]
    assert again.gaps("cpu", *ALL) == (gap,)
    again.close()


def test_the_row_groups_and_fields_that_can_be_read_are_kept(tmp_path: Path) -> None:
    n = 2 * ROW_GROUP_ROWS  # in two series, so four row groups
    flushed(tmp_path, range(n)).close()
    damage(parquet_files(tmp_path)[0], "v", row_group=1)
    damage(parquet_files(tmp_path)[0], "time", row_group=2)
    store = ParquetStorage(tmp_path, overwrite=True)
    times(store)
    settled(store)
    (gap,) = store.gaps("cpu", *ALL)
    assert (gap.first_ns, gap.last_ns, gap.rows) == (0, n - 1, 2 * ROW_GROUP_ROWS)
    lengths = {
        host: sum(
            int(column.mask().sum())
            for frame in store.scan(ScanRequest("cpu", TagQuery().host == host))
            for column in frame.columns.values()
        )
        for host in "ab"
    }
    # the second half of a, and the first half of b are gone: v was the only field
    assert lengths == {"a": ROW_GROUP_ROWS, "b": ROW_GROUP_ROWS}
    store.flush()
    assert store.compact() is False
    store.close()


def test_damage_in_what_is_known_otherwise_is_mended_without_a_gap(tmp_path: Path) -> None:
    flushed(tmp_path, range(10)).close()
    (victim,) = parquet_files(tmp_path)
    damage(victim, "host")
    store = ParquetStorage(tmp_path, overwrite=True)
    assert times(store) == [*range(10)]
    store.verify()
    assert store.gaps(None, *ALL) == ()
    assert times(store, query=TagQuery().host == "b") == [*range(10)]
    store.close()
    ParquetStorage(tmp_path, overwrite=True).close()
    assert not victim.exists()
    assert list(check_store(tmp_path)) == []


def test_a_missing_file_is_a_gap_too(tmp_path: Path) -> None:
    flushed(tmp_path, range(10), range(20, 30)).close()
    parquet_files(tmp_path)[0].unlink()
    store = ParquetStorage(tmp_path, overwrite=True)
    assert times(store) == [*range(20, 30)]
    settled(store)
    (gap,) = store.gaps("cpu", *ALL)
    assert (gap.rows, gap.reason) == (20, "the file is missing")
    assert [path.name for path in (tmp_path / "quarantine").iterdir()] == ["000001.json"]
    store.close()


@pytest.mark.parametrize("step", ["flush", "compact"])
def test_damage_that_a_step_finds_does_not_stop_it(tmp_path: Path, step: str) -> None:
    store = flushed(tmp_path, *(range(start, start + 10) for start in range(0, 50, 10)))
    store.close()
    damage(parquet_files(tmp_path)[2])
    store = ParquetStorage(tmp_path, overwrite=True)
    if step == "flush":
        store.delete(DeleteRequest("cpu", None, 5, 25))
        store.flush()
        expected = [*range(5), *range(30, 50)]
    else:
        while store.compact():
            pass
        assert store.stats()["segments"] == 1
        expected = [*range(20), *range(30, 50)]
    assert times(store) == expected
    assert store.stats()["segments_damaged"] == 1
    store.close()
    again = ParquetStorage(tmp_path, overwrite=True)
    assert times(again) == expected
    again.close()


def test_series_are_not_forgotten_before_it_is_known_what_is_left_of_them(tmp_path: Path) -> None:
    n = 2 * ROW_GROUP_ROWS
    store = flushed(tmp_path, range(n), range(n, n + 10))
    store.close()
    damage(parquet_files(tmp_path)[0], row_group=3)
    store = ParquetStorage(tmp_path, overwrite=True)
    assert store._state.segments is not None
    store._state.segments.on_damage = lambda: None  # as if the flusher were slow
    assert times(store) == [*range(n, n + 10)]
    store.delete(DeleteRequest("cpu", None, n, n + 10))
    assert store.series_count() == 2
    store.flush()
    assert times(store) == [*range(n)]
    assert len(store) == n + ROW_GROUP_ROWS
    store.close()


def test_gaps_go_with_their_measurement_their_shard_and_their_name(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True, shard_duration_ns=100)
    store.append_batch(batch(range(0, 300, 10)))
    store.append_batch(batch(range(250, 255), measurement="mem"))
    store.flush()
    store.close()
    for path in parquet_files(tmp_path):
        path.write_bytes(b"nothing of a segment")
    store = ParquetStorage(tmp_path, overwrite=True)
    assert times(store) == times(store, "mem") == []
    settled(store)
    assert [gap.first_ns for gap in store.gaps("cpu", *ALL)] == [0, 100, 200]
    store.expire(200)
    assert [gap.first_ns for gap in store.gaps("cpu", *ALL)] == [200]
    store.rename_measurement("cpu", "processor")
    assert store.gaps("cpu", *ALL) == ()
    store.close()
    store = ParquetStorage(tmp_path, overwrite=True)
    assert [gap.first_ns for gap in store.gaps("processor", *ALL)] == [200]
    assert len(store.gaps("mem", *ALL)) == 1
    store.drop_measurement("mem")
    assert store.gaps("mem", *ALL) == ()
    store.close()
    assert len(list((tmp_path / "quarantine").iterdir())) == 2
    store = ParquetStorage(tmp_path, overwrite=True)
    assert store.stats()["segments_damaged"] == 1
    store.close()


def test_a_gap_whose_file_was_removed_is_forgotten(tmp_path: Path) -> None:
    flushed(tmp_path, range(10)).close()
    parquet_files(tmp_path)[0].unlink()
    store = ParquetStorage(tmp_path, overwrite=True)
    assert times(store) == []
    settled(store)
    store.close()
    (gap,) = (tmp_path / "quarantine").iterdir()
    assert json.loads(gap.read_text())["rows"] == 20
    gap.write_text("{")
    store = ParquetStorage(tmp_path, overwrite=True)
    assert store.stats()["segments_damaged"] == 1  # whatever it was about
    store.close()
    gap.unlink()
    store = ParquetStorage(tmp_path, overwrite=True)
    assert store.stats()["segments_damaged"] == 0
    store.close()


def test_a_machine_without_file_handles_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = flushed(tmp_path, range(10))
    files = store._files

    def fail(path: Path) -> Path:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(files, "readable", fail)
        with pytest.raises(StorageError, match="Too many open files") as caught:
            times(store)
        assert not isinstance(caught.value, CorruptionError)
    assert times(store) == [*range(10)]
    assert store.stats()["segments_damaged"] == 0
    store.close()


def test_memory_that_is_short_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = flushed(tmp_path, range(10))

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("malloc of size 64 failed")

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetFile, "read_row_groups", fail)
        with pytest.raises(MemoryError):
            times(store)
    assert times(store) == [*range(10)]
    store.close()


def test_a_series_file_that_is_damaged_while_the_store_is_open_is_written_anew(
    tmp_path: Path,
) -> None:
    store = flushed(tmp_path, range(10))
    (series,) = (tmp_path / "series").iterdir()
    series.write_bytes(series.read_bytes()[:-1])
    store.append_batch(batch(range(10), "cd"))  # its series are merged with those of the file
    store.flush()
    store.close()
    again = ParquetStorage(tmp_path, overwrite=True)
    assert again.series_count() == 4
    assert times(again) == [*range(10)]
    again.close()


@pytest.mark.parametrize("pattern", ["manifest", "series/*"])
def test_a_store_without_its_manifest_or_series_stays_closed(tmp_path: Path, pattern: str) -> None:
    flushed(tmp_path, range(10)).close()
    (path,) = tmp_path.glob(pattern)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptionError, match=re.escape(str(path))):
        ParquetStorage(tmp_path, overwrite=True)


def test_a_power_cut_while_damage_is_set_aside_loses_nothing_more() -> None:
    def start() -> tuple[CrashFS, ParquetStorage]:
        files = CrashFS()
        store = ParquetStorage(STORE, files=files, overwrite=True, shard_duration_ns=10**9)
        for first in (0, 10, 20):
            store.append_batch(batch(range(first, first + 10)))
            store.flush()
        (name,) = [name for name in files._names if name.name == "000003.parquet"]
        del files._names[name].data[40:]
        files._names[name].synced = 40
        store = ParquetStorage(STORE, files=files.crash(0), overwrite=True)
        assert store._state.segments is not None
        store._state.segments.on_damage = lambda: None  # the crash is to be in this thread
        return store._files, store  # type: ignore[return-value]

    expected = [*range(10), *range(20, 30)]
    files, store = start()
    before = files.n_operations
    times(store)
    store.flush()
    total = files.n_operations - before
    assert total > 8
    for fail_at in range(1, total + 2):
        files, store = start()
        times(store)
        files.fail_at = files.n_operations + fail_at
        with suppress(Crash):
            store.flush()
        for seed in range(3):
            after = files.crash(seed)
            again = ParquetStorage(STORE, files=after, overwrite=True)
            assert times(again) == expected
            settled(again)
            assert [gap.first_ns for gap in again.gaps("cpu", *ALL)] == [10]
            assert "000003.json" in after.names(STORE / "quarantine")
            again.close()


def test_a_store_in_memory_has_no_gaps() -> None:
    store = ParquetStorage(overwrite=True)
    store.append_batch(batch(range(10)))
    store.flush()
    store.verify()
    assert not store.compact(fully=True)
    assert times(store) == [*range(10)]
    assert store.gaps(None, *ALL) == ()
    assert store.stats()["segments_damaged"] == 0
    store.close()


@pytest.mark.parametrize("number", [errno.EIO, None])
def test_an_error_of_one_moment_is_no_damage_and_one_that_stays_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    store = flushed(tmp_path, range(10), range(20, 30))
    files, readable = store._files, store._files.readable
    failures = [1]

    def fail(path: Path) -> object:
        if path.name == "000001.parquet" and failures[0]:
            failures[0] -= 1
            raise OSError(number, "Input/output error") if number else OSError("truncated")
        return readable(path)

    monkeypatch.setattr(files, "readable", fail)
    assert times(store) == [*range(10), *range(20, 30)]
    assert store.stats()["segments_damaged"] == 0
    store.close()
    store = ParquetStorage(tmp_path, overwrite=True, files=files)
    failures[0] = 1000
    assert times(store) == [*range(20, 30)]
    settled(store)
    assert store.stats()["segments_damaged"] == 1
    assert (tmp_path / "quarantine" / "000001.parquet").exists()
    store.close()


@pytest.mark.parametrize("how", ["rewrite", "delete"])
def test_what_is_left_of_a_damaged_segment_is_not_overlooked(tmp_path: Path, how: str) -> None:
    n = 2 * ROW_GROUP_ROWS
    flushed(tmp_path, range(n)).close()
    damage(parquet_files(tmp_path)[0], row_group=0)
    store = ParquetStorage(tmp_path, overwrite=True)
    condition = FieldQuery().v < n - 10
    if how == "delete":
        store.delete(DeleteRequest("cpu", condition))
    else:
        store.rewrite([ScanRequest("cpu", condition)], lambda f: Replacement(np.ones(len(f), bool)))
    settled(store)
    assert times(store) == [*range(n - 10, n)]
    assert len(store.gaps("cpu", *ALL)) == 1
    store.close()
