"""The shell of InfluxDB 1.x, Debian's `influx`: statements, sessions at a terminal, imports."""

from __future__ import annotations

import gzip
import os
import pty
import select
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import PATIENCE_S, Server, values

if TYPE_CHECKING:
    from pathlib import Path

INFLUX = shutil.which("influx")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.skipif(
        INFLUX is None, reason="the influx shell is not installed (Debian package influxdb-client)"
    ),
]


@pytest.fixture
def server(process: Server) -> Server:
    """A server that has the empty database `t`; the process is shared."""
    process.query('DROP DATABASE t; DROP DATABASE new; DROP DATABASE "a b"; CREATE DATABASE t')
    return process


def influx(server: Server, *arguments: str, text: str = "") -> str:
    """Run the shell and return what it prints."""
    assert INFLUX is not None
    host, port = server.address
    done = subprocess.run(
        [INFLUX, "-host", host, "-port", str(port), *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_influx_shell_executes_and_prints_tables(server: Server) -> None:
    server.client.post("/write?db=t", content=b"m,host=a v=1.5 1\nm,host=b v=2 2\n")
    printed = influx(server, "-database", "t", "-execute", "SELECT * FROM m")
    assert [line.split() for line in printed.splitlines()] == [
        ["name:", "m"],
        ["time", "host", "v"],
        ["----", "----", "-"],
        ["1", "a", "1.5"],
        ["2", "b", "2"],
    ]
    printed = influx(server, "-database", "t", "-format", "csv", "-execute", "SELECT v FROM m")
    assert printed.splitlines() == ["name,time,v", "m,1,1.5", "m,2,2"]


def test_influx_shell_inserts_and_reads_statements_from_a_pipe(server: Server) -> None:
    for statement in (
        "CREATE DATABASE new",
        "INSERT m,host=a v=1 1",
        "INSERT INTO autogen m v=2 2",
    ):
        assert influx(server, "-database", "t", "-execute", statement).strip() == ""
    assert values(server, "SELECT v FROM m") == [[1, 1], [2, 2]]
    assert "new" in influx(server, "-execute", "SHOW DATABASES")
    assert "2" in influx(server, "-database", "t", text="SELECT count(v) FROM m")


@pytest.mark.parametrize("is_compressed", [False, True], ids=["plain", "gzip"])
def test_influx_imports_a_dump(server: Server, tmp_path: Path, *, is_compressed: bool) -> None:
    lines = [f"m,host=h{i % 7} v={i}i {1_700_000_000 + i}" for i in range(12_000)]
    head = ["# DDL", "CREATE DATABASE new", "", "# DML", "# CONTEXT-DATABASE: new"]
    head.append("# CONTEXT-RETENTION-POLICY: autogen")
    text = "\n".join([*head, *lines]) + "\n"
    dump = tmp_path / "dump"
    dump.write_bytes(gzip.compress(text.encode()) if is_compressed else text.encode())
    arguments = ["-import", "-path", str(dump), "-precision", "s"]
    printed = influx(server, *arguments, *(["-compressed"] if is_compressed else []))
    assert "Processed 12000 inserts" in printed
    assert "Failed 0 inserts" in printed
    assert values(server, "SELECT count(v), sum(v) FROM m", "new") == [[0, 12_000, 11_999 * 6000]]


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (
            ["-format", "json"],
            '{"results":[{"series":[{"name":"m","columns":["time","s","v"],"values":'
            '[[1000000000,"a, \\"b\\"",1.5],[2000000000,null,2]]}]}]}\n',
        ),
        (
            ["-format", "csv", "-precision", "rfc3339"],
            'name,time,s,v\nm,1970-01-01T00:00:01Z,"a, ""b""",1.5\nm,1970-01-01T00:00:02Z,,2\n',
        ),
        (
            ["-format", "column", "-precision", "s"],
            'name: m\ntime s      v\n---- -      -\n1    a, "b" 1.5\n2           2\n',
        ),
    ],
    ids=["json", "csv", "column"],
)
def test_influx_shell_prints_in_each_format(
    server: Server, arguments: list[str], printed: str
) -> None:
    """What it prints here it prints of influxd 1.6.7."""
    server.client.post("/write?db=t&precision=s", content=b'm s="a, \\"b\\"",v=1.5 1\nm v=2 2\n')
    assert influx(server, "-database", "t", *arguments, "-execute", "SELECT * FROM m") == printed


