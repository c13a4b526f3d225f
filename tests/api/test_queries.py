"""Queries as objects: building, evaluating on a Point, combining, identity, printing."""

from __future__ import annotations

import copy
import functools
import operator
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tinyflux import (
    FieldQuery,
    MeasurementQuery,
    MemoryStorage,
    ParquetStorage,
    Point,
    TagQuery,
    TimeQuery,
    TinyFlux,
    TypedFieldQuery,
    TypedPoint,
)
from tinyflux.queries import BaseQuery, CompoundQuery, Query, SimpleQuery

T = datetime(2024, 1, 1, tzinfo=UTC)
POINT = Point(time=T, measurement="m", tags={"a": "x", "n": None}, fields={"f": 2, "n": None})
UTC_LATER = T + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (TagQuery().a == "x", True),
        (TagQuery()["a"] == "x", True),
        (TagQuery().a != "x", False),
        (TagQuery().a != "y", True),
        (TagQuery().a < "y", True),
        (TagQuery().missing == "x", False),
        (TagQuery().missing != "x", False),
        (~(TagQuery().missing == "x"), True),
        (TagQuery().n == None, True),  # noqa: E711
        (TagQuery().n != "x", True),
        (TagQuery().n < "x", False),
        (TagQuery().missing == None, False),  # noqa: E711
        (TagQuery().n.exists(), True),
        (TagQuery().missing.exists(), False),
        (TagQuery().a.b == "x", False),
        (TagQuery().a.matches("X", re.IGNORECASE), True),
        (TagQuery().a.search("y|x$"), True),
        (TagQuery().n.search("x"), False),
        (TagQuery().a.test(str.isalpha), True),
        (TagQuery().a.map(str.upper) == "X", True),
        (TagQuery().map(lambda tags: tags["a"] * 2) == "xx", True),
        (TagQuery().map(dict).a == "x", True),
        (TagQuery().missing.noop(), True),
        (TagQuery().noop(), True),
        (FieldQuery().f == 2.0, True),
        (FieldQuery().f >= 3, False),
        (FieldQuery().n > 1, False),
        (FieldQuery().n == None, True),  # noqa: E711
        (FieldQuery().f.map(lambda value: 1 / 0) == 1, False),
        (FieldQuery().f.test(lambda value, low, high: low < value < high, 1, 3), True),
        (FieldQuery().f.test(lambda value: 6) & FieldQuery().f.test(lambda value: 1), True),
        (MeasurementQuery() == "m", True),
        (MeasurementQuery().matches("[a-m]"), True),
        (TimeQuery() == T, True),
        (TimeQuery() < UTC_LATER, True),
        (TimeQuery() != None, True),  # noqa: E711
    ],
)
def test_query_answers(query: Query, expected: bool) -> None:
    assert query(POINT) is expected


def test_matches_anchors_at_the_start_only() -> None:
    point = Point(tags={"a": "abc"})
    assert TagQuery().a.matches("ab")(point)
    assert not TagQuery().a.matches("bc")(point)
    assert TagQuery().a.search("bc")(point)


def test_compiled_patterns_are_taken() -> None:
    assert TagQuery().a.search(re.compile("X", re.IGNORECASE))(POINT)


def test_time_of_a_bare_point_equals_nothing_but_none() -> None:
    assert (TimeQuery() == None)(Point())  # noqa: E711
    assert (TimeQuery() != T)(Point())
    assert not (TimeQuery() < T)(Point())


def test_naive_right_side_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    naive = datetime(2024, 1, 1)  # noqa: DTZ001
    assert (TimeQuery() == naive)(Point(time=naive.astimezone(UTC)))


def test_exception_in_test_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        FieldQuery().f.test(lambda value: 1 / 0)(POINT)


