"""Continuous queries: the runs that are due, one after another, on a query thread.

    look        which queries are due: on the event loop, every `continuous_interval_s`
    run         a SELECT INTO over the windows that are due; what was missed comes first
    remember    the last run of each query, in continuous.json, so that a restart misses nothing

Invariants
- A run counts once its points are stored; a run that failed is tried again with the next ones. So
  a lost continuous.json costs work, never a wrong point: the same windows give the same points.
- A query that fails stops no other. It is tried again with a shorter range each time; after
  MAX_ATTEMPTS the range is left out, and logged.
- RESAMPLE LATE: points older than what was covered are noted as they are stored, and the next run
  starts with them. What came while the server was down is not known, so the first run then looks
  back as far as LATE says.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import orjson

from gateway.errors import InfluxError
from gateway.executor import run_select
from gateway.metrics import Statistic
from gateway.names import measurements_of
from gateway.regexes import Regex
from gateway.schedule import Schedule, within
from gateway.session import Interrupt, Session
from grammar import ast
from grammar.errors import ParseError
from grammar.parser import parse
from tinyflux.batch import MIN_TIME_NS, parse_series_key
from tinyflux.errors import TinyFluxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.metrics import Metrics
    from gateway.policies import Database
    from gateway.running import RunningQueries
    from tinyflux.batch import PointBatch

MAX_ATTEMPTS: Final = 10  # the wait doubles from a second on: a quarter of an hour in all
_SECOND_NS: Final = 1_000_000_000

_log = logging.getLogger(__name__)


def run_range(select: ast.Select, start_ns: int, end_ns: int, session: Session) -> int:
    """Run the SELECT of a continuous query over a range of time.

    Returns:
        How many points were written.

    Raises:
        InfluxError: It cannot be answered.
        TinyFluxError: The engine failed.
    """
    bounded = within(select, start_ns, end_ns, session.now_ns)
    with session.running.register(bounded, session.database, session.interrupt):
        [result] = run_select(bounded, session)
    [written] = cast("list[int]", result.data[1])  # as `gateway.into` makes it
    return written


@dataclass(slots=True)
class _Query:
    """One continuous query and how far it came; the times are ns.

    Attributes:
        database: Where it belongs to.
        name: Its name.
        text: The statement that creates it.
        select: Its SELECT; None when it can never run, `error` says why.
        schedule: When it runs.
        last_run_ns: When it ran last, on the grid of its runs; None when it never did.
        covered_ns: Points before it are late.
        late_ns: The oldest late point since the last run; None without.
        attempts: How often it failed since it last succeeded.
        retry_ns: Not to be tried again before.
    """

    database: str
    name: str
    text: str
    select: ast.Select | None = None
    schedule: Schedule | None = None
    last_run_ns: int | None = None
    covered_ns: int = MIN_TIME_NS
    late_ns: int | None = None
    attempts: int = 0
    retry_ns: int = MIN_TIME_NS
    runs: int = 0
    failures: int = 0
    points: int = 0
    seconds: float = 0.0
    error: str = ""

    def due_ns(self, now_ns: int) -> int | None:
        """Return the first run that is due; None when none is."""
        if self.schedule is None or now_ns < self.retry_ns:
            return None
        if self.last_run_ns is None or self.last_run_ns > now_ns:  # the clock was set back
            return now_ns
        due_ns = self.schedule.next_run(self.last_run_ns)
        return due_ns if due_ns <= now_ns else None

    def lag_s(self, now_ns: int) -> float:
        """Return how long the first run that was not made yet is overdue, in seconds."""
        if self.schedule is None or self.last_run_ns is None:
            return 0.0
        return max(0, now_ns - self.schedule.next_run(self.last_run_ns)) / _SECOND_NS


class ContinuousQueries:
    """The continuous queries of a catalog, and their runs."""

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        metrics: Metrics,
        running: RunningQueries,
        file: Path | None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Remember the last runs; nothing runs yet.

        Args:
            catalog: Where they are defined.
            settings: How long a run may take, how often to look.
            metrics: Counts the runs.
            running: Lists the runs, so that they can be seen and killed.
            file: Where the last runs are remembered; None forgets them.
            clock: Gives now in ns.
        """
        self._catalog = catalog
        self._settings = settings
        self._metrics = metrics
        self._running = running
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()  # held to note late points, and to take them
        self._known: Mapping[str, Database] | None = None  # what `_queries` was made from
        self._queries: dict[tuple[str, str], _Query] = {}
        self._watched: dict[tuple[str, str], list[_Query]] = {}  # by what they read
        self._remembered = _read(file) if file is not None else {}
        catalog.listen(self.stored)
        metrics.report(self._statistics)
        metrics.measure(
            "tinyflux_continuous_lag_seconds",
            "How long the continuous query that is most behind is overdue.",
            self._lag_s,
        )

    async def run(self, threads: Executor) -> None:
        """Run what is due for ever, one query at a time; cancel to stop.

        Args:
            threads: Where the queries run.
        """
        interval_s = self._settings.continuous_interval_s
        loop = asyncio.get_running_loop()
        while interval_s:
            try:
                due = self.due()
                for key in due:
                    await loop.run_in_executor(threads, self.run_one, key)
                if due:
                    await loop.run_in_executor(threads, self.save)
            except Exception:  # noqa: BLE001 - a defect of ours: the next look may go well
                _log.exception("continuous queries failed")
            await asyncio.sleep(interval_s)

    def due(self) -> list[tuple[str, str]]:
        """Return database and name of each query that has to run now."""
        self._refresh()
        now_ns = self._clock()
        return [key for key, query in self._queries.items() if query.due_ns(now_ns) is not None]

    def run_one(self, key: tuple[str, str]) -> None:
        """Run one query if it is due, over all it missed, or as much of it as one run may take."""
        query = self._queries.get(key)
        if query is None or query.select is None or query.schedule is None:
            return
        schedule = query.schedule
        now_ns = self._clock()
        due_ns = query.due_ns(now_ns)
        if due_ns is None:
            return
        start_ns, wanted_ns = schedule.span(due_ns, now_ns)
        with self._lock:
            late_ns, query.late_ns = query.late_ns, None
            query.covered_ns = max(query.covered_ns, wanted_ns)
        if late_ns is not None:
            start_ns = min(start_ns, schedule.late_start(late_ns, due_ns))
        end_ns = schedule.end_of_piece(start_ns, wanted_ns, query.attempts)
        last_run_ns = schedule.last_run(now_ns if end_ns == wanted_ns else end_ns)
        if end_ns <= start_ns or self._run(query, query.select, start_ns, end_ns, now_ns):
            query.last_run_ns, query.attempts, query.error = last_run_ns, 0, ""
            return
        if late_ns is not None:
            self._note(query, late_ns)
        query.attempts += 1
        query.retry_ns = now_ns + (_SECOND_NS << query.attempts - 1)
        if query.attempts >= MAX_ATTEMPTS:
            _log.error(
                "continuous query left out a range database=%s name=%s start_ns=%d end_ns=%d",
                query.database,
                query.name,
                start_ns,
                end_ns,
            )
            query.last_run_ns, query.attempts = last_run_ns, 0

    def stored(self, database: str, policy: str, batch: PointBatch) -> None:
        """Note the late points of a batch that was stored; called by whoever stores it."""
        watching = self._watched.get((database, policy))
        if not watching or not len(batch):
            return
        oldest_ns = int(batch.times.min())
        for query in watching:
            if oldest_ns < query.covered_ns:
                self._note_late(query, (database, policy), batch)

    def save(self) -> None:
        """Write the last runs to continuous.json; a failure is logged, it costs work only."""
        if self._file is None or self._known is None:  # never looked: what is there still holds
            return
        runs = [
            (query.database, query.name, query.text, query.last_run_ns)
            for query in list(self._queries.values())
            if query.last_run_ns is not None
        ]
        temporary = self._file.with_suffix(".tmp")
        try:
            temporary.write_bytes(orjson.dumps({"version": 1, "last_runs": runs}))
            temporary.replace(self._file)
        except OSError as exc:
            _log.warning("last runs of continuous queries not saved error=%s", exc)

    # --- inside -----------------------------------------------------------------------------------
    def _run(
        self, query: _Query, select: ast.Select, start_ns: int, end_ns: int, now_ns: int
    ) -> bool:
        """Run a query over a range; return whether all went well."""
        started = time.perf_counter()
        session = Session(
            self._catalog,
            self._settings,
            now_ns,
            query.database,
            interrupt=Interrupt(self._settings.query_timeout_s),
            metrics=self._metrics,
            running=self._running,
        )
        written = 0
        error = ""
        try:
            written = run_range(select, start_ns, end_ns, session)
        except (InfluxError, TinyFluxError) as exc:
            error = str(exc)
        except Exception:  # noqa: BLE001 - a defect of ours must not stop the other queries
            _log.exception(
                "continuous query failed database=%s name=%s", query.database, query.name
            )
            error = "internal error"
        seconds = time.perf_counter() - started
        query.seconds += seconds
        query.points += written
        query.runs += not error
        query.failures += bool(error)
        self._metrics.count(
            continuous_runs=not error,
            continuous_failures=bool(error),
            continuous_points=written,
            continuous_seconds=seconds,
        )
        if error and error != query.error:
            _log.warning(
                "continuous query failed database=%s name=%s error=%s",
                query.database,
                query.name,
                error,
            )
        query.error = error
        return not error

    def _note_late(self, query: _Query, place: tuple[str, str], batch: PointBatch) -> None:
        assert query.schedule is not None  # or it would not hear of points
        too_late_ns = max(query.covered_ns - query.schedule.late_ns, MIN_TIME_NS)
        late = (batch.times < query.covered_ns) & (batch.times >= too_late_ns)
        keys = [
            row
            for row in np.unique(batch.key_rows[late]).tolist()
            if _reads(query, place, parse_series_key(batch.keys[row])[0])
        ]
        times = batch.times[late & np.isin(batch.key_rows, keys)]
        if len(times):
            self._note(query, int(times.min()))

    def _note(self, query: _Query, late_ns: int) -> None:
        with self._lock:
            query.late_ns = late_ns if query.late_ns is None else min(late_ns, query.late_ns)

    def _refresh(self) -> None:
        """Follow what was created and dropped."""
        databases = self._catalog.databases
        if databases is self._known:
            return
        queries: dict[tuple[str, str], _Query] = {}
        for database in databases.values():
            for entry in database.continuous_queries:
                key = database.name, entry.name
                known = self._queries.get(key)
                is_same = known is not None and known.text == entry.text
                queries[key] = known if known and is_same else self._new(*key, entry.text)
        watched: dict[tuple[str, str], list[_Query]] = {}
        for query in queries.values():
            for place in {(m.database, m.retention_policy) for m in _late_sources(query)}:
                watched.setdefault(place, []).append(query)
        self._queries, self._watched, self._known = queries, watched, databases

    def _new(self, database: str, name: str, text: str) -> _Query:
        query = _Query(database, name, text)
        try:
            (statement,) = parse(text)
            assert isinstance(statement, ast.CreateContinuousQuery)
            query.schedule = Schedule.of(statement)
            query.select = statement.select
        except (InfluxError, TinyFluxError, ParseError) as exc:
            query.error = str(exc)
            _log.warning(
                "continuous query cannot run database=%s name=%s error=%s", database, name, exc
            )
            return query
        last_run_ns = self._remembered.pop((database, name, text), None)
        if last_run_ns is not None:
            query.last_run_ns = query.covered_ns = last_run_ns
            query.late_ns = MIN_TIME_NS if statement.late_ns else None
        return query

    def _lag_s(self) -> float:
        now_ns = self._clock()
        return max((query.lag_s(now_ns) for query in list(self._queries.values())), default=0.0)

    def _statistics(self) -> Iterator[Statistic]:
        now_ns = self._clock()
        for query in list(self._queries.values()):
            yield Statistic(
                "continuous_query",
                {"database": query.database, "name": query.name},
                {
                    "runs": query.runs,
                    "failures": query.failures,
                    "points": query.points,
                    "seconds": query.seconds,
                    "lag_seconds": query.lag_s(now_ns),
                    "last_run_ns": query.last_run_ns,
                    "error": query.error,
                },
            )


def _late_sources(query: _Query) -> list[ast.Measurement]:
    """Return what a query reads if it wants to hear of late points."""
    if query.select is None or query.schedule is None or not query.schedule.late_ns:
        return []
    return list(measurements_of(query.select))


def _reads(query: _Query, place: tuple[str, str], name: str) -> bool:
    """Return whether a query reads a measurement."""
    for source in _late_sources(query):
        if (source.database, source.retention_policy) != place:
            continue
        if Regex(source.regex.pattern)(name) if source.regex is not None else source.name == name:
            return True
    return False


def _read(file: Path) -> dict[tuple[str, str, str], int]:
    """Return the last runs that were saved; none when the file is not there or not whole."""
    with suppress(FileNotFoundError):
        try:
            document = orjson.loads(file.read_bytes())
            return {(db, name, text): int(ns) for db, name, text, ns in document["last_runs"]}
        except (OSError, ValueError, KeyError, TypeError) as exc:
            if isinstance(exc, FileNotFoundError):
                raise
            _log.warning("last runs of continuous queries not read error=%s", exc)
    return {}
