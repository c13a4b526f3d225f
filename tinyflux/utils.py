"""Small tools of the TinyFlux API: frozen values for stable hashes, searches in sorted lists."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FrozenDict", "find_eq", "find_ge", "find_gt", "find_le", "find_lt", "freeze"]


class FrozenDict(dict[Any, Any]):
    """A dict that cannot change and therefore has a hash.

    Usage:
        >>> hash(FrozenDict({"a": 1, "b": 2})) == hash(FrozenDict({"b": 2, "a": 1}))
        True
    """

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:  # noqa: ARG002
        raise TypeError("object is immutable")

    __setitem__ = _refuse
    __delitem__ = _refuse
    __ior__ = _refuse
    clear = _refuse
    setdefault = _refuse
    popitem = _refuse

    def pop(self, k: object, d: object = None) -> NoReturn:
        """Raise TypeError."""
        self._refuse(k, d)

    def update(self, *args: object, **kwargs: object) -> NoReturn:
        """Raise TypeError."""
        self._refuse(*args, **kwargs)


def freeze(obj: object) -> object:
    """Return an object in a form that can be hashed: dict, list and set are frozen, at every depth.

    Usage:
        >>> freeze([1, [2, 3]])
        (1, (2, 3))
    """
    if isinstance(obj, dict):
        return FrozenDict((key, freeze(value)) for key, value in obj.items())
    if isinstance(obj, list):
        return tuple(freeze(item) for item in obj)
    if isinstance(obj, set):
        return frozenset(freeze(item) for item in obj)
    return obj


def find_eq(sorted_list: Sequence[Any], x: Any) -> int | None:
    """Return the first position of a value equal to x, or None."""
    position = bisect_left(sorted_list, x)
    found = position < len(sorted_list) and sorted_list[position] == x
    return position if found else None


def find_lt(sorted_list: Sequence[Any], x: Any) -> int | None:
    """Return the last position of a value below x, or None."""
    position = bisect_left(sorted_list, x)
    return position - 1 if position else None


def find_le(sorted_list: Sequence[Any], x: Any) -> int | None:
    """Return the last position of a value not above x, or None."""
    position = bisect_right(sorted_list, x)
    return position - 1 if position else None


def find_gt(sorted_list: Sequence[Any], x: Any) -> int | None:
    """Return the first position of a value above x, or None."""
    position = bisect_right(sorted_list, x)
    return position if position < len(sorted_list) else None


def find_ge(sorted_list: Sequence[Any], x: Any) -> int | None:
    """Return the first position of a value not below x, or None."""
    position = bisect_left(sorted_list, x)
    return position if position < len(sorted_list) else None
