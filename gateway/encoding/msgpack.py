"""Results as MessagePack, for clients that ask for it (influxdb-python does always).

Times are extension type 5: int64 seconds and int32 nanoseconds, big endian; with an epoch they are
integers. Integers and floats are always 9 bytes long, which the format allows: so the rows of a
series without long strings are one byte matrix, from which the unused bytes are cut, without a loop
over the values.
An array says how long it is before its first entry. So a long answer that is made while it is taken
is taken twice: once to count, once to print.
Source: influxd 1.x services/httpd/response_writer.go msgpackFormatter, measured;
https://github.com/msgpack/msgpack.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.encoding.times import SECOND_NS, to_epoch
from tinyflux.batch import Bools, FieldType, Int64s
from tinyflux.columnar.base import FieldColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.results import Column, Result, Series

Bytes: TypeAlias = NDArray[np.uint8]

_NIL: Final = 0xC0
_FALSE: Final = 0xC2
_FLOAT64: Final = 0xCB
_INT64: Final = 0xD3
_TIME: Final = b"\xc7\x0c\x05"  # ext 8, 12 bytes, type 5
_HELD_ROWS: Final = 400_000  # of an answer that are not made again: the first part has no more
_WIDE_TEXT: Final = 256  # bytes: shorter ones stand in a matrix
_PIECE_CELLS: Final = 100_000  # printed in one call, about a megabyte


class AnswerChanged(Exception):
    """What was printed promised something else: the answer is broken off."""


class _Extent(NamedTuple):
    """How many rows a series has, and whether more follow elsewhere."""

    rows: int
    partial: bool


class MsgpackEncoder:
    """Prints results as MessagePack maps."""

    media_type = "application/x-msgpack"

    def __init__(self, epoch_ns: int = 0, n_results: int = 1) -> None:
        """Choose how to print.

        Args:
            epoch_ns: Times in units of so many nanoseconds; 0 is the time extension.
            n_results: How many results a document has.
        """
        self._epoch_ns = epoch_ns
        self._n_results = n_results

    def document(self, results: Iterable[Result]) -> Iterator[bytes]:
        """Yield one map of all results, in pieces of about a megabyte.

        Raises:
            AnswerChanged: The series were others when they were taken again.
        """
        yield b"\x81" + pack("results") + _array(self._n_results)
        for result in results:
            yield from self._result(result)

    def error(self, text: str) -> bytes:
        """Return the map of a request that failed as a whole."""
        return pack({"error": text})

    def _result(self, result: Result) -> Iterator[bytes]:
        taken, extents = _counted(result.series)
        if result.error:  # influxd leaves the statement's number out
            yield pack({"error": result.error})
            return
        n_keys = 2 + bool(result.messages) + result.partial
        yield _map(n_keys) + pack("statement_id") + pack(result.statement_id)
        if result.messages:
            messages = [{"level": level, "text": text} for level, text in result.messages]
            yield pack("messages") + pack(messages)
        yield pack("series") + _array(len(extents))
        yield from self._all_series(result.series if taken is None else taken, extents)
        if result.partial:
            yield pack("partial") + pack(True)

    def _all_series(
        self, all_series: Iterable[Series], extents: Iterable[_Extent]
    ) -> Iterator[bytes]:
        """Yield series, those that are open as one with the next.

        Raises:
            AnswerChanged: They have not these extents.
        """
        expected, is_inside, left = iter(extents), False, 0
        for series in all_series:
            if not is_inside:
                extent = next(expected, None)
                if extent is None:
                    raise AnswerChanged
                left = extent.rows
                yield self._head(series, extent)
            left -= len(series)
            is_inside = series.is_open
            if left < 0 or (left and not is_inside):
                raise AnswerChanged
            yield from self._rows(series)
            if series.partial and not is_inside:
                yield pack("partial") + pack(True)
        if is_inside or next(expected, None) is not None:
            raise AnswerChanged

    def _head(self, series: Series, extent: _Extent) -> bytes:
        head = _map(2 + bool(series.name) + bool(series.tags) + extent.partial)
        if series.name:
            head += pack("name") + pack(series.name)
        if series.tags:
            head += pack("tags") + pack(series.tags)
        return head + pack("columns") + pack(series.columns) + pack("values") + _array(extent.rows)

    def _rows(self, series: Series) -> Iterator[bytes]:
        span, step = series.span(), max(1, _PIECE_CELLS // max(1, len(series.columns)))
        for start in range(span.start, span.stop, step):
            yield self._values(replace(series, rows=slice(start, min(start + step, span.stop))))

    def _values(self, series: Series) -> bytes:
        columns: list[tuple[Bytes, Int64s] | Sequence[object]] = []
        for position, column in enumerate(series.cells()):
            if position == 0 and series.has_time:
                columns.append(self._times(column))
            else:
                columns.append(_packed_column(column))
        row = _array(len(columns))
        matrices = [column for column in columns if isinstance(column, tuple)]
        if len(matrices) == len(columns):
            return _joined(row, matrices, len(series))
        texts = [
            _cells(column) if isinstance(column, tuple) else map(pack, column) for column in columns
        ]
        return b"".join([row + b"".join(cells) for cells in zip(*texts, strict=True)])

    def _times(self, column: Column) -> tuple[Bytes, Int64s]:
        times = np.asarray(column.values if isinstance(column, FieldColumn) else column, np.int64)
        if self._epoch_ns:
            return _numbers(_INT64, to_epoch(times, self._epoch_ns), None)
        packed = np.empty(len(times), [("head", "u1", 3), ("seconds", ">i8"), ("ns", ">i4")])
        packed["head"] = np.frombuffer(_TIME, np.uint8)
        packed["seconds"] = times // SECOND_NS
        packed["ns"] = times % SECOND_NS
        return packed.view(np.uint8).reshape(len(times), 15), np.full(len(times), 15)


def _counted(all_series: Iterable[Series]) -> tuple[Sequence[Series] | None, list[_Extent]]:
    """Return series, None when they are so long that they are better made again, and their extents.

    Series that are open are one with the next.
    """
    held: list[Series] | None = []
    extents: list[_Extent] = []
    n_rows, before = 0, 0
    for series in all_series:
        rows = before + len(series)
        if before:
            extents.pop()
        extents.append(_Extent(rows, series.partial))
        before = rows if series.is_open else 0
        n_rows += len(series)
        if held is not None:
            held.append(series)
        if n_rows > _HELD_ROWS and not isinstance(all_series, list):
            held = None
    return held, extents


def pack(value: object) -> bytes:
    """Return a value as MessagePack: None, bool, int, float, str, list, tuple or dict."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes((value,))
        return (
            struct.pack(">Bq", _INT64, value) if value < 2**63 else struct.pack(">BQ", 0xCF, value)
        )
    if isinstance(value, float):
        return struct.pack(">Bd", _FLOAT64, value)
    if isinstance(value, str):
        data = value.encode()
        return _string_head(len(data)) + data
    if isinstance(value, dict):
        return _map(len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items())
    assert isinstance(value, list | tuple)
    return _array(len(value)) + b"".join(map(pack, value))


