"""What a query tests, and how it gets there: paths, comparisons, regular expressions.

Everything here is about one value. `tinyflux.queries` puts it together with a point attribute.
"""

from __future__ import annotations

import operator as operators
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias

from tinyflux.times import to_utc

PathPart: TypeAlias = str | Callable[[Any], Any]
ValueTest: TypeAlias = Callable[[Any], bool]


class Pattern(Protocol):
    """A compiled regular expression, of `re` or of `re2`."""

    def match(self, string: str, /) -> object | None:
        """Match at the start of the string."""

    def search(self, string: str, /) -> object | None:
        """Match anywhere in the string."""


COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}

NO_VALUE: Final = object()
"""What a path resolves to when the point has no such key, or a map failed."""


class PathResolver:
    """Walks from a point attribute to the tested value: looks up keys, applies functions."""

    __slots__ = ("path",)

    def __init__(self, path: tuple[PathPart, ...]) -> None:
        self.path = path

    def __call__(self, value: Any) -> Any:
        """Return the value at the end of the path, or NO_VALUE."""
        for part in self.path:
            try:
                value = part(value) if callable(part) else value[part]
            except Exception:  # noqa: BLE001  # a failing map, or a key of a plain value
                return NO_VALUE
        return value


def kind_of(value: object) -> str | None:
    """Return in which kind a value compares: number, str, bool or none; else None."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "str"
    return "none" if value is None else None


def always(value: object) -> bool:  # noqa: ARG001
    """Return True, whatever the value."""
    return True


def never(value: object) -> bool:  # noqa: ARG001
    """Return False, whatever the value."""
    return False


def instant_of(time: Any) -> Any:
    """Return a time as an instant in UTC, anything else as it is."""
    return to_utc(time) if isinstance(time, datetime) else time


def comparison(compare: Callable[[Any, Any], Any], rhs: Any) -> ValueTest:
    """Return the test `value <compare> rhs`; what cannot be compared does not match."""

    def test(value: Any) -> bool:
        try:
            return bool(compare(value, rhs))
        except Exception:  # noqa: BLE001  # the rule: what cannot be compared does not match
            return False

    return test


def typed_comparison(compare: Callable[[Any, Any], Any], rhs: Any, kind: str) -> ValueTest:
    """Return the test `value <compare> rhs` for values of one kind; no other value matches."""
    return lambda value: kind_of(value) == kind and bool(compare(value, rhs))


def regex_test(operator: str, regex: str | Pattern, flags: int) -> ValueTest:
    """Return the test of text by a regex: `matches` at the start, `search` anywhere.

    A text is compiled when the first value is tested, and a bad one raises `re.error` then.
    """
    method = "match" if operator == "matches" else "search"
    run: Callable[[str], object | None] | None = None

    def test(value: Any) -> bool:
        nonlocal run
        if not isinstance(value, str):
            return False
        if run is None:  # compiled late: a bad regex shows itself at evaluation
            run = getattr(re.compile(regex, flags) if isinstance(regex, str) else regex, method)
        return run(value) is not None

    return test
