"""Point: what it takes, what it refuses, how it compares and prints."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from tinyflux import Point, TypedPoint
from tinyflux.point import validate_fields, validate_tags

T = datetime(2024, 1, 1, tzinfo=UTC)


def test_bare_point_has_no_time_and_defaults() -> None:
    point = Point()
    assert point.time is None
    assert point.measurement == "_default" == Point.default_measurement_name
    assert point.tags == {}
    assert point.fields == {}


@pytest.mark.parametrize("given", [{"measurement": "m"}, {"tags": {}}, {"fields": {}}])
def test_any_keyword_without_time_means_now_in_utc(given: dict[str, Any]) -> None:
    before = datetime.now(UTC)
    point = Point(**given)
    assert point.time is not None
    assert before <= point.time <= datetime.now(UTC)
    assert point.time.tzinfo is UTC


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        Point(T)


def test_unknown_keywords_are_named_in_sorted_order() -> None:
    with pytest.raises(TypeError, match="alpha, zulu"):
        Point(zulu=1, alpha=2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("time", None, "Time must be datetime object."),
        ("time", "2024", "Time must be datetime object."),
        ("measurement", None, "Measurement must be a string."),
        ("measurement", 1, "Measurement must be a string."),
        ("tags", None, "mapping"),
        ("tags", [("a", "b")], "mapping"),
        ("tags", {1: "b"}, "string keys"),
        ("tags", {"a": 1}, "Tag set must contain only string values or None."),
        ("tags", {"a": True}, "Tag set must contain only string values or None."),
        ("fields", None, "mapping"),
        ("fields", {1: 2}, "string keys"),
        ("fields", {"a": "1"}, "Field set must contain only numeric values or None."),
        ("fields", {"a": True}, "Field set must contain only numeric values or None."),
        ("fields", {"a": Decimal(1)}, "Field set must contain only numeric values or None."),
        ("fields", {"a": 1j}, "Field set must contain only numeric values or None."),
    ],
)
def test_bad_values_are_refused_at_construction_and_assignment(
    name: str, value: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Point(**{name: value})  # type: ignore[arg-type]
    point = Point(time=T, measurement="m", tags={"a": "b"}, fields={"a": 1})
    before = copy.deepcopy(point)
    with pytest.raises(ValueError, match=message):
        setattr(point, name, value)
    assert point == before


def test_good_values_of_every_kind_are_taken() -> None:
    point = Point(
        time=datetime(2024, 1, 1),  # noqa: DTZ001
        measurement="",
        tags=OrderedDict(a="b", c=None),
        fields={"i": 2**80, "f": float("nan"), "inf": float("inf"), "n": None},
    )
    assert point.time == datetime(2024, 1, 1)  # noqa: DTZ001
    assert point.fields["i"] == 2**80


def test_validators_return_none_or_raise() -> None:
    validate_tags({"a": None})
    validate_fields({"a": None, "b": 1.0})
    with pytest.raises(ValueError, match="string values"):
        validate_tags({"a": 1})
    with pytest.raises(ValueError, match="numeric"):
        validate_fields({"a": "b"})


def test_mappings_are_kept_by_reference() -> None:
    tags: dict[str, str | None] = {"a": "b"}
    fields: dict[str, int | float | None] = {"x": 1}
    point = Point(tags=tags, fields=fields)
    tags["c"] = "d"
    fields["y"] = 2
    assert point.tags == {"a": "b", "c": "d"}
    assert point.fields == {"x": 1, "y": 2}


def test_other_attributes_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        Point().color = "red"  # type: ignore[attr-defined]


def test_equality_is_of_all_four_attributes() -> None:
    point = Point(time=T, measurement="m", tags={"a": "b"}, fields={"x": 1})
    elsewhere = T.astimezone(timezone(timedelta(hours=5)))
    assert point == Point(time=elsewhere, measurement="m", tags={"a": "b"}, fields={"x": 1.0})
    assert point != Point(time=T, measurement="n", tags={"a": "b"}, fields={"x": 1})
    assert point != Point(time=T, measurement="m", tags={"a": None}, fields={"x": 1})
    assert point != Point(time=T, measurement="m", tags={"a": "b"}, fields={"x": 2})
    assert point != "point"


def test_subclass_compares_with_its_own_kind_only() -> None:
    class Sub(Point):
        __slots__ = ()

    sub, base = Sub(time=T), Point(time=T)
    assert not sub.__eq__(base)
    assert base.__eq__(sub)


def test_points_have_no_hash() -> None:
    with pytest.raises(TypeError):
        hash(Point())


def test_repr_shows_what_is_there_in_order() -> None:
    assert repr(Point()) == "Point(time=None, measurement=_default)"
    point = Point(time=T, measurement="m", tags={"b": "1", "a": None}, fields={"y": 1, "x": None})
    assert repr(point) == (
        "Point(time=2024-01-01T00:00:00+00:00, measurement=m, tags=b:1; a:None, fields=y:1; x:None)"
    )


def test_points_pickle_and_copy() -> None:
    point = Point(time=T, measurement="m", tags={"a": "b"}, fields={"x": 1})
    assert pickle.loads(pickle.dumps(point)) == point  # noqa: S301
    clone = copy.deepcopy(point)
    assert clone == point
    clone.tags["a"] = "c"
    assert point.tags == {"a": "b"}


def test_typed_point_takes_text_and_booleans() -> None:
    point = TypedPoint(time=T, fields={"s": "text", "b": True, "n": 1, "none": None})
    assert point.fields == {"s": "text", "b": True, "n": 1, "none": None}
    assert isinstance(point, Point)
    with pytest.raises(ValueError, match="numbers, text, booleans"):
        TypedPoint(fields={"s": b"bytes"})


@pytest.mark.parametrize("compact", [False, True])
def test_row_form_goes_there_and_back(compact: bool) -> None:
    point = Point(
        time=datetime(2024, 1, 1, 0, 0, 0, 1, UTC),
        measurement="m",
        tags={"a": "b", "n": None, "e": ""},
        fields={"x": 1, "y": 1.5, "n": None, "big": 2**63 - 1},
    )
    row = point._serialize_to_list(compact)
    assert isinstance(row, tuple)
    assert Point()._deserialize_from_list(row) == point


def test_row_form_is_the_format_of_tinyflux() -> None:
    point = Point(time=T, measurement="m", tags={"a": None}, fields={"x": 1, "y": None})
    assert point._serialize_to_list() == (
        *("2024-01-01T00:00:00", "m", "_tag_a", "_none"),
        *("_field_x", "1.0", "_field_y", "_none"),
    )
    assert point._serialize_to_list(compact_key_prefixes=True) == (
        *("2024-01-01T00:00:00", "m", "t_a", "_none"),
        *("f_x", "1.0", "f_y", "_none"),
    )
