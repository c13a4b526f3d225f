"""What every endpoint needs of HTTP: parameters, bodies under a limit, error answers.

Nothing here knows what a request means.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import orjson
from starlette.responses import Response

from gateway.errors import BadRequest, NotInstalled, RequestTimeout, TooLarge

try:
    from isal import isal_zlib as deflate  # an extra: three times as fast
except ImportError:
    import zlib as deflate  # type: ignore[no-redef]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope

    from gateway.config import Settings

# Clients read the number to choose what they may ask for; it says whom we answer like, not who we
# are.
INFLUXDB_VERSION: Final = "1.12.4"
SERVER_HEADERS: Final = (
    (b"x-influxdb-version", INFLUXDB_VERSION.encode()),
    (b"x-influxdb-build", b"OSS"),
)
MAX_ERROR_HEADER_BYTES: Final = 1024  # influxdb 1.x services/httpd: httpError
_INFLATE_STEP: Final = 1 << 20
_GZIP_MAGIC: Final = b"\x1f\x8b"  # RFC 1952
_GZIP_HEAD_BYTES: Final = 10
_DEFLATED_STEP: Final = 16 << 10
_MAX_ZSTD_WINDOW: Final = 8 << 20  # RFC 8878 asks for no more
_ZSTD_STEP: Final = 256  # bytes in; a block of 4 may be 128 kB
# A header with one of these is never sent: the server breaks the connection off instead.
_CONTROLS: Final = dict.fromkeys([*range(9), *range(10, 32), 127], " ")


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


def header(scope: Scope, name: bytes) -> str:
    """Return the value of a request header (lower-case name), "" when it is not there."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return ""


def parameters(encoded: str) -> dict[str, str]:
    """Return the parameters of a query string or a urlencoded body; of a repeated one the first."""
    pairs = parse_qsl(encoded, keep_blank_values=True, errors="replace")
    return dict(reversed(pairs))


def url_parameters(scope: Scope) -> dict[str, str]:
    """Return the parameters of the URL."""
    query_string: bytes = scope["query_string"]
    return parameters(query_string.decode("latin-1")) if query_string else {}


async def read_body(
    scope: Scope, receive: Receive, settings: Settings, hold: Callable[[int], None] | None = None
) -> bytes:
    """Return the body of a request.

    Args:
        scope: Of the request.
        receive: Of the request.
        settings: How large it may be, and how long it may take.
        hold: Called with the size of each piece, before more is read; what it raises ends that.

    Raises:
        TooLarge: Before reading when Content-Length says so, else as soon as it shows.
        RequestTimeout: It took too long.
        ClientGone: The connection ended first.
    """
    max_bytes = settings.max_body_bytes
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) > max_bytes:
        raise TooLarge("Request Entity Too Large")
    pieces: list[bytes] = []
    size = 0
    more = True
    with _TimeLimit(settings.body_timeout_s):
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > max_bytes:
                raise TooLarge("Request Entity Too Large")
            if hold is not None:
                hold(len(piece))
            if piece:
                pieces.append(piece)
            more = message.get("more_body", False)
    return b"".join(pieces)


class _TimeLimit:
    """Bounds what the task does inside, as `asyncio.timeout` does at three times the price.

    Raises:
        RequestTimeout: It took longer.
    """

    __slots__ = ("_is_over", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        """Make a limit; 0 is none."""
        self._seconds = seconds
        self._is_over = False

    def __enter__(self) -> None:
        if self._seconds:
            task = asyncio.current_task()
            assert task is not None
            self._task = task
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end)

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if self._seconds:
            self._timer.cancel()
        # When others want the task to end as well, it ends.
        if self._is_over and not self._task.uncancel() and kind is asyncio.CancelledError:
            raise RequestTimeout("request body timeout") from None


async def read_json(request: Request, settings: Settings) -> dict[str, object]:
    """Return the JSON object in the body of a request.

    Raises:
        BadRequest: There is none.
        TooLarge, RequestTimeout, ClientGone: As for every body.
    """
    body = await read_body(request.scope, request.receive, settings)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(f"body is not JSON: {exc}") from None
    if not isinstance(document, dict):
        raise BadRequest("body is not a JSON object")
    return document


