"""LIMIT of raw queries reads the ends of series only; what it answers is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gateway import points
from gateway.answers import Answer
from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.executor import run_select
from gateway.lineprotocol.parser import parse as parse_lines
from gateway.session import Session
from grammar import ast
from grammar.parser import parse
from tests.selecting import selecting_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.plan import Plan
    from gateway.sources import Table
    from tests.selecting import Rows
    from tinyflux.columnar.base import ScanRequest

# Host a has `late` in its oldest and newest point only, b nowhere, c has few points.
LINES = "\n".join(
    [f"m,host=a v={n}i {n}" for n in range(1, 100)]
    + ["m,host=a late=7i 3", "m,host=a late=8i 98"]
    + [f"m,host=b v={n}i {n}" for n in range(50, 200)]
    + ["m,host=c v=1i 40", "m,host=c v=2i 500"]
)


@pytest.fixture
def rows() -> Iterator[Rows]:
    """Runs a SELECT and gives tags and rows of each series."""
    with selecting_from(LINES) as run:
        yield run


def test_the_newest_rows_over_all_series(rows: Rows) -> None:
    found = rows("SELECT v FROM m ORDER BY time DESC LIMIT 3")
    assert found == [(None, [[500, 2], [199, 199], [198, 198]])]


def test_the_newest_row_of_each_group(rows: Rows) -> None:
    found = rows("SELECT v FROM m GROUP BY host ORDER BY time DESC LIMIT 1")
    assert found == [
        ({"host": "c"}, [[500, 2]]),
        ({"host": "b"}, [[199, 199]]),
        ({"host": "a"}, [[99, 99]]),
    ]


def test_rows_of_a_rare_field_are_looked_for_further_inside(rows: Rows) -> None:
    assert rows("SELECT late FROM m ORDER BY time DESC LIMIT 2") == [(None, [[98, 8], [3, 7]])]
    assert rows("SELECT late FROM m LIMIT 1") == [(None, [[3, 7]])]
    assert rows("SELECT late, v FROM m WHERE time < 5 ORDER BY time DESC LIMIT 2") == [
        (None, [[4, None, 4], [3, 7, 3]])
    ]


def test_an_offset_counts_to_what_is_read(rows: Rows) -> None:
    found = rows("SELECT v FROM m WHERE host = 'b' LIMIT 2 OFFSET 3")
    assert found == [(None, [[53, 53], [54, 54]])]
    assert rows("SELECT v FROM m GROUP BY host LIMIT 1 OFFSET 1")[2] == (
        {"host": "c"},
        [[500, 2]],
    )


def test_a_condition_on_a_field_is_asked_of_all_rows(rows: Rows) -> None:
    found = rows("SELECT v FROM m WHERE v < 60 AND host = 'b' ORDER BY time DESC LIMIT 2")
    assert found == [(None, [[59, 59], [58, 58]])]


@pytest.mark.parametrize("way", ["", " ORDER BY time DESC"])
@pytest.mark.parametrize("offset", ["", " OFFSET 3"])
@pytest.mark.parametrize(
    "select",
    [
        "SELECT v FROM m WHERE v > 20 LIMIT 5",
        "SELECT v, late, host FROM m WHERE v != 60 LIMIT 2",
        "SELECT late FROM m WHERE v > 2 LIMIT 1",
        "SELECT v FROM m WHERE v >= 40 GROUP BY host LIMIT 4",
        "SELECT v FROM m WHERE v > 1000 OR late > 7 LIMIT 2",
        "SELECT v::float FROM m WHERE v > 10 AND time > 30 AND time < 150 LIMIT 3",
        "SELECT v::string FROM m WHERE v > 10 LIMIT 3",
    ],
)
def test_a_near_stretch_answers_as_all_points_do(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, select: str, offset: str, way: str
) -> None:
    text = select.replace(" LIMIT", f"{way} LIMIT") + offset
    monkeypatch.setattr(points, "_STRETCHES", ())
    from_all = rows(text)
    monkeypatch.setattr(points, "_STRETCHES", (8, 32))
    assert rows(text) == from_all


def test_no_more_is_read_than_has_enough_that_match(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    taken = points._read

    def noted(made: Plan, table: Table, scan: ScanRequest, session: Session) -> object:
        found = taken(made, table, scan, session)
        read.append(0 if found[0] is None else len(found[0].rows))
        return found

    monkeypatch.setattr(points, "_STRETCHES", (8, 32))
    monkeypatch.setattr(points, "_read", noted)
    assert rows("SELECT v FROM m WHERE v > 3 LIMIT 2") == [(None, [[4, 4], [5, 5]])]
    assert [len(read), read[0] < 12] == [1, True]


def test_several_stores_are_read_as_far_as_something_matches() -> None:
    catalog = Catalog(None, Settings())
    for name, first in (("d", 1), ("e", 100)):
        catalog.create_database(name)
        lines = "\n".join(f"m v={n}i {n}" for n in range(first, first + 99))
        catalog.storage(name).append_batch(parse_lines(lines.encode(), now_ns=0).batch)
    (select,) = parse("SELECT v FROM d..m, e..m WHERE v > 90 LIMIT 3")
    assert isinstance(select, ast.Select)
    [series] = run_select(select, Session(catalog, Settings(), 0, "d"))
    times, values = series.cells()
    assert list(times.values) == list(values.values) == [91, 92, 93]  # type: ignore[union-attr]
    catalog.close()


def test_fill_previous_sees_the_rows_before_the_limit(rows: Rows) -> None:
    found = rows("SELECT late FROM m WHERE host = 'a' fill(previous) LIMIT 1")
    assert found == [(None, [[3, 7]])]


def test_arithmetic_over_two_fields_shows_where_either_has_a_value(rows: Rows) -> None:
    found = rows("SELECT v + late FROM m WHERE host = 'a' LIMIT 3")
    assert found == [(None, [[1, None], [2, None], [3, 10]])]


@given(
    st.lists(st.integers(0, 5), max_size=30).map(sorted),
    st.tuples(*[st.sampled_from([0, 1, 2, 5])] * 4),
    st.booleans(),
)
def test_limits_count_rows_of_a_group_and_groups(
    groups: list[int], limits: tuple[int, int, int, int], descending: bool
) -> None:
    limit, offset, slimit, soffset = limits
    keys = [(str(number),) for number in range(6)]
    rows, times = np.array(groups, np.int64), np.arange(len(groups))
    answer = Answer("m", ("host",), keys, rows, times, [], descending)

    of_group: dict[int, list[int]] = {}
    for time, group in enumerate(groups):
        of_group.setdefault(group, []).append(time)
    series = list(of_group.values())[:: -1 if descending else 1]
    series = series[soffset : soffset + slimit if slimit else None]
    kept = [found[offset : offset + limit if limit else None] for found in series]
    assert answer.limit(*limits).times.tolist() == sorted(time for found in kept for time in found)
