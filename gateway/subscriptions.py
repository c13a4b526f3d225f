"""Subscriptions: points that were stored are sent on as line protocol.

    writer, INTO --stored--> bounded queue a subscription --its own thread--> udp, http, https

Nothing waits for a destination: what does not fit into the queue is dropped and counted, and what
a destination does not take is not sent again. ALL sends to every destination, ANY to the next one
in turn that takes it.
Source: influxdb 1.x services/subscriber, as documented.
"""

from __future__ import annotations

import base64
import http.client
import logging
import queue
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote, unquote, urlencode, urlsplit

from gateway.errors import StatementError
from gateway.lineprotocol.printer import format_points
from gateway.metrics import Statistic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from urllib.parse import SplitResult

    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.metrics import Metrics
    from gateway.policies import Database, Subscription
    from tinyflux.batch import PointBatch

TIMEOUT_S: Final = 5.0  # to connect, and to answer; meanwhile the queue fills
MAX_DATAGRAM_BYTES: Final = 1400  # fits into a frame of Ethernet with its headers
MAX_BODY_BYTES: Final = 1 << 20
_STOP_S: Final = 1.0  # how long a server that stops waits for what is being sent

_log = logging.getLogger(__name__)


def check_destination(url: str) -> None:
    """Refuse what is no URL of udp, http or https with a host and a port.

    Raises:
        StatementError: `invalid subscription URL: foo`.
    """
    try:
        parts = urlsplit(url)
        is_known = parts.scheme in _DESTINATIONS and bool(parts.hostname and parts.port)
    except ValueError:
        is_known = False
    if not is_known:
        raise StatementError(f"invalid subscription URL: {url}")


class Destination(Protocol):
    """Takes line protocol."""

    def send(self, lines: list[bytes]) -> None:
        """Send lines, each with its line end.

        Raises:
            OSError, HTTPException: Not all of them arrived, as far as that can be told.
        """
        ...

    def close(self) -> None:
        """Give the connection up."""
        ...


class Subscriptions:
    """All subscriptions of a catalog, each with its thread. Safe to use from many threads."""

    def __init__(self, catalog: Catalog, settings: Settings, metrics: Metrics) -> None:
        """Listen to the catalog; threads start when points come."""
        self._catalog = catalog
        self._settings = settings
        self._metrics = metrics
        self._lock = threading.Lock()  # held to follow the catalog
        self._known: Mapping[str, Database] | None = None  # what `_forwarders` was made from
        self._forwarders: dict[tuple[str, Subscription], _Forwarder] = {}
        self._by_place: dict[tuple[str, str], list[_Forwarder]] = {}
        catalog.listen(self.stored)
        metrics.report(self._statistics)

    def stored(self, database: str, policy: str, batch: PointBatch) -> None:
        """Queue a batch for the subscriptions of its retention policy."""
        if self._catalog.databases is not self._known:
            self._refresh()
        for forwarder in self._by_place.get((database, policy), ()):
            forwarder.offer(batch)

    def close(self) -> None:
        """Stop; what still waits after a second is dropped."""
        with self._lock:
            forwarders, self._by_place = list(self._forwarders.values()), {}
        for forwarder in forwarders:
            forwarder.stop()
        for forwarder in forwarders:
            forwarder.join(_STOP_S)

    def _refresh(self) -> None:
        """Follow what was created and dropped."""
        with self._lock:
            databases = self._catalog.databases
            wanted = [(db.name, entry) for db in databases.values() for entry in db.subscriptions]
            gone = [self._forwarders[key] for key in self._forwarders.keys() - set(wanted)]
            self._forwarders = {
                key: self._forwarders.get(key)
                or _Forwarder(*key, self._settings.subscription_buffer_points, self._metrics)
                for key in wanted
            }
            by_place: dict[tuple[str, str], list[_Forwarder]] = {}
            for (database, entry), forwarder in self._forwarders.items():
                by_place.setdefault((database, entry.retention_policy), []).append(forwarder)
            self._by_place, self._known = by_place, databases
        for forwarder in gone:
            forwarder.stop()

    def _statistics(self) -> Iterator[Statistic]:
        for (database, entry), forwarder in list(self._forwarders.items()):
            tags = {
                "database": database,
                "retention_policy": entry.retention_policy,
                "name": entry.name,
            }
            yield Statistic("subscription", tags, forwarder.counts())


