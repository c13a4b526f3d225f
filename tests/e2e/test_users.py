"""A server process with authentication: restarts, connections, its log."""

from __future__ import annotations

import http.client
import json
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2 as httpx

    from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e

ROOT = ("root", "hush-root")
ANN = ("ann", "hush-ann")
SECRET = "hush-shared"
FLAGS = ("--auth-enabled", "--log-level", "debug", "--jwt-secret", SECRET)
SETUP = (
    "CREATE USER root WITH PASSWORD 'hush-root' WITH ALL PRIVILEGES; CREATE DATABASE t; "
    "CREATE USER ann WITH PASSWORD 'hush-ann'; GRANT WRITE ON t TO ann"
)


def _write(server: Server, auth: tuple[str, str] | None, line: str = "m v=1 1") -> httpx.Response:
    if auth is None:
        return server.client.post("/write", params={"db": "t"}, content=line)
    return server.client.post("/write", params={"db": "t"}, content=line, auth=auth)


def test_users_and_rights_outlive_the_server(start: Callable[..., Server]) -> None:
    server = start(*FLAGS)
    server.query(SETUP)
    assert _write(server, ANN).status_code == 204
    assert server.stop() == 0
    mode = (server.data / "catalog.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600

    server = start(*FLAGS)
    assert _write(server, ANN, "m v=2 2").status_code == 204
    assert _write(server, ("ann", "hush")).status_code == 401
    assert _write(server, None).status_code == 401
    query = {"q": "SELECT v FROM m", "db": "t", "epoch": "ns"}
    assert server.client.get("/query", params=query, auth=ANN).status_code == 403
    found = server.client.get("/query", params=query, auth=ROOT).json()
    assert found["results"][0]["series"][0]["values"] == [[1, 1], [2, 2]]
    counters = server.client.get("/debug/vars").text
    assert "[REDACTED]" in counters
    assert "hush" not in counters + server.log


def test_authentication_can_be_switched_on_and_off(start: Callable[..., Server]) -> None:
    server = start()
    server.query("CREATE DATABASE t")
    assert _write(server, ANN).status_code == 204
    server.stop()
    server = start(*FLAGS)
    refused = server.client.post("/query", data={"q": "SHOW DATABASES"})
    assert refused.status_code == 403
    assert "create admin user first" in refused.json()["error"]
    refused = _write(server, ANN)
    assert (refused.status_code, refused.json()) == (
        403,
        {"error": 'user is required to write to database "t"'},
    )
    server.query(SETUP)
    server.stop()
    server = start()
    assert _write(server, None).status_code == 204
    [users] = server.query("SHOW USERS")
    assert '["root", true], ["ann", false]' in json.dumps(users)


def test_connection_goes_on_after_a_refused_body(start: Callable[..., Server]) -> None:
    server = start(*FLAGS)
    server.query(SETUP)
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    body = b"m v=1\n" * 100_000
    for _ in range(3):
        connection.request("POST", "/write?db=t", body)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]) == (
            401,
            "unable to parse authentication credentials",
        )
    good = urlencode({"db": "t", "u": ANN[0], "p": ANN[1]})
    connection.request("POST", f"/write?{good}", body)
    assert connection.getresponse().status == 204
    connection.close()


def test_many_first_requests_at_once_are_all_let_in(start: Callable[..., Server]) -> None:
    server = start(*FLAGS)
    server.query(SETUP)
    server.stop()
    server = start(*FLAGS)  # nobody is known yet
    with ThreadPoolExecutor(20) as pool:
        answers = pool.map(lambda n: _write(server, ANN, f"m v={n} {n}"), range(60))
        assert {answer.status_code for answer in answers} == {204}


def test_guessing_is_slow_and_others_are_served_meanwhile(start: Callable[..., Server]) -> None:
    server = start(*FLAGS, "--failed-login-delay-s", "1.0")
    server.query(SETUP)
    assert _write(server, ANN).status_code == 204
    with ThreadPoolExecutor(20) as pool:
        started = time.monotonic()
        guesses = [pool.submit(_write, server, ("ann", f"guess-{n}")) for n in range(20)]
        served = 0
        while not any(guess.done() for guess in guesses):
            assert _write(server, ANN).status_code == 204
            served += 1
        assert {guess.result().status_code for guess in guesses} == {401}
        assert time.monotonic() - started >= 1.0
    assert served > 5
