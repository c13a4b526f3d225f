"""Joins stay within the limits of a query."""

from __future__ import annotations

import pytest

from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.errors import StatementError
from gateway.executor import run_select
from gateway.lineprotocol.parser import parse as parse_lines
from gateway.session import Session
from grammar import ast
from grammar.parser import parse


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        # 200 rows of 2 columns take 40 + 2 * 32 bytes each; the sides of 1 column fit.
        pytest.param(Settings(max_query_bytes=20_000), "max-query-bytes limit", id="rows"),
        pytest.param(Settings(max_select_points=50), "max-select-point limit", id="points"),
    ],
)
def test_join_keeps_the_limits(settings: Settings, error: str) -> None:
    catalog = Catalog(None, settings)
    catalog.create_database("d")
    lines = "\n".join(f"a x=1 {2 * n}\nb y=1 {2 * n + 1}" for n in range(100))
    catalog.storage("d").append_batch(parse_lines(lines.encode(), now_ns=0).batch)
    (select,) = parse("SELECT a.x + b.y FROM a AS a, b AS b")
    assert isinstance(select, ast.Select)

    with pytest.raises(StatementError, match=error):
        run_select(select, Session(catalog, settings, 0, "d"))
