"""DROP, a restart or a kill, and UNDROP, on a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e


def counts(server: Server, db: str, source: str) -> list[object]:
    [result] = server.query(f"SELECT count(v) FROM {source}", db=db)
    series = cast("list[dict[str, list[list[object]]]]", result.get("series", []))
    return [table["values"][0][1] for table in series]


def trash(server: Server) -> list[object]:
    [result] = server.query("SHOW TRASH")
    [series] = cast("list[dict[str, list[list[object]]]]", result["series"])
    return [row[:3] for row in series.get("values", [])]


def test_what_was_dropped_comes_back_after_a_restart(start: Callable[..., Server]) -> None:
    server = start()
    server.query("CREATE DATABASE home")
    body = "".join(f"cpu,host=h{n % 7} v={n} {n}\nmem v={n}i {n}\n" for n in range(5000))
    assert server.client.post("/write?db=home", content=body).status_code == 204
    for text in ("DROP MEASUREMENT cpu", "ALTER MEASUREMENT mem RENAME TO memory"):
        assert server.query(text, db="home") == [{"statement_id": 0}]
    assert counts(server, "home", "/.*/") == [5000]
    assert server.query("DROP DATABASE home") == [{"statement_id": 0}]
    assert server.stop() == 0

    again = start()
    assert trash(again) == [["database", "home", "home"], ["measurement", "cpu", "home"]]
    assert "tinyflux_trash_entries 2\n" in again.client.get("/metrics").text
    assert "trash" in str(again.query("SHOW STATS FOR 'trash'"))
    assert again.query("CREATE DATABASE home; UNDROP DATABASE home")[1]["error"] == (
        "database already exists: home; bring it back AS another name"
    )
    again.query("UNDROP DATABASE home AS old")
    again.query("UNDROP MEASUREMENT cpu", db="old")
    assert counts(again, "old", "cpu, memory, mem") == [5000, 5000]
    assert trash(again) == []
    assert again.stop() == 0
    last = start()
    assert counts(last, "old", "cpu, memory, mem") == [5000, 5000]
