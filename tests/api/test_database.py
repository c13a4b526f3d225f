"""The database: opening, inserting, reading, and when its index is valid."""

from __future__ import annotations

import types
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

import tinyflux.database
from tinyflux import (
    CSVStorage,
    FieldQuery,
    MeasurementQuery,
    MemoryStorage,
    Point,
    TagQuery,
    TimeQuery,
    TinyFlux,
    TypedPoint,
)
from tinyflux.queries import BaseQuery

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

T = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def at(seconds: int, **given: Any) -> Point:
    return Point(time=T + seconds * SECOND, **given)


# Opening


def test_storage_must_be_a_class() -> None:
    with pytest.raises(TypeError):
        TinyFlux(storage=MemoryStorage())


def test_wrong_storage_arguments_give_the_type_error_of_the_class() -> None:
    with pytest.raises(TypeError):
        TinyFlux()
    with pytest.raises(TypeError):
        TinyFlux("x.csv", storage=MemoryStorage)


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_auto_index_must_be_a_bool(value: Any) -> None:
    with pytest.raises(TypeError, match=r"'auto_index' must be True/False\."):
        TinyFlux(auto_index=value, storage=MemoryStorage)


def test_class_attributes_are_the_defaults() -> None:
    assert TinyFlux.default_measurement_name == "_default"
    assert TinyFlux.default_storage_class is CSVStorage


def test_context_manager_returns_the_database_and_closes_it(tmp_path: Path) -> None:
    db = TinyFlux(tmp_path / "a.csv")
    with db as entered:
        assert entered is db
    db.close()
    with pytest.raises(ValueError, match="closed"):
        db.insert(Point())
    with pytest.raises(ValueError, match="closed"):
        db.all()


def test_closed_memory_database_still_works() -> None:
    db = TinyFlux(storage=MemoryStorage)
    db.close()
    assert db.insert(Point()) == 1


def test_empty_storage_opens_with_a_valid_empty_index(db: TinyFlux) -> None:
    assert db.index.valid
    assert db.index.empty
    assert len(db) == 0
    assert not db


def test_reopening_builds_the_index_unless_told_not_to(tmp_path: Path) -> None:
    with TinyFlux(tmp_path / "a.csv") as db:
        db.insert_multiple([at(0), at(1)])
    with TinyFlux(tmp_path / "a.csv") as db:
        assert (db.index.valid, db.index.empty, len(db)) == (True, False, 2)
    with TinyFlux(tmp_path / "a.csv", auto_index=False) as db:
        assert (db.index.valid, db.index.empty, len(db)) == (False, True, 2)
        assert db.count(TagQuery().noop()) == 2
        assert not db.index.valid


def test_repr_tells_the_state(tmp_path: Path) -> None:
    db = TinyFlux(storage=MemoryStorage)
    db.insert(at(1))
    assert repr(db) == "<TinyFlux all_points_count=1, auto_index_ON=True, index_valid=True>"
    db.insert(at(0))
    assert repr(db) == "<TinyFlux auto_index_ON=True, index_valid=False>"
    db = TinyFlux(storage=MemoryStorage, auto_index=False)
    assert repr(db) == "<TinyFlux auto_index_ON=False, index_valid=True>"


def test_decorators_are_importable() -> None:
    for name in ("append_op", "read_op", "write_op", "temp_storage_op"):
        assert callable(getattr(tinyflux.database, name))


# Time


def test_insert_turns_times_to_utc_in_the_callers_point(db: TinyFlux) -> None:
    east = timezone(timedelta(hours=5))
    aware, naive = Point(time=T.astimezone(east)), Point(time=datetime(2024, 6, 1))  # noqa: DTZ001
    db.insert_multiple([aware, naive])
    assert aware.time == T
    assert aware.time is not None
    assert aware.time.tzinfo is UTC
    assert naive.time == datetime(2024, 6, 1).astimezone(UTC)
    assert all(time.tzinfo is UTC for time in db.get_timestamps())


def test_points_without_time_of_one_call_share_their_time(db: TinyFlux) -> None:
    before = datetime.now(UTC)
    points = [Point(), Point()]
    db.insert_multiple(iter(points), batch_size=1)
    assert points[0].time == points[1].time
    assert points[0].time is not None
    assert before <= points[0].time <= datetime.now(UTC)


