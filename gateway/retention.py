"""Drops expired shards: looks at every policy with a duration, at once and then periodically."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from gateway.errors import InfluxError
from tinyflux.errors import TinyFluxError

if TYPE_CHECKING:
    from gateway.catalog import Catalog

_log = logging.getLogger(__name__)


async def run(catalog: Catalog, interval_s: float) -> None:
    """Expire for ever, each look in a thread; cancel to stop. An interval of 0 never looks."""
    while interval_s:
        await asyncio.to_thread(expire, catalog, time.time_ns())
        await asyncio.sleep(interval_s)


def expire(catalog: Catalog, now_ns: int) -> int:
    """Drop the shards that ended before their policy's duration. Returns how many were dropped.

    A store that fails is logged and tried again at the next look; the others are not kept waiting.
    """
    n_dropped = 0
    for database in catalog.databases.values():
        for policy in database.policies:
            if not policy.duration_ns:
                continue
            try:
                storage = catalog.storage(database.name, policy.name)
                n_dropped += storage.expire(now_ns - policy.duration_ns)
            except (InfluxError, TinyFluxError) as exc:
                _log.warning(
                    "retention failed database=%s policy=%s error=%s",
                    database.name,
                    policy.name,
                    exc,
                )
    return n_dropped
