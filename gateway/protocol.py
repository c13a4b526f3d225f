"""How bytes of a connection become requests: uvicorn's protocol, where clients stumble over it.

- `Upgrade: h2c`: Java's HttpClient offers HTTP/2 with every first request; uvicorn loses the body
  of such a one, and a write was acknowledged that nobody had read.
- Bytes over 127 in a URL: `curl 'http://.../query?q=SELECT ... Küche'` sends them as they stand.
- URLs over 64 kB: a long list in WHERE, asked by GET.
- Half a connection: `printf ... | nc -N` closes its side when it has sent all.
- Heads without end are refused at a megabyte, as influxd does; those that come too slowly, or not
  at all, at the time of an idle connection.
- What is no HTTP is answered in JSON as well: clients retry for ever what they cannot parse.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.http import SERVER_HEADERS, error_response

if TYPE_CHECKING:
    import asyncio

    from starlette.types import Receive, Scope, Send
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_HEAD_BYTES: Final = 1 << 20  # Go net/http: DefaultMaxHeaderBytes
HALF_CLOSED_S: Final = 1.0  # how long who sends no more is waited for; maybe it left
_MAX_PARSED_URL: Final = 0xFFFF  # httptools.parse_url
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")


class HttpProtocol(HttpToolsProtocol):
    """One connection. Bytes come in by `data_received`, `self.parser` calls the `on_` methods."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections = self.limit_concurrency or sys.maxsize
        self.limit_concurrency = None
        self._usual_app = self.app
        self._is_line = True  # the next byte is of a request line
        self._is_upgrade = False  # what is read asks for another protocol; it gets this one
        self._n_unused = 0  # bytes since the parser gave something, except headers

    # --- asyncio calls ------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request no longer than for others."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self._is_line:
            end = data.find(b"\n")
            self._is_line = end < 0
            line = data if end < 0 else data[:end]
            if not line.isascii():
                data = _NOT_ASCII.sub(_percent_encoded, line) + data[len(line) :]
        size = len(data)
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as exc:
                    data = self._head_without_upgrade() + data[exc.args[0] :]
        except httptools.HttpParserError as exc:
            self.logger.warning("no HTTP: %s", exc)
            self._refuse(400, f"bad HTTP request: {exc}")
            return
        self._n_unused += size
        if self._n_unused > MAX_HEAD_BYTES:
            self._refuse(431, "request header too large")

    def eof_received(self) -> bool:  # type: ignore[override] # True keeps it open
        """Close, unless there is something to answer that is soon done."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        self.loop.call_later(HALF_CLOSED_S, self.transport.close)
        return True

    # --- the parser calls -----------------------------------------------------------------------
    def on_headers_complete(self) -> None:
        """Begin to answer a request."""
        if self.parser.should_upgrade():
            self._is_upgrade = True  # comes again, without
            return
        self._n_unused = 0
        self._unset_keepalive_if_required()  # not before: who is slow must not hold it for ever
        is_full = len(self.connections) > self._max_connections
        self.app = _busy if is_full else self._usual_app
        if len(self.url) <= _MAX_PARSED_URL:
            HttpToolsProtocol.on_headers_complete(self)
            return
        self.url, _, query = self.url.partition(b"?")
        HttpToolsProtocol.on_headers_complete(self)
        self.scope["query_string"] = query  # the answer is not begun before this returns

    def on_body(self, body: bytes) -> None:
        """Give a piece of the body to who reads it."""
        self._n_unused = 0
        HttpToolsProtocol.on_body(self, body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._is_line = True
        if not self._is_upgrade:
            HttpToolsProtocol.on_message_complete(self)

    # ----------------------------------------------------------------------------------------------
    def _head_without_upgrade(self) -> bytes:
        """Return the head that was read as bytes for a new parser, without the wish to upgrade.

        Raises:
            httptools.HttpParserError: It asks for a tunnel, and there is none.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("no tunnel here")
        line = b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())
        kept = [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self._is_upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as it was
        return b"".join((line, *kept, b"\r\n"))

    def _refuse(self, status: int, text: str) -> None:
        """Answer what is no request, and close."""
        if self.transport.is_closing():
            return
        body = orjson.dumps({"error": text}) + b"\n"
        headers = [
            *SERVER_HEADERS,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        phrase = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}[status]
        lines = [b"HTTP/1.1 %d %b" % (status, phrase)]
        lines += [b"%b: %b" % pair for pair in headers]
        self.transport.write(b"\r\n".join((*lines, b"", body)))
        self.transport.close()


def _percent_encoded(byte: re.Match[bytes]) -> bytes:
    return b"%%%02X" % byte[0][0]


async def _busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a connection beyond the limit."""
    response = error_response(
        503, "too many connections", headers={"retry-after": "1", "connection": "close"}
    )
    response.raw_headers += SERVER_HEADERS
    await response(scope, receive, send)
