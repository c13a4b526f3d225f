"""HAVING, ORDER BY and LIMIT of random queries against the same done to the plain answer."""

from __future__ import annotations

import operator
import random
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.conformance.random_queries import lines
from tests.selecting import selecting_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.selecting import Rows

Cell = Any  # a number, text, True, False, or None for an empty one
Row = list[Cell]

# All with the columns of _COLUMNS.
_QUERIES = (
    "SELECT f, i, s, b FROM m",
    "SELECT f, i, s, b FROM m GROUP BY h, r",
    "SELECT f + i AS f, i, s, b FROM m WHERE i > -5 GROUP BY r",
    "SELECT mean(f) AS f, sum(i) AS i, last(s) AS s, first(b) AS b FROM m GROUP BY h, r",
    "SELECT max(f) AS f, count(i) AS i, last(s) AS s, last(b) AS b FROM m "
    "WHERE time >= 1699999200000000000 AND time < 1699999800000000000 GROUP BY time(50s), h",
)
_OPERATORS = {"=": operator.eq, "!=": operator.ne, ">": operator.gt, "<=": operator.le}
_COLUMNS = ["f", "i", "s", "b"]


@pytest.fixture(scope="module")
def select() -> Iterator[Rows]:
    written = [f"{line}000000000" for line in lines(random.Random(7))]
    with selecting_from("\n".join(written), now_ns=1_700_000_000_000_000_000) as run:
        yield run


def _compare(left: Cell, right: Cell, *, descending: bool) -> int:
    if left is None or right is None:
        return (left is None) - (right is None)
    order = int(left > right) - int(left < right)
    return -order if descending else order


def _sorted(rows: list[Row], keys: list[tuple[str, bool]]) -> list[Row]:
    def order(left: Row, right: Row) -> int:
        for name, descending in keys:
            at = ["time", *_COLUMNS].index(name)
            found = _compare(left[at], right[at], descending=descending)
            if found:
                return found
        return 0

    return sorted(rows, key=cmp_to_key(order))


def _passes(row: Row, column: str, op: str, value: Cell) -> bool:
    cell = row[1 + _COLUMNS.index(column)]
    return cell is not None and bool(_OPERATORS[op](cell, value))


_having = st.one_of(
    st.tuples(st.sampled_from("fi"), st.sampled_from(sorted(_OPERATORS)), st.integers(-9, 9)),
    st.tuples(st.just("s"), st.sampled_from(["=", "!="]), st.sampled_from(["ok", "warn", ""])),
    st.tuples(st.just("b"), st.sampled_from(["=", "!="]), st.booleans()),
)
_keys = st.lists(
    st.tuples(st.sampled_from(["time", *_COLUMNS]), st.booleans()),
    max_size=3,
    unique_by=lambda key: key[0],
)


def _written(value: Cell) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(_QUERIES),
    st.one_of(st.none(), _having),
    _keys.filter(lambda keys: [name for name, _ in keys[:1]] != ["time"]),
    st.integers(0, 4),
    st.integers(0, 2),
)
def test_rows_are_those_of_the_plain_answer_chosen_sorted_and_cut(
    select: Rows,
    query: str,
    having: tuple[str, str, Cell] | None,
    keys: list[tuple[str, bool]],
    limit: int,
    offset: int,
) -> None:
    text = query
    expected = []
    for tags, rows in select(query):
        chosen = rows if having is None else [row for row in rows if _passes(row, *having)]
        if chosen:
            expected.append((tags, _sorted(chosen, keys)))
    if having is not None:
        column, op, value = having
        text += f" HAVING {column} {op} {_written(value)}"
    if keys:
        text += f" ORDER BY {', '.join(f'{n} DESC' if down else n for n, down in keys)}"
        firsts = [[*rows[0], number] for number, (_, rows) in enumerate(expected)]
        expected = [expected[first[-1]] for first in _sorted(firsts, keys)]
    text += (f" LIMIT {limit}" if limit else "") + (f" OFFSET {offset}" if offset else "")
    cut = [(tags, rows[offset : offset + limit if limit else None]) for tags, rows in expected]

    assert select(text) == [(tags, rows) for tags, rows in cut if rows]
