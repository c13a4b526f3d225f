"""POST /write: which database, retention policy and precision a request of InfluxDB 1.x means.

204 means durable (as the `sync` setting promises); everything else is JSON, since Telegraf retries
for ever what it cannot read. The body is never taken for a form, whatever its Content-Type says.
How it is taken: `gateway.intake`; what is done with it: `gateway.writer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import BadRequest
from gateway.http import header, url_parameters
from gateway.writer import Write

if TYPE_CHECKING:
    from starlette.types import Scope


def describe(scope: Scope) -> Write:
    """Return what a request to /write wants written, without its body.

    Raises:
        BadRequest: It names no database.
    """
    parameters = url_parameters(scope)
    database = parameters.get("db", "")
    if not database:
        raise BadRequest("database is required")
    return Write(
        b"",
        database,
        parameters.get("rp", ""),
        parameters.get("precision", ""),
        header(scope, b"content-encoding"),
        parameters.get("consistency", ""),
    )
