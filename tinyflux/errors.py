"""What the engine raises, all of it.

    TinyFluxError
      QueryError (ValueError)            a query that can never be answered
      FieldTypeConflict (ValueError)     a value of another type than its field has
      LimitExceeded (RuntimeError)       a bound of the configuration was reached
        MemoryExceeded                   that of the memory; it says what needs less
      StorageError (OSError)
        CorruptionError                  bytes on disk that are not what was written
        StorageLocked                    another process owns the data directory
        StorageReadOnly                  the disk does not take this write now
      StorageClosed (ValueError)         used after close()

Each class also is the built-in that the TinyFlux API promises, so `except OSError` keeps working.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class TinyFluxError(Exception):
    """The root of everything the engine raises on purpose."""


class QueryError(TinyFluxError, ValueError):
    """A query that no data could answer."""


class FieldTypeConflict(TinyFluxError, ValueError):
    """A value whose type differs from the type its field already has."""


class LimitExceeded(TinyFluxError, RuntimeError):
    """A configured bound was reached: the request is refused, nothing is half done."""


class MemoryExceeded(LimitExceeded):
    """The memory budget has no room for what was asked; the text names a cheaper question."""


class StorageError(TinyFluxError, OSError):
    """The storage could not read or write."""


class CorruptionError(StorageError):
    """Bytes on disk are not what was written.

    Attributes:
        path: The damaged file.
        offset: Where in the file, in bytes; None when unknown.
        reason: What did not hold.
    """

    def __init__(self, path: Path, offset: int | None, reason: str) -> None:
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{path}{where}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


class StorageLocked(StorageError):
    """Another process owns the data directory."""


class StorageReadOnly(StorageError):
    """The disk does not take a write now; it was not acknowledged, and can be tried again."""


class StorageClosed(TinyFluxError, ValueError):
    """The storage was used after close()."""
