"""sum_hll() and count_hll(): how many different values, by sketches that merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gateway.errors import StatementError
from tests.selecting import selecting_from
from tinyflux.hyperloglog import estimate, from_text, merge, sketch, to_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

LINES = "\n".join(
    f'm,host={host} v={n % distinct},i={n % distinct}i,s="u{n % distinct}",b={n % 2 == 0} {n}'
    for host, distinct in (("a", 3), ("b", 40))
    for n in range(100)
)


def test_different_values_are_counted() -> None:
    with selecting_from(LINES) as rows:
        counts = ", ".join(f"count_hll(sum_hll({field}))" for field in "visb")
        assert rows(f"SELECT {counts} FROM m GROUP BY host") == [
            ({"host": "a"}, [[0, 3, 3, 3, 2]]),
            ({"host": "b"}, [[0, 40, 40, 40, 2]]),
        ]
        in_windows = rows(
            "SELECT count_hll(sum_hll(v)) AS n FROM m WHERE host = 'b' AND time >= 0 "
            "AND time < 120 GROUP BY time(30ns)"
        )
        assert in_windows == [(None, [[0, 30], [30, 30], [60, 30], [90, 10]])]


def test_sketches_that_were_kept_merge() -> None:
    kept = []
    with selecting_from(LINES, now_ns=99) as rows:
        for tags, found in rows("SELECT sum_hll(v) FROM m GROUP BY time(50ns), host"):
            assert tags is not None
            kept += [f'k,host={tags["host"]} v="{text}" {time}' for time, text in found]
    assert len(kept) == 4
    with selecting_from("\n".join([*kept, 'k,host=c v="no sketch" 7']), now_ns=99) as rows:
        assert rows("SELECT count_hll(sum_hll(v)) FROM k WHERE host =~ /a|b/") == [
            (None, [[0, 40]])
        ]
        assert rows("SELECT count_hll(v) FROM k WHERE host = 'a'") == [(None, [[0, 3], [50, 3]])]
        assert rows("SELECT count_hll(v), v FROM k WHERE host = 'c'") == [
            (None, [[7, None, "no sketch"]])
        ]


def test_too_many_sketches_are_refused() -> None:
    lines = "\n".join(f"m v=1 {n}" for n in range(20_001))
    with selecting_from(lines, now_ns=30_000) as rows:
        with pytest.raises(StatementError, match="would make 20001 sketches, the limit is 20000"):
            rows("SELECT sum_hll(v) FROM m GROUP BY time(1ns)")
        assert len(rows("SELECT sum_hll(v) FROM m GROUP BY time(10u)")[0][1]) == 4


@pytest.mark.parametrize("count", [1, 100, 5_000, 40_000, 300_000])
@pytest.mark.parametrize("kind", ["integers", "floats", "texts"])
def test_estimates_are_near(count: int, kind: str) -> None:
    values: NDArray[Any] = np.arange(count) * 3 - count
    if kind == "floats":
        values = values / 7
    elif kind == "texts":
        values = np.array([f"user {n}" for n in values.tolist()], np.object_)
    assert estimate(sketch(np.concatenate([values, values]))) == pytest.approx(count, rel=0.025)


@settings(deadline=None)
@given(st.lists(st.text(max_size=3)), st.lists(st.text(max_size=3)))
def test_a_merged_sketch_is_that_of_all_values(left: list[str], right: list[str]) -> None:
    one, other, both = (
        sketch(np.array([*texts, ""], np.object_)) for texts in (left, right, left + right)
    )
    assert np.array_equal(merge([one, other]), both)
    read = from_text(to_text(both))
    assert read is not None
    assert np.array_equal(read, both)


@pytest.mark.parametrize(
    "text",
    ["", "HLL_", "HLL_AQ==", "HLL_äöü", "HLL_AXicAwAAAAAB", "hll_x", to_text(merge([]))[:-4]],
)
def test_what_is_no_sketch_is_none(text: str) -> None:
    assert from_text(text) is None