def test_bad_regex_raises_at_evaluation() -> None:
    query = TagQuery().a.search("(")
    with pytest.raises(re.error):
        query(POINT)


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: TagQuery().a == 1, TypeError),
        (lambda: MeasurementQuery() == 1, TypeError),
        (lambda: FieldQuery().a == "x", TypeError),
        (lambda: TimeQuery() < 5, TypeError),
        (lambda: TagQuery() == "x", RuntimeError),
        (lambda: FieldQuery() > 1, RuntimeError),
        (lambda: TagQuery().exists(), RuntimeError),
        (lambda: BaseQuery() == "x", RuntimeError),
        (lambda: BaseQuery().test(bool), RuntimeError),
        (lambda: BaseQuery().map(len) == 1, RuntimeError),
        (lambda: BaseQuery().a, RuntimeError),
        (lambda: TimeQuery().a, RuntimeError),
        (lambda: MeasurementQuery()["a"], RuntimeError),
        (lambda: TimeQuery().matches("a"), RuntimeError),
        (lambda: FieldQuery().a.search("a"), RuntimeError),
        (lambda: TagQuery() & TagQuery(), RuntimeError),
        (lambda: (TagQuery().a == "x") & TagQuery(), RuntimeError),
        (lambda: (TagQuery().a == "x") | TagQuery(), RuntimeError),
        (lambda: ~TagQuery(), RuntimeError),
        (lambda: TagQuery()(POINT), TypeError),  # type: ignore[operator]
        (lambda: TagQuery().a(POINT), TypeError),  # type: ignore[operator]
        (lambda: (TagQuery().a == "x") & 5, TypeError),
    ],
)
def test_mistakes_raise_when_the_query_is_built(build: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TimeQuery().x, "This query does not require a key."),
        (lambda: TagQuery() == "a", "Query has no path. Provide tag or field key to query."),
        (
            lambda: BaseQuery() == "a",
            "Query has no defined Point attribute."
            " You may be attempting to initialize a BaseQuery.",
        ),
        (lambda: FieldQuery().a.matches("b"), "Regex query not supported for FieldQuery."),
        (lambda: TagQuery() & TagQuery(), "Cannot logical-AND an empty query."),
        (lambda: TagQuery() | TagQuery(), "Cannot logical-OR an empty query."),
        (lambda: ~TagQuery(), "Cannot logical-NOT an empty query."),
    ],
)
def test_messages_are_the_promised_ones(build: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        build()


@pytest.mark.parametrize("falsy", [None, "", 0, []])
def test_falsy_right_sides_always_pass(falsy: object) -> None:
    for builder in (TagQuery().a, FieldQuery().a, MeasurementQuery(), TimeQuery()):
        assert isinstance(builder == falsy, SimpleQuery)


def test_builders_are_immutable_and_reusable() -> None:
    tag = TagQuery()
    first, second = tag.a == "x", tag.b == "y"
    assert (first.path, second.path) == (("a",), ("b",))
    assert tag._path == ()


@pytest.mark.parametrize("name", ["test", "map", "exists", "noop", "search", "_x"])
def test_item_access_reaches_every_key(name: str) -> None:
    assert (TagQuery()[name] == "v")(Point(tags={name: "v"}))


def test_builders_copy() -> None:
    for builder in (TagQuery().a, copy.copy(TagQuery().a), copy.deepcopy(TagQuery().a)):
        assert (builder == "x")(POINT)
    assert not hasattr(TagQuery(), "__array__")


def test_identity_follows_the_recorded_hash() -> None:
    a, b, c = TagQuery().a == "x", FieldQuery().f == 1, MeasurementQuery() == "m"
    assert a == (TagQuery().a == "x")
    assert b == (FieldQuery().f == 1.0)
    assert hash(a) == hash(TagQuery().a == "x")
    assert a != (TagQuery().a == "y")
    assert a & b == b & a
    assert a | b == b | a
    assert a & b != a | b
    assert (a & b) & c == c & (a & b)
    assert a & (b & c) != (a & b) & c
    assert ~~a != a
    assert a != "query"


def test_noop_never_equals_anything() -> None:
    noop = TagQuery().noop()
    assert noop != TagQuery().noop()
    assert noop != noop
    assert noop.is_hashable()


def test_regex_flags_are_part_of_the_identity() -> None:
    assert TagQuery().a.search("x") != TagQuery().a.search("x", re.IGNORECASE)
    assert TagQuery().a.search("x") == TagQuery().a.search("x")
    assert TagQuery().a.search("x") != TagQuery().a.matches("x")


def test_map_makes_a_query_unhashable() -> None:
    mapped = FieldQuery().f.map(abs) == 1
    plain = FieldQuery().f == 1
    assert not mapped.is_hashable()
    assert not (mapped & plain).is_hashable()
    assert not (~mapped).is_hashable()
    assert plain.is_hashable()
    assert not BaseQuery().is_hashable()
    hash(mapped)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (TagQuery().city == "LA", "SimpleQuery('_tags', '==', ('city',), 'LA')"),
        (FieldQuery().f <= 1.5, "SimpleQuery('_fields', '<=', ('f',), 1.5)"),
        (MeasurementQuery() != "m", "SimpleQuery('_measurement', '!=', (), 'm')"),
        (TagQuery().noop(), "SimpleQuery()"),
        (FieldQuery().f.map(abs) == 1, "SimpleQuery()"),
        (TagQuery(), "TagQuery()"),
        (FieldQuery().f, "FieldQuery()"),
        (
            (TagQuery().a == "b") & ~(TagQuery().a == "c"),
            "CompoundQuery(and_, 'SimpleQuery', 'CompoundQuery')",
        ),
        (~(TagQuery().a == "c"), "CompoundQuery(not_, 'SimpleQuery')"),
    ],
)
def test_repr(query: object, text: str) -> None:
    assert repr(query) == text


