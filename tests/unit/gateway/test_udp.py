"""UDP: what becomes of datagrams, counted; on real sockets of 127.0.0.1."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from gateway import app
from gateway.app import create_app
from gateway.config import ConfigError, Settings, load
from gateway.errors import Overloaded
from gateway.lineprotocol.parser import Parser
from gateway.metrics import Metrics
from gateway.udp import Datagram, Datagrams, UdpListener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.lineprotocol.parser import Parsed
    from gateway.writer import Done, Write

PATIENCE_S = 30.0
SECOND_NS = 1_000_000_000


# --- many datagrams read as one -------------------------------------------------------------------
def read(*datagrams: bytes, precision: str = "ns") -> tuple[Parsed, float]:
    """Return what datagrams hold that came at 1 s, 2 s ..., and the bad lines counted."""
    metrics = Metrics()
    came = [Datagram(data, number * SECOND_NS) for number, data in enumerate(datagrams, 1)]
    parsed = Datagrams(came, precision, metrics)(Parser(), b"", 0, lambda: None)
    return parsed, metrics.values()["tinyflux_udp_bad_lines_total"]


def rows(parsed: Parsed) -> list[tuple[str, int, dict[str, object]]]:
    return [(name, time_ns, dict(fields)) for name, _, time_ns, fields in parsed.batch.rows()]


def test_datagrams_of_one_or_many_lines_with_or_without_end_are_all_read() -> None:
    parsed, bad = read(b"a v=1 1", b"a v=2 2\nb v=3 3\n", b"a v=4 4\n\n", b"a v=5 5\n")
    assert [time_ns for _, time_ns, _ in rows(parsed)] == [1, 2, 3, 4, 5]
    assert (parsed.bad_lines, bad) == (0, 0)


def test_line_without_time_gets_the_time_its_datagram_came() -> None:
    parsed, _ = read(b"m v=1\n", b"m v=2\nm v=3 7\n", b"m v=4")
    assert rows(parsed) == [
        ("m", 1 * SECOND_NS, {"v": 1.0}),
        ("m", 2 * SECOND_NS, {"v": 2.0}),
        ("m", 7, {"v": 3.0}),
        ("m", 3 * SECOND_NS, {"v": 4.0}),
    ]


@pytest.mark.parametrize(
    ("precision", "unit_ns"), [("us", 10**3), ("ms", 10**6), ("s", 10**9), ("h", 3600 * 10**9)]
)
def test_times_are_in_the_precision_and_those_of_arrival_truncated_to_it(
    precision: str, unit_ns: int
) -> None:
    parsed, _ = read(b"m v=1 7", b"m v=2", precision=precision)
    came = 2 * SECOND_NS // unit_ns * unit_ns
    assert [time_ns for _, time_ns, _ in rows(parsed)] == [7 * unit_ns, came]


def test_bad_lines_are_counted_and_take_no_other_line_along() -> None:
    parsed, bad = read(b"m v=1 1\nbad\nm v=2 2", b"worse", b"m v=3 3", b"m,time=1 v=1", b"m v=4 4")
    assert [time_ns for _, time_ns, _ in rows(parsed)] == [1, 2, 3, 4]
    assert (parsed.bad_lines, bad) == (2, 2)
    assert [error.line for error in parsed.errors] == ["bad", "worse"]
    assert [rejection.points for rejection in parsed.rejected] == [1]


@pytest.mark.parametrize(
    "open_end",
    [b'm s="open', b'm s="', b"m v=1\\", b'm,t=" s="open', b'm s="a\\"'],
)
def test_datagram_that_is_cut_takes_no_line_of_the_next_in(open_end: bytes) -> None:
    parsed, _ = read(b"m v=1 1", open_end, b'm s="x" 2', b"m v=3 3")
    assert [fields for _, _, fields in rows(parsed) if "open" not in str(fields)] == [
        {"v": 1.0},
        {"s": "x"},
        {"v": 3.0},
    ]


def test_string_of_several_lines_stays_one_field() -> None:
    parsed, bad = read(b"m v=1 1", b'm s="two\nlines" 2\n', b"# comment", b"m v=3 3")
    assert [fields for _, _, fields in rows(parsed)] == [{"v": 1.0}, {"s": "two\nlines"}, {"v": 3}]
    assert bad == 0


# --- the listener ---------------------------------------------------------------------------------
class Server:
    """The application with UDP on, a socket to send from, and its counters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
        made: list[UdpListener] = []

        def make(*arguments: object) -> UdpListener:
            made.append(UdpListener(*arguments))  # type: ignore[arg-type]  # passed on as they are
            return made[0]

        monkeypatch.setattr(app, "UdpListener", make)
        self.client = TestClient(create_app(settings, in_memory=True))
        self.listener = made[0]
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self._socket.sendto(datagram, self.listener.address)

    def counter(self, name: str) -> float:
        text = self.client.get("/metrics").text
        [line] = [line for line in text.splitlines() if line.startswith(f"tinyflux_{name} ")]
        return float(line.split()[1])

    def count_of(self, database: str) -> int:
        """Return how many values of `v` there are."""
        parameters = {"q": "SELECT count(v) FROM /.*/", "db": database, "epoch": "ns"}
        [result] = self.client.get("/query", params=parameters).json()["results"]
        return sum(series["values"][0][1] for series in result.get("series", []))

    def close(self) -> None:
        self._socket.close()
        self.listener._socket.close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(**settings: object) -> Server:
        values: dict[str, object] = {"udp_port": 0, "udp_batch_ms": 5, **settings}
        servers.append(Server(monkeypatch, Settings(**values)))  # type: ignore[arg-type]
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_points_go_to_the_database_which_the_first_batch_creates(
    serve: Callable[..., Server],
) -> None:
    server = serve(udp_database="collectd", udp_precision="ms")
    with server.client:
        assert "collectd" not in server.client.get("/query?q=SHOW DATABASES").text
        server.send(b"load,host=h v=1.5 1700000000123")
        until(lambda: server.count_of("collectd") == 1)
        answer = server.client.get("/query?q=SELECT v FROM load&db=collectd&epoch=ns").json()
        [series] = answer["results"][0]["series"]
        assert series["values"] == [[1_700_000_000_123_000_000, 1.5]]


