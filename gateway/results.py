"""Results: what a statement answers, before anyone chose a format for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from tinyflux.columnar.base import FieldColumn

Column: TypeAlias = Sequence[object] | FieldColumn
Pieces: TypeAlias = Literal["rows", "series", "whole"]


@dataclass(slots=True, eq=False)
class Series:
    """One table of an answer: equally long columns.

    Attributes:
        name: The measurement, or what a SHOW calls its table; "" prints no name.
        columns: The column names.
        data: One entry a column; the series of an answer may share them. A list holds printable
            values (str, int, float, bool, None, list of str); a FieldColumn holds a typed array
            whose invalid rows print as null.
        tags: The GROUP BY tags, sorted by key; None without GROUP BY tags.
        has_time: Column 0 is time in int64 ns (int64[n] or a list of int), to print as epoch or
            RFC3339 says.
        timezone: The zone RFC3339 times print in, "" is UTC.
        partial: More rows of this series follow in another document, or were cut off.
        is_open: The next series of the result is this one, with more rows.
        rows: Which rows of `data` are this series'; None is all of them.
    """

    name: str
    columns: list[str]
    data: list[Column]
    tags: dict[str, str] | None = None
    has_time: bool = False
    timezone: str = ""
    partial: bool = False
    is_open: bool = False
    rows: slice | None = None

    def __len__(self) -> int:
        span = self.rows or self.span()
        return span.stop - span.start  # type: ignore[no-any-return]  # of ints

    def span(self) -> slice:
        """Return the rows of `data` that are this series', from start to stop."""
        if self.rows is not None:
            return self.rows
        if not self.data:
            return slice(0, 0)
        first = self.data[0]
        return slice(0, len(first.values) if isinstance(first, FieldColumn) else len(first))

    def cells(self) -> list[Column]:
        """Return the columns of this series alone."""
        if self.rows is None:
            return self.data
        return [
            c.take(self.rows) if isinstance(c, FieldColumn) else c[self.rows] for c in self.data
        ]

    def parts(self, max_rows: int) -> Iterator[Series]:
        """Yield the series in parts of at most so many rows, all but the last one partial."""
        span = self.span()
        for start in range(span.start, max(span.stop, span.start + 1), max_rows):
            stop = min(start + max_rows, span.stop)
            partial = self.partial or self.is_open or stop < span.stop
            yield replace(self, rows=slice(start, stop), partial=partial, is_open=False)


@dataclass(slots=True, eq=False)
class Result:
    """The answer of one statement.

    Attributes:
        statement_id: Its place in the request, from 0.
        series: The tables, in order; maybe made while they are taken, and made anew when they are
            taken again. Then `error` is known when all were.
        messages: (level, text) pairs for the client.
        error: Why the statement failed; "" when it did not.
        partial: More documents of this statement follow.
        pieces: What a chunked answer is cut into: so many rows, series, or nothing.
    """

    statement_id: int
    series: Iterable[Series] = ()
    messages: list[tuple[str, str]] = field(default_factory=list)
    error: str = ""
    partial: bool = False
    pieces: Pieces = "rows"
