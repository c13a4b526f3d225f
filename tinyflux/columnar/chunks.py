"""A cache of what was read from segments: footers, decoded chunks (columns of row groups), columns.

Least recently used goes out first. One cache serves all stores of a process, so that its bound in
bytes is theirs together.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import numpy as np

from tinyflux.columnar.readahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from tinyflux.columnar.base import FieldColumn
    from tinyflux.columnar.footer import Layout

DEFAULT_CHUNK_BYTES: Final = 256 << 20
_MIN_READ_BYTES: Final = 4 << 20

ChunkKey: TypeAlias = "tuple[Hashable, int, str]"  # segment, row group, column
_FOOTER: Final = (-1, "")  # in place of row group and column
WHOLE: Final = -2  # in place of the row group: all of a column


class ChunkCache:
    """Decoded chunks by segment, row group (or WHOLE) and column name, and footers by segment.

    Safe to use from many threads.

    Args:
        max_bytes: How much to keep; a chunk larger than an eighth of it is not kept.

    Attributes:
        max_bytes: As given.
        n_bytes: How much is kept.
        ahead: Reads columns to their end that are missed here again and again.
    """

    def __init__(self, max_bytes: int = DEFAULT_CHUNK_BYTES) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self.ahead = ReadAhead(max_bytes, self.has_room)
        self._bound = max_bytes
        self._things: OrderedDict[ChunkKey, tuple[object, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def read_bytes(self) -> int:
        """How much should be decoded at a time."""
        return max(self.max_bytes // 8, _MIN_READ_BYTES)

    def has_room(self, n_bytes: int) -> bool:
        """Return whether so much could be kept without letting go of anything."""
        return self.n_bytes + n_bytes <= self._bound

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, key: ChunkKey) -> bool:
        return key in self._things

    def get(self, key: ChunkKey) -> FieldColumn | None:
        """Return a chunk, or None when it is not here."""
        found = self._find(key)
        return None if found is None else cast("FieldColumn", found)

    def put(self, key: ChunkKey, chunk: FieldColumn) -> None:
        """Keep a chunk, and let go of others as the bound demands."""
        self._keep(key, chunk, chunk_bytes(chunk))

    def footer(self, segment: Hashable) -> Layout | None:
        """Return the footer of a segment, or None when it is not here."""
        found = self._find((segment, *_FOOTER))
        return None if found is None else cast("Layout", found)

    def put_footer(self, segment: Hashable, layout: Layout) -> None:
        """Keep the footer of a segment, and let go of other things as the bound demands."""
        self._keep((segment, *_FOOTER), layout, layout.nbytes())

    def _find(self, key: ChunkKey) -> object | None:
        with self._lock:
            found = self._things.get(key)
            if found is None:
                return None
            self._things.move_to_end(key)
            return found[0]

    def _keep(self, key: ChunkKey, thing: object, size: int) -> None:
        if size * 8 > self.max_bytes:
            return
        with self._lock:
            old = self._things.pop(key, None)
            self.n_bytes += size - (old[1] if old else 0)
            self._things[key] = thing, size
            self._evict()

    def bound(self, n_bytes: int) -> None:
        """Keep no more than so much, and than `max_bytes`, until told otherwise.

        For one thread at a time. Mostly it changes nothing, and then it waits for nobody.
        """
        n_bytes = min(n_bytes, self.max_bytes)
        if n_bytes != self._bound:
            with self._lock:
                self._bound = n_bytes
                self._evict()

    def _evict(self) -> None:
        while self.n_bytes > self._bound:
            _, (_, freed) = self._things.popitem(last=False)
            self.n_bytes -= freed

    def forget(self, segment: Hashable) -> None:
        """Let go of all that is of a segment."""
        self._forget(lambda key: key[0] == segment)

    def forget_chunks(self, segment: Hashable, column: str) -> None:
        """Let go of the chunks of a column: all of it is here, or it is not wanted in pieces."""
        self._forget(lambda key: key[0] == segment and key[1] >= 0 and key[2] == column)

    def _forget(self, is_meant: Callable[[ChunkKey], bool]) -> None:
        with self._lock:
            for key in [key for key in self._things if is_meant(key)]:
                self.n_bytes -= self._things.pop(key)[1]


def chunk_bytes(chunk: FieldColumn) -> int:
    """Return about how much memory a decoded chunk takes."""
    size = int(chunk.values.nbytes) + 200
    for flags in (chunk.valid, chunk.none):
        size += 0 if flags is None else int(flags.nbytes)
    if chunk.values.dtype == np.object_:
        distinct = {id(text): text for text in chunk.values.tolist()}
        size += sum(map(sys.getsizeof, distinct.values()))
    return size
