"""Logins: what is hashed and what is known, how refusals are slowed, what nobody gets to read."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from gateway import auth
from gateway.app import Edge, create_app
from gateway.auth import MAX_HASHED_OF_A_USER, Authentication
from gateway.catalog import Catalog
from gateway.config import Settings, public_arguments
from gateway.errors import InfluxError, Overloaded, Unauthorized
from gateway.statements.server import show_queries
from gateway.users import EVERYBODY, Access, User
from grammar import ast, parser

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from starlette.types import Scope

    from gateway.session import Session

PATIENCE_S = 30.0
DELAY_S = 0.2
_T = TypeVar("_T")


def hash_of(password: str) -> str:
    """A cheap hash: these tests are not about its cost."""
    salt = password.encode()[::-1]
    derived = hashlib.scrypt(password.encode(), salt=salt, n=2, r=8, p=1, dklen=32)
    texts = (base64.b64encode(data).decode().rstrip("=") for data in (salt, derived))
    return "$scrypt$ln=1,r=8,p=1$" + "$".join(texts)


def scope(user: str = "", password: str = "", header: str = "") -> Scope:
    """The part of a request that credentials are in."""
    query = f"u={user}&p={password}" if user else ""
    headers = [(b"authorization", header.encode())] if header else []
    return {"query_string": query.encode(), "headers": headers}


def run(*coroutines: Coroutine[object, object, _T]) -> list[_T | BaseException]:
    """Run all at once on a new event loop; what one raises is its result."""

    async def together() -> list[_T | BaseException]:
        return await asyncio.gather(*coroutines, return_exceptions=True)

    return asyncio.run(asyncio.wait_for(together(), PATIENCE_S))


def texts(results: list[User | BaseException | None]) -> list[str]:
    return [
        result.text if isinstance(result, InfluxError) else getattr(result, "name", "?")
        for result in results
    ]


class Hashing:
    """Stands in for scrypt: counts, and holds every hashing until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def is_password(self, password: str, password_hash: str) -> bool:
        self.asked.append(password)
        assert self.gate.wait(PATIENCE_S)
        return password_hash == hash_of(password)


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Hashing:
    counted = Hashing()
    monkeypatch.setattr(auth, "is_password", counted.is_password)
    return counted


@pytest.fixture
def users() -> Iterator[Catalog]:
    catalog = Catalog(None, Settings())
    names = {"root": True, "ann": False, "bob": False}
    people = {name: User(name, hash_of(f"of-{name}"), admin) for name, admin in names.items()}
    catalog.change_users(lambda _: people)
    yield catalog
    catalog.close()


@pytest.fixture
def login(users: Catalog) -> Iterator[Authentication]:
    settings = Settings(auth_enabled=True, failed_login_delay_s=DELAY_S)
    authentication = Authentication(users, settings)
    yield authentication
    authentication.close()


def change_password(catalog: Catalog, name: str, password: str) -> None:
    changed = User(name, hash_of(password))
    catalog.change_users(lambda users: {**users, name: changed})


# --- without authentication -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "header", ["", "Basic Og==", "Basic !!", "Basic", "Bearer x", "Token ", "Nonsense", "Basic ÿ"]
)
def test_credentials_are_not_looked_at_without_authentication(header: str) -> None:
    with TestClient(create_app(Settings(), in_memory=True)) as client:
        headers = {b"authorization": header.encode("latin-1")}
        for query in ("", "&u=root&p=root", "&u=&p=", "&u=x"):
            answer = client.post(f"/query?q=CREATE+DATABASE+t{query}", headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"results": [{"statement_id": 0}]})
            written = client.post(f"/write?db=t{query}", content="m v=1", headers=headers)
            assert written.status_code == 204


def test_everybody_asks_without_authentication_nobody_without_an_admin() -> None:
    catalog = Catalog(None, Settings())
    off, on = (Authentication(catalog, Settings(auth_enabled=flag)) for flag in (False, True))
    assert run(off.user(scope(header="x")), on.user(scope(header="x"))) == [EVERYBODY, None]
    catalog.close()


# --- what is known --------------------------------------------------------------------------------
def test_password_is_hashed_once_and_then_known(login: Authentication, hashing: Hashing) -> None:
    for _ in range(3):
        assert texts(run(login.user(scope("ann", "of-ann")))) == ["ann"]
    basic = "Basic " + base64.b64encode(b"ann:of-ann").decode()
    for header in (basic, "Token ann:of-ann"):
        assert texts(run(login.user(scope(header=header)))) == ["ann"]
    assert hashing.asked == ["of-ann"]


