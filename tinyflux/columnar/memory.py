"""Memory: what the stores of a process and the questions to them may hold together.

Points that are not in segments yet, what was read from segments, and what queries work with are
bounded for all stores at once. When the points of all are too many, the store that holds most
flushes first: that gives the largest segments and frees most. What was read is one cache, so a
store that nobody asks any more loses its part to the others; and it gives way to queries.

    share of what the process itself leaves     for
    1/4                         points in memory (half of it starts a flush, all of it makes wait)
    3/4                         working memory of queries and flushes; what of it nobody claims,
                                at most 1/4, keeps chunks read from segments

A query claims working memory before it takes it: a scan for the rows of a frame, an aggregation for
what it gathers, whoever collects rows for those. When others hold it, a claim waits its turn; when
it is more than there is, or the wait gets long, it is refused. So the budget is kept by estimates;
and where memory that was let go stays in the allocator, `trim` is called once the process is larger
than it should be.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self
from weakref import WeakKeyDictionary

from tinyflux.columnar.chunks import ChunkCache
from tinyflux.errors import MemoryExceeded

if TYPE_CHECKING:
    from collections.abc import MutableMapping

MAX_DEFAULT_BYTES: Final = 1 << 30
UNLIMITED: Final = 1 << 62
WAIT_S: Final = 10.0  # how long a claim waits for others
# Measured: a server with all modules, Parquet's among them, before it holds or answers anything.
PROCESS_BYTES: Final = 115_000_000
_SHARE: Final = 4
_CGROUP_LIMITS: Final = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_MOST_FRAME_BYTES: Final = 64 << 20
_MOST_UNCOUNTED_BYTES: Final = 64 << 10  # of a claim, at most a 4,096th of what all may claim
_FRAMES: Final = 8  # that find room side by side
_TRIM_EVERY_S: Final = 0.2  # 7 ms to give back 60 MB
_LOOK_S: Final = 0.05  # between two looks at the process, or for claims that were forgotten
_CHEAPER: Final = "ask for a shorter time range, fewer fields or wider windows"


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
        work_bytes: How much queries may claim together.
        frame_bytes: How much of that a scan takes at a time; 0 is an eighth of it, at most 64 MB.
        process_bytes: How large the process may be before memory is given back; 0 never asks.
        wait_s: How long a claim waits for others.

    Attributes:
        chunks: The cache of all stores.
        points_bytes: As given.
        work_bytes: As given.
        frame_bytes: As given.
        uncounted_bytes: How much of each claim is not counted.
    """

    def __init__(
        self,
        points_bytes: int,
        chunk_bytes: int,
        work_bytes: int = UNLIMITED,
        *,
        frame_bytes: int = 0,
        process_bytes: int = 0,
        wait_s: float = WAIT_S,
    ) -> None:
        self.points_bytes = points_bytes
        self.work_bytes = work_bytes
        self.frame_bytes = frame_bytes or min(work_bytes // _FRAMES, _MOST_FRAME_BYTES)
        self.uncounted_bytes = min(work_bytes >> 12, _MOST_UNCOUNTED_BYTES)
        self.chunks = ChunkCache(chunk_bytes)
        self._process_bytes = process_bytes
        self._wait_s = wait_s
        self._held: MutableMapping[Holder, int] = WeakKeyDictionary()
        self._total = 0
        self._lock = threading.Lock()
        self._claimed = 0
        self._forgotten: deque[int] = deque()
        self._mutex = threading.Lock()  # guards what is claimed
        self._changed = threading.Condition(self._mutex)
        self._trimmed_s = 0.0
        self._looked_s = 0.0

    @classmethod
    def of(cls, max_bytes: int) -> Memory:
        """Return the bounds for a process that is to take about `max_bytes` in all."""
        room = max(max_bytes - PROCESS_BYTES, max_bytes // _SHARE)
        share = room // _SHARE
        return cls(share, share, room - share, process_bytes=max_bytes * 7 // 8)

    # Points

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

    # Working memory

    @property
    def claimed_bytes(self) -> int:
        """How much working memory is claimed."""
        with self._mutex:
            return self.work_bytes - self._free()

    def claim(self, n_bytes: int = 0) -> Claim:
        """Return a claim to working memory, waiting for it as long as is allowed.

        Raises:
            MemoryExceeded: It is more than there is, or others held it all the time.
        """
        claim = Claim(self)
        claim.grow(n_bytes)
        return claim

    @property
    def most_bytes(self) -> int:
        """How much working memory one claim may hold: what a scan takes is needed beside it."""
        return max(self.work_bytes - self.frame_bytes, self.frame_bytes)

    def take(self, n_bytes: int, held: int) -> None:
        """Count bytes as claimed; held: what the claim has already. See `claim`."""
        if self.work_bytes == UNLIMITED:
            return
        if held + n_bytes > self.most_bytes:
            raise MemoryExceeded(
                f"memory-bytes limit exceeded: about {held + n_bytes} bytes are needed at once, "
                f"memory_bytes leaves {self.most_bytes} to a query: {_CHEAPER}"
            )
        with self._mutex:
            if self._free() < n_bytes:
                self._wait_for(n_bytes, held)
            self._claimed += n_bytes
            self.chunks.bound(self._free())
        if n_bytes >= self.frame_bytes:
            self.keep_small(n_bytes)

    def _wait_for(self, n_bytes: int, held: int) -> None:
        """Return when so much is free. The caller holds the lock."""
        deadline_s = time.monotonic() + self._wait_s
        while self._free() < n_bytes:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise MemoryExceeded(
                    f"memory-bytes limit exceeded: about {held + n_bytes} bytes are needed at "
                    f"once, and what runs holds too much of the {self.work_bytes} that "
                    f"memory_bytes leaves to all queries: try again later, or {_CHEAPER}"
                )
            self._changed.wait(min(left_s, _LOOK_S))

    def give_back(self, n_bytes: int) -> None:
        """Count bytes as claimed no more."""
        if self.work_bytes == UNLIMITED:
            return
        with self._mutex:
            self._claimed -= n_bytes
            self.chunks.bound(self._free())
            self._changed.notify_all()
        self.keep_small()

    def give_back_later(self, n_bytes: int) -> None:
        """Count bytes as claimed no more, soon: takes no lock, so a finalizer may call it."""
        self._forgotten.append(n_bytes)

    def _free(self) -> int:
        """Return how much working memory nobody claims. The caller holds the lock."""
        while self._forgotten:
            self._claimed -= self._forgotten.pop()
        return self.work_bytes - self._claimed

    def keep_small(self, coming_bytes: int = 0) -> None:
        """Trim when the process is or gets too large; not all the time, if that does not help.

        Called whenever a piece of work is done: memory that is free again lies between pieces that
        are not, and the allocator would take more from the system sooner than use it.
        """
        now_s, most = time.monotonic(), self._process_bytes - coming_bytes
        # To ask how large the process is takes as long as a small query itself.
        if not self._process_bytes or now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        if now_s - self._trimmed_s > _TRIM_EVERY_S and resident_bytes() > most:
            self._trimmed_s = now_s
            trim()


class Claim:
    """Working memory that is claimed until it is released or forgotten. For one thread at a time.

    Usage:
        >>> memory = Memory(0, 0, 1000)
        >>> with memory.claim(600) as claim:
        ...     claim.grow(800)
        ...     memory.claimed_bytes
        800
        >>> memory.claimed_bytes
        0
    """

    __slots__ = ("_counted", "_kept", "_memory", "n_bytes")

    def __init__(self, memory: Memory) -> None:
        self.n_bytes = 0
        self._counted = 0
        self._kept = 0
        self._memory = memory

    def grow(self, n_bytes: int) -> None:
        """Hold at least so many bytes, besides those that are kept.

        Raises:
            MemoryExceeded: As in `Memory.claim`; what was held is held still.
        """
        wanted = self._kept + n_bytes
        if wanted <= self.n_bytes:
            return
        more = wanted - self._memory.uncounted_bytes - self._counted
        if more > 0:
            self._memory.take(more, self._counted)
            self._counted += more
        self.n_bytes = wanted

    def keep(self) -> None:
        """Keep what is held: what `grow` asks for from now on comes on top."""
        self._kept = self.n_bytes

    def release(self) -> None:
        """Hold nothing more; called twice it does nothing."""
        counted, self.n_bytes, self._counted, self._kept = self._counted, 0, 0, 0
        if counted:
            self._memory.give_back(counted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        if self._counted:
            self._memory.give_back_later(self._counted)


def trim() -> None:
    """Give freed memory back to the system: what a flush took is not needed until the next one.

    Other C libraries than glibc have no malloc_trim, and no need of it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int:
    """Return the resident memory of the process; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:  # noqa: PTH123  # Path: 5 times as long
            pages = file.read().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def default_bytes() -> int:
    """Return a quarter of the memory of the machine or container, at most a gigabyte."""
    return min(_machine_bytes() // 4, MAX_DEFAULT_BYTES)


def _machine_bytes() -> int:
    known = []
    with contextlib.suppress(ValueError, OSError):  # not on this system
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(ValueError, OSError):  # no such file, or "max"
            known.append(int(Path(path).read_text(encoding="ascii")))
    return min(known, default=4 * MAX_DEFAULT_BYTES)
