"""A hostile client: whatever it sends, an answer comes back, in time, and nothing is lost.

The server runs under a bound on its address space, so a request that would take all memory shows.
"""

from __future__ import annotations

import gzip
import http.client
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from tests.e2e.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

PATIENCE_S: Final = 20.0  # a hang is none of the machine's load; the claim is 5 s on a quiet one
ADDRESS_SPACE: Final = 1536 << 20
ROWS: Final = 2000
RANGE: Final = "WHERE time >= 0 AND time < 2000s"
HUGE: Final = 2**63 - 1
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


class Target:
    """The server under attack."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "server.log"
        command = [sys.executable, "-m", "gateway", "serve", "--port", "0"]
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, "--data", str(directory / "data"), "--body-timeout-s", "1"],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        resource.prlimit(self.process.pid, resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        assert self.process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        assert found, self.log.read_text()
        self.port = int(found[1])

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send a request and return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def query(self, text: str, **parameters: str) -> bytes:
        """Run statements; whatever they are, the answer is 200 or 400 and blames no defect."""
        body = urlencode({"q": text, "db": "t", **parameters}).encode()
        status, answer = self.ask("POST", "/query", body, FORM)
        assert status in {200, 400}, (text, answer)
        assert b"internal error" not in answer, text
        return answer

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are and return what comes back until the server closes or waits."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as stream:
            try:
                stream.sendall(request)
                stream.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: stream.recv(65536), b""))
            except ConnectionError:
                return b""

    def stop(self) -> int:
        """Stop the server and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with 2000 points in `m`; afterwards it still answers, has them, and stops."""
    server = Target(tmp_path_factory.mktemp("fuzz"))
    server.query("CREATE DATABASE t")
    lines = [
        f'm,host=h{i % 10},region=r{i % 3} f={i / 2},i={i}i,b={"tf"[i % 2]},s="x{i}" {i}000000000'
        for i in range(ROWS)
    ]
    assert server.ask("POST", "/write?db=t", "\n".join(lines).encode()) == (204, b"")
    yield server
    try:
        assert server.ask("GET", "/ping")[0] == 204
        assert b'"count"],"values":[[0,2000]]' in server.query("SELECT count(f) FROM m", epoch="ns")
    finally:
        code = server.stop()
    assert code == 0
    assert "Traceback" not in server.log.read_text(errors="replace")


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT * FROM m LIMIT {HUGE} OFFSET {HUGE} SLIMIT {HUGE} SOFFSET {HUGE}",
        "SELECT sum(f) FROM m WHERE time > '1920-01-01' AND time < '2020-01-01' GROUP BY time(1ns)",
        f"SELECT mean(f), max(i), first(s), count(b) FROM m {RANGE} GROUP BY time(10ms)",
        f"SELECT mean(f) FROM m {RANGE} GROUP BY time({HUGE}ns, -{HUGE}ns)",
        "SELECT f FROM m GROUP BY " + ",".join(f"t{i}" for i in range(50)),
        ";".join(["SELECT f FROM m LIMIT 1"] * 100),
        f"SELECT f FROM m WHERE host =~ /{'a' * 100_000}/",
        "SELECT f FROM m WHERE host =~ /((a{100}){100}){100}/",
        f"SELECT moving_average(f, {HUGE}) FROM m",
        f"SELECT sample(f, {HUGE}) FROM m",
        f"SELECT top(f, {HUGE}) FROM m",
        f"SELECT percentile(f, {'9' * 400}.0) FROM m",
        f"SELECT max(i) FROM m {RANGE} GROUP BY time(3s) fill({'9' * 30}.0)",
        f"SELECT i + {HUGE} FROM m",
        f"SELECT f FROM m WHERE i > {'9' * 5000}",
        f"SELECT f FROM m WHERE time > {'9' * 400}.0",
        f"SELECT f FROM m WHERE time > 1w * {HUGE} * {HUGE} * {HUGE}",
        "SELECT f FROM " + "(SELECT f FROM " * 100 + "m" + ")" * 100,
        "SELECT f FROM m WHERE " + "(" * 20_000 + "f > 1" + ")" * 20_000,
        "SELECT f FROM m WHERE " + " OR ".join(f"f = {i}" for i in range(500)),
        "SELECT " + "+".join(["f"] * 1000) + " FROM m",
        "SELECT f INTO m2 FROM m; SELECT f INTO m2 FROM m2",
        f"SELECT chande_momentum_oscillator(f, {HUGE}) FROM m",
        f"SELECT mean(f) FROM m {RANGE} GROUP BY time(1d) tz('../../etc/passwd')",
        f"SELECT f FROM m WHERE time NOT IN ({','.join(map(str, range(10_000)))})",
        f"DELETE FROM m WHERE time NOT IN ({','.join(map(str, range(10_000)))})",
        f"SELECT f FROM m WHERE i IN ({','.join(['9' * 20, '1e', '-0.5'] * 3000)})",
        f"SELECT f FROM m WHERE host LIKE '{'%_' * 20_000}'",
        "SELECT f FROM m WHERE " + "NOT " * 20_000 + "f > 1",
        f"SELECT f FROM m ORDER BY {','.join(['f DESC', 'time', 'f'] * 3000)} LIMIT 1",
        f"SELECT f FROM m HAVING {' OR '.join(f'f = {i}' for i in range(500))} LIMIT 1",
    ],
    ids=lambda text: text[:50],
)
def test_extreme_statement_is_answered_or_refused(target: Target, text: str) -> None:
    target.query(text)


def test_rows_that_do_not_fit_are_refused_with_the_reason(target: Target) -> None:
    """Sorting needs all rows at once; without it they are read while they are printed."""
    answer = target.query("SELECT " + ",".join(["f"] * 20_000) + " FROM m ORDER BY f")
    assert b"max-query-bytes limit exceeded: 2000 rows of 20000 columns" in answer


@pytest.mark.parametrize(
    "text", ["null", "[]", "{", "[" * 100_000, '{"x":1e400}', '{"x":{"a":1}}', '{"x":[1]}', "NaN"]
)
def test_any_parameters_are_read_or_refused(target: Target, text: str) -> None:
    target.query("SELECT f FROM m WHERE host = $x AND time > $x", params=text)


def test_line_of_control_characters_is_refused_and_not_dropped(target: Target) -> None:
    line = bytes(range(1, 32)) + b"\x7f"
    status, answer = target.ask("POST", "/write?db=t", line)
    assert status == 400
    assert b"unable to parse" in answer


def test_empty_gzip_members_are_read_in_linear_time(target: Target) -> None:
    started = time.monotonic()
    body = gzip.compress(b"") * 50_000
    status, _ = target.ask("POST", "/write?db=t", body, {"Content-Encoding": "gzip"})
    assert status in {204, 400}
    assert time.monotonic() - started < PATIENCE_S


def test_gzip_bomb_is_too_large(target: Target) -> None:
    body = gzip.compress(bytes(150_000_000), 1)
    status, _ = target.ask("POST", "/write?db=t", body, {"Content-Encoding": "gzip"})
    assert status == 413


def test_form_that_nests_is_no_query(target: Target) -> None:
    levels = [
        f"--x{i}\r\nContent-Type: multipart/mixed; boundary=x{i + 1}\r\n\r\n" for i in range(3000)
    ]
    kind = {"Content-Type": "multipart/form-data; boundary=x0"}
    status, answer = target.ask("POST", "/query", "".join(levels).encode(), kind)
    assert (status, answer) == (400, b'{"error":"missing required parameter \\"q\\""}\n')


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Content-Length: 7\r\nContent-Length: 8\r\n",
        b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xyz\r\n",
        b"Content-Encoding: gzip\r\nContent-Length: 7\r\n",
        b"Expect: 200-maybe\r\nContent-Length: 7\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 7\r\n",
        b"X-Request-Id: \xff\r\nOrigin: \xff\r\nAuthorization: \xff\r\nContent-Length: 7\r\n",
    ],
)
def test_odd_headers_get_an_answer_and_no_500(target: Target, head: bytes) -> None:
    answer = target.raw(b"POST /write?db=nowhere HTTP/1.1\r\nHost: x\r\n" + head + b"\r\nm f=1 1")
    assert not answer.startswith(b"HTTP/1.1 5")


# --- random ---------------------------------------------------------------------------------------
_WORDS: Final = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "LIMIT",
    "OFFSET",
    "SLIMIT",
    "ORDER",
    "DESC",
    "INTO",
    "fill",
    "linear",
    "previous",
    "none",
    "null",
    "time",
    "now",
    "m",
    "f",
    "i",
    "b",
    "s",
    "host",
    "region",
    "nothing",
    "*",
    "(",
    ")",
    ",",
    ";",
    "+",
    "-",
    "/",
    "%",
    "&",
    "|",
    "^",
    "=",
    "!=",
    "<",
    ">",
    "<=",
    ">=",
    "=~",
    "!~",
    "/h./",
    "'h1'",
    '"f"',
    "1",
    "0",
    "-1",
    "1.5",
    "9223372036854775807",
    "1s",
    "1w",
    "1ns",
    "AND",
    "OR",
    "NOT",
    "IN",
    "LIKE",
    "HAVING",
    "mean",
    "count",
    "distinct",
    "top",
    "percentile",
    "derivative",
    "moving_average",
    "sample",
    "integral",
    "stddev",
    "mode",
    "tz",
    "SHOW",
    "TAG",
    "VALUES",
    "KEYS",
    "KEY",
    "WITH",
    "FIELD",
    "SERIES",
    "MEASUREMENTS",
    "CARDINALITY",
    "EXACT",
    "ON",
    "t",
    "::",
    "float",
    "tag",
    "..",
    "true",
    "EXPLAIN",
    "ANALYZE",
    "$x",
]
_FIELDS: Final = st.lists(
    st.builds(
        "{}({})".format,
        st.sampled_from(
            [
                "mean",
                "count",
                "sum",
                "median",
                "mode",
                "spread",
                "stddev",
                "integral",
                "distinct",
                "first",
                "last",
                "min",
                "max",
                "abs",
                "percentile",
                "top",
                "bottom",
                "sample",
                "derivative",
                "difference",
                "cumulative_sum",
                "moving_average",
                "elapsed",
                "relative_strength_index",
                "kaufmans_adaptive_moving_average",
            ]
        ),
        st.sampled_from(
            ["f", "i", "s", "b", "*", "/f/", "f, 2", f"f, {HUGE}", "f, 1s", "mean(f)", "mean(f), 2"]
        ),
    )
    | st.sampled_from(
        ["f", "i", "s", "host", "time", "*", "f + i", "f / 0", "i % 0", "-i", "s + 1"]
    ),
    min_size=1,
    max_size=3,
).map(", ".join)
_SELECTS: Final = st.builds(
    "SELECT {} FROM {} {} {} {}".format,
    _FIELDS,
    st.sampled_from(
        ["m", "/.*/", "m, nothing", f"(SELECT mean(f) AS f FROM m {RANGE} GROUP BY *)"]
    ),
    st.sampled_from(
        [
            "",
            RANGE,
            f"{RANGE} AND f > 3 AND host !~ /h[1-5]/",
            "WHERE s = 1 OR b",
            "WHERE NOT (host IN ('h1', '') OR s LIKE '%a_' AND i NOT IN (1, 2.5, true))",
            "WHERE (time > 5 AND time < 9) OR NOT (time < 1000s AND host NOT LIKE 'h%')",
        ]
    ),
    st.sampled_from(
        ["", "GROUP BY *", "GROUP BY time(7s), host fill(linear)", "GROUP BY time(1m) fill(-1)"]
    ),
    st.sampled_from(
        [
            "",
            "ORDER BY time DESC LIMIT 2",
            f"LIMIT {HUGE}",
            "OFFSET 5 SLIMIT 1",
            "HAVING mean > 1 OR NOT f > i AND host LIKE 'h%'",
            "HAVING count IN (0, 1) ORDER BY count DESC, time SLIMIT 2",
            "ORDER BY f, host DESC LIMIT 3",
        ]
    ),
)
_TEXTS: Final = st.one_of(_SELECTS, st.lists(st.sampled_from(_WORDS), max_size=30).map(" ".join))


def _fuzz_statements(target: Target, n_examples: int) -> None:
    @settings(
        max_examples=n_examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(_TEXTS, st.sampled_from(["", "ns", "s", "x"]), st.sampled_from(["", "true"]))
    def run(text: str, epoch: str, chunked: str) -> None:
        target.query(text, epoch=epoch, chunked=chunked, chunk_size="7", params='{"x": 1}')

    run()


def test_random_statements_never_blame_the_server(target: Target) -> None:
    _fuzz_statements(target, 250)


@pytest.mark.slow
def test_many_random_statements_never_blame_the_server(target: Target) -> None:
    _fuzz_statements(target, 20_000)


_PATHS: Final = [
    "/ping",
    "/write",
    "/write?db=t",
    "/query",
    "/query?q=%ff",
    "/metrics",
    "/health",
    "/status",
    "/debug/vars",
    "/%00",
    "/%ff",
    "/api/v2/write?bucket=t",
    "/api/v2/delete?bucket=t",
    "/api/v2/buckets",
    "/api/v2/buckets/x",
    "//",
    "/ping/",
    "/api/v3/write_lp?db=t",
    "/api/v1/prom/write?db=t",
    "/api/v1/prom/read?db=t",
    "/api/v2/buckets/x/y",
    "/write?db=t&precision=%ff",
    "/query?q=1&q=2&db",
]


def test_random_requests_get_no_500(target: Target) -> None:
    source = random.Random(1)
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"]
    codings = ["", "gzip", "deflate", "snappy", "br", "identity"]
    kinds = [
        "",
        "application/json",
        "application/x-protobuf",
        "multipart/form-data",
        FORM["Content-Type"],
    ]
    for _ in range(300):
        headers = {"Content-Encoding": source.choice(codings), "Content-Type": source.choice(kinds)}
        path, body = source.choice(_PATHS), source.randbytes(source.choice([0, 3, 200]))
        status, answer = target.ask(source.choice(methods), path, body, headers)
        assert status in {*range(200, 500), 501, 503}, (path, answer)


_POST: Final = b"POST /write?db=t HTTP/1.1\r\nHost: x\r\n"
_BROKEN: Final = [
    b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /query?q=SELECT%20*%20FROM%20m&db=t HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
    b"GET /query?q=" + b"A" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /ping HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    _POST + b"Content-Length: 1000000\r\n\r\nm v=1 1\n",
    _POST + b"Content-Length: 8\r\nContent-Length: 9\r\n\r\nm v=1 1\n",
    _POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nm v=1\r\n",
    b"POST /write?db=t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"F" * 17
    + b"\r\n",
    b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /write HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"X" * 100_000,
    b"\r\n\r\n\r\n",
]
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


def test_storm_of_broken_connections_leaves_the_server_well(target: Target) -> None:
    """Requests cut anywhere, no requests at all, connections left open, closed or reset."""
    source = random.Random(2)
    left_open = []
    for _ in range(300):
        data = source.choice(_BROKEN)
        if source.random() < 0.3:
            data = data[: source.randint(1, len(data))]
        elif source.random() < 0.1:
            data = source.randbytes(source.randint(1, 3000))
        connection = socket.create_connection(("127.0.0.1", target.port), timeout=PATIENCE_S)
        with suppress(OSError):  # refused in the middle
            connection.sendall(data)
        end = source.random()
        if end < 0.3:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if end < 0.7:
            connection.close()
        else:
            left_open.append(connection)
    status, _ = target.ask("GET", "/ping")
    assert status == 204
    for connection in left_open:
        connection.close()
    assert "Traceback" not in target.log.read_text()
