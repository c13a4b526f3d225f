"""The log: frames out and in, damage, group commit, failures."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tinyflux.columnar.files import OsFiles, log_name
from tinyflux.columnar.wal import (
    FILE_HEAD_SIZE,
    MARKER,
    SYNC_MODES,
    Damage,
    Frame,
    Kind,
    Log,
    file_head,
    frame_bytes,
    read_log,
)
from tinyflux.errors import StorageClosed, StorageReadOnly

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tinyflux.columnar.files import AppendFile
    from tinyflux.columnar.wal import SyncMode

SALT = 12345
PAYLOADS = [b"first", b"", b"third, longer" * 3, b"\x00" * 7]


def log_bytes(payloads: Sequence[bytes] = PAYLOADS) -> bytes:
    frames = [b"".join(frame_bytes(Kind.BATCH, payload, SALT)) for payload in payloads]
    return file_head(SALT) + b"".join(frames)


def frames_of(data: bytes) -> list[bytes]:
    return [bytes(item.payload) for item in read_log(data) if isinstance(item, Frame)]


def damage_of(data: bytes) -> list[Damage]:
    return [item for item in read_log(data) if isinstance(item, Damage)]


def ends() -> list[int]:
    """Where each frame of log_bytes() ends."""
    return [len(log_bytes(PAYLOADS[: n + 1])) for n in range(len(PAYLOADS))]


def test_frames_are_read_as_they_were_written() -> None:
    assert frames_of(log_bytes()) == PAYLOADS
    assert damage_of(log_bytes()) == []


def test_a_log_cut_at_any_byte_gives_every_complete_frame() -> None:
    data = log_bytes()
    for size in range(FILE_HEAD_SIZE, len(data) + 1):
        complete = sum(end <= size for end in ends())
        assert frames_of(data[:size]) == PAYLOADS[:complete]
        damage = damage_of(data[:size])
        assert len(damage) == (size not in (FILE_HEAD_SIZE, *ends()))
        assert all(item.is_tail for item in damage)


def test_a_log_cut_inside_its_head_gives_no_frame() -> None:
    for size in range(1, FILE_HEAD_SIZE // 2):
        (damage,) = damage_of(log_bytes()[:size])
        assert damage.is_tail
        assert frames_of(log_bytes()[:size]) == []


def test_every_flipped_bit_costs_its_frame_and_no_other() -> None:
    data = log_bytes()
    for at in range(FILE_HEAD_SIZE, len(data)):
        hit = sum(end <= at for end in ends())
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            assert frames_of(bytes(damaged)) == PAYLOADS[:hit] + PAYLOADS[hit + 1 :]
            (damage,) = damage_of(bytes(damaged))
            assert damage.offset == (FILE_HEAD_SIZE, *ends())[hit]
            assert damage.end == ends()[hit]


def test_a_flipped_bit_in_the_head_of_the_file_costs_nothing() -> None:
    data = log_bytes()
    for at in range(FILE_HEAD_SIZE):
        damaged = bytearray(data)
        damaged[at] ^= 1
        assert frames_of(bytes(damaged)) == PAYLOADS


def test_a_file_without_a_head_is_damage_and_no_torn_tail() -> None:
    data = bytes(FILE_HEAD_SIZE) + log_bytes()[FILE_HEAD_SIZE:]
    (damage,) = damage_of(data)
    assert (damage.offset, damage.end, damage.is_tail) == (0, len(data), False)


def test_a_lost_stretch_is_stepped_over_to_the_next_frame() -> None:
    data = bytearray(log_bytes())
    data[ends()[0] : ends()[2]] = bytes(ends()[2] - ends()[0])
    assert frames_of(bytes(data)) == [PAYLOADS[0], PAYLOADS[3]]
    (damage,) = damage_of(bytes(data))
    assert (damage.offset, damage.end, damage.is_tail) == (ends()[0], ends()[2], False)


def test_bytes_that_look_like_a_frame_of_another_file_are_none() -> None:
    forged = b"".join(frame_bytes(Kind.DROP_MEASUREMENT, b"cpu", SALT + 1))
    data = bytearray(log_bytes([b"xx" + forged, b"last"]))
    data[FILE_HEAD_SIZE] ^= 1  # the head of the frame that holds the forgery
    assert MARKER in data[FILE_HEAD_SIZE + 4 :]
    assert frames_of(bytes(data)) == [b"last"]


def test_a_frame_of_a_kind_from_the_future_is_stepped_over() -> None:
    unknown = b"".join(frame_bytes(77, b"?", SALT))  # type: ignore[arg-type]
    data = log_bytes([b"a"]) + unknown + log_bytes([b"b"])[FILE_HEAD_SIZE:]
    assert frames_of(data) == [b"a", b"b"]


class CountingFile:
    """An AppendFile that counts, and can be told to fail or to wait."""

    def __init__(self, files: CountingFiles, file: AppendFile) -> None:
        self._files = files
        self._file = file

    def append(self, buffers: Sequence[bytes]) -> None:
        self._files.events.append("append")
        if self._files.fail_on == "append":
            raise OSError(28, "No space left on device")
        self._file.append(buffers)

    def sync(self) -> None:
        self._files.may_sync.wait()
        self._files.events.append("sync")
        if self._files.fail_on == "sync":
            raise OSError(5, "Input/output error")
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class CountingFiles(OsFiles):
    """The real file system, watched."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fail_on = ""
        self.may_sync = threading.Event()
        self.may_sync.set()

    def create(self, path: Path) -> CountingFile:  # type: ignore[override]
        return CountingFile(self, super().create(path))


