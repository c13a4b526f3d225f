"""POST /api/v1/prom/read: Prometheus' remote read, as InfluxDB 1.x answers it.

    measurement   the metric's name, also of points that no Prometheus wrote
    tags          labels
    `value`       the samples, where it is a number

    ReadRequest  { repeated Query queries = 1 }
    Query        { int64 start_ms = 1;  int64 end_ms = 2;  repeated LabelMatcher matchers = 3 }
    LabelMatcher { Type type = 1;  string name = 2;  string value = 3 }
    ReadResponse { repeated QueryResult results = 1 };  QueryResult { repeated TimeSeries = 1 }

TimeSeries are those of remote write. Other than influxd 1.6.7, on which the rest was measured,
regular expressions match whole labels, as Prometheus means them, there may be several queries, and
with authentication the right to read the database is asked for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from starlette.responses import Response

from gateway.budget import check_points
from gateway.conditions import compile_condition
from gateway.errors import BadRequest, DatabaseNotFound, Forbidden, Overloaded
from gateway.http import read_body, url_parameters
from gateway.prometheus.messages import (
    check_snappy,
    content,
    fields,
    from_snappy,
    to_snappy,
)
from gateway.regexes import Regex
from gateway.session import Interrupt
from gateway.users import Access
from grammar import ast
from grammar.regexes import check_regex
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, FieldType
from tinyflux.columnar.base import ScanRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from numpy.typing import NDArray
    from starlette.requests import Request

    from gateway.auth import Authentication
    from gateway.catalog import Catalog
    from gateway.config import Settings
    from tinyflux.batch import Int64s
    from tinyflux.columnar.base import Frame, Reader

NAME_LABEL: Final = "__name__"
FIELD: Final = "value"
MS: Final = 1_000_000  # ns

_OPERATORS: Final = ("=", "!=", "=~", "!~")  # LabelMatcher.Type
_NUMBERS: Final = frozenset([FieldType.FLOAT, FieldType.INTEGER])
# Field numbers with wire types: what a protocol buffer has before each content.
_QUERY: Final = 1 << 3 | 2
_START, _END, _MATCHER = 1 << 3, 2 << 3, 3 << 3 | 2
_TYPE, _NAME, _VALUE = 1 << 3, 2 << 3 | 2, 3 << 3 | 2
_FIRST_MESSAGE: Final = 1 << 3 | 2  # and a series, a label, its name
_SECOND_MESSAGE: Final = 2 << 3 | 2  # and the value of a label
_SAMPLE_VALUE, _SAMPLE_TIME = 1 << 3 | 1, 2 << 3
_MOST_LENGTHS: Final = 10  # bytes of a varint


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on one label."""

    operator: str
    label: str
    value: str

    def expr(self) -> ast.Expr:
        """Return it as a condition of InfluxQL, to which a missing tag is "" as well."""
        value: ast.Expr = ast.StringLiteral(self.value)
        if "~" in self.operator:
            value = ast.RegexLiteral(self._pattern)
        return ast.BinaryExpr(self.operator, ast.VarRef(self.label), value)

    def __call__(self, text: str) -> bool:
        """Return whether a label of this value passes."""
        matches = Regex(self._pattern) if "~" in self.operator else self.value.__eq__
        return bool(matches(text)) != self.operator.startswith("!")

    @property
    def _pattern(self) -> str:
        return f"^(?:{self.value})$"


@dataclass(frozen=True, slots=True)
class ReadQuery:
    """What one query of a request asks for; both times belong to it."""

    start_ms: int
    end_ms: int
    matchers: tuple[Matcher, ...]


