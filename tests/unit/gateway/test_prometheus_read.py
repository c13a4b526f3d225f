"""Prometheus' remote read: answers measured on influxd 1.6.7, as bytes, and where we differ."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cramjam
import numpy as np
import pytest
from hypothesis import given, strategies as st
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings
from gateway.prometheus.read import encoded_samples
from tests.unit.gateway.protobuf import message, sample, series, snappy, varint

if TYPE_CHECKING:
    from httpx2 import Response

PATH = "/api/v1/prom/read?db=t"
EQ, NE, RE, NRE = range(4)

A = series({"__name__": "up", "host": "a", "job": "x"}, [(1, 1000), (2, 2000), (3, 3000)])
B = series({"__name__": "up", "host": "b"}, [(10, 2000)])
OTHER = series({"__name__": "other", "host": "b"}, [(7, 2000)])


def matcher(kind: int, name: str, value: str) -> bytes:
    head = varint(1 << 3) + varint(kind) if kind else b""
    return message(3, head + message(2, name.encode()) + message(3, value.encode()))


def asked(start_ms: int, end_ms: int, *matchers: bytes) -> bytes:
    times = varint(1 << 3) + varint(start_ms) + varint(2 << 3) + varint(end_ms)
    return message(1, times + b"".join(matchers))


UP = matcher(EQ, "__name__", "up")


def read(client: TestClient, data: bytes, path: str = PATH) -> bytes:
    response = client.post(path, content=snappy(data))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-protobuf"
    assert response.headers["content-encoding"] == "snappy"
    return bytes(cramjam.snappy.decompress_raw(response.content))


def refused(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


@pytest.fixture
def filled(db: TestClient) -> TestClient:
    for data in (A, B, OTHER):
        db.post("/api/v1/prom/write?db=t", content=snappy(data))
    return db


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (asked(0, 5000, UP), A + B),
        (asked(0, 5000, UP, matcher(EQ, "host", "a")), A),
        (asked(0, 5000, UP, matcher(NE, "host", "a")), B),
        (asked(0, 5000, UP, matcher(RE, "host", "a|b")), A + B),
        (asked(0, 5000, UP, matcher(NRE, "host", "a")), B),
        (asked(0, 5000, UP, matcher(EQ, "job", "")), B),
        (asked(0, 5000, UP, matcher(NE, "job", "")), A),
        (asked(0, 5000, matcher(EQ, "host", "b")), OTHER + B),
        (asked(0, 5000, matcher(EQ, "__name__", "nope")), b""),
        (asked(5000, 0, UP), b""),
        (asked(2500, 5000, UP), series({"__name__": "up", "host": "a", "job": "x"}, [(3, 3000)])),
    ],
)
def test_series_are_those_that_influxd_found(
    filled: TestClient, query: bytes, found: bytes
) -> None:
    assert read(filled, query) == message(1, found)


def test_both_ends_of_the_range_belong_to_it(filled: TestClient) -> None:
    first = series({"__name__": "up", "host": "a", "job": "x"}, [(1, 1000), (2, 2000)])
    assert read(filled, asked(1000, 2000, UP)) == message(1, first + B)


def test_expressions_match_whole_labels_as_prometheus_means_them(filled: TestClient) -> None:
    assert read(filled, asked(0, 5000, matcher(RE, "__name__", "u"))) == message(1, b"")
    assert read(filled, asked(0, 5000, matcher(RE, "__name__", "u."))) == message(1, A + B)
    assert read(filled, asked(0, 5000, UP, matcher(RE, "host", "a|bc"))) == message(1, A)


def test_each_query_has_its_result(filled: TestClient) -> None:
    data = asked(0, 5000, UP) + asked(0, 5000, matcher(EQ, "__name__", "other"))
    assert read(filled, data) == message(1, A + B) + message(1, OTHER)


def test_points_of_other_writers_are_metrics_too(db: TestClient) -> None:
    lines = 'cpu,host=a value=3i,idle=1 1000000000\ncpu,host=b idle=2 1000000000\ntext value="x" 1'
    db.post("/write?db=t", content=lines)
    expected = series({"__name__": "cpu", "host": "a"}, [(3, 1000)])
    assert read(db, asked(0, 5000, matcher(RE, "__name__", ".*"))) == message(1, expected)


def test_of_the_points_within_a_millisecond_the_last_is_sent(db: TestClient) -> None:
    db.post("/write?db=t", content="m value=1 1000000\nm value=2 1900000\nm value=3 2000000")
    expected = series({"__name__": "m"}, [(2, 1), (3, 2)])
    assert read(db, asked(0, 2, matcher(EQ, "__name__", "m"))) == message(1, expected)


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        (PATH, snappy(asked(0, 5000)), "expected matcher"),
        (
            PATH,
            snappy(asked(0, 5000, UP, matcher(RE, "host", "("))),
            "error parsing regexp: missing closing ): `(`",
        ),
        (PATH, b"xx", "snappy: corrupt input"),
        (PATH, snappy(b"\xff\xff"), "unexpected EOF"),
        ("/api/v1/prom/read", snappy(asked(0, 5, UP)), "no database"),
        ("/api/v1/prom/read?db=zz", snappy(asked(0, 5, UP)), "no database"),
        (PATH + "&rp=zz", snappy(asked(0, 5, UP)), "invalid retention policy"),
        (PATH, snappy(asked(0, 5, matcher(4, "a", "b"))), "unknown match type 4"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_influxds_words(
    db: TestClient, path: str, body: bytes, error: str
) -> None:
    assert refused(db.post(path, content=body)) == (400, error)


def test_get_is_not_allowed(db: TestClient) -> None:
    assert db.get(PATH).status_code == 405


def test_more_points_than_a_select_may_read_are_refused() -> None:
    settings = Settings(max_select_points=2)
    with TestClient(create_app(settings, in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        client.post("/api/v1/prom/write?db=t", content=snappy(A))
        status, error = refused(client.post(PATH, content=snappy(asked(0, 5000, UP))))
    assert status == 400
    assert error.startswith("max-select-point limit exceeded: (3/2): ask for a shorter time range")


def test_reading_asks_for_the_right_to_read() -> None:
    settings = Settings(auth_enabled=True)
    with TestClient(create_app(settings, in_memory=True)) as client:
        root = {"u": "root", "p": "r"}
        client.post("/query", data={"q": "CREATE USER root WITH PASSWORD 'r' WITH ALL PRIVILEGES"})
        setup = (
            "CREATE DATABASE t; CREATE USER a WITH PASSWORD 'a'; CREATE USER b WITH PASSWORD 'b';"
            "GRANT READ ON t TO a; GRANT WRITE ON t TO b"
        )
        client.post("/query", params=root, data={"q": setup})
        body = snappy(asked(0, 5, UP))
        statuses = [
            client.post(PATH, content=body, headers=headers).status_code
            for headers in ({}, {"authorization": "Token a:a"}, {"authorization": "Token b:b"})
        ]
    assert statuses == [401, 200, 403]


@given(
    st.lists(st.tuples(st.floats(allow_nan=False), st.integers(-(2**43), 2**43)), min_size=1).map(
        lambda pairs: sorted(pairs, key=lambda pair: pair[1])
    )
)
def test_samples_are_written_as_one_by_one(pairs: list[tuple[float, int]]) -> None:
    values, times = zip(*pairs, strict=True)
    expected = b"".join(sample(*pair) for pair in pairs)
    assert encoded_samples(np.array(values, np.float64), np.array(times, np.int64)) == expected


def test_samples_are_doubles() -> None:
    assert encoded_samples(np.array([1.5]), np.array([300])) == (
        b"\x12\x0c\x09" + struct.pack("<d", 1.5) + b"\x10\xac\x02"
    )
