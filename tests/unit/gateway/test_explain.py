"""EXPLAIN: the plan as influxd begins it, where the rows lie, and what running it really took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway import lineprotocol
from gateway.statements.explain import explain
from grammar import ast
from grammar.parser import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.testclient import TestClient

    from gateway.catalog import Catalog
    from gateway.session import Session
    from tests.unit.gateway.conftest import Ask

LINES = b"""
cpu,host=a,region=eu usage=1.5,load=2i,note="x" 10
cpu,host=a,region=eu usage=2.5 20
cpu,host=b usage=3.5,load=3i 10
mem,host=a free=1i 10
"""


@pytest.fixture
def lines(db: TestClient) -> Callable[[str], list[str]]:
    """Returns the lines of the answer to a statement, over LINES."""
    assert db.post("/write?db=t&precision=s", content=LINES).status_code == 204

    def of(text: str) -> list[str]:
        response = db.post("/query?db=t", data={"q": text})
        return [row[0] for row in response.json()["results"][0]["series"][0]["values"]]

    return of


@pytest.mark.parametrize(
    ("select", "firsts"),
    [
        ("mean(usage)", ["EXPRESSION: mean(usage::float)"]),
        ("mean(usage) / 2", ["EXPRESSION: mean(usage::float)"]),
        ("mean(load::float)", ["EXPRESSION: mean(load::float)"]),
        ("max(usage), host, load", ["EXPRESSION: max(usage::float)", "host::tag, load::integer"]),
        ("usage + load, nope", ["EXPRESSION: <nil>", "load::integer, nope, usage::float"]),
        (
            "*",
            [
                "EXPRESSION: <nil>",
                "host::tag, load::integer, note::string, region::tag, usage::float",
            ],
        ),
    ],
)
def test_plan_begins_as_influxd_prints_it(
    lines: Callable[[str], list[str]], select: str, firsts: list[str]
) -> None:
    # The texts are influxd 1.6.7's.
    found = lines(f"EXPLAIN SELECT {select} FROM cpu")
    assert found[: len(firsts)] == [
        first if first.startswith("EXPRESSION") else f"AUXILIARY FIELDS: {first}"
        for first in firsts
    ]
    assert found[len(firsts)] == "NUMBER OF SERIES: 2"


def test_plan_has_a_block_for_each_call_in_the_order_of_the_columns(
    lines: Callable[[str], list[str]],
) -> None:
    found = lines("EXPLAIN SELECT max(load), mean(usage) / 2, count(distinct(note)) FROM cpu")
    assert [line for line in found if line.startswith("EXPRESSION")] == [
        "EXPRESSION: max(load::integer)",
        "EXPRESSION: mean(usage::float)",
        "EXPRESSION: count(distinct(note::string))",
    ]
    assert found.count("") == 2


def test_plan_of_nothing_is_an_empty_line(lines: Callable[[str], list[str]]) -> None:
    assert lines("EXPLAIN SELECT v FROM nothing") == [""]


def test_plan_names_range_windows_dimensions_and_condition(
    lines: Callable[[str], list[str]],
) -> None:
    assert lines(
        "EXPLAIN SELECT mean(usage) FROM cpu WHERE time >= 10s AND time < 20s AND host = 'a' "
        "GROUP BY time(15mo), region HAVING mean > 1 ORDER BY mean DESC"
    ) == [
        "EXPRESSION: mean(usage::float)",
        "NUMBER OF SERIES: 1",
        "ROWS IN MEMORY: 1",
        "NUMBER OF FILES: 0",
        "ROWS IN FILES: 0",
        "MEASUREMENT: cpu",
        "TIME RANGE: 1970-01-01T00:00:10Z .. 1970-01-01T00:00:19.999999999Z",
        "WINDOWS: 15mo",
        "DIMENSIONS: region",
        "CONDITION: host = 'a'",
        "HAVING: mean > 1",
        "ORDER BY: mean DESC",
    ]


def test_plan_of_a_join_has_a_block_for_each_source(lines: Callable[[str], list[str]]) -> None:
    found = lines(
        "EXPLAIN SELECT c.usage / m.free FROM cpu AS c, mem AS m "
        "WHERE time > 0 AND (host = 'a' OR host = 'b') AND c.usage > 1"
    )
    assert found == [
        "EXPRESSION: <nil>",
        "AUXILIARY FIELDS: usage::float",
        "NUMBER OF SERIES: 2",
        "ROWS IN MEMORY: 3",
        "NUMBER OF FILES: 0",
        "ROWS IN FILES: 0",
        "MEASUREMENT: cpu",
        "TIME RANGE: 1970-01-01T00:00:00.000000001Z .. -",
        "DIMENSIONS: host, region",
        "CONDITION: (host = 'a' OR host = 'b')",
        "",
        "EXPRESSION: <nil>",
        "AUXILIARY FIELDS: free::integer",
        "NUMBER OF SERIES: 1",
        "ROWS IN MEMORY: 1",
        "NUMBER OF FILES: 0",
        "ROWS IN FILES: 0",
        "MEASUREMENT: mem",
        "TIME RANGE: 1970-01-01T00:00:00.000000001Z .. -",
        "DIMENSIONS: host",
        "CONDITION: (host = 'a' OR host = 'b')",
    ]


@pytest.mark.parametrize(
    ("select", "counts"),
    [
        ("SELECT usage FROM cpu", [3, 1, 3]),
        ("SELECT usage FROM cpu GROUP BY host", [3, 2, 3]),
        ("SELECT usage FROM cpu WHERE time > 10s", [1, 1, 1]),
        ("SELECT mean(usage) FROM cpu", [3, 1, 1]),
        ("SELECT mean(usage) FROM cpu WHERE host = 'a' GROUP BY time(10s) fill(none)", [2, 1, 2]),
        ("SELECT max(m) FROM (SELECT mean(usage) AS m FROM cpu GROUP BY host)", [3, 1, 1]),
        ("SELECT mean(free), mean(usage) FROM cpu, mem", [4, 2, 2]),
        ("SELECT v FROM nothing", [0, 0, 0]),
    ],
)
def test_analyze_counts_what_was_read_and_answered(
    lines: Callable[[str], list[str]], select: str, counts: list[int]
) -> None:
    found = dict(
        line.strip("├─└ ").split(": ", 1) for line in lines(f"EXPLAIN ANALYZE {select}")[2:]
    )
    assert found["statement"] == select
    assert [int(found[name]) for name in ("rows_read", "series", "rows")] == counts


def test_analyze_writes_nothing(lines: Callable[[str], list[str]], ask: Ask) -> None:
    found = lines("EXPLAIN ANALYZE SELECT usage INTO copy FROM cpu")
    assert "    ├── rows: 3" in found
    assert "copy" not in str(ask("SHOW MEASUREMENTS", "t"))


def test_plan_says_what_lies_in_files(catalog: Catalog, session: Session) -> None:
    catalog.create_database("t")
    store = catalog.storage("t")
    store.append_batch(lineprotocol.parse(LINES, precision="s", now_ns=0).batch)
    store.flush()
    store.append_batch(lineprotocol.parse(b"cpu,host=a usage=1 20", precision="s", now_ns=0).batch)
    [statement] = parse("EXPLAIN SELECT usage FROM t..cpu")
    assert isinstance(statement, ast.Explain)
    [series] = explain(statement, session)
    assert isinstance(series.data[0], list)
    assert series.data[0][3:6] == [
        "ROWS IN MEMORY: 1",
        "NUMBER OF FILES: 1",
        "ROWS IN FILES: 3",
    ]
