"""Empty windows are left out under `fill(none)`, or computed and dropped: the answer is one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from tests.selecting import selecting_from

_points = st.lists(
    st.tuples(
        st.sampled_from(["m,host=a", "m,host=b", "m"]),
        st.sampled_from(["v=1", "v=2.5,n=3i", "n=-4i", 's="x",v=7', "b=true"]),
        st.one_of(st.integers(0, 40), st.integers(900, 1000), st.integers(5000, 5010)),
    ),
    max_size=14,
)


@settings(max_examples=50, deadline=None)
@given(
    _points,
    st.sampled_from(
        [
            "mean(v)",
            "max(v), n, host",
            "count(n), last(s), first(b)",
            "mean(v) + sum(n)",
            "difference(mean(v)), sum(n)",
            "moving_average(sum(v), 2)",
            "cumulative_sum(count(n))",
            "derivative(mean(v), 1s)",
            "integral(v)",
            "median(v), stddev(n)",
            "holt_winters(sum(v), 2, 0)",
        ]
    ),
    st.sampled_from(["", "WHERE time >= 10", "WHERE time > 8 AND time < 995", "WHERE host = 'a'"]),
    st.sampled_from(["time(10ns)", "time(7ns)", "time(10ns), host"]),
    st.sampled_from(["", "ORDER BY time DESC", "LIMIT 2", "ORDER BY time DESC LIMIT 2 OFFSET 1"]),
)
def test_answer_is_the_same_with_and_without_empty_windows(
    points: list[tuple[str, str, int]], calls: str, where: str, groups: str, order: str
) -> None:
    text = f"SELECT {calls} FROM m {where} GROUP BY {groups} fill(none) {order}"
    lines = "\n".join(f"{key} {fields} {time}" for key, fields, time in points)
    answers = []
    with selecting_from(lines, now_ns=6000) as select:
        for ratio in (0, 1 << 60):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tinyflux.columnar.aggregate._SPARSE", ratio)
                answers.append(repr(select(text)))  # NaN is not equal to itself
    assert answers[0] == answers[1]