class _Forwarder:
    """The queue and the thread of one subscription."""

    def __init__(
        self, database: str, subscription: Subscription, max_points: int, metrics: Metrics
    ) -> None:
        policy = subscription.retention_policy
        self._destinations = [destination(u, database, policy) for u in subscription.destinations]
        self._is_any = subscription.mode == "ANY"
        self._label = f"database={database} policy={policy} name={subscription.name}"
        self._max_points = max_points
        self._metrics = metrics
        self._lock = threading.Lock()
        self._waiting = 0
        self._sent = 0
        self._dropped = 0
        self._failures = 0
        self._turn = 0
        self._is_failing = False
        self._is_stopped = False
        self._queue: queue.SimpleQueue[PointBatch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="subscription", daemon=True)
        self._thread.start()

    def offer(self, batch: PointBatch) -> None:
        """Queue a batch, or drop it when too many points wait."""
        with self._lock:
            is_taken = self._waiting + len(batch) <= self._max_points or not self._waiting
            if is_taken:
                self._waiting += len(batch)
        if is_taken:
            self._queue.put(batch)
        else:
            self._drop(len(batch))

    def stop(self) -> None:
        """Have the thread end after what is being sent."""
        self._is_stopped = True
        self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)

    def counts(self) -> dict[str, object]:
        """Return what was sent, dropped, and waits."""
        return {
            "points": self._sent,
            "points_dropped": self._dropped,
            "points_waiting": self._waiting,
            "failures": self._failures,
        }

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None and not self._is_stopped:
            try:
                self._forward(batch)
            except Exception:  # noqa: BLE001 - a defect of ours must not end the thread
                _log.exception("subscription failed %s", self._label)
                self._drop(len(batch))
            with self._lock:
                self._waiting -= len(batch)
            del batch
        for known in self._destinations:
            known.close()

    def _forward(self, batch: PointBatch) -> None:
        for lines in _bodies(batch):
            is_sent = self._send_any(lines) if self._is_any else self._send_all(lines)
            if is_sent:
                self._sent += len(lines)
                self._metrics.count(subscription_points=len(lines))
            else:
                self._drop(len(lines))

    def _send_all(self, lines: list[bytes]) -> bool:
        taken = [self._send(known, lines) for known in self._destinations]
        return all(taken)

    def _send_any(self, lines: list[bytes]) -> bool:
        n = len(self._destinations)
        order = [self._destinations[(self._turn + i) % n] for i in range(n)]
        self._turn += 1
        return any(self._send(known, lines) for known in order)

    def _send(self, known: Destination, lines: list[bytes]) -> bool:
        try:
            known.send(lines)
        except (OSError, http.client.HTTPException) as exc:
            self._failures += 1
            self._metrics.count(subscription_failures=1)
            if not self._is_failing:  # once, until it works again
                _log.warning("subscription failed %s error=%r", self._label, exc)
            self._is_failing = True
            return False
        self._is_failing = False
        return True

    def _drop(self, n_points: int) -> None:
        self._dropped += n_points
        self._metrics.count(subscription_points_dropped=n_points)


def _bodies(batch: PointBatch) -> Iterator[list[bytes]]:
    """Yield the points of a batch as lines, about a megabyte at a time."""
    lines: list[bytes] = []
    size = 0
    for row in batch.rows():
        try:
            line = format_points([row])
        except ValueError:  # what line protocol cannot say did not come by it, and stays here
            continue
        lines.append(line)
        size += len(line)
        if size >= MAX_BODY_BYTES:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines


# --- destinations ---------------------------------------------------------------------------------
def destination(url: str, database: str, policy: str) -> Destination:
    """Return the destination that a checked URL means; nothing is connected yet."""
    parts = urlsplit(url)
    return _DESTINATIONS[parts.scheme](parts, database, policy)


class _Datagrams:
    """Sends lines by UDP, as many as fit into a datagram."""

    def __init__(self, parts: SplitResult, database: str, policy: str) -> None:  # noqa: ARG002
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._socket: socket.socket | None = None

    def send(self, lines: list[bytes]) -> None:
        if self._socket is None:
            [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_DGRAM
            )
            self._socket = socket.socket(family, kind, protocol)
            self._socket.connect(address)
        for datagram in _datagrams(lines):
            self._socket.send(datagram)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


def _datagrams(lines: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for line in lines:
        if held and len(held) + len(line) > MAX_DATAGRAM_BYTES:
            yield held
            held = b""
        held += line
    yield held


@dataclass(frozen=True, slots=True)
class _Target:
    """What every request to one destination says."""

    path: str
    headers: Mapping[str, str]


class _Http:
    """Posts lines to the /write of another server, on one connection that stays open."""

    def __init__(self, parts: SplitResult, database: str, policy: str) -> None:
        kind: type[http.client.HTTPConnection] = http.client.HTTPConnection
        if parts.scheme == "https":
            kind = http.client.HTTPSConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        names = urlencode({"db": database, "rp": policy, "precision": "ns"}, quote_via=quote)
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        self._target = _Target(f"{parts.path.rstrip('/')}/write?{names}", headers)

    def send(self, lines: list[bytes]) -> None:
        body = b"".join(lines)
        was_open = self._connection.sock is not None
        try:
            self._post(body)
        except (ConnectionError, http.client.RemoteDisconnected):
            self._connection.close()
            if not was_open:
                raise
            self._post(body)  # it was closed while nothing was sent: that is no failure
        except BaseException:
            self._connection.close()
            raise

    def _post(self, body: bytes) -> None:
        self._connection.request("POST", self._target.path, body, dict(self._target.headers))
        response = self._connection.getresponse()
        response.read()
        if not 200 <= response.status < 300:
            raise http.client.HTTPException(f"{response.status} {response.reason}")

    def close(self) -> None:
        self._connection.close()


_DESTINATIONS: Final[Mapping[str, type[_Datagrams | _Http]]] = {
    "udp": _Datagrams,
    "http": _Http,
    "https": _Http,
}
