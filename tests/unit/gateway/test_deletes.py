"""DELETE by fields, and DROP FIELD, by HTTP; what DELETE takes is what SELECT shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.gateway.conftest import Ask

LINES = (
    b"m,host=a usage=95,load=1i,up=true 1\n"
    b"m,host=a usage=10,load=2i,up=false 2\n"
    b'm,host=b usage=91,text="x" 3\n'
    b"m,host=b load=3i 4\n"
    b"m usage=99 5\n"
    b"mem,host=a usage=95 1\n"
    b"disk,host=a free=1 1\n"
)


@pytest.fixture
def filled(db: TestClient) -> TestClient:
    assert db.post("/write?db=t", content=LINES).status_code == 204
    return db


def times(ask: Ask, text: str) -> list[int]:
    [result] = ask(text, "t", epoch="ns")
    assert "error" not in result, result
    found = result.get("series", [])
    assert isinstance(found, list)
    return sorted(row[0] for series in found for row in series["values"])


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("usage > 90 AND host = 'a'", [2, 3, 4, 5]),
        ("time >= 2 AND time < 5 AND usage > 0", [1, 4, 5]),
        ("usage > 90 OR load = 3", [2]),
        ("host = 'b' OR usage > 98", [1, 2]),
        ("usage + load > 90", [2, 3, 4, 5]),
        ("text =~ /x/", [1, 2, 4, 5]),
        ("up = false", [1, 3, 4, 5]),
        ("usage != 95", [1, 4]),
        ("usage > 1000", [1, 2, 3, 4, 5]),
        ("nothing = 'x' AND usage > 0", [1, 2, 3, 4, 5]),
    ],
)
@pytest.mark.usefixtures("filled")
def test_whole_points_whose_fields_match_are_deleted(ask: Ask, where: str, left: list[int]) -> None:
    shown = times(ask, f"SELECT * FROM m WHERE {where}")
    assert sorted([*shown, *left]) == [1, 2, 3, 4, 5]
    assert ask(f"DELETE FROM m WHERE {where}", "t") == [{"statement_id": 0}]
    assert times(ask, "SELECT * FROM m") == left
    assert times(ask, "SELECT * FROM mem") == [1]


@pytest.mark.usefixtures("filled")
def test_delete_without_a_measurement_looks_at_the_fields_of_each(ask: Ask) -> None:
    ask("DELETE WHERE usage > 90", "t")
    assert times(ask, "SELECT * FROM m") == [2, 4]
    assert times(ask, "SELECT * FROM mem") == []
    assert times(ask, "SELECT * FROM disk") == [1]


@pytest.mark.usefixtures("filled")
def test_conditions_that_select_refuses_are_refused(ask: Ask) -> None:
    for where in ("usage > 'x' AND time > 'never'", "mean(usage) > 1"):
        [selected] = ask(f"SELECT * FROM m WHERE {where}", "t")
        [deleted] = ask(f"DELETE FROM m WHERE {where}", "t")
        assert deleted.get("error") == selected.get("error")
    assert times(ask, "SELECT * FROM m") == [1, 2, 3, 4, 5]
    [result] = ask("DROP SERIES FROM m WHERE usage > 90", "t")
    assert result["error"] == "fields not supported in WHERE clause during deletion"


@pytest.mark.usefixtures("filled")
def test_a_dropped_field_is_gone_and_may_come_again_with_another_type(ask: Ask) -> None:
    assert ask("DROP FIELD usage FROM m", "t") == [{"statement_id": 0}]
    assert times(ask, "SELECT * FROM m") == [1, 2, 3, 4]
    [result] = ask("SHOW FIELD KEYS FROM m", "t")
    assert [row[0] for row in result["series"][0]["values"]] == ["load", "text", "up"]  # type: ignore[index]
    [result] = ask("SHOW SERIES FROM m", "t")
    assert result["series"][0]["values"] == [["m,host=a"], ["m,host=b"]]  # type: ignore[index]
    assert times(ask, "SELECT usage FROM mem") == [1]
    for text in ("DROP FIELD usage FROM m", "DROP FIELD nothing FROM nowhere"):
        assert ask(text, "t") == [{"statement_id": 0}]


def test_a_dropped_field_takes_another_type_at_once(filled: TestClient, ask: Ask) -> None:
    assert filled.post("/write?db=t", content=b'm,host=a usage="high" 1').status_code == 400
    ask("DROP FIELD usage FROM m", "t")
    assert filled.post("/write?db=t", content=b'm,host=a usage="high" 1').status_code == 204
    [result] = ask("SELECT usage, load FROM m WHERE host = 'a'", "t", epoch="ns")
    assert result["series"][0]["values"] == [[1, "high", 1], [2, None, 2]]  # type: ignore[index]


def test_drop_field_by_get_warns_and_needs_a_database(filled: TestClient) -> None:
    answer = filled.get("/query?db=t&q=DROP FIELD usage FROM m").json()
    [message] = answer["results"][0]["messages"]
    assert message["text"].startswith("deprecated use of 'DROP FIELD usage FROM m' in a read only")
    answer = filled.post("/query", data={"q": "DROP FIELD usage FROM m"}).json()
    assert answer["results"][0]["error"] == "database not found: "


CONDITION = st.sampled_from(
    [
        "usage > 90",
        "usage <= 50",
        "load = 2",
        "load != 2",
        "up = true",
        "text = 'x'",
        "text != 'x'",
        "host = 'a'",
        "host != 'a'",
        "host = ''",
        "nothing = 'x'",
        "nothing != 'x'",
        "time > 2",
        "usage - load > 8",
    ]
)
WHERE = st.recursive(
    CONDITION,
    lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(
        lambda parts: f"({' '.join(parts)})"
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    path: Path = tmp_path_factory.mktemp("data")
    with TestClient(create_app(Settings(data=path, sync="off", memtable_bytes=1))) as client:
        yield client


@given(where=WHERE)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_delete_takes_exactly_what_select_shows(server: TestClient, where: str) -> None:
    def run(text: str) -> dict[str, object]:
        data = {"q": text, "db": "t", "epoch": "ns"}
        result: dict[str, object] = server.post("/query", data=data).json()["results"][-1]
        return result

    def rows(text: str) -> list[str]:
        found = run(text).get("series", [])
        assert isinstance(found, list)
        return sorted(map(str, (row for series in found for row in series["values"])))

    run("DROP DATABASE t; PURGE TRASH; CREATE DATABASE t")
    server.post("/write?db=t", content=LINES)
    before, shown = rows("SELECT * FROM m"), rows(f"SELECT * FROM m WHERE {where}")
    deleted = run(f"DELETE FROM m WHERE {where}")
    if "error" in deleted:
        assert deleted["error"] == run(f"SELECT * FROM m WHERE {where}")["error"]
        shown = []
    assert sorted([*rows("SELECT * FROM m"), *shown]) == before
