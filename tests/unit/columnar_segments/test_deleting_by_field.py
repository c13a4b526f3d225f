"""Deletes by fields and drops of fields, on segments and in memory, before and after a flush."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tinyflux.batch import BatchBuilder, FieldType, FieldValue, PointBatch, series_key
from tinyflux.columnar import parquet
from tinyflux.columnar.base import AggregateRequest, Call, DeleteRequest, ScanRequest
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.columnar.points import field_dicts
from tinyflux.queries import FieldQuery, TagQuery

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Rows = dict[tuple[str, int], dict[str, FieldValue]]

ROWS: Rows = {
    ("a", 1): {"v": 1.0, "w": 5},
    ("a", 2): {"v": 2.0},
    ("a", 150): {"w": 7},
    ("b", 3): {"v": 3.0, "s": "x"},
    ("c", 4): {"v": 9.0},
}


def batch(rows: Rows) -> PointBatch:
    builder = BatchBuilder()
    for (host, time), fields in rows.items():
        builder.add(series_key("m", [("host", host)]), time, fields.items())
    return builder.build()


def rows_of(store: ParquetStorage) -> Rows:
    return {
        (frame.series.tags(row)["host"] or "", time): fields
        for frame in store.scan(ScanRequest("m"))
        for row, time, fields in zip(
            frame.series_rows().tolist(),
            frame.times.tolist(),
            field_dicts(frame, np.arange(len(frame))),
            strict=True,
        )
    }


@pytest.fixture(params=["memory", "log", "segments", "both"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ParquetStorage:
    """A store with ROWS in memory, in the log, in segments; nothing flushes by itself."""
    path = None if request.param == "memory" else tmp_path
    opened = ParquetStorage(path, overwrite=True, shard_duration_ns=100)
    if opened._flushing is not None:
        opened._flushing._flusher.stop()
    first = dict(list(ROWS.items())[:3])
    if request.param == "both":
        opened.append_batch(batch(first))
        opened.flush()
    opened.append_batch(batch(ROWS))
    if request.param == "segments":
        opened.flush()
    return opened


def checks(store: ParquetStorage) -> list[Callable[[], ParquetStorage]]:
    """Return what gives the store as it is, reopened, flushed and reopened."""

    def reopened() -> ParquetStorage:
        store.close()
        return ParquetStorage(store.path, overwrite=True)

    def flushed() -> ParquetStorage:
        again = ParquetStorage(store.path, overwrite=True)
        again.flush()
        again.close()
        return ParquetStorage(store.path, overwrite=True)

    return [lambda: store, *([reopened, flushed] if store.path is not None else [])]


def test_points_whose_fields_match_go_as_a_whole(store: ParquetStorage) -> None:
    hot = (FieldQuery().v > 1.5) & (TagQuery().host != "c")
    assert store.delete(DeleteRequest("m", hot, 0, 50)) == 2
    for check in checks(store):
        now = check()
        kept = {key: ROWS[key] for key in [("a", 1), ("a", 150), ("c", 4)]}
        assert rows_of(now) == kept
        assert now.series_count() == 2
        now.close()


def test_a_delete_by_field_goes_in_bounded_steps(
    store: ParquetStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_MOST_RANGES", 1)
    assert store.delete(DeleteRequest(None, FieldQuery().v > 0)) == 3
    assert rows_of(store) == {("a", 150): {"w": 7}}
    store.close()


def test_a_dropped_field_goes_with_the_points_that_have_no_other(store: ParquetStorage) -> None:
    assert store.drop_field("m", "v")
    assert not store.drop_field("m", "v")
    assert not store.drop_field("nothing", "v")
    left = {("a", 1): {"w": 5}, ("a", 150): {"w": 7}, ("b", 3): {"s": "x"}}
    for check in checks(store):
        now = check()
        assert rows_of(now) == left
        assert now.field_keys("m") == {"s": FieldType.STRING, "w": FieldType.INTEGER}
        assert now.series_count() == 2  # that of c is gone
        times = [t for f in now.scan(ScanRequest("m", fields=())) for t in f.times.tolist()]
        assert times == [1, 150, 3]
        counts = now.aggregate(AggregateRequest(ScanRequest("m"), (Call("count", "w"),)))
        assert counts.columns[0].values.tolist() == [[2]]
        now.close()


def test_a_dropped_field_may_come_again_with_another_type(store: ParquetStorage) -> None:
    again: Rows = {("a", 2): {"v": "text"}, ("c", 4): {"v": "more"}}
    assert store.append_batch(batch(again)).stored == 0
    store.drop_field("m", "v")
    assert store.append_batch(batch(again)).stored == 2
    left = {("a", 1): {"w": 5}, ("a", 150): {"w": 7}, ("b", 3): {"s": "x"}} | again
    for check in checks(store):
        now = check()
        assert rows_of(now) == left
        assert now.field_keys("m")["v"] is FieldType.STRING
        now.close()


def test_with_its_last_field_a_measurement_goes(store: ParquetStorage) -> None:
    for field in ("v", "w", "s"):
        assert store.drop_field("m", field)
    for check in checks(store):
        now = check()
        assert (now.measurements(), now.series_count(), rows_of(now)) == ([], 0, {})
        now.close()


def test_a_snapshot_keeps_what_is_dropped_later(store: ParquetStorage) -> None:
    before = store.snapshot()
    store.drop_field("m", "v")
    store.flush()
    assert before.field_keys("m")["v"] is FieldType.FLOAT
    assert sum(len(frame) for frame in before.scan(ScanRequest("m"))) == len(ROWS)
    store.close()


def test_only_segments_that_have_the_field_are_written_anew(tmp_path: Path) -> None:
    store = ParquetStorage(tmp_path, overwrite=True, shard_duration_ns=100)
    for rows in ({("a", 150): {"w": 7}}, {("a", 1): {"v": 1.0}, ("b", 1): {"w": 1}}):
        store.append_batch(batch(rows))  # type: ignore[arg-type]
        store.flush()
    before = set(tmp_path.glob("segments/*/*.parquet"))
    store.drop_field("m", "v")
    store._flushing.wait_for_flush()  # type: ignore[union-attr]
    after = set(tmp_path.glob("segments/*/*.parquet"))
    assert len(before) == len(after) == 2
    assert len(before & after) == 1
    store.close()
