"""Tests of values that are also done on whole columns: `query.test(OneOf.of([1, 2]))`.

Each is an ordinary test of one value; `tinyflux.columnar.evaluate` knows them and asks for arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.predicates import kind_of
from tinyflux.times import to_utc, us_from_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tinyflux.batch import Bools, Int64s

_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class OneOf:
    """Whether a value is one of some, of the same kind: 1 is 1.0, but neither is True.

    Negated, it is another value of a kind that is among them; values of other kinds, and None, are
    never matched.

    Attributes:
        numbers: The numbers to choose from.
        texts: The texts.
        booleans: True, False or both.
        is_negated: Whether the value must be another one.
    """

    numbers: frozenset[float]
    texts: frozenset[str]
    booleans: frozenset[bool]
    is_negated: bool = False

    @classmethod
    def of(cls, values: Iterable[float | str | bool], *, is_negated: bool = False) -> OneOf:
        """Return the test for these values."""
        kinds: dict[str | None, set[float | str | bool]] = {"number": set(), "str": set()}
        kinds["bool"] = set()
        for value in values:
            kinds[kind_of(value)].add(value)
        numbers, texts, booleans = map(frozenset, kinds.values())
        return cls(numbers, texts, booleans, is_negated)  # type: ignore[arg-type]  # by kind

    def __call__(self, value: object) -> bool:
        """Return whether a value passes."""
        known: frozenset[float] | frozenset[str] | frozenset[bool] = frozenset()
        match kind_of(value):
            case "number":
                known = self.numbers
            case "str":
                known = self.texts
            case "bool":
                known = self.booleans
        return bool(known) and (value in known) != self.is_negated

    def match_numbers(self, values: np.ndarray) -> Bools:
        """Return bool[n] for float64[n] or int64[n], exactly as Python compares int with float."""
        if not self.numbers:
            return np.zeros(len(values), np.bool_)
        if values.dtype == np.int64:
            same = [int(n) for n in self.numbers if abs(n) <= _MAX_INT64 + 1 and n == int(n)]
            known = np.array([n for n in same if -_MAX_INT64 - 1 <= n <= _MAX_INT64], np.int64)
        else:
            known = np.array([float(n) for n in self.numbers if _is_float(n)], np.float64)
        return np.isin(values, known, invert=self.is_negated)

    def match_texts(self, values: np.ndarray) -> Bools:
        """Return bool[n] for object[n] of text; anything where an entry is none."""
        if not self.texts:
            return np.zeros(len(values), np.bool_)
        found = np.fromiter(map(self.texts.__contains__, values.tolist()), np.bool_, len(values))
        return ~found if self.is_negated else found


def _is_float(number: float) -> bool:
    try:
        return float(number) == number
    except OverflowError:
        return False


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """Whether a time lies in a closed interval of ns since 1970.

    A Point knows its time in microseconds: of a stored time finer than that, it is the one before.
    """

    start_ns: int
    end_ns: int

    def __call__(self, time: object) -> bool:
        """Return whether the time of a Point passes."""
        if not isinstance(time, datetime):
            return False
        return self.start_ns <= us_from_datetime(to_utc(time)) * 1000 <= self.end_ns

    def bounds(self) -> tuple[int, int]:
        """Return the first and the last time in ns that can pass."""
        return self.start_ns, self.end_ns

    def match_times(self, times: Int64s) -> Bools:
        """Return bool[n] for int64[n] ns."""
        inside: Bools = (times >= self.start_ns) & (times <= self.end_ns)
        return inside


@dataclass(frozen=True, slots=True)
class OneTime:
    """Whether a time is one of some in ns since 1970, or negated none of them.

    Of a Point it is the time in microseconds that counts, as for a TimeSpan.
    """

    times_ns: frozenset[int]
    is_negated: bool = False

    def __call__(self, time: object) -> bool:
        """Return whether the time of a Point passes."""
        if not isinstance(time, datetime):
            return False
        return (us_from_datetime(to_utc(time)) * 1000 in self.times_ns) != self.is_negated

    def bounds(self) -> tuple[int, int]:
        """Return the first and the last time in ns that can pass."""
        if self.is_negated or not self.times_ns:
            return MIN_TIME_NS, MAX_TIME_NS
        return min(self.times_ns), max(self.times_ns)

    def match_times(self, times: Int64s) -> Bools:
        """Return bool[n] for int64[n] ns."""
        known = np.array(sorted(self.times_ns), np.int64)
        return np.isin(times, known, invert=self.is_negated)