@pytest.mark.parametrize(
    ("query", "attribute"),
    [
        (TagQuery().a == "b", "_tags"),
        (FieldQuery().a == 1, "_fields"),
        (MeasurementQuery() == "m", "_measurement"),
        (TimeQuery() == T, "_time"),
    ],
)
def test_queries_can_be_taken_apart(query: SimpleQuery, attribute: str) -> None:
    assert query.point_attr == attribute
    assert query.operator == "=="
    assert query.value_test(query.rhs)


def test_compound_queries_can_be_taken_apart() -> None:
    a, b = TagQuery().a == "x", TagQuery().b == "y"
    both, inverse = a & b, ~a
    assert (both.query1, both.query2, both.operator) == (a, b, operator.and_)
    assert isinstance(inverse, CompoundQuery)
    assert (inverse.query1, inverse.query2, inverse.operator) == (a, None, operator.not_)


def test_long_chains_are_no_deep_recursion() -> None:
    any_of = functools.reduce(operator.or_, [FieldQuery().f == n for n in range(2000)])
    none_of = functools.reduce(operator.and_, [FieldQuery().f != n for n in range(2000)])
    points = [Point(time=T, fields={"f": n}) for n in (7, 1999, 2000)]
    assert [any_of(point) for point in points] == [True, True, False]
    assert [none_of(point) for point in points] == [False, False, True]
    assert len((any_of | (TagQuery().a == "x")).operands) == 2001
    for storage in (MemoryStorage, ParquetStorage):
        db = TinyFlux(storage=storage)
        db.insert_multiple(points)
        assert (db.count(any_of), db.count(none_of), db.count(~any_of)) == (2, 1, 1)


def test_operands_are_asked_left_to_right_until_one_decides() -> None:
    asked: list[str] = []

    def ask(name: str, answer: bool) -> Query:
        def test(value: str) -> bool:
            asked.append(name)
            return answer

        return TagQuery().a.test(test)

    assert (ask("1", True) & (ask("2", False) & ask("3", True)))(POINT) is False
    assert (ask("4", False) | ask("5", True) | ask("6", True))(POINT) is True
    assert asked == ["1", "2", "4", "5"]


TYPED = TypedPoint(fields={"s": "up", "t": True, "i": 1, "f": 1.5, "n": None})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (TypedFieldQuery().s == "up", True),
        (TypedFieldQuery().s != "down", True),
        (TypedFieldQuery().s != 1, False),
        (TypedFieldQuery().s == 1, False),
        (TypedFieldQuery().s > "a", False),
        (TypedFieldQuery().s <= "zz", False),
        (TypedFieldQuery().t == True, True),  # noqa: E712
        (TypedFieldQuery().t == 1, False),
        (TypedFieldQuery().t != False, True),  # noqa: E712
        (TypedFieldQuery().t != 0, False),
        (TypedFieldQuery().t >= True, False),
        (TypedFieldQuery().i == True, False),  # noqa: E712
        (TypedFieldQuery().i == 1.0, True),
        (TypedFieldQuery().f > 1, True),
        (TypedFieldQuery().n != 1, False),
        (TypedFieldQuery().missing != 1, False),
        (TypedFieldQuery().s.search("p$"), True),
        (TypedFieldQuery().s.matches("p"), False),
        (TypedFieldQuery().i.search("1"), False),
        (TypedFieldQuery().s.exists(), True),
    ],
)
def test_typed_field_query_compares_within_a_kind(query: Query, expected: bool) -> None:
    assert query(TYPED) is expected


def test_typed_field_query_has_an_identity_of_its_own() -> None:
    assert (TypedFieldQuery().a == 1) != (FieldQuery().a == 1)
    assert (TypedFieldQuery().a == 1) != (TypedFieldQuery().a == True)  # noqa: E712
    assert (TypedFieldQuery().a == 1) == (TypedFieldQuery().a == 1)
    assert repr(TypedFieldQuery().a == 1) != repr(FieldQuery().a == 1)
    assert (TypedFieldQuery().a == "x").is_hashable()
    with pytest.raises(TypeError):
        _ = TypedFieldQuery().a == [1]
