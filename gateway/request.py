"""One request to /query, read: its parameters from URL and body, and the format to answer in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import orjson

from gateway.encoding.csv import CsvEncoder
from gateway.encoding.json import JsonEncoder
from gateway.encoding.msgpack import MsgpackEncoder
from gateway.encoding.times import epoch_unit
from gateway.errors import BadRequest
from gateway.http import header, parameters, read_body, url_parameters

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from gateway.config import Settings

Encoder: TypeAlias = JsonEncoder | CsvEncoder | MsgpackEncoder

DEFAULT_CHUNK_ROWS: Final = 10_000  # influxdb 1.x services/httpd: DefaultChunkSize
_MAX_INT64: Final = (1 << 63) - 1
_MEDIA_TYPES: Final = ("application/csv", "text/csv", "application/x-msgpack")
# What Go calls the kinds of JSON that are no object.
_GO_TYPES: Final = {list: "array", str: "string", bool: "bool", int: "number", float: "number"}
# Not Python's email parser: it takes 2 ms for each level that a hostile body nests.
_BOUNDARY: Final = re.compile(r"""boundary=(?:"([^"]+)"|([^\s;"]+))""", re.IGNORECASE)
_PART_NAME: Final = re.compile(
    rb"""\r\ncontent-disposition:[^\r\n]*?;[ \t]*name="?([^";\r\n]*)""", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """One request, read.

    Attributes:
        text: The statements.
        parameters: All parameters, those of the body over those of the URL.
        is_read_only: It came by GET.
        is_pretty: `pretty` was in the URL.
        media_type: What the client accepts, "application/json" when nothing we know is in it.
        is_gzip: The client takes gzip.
    """

    text: str
    parameters: dict[str, str]
    is_read_only: bool
    is_pretty: bool
    media_type: str
    is_gzip: bool

    @property
    def is_chunked(self) -> bool:
        """Whether series are cut into documents of `chunk_rows`."""
        return self.parameters.get("chunked") == "true"

    @property
    def chunk_rows(self) -> int:
        """Most rows of one document."""
        text = self.parameters.get("chunk_size", "")
        is_number = text.isascii() and text.isdigit() and len(text) < 10
        return (int(text) if is_number else 0) or DEFAULT_CHUNK_ROWS

    def encoder(self, n_statements: int = 1) -> Encoder:
        """Return a new encoder for the answer to so many statements."""
        epoch_ns = epoch_unit(self.parameters.get("epoch", ""))
        if self.media_type == MsgpackEncoder.media_type:
            return MsgpackEncoder(epoch_ns, 1 if self.is_chunked else n_statements)
        if self.media_type == JsonEncoder.media_type:
            return JsonEncoder(epoch_ns, pretty=self.is_pretty)
        return CsvEncoder(epoch_ns)


async def read_request(scope: Scope, receive: Receive, settings: Settings) -> QueryRequest:
    """Return a request with all its parameters.

    Raises:
        BadRequest: There is no `q`.
        TooLarge: The body is.
        RequestTimeout: The body took too long.
        ClientGone: The connection ended.
    """
    in_url = url_parameters(scope)
    given = in_url
    if scope["method"] == "POST":
        body = await read_body(scope, receive, settings)
        given = in_url | _body_parameters(header(scope, b"content-type"), body)
    request = _request(scope, in_url, given)
    if not request.text:
        raise BadRequest('missing required parameter "q"')
    return request


def unread_request(scope: Scope) -> QueryRequest:
    """Return what is known of a request without its body: enough to refuse it."""
    in_url = url_parameters(scope)
    return _request(scope, in_url, in_url)


def _request(scope: Scope, in_url: dict[str, str], given: dict[str, str]) -> QueryRequest:
    return QueryRequest(
        given.get("q", "").strip(),
        given,
        scope["method"] == "GET",
        in_url.get("pretty") == "true",
        _accepted(header(scope, b"accept")),
        "gzip" in header(scope, b"accept-encoding"),
    )


def bound_parameters(text: str) -> dict[str, object]:
    """Return the bound parameters of a request; Go clients send `null` for none."""
    if not text:
        return {}
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        is_cut = "end of" in str(exc) or "unexpected end" in str(exc)
        reason = "unexpected EOF" if is_cut else str(exc)
        raise BadRequest(f"error parsing query parameters: {reason}") from exc
    if not isinstance(values, dict | None):
        found = _GO_TYPES[type(values)]
        raise BadRequest(
            f"error parsing query parameters: json: cannot unmarshal {found} into Go value of type "
            "map[string]interface {}"
        )
    for value in (values or {}).values():
        if isinstance(value, int) and value > _MAX_INT64:
            reason = f'strconv.ParseInt: parsing "{value}": value out of range'
            raise BadRequest(f"error parsing json value: {reason}")
    return values or {}


def _body_parameters(content_type: str, body: bytes) -> dict[str, str]:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _multipart_parameters(content_type, body)
    if kind == "application/x-www-form-urlencoded" and body:
        return parameters(body.decode("utf-8", "replace"))
    return {}


def _multipart_parameters(content_type: str, body: bytes) -> dict[str, str]:
    """Return the parts by name, also those that are files (`curl -F q=@file`)."""
    given: dict[str, str] = {}
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return given
    line = b"\r\n--" + (boundary[1] or boundary[2]).encode("latin-1")
    for part in (b"\r\n" + body).split(line)[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        if name := _PART_NAME.search(head):
            given.setdefault(name[1].decode("utf-8", "replace"), content.decode("utf-8", "replace"))
    return given


def _accepted(accept: str) -> str:
    """Return the first media type of an Accept header that we print beside JSON, else JSON."""
    for item in accept.split(","):
        name = item.partition(";")[0].strip().lower()
        if name in _MEDIA_TYPES:
            return name
        if name in {"application/json", "*/*", "application/*"}:
            break
    return JsonEncoder.media_type
