"""Cases sent to a server, and its answers compared with the recorded ones.

`Client` is one keep-alive connection. `Replay` walks through one file on one server: a test asks
it for the answer to the n-th case, and it sends the cases before that one first, so a single case
can be run alone. `difference` says in words how an answer departs from the expected one.
"""

from __future__ import annotations

import http.client
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlencode, urlsplit

from tests.conformance.cases import Answer

if TYPE_CHECKING:
    from types import TracebackType

    from tests.conformance.cases import Case, CaseFile

TIMEOUT_S = 30.0
# What is left of a sum of floats that cancel one another.
NEAR_ZERO = 1e-13
# Shards are numbered over the life of a server.
SHARD_NUMBER = re.compile(r"shard \d+:")
SHARD_ROW = re.compile(r'\[\d+,("[^"]*","[^"]*"),(?:\d+,)?(?="\d{4}-)')

Json: TypeAlias = "str | bool | Number | list[Json] | Members | None"


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


class Members(tuple[tuple[str, Json], ...]):
    """The members of a JSON object, in their order."""

    __slots__ = ()


class Client:
    """One keep-alive connection to a server that speaks InfluxDB's HTTP."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._base = parts.path.rstrip("/")
        self._connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port or 8086, timeout=TIMEOUT_S
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Return the answer to one request, undecodable bytes as lone surrogates."""
        self._connection.request(method, self._base + path, body, headers or {})
        response = self._connection.getresponse()
        text = response.read().decode("utf-8", "surrogateescape").removesuffix("\n")
        text = SHARD_ROW.sub(r'["N",\1,', SHARD_NUMBER.sub("shard N:", text))
        return Answer(response.status, text)

    def send(self, case: Case) -> Answer:
        """Send a case: a write by POST, a query by GET or as the case's `method` says."""
        params = case.params
        method = params.pop("method", "GET")
        accept = params.pop("accept", None)
        headers = {"Accept": accept} if accept else {}
        body = case.body.encode("utf-8", "surrogateescape")
        if case.kind == "write":
            return self.request("POST", "/write?" + urlencode(params), body, headers)
        if method == "GET":
            return self.request("GET", "/query?" + urlencode({**params, "q": body}), b"", headers)
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        form = urlencode({"q": body}).encode()
        return self.request(method, "/query?" + urlencode(params), form, headers)

    def execute(self, statement: str) -> Answer:
        """Run an administrative statement.

        Raises:
            AssertionError: The server refused it.
        """
        form = urlencode({"q": statement}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.request("POST", "/query", form, headers)
        assert answer.status == 200, answer
        assert '"error"' not in answer.body, answer
        return answer


class Replay:
    """One file of cases on one server: its databases made empty, its cases sent in order."""

    def __init__(self, file: CaseFile, client: Client) -> None:
        self.file = file
        self._client = client
        self._sent: int | None = None

    def answer(self, n: int) -> Answer:
        """Return the server's answer to the n-th case, after the cases before it."""
        if self._sent is None or self._sent > n:
            self.restart()
        for case in self.file.cases[self._sent : n]:
            self._client.send(case)
        self._sent = n + 1
        return self._client.send(self.file.cases[n])

    def restart(self) -> None:
        """Drop what an earlier run left and create the file's databases."""
        self.drop()
        for name in self.file.databases:
            self._client.execute(f'CREATE DATABASE "{name}"')
        self._sent = 0

    def drop(self) -> None:
        """Drop the file's databases."""
        for name in self.file.databases:
            self._client.execute(f'DROP DATABASE "{name}"')
        self._sent = None


def difference(case: Case, expected: Answer, got: Answer) -> str:
    """Return how an answer departs from the expected one in one line, "" when it does not.

    JSON is compared as parsed: members in order, numbers as written but for the last digits of
    floats. A pretty answer and anything that is not JSON are compared as text.
    """
    if got.status != expected.status:
        return f"status {got.status} instead of {expected.status}: {got.body[:300]}"
    if "pretty" not in case.params:
        documents = _documents(expected.body), _documents(got.body)
        if documents[0] is not None and documents[1] is not None:
            comparison = _Comparison(case.tolerance, any_order=case.any_order)
            return comparison.first_difference("", *documents)
    if got.body == expected.body:
        return ""
    return f"{got.body[:400]!r} instead of {expected.body[:400]!r}"


def _documents(text: str) -> list[Json] | None:
    """Return the JSON documents of a body, one a line; None when it is not JSON."""
    try:
        return [
            json.loads(
                line,
                object_pairs_hook=Members,
                parse_int=Number,
                parse_float=Number,
                parse_constant=_refuse,
            )
            for line in text.split("\n")
        ]
    except ValueError:
        return None


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


@dataclass(frozen=True, slots=True)
class _Comparison:
    """How strictly two JSON values are compared."""

    tolerance: float
    any_order: bool

    def first_difference(self, path: str, expected: Json, got: Json) -> str:
        """Return the first place where the values differ, "" when there is none."""
        if isinstance(expected, list) and isinstance(got, list):
            return self._lists(path, expected, got)
        if isinstance(expected, Members) and isinstance(got, Members):
            return self._members(path, expected, got)
        numbers = isinstance(expected, Number) and isinstance(got, Number)
        if numbers and self._close(str(expected), str(got)):
            return ""
        return "" if type(expected) is type(got) and expected == got else _told(path, expected, got)

    def _lists(self, path: str, expected: list[Json], got: list[Json]) -> str:
        if self.any_order and path.endswith(("/values", "/series")):
            expected, got = sorted(expected, key=_show), sorted(got, key=_show)
        for i, (a, b) in enumerate(zip(expected, got, strict=False)):
            if found := self.first_difference(f"{path}/{i}", a, b):
                return found
        if len(expected) == len(got):
            return ""
        longer, word = (got, "unexpected") if len(got) > len(expected) else (expected, "missing")
        rest = _show(longer[min(len(expected), len(got))])
        return f"{path or '/'}: {len(got)} instead of {len(expected)}, {word} {rest}"

    def _members(self, path: str, expected: Members, got: Members) -> str:
        if [key for key, _ in expected] != [key for key, _ in got]:
            return _told(path, expected, got)
        for (key, a), (_, b) in zip(expected, got, strict=True):
            if found := self.first_difference(f"{path}/{key}", a, b):
                return found
        return ""

    def _close(self, expected: str, got: str) -> bool:
        """Floats agree but for their last digits; 1.0 does not pass for 1, nor 2 for 3."""
        if expected == got:
            return True
        if got.endswith(".0") or not any(mark in expected + got for mark in ".e"):
            return False
        return math.isclose(float(expected), float(got), rel_tol=self.tolerance, abs_tol=NEAR_ZERO)


def _told(path: str, expected: Json, got: Json) -> str:
    return f"{path or '/'}: {_show(got)} instead of {_show(expected)}"


def _show(value: Json) -> str:
    """Return a value as one line of JSON, cut after 300 characters."""
    return _json(value)[:300]


def _json(value: Json) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, Members):
        return "{" + ",".join(f"{json.dumps(key)}:{_json(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return json.dumps(value)