def test_wrong_password_of_a_known_user_costs_no_hashing(
    login: Authentication, hashing: Hashing
) -> None:
    run(login.user(scope("ann", "of-ann")))
    assert texts(run(login.user(scope("ann", "guess")))) == ["authorization failed"]
    assert hashing.asked == ["of-ann"]


def test_unknown_user_costs_no_hashing(login: Authentication, hashing: Hashing) -> None:
    assert texts(run(login.user(scope("nobody", "x")))) == ["authorization failed"]
    assert hashing.asked == []


def test_changed_password_is_hashed_again_and_the_old_one_refused(
    login: Authentication, users: Catalog, hashing: Hashing
) -> None:
    run(login.user(scope("ann", "of-ann")))
    change_password(users, "ann", "new")
    assert texts(run(login.user(scope("ann", "of-ann")))) == ["authorization failed"]
    assert texts(run(login.user(scope("ann", "new")))) == ["ann"]
    assert hashing.asked == ["of-ann", "of-ann", "new"]


def test_changed_rights_need_no_new_login(
    login: Authentication, users: Catalog, hashing: Hashing
) -> None:
    run(login.user(scope("ann", "of-ann")))
    users.change_users(lambda old: {**old, "ann": old["ann"].with_access("t", Access.READ)})
    [user] = run(login.user(scope("ann", "of-ann")))
    assert isinstance(user, User)
    assert user.may(Access.READ, "t")
    assert hashing.asked == ["of-ann"]


def test_nothing_of_a_dropped_user_stays(
    login: Authentication, users: Catalog, hashing: Hashing
) -> None:
    run(login.user(scope("ann", "of-ann")))
    users.change_users(lambda old: {name: old[name] for name in ("root", "bob")})
    assert texts(run(login.user(scope("ann", "of-ann")))) == ["authorization failed"]
    run(login.user(scope("bob", "of-bob")))
    assert set(login._known) == {"bob"}


def test_known_password_is_not_kept(login: Authentication) -> None:
    run(login.user(scope("ann", "of-ann")))
    assert "of-ann" not in repr(vars(login))
    assert "of-ann" not in repr(auth.credentials_of(scope("ann", "of-ann")))
    assert "secret" not in repr(auth.credentials_of(scope(header="Bearer secret")))


# --- under attack ---------------------------------------------------------------------------------
def test_requests_with_one_password_share_one_hashing(
    login: Authentication, hashing: Hashing
) -> None:
    requests = [login.user(scope("ann", "of-ann")) for _ in range(50)]
    assert texts(run(*requests)) == ["ann"] * 50
    assert hashing.asked == ["of-ann"]


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_guesses_at_one_user_are_bounded_and_let_others_in(
    login: Authentication, hashing: Hashing
) -> None:
    async def attack() -> tuple[list[str], str]:
        hashing.gate.clear()
        guesses = [asyncio.ensure_future(login.user(scope("ann", f"{n}"))) for n in range(50)]
        await _until(lambda: sum(guess.done() for guess in guesses) >= 50 - MAX_HASHED_OF_A_USER)
        bob = asyncio.ensure_future(login.user(scope("bob", "of-bob")))
        hashing.gate.set()
        found = await bob
        results = await asyncio.gather(*guesses, return_exceptions=True)
        return texts(results), found.name if found else ""

    [result] = run(attack())
    assert isinstance(result, tuple)
    refused, bob = result
    assert bob == "bob"
    assert refused.count("authorization failed") == MAX_HASHED_OF_A_USER
    assert refused.count("too many logins are waiting") == 50 - MAX_HASHED_OF_A_USER


async def _timed(waiting: Awaitable[object]) -> float:
    started = time.monotonic()
    with pytest.raises(Unauthorized, match="authorization failed"):
        await waiting
    return time.monotonic() - started


def test_refusal_takes_as_long_whether_there_is_such_a_user_or_not(login: Authentication) -> None:
    times = run(
        _timed(login.user(scope("nobody", "x"))),
        _timed(login.user(scope("ann", "x"))),
        _timed(login.user(scope(header="Token bob:x"))),
    )
    for seconds in times:
        assert isinstance(seconds, float)
        assert seconds >= DELAY_S * 0.95


def test_refused_logins_keep_nobody_waiting(login: Authentication) -> None:
    async def beside() -> bool:
        refused = [asyncio.ensure_future(login.user(scope("nobody", f"{n}"))) for n in range(50)]
        await login.user(scope("ann", "of-ann"))
        others_wait = not any(task.done() for task in refused)
        await asyncio.gather(*refused, return_exceptions=True)
        return others_wait

    assert run(beside()) == [True]


def test_refusals_that_wait_are_bounded(login: Authentication) -> None:
    results = run(*(login.user(scope("nobody", "x")) for _ in range(auth.MAX_REFUSED + 5)))
    kinds = [type(result) for result in results]
    assert kinds.count(Unauthorized) == auth.MAX_REFUSED
    assert kinds.count(Overloaded) == 5
    assert texts(run(login.user(scope("ann", "of-ann")))) == ["ann"]


