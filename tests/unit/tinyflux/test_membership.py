from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from tinyflux.membership import OneOf, OneTime, TimeSpan

BIG = 2**53


@pytest.mark.parametrize(
    ("chosen", "value", "is_one", "is_another"),
    [
        ([1, 2], 1, True, False),
        ([1, 2], 1.0, True, False),
        ([1, 2], 3, False, True),
        ([1], True, False, False),
        ([True], 1, False, False),
        ([True], False, False, True),
        (["a"], "a", True, False),
        (["a"], "A", False, True),
        (["a", 1], 2, False, True),
        (["a"], 1, False, False),
        ([1], None, False, False),
        ([BIG + 1], float(BIG), False, True),
        ([], "a", False, False),
    ],
)
def test_a_value_is_one_of_its_own_kind_or_another_one(
    chosen: list[Any], value: object, is_one: bool, is_another: bool
) -> None:
    assert OneOf.of(chosen)(value) is is_one
    assert OneOf.of(chosen, is_negated=True)(value) is is_another


@pytest.mark.parametrize(
    ("dtype", "values", "chosen"),
    [
        (np.int64, [BIG, BIG + 1, -(2**63), 2**63 - 1], [float(BIG), 2.5, 2.0**63, -(2.0**63)]),
        (np.float64, [float(BIG), 0.5, -0.0], [BIG + 1, BIG, 0, 10**400]),
    ],
)
def test_columns_of_numbers_are_compared_exactly(
    dtype: type[np.generic], values: list[float], chosen: list[float]
) -> None:
    test = OneOf.of(chosen)
    found = test.match_numbers(np.array(values, dtype))
    assert found.tolist() == [value in chosen for value in values]


def test_times_are_in_a_closed_span_or_a_set() -> None:
    times = np.array([-1, 0, 1, 2, 3], np.int64)
    assert TimeSpan(0, 2).match_times(times).tolist() == [False, True, True, True, False]
    assert OneTime(frozenset([1, 3])).match_times(times).tolist() == [
        False,
        False,
        True,
        False,
        True,
    ]
    assert OneTime(frozenset([1, 3])).bounds() == (1, 3)
    moment = datetime(1970, 1, 1, 0, 0, 0, 5, tzinfo=UTC)
    assert TimeSpan(5000, 5000)(moment)
    assert not TimeSpan(5001, 5999)(moment)
    assert OneTime(frozenset([5000]))(moment)
    assert not OneTime(frozenset([5000]), is_negated=True)(moment)
    assert not TimeSpan(0, 1)("no time")
