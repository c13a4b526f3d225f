"""What real clients send: Telegraf, Grafana, icinga2, collectd, many at once."""

from __future__ import annotations

import gzip
import http.client
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import Server, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

START_S = 1_700_000_000


@pytest.fixture
def server(process: Server) -> Server:
    """A server that has the empty database `t`; the process is shared."""
    process.query("DROP DATABASE t; CREATE DATABASE t")
    return process


def telegraf_lines(n_hosts: int, n_times: int) -> list[str]:
    """Return what Telegraf's cpu, mem, disk, net and system inputs gather, every 10 s."""
    lines = []
    for i in range(n_times):
        for host in range(n_hosts):
            tags, ns = f"host=web{host:02}", (START_S + 10 * i) * 1_000_000_000
            lines += [
                f"cpu,cpu=cpu-total,{tags} usage_user={i}.5,usage_system={host}.25,idle=9 {ns}",
                f"mem,{tags} used={i * 1000}i,free={2**40 + i}i,used_percent={i / 7!r} {ns}",
                f"disk,device=sda1,{tags},mode=rw,path=/var/lib/my\\ data used={i}i,free=7i {ns}",
                f"net,{tags},interface=eth0 bytes_sent={i * 10}i,bytes_recv={i * 20}i {ns}",
                f'system,{tags} uptime_format="{i} days, \\"ok\\"",load1=0.5,n_users=1i {ns}',
            ]
    return lines


@pytest.mark.trap(4)
def test_telegraf_creates_its_database_and_writes_gzip_in_chunks(server: Server) -> None:
    lines = telegraf_lines(n_hosts=4, n_times=50)
    assert len(lines) == 1000
    packed = gzip.compress("".join(line + "\n" for line in lines).encode())

    refused = server.client.post("/write?db=telegraf", content=packed)
    assert refused.status_code == 404
    assert refused.json() == {"error": 'database not found: "telegraf"'}
    created = server.client.post("/query", data={"q": 'CREATE DATABASE "telegraf"'})
    assert created.json() == {"results": [{"statement_id": 0}]}

    def chunks() -> Iterator[bytes]:
        for position in range(0, len(packed), 1000):
            yield packed[position : position + 1000]

    headers = {"content-type": "text/plain; charset=utf-8", "content-encoding": "gzip"}
    stored = server.client.post("/write?db=telegraf", content=chunks(), headers=headers)
    assert (stored.status_code, stored.content) == (204, b"")

    results = server.query(
        "SELECT count(*) FROM cpu; SELECT sum(used), last(free) FROM mem; "
        "SELECT path, used FROM disk WHERE host = 'web03' ORDER BY time DESC LIMIT 1; "
        "SELECT last(uptime_format) FROM system; SHOW FIELD KEYS FROM mem",
        db="telegraf",
        epoch="s",
    )
    last_s = START_S + 490
    assert [result["series"][0]["values"] for result in results] == [  # type: ignore[index]
        [[0, 200, 200, 200]],
        [[0, 4 * 1000 * 1225, 2**40 + 49]],
        [[last_s, "/var/lib/my data", 49]],
        [[last_s, '49 days, "ok"']],
        [["free", "integer"], ["used", "integer"], ["used_percent", "float"]],
    ]


def test_grafana_panel_gets_the_numbers_computed_by_hand(server: Server) -> None:
    values = {0: 1.0, 10: 2.0, 20: 6.0, 40: 10.0, 70: 8.0}  # s -> usage
    lines = [f"cpu,host=a usage={value} {START_S + s}" for s, value in values.items()]
    lines += [f"cpu,host=b usage=100 {START_S}", f"cpu,host=c usage=0.125 {START_S + 15}"]
    body = "\n".join(lines).encode()
    assert server.client.post("/write?db=t&precision=s", content=body).status_code == 204
    start_ms, end_ms = START_S * 1000, (START_S + 90) * 1000
    response = server.client.get(
        "/query",
        params={
            "db": "t",
            "epoch": "ms",
            "q": 'SELECT mean("usage") FROM "cpu" WHERE ("host" =~ /^(a|c)$/) AND '
            f"time >= {start_ms}ms and time <= {end_ms}ms "
            'GROUP BY time(20s), "host" fill(null) ORDER BY time ASC',
        },
        headers={"user-agent": "Grafana/12.3.0", "x-panel-id": "2", "authorization": "Basic Og=="},
    )
    assert response.status_code == 200
    windows = range(start_ms, end_ms + 1, 20_000)
    by_hand = {  # [0,20): 1 2  [20,40): 6  [40,60): 10  [60,80): 8
        "a": [1.5, 6, 10, 8, None],
        "c": [0.125, None, None, None, None],
    }
    assert response.json() == {
        "results": [
            {
                "statement_id": 0,
                "series": [
                    {
                        "name": "cpu",
                        "tags": {"host": host},
                        "columns": ["time", "mean"],
                        "values": [list(row) for row in zip(windows, means, strict=True)],
                    }
                    for host, means in by_hand.items()
                ],
            }
        ]
    }


