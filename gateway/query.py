"""GET|POST /query: parameters from URL and body, statements one after another, answers streamed.

    read      who asks, then the parameters (URL < body), on the event loop
    answer    parse, check the rights, run and print up to the first megabyte, in one go on a query
              thread; what is known to be small (`gateway.quick`) on the event loop;
              SHOW QUERIES and KILL QUERY on a thread of their own, for when the others are busy
    stream    what is left, a megabyte at a time, only as fast as the client reads; raw points are
              read from the storage no sooner

Found before a statement runs: HTTP 400, 401, 403. Found by a statement: HTTP 200, `error` in its
result (behind its series, when they went out already; a document of its own when chunked), and the
statements after it say `not executed`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.responses import Response

from gateway.encoding.msgpack import AnswerChanged
from gateway.errors import BadRequest, InfluxError, Overloaded
from gateway.http import ClientGone, error_response
from gateway.metrics import Metrics
from gateway.quick import MAX_LENGTH, MAX_ROWS, SHORT_S, QuickKinds, kind_of, tight
from gateway.request import bound_parameters, read_request, unread_request
from gateway.results import Result
from gateway.rights import authorize
from gateway.session import Interrupt, Session
from gateway.statements import results_of
from grammar import parser
from grammar.errors import ParseError
from tinyflux.columnar.allowance import TooMuch, at_most
from tinyflux.errors import TinyFluxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Hashable, Iterable, Iterator
    from concurrent.futures import Executor

    from starlette.types import Receive, Scope, Send

    from gateway.auth import Authentication
    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.request import QueryRequest
    from gateway.results import Series
    from gateway.running import RunningQueries
    from gateway.users import User
    from grammar import ast

_log = logging.getLogger(__name__)

PIECE_BYTES: Final = 1 << 20  # of an answer, printed and held before the client takes it
MIN_GZIP_BYTES: Final = 1024
GZIP_LEVEL: Final = 1  # 27 ms for 3.4 MB; level 6 takes 162 for a few percent
_CONTROL: Final = re.compile(
    r"\s*(?:SHOW\s+QUERIES|KILL\s+QUERY\s+\d+(?:\s+ON\s+\S+)?)\s*;?\s*", re.IGNORECASE | re.ASCII
)
_PATIENCE_S: Final = 0.5  # how long a query runs before we look whether its client is still there


class _Answer(NamedTuple):
    """What a query thread made: the first megabyte, the rest if any, headers of the coding."""

    first: bytes
    rest: Generator[bytes] | None
    headers: dict[str, str]


class _Asked(NamedTuple):
    """What a request asks for: its statements, and of which kind they are to `QuickKinds`."""

    statements: tuple[ast.Statement, ...]
    kind: Hashable


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
        self._control = ThreadPoolExecutor(1, "control")
        parser.parse("SHOW DATABASES")  # builds the grammar, before the threads would all at once
        self._quick = QuickKinds()
        self._tight = tight(settings)
        self._uncounted = Metrics()  # of statements that may be run again
        self._n_open = 0  # requests that run or wait; touched by the event loop only

    @property
    def threads(self) -> Executor:
        """The threads that run queries."""
        return self._threads

    @property
    def send_timeout_s(self) -> float | None:
        """How long a client may take for a piece of an answer; None is for ever."""
        return self._settings.body_timeout_s or None

    def close(self) -> None:
        """Stop what runs, and the threads."""
        self._running.kill_all()
        self._threads.shutdown(cancel_futures=True)
        self._control.shutdown(cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] == "OPTIONS":
            await Response()(scope, receive, send)
            return
        self._metrics.count(query_requests=1)
        request: QueryRequest | None = None
        try:
            user = await self._authentication.user(scope)
            request = await read_request(scope, receive, self._settings)
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
        is_control = _CONTROL.fullmatch(request.text) is not None
        most = self._settings.query_threads + self._settings.max_queued_queries
        if self._n_open >= most and not is_control:
            raise Overloaded("too many queries are waiting")
        is_async = request.parameters.get("async") == "true"
        loop = asyncio.get_running_loop()
        asked: _Asked | None = None
        if is_async:  # as influxd: what is refused without running it is told
            asked = await loop.run_in_executor(self._threads, _allowed, request, user)
        elif self._may_be_quick(request):
            asked = _allowed(request, user)
            if self._quick.has(asked.kind):
                try:
                    return self._quick_answer(request, user, asked)
                except TooMuch as exc:
                    if exc.is_cold:  # what is read for the first time says nothing of its kind
                        asked = asked._replace(kind=None)
                    else:
                        self._quick.refuse(asked.kind)
        session = self._session(request, user)
        if self._n_open >= self._settings.query_threads and not is_control:
            self._running.enqueue(request.text, session.database, session.interrupt)
        self._n_open += 1
        threads = self._control if is_control else self._threads
        running = loop.run_in_executor(threads, self._answer, request, session, asked)
        running.add_done_callback(lambda _: self._finished(session.interrupt))
        if is_async:
            running.add_done_callback(_forget)
            return Response(status_code=204, headers={"content-type": "application/json"})
        await _watched(running, receive, session.interrupt)
        return self._answered(request, running.result(), session)

    def _finished(self, interrupt: Interrupt) -> None:
        self._n_open -= 1
        self._running.dequeue(interrupt)

    def _answered(self, request: QueryRequest, answer: _Answer, session: Session) -> Response:
        headers = {"content-type": request.media_type} | answer.headers
        if answer.rest is None:
            return Response(answer.first, headers=headers)
        return _Streamed(self, answer, session.interrupt, headers)

    def _may_be_quick(self, request: QueryRequest) -> bool:
        memory = self._catalog.memory
        is_idle = not self._n_open and 2 * memory.claimed_bytes <= memory.work_bytes
        return is_idle and len(request.text) <= MAX_LENGTH and not request.is_chunked

    def _quick_answer(self, request: QueryRequest, user: User | None, asked: _Asked) -> Response:
        """Return the answer, made here and now.

        Raises:
            TooMuch: That takes a thread after all.
        """
        session = self._session(request, user, is_quick=True)
        started_s, cpu_s = time.perf_counter(), time.thread_time()
        try:
            with at_most(MAX_ROWS):
                [result] = results_of(asked.statements, session)
                # Whether it is one with other limits, too, a thread finds out.
                if result.error or result.messages:
                    raise TooMuch(is_cold=False)
                answer = self._printed(request, iter([result]), 1)
        finally:
            if time.perf_counter() - started_s > SHORT_S:  # to ask for the CPU is a slow call
                self._quick.note(asked.kind, time.thread_time() - cpu_s, is_quick=True)
        self._metrics.count(query_statements=1, query_seconds=time.perf_counter() - started_s)
        return self._answered(request, answer, session)

    def _session(
        self, request: QueryRequest, user: User | None, *, is_quick: bool = False
    ) -> Session:
        return Session(
            catalog=self._catalog,
            settings=self._tight if is_quick else self._settings,
            now_ns=time.time_ns(),
            database=request.parameters.get("db", ""),
            retention_policy=request.parameters.get("rp", ""),
            interrupt=Interrupt(self._settings.query_timeout_s),
            metrics=self._uncounted if is_quick else self._metrics,
            running=self._running,
            user=user,
            may_stream=not is_quick,
        )

    def _answer(self, request: QueryRequest, session: Session, asked: _Asked | None) -> _Answer:
        """Return the first megabyte of the answer, the rest if any, the headers of its coding."""
        cpu_s = time.thread_time()
        asked = asked or _allowed(request, session.user)
        results = results_of(asked.statements, session, is_read_only=request.is_read_only)
        answer = self._printed(request, results, len(asked.statements))
        if answer.rest is None:
            self._quick.note(asked.kind, time.thread_time() - cpu_s)
        return answer

    def _printed(self, request: QueryRequest, results: Iterator[Result], count: int) -> _Answer:
        pieces = self._documents(request, results, count)
        first, is_all = _taken(pieces)
        coding: dict[str, str] = {}
        if request.is_gzip and (len(first) > MIN_GZIP_BYTES or not is_all):
            pieces = _gzipped(chain((first,), pieces))
            first, is_all = _taken(pieces)
            coding = {"content-encoding": "gzip", "vary": "Accept-Encoding"}
        return _Answer(first, None if is_all else pieces, coding)

    def _documents(
        self, request: QueryRequest, results: Iterator[Result], count: int
    ) -> Generator[bytes]:
        encoder = request.encoder(count)
        if request.is_chunked:
            for result in results:
                for chunk in chunks_of(result, request.chunk_rows):
                    yield from encoder.document([chunk])
        else:
            limit = self._settings.max_row_limit
            yield from encoder.document(limited(results, limit) if limit else results)

    @asynccontextmanager
    async def streaming(self, answer: _Answer, interrupt: Interrupt) -> AsyncIterator[_Pieces]:
        """Give the pieces of an answer, and let go of what they are made from when it is over."""
        pieces = _Pieces(answer, self._threads)
        self._n_open += 1
        try:
            yield pieces
        finally:
            self._n_open -= 1
            interrupt.trip()  # a client that left early wants no more
            pieces.close()


class _Pieces:
    """The pieces of an answer, each made on a query thread when it is asked for.

    Attributes:
        is_last: Whether the piece that was given last was the last one.
    """

    def __init__(self, answer: _Answer, threads: Executor) -> None:
        assert answer.rest is not None
        self.is_last = False
        self._rest = answer.rest
        self._threads = threads
        self._running: asyncio.Future[tuple[bytes, bool]] | None = None

    async def next(self) -> bytes:
        """Return the next piece."""
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(self._threads, _taken, self._rest)
        piece, self.is_last = await self._running
        return piece

    def close(self) -> None:
        """Let go of the snapshot that more would be read from, as soon as nobody reads it."""
        if self._running is not None and not self._running.done():
            self._running.add_done_callback(lambda _: self.close())
        else:
            with suppress(RuntimeError):  # the server stops: nothing is left to let go of
                self._threads.submit(self._rest.close)


class _Streamed(Response):
    """An answer that goes out piece by piece, as fast as its client takes it.

    Args:
        endpoint: Whose it is.
        answer: Its beginning, and the rest.
        interrupt: Stops the making of the rest.
        headers: Of the response.
    """

    def __init__(
        self,
        endpoint: QueryEndpoint,
        answer: _Answer,
        interrupt: Interrupt,
        headers: dict[str, str],
    ) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._endpoint = endpoint
        self._answer = answer
        self._interrupt = interrupt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer.

        Raises:
            ClientGone: The client took no piece for too long, or what was promised could not be
                read: the answer is broken off.
        """
        del scope
        watch = asyncio.create_task(_trip_when_gone(receive, self._interrupt))
        try:
            async with self._endpoint.streaming(self._answer, self._interrupt) as pieces:
                start = {"status": self.status_code, "headers": self.raw_headers}
                await send({"type": "http.response.start", **start})
                piece = self._answer.first
                while True:
                    await self._send(send, piece, more=not pieces.is_last)
                    if pieces.is_last or watch.done():
                        return
                    piece = await pieces.next()
        except (AnswerChanged, InfluxError, TinyFluxError) as exc:
            _log.warning("an answer was broken off: %s", str(exc) or "it changed")
            raise ClientGone from exc
        finally:
            watch.cancel()

    async def _send(self, send: Send, piece: bytes, *, more: bool) -> None:
        before_s = time.monotonic()
        try:
            async with asyncio.timeout(self._endpoint.send_timeout_s):
                await send({"type": "http.response.body", "body": piece, "more_body": more})
        except TimeoutError:
            raise ClientGone from None
        self._interrupt.extend(time.monotonic() - before_s)  # a slow client is no slow query


