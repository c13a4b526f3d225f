"""Client libraries for asyncio: aioinflux (version 1) and influxdb-client's (version 2)."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of 2019, and it says so about newer packages
    import aioinflux
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.e2e.conftest import Server

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

START_NS = 1_700_000_000_000_000_000


def run(server: Server, work: Callable[[aioinflux.InfluxDBClient], Awaitable[object]]) -> Any:
    """Return what some work with a client of the database t gives."""

    async def main() -> object:
        host, port = server.address
        async with aioinflux.InfluxDBClient(host=host, port=port, db="t") as client:
            return await work(client)

    return asyncio.run(main())


def columns(answer: Any) -> object:
    [result] = answer["results"]
    return result["series"][0]["columns"], result["series"][0]["values"]


def test_aioinflux_writes_points_and_reads_them(server: Server) -> None:
    async def work(client: aioinflux.InfluxDBClient) -> object:
        await client.ping()
        await client.create_database("t")
        fields = {"v": 1.5, "i": 3, "b": True, "s": 'q"'}
        point = {"measurement": "m", "tags": {"a": "x y"}, "fields": fields, "time": START_NS}
        assert await client.write([point])
        assert await client.write(f"m v=2 {START_NS + 10**9}")
        return columns(await client.query("SELECT * FROM m"))

    assert run(server, work) == (
        ["time", "a", "b", "i", "s", "v"],
        [
            [START_NS, "x y", True, 3, 'q"', 1.5],
            [START_NS + 10**9, None, None, None, None, 2],
        ],
    )


def test_aioinflux_reads_chunks_and_hears_refusals(server: Server) -> None:
    async def work(client: aioinflux.InfluxDBClient) -> object:
        await client.write("\n".join(f"m v={i} {START_NS + i}" for i in range(5)))
        chunks = await client.query("SELECT v FROM m", chunked=True, chunk_size=2)
        sizes = [len(columns(chunk)[1]) async for chunk in chunks]  # type: ignore[index]
        with pytest.raises(aioinflux.InfluxDBWriteError) as refusal:
            await client.write("bad")
        with pytest.raises(aioinflux.InfluxDBError) as error:
            await client.query("SELECT FROM")
        return sizes, str(refusal.value), str(error.value)

    assert run(server, work) == (
        [2, 2, 1],
        "Error writing data (400 - Bad Request): unable to parse 'bad': missing fields",
        "error parsing query: found FROM, expected identifier, string, number, bool at line 1,"
        " char 8",
    )


@pytest.mark.parametrize("enable_gzip", [False, True], ids=["plain", "gzip"])
def test_influxdb_client_async_writes(server: Server, *, enable_gzip: bool) -> None:
    async def main() -> None:
        async with InfluxDBClientAsync(
            server.url, token="", org="me", enable_gzip=enable_gzip
        ) as client:
            assert await client.ping()
            lines = [f"m,host=a v={i}i {START_NS + i}" for i in range(500)]
            assert await client.write_api().write("t", "me", lines)

    asyncio.run(main())
    [result] = server.query("SELECT count(v), sum(v) FROM m", db="t", epoch="ns")
    assert result["series"][0]["values"] == [[0, 500, 124_750]]  # type: ignore[index]
