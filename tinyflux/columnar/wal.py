"""The write-ahead log: frames out and in, and group commit. FORMAT.md is the law for the bytes.

Writing. Frames queue up in the order of the writers. Whoever waits for durability takes the whole
queue, writes it at
once and syncs once, for all: no thread is in between when one writer is alone. A callback instead
of a wait is served by a committer thread, started when first needed.

Reading. `read_log` is pure: the bytes of a file give its frames, and what is no frame as `Damage`.

Invariants
- The queue order is the order in the file is the order in which the memtable gets the batches,
  each once it is durable: nothing refused was ever visible.
- After an error of write or sync the file is given up for good: what the kernel did is unknown, so
  nothing that comes later in it could count as durable. What was not acknowledged is cut off, and
  the next frame begins a new file. FORMAT.md, "When the disk fails", has the reasons.
- A file is synced before its successor is made, unless syncing is what failed.
"""

from __future__ import annotations

import enum
import logging
import os
import struct
import threading
import time
import zlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from tinyflux.columnar.files import log_name, log_number
from tinyflux.errors import LimitExceeded, StorageClosed, StorageReadOnly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tinyflux.columnar.files import AppendFile, FileSystem

logger = logging.getLogger(__name__)

MAGIC: Final = b"TFWAL\n"
VERSION: Final = 1
MARKER: Final = b"\xf7LFW"
MAX_PAYLOAD: Final = 1 << 30

_FILE_HEAD: Final = struct.Struct("<6sHI")  # magic, version, salt; then its CRC
_FRAME_HEAD: Final = struct.Struct("<4sIB3xI")  # marker, length, kind, payload CRC; then its CRC
_CRC: Final = struct.Struct("<I")
_HEAD_COPY_SIZE: Final = _FILE_HEAD.size + _CRC.size
FILE_HEAD_SIZE: Final = 2 * _HEAD_COPY_SIZE
FRAME_HEAD_SIZE: Final = _FRAME_HEAD.size + _CRC.size

Report: TypeAlias = "Callable[[Exception | None], None]"
SyncMode: TypeAlias = Literal["always", "group", "interval", "off"]
SYNC_MODES: Final = ("always", "group", "interval", "off")


class Kind(enum.IntEnum):
    """What a frame says. The numbers are on disk and never change."""

    BATCH = 1
    DELETE = 2
    DROP_MEASUREMENT = 3
    REWRITE = 4
    RENAME_MEASUREMENT = 5
    DROP_FIELD = 6


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a log file.

    Attributes:
        offset: Where it begins.
        end: Where it ends.
        kind: What it says.
        payload: How; a view of the bytes of the file.
    """

    offset: int
    end: int
    kind: Kind
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a log file that are no frame.

    Attributes:
        offset: Where they begin.
        end: Where they end.
        reason: What did not hold.
        is_tail: Nothing readable follows them in the file.
    """

    offset: int
    end: int
    reason: str
    is_tail: bool


def file_head(salt: int) -> bytes:
    """Return the first FILE_HEAD_SIZE bytes of a log file."""
    head = _FILE_HEAD.pack(MAGIC, VERSION, salt)
    return 2 * (head + _CRC.pack(zlib.crc32(head)))


def frame_bytes(kind: Kind, payload: bytes, salt: int) -> tuple[bytes, bytes]:
    """Return head and payload of a frame.

    Raises:
        LimitExceeded: A payload of more than MAX_PAYLOAD bytes.
    """
    if len(payload) > MAX_PAYLOAD:
        raise LimitExceeded(f"write of {len(payload)} bytes: the most is {MAX_PAYLOAD}")
    head = _FRAME_HEAD.pack(MARKER, len(payload), kind, zlib.crc32(payload, salt))
    return head + _CRC.pack(zlib.crc32(head, salt)), payload


def read_log(data: bytes) -> Iterator[Frame | Damage]:
    """Yield the frames of a log file and the damage between them; together they cover it."""
    salt = _salt(data)
    if salt is None:
        is_tail = len(data) <= FILE_HEAD_SIZE  # the file was just made: no frame can be lost
        yield Damage(0, len(data), "head of the file is damaged", is_tail)
        return
    view = memoryview(data)
    at = FILE_HEAD_SIZE
    while at < len(data):
        found = _read_frame(view, at, salt)
        if isinstance(found, Frame):
            yield found
        else:
            found = _bound(data, found, salt)
            yield found
        at = found.end