@pytest.mark.parametrize("year", [1, 1677, 1969, 2263, 9999])
def test_microseconds_are_exact_in_all_years(ordered_db: TinyFlux, year: int) -> None:
    time = datetime(year, 3, 4, 5, 6, 7, 123457, UTC)
    ordered_db.insert(Point(time=time))
    assert ordered_db.get_timestamps() == [time]
    assert ordered_db.count(TimeQuery() == time) == 1
    assert ordered_db.count(TimeQuery() > time - timedelta(microseconds=1)) == 1
    assert ordered_db.count(TimeQuery() < time) == 0


def test_update_of_time_converts_like_insert(db: TinyFlux) -> None:
    db.insert(at(0))
    db.update_all(time=T.astimezone(timezone(timedelta(hours=-7))) + SECOND)
    assert db.get_timestamps() == [T + SECOND]
    db.update_all(time=lambda time: datetime(2024, 7, 1))  # noqa: DTZ001
    assert db.get_timestamps() == [datetime(2024, 7, 1).astimezone(UTC)]


# Inserting


def test_insert_takes_points_only(db: TinyFlux) -> None:
    wrong: Any
    for wrong in ({}, None, "point", Point):
        with pytest.raises(TypeError, match=r"Data must be a Point instance\."):
            db.insert(wrong)
    assert len(db) == 0


def test_insert_counts(db: TinyFlux) -> None:
    assert db.insert(at(0)) == 1
    assert db.insert_multiple(at(i) for i in range(2500)) == 2500
    assert db.insert_multiple([]) == 0
    assert len(db) == 2501


def test_duplicates_are_kept(db: TinyFlux) -> None:
    point = at(0, tags={"a": "b"}, fields={"x": 1})
    db.insert(point)
    db.insert_multiple([point, at(0, tags={"a": "b"}, fields={"x": 1})])
    assert len(db) == 3
    assert db.count(FieldQuery().x == 1) == 3


