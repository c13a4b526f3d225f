"""A query on columns answers what the query answers on each Point."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from tinyflux.batch import BatchBuilder, series_key
from tinyflux.columnar.base import ScanRequest
from tinyflux.columnar.evaluate import compare_numbers, prepare
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.columnar.points import to_points
from tinyflux.membership import OneOf, OneTime, TimeSpan
from tinyflux.point import make_point
from tinyflux.queries import (
    COMPARISONS,
    FieldQuery,
    MeasurementQuery,
    Query,
    TagQuery,
    TimeQuery,
    TypedFieldQuery,
)
from tinyflux.times import datetime_from_us

if TYPE_CHECKING:
    from tinyflux.point import Point

BIG = 2**53
INTEGERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**63 - 1, -(2**63), BIG, BIG + 1, -BIG - 1]),
)
FLOATS = st.one_of(
    st.sampled_from([0.5, -0.0, 1.0, math.inf, -math.inf, math.nan, 2.0**53, 2.0**63, -(2.0**63)]),
    st.floats(),
)
NUMBERS = st.one_of(INTEGERS, FLOATS, st.integers(-(10**400), 10**400), st.booleans())
TEXTS = st.sampled_from(["", "a", "ab", "b"])
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "f": st.one_of(FLOATS, st.none()),
    "i": st.one_of(INTEGERS, st.none()),
    "s": st.one_of(TEXTS, st.none()),
    "b": st.one_of(st.booleans(), st.none()),
    "n": st.none(),
}
KEYS = [*COLUMNS, "absent"]
TAG_KEYS = ["host", "dc", "absent"]


def compare(builder: Any, op: str, rhs: Any) -> Query:
    query: Query = COMPARISONS[op](builder, rhs)
    return query


CHOICES = st.builds(
    OneOf.of, st.lists(st.one_of(NUMBERS, TEXTS), max_size=4), is_negated=st.booleans()
)
OPERATORS = st.sampled_from(sorted(COMPARISONS))
SOME_TIMES = st.integers(-3, 3).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)


def is_truthy(value: Any) -> bool:
    return bool(value)


def size(value: Any) -> int:
    return len(value)


def joined(value: Any) -> str:
    return ",".join(sorted(value))


def double(value: Any) -> Any:
    return value * 2


@st.composite
def field_leaf(draw: st.DrawFn) -> Query:
    builder: Any = draw(st.sampled_from([FieldQuery, TypedFieldQuery]))()
    if draw(st.integers(0, 9)) == 0:
        return compare(builder.map(size), draw(OPERATORS), draw(st.integers(0, 3)))
    builder = builder[draw(st.sampled_from(KEYS))]
    kind = draw(st.integers(0, 8))
    if kind == 8:
        query: Query = builder.test(draw(CHOICES))
    elif kind == 0:
        query = builder.exists()
    elif kind == 1:
        query = builder.test(is_truthy)
    elif kind == 2:
        query = compare(builder.map(double), draw(OPERATORS), draw(st.integers(-4, 4)))
    elif kind == 3:
        query = builder["deeper"] == 1
    elif kind == 4:
        query = builder.noop()
    elif isinstance(builder, TypedFieldQuery):
        if kind == 5:
            patterns: list[Any] = ["a", re.compile("b$"), "^$"]
            pattern = draw(st.sampled_from(patterns))
            query = draw(st.sampled_from([builder.search, builder.matches]))(pattern)
        else:
            rhs = draw(st.one_of(NUMBERS, TEXTS, st.none()))
            query = compare(builder, draw(OPERATORS), rhs)
    else:
        query = compare(builder, draw(OPERATORS), draw(st.one_of(NUMBERS, st.none(), st.just(""))))
    return query


@st.composite
def tag_leaf(draw: st.DrawFn) -> Query:
    if draw(st.integers(0, 4)) == 0:
        name = draw(st.sampled_from(["cpu", "mem"]))
        measured: Query = compare(MeasurementQuery(), draw(OPERATORS), name)
        return measured
    if draw(st.integers(0, 9)) == 0:
        return compare(TagQuery().map(joined), draw(OPERATORS), draw(st.sampled_from(["", "host"])))
    builder: Any = TagQuery()[draw(st.sampled_from(TAG_KEYS))]
    kind = draw(st.integers(0, 7))
    if kind == 7:
        query: Query = builder.test(draw(CHOICES))
    elif kind == 0:
        query = builder.exists()
    elif kind == 1:
        query = builder.test(is_truthy)
    elif kind == 2:
        query = builder.search(draw(st.sampled_from(["a", "^b", "^$"])))
    elif kind == 3:
        query = builder.map(double) == "aa"
    elif kind == 4:
        query = builder.noop()
    else:
        query = compare(builder, draw(OPERATORS), draw(st.one_of(TEXTS, st.none())))
    return query


@st.composite
def time_leaf(draw: st.DrawFn) -> Query:
    if draw(st.integers(0, 5)) == 0:
        return TimeQuery().test(lambda time: time.microsecond % 2 == 0)
    if draw(st.integers(0, 5)) == 0:
        second = datetime(1970, 1, 1, tzinfo=UTC)
        return compare(TimeQuery().map(lambda time: time.replace(microsecond=0)), "==", second)
    if draw(st.integers(0, 5)) == 0:  # a Point knows microseconds only
        span = TimeSpan(draw(st.integers(-4, 4)) * 1000, draw(st.integers(-4, 4)) * 1000 - 1)
        return TimeQuery().test(span)
    rim = st.sampled_from([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC), None])
    return compare(TimeQuery(), draw(OPERATORS), draw(st.one_of(SOME_TIMES, rim)))


QUERIES = st.recursive(
    st.one_of(field_leaf(), field_leaf(), tag_leaf(), time_leaf()),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
        inner.map(lambda query: ~query),
    ),
    max_leaves=5,
)


@st.composite
def a_point(draw: st.DrawFn) -> tuple[bytes, int, dict[str, Any]]:
    tags: dict[str, str | None] = {}
    for key in ("host", "dc"):
        value = draw(st.sampled_from(["a", "ab", "", None, "missing"]))
        if value != "missing":
            tags[key] = value
    fields = {key: draw(COLUMNS[key]) for key in draw(st.sets(st.sampled_from(sorted(COLUMNS))))}
    time_ns = draw(st.integers(-3000, 3000))
    return series_key(draw(st.sampled_from(["cpu", "mem"])), tags.items()), time_ns, fields


def stored(points: list[tuple[bytes, int, dict[str, Any]]], **options: Any) -> ParquetStorage:
    builder = BatchBuilder()
    for key, time_ns, fields in points:
        builder.add(key, time_ns, fields.items())
    store = ParquetStorage(**options)
    result = store.append_batch(builder.build())
    assert not result.rejected
    return store


def searched(store: ParquetStorage, query: Query) -> list[Point]:
    found = []
    for name in store.measurements():
        for frame in store.scan(ScanRequest(name, query)):
            assert len(frame)
            found += to_points(frame)
    return found


@given(points=st.lists(a_point(), max_size=12), query=QUERIES)
@settings(max_examples=200, deadline=None)
@example(
    points=[(series_key("cpu", []), 0, {"i": 2**53 + 1})],
    query=FieldQuery().i == 2.0**53,
)
@example(points=[(series_key("cpu", []), 999, {})], query=TimeQuery() == datetime_from_us(0))
def test_a_scan_finds_the_points_that_the_query_matches(
    points: list[tuple[bytes, int, dict[str, Any]]], query: Query
) -> None:
    store = stored(points)
    assert repr(searched(store, query)) == repr([point for point in store if query(point)])


@given(
    points=st.lists(a_point(), max_size=12),
    times_us=st.frozensets(st.integers(-3, 3)),
    is_negated=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_a_scan_finds_the_points_of_some_times(
    points: list[tuple[bytes, int, dict[str, Any]]], times_us: frozenset[int], *, is_negated: bool
) -> None:
    """Of whole microseconds: a Point knows no more, where a scan is exact to the nanosecond."""
    store = stored([(key, time_ns // 1000 * 1000, fields) for key, time_ns, fields in points])
    query = TimeQuery().test(OneTime(frozenset(us * 1000 for us in times_us), is_negated))
    assert repr(searched(store, query)) == repr([point for point in store if query(point)])


@given(points=st.lists(a_point(), max_size=12), query=QUERIES)
@settings(max_examples=80, deadline=None)
def test_series_holds_every_series_with_a_match(
    points: list[tuple[bytes, int, dict[str, Any]]], query: Query
) -> None:
    store = stored(points)
    for name in store.measurements():
        found = store.series(name, query)
        tags = [found.tags(i) for i in range(len(found))]
        for point in store:
            if point.measurement == name and query(point):
                assert point.tags in tags


@given(op=OPERATORS, rhs=st.one_of(INTEGERS, FLOATS, st.integers(-(10**400), 10**400)))
@settings(max_examples=150)
def test_numbers_compare_as_in_python(op: str, rhs: float) -> None:
    near = [] if isinstance(rhs, int) and abs(rhs) > 10**300 else [float(rhs)]
    floats = [0.0, -1.5, 2.0**53, 2.0**53 + 2, 2.0**63, math.inf, -math.inf, math.nan, *near]
    floats += [math.nextafter(x, side) for x in near for side in (math.inf, -math.inf)]
    ints = [0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
    for values, kind in ((floats, np.float64), (ints, np.int64)):
        expected = [COMPARISONS[op](value, rhs) for value in values]
        assert compare_numbers(np.array(values, kind), op, rhs).tolist() == expected


def test_conditions_on_tags_alone_are_settled_before_rows_are_read() -> None:
    query = (TagQuery().host == "a") & (FieldQuery().f > 1) & ~(TagQuery().dc == "b")
    prepared = prepare(query)
    assert len(prepared.series_part) == 2
    assert len(prepared.row_part) == 1
    assert prepared.fields() == {"f"}


def test_a_time_condition_narrows_the_scan() -> None:
    prepared = prepare((TimeQuery() >= datetime_from_us(5)) & (TimeQuery() < datetime_from_us(7)))
    assert (prepared.start_ns, prepared.end_ns) == (5000, 6999)


def test_a_map_over_the_whole_field_set_reads_all_fields() -> None:
    assert prepare(FieldQuery().map(size) == 1).fields() is None


def test_functions_see_only_the_rows_that_are_left() -> None:
    store = stored([(series_key("cpu", []), i, {"i": i}) for i in range(10)])
    seen: list[int] = []

    def look(value: int) -> bool:
        seen.append(value)
        return True

    assert len(searched(store, FieldQuery().i.test(look) & (FieldQuery().i > 7))) == 2
    assert seen == [8, 9]


def test_an_exception_of_a_test_function_leaves_the_scan() -> None:
    store = stored([(series_key("cpu", []), 0, {"i": 1})])
    with pytest.raises(ZeroDivisionError):
        searched(store, FieldQuery().i.test(lambda value: 1 // (value - 1)))


def test_a_tag_condition_asks_once_for_each_distinct_value() -> None:
    store = stored(
        [(series_key("cpu", [("host", h), ("n", str(n))]), 0, {}) for h in "ab" for n in range(5)]
    )
    seen: list[str] = []

    def look(value: str) -> bool:
        seen.append(value)
        return value == "a"

    assert len(store.series("cpu", TagQuery().host.test(look))) == 5
    assert sorted(seen) == ["a", "b"]


def test_points_have_maps_of_their_own() -> None:
    store = stored([(series_key("cpu", [("host", "a")]), i, {"i": i}) for i in range(2)])
    first, second = store
    first.tags["host"] = "changed"
    assert second == make_point(datetime_from_us(0), "cpu", {"host": "a"}, {"i": 1})
