"""Telegraf's outputs re-enacted byte for byte, with what they make of each answer.

The requests are those of Telegraf 1.39 (Go's net/http), the decisions those of its
outputs.influxdb and outputs.influxdb_v2: what a server says decides whether points are kept, sent
again or lost.
"""

from __future__ import annotations

import gzip
import json
import socket
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlencode

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e

START_NS = 1_700_000_000_000_000_000
AGENT = "User-Agent: Telegraf/1.39.3 Go/1.26.0\r\n"


@dataclass
class Answer:
    """What came back on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """One kept connection, as Go's client holds it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.host = f"{address[0]}:{address[1]}"
        self._socket = socket.create_connection(address, timeout=30)
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def post(self, target: str, headers: str, body: bytes, *, is_chunked: bool = False) -> Answer:
        """Send one request as Go writes it, and read its answer."""
        length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
        head = f"POST {target} HTTP/1.1\r\nHost: {self.host}\r\n{AGENT}{length}\r\n{headers}\r\n"
        if is_chunked:
            body = b"".join(_chunks(body)) + b"0\r\n\r\n"
        self._socket.sendall(head.encode() + body)
        return self._answer()

    def _answer(self) -> Answer:
        status = int(self._file.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self._file.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(self._file.readline(), 16):
                body += self._file.read(size)
                self._file.readline()
            self._file.readline()
        else:
            body = self._file.read(int(headers.get("content-length", 0)))
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        return Answer(status, headers, body)


def _chunks(body: bytes) -> Iterator[bytes]:
    """Yield a body in the chunks of Go's gzip writer behind a pipe: a header, then blocks."""
    for start, end in ((0, 10), *((i, i + 4096) for i in range(10, len(body), 4096))):
        piece = body[start:end]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)


@dataclass
class TelegrafV1:
    """outputs.influxdb: a queue that is sent at each flush."""

    wire: Wire
    database: str = "telegraf"
    policy: str = ""
    authorization: str = ""
    queue: list[str] = field(default_factory=list)
    dropped: int = 0

    def start(self) -> bool:
        """Create the database; whether that was understood as done."""
        query = f'CREATE DATABASE "{self.database}"'
        headers = "Content-Type: application/x-www-form-urlencoded\r\n"
        headers += f"{self.authorization}Accept-Encoding: gzip\r\n"
        answer = self.wire.post("/query", headers, f"q={quote_plus(query)}".encode())
        if answer.status == 403:
            return True
        return answer.status == 200 and not json.loads(answer.body)["results"][0].get("error")

    def flush(self) -> str:
        """Send the queue; what became of it: done, drop, create or retry."""
        parameters = {"db": self.database} | ({"rp": self.policy} if self.policy else {})
        headers = f"{self.authorization}Content-Encoding: gzip\r\n"
        headers += "Content-Type: text/plain; charset=utf-8\r\nAccept-Encoding: gzip\r\n"
        target = f"/write?{urlencode(parameters)}"
        body = gzip.compress("".join(self.queue).encode())
        outcome = self._decide(self.wire.post(target, headers, body, is_chunked=True))
        if outcome == "drop":
            self.dropped += len(self.queue)
        if outcome == "create":
            self.start()
        if outcome in {"drop", "done"}:
            self.queue.clear()
        return outcome

    def _decide(self, answer: Answer) -> str:
        if answer.status == 204:
            return "done"
        try:
            error = json.loads(answer.body).get("error", "")
        except ValueError:
            return "retry"
        if "database not found" in error:
            return "create"
        hopeless = (
            "retention policy not found",
            "hinted handoff queue not empty",
            "points beyond retention policy",
            "partial write",
            "unable to parse",
        )
        if 400 <= answer.status < 500 or any(text in error for text in hopeless):
            return "drop"
        return "retry"


@dataclass
class TelegrafV2:
    """outputs.influxdb_v2: creates nothing, splits what is too large."""

    wire: Wire
    bucket: str = "telegraf"
    token: str = ""
    requests: int = 0
    retry_after_s: float = 0.0

    def send(self, lines: list[str]) -> str:
        """Send points; what became of them: done, drop, retry or throttle."""
        parameters = {"bucket": self.bucket, "org": "me"}
        headers = f"Authorization: Token {self.token}\r\nContent-Encoding: gzip\r\n"
        headers += "Content-Type: text/plain; charset=utf-8\r\nAccept-Encoding: gzip\r\n"
        target = f"/api/v2/write?{urlencode(parameters)}"
        self.requests += 1
        answer = self.wire.post(target, headers, gzip.compress("".join(lines).encode(), 1))
        status = answer.status
        if status in {200, 201, 202, 204, 206, 207, 208}:
            return "done"
        document = json.loads(answer.body)
        assert document["code"]
        assert document["message"]
        if status == 413 and len(lines) > 1:
            middle = len(lines) // 2
            outcomes = {self.send(lines[:middle]), self.send(lines[middle:])}
            return "done" if outcomes == {"done"} else "drop"
        if status in {429, 502, 503, 504}:
            self.retry_after_s = float(answer.headers["retry-after"])
            return "throttle"
        return "drop" if 400 <= status < 500 and status not in {401, 403} else "retry"


