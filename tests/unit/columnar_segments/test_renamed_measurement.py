"""Measurements get other names, hidden ones too: in memory, in the log, in segments, in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.columnar_segments.test_segments_in_a_store import DAY, batch, count, rows
from tinyflux.batch import BatchBuilder, parse_series_key, renamed_series_key, series_key
from tinyflux.columnar.base import DeleteRequest, ScanRequest
from tinyflux.columnar.batchcodec import decode_names
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.columnar.segments import Change, Frozen, Segments
from tinyflux.errors import QueryError

if TYPE_CHECKING:
    from pathlib import Path


def found(store: ParquetStorage, measurement: str) -> list[tuple[str, int, float]]:
    return rows(list(store.scan(ScanRequest(measurement))))


def test_points_in_memory_and_in_segments_go_by_the_new_name(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, shard_duration_ns=DAY)
    store.append_batch(batch(range(0, 3 * DAY, DAY), "a"))
    store.flush()
    store.append_batch(batch(range(1, 3), "ab"))
    before = found(store, "cpu")
    assert len(before) == 7
    assert store.rename_measurement("cpu", "load")
    assert not store.rename_measurement("cpu", "x")
    assert (store.measurements(), found(store, "cpu")) == (["load"], [])
    assert (store.tag_keys("load"), list(store.field_keys("load"))) == (["host"], ["v"])
    for reopen in (False, True, False, True):
        assert found(store, "load") == before
        store.flush()
        assert found(store, "load") == before
        if reopen:
            store.close()
            store = ParquetStorage(tmp_path)
    assert store.measurements() == ["load"]
    assert store.stats()["log_frames_recovered"] == 0
    store.close()


def test_the_old_name_is_free_for_other_types_and_both_are_told_apart(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    store.append_batch(batch(range(3), "a"))
    store.flush()
    store.rename_measurement("cpu", "load")
    builder = BatchBuilder()
    builder.add(series_key("cpu", [("host", "a")]), 1, [("v", "text")])
    assert store.append_batch(builder.build()).stored == 1
    assert store.append_batch(batch(range(3, 5), "a", "load")).stored == 2
    for _ in range(2):
        [frame] = store.scan(ScanRequest("cpu"))
        assert frame.columns["v"].values.tolist() == ["text"]
        assert found(store, "load") == [("a", time, float(time)) for time in range(5)]
        assert store.series_count() == 2
        store.close()
        store = ParquetStorage(tmp_path, overwrite=True)
        store.flush()
    store.close()


def test_a_measurement_is_not_renamed_to_one_that_exists() -> None:
    store = ParquetStorage()
    store.append_batch(batch(range(2), "a"))
    store.append_batch(batch(range(2), "a", "mem"))
    with pytest.raises(QueryError, match="measurement already exists: mem"):
        store.rename_measurement("cpu", "mem")
    with pytest.raises(QueryError, match="measurement already exists: cpu"):
        store.rename_measurement("cpu", "cpu")
    assert store.measurements() == ["cpu", "mem"]


def test_a_hidden_measurement_is_neither_listed_counted_nor_deleted_with_all(
    tmp_path: Path,
) -> None:
    store = ParquetStorage(tmp_path)
    store.append_batch(batch(range(3), "ab"))
    store.append_batch(batch(range(3), "a", "mem"))
    store.flush()
    size = store.size_bytes("cpu")
    assert size > 0
    store.rename_measurement("cpu", "\0cpu")
    store.delete(DeleteRequest())
    for _ in range(2):
        assert (store.measurements(), store.series_count(), len(store)) == ([], 0, 0)
        store.flush()
        store.close()
        store = ParquetStorage(tmp_path)
    assert (store.size_bytes("\0cpu"), store.size_bytes("cpu")) == (size, 0)
    assert store.rename_measurement("\0cpu", "cpu")
    assert count(store) == 6
    store.rename_measurement("cpu", "\0cpu")
    assert store.drop_measurement("\0cpu")
    assert not store.drop_measurement("\0cpu")
    store.flush()
    assert store.stats()["segments"] == 0
    store.close()


@pytest.mark.parametrize("write_again", [False, True])
def test_compaction_between_a_rename_and_the_flush_keeps_both(
    tmp_path: Path, write_again: bool
) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    for start in range(0, 40, 10):
        store.append_batch(batch(range(start, start + 10), "a"))
        store.flush()
    store.rename_measurement("cpu", "load")
    if write_again:
        store.append_batch(batch(range(100, 102), "a"))
    assert store.compact()
    for _ in range(3):
        assert len(found(store, "load")) == 40
        assert count(store) == 2 * write_again
        store.close()
        store = ParquetStorage(tmp_path, overwrite=True)
    store.flush()
    assert len(found(store, "load")) == 40
    store.close()


@pytest.mark.parametrize("fails", [False, True])
def test_a_rename_while_a_flush_is_written_goes_into_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    store = ParquetStorage(tmp_path)
    store.append_batch(batch(range(3), "a"))
    store.flush()
    store.append_batch(batch(range(3, 6), "a"))
    write = Segments.flush

    def rename_and_write(segments: Segments, frozen: Frozen) -> Change:
        store.rename_measurement("cpu", "load")
        if fails:
            raise OSError(28, "no space left")
        return write(segments, frozen)

    with monkeypatch.context() as patched:
        patched.setattr(Segments, "flush", rename_and_write)
        if fails:
            with pytest.raises(OSError, match="no space left"):
                store.flush()
        else:
            store.flush()
    for _ in range(3):
        assert len(found(store, "load")) == 6
        assert store.measurements() == ["load"]
        store.close()
        store = ParquetStorage(tmp_path)
        store.flush()
    store.close()


@pytest.mark.parametrize("name", ["", 'q"', "\0t", "é", "back\\slash", "comma,", "[", "\U0001f600"])
def test_renamed_key_is_the_key_of_the_renamed_series(name: str) -> None:
    tags = [("host", "a"), ('"', None)]
    for old in ("cpu", name):
        key = renamed_series_key(series_key(old, tags), old, name)
        assert key == series_key(name, tags)
        assert parse_series_key(key)[0] == name
    assert renamed_series_key(series_key(name, ()), name, "x") == series_key("x", ())


@pytest.mark.parametrize("payload", [b"", b"{}", b'["a"]', b'["a", 1]', b'["a", "b", "c"]'])
def test_a_rename_that_is_none_is_damage(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"two names|document"):
        decode_names(payload)
