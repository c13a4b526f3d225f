"""Every form of credentials: what it is taken for, and the exact words for what is refused."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from tests.conformance.auth.conftest import FORM, basic, token

if TYPE_CHECKING:
    from tests.conformance.auth.conftest import Server

pytestmark = pytest.mark.e2e

READER = [["t"]]  # what `SHOW DATABASES` lists for the reader
UNREADABLE = "unable to parse authentication credentials"
WRONG = "authorization failed"
NAMELESS = "username required"


def _header(value: str) -> dict[str, str]:
    return {"Authorization": value}


def _check(server: Server, parameters: dict[str, str], headers: dict[str, str], text: str) -> None:
    """Check a query and a write; without a text the credentials are the reader's."""
    url = "/query?" + urlencode(parameters | {"q": "SHOW DATABASES"})
    answer = server.client.request("GET", url, b"", headers)
    if text:
        assert (answer.status, json.loads(answer.body)) == (401, {"error": text})
    else:
        assert answer.status == 200
        assert json.loads(answer.body)["results"][0]["series"][0]["values"] == READER
    url = "/write?" + urlencode(parameters | {"db": "t"})
    answer = server.client.request("POST", url, b"m v=1", headers)
    refusal = '"reader" user is not authorized to write to database "t"'
    assert json.loads(answer.body) == {"error": text or refusal}
    assert answer.status == (401 if text else 403)


@pytest.mark.parametrize(
    ("parameters", "header", "text"),
    [
        pytest.param({}, {}, UNREADABLE, id="none"),
        pytest.param({"u": "reader", "p": "secret"}, {}, "", id="URL"),
        pytest.param({"u": "reader", "p": "wrong"}, {}, WRONG, id="URL, wrong password"),
        pytest.param({"u": "nobody", "p": "secret"}, {}, WRONG, id="URL, unknown user"),
        pytest.param({"u": "Reader", "p": "secret"}, {}, WRONG, id="URL, case of the name"),
        pytest.param({"u": "reader"}, {}, UNREADABLE, id="URL, no password"),
        pytest.param({"u": "reader", "p": ""}, {}, UNREADABLE, id="URL, empty password"),
        pytest.param({"p": "secret"}, {}, UNREADABLE, id="URL, no user"),
        pytest.param({"u": "", "p": ""}, {}, UNREADABLE, id="URL, both empty"),
        pytest.param({}, basic("reader:secret"), "", id="Basic"),
        pytest.param({}, basic("reader:wrong"), WRONG, id="Basic, wrong password"),
        pytest.param({}, basic("reader:"), WRONG, id="Basic, empty password"),
        pytest.param({}, basic("nobody:secret"), WRONG, id="Basic, unknown user"),
        pytest.param({}, basic(":secret"), NAMELESS, id="Basic, no user"),
        pytest.param({}, _header("Basic Og=="), NAMELESS, id="Basic, both empty"),
        pytest.param({}, basic("reader"), UNREADABLE, id="Basic, no colon"),
        pytest.param({}, _header("Basic !!"), UNREADABLE, id="Basic, not base64"),
        pytest.param({}, _header("Basic cmVhZGVyOnNlY3JldA"), UNREADABLE, id="Basic, no padding"),
        pytest.param({}, _header("Basic"), UNREADABLE, id="Basic, nothing"),
        pytest.param({}, _header("basic cmVhZGVyOnNlY3JldA=="), "", id="basic in lower case"),
        pytest.param({}, _header("Digest x"), UNREADABLE, id="another scheme"),
        pytest.param({}, _header(""), UNREADABLE, id="empty header"),
        pytest.param({}, _header("Bearer "), UNREADABLE, id="Bearer, nothing"),
        pytest.param({}, _header("Token"), UNREADABLE, id="Token, nothing"),
        pytest.param({}, _header("Token secret"), UNREADABLE, id="Token, no colon"),
        pytest.param({"u": "reader"}, basic("reader:secret"), "", id="half in the URL: the header"),
        pytest.param({"u": "", "p": ""}, basic("reader:secret"), "", id="empty URL: the header"),
        pytest.param(
            {"u": "reader", "p": "secret"}, basic("root:x"), "", id="the URL before the header"
        ),
        pytest.param(
            {"u": "reader", "p": "x"}, basic("reader:secret"), WRONG, id="wrong URL, right header"
        ),
        pytest.param(
            {"u": "reader", "p": "secret"}, _header("Bearer x"), "", id="the URL before Bearer"
        ),
    ],
)
def test_credentials_are_taken_or_refused(
    asked: Server, parameters: dict[str, str], header: dict[str, str], text: str
) -> None:
    _check(asked, parameters, header, text)


def _in(seconds: float) -> int:
    return int(time.time() + seconds)


SOON = 600


