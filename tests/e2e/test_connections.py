"""Bytes on a connection that are HTTP, but not as most clients write it; and what is none."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import Server, until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.e2e

# What Java's HttpClient sends with its first request to a server.
UPGRADE = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
)
CHUNKED = b"POST /write?db=t HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def server(process: Server) -> Server:
    """A server that has the empty database `t`; the process is shared."""
    process.query("DROP DATABASE t; CREATE DATABASE t")
    return process


def post(line: bytes, head: bytes = b"", path: bytes = b"/write?db=t") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (
        path,
        head,
        len(line),
        line,
    )


def get(query: bytes, head: bytes = b"Connection: close\r\n") -> bytes:
    return b"GET /query?db=t&epoch=ns&%b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (query, head)


LAST = get(b"q=SELECT+v+FROM+m")


def exchange(server: Server, *pieces: bytes, half_close: bool = False) -> bytes:
    """Send pieces, each by itself; return what comes until the server closes."""
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            if len(pieces) > 1:
                time.sleep(0.001)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(65536):
            answer += more
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/json" in head
    assert b"\r\nx-influxdb-version: 1.12.4" in head
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(post(b"m v=7 7\n", UPGRADE), id="length"),
        pytest.param(
            b"POST /write?db=t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            + UPGRADE
            + b"\r\n8\r\nm v=7 7\n\r\n0\r\n\r\n",
            id="chunked",
        ),
        pytest.param(
            post(b"m v=1 1\n", UPGRADE) + post(b"m v=7 7\n", UPGRADE), id="one behind another"
        ),
        pytest.param(
            b"POST /write?db=t HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Content-Length: 8\r\n\r\nm v=7 7\n",
            id="websocket",
        ),
    ],
)
@pytest.mark.parametrize("cuts", ["none", "before the body", "everywhere"])
def test_body_of_a_request_that_offers_http_2_is_read(
    server: Server, request_bytes: bytes, cuts: str
) -> None:
    whole = request_bytes + LAST
    middle = request_bytes.index(b"\r\n\r\n") + 4
    pieces = {
        "none": [whole],
        "before the body": [whole[:middle], whole[middle:]],
        "everywhere": [whole[at : at + 5] for at in range(0, len(whole), 5)],
    }[cuts]
    answer = exchange(server, *pieces)
    assert set(statuses(answer)[:-1]) == {204}
    assert b"[7,7]]" in answer


def test_curl_that_offers_http_2_is_answered(server: Server) -> None:
    if (curl := shutil.which("curl")) is None:
        pytest.skip("curl is not installed")
    command = [curl, "-sS", "--http2", f"{server.url}/write?db=t", "--data-binary", "m v=7 7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if "does not support" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert b"[[7,7]]" in exchange(server, LAST)


def test_query_that_offers_http_2_is_answered(server: Server) -> None:
    head = UPGRADE + b"Content-Type: application/x-www-form-urlencoded\r\n"
    show = b"q=SHOW+DATABASES"
    answer = exchange(server, post(show, head, b"/query") + get(show, UPGRADE) + LAST)
    assert statuses(answer) == [200, 200, 200]
    assert answer.count(b'["t"]') == 2


def test_bytes_beyond_ascii_in_a_url_are_utf_8(server: Server) -> None:
    assert server.client.post("/write?db=t", content="Küche,☃=ä v=7 7\n".encode()).is_success
    question = get('q=SELECT+*+FROM+"Küche"+WHERE+"☃"=\'ä\''.encode())
    for pieces in ([question], [question[:38], question[38:]], [b"\r\n" + LAST]):
        assert statuses(exchange(server, *pieces)) == [200]
    assert '["time","v","☃"],"values":[[7,7,"ä"]]'.encode() in exchange(server, question)
    line = "m v=1 ä".encode()  # only URLs are changed
    answer = exchange(server, post(b"m v=1 1") + post(line) + LAST)
    assert "unable to parse 'm v=1 ä': bad timestamp".encode() in answer


def test_url_of_a_long_list_is_read(server: Server) -> None:
    server.client.post("/write?db=t", content=b"m,h=a1 v=7 7\n")
    for count in (5_000, 20_000):  # 40 and 170 kB
        hosts = b",".join(b"'a%d'" % number for number in range(count))
        answer = exchange(server, get(b"q=SELECT+v+FROM+m+WHERE+h+IN+(%b)" % hosts))
        assert statuses(answer) == [200]
        assert b"[[7,7]]" in answer


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"GET /ping?", b"a" * 65536),
        (b"GET /ping HTTP/1.1\r\nX: ", b"a" * 65536),
        (b"GET /ping HTTP/1.1\r\n", b"X-A: b\r\n" * 8192),
        (
            b"POST /write?db=t HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"A: b\r\n" * 8192,
        ),
    ],
    ids=["URL", "header", "headers", "trailers"],
)
def test_head_without_end_is_refused(server: Server, head: bytes, piece: bytes) -> None:
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(head)
        with pytest.raises(ConnectionError):
            deque(map(connection.sendall, [piece] * 1000), 0)
    assert server.client.get("/ping").status_code == 204


def test_connection_is_closed_on_which_no_request_begins(start: Callable[..., Server]) -> None:
    server = start("--keep-alive-s", "1")
    server.query("CREATE DATABASE t")
    with socket.create_connection(server.address, timeout=30) as silent:
        assert silent.recv(1) == b""
    with socket.create_connection(server.address, timeout=30) as slow:
        slow.sendall(b"GET /ping?")
        for _ in range(10):  # what comes when it is closed is refused by the kernel
            time.sleep(0.2)
            with suppress(ConnectionError):
                slow.sendall(b"a")
        with suppress(ConnectionResetError):
            assert slow.recv(1) == b""
    with socket.create_connection(server.address, timeout=30) as late:  # a body has its own limit
        late.sendall(post(b"m v=1 1\n")[:-1])
        time.sleep(1.5)
        late.sendall(b"\n")
        assert late.recv(100).startswith(b"HTTP/1.1 204 ")


def test_client_that_closes_its_side_is_answered_what_it_sent_whole(server: Server) -> None:
    answer = exchange(server, post(b"m v=1 1\n") + post(b"m v=2 2\n"), half_close=True)
    assert statuses(answer) == [204, 204]
    answer = exchange(server, get(b"q=SELECT+v+FROM+m", b""), half_close=True)
    assert b"[[1,1],[2,2]]" in answer
    cut = post(b"m v=3 3\n")[:-1]
    assert exchange(server, cut, half_close=True) == b""
    assert exchange(server, b"POST /write", half_close=True) == b""
    assert b"[[1,1],[2,2]]" in exchange(server, LAST)


@pytest.mark.trap(2)
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /query?q=SHOW DATABASES HTTP/1.1\r\n\r\n",
        b"CONNECT /ping HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /write?db=t HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /write?db=t HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"zz\r\nm v=1 1\r\n0\r\n\r\n",
    ],
    ids=["TLS", "HTTP/2", "words", "blank in URL", "tunnel", "length", "two lengths", "chunk"],
)
def test_what_is_no_http_is_refused_in_json(server: Server, request_bytes: bytes) -> None:
    status, text = refusal(exchange(server, request_bytes))
    assert status == 400
    assert text.startswith("bad HTTP request: ")


def test_connection_beyond_the_limit_is_told_to_come_back(start: Callable[..., Server]) -> None:
    server = start("--max-connections", "2")
    with socket.create_connection(server.address) as one, socket.create_connection(server.address):
        one.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert one.recv(100).startswith(b"HTTP/1.1 204 ")
        answer = exchange(server, post(b"m v=1 1\n"))
        assert refusal(answer) == (503, "too many connections")
        assert b"\r\nretry-after: 1\r\n" in answer
    until(lambda: server.client.get("/ping").status_code == 204, "still full")
