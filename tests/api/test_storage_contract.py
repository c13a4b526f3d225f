"""What a third-party Storage must implement, and which calls it sees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tinyflux import (
    CSVStorage,
    FieldQuery,
    MemoryStorage,
    Point,
    Storage,
    TagQuery,
    TimeQuery,
    TinyFlux,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

T = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)

ABSTRACT = {
    "__iter__",
    "__len__",
    "append",
    "read",
    "reset",
    "_deserialize_measurement",
    "_deserialize_timestamp",
    "_deserialize_storage_item",
    "_serialize_point",
    "_swap_temp_with_primary",
    "_write",
}


class Item:
    """Opaque to the database."""

    def __init__(self, point: Point) -> None:
        self.point = point


class Recorder(Storage):
    """Keeps items and the names of the calls it sees."""

    def __init__(self, *points: Point) -> None:
        self.calls: list[str] = []
        self.items = [Item(point) for point in points]
        self.temp: list[Item] = []
        self._initially_empty = not points

    @property
    def can_append(self) -> bool:
        self.calls.append("can_append")
        return True

    @property
    def can_read(self) -> bool:
        self.calls.append("can_read")
        return True

    @property
    def can_write(self) -> bool:
        self.calls.append("can_write")
        return True

    def __iter__(self) -> Iterator[Item]:
        self.calls.append("iter")
        return iter(self.items)

    def __len__(self) -> int:
        self.calls.append("len")
        return len(self.items)

    def append(self, points: Sequence[Item], **temporary: bool) -> None:  # type: ignore[override]
        self.calls.append(f"append {len(points)} {temporary or ''}".strip())
        assert all(isinstance(item, Item) for item in points)
        (self.temp if temporary else self.items).extend(points)

    def read(self) -> list[Point]:
        self.calls.append("read")
        return [item.point for item in self.items]

    def reset(self) -> None:
        self.calls.append("reset")
        self.items = []

    def _deserialize_measurement(self, item: Item) -> str:
        self.calls.append("measurement")
        return item.point.measurement

    def _deserialize_timestamp(self, item: Item) -> datetime:
        self.calls.append("timestamp")
        assert item.point.time is not None
        return item.point.time.replace(tzinfo=None)

    def _deserialize_storage_item(self, item: Item) -> Point:
        self.calls.append("item")
        return item.point

    def _serialize_point(self, point: Point, *args: Any, **kwargs: Any) -> Item:
        self.calls.append(f"serialize {args or ''}{kwargs}")
        return Item(point)

    def _init_temp_storage(self) -> None:
        self.calls.append("init")
        self.temp = []

    def _cleanup_temp_storage(self) -> None:
        self.calls.append("cleanup")
        self.temp = []

    def _swap_temp_with_primary(self) -> None:
        self.calls.append("swap")
        self.items, self.temp = self.temp, []

    def _write(self, items: Sequence[Item]) -> None:
        raise AssertionError("the database never calls _write")


def points() -> list[Point]:
    return [Point(time=T + i * SECOND, measurement="ab"[i % 2], fields={"v": i}) for i in range(3)]


@pytest.fixture
def db() -> TinyFlux:
    """A database over a recorder with three points; calls so far are forgotten."""
    db = TinyFlux(*points(), storage=Recorder)
    calls(db)
    return db


def calls(db: TinyFlux) -> list[str]:
    storage = db.storage
    assert isinstance(storage, Recorder)
    seen, storage.calls = storage.calls, []
    return seen


def test_abstract_methods_are_these_eleven() -> None:
    assert Storage.__abstractmethods__ == ABSTRACT
    with pytest.raises(TypeError):
        Storage()  # type: ignore[abstract]


def test_open_reads_what_is_there_for_the_index() -> None:
    db = TinyFlux(*points(), storage=Recorder)
    assert calls(db) == ["can_read", "iter", "item", "item", "item"]
    assert len(db) == 3
    assert calls(db) == []
    assert calls(TinyFlux(*points(), storage=Recorder, auto_index=False)) == []
    assert calls(TinyFlux(storage=Recorder)) == []


def test_insert_serializes_each_point_and_appends_once(db: TinyFlux) -> None:
    db.insert(Point(time=T + 9 * SECOND), compact_key_prefixes=True)
    assert calls(db) == [
        *("can_append", "serialize {'compact_key_prefixes': True}", "append 1"),
    ]
    db.insert_multiple([Point(time=T + 9 * SECOND)] * 5, batch_size=3)
    seen = calls(db)
    assert [call for call in seen if call.startswith("append")] == ["append 3", "append 2"]
    assert seen.count("serialize {'compact_key_prefixes': False}") == 5


def test_reads_iterate_and_deserialize(db: TinyFlux) -> None:
    assert len(db.all()) == 3
    assert calls(db) == ["can_read", "read"]
    assert db.count(FieldQuery().v >= 1) == 2
    assert calls(db) == ["can_read", "iter", "item", "item", "item"]
    assert db.search(FieldQuery().v >= 1, "b") != []
    assert calls(db) == ["can_read", "iter", "measurement", "measurement", "item", "measurement"]
    db.index.invalidate()
    assert db.get_timestamps() == [T, T + SECOND, T + 2 * SECOND]
    assert "timestamp" in calls(db)
    assert list(db) == points()
    assert calls(db) == ["iter", "item", "item", "item"]


def test_remove_rewrites_through_temporary_storage(db: TinyFlux) -> None:
    assert db.remove(FieldQuery().v == 1) == 1
    seen = calls(db)
    assert {"can_read", "can_write", "init", "swap", "cleanup"} <= set(seen)
    assert [call for call in seen if call.startswith("append")] == ["append 2 {'temporary': True}"]
    assert seen.index("init") < seen.index("swap") < seen.index("cleanup")
    assert db.select("fields.v", TagQuery().noop()) == [0, 2]


def test_no_match_makes_no_swap_but_cleans_up(db: TinyFlux) -> None:
    assert db.remove(FieldQuery().v == 9) == 0
    assert db.update(FieldQuery().v == 9, fields={"v": 1}) == 0
    seen = calls(db)
    assert "swap" not in seen
    assert "reset" not in seen
    assert seen.count("init") == seen.count("cleanup") == 2


def test_removing_everything_resets(db: TinyFlux) -> None:
    assert db.remove(TimeQuery() >= T) == 3
    seen = calls(db)
    assert "reset" in seen
    assert "swap" not in seen
    assert len(db) == 0


def test_remove_all_resets(db: TinyFlux) -> None:
    db.remove_all()
    assert calls(db) == ["can_write", "reset"]


def test_update_appends_kept_and_changed_items_in_order(db: TinyFlux) -> None:
    assert db.update(FieldQuery().v == 1, fields={"v": 10}) == 1
    assert "serialize {'compact_key_prefixes': False}" in calls(db)
    assert db.select("fields.v", TagQuery().noop()) == [0, 10, 2]


def test_failed_swap_leaves_points_unchanged(db: TinyFlux, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(storage: Recorder) -> None:
        raise OSError("no")

    monkeypatch.setattr(Recorder, "_swap_temp_with_primary", fail)
    with pytest.raises(OSError, match="no"):
        db.update_all(fields={"v": 10})
    assert "cleanup" in calls(db)
    assert db.all() == points()


@pytest.mark.parametrize("name", ["can_append", "can_read", "can_write"])
def test_plain_false_forbids_the_operation(name: str) -> None:
    class Strict(MemoryStorage):
        pass

    setattr(Strict, name, property(lambda self: False))
    db = TinyFlux(storage=Strict)
    operations: dict[str, Any] = {
        "can_append": lambda: db.insert(Point()),
        "can_read": db.all,
        "can_write": db.remove_all,
    }
    with pytest.raises(AssertionError):
        operations[name]()
    with pytest.raises(OSError, match="cannot be"):
        operations[name]()


def test_storage_that_does_not_say_whether_it_is_empty_is_counted() -> None:
    class Silent(Recorder):
        def __init__(self) -> None:
            super().__init__(*points())
            del self._initially_empty

    db = TinyFlux(storage=Silent)
    assert len(db) == 3
    assert db.index.valid


def test_minimal_subclass_works() -> None:
    class Minimal(MemoryStorage):
        """Overrides nothing but the serialization: a text for each tag in upper case."""

        def _deserialize_storage_item(self, item: Point) -> Point:
            upper = {key: value and value.upper() for key, value in item.tags.items()}
            assert item.time is not None
            return Point(time=item.time, measurement=item.measurement, tags=upper)

    db = TinyFlux(storage=Minimal)
    db.insert(Point(time=T, tags={"a": "x"}))
    assert db.count(TagQuery().a == "X") == 1
    assert db.count(TagQuery().a == "x") == 0
    assert db.get_tag_values() == {"a": ["X"]}


def test_csv_subclass_with_its_own_rows_is_asked(tmp_path: Path) -> None:
    class Marked(CSVStorage):
        """Writes the measurement with a mark and takes it off again."""

        def _serialize_point(self, point: Point, *args: Any, **kwargs: Any) -> Sequence[str]:
            row = list(super()._serialize_point(point, *args, **kwargs))
            row[1] = "!" + row[1]
            return row

        def _deserialize_measurement(self, item: Sequence[str]) -> str:
            return item[1][1:]

        def _deserialize_storage_item(self, item: Sequence[str]) -> Point:
            return super()._deserialize_storage_item([item[0], item[1][1:], *item[2:]])

    with TinyFlux(tmp_path / "a.csv", storage=Marked) as db:
        db.insert_multiple([Point(time=T, measurement=name, fields={"v": 1}) for name in "ab"])
        assert db.get_measurements() == ["a", "b"]
        assert db.update(FieldQuery().v == 1, fields={"v": 2}, _measurement="a") == 1
        assert db.search(FieldQuery().v == 2) == [Point(time=T, measurement="a", fields={"v": 2})]
    assert b",!a,_field_v,2.0" in (tmp_path / "a.csv").read_bytes()