def test_missing_credentials_are_told_at_once(login: Authentication) -> None:
    started = time.monotonic()
    assert texts(run(login.user(scope()), login.user(scope(header="Basic Og==")))) == [
        "unable to parse authentication credentials",
        "username required",
    ]
    assert time.monotonic() - started < DELAY_S


# --- the server -----------------------------------------------------------------------------------
@pytest.fixture
def server() -> Iterator[TestClient]:
    settings = Settings(auth_enabled=True, failed_login_delay_s=0.0, metrics_auth_enabled=True)
    with TestClient(create_app(settings, in_memory=True)) as client:
        text = "CREATE USER root WITH PASSWORD 'hush-1' WITH ALL PRIVILEGES"
        assert client.post("/query", data={"q": text}).status_code == 200
        yield client


def test_refusal_says_how_to_log_in(server: TestClient) -> None:
    for path in ("/query?q=SHOW+USERS", "/write?db=t"):
        answer = server.post(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="InfluxDB"'
        assert answer.headers["content-type"] == "application/json"
        assert "x-influxdb-error" not in answer.headers
    answer = server.get("/query?q=SHOW+USERS", headers={"accept": "application/x-msgpack"})
    assert answer.headers["content-type"] == "application/x-msgpack"
    assert answer.content == b"\x81\xa5error\xd9*unable to parse authentication credentials"


def test_every_path_but_three_asks_who_is_there(server: TestClient) -> None:
    assert isinstance(server.app, Edge)
    asked = 0
    for route in server.app.router.routes:
        assert isinstance(route, Route)
        path = route.path.replace("{id:path}", "t/autogen")
        for method in (route.methods or set()) - {"OPTIONS"}:
            is_open = path in {"/ping", "/status", "/health"}
            answer = server.request(method, path)
            assert (answer.status_code == 401) != is_open, (method, path, answer.status_code)
            asked += 1
    assert asked > 10


@pytest.mark.parametrize("path", ["/metrics", "/debug/vars"])
def test_counters_are_for_users_where_the_setting_says_so(server: TestClient, path: str) -> None:
    assert server.get(path).status_code == 401
    assert server.get(path, auth=("root", "hush-1")).status_code == 200
    for other in ("/ping", "/health", "/status"):
        assert server.get(other).status_code in {200, 204}


def test_nobody_reads_a_password(server: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx2").disabled = True  # the client's own log, not the server's
    root = {"u": "root", "p": "hush-1"}
    answers = [
        server.get("/query", params={"q": text, **root, "pretty": "true"})
        for text in (
            "CREATE USER ann WITH PASSWORD 'hush-2'",
            "SET PASSWORD FOR ann = 'hush-3'",
            "CREATE USER ann WITH PASSWORD 'hush-4'",
            "SHOW USERS; SHOW GRANTS FOR ann; SHOW QUERIES; SHOW DIAGNOSTICS; SHOW STATS",
        )
    ]
    ann = {"u": "ann", "p": "hush-3"}
    answers += [
        server.get("/query", params={"q": "SET PASSWORD FOR root = 'hush-5'", **ann}),
        server.get("/query", params={"q": "SHOW DATABASES", "u": "ann", "p": "hush-6"}),
        server.post("/write", params={"db": "t", "u": "root", "p": "hush-7"}, content="m v=1"),
        server.post("/write", params={"db": "nodb", **root}, content="m v=1"),
        server.get("/debug/vars", params=root),
        server.get("/metrics", params=root),
    ]
    for answer in answers:
        assert "hush" not in answer.text
        assert "scrypt" not in answer.text
        assert "hush" not in str(answer.headers)
    assert "hush" not in caplog.text
    assert "[REDACTED]" in answers[0].text


def test_statement_that_runs_is_listed_without_its_password(session: Session) -> None:
    [statement] = parser.parse("CREATE USER ann WITH PASSWORD 'hush'")
    with session.running.register(statement, "t", session.interrupt):
        [listed] = show_queries(ast.ShowQueries(), session)
    assert listed.data[1] == ["CREATE USER ann WITH PASSWORD [REDACTED]"]


def test_secret_setting_is_shown_nowhere() -> None:
    assert "hush" not in repr(Settings(jwt_secret="hush"))
    arguments = ["serve", "--jwt-secret", "hush", "--port", "1", "--jwt-secret=hush"]
    assert public_arguments(arguments) == [
        "serve",
        "--jwt-secret",
        "[REDACTED]",
        "--port",
        "1",
        "--jwt-secret=[REDACTED]",
    ]
