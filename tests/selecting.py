"""SELECT and DELETE without a server: statements over points in memory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.executor import run_select
from gateway.lineprotocol.parser import parse as parse_lines
from gateway.session import Session
from gateway.statements.deletes import delete
from grammar import ast
from grammar.parser import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Tags and rows of each series of an answer, an empty cell as None.
    Rows = Callable[[str], list[tuple[dict[str, str] | None, list[list[object]]]]]


@contextmanager
def selecting_from(lines: str, now_ns: int = 0) -> Iterator[Rows]:
    """Give what runs SELECT and DELETE over points of line protocol, times in ns."""
    catalog = Catalog(None, Settings())
    catalog.create_database("d")
    catalog.storage("d").append_batch(parse_lines(lines.encode(), now_ns=0).batch)

    def run(text: str) -> list[tuple[dict[str, str] | None, list[list[object]]]]:
        (statement,) = parse(text)
        session = Session(catalog, Settings(), now_ns, "d")
        if isinstance(statement, ast.Delete):
            delete(statement, session)
            return []
        assert isinstance(statement, ast.Select)
        found = []
        for series in run_select(statement, session):
            columns = []
            for cells in series.cells():
                values = cells.values.tolist()  # type: ignore[union-attr]  # SELECT: typed columns
                valid = cells.mask().tolist()  # type: ignore[union-attr]
                columns.append([v if ok else None for v, ok in zip(values, valid, strict=True)])
            found.append((series.tags, [list(row) for row in zip(*columns, strict=True)]))
        return found

    yield run
    catalog.close()
