"""search in many ranges against np.searchsorted in each."""

from __future__ import annotations

from typing import Literal

import numpy as np
from hypothesis import given, strategies as st

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.bisection import search

EDGES = st.sampled_from([MIN_TIME_NS, MIN_TIME_NS + 1, -1, 0, 1, MAX_TIME_NS - 1, MAX_TIME_NS])
TIMES = st.integers(-50, 50) | EDGES | st.integers(MIN_TIME_NS, MAX_TIME_NS)
REGULAR = st.builds(
    lambda first, step, n: [first + step * k for k in range(n)],
    st.integers(-(10**18), 10**18),
    st.integers(1, 10**15),
    st.integers(1, 40),
)
SERIES = st.lists(TIMES, max_size=30).map(sorted) | REGULAR


@given(st.lists(SERIES, min_size=1, max_size=24), st.data(), st.sampled_from(["left", "right"]))
def test_every_range_is_searched_as_alone(
    series: list[list[int]], data: st.DataObject, side: Literal["left", "right"]
) -> None:
    times = np.array([time for one in series for time in one], np.int64)
    ends = np.cumsum([len(one) for one in series])
    low, high = ends - [len(one) for one in series], ends
    near = st.sampled_from([0, *(time for one in series for time in one)]).flatmap(
        lambda time: st.integers(max(time - 1, MIN_TIME_NS), min(time + 1, MAX_TIME_NS))
    )
    each = data.draw(st.lists(near | TIMES, min_size=len(series), max_size=len(series)))
    for needles in (np.array(each, np.int64), np.full(len(series), each[0], np.int64)):
        alone = [
            int(a + np.searchsorted(times[a:b], needle, side))
            for a, b, needle in zip(low, high, needles, strict=True)
        ]
        assert search(times, low, high, needles, side).tolist() == alone
    assert search(times, low, high, each[0], side).tolist() == alone
