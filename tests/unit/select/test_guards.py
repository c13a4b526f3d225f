"""Limits of SELECT: each says which setting it is, and which cheaper question could be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., dict[str, Any]]

LINES = "\n".join(f"m,host=h{n % 5} v={n}i {1_700_000_000 + 10 * n}" for n in range(100))


@pytest.fixture
def ask() -> Ask:
    """Asks one statement of a server with these settings."""

    def result(text: str, **settings: int) -> dict[str, Any]:
        with TestClient(create_app(Settings(**settings), in_memory=True)) as client:  # type: ignore[arg-type]
            client.post("/query", data={"q": "CREATE DATABASE d"})
            assert client.post("/write?db=d&precision=s", content=LINES).status_code == 204
            query = {"db": "d", "q": text, "epoch": "s"}
            found: dict[str, Any] = client.get("/query", params=query).json()["results"][0]
            return found

    return result


@pytest.mark.parametrize(
    ("text", "settings", "start", "end"),
    [
        pytest.param(
            "SELECT v FROM m",
            {"max_select_points": 50},
            "max-select-point limit exceeded: (100/50): ask for ",
            " or raise max_select_points",
            id="points",
        ),
        pytest.param(
            "SELECT mean(v) FROM m",
            {"max_select_series": 4},
            "max-select-series limit exceeded: (5/4): ask for ",
            " or raise max_select_series",
            id="series",
        ),
        pytest.param(
            "SELECT v FROM m",
            {"max_select_series": 4},
            "max-select-series limit exceeded: (5/4): ask for ",
            " or raise max_select_series",
            id="series of raw points",
        ),
        pytest.param(
            "SELECT mean(v) FROM m WHERE time >= 0 GROUP BY time(1s)",
            {},
            "max-select-buckets limit exceeded: (",
            "or fill(none), or raise max_select_buckets",
            id="windows of all time",
        ),
        pytest.param(
            "SELECT mean(v) FROM m GROUP BY time(1s), host",
            {"max_select_buckets": 100},
            "the answer has ",
            " or raise max_select_buckets and max_query_bytes",
            id="windows of the data",
        ),
        pytest.param(
            "SELECT difference(v) FROM m",
            {"max_query_bytes": 5000},
            "max-query-bytes limit exceeded: 100 rows of 1 columns take about ",
            " or raise max_query_bytes",
            id="memory",
        ),
        pytest.param(
            "SELECT holt_winters(mean(v), 1, 50) FROM m GROUP BY time(10s) fill(none)",
            {"max_query_bytes": 40_000},
            "max-query-bytes limit exceeded: 57 rows of 56 columns take about ",
            " or raise max_query_bytes",
            id="season",
        ),
    ],
)
def test_limit_says_what_to_do(
    ask: Ask, text: str, settings: dict[str, int], start: str, end: str
) -> None:
    error = ask(text, **settings)["error"]
    assert error.startswith(start)
    assert error.endswith(end)


def test_limit_of_series_counts_those_that_the_tags_leave(ask: Ask) -> None:
    text = "SELECT mean(v) FROM m WHERE host =~ /h[0-3]/"
    assert "error" not in ask(text, max_select_series=4)
    assert "(4/3)" in ask(text, max_select_series=3)["error"]


@pytest.mark.parametrize(
    "bounds", ["", "WHERE time >= 0", "WHERE time < '2100-01-01'", "WHERE time > '1700-01-01'"]
)
def test_windows_of_all_time_without_null_rows_are_those_of_the_data(ask: Ask, bounds: str) -> None:
    """Influxd answers so, too; with null rows for all time it runs out of time or memory."""
    [series] = ask(f"SELECT mean(v) FROM m {bounds} GROUP BY time(1s) fill(none)")["series"]
    assert series["values"] == [[1_700_000_000 + 10 * n, n] for n in range(100)]


def test_windows_without_lower_bound_begin_with_the_data(ask: Ask) -> None:
    text = "SELECT mean(v) FROM m WHERE time < 1700000030s GROUP BY time(10s)"
    [series] = ask(text)["series"]
    assert series["values"] == [[1_700_000_000 + 10 * n, n] for n in range(3)]


@pytest.mark.parametrize("order", ["ASC", "DESC"])
@pytest.mark.parametrize("bounds", ["", "WHERE time >= 1700000000s"])
def test_windows_up_to_now_end_with_old_data_where_they_would_be_too_many(
    ask: Ask, bounds: str, order: str
) -> None:
    text = f"SELECT mean(v) FROM m {bounds} GROUP BY time(5s) fill(0) ORDER BY time {order}"
    wanted = [[1_700_000_000 + 5 * n, 0 if n % 2 else n // 2] for n in range(199)]
    result = ask(text, max_select_buckets=199)
    [series] = result["series"]
    assert series["values"] == wanted[:: 1 if order == "ASC" else -1]
    [message] = result["messages"]
    assert message["text"].startswith("the windows up to now() are more than max_select_buckets")
    assert "raise max_select_buckets" in ask(text, max_select_buckets=198)["error"]


def test_windows_up_to_now_do_not_end_early_because_a_statement_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.quick.MAX_ROWS", 5)
    with TestClient(create_app(Settings(), in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE d"})
        client.post("/write?db=d&precision=s", content=LINES)
        query = {"db": "d", "q": "SELECT mean(v) FROM m GROUP BY time(10w)"}
        answers = {client.get("/query", params=query).text for _ in range(5)}
    assert len(answers) == 1
    assert "messages" not in answers.pop()


def test_difference_of_windows_without_null_rows_is_that_of_neighbours(ask: Ask) -> None:
    text = "SELECT difference(mean(v)) FROM m WHERE time >= 0 GROUP BY time(1s) fill(none)"
    [series] = ask(text)["series"]
    assert series["values"] == [[1_700_000_000 + 10 * n, 1] for n in range(1, 100)]


@pytest.mark.parametrize("fill", ["", "fill(null)", "fill(none)"])
def test_windows_that_give_no_row_are_not_made(ask: Ask, fill: str) -> None:
    for bounds in ("", "WHERE time >= 0"):
        text = f"SELECT difference(mean(v)) FROM m {bounds} GROUP BY time(1s) {fill}"
        [series] = ask(text)["series"]
        assert series["values"] == [[1_700_000_000 + 10 * n, 1] for n in range(1, 100)]
        text = f"SELECT mean(v) INTO x FROM m {bounds} GROUP BY time(1s) {fill}"
        assert ask(text)["series"][0]["values"] == [[0, 100]]


def test_lines_are_drawn_between_the_data_only(ask: Ask) -> None:
    text = "SELECT {} FROM m WHERE time >= 0 GROUP BY time(5s) fill(linear)"
    [series] = ask(text.format("cumulative_sum(mean(v))"))["series"]
    assert series["values"][:4] == [[1_700_000_000 + 5 * n, n * (n + 1) / 4] for n in range(4)]
    assert len(series["values"]) == 199
    assert "max-select-buckets" in ask(text.format("mean(v)"))["error"]


def test_empty_windows_that_count_0_are_made(ask: Ask) -> None:
    where = "time >= 1700000000s AND time < 1700000020s"
    text = f"SELECT difference(count(v)) FROM m WHERE {where} GROUP BY time(5s)"
    [series] = ask(text)["series"]
    assert [change for _, change in series["values"]] == [1, -1, 1, -1]
