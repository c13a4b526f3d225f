"""The application: paths to endpoints, the headers of every answer, and errors to answers.

`Edge` stands around everything: whatever happens inside, a client gets influxd's headers and, for a
refusal, JSON. Nothing else turns an exception into a status.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from gateway import retention, trash
from gateway.auth import Authentication
from gateway.buckets import BucketEndpoints
from gateway.catalog import Catalog
from gateway.continuous import ContinuousQueries
from gateway.encoding.msgpack import MsgpackEncoder
from gateway.errors import InfluxError
from gateway.http import SERVER_HEADERS, ClientGone, error_response, header
from gateway.intake import Intake, WriteEndpoint
from gateway.metrics import Metrics
from gateway.prometheus.read import RemoteRead
from gateway.prometheus.write import RemoteWrite
from gateway.query import QueryEndpoint
from gateway.running import RunningQueries
from gateway.status import StatusEndpoints
from gateway.subscriptions import Subscriptions
from gateway.udp import UdpListener
from gateway.v2 import V2Endpoints, with_code
from gateway.v3 import WriteLpEndpoint, describe as describe_v3
from gateway.write import describe as describe_write
from gateway.writer import Writer
from grammar.errors import ParseError
from tinyflux.columnar.segment import load
from tinyflux.errors import (
    CorruptionError,
    LimitExceeded,
    MemoryExceeded,
    QueryError,
    StorageClosed,
    StorageError,
    TinyFluxError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.config import Settings

_log = logging.getLogger(__name__)

# Errors of the layers below, by the nearest class: they know no HTTP.
_STATUSES: Final[dict[type[Exception], int]] = {
    ParseError: 400,
    QueryError: 400,
    LimitExceeded: 400,
    MemoryExceeded: 503,
    CorruptionError: 500,
    StorageError: 503,
    StorageClosed: 503,
    TinyFluxError: 500,
    OSError: 503,
    MemoryError: 503,
}

_UUID_EPOCH: Final = 0x01B21DD213814000  # 1582-10-15 to 1970, in 100 ns; RFC 9562

_CORS: Final = (  # influxdb 1.x services/httpd: cors()
    (b"access-control-allow-methods", b"DELETE, GET, OPTIONS, POST, PUT"),
    (
        b"access-control-allow-headers",
        b"Accept, Accept-Encoding, Authorization, Content-Length, Content-Type, User-Agent, "
        b"X-CSRF-Token, X-HTTP-Method-Override",
    ),
    (b"access-control-expose-headers", b"Date, X-InfluxDB-Version, X-InfluxDB-Build"),
)


def create_app(settings: Settings, *, in_memory: bool = False) -> Edge:
    """Return the application on the data directory of the settings.

    The directory is opened here and closed when the application's lifespan ends.

    Args:
        settings: How to run.
        in_memory: Keep nothing on disk; for tests and demonstrations.

    Raises:
        StorageLocked: Another process owns the data directory.
        CorruptionError: The catalog is damaged.
        OSError: The data directory cannot be used.
    """
    catalog = Catalog(None if in_memory else settings.data, settings)
    metrics = Metrics()
    trash.watch(lambda: catalog.trash, metrics)
    running = RunningQueries()
    writer = Writer(catalog, settings, metrics, running)
    authentication = Authentication(catalog, settings)
    query = QueryEndpoint(catalog, authentication, settings, metrics, running)
    intake = Intake(catalog, authentication, writer, settings, metrics)
    v2 = V2Endpoints(catalog, authentication, settings)
    buckets = BucketEndpoints(catalog, authentication, settings)
    remote_read = RemoteRead(catalog, authentication, settings, query.threads)
    udp = UdpListener(writer, settings, metrics) if settings.udp_port >= 0 else None
    status = StatusEndpoints(catalog, authentication, writer, running, metrics, settings)

    file = None if in_memory else settings.data / "continuous.json"
    subscriptions = Subscriptions(catalog, settings, metrics)
    continuous = ContinuousQueries(catalog, settings, metrics, running, file)

    @asynccontextmanager
    async def lifespan(_: Edge) -> AsyncIterator[None]:
        if udp is not None:
            await udp.start()
        if catalog.has_segments:  # the first question will want it
            query.threads.submit(load)
        expiry = asyncio.create_task(retention.run(catalog, settings.retention_interval_s))
        rollups = asyncio.create_task(continuous.run(query.threads))
        try:
            yield
        finally:
            expiry.cancel()
            rollups.cancel()
            authentication.close()
            query.close()
            continuous.save()
            if udp is not None:
                await udp.close()
            writer.close()
            subscriptions.close()
            catalog.close()

    write = WriteEndpoint(intake, describe_write)
    router = Router(
        [
            Route("/write", write, methods=["POST", "OPTIONS"]),
            _without_head(Route("/query", query, methods=["GET", "POST", "OPTIONS"])),
            *_other_writes(intake, v2, settings),
            Route("/api/v1/prom/read", remote_read.read, methods=["POST"]),
            Route("/api/v2/buckets", buckets.buckets, methods=["GET", "POST"]),
            Route("/api/v2/buckets/{id:path}", buckets.bucket, methods=["GET", "PATCH", "DELETE"]),
            Route("/ping", status.ping),
            Route("/status", status.status),
            Route("/health", status.health, methods=["GET", "OPTIONS"]),
            Route("/debug/vars", status.debug_vars),
            Route("/metrics", status.metrics),
        ],
        lifespan=lifespan,
        redirect_slashes=False,  # influxd: /ping/ is 404, and Telegraf follows no redirect
    )
    # What is asked most goes past the router, which tries one route after another.
    usual: dict[tuple[str, str], ASGIApp] = {
        ("POST", "/write"): write,
        ("GET", "/query"): query,
        ("POST", "/query"): query,
    }
    return Edge(router, usual, metrics)


def _other_writes(intake: Intake, v2: V2Endpoints, settings: Settings) -> list[Route]:
    """Return the routes of Prometheus' remote write and of the versions 2 and 3."""
    write_v2 = WriteEndpoint(intake, v2.describe_write)
    write_v3 = WriteLpEndpoint(intake, describe_v3)
    remote_write = WriteEndpoint(intake, RemoteWrite(settings).describe)
    return [
        Route("/api/v1/prom/write", remote_write, methods=["POST"]),
        Route("/api/v2/write", write_v2, methods=["POST", "OPTIONS"]),
        Route("/api/v2/query", v2.query, methods=["POST", "OPTIONS"]),
        Route("/api/v2/delete", v2.delete, methods=["POST"]),
        Route("/api/v3/write_lp", write_v3, methods=["POST", "OPTIONS"]),
    ]


