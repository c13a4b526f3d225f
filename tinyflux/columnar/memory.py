"""Memory: what the open stores of a process may hold together.

Points that are not in segments yet, and what was read from segments, are bounded for all stores at
once. When the points of all are too many, the store that holds most flushes first: that gives the
largest segments and frees most. What was read is one cache, so a store that nobody asks any more
loses its part to the others.

    share of the bytes          for
    1/4                         points in memory (half of it starts a flush, all of it makes wait)
    1/4                         chunks read from segments
    the rest                    what flushes, queries and the process itself need
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakKeyDictionary

from tinyflux.columnar.chunks import ChunkCache

if TYPE_CHECKING:
    from collections.abc import MutableMapping

MAX_DEFAULT_BYTES: Final = 1 << 30
_SHARE: Final = 4


class Holder(Protocol):
    """A store, as far as its memory goes."""

    def flush_soon(self) -> None:
        """Begin to flush, in the background."""

    def wait_for_flush(self) -> None:
        """Return when no flush is wanted or under way."""


class Memory:
    """The bounds of some stores, and what they hold. Safe to use from many threads.

    Args:
        points_bytes: How much all stores hold of points that are in no segment.
        chunk_bytes: How much is kept of what was read from segments.

    Attributes:
        chunks: The cache of all stores.
        points_bytes: As given.
    """

    def __init__(self, points_bytes: int, chunk_bytes: int) -> None:
        self.points_bytes = points_bytes
        self.chunks = ChunkCache(chunk_bytes)
        self._held: MutableMapping[Holder, int] = WeakKeyDictionary()
        self._total = 0
        self._lock = threading.Lock()

    @classmethod
    def of(cls, max_bytes: int) -> Memory:
        """Return the bounds for a process that is to take about `max_bytes` in all."""
        return cls(max_bytes // _SHARE, max_bytes // _SHARE)

    @property
    def held_bytes(self) -> int:
        """How much all stores hold of points that are in no segment."""
        return self._total

    @property
    def is_full(self) -> bool:
        """Whether the stores hold more than they may."""
        return self._total > self.points_bytes

    def note(self, holder: Holder, n_bytes: int) -> None:
        """Note how much a store holds."""
        with self._lock:
            self._total += n_bytes - self._held.get(holder, 0)
            self._held[holder] = n_bytes

    def hold(self, holder: Holder, n_bytes: int) -> None:
        """Note how much a store holds; have the largest flush, and wait for it, as is due.

        The caller is no flusher and holds no lock of a store.
        """
        self.note(holder, n_bytes)
        if self._total > self.points_bytes // 2:
            with self._lock:
                largest = max(self._held, key=self._held.__getitem__, default=holder)
            largest.flush_soon()
            if self.is_full:
                largest.wait_for_flush()

    def forget(self, holder: Holder) -> None:
        """Forget a store that is closed."""
        with self._lock:
            self._total -= self._held.pop(holder, 0)


def trim() -> None:
    """Give freed memory back to the system: what a flush took is not needed until the next one.

    Other C libraries than glibc have no malloc_trim, and no need of it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def default_bytes() -> int:
    """Return a quarter of the machine's memory, at most a gigabyte."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not on this system
        return MAX_DEFAULT_BYTES
    return min(machine // 4, MAX_DEFAULT_BYTES)
