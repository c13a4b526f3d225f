"""The machine stops after any operation: what was acknowledged is there, what is there was sent,
batches are whole.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.crash.crashfs import Crash, CrashFS
from tinyflux.batch import BatchBuilder, PointBatch, series_key
from tinyflux.columnar.base import DeleteRequest, Frame, Replacement, ScanRequest
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.queries import FieldQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinyflux.columnar.wal import SyncMode

STORE = Path("/store")
POINTS_A_BATCH = 3


def open_store(files: CrashFS, sync: SyncMode = "group") -> ParquetStorage:
    return ParquetStorage(STORE, files=files, sync=sync, overwrite=True, log_file_bytes=600)


def batch(number: int, value: int | None = None) -> PointBatch:
    builder = BatchBuilder()
    for i in range(POINTS_A_BATCH):
        key = series_key("cpu", [("host", str(i))])
        builder.add(key, number, [("v", number if value is None else value), ("s", f"text {i}")])
    return builder.build()


def state(store: ParquetStorage) -> dict[int, list[int]]:
    """Batch number to the values of its points."""
    found: dict[int, list[int]] = {}
    for frame in store.scan(ScanRequest("cpu", fields=("v",))):
        values = frame.columns["v"].values
        for time, value in zip(frame.times.tolist(), values.tolist(), strict=True):
            found.setdefault(time, []).append(value)
    return found


def add_hundred(frame: Frame) -> Replacement:
    builder = BatchBuilder()
    values = frame.columns["v"].values
    for row, time in zip(frame.series_rows().tolist(), frame.times.tolist(), strict=True):
        key = series_key("cpu", frame.series.tags(row).items())
        builder.add(key, time, [("v", int(values[0]) + 100)])
    return Replacement(np.ones(len(frame), np.bool_), builder.build())


# Each step with what it makes of the expected state; every step is one acknowledged write.
State = dict[int, list[int]]
STEPS: list[tuple[Callable[[ParquetStorage], object], Callable[[State], State]]] = [
    *[
        (
            lambda store, n=n: store.append_batch(batch(n)),
            lambda old, n=n: {**old, n: [n] * POINTS_A_BATCH},
        )
        for n in range(1, 7)
    ],
    (
        lambda store: store.delete(DeleteRequest("cpu", None, 2, 3)),
        lambda old: {n: v for n, v in old.items() if not 2 <= n <= 3},
    ),
    (
        lambda store: store.rewrite([ScanRequest("cpu", FieldQuery().v == 5)], add_hundred),
        lambda old: {**old, 5: [105] * POINTS_A_BATCH},
    ),
    (
        lambda store: store.append_batch(batch(4, 44)),
        lambda old: {**old, 4: [44] * POINTS_A_BATCH},
    ),
    (lambda store: store.drop_measurement("cpu"), lambda _: {}),
    (
        lambda store: store.append_batch(batch(9)),
        lambda old: {**old, 9: [9] * POINTS_A_BATCH},
    ),
    (lambda store: store.rename_measurement("cpu", "\0trash"), lambda _: {}),
    (
        lambda store: store.append_batch(batch(10)),
        lambda old: {**old, 10: [10] * POINTS_A_BATCH},
    ),
    (lambda store: store.rename_measurement("cpu", "other"), lambda _: {}),
    (
        lambda store: store.rename_measurement("\0trash", "cpu"),
        lambda _: {9: [9] * POINTS_A_BATCH},
    ),
]


def run_until_crash(files: CrashFS) -> list[State]:
    """Do the steps; return the states that a recovery may find: the acknowledged one, and the one
    in progress.
    """
    acknowledged: State = {}
    possible = [acknowledged]
    try:
        store = open_store(files)
        for do, becomes in STEPS:
            possible = [acknowledged, becomes(acknowledged)]
            do(store)
            acknowledged = becomes(acknowledged)
            possible = [acknowledged]
        store.close()
    except Crash:
        pass
    return possible


def n_operations() -> int:
    files = CrashFS()
    run_until_crash(files)
    return files.n_operations


def test_after_a_power_cut_at_any_operation_the_acknowledged_state_is_recovered() -> None:
    total = n_operations()
    assert total > 30
    for fail_at in range(1, total + 2):
        for seed in range(4):
            files = CrashFS()
            files.fail_at = fail_at
            possible = run_until_crash(files)
            after = files.crash(seed)
            store = open_store(after)
            assert state(store) in possible, f"fail_at={fail_at} seed={seed}"
            store.append_batch(batch(50))
            store.close()
            again = open_store(after.crash(seed))
            assert state(again).get(50) == [50] * POINTS_A_BATCH
            again.close()


def test_a_power_cut_while_recovering_loses_nothing() -> None:
    files = CrashFS()
    store = open_store(files)
    for number in range(5):
        store.append_batch(batch(number))
    expected = state(store)
    files.fail_at = files.n_operations + 1
    with pytest.raises(Crash):
        store.append_batch(batch(99))  # a torn frame
    for seed in range(20):
        first = files.crash(seed)
        for fail_at in range(1, 12):
            first.fail_at = first.n_operations + fail_at
            with contextlib.suppress(Crash):
                open_store(first).close()
            second = first.crash(seed)
            found = state(open_store(second))
            assert {n: v for n, v in found.items() if n != 99} == expected


@pytest.mark.parametrize("sync", ["interval", "off"])
def test_without_a_sync_for_each_write_a_power_cut_leaves_whole_batches(sync: SyncMode) -> None:
    for seed in range(30):
        files = CrashFS()
        store = open_store(files, sync)
        for number in range(10):
            store.append_batch(batch(number))
        found = state(open_store(files.crash(seed)))
        assert all(values == [number] * POINTS_A_BATCH for number, values in found.items())


def test_sync_makes_everything_durable_in_every_mode() -> None:
    files = CrashFS()
    store = open_store(files, "off")
    store.append_batch(batch(1))
    store.sync()
    store.append_batch(batch(2))
    for seed in range(10):
        assert state(open_store(files.crash(seed)))[1] == [1] * POINTS_A_BATCH