def _salt(data: bytes) -> int | None:
    """Return the salt of a log file from whichever copy of its head is whole."""
    for start in (0, _HEAD_COPY_SIZE):
        head = data[start : start + _FILE_HEAD.size]
        crc = data[start + _FILE_HEAD.size : start + _HEAD_COPY_SIZE]
        if len(crc) == _CRC.size and _CRC.pack(zlib.crc32(head)) == crc:
            magic, version, salt = _FILE_HEAD.unpack(head)
            if magic == MAGIC and version == VERSION:
                return int(salt)
    return None


def _read_frame(view: memoryview, at: int, salt: int) -> Frame | Damage:
    """Return the frame at an offset. The end of a Damage is 0 when it is unknown."""
    head = view[at : at + FRAME_HEAD_SIZE]
    if len(head) < FRAME_HEAD_SIZE:
        return Damage(at, len(view), "frame ends early", is_tail=True)
    marker, length, kind, payload_crc = _FRAME_HEAD.unpack(head[: _FRAME_HEAD.size])
    (head_crc,) = _CRC.unpack(head[_FRAME_HEAD.size :])
    if marker != MARKER or zlib.crc32(head[: _FRAME_HEAD.size], salt) != head_crc:
        return Damage(at, 0, "head of a frame is damaged", is_tail=False)
    end = at + FRAME_HEAD_SIZE + length
    if end > len(view):
        return Damage(at, len(view), "frame ends early", is_tail=True)
    payload = view[at + FRAME_HEAD_SIZE : end]
    if zlib.crc32(payload, salt) != payload_crc:
        return Damage(at, end, "checksum of a frame does not match", is_tail=end == len(view))
    try:
        return Frame(at, end, Kind(kind), payload)
    except ValueError:
        return Damage(at, end, f"frame of unknown kind {kind}", is_tail=False)


def _bound(data: bytes, damage: Damage, salt: int) -> Damage:
    """Return a damage with its end, which for a damaged frame head is the next valid one."""
    if damage.end:
        return damage
    at = damage.offset + 1
    while (at := data.find(MARKER, at)) >= 0:
        head = data[at : at + FRAME_HEAD_SIZE]
        body, crc = head[: _FRAME_HEAD.size], head[_FRAME_HEAD.size :]
        if len(crc) == _CRC.size and _CRC.pack(zlib.crc32(body, salt)) == crc:
            return Damage(damage.offset, at, damage.reason, is_tail=False)
        at += 1
    return Damage(damage.offset, len(data), damage.reason, is_tail=True)


class Entry:
    """A frame on its way to the disk.

    Attributes:
        done: Whether its fate is known.
        error: Why it is not durable, once done; None when it is.
    """

    __slots__ = ("_settle", "callback", "done", "error", "kind", "payload")

    def __init__(
        self, kind: Kind, payload: bytes, settle: Report | None, callback: Report | None
    ) -> None:
        self.kind = kind
        self.payload = payload
        self.callback = callback
        self.done = False
        self.error: Exception | None = None
        self._settle = settle

    def settle(self, error: Exception | None) -> None:
        """Learn the fate, and have what the frame says applied, or forgotten."""
        self.error = error
        try:
            if self._settle is not None:
                self._settle(error)
        except Exception as exc:
            # On disk and not in memory, so it shows at the next opening; that is no success.
            logger.exception("a durable frame could not be applied")
            self.error = exc
        self.done = True


