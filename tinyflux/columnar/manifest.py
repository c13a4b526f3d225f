"""The manifest: which files of a store are live. FORMAT.md is the law for the bytes.

A store is what its manifest names and the log from `first_log` on; every other file is rubbish of
an interrupted step. One replace of the manifest makes a step (flush, compaction, expiry) real, as a
whole. Opening a store costs the manifest and the series files, never the rows.
"""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from tinyflux.batch import MAX_TIME_NS, FieldType
from tinyflux.columnar.base import Shard
from tinyflux.columnar.files import MANIFEST_NAME, NAMES_NAME, write_file
from tinyflux.columnar.footer import SegmentInfo
from tinyflux.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tinyflux.columnar.files import FileSystem

_HEAD: Final = b"tinyflux manifest "
_VERSION: Final = 2
_WITHOUT_SHARDS: Final = 1  # all shards of one duration, on a grid that began in 1970


@dataclass(frozen=True, slots=True)
class SeriesFile:
    """A file that says which ids series have.

    Attributes:
        number: Its name.
        series: How many series it has.
        size_bytes: Its size.
        crc: CRC-32 of its bytes.
    """

    number: int
    series: int
    size_bytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of a store on disk.

    Attributes:
        shard_duration_ns: How long new shards are.
        first_log: Log files with a smaller number are dead.
        next_file: A number above those of all segment and series files there ever were.
        next_series: An id above those of all series there ever were before `first_log`.
        shards: The shards that have segments, ascending, without overlap.
        series: The series files, by ascending ids.
        fields: Measurement to its field keys and types.
        segments: The segments.
    """

    shard_duration_ns: int
    first_log: int = 1
    next_file: int = 1
    next_series: int = 0
    shards: tuple[Shard, ...] = ()
    series: tuple[SeriesFile, ...] = ()
    fields: Mapping[str, Mapping[str, FieldType]] = field(default_factory=dict)
    segments: tuple[SegmentInfo, ...] = ()


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest."""
    body = orjson.dumps(
        {
            "shard_duration_ns": manifest.shard_duration_ns,
            "first_log": manifest.first_log,
            "next_file": manifest.next_file,
            "next_series": manifest.next_series,
            "shards": list(map(tuple, manifest.shards)),
            "series": [dataclasses.astuple(file) for file in manifest.series],
            "fields": {
                name: {key: int(kind) for key, kind in fields.items()}
                for name, fields in manifest.fields.items()
            },
            "segments": [dataclasses.astuple(info) for info in manifest.segments],
        }
    )
    return _HEAD + b"%d %08x\n" % (_VERSION, zlib.crc32(body)) + body + b"\n"


def decode_manifest(data: bytes, path: Path) -> Manifest:
    """Return the manifest that bytes say.

    Raises:
        CorruptionError: They say none, or are not what was written. path is for the message.
    """
    head, _, body = data.partition(b"\n")
    version = next(
        (v for v in (_VERSION, _WITHOUT_SHARDS) if head.startswith(_HEAD + b"%d " % v)), 0
    )
    if not version:
        raise CorruptionError(path, 0, "not a manifest of a known version")
    if head != _HEAD + b"%d %08x" % (version, zlib.crc32(body[:-1])) or body[-1:] != b"\n":
        raise CorruptionError(path, None, "the checksum does not match")
    document = orjson.loads(body)
    segments = tuple(SegmentInfo(*entry) for entry in document["segments"])
    if version == _WITHOUT_SHARDS:
        document["shards"] = _shards_of_one_duration(segments, document["shard_duration_ns"])
    return Manifest(
        document["shard_duration_ns"],
        document["first_log"],
        document["next_file"],
        document["next_series"],
        tuple(Shard(*entry) for entry in document["shards"]),
        tuple(SeriesFile(*entry) for entry in document["series"]),
        {
            name: {key: FieldType(kind) for key, kind in fields.items()}
            for name, fields in document["fields"].items()
        },
        segments,
    )


def _shards_of_one_duration(
    segments: Sequence[SegmentInfo], duration_ns: int
) -> list[tuple[int, int]]:
    """Return the shards of segments as they were before the manifest said them."""
    firsts = sorted({info.shard_ns for info in segments})
    ends = [(first // duration_ns + 1) * duration_ns for first in firsts]
    return [(first, min(end - 1, MAX_TIME_NS)) for first, end in zip(firsts, ends, strict=True)]


def read_manifest(files: FileSystem, directory: Path) -> Manifest | None:
    """Return the manifest of a store, None when it has none yet.

    Raises:
        CorruptionError: It is damaged. The store must not be opened without it: its logs are not
            all of its data.
    """
    path = directory / MANIFEST_NAME
    if MANIFEST_NAME not in files.names(directory):
        return None
    return decode_manifest(files.read(path), path)


def write_manifest(files: FileSystem, directory: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the old one, as a whole or not at all, durably."""
    write_file(files, directory / MANIFEST_NAME, encode_manifest(manifest))


def write_names(files: FileSystem, directory: Path, names: Mapping[int, str]) -> None:
    """Note what the measurements of segments are called, for who rebuilds a lost manifest.

    Segments know what they were called when they were written: noted are those of before a rename.
    """
    document = {str(number): name for number, name in names.items()}
    write_file(files, directory / NAMES_NAME, orjson.dumps(document))


def read_names(files: FileSystem, directory: Path) -> dict[int, str]:
    """Return what `write_names` noted; {} when that cannot be read."""
    if NAMES_NAME not in files.names(directory):
        return {}
    try:
        document = orjson.loads(files.read(directory / NAMES_NAME))
        return {int(number): str(name) for number, name in document.items()}
    except (ValueError, AttributeError):
        return {}


def encode_series(ids: Sequence[int], keys: Sequence[bytes]) -> bytes:
    """Return the bytes of a series file; ids ascend."""
    head = np.array([len(ids)], "<i8").tobytes()
    lengths = np.fromiter(map(len, keys), "<i4", len(keys)).tobytes()
    return head + np.array(ids, "<i8").tobytes() + lengths + b"".join(keys)


def decode_series(data: bytes, file: SeriesFile, path: Path) -> list[tuple[int, bytes]]:
    """Return ids and series keys.

    Raises:
        CorruptionError: The bytes are not what was written. path is for the message.
    """
    if len(data) != file.size_bytes or zlib.crc32(data) != file.crc:
        raise CorruptionError(path, None, "the checksum does not match")
    (n,) = np.frombuffer(data, "<i8", 1).tolist()
    ids = np.frombuffer(data, "<i8", n, 8).tolist()
    lengths = np.frombuffer(data, "<i4", n, 8 + 8 * n)
    start = 8 + 12 * n
    ends = (start + np.cumsum(lengths, dtype=np.int64)).tolist()
    starts = [start, *ends[:-1]]
    return [(i, data[a:b]) for i, a, b in zip(ids, starts, ends, strict=True)]
