"""What writers do that a server may stumble over, each once, over a real socket.

Telegraf has tests/e2e/test_telegraf.py, installed clients tests/e2e/test_client_libraries.py. All
that stumbled over before is marked `trap`, wherever its test is.
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from tests.e2e.conftest import Server, values

pytestmark = pytest.mark.e2e

WRITES = ("/write?db=t", "/api/v2/write?bucket=t", "/api/v3/write_lp?db=t")


@pytest.fixture
def server(process: Server) -> Server:
    """A server that has the empty database `t`; the process is shared."""
    process.query("DROP DATABASE t; CREATE DATABASE t")
    return process


def exchange(server: Server, request: bytes) -> tuple[int, bytes]:
    """Send bytes, read until the server closes; return the status and all that came."""
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return int(answer.split()[1]), answer


@pytest.mark.trap(5)
def test_gzip_is_not_believed_of_a_query_without_a_body(server: Server) -> None:
    for request in (
        b"GET /query?q=SHOW+DATABASES HTTP/1.1\r\n",
        b"POST /query?q=SHOW+DATABASES HTTP/1.1\r\nContent-Length: 0\r\n",
        b"POST /write?db=t HTTP/1.1\r\nContent-Length: 0\r\n",
    ):
        head = b"Host: x\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
        assert exchange(server, request + head)[0] in {200, 204}


@pytest.mark.trap(11)
@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("body", [b"", b"\n", b"\n\n# nothing\n"])
def test_empty_write_is_no_error(server: Server, path: str, body: bytes) -> None:
    assert server.client.post(path, content=body).status_code == 204


@pytest.mark.trap(9)
@pytest.mark.parametrize("path", ["/ping", "/query?q=SHOW+DATABASES", *WRITES])
def test_credentials_are_ignored_while_authentication_is_off(server: Server, path: str) -> None:
    joint = "&" if "?" in path else "?"
    method = "POST" if "write" in path else "GET"
    for header in (
        "",
        "Basic cm9vdDpyb290",
        "Token",
        "Token x",
        "Bearer y",
        "Basic ?",
        "Nonsense",
    ):
        headers = {"authorization": header} if header else {}
        url = path if header else f"{path}{joint}u=root&p=root"
        answer = server.client.request(method, url, headers=headers)
        assert answer.status_code in {200, 204}


@pytest.mark.trap(6)
def test_content_type_says_nothing_about_a_write(server: Server) -> None:
    for number, content_type in enumerate(
        ("application/x-www-form-urlencoded", "multipart/form-data", "application/json", "", "x")
    ):
        for path in WRITES:
            headers = {"content-type": content_type}
            line = f"m,a=b&c,n={number} v=1 {number}\n"
            assert server.client.post(path, content=line, headers=headers).status_code == 204
    assert values(server, "SHOW TAG VALUES FROM m WITH KEY = a") == [["a", "b&c"]]


@pytest.mark.trap(19)
@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        (WRITES[0], ("n", "ns", "u", "us", "ms", "s", "m", "h"), ("x", "nanosecond", "d")),
        (WRITES[1], ("ns", "us", "ms", "s"), ("n", "u", "m", "h", "auto")),
        (WRITES[2], ("auto", "nanosecond", "second", "ns", "us", "ms", "s"), ("m", "h", "minute")),
    ],
    ids=["v1", "v2", "v3"],
)
def test_each_version_has_its_own_words_for_precision(
    server: Server, path: str, good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    for word in good:
        answer = server.client.post(f"{path}&precision={word}", content=b"m v=1 1\n")
        assert answer.status_code == 204, word
    for word in bad:
        answer = server.client.post(f"{path}&precision={word}", content=b"m v=1 1\n")
        assert answer.status_code == 400, word
        assert word in answer.json()["error"]


@pytest.mark.trap(2)
@pytest.mark.parametrize("path", [*WRITES, "/api/v1/prom/write?db=t"])
def test_every_refusal_of_a_write_is_compact_json(server: Server, path: str) -> None:
    pathname = path.partition("?")[0]
    answers = [
        server.client.post(pathname, content=b"m v=1\n"),
        server.client.post(path, content=b"bad\n"),
        server.client.post(path, content=b"m v=1\n", headers={"content-encoding": "gzip"}),
        server.client.get(path),
        server.client.put(path),
        server.client.post(f"{pathname}/?db=t", content=b"m v=1\n"),
        server.client.post(path, content=b"m v=1 1\n" * 4_000_000),
    ]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 405, 405, 404, 413]
    for answer in answers:
        assert answer.headers["content-type"] == "application/json"
        assert answer.text.startswith('{"error":"')
        assert answer.json()["error"]
        assert answer.headers["x-influxdb-version"] == "1.12.4"


@pytest.mark.parametrize(
    ("request_line", "line"),
    [
        pytest.param(
            b"POST /api/v2/write?precision=s&org=icinga2&bucket=t HTTP/1.0",
            b'ping4,hostname=h,note=a\\ b rta=0.5,text="a\\ b" 1700000000\n',
            id="icinga2 for version 2",
        ),
        pytest.param(
            b"POST /api/v2/write?org=proxmox&bucket=t HTTP/1.1",
            b'system,object=nodes,host=x version="8.1",cpus=8,uptime=9 1700000000000000000\n',
            id="Proxmox",
        ),
        pytest.param(
            b"POST /write?db=t&u=esp&p=secret HTTP/1.1", b"room t=21.5,h=48\n", id="ESP8266"
        ),
        pytest.param(
            b"POST /write?db=t HTTP/1.1\r\nUser-Agent: ESP8266HTTPClient\r\n"
            b"Accept-Encoding: identity;q=1,chunked;q=0.1,*;q=0",
            b"tasmota,device=plug power=12.5,total=3.141",
            id="Tasmota",
        ),
        pytest.param(
            b"POST /api/v2/write?org=home&bucket=t&precision=ms HTTP/1.1\r\n"
            b"Content-Type: text/plain",
            b"shelly,id=shellyplus1pm-a8032ab1 apower=0.0,on=false 1700000000000",
            id="script of a Shelly",
        ),
        pytest.param(
            b"POST /write?db=t HTTP/1.1\r\nContent-Type: text/plain",
            b"cpu_value,host=h,instance=0,type_instance=idle value=98.5 1700000000123456789\n",
            id="collectd's write_http",
        ),
        pytest.param(
            b"POST /write?db=t&p=root&precision=ms&rp=&u=root HTTP/1.1",
            b'hm-rpc.0.A.1.LEVEL ack=true,from="system.adapter.x.0",q=0,value=21.5 1700000000000',
            id="ioBroker",
        ),
        pytest.param(
            b"POST /write?u=openhab&p=x&db=t&rp=autogen&precision=n&consistency=one HTTP/1.1\r\n"
            b"Content-Type: text/plain\r\nUser-Agent: okhttp/3.14.9",
            b"LivingRoom\\ Temp,item=LivingRoom value=21.5 1700000000000000000",
            id="openHAB",
        ),
        pytest.param(
            b"POST /write?consistency=all&db=t&precision=ns&rp= HTTP/1.1",
            b" m,host=a v=1 1",
            id="influx shell",
        ),
        pytest.param(
            b"POST /write?db=t&rp=autogen&precision=n&consistency=one HTTP/1.1",
            b"m,host=a v=1i 1\r\nm,host=a v=2i 2\r\n",
            id="lines end as on Windows",
        ),
    ],
)
def test_device_that_sends_bytes_of_its_own_is_told_204(
    server: Server, request_line: bytes, line: bytes
) -> None:
    head = (
        b"\r\nHost: x\r\nConnection: close\r\nAuthorization: Token t\r\nContent-Length: %d\r\n\r\n"
    )
    status, answer = exchange(server, request_line + head % len(line) + line)
    assert status == 204, answer
    assert b"Content-Length: 0" not in answer or answer.endswith(b"\r\n\r\n")
    assert values(server, "SHOW MEASUREMENTS")


@pytest.mark.trap(8)
def test_database_is_created_by_get_as_rubys_client_does(server: Server) -> None:
    parameters = {"q": "CREATE DATABASE by_get", "u": "root", "p": "root"}
    answer = server.client.get("/query", params=parameters)
    assert answer.status_code == 200
    assert "error" not in answer.json()["results"][0]
    assert server.client.post("/write?db=by_get", content=b"m v=1\n").status_code == 204


@pytest.mark.trap(3)
def test_unknown_database_is_404_with_the_words_that_writers_look_for(server: Server) -> None:
    answer = server.client.post("/write?db=nowhere", content=b"m v=1\n")
    assert (answer.status_code, answer.text) == (
        404,
        '{"error":"database not found: \\"nowhere\\""}\n',
    )
    assert server.client.post("/api/v2/write?bucket=v2", content=b"m v=1\n").status_code == 204
    assert server.client.post("/api/v3/write_lp?db=v3", content=b"m v=1\n").status_code == 204
    [result] = server.query("SHOW DATABASES")
    names = {row[0] for row in result["series"][0]["values"]}  # type: ignore[index]  # JSON
    assert {"v2", "v3"} <= names
    assert "nowhere" not in names


@pytest.mark.trap(20)
def test_small_write_is_answered_while_a_long_one_is_read(server: Server) -> None:
    """Proxmox waits a second, Telegraf five, and both give up what was not answered by then."""
    junk = b"no line\n" * 600_000
    with ThreadPoolExecutor(1) as elsewhere:
        long = elsewhere.submit(httpx.post, f"{server.url}/write?db=t", content=junk, timeout=60)
        n_answered = 0
        while not long.done():
            line = b"system,object=nodes v=1 %d" % n_answered
            assert server.client.post("/write?db=t", content=line).status_code == 204
            n_answered += 1
        assert long.result().status_code == 400
    assert n_answered > 3
