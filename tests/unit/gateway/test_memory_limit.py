"""A server with little memory: what does not fit is refused and says why, and leaves no trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 5000
CHEAPER = "ask for a shorter time range, fewer fields or wider windows"


@pytest.fixture(scope="module")
def small() -> Iterator[TestClient]:
    """A server that has about 190 kB for queries, and 5000 points in the database `t`."""
    with TestClient(create_app(Settings(memory_bytes=1_000_000), in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        lines = "\n".join(f"m,h={n % 5} a={n},b={n}i {n}" for n in range(ROWS))
        assert client.post("/write?db=t", content=lines).status_code == 204
        yield client


def ask(client: TestClient, text: str) -> dict[str, object]:
    answer = client.get("/query", params={"db": "t", "q": text})
    assert answer.status_code == 200
    result: dict[str, object] = orjson.loads(answer.content)["results"][0]
    return result


@pytest.mark.parametrize(
    "text",
    [
        "SELECT mean(a) FROM m WHERE time >= 0 AND time < 5000 GROUP BY time(1ns)",
        "SELECT median(a) FROM m",
        "SELECT difference(a), cumulative_sum(b) FROM m",
    ],
    ids=["windows", "all values of a cell", "rows"],
)
def test_query_beyond_the_memory_is_refused_with_a_hint(small: TestClient, text: str) -> None:
    for _ in range(3):  # what was claimed is free again
        result = ask(small, text)
        error = str(result.get("error"))
        assert error.startswith("memory-bytes limit exceeded: about "), result
        assert "memory_bytes leaves " in error
        assert error.endswith(CHEAPER)
        assert "series" not in result


def test_cheaper_questions_over_the_same_points_are_answered(small: TestClient) -> None:
    result = ask(small, "SELECT median(a) FROM m WHERE time >= 0 AND time < 5000 GROUP BY h")
    assert [series["values"] for series in result["series"]] == [  # type: ignore[attr-defined]
        [["1970-01-01T00:00:00Z", 2497.5 + h]] for h in range(5)
    ]
    result = ask(small, "SELECT sum(b), spread(a), last(a) FROM m")
    assert result["series"][0]["values"] == [  # type: ignore[index]
        ["1970-01-01T00:00:00Z", ROWS * (ROWS - 1) // 2, ROWS - 1, ROWS - 1]
    ]


def test_points_are_read_while_they_are_printed(small: TestClient) -> None:
    result = ask(small, "SELECT a FROM m")
    values = result["series"][0]["values"]  # type: ignore[index]
    assert [value for _, value in values] == list(range(ROWS))
