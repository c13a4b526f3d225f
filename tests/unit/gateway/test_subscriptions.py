"""Subscriptions: what is stored is sent on, to all or to any, and nobody waits for it."""

from __future__ import annotations

import base64
import http.server
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.errors import StatementError
from gateway.metrics import Metrics
from gateway.policies import PolicyChange
from gateway.session import Session
from gateway.statements.run import execute
from gateway.subscriptions import MAX_DATAGRAM_BYTES, Subscriptions, check_destination
from grammar.parser import parse
from tinyflux.batch import BatchBuilder, series_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tinyflux.batch import PointBatch

PATIENCE_S = 30.0
LINE = b"m,h=a v=1.5 1\n"


class Sink:
    """An HTTP server that keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []  # path, authorization, body
        self.status = 204
        self.open = threading.Event()  # answers wait for it
        self.open.set()
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sink.requests.append((self.path, self.headers.get("authorization", ""), body))
                sink.open.wait(PATIENCE_S)
                self.send_response(sink.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.requests]


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def dead_url() -> str:
    """The URL of a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def subscribe(catalog: Catalog, metrics: Metrics) -> Iterator[Callable[..., Subscriptions]]:
    """Create the database `t` with the subscription `s`, and start to send on."""
    made: list[Subscriptions] = []

    def subscribed(mode: str, *urls: str, max_points: int = 1000) -> Subscriptions:
        catalog.create_database("t")
        run(catalog, create(mode, *urls))
        settings = Settings(subscription_buffer_points=max_points)
        made.append(Subscriptions(catalog, settings, metrics))
        return made[-1]

    yield subscribed
    for subscriptions in made:
        subscriptions.close()


def create(mode: str, *urls: str, name: str = "s") -> str:
    destinations = ", ".join(f"'{url}'" for url in urls)
    return f"CREATE SUBSCRIPTION {name} ON t.autogen DESTINATIONS {mode} {destinations}"


def run(catalog: Catalog, text: str) -> None:
    for statement in parse(text):
        execute(statement, Session(catalog, Settings(), 0))


def points(n: int = 1) -> PointBatch:
    builder = BatchBuilder()
    for time_ns in range(1, n + 1):
        builder.add(series_key("m", [("h", "a")]), time_ns, [("v", 1.5)])
    return builder.build()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def count(metrics: Metrics, name: str) -> float:
    return metrics.values()[f"tinyflux_subscription_{name}_total"]


def test_points_are_posted_with_database_policy_and_precision(
    catalog: Catalog, subscribe: Callable[..., Subscriptions], sink: Sink, metrics: Metrics
) -> None:
    url = f"http://me:p%40ss@127.0.0.1:{sink.port}/up/"
    subscribe("ALL", url).stored("t", "autogen", points())
    until(lambda: count(metrics, "points") == 1)
    login = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert sink.requests == [("/up/write?db=t&rp=autogen&precision=ns", login, LINE)]


def test_points_of_other_policies_are_not_sent(
    catalog: Catalog, subscribe: Callable[..., Subscriptions], sink: Sink, metrics: Metrics
) -> None:
    subscriptions = subscribe("ALL", sink.url)
    catalog.create_policy("t", "other", PolicyChange())
    subscriptions.stored("t", "other", points(2))
    subscriptions.stored("t", "autogen", points())
    until(lambda: count(metrics, "points") == 1)
    assert sink.bodies() == [LINE]


def test_all_sends_to_every_destination(
    subscribe: Callable[..., Subscriptions], sink: Sink, metrics: Metrics
) -> None:
    other = Sink()
    subscribe("ALL", sink.url, other.url).stored("t", "autogen", points())
    until(lambda: count(metrics, "points") == 1)
    other.close()
    assert sink.bodies() == other.bodies() == [LINE]


def test_any_sends_to_one_destination_in_turn(
    subscribe: Callable[..., Subscriptions], sink: Sink, metrics: Metrics
) -> None:
    other = Sink()
    subscriptions = subscribe("ANY", sink.url, other.url)
    for _ in range(4):
        subscriptions.stored("t", "autogen", points())
    until(lambda: count(metrics, "points") == 4)
    other.close()
    assert sink.bodies() == other.bodies() == [LINE, LINE]


def test_any_goes_on_to_the_next_destination_when_one_fails(
    subscribe: Callable[..., Subscriptions], sink: Sink, dead_url: str, metrics: Metrics
) -> None:
    subscribe("ANY", dead_url, sink.url).stored("t", "autogen", points())
    until(lambda: count(metrics, "points") == 1)
    assert count(metrics, "failures") == 1
    assert count(metrics, "points_dropped") == 0


