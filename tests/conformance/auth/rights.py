"""The table in rights.txt: who may run which statement, read; nothing sent.

    [db=t]                                  the database of the requests that follow
    # why we answer otherwise               before a statement where ours differs
    SHOW FIELD KEYS FROM t2..m
      shown: SHOW FIELD KEYS FROM t2..m     as a refusal prints it, where that is not as written
      influxd served: reader both root      a line an outcome, with the users it is for
      ours READ on t2: reader both

An outcome is `served` (HTTP 200, whatever the result) or what a refusal says it `requires`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = Path(__file__).with_name("rights.txt")
SERVED = "served"
USERS = ("reader", "writer", "both", "other", "none", "root")
SETUP = (
    "CREATE DATABASE t",
    "CREATE DATABASE t2",
    *(f"CREATE USER \"{name}\" WITH PASSWORD 'secret'" for name in (*USERS[:-1], "victim")),
    "GRANT READ ON t TO reader",
    "GRANT WRITE ON t TO writer",
    'GRANT ALL ON t TO "both"',
    "GRANT ALL ON t2 TO other",
)
FIRST = "CREATE USER root WITH PASSWORD 'secret' WITH ALL PRIVILEGES"


@dataclass(slots=True)
class Row:
    """One statement, and for each server what its users get."""

    database: str
    statement: str
    shown: str
    outcomes: dict[str, dict[str, str]] = field(default_factory=lambda: {"influxd": {}, "ours": {}})

    def answer(self, server: str, user: str) -> tuple[int, str]:
        """Return the status and, of a refusal, the body."""
        outcome = self.outcomes[server][user]
        if outcome == SERVED:
            return 200, ""
        shown = self.shown.replace('"', '\\"')
        text = f"{user} not authorized to execute statement '{shown}', requires {outcome}"
        return 403, f'{{"error":"error authorizing query: {text}"}}'


def read_rows(path: Path = PATH) -> list[Row]:
    """Return the rows in file order."""
    rows = list(_rows(path.read_text().splitlines()))
    for row in rows:
        for server, outcomes in row.outcomes.items():
            assert set(outcomes) == set(USERS), (row.statement, server)
    return rows


def _rows(lines: list[str]) -> Iterator[Row]:
    database, row = "", None
    for line in lines:
        if line.startswith("["):
            database = line.strip("[]").removeprefix("db=")
        elif line.startswith("  "):
            assert row is not None, line
            _add(row, line.strip())
        elif line and not line.startswith("#"):
            if row is not None:
                yield row
            row = Row(database, line, line)
    assert row is not None
    yield row


def _add(row: Row, line: str) -> None:
    what, _, rest = line.partition(":")
    if what == "shown":
        row.shown = rest.strip()
        return
    first, _, outcome = what.partition(" ")
    servers = [first] if first in row.outcomes else list(row.outcomes)
    for server in servers:
        for user in rest.split():
            assert user not in row.outcomes[server], line
            row.outcomes[server][user] = outcome if first in row.outcomes else what
