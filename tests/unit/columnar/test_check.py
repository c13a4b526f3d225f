"""Reading that takes long can be ended from outside, wherever it is."""

from __future__ import annotations

import random

import pytest

from tests.unit.columnar.points_by_host import Store
from tinyflux.columnar.base import AggregateRequest, Call, Reader, ScanRequest
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.queries import FieldQuery


class Stopped(Exception):
    pass


def _stop() -> None:
    raise Stopped


@pytest.fixture
def snapshot() -> Reader:
    store = Store(ParquetStorage(), random.Random(1))
    store.write([("h1", time, float(time), None) for time in range(100)])
    reader = store.storage.snapshot()
    reader.check = _stop
    return reader


@pytest.mark.parametrize("function", ["mean", "percentile"])
def test_aggregates_end(snapshot: Reader, function: str) -> None:
    with pytest.raises(Stopped):
        snapshot.aggregate(AggregateRequest(ScanRequest("cpu"), (Call(function, "a", (50,)),)))


def test_a_scan_ends_also_where_nothing_is_found(snapshot: Reader) -> None:
    for least in (0, 1000):
        with pytest.raises(Stopped):
            list(snapshot.scan(ScanRequest("cpu", FieldQuery()["a"] >= least)))
