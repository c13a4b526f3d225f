"""ParquetStorage: what only the whole shows. The data itself is in test_store_model.py."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tinyflux.batch import (
    MAX_TIME_NS,
    MIN_TIME_NS,
    BatchBuilder,
    FieldType,
    PointBatch,
    series_key,
)
from tinyflux.columnar.base import (
    AggregateRequest,
    Call,
    DeleteRequest,
    Frame,
    Replacement,
    ScanRequest,
)
from tinyflux.columnar.files import OsFiles
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.columnar.wal import FILE_HEAD_SIZE
from tinyflux.errors import (
    FieldTypeConflict,
    StorageClosed,
    StorageLocked,
    StorageReadOnly,
)
from tinyflux.point import Point
from tinyflux.queries import FieldQuery, MeasurementQuery, TagQuery, TimeQuery

if TYPE_CHECKING:
    from pathlib import Path

T0 = datetime(2024, 1, 1, tzinfo=UTC)


def batch_of(*points: tuple[str, int, dict[str, Any]], measurement: str = "cpu") -> PointBatch:
    builder = BatchBuilder()
    for host, time, fields in points:
        builder.add(series_key(measurement, [("host", host)]), time, fields.items())
    return builder.build()


def values(store: ParquetStorage, query: Any = None, field: str = "v") -> list[Any]:
    found: list[Any] = []
    for frame in store.scan(ScanRequest("cpu", query, fields=(field,))):
        column = frame.columns[field]
        found += column.values[column.mask()].tolist()
    return found


def test_an_unknown_sync_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sync mode 'sometimes': one of always, group"):
        ParquetStorage(tmp_path, sync="sometimes")  # type: ignore[arg-type]


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path / "new" / "store")
    with pytest.raises(StorageLocked, match="in use by process"):
        ParquetStorage(tmp_path / "new" / "store")
    store.close()
    ParquetStorage(tmp_path / "new" / "store").close()


def test_a_closed_store_refuses_everything_and_closes_twice(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path)
    store.close()
    store.close()
    calls: list[Any] = [
        lambda: store.append_batch(batch_of(("a", 1, {"v": 1}))),
        lambda: store.delete(DeleteRequest()),
        lambda: store.drop_measurement("cpu"),
        lambda: store.rewrite([], lambda _: None),
        store.snapshot,
        store.sync,
        store.read,
    ]
    for call in calls:
        with pytest.raises(StorageClosed):
            call()


def test_a_conflict_rejects_its_points_and_stores_the_others() -> None:
    store = ParquetStorage(overwrite=True)
    store.append_batch(batch_of(("a", 1, {"v": 1.0})))
    result = store.append_batch(batch_of(("a", 2, {"v": 2}), ("b", 3, {"v": 3.0})))
    assert result.stored == 1
    assert [rejection.points for rejection in result.rejected] == [1]
    assert values(store) == [1.0, 3.0]
    assert store.series_count() == 2


def test_after_a_conflict_the_log_holds_what_was_stored(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    store.append_batch(batch_of(("a", 1, {"v": 1.0})))
    store.append_batch(batch_of(("x", 2, {"v": 2}), ("b", 3, {"v": 3.0})))
    store.close()
    with_log = ParquetStorage(tmp_path, overwrite=True)
    assert values(with_log) == [1.0, 3.0]
    assert with_log.series_count() == 2
    with_log.close()


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_strict_batch_is_stored_wholly_or_not_at_all(tmp_path: Path, on_disk: bool) -> None:
    store = ParquetStorage(tmp_path if on_disk else None, overwrite=True)
    store.append_batch(batch_of(("a", 1, {"v": 1.0})), strict=True)
    with pytest.raises(FieldTypeConflict, match="is type integer, already exists as type float"):
        store.append_batch(batch_of(("b", 2, {"v": 2.0, "w": 1}), ("a", 3, {"v": 3})), strict=True)
    assert store.series_count() == 1
    assert list(store.field_keys("cpu")) == ["v"]
    store.append_batch(batch_of(("b", 2, {"v": 2.0, "w": "text"})), strict=True)
    assert values(store) == [1.0, 2.0]
    store.close()


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_callback_is_called_once_also_when_nothing_was_stored(
    tmp_path: Path, on_disk: bool
) -> None:
    store = ParquetStorage(tmp_path if on_disk else None, overwrite=True)
    store.append_batch(batch_of(("a", 1, {"v": 1.0})))
    done = threading.Event()
    errors: list[Exception | None] = []

    def callback(error: Exception | None) -> None:
        errors.append(error)
        done.set()

    answers: list[dict[str, Any]] = [{"v": 2.0}, {"v": "text"}]
    for n, fields in enumerate(answers, 1):
        done.clear()
        store.append_batch(batch_of(("a", 2, fields)), callback)
        assert done.wait(30)
        assert errors == n * [None]
    store.close()


def test_ints_and_floats_share_a_field_where_points_are_kept() -> None:
    store = ParquetStorage()
    store.append_batch(batch_of(("a", 1, {"v": 1})))
    before = store.snapshot()
    assert store.field_keys("cpu") == {"v": FieldType.INTEGER}
    store.append_batch(batch_of(("a", 2, {"v": 2.5}), ("a", 3, {"v": 3})))
    assert store.field_keys("cpu") == {"v": FieldType.FLOAT}
    assert values(store) == [1.0, 2.5, 3.0]
    (frame,) = before.scan(ScanRequest("cpu"))
    assert frame.columns["v"].type is FieldType.INTEGER


def test_delete_takes_conditions_on_everything() -> None:
    store = ParquetStorage()
    store.append_batch(batch_of(("a", 1, {"v": 1}), ("b", 2, {"v": 2})))
    store.append_batch(batch_of(("a", 3, {"v": 3}), ("b", 0, {"v": 0})))
    assert store.delete(DeleteRequest("cpu", FieldQuery().v > 2)) == 1
    assert store.delete(DeleteRequest("cpu", TimeQuery() < T0)) == 2
    assert values(store) == []
    store.append_batch(batch_of(("a", 1, {"v": 1}), ("b", 2, {"v": 2})))
    assert store.delete(DeleteRequest(None, MeasurementQuery() == "mem")) == 0
    assert store.delete(DeleteRequest("nothing")) == 0
    assert store.delete(DeleteRequest(None, TagQuery().host == "a")) == 1
    assert values(store) == [2]


def test_a_deleted_measurement_forgets_its_types_and_starts_anew(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    store.append_batch(batch_of(("a", 1, {"v": 1})))
    store.delete(DeleteRequest("cpu"))
    assert store.measurements() == []
    assert store.append_batch(batch_of(("a", 1, {"v": "text"}))).stored == 1
    assert store.drop_measurement("cpu")
    assert not store.drop_measurement("cpu")
    assert store.append_batch(batch_of(("a", 1, {"v": 1.5}))).stored == 1
    store.close()
    again = ParquetStorage(tmp_path, overwrite=True)
    assert values(again) == [1.5]
    again.close()


def test_a_rewrite_takes_out_one_of_two_points_of_the_same_time() -> None:
    store = ParquetStorage()
    store.append_batch(batch_of(("a", 1, {"v": 1}), ("a", 1, {"v": 2}), ("a", 2, {"v": 3})))

    def take_out(frame: Frame) -> Replacement:
        assert frame.columns["v"].values.tolist() == [2]
        return Replacement(np.array([True]))

    assert store.rewrite([ScanRequest("cpu", FieldQuery().v == 2)], take_out) == 1
    assert values(store) == [1, 3]


def test_a_rewrite_that_raises_or_conflicts_changes_nothing(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path)
    store.append_batch(batch_of(("a", 1, {"v": 1}), ("b", 2, {"v": 2})))
    size = store.stats()["log_bytes"]

    def fail(frame: Frame) -> Replacement:
        raise ZeroDivisionError

    def conflict(frame: Frame) -> Replacement:
        return Replacement(np.ones(len(frame), np.bool_), batch_of(("c", 1, {"v": "text"})))

    with pytest.raises(ZeroDivisionError):
        store.rewrite([ScanRequest("cpu")], fail)
    with pytest.raises(FieldTypeConflict):
        store.rewrite([ScanRequest("cpu")], conflict)
    assert store.rewrite([ScanRequest("cpu")], lambda _: None) == 0
    assert values(store) == [1, 2]
    assert store.series_count() == 2
    assert store.stats()["log_bytes"] == size
    store.close()


def test_readers_see_a_rewrite_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ParquetStorage()
    store.append_batch(batch_of(("a", 1, {"v": 1}), ("a", 2, {"v": 2})))
    found: list[list[int]] = []
    reader = threading.Thread(target=lambda: found.append(values(store)))
    memtable = store._state.layers.memtable
    append = memtable.append

    def read_between(block: Any) -> None:
        reader.start()
        reader.join(0.2)  # it must not get ahead of the new points
        append(block)

    monkeypatch.setattr(memtable, "append", read_between)

    def change(frame: Frame) -> Replacement:
        new = batch_of(("a", 3, {"v": 3}), ("b", 4, {"v": 4}))
        return Replacement(np.ones(len(frame), np.bool_), new)

    store.rewrite([ScanRequest("cpu")], change)
    reader.join(60)
    assert found == [[3, 4]]


def test_an_aggregate_reads_the_rows_of_a_scan() -> None:
    store = ParquetStorage()
    store.append_batch(batch_of(*[("ab"[i % 2], i, {"v": i}) for i in range(10)]))
    scan = ScanRequest("cpu", FieldQuery().v > 3)
    table = store.aggregate(AggregateRequest(scan, (Call("sum", "v"),), ("host",)))
    assert table.groups == [("a",), ("b",)]
    assert table.columns[0].values.ravel().tolist() == [4 + 6 + 8, 5 + 7 + 9]


def test_len_counts_merged_points_once() -> None:
    store = ParquetStorage(overwrite=True)
    store.append_batch(batch_of(("a", 1, {"v": 1}), ("b", 1, {"v": 1})))
    assert len(store) == 2
    store.append_batch(batch_of(("a", 1, {"v": 5}), ("a", 2, {"v": 1})))
    assert len(store) == 3


def test_frames_are_bounded_in_rows() -> None:
    store = ParquetStorage()
    store.append_batch(batch_of(*[("ab"[i % 2], i, {"v": i}) for i in range(100)]))
    snapshot = store.snapshot()
    snapshot._max_frame_rows = 10
    found = list(snapshot.scan(ScanRequest("cpu")))
    assert max(map(len, found)) <= 20
    assert sorted(v for frame in found for v in frame.columns["v"].values.tolist()) == [*range(100)]


# The item-by-item contract


def point(host: str, minute: int, **fields: Any) -> Point:
    time = T0.replace(minute=minute)
    return Point(time=time, measurement="m", tags={"host": host, "none": None}, fields=fields)


def test_points_go_in_and_come_out_equal_in_order_of_series_and_time() -> None:
    store = ParquetStorage()
    points = [point("b", 1, v=1, n=None), point("a", 2, v=2.5), point("b", 0, v=3), point("b", 0)]
    store.append(points)
    expected = [point("b", 0, v=3), point("b", 0), point("b", 1, v=1, n=None), point("a", 2, v=2.5)]
    assert store.read() == expected
    assert list(store) == expected
    assert len(store) == 4


def test_iteration_is_independent_of_later_writes() -> None:
    store = ParquetStorage()
    store.append([point("a", 0, v=1)])
    iterator = iter(store)
    assert next(iterator) == point("a", 0, v=1)
    store.append([point("a", 1, v=1)])
    assert list(iterator) == []


def test_the_temporary_storage_replaces_everything(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path)
    store.append([point("a", 0, v=1), point("b", 0, v=1)])
    store._init_temp_storage()
    store.append([point("c", 5, v=2)], temporary=True)
    assert len(store) == 2
    store._swap_temp_with_primary()
    store._cleanup_temp_storage()
    assert store.read() == [point("c", 5, v=2)]
    store.close()
    again = ParquetStorage(tmp_path)
    assert again.read() == [point("c", 5, v=2)]
    assert not again._initially_empty
    again.reset()
    assert again.read() == []
    assert again.measurements() == []
    again.close()


def test_times_outside_64_bits_are_refused() -> None:
    store = ParquetStorage()
    with pytest.raises(ValueError, match="time outside range"):
        store.append([Point(time=datetime(3000, 1, 1, tzinfo=UTC))])


def test_a_conflicting_point_of_the_api_raises() -> None:
    store = ParquetStorage(overwrite=True)
    store.append([point("a", 0, v=1.0)])
    with pytest.raises(FieldTypeConflict, match='input field "v" on measurement "m"'):
        store.append([point("a", 1, v=1)])


# Recovery


def log_file(directory: Path) -> Path:
    (name,) = [name for name in OsFiles().names(directory / "wal") if name.endswith(".wal")]
    return directory / "wal" / name


def filled(directory: Path, n: int = 3) -> list[int]:
    """Write n batches; return where each one's frame ends."""
    store = ParquetStorage(directory, overwrite=True)
    ends = []
    for i in range(n):
        store.append_batch(batch_of(("a", i, {"v": i})))
        ends.append(store.stats()["log_bytes"])
    store.close()
    return ends


