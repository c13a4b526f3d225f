"""POST /write: who writes where, the body under its limits, and the one answer that says stored.

204 means durable (as the `sync` setting promises); everything else is JSON, since Telegraf retries
for ever what it cannot read. The body is never taken for a form, whatever its Content-Type says.
What is done with it: `gateway.writer`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.responses import Response

from gateway.errors import BadRequest, DatabaseNotFound, NotFound, Overloaded
from gateway.http import body_chunks, header, time_limit, url_parameters
from gateway.rights import authorize_write
from gateway.writer import Write

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from gateway.auth import Authentication
    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.metrics import Metrics
    from gateway.writer import Writer


class WriteEndpoint:
    """The ASGI application of /write."""

    def __init__(
        self,
        catalog: Catalog,
        authentication: Authentication,
        writer: Writer,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._catalog = catalog
        self._authentication = authentication
        self._writer = writer
        self._settings = settings
        self._metrics = metrics
        self._bytes_held = 0  # of bodies that are read or wait; touched by the event loop only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; refusals are raised and answered by the edge."""
        if scope["method"] == "OPTIONS":
            await Response()(scope, receive, send)
            return
        self._metrics.count(write_requests=1)
        try:
            await self._write(scope, receive)
        except Exception:
            self._metrics.count(write_errors=1)
            raise
        await Response(status_code=204, headers={"content-type": "application/json"})(
            scope, receive, send
        )

    async def _write(self, scope: Scope, receive: Receive) -> None:
        user = await self._authentication.user(scope)
        parameters = url_parameters(scope)
        database = parameters.get("db", "")
        if not database:
            raise BadRequest("database is required")
        self._check_database(database)
        authorize_write(user, database)
        held = 0
        chunks: list[bytes] = []
        try:
            async with time_limit(self._settings.body_timeout_s):
                async for chunk in body_chunks(scope, receive, self._settings.max_body_bytes):
                    chunks.append(chunk)
                    held += len(chunk)
                    self._bytes_held += len(chunk)
                    if self._bytes_held > self._settings.max_queued_write_bytes:
                        raise Overloaded("request throttled, too many bytes of writes wait")
            self._metrics.count(write_body_bytes=held)
            write = Write(
                b"".join(chunks),
                database,
                parameters.get("rp", ""),
                parameters.get("precision", ""),
                header(scope, b"content-encoding"),
                parameters.get("consistency", ""),
            )
            chunks.clear()
            await self._stored(write)
        except DatabaseNotFound:  # dropped while we were reading
            self._check_database(database)
            raise
        finally:
            self._bytes_held -= held

    def _check_database(self, name: str) -> None:
        """Refuse an unknown database in the words Telegraf creates one upon."""
        if name not in self._catalog.databases:
            raise NotFound(f'database not found: "{name}"')

    async def _stored(self, write: Write) -> None:
        """Wait until a body is durable; raise why it is not, or not wholly."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()

        def set_answer(error: Exception | None) -> None:
            if not answer.done():
                if error is None:
                    answer.set_result(None)
                else:
                    answer.set_exception(error)

        def done(error: Exception | None) -> None:
            with suppress(RuntimeError):  # the loop ended first: nobody waits any more
                loop.call_soon_threadsafe(set_answer, error)

        self._writer.submit(write, done)
        await answer
