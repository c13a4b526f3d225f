"""Two servers with authentication and the same users: ours, and a live influxd if there is one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from tests.conformance.auth.rights import FIRST, SETUP
from tests.conformance.replay import Client
from tests.gateway_process import running_gateway
from tests.oracle import influxd_path, running_influxd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.cases import Answer

SECRET = "shared between server and issuer"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
FLAGS = ("--auth-enabled", "true", "--jwt-secret", SECRET, "--failed-login-delay-s", "0")
HTTP = f'  auth-enabled = true\n  shared-secret = "{SECRET}"'


@dataclass(slots=True)
class Server:
    """A server, asked as somebody.

    Attributes:
        name: `ours` or `influxd`.
        client: Its connection.
    """

    name: str
    client: Client

    def query(
        self,
        text: str,
        user: str = "",
        *,
        password: str = "secret",
        headers: dict[str, str] | None = None,
        **parameters: str,
    ) -> Answer:
        """Send statements by POST, with a user's credentials in the URL."""
        url = "/query?" + urlencode(parameters | _credentials(user, password))
        form = urlencode({"q": text}).encode()
        return self.client.request("POST", url, form, FORM | (headers or {}))

    def write(
        self,
        line: str,
        user: str = "",
        *,
        password: str = "secret",
        headers: dict[str, str] | None = None,
        **parameters: str,
    ) -> Answer:
        """Send line protocol, with a user's credentials in the URL."""
        url = "/write?" + urlencode(parameters | _credentials(user, password))
        return self.client.request("POST", url, line.encode(), headers)

    def set_up(self) -> None:
        """Make the users and databases of the table."""
        for text in (FIRST, *SETUP):
            answer = self.query(text, "root")
            assert (answer.status, "error" in answer.body) == (200, False), (text, answer)
        for database in ("t", "t2"):
            assert self.write("m,host=a v=1 1", "root", db=database).status == 204


def _credentials(user: str, password: str) -> dict[str, str]:
    return {"u": user, "p": password} if user else {}


def basic(text: str) -> dict[str, str]:
    """Return the header of Basic credentials."""
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def token(
    claims: dict[str, object],
    header: dict[str, object] | None = None,
    secret: str = SECRET,
    digest: str = "sha256",
) -> str:
    """Return a signed token, made without the code under test; no digest leaves it unsigned."""
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    text = ".".join(_segment(json.dumps(part).encode()) for part in (head, claims))
    if not digest:
        return text + "."
    signature = hmac.new(secret.encode(), text.encode(), getattr(hashlib, digest)).digest()
    return f"{text}.{_segment(signature)}"


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def _running(name: str, directories: pytest.TempPathFactory) -> Iterator[Server]:
    if name == "influxd" and influxd_path() is None:
        pytest.skip("influxd is not installed (Debian package influxdb)")
    directory = directories.mktemp(name)
    running = (
        running_gateway(directory, *FLAGS)
        if name == "ours"
        else running_influxd(directory, http=HTTP)
    )
    with running as (url, _), Client(url) as client:
        yield Server(name, client)


SERVERS = ["ours", pytest.param("influxd", marks=pytest.mark.influxd)]


@pytest.fixture(scope="session", params=SERVERS)
def asked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Give each server with the users of the table."""
    with _running(request.param, tmp_path_factory) as server:
        server.set_up()
        yield server


@pytest.fixture(params=SERVERS)
def empty(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Give each server without any user."""
    with _running(request.param, tmp_path_factory) as server:
        yield server