def test_a_torn_tail_is_cut_off_and_kept_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = filled(tmp_path)
    path = log_file(tmp_path)
    torn = path.read_bytes()[: ends[1] + 30]
    path.write_bytes(torn)
    with caplog.at_level(logging.WARNING):
        store = ParquetStorage(tmp_path, overwrite=True)
    assert values(store) == [0, 1]
    assert store.stats()["log_damaged"] == 0
    assert "log ends with a torn write" in caplog.text
    assert path.stat().st_size == ends[1]
    aside = tmp_path / "wal" / "quarantine" / f"{path.name}-{ends[1]}"
    assert aside.read_bytes() == torn[ends[1] :]
    store.close()


def test_a_log_file_that_was_only_begun_is_removed(tmp_path: Path) -> None:
    filled(tmp_path)
    begun = tmp_path / "wal" / "000002.wal"
    begun.write_bytes(b"TFW")
    store = ParquetStorage(tmp_path, overwrite=True)
    assert values(store) == [0, 1, 2]
    assert not begun.exists()
    store.close()


def test_a_full_disk_does_not_keep_a_torn_store_from_opening(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = filled(tmp_path)
    path = log_file(tmp_path)
    path.write_bytes(path.read_bytes()[: ends[1] + 30])
    files = FullDisk()
    files.is_full = True
    store = ParquetStorage(tmp_path, overwrite=True, files=files)
    assert values(store) == [0, 1]
    assert "could not be copied" in caplog.text
    assert path.stat().st_size == ends[1] + 30
    store.close()


def test_damage_is_reported_set_aside_and_stepped_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = filled(tmp_path)
    path = log_file(tmp_path)
    data = bytearray(path.read_bytes())
    data[ends[0] + 40] ^= 1
    path.write_bytes(data)
    for _ in range(2):  # also when it is read again
        caplog.clear()
        store = ParquetStorage(tmp_path, overwrite=True)
        assert values(store) == [0, 2]
        assert store.stats()["log_damaged"] == 1
        assert "log is damaged, stepped over" in caplog.text
        store.close()
    aside = tmp_path / "wal" / "quarantine" / f"{path.name}-{ends[0]}"
    assert aside.read_bytes() == data[ends[0] : ends[1]]
    assert path.read_bytes() == data


def test_a_torn_tail_of_an_older_file_is_damage(tmp_path: Path) -> None:
    ends = filled(tmp_path)
    path = log_file(tmp_path)
    filled(tmp_path, 5)
    path.write_bytes(path.read_bytes()[: ends[1] + 30])
    store = ParquetStorage(tmp_path, overwrite=True)
    assert store.stats()["log_damaged"] == 1
    assert values(store) == [0, 1, 2, 3, 4]
    assert path.stat().st_size == ends[1] + 30
    store.close()


def test_the_log_is_cut_into_files_and_read_in_their_order(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True, log_file_bytes=FILE_HEAD_SIZE + 1)
    for i in range(12):
        store.append_batch(batch_of(("a", 0, {"v": i})))
    store.close()
    assert len(OsFiles().names(tmp_path / "wal")) == 12
    again = ParquetStorage(tmp_path, overwrite=True)
    assert values(again) == [11]
    again.close()


class FullDisk(OsFiles):
    """A disk that is full from some moment on."""

    is_full = False

    def create(self, path: Path) -> Any:
        file = super().create(path)
        append = file.append

        def full(buffers: Any) -> None:
            if self.is_full:
                raise OSError(28, "No space left on device")
            append(buffers)

        file.append = full  # type: ignore[method-assign]
        return file


def test_a_full_disk_refuses_writes_and_takes_them_again_later(tmp_path: Path) -> None:
    files = FullDisk()
    store = ParquetStorage(tmp_path, files=files)
    store.append_batch(batch_of(("a", 1, {"v": 1})))
    files.is_full = True
    writes: list[Any] = [
        lambda: store.append_batch(batch_of(("a", 2, {"v": 2}))),
        lambda: store.append_batch(batch_of(("new", 3, {"w": 3}))),
        lambda: store.delete(DeleteRequest("cpu")),
        lambda: store.drop_measurement("cpu"),
    ]
    for write in writes:
        with pytest.raises(StorageReadOnly, match="No space left on device"):
            write()
    assert values(store) == [1]
    assert store.series_count() == 1
    files.is_full = False
    store.append_batch(batch_of(("a", 4, {"v": 4})))
    assert values(store) == [1, 4]
    store.close()
    again = ParquetStorage(tmp_path)
    assert values(again) == [1, 4]
    assert again.stats()["log_damaged"] == 0
    again.close()


def test_many_threads_write_and_nothing_is_lost(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    failures: list[Exception] = []

    def work(host: str) -> None:
        try:
            for i in range(50):
                store.append_batch(batch_of((host, i, {"v": i})))
                if not values(store, TagQuery().host == host)[-1:] == [i]:
                    raise AssertionError(f"{host} does not read its own write {i}")
        except Exception as exc:  # noqa: BLE001  # told to the main thread
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    store.close()
    again = ParquetStorage(tmp_path, overwrite=True)
    assert len(again) == 400
    again.close()


def test_the_first_and_the_last_time_there_are_go_into_segments(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    store.append_batch(batch_of(("a", MIN_TIME_NS, {"v": 1}), ("a", MAX_TIME_NS, {"v": 2})))
    store.append_batch(batch_of(("b", MIN_TIME_NS, {"v": 3})))
    store.flush()
    store.close()
    again = ParquetStorage(tmp_path, overwrite=True)
    assert again.stats()["segment_points"] == 3
    assert sorted(values(again)) == [1, 2, 3]
    assert values(again, TagQuery().host == "a") == [1, 2]
    assert again.expire(0) == 1
    assert values(again) == [2]
    again.close()


def test_a_flush_that_fails_on_close_does_not_keep_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    n = 60_000
    keys = batch_of(("a", 0, {"v": 0})).keys
    zeros = np.zeros(n, np.int32)
    layout = (("v", FieldType.INTEGER),)
    store.append_batch(PointBatch(keys, zeros, np.arange(n), [layout], zeros, np.arange(n)))

    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(store._flushing, "flush", fail)
    store.close()
    again = ParquetStorage(tmp_path, overwrite=True)
    assert len(again) == n
    again.close()
