"""A bit flips in any file of a store: it is found, or it did not matter; nothing else suffers."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.crash.writer import POINTS_A_BATCH, batch, batches
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
        data = bytearray(victim.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        victim.write_bytes(data)
        n_found += is_found(path, expected)
        shutil.rmtree(path)
    assert n_found > FLIPS // 4


def is_found(path: Path, expected: dict[int, int]) -> bool:
    """Open and read; return whether the damage was reported. Writing works, if opening did."""
    try:
        store = ParquetStorage(path, overwrite=True)
    except CorruptionError:
        return True  # manifest or series: the store does not open rather than forget points
    try:
        assert batches(store) == expected
        return False
    except CorruptionError:
        return True
    finally:
        store.append_batch(batch(1000))
        store.close()