class Log:
    """The log of one open store: takes frames, makes them durable.

    Args:
        directory: Where the files are; it exists.
        files: The file system.
        number: Number of the first file to write.
        sync: When a frame counts as durable; see FORMAT.md.
        interval_s: How often mode "interval" syncs.
        max_file_bytes: A file that is at least this long is the last but one.
        max_queue_bytes: Writers wait while more than this is queued.
        idle_s: After so long without work the committer thread ends: a store that nobody writes
            to costs none.

    Attributes:
        number: Number of the file that the next frame goes to.
        n_bytes: Bytes written by this log so far.
        n_syncs: How often it synced so far.
        n_failures: How often writing or syncing failed so far.
        is_failing: Writing or syncing failed, and no frame was written since.
        is_suspect: What is on the disk may not be what was acknowledged: a sync failed that came
            after the acknowledgement, or what was refused could not be cut off. Only a flush, which
            drops that file, settles it.
    """

    def __init__(
        self,
        directory: Path,
        files: FileSystem,
        number: int,
        *,
        sync: SyncMode = "group",
        interval_s: float = 1.0,
        max_file_bytes: int = 64 << 20,
        max_queue_bytes: int = 64 << 20,
        idle_s: float = 10.0,
    ) -> None:
        self.number = number
        self.n_bytes = 0
        self.n_syncs = 0
        self.n_failures = 0
        self.is_failing = False
        self.is_suspect = False
        self._directory = directory
        self._files = files
        self._mode = sync
        self._interval_s = interval_s
        self._max_file_bytes = max_file_bytes
        self._max_queue_bytes = max_queue_bytes
        self._idle_s = idle_s
        self._queue: deque[Entry] = deque()
        self._queued_bytes = 0
        self._lock = threading.Lock()  # guards the queue and the flags
        self._changed = threading.Condition(self._lock)  # for those who wait for others' work
        self._work = threading.Condition(self._lock)  # for the committer: not woken without any
        self._is_committing = False  # somebody has the file
        self._file: AppendFile | None = None
        self._file_bytes = 0
        self._kept_bytes = 0  # of the file: its head and what was acknowledged
        self._suspect_number = 0  # of the last file that could not be synced
        self._salt = 0
        self._is_dirty = False
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Raise when nothing can be appended.

        Raises:
            StorageClosed: After close().
        """
        if self._is_closed:
            raise StorageClosed("I/O operation on closed storage")

    def append(
        self,
        kind: Kind,
        payload: bytes,
        *,
        settle: Report | None = None,
        callback: Report | None = None,
    ) -> Entry:
        """Queue a frame; its place in the log is settled then.

        Args:
            kind: What it says.
            payload: How.
            settle: Called from any thread when the frame is as durable as the mode promises (None)
                or cannot be (the error): in the order of the frames, one at a time, before anybody
                else learns of it. It must be quick and must not use the log.
            callback: Called then, from any other thread. It must be quick and must not use the
                store. Without it, somebody has to call `wait`.

        Raises:
            StorageClosed: After close().
            LimitExceeded: More than MAX_PAYLOAD bytes.
        """
        if len(payload) > MAX_PAYLOAD:
            raise LimitExceeded(f"write of {len(payload)} bytes: the most is {MAX_PAYLOAD}")
        entry = Entry(kind, payload, settle, callback)
        with self._changed:
            self.check()
            while self._queued_bytes > self._max_queue_bytes:
                self._start_thread()
                self._work.notify()  # the committer may sleep: nobody had asked it for this
                self._changed.wait()
                self.check()
            self._queue.append(entry)
            self._queued_bytes += len(payload)
            if callback is not None or self._mode == "interval":
                self._start_thread()
                self._work.notify()
        return entry

    def wait(self, entry: Entry) -> None:
        """Return when a frame is as durable as the mode promises.

        Raises:
            StorageReadOnly: It did not become durable, and never will.
        """
        while self._enter(unless=entry):
            self._commit()
        if entry.error is not None:
            raise entry.error

    def sync(self) -> None:
        """Make everything queued so far durable, whatever the mode.

        Raises:
            StorageReadOnly: It cannot become durable.
        """
        self._drain()
        error = self._alone(self._sync_file)
        if error is not None:
            raise error
        self.check()

    def drain(self) -> None:
        """Return when everything queued so far is settled."""
        self._drain()
        self._alone(lambda: None)

    def rotate(self) -> int:
        """Return a file number: what was queued before is in older files, later frames are not.

        The caller keeps other writers out meanwhile, and writes what the older files say to
        segments. So it does not matter when the last of them cannot be synced.
        """
        self._drain()
        self._alone(self._close_file)
        self.check()
        return self.number

    def drop_before(self, number: int) -> None:
        """Remove the files with a smaller number: all they say is in segments."""
        if number > self._suspect_number:
            self.is_suspect = False
        names = self._files.names(self._directory)
        old = [name for name in names if (n := log_number(name)) is not None and n < number]
        for name in old:
            self._files.unlink(self._directory / name)
        if old:
            self._files.sync_directory(self._directory)

    def close(self) -> None:
        """Make everything durable and close; called twice it does nothing.

        Raises:
            StorageReadOnly: The last frames could not be made durable.
        """
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._changed.notify_all()
            self._work.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._drain()
        error = self._alone(self._close_file)
        if error is not None:
            raise error

    # Committing

    def _drain(self) -> None:
        while self._queue:
            self._enter()
            self._commit()

    def _enter(self, unless: Entry | None = None) -> bool:
        """Wait for the file; return False, without it, once the entry is done."""
        with self._changed:
            while self._is_committing and not (unless is not None and unless.done):
                self._changed.wait()
            if unless is not None and unless.done:
                return False
            self._is_committing = True
            return True

    def _leave(self) -> None:
        with self._changed:
            self._is_committing = False
            self._changed.notify_all()

    def _commit(self) -> None:
        """Write what is queued, settle the entries, then call the callbacks.

        The caller has entered, and has left when this returns.
        """
        try:
            entries = self._take()
            error = self._try(lambda: self._write(entries)) if entries else None
            for entry in entries:
                entry.settle(error)
        finally:
            self._leave()
        for entry in entries:
            if entry.callback is not None:
                _call(entry.callback, entry.error)

    def _alone(self, step: Callable[[], None]) -> StorageReadOnly | None:
        """Do a step on the file while nobody else has it. Returns why it failed."""
        self._enter()
        try:
            return self._try(step)
        finally:
            self._leave()

    def _take(self) -> list[Entry]:
        with self._changed:
            if self._mode == "always":
                entries = [self._queue.popleft()] if self._queue else []
            else:
                entries = list(self._queue)
                self._queue.clear()
            was_full = self._queued_bytes > self._max_queue_bytes
            self._queued_bytes -= sum(len(entry.payload) for entry in entries)
            if was_full:
                self._changed.notify_all()
        return entries

    def _try(self, step: Callable[[], None]) -> StorageReadOnly | None:
        """Do a step on the file; return why it failed. The caller has entered."""
        try:
            step()
        except Exception as exc:  # noqa: BLE001  # whatever it was, the end of the file is unknown
            self.n_failures += 1
            if not self.is_failing:  # said once, not for each write that is refused
                logger.error("log failed: directory=%s error=%s", self._directory, exc)
            self.is_failing = True
            self._give_up_file()
            return StorageReadOnly(f"log could not be written: {exc}")
        return None

    def _write(self, entries: list[Entry]) -> None:
        file = self._file or self._open_file()
        buffers: list[bytes] = []
        for entry in entries:
            buffers += frame_bytes(entry.kind, entry.payload, self._salt)
        n_bytes = sum(map(len, buffers))
        file.append(buffers)
        self._is_dirty = True
        self._file_bytes += n_bytes
        self.n_bytes += n_bytes
        if self._mode in ("always", "group"):
            self._sync_file()
        self._kept_bytes = self._file_bytes
        if self.is_failing:
            logger.warning("log works again: directory=%s", self._directory)
            self.is_failing = False
        if self._file_bytes >= self._max_file_bytes:
            self._close_file()

    def _open_file(self) -> AppendFile:
        self._salt = int.from_bytes(os.urandom(4), "little")
        file = self._files.create(self._directory / log_name(self.number))
        self._file = file
        self._kept_bytes = self._file_bytes = FILE_HEAD_SIZE
        file.append([file_head(self._salt)])
        self._files.sync_directory(self._directory)
        self.n_bytes += FILE_HEAD_SIZE
        return file

    def _sync_file(self) -> None:
        if self._file is not None and self._is_dirty:
            self._file.sync()
            self.n_syncs += 1
            self._is_dirty = False

    def _close_file(self) -> None:
        """End the current file, so that the next frame begins a new one."""
        if self._file is not None:
            if self._mode != "off":
                self._sync_file()
            self._file.close()
            self._file = None
            self._is_dirty = False
            self.number += 1

    def _give_up_file(self) -> None:
        """End the current file, less what nobody was told of, after it could not be written."""
        file, self._file = self._file, None
        if file is None:
            return
        path = self._directory / log_name(self.number)
        if self._is_dirty and self._mode in ("interval", "off"):
            self.is_suspect, self._suspect_number = True, self.number
        self._is_dirty = False
        self.number += 1
        try:
            file.close()
            if self._kept_bytes > FILE_HEAD_SIZE:
                self._files.truncate(path, self._kept_bytes)
            else:
                self._files.unlink(path)
        except OSError as exc:
            self.is_suspect, self._suspect_number = True, self.number - 1
            logger.warning("end of a log could not be cut off: path=%s error=%s", path, exc)

    # The committer thread

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"log {self._directory}", daemon=True
            )
            self._thread.start()

    def _run(self) -> None:
        last_sync = time.monotonic()
        while True:
            with self._changed:
                if self._is_closed and not self._queue:
                    return
                if not self._queue:
                    has_news = self._work.wait(
                        self._interval_s if self._mode == "interval" else self._idle_s
                    )
                    if not (has_news or self._queue or self._is_dirty or self._is_committing):
                        self._thread = None  # whoever appends starts another
                        return
            self._enter()
            self._commit()
            if self._mode == "interval" and time.monotonic() - last_sync >= self._interval_s:
                self._alone(self._sync_file)
                last_sync = time.monotonic()


def _call(callback: Report, error: Exception | None) -> None:
    try:
        callback(error)
    except Exception:
        # The frames of other writers must not suffer from it.
        logger.exception("callback of a write failed")
