"""What InfluxDB 1.x answers of version 2's API: /api/v2/write, /query (no) and /delete.

A bucket is `database` or `database/policy`; organisations are not looked at, the token is
`user:password` (`gateway.auth`). The edge puts `code` and `message` beside `error` in refusals.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import orjson
from starlette.responses import Response

from gateway.conditions import compile_condition
from gateway.errors import BadRequest, Forbidden, NotFound, StatementError
from gateway.http import header, read_json, url_parameters
from gateway.policies import DEFAULT_POLICY
from gateway.rights import authorize_write
from gateway.timerange import parse_time
from gateway.writer import Write
from grammar import ast
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.columnar.base import DeleteRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.types import Scope

    from gateway.auth import Authentication
    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.policies import RetentionPolicy
    from tinyflux.columnar.base import ColumnarStorage

PRECISIONS: Final = ("ns", "us", "ms", "s")
CODES: Final = {  # influxdb 2 kit/platform/errors
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    413: "request too large",
    500: "internal error",
    501: "not implemented",
    503: "unavailable",
}

_TERM: Final = re.compile(
    r"""\s*(?P<key>"(?:[^"\\]|\\.)*"|[^\s"'=!~<>()]+)\s*=\s*"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*(?P<next>\bAND\b|$)""",
    re.IGNORECASE | re.DOTALL,
)


def split_bucket(bucket: str) -> tuple[str, str]:
    """Return database and retention policy of a bucket; "" is the default policy.

    Raises:
        BadRequest: There is no database in it.
    """
    database, _, policy = bucket.partition("/")
    if not database:
        raise BadRequest("bucket is required: database or database/policy")
    return database, policy


def policy_of(catalog: Catalog, database: str, policy: str) -> RetentionPolicy:
    """Return the policy of a bucket; "" is the default one.

    Raises:
        NotFound: There is no such database or policy; 404, where version 1 says 500.
    """
    entry = catalog.databases.get(database)
    if entry is None:
        raise NotFound(f'database not found: "{database}"')
    if not entry.has_policy(policy or entry.default_policy):
        raise NotFound(f"retention policy not found: {policy or entry.default_policy}")
    return entry.policy(policy)


def with_code(refusal: Response) -> Response:
    """Return a refusal with version 2's `code` and `message` beside version 1's `error`."""
    document = orjson.loads(refusal.body)
    code = CODES.get(refusal.status_code, "invalid" if refusal.status_code < 500 else CODES[500])
    document |= {"code": code, "message": document["error"]}
    headers = {name: value for name, value in refusal.headers.items() if name != "content-length"}
    return Response(orjson.dumps(document) + b"\n", refusal.status_code, headers)


class V2Endpoints:
    """The endpoints of version 2; each takes a request and returns its answer."""

    def __init__(
        self, catalog: Catalog, authentication: Authentication, settings: Settings
    ) -> None:
        self._catalog = catalog
        self._authentication = authentication
        self._settings = settings

    def describe_write(self, scope: Scope) -> Write:
        """Return what a request to /api/v2/write wants written, without its body.

        Raises:
            BadRequest: No bucket, or a precision that version 2 does not have.
            NotFound: The bucket's retention policy does not exist.
        """
        parameters = url_parameters(scope)
        database, policy = split_bucket(parameters.get("bucket", ""))
        precision = parameters.get("precision") or "ns"
        if precision not in PRECISIONS:
            raise BadRequest(f'invalid precision "{precision}" (use ns, us, ms or s)')
        if database in self._catalog.databases:
            policy_of(self._catalog, database, policy)
        creates = self._settings.v2_creates_databases and policy in {"", DEFAULT_POLICY}
        coding = header(scope, b"content-encoding")
        return Write(b"", database, policy, precision, coding, creates_database=creates)

    async def query(self, request: Request) -> Response:
        """Refuse Flux as influxd does where it is switched off."""
        if request.method == "OPTIONS":
            return Response()
        await self._authentication.user(request.scope)
        raise Forbidden("Flux query service disabled. Ask InfluxQL at /query instead.")

    async def delete(self, request: Request) -> Response:
        """Delete the points of a bucket that a predicate matches, from `start` until `stop`.

        Source: influxdb 1.10 services/httpd; `stop` itself is not deleted.
        """
        user = await self._authentication.user(request.scope)
        bucket = url_parameters(request.scope).get("bucket", "")
        database, policy = split_bucket(bucket)
        policy_of(self._catalog, database, policy)
        authorize_write(user, database)
        document = await read_json(request, self._settings)
        start_ns = max(_time(document, "start"), MIN_TIME_NS)
        stop_ns = min(_time(document, "stop"), MAX_TIME_NS)
        terms = read_predicate(str(document.get("predicate") or ""))
        storage = self._catalog.storage(database, policy)
        await asyncio.to_thread(delete_points, storage, terms, start_ns, stop_ns)
        return Response(headers={"content-type": "application/json"})


# --- delete ---------------------------------------------------------------------------------------
def read_predicate(text: str) -> list[tuple[str, str]]:
    """Return the pairs of `key = "value" AND ...`; [] of a blank text.

    Raises:
        BadRequest: Anything else; version 2 takes no more either.
    """
    terms: list[tuple[str, str]] = []
    at = 0
    is_open = bool(text.strip())
    while is_open:
        term = _TERM.match(text, at)
        if term is None:
            raise BadRequest(f'predicate must be key="value" AND ...: {text[at : at + 80]!r}')
        terms.append((_unquoted(term["key"]), _unquoted(term["value"])))
        at = term.end()
        is_open = bool(term["next"])
    return terms


def delete_points(
    storage: ColumnarStorage, terms: list[tuple[str, str]], start_ns: int, stop_ns: int
) -> None:
    """Delete the points with all of these tag values from `start_ns` until before `stop_ns`.

    Args:
        storage: Of the bucket.
        terms: Tag keys and values; of the key `_measurement` the measurement.
        start_ns: ns since 1970 UTC.
        stop_ns: ns since 1970 UTC.

    Raises:
        BadRequest: A key is a field; nothing is deleted.
    """
    names = {value for key, value in terms if key == "_measurement"}
    tags = [term for term in terms if term[0] != "_measurement"]
    requests = []
    for name in storage.measurements():
        if names - {name}:
            continue
        fields = storage.field_keys(name)
        for key, _ in tags:
            if key in fields or key in {"_field", "_value", "_time", "time"}:
                raise BadRequest(f'only tags can be in a predicate: "{key}"')
        query = compile_condition(_condition(tags), fields)
        requests.append(DeleteRequest(name, query, start_ns, stop_ns - 1))
    for request in requests if stop_ns > start_ns else ():
        storage.delete(request)


def _condition(tags: list[tuple[str, str]]) -> ast.Expr | None:
    condition: ast.Expr | None = None
    for key, value in tags:
        term = ast.BinaryExpr("=", ast.VarRef(key), ast.StringLiteral(value))
        condition = term if condition is None else ast.BinaryExpr("AND", condition, term)
    return condition


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if text[0] in "\"'" else text


def _time(document: Mapping[str, object], name: str) -> int:
    text = document.get(name)
    try:
        if isinstance(text, str):
            return parse_time(text)
    except StatementError:
        pass
    raise BadRequest(f"{name} must be a time like 2009-01-02T23:00:00Z")