def chunks_of(result: Result, max_rows: int) -> Iterator[Result]:
    """Yield a result in its pieces, each of one series, of at most `max_rows` rows if those are it.

    Pieces of rows are partial while more follow; others never, as in influxd.
    """
    if result.pieces == "whole":
        yield result
        return
    number, is_rows = result.statement_id, result.pieces == "rows"
    max_rows = max_rows if is_rows else sys.maxsize
    parts = (part for series in result.series for part in series.parts(max_rows))
    before = next(parts, None)
    if before is None:
        result.series = ()
        yield result
        return
    for part in parts:
        yield Result(number, [before], partial=is_rows)
        before = part
    yield Result(number, [before], result.messages, partial=bool(result.error))
    if result.error:
        yield Result(number, error=result.error)


def limited(results: Iterable[Result], max_rows: int) -> Iterator[Result]:
    """Yield results until their series hold `max_rows` rows; the series cut there is partial.

    Source: influxdb 1.x services/httpd, max-row-limit.
    """
    left = max_rows
    for result in results:
        result.series = kept = _FirstRows(result.series, left)
        yield result
        left -= kept.n_rows


class _FirstRows:
    """The first rows of series; the one cut there is partial.

    Attributes:
        n_rows: How many rows were taken, the last time.
    """

    def __init__(self, series: Iterable[Series], most: int) -> None:
        self.n_rows = 0
        self._series = series
        self._most = most

    def __iter__(self) -> Iterator[Series]:
        self.n_rows = 0
        for item in self._series:
            left = self._most - self.n_rows
            if left <= 0:
                return
            kept = item if len(item) < left else next(item.parts(left))
            self.n_rows += len(kept)
            yield kept


def _allowed(request: QueryRequest, user: User | None) -> _Asked:
    """Return the statements of a request that may run, all of them.

    Raises:
        BadRequest: The text is not InfluxQL.
        Forbidden: The user may not do one of them.
    """
    parameters = request.parameters
    try:
        reading = parser.read(request.text, bound_parameters(parameters.get("params", "")))
    except ParseError as exc:
        raise BadRequest(f"error parsing query: {exc}") from exc
    database = parameters.get("db", "")
    authorize(reading.statements, user, database)
    return _Asked(reading.statements, kind_of(reading, (database, parameters.get("rp", ""))))


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


def _gzipped(pieces: Iterable[bytes]) -> Generator[bytes]:
    stream = zlib.compressobj(GZIP_LEVEL, wbits=31)
    for piece in pieces:
        yield stream.compress(piece)
    yield stream.flush()


def _forget(finished: asyncio.Future[_Answer]) -> None:
    """Take the error of a query nobody waits for, as influxd does."""
    if not finished.cancelled():
        finished.exception()
