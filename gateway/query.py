"""GET|POST /query: parameters from URL and body, statements one after another, answers streamed.

    read      who asks, then the parameters (URL < body), on the event loop
    answer    parse, check the rights, run and print up to the first megabyte, in one go on a query
              thread
    stream    what is left, a megabyte at a time, only as fast as the client reads

Found before a statement runs: HTTP 400, 401, 403. Found by a statement: HTTP 200, `error` in its
result, and the statements after it say `not executed`.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.responses import Response, StreamingResponse

from gateway.errors import BadRequest, InfluxError, Overloaded
from gateway.http import error_response, time_limit
from gateway.request import bound_parameters, read_request, unread_request
from gateway.results import Result
from gateway.rights import authorize
from gateway.session import Interrupt, Session
from gateway.statements import results_of
from grammar import parser
from grammar.errors import ParseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from concurrent.futures import Executor

    from starlette.types import Receive, Scope, Send

    from gateway.auth import Authentication
    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.metrics import Metrics
    from gateway.request import QueryRequest
    from gateway.results import Series
    from gateway.running import RunningQueries
    from gateway.users import User
    from grammar import ast

PIECE_BYTES: Final = 1 << 20  # of an answer, printed and held before the client takes it
MIN_GZIP_BYTES: Final = 1024
GZIP_LEVEL: Final = 1  # 27 ms for 3.4 MB; level 6 takes 162 for a few percent
_PATIENCE_S: Final = 0.5  # how long a query runs before we look whether its client is still there


class _Answer(NamedTuple):
    """What a query thread made: the first megabyte, the rest if any, headers of the coding."""

    first: bytes
    rest: Iterator[bytes] | None
    headers: dict[str, str]


class QueryEndpoint:
    """The ASGI application of /query, with the threads that run the statements."""

    def __init__(
        self,
        catalog: Catalog,
        authentication: Authentication,
        settings: Settings,
        metrics: Metrics,
        running: RunningQueries,
    ) -> None:
        self._catalog = catalog
        self._authentication = authentication
        self._settings = settings
        self._metrics = metrics
        self._running = running
        self._threads = ThreadPoolExecutor(settings.query_threads, "query")
        parser.parse("SHOW DATABASES")  # builds the grammar, before the threads would all at once
        self._n_open = 0  # requests that run or wait; touched by the event loop only

    @property
    def threads(self) -> Executor:
        """The threads that run queries."""
        return self._threads

    def close(self) -> None:
        """Stop what runs, and the threads."""
        self._running.kill_all()
        self._threads.shutdown(cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] == "OPTIONS":
            await Response()(scope, receive, send)
            return
        self._metrics.count(query_requests=1)
        request: QueryRequest | None = None
        try:
            user = await self._authentication.user(scope)
            async with time_limit(self._settings.body_timeout_s):
                request = await read_request(scope, receive, self._settings.max_body_bytes)
            response = await self._response(request, user, receive)
        except InfluxError as exc:
            form = request or unread_request(scope)
            response = error_response(
                exc.status,
                exc.text,
                body=form.encoder().error(exc.text),
                media_type=form.media_type,
                headers=exc.headers,
            )
        await response(scope, receive, send)

    async def _response(
        self, request: QueryRequest, user: User | None, receive: Receive
    ) -> Response:
        if self._n_open >= self._settings.query_threads + self._settings.max_queued_queries:
            raise Overloaded("too many queries are waiting")
        session = self._session(request, user)
        loop = asyncio.get_running_loop()
        is_async = request.parameters.get("async") == "true"
        if is_async:  # as influxd: what is refused without running it is told
            await loop.run_in_executor(self._threads, _allowed, request, session)
        self._n_open += 1
        running = loop.run_in_executor(self._threads, self._answer, request, session)
        running.add_done_callback(lambda _: self._finished())
        if is_async:
            running.add_done_callback(_forget)
            return Response(status_code=204, headers={"content-type": "application/json"})
        await _watched(running, receive, session.interrupt)
        answer = running.result()
        headers = {"content-type": request.media_type} | answer.headers
        if answer.rest is None:
            return Response(answer.first, headers=headers)
        pieces = self._streamed(answer.first, answer.rest, session.interrupt)
        return StreamingResponse(pieces, headers=headers)

    def _finished(self) -> None:
        self._n_open -= 1

    def _session(self, request: QueryRequest, user: User | None) -> Session:
        return Session(
            catalog=self._catalog,
            settings=self._settings,
            now_ns=time.time_ns(),
            database=request.parameters.get("db", ""),
            retention_policy=request.parameters.get("rp", ""),
            interrupt=Interrupt(self._settings.query_timeout_s),
            metrics=self._metrics,
            running=self._running,
            user=user,
        )

    def _answer(self, request: QueryRequest, session: Session) -> _Answer:
        """Return the first megabyte of the answer, the rest if any, the headers of its coding."""
        statements = _allowed(request, session)
        results = results_of(statements, session, is_read_only=request.is_read_only)
        pieces = self._documents(request, results)
        first, is_all = _taken(pieces)
        coding: dict[str, str] = {}
        if request.is_gzip and (len(first) > MIN_GZIP_BYTES or not is_all):
            pieces = _gzipped(chain((first,), pieces))
            first, is_all = _taken(pieces)
            coding = {"content-encoding": "gzip", "vary": "Accept-Encoding"}
        return _Answer(first, None if is_all else pieces, coding)

    def _documents(self, request: QueryRequest, results: Iterator[Result]) -> Iterator[bytes]:
        encoder = request.encoder()
        if request.is_chunked:
            for result in results:
                for chunk in chunks_of(result, request.chunk_rows):
                    yield from encoder.document([chunk])
        else:
            limit = self._settings.max_row_limit
            yield from encoder.document(limited(results, limit) if limit else results)

    async def _streamed(
        self, first: bytes, rest: Iterator[bytes], interrupt: Interrupt
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        self._n_open += 1
        try:
            yield first
            is_all = False
            while not is_all:
                piece, is_all = await loop.run_in_executor(self._threads, _taken, rest)
                yield piece
        finally:
            self._n_open -= 1
            interrupt.trip()  # a client that left early wants no more


def chunks_of(result: Result, max_rows: int) -> Iterator[Result]:
    """Yield a result in parts: one series, at most `max_rows` rows, partial while more follow."""
    if result.error or not result.series:
        yield result
        return
    parts = [part for series in result.series for part in series.parts(max_rows)]
    for position, part in enumerate(parts, 1):
        is_last = position == len(parts)
        messages = result.messages if is_last else []
        yield Result(result.statement_id, [part], messages, partial=not is_last)


def limited(results: Iterable[Result], max_rows: int) -> Iterator[Result]:
    """Yield results until their series hold `max_rows` rows; the series cut there is partial.

    Source: influxdb 1.x services/httpd, max-row-limit.
    """
    left = max_rows
    for result in results:
        kept: list[Series] = []
        for series in result.series:
            if left <= 0:
                break
            kept.append(next(series.parts(left)))
            left -= len(kept[-1])
        result.series = kept
        yield result


def _parsed(request: QueryRequest) -> tuple[ast.Statement, ...]:
    try:
        return parser.parse(request.text, bound_parameters(request.parameters.get("params", "")))
    except ParseError as exc:
        raise BadRequest(f"error parsing query: {exc}") from exc


def _allowed(request: QueryRequest, session: Session) -> tuple[ast.Statement, ...]:
    """Return the statements of a request that may run, all of them."""
    statements = _parsed(request)
    authorize(statements, session.user, session.database)
    return statements


async def _watched(
    running: asyncio.Future[_Answer], receive: Receive, interrupt: Interrupt
) -> None:
    """Wait for a query; stop it when its client goes away."""
    done, _ = await asyncio.wait({running}, timeout=_PATIENCE_S)
    if done:
        return
    watch = asyncio.create_task(_trip_when_gone(receive, interrupt))
    try:
        await asyncio.wait({running})
    finally:
        watch.cancel()


async def _trip_when_gone(receive: Receive, interrupt: Interrupt) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    interrupt.trip()


def _taken(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    """Return the next pieces, about PIECE_BYTES of them, and whether these were the last."""
    taken: list[bytes] = []
    size = 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            return b"".join(taken), False
    return b"".join(taken), True


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    stream = zlib.compressobj(GZIP_LEVEL, wbits=31)
    for piece in pieces:
        yield stream.compress(piece)
    yield stream.flush()


def _forget(finished: asyncio.Future[_Answer]) -> None:
    """Take the error of a query nobody waits for, as influxd does."""
    if not finished.cancelled():
        finished.exception()
