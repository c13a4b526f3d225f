"""Expired shards go; everything else stays."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gateway import retention
from gateway.policies import DAY_NS, HOUR_NS, PolicyChange
from tinyflux.batch import BatchBuilder, series_key

if TYPE_CHECKING:
    import pytest

    from gateway.catalog import Catalog

NOW_NS = 1_700_000_000_000_000_000


def write(catalog: Catalog, policy: str, *times: int) -> None:
    builder = BatchBuilder()
    for time_ns in times:
        builder.add(series_key("m", []), time_ns, [("v", 1.0)])
    catalog.storage("t", policy).append_batch(builder.build())


def times_of(catalog: Catalog, policy: str) -> list[int]:
    from tinyflux.columnar.base import ScanRequest

    frames = catalog.storage("t", policy).scan(ScanRequest("m"))
    return [int(time_ns) for frame in frames for time_ns in frame.times]


def test_shards_older_than_the_duration_go_and_infinite_policies_keep_all(
    catalog: Catalog,
) -> None:
    catalog.create_database("t")
    catalog.create_policy("t", "short", PolicyChange(2 * HOUR_NS))
    old, young = NOW_NS - 10 * DAY_NS, NOW_NS - HOUR_NS
    for policy in ("autogen", "short"):
        write(catalog, policy, old, young)
    retention.expire(catalog, NOW_NS)
    assert times_of(catalog, "short") == [young]
    assert times_of(catalog, "autogen") == [old, young]


def test_store_that_fails_does_not_keep_the_others_waiting(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tinyflux.errors import StorageError

    catalog.create_database("t", PolicyChange(2 * HOUR_NS), "a")
    catalog.create_policy("t", "b", PolicyChange(2 * HOUR_NS))
    write(catalog, "b", NOW_NS - 10 * DAY_NS)
    broken = catalog.storage("t", "a")

    def fail(_: int) -> int:
        raise StorageError("disk on fire")

    monkeypatch.setattr(broken, "expire", fail)
    retention.expire(catalog, NOW_NS)
    assert times_of(catalog, "b") == []
    assert "retention failed database=t policy=a error=disk on fire" in caplog.text


def test_first_look_comes_at_once(catalog: Catalog) -> None:
    catalog.create_database("t", PolicyChange(2 * HOUR_NS), "a")
    write(catalog, "a", time.time_ns() - 10 * DAY_NS)

    async def until_gone() -> None:
        looking = asyncio.create_task(retention.run(catalog, 3600))
        while times_of(catalog, "a"):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)
        looking.cancel()

    asyncio.run(asyncio.wait_for(until_gone(), 30))


def test_interval_of_0_never_looks(catalog: Catalog) -> None:
    asyncio.run(asyncio.wait_for(retention.run(catalog, 0), 30))
