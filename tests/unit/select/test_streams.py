"""sample() beside other functions: what is random about it is tested by its form."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from tests.selecting import selecting_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.selecting import Rows

# f at every 10 ns, g at every third of these times and once by itself.
LINES = "\n".join(
    [f"m,h={'ab'[n % 2]} f={n}i {10 * n}" for n in range(30)]
    + [f"m,h={'ab'[n % 2]} g={n}.5 {10 * n}" for n in range(0, 30, 3)]
    + ["m,h=a g=0.25 5"]
)


@pytest.fixture
def rows() -> Iterator[Rows]:
    """Runs a SELECT and gives tags and rows of each series."""
    with selecting_from(LINES) as run:
        yield run


def test_samples_of_two_fields_are_drawn_by_themselves(rows: Rows) -> None:
    (_, found), *rest = rows("SELECT sample(f, 4), sample(g, 3) FROM m")
    assert not rest
    times = cast("list[int]", [line[0] for line in found])
    assert times == sorted(set(times))
    assert len([f for _, f, _ in found if f is not None]) == 4
    assert len([g for _, _, g in found if g is not None]) == 3
    for time, f, g in found:
        assert isinstance(time, int)
        assert f in {None, time // 10}
        assert g in {None, time // 10 + 0.5, 0.25}


def test_each_window_of_each_group_has_its_sample(rows: Rows) -> None:
    asked = "time >= 0 AND time < 300 GROUP BY time(100ns), h"
    found = rows(f"SELECT sample(f, 2), max(f) FROM m WHERE {asked}")
    assert [tags for tags, _ in found] == [{"h": "a"}, {"h": "b"}]
    for (_, lines), odd in zip(found, (0, 1), strict=True):
        for window in (0, 100, 200):
            inside = [line for line in lines if window <= line[0] < window + 100]  # type: ignore[operator]
            assert [line[2] for line in inside if line[2] is not None] == [window // 10 + 8 + odd]
            drawn = [line[1] for line in inside if line[1] is not None]
            assert len(set(drawn)) == 2
            assert all(value % 2 == odd for value in drawn)  # type: ignore[operator]


def test_samples_differ_between_questions(rows: Rows) -> None:
    asked = "SELECT sample(f, 10), sample(g, 100) FROM m"
    assert any(rows(asked) != rows(asked) for _ in range(5))


def test_transformations_of_fields_stand_beside_aggregates(rows: Rows) -> None:
    assert rows("SELECT max(f), difference(g) FROM m WHERE time < 100 GROUP BY h") == [
        ({"h": "a"}, [[0, 8, None], [5, None, -0.25], [60, None, 6.25]]),
        ({"h": "b"}, [[0, 9, None], [90, None, 6.0]]),
    ]


def test_rows_of_one_time_in_a_group_count_once_for_a_difference() -> None:
    lines = "m,h=a f=1 1\nm,h=a f=2 2\nm,h=b f=5 2\nm,h=a f=4 3"
    with selecting_from(lines) as rows:
        assert rows("SELECT difference(f), derivative(f, 1ns) FROM m") == [
            (None, [[2, 1.0, 1.0], [3, 2.0, 2.0]])
        ]