FLAGS = ("--max-body-bytes", "20000")


@pytest.fixture
def server(process: Server) -> Server:
    """A server without databases that takes bodies of 20 kB; the process is shared."""
    process.query("DROP DATABASE telegraf")
    return process


@pytest.fixture
def connect() -> Iterator[Callable[[Server], Wire]]:
    wires: list[Wire] = []

    def connected(server: Server) -> Wire:
        wires.append(Wire(server.address))
        return wires[-1]

    yield connected
    for wire in wires:
        wire.close()


def lines(count: int, first: int = 0) -> list[str]:
    numbers = range(first, first + count)
    return [f"cpu,host=h{i % 10},cpu=cpu-total usage_idle={i}.5 {START_NS + i}\n" for i in numbers]


def random_lines(count: int) -> list[str]:
    """Return lines that gzip cannot make small."""
    random = Random(7)
    return [f"m v={random.random()} {START_NS + i}\n" for i in range(count)]


def stored(server: Server, measurement: str = "cpu") -> int:
    """Return how many points of a measurement there are."""
    [result] = server.query(f"SELECT count(*) FROM {measurement}", db="telegraf", epoch="s")
    series = result.get("series", [{"values": [[0, 0]]}])
    return int(series[0]["values"][0][1])  # type: ignore[index]  # JSON


# --- outputs.influxdb -----------------------------------------------------------------------------
@pytest.mark.trap(1)
def test_v1_starts_writes_and_loses_nothing(server: Server, connect: Callable[..., Wire]) -> None:
    telegraf = TelegrafV1(connect(server))
    assert telegraf.start()
    assert telegraf.start()  # it does at each start
    for batch in range(5):
        telegraf.queue += lines(1000, batch * 1000)
        assert telegraf.flush() == "done"
    assert (stored(server), telegraf.dropped) == (5000, 0)


@pytest.mark.trap(3)
def test_v1_creates_the_database_that_is_missing_and_sends_again(
    server: Server, connect: Callable[..., Wire]
) -> None:
    telegraf = TelegrafV1(connect(server), queue=lines(1000))
    assert telegraf.flush() == "create"
    assert telegraf.flush() == "done"
    server.query("DROP DATABASE telegraf")
    telegraf.queue += lines(1000)
    assert [telegraf.flush(), telegraf.flush()] == ["create", "done"]
    assert (stored(server), telegraf.dropped) == (1000, 0)


@pytest.mark.trap(12)
@pytest.mark.parametrize(
    ("bad", "kept"),
    [
        pytest.param('cpu,host=h0 usage_idle="text" 1\n', 10, id="type conflict"),
        pytest.param("cpu usage_idle= 1\n", 10, id="no line protocol"),
        pytest.param("cpu usage_idle=18446744073709551615u 1\n", 10, id="unsigned"),
        pytest.param("cpu,time=1 usage_idle=1 1\n", 10, id="tag called time"),
    ],
)
def test_v1_drops_the_batch_of_a_bad_point_but_the_good_ones_are_stored(
    server: Server, connect: Callable[..., Wire], bad: str, kept: int
) -> None:
    telegraf = TelegrafV1(connect(server))
    telegraf.start()
    telegraf.queue = lines(1)
    telegraf.flush()
    telegraf.queue = [*lines(5), bad, *lines(5, 5)]
    assert telegraf.flush() == "drop"
    assert stored(server) == kept
    telegraf.queue = lines(1, 20)
    assert telegraf.flush() == "done"


def test_v1_gives_up_what_no_retry_can_mend(server: Server, connect: Callable[..., Wire]) -> None:
    telegraf = TelegrafV1(connect(server), policy="nowhere", queue=lines(1))
    telegraf.start()
    assert telegraf.flush() == "drop"
    server.query("CREATE RETENTION POLICY short ON telegraf DURATION 1h REPLICATION 1")
    telegraf.policy, telegraf.queue = "short", lines(1)
    assert telegraf.flush() == "drop"
    telegraf.policy = ""
    telegraf.queue = ["x" * 30_000]  # gzip makes it small; the unpacked size is not the limit
    assert telegraf.flush() == "drop"


