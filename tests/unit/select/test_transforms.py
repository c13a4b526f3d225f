from __future__ import annotations

import numpy as np
import pytest

from gateway.functions.transforms import TRANSFORMS

SECOND = 1_000_000_000
GROUPS = np.array([0, 0, 0, 1, 1, 2])
TIMES = np.array([0, 10, 30, 0, 10, 5]) * SECOND
VALUES = np.array([1.0, 4.0, 2.0, 10.0, 30.0, 7.0])


@pytest.mark.parametrize(
    ("name", "arg", "rows", "values"),
    [
        pytest.param("difference", 0, [1, 2, 4], [3.0, -2.0, 20.0], id="difference"),
        pytest.param("non_negative_difference", 0, [1, 4], [3.0, 20.0], id="rising"),
        pytest.param("derivative", SECOND, [1, 2, 4], [0.3, -0.1, 2.0], id="derivative"),
        pytest.param("derivative", 10 * SECOND, [1, 2, 4], [3.0, -1.0, 20.0], id="per-10s"),
        pytest.param("non_negative_derivative", SECOND, [1, 4], [0.3, 2.0], id="rising-rate"),
        pytest.param(
            "cumulative_sum", 0, [0, 1, 2, 3, 4, 5], [1.0, 5.0, 7.0, 10.0, 40.0, 7.0], id="sum"
        ),
        pytest.param("moving_average", 2, [1, 2, 4], [2.5, 3.0, 20.0], id="average-of-2"),
        pytest.param("moving_average", 3, [2], [7 / 3], id="average-of-3"),
        pytest.param("moving_average", 9, [], [], id="average-of-more-than-there-are"),
        pytest.param("elapsed", 1, [1, 2, 4], [10**10, 2 * 10**10, 10**10], id="elapsed"),
        pytest.param("elapsed", 4 * SECOND, [1, 2, 4], [2, 5, 2], id="elapsed-is-cut"),
    ],
)
def test_transformation_stays_within_its_group(
    name: str, arg: int, rows: list[int], values: list[float]
) -> None:
    chosen, results = TRANSFORMS[name](GROUPS, TIMES, VALUES, [arg])
    assert chosen.tolist() == rows
    assert results.tolist() == pytest.approx(values)


def test_integers_stay_integers_and_wrap() -> None:
    values = np.array([-(2**63), 2**63 - 1])
    groups, times = np.zeros(2, np.int64), np.arange(2)
    _, changes = TRANSFORMS["difference"](groups, times, values, [])
    assert changes.dtype == np.int64
    assert changes.tolist() == [-1]


def test_descending_query_has_negative_elapsed_and_absolute_rate() -> None:
    groups, times = np.zeros(2, np.int64), np.array([10, 0]) * SECOND
    assert TRANSFORMS["elapsed"](groups, times, np.array([1.0, 2.0]), [SECOND])[1].tolist() == [-10]
    rate = TRANSFORMS["derivative"](groups, times, np.array([5.0, 2.0]), [SECOND])[1]
    assert rate.tolist() == pytest.approx([-0.3])


def test_nan_does_not_leak_into_the_sum_of_the_next_group() -> None:
    groups = np.array([0, 1, 1])
    values = np.array([np.nan, 1.0, 2.0])
    _, sums = TRANSFORMS["cumulative_sum"](groups, np.arange(3), values, [])
    assert sums[1:].tolist() == [1.0, 3.0]
