"""Runs the statements of a request, one after another, each to a Result."""

from __future__ import annotations

import logging
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, TypeGuard

from gateway.errors import InfluxError, StatementError
from gateway.executor import run_select, stream_select
from gateway.names import qualified
from gateway.parts import can_be_read_in_parts
from gateway.results import Result
from gateway.sources import Snapshots
from gateway.statements import (
    cardinality,
    continuous,
    databases,
    deletes,
    explain,
    schema,
    server,
    shards,
    subscriptions,
    trash,
    users,
)
from grammar import ast
from grammar.printer import to_influxql
from tinyflux.columnar.allowance import TooMuch
from tinyflux.errors import TinyFluxError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from gateway.results import Pieces, Series
    from gateway.session import Session

_log = logging.getLogger(__name__)

# influxd lets these run by GET, with a warning. DELETE is not one of them.
_WRITING: Final = (
    ast.CreateDatabase,
    ast.DropDatabase,
    ast.CreateRetentionPolicy,
    ast.AlterRetentionPolicy,
    ast.DropRetentionPolicy,
    ast.DropSeries,
    ast.DropMeasurement,
    ast.DropField,
    ast.DropShard,
    ast.UndropDatabase,
    ast.UndropRetentionPolicy,
    ast.UndropMeasurement,
    ast.RenameMeasurement,
    ast.PurgeTrash,
    ast.CreateUser,
    ast.SetPassword,
    ast.DropUser,
    ast.Grant,
    ast.Revoke,
    ast.CreateContinuousQuery,
    ast.DropContinuousQuery,
    ast.RunContinuousQuery,
    ast.CreateSubscription,
    ast.DropSubscription,
    ast.KillQuery,
)

# influxd makes a SELECT of these, or they are one.
_SELECTS: Final = (ast.Select, ast.ShowFieldKeys, ast.ShowSeries, ast.ShowCardinality)

_RUNNERS: Final = (
    databases.RUNNERS
    | schema.RUNNERS
    | cardinality.RUNNERS
    | deletes.RUNNERS
    | server.RUNNERS
    | shards.RUNNERS
    | users.RUNNERS
    | continuous.RUNNERS
    | subscriptions.RUNNERS
    | explain.RUNNERS
    | trash.RUNNERS
)


def results_of(
    statements: Sequence[ast.Statement], session: Session, *, is_read_only: bool = False
) -> Iterator[Result]:
    """Yield the result of each statement, run when it is asked for.

    After a statement that failed the others are not executed: `not executed` is their error.

    Args:
        statements: What to run, in order.
        session: What they may depend on.
        is_read_only: The request came by GET; statements that write then carry a warning.
    """
    has_failed = False
    try:
        for number, statement in enumerate(statements):
            if has_failed:
                yield Result(number, error="not executed")
                continue
            session.claim.release()  # what the statement before made is printed by now
            result = Result(number, pieces=_pieces(statement))
            if _may_stream(statement, session):
                # Closed here: it and the result hold each other, and it holds a snapshot.
                with closing(_Streamed(result, statement, session)) as result.series:
                    yield result
            else:
                with _told(result, statement, session):
                    session.interrupt.check()
                    result.series = execute(statement, session)
                if is_read_only and not result.error and _is_writing(statement):
                    warning = _READ_ONLY_WARNING.format(_in_full(statement, session))
                    result.messages.append(("warning", warning))
                yield result
            has_failed = bool(result.error)
    finally:
        session.claim.release()


def execute(statement: ast.Statement, session: Session) -> list[Series]:
    """Run one statement and return its tables.

    Raises:
        InfluxError: It cannot be answered; the text is influxd's.
        TinyFluxError: The engine failed.
    """
    if isinstance(statement, ast.Select):
        return run_select(statement, session)
    runner = _RUNNERS.get(type(statement))
    if runner is None:
        raise StatementError(f"{to_influxql(statement)}: this statement is not supported")
    return runner(statement, session)


def _may_stream(statement: ast.Statement, session: Session) -> TypeGuard[ast.Select]:
    return (
        session.may_stream and isinstance(statement, ast.Select) and can_be_read_in_parts(statement)
    )


class _Streamed:
    """The series of a statement, read while they are taken.

    What goes wrong the first time is the result's error. Taken again they are read again, the same
    ones, from the same snapshot; what goes wrong then is raised.
    """

    def __init__(self, result: Result, select: ast.Select, session: Session) -> None:
        self._result = result
        self._select = select
        self._session = session
        self._snapshots = Snapshots(session)
        self._reading: Generator[Series] | None = None

    def __iter__(self) -> Iterator[Series]:
        if self._reading is None:
            self._reading = self._first()
        else:
            self._reading.close()
            self._reading = self._again()
        return self._reading

    def close(self) -> None:
        """Let go of what is read."""
        if self._reading is not None:
            self._reading.close()
        self._snapshots = Snapshots(self._session)

    def _first(self) -> Generator[Series]:
        with _told(self._result, self._select, self._session):
            self._session.interrupt.check()
            yield from stream_select(self._select, self._session, self._snapshots)

    def _again(self) -> Generator[Series]:
        session = self._session
        with session.running.register(self._select, session.database, session.interrupt):
            yield from stream_select(self._select, session, self._snapshots)


@contextmanager
def _told(result: Result, statement: ast.Statement, session: Session) -> Iterator[None]:
    """Have a statement listed and counted while it runs; what it raises is the result's error."""
    started = time.perf_counter()
    session.warnings.clear()
    try:
        with session.running.register(statement, session.database, session.interrupt):
            yield
        result.messages += [("warning", text) for text in dict.fromkeys(session.warnings)]
    except TooMuch:
        raise  # no error of the statement: it is asked again
    except InfluxError as exc:
        result.error = exc.text
    except (TinyFluxError, OSError) as exc:
        _log.warning("statement failed text=%r error=%s", to_influxql(statement), exc)
        result.error = str(exc)
    except Exception:  # noqa: BLE001 - a defect of ours is this statement's error, not the request's
        _log.exception("statement failed text=%r", to_influxql(statement))
        result.error = "internal error"
    finally:
        session.metrics.count(
            query_statements=1,
            query_errors=bool(result.error),
            query_seconds=time.perf_counter() - started,
        )


def _pieces(statement: ast.Statement) -> Pieces:
    """Return what a chunked answer is cut into. Source: measured on influxd 1.6.7."""
    if isinstance(statement, _SELECTS):
        return "rows"
    return "series" if isinstance(statement, ast.ShowTagKeys | ast.ShowTagValues) else "whole"


def _is_writing(statement: ast.Statement) -> bool:
    return isinstance(statement, _WRITING) or (
        isinstance(statement, ast.Select) and statement.target is not None
    )


def _in_full(statement: ast.Statement, session: Session) -> str:
    """Return a statement as text, the measurements of a SELECT with database and policy."""
    if not isinstance(statement, ast.Select):
        return to_influxql(statement)
    place = session.database, session.retention_policy
    return to_influxql(qualified(statement, session.catalog, *place))


_READ_ONLY_WARNING: Final = (
    "deprecated use of '{}' in a read only context, please use a POST request instead"
)