def test_full_batch_is_stored_before_its_time_and_a_small_one_after(
    serve: Callable[..., Server],
) -> None:
    server = serve(udp_batch_points=10, udp_batch_ms=600_000)
    with server.client:
        server.send(*(b"m v=1 %d\n" % number for number in range(25)))
        until(lambda: server.count_of("udp") == 20)
        assert server.counter("udp_datagrams_total") == 25
        server.send(*(b"m v=1 %d\n" % number for number in range(25, 30)))
        until(lambda: server.count_of("udp") == 30)


def test_stop_stores_what_was_collected(serve: Callable[..., Server]) -> None:
    server = serve(udp_batch_ms=600_000)
    with server.client:
        server.send(b"m v=1 1", b"m v=1 2")
        until(lambda: server.counter("udp_datagrams_total") == 2)
        assert server.count_of("udp") == 0
        metrics = server.listener._metrics
    assert metrics.values()["tinyflux_write_points_total"] == 2


def test_points_over_a_limit_of_series_are_counted(serve: Callable[..., Server]) -> None:
    server = serve(max_series_per_database=1)
    with server.client:
        server.send(b"m,h=a v=1 1", b"m,h=b v=1 1\nm,h=a v=2 2\nm,h=c v=1 1")
        until(lambda: server.counter("write_points_over_limit_total") == 2)
        assert server.count_of("udp") == 2


