"""Queries that take long: bounded, stopped when nobody waits for them, in nobody's way."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import orjson
import pytest

from gateway.app import Edge, create_app
from gateway.config import Settings
from gateway.errors import InfluxError
from gateway.statements.run import execute
from grammar import ast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from starlette.types import Message

    from gateway.results import Series
    from gateway.session import Session

PATIENCE_S = 30.0
_T = TypeVar("_T")


class Gate:
    """Holds SHOW USERS until it is opened or they are interrupted, and counts both."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.n_running = 0
        self.n_interrupted = 0
        self.is_open = False

    def execute(self, statement: ast.Statement, session: Session) -> list[Series]:
        if not isinstance(statement, ast.ShowUsers):
            return execute(statement, session)
        with self._lock:
            self.n_running += 1
        deadline = time.monotonic() + PATIENCE_S
        try:
            while not self.is_open and time.monotonic() < deadline:
                session.interrupt.check()
                time.sleep(0.001)
        except InfluxError:
            with self._lock:
                self.n_interrupted += 1
            raise
        finally:
            with self._lock:
                self.n_running -= 1
        return []


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr("gateway.statements.run.execute", gate.execute)
    yield gate
    gate.is_open = True


async def get(
    app: Edge, path: str, query: bytes = b"", gone: asyncio.Event | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a GET and return status, headers and body; `gone` is when the client hangs up."""
    sent: list[Message] = []
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        if asked == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "GET",
        "path": path,
        "root_path": "",
        "query_string": query,
        "headers": [],
    }
    await app(scope, receive, send)
    headers = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message["body"] for message in sent[1:])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it waits for happens in other threads
        await asyncio.sleep(0.001)


def run(settings: Settings, test: Callable[[Edge], Coroutine[None, None, _T]]) -> _T:
    """Run a test on a server with these settings, for a bounded time."""

    async def bounded() -> _T:
        app = create_app(settings, in_memory=True)
        async with app.router.lifespan_context(app):
            return await asyncio.wait_for(test(app), PATIENCE_S)

    return asyncio.run(bounded())


def test_query_over_the_bound_answers_503_and_the_others_are_served(gate: Gate) -> None:
    async def test(app: Edge) -> None:
        asking = [asyncio.create_task(get(app, "/query", b"q=SHOW+USERS")) for _ in range(3)]
        await until(lambda: gate.n_running == 1)
        status, headers, body = await get(app, "/query", b"q=SHOW+USERS")
        assert (status, headers["retry-after"]) == (503, "1")
        assert orjson.loads(body) == {"error": "too many queries are waiting"}
        gate.is_open = True
        assert [status for status, _, _ in await asyncio.gather(*asking)] == [200] * 3

    run(Settings(query_threads=1, max_queued_queries=2), test)


def test_queries_are_listed_and_killed_while_every_thread_is_busy(gate: Gate) -> None:
    async def test(app: Edge) -> None:
        asking = [asyncio.create_task(get(app, "/query", b"q=SHOW+USERS")) for _ in range(2)]
        killed: list[bytes] = []
        while asking:
            await until(lambda: gate.n_running == 1)
            _, _, body = await get(app, "/query", b"q=show++queries%3b")
            [series] = orjson.loads(body)["results"][0]["series"]
            rows = [row for row in series["values"] if row[1] == "SHOW USERS"]
            [number] = [number for number, _, _, _, status in rows if status == "running"]
            _, _, body = await get(app, "/query", f"q=KILL+QUERY+{number}".encode())
            assert "error" not in orjson.loads(body)["results"][0]
            killed.append((await asking.pop(0))[2])
        assert all(b"query interrupted" in body for body in killed)

    run(Settings(query_threads=1, max_queued_queries=1), test)


def test_queries_that_wait_are_listed_and_killed_before_they_run(gate: Gate) -> None:
    async def listed(app: Edge) -> list[list[str]]:
        _, _, body = await get(app, "/query", b"q=SHOW+QUERIES")
        [series] = orjson.loads(body)["results"][0]["series"]
        return [row for row in series["values"] if row[1] != "SHOW QUERIES"]

    async def test(app: Edge) -> None:
        first = asyncio.create_task(get(app, "/query", b"q=SHOW+USERS"))
        await until(lambda: gate.n_running == 1)
        query = b"db=t&q=CREATE+DATABASE+x"
        secret = b"q=CREATE+USER+u+WITH+PASSWORD+'pw'"
        asking = [asyncio.create_task(get(app, "/query", text)) for text in (query, secret)]
        while len(rows := await listed(app)) < 3:  # noqa: ASYNC110 - threads start them
            await asyncio.sleep(0.001)
        waiting = [(text, database, status) for _, text, database, _, status in rows[1:]]
        assert waiting == [("CREATE DATABASE x", "t", "queued"), ("[REDACTED]", "", "queued")]
        await get(app, "/query", f"q=KILL+QUERY+{rows[1][0]}".encode())
        assert [status for _, _, _, _, status in await listed(app)][1:] == ["killed", "queued"]
        gate.is_open = True
        (_, _, killed), (_, _, other), _ = await asyncio.gather(*asking, first)
        assert b"query interrupted" in killed
        assert b"error" not in other
        _, _, databases = await get(app, "/query", b"q=SHOW+DATABASES")
        assert b'"x"' not in databases
        assert await listed(app) == []

    run(Settings(query_threads=1), test)


def test_query_whose_client_goes_away_is_interrupted(gate: Gate) -> None:
    async def test(app: Edge) -> None:
        gone = asyncio.Event()
        asking = asyncio.create_task(get(app, "/query", b"q=SHOW+USERS", gone))
        await until(lambda: gate.n_running == 1)
        gone.set()
        await asking
        assert gate.n_interrupted == 1

    run(Settings(), test)


def test_long_query_is_in_the_way_of_nobody(gate: Gate) -> None:
    async def test(app: Edge) -> None:
        asking = asyncio.create_task(get(app, "/query", b"q=SHOW+USERS"))
        await until(lambda: gate.n_running == 1)
        assert (await get(app, "/ping"))[0] == 204
        gate.is_open = True
        await asking

    run(Settings(query_threads=1), test)


def test_stop_interrupts_what_runs(gate: Gate) -> None:
    async def test(app: Edge) -> Awaitable[object]:
        asking = asyncio.create_task(get(app, "/query", b"q=SHOW+USERS&async=true"))
        await until(lambda: gate.n_running == 1)
        return asking

    run(Settings(), test)
    assert gate.n_interrupted == 1
