"""The kernel refuses to write or to open files: writes fail with the reason, and go on later.

The limits are real ones of this process, lowered for a moment.
"""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.crash.writer import POINTS_A_BATCH, batch, batches
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import StorageReadOnly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS = [
    pytest.param(resource.RLIMIT_FSIZE, 1000, "File too large", id="a disk that is full"),
    pytest.param(resource.RLIMIT_NOFILE, 0, "Too many open files", id="no file handles"),
]


@contextmanager
def limited(kind: int, value: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@pytest.mark.parametrize(("kind", "value", "reason"), LIMITS)
def test_writes_are_refused_while_a_limit_holds_and_nothing_acknowledged_is_lost(
    tmp_path: Path, kind: int, value: int, reason: str
) -> None:
    # A short log file: each of the writes has to begin one.
    store = ParquetStorage(tmp_path, overwrite=True, log_file_bytes=2000)
    acknowledged = []
    for number in (50, 51, 52):
        store.append_batch(batch(number))
        acknowledged.append(number)
    refused: list[str] = []
    with limited(kind, value):
        for number in range(60, 70):
            try:
                store.append_batch(batch(number))
                acknowledged.append(number)
            except StorageReadOnly as exc:
                refused.append(str(exc))
    assert refused
    assert all(reason in text for text in refused)
    store.append_batch(batch(80))
    acknowledged.append(80)
    expected = dict.fromkeys(acknowledged, POINTS_A_BATCH)
    assert batches(store) == expected
    store.close()
    again = ParquetStorage(tmp_path, overwrite=True)
    assert batches(again) == expected
    assert again.stats()["log_damaged"] == 0
    again.close()


@pytest.mark.parametrize(("kind", "value", "reason"), LIMITS)
def test_a_flush_that_fails_loses_nothing_and_succeeds_later(
    tmp_path: Path, kind: int, value: int, reason: str
) -> None:
    store = ParquetStorage(tmp_path, overwrite=True)
    for number in range(1, 200):
        store.append_batch(batch(number))
    expected = dict.fromkeys(range(1, 200), POINTS_A_BATCH)
    with limited(kind, value), pytest.raises(OSError, match=reason):
        store.flush()
    assert batches(store) == expected
    store.flush()
    assert store.stats()["points_in_memory"] == 0
    assert batches(store) == expected
    store.close()
