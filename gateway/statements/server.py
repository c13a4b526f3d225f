"""The server itself: what runs, what it counts, what it is."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.encoding.times import to_rfc3339
from gateway.http import INFLUXDB_VERSION
from gateway.statements.table import go_duration, table
from grammar import ast
from grammar.printer import to_influxql
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.version import __version__

if TYPE_CHECKING:
    from gateway.results import Series
    from gateway.running import RunningQuery
    from gateway.session import Session
    from gateway.statements.table import Runner

_GAP_COLUMNS: Final = [
    "database",
    "retentionPolicy",
    "measurement",
    "first",
    "last",
    "points",
    "segment",
    "reason",
]


def show_queries(_: ast.ShowQueries, session: Session) -> list[Series]:
    """List the statements that run, this one among them, and the requests that wait."""
    now = time.monotonic()
    rows = [
        (
            query.id,
            _text(query.statement),
            query.database,
            go_duration(int((now - query.started) * 1e6) * 1000),
            _status(query),
        )
        for query in session.running.listed()
    ]
    return [table(["qid", "query", "database", "duration", "status"], rows)]


def _text(statement: ast.Statement | str) -> str:
    if not isinstance(statement, str):
        return to_influxql(statement)
    return "[REDACTED]" if "password" in statement.lower() else statement


def _status(query: RunningQuery) -> str:
    if query.interrupt.is_tripped:
        return "killed"
    return "queued" if isinstance(query.statement, str) else "running"


def kill_query(statement: ast.KillQuery, session: Session) -> list[Series]:
    """Stop a statement at its next check."""
    session.running.kill(statement.id)
    return []


def show_stats(statement: ast.ShowStats, session: Session) -> list[Series]:
    """Show the counters of the server, of each open store, continuous query, subscription."""
    counters = session.metrics.values()
    areas: dict[str, dict[str, object]] = {}
    for name, value in counters.items():
        _, area, *words = name.removesuffix("_total").split("_")
        areas.setdefault(area, {})["_".join(words)] = int(value) if value == int(value) else value
    tables = [table(list(values), [tuple(values.values())], area) for area, values in areas.items()]
    for database, policy, storage in session.catalog.open_stores():
        stats = storage.stats()
        found = table(list(stats), [tuple(stats.values())], "store")
        found.tags = {"database": database, "retentionPolicy": policy}
        tables.append(found)
    for name, tags, values in session.metrics.statistics():
        found = table(list(values), [tuple(values.values())], name)
        found.tags = dict(tags)
        tables.append(found)
    return [found for found in tables if statement.module in {"", found.name}]


def show_diagnostics(statement: ast.ShowDiagnostics, session: Session) -> list[Series]:
    """Show what this server is and how long it runs."""
    started = to_rfc3339(np.array([session.metrics.started_ns]))[0]
    uptime = go_duration(int(session.metrics.uptime_s * 1e9))
    modules: dict[str, dict[str, object]] = {
        "build": {
            "Branch": "tinyflux-gateway",
            "Build Time": "",
            "Commit": __version__,
            "Version": INFLUXDB_VERSION,
        },
        "network": {"hostname": platform.node()},
        "runtime": {
            "GOARCH": platform.machine(),
            "GOMAXPROCS": os.cpu_count() or 1,
            "GOOS": platform.system().lower(),
            "version": f"python{platform.python_version()}",
        },
        "system": {
            "PID": os.getpid(),
            "currentTime": to_rfc3339(np.array([session.now_ns]))[0],
            "started": started,
            "uptime": uptime,
        },
    }
    tables = [
        table(list(values), [tuple(values.values())], name) for name, values in modules.items()
    ]
    if missing := _missing(session):
        tables.append(table(_GAP_COLUMNS, missing, "quarantine"))
    return [found for found in tables if statement.module in {"", found.name}]


def _missing(session: Session) -> list[tuple[object, ...]]:
    """Return a row for each damaged segment of the open stores."""
    return [
        (
            database,
            policy,
            gap.measurement,
            *to_rfc3339(np.array([gap.first_ns, gap.last_ns])),
            gap.rows,
            gap.number,
            gap.reason,
        )
        for database, policy, storage in session.catalog.open_stores()
        for gap in storage.gaps(None, MIN_TIME_NS, MAX_TIME_NS)
    ]


RUNNERS: Final[dict[type[ast.Statement], Runner]] = {
    ast.ShowQueries: show_queries,
    ast.KillQuery: kill_query,
    ast.ShowStats: show_stats,
    ast.ShowDiagnostics: show_diagnostics,
}
