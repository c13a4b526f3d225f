"""Manifest and series files: what was written is read, what was damaged is refused."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, FieldType, series_key
from tinyflux.columnar.base import Shard
from tinyflux.columnar.files import OsFiles
from tinyflux.columnar.footer import SegmentInfo
from tinyflux.columnar.manifest import (
    Manifest,
    SeriesFile,
    decode_manifest,
    decode_series,
    encode_manifest,
    encode_series,
    read_manifest,
    write_manifest,
)
from tinyflux.errors import CorruptionError

MANIFEST = Manifest(
    7,
    3,
    12,
    99,
    (Shard(MIN_TIME_NS, -8), Shard(-7, 70)),
    (SeriesFile(1, 2, 50, 2**32 - 1),),
    {"m\n ä": {"f": FieldType.FLOAT, "": FieldType.NONE}, "": {}},
    (SegmentInfo(5, "m\n ä", -7, 2, 10, MIN_TIME_NS, MAX_TIME_NS, 1000, 0),),
)
PATH = Path("manifest")


def test_manifest_round_trip() -> None:
    assert decode_manifest(encode_manifest(MANIFEST), PATH) == MANIFEST
    assert decode_manifest(encode_manifest(Manifest(1)), PATH) == Manifest(1)


def test_manifest_of_before_there_were_shards_of_several_durations_is_read() -> None:
    body = (
        b'{"shard_duration_ns":100,"first_log":1,"next_file":9,"next_series":0,"series":[],'
        b'"fields":{},"segments":[[1,"m",-100,1,1,-50,-50,9,0],[2,"m",200,2,1,210,210,9,0],'
        b'[3,"n",200,3,1,220,220,9,0],[4,"n",-9223372036854775806,4,1,-9223372036854775806,'
        b"-9223372036854775806,9,0]]}"
    )
    old = b"tinyflux manifest 1 %08x\n" % zlib.crc32(body) + body + b"\n"
    manifest = decode_manifest(old, PATH)
    first = Shard(MIN_TIME_NS, -9223372036854775801)
    assert manifest.shards == (first, Shard(-100, -1), Shard(200, 299))
    assert decode_manifest(encode_manifest(manifest), PATH) == manifest


def test_manifest_is_replaced_as_a_whole(tmp_path: Path) -> None:
    files = OsFiles()
    assert read_manifest(files, tmp_path) is None
    for manifest in (Manifest(1), MANIFEST):
        write_manifest(files, tmp_path, manifest)
        assert read_manifest(files, tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["manifest"]


def test_every_flipped_bit_of_a_manifest_is_found() -> None:
    good = encode_manifest(MANIFEST)
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError):
            decode_manifest(bytes(bad), PATH)


def test_a_manifest_that_was_cut_is_found() -> None:
    good = encode_manifest(MANIFEST)
    for size in range(len(good)):
        with pytest.raises(CorruptionError):
            decode_manifest(good[:size], PATH)


def test_series_round_trip_and_damage() -> None:
    keys = [series_key("m", [("host", "a")]), series_key("", []), series_key("ä", [("k", None)])]
    data = encode_series([0, 5, 2**40], keys)
    file = SeriesFile(1, 3, len(data), zlib.crc32(data))
    assert decode_series(data, file, PATH) == list(zip([0, 5, 2**40], keys, strict=True))
    for bad in (data[:-1], data + b"x", data[:9] + b"\x01" + data[10:]):
        with pytest.raises(CorruptionError):
            decode_series(bad, file, PATH)
