"""update, remove, drop: what they change, what they return, what they refuse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tinyflux import FieldQuery, MeasurementQuery, Point, TagQuery, TimeQuery, TypedPoint

if TYPE_CHECKING:
    from tinyflux import TinyFlux

T = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
EVERYTHING = TagQuery().noop()


@pytest.fixture
def filled(db: TinyFlux) -> TinyFlux:
    """Three points."""
    db.insert_multiple(
        [
            Point(time=T, measurement="a", tags={"k": "x"}, fields={"v": 1, "w": 2.0}),
            Point(time=T + SECOND, measurement="a", tags={"k": "y"}, fields={"v": 2}),
            Point(time=T + 2 * SECOND, measurement="b", tags={}, fields={}),
        ]
    )
    return db


def everything(db: TinyFlux) -> list[Point]:
    return sorted(db.all(), key=lambda point: (str(point.time), point.measurement))


def test_update_merges_and_counts_what_really_changed(filled: TinyFlux) -> None:
    assert filled.update(TagQuery().k == "x", tags={"new": "1"}, fields={"w": 2}) == 1
    point = filled.get(TagQuery().new == "1")
    assert point is not None
    assert point.tags == {"k": "x", "new": "1"}
    assert point.fields == {"v": 1, "w": 2}
    assert filled.update(TagQuery().k == "x", fields={"v": 1.0}) == 0
    assert filled.update(TagQuery().k == "nobody", fields={"v": 1.0}) == 0


def test_update_of_every_part(filled: TinyFlux) -> None:
    assert (
        filled.update(
            MeasurementQuery() == "b",
            time=T - SECOND,
            measurement="c",
            tags={"t": None},
            fields={"f": None},
        )
        == 1
    )
    expected = Point(time=T - SECOND, measurement="c", tags={"t": None}, fields={"f": None})
    assert filled.all()[0] == expected
    assert filled.get_measurements() == ["a", "c"]
    assert filled.index.valid


def test_callables_get_the_old_value(filled: TinyFlux) -> None:
    count = filled.update_all(
        time=lambda time: time + SECOND,
        measurement=str.upper,
        tags=lambda tags: {"n": str(len(tags))},
        fields=lambda fields: {"v": fields.get("v", 0) * 10},
    )
    assert count == 3
    assert everything(filled)[0] == Point(
        time=T + SECOND, measurement="A", tags={"k": "x", "n": "1"}, fields={"v": 10, "w": 2}
    )


def test_callables_cannot_remove_keys(filled: TinyFlux) -> None:
    def pop(tags: dict[str, Any]) -> dict[str, Any]:
        tags.pop("k", None)
        return tags

    assert filled.update_all(tags=pop) == 0
    assert filled.get_tag_keys() == ["k"]


@pytest.mark.parametrize("keys", ["v", ["v"], ("v", "nope"), {"v": 1}])
def test_unset_takes_a_key_or_any_iterable_of_keys(filled: TinyFlux, keys: Any) -> None:
    assert filled.update_all(unset_fields=keys) == 2
    assert filled.get_field_keys() == ["w"]


def test_unset_takes_a_generator(filled: TinyFlux) -> None:
    assert filled.update_all(unset_fields=(key for key in ["v"])) == 2
    assert filled.get_field_keys() == ["w"]


def test_unset_comes_after_the_merge(filled: TinyFlux) -> None:
    filled.update_all(tags={"k": "z", "l": "m"}, unset_tags=["k"])
    assert filled.get_tag_keys() == ["l"]


def test_measurement_argument_narrows(filled: TinyFlux) -> None:
    assert filled.update(EVERYTHING, tags={"q": "1"}, _measurement="a") == 2
    assert filled.update(EVERYTHING, measurement="b", _measurement="a") == 2
    assert filled.get_measurements() == ["b"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"time": None, "tags": {}, "fields": {}, "measurement": "", "unset_tags": []},
        {"time": 5},
        {"measurement": 5},
        {"tags": "x"},
        {"tags": {"a": 1}},
        {"fields": {"a": "b"}},
        {"fields": {"a": True}},
        {"unset_tags": 5},
        {"unset_fields": ["a", 1]},
    ],
)
def test_update_refuses_bad_arguments_up_front(filled: TinyFlux, given: dict[str, Any]) -> None:
    before = everything(filled)
    with pytest.raises(ValueError, match=r"."):
        filled.update(EVERYTHING, **given)
    with pytest.raises(ValueError, match=r"."):
        filled.update_all(**given)
    assert everything(filled) == before


def test_update_refuses_what_is_no_query(filled: TinyFlux) -> None:
    for wrong in ("query", 5, TagQuery()):
        with pytest.raises(ValueError, match=r"Argument 'query' must be a TinyFlux Query\."):
            filled.update(wrong, tags={"a": "b"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"time": lambda old: 5}, "Time must update to a datetime object."),
        ({"time": lambda old: None}, "Time must update to a datetime object."),
        ({"measurement": lambda old: 5}, "Measurement must update to a string."),
        ({"measurement": lambda old: None}, "Measurement must update to a string."),
        ({"tags": lambda old: 5}, "Tags must update to a valid TagSet."),
        ({"tags": lambda old: {"a": 5}}, "Tags must update to a valid TagSet."),
        ({"tags": lambda old: {5: "a"}}, "Tags must update to a valid TagSet."),
        ({"fields": lambda old: 5}, "Fields must update to a valid FieldSet."),
        ({"fields": lambda old: {"a": "b"}}, "Fields must update to a valid FieldSet."),
        ({"fields": lambda old: {"a": True}}, "Fields must update to a valid FieldSet."),
    ],
)
def test_wrong_results_of_callables_are_refused(
    filled: TinyFlux, given: dict[str, Any], message: str
) -> None:
    before = everything(filled)
    with pytest.raises(ValueError, match=message):
        filled.update_all(**given)
    assert everything(filled) == before


def test_exception_in_a_callable_changes_nothing(filled: TinyFlux) -> None:
    before = everything(filled)
    calls = 0

    def fail_late(fields: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyError("late")
        return {"v": 99}

    with pytest.raises(KeyError):
        filled.update_all(fields=fail_late)
    assert everything(filled) == before
    assert filled.count(FieldQuery().v == 99) == 0
    assert filled.index.valid


def test_text_that_is_there_already_survives_an_update(db: TinyFlux) -> None:
    db.insert(TypedPoint(time=T, fields={"s": "up", "n": 1}))
    assert db.update_all(fields=lambda fields: {**fields, "n": fields["n"] + 1}) == 1
    assert db.all()[0].fields == {"s": "up", "n": 2}


def test_remove_returns_the_count(filled: TinyFlux) -> None:
    assert filled.remove(FieldQuery().v == 1) == 1
    assert filled.remove(FieldQuery().v == 1) == 0
    assert filled.remove(EVERYTHING, measurement="b") == 1
    assert len(filled) == 1
    assert filled.index.valid
    assert filled.remove(EVERYTHING) == 1
    assert filled.all() == []


def test_drop_measurement_counts_and_forgets(filled: TinyFlux) -> None:
    a = filled.measurement("a")
    assert filled.drop_measurement("nobody") == 0
    assert filled.drop_measurement("a") == 2
    assert filled.get_measurements() == ["b"]
    assert filled.measurement("a") is not a
    assert filled.drop_measurement("") == 0
    assert len(filled) == 1


def test_remove_all_returns_none_and_forgets(filled: TinyFlux) -> None:
    a = filled.measurement("a")
    assert filled.remove_all() is None
    assert len(filled) == 0
    assert filled.measurement("a") is not a
    filled.insert(Point(time=T))
    assert filled.count(TimeQuery() == T) == 1


# Measurement objects


def test_measurement_objects_are_cached_by_name(db: TinyFlux) -> None:
    m = db.measurement("m")
    assert db.measurement("m") is m
    assert db.measurement("n") is not m
    assert (m.name, m.storage, m.index) == ("m", db.storage, db.index)
    assert m._name == "m"
    assert db._measurements == {"m": m, "n": db.measurement("n")}
    assert len(db) == 0
    with pytest.raises(TypeError):
        db.measurement("o", color="red")


def test_measurement_methods_stay_within_the_name(filled: TinyFlux) -> None:
    a = filled.measurement("a")
    point = Point(time=T + 5 * SECOND, measurement="other", fields={"v": 7})
    assert a.insert(point) == 1
    assert point.measurement == "a"
    assert a.insert_multiple([Point(time=T + 6 * SECOND)], batch_size=1) == 1
    assert len(a) == 4
    assert len(a.all()) == len(a.all(sorted=False)) == 4
    assert a.count(EVERYTHING) == 4
    assert a.contains(FieldQuery().v == 7)
    assert a.get(FieldQuery().v == 7) == point
    assert [p.fields.get("v") for p in a.search(FieldQuery().v > 0)] == [1, 2, 7]
    assert a.select("fields.v", FieldQuery().v == 7) == [7]
    assert a.get_tag_keys() == ["k"]
    assert a.get_tag_values() == a.get_tag_values(["k"]) == {"k": ["x", "y"]}
    assert a.get_field_keys() == ["v", "w"]
    assert sorted(a.get_field_values("v")) == [1, 2, 7]
    assert sorted(a.get_timestamps()) == [T + n * SECOND for n in (0, 1, 5, 6)]
    assert a.update(FieldQuery().v == 7, fields={"v": 8}) == 1
    assert a.remove(FieldQuery().v == 8) == 1
    assert a.update_all(tags={"z": "1"}) == 3
    assert filled.get(TagQuery().z == "1", "b") is None
    assert a.update_all(measurement="c") == 3
    assert (len(a), a.name, len(filled.measurement("c"))) == (0, "a", 3)
    assert filled.measurement("c").remove_all() == 3
    assert len(filled) == 1


def test_measurement_repr(db: TinyFlux) -> None:
    m = db.measurement("a")
    m.insert(Point(time=T))
    assert repr(m).startswith("<Measurement name=a, total=1, storage=<tinyflux.")
    assert "Storage object at 0x" in repr(m)
    if db.storage.__class__.__name__ != "ParquetStorage":
        m.insert(Point(time=T - SECOND))
        assert repr(m).startswith("<Measurement name=a, storage=<tinyflux.storages.")