def test_everything_that_is_lost_is_counted(serve: Callable[..., Server]) -> None:
    server = serve(udp_precision="s")
    with server.client:
        server.send(b"m v=1 1\nbad\nm v=2 2\n", b"\xff\x00", b"m v=true 3", b"")
        until(lambda: server.counter("write_points_dropped_total") == 3)
        assert server.counter("udp_datagrams_total") == 4
        assert server.counter("udp_bad_lines_total") == 2
        assert server.counter("udp_datagrams_dropped_total") == 0
        assert server.count_of("udp") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what its kernel dropped")
def test_what_the_kernel_drops_is_counted(serve: Callable[..., Server]) -> None:
    server = serve()
    with server.client:
        assert server.counter("udp_kernel_drops") == 0
        sock = server.listener._socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        server.send(*[bytes(60_000)] * 200)
        until(lambda: server.counter("udp_kernel_drops") > 0)
        n_received = server.counter("udp_datagrams_total")
        assert n_received + server.counter("udp_kernel_drops") <= 200


def test_datagrams_beyond_the_buffer_are_dropped_and_later_ones_taken(
    serve: Callable[..., Server],
) -> None:
    server = serve(udp_buffer_bytes=65_536, udp_batch_ms=200)
    lines = b"".join(b"m v=1 %d\n" % number for number in range(4000))
    assert 32_768 < len(lines) < 65_000
    with server.client:
        server.send(lines, lines, b"m v=1 9000")
        until(lambda: server.counter("udp_datagrams_total") == 3)
        assert server.counter("udp_datagrams_dropped_total") == 1
        until(lambda: server.count_of("udp") == 4001)
        server.send(b"m v=1 9001")
        until(lambda: server.count_of("udp") == 4002)


def test_database_that_cannot_be_created_drops_and_counts(serve: Callable[..., Server]) -> None:
    server = serve(udp_database="a/b")
    with server.client:
        server.send(b"m v=1 1", b"m v=1 2")
        until(lambda: server.counter("udp_datagrams_dropped_total") == 2)
        assert server.counter("write_points_total") == 0


class FullWriter:
    """A writer whose queue is full, or that answers when it is told to."""

    def __init__(self, *, is_full: bool) -> None:
        self.is_full = is_full
        self.waiting: list[Done] = []

    def submit(self, _: Write, done: Done) -> None:
        if self.is_full:
            raise Overloaded("request throttled, queue full")
        self.waiting.append(done)


def test_batch_that_finds_the_writers_queue_full_is_dropped() -> None:
    async def scenario() -> dict[str, float]:
        metrics = Metrics()
        settings = Settings(udp_port=0, udp_batch_points=2)
        listener = UdpListener(FullWriter(is_full=True), settings, metrics)  # type: ignore[arg-type]
        await listener.start()
        for _ in range(4):
            listener.datagram_received(b"m v=1", None)
        await listener.close()
        return metrics.values()

    assert asyncio.run(scenario())["tinyflux_udp_datagrams_dropped_total"] == 4


def test_close_waits_for_the_writer() -> None:
    async def scenario() -> None:
        writer = FullWriter(is_full=False)
        listener = UdpListener(writer, Settings(udp_port=0), Metrics())  # type: ignore[arg-type]
        await listener.start()
        listener.datagram_received(b"m v=1", None)
        closing = asyncio.create_task(listener.close())
        await asyncio.sleep(0)
        assert not closing.done()
        threading.Thread(target=writer.waiting[0], args=(None,)).start()
        await asyncio.wait_for(closing, PATIENCE_S)

    asyncio.run(scenario())


def test_address_in_use_is_refused_with_the_address() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on UDP 127.0.0.1:{port}"):
            create_app(Settings(udp_port=port), in_memory=True)


def test_udp_is_off_by_default_and_its_port_is_checked() -> None:
    assert load(environment={}).udp_port == -1
    with pytest.raises(ConfigError, match="udp_port: must be 65535 or less"):
        Settings(udp_port=65_536)
    with pytest.raises(ConfigError, match="udp_precision: must be one of"):
        Settings(udp_precision="d")
