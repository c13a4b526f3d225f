"""Bodies sent to /write over some connections at once, as fast as the server answers.

One thread serves all connections and every request is made beforehand, so that the client takes
little of the machine that it shares with the server: some 15 us a small request.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HEADERS = {"Content-Type": "text/plain; charset=utf-8"}
TIMEOUT_S = 60.0
_PIECE_BYTES = 1 << 20
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """Bodies to write.

    Attributes:
        name: What the table calls them.
        bodies: As they are sent.
        headers: Of each request.
    """

    name: str
    bodies: Iterable[bytes]
    headers: dict[str, str] = field(default_factory=lambda: HEADERS)


def post(url: str, database: str, load: Load, connections: int) -> list[float]:
    """Write all bodies; return the seconds each took to be acknowledged, in no order.

    Raises:
        RuntimeError: A body was not acknowledged by 204; the text is the answer.
    """
    parts = urlsplit(url)
    address = parts.hostname or "127.0.0.1", parts.port or 8086
    head = f"POST /write?db={database} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in load.headers.items())
    requests = (f"{head}Content-Length: {len(b)}\r\n\r\n".encode() + b for b in load.bodies)
    opened = [_Connection(address) for _ in range(connections)]
    try:
        return _serve(opened, requests)
    finally:
        for connection in opened:
            connection.socket.close()


def _serve(connections: Sequence[_Connection], requests: Iterator[bytes]) -> list[float]:
    poll = select.poll()
    by_fd: dict[int, _Connection] = {}
    for connection, request in zip(connections, requests, strict=False):
        by_fd[connection.socket.fileno()] = connection
        poll.register(connection.socket, connection.begin(request))
    took_s: list[float] = []
    while by_fd:
        ready = poll.poll(TIMEOUT_S * 1000)
        if not ready:
            raise RuntimeError(f"no answer within {TIMEOUT_S} s")
        for fd, _ in ready:
            connection = by_fd[fd]
            wanted = connection.go_on()
            if not wanted:
                took_s.append(time.perf_counter() - connection.started_s)
                following = next(requests, None)
                if following is None:
                    poll.unregister(fd)
                    del by_fd[fd]
                    continue
                wanted = connection.begin(following)
            poll.modify(fd, wanted)
    return took_s


class _Connection:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.started_s = 0.0
        self._unsent = memoryview(b"")
        self._answer = b""

    def begin(self, request: bytes) -> int:
        """Send a request, as much as goes; return what to poll for."""
        self.started_s = time.perf_counter()
        self._unsent = memoryview(request)
        self._answer = b""
        return self._send()

    def go_on(self) -> int:
        """Go on; return what to poll for, 0 when the request is acknowledged."""
        if self._unsent:
            return self._send()
        received = self.socket.recv(65536)
        self._answer += received
        if self._answer.startswith(b"HTTP/1.1 204 ") and self._answer.endswith(_HEAD_END):
            return 0
        if not received or _HEAD_END in self._answer:
            raise RuntimeError(self._answer.decode(errors="replace") or "connection closed")
        return select.POLLIN

    def _send(self) -> int:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent[:_PIECE_BYTES]) :]
        except BlockingIOError:
            return select.POLLOUT
        return select.POLLIN
