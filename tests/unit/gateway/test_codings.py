"""Codings with extras: zstd, and gzip and deflate by isal; the limits are the same for all."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard
from isal import isal_zlib
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings
from gateway.errors import BadRequest, TooLarge
from gateway.http import inflate

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Ask

LINES = b"cpu,host=a v=1 1\ncpu,host=b v=2 2\n"
ZSTD = {"content-encoding": "zstd"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(zstandard.compress(LINES), id="one frame"),
        pytest.param(zstandard.compress(LINES[:17]) + zstandard.compress(LINES[17:]), id="two"),
        pytest.param(zstandard.ZstdCompressor(write_content_size=False).compress(LINES), id="size"),
        pytest.param(zstandard.ZstdCompressor(write_checksum=True).compress(LINES), id="checksum"),
    ],
)
def test_zstd_body_is_stored_as_what_it_holds(db: TestClient, ask: Ask, body: bytes) -> None:
    assert db.post("/write?db=t", content=body, headers=ZSTD).status_code == 204
    assert ask("SHOW SERIES", "t")[0]["series"] == [
        {"columns": ["key"], "values": [["cpu,host=a"], ["cpu,host=b"]]}
    ]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (LINES, "zstd: invalid header"),
        (zstandard.compress(LINES)[:-3], "zstd: unexpected EOF"),
        (zstandard.compress(LINES)[:2], "zstd: unexpected EOF"),
        (zstandard.compress(LINES) + b"junk", "zstd: invalid header"),
    ],
    ids=["plain", "cut", "cut in the header", "junk behind"],
)
def test_broken_zstd_stores_nothing(db: TestClient, ask: Ask, body: bytes, error: str) -> None:
    response = db.post("/write?db=t", content=body, headers=ZSTD)
    assert (response.status_code, response.json()) == (400, {"error": error})
    assert ask("SHOW SERIES", "t") == [{"statement_id": 0}]


RAW = zlib.compressobj(wbits=-15)
GOOD = [
    pytest.param("gzip", gzip.compress(LINES), id="gzip"),
    pytest.param("x-gzip", gzip.compress(LINES[:9]) + gzip.compress(LINES[9:]), id="two members"),
    pytest.param("gzip", gzip.compress(LINES, 0), id="gzip stored"),
    pytest.param("deflate", zlib.compress(LINES), id="deflate"),
    pytest.param("deflate", RAW.compress(LINES) + RAW.flush(), id="raw deflate"),
]


@pytest.fixture(params=[zlib, isal_zlib], ids=["zlib", "isal"])
def _both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http.deflate", request.param)


@pytest.mark.usefixtures("_both")
@pytest.mark.parametrize(("coding", "body"), GOOD)
def test_gzip_and_deflate_are_undone(coding: str, body: bytes) -> None:
    assert inflate(body, coding, 1_000_000, 250) == LINES
    with pytest.raises(TooLarge):
        inflate(body, coding, len(LINES) - 1, 250)
    for size in (len(body) - 1, len(body) // 2):
        with pytest.raises(BadRequest, match="unexpected EOF"):
            inflate(body[:size], coding, 1_000_000, 250)
    flipped = body[:-1] + bytes([body[-1] ^ 1])
    if body is not GOOD[-1].values[1]:  # raw deflate has no checksum
        with pytest.raises(BadRequest, match=r": invalid (checksum|header)|corrupt input"):
            inflate(flipped, coding, 1_000_000, 250)


@pytest.mark.usefixtures("_both")
def test_gzip_of_many_pieces_inflates_to_what_it_was() -> None:
    data = os.urandom(100_000) + bytes(5_000_000) + os.urandom(100_000)
    assert inflate(gzip.compress(data), "gzip", 10_000_000, 250) == data
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(TooLarge):
        inflate(bomb, "gzip", 1_000_000_000, 250)


def test_zstd_of_many_blocks_inflates_to_what_it_was() -> None:
    data = os.urandom(400_000)
    assert inflate(zstandard.compress(data), "zstd", 1_000_000, 250) == data


def test_zstd_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = zstandard.compress(bytes(200_000_000))
    with pytest.raises(TooLarge):
        inflate(bomb, "zstd", 1_000_000_000, 250)
    with TestClient(create_app(Settings(max_inflated_bytes=1000), in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        response = client.post("/write?db=t", content=bomb, headers=ZSTD)
        assert response.status_code == 413


def test_without_its_package_the_answer_says_what_to_install(
    db: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    response = db.post("/write?db=t", content=zstandard.compress(LINES), headers=ZSTD)
    assert response.status_code == 501
    assert "tinyflux-gateway[zstd]" in response.json()["error"]
