"""Read-ahead: a column that is asked for piece by piece is decoded to its end in the background.

Dashboards ask for the same fields of one series after another, and each question waits for a row
group or two to be decoded. From the second such wait on, what is left of the column in its segment
is decoded on a thread of its own, while the other questions come, if it takes a small part of the
cache; and kept in one piece, which is cheaper to cut rows from. What is asked for once costs
nothing more.

Who asks for some fields of a segment again and again soon asks for others. When nothing else is to
be read, those are decoded too, one after another, as long as the cache has room for them that
nothing else takes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

_log = logging.getLogger(__name__)

_SHARE: Final = 8  # of the cache is for one column at most
_PAUSE_S: Final = 60.0  # a column that did not stay in the cache is not read again all the time
_MOST_KNOWN: Final = 4096
_MOST_WAITING: Final = 256


class _Rest(NamedTuple):
    """What is to be read of a segment, and what a column of it takes, decoded."""

    columns: dict[str, None]
    n_bytes: int
    read: Callable[[Sequence[str]], None]


class ReadAhead:
    """Columns that were missed in a cache, and the thread that reads the rest of them.

    Safe to use from many threads. The thread lives as long as there is something to read.

    Args:
        cache_bytes: The bound of the cache.
        has_room: Whether so many bytes would fit into the cache beside what is there.
    """

    def __init__(self, cache_bytes: int, has_room: Callable[[int], bool]) -> None:
        self._max_bytes = cache_bytes // _SHARE
        self._has_room = has_room
        self._lock = threading.Lock()
        # Column -> when its rest was read, by the monotonic clock; 0.0 when it was missed once.
        self._known: OrderedDict[tuple[Hashable, str], float] = OrderedDict()
        self._waiting: OrderedDict[Hashable, _Rest] = OrderedDict()
        self._others: OrderedDict[Hashable, _Rest] = OrderedDict()  # that nobody asked for yet
        self._is_working = False

    def missed(
        self,
        segment: Hashable,
        columns: Sequence[str],
        n_bytes: int,
        read_rest: Callable[[Sequence[str]], None],
        others: Iterable[str] = (),
    ) -> None:
        """Note that parts of columns had to be decoded; have the rest of those read that are due.

        Args:
            segment: Where they are.
            columns: Which.
            n_bytes: What all of a column takes, decoded.
            read_rest: Reads columns. What it raises is logged: who needs them will find it too.
            others: The other columns of the segment.
        """
        if not self.takes(n_bytes):
            return
        with self._lock:
            due = [column for column in columns if self._is_due((segment, column))]
            if not due or len(self._waiting) >= _MOST_WAITING:
                return
            rest = self._waiting.setdefault(segment, _Rest({}, n_bytes, read_rest))
            rest.columns.update(dict.fromkeys(due))
            if len(self._others) < _MOST_WAITING:
                self._others[segment] = _Rest(dict.fromkeys(others), n_bytes, read_rest)
            if self._is_working:
                return
            self._is_working = True
        threading.Thread(target=self._work, name="read-ahead", daemon=True).start()

    def takes(self, n_bytes: int) -> bool:
        """Return whether a column of this size is kept in one piece."""
        return n_bytes <= self._max_bytes

    def _is_due(self, column: tuple[Hashable, str]) -> bool:
        """Return whether the rest of a column is to be read, now that a part was missed."""
        now_s, read_s = time.monotonic(), self._known.pop(column, None)
        is_due = read_s is not None and (not read_s or now_s - read_s > _PAUSE_S)
        self._known[column] = now_s if is_due else read_s or 0.0
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return is_due

    def _work(self) -> None:
        while True:
            with self._lock:
                rest = self._next()
                if rest is None:
                    self._is_working = False
                    return
            try:
                rest.read(list(rest.columns))
            except Exception as exc:  # noqa: BLE001 - nobody waits for it
                _log.info("read-ahead failed error=%s", exc)

    def _next(self) -> _Rest | None:
        """Return what to read now; None when there is nothing. The caller holds the lock."""
        if self._waiting:
            return self._waiting.popitem(last=False)[1]
        while self._others:
            segment, rest = next(iter(self._others.items()))
            if rest.columns and self._has_room(rest.n_bytes):
                column, _ = rest.columns.popitem()
                return rest._replace(columns={column: None})
            del self._others[segment]
        return None