def test_batch_size_is_checked_before_anything_else(db: TinyFlux) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        db.insert_multiple(5, batch_size=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        db.insert_multiple(5)  # type: ignore[arg-type]


def test_generators_are_read_batch_by_batch(db: TinyFlux) -> None:
    sizes = []

    def source() -> Iterator[Point]:
        for i in range(5):
            sizes.append(len(db))
            yield at(i)

    assert db.insert_multiple(source(), batch_size=2) == 5
    assert sizes == [0, 0, 2, 2, 4]


def test_bad_item_drops_its_batch_and_keeps_the_batches_before(db: TinyFlux) -> None:
    with pytest.raises(TypeError):
        db.insert_multiple([at(0), at(1), at(2), "bad", at(4)], batch_size=2)
    assert db.get_timestamps() == [T, T + SECOND]
    assert db.count(TimeQuery() >= T) == 2


def test_measurement_argument_overwrites_the_points(db: TinyFlux) -> None:
    point = at(0, measurement="old")
    db.insert(point, measurement="new")
    assert point.measurement == "new"
    kept = at(1, measurement="old")
    db.insert(kept, measurement="")
    db.insert_multiple([at(2, measurement="old")], measurement=None)
    assert db.get_measurements() == ["new", "old"]
    with pytest.raises(ValueError, match="Measurement must be a string"):
        db.insert(at(3), measurement=5)  # type: ignore[arg-type]


def test_memory_storage_keeps_the_very_point() -> None:
    db = TinyFlux(storage=MemoryStorage)
    point = at(0, fields={"x": 1})
    db.insert(point)
    db.update_all(fields={"x": 2})
    assert point.fields == {"x": 2}
    assert db.all()[0] is point


def test_typed_points_keep_their_values(db: TinyFlux) -> None:
    db.insert(TypedPoint(time=T, fields={"s": "up", "b": True, "n": 1.5}))
    assert db.all()[0].fields == {"s": "up", "b": True, "n": 1.5}
    assert db.get_field_values("b") == [True]
    assert db.count(FieldQuery().s.test(lambda value: value == "up")) == 1


# Index validity


def test_late_point_makes_the_index_invalid_until_the_next_read() -> None:
    db = TinyFlux(storage=MemoryStorage)
    db.insert_multiple([at(0), at(5), at(5)])
    assert db.index.valid
    assert len(db.index) == 3
    db.insert(at(4))
    assert not db.index.valid
    assert db.index.empty
    assert len(db.index) == 0
    assert len(db) == 4
    list(db)
    repr(db)
    assert not db.index.valid
    assert db.count(TimeQuery() == T + 4 * SECOND) == 1
    assert db.index.valid
    assert len(db.index) == 4


def test_late_point_within_a_batch_counts() -> None:
    db = TinyFlux(storage=MemoryStorage)
    db.insert_multiple([at(3), at(2)])
    assert not db.index.valid


def test_latest_time_counts_after_a_rebuild() -> None:
    db = TinyFlux(storage=MemoryStorage)
    db.insert_multiple([at(9), at(1)])
    db.all()
    db.insert(at(5))
    assert not db.index.valid
    db.all()
    db.insert(at(9))
    assert db.index.valid


@pytest.mark.parametrize(
    "read",
    [
        lambda db: db.all(),
        lambda db: db.contains(TagQuery().noop()),
        lambda db: db.count(TagQuery().noop()),
        lambda db: db.get(TagQuery().noop()),
        lambda db: db.search(TagQuery().noop()),
        lambda db: db.select("time", TagQuery().noop()),
        lambda db: db.get_measurements(),
        lambda db: db.get_tag_keys(),
        lambda db: db.get_tag_values(),
        lambda db: db.get_field_keys(),
        lambda db: db.get_field_values("x"),
        lambda db: db.get_timestamps(),
        lambda db: db.remove(TagQuery().x == "nobody"),
        lambda db: db.update(TagQuery().x == "nobody", tags={"a": "b"}),
        lambda db: db.update_all(tags={"a": "b"}),
        lambda db: db.drop_measurement("nobody"),
    ],
)
def test_every_read_op_makes_the_index_valid(read: Any) -> None:
    db = TinyFlux(storage=MemoryStorage)
    db.insert_multiple([at(1), at(0)])
    assert not db.index.valid
    read(db)
    assert db.index.valid


def test_measurement_all_iter_and_len_are_no_read_ops() -> None:
    db = TinyFlux(storage=MemoryStorage)
    db.insert_multiple([at(1), at(0)])
    m = db.measurement("_default")
    assert (len(m.all()), len(list(m)), len(m)) == (2, 2, 2)
    assert not db.index.valid


def test_without_auto_index_only_reindex_makes_it_valid(
    capsys: pytest.CaptureFixture[str],
) -> None:
    db = TinyFlux(storage=MemoryStorage, auto_index=False)
    assert db.index.valid
    db.insert(at(0))
    assert not db.index.valid
    assert db.count(TimeQuery() >= T) == 1
    assert not db.index.valid
    assert db.reindex() is None
    assert capsys.readouterr().out == ""
    assert db.index.valid
    db.reindex()
    assert capsys.readouterr().out == "Index already valid.\n"
    db.update_all(tags={"a": "b"})
    assert not db.index.valid
    db.reindex()
    db.remove(TagQuery().a == "b")
    assert not db.index.valid


def test_index_is_right_after_remove_all_and_new_inserts(db: TinyFlux) -> None:
    db.insert_multiple([at(0, tags={"a": "x"}), at(1, tags={"a": "x"})])
    db.remove_all()
    assert db.index.valid
    db.insert_multiple([at(0, tags={"a": "x"}), at(1, tags={"a": "y"})])
    assert db.count(TagQuery().a == "x") == 1
    assert db.count(TimeQuery() >= T) == 2


# Reading


@pytest.fixture
def filled(db: TinyFlux) -> TinyFlux:
    """Three points; the first inserted is the latest."""
    db.insert_multiple(
        [
            at(2, measurement="a", tags={"city": "LA", "none": None}, fields={"t": 70, "h": 1.5}),
            at(0, measurement="b", tags={"city": "SF"}, fields={"t": 60}),
            at(1, measurement="a", tags={"city": "NY"}, fields={"t": None}),
        ]
    )
    return db


def seconds(points: list[Point]) -> list[int]:
    return [int((point.time - T) / SECOND) for point in points if point.time]


def test_all_is_sorted_by_time_when_asked(filled: TinyFlux) -> None:
    assert seconds(filled.all()) == [0, 1, 2]
    assert sorted(seconds(filled.all(sorted=False))) == [0, 1, 2]


def test_insertion_order_is_kept_where_promised(ordered_db: TinyFlux) -> None:
    points = [at(n, tags={"n": str(i)}) for i, n in enumerate([2, 0, 2, 1, 0])]
    ordered_db.insert_multiple(points)
    everything = TagQuery().noop()
    assert seconds(ordered_db.all(sorted=False)) == [2, 0, 2, 1, 0]
    assert seconds(ordered_db.search(everything, sorted=False)) == [2, 0, 2, 1, 0]
    assert [p.tags["n"] for p in ordered_db.search(everything)] == ["1", "4", "3", "0", "2"]
    assert ordered_db.select("tags.n", everything) == ["0", "1", "2", "3", "4"]
    assert ordered_db.get(TimeQuery() >= T) == points[0]
    assert ordered_db.get_timestamps() == [T + n * SECOND for n in (2, 0, 2, 1, 0)]


def test_search_get_count_contains(filled: TinyFlux) -> None:
    warm = FieldQuery().t > 65
    assert [point.tags["city"] for point in filled.search(warm)] == ["LA"]
    found = filled.get(warm)
    assert found is not None
    assert found.fields == {"t": 70, "h": 1.5}
    assert filled.get(FieldQuery().t > 100) is None
    assert filled.count(warm) == 1
    assert filled.contains(warm) is True
    assert filled.contains(warm, measurement="b") is False
    assert filled.count(TagQuery().noop(), "a") == 2
    assert filled.search(warm, "nobody") == []


@pytest.mark.parametrize("wrong", [None, "query", TagQuery(), BaseQuery(), 5])
def test_a_query_must_be_a_query(filled: TinyFlux, wrong: Any) -> None:
    with pytest.raises(ValueError, match="Query must be"):
        filled.search(wrong)
    for method in (filled.get, filled.count, filled.contains, filled.remove):
        with pytest.raises(TypeError, match=r"Query must be SimpleQuery or CompoundQuery\."):
            method(wrong)
    with pytest.raises(TypeError):
        filled.select("time", wrong)
    assert len(filled) == 3


def test_select_one_key_gives_values_and_several_give_tuples(filled: TinyFlux) -> None:
    city = TagQuery().city == "LA"
    assert filled.select("fields.t", city) == [70]
    assert filled.select(["fields.t"], city) == [70]
    assert filled.select(("time", "measurement", "tags.city", "fields.h"), city) == [
        (T + 2 * SECOND, "a", "LA", 1.5)
    ]
    assert filled.select(iter(["tags.nope", "fields.nope"]), city) == [(None, None)]
    assert filled.select([], city) == [()]
    assert filled.select("tags.none", city) == [None]


def test_select_keys_may_contain_dots(db: TinyFlux) -> None:
    db.insert(at(0, tags={"a.b": "x"}, fields={"c.d.": 1}))
    assert db.select(["tags.a.b", "fields.c.d."], TagQuery().noop()) == [("x", 1)]


@pytest.mark.parametrize(
    "keys", ["city", "tags", "fields", "tags.", "fields.", "", 5, None, [1], ["time", None]]
)
def test_select_refuses_other_keys(filled: TinyFlux, keys: Any) -> None:
    with pytest.raises(ValueError, match=r"[Ss]elect key"):
        filled.select(keys, TagQuery().noop())


def test_descriptions(filled: TinyFlux) -> None:
    assert filled.get_measurements() == ["a", "b"]
    assert filled.get_tag_keys() == ["city", "none"]
    assert filled.get_tag_keys("b") == ["city"]
    assert filled.get_field_keys() == ["h", "t"]
    assert filled.get_field_keys("b") == ["t"]
    assert filled.get_tag_values() == {"city": ["LA", "NY", "SF"], "none": [None]}
    assert filled.get_tag_values(["city", "nope"]) == {"city": ["LA", "NY", "SF"], "nope": []}
    assert filled.get_tag_values([], "b") == {"city": ["SF"]}
    assert sorted(filled.get_field_values("t", "a"), key=str) == [70, None]
    assert filled.get_field_values("nope") == []
    assert filled.get_timestamps("b") == [T]
    assert filled.get_tag_keys("nobody") == filled.get_field_keys("nobody") == []
    assert filled.get_timestamps("nobody") == []


def test_none_comes_last_among_tag_values(db: TinyFlux) -> None:
    db.insert_multiple([at(i, tags={"a": v}) for i, v in enumerate([None, "b", "", "a"])])
    assert db.get_tag_values() == {"a": ["", "a", "b", None]}


def test_field_values_keep_zero_and_none(ordered_db: TinyFlux) -> None:
    ordered_db.insert_multiple([at(i, fields={"x": v}) for i, v in enumerate([0.0, None, 0, 1])])
    assert ordered_db.get_field_values("x") == [0.0, None, 0, 1]


# Iterating


def test_iteration_is_a_generator_of_points(db: TinyFlux) -> None:
    db.insert_multiple([at(0), at(1)])
    assert isinstance(iter(db), types.GeneratorType)
    assert seconds(list(db)) == [0, 1]
    assert len(list(db.measurement("_default"))) == 2
    assert isinstance(iter(db.measurement("_default")), types.GeneratorType)


def test_iteration_does_not_see_later_writes(db: TinyFlux) -> None:
    db.insert_multiple([at(i) for i in range(5)])
    iterator = iter(db)
    seen = [next(iterator)]
    db.insert(at(9))
    assert db.count(TimeQuery() >= T) == 6
    db.remove(TimeQuery() == T + 2 * SECOND)
    db.remove_all()
    seen += iterator
    assert seconds(seen) == [0, 1, 2, 3, 4]


# Answers never depend on the index


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (~(FieldQuery().temp > 70), 3),
        (~~(FieldQuery().temp > 70), 1),
        (FieldQuery().temp.map(lambda value: value * 2) > 140, 1),
        (TimeQuery().map(lambda time: time + SECOND) == T + SECOND, 1),
        (TagQuery().map(lambda tags: str(len(tags))) == "1", 2),
        (TagQuery().noop(), 4),
        (FieldQuery().noop(), 4),
        (TimeQuery() == None, 0),  # noqa: E711
        (TimeQuery() != None, 4),  # noqa: E711
        (FieldQuery().temp != 80, 2),
        (~(FieldQuery().temp == 80), 3),
    ],
)
def test_answers_do_not_depend_on_the_index(db: TinyFlux, query: Any, expected: int) -> None:
    db.insert_multiple(
        [
            at(0, tags={"a": "x"}, fields={"temp": 80}),
            at(1, tags={"a": "y"}, fields={"temp": 60}),
            at(2, fields={"temp": 70.0}),
            at(3),
        ]
    )
    assert db.count(query) == len(db.search(query)) == expected
    assert db.contains(query) is bool(expected)
    assert db.remove(query) == expected
    assert len(db) == 4 - expected


def test_counts_are_right_after_remove(db: TinyFlux) -> None:
    db.insert_multiple([at(i, fields={"x": i}) for i in range(5)])
    db.remove(FieldQuery().x < 2)
    assert db.count(TimeQuery() >= T) == 3
    assert db.get_timestamps() == [T + i * SECOND for i in (2, 3, 4)]
    assert db.count((TimeQuery() > T + 2 * SECOND) & (MeasurementQuery() == "_default")) == 2


def test_numbers_beyond_a_float_compare_exactly(ordered_db: TinyFlux) -> None:
    big = 2**63 - 1
    ordered_db.insert_multiple([at(0, fields={"x": big}), at(1, fields={"x": big - 1})])
    assert ordered_db.count(FieldQuery().x == big) == 1
    assert ordered_db.count(FieldQuery().x < big) == 1
    assert ordered_db.get_field_values("x") == [big, big - 1]
