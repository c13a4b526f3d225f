"""A bit flips in any file of a store: it is found, or it did not matter; nothing else suffers."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.crash.writer import POINTS_A_BATCH, batch, batches
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import CorruptionError

if TYPE_CHECKING:
    from pathlib import Path

FLIPS = 40


@pytest.fixture(scope="module")
def flushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with two segments, a series file and a log."""
    path = tmp_path_factory.mktemp("store")
    store = ParquetStorage(path, overwrite=True)
    for number in range(1, 21):
        store.append_batch(batch(number))
        if number in (10, 19):
            store.flush()
    store.close()
    return path


@pytest.mark.parametrize("pattern", ["segments/*/*.parquet", "series/*", "manifest"])
def test_a_flipped_bit_is_found_or_changes_no_answer(
    flushed: Path, tmp_path: Path, pattern: str
) -> None:
    chance = random.Random(pattern)
    expected = dict.fromkeys(range(1, 21), POINTS_A_BATCH)
    n_found = 0
    for flip in range(FLIPS):
        path = tmp_path / str(flip)
        shutil.copytree(flushed, path)
        victim = chance.choice(sorted(path.glob(pattern)))
        flip_a_bit(victim, chance)
        n_found += is_found(path, expected)
        shutil.rmtree(path)
    assert n_found > FLIPS // 4


def flip_a_bit(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def is_found(path: Path, expected: dict[int, int]) -> bool:
    """Open, read, write and reopen; return whether the damage was reported.

    What is answered was written, and what is missing is inside a gap.
    """
    try:
        store = ParquetStorage(path, overwrite=True)
    except CorruptionError:
        return True  # manifest or series: the store does not open rather than forget points
    for _ in range(2):
        found = batches(store)
        gaps = store.gaps("m", MIN_TIME_NS, MAX_TIME_NS)
        store.append_batch(batch(1000))
        store.flush()
        missing = {number for number in expected if found.get(number) != expected[number]}
        assert all(any(gap.first_ns <= n <= gap.last_ns for gap in gaps) for n in missing)
        assert {**expected, 1000: POINTS_A_BATCH}.items() >= found.items()
        store.close()
        store = ParquetStorage(path, overwrite=True)
    assert batches(store)[1000] == POINTS_A_BATCH
    assert store.stats()["segments_damaged"] == len(gaps)
    store.close()
    return bool(gaps)


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_a_log_frame_costs_that_frame_alone(tmp_path: Path, stride: int) -> None:
    store = ParquetStorage(tmp_path / "store", overwrite=True)
    ends = []
    for number in range(1, 4):
        store.append_batch(batch(number))
        ends.append(store.stats()["log_bytes"])
    store.close()
    (log,) = (tmp_path / "store" / "wal").glob("*.wal")
    whole = log.read_bytes()
    rest = {1: POINTS_A_BATCH, 3: POINTS_A_BATCH}
    for place in range(ends[0], ends[1], stride):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        log.write_bytes(data)
        store = ParquetStorage(tmp_path / "store", overwrite=True)
        assert batches(store) == rest, f"byte {place}"
        assert store.stats()["log_damaged"] == 1
        aside = tmp_path / "store" / "wal" / "quarantine" / f"{log.name}-{ends[0]}"
        assert aside.read_bytes() == data[ends[0] : ends[1]]
        store.close()
    store = ParquetStorage(tmp_path / "store", overwrite=True)
    store.append_batch(batch(4))
    store.flush()
    store.close()
    again = ParquetStorage(tmp_path / "store", overwrite=True)
    assert batches(again) == {**rest, 4: POINTS_A_BATCH}
    assert again.stats()["log_damaged"] == 0  # the damage went with its log
    again.close()
