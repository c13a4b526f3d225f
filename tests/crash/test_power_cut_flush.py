"""The machine stops in any operation of a flush, a compaction, an expiry, a drop of a shard or a
change of their duration: nothing is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.crashfs import Crash, CrashFS, crashes
from tests.crash.test_power_cut import POINTS_A_BATCH, STEPS, STORE, batch, state
from tinyflux.columnar.parquet import ParquetStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.test_power_cut import State


def open_store(files: CrashFS) -> ParquetStorage:
    return ParquetStorage(
        STORE, files=files, overwrite=True, log_file_bytes=600, shard_duration_ns=4
    )


def flush(store: ParquetStorage) -> None:
    store.flush()


def compact(store: ParquetStorage) -> None:
    while store.compact():
        pass


def expire(store: ParquetStorage) -> None:
    store.expire(5)


def change_shard_duration(store: ParquetStorage) -> None:
    store.set_shard_duration(6)


def drop_last_shard(store: ParquetStorage) -> None:
    if shards := store.shards():
        store.drop_shard(shards[-1])


def same(old: State) -> State:
    return old


def expired(old: State) -> State:
    return {n: values for n, values in old.items() if n >= 4}


def nothing(_: State) -> State:
    return {}


def moves() -> list[tuple[Callable[[ParquetStorage], object], Callable[[State], State]]]:
    """Return the steps of the log's test, with a flush behind each, and all that moves shards."""
    steps: list[tuple[Callable[[ParquetStorage], object], Callable[[State], State]]] = []
    for number, step in enumerate(STEPS):
        steps += [step, (flush, same)]
        if number == 2:
            steps.append((change_shard_duration, same))
        if number == 5:
            steps.append((compact, same))
        if number == 8:
            steps.append((expire, expired))
    return [*steps, (drop_last_shard, nothing)]


def run_until_crash(files: CrashFS) -> list[State]:
    """Do the steps; return the states a recovery may find."""
    acknowledged: State = {}
    possible = [acknowledged]
    try:
        store = open_store(files)
        for do, becomes in moves():
            possible = [acknowledged, becomes(acknowledged)]
            do(store)
            acknowledged = becomes(acknowledged)
            possible = [acknowledged]
            assert state(store) == acknowledged
        store.close()
    except Crash:
        pass
    return possible


@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_after_a_power_cut_at_any_operation_the_acknowledged_state_is_recovered(
    stride: int,
) -> None:
    files = CrashFS()
    run_until_crash(files)
    total = files.n_operations
    assert total > 100
    for fail_at, seed, after, possible in crashes(run_until_crash, range(1, total + 2, stride)):
        store = open_store(after)
        assert state(store) in possible, f"fail_at={fail_at} seed={seed}"
        store.append_batch(batch(50))
        store.flush()
        again = open_store(after.crash(seed))
        assert state(again).get(50) == [50] * POINTS_A_BATCH
        again.close()


def test_a_flush_that_fails_is_made_up_for_by_the_next() -> None:
    files = CrashFS()
    store = open_store(files)
    expected = {}
    for number in range(1, 40):
        store.append_batch(batch(number))
        expected[number] = [number] * POINTS_A_BATCH
        files.fail_at = files.n_operations + number % 9 + 1
        try:
            store.flush()
        except Crash:
            files.fail_at = None
        files.fail_at = None
        assert state(store) == expected
    store.flush()
    assert store.stats()["points_in_memory"] == 0
    assert state(store) == expected
    assert state(open_store(files.crash(1))) == expected


def test_files_that_nobody_names_are_removed_when_the_store_opens() -> None:
    files = CrashFS()
    store = open_store(files)
    for number in range(1, 6):
        store.append_batch(batch(number))
        store.flush()
    store.append_batch(batch(9))
    files.fail_at = files.n_operations + 6  # segments are written, the manifest is not
    try:
        store.flush()
    except Crash:
        files.fail_at = None
    after = files.crash(5)
    store = open_store(after)
    named = {f"{info.number:06d}.parquet" for info in store._state.segments.manifest.segments}  # type: ignore[union-attr]
    root = STORE / "segments"
    found = {name for shard in after.names(root) for name in after.names(root / shard)}
    assert found == named