@pytest.mark.parametrize(
    ("jwt", "text"),
    [
        pytest.param(lambda: token({"username": "reader", "exp": _in(SOON)}), "", id="good"),
        pytest.param(
            lambda: token({"username": "reader", "exp": _in(SOON) + 0.5}), "", id="exp a fraction"
        ),
        pytest.param(
            lambda: token({"username": "reader", "exp": _in(-5)}),
            "Token is expired",
            id="expired",
        ),
        pytest.param(
            lambda: token({"username": "reader"}), "token expiration required", id="no exp"
        ),
        pytest.param(
            lambda: token({"username": "reader", "exp": "never"}),
            "token expiration required",
            id="exp is text",
        ),
        pytest.param(
            lambda: token({"username": "reader", "exp": _in(SOON), "nbf": _in(SOON)}),
            "Token is not valid yet",
            id="nbf ahead",
        ),
        pytest.param(
            lambda: token({"username": "reader", "exp": _in(SOON), "iat": _in(SOON)}),
            "Token used before issued",
            id="iat ahead",
        ),
        pytest.param(
            lambda: token({"exp": _in(SOON)}),
            "username in token must be a string",
            id="no username",
        ),
        pytest.param(
            lambda: token({"username": 5, "exp": _in(SOON)}),
            "username in token must be a string",
            id="username is a number",
        ),
        pytest.param(
            lambda: token({"username": "", "exp": _in(SOON)}),
            "token must contain a username",
            id="username empty",
        ),
        pytest.param(
            lambda: token({"username": "nobody", "exp": _in(SOON)}),
            "user not found",
            id="unknown user",
        ),
        pytest.param(
            lambda: token({"username": "reader", "exp": _in(SOON)}, secret="another"),
            "signature is invalid",
            id="another secret",
        ),
        pytest.param(
            lambda: token({"username": "reader", "exp": _in(SOON)}, secret=""),
            "signature is invalid",
            id="empty secret",
        ),
        pytest.param(
            lambda: token({"username": "reader", "exp": _in(SOON)}).rpartition(".")[0] + ".",
            "signature is invalid",
            id="signature cut off",
        ),
        pytest.param(
            lambda: token({"username": "reader", "exp": _in(SOON)}, {"alg": "none"}, digest=""),
            "unexpected signing method: none",
            id="algorithm none",
        ),
        pytest.param(
            lambda: token({"username": "reader", "exp": _in(SOON)}, {"alg": "RS256"}),
            "unexpected signing method: RS256",
            id="another algorithm",
        ),
        pytest.param(
            lambda: "abc", "token contains an invalid number of segments", id="one segment"
        ),
        pytest.param(
            lambda: "a.b", "token contains an invalid number of segments", id="two segments"
        ),
    ],
)
def test_token_is_taken_or_refused(asked: Server, jwt: object, text: str) -> None:
    assert callable(jwt)
    _check(asked, {}, _header(f"Bearer {jwt()}"), text)


@pytest.mark.parametrize("name", ["reader", "root"])
def test_credentials_in_a_form_are_none(asked: Server, name: str) -> None:
    form = urlencode({"q": "SHOW DATABASES", "u": name, "p": "secret"}).encode()
    answer = asked.client.request("POST", "/query", form, FORM)
    assert (answer.status, json.loads(answer.body)) == (401, {"error": UNREADABLE})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/ping", 204),
        ("HEAD", "/ping", 204),
        ("GET", "/status", 204),
        ("GET", "/debug/vars", 200),
        ("GET", "/metrics", 200),
        ("OPTIONS", "/query", 200),
        ("OPTIONS", "/write", 200),
        ("HEAD", "/query?q=SHOW+DATABASES", 405),
    ],
)
def test_path_needs_no_credentials(asked: Server, method: str, path: str, status: int) -> None:
    assert asked.client.request(method, path).status == status


@pytest.mark.parametrize(
    ("accept", "user", "body"),
    [
        ("text/csv", "", f"error\n{UNREADABLE}"),
        (
            "text/csv",
            "reader",
            'error\n"error authorizing query: reader not authorized to execute statement '
            "'SHOW USERS', requires admin privilege\"",
        ),
    ],
)
def test_refusal_comes_in_the_format_asked_for(
    asked: Server, accept: str, user: str, body: str
) -> None:
    answer = asked.query("SHOW USERS", user, headers={"Accept": accept})
    assert answer.body == body


def test_query_without_waiting_hears_of_a_refusal(asked: Server) -> None:
    for user, text, status in (
        ("reader", "SHOW USERS", 403),
        ("reader", "FOO", 400),
        ("root", "SHOW USERS", 204),
    ):
        parameters = {"q": text, "u": user, "p": "secret", "async": "true"}
        assert asked.client.request("GET", "/query?" + urlencode(parameters)).status == status


def test_missing_or_bad_statements_are_told_to_users_only(asked: Server) -> None:
    for text in ("", "FOO"):
        assert asked.query(text).status == 401
        assert asked.query(text, "reader").status == 400
