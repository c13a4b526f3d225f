"""The machine stops within a delete by a field, or the drop of one: it is as before or as after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest

from tests.crash.crashfs import Crash, CrashFS, crashes
from tinyflux.batch import BatchBuilder, FieldValue, PointBatch, series_key
from tinyflux.columnar.base import DeleteRequest, ScanRequest
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.columnar.points import field_dicts
from tinyflux.queries import FieldQuery

if TYPE_CHECKING:
    from collections.abc import Callable

State: TypeAlias = dict[int, dict[str, FieldValue]]
STORE = Path("/store")


def open_store(files: CrashFS) -> ParquetStorage:
    store = ParquetStorage(
        STORE, files=files, overwrite=True, log_file_bytes=600, shard_duration_ns=4
    )
    store._flushing._flusher.stop()  # type: ignore[union-attr]  # only these steps, in this thread
    return store


def batch(rows: State) -> PointBatch:
    builder = BatchBuilder()
    for time, fields in rows.items():
        builder.add(series_key("cpu", [("host", "a")]), time, fields.items())
    return builder.build()


def state(store: ParquetStorage) -> State:
    return {
        time: fields
        for frame in store.scan(ScanRequest("cpu"))
        for time, fields in zip(
            frame.times.tolist(), field_dicts(frame, np.arange(len(frame))), strict=True
        )
    }


NUMBERS: State = {n: {"v": n, "s": "x"} if n % 2 else {"v": n} for n in range(12)}
TEXTS: State = {n: {"v": str(n)} for n in range(3, 6)}
# Each with what it makes of the state, in steps: a delete by a field is done shard by shard.
Step: TypeAlias = "tuple[Callable[[ParquetStorage], object], list[Callable[[State], State]]]"


def without_large_from(start: int) -> Callable[[State], State]:
    return lambda old: {n: f for n, f in old.items() if not (n >= 6 and start <= n < start + 4)}


def without_v(old: State) -> State:
    rest = {n: {k: v for k, v in fields.items() if k != "v"} for n, fields in old.items()}
    return {n: fields for n, fields in rest.items() if fields}


def same(old: State) -> State:
    return old


STEPS: list[Step] = [
    (lambda store: store.append_batch(batch(NUMBERS)), [lambda _: NUMBERS]),
    (lambda store: store.flush(), [same]),
    (
        lambda store: store.delete(DeleteRequest("cpu", FieldQuery().v > 5)),
        [without_large_from(4), without_large_from(8)],
    ),
    (lambda store: store.flush(), [same]),
    (lambda store: store.drop_field("cpu", "v"), [without_v]),
    (
        lambda store: store.append_batch(batch(TEXTS)),
        [lambda old: {n: old.get(n, {}) | TEXTS.get(n, {}) for n in sorted({*old, *TEXTS})}],
    ),
    (lambda store: store.flush(), [same]),
    (lambda store: store.drop_field("cpu", "s"), [lambda _: TEXTS]),
    (lambda store: store.flush(), [same]),
]


def run_until_crash(files: CrashFS) -> list[State]:
    """Do the steps; return the states a recovery may find."""
    acknowledged: State = {}
    possible = [acknowledged]
    try:
        store = open_store(files)
        for do, changes in STEPS:
            possible = [acknowledged]
            for becomes in changes:
                possible.append(becomes(possible[-1]))
            do(store)
            acknowledged = possible[-1]
            assert state(store) == acknowledged
            possible = [acknowledged]
        store.close()
    except Crash:
        pass
    return possible


@pytest.mark.parametrize("stride", [31, pytest.param(1, marks=pytest.mark.slow)])
def test_after_a_power_cut_points_are_as_before_or_as_after(stride: int) -> None:
    files = CrashFS()
    assert run_until_crash(files) == [TEXTS]
    total = files.n_operations
    assert total > 60
    for fail_at, seed, after, possible in crashes(run_until_crash, range(1, total + 2, stride)):
        store = open_store(after)
        assert state(store) in possible, f"fail_at={fail_at} seed={seed}"
        store.flush()
        assert state(open_store(after.crash(seed))) in possible