def inflate(body: bytes, coding: str, max_bytes: int, max_ratio: int) -> bytes:
    """Undo a Content-Encoding: gzip, deflate, zstd; with others the body is left as it is.

    Args:
        body: The body as sent.
        coding: The Content-Encoding header.
        max_bytes: Most bytes to give back.
        max_ratio: Most bytes to give back for each byte sent, once over a megabyte.

    Raises:
        BadRequest: Not in that coding, or cut short.
        NotInstalled: zstd, and there is no package for it.
        TooLarge: The body grows beyond a limit; at most one megabyte more than that was inflated.
    """
    coding = coding.strip().lower()
    if coding not in {"gzip", "x-gzip", "deflate", "zstd"} or not body:
        return body
    limit = min(max_bytes, max(len(body) * max_ratio, _INFLATE_STEP))
    name, pieces, size = coding.removeprefix("x-"), [], 0
    for piece in _from_zstd(body) if name == "zstd" else _inflated(body, name):
        size += len(piece)
        if size > limit:
            raise TooLarge("Request Entity Too Large")
        pieces.append(piece)
    return b"".join(pieces)


def _inflated(body: bytes, name: str) -> Iterable[bytes]:
    """Yield the pieces of all gzip members, or of one zlib or raw deflate stream."""
    wbits = 31 if name == "gzip" else 15
    if name == "deflate" and not _is_zlib(body):
        wbits = -15
    rest, at = b"", 0
    stream, is_begun = deflate.decompressobj(wbits), False
    while rest or at < len(body):
        if not rest:  # in steps: zlib copies what it leaves, at each piece and each member
            rest, at = body[at : at + _DEFLATED_STEP], at + _DEFLATED_STEP
        if stream.eof:
            stream, is_begun = deflate.decompressobj(wbits), False
        if not is_begun and name == "gzip" and not _GZIP_MAGIC.startswith(rest[:2]):
            # isal waits for more of a short one, and so does Go
            is_short = len(rest) + max(len(body) - at, 0) < _GZIP_HEAD_BYTES
            raise BadRequest("unexpected EOF" if is_short else "gzip: invalid header")
        is_begun = True
        try:
            piece = stream.decompress(rest, _INFLATE_STEP)
        except deflate.error as exc:  # type: ignore[misc] # that of isal is not typed as an error
            raise BadRequest(f"{name}: {_fault(str(exc))}") from None
        yield piece
        rest = stream.unconsumed_tail
        if stream.eof:
            if name != "gzip":
                return
            rest = stream.unused_data
    while not stream.eof:
        piece = stream.decompress(b"", _INFLATE_STEP)
        if not piece:
            raise BadRequest("unexpected EOF")
        yield piece


def _fault(text: str) -> str:
    """Return what is wrong in Go's words; zlib and isal each have their own."""
    if any(word in text for word in ("header", "method", "wrapper")):
        return "invalid header"
    return "invalid checksum" if "check" in text else "corrupt input"


def _from_zstd(body: bytes) -> Iterable[bytes]:
    """Yield the pieces of all zstd frames."""
    try:
        import zstandard
    except ImportError:
        raise NotInstalled("zstd needs a package: pip install 'tinyflux-gateway[zstd]'") from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
    rest = body
    while rest:
        frame = decompressor.decompressobj()
        try:
            for start in range(0, len(rest), _ZSTD_STEP):
                yield frame.decompress(rest[start : start + _ZSTD_STEP])
                if frame.eof:
                    rest = frame.unused_data + rest[start + _ZSTD_STEP :]
                    break
            else:
                raise BadRequest("zstd: unexpected EOF")
        except zstandard.ZstdError:
            raise BadRequest("zstd: invalid header") from None


def _is_zlib(body: bytes) -> bool:
    return len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0


def error_response(
    status: int,
    text: str,
    *,
    body: bytes | None = None,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the answer to a refused request: JSON, or the body given; with X-Influxdb-Error."""
    content = orjson.dumps({"error": text}) + b"\n" if body is None else body
    response = Response(content, status, {"content-type": media_type, **(headers or {})})
    if status != 401:
        # Differs from influxd: ASCII only, which every client can read.
        value = text.translate(_CONTROLS).encode("ascii", "backslashreplace")
        value = value[:MAX_ERROR_HEADER_BYTES]
        response.raw_headers.append((b"x-influxdb-error", value))
    return response
