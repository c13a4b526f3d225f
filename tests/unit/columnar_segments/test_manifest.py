"""Manifest and series files: what was written is read, what was damaged is refused."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, FieldType, series_key
from tinyflux.columnar.files import OsFiles
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
from tinyflux.columnar.segment import SegmentInfo
from tinyflux.errors import CorruptionError

MANIFEST = Manifest(
    7,
    3,
    12,
    99,
    (SeriesFile(1, 2, 50, 2**32 - 1),),
    {"m\n ä": {"f": FieldType.FLOAT, "": FieldType.NONE}, "": {}},
    (SegmentInfo(5, "m\n ä", -7, 2, 10, MIN_TIME_NS, MAX_TIME_NS, 1000, 0),),
)
PATH = Path("manifest")


def test_manifest_round_trip() -> None:
    assert decode_manifest(encode_manifest(MANIFEST), PATH) == MANIFEST
    assert decode_manifest(encode_manifest(Manifest(1)), PATH) == Manifest(1)


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