def _string_head(size: int) -> bytes:
    if size < 32:
        return bytes((0xA0 | size,))
    if size < 256:
        return struct.pack(">BB", 0xD9, size)
    return struct.pack(">BH", 0xDA, size) if size < 65536 else struct.pack(">BI", 0xDB, size)


def _array(size: int) -> bytes:
    if size < 16:
        return bytes((0x90 | size,))
    return struct.pack(">BH", 0xDC, size) if size < 65536 else struct.pack(">BI", 0xDD, size)


def _map(size: int) -> bytes:
    return bytes((0x80 | size,)) if size < 16 else struct.pack(">BH", 0xDE, size)


def _packed_column(column: Column) -> tuple[Bytes, Int64s] | Sequence[object]:
    """Return the cells as uint8[n, width] and int64[n] bytes used, or as values if one is long."""
    if not isinstance(column, FieldColumn):
        return column
    values, valid = column.values, column.valid
    if column.type is FieldType.FLOAT:
        return _numbers(_FLOAT64, values, valid)
    if column.type is FieldType.INTEGER:
        return _numbers(_INT64, values, valid)
    if column.type is FieldType.BOOLEAN:
        bits = (values.astype(np.uint8) + np.uint8(_FALSE)).reshape(-1, 1)
        if valid is not None:
            bits[~valid] = _NIL
        return bits, np.ones(len(bits), np.int64)
    texts: list[str | None] = values.tolist()
    if valid is not None:
        texts = [text if ok else None for text, ok in zip(texts, valid.tolist(), strict=True)]
    packed = {text: pack(text) for text in set(texts)}
    width = max(map(len, packed.values()), default=0)
    if width > _WIDE_TEXT:
        return texts
    cells = [packed[text] for text in texts]
    matrix: Bytes = np.array(cells, f"S{width}").view(np.uint8).reshape(len(cells), width)
    return matrix, np.fromiter(map(len, cells), np.int64, len(cells))


def _numbers(head: int, values: NDArray[np.generic], valid: Bools | None) -> tuple[Bytes, Int64s]:
    number = ">f8" if head == _FLOAT64 else ">i8"
    packed = np.empty(len(values), [("head", "u1"), ("value", number)])
    packed["head"] = head
    packed["value"] = values
    sizes = np.full(len(values), 9)
    if valid is not None:
        packed["head"][~valid] = _NIL
        sizes[~valid] = 1
    return packed.view(np.uint8).reshape(len(values), 9), sizes


def _joined(row: bytes, columns: list[tuple[Bytes, Int64s]], n_rows: int) -> bytes:
    """Return the cells of all rows, one after another, each row with its head."""
    head = np.tile(np.frombuffer(row, np.uint8), (n_rows, 1))
    matrix = np.hstack([head, *(cells for cells, _ in columns)])
    if all((sizes == cells.shape[1]).all() for cells, sizes in columns):
        return matrix.tobytes()
    used = [np.ones(head.shape, np.bool_)]
    used += [np.arange(cells.shape[1]) < sizes[:, None] for cells, sizes in columns]
    joined: bytes = matrix[np.hstack(used)].tobytes()
    return joined


def _cells(column: tuple[Bytes, Int64s]) -> list[bytes]:
    cells, sizes = column
    return [bytes(cell[:size]) for cell, size in zip(cells, sizes.tolist(), strict=True)]