def exchange(server: Server, request: bytes) -> bytes:
    """Send bytes, then read until the server closes the connection."""
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_collectd_writes_by_udp_in_milliseconds(start: Callable[..., Server]) -> None:
    """What its write_influxdb_udp plugin sends: several lines a datagram, times in ms."""
    server = start(
        *("--udp-port", "0", "--udp-database", "collectd", "--udp-precision", "ms"),
        *("--udp-batch-ms", "10", "--log-level", "info"),
    )
    until(lambda: "udp listening" in server.log, "no word of UDP")
    found = re.search(r"udp listening address=127\.0\.0\.1:(\d+) ", server.log)
    assert found
    lines = (
        "load,host=web01,type=load shortterm=0.12,midterm=0.34,longterm=0.5 1700000000123\n"
        "interface,host=web01,instance=eth0,type=if_octets rx=1200i,tx=3400i 1700000000123\n"
        "memory,host=web01,type=memory,type_instance=free value=1.048576e+06 1700000000123\n"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(lines.encode(), (server.address[0], int(found[1])))
    until(lambda: "series" in server.query("SELECT * FROM memory", db="collectd")[0], "no point")
    text = "SELECT * FROM load; SELECT * FROM interface; SELECT * FROM memory"
    results = server.query(text, db="collectd", epoch="ms")
    ms = 1_700_000_000_123
    assert [result["series"][0]["values"] for result in results] == [  # type: ignore[index]
        [[ms, "web01", 0.5, 0.34, 0.12, "load"]],
        [[ms, "web01", "eth0", 1200, 3400, "if_octets"]],
        [[ms, "web01", "memory", "free", 1_048_576]],
    ]


@pytest.mark.trap(10)
def test_icinga_writes_by_http_1_0_without_a_content_type(server: Server) -> None:
    body = b"ping4,hostname=h rta=0.5,state=0i 1700000000\n"
    head = b"POST /write?precision=s&db=t HTTP/1.0\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    answer = exchange(server, head + body)
    assert answer.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert server.query("SELECT rta FROM ping4", db="t", epoch="s")[0]["series"] == [
        {"name": "ping4", "columns": ["time", "rta"], "values": [[1_700_000_000, 0.5]]}
    ]


def test_pipelined_requests_are_answered_in_order_on_one_connection(server: Server) -> None:
    write = b"POST /write?db=t HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nm v=1 %d\n"
    ping = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    query = b"GET /query?db=t&q=SHOW+MEASUREMENTS HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = exchange(server, write % 1 + ping + write % 2 + ping + query)
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"204", b"204", b"204", b"204", b"200"]
    assert b'"values":[["m"]]' in answer


def test_expect_100_continue_is_answered_before_the_body(server: Server) -> None:
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(
            b"POST /write?db=t HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(b"m v=1 1\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 204 ")


def test_body_over_the_limit_gets_its_413_and_the_connection_lives_on(server: Server) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.request("POST", "/write?db=t", b"x" * 26_000_000)
    response = connection.getresponse()
    assert (response.status, response.read()) == (413, b'{"error":"Request Entity Too Large"}\n')
    connection.request("GET", "/ping")
    assert connection.getresponse().status == 204
    connection.close()


def test_write_cut_short_by_its_client_stores_nothing(server: Server) -> None:
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(
            b"POST /write?db=t HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nm v=1 1\n"
        )
    assert server.client.post("/write?db=t", content=b"other v=1 1\n").status_code == 204
    assert server.query("SHOW MEASUREMENTS", db="t")[0]["series"] == [
        {"name": "measurements", "columns": ["name"], "values": [["other"]]}
    ]
    assert server.log == ""


def test_fifty_clients_at_once_lose_no_point(server: Server) -> None:
    def client(number: int) -> int:
        connection = http.client.HTTPConnection(*server.address, timeout=60)
        statuses = set()
        for i in range(20):
            body = "".join(f"m,client=c{number} v={i}i {i * 10 + k}\n" for k in range(10))
            for method, path in (
                ("POST", "/write?db=t"),
                ("GET", "/query?db=t&q=SELECT+count(v)+FROM+m"),
            ):
                connection.request(method, path, body)
                response = connection.getresponse()
                response.read()
                statuses.add(response.status)
        connection.close()
        return 1 if statuses == {204, 200} else 0

    with ThreadPoolExecutor(50) as clients:
        assert sum(clients.map(client, range(50))) == 50
    [result] = server.query("SELECT count(v) FROM m GROUP BY client", db="t", epoch="s")
    counts = [series["values"] for series in result["series"]]  # type: ignore[attr-defined]
    assert counts == [[[0, 200]]] * 50


@pytest.mark.trap(14)
def test_every_answer_has_influxds_headers_and_json(server: Server) -> None:
    for method, path in (
        ("GET", "/ping"),
        ("GET", "/nowhere"),
        ("PUT", "/query"),
        ("GET", "/query?q=FOO"),
        ("POST", "/write"),
        ("GET", "/health"),
    ):
        response = server.client.request(method, path, headers={"x-request-id": "me-7"})
        assert response.headers["x-influxdb-version"] == "1.12.4"
        assert response.headers["x-influxdb-build"] == "OSS"
        assert response.headers["request-id"] == response.headers["x-request-id"] == "me-7"
        assert "date" in response.headers
        assert response.headers["content-type"] == "application/json"
        if response.status_code >= 400:
            assert response.headers["x-influxdb-error"] == response.json()["error"]


def test_body_that_does_not_come_answers_408(tmp_path: Path) -> None:
    impatient = Server(tmp_path / "data", tmp_path / "server.log", "--body-timeout-s", "0.1")
    impatient.query("CREATE DATABASE t")
    for path in (b"/write?db=t", b"/query"):
        request = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nm v=1" % path
        with socket.create_connection(impatient.address, timeout=30) as connection:
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
    assert impatient.stop() == 0
