"""POST /api/v3/write_lp: line protocol as InfluxDB 3 takes it.

What is different from /write: a missing database is created, the unit of each timestamp is guessed
unless `precision` says it, `accept_partial=false` stores all lines or none, and a refusal lists the
bad lines with their numbers. `no_sync` is taken and has no effect: an answer still means durable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from gateway.errors import BadRequest, LinesRefused
from gateway.http import error_response, header, url_parameters
from gateway.intake import WriteEndpoint
from gateway.lineprotocol.line import BLANKS, line_end
from gateway.lineprotocol.parser import BOM, MAX_LINE_TEXT
from gateway.writer import Write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from gateway.lineprotocol.parser import LineError, Parsed, Parser
    from gateway.writer import Between
    from tinyflux.batch import Int64s

PRECISIONS: Final = {
    "": "auto",
    "auto": "auto",
    "nanosecond": "ns",
    "microsecond": "us",
    "millisecond": "ms",
    "second": "s",
    "ns": "ns",
    "n": "ns",
    "us": "us",
    "u": "us",
    "ms": "ms",
    "s": "s",
}
_LINES_BETWEEN: Final = 10_000  # walked over, some 10 ms, before others are let in
_BOOLEANS: Final = {"": None, "true": True, "false": False}

# A time of 5e9 s is in the year 2128; what is smaller without its sign is of the first unit that
# fits. Source: documentation of InfluxDB 3, `precision=auto`.
_UNITS: Final = ((5 * 10**9, 10**9), (5 * 10**12, 10**6), (5 * 10**15, 10**3))


class WriteLpEndpoint(WriteEndpoint):
    """The ASGI application of /api/v3/write_lp."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await super().__call__(scope, receive, send)
        except LinesRefused as refused:
            await _refusal(refused, scope)(scope, receive, send)


def describe(scope: Scope) -> Write:
    """Return what a request to /api/v3/write_lp wants written, without its body.

    Raises:
        BadRequest: No database, or a parameter with a value it cannot have.
    """
    parameters = url_parameters(scope)
    database = parameters.get("db", "")
    if not database:
        raise BadRequest('missing required parameter "db"')
    precision = parameters.get("precision", "")
    if precision not in PRECISIONS:
        names = "auto, nanosecond, microsecond, millisecond or second"
        raise BadRequest(f'invalid precision "{precision}" (use {names})')
    _boolean(parameters.get("no_sync", ""), "no_sync", default=False)
    accepts_partial = _accepts_partial(scope)
    return Write(
        b"",
        database,
        coding=header(scope, b"content-encoding"),
        creates_database=True,
        is_whole=not accepts_partial,
        read=_Reading(PRECISIONS[precision]),
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reads a body in a precision of version 3."""

    precision: str

    def __call__(self, parser: Parser, body: bytes, now_ns: int, between: Between) -> Parsed:
        is_guessed = self.precision == "auto"
        precision = "ns" if is_guessed else self.precision
        parsed = parser.parse(body, precision=precision, now_ns=now_ns, between=between)
        if is_guessed and len(parsed.batch):
            times = in_guessed_units(parsed.batch.times)
            parsed = replace(parsed, batch=replace(parsed.batch, times=times))
        if parsed.errors:
            errors = list(numbered(body.removeprefix(BOM), parsed.errors, between))
            parsed = replace(parsed, errors=errors)
        return parsed


def in_guessed_units(times: Int64s) -> Int64s:
    """Return int64[n] ns: each time taken for s, ms, us or ns, whichever its size suggests."""
    result = times.copy()
    rest = np.ones(len(times), np.bool_)
    for bound, unit_ns in _UNITS:
        chosen = rest & (times < bound) & (times > -bound)
        result[chosen] *= unit_ns
        rest &= ~chosen
    return result


def numbered(
    body: bytes, errors: Sequence[LineError], between: Between = lambda: None
) -> Iterator[LineError]:
    """Yield bad lines, which are in the order of the body, with their numbers.

    Whether a line is bad does not depend on other lines, so the first one of equal text is it.
    Costs a walk over the lines up to the last bad one, with `between` called now and then.
    """
    at, number, n_walked = 0, 1, 0
    is_plain = b'"' not in body and b"\\" not in body  # every line feed ends a line
    for error in errors:
        while at < len(body):
            end = body.find(b"\n", at) if is_plain else line_end(body, at)
            end = len(body) if end < 0 else end
            line = body[at:end]
            own, at, number = number, end + 1, number + 1 + line.count(b"\n")
            n_walked += 1
            if n_walked % _LINES_BETWEEN == 0:
                between()
            if _text(line) == error.line:
                yield replace(error, number=own)
                break


def _text(line: bytes) -> str:
    """Return a line as the parser shows it in an error."""
    shown = line.removesuffix(b"\r").lstrip(BLANKS)[:MAX_LINE_TEXT]
    return shown.decode(errors="replace")


def _refusal(refused: LinesRefused, scope: Scope) -> Response:
    if refused.lines:
        texts = ("parsing failed for write_lp endpoint", "partial write of line protocol occurred")
        text = texts[_accepts_partial(scope)]
    else:
        text = refused.text
    data = [
        {"original_line": error.line, "line_number": error.number, "error_message": error.reason}
        for error in refused.lines
    ]
    body = orjson.dumps({"error": text, "data": data}) + b"\n"
    return error_response(refused.status, text, body=body)


def _accepts_partial(scope: Scope) -> bool:
    text = url_parameters(scope).get("accept_partial", "")
    return _boolean(text, "accept_partial", default=True)


def _boolean(text: str, name: str, *, default: bool) -> bool:
    if text not in _BOOLEANS:
        raise BadRequest(f'{name} must be true or false: "{text:.80}"')
    value = _BOOLEANS[text]
    return default if value is None else value