def session(server: Server, *lines: str) -> str:
    """Type lines at a terminal, each when the prompt is there; return what the shell printed."""
    assert INFLUX is not None
    host, port = server.address
    terminal, end = pty.openpty()
    shell = subprocess.Popen(
        [INFLUX, "-host", host, "-port", str(port)],
        stdin=end,
        stdout=end,
        stderr=end,
        env={**os.environ, "TERM": "dumb", "HOME": str(server.data)},
    )
    os.close(end)
    printed = b""
    deadline = time.monotonic() + PATIENCE_S
    try:
        for line in [*lines, "exit"]:
            while not printed.endswith(b"> "):
                assert time.monotonic() < deadline, printed
                if select.select([terminal], [], [], 0.1)[0]:
                    printed += os.read(terminal, 65536)
            os.write(terminal, line.encode() + b"\n")
            printed += b"\n"
        shell.wait(PATIENCE_S)
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)
    return printed.decode().replace("\r", "")


def test_influx_shell_at_a_terminal_uses_a_policy_and_inserts(server: Server) -> None:
    server.query('CREATE RETENTION POLICY "long" ON t DURATION INF REPLICATION 1')
    printed = session(
        server,
        "use t.long",
        "insert m,host=a v=1.5 1",
        "insert into autogen n v=1 1",
        "insert bad",
        "select * from m",
        "precision rfc3339",
        "select v from m",
        "use nowhere",
        "show measurements",
    )
    assert "Connected to " in printed
    assert "version 1.12.4" in printed
    assert "Using database t\nUsing retention policy long\n" in printed
    assert 'ERR: {"error":"unable to parse \'bad\': missing fields"}' in printed
    assert "time host v\n---- ---- -\n1    a    1.5\n" in printed
    assert "1970-01-01T00:00:00.000000001Z 1.5\n" in printed
    assert "ERR: Database nowhere doesn't exist." in printed
    assert "name: measurements\nname\n----\nm\nn\n" in printed
    assert values(server, 'SELECT v FROM t."long".m') == [[1, 1.5]]
    assert values(server, "SELECT v FROM t.autogen.n") == [[1, 1]]


def test_influx_imports_what_influx_inspect_exports(server: Server, tmp_path: Path) -> None:
    """It names each field by itself, one after another, and a database by what it is called."""
    dump = tmp_path / "dump"
    text = """# INFLUXDB EXPORT: 1677-09-21T00:12:43Z - 2262-04-11T23:47:16Z
# DDL
CREATE DATABASE new WITH NAME autogen
CREATE DATABASE "a b" WITH NAME "long term"
# DML
# CONTEXT-DATABASE:new
# CONTEXT-RETENTION-POLICY:autogen
# writing tsm data
m\\ x,h=a\\,b v=1.5 1
m\\ x,h=a\\,b v=2.5 2
m\\ x,h=a\\,b s="say \\"x\\"" 1
m\\ x,h=a\\,b n=-9223372036854775808i 2
# writing wal data
m\\ x,h=a\\,b b=true 2
# CONTEXT-DATABASE:a b
# CONTEXT-RETENTION-POLICY:long term
# writing tsm data
k v=1 1
"""
    dump.write_text(text)
    printed = influx(server, "-import", "-path", str(dump))
    assert "Processed 2 commands" in printed
    assert "Processed 6 inserts" in printed
    assert values(server, 'SELECT * FROM "m x"', "new") == [
        [1, None, "a,b", None, 'say "x"', 1.5],
        [2, True, "a,b", -(2**63), None, 2.5],
    ]
    assert values(server, 'SELECT v FROM "long term".k', "a b") == [[1, 1]]
