"""Client libraries as they are installed, against a server process.

influxdb (version 1) and influxdb-client (version 2) speak to it with nothing changed but the
address.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from influxdb import DataFrameClient, InfluxDBClient
from influxdb.exceptions import InfluxDBClientError
from influxdb_client import (
    BucketRetentionRules,
    InfluxDBClient as InfluxDB2Client,
    Point,
    WriteOptions,
    WritePrecision,
)
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from tests.e2e.conftest import Server, until, values

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

START_NS = 1_700_000_000_000_000_000
FLAGS = ("--udp-port", "0", "--udp-batch-ms", "10", "--log-level", "info")


@pytest.fixture
def server(process: Server) -> Server:
    """A server that has the empty database `t`; the process is shared."""
    process.query("DROP DATABASE t; DROP DATABASE new; DROP DATABASE udp; CREATE DATABASE t")
    return process


# --- influxdb 5.3, for InfluxDB 1.x ---------------------------------------------------------------
@pytest.fixture(params=[False, True], ids=["plain", "gzip"])
def v1(server: Server, request: pytest.FixtureRequest) -> Iterator[InfluxDBClient]:
    """A client of the database t; with gzip it says so on every request, also without a body."""
    host, port = server.address
    client = InfluxDBClient(host, port, database="t", gzip=request.param, retries=1)
    yield client
    client.close()


def test_influxdb_python_writes_points_and_reads_them(v1: InfluxDBClient) -> None:
    points: list[dict[str, Any]] = [
        {
            "measurement": "cpu load",
            "tags": {"host": "a,b=c", "empty": "", "region": "eu west"},
            "time": START_NS + i,
            "fields": {"f": i + 0.5, "i": i, "s": 'say "hi" \\ é', "b": i % 2 == 0, "big": 1e16},
        }
        for i in range(3)
    ]
    assert v1.write_points(points)
    rows = list(v1.query('SELECT * FROM "cpu load"', epoch="ns").get_points())
    assert rows == [
        {
            "time": START_NS + i,
            "host": "a,b=c",
            "region": "eu west",
            "f": i + 0.5,
            "i": i,
            "s": 'say "hi" \\ é',
            "b": i % 2 == 0,
            "big": 1e16,
        }
        for i in range(3)
    ]


@pytest.mark.parametrize(
    ("precision", "unit_ns"),
    [("n", 1), ("u", 10**3), ("ms", 10**6), ("s", 10**9), ("m", 60 * 10**9), ("h", 3600 * 10**9)],
)
def test_influxdb_python_writes_in_every_precision(
    v1: InfluxDBClient, server: Server, precision: str, unit_ns: int
) -> None:
    v1.write_points(
        [{"measurement": "m", "time": 400_000, "fields": {"v": 1.0}}], time_precision=precision
    )
    assert values(server, "SELECT v FROM m") == [[400_000 * unit_ns, 1]]


def test_influxdb_python_writes_lines_in_batches_with_tags_and_policy(
    v1: InfluxDBClient, server: Server
) -> None:
    v1.create_retention_policy("p", "INF", "1", "t")
    lines = [f"m v={i}i {START_NS + i}" for i in range(2500)]
    assert v1.write_points(lines, protocol="line", batch_size=1000, retention_policy="p")
    assert v1.write_points([{"measurement": "m", "fields": {"v": 1}}], tags={"dc": "x"})
    assert values(server, "SELECT count(v), sum(v) FROM p.m") == [[0, 2500, 2499 * 1250]]
    assert values(server, "SHOW TAG VALUES FROM m WITH KEY = dc") == [["dc", "x"]]


def test_influxdb_python_administers_databases_policies_and_users(v1: InfluxDBClient) -> None:
    assert v1.ping() == "1.12.4"
    v1.create_database("new")
    assert {"name": "new"} in v1.get_list_database()
    v1.create_retention_policy("week", "7d", "1", "new", default=True, shard_duration="1d")
    policies = {policy["name"]: policy for policy in v1.get_list_retention_policies("new")}
    assert policies["week"]["duration"] == "168h0m0s"
    assert policies["week"]["default"]
    v1.drop_retention_policy("week", "new")
    v1.drop_database("new")
    assert {"name": "new"} not in v1.get_list_database()
    assert v1.write_points([])  # as Home Assistant starts: a body of one line feed
    v1.write(["m,host=a v=1 1", ""], params={"db": "t"}, protocol="line")
    assert v1.get_list_measurements() == [{"name": "m"}]
    assert v1.get_list_series() == ["m,host=a"]
    v1.delete_series(measurement="m", tags={"host": "a"})
    assert v1.get_list_series() == []


def test_influxdb_python_hears_the_errors_of_influxdb(v1: InfluxDBClient) -> None:
    v1.write_points([{"measurement": "m", "time": 1, "fields": {"v": 1.0}}])
    with pytest.raises(InfluxDBClientError, match="already exists as type float dropped=1") as info:
        v1.write_points(["m v=true 2", "m v=2.5 3"], protocol="line")
    assert info.value.code == 400
    assert len(list(v1.query("SELECT v FROM m").get_points())) == 2
    v1.switch_database("nowhere")
    with pytest.raises(InfluxDBClientError, match="database not found") as info:
        v1.write_points([{"measurement": "m", "fields": {"v": 1}}])
    assert info.value.code == 404
    with pytest.raises(InfluxDBClientError, match="error parsing query"):
        v1.query("SELEC v")


def test_influxdb_python_gets_chunks_parameters_and_several_statements(v1: InfluxDBClient) -> None:
    v1.write_points([f"m,host=h{i % 2} v={i} {START_NS + i}" for i in range(10)], protocol="line")
    first, second = v1.query("SELECT count(v) FROM m; SHOW TAG VALUES WITH KEY = host")
    assert next(first.get_points())["count"] == 10
    assert [row["value"] for row in second.get_points()] == ["h0", "h1"]
    bound = v1.query("SELECT v FROM m WHERE host = $h AND v > $v", bind_params={"h": "h1", "v": 4})
    assert [row["v"] for row in bound.get_points()] == [5, 7, 9]


def test_influxdb_python_gets_chunks_as_json(server: Server) -> None:
    host, port = server.address
    headers = {"Accept": "application/json"}  # in MessagePack it can read one chunk only
    client = InfluxDBClient(host, port, database="t", headers=headers)
    client.write_points(
        [f"m,host=h{i % 2} v={i} {START_NS + i}" for i in range(10)], protocol="line"
    )
    chunks = list(client.query("SELECT v FROM m GROUP BY host", chunked=True, chunk_size=2))
    client.close()
    found = [[row["v"] for row in chunk.get_points(tags={"host": "h1"})] for chunk in chunks]
    assert [part for part in found if part] == [[1, 3], [5, 7], [9]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client is older than its pandas
def test_influxdb_python_data_frames_come_back_as_they_went(server: Server) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    host, port = server.address
    client = DataFrameClient(host, port, database="t")
    index = pandas.date_range("2023-11-14", periods=5, freq="min", tz="UTC", unit="ns")
    frame = pandas.DataFrame({"f": [0.5, 1.5, None, 3.5, 4.5], "n": range(5)}, index=index)
    assert client.write_points(frame, "m", tags={"host": "a"})
    found = client.query("SELECT f, n FROM m")["m"]
    assert found.index.equals(index)
    assert found["n"].tolist() == [0, 1, 2, 3, 4]
    assert found["f"].fillna(-1).tolist() == [0.5, 1.5, -1, 3.5, 4.5]
    texts = ["a,b", 'say "x"', "back\\slash", "line\nfeed", "ü ☃"]
    local = pandas.DataFrame({"s": texts, "b": [True, False] * 2 + [True]}, index=index)
    assert client.write_points(local.tz_convert("Europe/Berlin"), "text")
    found = client.query("SELECT s, b FROM text")["text"]
    assert found.index.equals(index)
    assert found["s"].tolist() == texts
    assert found["b"].tolist() == [True, False, True, False, True]
    thirds = pandas.DataFrame({"x": [1 / 3, 1e22]}, index=index[:2])
    assert client.write_points(thirds, "p", numeric_precision=3)
    assert client.query("SELECT x FROM p")["p"]["x"].tolist() == [0.333, 1e22]
    client.close()


def test_home_assistant_starts_and_writes_as_its_integration_does(v1: InfluxDBClient) -> None:
    assert {"name": "t"} in v1.get_list_database()
    assert v1.write_points([])  # a body of one line feed
    tags = {"domain": "sensor", "entity_id": "kitchen_temp"}
    fields = {"value": 21.5, "friendly_name_str": 'Küche, "T"', "list_str": "['a', 'b']"}
    time = "2024-01-01T12:00:00.5+01:00"
    assert v1.write_points([{"measurement": "°C", "tags": tags, "time": time, "fields": fields}])
    text = "select mean(value) as value from \"°C\" where entity_id='kitchen_temp'"
    assert [row["value"] for row in v1.query(text).get_points()] == [21.5]
    [row] = v1.query('select * from "°C"').get_points()
    assert row == {"time": "2024-01-01T11:00:00.500000Z", **tags, **fields}
    lost = {"measurement": "°C", "tags": tags, "fields": {"value": float("inf")}}
    with pytest.raises(InfluxDBClientError, match="invalid boolean"):  # it drops the batch at 400
        v1.write_points([lost])


def test_influxdb_python_sends_by_udp(server: Server) -> None:
    until(lambda: "udp listening" in server.log, "no word of UDP")
    found = re.search(r"udp listening address=127\.0\.0\.1:(\d+) database=udp", server.log)
    assert found
    client = InfluxDBClient(server.address[0], use_udp=True, udp_port=int(found[1]))
    assert client.write_points([{"measurement": "m", "time": START_NS, "fields": {"v": 1.5}}])
    client.udp_socket.close()
    client.close()
    expected = [[START_NS, 1.5]]
    databases = "SHOW DATABASES"
    until(lambda: ["udp"] in values(server, databases), "no database")  # type: ignore[operator]
    until(lambda: "series" in server.query("SELECT v FROM m", db="udp")[0], "no point")
    assert values(server, "SELECT v FROM m", "udp") == expected


# --- influxdb-client 1.50, for InfluxDB 2 ---------------------------------------------------------
@pytest.fixture(params=[False, True], ids=["plain", "gzip"])
def v2(server: Server, request: pytest.FixtureRequest) -> Iterator[InfluxDB2Client]:
    with InfluxDB2Client(server.url, token="", org="me", enable_gzip=request.param) as client:
        yield client


def points(count: int) -> list[Point]:
    return [
        Point("cpu load")
        .tag("host", "a,b c")
        .field("f", i + 0.5)
        .field("i", i)
        .field("s", 'say "hi"')
        .time(START_NS + i, WritePrecision.NS)
        for i in range(count)
    ]


@pytest.mark.parametrize("bucket", ["t", "t/autogen", "new"])
def test_influxdb_client_writes_at_once(v2: InfluxDB2Client, server: Server, bucket: str) -> None:
    assert v2.ping()
    v2.write_api(write_options=SYNCHRONOUS).write(bucket, "me", points(3))
    database = bucket.partition("/")[0]
    text = 'SELECT host, f, i, s FROM "cpu load"'
    assert values(server, text, database) == [
        [START_NS + i, "a,b c", i + 0.5, i, 'say "hi"'] for i in range(3)
    ]


def test_influxdb_client_writes_in_batches(v2: InfluxDB2Client, server: Server) -> None:
    failures: list[object] = []
    options = WriteOptions(batch_size=500, flush_interval=100, max_retries=0)
    with v2.write_api(options, error_callback=lambda *error: failures.append(error)) as api:
        for point in points(2300):
            api.write("t", "me", point)
    assert failures == []
    assert values(server, 'SELECT count(i), sum(i) FROM "cpu load"') == [[0, 2300, 2299 * 1150]]


@pytest.mark.parametrize(
    ("precision", "unit_ns"),
    [
        (WritePrecision.NS, 1),
        (WritePrecision.US, 10**3),
        (WritePrecision.MS, 10**6),
        (WritePrecision.S, 10**9),
    ],
)
def test_influxdb_client_writes_in_every_precision(
    v2: InfluxDB2Client, server: Server, precision: WritePrecision, unit_ns: int
) -> None:
    api = v2.write_api(write_options=SYNCHRONOUS)
    api.write("t", "me", "m v=1 1700000000", write_precision=precision)
    assert values(server, "SELECT v FROM m") == [[1_700_000_000 * unit_ns, 1]]


def test_influxdb_client_reads_why_a_write_was_refused(v2: InfluxDB2Client, server: Server) -> None:
    api = v2.write_api(write_options=SYNCHRONOUS)
    with pytest.raises(ApiException) as info:
        api.write("t", "me", ["m v=1 1", "bad", "m v=2 2"])
    assert info.value.status == 400
    assert info.value.message == "partial write: unable to parse 'bad': missing fields dropped=0"
    assert values(server, "SELECT count(v) FROM m") == [[0, 2]]
    with pytest.raises(ApiException) as info:
        api.write("t/nowhere", "me", "m v=1 1")
    assert info.value.status == 404
    assert info.value.message == "retention policy not found: nowhere"


def test_influxdb_client_deletes_and_manages_buckets(v2: InfluxDB2Client, server: Server) -> None:
    server.client.post("/write?db=t&precision=s", content=b"m,h=a v=1 1\nm,h=b v=1 1\nm,h=a v=1 9")
    v2.delete_api().delete(
        "1970-01-01T00:00:00Z", "1970-01-01T00:00:05Z", '_measurement="m" AND h="a"', "t", "me"
    )
    assert values(server, "SELECT h, v FROM m") == [[10**9, "b", 1], [9 * 10**9, "a", 1]]
    found = v2.buckets_api().find_bucket_by_name("t/autogen")
    assert found.retention_rules[0].every_seconds == 0
    assert v2.buckets_api().find_bucket_by_name("t/nowhere") is None
    server.query("CREATE DATABASE t2; CREATE DATABASE t3")
    names = [bucket.name for bucket in v2.buckets_api().find_buckets_iter(limit=1)]
    assert len(names) == len(set(names))
    assert {"t/autogen", "t2/autogen", "t3/autogen"} <= set(names)
    rules = [BucketRetentionRules(type="expire", every_seconds=7200)]
    made = v2.buckets_api().create_bucket(bucket_name="t/new", org="0" * 16, retention_rules=rules)
    made.retention_rules[0].every_seconds = 86_400
    v2.buckets_api().update_bucket(made)
    [result] = server.query("SHOW RETENTION POLICIES ON t")
    assert ["new", "24h0m0s", "1h0m0s", 1, False] in result["series"][0]["values"]  # type: ignore[index]
    v2.buckets_api().delete_bucket(made)
    assert v2.buckets_api().find_bucket_by_name("t/new") is None
    assert v2.version() == "1.12.4"
    assert v2.build() == "OSS"
