"""Line protocol by UDP: datagrams in, nothing out. Off unless `udp_port` says otherwise.

    datagram -> UdpListener.take   event loop: collected, until udp_batch_points or udp_batch_ms
             -> Datagrams          writer thread: parsed, many at once where that means the same
             -> the writer's rest  types, retention policy, log

The sender hears nothing, so what is lost is counted: datagrams that find the buffer or the writer's
queue full, lines that cannot be read, and on Linux what the kernel dropped before. Differs from
influxd: one bad line does not take the good ones of its datagram along. A line without timestamp
gets the time its datagram came.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gateway.errors import InfluxError, LinesRefused
from gateway.lineprotocol.parser import MAX_ERRORS, Parsed, concatenated, unit_ns
from gateway.writer import Write
from tinyflux.batch import MIN_TIME_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import Settings
    from gateway.lineprotocol.parser import Parser
    from gateway.metrics import Metrics
    from gateway.writer import Between, Writer

# What the kernel keeps while the event loop is busy; it may give less.
KERNEL_BUFFER_BYTES: Final = 8 << 20
MAX_LOGGED: Final = 300  # characters of an error

_log = logging.getLogger(__name__)


class Datagram(NamedTuple):
    """One datagram.

    Attributes:
        data: Lines.
        time_ns: When it came, ns since 1970 UTC.
    """

    data: bytes
    time_ns: int


@dataclass(frozen=True, slots=True)
class Datagrams:
    """Reads the datagrams of a batch, in the writer thread.

    Attributes:
        datagrams: In the order they came.
        precision: Of their timestamps.
        metrics: Where bad lines are counted.
    """

    datagrams: Sequence[Datagram]
    precision: str
    metrics: Metrics

    def __call__(self, parser: Parser, _: bytes, __: int, between: Between) -> Parsed:
        """Return the points of all datagrams."""
        parts = self._read(parser, self.datagrams, between)
        bad_lines = sum(part.bad_lines for part in parts)
        self.metrics.count(udp_bad_lines=bad_lines)
        return Parsed(
            concatenated([part.batch for part in parts if len(part.batch)]),
            [error for part in parts for error in part.errors][:MAX_ERRORS],
            bad_lines,
            tuple(rejection for part in parts for rejection in part.rejected),
        )

    def _read(
        self, parser: Parser, datagrams: Sequence[Datagram], between: Between
    ) -> list[Parsed]:
        """Read datagrams as one body if that tells the same, else in halves."""
        if len(datagrams) == 1:
            [only] = datagrams
            between()
            parsed = parser.parse(
                only.data, precision=self.precision, now_ns=only.time_ns, between=between
            )
            return [parsed]
        together = self._together(parser, datagrams, between)
        if together is not None:
            return [together]
        middle = len(datagrams) // 2
        first, second = datagrams[:middle], datagrams[middle:]
        return [*self._read(parser, first, between), *self._read(parser, second, between)]

    def _together(
        self, parser: Parser, datagrams: Sequence[Datagram], between: Between
    ) -> Parsed | None:
        """Read datagrams as one body; None unless every line of theirs is a point by itself.

        A string or a backslash that is open at the end of a datagram would take a line of the next
        in: that shows, since there are fewer points than lines.
        """
        bodies = [datagram.data.rstrip(b"\n") for datagram in datagrams]
        unit = unit_ns(self.precision)
        unset_ns = MIN_TIME_NS // -unit * -unit  # the earliest time there is, in 1677: nobody's
        parsed = parser.parse(
            b"\n".join(bodies), precision=self.precision, now_ns=unset_ns, between=between
        )
        n_lines = [body.count(b"\n") + 1 for body in bodies]
        if parsed.bad_lines or parsed.rejected or len(parsed.batch) != sum(n_lines):
            return None
        came = np.array([datagram.time_ns // unit * unit for datagram in datagrams], np.int64)
        times = parsed.batch.times
        times = np.where(times == unset_ns, np.repeat(came, n_lines), times)
        return replace(parsed, batch=replace(parsed.batch, times=times))


class UdpListener(asyncio.DatagramProtocol):
    """Takes datagrams and gives them to the writer in batches. Lives on the event loop."""

    def __init__(self, writer: Writer, settings: Settings, metrics: Metrics) -> None:
        """Take the address; nothing is received before `start`.

        Raises:
            OSError: The address cannot be had; the text says which.
        """
        self._writer = writer
        self._settings = settings
        self._metrics = metrics
        self._datagrams: list[Datagram] = []
        self._n_points = 0  # about: lines
        self._timer: asyncio.TimerHandle | None = None
        self._bytes_held = 0  # of datagrams collected or with the writer
        self._n_writing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._socket = _bound(settings.udp_host, settings.udp_port)
        if _kernel_drops(self._socket) is not None:
            metrics.measure(
                "tinyflux_udp_kernel_drops",
                "Datagrams that the kernel dropped, because they came faster than they were read.",
                lambda: _kernel_drops(self._socket) or 0,
            )
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Begin to receive."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=self._socket)
        database = self._settings.udp_database
        _log.info("udp listening address=%s:%d database=%s", *self.address, database)

    async def close(self) -> None:
        """Take no more, and wait until the writer has done with what came."""
        if self._transport is not None:
            self._transport.close()
        self._flush()
        await self._idle.wait()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        """Collect a datagram, or drop it when too much waits."""
        self._metrics.count(udp_datagrams=1, udp_bytes=len(data))
        if self._bytes_held + len(data) > self._settings.udp_buffer_bytes:
            self._metrics.count(udp_datagrams_dropped=1)
            return
        self._datagrams.append(Datagram(data, time.time_ns()))
        self._bytes_held += len(data)
        self._n_points += data.count(b"\n") + (not data.endswith(b"\n"))
        if self._n_points >= self._settings.udp_batch_points:
            self._flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._settings.udp_batch_ms / 1000, self._flush)

    def error_received(self, exc: Exception) -> None:
        """Say what the socket says; datagrams that come later are taken all the same."""
        _log.warning("udp error=%s", exc)

    def _flush(self) -> None:
        """Give what was collected to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        datagrams, self._datagrams, self._n_points = self._datagrams, [], 0
        if not datagrams:
            return
        size = sum(len(datagram.data) for datagram in datagrams)
        precision = self._settings.udp_precision
        write = Write(
            b"",
            self._settings.udp_database,
            creates_database=True,
            read=Datagrams(datagrams, precision, self._metrics),
        )
        loop = asyncio.get_running_loop()
        count = len(datagrams)

        def done(error: Exception | None) -> None:
            with suppress(RuntimeError):  # the loop ended first: nobody waits any more
                loop.call_soon_threadsafe(self._written, count, size, error)

        self._n_writing += 1
        self._idle.clear()
        try:
            self._writer.submit(write, done)
        except InfluxError as exc:  # the queue is full
            self._written(count, size, exc)

    def _written(self, count: int, size: int, error: Exception | None) -> None:
        """Hear from the writer of a batch."""
        self._bytes_held -= size
        self._n_writing -= 1
        if not self._n_writing:
            self._idle.set()
        if error is None:
            return
        if not isinstance(error, LinesRefused):  # nothing of it was stored
            self._metrics.count(udp_datagrams_dropped=count)
        _log.warning("udp datagrams=%d error=%s", count, str(error)[:MAX_LOGGED])


def _kernel_drops(sock: socket.socket) -> int | None:
    """Return how many datagrams for a socket the kernel dropped; None where it does not say."""
    try:
        inode = str(os.fstat(sock.fileno()).st_ino)
        table = Path("/proc/net/udp6" if sock.family == socket.AF_INET6 else "/proc/net/udp")
        rows = [line.split() for line in table.read_text("ascii").splitlines()]
        # Linux, net/ipv4/udp.c: the tenth column is the inode, the last one the drops.
        return next((int(row[-1]) for row in rows if row[9] == inode), None)
    except (OSError, ValueError, IndexError):
        return None


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket on an address.

    Raises:
        OSError: It cannot be had; the text says which.
    """
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )
        sock = socket.socket(family, kind, protocol)
        try:
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    except OSError as exc:
        raise OSError(f"cannot listen on UDP {host}:{port}: {exc}") from exc
    sock.setblocking(False)
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER_BYTES)
    return sock
