"""/api/v2/buckets: the retention policies of all databases as version 2's buckets.

A bucket's id is its name, `database/policy`. Labels, members and owners there are none: 405, as
InfluxDB 1.12 answers. Source: influxdb 1.10 to 1.12 documentation.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.errors import BadRequest, Forbidden, NotFound
from gateway.http import read_json, url_parameters
from gateway.policies import PolicyChange
from gateway.v2 import policy_of, split_bucket
from tinyflux.batch import MAX_TIME_NS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from gateway.auth import Authentication
    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.policies import RetentionPolicy
    from gateway.users import User

MAX_BUCKETS: Final = 100  # influxdb 2 MaxPageSize
SECOND_NS: Final = 1_000_000_000
MAX_SECONDS: Final = MAX_TIME_NS // SECOND_NS
_PARTS: Final = ("/labels", "/members", "/owners")


class BucketEndpoints:
    """The endpoints of buckets; each takes a request and returns its answer."""

    def __init__(
        self, catalog: Catalog, authentication: Authentication, settings: Settings
    ) -> None:
        self._catalog = catalog
        self._authentication = authentication
        self._settings = settings

    async def buckets(self, request: Request) -> Response:
        """List the buckets that the user sees, or those of one `name` or `id`; POST creates one.

        A page has `limit` of them, from `offset` or behind the id `after`; `links` has the next.
        """
        user = await self._authentication.user(request.scope)
        if request.method == "POST":
            return await self._create(request, user)
        parameters = url_parameters(request.scope)
        wanted = parameters.get("name") or parameters.get("id")
        found = [
            document_of(database.name, policy)
            for database in self._catalog.databases.values()
            if user is not None and user.sees(database.name)
            for policy in database.policies
            if not wanted or wanted == f"{database.name}/{policy.name}"
        ]
        first = _count(parameters, "offset", 0)
        if after := parameters.get("after"):
            ids = [bucket["id"] for bucket in found]
            first = ids.index(after) + 1 if after in ids else len(ids)
        limit = min(_count(parameters, "limit", MAX_BUCKETS), MAX_BUCKETS)
        end = first + limit
        links = {"self": f"/api/v2/buckets?limit={limit}&offset={first}"}
        if limit and end < len(found):
            links["next"] = f"/api/v2/buckets?limit={limit}&offset={end}"
        return _json({"links": links, "buckets": found[first:end]})

    async def bucket(self, request: Request) -> Response:
        """Answer one bucket; PATCH changes how long its points are kept, DELETE drops it."""
        user = await self._authentication.user(request.scope)
        name: str = request.path_params["id"]
        if name.endswith(_PARTS) and name.count("/") > 1:
            raise HTTPException(405, "Method Not Allowed")
        database, policy = split_bucket(name)
        if user is None or not user.sees(database):
            raise NotFound("bucket not found")
        entry = policy_of(self._catalog, database, policy)
        if request.method == "PATCH":
            return await self._change(request, user, database, entry)
        if request.method == "DELETE":
            _check_admin(user, "deleting")
            await asyncio.to_thread(self._catalog.drop_policy, database, entry.name)
            return Response(status_code=204)
        return _json(document_of(database, entry))

    async def _create(self, request: Request, user: User | None) -> Response:
        """Create a retention policy, and its database if that is not there."""
        _check_admin(user, "creating")
        document = await read_json(request, self._settings)
        database, policy = split_bucket(str(document.get("name") or ""))
        if not policy:
            raise BadRequest("name of a bucket must be database/policy")
        change = change_of(document.get("retentionRules", []))
        create = self._catalog.create_policy
        if database not in self._catalog.databases:
            await asyncio.to_thread(self._catalog.create_database, database, change, policy)
        else:
            await asyncio.to_thread(create, database, policy, change)
        return _json(document_of(database, policy_of(self._catalog, database, policy)), 201)

    async def _change(
        self, request: Request, user: User, database: str, policy: RetentionPolicy
    ) -> Response:
        _check_admin(user, "changing")
        document = await read_json(request, self._settings)
        if document.get("name", f"{database}/{policy.name}") != f"{database}/{policy.name}":
            raise BadRequest("the name of a bucket cannot be changed")
        if "retentionRules" in document:
            change = change_of(document["retentionRules"])
            await asyncio.to_thread(self._catalog.alter_policy, database, policy.name, change)
        return _json(document_of(database, policy_of(self._catalog, database, policy.name)))


def document_of(database: str, policy: RetentionPolicy) -> dict[str, object]:
    """Return a bucket as it is answered."""
    name = f"{database}/{policy.name}"
    rule = {
        "type": "expire",
        "everySeconds": policy.duration_ns // SECOND_NS,
        "shardGroupDurationSeconds": policy.shard_duration_ns // SECOND_NS,
    }
    return {
        "id": name,
        "name": name,
        "type": "user",
        "rp": policy.name,
        "retentionRules": [rule],
    }


def change_of(rules: object) -> PolicyChange:
    """Return what a list of retention rules says: nothing or 0 keeps points for ever.

    Raises:
        BadRequest: It is no such list.
    """
    rule = (rules or [{}])[0] if isinstance(rules, list) else None
    if not isinstance(rule, dict):
        raise BadRequest("retentionRules must be a list of objects")
    seconds = {name: rule.get(name) for name in ("everySeconds", "shardGroupDurationSeconds")}
    for name, value in seconds.items():
        if value is not None and (type(value) is not int or not 0 <= value <= MAX_SECONDS):
            raise BadRequest(f"{name} must be a whole number of seconds")
    every, shard = ((value or 0) * SECOND_NS for value in seconds.values())
    return PolicyChange(every, shard or None)


def _check_admin(user: User | None, what: str) -> None:
    if user is None or not user.is_admin:
        raise Forbidden(f"{what} a bucket requires admin privilege")


def _count(parameters: Mapping[str, str], name: str, default: int) -> int:
    text = parameters.get(name, "")
    if text and not (text.isascii() and text.isdigit()):
        raise BadRequest(f"{name} must be a whole number")
    return int(text) if text else default


def _json(document: Mapping[str, object], status: int = 200) -> Response:
    content = orjson.dumps(document) + b"\n"
    return Response(content, status, headers={"content-type": "application/json"})
