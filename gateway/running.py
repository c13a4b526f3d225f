"""The statements that run or wait right now: SHOW QUERIES lists and KILL QUERY stops them."""

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
    """One statement that runs, or a request that waits for its turn.

    Attributes:
        id: Its number since the server started.
        statement: What runs; the text of a request that waits.
        database: The database of the request.
        started: When it began, seconds of the monotonic clock.
        interrupt: Stops it.
    """

    id: int
    statement: ast.Statement | str
    database: str
    started: float
    interrupt: Interrupt


class RunningQueries:
    """Registers the statements that run, and what waits. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._last_id = 0
        self._running: dict[int, RunningQuery] = {}
        self._waiting: dict[Interrupt, RunningQuery] = {}

    def enqueue(self, text: str, database: str, interrupt: Interrupt) -> None:
        """Have a request listed that waits, until one of its statements runs or `dequeue`."""
        with self._lock:
            self._last_id += 1
            began_s = time.monotonic()
            request = RunningQuery(self._last_id, text, database, began_s, interrupt)
            self._waiting[interrupt] = request

    def dequeue(self, interrupt: Interrupt) -> None:
        """List a request no longer, if it was; none of its statements ran."""
        with self._lock:
            self._waiting.pop(interrupt, None)

    @contextmanager
    def register(
        self, statement: ast.Statement, database: str, interrupt: Interrupt
    ) -> Iterator[RunningQuery]:
        """Have a statement listed for as long as the context lasts.

        The first one of a request that waited has its number.
        """
        with self._lock:
            waited = self._waiting.pop(interrupt, None)
            self._last_id += waited is None
            number = self._last_id if waited is None else waited.id
            query = RunningQuery(number, statement, database, time.monotonic(), interrupt)
            self._running[number] = query
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
        """Return what runs now, then what waits, oldest first both."""
        with self._lock:
            return [*self._running.values(), *self._waiting.values()]

    def kill(self, query_id: int) -> None:
        """Stop a statement at its next check, or a request before its first one.

        Raises:
            StatementError: `no such query id: 7`.
        """
        for query in self.listed():
            if query.id == query_id:
                query.interrupt.trip()
                return
        raise StatementError(f"no such query id: {query_id}")

    def kill_all(self) -> None:
        """Stop everything, for a server that goes down."""
        for query in self.listed():
            query.interrupt.trip("server is stopping")
