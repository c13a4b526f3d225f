"""POST /write: which database, retention policy and precision a request of InfluxDB 1.x means.

204 means durable (as the `sync` setting promises); everything else is JSON, since Telegraf retries
for ever what it cannot read. The body is never taken for a form, whatever its Content-Type says.
How it is taken: `gateway.intake`; what is done with it: `gateway.writer`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gateway.errors import BadRequest
from gateway.http import header, parameters
from gateway.writer import Write

if TYPE_CHECKING:
    from starlette.types import Scope

_MAX_KEPT: Final = 300  # bytes of a query string
_PASSWORD: Final = re.compile(rb"(?:\A|&)p=")


def describe(scope: Scope) -> Write:
    """Return what a request to /write wants written, without its body.

    Raises:
        BadRequest: It names no database.
    """
    query_string: bytes = scope["query_string"]
    # A client asks with the same parameters all day long. Those with a password are not kept.
    is_kept = len(query_string) <= _MAX_KEPT and _PASSWORD.search(query_string) is None
    read = _kept_parameters if is_kept else _parameters
    database, policy, precision, consistency = read(query_string)
    if not database:
        raise BadRequest("database is required")
    coding = header(scope, b"content-encoding")
    return Write(b"", database, policy, precision, coding, consistency)


def _parameters(query_string: bytes) -> list[str]:
    given = parameters(query_string.decode("latin-1"))
    return [given.get(name, "") for name in ("db", "rp", "precision", "consistency")]


_kept_parameters = lru_cache(maxsize=64)(_parameters)
