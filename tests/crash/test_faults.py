"""The disk fails for a while, in any operation: what was refused never was, what was acknowledged
stays, and all goes on when the disk does.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest

from tests.crash.crashfs import CrashFS
from tests.crash.test_power_cut import POINTS_A_BATCH, STORE, add_hundred, batch, state
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, BatchBuilder, series_key
from tinyflux.columnar.base import DeleteRequest, ScanRequest
from tinyflux.columnar.check import check_store
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import StorageReadOnly
from tinyflux.queries import FieldQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.test_power_cut import State
    from tinyflux.columnar.wal import SyncMode

    Move = tuple[Callable[[ParquetStorage], object], Callable[[State], State]]

FAULTS = {
    errno.ENOSPC: ("append", "create"),
    errno.EIO: ("append", "sync", "create", "truncate", "replace", "unlink", "sync_directory"),
    errno.EMFILE: ("create", "truncate", "sync_directory"),
}


MODES: tuple[SyncMode, ...] = ("always", "group", "interval", "off")


def open_store(files: CrashFS, sync: SyncMode = "group") -> ParquetStorage:
    return ParquetStorage(
        STORE, files=files, sync=sync, overwrite=True, log_file_bytes=900, shard_duration_ns=8
    )


def fail(files: CrashFS, number: int, *operations: str) -> None:
    files.fault, files.faulty = OSError(number, os.strerror(number)), operations


def append_by_callback(store: ParquetStorage, number: int) -> None:
    told = threading.Event()
    errors: list[Exception | None] = []

    def on_durable(error: Exception | None) -> None:
        errors.append(error)
        told.set()

    store.append_batch(batch(number), on_durable)
    assert told.wait(30)
    if errors[0] is not None:
        raise errors[0]


def expire(store: ParquetStorage, before: int) -> None:
    """Expire until it is done: when the flush for it fails, the rows are only hidden."""
    before_that = state(store)
    try:
        store.expire(before)
    except OSError:
        if state(store) == before_that:
            raise


def a_move(chance: random.Random, number: int) -> Move:
    """Return something to do, and what it makes of the expected state."""
    low = chance.randrange(number)
    high = low + chance.randrange(4)
    moves: list[Move] = [
        (lambda s: s.append_batch(batch(number)), lambda old: {**old, number: [number] * 3}),
        (lambda s: append_by_callback(s, number), lambda old: {**old, number: [number] * 3}),
        (lambda s: append_by_callback(s, low), lambda old: {**old, low: [low] * 3}),
        (
            lambda s: s.delete(DeleteRequest("cpu", None, low, high)),
            lambda old: {n: v for n, v in old.items() if not low <= n <= high},
        ),
        (
            lambda s: s.rewrite([ScanRequest("cpu", FieldQuery().v == low)], add_hundred),
            lambda old: {n: [low + 100] * 3 if v[0] == low else v for n, v in old.items()},
        ),
        (lambda s: s.flush(), lambda old: old),
        (lambda s: s.compact(), lambda old: old),
        (lambda s: expire(s, low), lambda old: {n: v for n, v in old.items() if n >= low // 8 * 8}),
    ]
    if number % 10 == 0:
        moves.append((lambda s: s.drop_measurement("cpu"), lambda _: {}))
    return chance.choice(moves)


assert POINTS_A_BATCH == 3  # what the expected states say


SLOW_SEEDS = [pytest.param(n, marks=pytest.mark.slow) for n in range(10, 500)]


@pytest.mark.parametrize("seed", [*range(10), *SLOW_SEEDS])
def test_what_fails_did_not_happen_and_what_succeeds_stays(seed: int) -> None:
    chance = random.Random(seed)
    sync = chance.choice(MODES)
    files = CrashFS()
    store = open_store(files, sync)
    expected: State = {}
    n_failed = 0
    for number in range(1, 60):
        if chance.random() < 0.3:
            kind = chance.choice(list(FAULTS))
            fail(files, kind, *chance.sample(FAULTS[kind], chance.randint(1, len(FAULTS[kind]))))
        do, becomes = a_move(chance, number)
        try:
            do(store)
            expected = becomes(expected)
        except OSError:
            n_failed += 1
        assert state(store) == expected, f"move {number}"
        if chance.random() < 0.5:
            files.fault = None
    assert n_failed
    files.fault = None
    assert store._flushing is not None
    store._flushing.wait_for_flush()
    store.flush()
    assert state(store) == expected
    again = open_store(files.crash(seed), sync)
    assert state(again) == expected
    assert again.stats()["log_damaged"] == 0
    store.close()


@pytest.mark.parametrize("sync", MODES)
@pytest.mark.parametrize("operation", ["append", "create"])
def test_a_refused_delete_was_never_seen(sync: SyncMode, operation: str) -> None:
    files = CrashFS()
    store = open_store(files, sync)
    store.append_batch(batch(1))
    store.flush()
    store.append_batch(batch(2))
    expected = state(store)  # which sorts it
    changes: list[Callable[[], object]] = [
        lambda: store.delete(DeleteRequest("cpu")),
        lambda: store.drop_measurement("cpu"),
        lambda: store.rewrite([ScanRequest("cpu")], add_hundred),
        lambda: store.append_batch(batch(2, 22)),
        store.reset,
    ]
    store.flush()  # the next frame begins a file
    fail(files, errno.ENOSPC, operation)
    for change in changes:
        with pytest.raises(StorageReadOnly, match="No space left on device"):
            change()
        assert state(store) == expected
    files.fault = None
    store.flush()
    assert state(store) == expected
    assert store.series_count() == POINTS_A_BATCH
    store.close()
    assert state(open_store(files.crash(0))) == expected


def test_a_write_shows_when_it_is_durable_and_not_before() -> None:
    files = CrashFS()
    store = open_store(files)
    store.append_batch(batch(1))
    may_go = threading.Event()
    seen: list[State] = []
    step = files._step

    def look(operation: str) -> None:
        if operation == "sync":
            seen.append(state(store))
            may_go.set()
        step(operation)

    files._step = look  # type: ignore[method-assign]
    store.append_batch(batch(2))
    assert may_go.is_set()
    assert seen == [{1: [1] * POINTS_A_BATCH}]
    assert state(store) == {1: [1] * POINTS_A_BATCH, 2: [2] * POINTS_A_BATCH}
    store.close()


def test_series_of_refused_points_are_forgotten_when_writing_works_again() -> None:
    files = CrashFS()
    store = open_store(files)
    fail(files, errno.EIO, "sync")
    with pytest.raises(StorageReadOnly):
        store.append_batch(batch(1))
    files.fault = None
    for number in (2, 3):
        builder = BatchBuilder()
        builder.add(series_key("mem", [("host", "a")]), number, [("v", 1)])
        store.append_batch(builder.build())
    assert store.measurements() == ["mem"]
    store.flush()
    store.close()
    assert open_store(files.crash(0)).measurements() == ["mem"]


def segment_files(files: CrashFS) -> set[str]:
    root = STORE / "segments"
    return {name for shard in files.names(root) for name in files.names(root / shard)}


@pytest.mark.parametrize("operation", ["create", "append", "sync", "replace", "sync_directory"])
def test_a_flush_or_compaction_that_fails_leaves_no_files(operation: str) -> None:
    files = CrashFS()
    store = open_store(files)
    for number in range(1, 9):
        store.append_batch(batch(number))
        store.flush()
    store.append_batch(batch(9))
    expected = state(store)
    for step in (store.flush, store.compact):
        for _ in range(3):
            before = segment_files(files)
            fail(files, errno.ENOSPC, operation)
            with pytest.raises(OSError, match="No space left"):
                step()
            files.fault = None
            assert state(store) == expected
            if not operation.startswith(("replace", "sync_d")):  # then the new manifest may hold
                assert segment_files(files) == before
        step()
    while store.compact():
        pass
    assert state(store) == expected
    store.flush()
    assert len(segment_files(files)) == store.stats()["segments"]
    store.close()


def flip_a_bit(files: CrashFS, chance: random.Random) -> None:
    """Damage a segment, if there is one."""
    segments = [path for path in sorted(files._names) if "segments" in path.parts]
    if segments:
        data = files._names[chance.choice(segments)].data
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


SLOW_FLIPS = [pytest.param(n, marks=pytest.mark.slow) for n in range(8, 300)]


@pytest.mark.parametrize("seed", [*range(8), *SLOW_FLIPS])
def test_whatever_is_damaged_answers_differ_inside_the_gaps_only(seed: int) -> None:
    chance = random.Random(seed)
    files = CrashFS()
    store = open_store(files)
    expected: State = {}

    def check() -> None:
        found = state(store)
        gaps = store.gaps("cpu", MIN_TIME_NS, MAX_TIME_NS)
        for number in found.keys() | expected.keys():
            if found.get(number) != expected.get(number):
                assert any(gap.first_ns <= number <= gap.last_ns for gap in gaps), number

    for number in range(1, 60):
        if chance.random() < 0.1:
            flip_a_bit(files, chance)
        do, becomes = a_move(chance, number)
        do(store)
        expected = becomes(expected)
        check()
        if chance.random() < 0.1:
            store.close()
            store = open_store(files)
            check()
    store.verify()
    check()
    gaps = len(store.gaps("cpu", MIN_TIME_NS, MAX_TIME_NS))
    store.close()
    # What is left is in order, and what is missing is known.
    found = [one for one in check_store(STORE, files) if one.is_error]
    assert len(found) == gaps, found
    assert all(one.path.parent.name == "quarantine" for one in found)
