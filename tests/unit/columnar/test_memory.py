"""Memory that stores and queries share: who flushes, who waits, who is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.crash.writer import batch, batches
from tinyflux.batch import FieldType
from tinyflux.columnar.base import FieldColumn
from tinyflux.columnar.memory import PROCESS_BYTES, Memory, default_bytes, resident_bytes, trim
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import LimitExceeded

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


def test_claims_wait_for_one_another_and_are_refused_when_it_gets_long() -> None:
    memory = Memory(0, 0, 1000, wait_s=0.05)
    held = memory.claim(800)
    with pytest.raises(LimitExceeded, match="what runs holds too much of the 1000 that"):
        memory.claim(300)
    held.release()
    with memory.claim(300) as claim:
        assert (claim.n_bytes, memory.claimed_bytes) == (300, 300)
    assert memory.claimed_bytes == 0


def test_a_claim_gets_what_another_lets_go() -> None:
    memory = Memory(0, 0, 1000, wait_s=60.0)
    held = memory.claim(800)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(memory.claim, 700)
        held.release()
        waiting.result(30).release()
    assert memory.claimed_bytes == 0


def test_a_claim_that_can_never_be_met_is_refused_at_once() -> None:
    memory = Memory(0, 0, 1000, frame_bytes=100, wait_s=3600.0)
    scan, rows = memory.claim(100), memory.claim(400)
    rows.grow(300)
    assert memory.claimed_bytes == 500
    rows.grow(900)
    assert memory.claimed_bytes == 1000
    with pytest.raises(LimitExceeded, match="about 901 bytes are needed at once, memory_bytes"):
        rows.grow(901)
    rows.release()
    rows.release()
    scan.release()
    assert memory.claimed_bytes == 0


def test_what_a_claim_keeps_comes_on_top() -> None:
    memory = Memory(0, 0, 1000)
    claim = memory.claim(300)
    claim.keep()
    claim.grow(100)
    claim.grow(50)
    assert memory.claimed_bytes == 400
    claim.release()
    claim.grow(100)
    assert memory.claimed_bytes == 100


def test_a_claim_that_is_forgotten_is_free_again() -> None:
    memory = Memory(0, 0, 1000)
    memory.claim(800)
    with memory.claim(800):
        assert memory.claimed_bytes == 800


def test_the_cache_gives_way_to_claims() -> None:
    memory = Memory(0, 40_000, 100_000)
    for number in range(4):
        column = FieldColumn(FieldType.INTEGER, np.zeros(500, np.int64))
        memory.chunks.put(("segment", number, "a"), column)
    assert (len(memory.chunks), memory.chunks.n_bytes) == (4, 4 * 4200)
    with memory.claim(60_001):
        assert len(memory.chunks) == 4  # 40,000 are more than they take
        with memory.claim(30_000):
            assert memory.chunks.n_bytes <= 9_999
            memory.chunks.put(("segment", 9, "a"), column)
            assert memory.chunks.n_bytes <= 9_999
    memory.chunks.put(("segment", 10, "a"), column)
    memory.chunks.put(("segment", 11, "a"), column)
    assert len(memory.chunks) == 4


def test_shares_leave_room_for_the_process_itself() -> None:
    memory = Memory.of(256_000_000)
    assert memory.points_bytes + memory.work_bytes == 256_000_000 - PROCESS_BYTES
    small = Memory.of(64_000_000)
    assert 0 < small.points_bytes < small.work_bytes < 64_000_000
    assert resident_bytes() > 10_000_000