@pytest.mark.trap(17)
def test_v1_drops_a_body_over_the_limit_and_goes_on(
    server: Server, connect: Callable[..., Wire]
) -> None:
    noise = random_lines(3000)
    telegraf = TelegrafV1(connect(server), queue=noise)
    telegraf.start()
    assert len(gzip.compress("".join(noise).encode())) > 20_000
    assert telegraf.flush() == "drop"
    again = TelegrafV1(connect(server), queue=lines(10))
    assert again.flush() == "done"


@pytest.mark.trap(18)
def test_v1_with_wrong_credentials_drops_and_with_right_ones_is_let_in(
    start: Callable[..., Server], connect: Callable[..., Wire]
) -> None:
    server = start("--auth-enabled", "true", "--failed-login-delay-s", "0")
    admin = "CREATE USER root WITH PASSWORD 'root' WITH ALL PRIVILEGES"
    server.client.post("/query", data={"q": admin})
    basic = "Authorization: Basic {}\r\n"
    wrong = TelegrafV1(connect(server), authorization=basic.format("cm9vdDp4"), queue=lines(1))
    assert not wrong.start()
    assert wrong.flush() == "drop"
    right = TelegrafV1(connect(server), authorization=basic.format("cm9vdDpyb290"))
    assert right.start()
    right.queue = lines(1)
    assert right.flush() == "done"
    v2 = TelegrafV2(connect(server), token="root:x")
    assert v2.send(lines(1)) == "retry"
    v2.token = "root:root"
    assert v2.send(lines(1)) == "done"


@pytest.mark.trap(18)
def test_both_come_back_when_the_server_is_full(
    start: Callable[..., Server], connect: Callable[..., Wire]
) -> None:
    server = start("--max-queued-write-bytes", "1000")
    server.query("CREATE DATABASE telegraf")
    telegraf = TelegrafV1(connect(server), queue=lines(1000))
    assert telegraf.flush() == "retry"
    assert len(telegraf.queue) == 1000
    v2 = TelegrafV2(connect(server))
    assert v2.send(lines(1000)) == "throttle"
    assert v2.retry_after_s == 1.0
    small = TelegrafV1(connect(server), queue=lines(1))
    assert small.flush() == "done"


# --- outputs.influxdb_v2 --------------------------------------------------------------------------
@pytest.mark.parametrize("bucket", ["telegraf", "telegraf/autogen"])
def test_v2_loses_nothing_when_the_database_is_not_there_yet(
    server: Server, connect: Callable[..., Wire], bucket: str
) -> None:
    telegraf = TelegrafV2(connect(server), bucket)
    assert telegraf.send(lines(1000)) == "done"
    assert (stored(server), telegraf.requests) == (1000, 1)


@pytest.mark.trap(17)
def test_v2_splits_what_is_too_large_until_it_fits(
    server: Server, connect: Callable[..., Wire]
) -> None:
    telegraf = TelegrafV2(connect(server))
    assert telegraf.send(random_lines(3000)) == "done"
    assert telegraf.requests > 2
    assert stored(server, "m") == 3000


def test_v2_drops_the_batch_of_a_bad_point_but_the_good_ones_are_stored(
    server: Server, connect: Callable[..., Wire]
) -> None:
    telegraf = TelegrafV2(connect(server))
    assert telegraf.send([*lines(5), "bad\n", *lines(5, 5)]) == "drop"
    assert stored(server) == 10
    telegraf.bucket = "telegraf/nowhere"
    assert telegraf.send(lines(1)) == "drop"


# --- the serializer -------------------------------------------------------------------------------
def test_lines_of_its_serializer_mean_what_they_meant(
    server: Server, connect: Callable[..., Wire]
) -> None:
    serialized = [
        r"win\ disk,a\,b=c\=d,path=C:\\dir\\x free=1i " + f"{START_NS}\n",
        f'log message="two\nlines \\"quoted\\" back\\\\slash",level="e" {START_NS}\n',
        f"num big=100000000000000000000000,small=0.000000001,int=9223372036854775807i {START_NS}\n",
        f"flags up=true,down=false {START_NS}\n",
        "tab,k=a\\tb\\nc v=1 " + f"{START_NS}\n",
    ]
    telegraf = TelegrafV1(connect(server), queue=serialized)
    telegraf.start()
    assert telegraf.flush() == "done"
    results = server.query(
        'SELECT free, "a,b", path FROM "win disk"; SELECT message, level FROM log; '
        "SELECT big, small, int FROM num; SELECT up, down FROM flags; SELECT v, k FROM tab",
        db="telegraf",
        epoch="ns",
    )
    assert [result["series"][0]["values"][0][1:] for result in results] == [  # type: ignore[index]
        [1, "c=d", r"C:\\dir\\x"],
        ['two\nlines "quoted" back\\slash', "e"],
        [1e23, 1e-9, 9_223_372_036_854_775_807],
        [True, False],
        [1, r"a\tb\nc"],
    ]
