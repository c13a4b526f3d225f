"""The footer of a segment: what a read has to know before it reads rows.

A Parquet footer, with one JSON text of ours in its key-value metadata: which column holds which tag
or field, and the run table, which says which rows belong to which series id (FORMAT.md,
"Segments"). The manifest has its checksum.
"""

from __future__ import annotations

import errno
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import orjson

from tinyflux.batch import FieldType
from tinyflux.columnar.rowgroups import RowGroups, unpack_runs
from tinyflux.errors import CorruptionError, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinyflux.batch import Int64s
    from tinyflux.columnar.files import FileSystem

ROW_GROUP_ROWS: Final = 16_384
METADATA_KEY: Final = b"tinyflux"
FORMAT_VERSION: Final = 1

TIME: Final = "time"
_MAGIC: Final = b"PAR1"
TAIL: Final = 8  # the length of the footer, and the magic
_MOST_INFLATED: Final = 10_000  # times that zstd and dictionaries make a column smaller


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What the manifest knows of a segment.

    Attributes:
        number: Names the segment in its store, ascending in time of creation, never used again.
        measurement: Its measurement.
        shard_ns: The first time of its shard.
        order: Its place among the segments of its measurement and shard: greater is newer.
        rows: How many rows it has.
        first_ns: Its smallest time.
        last_ns: Its greatest time.
        size_bytes: The size of the file.
        footer_crc: CRC-32 of the Parquet footer with its length and magic.
    """

    number: int
    measurement: str
    shard_ns: int
    order: int
    rows: int
    first_ns: int
    last_ns: int
    size_bytes: int
    footer_crc: int


_INFLATED: Final = 8  # times its bytes on disk that a footer takes once pyarrow has read it


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A footer, decoded.

    Attributes:
        metadata: pyarrow's FileMetaData.
        document: What is in it beside Parquet's own.
        fields: Field key to (column, type, column of explicit Nones or None).
        ids: int64[k], the series, ascending.
        offsets: int64[k + 1], their rows.
        firsts: int64[k], the first time of each series.
        lasts: int64[k], the last one.
        groups: The row groups.
    """

    metadata: Any
    document: Mapping[str, Any]
    fields: Mapping[str, tuple[str, FieldType, str | None]]
    ids: Int64s
    offsets: Int64s
    firsts: Int64s
    lasts: Int64s
    groups: RowGroups

    def nbytes(self) -> int:
        """Return about how much memory it takes."""
        arrays = 4 * self.ids.nbytes + len(self.document["runs"])
        return arrays + _INFLATED * int(self.metadata.serialized_size)


def read_footer(path: Path, info: SegmentInfo, files: FileSystem) -> Layout:
    """Return the footer of a segment.

    Raises:
        CorruptionError: It is not what the manifest says.
        StorageError: It cannot be read now.
    """
    import pyarrow.parquet as pq

    try:
        source = files.readable(path)
        with source.open("rb") if isinstance(source, Path) else source as file:
            _check(file, info)
            metadata = pq.read_metadata(file)
    except (ValueError, OSError) as exc:  # pyarrow's errors are ValueErrors too
        raise reading_error(exc, path, info.size_bytes) from exc
    document = orjson.loads(metadata.metadata[METADATA_KEY])
    ids, offsets, firsts, lasts = unpack_runs(document["runs"])
    bounds = _group_bounds(metadata)
    fields = {
        key: (column, FieldType(kind), none)
        for key, (column, kind, none) in document["fields"].items()
    }
    groups = RowGroups(document["row_group_rows"], bounds[:, 0], bounds[:, 1])
    return Layout(metadata, document, fields, ids, offsets, firsts, lasts, groups)


def describe(path: Path, number: int, place: tuple[int, int], files: FileSystem) -> SegmentInfo:
    """Return what a manifest would say of a file that none describes; its footer is believed.

    Args:
        path: The file.
        number: Its number.
        place: Where its shard begins, and its order, for files that do not say it.
        files: The file system.

    Raises:
        CorruptionError: It is no segment.
    """
    data = files.read(path)
    footer = int.from_bytes(data[-TAIL:-4], "little") + TAIL
    crc = zlib.crc32(data[-footer:])
    bare = SegmentInfo(number, "", *place, 0, 0, 0, len(data), crc)
    layout = read_footer(path, bare, files)
    shard_ns, order = layout.document.get("place", place)
    return replace(
        bare,
        measurement=layout.document["measurement"],
        shard_ns=shard_ns,
        order=order,
        rows=layout.metadata.num_rows,
        first_ns=int(layout.groups.firsts.min()),
        last_ns=int(layout.groups.lasts.max()),
    )


def _check(file: BinaryIO, info: SegmentInfo) -> None:
    """Compare size and footer of a file with what the manifest says.

    Raises:
        ValueError: They are not the same.
    """
    size = file.seek(0, 2)
    if size != info.size_bytes:
        raise ValueError("the size is not that of the manifest")
    file.seek(max(0, size - TAIL))
    tail = file.read(TAIL)
    length = int.from_bytes(tail[:4], "little") + TAIL
    if len(tail) < TAIL or tail[4:] != _MAGIC or length > size:
        raise ValueError("no Parquet footer at the end")
    file.seek(size - length)
    if zlib.crc32(file.read(length)) != info.footer_crc:
        raise ValueError("the checksum of the footer does not match")


def reading_error(exc: Exception, path: Path, size_bytes: int) -> Exception:
    """Return what an error of reading means: damage, or a machine that lacks something now.

    Args:
        exc: The error.
        path: The file.
        size_bytes: Its size.
    """
    if isinstance(exc, CorruptionError):
        return exc
    if isinstance(exc, FileNotFoundError):
        return CorruptionError(path, None, "the file is missing")
    if isinstance(exc, MemoryError):
        # A damaged page header may ask for any size: then it is the page, not the machine.
        asked = re.search(r"size (\d+)", str(exc))
        if asked is None or int(asked[1]) <= 2 * size_bytes * _MOST_INFLATED:
            return exc
    elif isinstance(exc, OSError) and exc.errno not in {None, errno.EIO}:
        return StorageError(exc.errno, f"{exc.strerror}: {path}")
    return CorruptionError(path, None, str(exc))


def _group_bounds(metadata: Any) -> Int64s:
    """Return int64[r, 2], the smallest and the greatest time of each row group."""
    bounds = np.empty((metadata.num_row_groups, 2), np.int64)
    for group in range(len(bounds)):
        statistics = metadata.row_group(group).column(0).statistics
        bounds[group] = statistics.min_raw, statistics.max_raw
    return bounds
