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
from gateway.quick import QuickKinds, kind_of
from grammar.parser import read

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from pathlib import Path

PLACE = "d", ""
LINES = "\n".join(f"m,host=h{n % 40} v={n}i {n}" for n in range(4000))


def _kind(text: str, place: tuple[str, str] = PLACE) -> Hashable:
    return kind_of(read(text), place)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            "SELECT v FROM m WHERE time > 5 AND (host = 'b')",
            "SELECT v FROM m WHERE time > 6 AND (host = 'a')",
        ),
        ("SELECT v FROM m WHERE host =~ /a/", "SELECT v FROM m WHERE host =~ /b/"),
        ("SELECT mean(v) FROM m GROUP BY time(1m)", "SELECT mean(v) FROM m GROUP BY time(1m)"),
        ("SHOW TAG VALUES WITH KEY = a", "SHOW TAG VALUES WITH KEY = a"),
        ("SHOW DATABASES -- all of them", "SHOW DATABASES -- all of them"),
    ],
)
def test_statement_is_of_the_kind_of_one_that_was_short(first: str, second: str) -> None:
    kinds = QuickKinds()
    assert not kinds.has(_kind(second))
    kinds.note(_kind(first), 0.03)  # as the first of a kind mostly does
    assert not kinds.has(_kind(second))
    kinds.note(_kind(first), 0.001)
    assert kinds.has(_kind(second))
    assert not kinds.has(_kind(second, ("other", "")))


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass."""
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)

    def passed(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    return passed


def test_kind_that_takes_long_once_is_forgiven(pass_time: Callable[[float], None]) -> None:
    kinds, kind = QuickKinds(), _kind("SELECT v FROM m WHERE time > 5")
    kinds.note(kind, 0.001)
    for _ in range(100):
        kinds.note(kind, 0.001, is_quick=True)
    for _ in range(10):
        kinds.note(kind, 0.011, is_quick=True)
        assert kinds.has(kind)
        pass_time(1)


def test_kind_that_takes_long_often_or_very_long_is_not_quick_for_a_while(
    pass_time: Callable[[float], None],
) -> None:
    kinds = QuickKinds()
    often, very, other = (_kind(f"SELECT {name} FROM m") for name in ("a", "b", "c"))
    for kind in (often, very, other):
        kinds.note(kind, 0.001)
    for _ in range(2):
        assert kinds.has(often)
        kinds.note(often, 0.011, is_quick=True)
    kinds.note(very, 0.03)
    assert (kinds.has(often), kinds.has(very), kinds.has(other)) == (False, False, True)
    pass_time(0.4)
    assert (kinds.has(often), kinds.has(very)) == (True, False)
    pass_time(0.6)
    kinds.note(very, 0.001)
    assert kinds.has(very)


def test_kind_that_passed_a_limit_is_not_tried_again_for_a_while(
    pass_time: Callable[[float], None],
) -> None:
    kinds, kind = QuickKinds(), _kind("SELECT v FROM m WHERE time > 5")
    kinds.note(kind, 0.001)
    kinds.refuse(kind)
    for _ in range(25):
        kinds.note(kind, 0.001)  # by a thread
        assert not kinds.has(kind)
        pass_time(1)
    pass_time(10)
    assert kinds.has(kind)


def test_many_kinds_together_take_the_event_loop_for_a_small_part_of_the_time(
    pass_time: Callable[[float], None],
) -> None:
    kinds, taken_s = QuickKinds(), 0.0
    each = [_kind(f"SELECT v{n} FROM m") for n in range(300)]
    for _ in range(100):
        for kind in each:
            kinds.note(kind, 0.001)
            if kinds.has(kind):
                kinds.note(kind, 0.05, is_quick=True)
                taken_s += 0.05
                pass_time(0.05)
        pass_time(0.1)
    assert taken_s < 1.0  # of 10 s


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
    assert _kind(text) is None
    kinds = QuickKinds()
    kinds.note(None, 0.0)
    assert not kinds.has(None)


@pytest.mark.parametrize(
    "condition",
    ["host =~ /a/", "host LIKE 'a%'", "NOT (host = 'a')", "host != 'a'", "host = 'a' OR v = 1"],
)
def test_other_condition_is_another_kind(condition: str) -> None:
    assert _kind(f"SELECT v FROM m WHERE {condition}") != _kind("SELECT v FROM m WHERE host = 'a'")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("SHOW TAG VALUES WITH KEY =~ /a/", "SHOW TAG VALUES WITH KEY =~ /b/"),
        ("SHOW MEASUREMENTS WITH MEASUREMENT =~ /a/", "SHOW MEASUREMENTS WITH MEASUREMENT =~ /b/"),
        ("SELECT v FROM m LIMIT 1", "SELECT v FROM m LIMIT 2"),
        ("SELECT v FROM m WHERE a = 'x' -- a", "SELECT v FROM m WHERE a = 'y' -- a"),
        ("SELECT v FROM m WHERE a IN (1)", "SELECT v FROM m WHERE a IN (2)"),
    ],
)
def test_literal_elsewhere_makes_another_kind(first: str, second: str) -> None:
    for _ in range(2):  # read in full, and by its outline
        assert _kind(first) != _kind(second)


def test_kinds_are_bounded() -> None:
    kinds = QuickKinds()
    for n in range(3 * quick._MOST_KINDS):
        kinds.note(_kind(f"SELECT v{n} FROM m"), 0.0)
    assert len(kinds._debts) <= quick._MOST_KINDS


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
    monkeypatch.setattr(quick, "SHORT_S", 10.0)  # whatever else the machine does
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
    lines = "\n".join(f"many,host=h{n} v={n}i {n}" for n in range(400))
    assert ask.client.post("/write?db=d", content=lines).status_code == 204
    text = "SELECT mean(v) FROM many WHERE time < {}"
    ask(text.format(10))
    assert ask(text.format(20))[1] is True  # of more series than are quick


def test_rows_are_limited(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_rows_behind_a_limit_are_not_read(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.query.MAX_ROWS", 100)
    for text in (
        "SELECT last(v) FROM m WHERE time < {}",
        "SELECT v FROM m WHERE time < {} LIMIT 2",
    ):
        ask(text.format(4000))
        assert ask(text.format(4001))[1] is False


def test_rows_before_the_range_are_limited_too(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.query.MAX_ROWS", 60)
    text = (
        "SELECT sum(v) FROM m WHERE host = 'h0' AND time >= 3960 AND time < 4000 "
        "GROUP BY time(20ns) fill(previous, {}ns)"
    )
    expected = [[3960, 3960], [3980, 3960]]
    for age_ns, is_long in ((2000, False), (3900, True)):
        ask(text.format(age_ns))
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


def test_what_is_to_be_decoded_or_sorted_gets_a_thread_this_once(tmp_path: Path) -> None:
    text = "SELECT sum(v) FROM m WHERE host = 'h{}' AND time < {}"
    counted: list[str] = []
    answer = QueryEndpoint._answer

    def threaded(endpoint: QueryEndpoint, *args: Any) -> Any:
        counted.append(args[0].text)
        return answer(endpoint, *args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(quick, "SHORT_S", 10.0)
        patched.setattr(QueryEndpoint, "_answer", threaded)
        app = create_app(Settings(data=tmp_path))
        with TestClient(app) as client:

            def ask(host: int, end_ns: int) -> list[object]:
                query = {"db": "d", "epoch": "ns", "q": text.format(host, end_ns)}
                [result] = client.get("/query", params=query).json()["results"]
                values: list[object] = result["series"][0]["values"][0]
                return values

            client.post("/query", data={"q": "CREATE DATABASE d"})
            lines = "\n".join(f"m,host=h{n % 40} v={n}i {n}" for n in range(6000))
            client.post("/write?db=d", content=lines)
            counted.clear()
            assert ask(1, 50) == [0, 42]
            assert ask(2, 50) == [0, 44]
            assert counted == [text.format(1, 50)]
            client.post("/write?db=d", content=lines.replace(" v=", " w="))
            assert ask(3, 50) == [0, 46]  # 6000 points to be sorted
            assert ask(4, 50) == [0, 48]
            assert counted == [text.format(1, 50), text.format(3, 50)]
            endpoint: Any = app._usual["GET", "/query"]
            endpoint._catalog.storage("d").flush()
            assert ask(5, 50) == [0, 50]  # a column to be decoded
            assert ask(6, 50) == [0, 52]
            assert counted[2:] == [text.format(5, 50)]


def test_statements_are_counted_once(ask: Any) -> None:
    ask("SHOW MEASUREMENTS")

    def counted() -> float:
        lines = ask.client.get("/metrics").text.splitlines()
        [line] = [one for one in lines if one.startswith("tinyflux_query_statements_total ")]
        return float(line.split()[1])

    before = counted()
    assert ask("SHOW MEASUREMENTS")[1] is False
    assert counted() == before + 1
