"""Segments as a store uses them: what is read, what is kept, what is removed."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tinyflux.batch import BatchBuilder, PointBatch, series_key
from tinyflux.columnar.base import (
    AggregateRequest,
    Call,
    DeleteRequest,
    Frame,
    ScanRequest,
    Shard,
)
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import StorageClosed
from tinyflux.queries import TagQuery
from tinyflux.windows import Windows

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400 * 10**9


def batch(times: range, hosts: str = "ab", measurement: str = "cpu") -> PointBatch:
    builder = BatchBuilder()
    for time in times:
        for host in hosts:
            builder.add(series_key(measurement, [("host", host)]), time, [("v", float(time))])
    return builder.build()


def rows(frames: list[Frame]) -> list[tuple[str, int, float]]:
    return [
        (frame.series.tags(row)["host"] or "", time, value)
        for frame in frames
        for row, time, value in zip(
            frame.series_rows().tolist(),
            frame.times.tolist(),
            frame.columns["v"].values.tolist(),
            strict=True,
        )
    ]


def count(store: ParquetStorage) -> int:
    return sum(len(frame) for frame in store.scan(ScanRequest("cpu")))


def parquet_files(path: Path) -> list[Path]:
    return sorted(path.glob("segments/*/*.parquet"))


def test_a_flush_makes_a_segment_for_each_measurement_and_shard(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, shard_duration_ns=DAY)
    store.append_batch(batch(range(-DAY, 2 * DAY, DAY // 2)))
    store.append_batch(batch(range(3), measurement="mem"))
    store.flush()
    found = [path.relative_to(tmp_path / "segments").parts[0] for path in parquet_files(tmp_path)]
    assert found == ["19691231T000000Z", *["19700101T000000Z"] * 2, "19700102T000000Z"]
    assert store.stats()["segments"] == 4
    assert [path.name for path in tmp_path.glob("wal/*.wal")] == []
    store.close()


def test_frames_over_several_segments_keep_the_contract(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    for start in (0, 90, 200, 195, 20):  # overlapping a little, and much
        store.append_batch(batch(range(start, start + 100)))
        store.flush()
    store.append_batch(batch(range(290, 310)))
    frames = list(store.scan(ScanRequest("cpu", None, 5, 305)))
    found = rows(frames)
    times_there = [*range(5, 190), *range(195, 306)]
    expected = [(host, time, float(time)) for host in "ab" for time in times_there]
    assert sorted(found) == expected
    for host in "ab":
        times = [time for name, time, _ in found if name == host]
        assert times == sorted(times)
    store.close()


def test_a_reader_keeps_its_snapshot_while_segments_are_replaced(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    for start in range(0, 60, 10):
        store.append_batch(batch(range(start, start + 10)))
        store.flush()
    snapshot = store.snapshot()
    old = parquet_files(tmp_path)
    store.delete(DeleteRequest("cpu", TagQuery().host == "a", 0, 29))
    store.flush()
    while store.compact():
        pass
    assert len(parquet_files(tmp_path)) > 1  # the old ones, because of the snapshot
    assert sum(len(frame) for frame in snapshot.scan(ScanRequest("cpu"))) == 120
    assert count(store) == 90
    del snapshot
    gc.collect()
    store.compact()
    assert len(parquet_files(tmp_path)) == 1
    assert not set(parquet_files(tmp_path)) & set(old)
    store.close()


def test_deleted_rows_are_gone_before_and_after_the_flush_and_after_reopening(
    tmp_path: Path,
) -> None:
    store = ParquetStorage(tmp_path)
    store.append_batch(batch(range(100)))
    store.flush()
    store.delete(DeleteRequest("cpu", None, 10, 19))
    assert count(store) == 180
    store.delete(DeleteRequest("cpu", TagQuery().host == "b"))
    assert (count(store), store.series_count()) == (90, 1)
    store.flush()
    assert (count(store), store.stats()["segment_points"]) == (90, 90)
    store.close()
    again = ParquetStorage(tmp_path)
    assert (count(again), again.series_count()) == (90, 1)
    assert again.stats()["log_frames_recovered"] == 0
    again.close()


def test_a_dropped_measurement_can_come_back_with_another_type(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    store.append_batch(batch(range(10)))
    store.flush()
    store.drop_measurement("cpu")
    builder = BatchBuilder()
    builder.add(series_key("cpu", [("host", "a")]), 5, [("v", "text")])
    assert store.append_batch(builder.build()).stored == 1
    for _ in range(2):
        found = [f.columns["v"].values.tolist() for f in store.scan(ScanRequest("cpu"))]
        assert found == [["text"]]
        store.flush()
    assert store.stats()["segments"] == 1
    store.close()


def test_expiry_removes_whole_shards_and_the_series_that_lived_only_there(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, shard_duration_ns=100)
    store.append_batch(batch(range(0, 150, 10), "a"))
    store.append_batch(batch(range(0, 100, 10), "b"))
    store.flush()
    store.append_batch(batch(range(20, 30), "c"))  # still in memory
    assert store.expire(99) == 0
    assert store.expire(199) == 1
    assert rows(list(store.scan(ScanRequest("cpu")))) == [
        ("a", time, float(time)) for time in range(100, 150, 10)
    ]
    assert store.series_count() == 1
    store.close()
    again = ParquetStorage(tmp_path)
    assert (again.series_count(), count(again)) == (1, 5)
    assert len(parquet_files(tmp_path)) == 1
    again.close()


def test_a_new_shard_duration_holds_for_new_shards_and_old_ones_keep_their_bounds(
    tmp_path: Path,
) -> None:
    store = ParquetStorage(tmp_path, overwrite=True, shard_duration_ns=100)
    store.append_batch(batch(range(110, 190, 10)))
    store.set_shard_duration(1000)
    old = Shard(100, 199)
    assert store.shards() == [old]
    store.append_batch(batch(range(0, 1500, 50)))
    new = [Shard(0, 99), old, Shard(200, 999), Shard(1000, 1999)]
    assert store.shards() == new
    store.flush()
    assert len(parquet_files(tmp_path)) == 5  # two in the old shard
    store.close()
    store = ParquetStorage(tmp_path, overwrite=True)
    assert store.shards() == new
    store.append_batch(batch(range(2000, 2001)))
    assert store.shards() == [*new, Shard(2000, 2999)]  # the manifest knows the duration
    assert store.expire(999) == 2
    assert store.shards() == [*new[2:], Shard(2000, 2999)]
    assert store.expire(1000) == 1
    store.close()
    store = ParquetStorage(tmp_path, overwrite=True, shard_duration_ns=10)
    store.append_batch(batch(range(2990, 3005, 5)))  # what is asked for is taken
    assert store.shards() == [Shard(1000, 1999), Shard(2000, 2999), Shard(3000, 3009)]
    store.close()


@pytest.mark.parametrize("flushed", [True, False])
def test_dropping_a_shard_removes_its_points_and_the_series_that_lived_only_there(
    tmp_path: Path, flushed: bool
) -> None:
    for path in (tmp_path, None):
        store = ParquetStorage(path, overwrite=True, shard_duration_ns=100)
        store.append_batch(batch(range(0, 300, 50), "a"))
        store.append_batch(batch(range(100, 150, 10), "b"))
        if flushed:
            store.flush()
        first, middle, last = store.shards()
        assert not store.drop_shard(Shard(middle.first_ns, middle.last_ns + 1))
        assert store.drop_shard(middle)
        assert not store.drop_shard(middle)
        if path is not None:
            store.close()
            store = ParquetStorage(path, overwrite=True)
        assert store.shards() == [first, last]
        assert [time for _, time, _ in rows(list(store.scan(ScanRequest("cpu"))))] == [
            0,
            50,
            200,
            250,
        ]
        assert store.series_count() == 1
        store.append_batch(batch(range(170, 171)))  # it may come again
        assert store.shards() == [first, middle, last]
        store.close()


def test_a_store_in_memory_expires_too() -> None:
    store = ParquetStorage(shard_duration_ns=100)
    store.append_batch(batch(range(0, 150, 10)))
    assert store.expire(199) == 1
    assert count(store) == 10
    assert store.shards() == [Shard(100, 199)]
    store.set_shard_duration(50)
    assert store.shards() == [Shard(100, 149)]
    store.flush()
    assert not store.compact()
    store.close()


def test_points_beyond_the_bound_are_flushed_in_the_background(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True, flush_bytes=20_000)
    for start in range(0, 4000, 50):
        store.append_batch(batch(range(start, start + 50)))
    store.close()
    again = ParquetStorage(tmp_path, overwrite=True)
    assert again.stats()["segment_points"] > 4000
    assert again.stats()["segments"] < 15  # compacted
    assert count(again) == 8000
    again.close()


def test_readers_and_writers_run_beside_flush_and_compaction(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True, sync="off")
    stop = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        seen = 0
        request = AggregateRequest(ScanRequest("cpu"), (Call("count", "v"),), (), Windows(10**6))
        while not stop.is_set():
            try:
                table = store.aggregate(request)
                now = int(table.columns[0].values.sum()) if table.groups else 0
                assert now >= seen
                seen = now
            except BaseException as exc:  # noqa: BLE001  # shown below
                errors.append(exc)
                return

    def flush() -> None:
        while not stop.is_set():
            try:
                store.flush()
                store.compact()
            except BaseException as exc:  # noqa: BLE001
                errors.append(exc)
                return

    threads = [threading.Thread(target=work) for work in (read, flush)]
    for thread in threads:
        thread.start()
    for start in range(0, 3000, 20):
        store.append_batch(batch(range(start, start + 20)))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert count(store) == 6000
    store.close()


def test_a_closed_store_flushes_no_more(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path)
    store.append_batch(batch(range(3)))
    store.close()
    for step in (store.flush, store.compact, lambda: store.expire(0)):
        with pytest.raises(StorageClosed):
            step()


def test_ids_of_series_survive_and_new_ones_are_new(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path)
    store.append_batch(batch(range(3), "abc"))
    store.flush()
    ids = store.series("cpu").ids.tolist()
    store.delete(DeleteRequest("cpu", TagQuery().host == "c"))
    store.flush()
    store.close()
    store = ParquetStorage(tmp_path)
    assert store.series("cpu").ids.tolist() == ids[:2]
    store.append_batch(batch(range(3), "c"))
    assert store.series("cpu").ids.tolist()[:2] == ids[:2]
    assert store.series("cpu").ids.tolist()[2] > ids[2]
    found = rows(list(store.scan(ScanRequest("cpu", TagQuery().host == "c"))))
    assert found == [("c", time, float(time)) for time in range(3)]
    assert np.all(np.diff(store.series("cpu").ids) > 0)
    store.close()


def test_the_order_of_points_does_not_tell_what_was_flushed(tmp_path: Path) -> None:
    stores = [ParquetStorage(tmp_path / name, overwrite=True) for name in ("flushed", "not")]
    for start in range(0, 500, 100):
        for store in stores:
            store.append_batch(batch(range(start, start + 100)))
        stores[0].flush()
    flushed, not_flushed = (rows(list(store.scan(ScanRequest("cpu")))) for store in stores)
    assert flushed == not_flushed == sorted(flushed)
    for store in stores:
        store.close()


def test_aggregates_over_slices_of_time_are_those_over_all_rows(tmp_path: Path) -> None:
    calls = tuple(Call(name, "v") for name in ("count", "sum", "first", "last", "median", "stddev"))
    stores = [ParquetStorage(tmp_path / name, overwrite=True) for name in ("flushed", "not")]
    for start, end in ((0, 400), (390, 900), (900, 1000), (100, 130), (995, 1500)):
        for store in stores:
            store.append_batch(batch(range(start, end, 3), "ba"))
        stores[0].flush()
    for windows in (None, Windows(70), Windows(5, 3)):
        request = AggregateRequest(ScanRequest("cpu", None, 17, 1444), calls, ("host",), windows)
        one, other = (store.aggregate(request) for store in stores)
        assert one.groups == other.groups == [("a",), ("b",)]
        assert one.windows.tolist() == other.windows.tolist()
        for left, right in zip(one.columns, other.columns, strict=True):
            assert left.valid.tolist() == right.valid.tolist()
            np.testing.assert_allclose(left.values[left.valid], right.values[right.valid])
    for store in stores:
        store.close()


def test_many_segments_need_few_open_files(tmp_path: Path) -> None:
    code = """
import resource, sys
from tinyflux.batch import BatchBuilder, series_key
from tinyflux.columnar.base import ScanRequest
from tinyflux.columnar.parquet import ParquetStorage
import pyarrow.parquet  # its libraries are files too
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
storage = ParquetStorage(sys.argv[1], overwrite=True, sync="off")
for week in range(40):
    builder = BatchBuilder()
    builder.add(series_key("m", [("a", str(week))]), week * 7 * 86_400 * 10**9, [("v", week)])
    storage.append_batch(builder.build())
    storage.flush()
found = [v for f in storage.scan(ScanRequest("m")) for v in f.columns["v"].values.tolist()]
assert storage.stats()["segments"] == 40, storage.stats()
assert sorted(found) == list(range(40)), found
"""
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