class RemoteRead:
    """The endpoint; it answers on the query threads."""

    def __init__(
        self,
        catalog: Catalog,
        authentication: Authentication,
        settings: Settings,
        threads: Executor,
    ) -> None:
        self._catalog = catalog
        self._authentication = authentication
        self._settings = settings
        self._threads = threads
        self._n_open = 0  # requests that run or wait; touched by the event loop only

    async def read(self, request: Request) -> Response:
        """Answer a request.

        Raises:
            InfluxError: It is not answered; of the messages' texts influxd's where it has them.
            ClientGone: The connection ended within the body.
        """
        user = await self._authentication.user(request.scope)
        reader = self._reader(url_parameters(request.scope))
        database = url_parameters(request.scope)["db"]
        if user is None or not user.may(Access.READ, database):
            raise Forbidden(f'user is not authorized to read from database "{database}"')
        check_snappy()
        settings = self._settings
        body = await read_body(request.scope, request.receive, settings)
        queries = read_request(from_snappy(body, settings.max_inflated_bytes))
        if self._n_open >= settings.query_threads + settings.max_queued_queries:
            raise Overloaded("too many queries are waiting")
        interrupt = Interrupt(settings.query_timeout_s)
        self._n_open += 1
        try:
            answer = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._answer, reader, queries, interrupt
            )
        finally:
            self._n_open -= 1
            interrupt.trip()  # a client that left wants no more
        headers = {"content-type": "application/x-protobuf", "content-encoding": "snappy"}
        return Response(answer, headers=headers)

    def _reader(self, parameters: dict[str, str]) -> Reader:
        database, policy = parameters.get("db", ""), parameters.get("rp", "")
        try:
            entry = self._catalog.database(database)
        except DatabaseNotFound:
            raise BadRequest("no database") from None
        if policy and not entry.has_policy(policy):
            raise BadRequest("invalid retention policy")
        return self._catalog.storage(database, policy).snapshot()

    def _answer(self, reader: Reader, queries: list[ReadQuery], interrupt: Interrupt) -> bytes:
        results = []
        n_points = 0
        for query in queries:
            series: dict[tuple[tuple[str, str], ...], list[bytes]] = {}
            for frame in frames_of(reader, query):
                interrupt.check()
                n_points += len(frame)
                check_points(n_points, self._settings)
                for labels, samples in encoded_series(frame):
                    series.setdefault(labels, []).append(samples)
            parts = [_series(labels, samples) for labels, samples in sorted(series.items())]
            results.append(content(_FIRST_MESSAGE, *parts))
        return to_snappy(b"".join(results))


def read_request(data: bytes) -> list[ReadQuery]:
    """Return the queries of a ReadRequest.

    Raises:
        BadRequest: Not such a message, or nothing is asked.
    """
    try:
        queries = [
            _read_query(data, start, end)
            for tag, start, end in fields(data, 0, len(data))
            if tag == _QUERY
        ]
    except IndexError:
        raise BadRequest("unexpected EOF") from None
    if not queries:
        raise BadRequest("expected query")
    return queries


def _read_query(data: bytes, at: int, end: int) -> ReadQuery:
    start_ms = end_ms = 0  # protobuf leaves out what is zero
    matchers = []
    for tag, first, stop in fields(data, at, end):
        if tag == _START:
            start_ms = first
        elif tag == _END:
            end_ms = first
        elif tag == _MATCHER:
            matchers.append(_read_matcher(data, first, stop))
    if not matchers:
        raise BadRequest("expected matcher")
    return ReadQuery(start_ms, end_ms, tuple(matchers))


def _read_matcher(data: bytes, at: int, end: int) -> Matcher:
    kind, name, value = 0, "", ""
    for tag, first, stop in fields(data, at, end):
        if tag == _TYPE:
            kind = first
        elif tag == _NAME:
            name = data[first:stop].decode(errors="replace")
        elif tag == _VALUE:
            value = data[first:stop].decode(errors="replace")
    if not 0 <= kind < len(_OPERATORS):
        raise BadRequest(f"unknown match type {kind}")
    if not name:
        raise BadRequest("expected label name")
    if "~" in _OPERATORS[kind]:
        try:
            check_regex(value)  # alone, so that the error shows what the client sent
        except ValueError as exc:
            raise BadRequest(str(exc)) from None
    return Matcher(_OPERATORS[kind], name, value)


