"""What is around an operation of the database: the lock, and whether the storage allows it.

The decorators are part of the TinyFlux API (`tinyflux.database` has them too).
"""

# ruff: noqa: SLF001  (the decorators are a part of the database)

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from tinyflux.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinyflux.database import TinyFlux

P = ParamSpec("P")
R = TypeVar("R")


class RefusedError(StorageError, AssertionError):
    """A storage says, by a False, that it cannot be appended to, read or written."""


def append_op(
    method: Callable[Concatenate[TinyFlux, P], R],
) -> Callable[Concatenate[TinyFlux, P], R]:
    """Decorate an operation that appends: the storage must allow it, and nobody is in between.

    Raises:
        OSError: When called, if the storage cannot be appended to.
    """

    @wraps(method)
    def op(self: TinyFlux, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            demand(self._storage.can_append, "appended to")
            return method(self, *args, **kwargs)

    return op


def read_op(
    method: Callable[Concatenate[TinyFlux, P], R],
) -> Callable[Concatenate[TinyFlux, P], R]:
    """Decorate an operation that reads: the storage must allow it, and the index is made valid.

    Raises:
        OSError: When called, if the storage cannot be read.
    """

    @wraps(method)
    def op(self: TinyFlux, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._read_lock:
            demand(self._storage.can_read, "read")
            if self._auto_index and not self._index.valid:
                self._build_index()
            return method(self, *args, **kwargs)

    return op


def write_op(
    method: Callable[Concatenate[TinyFlux, P], R],
) -> Callable[Concatenate[TinyFlux, P], R]:
    """Decorate an operation that changes or removes points: the storage must allow it.

    Raises:
        OSError: When called, if the storage cannot be written.
    """

    @wraps(method)
    def op(self: TinyFlux, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            demand(self._storage.can_write, "written")
            return method(self, *args, **kwargs)

    return op


def temp_storage_op(
    method: Callable[Concatenate[TinyFlux, P], R],
) -> Callable[Concatenate[TinyFlux, P], R]:
    """Decorate an operation that rewrites: temporary storage before it, and none left after it."""

    @wraps(method)
    def op(self: TinyFlux, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            self._storage._init_temp_storage()
            try:
                return method(self, *args, **kwargs)
            finally:
                self._storage._cleanup_temp_storage()

    return op


def demand(allowed: object, what: str) -> None:
    """Raise when a storage says no.

    Raises:
        OSError: Always, if not allowed; it is an AssertionError too.
    """
    if not allowed:
        raise RefusedError(f"the storage cannot be {what}")