def read_directory(directory: Path) -> list[bytes]:
    names = [name for name in OsFiles().names(directory) if name.endswith(".wal")]
    return [payload for name in names for payload in frames_of((directory / name).read_bytes())]


@pytest.mark.parametrize("mode", SYNC_MODES)
def test_what_was_waited_for_is_in_the_file_in_every_mode(tmp_path: Path, mode: SyncMode) -> None:
    log = Log(tmp_path, OsFiles(), 1, sync=mode)
    for payload in PAYLOADS:
        log.wait(log.append(Kind.BATCH, payload))
    assert read_directory(tmp_path) == PAYLOADS
    log.close()


@pytest.mark.parametrize(
    ("mode", "syncs"), [("always", 3), ("group", 3), ("interval", 0), ("off", 0)]
)
def test_a_mode_syncs_as_often_as_it_says(tmp_path: Path, mode: SyncMode, syncs: int) -> None:
    log = Log(tmp_path, OsFiles(), 1, sync=mode, interval_s=3600)
    for payload in PAYLOADS[:3]:
        log.wait(log.append(Kind.BATCH, payload))
    assert log.n_syncs == syncs
    log.close()


def test_mode_interval_syncs_by_itself(tmp_path: Path) -> None:
    files = CountingFiles()
    log = Log(tmp_path, files, 1, sync="interval", interval_s=0.001)
    log.wait(log.append(Kind.BATCH, b"x"))
    deadline = threading.Event()
    for _ in range(2000):
        if "sync" in files.events:
            break
        deadline.wait(0.005)
    assert "sync" in files.events
    log.close()


def test_writers_that_wait_together_share_one_sync(tmp_path: Path) -> None:
    files = CountingFiles()
    log = Log(tmp_path, files, 1)
    files.may_sync.clear()  # the first one hangs in its sync; all others queue up behind it
    first = threading.Thread(target=lambda: log.wait(log.append(Kind.BATCH, b"first")))
    first.start()
    while "append" not in files.events[1:]:
        threading.Event().wait(0.001)
    entries = [log.append(Kind.BATCH, b"%d" % i) for i in range(20)]
    others = [threading.Thread(target=log.wait, args=(entry,)) for entry in entries]
    for thread in others:
        thread.start()
    files.may_sync.set()
    for thread in (first, *others):
        thread.join(30)
    assert log.n_syncs == 2
    assert read_directory(tmp_path) == [b"first", *(b"%d" % i for i in range(20))]
    log.close()


def test_a_callback_comes_from_another_thread_after_the_sync(tmp_path: Path) -> None:
    files = CountingFiles()
    log = Log(tmp_path, files, 1)
    called = threading.Event()
    seen: list[tuple[Exception | None, bool, int]] = []

    def callback(error: Exception | None) -> None:
        here = threading.current_thread() is threading.main_thread()
        seen.append((error, here, files.events.count("sync")))
        called.set()

    log.append(Kind.BATCH, b"x", callback=callback)
    assert called.wait(30)
    assert seen == [(None, False, 1)]
    log.close()


def test_a_log_without_work_has_no_thread_and_starts_one_when_needed(tmp_path: Path) -> None:
    log = Log(tmp_path, OsFiles(), 1, idle_s=0.001)
    for payload in (b"a", b"b"):
        done = threading.Event()
        log.append(Kind.BATCH, payload, callback=lambda _, done=done: done.set())  # type: ignore[misc]
        assert done.wait(30)
        thread = log._thread
        if thread is not None:
            thread.join(30)
        assert log._thread is None
    log.close()
    assert read_directory(tmp_path) == [b"a", b"b"]


def test_a_callback_that_raises_does_not_hurt_the_others(tmp_path: Path) -> None:
    log = Log(tmp_path, OsFiles(), 1)
    done = threading.Event()

    def fail(error: Exception | None) -> None:
        raise RuntimeError("a bug of the caller")

    log.append(Kind.BATCH, b"a", callback=fail)
    log.append(Kind.BATCH, b"b", callback=lambda _: done.set())
    assert done.wait(30)
    log.close()


