"""Prometheus' remote write: what InfluxDB 1.x makes of it, measured on influxd 1.6.7."""

from __future__ import annotations

import math
import struct
import sys
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings
from gateway.prometheus import write as remote_write
from tests.unit.gateway.protobuf import STALE, label, message, sample, series, snappy, varint

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Ask

PATH = "/api/v1/prom/write?db=t"
HEADERS = {  # as Prometheus 2 and 3 send
    "content-encoding": "snappy",
    "content-type": "application/x-protobuf",
    "user-agent": "Prometheus/3.1.0",
    "x-prometheus-remote-write-version": "0.1.0",
}


def write(client: TestClient, data: bytes, path: str = PATH) -> tuple[int, str]:
    response = client.post(path, content=snappy(data), headers=HEADERS)
    return response.status_code, response.text


def stored(ask: Ask, measurement: str) -> object:
    [result] = ask(f"SELECT * FROM {measurement}", "t", epoch="ms")
    return result.get("series")


def test_metric_becomes_a_measurement_and_its_labels_tags(db: TestClient, ask: Ask) -> None:
    labels = {"__name__": "up", "instance": "a:9090", "job": "x y", "empty": ""}
    samples = [(1.0, 1_700_000_000_000), (0.5, 1_700_000_015_000)]
    assert write(db, series(labels, samples)) == (204, "")
    assert stored(ask, "up") == [
        {
            "name": "up",
            "columns": ["time", "__name__", "instance", "job", "value"],
            "values": [
                [1_700_000_000_000, "up", "a:9090", "x y", 1],
                [1_700_000_015_000, "up", "a:9090", "x y", 0.5],
            ],
        }
    ]


def test_series_without_name_has_influxdbs_measurement(db: TestClient, ask: Ask) -> None:
    assert write(db, series({"j": "1"}, [(3, 5)]) + series({}, [(4, 6)]))[0] == 204
    assert ask("SHOW SERIES", "t")[0]["series"] == [
        {
            "columns": ["key"],
            "values": [["prom_metric_not_specified"], ["prom_metric_not_specified,j=1"]],
        }
    ]


def test_stale_markers_nan_and_infinities_are_no_points(db: TestClient, ask: Ask) -> None:
    values = [STALE, math.nan, math.inf, -math.inf, 2.0]
    samples = [(value, time) for time, value in enumerate(values, 1)]
    assert write(db, series({"__name__": "m"}, samples))[0] == 204
    assert stored(ask, "m") == [
        {"name": "m", "columns": ["time", "__name__", "value"], "values": [[5, "m", 2]]}
    ]
    assert write(db, series({"__name__": "gone"}, [(STALE, 6)]))[0] == 204
    assert stored(ask, "gone") is None


@pytest.mark.parametrize("time_ms", [-5, 0, 1_700_000_000_123])
def test_time_is_in_milliseconds_of_either_sign(db: TestClient, ask: Ask, time_ms: int) -> None:
    assert write(db, series({"__name__": "m"}, [(1, time_ms)]))[0] == 204
    [result] = ask("SELECT value FROM m", "t", epoch="ns")
    assert result["series"] == [
        {"name": "m", "columns": ["time", "value"], "values": [[time_ms * 1_000_000, 1]]}
    ]


def test_what_protobuf_leaves_out_is_zero(db: TestClient, ask: Ask) -> None:
    assert write(db, message(1, label("__name__", "m") + message(2, b"")))[0] == 204
    assert stored(ask, "m") == [
        {"name": "m", "columns": ["time", "__name__", "value"], "values": [[0, "m", 0]]}
    ]


def test_everything_that_is_not_read_is_skipped(db: TestClient, ask: Ask) -> None:
    exemplar = message(3, label("trace", "1") + b"\x11" + bytes(8))
    histogram = message(4, b"\x08\x96\x01" + b"\x15" + bytes(4))
    metadata = message(3, b"\x08\x01" + message(2, b"m"))
    data = metadata + series({"__name__": "m"}, [(1, 1)], exemplar + histogram) + metadata
    assert write(db, data)[0] == 204
    assert stored(ask, "m") is not None


def test_labels_after_their_samples_are_those_of_the_series(db: TestClient, ask: Ask) -> None:
    for value in ("a", "b"):
        data = message(1, sample(1, 1) + label("__name__", "m") + label("host", value))
        assert write(db, data)[0] == 204
    [result] = ask("SHOW SERIES FROM m", "t")
    assert result["series"] == [
        {"columns": ["key"], "values": [["m,__name__=m,host=a"], ["m,__name__=m,host=b"]]}
    ]


def test_label_set_seen_before_stays_the_same_series(
    db: TestClient, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_write, "MAX_REMEMBERED", 3)
    for time_ms in range(3):
        for host in range(5):
            data = series({"__name__": "m", "host": f"h{host}"}, [(host, time_ms)])
            assert write(db, data)[0] == 204
    [result] = ask("SELECT count(value), max(value) FROM m GROUP BY host", "t", epoch="ms")
    series_list = result["series"]
    assert isinstance(series_list, list)
    assert [(entry["tags"], entry["values"]) for entry in series_list] == [
        ({"host": f"h{host}"}, [[0, 3, host]]) for host in range(5)
    ]


