"""What all ways to write by HTTP share: who may, the body under its limits, the wait.

`WriteEndpoint` is the application of such a path. What differs is one function, which reads a
request without its body: `gateway.write`, `gateway.v2`, `gateway.v3`, `gateway.prometheus.write`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from starlette.responses import Response
from starlette.types import Scope

from gateway.errors import DatabaseNotFound, NotFound, Overloaded
from gateway.http import read_body
from gateway.rights import authorize_write
from gateway.writer import MAX_TOGETHER_BYTES, Write

if TYPE_CHECKING:
    from starlette.types import Receive, Send

    from gateway.auth import Authentication
    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.metrics import Metrics
    from gateway.writer import Writer

Describe: TypeAlias = Callable[[Scope], Write]
"""Returns what a request wants written, without the body; raises what is wrong with it."""

# A turn of the loop that brings nothing takes some 5 us, a group of its own some 400.
_QUIET_TURNS: Final = 3
_MAX_GATHERED: Final = 32  # the first one does not wait for more

_HEADERS: Final = [(b"content-type", b"application/json")]


class Intake:
    """Takes the bodies of all endpoints that write, within one budget of memory."""

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
        self._settings = settings
        self._metrics = metrics
        self._exchange = Exchange(writer)
        self._bytes_held = 0  # of bodies that are read or wait; touched by the event loop only
        # What waits is in memory as points will be; one body of the largest size always fits.
        room = max(catalog.memory.points_bytes, settings.max_body_bytes)
        self._most_bytes_held = min(settings.max_queued_write_bytes, room)

    async def store(self, scope: Scope, receive: Receive, describe: Describe) -> None:
        """Return once the points of a request are durable.

        Raises:
            InfluxError: They are not, or not all of them.
            ClientGone: The connection ended within the body.
        """
        held, is_stored = 0, False

        def hold(n_bytes: int) -> None:
            nonlocal held
            held += n_bytes
            self._bytes_held += n_bytes
            if self._bytes_held > self._most_bytes_held:
                raise Overloaded("request throttled, too many bytes of writes wait")

        try:
            user = await self._authentication.user(scope)
            write = describe(scope)
            write.creates_database &= user is not None and user.is_admin
            if not write.creates_database:
                self._check_database(write.database)
            authorize_write(user, write.database)
            write.body = await read_body(scope, receive, self._settings, hold)
            await self._exchange.stored(write)
            is_stored = True
        except DatabaseNotFound:  # dropped while we were reading
            self._check_database(write.database)
            raise
        finally:
            self._bytes_held -= held
            self._metrics.count(write_requests=1, write_body_bytes=held, write_errors=not is_stored)

    def _check_database(self, name: str) -> None:
        """Refuse an unknown database in the words Telegraf creates one upon."""
        if name not in self._catalog.databases:
            raise NotFound(f'database not found: "{name}"')


class Exchange:
    """Bodies on their way to the writer, and its answers on their way back; many take one way.

    A group of bodies costs one append and one sync, and its answers wake the loop once. Clients
    that were answered together come again together, though one after the other: so a body waits
    for the others while they come, a few turns of the loop at most. A client alone never waits.

    Belongs to the event loop, but for the writer's answers.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._gathered: list[tuple[Write, asyncio.Future[None]]] = []
        self._n_seen = 0  # of them, at the last turn
        self._n_quiet = 0  # turns that brought none
        self._is_turning = False
        self._n_open = 0  # bodies without an answer
        self._n_lately = 0  # the most of them at once; forgotten group by group
        self._ready: deque[tuple[asyncio.Future[None], Exception | None]] = deque()
        self._is_due = False

    def stored(self, write: Write) -> asyncio.Future[None]:
        """Return what is done when a body is durable, or tells why it is not, or not wholly."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        self._n_open += 1
        self._n_lately = max(self._n_lately, self._n_open)
        self._gathered.append((write, answer))
        wanted = min(self._n_lately, _MAX_GATHERED)
        if len(self._gathered) >= wanted or len(write.body) > MAX_TOGETHER_BYTES:
            self._hand_over()
        elif not self._is_turning:
            self._is_turning = True
            loop.call_soon(self._turn, loop)
        return answer

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look whether bodies still come."""
        n_gathered = len(self._gathered)
        self._n_quiet = 0 if n_gathered > self._n_seen else self._n_quiet + 1
        self._n_seen = n_gathered
        if n_gathered and self._n_quiet < _QUIET_TURNS:
            loop.call_soon(self._turn, loop)
        else:
            self._is_turning = False
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the writer what was gathered."""
        gathered, self._gathered = self._gathered, []
        self._n_seen = self._n_quiet = 0
        for write, answer in gathered:
            try:
                self._writer.submit(write, partial(self._put, answer))
            except Overloaded as exc:
                self._put(answer, exc)
        self._n_lately = max(self._n_open, self._n_lately - 1)

    def _put(self, answer: asyncio.Future[None], error: Exception | None) -> None:
        """Have an answer set on its loop. From any thread."""
        self._ready.append((answer, error))
        if not self._is_due:  # the loop clears it before it looks: nothing is left lying
            self._is_due = True
            with suppress(RuntimeError):  # the loop ended first: nobody waits any more
                answer.get_loop().call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_due = False
        while self._ready:
            answer, error = self._ready.popleft()
            self._n_open -= 1
            if answer.done():
                continue
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)


class WriteEndpoint:
    """The ASGI application of a path that takes points: 204, or the error that says why not."""

    def __init__(self, intake: Intake, describe: Describe) -> None:
        self._intake = intake
        self._describe = describe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; refusals are raised and answered by the edge."""
        if scope["method"] == "OPTIONS":
            await Response()(scope, receive, send)
            return
        await self._intake.store(scope, receive, self._describe)
        await send({"type": "http.response.start", "status": 204, "headers": _HEADERS})
        await send({"type": "http.response.body"})
