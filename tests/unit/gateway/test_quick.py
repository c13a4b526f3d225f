"""Small statements answered on the event loop: which, and that nobody can tell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from gateway import quick
from gateway.app import create_app
from gateway.config import Settings
from gateway.query import QueryEndpoint
from gateway.quick import QuickKinds
from grammar.parser import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLACE = "d", ""
LINES = "\n".join(f"m,host=h{n % 40} v={n}i {n}" for n in range(4000))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            "SELECT v FROM m WHERE time > 5 AND (host = 'b')",
            "SELECT v FROM m WHERE time > 6 AND host = 'a'",
        ),
        ("SELECT v FROM m WHERE host =~ /a/", "SELECT v FROM m WHERE host =~ /b/"),
        ("SELECT mean(v) FROM m GROUP BY time(1m)", "SELECT mean(v) FROM m GROUP BY time(1m)"),
        ("SHOW TAG VALUES WITH KEY = a", "SHOW TAG VALUES WITH KEY = a"),
    ],
)
def test_statement_is_of_the_kind_of_one_that_was_short(
    first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = QuickKinds()
    assert not kinds.has(parse(second), PLACE)
    kinds.note(parse(first), PLACE, 0.03)  # as the first of a kind mostly does
    assert not kinds.has(parse(second), PLACE)
    kinds.note(parse(first), PLACE, 0.001)
    assert kinds.has(parse(second), PLACE)
    assert not kinds.has(parse(second), ("other", ""))
    kinds.note(parse(second), PLACE, 0.006)  # neither short nor long
    assert kinds.has(parse(second), PLACE)
    kinds.note(parse(second), PLACE, 0.03)
    kinds.note(parse(second), PLACE, 0.001)  # for a while it is not believed
    assert not kinds.has(parse(first), PLACE)
    later_s = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    kinds.note(parse(second), PLACE, 0.001)
    assert kinds.has(parse(first), PLACE)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT v FROM m; SELECT v FROM m",
        "SELECT v INTO n FROM m",
        "SELECT v FROM /m/",
        "SELECT v FROM (SELECT v FROM m)",
        "CREATE DATABASE x",
        "DROP SERIES FROM m",
        "SHOW SERIES",
        "SHOW QUERIES",
        "KILL QUERY 1",
        "EXPLAIN SELECT v FROM m",
    ],
)
def test_statement_is_never_quick(text: str) -> None:
    kinds = QuickKinds()
    kinds.note(parse(text), PLACE, 0.0)
    assert not kinds.has(parse(text), PLACE)


@pytest.mark.parametrize(
    "condition",
    ["host =~ /a/", "host LIKE 'a%'", "NOT (host = 'a')", "host != 'a'", "host = 'a' OR v = 1"],
)
def test_other_condition_is_another_kind(condition: str) -> None:
    kinds = QuickKinds()
    kinds.note(parse("SELECT v FROM m WHERE host = 'a'"), PLACE, 0.0)
    assert not kinds.has(parse(f"SELECT v FROM m WHERE {condition}"), PLACE)


def test_kinds_are_bounded() -> None:
    kinds = QuickKinds()
    for n in range(3 * quick._MOST_KINDS):
        kinds.note(parse(f"SELECT v{n} FROM m"), PLACE, 0.0)
    assert len(kinds._known) <= quick._MOST_KINDS


# --- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], tuple[dict[str, Any], bool]]]:
    """Asks, and gives the result with whether a thread was needed."""
    calls: list[object] = []
    answer = QueryEndpoint._answer

    def counted(endpoint: QueryEndpoint, *args: Any) -> Any:
        calls.append(args)
        return answer(endpoint, *args)

    monkeypatch.setattr(QueryEndpoint, "_answer", counted)
    monkeypatch.setattr(quick, "_SHORT_S", 10.0)  # whatever else the machine does
    monkeypatch.setattr(quick, "_LONG_S", 10.0)
    with TestClient(create_app(Settings(), in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE d"})
        assert client.post("/write?db=d", content=LINES).status_code == 204

        def asked(text: str) -> tuple[dict[str, Any], bool]:
            calls.clear()
            query = {"db": "d", "epoch": "ns", "q": text}
            [result] = client.get("/query", params=query).json()["results"]
            return result, bool(calls)

        asked.client = client  # type: ignore[attr-defined]
        yield asked


def test_second_question_of_a_kind_needs_no_thread(ask: Any) -> None:
    text = "SELECT v FROM m WHERE host = 'h{}' AND time < {}"
    first, is_threaded = ask(text.format(1, 50))
    assert (first["series"][0]["values"], is_threaded) == ([[1, 1], [41, 41]], True)
    second, is_threaded = ask(text.format(2, 100))
    assert (second["series"][0]["values"], is_threaded) == ([[2, 2], [42, 42], [82, 82]], False)


def test_question_that_reads_much_gets_a_thread(ask: Any) -> None:
    text = "SELECT mean(v) FROM m WHERE time < {}"
    ask(text.format(10))
    assert ask(text.format(20))[1] is True  # of more series than are quick


def test_rows_are_estimated(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.query.MAX_ROWS", 60)
    text = "SELECT sum(v) FROM m WHERE host = 'h0' AND time < {}"
    ask(text.format(1000))
    assert ask(text.format(2000))[1] is False
    result, is_threaded = ask(text.format(4000))
    assert is_threaded
    assert result["series"][0]["values"] == [[0, sum(range(0, 4000, 40))]]


def test_wide_rows_count_as_several(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.query.MAX_ROWS", 60)
    wide = "\n".join(f"w {','.join(f'f{k}={k}' for k in range(100))} {n}" for n in range(40))
    assert ask.client.post("/write?db=d", content=wide).status_code == 204
    text = "SELECT * FROM w WHERE time < {}"
    ask(text.format(1))
    assert ask(text.format(2))[1] is False
    assert ask(text.format(40))[1] is True


def test_rows_before_the_range_are_estimated_too(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.query.MAX_ROWS", 60)
    text = (
        "SELECT sum(v) FROM m WHERE host = 'h0' AND time >= 3960 AND time < 4000 "
        "GROUP BY time(20ns) fill(previous, {}ns)"
    )
    ask(text.format(1000))
    expected = [[3960, 3960], [3980, 3960]]
    for age_ns, is_long in ((2000, False), (3900, True)):
        result, is_threaded = ask(text.format(age_ns))
        assert (result["series"][0]["values"], is_threaded) == (expected, is_long)


def test_windows_are_limited(ask: Any) -> None:
    text = "SELECT count(v) FROM m WHERE host = 'h0' AND time >= 0 AND time < {} GROUP BY time(1u)"
    ask(text.format(4000))
    assert ask(text.format(5000))[1] is False
    result, is_threaded = ask(text.format(20_000_000))
    assert is_threaded
    assert len(result["series"][0]["values"]) == 20_000


def test_error_is_the_one_of_the_thread(ask: Any) -> None:
    text = "SELECT v FROM m WHERE time > '{}'"
    ask(text.format("2000-01-01"))
    result, is_threaded = ask(text.format("2000-99-99"))
    assert is_threaded
    assert result["error"] == "invalid timestamp string"


def test_quick_statement_that_fails_late_is_not_quick_for_a_while(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "SELECT v FROM m WHERE host =~ /{}/"
    ask(text.format("^h1$"))
    assert ask(text.format("^h2$"))[1] is False
    monkeypatch.setattr(quick, "_LONG_S", 0.0)
    monkeypatch.setattr(quick, "_SHORT_S", 0.0)
    assert ask(text.format("h"))[1] is True  # of more series than are quick
    assert ask(text.format("^h2$"))[1] is True


def test_statements_are_counted_once(ask: Any) -> None:
    ask("SHOW MEASUREMENTS")

    def counted() -> float:
        lines = ask.client.get("/metrics").text.splitlines()
        [line] = [one for one in lines if one.startswith("tinyflux_query_statements_total ")]
        return float(line.split()[1])

    before = counted()
    assert ask("SHOW MEASUREMENTS")[1] is False
    assert counted() == before + 1
