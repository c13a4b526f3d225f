"""Names on disk, and the one seam to the file system.

Everything durable goes through a `FileSystem`, so that tests can put one in its place that forgets
what was not synced. FORMAT.md says what the files hold.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from tinyflux.errors import StorageLocked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOCK_NAME: Final = "lock"
LOG_DIRECTORY: Final = "wal"
QUARANTINE_DIRECTORY: Final = "quarantine"
MANIFEST_NAME: Final = "manifest"
NAMES_NAME: Final = "names"
SERIES_DIRECTORY: Final = "series"
SEGMENT_DIRECTORY: Final = "segments"
_LOG_SUFFIX: Final = ".wal"
_SEGMENT_SUFFIX: Final = ".parquet"
_GAP_SUFFIX: Final = ".json"
_MOST_BUFFERS: Final = 1024  # IOV_MAX of Linux and macOS


def log_name(number: int) -> str:
    """Return the name of a log file."""
    return f"{number:06d}{_LOG_SUFFIX}"


def log_number(name: str) -> int | None:
    """Return the number of a log file, None for any other name."""
    return _number(name, _LOG_SUFFIX)


def series_name(number: int) -> str:
    """Return the name of a series file."""
    return f"{number:06d}.series"


def segment_name(number: int) -> str:
    """Return the name of a segment."""
    return f"{number:06d}{_SEGMENT_SUFFIX}"


def gap_name(number: int) -> str:
    """Return the name of the file that says what a damaged segment took along."""
    return f"{number:06d}{_GAP_SUFFIX}"


def gap_number(name: str) -> int | None:
    """Return the number of the segment that such a file is about, None for any other name."""
    return _number(name, _GAP_SUFFIX)


def segment_number(name: str) -> int | None:
    """Return the number of a segment, None for any other name."""
    return _number(name, _SEGMENT_SUFFIX)


def _number(name: str, suffix: str) -> int | None:
    stem = name.removesuffix(suffix)
    return int(stem) if stem != name and stem.isascii() and stem.isdigit() else None


def shard_name(shard_ns: int) -> str:
    """Return the name of a shard's directory: its first second in UTC, for the reader's eye."""
    start = datetime.fromtimestamp(0, UTC) + timedelta(seconds=shard_ns // 1_000_000_000)
    return f"{start:%Y%m%dT%H%M%SZ}"


class AppendFile(Protocol):
    """A file that is written from its beginning to its end, once."""

    def append(self, buffers: Sequence[bytes]) -> None:
        """Write at the end. After an error the end of the file is unknown."""

    def sync(self) -> None:
        """Return when everything appended is on the disk."""

    def close(self) -> None:
        """Close without syncing."""


class FileSystem(Protocol):
    """The operations on files that a store needs. Every error is an OSError."""

    def make_directory(self, path: Path) -> None:
        """Make a directory and its parents, durably; fine when it is there."""

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted; [] when there is none."""

    def read(self, path: Path) -> bytes:
        """Return all bytes of a file."""

    def readable(self, path: Path) -> Path | BinaryIO:
        """Return what a library can read a file from: its path, or an open file.

        Raises:
            FileNotFoundError: It is not there.
        """

    def create(self, path: Path) -> AppendFile:
        """Make a new file; its name is durable after `sync_directory`.

        Raises:
            FileExistsError: It is there.
        """

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file to a size, durably."""

    def replace(self, source: Path, target: Path) -> None:
        """Rename over whatever is there; durable after `sync_directory`."""

    def unlink(self, path: Path) -> None:
        """Remove a file; durable after `sync_directory`. Fine when it is gone."""

    def sync_directory(self, directory: Path) -> None:
        """Make the names in a directory durable."""

    def lock(self, path: Path) -> Lock:
        """Take the lock of a store.

        Raises:
            StorageLocked: Another process, or another storage of this one, has it.
        """


class Lock(Protocol):
    """A lock that is held."""

    def release(self) -> None:
        """Let it go; called twice it does nothing."""


def write_file(files: FileSystem, path: Path, data: bytes) -> None:
    """Put bytes in the place of a file, as a whole or not at all, durably."""
    temporary = path.with_name(path.name + ".tmp")
    files.unlink(temporary)
    file = files.create(temporary)
    try:
        file.append([data])
        file.sync()
    finally:
        file.close()
    files.replace(temporary, path)
    files.sync_directory(path.parent)


class OsFile:
    """An AppendFile of the operating system."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def append(self, buffers: Sequence[bytes]) -> None:
        """Write at the end."""
        pending = [buffer for buffer in buffers if buffer]
        while pending:
            written = os.writev(self._fd, pending[:_MOST_BUFFERS])
            while pending and written >= len(pending[0]):
                written -= len(pending.pop(0))
            if written:  # the kernel stopped inside a buffer
                pending[0] = pending[0][written:]

    def sync(self) -> None:
        """Return when everything appended is on the disk."""
        # macOS has no fdatasync; its fsync stops at the cache of the drive, as elsewhere.
        getattr(os, "fdatasync", os.fsync)(self._fd)

    def close(self) -> None:
        """Close without syncing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class OsLock:
    """An flock on a file, which the kernel releases when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise StorageLocked(
                f"data directory is in use by process {owner}: {path.parent}"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the lock go. The file stays: removing it would let two owners in."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class OsFiles:
    """The file system of the operating system."""

    def make_directory(self, path: Path) -> None:
        """Make a directory and its parents, durably."""
        missing = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for made in missing:
            self.sync_directory(made.parent)

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted."""
        try:
            return sorted(path.name for path in directory.iterdir())
        except FileNotFoundError:
            return []

    def read(self, path: Path) -> bytes:
        """Return all bytes of a file."""
        return path.read_bytes()

    def readable(self, path: Path) -> Path:
        """Return the path of a file."""
        return path

    def create(self, path: Path) -> OsFile:
        """Make a new file."""
        return OsFile(path)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file to a size, durably."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, source: Path, target: Path) -> None:
        """Rename over whatever is there."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)

    def sync_directory(self, directory: Path) -> None:
        """Make the names in a directory durable."""
        fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: Path) -> OsLock:
        """Take the lock of a store."""
        return OsLock(path)
