"""A run as the bytes of a segment: plain Parquet, and beside it what Parquet has no place for.

FORMAT.md, "Segments", is the law for the columns and their encodings; `segment` reads them.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from tinyflux.columnar import arrow
from tinyflux.columnar.footer import FORMAT_VERSION, METADATA_KEY, ROW_GROUP_ROWS, TAIL, TIME
from tinyflux.columnar.rowgroups import pack_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tinyflux.columnar.base import SeriesSet, TagColumn
    from tinyflux.columnar.scan import Run

_SAMPLE_ROWS: Final = 16_384  # on which encodings are tried


def encode_segment(
    run: Run,
    series: SeriesSet,
    row_group_rows: int = ROW_GROUP_ROWS,
    place: tuple[int, int] = (0, 0),
) -> tuple[bytes, int]:
    """Return a run as the bytes of a Parquet file.

    Args:
        run: At least one row.
        series: The series of the run, with all their tags; it may hold others too.
        row_group_rows: Rows of a row group: what a read has to decode at least.
        place: Where its shard begins, and its order in it, for a store that lost its manifest.

    Returns:
        data, footer_crc: the file, and its checksum as in `SegmentInfo`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if len(series) != len(run.ids):
        series = series.take(np.searchsorted(series.ids, run.ids))
    names = _Names(run.columns)
    arrays: dict[str, Any] = {TIME: arrow.from_times(run.times)}
    for key, tag in series.columns.items():
        if (tag.codes >= 0).any():
            arrays[names.tag(key)] = _tag_array(tag, run)
    for key, column in run.columns.items():
        arrays[names.field(key)] = arrow.from_column(column)
        if column.none is not None:
            arrays[names.none(key)] = arrow.from_flags(column.none)
    document = {
        "format": FORMAT_VERSION,
        "measurement": series.measurement,
        "tags": names.tags,
        "fields": {
            key: [names.fields[key], int(column.type), names.nones.get(key)]
            for key, column in run.columns.items()
        },
        "row_group_rows": row_group_rows,
        "place": place,
        "runs": pack_runs(run),
    }
    table = pa.table(arrays).replace_schema_metadata({METADATA_KEY: orjson.dumps(document)})
    dictionary, encodings = _encodings(arrays, names)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=row_group_rows,
        compression="zstd",
        compression_level=1,
        use_dictionary=dictionary,
        column_encoding=encodings,
        write_statistics=True,
        write_page_checksum=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    footer = int.from_bytes(data[-TAIL:-4], "little") + TAIL
    return data, zlib.crc32(data[-footer:])


class _Names:
    """The columns of a file: a name that is taken gets `.tag`, `.field` or `.none` behind it."""

    def __init__(self, fields: Iterable[str]) -> None:
        self._used = {TIME}
        self.fields: dict[str, str] = {}
        for key in fields:  # before the tags: a field keeps its name when a tag has the same
            self.fields[key] = self._free(key, ".field")
        self.tags: dict[str, str] = {}
        self.nones: dict[str, str] = {}

    def _free(self, name: str, suffix: str) -> str:
        while name in self._used:
            name += suffix
        self._used.add(name)
        return name

    def field(self, key: str) -> str:
        return self.fields[key]

    def tag(self, key: str) -> str:
        self.tags[key] = self._free(key, ".tag")
        return self.tags[key]

    def none(self, key: str) -> str:
        self.nones[key] = self._free(f"{key}.none", ".none")
        return self.nones[key]


def _tag_array(tag: TagColumn, run: Run) -> Any:  # pyarrow is untyped
    used, codes = np.unique(tag.codes, return_inverse=True)
    texts = [tag.values[code] if code >= 0 else None for code in used.tolist()]
    has = np.array([text is not None for text in texts])
    lengths = np.diff(run.offsets)
    valid = None if has.all() else np.repeat(has[codes], lengths)
    rows = np.repeat(codes.astype(np.int32), lengths)
    return arrow.from_codes(rows, valid, [text or "" for text in texts])


def _encodings(arrays: Mapping[str, Any], names: _Names) -> tuple[list[str], dict[str, str]]:
    """Return which columns are dictionary coded, and the encoding of the others."""
    import pyarrow as pa

    dictionary = list(names.tags.values())
    encodings = {TIME: "DELTA_BINARY_PACKED"}
    for name in names.fields.values():
        kind = arrays[name].type
        if pa.types.is_boolean(kind):
            continue
        plain = {"double": "BYTE_STREAM_SPLIT", "int64": "DELTA_BINARY_PACKED"}.get(
            str(kind), "PLAIN"
        )
        if _is_smaller_as_dictionary(arrays[name], plain):
            dictionary.append(name)
        else:
            encodings[name] = plain
    return dictionary, encodings


def _is_smaller_as_dictionary(array: Any, encoding: str) -> bool:
    """Return whether a dictionary makes a column smaller, tried on rows in its middle.

    Values that repeat win by a dictionary (2.0 against 6.4 bytes a value on floats with few
    distinct values), noise and counters by the other encodings; no rule of thumb told them apart.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sample = array.slice(max(0, (len(array) - _SAMPLE_ROWS) // 2), _SAMPLE_ROWS)
    sizes = []
    for use_dictionary in (True, False):
        sink = pa.BufferOutputStream()
        pq.write_table(
            pa.table({"a": sample}),
            sink,
            compression="zstd",
            compression_level=1,
            use_dictionary=use_dictionary,
            column_encoding=None if use_dictionary else {"a": encoding},
            write_statistics=False,
        )
        sizes.append(sink.getvalue().size)
    return bool(sizes[0] < sizes[1])