def _without_head(route: Route) -> Route:
    """Take away the HEAD that Starlette adds to GET: influxd answers 405."""
    assert route.methods is not None
    route.methods.discard("HEAD")
    return route


class Edge:
    """The application: puts influxd's headers on every answer and turns every error into one.

    Attributes:
        router: Finds the endpoint of a request.
    """

    def __init__(
        self, router: Router, usual: Mapping[tuple[str, str], ASGIApp], metrics: Metrics
    ) -> None:
        """Make the application.

        Args:
            router: Finds the endpoint of a request.
            usual: Endpoints by method and path, found without the router.
            metrics: Where requests are counted.
        """
        self.router = router
        self._usual = usual
        self._metrics = metrics
        self._uuids = _uuids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and what comes back."""
        scope["app"] = self  # has the router raise what it refuses
        if scope["type"] != "http":
            await self.router(scope, receive, send)
            return
        app = self._usual.get((scope["method"], scope["path"]), self.router)
        extra = _headers(scope, self._uuids)
        status = 0

        def send_with_headers(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *extra]
            return send(message)

        try:
            await app(scope, receive, send_with_headers)
        except ClientGone:
            return
        except Exception as exc:
            if status:  # the answer has begun: all that is left is to break it off
                if _is_closed(exc):
                    return
                raise
            response = _answer(exc, scope)
            if scope["path"].startswith("/api/v2/"):
                response = with_code(response)
            await response(scope, receive, send_with_headers)
        finally:
            if status < 400:
                self._metrics.count(http_requests=1)
            else:
                kind = "http_client_errors" if status < 500 else "http_server_errors"
                self._metrics.count(http_requests=1, **{kind: 1})


def _is_closed(exc: Exception) -> bool:
    """Return whether the connection was closed before the answer was sent: so uvloop says it."""
    return type(exc) is RuntimeError and "closed" in str(exc)


def _answer(exc: Exception, scope: Scope) -> Response:
    """Return the answer to a request that failed."""
    if isinstance(exc, InfluxError):
        body, media_type = None, "application/json"
        if scope["path"] == "/write" and header(scope, b"accept") == MsgpackEncoder.media_type:
            # As influxd, and influxdb-python shows nothing else as text.
            body, media_type = MsgpackEncoder().error(exc.text), MsgpackEncoder.media_type
        return error_response(
            exc.status, exc.text, body=body, media_type=media_type, headers=exc.headers
        )
    if isinstance(exc, HTTPException):
        return error_response(exc.status_code, exc.detail, headers=exc.headers)
    for kind in type(exc).__mro__:
        if kind in _STATUSES:
            _log.warning("request failed path=%s error=%s", scope["path"], exc)
            return error_response(_STATUSES[kind], str(exc) or "out of memory")
    _log.error("request failed path=%s", scope["path"], exc_info=exc)
    return error_response(500, "internal error")


def _uuids() -> Iterator[bytes]:
    """Yield UUIDs of version 1 without the address of the machine, as influxd's requests have.

    Ten times as fast as `uuid.uuid1`. For one thread.
    """
    clock_sequence = 0x8000 | random.getrandbits(14)
    last = 0
    while True:
        last = max(last + 1, time.time_ns() // 100 + _UUID_EPOCH)
        low, middle, high = last & 0xFFFFFFFF, last >> 32 & 0xFFFF, last >> 48 & 0x0FFF
        yield b"%08x-%04x-1%03x-%04x-000000000000" % (low, middle, high, clock_sequence)


def _headers(scope: Scope, uuids: Iterator[bytes]) -> list[tuple[bytes, bytes]]:
    given = dict(reversed(scope["headers"]))  # of a repeated one the first
    value = given.get(b"x-request-id") or given.get(b"request-id") or next(uuids)
    headers = [*SERVER_HEADERS, (b"request-id", value), (b"x-request-id", value)]
    origin = given.get(b"origin")
    if origin:
        headers += ((b"access-control-allow-origin", origin), *_CORS)
    return headers
