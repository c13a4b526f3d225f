"""The statements that run right now: what SHOW QUERIES lists and KILL QUERY stops."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.session import Interrupt
    from grammar import ast

_YOUNG_S: Final = 1.0  # what runs longer is no panel somebody waits for


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
        self._ended = threading.Condition(self._lock)
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
                self._ended.notify_all()

    def wait_for_short(self, seconds: float) -> None:
        """Wait until no statement runs that began within the last second, at most so long."""
        with self._lock:
            if self._running:
                self._ended.wait_for(lambda: not self._has_young(), seconds)

    def _has_young(self) -> bool:
        since = time.monotonic() - _YOUNG_S
        return any(query.started > since for query in self._running.values())

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
