"""Statements beyond what conformance records: deliberate differences, and the server itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from gateway.errors import StatementError
from gateway.running import RunningQueries
from gateway.session import Interrupt
from gateway.statements.table import go_duration
from grammar import ast

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from tests.unit.gateway.conftest import Ask


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (22_000, "22µs"),
        (1_100_000, "1.1ms"),
        (1_000_000_000, "1s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (604_800_000_000_000, "168h0m0s"),
        (5_400_500_000_000, "1h30m0.5s"),
        (2_703_002_747, "2.703002747s"),
    ],
)
def test_duration_prints_as_go_prints_it(ns: int, text: str) -> None:
    assert go_duration(ns) == text


@pytest.fixture
def two_hosts(db: TestClient) -> TestClient:
    db.post(
        "/write?db=t&precision=h",
        content=b"cpu,host=old v=1 1\ncpu,host=new,rack=r v=1 400000\nmem,host=old v=1 1\n",
    )
    return db


def rows(results: list[dict[str, object]]) -> object:
    """Return the values of each series of the only result."""
    [result] = results
    series = result.get("series", [])
    assert isinstance(series, list)
    return [(table.get("name", ""), table["values"]) for table in series]


@pytest.mark.usefixtures("two_hosts")
def test_time_bounds_of_show_are_exact(ask: Ask) -> None:
    recent = "WHERE time > '2015-01-01'"
    assert rows(ask(f"SHOW TAG VALUES WITH KEY = host {recent}", "t")) == [
        ("cpu", [["host", "new"]])
    ]
    assert rows(ask(f"SHOW TAG KEYS {recent}", "t")) == [("cpu", [["host"], ["rack"]])]
    assert rows(ask(f"SHOW SERIES {recent} AND host =~ /./", "t")) == [
        ("", [["cpu,host=new,rack=r"]])
    ]
    assert rows(ask("SHOW TAG VALUES WITH KEY = host WHERE time > '2100-01-01'", "t")) == []


@pytest.mark.usefixtures("two_hosts")
def test_measurements_without_a_tag_are_found_by_its_absence(ask: Ask) -> None:
    # Differs from influxd 1.6: != and = '' found nothing across measurements.
    assert rows(ask("SHOW MEASUREMENTS WHERE host != 'new'", "t")) == [
        ("measurements", [["cpu"], ["mem"]])
    ]
    assert rows(ask("SHOW MEASUREMENTS WHERE rack = ''", "t")) == [
        ("measurements", [["cpu"], ["mem"]])
    ]


@pytest.mark.usefixtures("two_hosts")
def test_measurements_of_all_databases_and_policies_are_listed(ask: Ask) -> None:
    ask("CREATE DATABASE u; CREATE RETENTION POLICY p ON u DURATION INF REPLICATION 1")
    assert rows(ask("SHOW MEASUREMENTS ON *.*")) == [
        ("measurements", [["cpu", "t", "autogen"], ["mem", "t", "autogen"]])
    ]
    assert rows(ask("SHOW MEASUREMENTS ON t.autogen LIMIT 1")) == [
        ("measurements", [["cpu", "t", "autogen"]])
    ]
    assert rows(ask("SHOW MEASUREMENTS ON u.p")) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("DROP USER u", "user not found"),
        ("GRANT READ ON t TO u", "user not found"),
        ("SHOW GRANTS FOR u", "user not found"),
        ("SET PASSWORD FOR u = 'p'", "user not found"),
        ("RUN CONTINUOUS QUERY c ON t FROM 0 TO 1", "database not found: t"),
        ("KILL QUERY 99999", "no such query id: 99999"),
        ("UNDROP DATABASE t", "database not in the trash: t"),
        ("UNDROP RETENTION POLICY p ON t", "database not found: t"),
        ("UNDROP MEASUREMENT m", "database not found: "),
        ("ALTER MEASUREMENT m RENAME TO n", "database not found: "),
    ],
)
def test_what_the_server_does_not_have_is_refused_and_not_acknowledged(
    ask: Ask, text: str, error: str
) -> None:
    assert ask(text) == [{"statement_id": 0, "error": error}]


@pytest.mark.usefixtures("two_hosts")
def test_drop_series_that_is_refused_for_one_measurement_deletes_nothing(ask: Ask) -> None:
    ask("SELECT v INTO aaa FROM cpu", "t")
    refused = ask("DROP SERIES WHERE v > 0 AND host = 'old'", "t")
    assert refused[0]["error"] == "fields not supported in WHERE clause during deletion"
    assert rows(ask("SHOW MEASUREMENTS", "t")) == [("measurements", [["aaa"], ["cpu"], ["mem"]])]


@pytest.mark.usefixtures("two_hosts")
def test_field_may_change_its_type_after_its_measurement_was_dropped(
    db: TestClient, ask: Ask
) -> None:
    ask("DROP MEASUREMENT cpu", "t")
    assert db.post("/write?db=t", content=b'cpu v="text" 1\n').status_code == 204
    assert rows(ask("SELECT v FROM cpu", "t", epoch="ns")) == [("cpu", [[1, "text"]])]


def test_dropped_database_starts_again_empty(db: TestClient, ask: Ask) -> None:
    db.post("/write?db=t", content=b"m v=1 1\n")
    ask("DROP DATABASE t; CREATE DATABASE t")
    assert rows(ask("SHOW MEASUREMENTS", "t")) == []


# --- running queries ----------------------------------------------------------------------------
def test_show_queries_lists_itself(ask: Ask) -> None:
    [result] = ask("SHOW QUERIES", "t")
    series = result["series"]
    assert isinstance(series, list)
    assert series[0]["columns"] == ["qid", "query", "database", "duration", "status"]
    [[_, text, database, _, status]] = series[0]["values"]
    assert (text, database, status) == ("SHOW QUERIES", "t", "running")


def test_killed_query_stops_at_its_next_check() -> None:
    running = RunningQueries()
    interrupt = Interrupt()
    with running.register(ast.ShowUsers(), "t", interrupt) as query:
        interrupt.check()
        killer = threading.Thread(target=running.kill, args=(query.id,))
        killer.start()
        killer.join()
        with pytest.raises(StatementError, match="query interrupted"):
            interrupt.check()
        assert [item.interrupt.is_tripped for item in running.listed()] == [True]
    assert running.listed() == []


def test_timeout_stops_a_query_and_the_first_reason_stays() -> None:
    interrupt = Interrupt(timeout_s=1e-9)
    with pytest.raises(StatementError, match="query-timeout limit exceeded"):
        interrupt.check()
    interrupt.trip("something else")
    with pytest.raises(StatementError, match="query-timeout limit exceeded"):
        interrupt.check()


def test_query_without_timeout_goes_on() -> None:
    Interrupt(timeout_s=0).check()
