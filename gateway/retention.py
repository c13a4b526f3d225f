"""Drops what is too old, at once and then periodically: shards, and what is in the trash."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from gateway import measurements, trash
from gateway.errors import InfluxError
from tinyflux.errors import TinyFluxError

if TYPE_CHECKING:
    from gateway.catalog import Catalog

_log = logging.getLogger(__name__)


async def run(catalog: Catalog, interval_s: float) -> None:
    """Look for ever, each time in a thread; cancel to stop. An interval of 0 never looks."""
    while interval_s:
        await asyncio.to_thread(look, catalog, time.time_ns())
        await asyncio.sleep(interval_s)


def look(catalog: Catalog, now_ns: int) -> None:
    """Drop what is too old."""
    expire(catalog, now_ns)
    empty_trash(catalog, now_ns)


def empty_trash(catalog: Catalog, now_ns: int) -> None:
    """Delete what has been in the trash for too long, and the oldest where there is too much."""
    try:
        purge_trash(catalog, trash.first_kept(catalog.trash, now_ns, catalog.kept_ns))
    except (InfluxError, TinyFluxError) as exc:
        _log.warning("trash not emptied error=%s", exc)


def purge_trash(catalog: Catalog, before_id: int) -> int:
    """Delete what is in the trash with smaller ids. Returns how many things these were.

    Raises:
        StorageError: The catalog could not be written.
    """
    # In this order: measurements wait for databases that have them.
    return catalog.purge_trash(before_id) + measurements.purge(catalog, before_id)


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
