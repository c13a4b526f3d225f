"""Session: everything a statement may depend on besides its text, and the switch that stops it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from gateway.metrics import Metrics
from gateway.running import RunningQueries
from gateway.users import EVERYBODY

if TYPE_CHECKING:
    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.users import User
    from tinyflux.columnar.memory import Claim


_TIMEOUT: Final = (
    "query-timeout limit exceeded: ask for a shorter time range, fewer series or a roll-up, or "
    "raise query_timeout_s"
)


class Interrupt:
    """Stops a running query: KILL QUERY, the query timeout, a client that went away.

    Long work calls `check()` between its steps; nothing is stopped by force.
    """

    __slots__ = ("_deadline", "_reason")

    def __init__(self, timeout_s: float = 0.0) -> None:
        """Make a switch that trips by itself after `timeout_s` seconds; 0 is never."""
        self._deadline = time.monotonic() + timeout_s if timeout_s > 0 else None
        self._reason = ""

    def trip(self, reason: str = "query interrupted") -> None:
        """Make every later `check()` raise. The first reason stays."""
        self._reason = self._reason or reason

    def extend(self, seconds: float) -> None:
        """Put the timeout off, by time in which nothing ran."""
        if self._deadline is not None:
            self._deadline += seconds

    @property
    def is_tripped(self) -> bool:
        """Whether `trip` was called; a timeout shows in `check` only."""
        return bool(self._reason)

    def check(self) -> None:
        """Go on, or stop here.

        Raises:
            StatementError: `query interrupted` or `query-timeout limit exceeded`, as influxd says,
                and what could be done.
        """
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.trip(_TIMEOUT)
        if self._reason:
            raise StatementError(self._reason)


@dataclass(frozen=True, slots=True)
class Session:
    """Who asks, where, and when: made once a request, read by every statement of it.

    Attributes:
        catalog: Databases, retention policies and their stores.
        settings: The limits.
        now_ns: What `now()` means in this request, ns since 1970 UTC.
        database: The database of names that carry none; "" when the request named none.
        retention_policy: The retention policy of measurements that carry none; "" is the default of
            the database.
        interrupt: Checked between the steps of long work.
        metrics: The counters of the server.
        running: The statements that run in the server.
        user: Who asks, EVERYBODY without authentication; None before there is an admin.
        warnings: What the client of the statement that runs should know; added to by what runs it.
        may_stream: The answer is printed while it is read, where it can be.
        claim: The memory of the rows that the statement makes.
    """

    catalog: Catalog
    settings: Settings
    now_ns: int
    database: str = ""
    retention_policy: str = ""
    interrupt: Interrupt = field(default_factory=Interrupt)
    metrics: Metrics = field(default_factory=Metrics)
    running: RunningQueries = field(default_factory=RunningQueries)
    user: User | None = EVERYBODY
    warnings: list[str] = field(default_factory=list)
    may_stream: bool = False
    claim: Claim = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "claim", self.catalog.memory.claim())

    def sees(self, database: str) -> bool:
        """Return whether who asks may know that a database exists."""
        return self.user is None or self.user.sees(database)
