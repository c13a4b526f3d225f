"""Results as CSV: one table after another, a new header where statement or columns change.

Times are always integers. A result with an error prints `error` and the text, as influxd from 1.8
on does.
Source: influxd 1.x services/httpd/response_writer.go csvFormatter, measured.
"""

from __future__ import annotations

import csv
import io
from itertools import repeat
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.encoding.numbers import plain_float, printable, printable_floats
from gateway.encoding.times import to_epoch
from tinyflux.batch import FieldType
from tinyflux.columnar.base import FieldColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.results import Column, Result, Series

_TAG_ESCAPES: Final = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})


class CsvEncoder:
    """Prints the results of one answer; it remembers the last header."""

    media_type = "text/csv"

    def __init__(self, epoch_ns: int = 0) -> None:
        """Choose how times print: as numbers of `epoch_ns` nanoseconds; 0 is 1."""
        self._epoch_ns = epoch_ns or 1
        self._statement = -1
        self._columns: list[str] = []

    def document(self, results: Iterable[Result]) -> Iterator[bytes]:
        """Yield the tables of the results, a piece for each series."""
        for result in results:
            for series in result.series:
                yield self._table(result.statement_id, series)
            if result.error:
                yield self._blank_line(result.statement_id) + self.error(result.error)
                self._columns = []

    def error(self, text: str) -> bytes:
        """Return the document of a request that failed as a whole."""
        return _rows([("error",), (text,)])

    def _table(self, statement: int, series: Series) -> bytes:
        header = b""
        if statement != self._statement or series.columns != self._columns:
            header = self._blank_line(statement) + _rows([("name", "tags", *series.columns)])
            self._columns = series.columns
        columns = series.cells()
        cells = [_cells(column) for column in columns]
        if series.has_time and cells:
            cells[0] = self._times(columns[0])
        tags = ",".join(f"{_tag(k)}={_tag(v)}" for k, v in (series.tags or {}).items() if v)
        return header + _rows(zip(repeat(series.name), repeat(tags), *cells, strict=False))

    def _blank_line(self, statement: int) -> bytes:
        is_first = self._statement < 0
        self._statement = statement
        return b"" if is_first else b"\n"

    def _times(self, column: Column) -> Sequence[object]:
        source = column.values if isinstance(column, FieldColumn) else column
        times: list[object] = to_epoch(np.asarray(source, np.int64), self._epoch_ns).tolist()
        return times


def _rows(rows: Iterable[Sequence[object]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()


def _tag(text: str) -> str:
    return text.translate(_TAG_ESCAPES)


def _cells(column: Column) -> Sequence[object]:
    """Return what csv.writer prints as InfluxDB does; it prints None as nothing."""
    if not isinstance(column, FieldColumn):
        return [_cell(value) for value in column]
    if column.type is FieldType.FLOAT:
        return printable_floats(
            column.values.astype(np.float64, copy=False), column.valid, plain_float
        )
    cells: list[object] = column.values.tolist()
    if column.type is FieldType.BOOLEAN:
        cells = [_cell(value) for value in cells]
    if column.valid is not None:
        for row in np.flatnonzero(~column.valid).tolist():
            cells[row] = None
    return cells


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return printable(value, plain_float)
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value
