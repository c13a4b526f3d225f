"""Memory that stores share: who flushes, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.writer import batch, batches
from tinyflux.columnar.memory import Memory, default_bytes, trim
from tinyflux.columnar.parquet import ParquetStorage

if TYPE_CHECKING:
    from pathlib import Path


class Store:
    """What Memory knows of a store."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def flush_soon(self) -> None:
        self.calls.append("flush")

    def wait_for_flush(self) -> None:
        self.calls.append("wait")


@pytest.mark.parametrize(
    ("held", "calls"),
    [(50, []), (51, ["flush"]), (100, ["flush"]), (101, ["flush", "wait"])],
)
def test_the_largest_holder_flushes_and_is_waited_for_when_all_hold_too_much(
    held: int, calls: list[str]
) -> None:
    memory = Memory(points_bytes=100, chunk_bytes=0)
    large, small = Store(), Store()
    memory.note(large, held - 10)
    memory.hold(small, 10)
    assert memory.held_bytes == held
    assert (large.calls, small.calls) == (calls, [])


def test_a_closed_store_is_forgotten() -> None:
    memory = Memory(points_bytes=100, chunk_bytes=0)
    gone, other = Store(), Store()
    memory.note(gone, 200)
    assert memory.is_full
    memory.forget(gone)
    memory.hold(other, 10)
    assert memory.held_bytes == 10
    assert gone.calls == other.calls == []


def test_stores_that_share_memory_hold_no_more_than_it_allows(tmp_path: Path) -> None:
    memory = Memory(points_bytes=40_000, chunk_bytes=1 << 20)
    stores = [
        ParquetStorage(tmp_path / str(i), overwrite=True, sync="off", memory=memory)
        for i in range(5)
    ]
    most = 0
    for number in range(1, 301):
        stores[number % 5].append_batch(batch(number))
        most = max(most, memory.held_bytes)
    assert most <= 40_000 + 10_000  # one batch may come on top
    assert any(store.stats()["segments"] for store in stores)
    for i, store in enumerate(stores):
        assert sorted(batches(store)) == [n for n in range(1, 301) if n % 5 == i]
        store.close()
    assert memory.held_bytes == 0


def test_default_is_positive_and_at_most_a_gigabyte() -> None:
    assert 0 < default_bytes() <= 1 << 30
    trim()
