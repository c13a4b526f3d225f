"""Beyond the TinyFlux API: batches, downsampling, data frames."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import tinyflux
from tinyflux import FieldQuery, ParquetStorage, Point, PointBatch, TagQuery, TinyFlux, TypedPoint
from tinyflux.batch import BatchBuilder, FieldType, series_key
from tinyflux.errors import FieldTypeConflict

if TYPE_CHECKING:
    from pathlib import Path

T = datetime(2024, 1, 1, tzinfo=UTC)
T_NS = 1_704_067_200_000_000_000
MINUTE = timedelta(minutes=1)


def batch() -> PointBatch:
    builder = BatchBuilder()
    key = series_key("m", [("host", "a")])
    builder.add(key, T_NS + 1, [("f", 1.5), ("s", "up"), ("b", True), ("n", None)])
    builder.add(key, T_NS + 2_000, [("f", 2.5)])
    return builder.build()


def test_batch_is_taken_by_every_storage(db: TinyFlux) -> None:
    assert db.insert_multiple(batch()) == 2
    expected = TypedPoint(
        time=T,
        measurement="m",
        tags={"host": "a"},
        fields={"f": 1.5, "s": "up", "b": True, "n": None},
    )
    assert expected == db.all()[0]
    assert db.get_timestamps() == [T, T + timedelta(microseconds=2)]


def test_insert_batch_tells_what_was_stored(db: TinyFlux) -> None:
    assert db.insert_batch(batch()).stored == 2
    assert db.count(FieldQuery().f > 2) == 1


def test_insert_batch_keeps_nanoseconds_and_rejects_single_points() -> None:
    db = TinyFlux(storage=ParquetStorage)
    db.insert_batch(batch())
    builder = BatchBuilder()
    key = series_key("m", [("host", "a")])
    builder.add(key, T_NS, [("f", "text")])
    builder.add(key, T_NS, [("f", 3.5)])
    result = db.insert_batch(builder.build())
    assert result.stored == 1
    assert sum(rejection.points for rejection in result.rejected) == 1
    storage = db.storage
    assert isinstance(storage, ParquetStorage)
    assert db.update(FieldQuery().f == 1.5, tags={"host": "b"}) == 1
    times = [
        time
        for frame in storage.scan(tinyflux.columnar.base.ScanRequest("m"))
        for time in frame.times.tolist()
    ]
    assert sorted(times) == [T_NS, T_NS + 1, T_NS + 2_000]


def test_batch_enters_a_columnar_storage_as_it_is() -> None:
    builder = BatchBuilder()
    builder.add(series_key("m", []), T_NS + 1, [("i", 3)])
    db = TinyFlux(storage=ParquetStorage)
    assert db.insert_multiple(builder.build()) == 1
    storage = db.storage
    assert isinstance(storage, ParquetStorage)
    assert storage.field_keys("m") == {"i": FieldType.INTEGER}
    other = BatchBuilder()
    other.add(series_key("m", []), T_NS + 2, [("i", 4)])
    other.add(series_key("m", []), T_NS + 3, [("i", "text")])
    with pytest.raises(FieldTypeConflict):
        db.insert_multiple(other.build())
    assert db.get_field_values("i") == [3, 4]


def test_columns_of_a_columnar_storage_have_one_type() -> None:
    db = TinyFlux(storage=ParquetStorage)
    db.insert(Point(time=T, fields={"f": 1}))
    db.insert(Point(time=T, fields={"f": 1.5}))
    assert sorted(db.get_field_values("f")) == [1.0, 1.5]
    with pytest.raises(FieldTypeConflict):
        db.insert_multiple([Point(time=T, fields={"f": 2}), TypedPoint(fields={"f": "text"})])
    assert len(db) == 2
    with pytest.raises(ValueError, match="time outside range"):
        db.insert(Point(time=datetime(3000, 1, 1, tzinfo=UTC)))


def test_integer_columns_of_the_gateway_take_whole_numbers_only() -> None:
    db = TinyFlux(storage=ParquetStorage)
    builder = BatchBuilder()
    builder.add(series_key("m", []), T_NS, [("i", 2**62)])
    db.insert_batch(builder.build())
    db.insert(Point(time=T, measurement="m", fields={"i": 3.0}))
    assert sorted(db.get_field_values("i")) == [3, 2**62]
    with pytest.raises(FieldTypeConflict):
        db.insert(Point(time=T, measurement="m", fields={"i": 3.5}))
    with pytest.raises(FieldTypeConflict):
        db.update_all(fields={"i": 0.5})
    assert sorted(db.get_field_values("i")) == [3, 2**62]


def test_parquet_database_opens_again(tmp_path: Path) -> None:
    point = TypedPoint(time=T, tags={"a": None}, fields={"f": 1.5, "s": "x", "n": None})
    with TinyFlux(tmp_path / "db", storage=ParquetStorage) as db:
        db.insert(point)
        db.insert(point)
    with TinyFlux(tmp_path / "db", storage=ParquetStorage) as db:
        assert point == db.all()[0]
        assert len(db) == 2
        assert db.index.valid


def points() -> list[Point]:
    return [
        Point(
            time=T + i * MINUTE,
            measurement="air" if i % 2 else "water",
            tags={"city": "LA" if i < 60 else "SF"},
            fields={"t": float(i), "n": None},
        )
        for i in range(120)
    ]


def test_aggregate_gives_points_per_window_and_group(db: TinyFlux) -> None:
    db.insert_multiple(points())
    found = db.aggregate(
        {"mean": ("mean", "t"), "top": ("max", "t"), "many": ("count", "t")},
        measurement="air",
        every=60 * MINUTE,
        by=["city"],
    )
    assert found == [
        Point(
            time=T,
            measurement="air",
            tags={"city": "LA"},
            fields={"mean": 30.0, "top": 59.0, "many": 30},
        ),
        Point(
            time=T + 60 * MINUTE,
            measurement="air",
            tags={"city": "SF"},
            fields={"mean": 90.0, "top": 119.0, "many": 30},
        ),
    ]


def test_aggregate_without_windows_spans_all_and_names_each_measurement(db: TinyFlux) -> None:
    db.insert_multiple(points())
    found = db.aggregate({"last": ("last", "t")}, TagQuery().city == "LA")
    assert [(p.measurement, p.tags, p.fields) for p in found] == [
        ("air", {}, {"last": 59.0}),
        ("water", {}, {"last": 58.0}),
    ]
    assert db.aggregate({"x": ("mean", "nope")}) == []
    assert db.aggregate({"x": ("mean", "t")}, measurement="nobody") == []


def test_downsampled_points_can_be_inserted_again(db: TinyFlux) -> None:
    db.insert_multiple(points())
    hourly = db.aggregate({"t": ("mean", "t")}, every=60 * MINUTE, by=["city"])
    db.insert_multiple(hourly, measurement="hourly")
    assert len(db.measurement("hourly")) == 4


@pytest.mark.parametrize("calls", [{}, {"x": "mean"}, {"x": ("mean",)}, {"x": ("nope", "t")}])
def test_aggregate_refuses_what_is_no_call(db: TinyFlux, calls: dict[str, Any]) -> None:
    db.insert_multiple(points())
    with pytest.raises(ValueError, match=r"."):
        db.aggregate(calls)


def test_data_frame_has_a_column_for_every_key(db: TinyFlux) -> None:
    pytest.importorskip("pandas")
    db.insert_multiple(points()[:4])
    db.insert(TypedPoint(time=T + 9 * MINUTE, measurement="x", fields={"s": "up"}))
    frame = db.to_pandas()
    names = ["time", "measurement", "tags.city", "fields.n", "fields.s", "fields.t"]
    assert list(frame.columns) == names
    assert len(frame) == 5
    assert str(frame["time"].dtype) == "datetime64[us, UTC]"
    assert frame.sort_values("time")["fields.t"].tolist()[:4] == [0.0, 1.0, 2.0, 3.0]
    assert frame["fields.s"].dropna().tolist() == ["up"]
    assert len(db.to_pandas(FieldQuery().t > 1, "air")) == 1
    assert len(db.to_pandas(FieldQuery().t > 999)) == 0


def test_arrow_table_has_a_column_for_every_key(db: TinyFlux) -> None:
    pytest.importorskip("pyarrow")
    db.insert_multiple(points()[:4])
    table = db.to_arrow(measurement="air")
    assert table.column_names == ["time", "measurement", "tags.city", "fields.n", "fields.t"]
    assert table["time"].to_pylist() == [T + MINUTE, T + 3 * MINUTE]
    assert table["fields.t"].to_pylist() == [1.0, 3.0]
    assert table["fields.n"].null_count == 2


def test_all_names_are_exported_in_order() -> None:
    assert tinyflux.__all__ == sorted(tinyflux.__all__)
    for name in tinyflux.__all__:
        assert hasattr(tinyflux, name)
    for name in ("TinyFlux", "Point", "TagQuery", "FieldQuery", "MeasurementQuery", "TimeQuery"):
        assert name in tinyflux.__all__


def test_import_is_light() -> None:
    code = "import tinyflux, sys; print([m for m in ('pyarrow', 'pandas') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
