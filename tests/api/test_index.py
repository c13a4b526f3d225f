"""Index and IndexResult, used alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tinyflux import FieldQuery, MeasurementQuery, Point, TagQuery, TimeQuery
from tinyflux.index import Index, IndexResult

T = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def points() -> list[Point]:
    return [
        Point(time=T, measurement="a", tags={"k": "x", "n": None}, fields={"v": 1}),
        Point(time=T + SECOND, measurement="b", tags={"k": "y"}, fields={"v": 2.5, "w": None}),
        Point(time=T + 2 * SECOND, measurement="a", tags={}, fields={"v": 2**70}),
    ]


@pytest.fixture
def index() -> Index:
    """An index of three points."""
    built = Index()
    built.build(points())
    return built


def test_new_index_is_valid_and_empty() -> None:
    index = Index()
    assert (index.valid, index.empty, len(index)) == (True, True, 0)
    assert Index(valid=False).valid is False
    with pytest.raises(IndexError):
        _ = index.latest_time
    assert repr(index) == "<Index _tags=0, _measurements=0, _timestamps=0>"


def test_build_takes_any_order_and_makes_valid() -> None:
    index = Index(valid=False)
    index.build(iter(points()[::-1]))
    assert (index.valid, index.empty, len(index)) == (True, False, 3)
    assert index.latest_time == T + 2 * SECOND
    assert index.latest_time.tzinfo is UTC
    assert index.search(TimeQuery() == T).items == {2}
    index.build([])
    assert index.empty


def test_insert_continues_positions(index: Index) -> None:
    index.insert([Point(time=T + 3 * SECOND, tags={"k": "x"})])
    assert index.search(TagQuery().k == "x").items == {0, 3}
    assert Index().insert() is None  # type: ignore[func-returns-value]


def test_describes_its_points(index: Index) -> None:
    assert repr(index) == "<Index _tags=2, _measurements=2, _timestamps=3>"
    assert index.get_measurements() == {"a", "b"}
    assert index.get_tag_keys() == {"k", "n"}
    assert index.get_tag_keys("b") == {"k"}
    assert index.get_field_keys("a") == {"v"}
    assert index.get_tag_values() == {"k": {"x", "y"}, "n": {None}}
    assert index.get_tag_values(["k", "z"], "a") == {"k": {"x"}, "z": set()}
    assert index.get_field_values("v") == [1, 2.5, 2**70]
    assert index.get_field_values("w") == [None]
    assert index.get_field_values("v", "b") == [2.5]
    assert index.get_timestamps() == [T.timestamp() + n for n in range(3)]
    assert index.get_timestamps("b") == [T.timestamp() + 1]


@pytest.mark.parametrize(
    ("query", "items"),
    [
        (TagQuery().k == "x", {0}),
        (TagQuery().k != "x", {1}),
        (~(TagQuery().k == "x"), {1, 2}),
        (FieldQuery().v > 2, {1, 2}),
        (FieldQuery().v == 2**70, {2}),
        (~(FieldQuery().v > 2), {0, 1, 2}),
        (~((FieldQuery().v > 2) & (TagQuery().k == "x")), {0, 1, 2}),
        ((FieldQuery().v > 2) & (MeasurementQuery() == "a"), {2}),
        ((TimeQuery() > T) | (TagQuery().k == "x"), {0, 1, 2}),
        (TagQuery().noop(), {0, 1, 2}),
        (FieldQuery().w == None, {1}),  # noqa: E711
    ],
)
def test_search_gives_positions(index: Index, query: Any, items: set[int]) -> None:
    result = index.search(query)
    assert isinstance(result, IndexResult)
    assert result.items == items


def test_search_takes_queries_only(index: Index) -> None:
    with pytest.raises(TypeError, match=r"Query must be SimpleQuery or CompoundQuery\."):
        index.search(TagQuery())  # type: ignore[arg-type]


def test_invalidate_forgets(index: Index) -> None:
    index.invalidate()
    assert (index.valid, index.empty, len(index)) == (False, True, 0)
    assert index.get_measurements() == set()
    assert index.get_timestamps() == []


def test_remove_and_update_move_positions(index: Index) -> None:
    index.remove({0})
    assert len(index) == 2
    assert index.search(TimeQuery() >= T).items == {1, 2}
    index.update({1: 0, 2: 1})
    assert index.search(TagQuery().k == "y").items == {0}
    assert index.search(TimeQuery() == T + 2 * SECOND).items == {1}
    index.update({0: 1, 1: 0})
    assert index.search(TagQuery().k == "y").items == {1}


def test_results_combine() -> None:
    a, b = IndexResult({0, 1}, 4), IndexResult({1, 2}, 4)
    assert (a & b).items == {1}
    assert (a | b).items == {0, 1, 2}
    assert (~a).items == {2, 3}