@pytest.mark.parametrize("step", ["append", "sync"])
def test_an_error_ends_the_file_and_the_next_frame_begins_a_new_one(
    tmp_path: Path, step: str
) -> None:
    files = CountingFiles()
    log = Log(tmp_path, files, 1)
    log.wait(log.append(Kind.BATCH, b"good"))
    files.fail_on = step
    for _ in range(2):
        with pytest.raises(StorageReadOnly, match="could not be written"):
            log.wait(log.append(Kind.BATCH, b"lost"))
        assert log.is_failing
    files.fail_on = ""
    log.wait(log.append(Kind.BATCH, b"later"))
    assert not log.is_failing
    assert log.n_failures == 2
    log.close()
    # what was not acknowledged is gone, and so is the file that held nothing else
    assert files.names(tmp_path) == [log_name(1), log_name(3)]
    assert read_directory(tmp_path) == [b"good", b"later"]


def test_frames_acknowledged_before_a_failed_sync_stay_and_ask_for_a_flush(tmp_path: Path) -> None:
    files = CountingFiles()
    log = Log(tmp_path, files, 1, sync="off")
    log.wait(log.append(Kind.BATCH, b"acknowledged"))
    files.fail_on = "sync"
    with pytest.raises(StorageReadOnly):
        log.sync()
    assert log.is_suspect
    files.fail_on = ""
    log.wait(log.append(Kind.BATCH, b"later"))
    assert read_directory(tmp_path) == [b"acknowledged", b"later"]
    log.drop_before(log.rotate())  # as a flush does
    assert not log.is_suspect
    log.close()


def test_everybody_who_waits_learns_of_the_error(tmp_path: Path) -> None:
    files = CountingFiles()
    log = Log(tmp_path, files, 1)
    files.fail_on = "sync"
    told = threading.Event()
    errors: list[Exception | None] = []
    files.may_sync.clear()

    def callback(error: Exception | None) -> None:
        errors.append(error)
        told.set()

    log.append(Kind.BATCH, b"a", callback=callback)
    entry = log.append(Kind.BATCH, b"b")
    files.may_sync.set()
    with pytest.raises(StorageReadOnly):
        log.wait(entry)
    assert told.wait(30)
    assert isinstance(errors[0], StorageReadOnly)
    log.close()


def test_a_long_file_is_followed_by_the_next_number(tmp_path: Path) -> None:
    log = Log(tmp_path, OsFiles(), 7, max_file_bytes=100)
    for i in range(5):
        log.wait(log.append(Kind.BATCH, b"%d" % i + b"x" * 60))
    log.close()
    assert OsFiles().names(tmp_path) == [log_name(n) for n in range(7, 12)]
    assert [payload[:1] for payload in read_directory(tmp_path)] == [b"0", b"1", b"2", b"3", b"4"]


def test_rotate_separates_what_was_before_from_what_comes_after(tmp_path: Path) -> None:
    log = Log(tmp_path, OsFiles(), 1)
    log.append(Kind.BATCH, b"before")
    number = log.rotate()
    log.wait(log.append(Kind.BATCH, b"after"))
    log.drop_before(number)
    assert read_directory(tmp_path) == [b"after"]
    assert OsFiles().names(tmp_path) == [log_name(number)]
    log.close()


def test_a_file_is_only_made_when_something_is_written(tmp_path: Path) -> None:
    log = Log(tmp_path, OsFiles(), 1)
    assert log.rotate() == 1
    log.close()
    assert OsFiles().names(tmp_path) == []


def test_closing_makes_the_rest_durable_and_is_final(tmp_path: Path) -> None:
    log = Log(tmp_path, OsFiles(), 1)
    log.append(Kind.BATCH, b"not waited for")
    log.close()
    log.close()
    assert read_directory(tmp_path) == [b"not waited for"]
    with pytest.raises(StorageClosed):
        log.append(Kind.BATCH, b"late")


def test_writers_wait_while_the_queue_is_full(tmp_path: Path) -> None:
    log = Log(tmp_path, OsFiles(), 1, max_queue_bytes=1000)
    threads = [
        threading.Thread(
            target=lambda: [
                log.append(Kind.BATCH, b"x" * 400, callback=lambda _: None) for _ in range(50)
            ]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    log.close()
    assert len(read_directory(tmp_path)) == 200


def test_a_full_queue_is_written_even_if_nobody_waits(tmp_path: Path) -> None:
    log = Log(tmp_path, OsFiles(), 1, max_queue_bytes=100)
    log.append(Kind.BATCH, b"wakes the thread", callback=lambda _: None)
    for i in range(20):
        log.append(Kind.BATCH, b"%02d" % i * 50)
    log.close()
    assert len(read_directory(tmp_path)) == 21
