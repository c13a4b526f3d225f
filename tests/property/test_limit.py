"""LIMIT and OFFSET are a slice of the answer without them, whatever is missing."""

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
    import random
    from collections.abc import Sequence

# Points of four hosts, one a time, each with one or both of two fields.
POINTS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["f=1", "g=2", "f=1,g=2"])),
    min_size=1,
    max_size=60,
)
COLUMNS = st.sampled_from(["f", "g", "f, g", "f + 1", "floor(f)", "f + g"])
DIMENSIONS = st.sampled_from(["", "GROUP BY host"])
CALLS = st.sampled_from(
    [
        "sum(f)",
        "max(f), g",
        "last(g)",
        "mean(f) + count(g)",
        "integral(f)",
        "sum(f), count(s)",
        "count(f), count(g)",
        "first(s), max(g)",
        "max(f), s",
    ]
)
ORDERS = st.sampled_from(["", "ORDER BY time DESC"])


def rows_of(catalog: Catalog, text: str) -> dict[str, list[tuple[object, ...]]]:
    (select,) = parse(text)
    assert isinstance(select, ast.Select)
    found = {}
    for series in run_select(select, Session(catalog, Settings(), 0, "d")):
        columns = [
            [value if ok else None for value, ok in zip(cells.values, cells.mask(), strict=True)]  # type: ignore[union-attr]
            for cells in series.cells()
        ]
        found[str(series.tags)] = list(zip(*columns, strict=True))
    return found


@settings(deadline=None)
@given(POINTS, COLUMNS, DIMENSIONS, ORDERS, st.integers(1, 9), st.integers(0, 4))
def test_limit_is_a_slice(
    points: Sequence[tuple[str, str]], columns: str, by: str, order: str, limit: int, offset: int
) -> None:
    lines = [f"m,host={host} {fields} {time}" for time, (host, fields) in enumerate(points)]
    catalog = Catalog(None, Settings())
    try:
        catalog.create_database("d")
        catalog.storage("d").append_batch(parse_lines("\n".join(lines).encode(), now_ns=0).batch)
        text = f"SELECT {columns} FROM m {by} {order}"
        everything = rows_of(catalog, text)
        found = rows_of(catalog, f"{text} LIMIT {limit} OFFSET {offset}")
    finally:
        catalog.close()
    slices = {name: rows[offset : offset + limit] for name, rows in everything.items()}
    assert found == {name: rows for name, rows in slices.items() if rows}


@settings(deadline=None, max_examples=120)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from([9, 60, 400]),
    CALLS,
    st.sampled_from(["", "fill(none)", "fill(0)", "fill(previous)", "fill(linear)"]),
    st.sampled_from([-50, 0, 200, 590, None]),
    st.sampled_from([650, 400, 40, None]),
    st.sampled_from(["", "", ", host", ", *"]),
    st.sampled_from(["", "", "f > 0", "host = 'b'"]),
    ORDERS,
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_limit_of_windows_is_a_slice(
    rng: random.Random,
    n_points: int,
    columns: str,
    fill: str,
    start: int | None,
    end: int | None,
    by: str,
    condition: str,
    order: str,
    limit: int,
    offset: int,
) -> None:
    hosts = rng.sample(["", ",host=a", ",host=b", ",host=b,rack=c"], rng.randint(1, 4))
    fields = ["f=1", "g=2", "f=3,g=2", 'f=1,g=4,s="x"']
    lines = ["m f=0 1"]
    for _ in range(n_points):
        lines.append(f"m{rng.choice(hosts)} {rng.choice(fields)} {rng.randint(0, 600)}")
    bounds = [f"time >= {start}"] * (start is not None) + [f"time < {end}"] * (end is not None)
    bounds += [condition] * bool(condition)
    where = f"WHERE {' AND '.join(bounds)}" if bounds else ""
    catalog = Catalog(None, Settings())
    try:
        catalog.create_database("d")
        catalog.storage("d").append_batch(parse_lines("\n".join(lines).encode(), now_ns=0).batch)
        text = f"SELECT {columns} FROM m {where} GROUP BY time(10ns){by} {fill} {order}"
        everything = rows_of(catalog, text)
        found = rows_of(catalog, f"{text} LIMIT {limit} OFFSET {offset}")
    finally:
        catalog.close()
    slices = {name: rows[offset : offset + limit] for name, rows in everything.items()}
    assert found == {name: rows for name, rows in slices.items() if rows}
