"""Bodies of line protocol to columns, at speed.

Almost all lines of a client are alike, so a body is read in bulk (`bulk.py`): a few calls over
all its lines instead of Python steps on each. Lines with strings or backslashes are read one by
one with a regular expression; whatever is left, and everything that is wrong, goes to `line.py`,
which is exact. All three say the same of the same line.

When bulk reading refuses, nobody knows which line was to blame: the lines are halved and read
again, at most MAX_RETRIES times a body, then one by one. So one bad line costs little, and
thousands cost no more than twice.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from gateway.lineprotocol.bulk import Bulk, Odd
from gateway.lineprotocol.line import (
    BLANKS,
    BOOLEANS,
    LineRefusedError,
    PointRefusedError,
    head_end,
    read_line,
    read_number,
    split_lines,
)
from tinyflux.batch import BatchBuilder, PointBatch
from tinyflux.columnar.base import Rejection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyflux.batch import FieldLayout, FieldValue, Int32s

_T = TypeVar("_T")

UNITS_NS: Final = {
    "": 1,
    "n": 1,
    "ns": 1,
    "u": 1_000,
    "us": 1_000,
    "µ": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}

BOM: Final = b"\xef\xbb\xbf"
MAX_ERRORS: Final = 1000  # kept of one body; more are counted
MAX_LINE_TEXT: Final = 1024  # bytes of a bad line that its error repeats
MAX_RETRIES: Final = 64  # of bulk reading, for one body
MIN_BULK: Final = 4  # lines; below, one by one is as fast
MAX_SIMPLE_LINE: Final = 32_000  # bytes; beyond, the limit on keys might be touched

# One field of a field set without backslashes: key, then string or scalar. Split by it, only
# empty pieces may remain.
_FIELD = re.compile(rb'([^=,\\" ]+)=(?:"([^"\\]*)"|([^=,\\" ]+))(?:,|\Z)')


@dataclass(frozen=True, slots=True)
class LineError:
    """A line that could not be parsed.

    Attributes:
        line: Its text, at most MAX_LINE_TEXT bytes of it; bytes that are not UTF-8 show as U+FFFD.
        reason: Why.
    """

    line: str
    reason: str

    def __str__(self) -> str:
        return f"unable to parse '{self.line}': {self.reason}"


@dataclass(frozen=True, slots=True, eq=False)
class Parsed:
    """What a body of line protocol holds.

    Attributes:
        batch: The good points, in the order of the lines.
        errors: The bad lines, in order, at most MAX_ERRORS.
        bad_lines: How many lines were bad.
        rejected: Points that parse but cannot be stored (`time` as a tag, or as the only field).
            influxd reports the first reason with the sum of the points, and then no word of the
            bad lines.
    """

    batch: PointBatch
    errors: list[LineError] = field(default_factory=list)
    bad_lines: int = 0
    rejected: tuple[Rejection, ...] = ()


def unit_ns(precision: str) -> int:
    """Return the ns of one unit of a precision of /write; "" is ns.

    Differs from influxd: `us` and `µ` are microseconds; 1.6 takes them for ns without a word, 1.8
    refuses them.

    Raises:
        ValueError: An unknown precision, in the words of influxd 1.8.
    """
    if precision not in UNITS_NS:
        raise ValueError(f'invalid precision "{precision}" (use n, u, ms, s, m or h)')
    return UNITS_NS[precision]


class Parser:
    """Reads bodies, and remembers what their lines have in common from one body to the next.

    The memory is bounded and holds no part of a body. Use a parser from one thread at a time.
    """

    def __init__(self, max_cache_bytes: int = 64 << 20) -> None:
        self._bulk = Bulk(max_cache_bytes)

    def parse(self, body: bytes, *, precision: str = "ns", now_ns: int) -> Parsed:
        """Return the points of a body.

        Args:
            body: Lines; a byte order mark before them is ignored.
            precision: The unit of the timestamps.
            now_ns: The time of lines without timestamp, truncated to the precision.

        Raises:
            ValueError: An unknown precision.
        """
        unit = unit_ns(precision)
        reading = _Reading(self._bulk, unit, now_ns // unit * unit)
        lines = split_lines(body.removeprefix(BOM))
        if b'"' in body or b"#" in body:
            plain: list[int] = []
            for row, line in enumerate(lines):
                if b'"' in line or line[0] == 0x23:
                    reading.read_one(row, line)
                else:
                    plain.append(row)
            reading.read_bulk(plain, [lines[row] for row in plain])
        else:
            reading.read_bulk(range(len(lines)), lines)
        return reading.parsed()


def parse(body: bytes, *, precision: str = "ns", now_ns: int) -> Parsed:
    """Return the points of one body; a Parser that is kept is faster from the second body on."""
    return Parser().parse(body, precision=precision, now_ns=now_ns)


class _Reading:
    """One body being read.

    Lines have the row numbers of `lines`. What bulk reading yields is a part (rows, batch); the
    points of lines read one by one go to one builder and are a part as well. `parsed` puts the
    parts together in the order of the rows.
    """

    def __init__(self, bulk: Bulk, unit: int, default_ns: int) -> None:
        self._bulk = bulk
        self._unit = unit
        self._default_ns = default_ns
        self._parts: list[tuple[Sequence[int], PointBatch]] = []
        self._builder = BatchBuilder()
        self._built_rows: list[int] = []
        self._bad: list[tuple[int, bytes, str]] = []
        self._refused: list[tuple[bool, int, str]] = []

    def read_bulk(self, rows: Sequence[int], lines: list[bytes]) -> None:
        """Read lines without quotes, in bulk as far as possible."""
        retries = MAX_RETRIES
        pending = [(0, len(lines))]
        while pending:
            start, end = pending.pop()
            if end - start >= MIN_BULK and retries > 0:
                try:
                    batch = self._bulk.read(lines[start:end], self._unit, self._default_ns)
                except Odd:
                    retries -= 1
                    middle = (start + end) // 2
                    pending += [(middle, end), (start, middle)]
                else:
                    self._parts.append((rows[start:end], batch))
            else:
                for row in range(start, end):
                    self.read_one(rows[row], lines[row])

    def read_one(self, row: int, line: bytes) -> None:
        """Read any line."""
        if not self._read_simple(row, line):
            line = line.lstrip(BLANKS)
            if line and not line.startswith(b"#"):
                self._read_exactly(row, line)

    def _read_simple(self, row: int, line: bytes) -> bool:
        """Read a line of the usual form; return False where it has another."""
        end = head_end(line) if b"\\" in line else line.find(b" ")
        if end < 1 or len(line) > MAX_SIMPLE_LINE:
            return False
        try:
            key = self._bulk.heads[b"\n" + line[:end]][0]
        except Odd:
            return False
        field_set, _, stamp = line[end + 1 :].rpartition(b" ")
        time_ns = self._default_ns
        if stamp.isdigit() and field_set:
            time_ns = int(stamp) * self._unit
        else:
            field_set = line[end + 1 :]
        pieces = _FIELD.split(field_set)
        if field_set[:1] in BLANKS or any(pieces[::4]) or field_set.endswith(b","):
            return False
        try:
            fields = dict(map(_read_field, pieces[1::4], pieces[2::4], pieces[3::4]))
            if "time" in fields:
                return False
            self._builder.add(key, time_ns, fields.items())
        except ValueError:
            return False
        self._built_rows.append(row)
        return True

    def _read_exactly(self, row: int, line: bytes) -> None:
        try:
            point = read_line(line, self._unit)
        except LineRefusedError as refused:
            self._bad.append((row, line, str(refused)))
        except PointRefusedError as refused:
            # influxd looks at the tags of all points before it looks at fields.
            self._refused.append((not refused.is_tag, row, str(refused)))
        else:
            time_ns = self._default_ns if point.time_ns is None else point.time_ns
            self._builder.add(point.key, time_ns, point.fields.items())
            self._built_rows.append(row)

    def parsed(self) -> Parsed:
        """Return everything read."""
        if self._built_rows or not self._parts:
            self._parts.append((self._built_rows, self._builder.build()))
        self._bad.sort()
        errors = [
            LineError(line[:MAX_LINE_TEXT].decode(errors="replace"), reason)
            for _, line, reason in self._bad[:MAX_ERRORS]
        ]
        rejected = Counter(reason for _, _, reason in sorted(self._refused))
        return Parsed(
            interleave(self._parts),
            errors,
            len(self._bad),
            tuple(Rejection(points, reason) for reason, points in rejected.items()),
        )


def _read_field(key: bytes, text: bytes | None, scalar: bytes | None) -> tuple[str, FieldValue]:
    """Return a field as _FIELD found it."""
    if scalar is None:
        return key.decode(), (text or b"").decode()
    known = BOOLEANS.get(scalar)
    return key.decode(), read_number(scalar) if known is None else known


def interleave(parts: list[tuple[Sequence[int], PointBatch]]) -> PointBatch:
    """Return one batch of the points of all parts, in the order of their row numbers.

    At most one part may have strings.
    """
    rows = np.concatenate([np.asarray(rows, np.int64) for rows, _ in parts])
    if len(parts) == 1 and (rows[1:] > rows[:-1]).all():
        return parts[0][1]
    order = np.argsort(rows)
    keys: dict[bytes, int] = {}
    layouts: dict[FieldLayout, int] = {}
    key_rows = [_renumbered(keys, batch.keys, batch.key_rows) for _, batch in parts]
    layout_rows = [_renumbered(layouts, batch.layouts, batch.layout_rows) for _, batch in parts]
    widths = np.concatenate([batch.widths() for _, batch in parts])
    starts = (np.cumsum(widths) - widths)[order]
    widths = widths[order]
    slots = np.repeat(starts - np.cumsum(widths) + widths, widths) + np.arange(widths.sum())
    return PointBatch(
        list(keys),
        np.concatenate(key_rows)[order],
        np.concatenate([batch.times for _, batch in parts])[order],
        list(layouts),
        np.concatenate(layout_rows)[order],
        np.concatenate([batch.values for _, batch in parts])[slots],
        next((batch.strings for _, batch in parts if batch.strings), []),
    )


def _renumbered(numbers: dict[_T, int], names: list[_T], rows: Int32s) -> Int32s:
    """Return rows, which number `names`, by the numbers of a dictionary that grows as needed."""
    known = [numbers.setdefault(name, len(numbers)) for name in names]
    return np.array(known, np.int32)[rows]
