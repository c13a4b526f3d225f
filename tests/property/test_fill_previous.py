"""`fill(previous, age)` carries what plain `fill(previous)` would, had the range begun earlier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings, strategies as st

from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.executor import run_select
from gateway.lineprotocol.parser import parse as parse_lines
from gateway.session import Session
from grammar import ast
from grammar.parser import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

Answer = dict[tuple[tuple[str, str], ...], list[list[object]]]
START, END = 200, 260  # ns; a border of windows of 10, 20 and 100

_fields = st.lists(
    st.sampled_from(["v=1", "v=2.5", "n=3i", "n=-4i", 's="a"', 's="b"', "b=true"]),
    min_size=1,
    max_size=3,
    unique_by=lambda text: text[0],
)
_points = st.lists(
    st.tuples(st.sampled_from(["a", "b", ""]), _fields, st.integers(0, 300)), max_size=14
)


def _line(host: str, fields: Sequence[str], time: int) -> str:
    tags = f",host={host}" if host else ""
    return f"m{tags} {','.join(fields)} {time}"


def _run(session: Session, text: str) -> Answer:
    (select,) = parse(text)
    assert isinstance(select, ast.Select)
    answer: Answer = {}
    for series in run_select(select, session):
        columns = []
        for cells in series.cells():
            values, valid = cells.values.tolist(), cells.mask().tolist()  # type: ignore[union-attr]
            # A deviation of one value is NaN, which is not equal to itself.
            shown = ("NaN" if value != value else value for value in values)
            columns.append([v if ok else None for v, ok in zip(shown, valid, strict=True)])
        key = tuple((series.tags or {}).items())
        answer[key] = [list(row) for row in zip(*columns, strict=True)]
    return answer


@settings(max_examples=60, deadline=None)
@given(
    _points,
    st.sampled_from(
        [
            "mean(v)",
            "last(s)",
            "max(v), count(n), first(b)",
            "stddev(v), sum(n)",
            "last(v), n, s",
            "mean(v) + last(n)",
            "difference(mean(v)), mean(v)",
            "elapsed(last(n))",
        ]
    ),
    st.sampled_from([10, 20, 100]),
    st.sampled_from(["", ", host"]),
    st.sampled_from([1, 7, 60, 100, 150, 1000]),
    st.sampled_from(["", " AND host = 'a'"]),
    st.booleans(),
)
def test_value_before_the_range_is_carried_into_it(
    points: list[tuple[str, list[str], int]],
    calls: str,
    every: int,
    tags: str,
    age: int,
    condition: str,
    is_nested: bool,
) -> None:
    catalog = Catalog(None, Settings())
    catalog.create_database("d")
    lines = "\n".join(_line(*point) for point in points)
    catalog.storage("d").append_batch(parse_lines(lines.encode(), now_ns=0).batch)
    session = Session(catalog, Settings(), 0, "d")

    source = "(SELECT v, n, s, b FROM m GROUP BY host)" if is_nested else "m"

    def query(start: int, fill: str, order: str = "") -> str:
        return (
            f"SELECT {calls} FROM {source} WHERE time >= {start} AND time < {END}{condition} "
            f"GROUP BY time({every}ns){tags} fill({fill}) {order}"
        )

    aged = _run(session, query(START, f"previous, {age}ns"))
    plain = _run(session, query(START - age, "previous"))
    # The rows of transformations begin where there is something before them.
    wanted = {
        group: [row for row in rows if isinstance(row[0], int) and row[0] >= START]
        for group, rows in plain.items()
    }
    assert aged == {group: rows for group, rows in wanted.items() if rows}

    if "difference" not in calls and "elapsed" not in calls:
        descending = _run(session, query(START, f"previous, {age}ns", "ORDER BY time DESC"))
        assert {group: rows[::-1] for group, rows in descending.items()} == aged
        assert list(descending) == list(aged)[::-1]