def test_destination_that_fails_is_logged_once_and_its_points_are_dropped(
    subscribe: Callable[..., Subscriptions],
    dead_url: str,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    subscriptions = subscribe("ALL", dead_url)
    for _ in range(3):
        subscriptions.stored("t", "autogen", points(2))
    until(lambda: count(metrics, "points_dropped") == 6)
    assert caplog.text.count("subscription failed database=t policy=autogen name=s") == 1


def test_refusal_of_a_destination_is_a_failure(
    subscribe: Callable[..., Subscriptions], sink: Sink, metrics: Metrics
) -> None:
    sink.status = 500
    subscriptions = subscribe("ALL", sink.url)
    subscriptions.stored("t", "autogen", points())
    until(lambda: count(metrics, "points_dropped") == 1)
    sink.status = 204
    subscriptions.stored("t", "autogen", points())
    until(lambda: count(metrics, "points") == 1)


def test_points_beyond_the_buffer_are_dropped_and_nobody_waits(
    subscribe: Callable[..., Subscriptions], sink: Sink, metrics: Metrics
) -> None:
    sink.open.clear()
    subscriptions = subscribe("ALL", sink.url, max_points=10)
    subscriptions.stored("t", "autogen", points(6))
    subscriptions.stored("t", "autogen", points(6))
    assert count(metrics, "points_dropped") == 6
    subscriptions.stored("t", "autogen", points(4))
    sink.open.set()
    until(lambda: count(metrics, "points") == 10)
    [statistic] = metrics.statistics()
    assert statistic.tags == {"database": "t", "retention_policy": "autogen", "name": "s"}
    assert statistic.values["points_dropped"] == 6


def test_datagrams_hold_whole_lines_and_are_not_too_long(
    subscribe: Callable[..., Subscriptions],
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE_S)
        url = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        subscribe("ALL", url).stored("t", "autogen", points(300))
        datagrams: list[bytes] = []
        while sum(datagram.count(b"\n") for datagram in datagrams) < 300:
            datagrams.append(receiver.recv(65536))
    assert max(map(len, datagrams)) <= MAX_DATAGRAM_BYTES
    assert all(datagram.endswith(b"\n") for datagram in datagrams)
    assert b"".join(datagrams) == b"".join(b"m,h=a v=1.5 %d\n" % i for i in range(1, 301))


def test_dropped_subscription_sends_no_more_and_a_new_one_does(
    catalog: Catalog, subscribe: Callable[..., Subscriptions], sink: Sink, metrics: Metrics
) -> None:
    subscriptions = subscribe("ALL", sink.url)
    subscriptions.stored("t", "autogen", points())
    until(lambda: count(metrics, "points") == 1)
    run(catalog, "DROP SUBSCRIPTION s ON t.autogen")
    subscriptions.stored("t", "autogen", points())
    run(catalog, create("ANY", sink.url, name="s2"))
    subscriptions.stored("t", "autogen", points())
    until(lambda: count(metrics, "points") == 2)
    assert len(sink.requests) == 2


def test_subscriptions_survive_a_restart_and_go_with_their_policy(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database("t")
    catalog.create_policy("t", "p", PolicyChange())
    run(catalog, create("ALL", "udp://127.0.0.1:9"))
    run(catalog, "CREATE SUBSCRIPTION q ON t.p DESTINATIONS ANY 'https://127.0.0.1:9'")
    catalog.close()
    catalog = Catalog(tmp_path, Settings())
    assert [s.name for s in catalog.database("t").subscriptions] == ["s", "q"]
    catalog.drop_policy("t", "p")
    catalog.close()
    [left] = catalog.database("t").subscriptions
    assert (left.name, left.mode, left.destinations) == ("s", "ALL", ("udp://127.0.0.1:9",))


@pytest.mark.parametrize(
    "url",
    ["foo", "", "ftp://h:1", "http://", "http://h", "udp://h", "http://h:99999", "http://[:1"],
)
def test_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(StatementError) as caught:
        check_destination(url)
    assert caught.value.text == f"invalid subscription URL: {url}"


@contextmanager
def closing_after_each_answer() -> Iterator[tuple[str, list[bytes]]]:
    """A server that closes its connection without saying so once it has answered."""
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.02)
    stopped = threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(PATIENCE_S)
                received = b""
                while not received.endswith(LINE):
                    received += connection.recv(65536)
                seen.append(received)
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
    stopped.set()
    thread.join()
    listener.close()


def test_connection_that_was_closed_in_between_is_no_failure(
    subscribe: Callable[..., Subscriptions], metrics: Metrics
) -> None:
    with closing_after_each_answer() as (url, seen):
        subscriptions = subscribe("ALL", url)
        for n in (1, 2, 3):
            subscriptions.stored("t", "autogen", points())
            until(lambda n=n: count(metrics, "points") == n)  # type: ignore[misc]
    assert len(seen) == 3
    assert count(metrics, "failures") == 0
