"""Storages: where a database keeps its points, item by item.

`Storage` is the contract for third parties; `MemoryStorage` and `CSVStorage` are ours. Items are
opaque to the database: what `__iter__` yields goes back to `_deserialize_storage_item` and to
`append` as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from tinyflux.point import Point

__all__ = ["MemoryStorage", "Storage"]


class Storage(ABC):
    """The base of all storages.

    A subclass keeps items in insertion order and says how an item becomes a Point and back.
    `_initially_empty` is read once, when the database opens.

    Usage:
        >>> class MyStorage(Storage):
        ...     '''Items in a place of my own.'''
    """

    _initially_empty: bool = True

    @property
    def can_append(self) -> bool:
        """Whether points can be appended; may raise OSError itself."""
        return True

    @property
    def can_read(self) -> bool:
        """Whether points can be read; may raise OSError itself."""
        return True

    @property
    def can_write(self) -> bool:
        """Whether points can be changed and removed; may raise OSError itself."""
        return True

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Yield all items in insertion order."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of items."""

    @abstractmethod
    def append(self, points: Sequence[Any], temporary: bool = False) -> None:
        """Append items.

        Args:
            points: Items, as `_serialize_point` or `__iter__` gave them.
            temporary: Append to the temporary storage of a rewrite instead.
        """

    @abstractmethod
    def read(self) -> list[Point]:
        """Return all points in insertion order."""

    @abstractmethod
    def reset(self) -> None:
        """Remove all items."""

    def close(self) -> None:  # noqa: B027  # optional in a subclass
        """Release what the storage holds; called twice it does nothing."""

    @abstractmethod
    def _deserialize_measurement(self, item: Any) -> str:
        """Return the measurement of an item, cheaper than a whole Point."""

    @abstractmethod
    def _deserialize_timestamp(self, item: Any) -> datetime:
        """Return the time of an item; a naive time is UTC."""

    @abstractmethod
    def _deserialize_storage_item(self, item: Any) -> Point:
        """Return the Point of an item."""

    @abstractmethod
    def _serialize_point(self, point: Point, *args: Any, **kwargs: Any) -> Any:
        """Return the item of a Point. The database passes `compact_key_prefixes=`."""

    @abstractmethod
    def _swap_temp_with_primary(self) -> None:
        """Put what was appended with `temporary=True` in the place of everything stored."""

    @abstractmethod
    def _write(self, items: Sequence[Any]) -> None:
        """Replace everything stored by these items."""

    def _init_temp_storage(self) -> None:  # noqa: B027  # optional in a subclass
        """Begin a rewrite."""

    def _cleanup_temp_storage(self) -> None:  # noqa: B027  # optional in a subclass
        """End a rewrite, also a failed one."""


class MemoryStorage(Storage):
    """Points in a list. They go with the process.

    The very Point objects are kept: a later `db.update` shows in a Point that was inserted. Do not
    change a Point after inserting it; use `db.update`.

    Usage:
        >>> from tinyflux import TinyFlux
        >>> db = TinyFlux(storage=MemoryStorage)
    """

    def __init__(self) -> None:
        self._initially_empty = True
        self._memory: list[Point] = []
        self._temp_memory: list[Point] = []

    def __iter__(self) -> Iterator[Point]:
        # The slice is the snapshot: inserts and removes during an iteration do not show in it.
        return iter(self._memory[:])

    def __len__(self) -> int:
        return len(self._memory)

    def append(self, points: Sequence[Point], temporary: bool = False) -> None:
        """Append points, kept by reference."""
        (self._temp_memory if temporary else self._memory).extend(points)

    def read(self) -> list[Point]:
        """Return all points in insertion order: the stored objects in a new list."""
        return self._memory[:]

    def reset(self) -> None:
        """Remove all points."""
        self._memory = []

    def _deserialize_measurement(self, item: Point) -> str:
        return item.measurement

    def _deserialize_timestamp(self, item: Point) -> datetime:
        time = item.time
        assert time is not None  # stored points have a time
        return time

    def _deserialize_storage_item(self, item: Point) -> Point:
        return item

    def _serialize_point(self, point: Point, *args: Any, **kwargs: Any) -> Point:  # noqa: ARG002
        return point

    def _write(self, items: Sequence[Point]) -> None:
        self._memory = list(items)

    def _init_temp_storage(self) -> None:
        self._temp_memory = []

    def _swap_temp_with_primary(self) -> None:
        self._memory = self._temp_memory
        self._temp_memory = []

    def _cleanup_temp_storage(self) -> None:
        self._temp_memory = []
