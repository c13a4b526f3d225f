"""Results as JSON, byte for byte as Go's encoder writes them.

A document is one line. Keys come in influxd's order and are left out when empty. Rows are printed
from the arrays of their columns by compiled code. Without it, and where a column is no array, they
are turned into Python values column by column (no loop over the values) and printed by orjson, many
small series in one call.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

import numpy as np
import orjson

from gateway.encoding.numbers import (
    json_floats,
    json_fragment,
    printable,
    printable_floats,
)
from gateway.encoding.times import to_epoch, to_rfc3339
from tinyflux.batch import FieldType
from tinyflux.columnar.base import FieldColumn

try:
    from gateway.encoding._native import print_rows
except ImportError:  # not compiled
    print_rows = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.results import Column, Result, Series
    from tinyflux.batch import Bools, Int64s
    from tinyflux.columnar.base import Values

    Tree: TypeAlias = dict[str, object]
    # Values and which of them are valid, all without the latter; floats as the JSON of an array.
    Cells: TypeAlias = tuple[Values | bytes, Bools | None]

_PIECE_ROWS: Final = 10_000  # rows printed in one call, about half a megabyte
_LONG: Final = 64  # rows of a series from which on it pays to have them printed by compiled code
_NARROW_COLUMNS: Final = 10  # of such a row; one of more columns counts as several
_ESCAPES: Final = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"))
_WIDE_ESCAPES: Final = (
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


class _Printed:
    """Rows that are printed.

    Args:
        text: The rows, a comma behind each.
        starts: int64[n + 1], where they start.
    """

    def __init__(self, text: bytes, starts: bytes) -> None:
        self._text = memoryview(text)
        self._starts = memoryview(starts).cast("q")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, rows: slice) -> orjson.Fragment:
        """Return rows, at least one, as a JSON array."""
        return orjson.Fragment(b"".join((b"[", self.part(rows.start, rows.stop), b"]")))

    def part(self, start: int, stop: int) -> memoryview:
        """Return rows, at least one, with commas between them."""
        return self._text[self._starts[start] : self._starts[stop] - 1]


class _Ready(NamedTuple):
    """Printable rows of columns, from `start` to `stop`: the last ones that were made."""

    data: list[Column]
    start: int
    stop: int
    rows: list[tuple[object, ...]] | _Printed


class JsonEncoder:
    """Prints results as JSON documents.

    Attributes:
        is_native: The compiled code is there and wanted.
    """

    media_type = "application/json"

    def __init__(self, epoch_ns: int = 0, *, pretty: bool = False, native: bool = True) -> None:
        """Choose how times print: in units of `epoch_ns` nanoseconds; 0 is RFC 3339 text.

        Args:
            epoch_ns: As said.
            pretty: Whether to print lines, indented.
            native: Whether to use compiled code, where it is there.
        """
        self.is_native = native and print_rows is not None
        self._epoch_ns = epoch_ns
        self._pretty = pretty
        self._ready = _Ready([], 0, 0, [])

    def document(self, results: Iterable[Result]) -> Iterator[bytes]:
        """Yield one document of all results, in pieces of about a megabyte."""
        if self._pretty:
            document = b"".join(self._document(results))
            yield indented(document[:-1]) + b"\n"
        else:
            yield from self._document(results)

    def error(self, text: str) -> bytes:
        """Return the document of a request that failed as a whole."""
        document = _printed({"error": text})
        return (indented(document) if self._pretty else document) + b"\n"

    def _document(self, results: Iterable[Result]) -> Iterator[bytes]:
        before = b'{"results":['  # of the next piece: few and large ones are quicker
        is_empty = True
        for result in results:
            before += b'{"statement_id":%d' % result.statement_id
            for piece in self._series(result.series):
                yield before + piece
                before = b""
            before += _printed_tail(result) + b","
            is_empty = False
        yield b"{}\n" if is_empty else before[:-1] + b"]}\n"  # influxd: no statement at all is {}

    def _series(self, series: Iterable[Series]) -> Iterator[bytes]:
        """Yield the series, small ones together, long ones in parts, those open as one."""
        opening = b',"series":['
        trees: list[Tree] = []
        n_rows = 0
        is_inside = False
        columns: list[str] = []
        weight = 1
        for item in series:
            if item.columns is not columns:  # the series of an answer share them
                columns, weight = item.columns, _weight(item)
            span = item.rows or item.span()
            size = (span.stop - span.start) * weight
            if is_inside or item.is_open or size > _PIECE_ROWS:
                if trees:
                    yield opening + _printed(trees)[1:-1]
                    opening, trees, n_rows = b",", [], 0
                yield from self._long(item, opening, is_inside=is_inside)
                opening, is_inside = b",", item.is_open
                continue
            trees.append(self._tree(item, span))
            n_rows += size
            if n_rows >= _PIECE_ROWS:
                yield opening + _printed(trees)[1:-1]
                opening, trees, n_rows = b",", [], 0
        if is_inside:  # what should have followed is missing
            yield b"]}"
        if trees:
            yield opening + _printed(trees)[1:-1]
            opening = b","
        if opening == b",":
            yield b"]"

    def _tree(self, series: Series, rows: slice) -> Tree:
        tree = _head(series)
        start, stop = rows.start, rows.stop
        if start < stop:
            ready = self._ready
            if ready.data is not series.data or start < ready.start or stop > ready.stop:
                ready = self._make_ready(series, rows)
            tree["values"] = ready.rows[start - ready.start : stop - ready.start]
        if series.partial:
            tree["partial"] = True
        return tree

    def _long(self, series: Series, opening: bytes, *, is_inside: bool) -> Iterator[bytes]:
        """Yield one series in parts; the memory of a part is used again for the next.

        Args:
            series: The series, or more rows of the one before it.
            opening: What stands before it.
            is_inside: The series before it is this one.
        """
        if not is_inside:
            opening += _printed(_head(series))[:-1] + b',"values":['
        span = series.span()
        step = _piece_rows(series)
        for start in range(span.start, span.stop, step):
            rows = slice(start, min(start + step, span.stop))
            yield b"".join((opening, self._rows_text(series, rows)))
            opening = b","
        if not series.is_open:
            yield b'],"partial":true}' if series.partial else b"]}"

    def _rows_text(self, series: Series, rows: slice) -> bytes | memoryview:
        """Return rows of a series, at least one, printed, with commas between them."""
        made = (self._made_native if self.is_native else self._made)(series, rows)
        if isinstance(made, _Printed):
            return made.part(0, len(made))
        return _printed(made)[1:-1]

    def _make_ready(self, series: Series, rows: slice) -> _Ready:
        """Make these and some of the next rows of the columns of a series, which others may share.

        Args:
            series: The series.
            rows: Which of its rows, at least one.
        """
        ahead = 0 if series.rows is None else _piece_rows(series)
        stop = max(rows.stop, rows.start + ahead)
        is_long = self.is_native and rows.stop - rows.start >= _LONG
        made = (self._made_native if is_long else self._made)(series, slice(rows.start, stop))
        self._ready = _Ready(series.data, rows.start, rows.start + len(made), made)
        return self._ready

    def _made(self, series: Series, rows: slice) -> list[tuple[object, ...]]:
        columns = [_printable(column, rows) for column in series.data]
        if series.has_time:
            times = self._times(series, rows)
            columns[0] = times if isinstance(times, list) else times.tolist()
        return list(zip(*columns, strict=True))

    def _made_native(self, series: Series, rows: slice) -> list[tuple[object, ...]] | _Printed:
        """Return rows printed, where all columns are arrays of one type."""
        columns = [column for column in series.data if isinstance(column, FieldColumn)]
        if len(columns) < len(series.data):
            return self._made(series, rows)
        cells = [_cells(column, rows) for column in columns]
        if series.has_time:
            times = self._times(series, rows)
            cells[0] = np.array(times, np.object_) if isinstance(times, list) else times, None
        try:
            return _Printed(*print_rows(cells, len(columns[0].values[rows])))
        except TypeError:  # `fill(1)` puts numbers among texts
            return self._made(series, rows)

    def _times(self, series: Series, rows: slice) -> Int64s | list[str]:
        column = series.data[0]
        source = column.values if isinstance(column, FieldColumn) else column
        times = np.ascontiguousarray(source[rows], np.int64)
        if not self._epoch_ns:
            return to_rfc3339(times, series.timezone)
        return to_epoch(times, self._epoch_ns)


def indented(document: bytes) -> bytes:
    """Return a JSON document with line breaks and 4 blanks a level; every token stays as it was.

    Source: Go json.MarshalIndent(v, "", "    "): empty arrays and objects stay on one line.
    """
    lines: list[bytes] = []
    depth = 0
    for token in _TOKENS.findall(document):
        if token in b"{[":
            depth += 1
            lines += (token, b"\n" + b"    " * depth)
        elif token in b"}]":
            depth -= 1
            lines += (b"\n" + b"    " * depth, token)
        elif token == b",":
            lines += (token, b"\n" + b"    " * depth)
        else:
            lines.append(b": " if token == b":" else token)
    return b"".join(lines)


_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|\{\}|\[\]|[{}\[\],:]|[^"{}\[\],:]+')


def _weight(series: Series) -> int:
    """Return how many rows a row of a series counts as: what is printed in one call is bounded."""
    return max(1, len(series.columns) // _NARROW_COLUMNS)


def _piece_rows(series: Series) -> int:
    return max(1, _PIECE_ROWS // _weight(series))


def _head(series: Series) -> Tree:
    tree: Tree = {"name": series.name} if series.name else {}
    if series.tags:
        tree["tags"] = series.tags
    tree["columns"] = series.columns
    return tree


def _printable(column: Column, rows: slice) -> Sequence[object]:
    if not isinstance(column, FieldColumn):
        given = column[rows]
        if float in set(map(type, given)):
            return [printable(c, json_fragment) if type(c) is float else c for c in given]
        return given
    values = column.values[rows]
    valid = None if column.valid is None else column.valid[rows]
    if column.type is FieldType.FLOAT:
        return printable_floats(values.astype(np.float64, copy=False), valid, json_fragment)
    cells: list[object] = values.tolist()
    if valid is not None:
        for row in np.flatnonzero(~valid).tolist():
            cells[row] = None
    return cells


def _cells(column: FieldColumn, rows: slice) -> Cells:
    valid = None if column.valid is None else np.ascontiguousarray(column.valid[rows])
    values = column.values[rows]
    if column.type in {FieldType.FLOAT, FieldType.NONE}:
        return json_floats(np.ascontiguousarray(values, np.float64)), valid
    return cast("Values", np.ascontiguousarray(values)), valid


def _printed_tail(result: Result) -> bytes:
    tail: Tree = {}
    if result.messages:
        tail["messages"] = [{"level": level, "text": text} for level, text in result.messages]
    if result.partial:
        tail["partial"] = True
    if result.error:
        tail["error"] = result.error
    return b"," + _printed(tail)[1:] if tail else b"}"


def _printed(value: object) -> bytes:
    # Values of these documents hold numpy data only as lists; int keys do not occur.
    document = orjson.dumps(value)
    # What Go's encoder escapes besides; these bytes occur inside strings only.
    for char, escape in _ESCAPES:
        if char in document:
            document = document.replace(char, escape)
    if not document.isascii():
        for char, escape in _WIDE_ESCAPES:
            document = document.replace(char, escape)
    return document
