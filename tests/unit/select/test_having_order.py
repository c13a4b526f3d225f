"""HAVING and ORDER BY columns: rows of an answer chosen and sorted after everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.errors import StatementError
from tests.selecting import selecting_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.selecting import Rows

LINES = """
m,host=a,dc=x v=5,n=3i,s="up" 0
m,host=a,dc=x v=1,n=1i,s="down" 10
m,host=a,dc=x v=3,s="up" 20
m,host=b,dc=x v=9,n=2i,s="Up" 0
m,host=b,dc=x v=7,n=2i,s="off" 20
m,host=c v=2 10
m,host=c v=4,n=9223372036854775807i 30
"""


@pytest.fixture(scope="module")
def rows() -> Iterator[Rows]:
    """Runs a SELECT and gives tags and rows of each series."""
    with selecting_from(LINES, now_ns=100) as run:
        yield run


def of(host: str, *cells: list[object]) -> tuple[dict[str, str], list[list[object]]]:
    return {"host": host}, list(cells)


@pytest.mark.parametrize(
    ("having", "hosts"),
    [
        ("m > 3", "b"),
        ("mean(v) >= 3 AND host != 'c'", "ab"),
        ("NOT m > 3", "ac"),
        ("m IN (3, 8) AND host LIKE 'a%'", "a"),
        ("host IN ('b', 'c') OR m = 1", "bc"),
        ("m + 1 > 4", "b"),
        ("floor(m) = 8", "b"),
        ("host =~ /a|b/", "ab"),
        ("time = 0", "abc"),
        ("_name = 'm' AND m < 100", "abc"),
        ("true", "abc"),
        ("nothing_here", None),
    ],
)
def test_having_chooses_by_columns_and_tags(rows: Rows, having: str, hosts: str | None) -> None:
    text = f"SELECT mean(v) AS m FROM m GROUP BY host HAVING {having}"
    if hosts is None:
        with pytest.raises(StatementError, match="nothing_here: not a column or GROUP BY tag"):
            rows(text)
        return
    means = {"a": 3, "b": 8, "c": 3}
    assert rows(text) == [of(host, [0, means[host]]) for host in hosts]


def test_having_may_say_a_function_that_is_a_column(rows: Rows) -> None:
    found = rows("SELECT max(v), count(v) FROM m GROUP BY host HAVING max(v) / count(v) > 2")
    assert found == [of("b", [0, 9, 2])]
    with pytest.raises(StatementError, match=r"HAVING min\(v\): not a column"):
        rows("SELECT max(v) FROM m GROUP BY host HAVING min(v) > 2")


def test_having_sees_filled_windows(rows: Rows) -> None:
    query = "SELECT sum(v) FROM m WHERE time >= 0 AND time < 40 AND host = 'b' GROUP BY time(10ns)"
    assert rows(f"{query} fill(0) HAVING sum = 0") == [(None, [[10, 0], [30, 0]])]
    # A cell that is null is in no comparison, and in no opposite of one.
    assert rows(f"{query} HAVING NOT sum > 8") == [(None, [[20, 7]])]


def test_having_of_rows_comes_before_limit_and_offset(rows: Rows) -> None:
    assert rows("SELECT v FROM m HAVING v > 3 LIMIT 2") == [(None, [[0, 5], [0, 9]])]
    assert rows("SELECT v FROM m HAVING v > 3 LIMIT 2 OFFSET 2") == [(None, [[20, 7], [30, 4]])]


def test_having_and_time_inside_of_it(rows: Rows) -> None:
    found = rows("SELECT v FROM m WHERE host = 'a' HAVING time < 5 OR time > 15")
    assert found == [(None, [[0, 5], [20, 3]])]
    found = rows("SELECT v FROM m WHERE host = 'a' HAVING v = 3 OR time < 5")
    assert found == [(None, [[0, 5], [20, 3]])]
    assert rows("SELECT time AS t, v FROM m WHERE host = 'a' HAVING t = 10") == [(None, [[10, 1]])]


def test_having_of_a_subquery(rows: Rows) -> None:
    inner = "SELECT mean(v) AS m FROM m GROUP BY host HAVING m > 3"
    assert rows(f"SELECT count(m) FROM ({inner})") == [(None, [[0, 1]])]


def test_rows_of_each_series_are_sorted_and_series_by_their_first_rows(rows: Rows) -> None:
    found = rows("SELECT v FROM m GROUP BY host ORDER BY v")
    assert found == [
        of("a", [10, 1], [20, 3], [0, 5]),
        of("c", [10, 2], [30, 4]),
        of("b", [20, 7], [0, 9]),
    ]
    found = rows("SELECT v FROM m GROUP BY host ORDER BY v DESC LIMIT 1 SLIMIT 2")
    assert found == [of("b", [0, 9]), of("a", [0, 5])]


def test_order_by_several_keys_with_empty_cells_last(rows: Rows) -> None:
    most = 2**63 - 1
    ascending = [(1, 10), (2, 0), (2, 20), (3, 0), (most, 30), (None, 10), (None, 20)]
    descending = [(most, 30), (3, 0), (2, 20), (2, 0), (1, 10), (None, 20), (None, 10)]
    for text, expected in (("n, time", ascending), ("n DESC, time DESC", descending)):
        [(_, found)] = rows(f"SELECT n, v FROM m ORDER BY {text}")
        assert [(n, time) for time, n, _ in found] == expected


def test_equal_keys_stay_in_time_order(rows: Rows) -> None:
    [(_, found)] = rows("SELECT n, host FROM m WHERE n = 2 ORDER BY n DESC, host")
    assert found == [[0, 2, "b"], [20, 2, "b"]]


def test_order_by_text_a_tag_and_time_first(rows: Rows) -> None:
    [(_, found)] = rows("SELECT s FROM m ORDER BY s")
    assert [s for _, s in found] == ["Up", "down", "off", "up", "up"]
    found_tags = rows("SELECT max(v) FROM m GROUP BY host, dc ORDER BY dc DESC, max DESC")
    assert [tags for tags, _ in found_tags] == [
        {"dc": "x", "host": "b"},
        {"dc": "x", "host": "a"},
        {"dc": "", "host": "c"},
    ]
    assert rows("SELECT v FROM m WHERE dc = 'x' ORDER BY time DESC, v LIMIT 3") == [
        (None, [[20, 3], [20, 7], [10, 1]])
    ]


def test_order_by_in_a_subquery_chooses_its_rows(rows: Rows) -> None:
    inner = "SELECT v FROM m GROUP BY host ORDER BY v DESC LIMIT 1"
    assert rows(f"SELECT sum(v) FROM ({inner})") == [(None, [[0, 18]])]
    assert rows(f"SELECT v FROM ({inner}) WHERE v < 9") == [(None, [[0, 5], [30, 4]])]


def test_windows_are_sorted_after_they_are_filled(rows: Rows) -> None:
    query = "SELECT sum(v) FROM m WHERE time >= 0 AND time < 40 AND host = 'b' GROUP BY time(10ns)"
    assert rows(f"{query} fill(8) ORDER BY sum") == [(None, [[20, 7], [10, 8], [30, 8], [0, 9]])]


def test_unknown_key_is_refused(rows: Rows) -> None:
    with pytest.raises(StatementError, match="ORDER BY x: not a column or GROUP BY tag"):
        rows("SELECT v FROM m ORDER BY x")
