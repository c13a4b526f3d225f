"""Small pieces that all statements share: tables from rows, names, limits, durations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from gateway.results import Series

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from gateway.session import Session

    # A runner takes the statement of its own type; the table in run.py holds them by that type.
    Runner: TypeAlias = Callable[..., list[Series]]

_UNITS: Final = ((3_600_000_000_000, "h"), (60_000_000_000, "m"))


def table(columns: list[str], rows: Sequence[Sequence[object]], name: str = "") -> Series:
    """Return a table with these rows; without rows it has a header only."""
    data: list[Sequence[object]] = [list(column) for column in zip(*rows, strict=True)]
    return Series(name, columns, [*data] if rows else [[] for _ in columns])


def page(rows: Sequence[Sequence[object]], limit: int, offset: int) -> Sequence[Sequence[object]]:
    """Return the rows that LIMIT and OFFSET leave; a limit of 0 is none."""
    return rows[offset : offset + limit] if limit else rows[offset:]


def database_of(session: Session, written: str) -> str:
    """Return the database a statement means: the one written after ON, else the request's.

    Raises:
        StatementError: Neither is there.
    """
    database = written or session.database
    if not database:
        raise StatementError("database name required")
    return database


def go_duration(ns: int) -> str:
    """Return a duration as Go prints it: `168h0m0s`, `1m30s`, `1.5ms`, `22µs`, `0s`."""
    if ns == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if abs(ns) < size * 1_000:
            return f"{ns / size:.9f}".rstrip("0").rstrip(".") + unit
    text, rest = "-" if ns < 0 else "", abs(ns)
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or text.strip("-"):
            text += f"{count}{unit}"
    seconds, fraction = divmod(rest, 1_000_000_000)
    decimals = f".{fraction:09}".rstrip("0").rstrip(".")
    return f"{text}{seconds}{decimals}s"
