"""Scans under a limit, and the aggregates that live on it: against plain Python over all points."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.unit.columnar.points_by_host import Store, random_store
from tinyflux.columnar.base import AggregateRequest, Call, DeleteRequest, ScanRequest
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.queries import FieldQuery, TagQuery

if TYPE_CHECKING:
    from pathlib import Path

BOUNDS = ((-(10**9), 10**9), (20, 70))


@pytest.fixture(params=["memory", "segments", "segments and memory"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Points of six hosts that came in disorder, where the parameter says."""
    return random_store(tmp_path, request.param)


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("limit", [1, 3, -1, -3, 500, -500])
def test_a_limit_gives_the_first_or_the_last_rows_of_each_series(
    stored: Store, limit: int, bounds: tuple[int, int]
) -> None:
    found = stored.read(ScanRequest("cpu", None, *bounds, limit=limit))
    for host, rows in stored.rows(*bounds).items():
        wanted = rows[:limit] if limit > 0 else rows[limit:]
        assert found[host] == wanted


def test_a_limit_is_no_limit_where_the_query_looks_at_fields(stored: Store) -> None:
    request = ScanRequest("cpu", FieldQuery()["a"] >= 50.0, limit=-1)
    found = stored.read(request)
    for host, rows in stored.rows().items():
        wanted = [row for row in rows if row[1] is not None and row[1] >= 50.0]
        assert found.get(host, []) == wanted


def test_a_limit_holds_for_chosen_series(stored: Store) -> None:
    found = stored.read(ScanRequest("cpu", TagQuery()["host"] == "h3", limit=-2))
    assert found == {"h3": stored.rows()["h3"][-2:]}


def test_rows_behind_deleted_ones_are_found(stored: Store) -> None:
    stored.delete(DeleteRequest("cpu", None, 60, 10**9))
    found = stored.read(ScanRequest("cpu", limit=-2))
    for host, rows in stored.rows().items():
        assert found[host][-2:] == rows[-2:]


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("field", ["a", "b"])
@pytest.mark.parametrize("function", ["first", "last"])
def test_first_and_last_skip_points_without_the_field(
    stored: Store, function: str, field: str, bounds: tuple[int, int]
) -> None:
    request = AggregateRequest(
        ScanRequest("cpu", None, *bounds), (Call(function, field),), group_by=("host",)
    )
    answer = stored.storage.aggregate(request)
    column = answer.columns[0]
    assert column.times is not None
    times = column.times[:, 0].tolist()
    found = dict(zip(answer.groups, zip(times, column.values[:, 0].tolist(), strict=True)))  # noqa: B905
    wanted = {}
    place = 1 if field == "a" else 2
    for host, rows in stored.rows(*bounds).items():
        known = [(row[0], row[place]) for row in rows if row[place] is not None]
        wanted[(host,)] = known[0 if function == "first" else -1]
    assert found == wanted


def test_last_of_points_that_may_repeat_is_no_single_row() -> None:
    storage = ParquetStorage(overwrite=False)
    store = Store(storage, random.Random(1))
    store.write([("h1", 5, 2.0, None), ("h1", 5, 9.0, None), ("h1", 5, 4.0, None)])
    answer = storage.aggregate(AggregateRequest(ScanRequest("cpu"), (Call("last", "a"),)))
    assert answer.columns[0].values.tolist() == [[9.0]]