def frames_of(reader: Reader, query: ReadQuery) -> Iterator[Frame]:
    """Yield the frames of all measurements that match, with the field `value` if it is a number."""
    condition: ast.Expr | None = None
    named = []
    for matcher in query.matchers:
        if matcher.label == NAME_LABEL:
            named.append(matcher)
        else:
            term = matcher.expr()
            condition = term if condition is None else ast.BinaryExpr("AND", condition, term)
    where = compile_condition(condition, {})  # every label is a tag
    start_ns = max(query.start_ms * MS, MIN_TIME_NS)
    end_ns = min(query.end_ms * MS + MS - 1, MAX_TIME_NS)  # what shows as this millisecond too
    for name in reader.measurements() if start_ns <= end_ns else ():
        is_wanted = all(matcher(name) for matcher in named)
        if is_wanted and reader.field_keys(name).get(FIELD) in _NUMBERS:
            yield from reader.scan(ScanRequest(name, where, start_ns, end_ns, (FIELD,)))


def encoded_series(frame: Frame) -> Iterator[tuple[tuple[tuple[str, str], ...], bytes]]:
    """Yield the labels of each series of a frame, sorted, and its samples as they are sent."""
    column = frame.columns[FIELD]
    values = column.values.astype(np.float64)
    times_ms = frame.times // MS
    is_value = column.mask()
    for row, (first, stop) in enumerate(pairwise(frame.offsets.tolist())):
        keep = is_value[first:stop].copy()
        times = times_ms[first:stop][keep]
        if len(times):
            is_last = np.append(np.diff(times) > 0, True)  # Prometheus takes one a millisecond
            found = values[first:stop][keep][is_last]
            tags = {key: value for key, value in frame.series.tags(row).items() if value}
            labels = {NAME_LABEL: frame.series.measurement} | tags
            yield tuple(sorted(labels.items())), encoded_samples(found, times[is_last])


def encoded_samples(values: NDArray[np.float64], times_ms: Int64s) -> bytes:
    """Return samples as fields of a TimeSeries.

    Args:
        values: float64[n].
        times_ms: int64[n], ascending.
    """
    numbers = times_ms.view(np.uint64)  # a negative one takes ten bytes, as protobuf has it
    lengths = np.ones(len(numbers), np.int64)
    for n_bytes in range(1, _MOST_LENGTHS):
        lengths += numbers >> np.uint64(7 * n_bytes) > 0
    cuts = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(numbers)]
    parts = []
    for first, stop in pairwise(cuts):  # times ascend, so there are few runs of equal length
        n_bytes = int(lengths[first])
        head = bytes([_SECOND_MESSAGE, 10 + n_bytes, _SAMPLE_VALUE])
        rows = np.empty((stop - first, len(head) + 9 + n_bytes), np.uint8)
        rows[:, :3] = np.frombuffer(head, np.uint8)
        rows[:, 3:11] = values[first:stop].astype("<f8").view(np.uint8).reshape(-1, 8)
        rows[:, 11] = _SAMPLE_TIME
        for position in range(n_bytes):
            byte = (numbers[first:stop] >> np.uint64(7 * position)) & np.uint64(127)
            rows[:, 12 + position] = byte | np.uint64(128 * (position < n_bytes - 1))
        parts.append(rows.tobytes())
    return b"".join(parts)


def _series(labels: tuple[tuple[str, str], ...], samples: list[bytes]) -> bytes:
    parts = [
        content(
            _FIRST_MESSAGE,
            content(_FIRST_MESSAGE, name.encode()),
            content(_SECOND_MESSAGE, value.encode()),
        )
        for name, value in labels
    ]
    return content(_FIRST_MESSAGE, *parts, *samples)