def test_label_called_time_and_times_beyond_int64_are_dropped_with_the_reason(
    db: TestClient, ask: Ask
) -> None:
    good = series({"__name__": "ok"}, [(1, 1)])
    status, body = write(db, series({"__name__": "m", "time": "x"}, [(1, 1), (2, 2)]) + good)
    assert status == 400
    assert body == (
        '{"error":"partial write: invalid tag key: input tag \\"time\\" on measurement \\"m\\" '
        'is invalid dropped=2"}\n'
    )
    assert stored(ask, "ok") is not None
    for time_ms in (1 << 62, -(1 << 63)):
        status, body = write(db, series({"__name__": "m"}, [(1, time_ms)]))
        assert (status, body) == (
            400,
            '{"error":"partial write: time outside range dropped=1"}\n',
        )


def test_series_of_too_long_a_key_are_dropped(db: TestClient, ask: Ask) -> None:
    longest = 65535 - len("m,__name__=m,a=") - 4 - len("value")
    good = series({"__name__": "m", "a": "x" * longest}, [(1, 1)])
    assert write(db, good) == (204, "")
    status, body = write(db, series({"__name__": "m", "a": "x" * (longest + 1)}, [(1, 1)]) + good)
    assert status == 400
    assert body == '{"error":"partial write: max key length exceeded: 65536 > 65535 dropped=1"}\n'
    assert ask("SHOW SERIES EXACT CARDINALITY", "t")[0]["series"][0]["values"] == [[1]]  # type: ignore[index]


def test_field_of_another_type_drops_its_points_only(db: TestClient, ask: Ask) -> None:
    db.post("/write?db=t", content=b"m value=1i 1\n")
    data = series({"__name__": "m"}, [(1, 1)]) + series({"__name__": "ok"}, [(1, 1)])
    status, body = write(db, data)
    assert status == 400
    assert "already exists as type integer dropped=1" in body
    assert stored(ask, "ok") is not None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(b"", "snappy: corrupt input", id="nothing"),
        pytest.param(b"\xff\xff\xff", "snappy: corrupt input", id="size without end"),
        pytest.param(b"\xff" * 12, "snappy: corrupt input", id="size too long"),
        pytest.param(b"hello world", "snappy: corrupt input", id="text"),
        pytest.param(b"\x80\x80\x80\x20", "snappy: corrupt input", id="size out of proportion"),
        pytest.param(snappy(b"\x0a\xff"), "unexpected EOF", id="size cut"),
        pytest.param(snappy(b"\x0a\x05ab"), "unexpected EOF", id="content cut"),
        pytest.param(snappy(message(1, b"\x12\x7f")), "unexpected EOF", id="sample too long"),
        pytest.param(snappy(message(1, message(2, b"\x09ab"))), "unexpected EOF", id="double cut"),
        pytest.param(snappy(b"\x0b"), "proto: illegal wireType 3", id="group"),
        pytest.param(snappy(b"\x08" + b"\xff" * 11), "proto: integer overflow", id="varint"),
    ],
)
def test_broken_body_is_refused_whole(db: TestClient, ask: Ask, body: bytes, error: str) -> None:
    response = db.post(PATH, content=body, headers=HEADERS)
    assert (response.status_code, response.json()) == (400, {"error": error})
    assert ask("SHOW MEASUREMENTS", "t") == [{"statement_id": 0}]


def test_every_cut_of_a_message_is_refused_or_a_message(db: TestClient) -> None:
    data = series({"__name__": "m", "host": "a"}, [(1, 1_700_000_000_000)])
    for end in range(1, len(data)):
        assert write(db, data[:end])[0] == 400


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/api/v1/prom/write", 400, "database is required"),
        ("/api/v1/prom/write?db=x", 404, 'database not found: "x"'),
        ("/api/v1/prom/write?db=t&rp=x", 500, "retention policy not found: x"),
        ("/api/v1/prom/write?db=t&consistency=x", 400, "invalid consistency level"),
    ],
)
def test_bad_parameters_are_refused_in_influxds_words(
    db: TestClient, path: str, status: int, error: str
) -> None:
    data = series({"__name__": "m"}, [(1, 1)])
    response = db.post(path, content=snappy(data), headers=HEADERS)
    assert (response.status_code, response.json()) == (status, {"error": error})


def test_remote_write_2_is_refused_with_415_so_that_the_sender_comes_with_1(db: TestClient) -> None:
    content_type = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
    response = db.post(PATH, content=b"", headers={**HEADERS, "content-type": content_type})
    assert response.status_code == 415
    assert "2.0" in response.json()["error"]


def test_body_that_would_inflate_over_the_limit_answers_413() -> None:
    settings = Settings(max_inflated_bytes=10_000)
    with TestClient(create_app(settings, in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        assert write(client, message(9, bytes(10_001)))[0] == 413
        bomb = varint(1 << 40) + b"\x00" * 100
        assert client.post(PATH, content=bomb, headers=HEADERS).status_code == 413
        assert write(client, message(9, bytes(9_000)))[0] == 204


def test_without_snappy_the_answer_says_what_to_install(
    db: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cramjam", None)
    response = db.post(PATH, content=b"", headers=HEADERS)
    assert response.status_code == 501
    assert "tinyflux-gateway[prometheus]" in response.json()["error"]


def test_samples_are_the_doubles_that_were_sent(db: TestClient, ask: Ask) -> None:
    bits = [0x0000000000000001, 0x7FEFFFFFFFFFFFFF, 0xC00921FB54442D18]
    values = [struct.unpack("<d", struct.pack("<Q", number))[0] for number in bits]
    write(db, series({"__name__": "m"}, [(value, time) for time, value in enumerate(values)]))
    [result] = ask("SELECT value FROM m", "t", epoch="ms")
    assert result["series"] == [
        {
            "name": "m",
            "columns": ["time", "value"],
            "values": [[0, 5e-324], [1, 1.7976931348623157e308], [2, -3.141592653589793]],
        }
    ]
