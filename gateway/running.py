"""The statements that run right now: what SHOW QUERIES lists and KILL QUERY stops."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import StatementError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.session import Interrupt
    from grammar import ast


@dataclass(frozen=True, slots=True)
class RunningQuery:
    """One statement that runs.

    Attributes:
        id: Its number since the server started.
        statement: What runs.
        database: The database of the request.
        started: When it began, seconds of the monotonic clock.
        interrupt: Stops it.
    """

    id: int
    statement: ast.Statement
    database: str
    started: float
    interrupt: Interrupt


class RunningQueries:
    """Registers the statements that run. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_id = 0
        self._running: dict[int, RunningQuery] = {}

    @contextmanager
    def register(
        self, statement: ast.Statement, database: str, interrupt: Interrupt
    ) -> Iterator[RunningQuery]:
        """Have a statement listed for as long as the context lasts."""
        with self._lock:
            self._last_id += 1
            query = RunningQuery(self._last_id, statement, database, time.monotonic(), interrupt)
            self._running[query.id] = query
        try:
            yield query
        finally:
            with self._lock:
                del self._running[query.id]

    def listed(self) -> list[RunningQuery]:
        """Return what runs now, oldest first."""
        with self._lock:
            return list(self._running.values())

    def kill(self, query_id: int) -> None:
        """Stop a statement at its next check.

        Raises:
            StatementError: `no such query id: 7`.
        """
        with self._lock:
            query = self._running.get(query_id)
        if query is None:
            raise StatementError(f"no such query id: {query_id}")
        query.interrupt.trip()

    def kill_all(self) -> None:
        """Stop everything, for a server that goes down."""
        for query in self.listed():
            query.interrupt.trip("server is stopping")
