"""The client libraries of node: npm's `influx` and `@influxdata/influxdb-client`.

They are installed from npm for the session, so the tests skip where that cannot be.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

SCRIPT = Path(__file__).with_name("node_clients.js")
PACKAGES = ["influx@5.12.0", "@influxdata/influxdb-client@1.35.0"]
PATIENCE_S = 120
INSTALL_S = 60  # the registry may be far away; the gate has ten minutes for everything


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which npm put the packages."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    directory = tmp_path_factory.mktemp("node")
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(directory), *PACKAGES]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {PACKAGES} in {INSTALL_S} s")
    if done.returncode:
        pytest.skip(f"npm cannot install {PACKAGES}: {done.stderr[-200:]}")
    return directory / "node_modules"


def test_node_clients_write_read_and_administer(server: Server, packages: Path) -> None:
    """What `influx` found here is what it found on influxd 1.6.7."""
    host, port = server.address
    done = subprocess.run(
        ["node", str(SCRIPT), host, str(port)],
        env={**os.environ, "NODE_PATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = 'say "hi"\nthere'
    assert json.loads(done.stdout) == {
        "ping": [True],
        "databases": ["t"],
        "rows": [
            {
                "time": f"170000000000{n}000000",
                "b": n % 2 == 0,
                "f": n + 0.5,
                "host": "a,b =c",
                "i": n,
                "s": text,
            }
            for n in (3, 2)
        ],
        "groups": [["a,b =c", 2.5]],
        "measurements": ["m"],
        "series": ["m,host=a\\,b\\ \\=c"],
        "counted": [3],
        "queryRefusal": "A 400 Bad Request error occurred: "
        '{"error":"error parsing query: found EOF, expected identifier at line 1, char 21"}\n',
        "writeRefusal": "A 404 Not Found error occurred: "
        '{"error":"database not found: \\"nowhere\\""}\n',
        "policies": [["autogen", "0s"], ["p", "1h0m0s"]],
        "left": [],
    }
    [result] = server.query("SELECT count(i), sum(i) FROM v2", db="t")
    assert result["series"] == [
        {
            "name": "v2",
            "columns": ["time", "count", "sum"],
            "values": [["1970-01-01T00:00:00Z", 1000, 499_500]],
        }
    ]
