"""Bodies of line protocol to columns, at speed.

Almost all lines of a client are alike, so a body is read in bulk (`bulk.py`): a few calls over all
its lines instead of Python steps on each. Whatever is left, and everything that is wrong, goes to
`line.py`, which is exact. Both say the same of the same line, and so does `native.c`, which reads
lines of the forms that bulk reading has met before.

When bulk reading refuses, nobody knows which line was to blame: the lines are halved and read
again, at most MAX_RETRIES times a body, then one by one. So one bad line costs little, and
thousands cost no more than twice.

A body of nothing but bad lines is an attack on the others who write. It is read in pieces, which
bounds the memory it takes, others are let in between them (`between`), and from MAX_ERRORS bad
lines on, pieces in which no line can be good are only counted.
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
    LineRefusedError,
    PointRefusedError,
    line_end,
    read_line,
    split_lines,
)
from tinyflux.batch import BatchBuilder, FieldType, PointBatch
from tinyflux.columnar.base import Rejection

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinyflux.batch import FieldLayout, Int32s, Int64s

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
MIN_KNOWN_BYTES: Final = 300  # from one unknown line to the next, to read the next one alone
MAX_PIECE_BYTES: Final = 1 << 18  # read in bulk at once; larger is not faster
BYTES_BETWEEN: Final = 1 << 16  # read in bulk before others are let in
LINES_BETWEEN: Final = 500  # read one by one, the same; some 10 ms
MIN_BULK: Final = 4  # lines to read in bulk
MIN_BULK_BYTES: Final = 150  # one line of ten fields is read faster in bulk, of two fields not

# Every good line has a field: a blank, and behind it an equals sign. Of lines without, those that
# are neither blank nor a comment are bad, if no quote or backslash joins them to others.
_MAY_BE_GOOD = re.compile(rb'["\\]| [^\n]*=')
_BAD_LINE = re.compile(rb"^[ \t\x00]*+(?!#|\r?$).", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LineError:
    """A line that could not be parsed.

    Attributes:
        line: Its text, at most MAX_LINE_TEXT bytes of it; what is not UTF-8 shows as U+FFFD.
        reason: Why.
        number: Which line of the body it is, from 1; 0 when nobody counted.
    """

    line: str
    reason: str
    number: int = 0

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

    def __init__(self, max_cache_bytes: int = 64 << 20, *, native: bool = True) -> None:
        """Make a parser.

        Args:
            max_cache_bytes: About how much it may remember.
            native: Use the compiled reader if it is installed.
        """
        self._bulk = Bulk(max_cache_bytes, native=native)

    @property
    def is_native(self) -> bool:
        """Return whether the compiled reader is there and used."""
        return self._bulk.is_native

    def parse(
        self,
        body: bytes,
        *,
        precision: str = "ns",
        now_ns: int,
        between: Callable[[], None] | None = None,
    ) -> Parsed:
        """Return the points of a body.

        Args:
            body: Lines; a byte order mark before them is ignored, as is a carriage return before
                a line feed.
            precision: The unit of the timestamps.
            now_ns: The time of lines without timestamp, truncated to the precision.
            between: Called now and then, as reading may take minutes; it may use the parser.

        Raises:
            ValueError: An unknown precision.
        """
        unit = unit_ns(precision)
        reading = _Reading(self._bulk, unit, now_ns // unit * unit, between)
        reading.read(body.removeprefix(BOM))
        return reading.parsed()

    def together(self, precision: str) -> Together:
        """Return an empty collection of bodies that become one batch.

        Raises:
            ValueError: An unknown precision.
        """
        return Together(self._bulk, unit_ns(precision))


class Together:
    """Bodies of the usual kind, of which nothing is to be told but their points.

    No body has a word in what the lines of another one mean.
    """

    def __init__(self, bulk: Bulk, unit: int) -> None:
        self._bulk = bulk
        self._unit = unit
        self._known = bulk.known(unit) if bulk.is_native else None
        self._parts: list[PointBatch] = []

    def add(self, body: bytes, now_ns: int) -> bool:
        """Take a body if all its lines can be read at once; returns False, unchanged, if not.

        Args:
            body: Lines.
            now_ns: The time of lines without timestamp, truncated to the precision.
        """
        default_ns = now_ns // self._unit * self._unit
        if self._known is not None:
            return self._known.read(body, 0, default_ns, whole=True) == len(body)
        try:
            self._parts.append(self._bulk.read(body.removesuffix(b"\n"), self._unit, default_ns))
        except Odd:
            return False
        return True

    def batch(self) -> PointBatch:
        """Return the points of all bodies taken, in their order."""
        return self._known.batch() if self._known is not None else concatenated(self._parts)


def parse(body: bytes, *, precision: str = "ns", now_ns: int) -> Parsed:
    """Return the points of one body; a Parser that is kept is faster from the second body on."""
    return Parser().parse(body, precision=precision, now_ns=now_ns)


class _Reading:
    """One body being read.

    Parts are batches in the order of the lines. The points of lines read one by one go to a
    builder, which becomes a part when a batch follows.
    """

    def __init__(
        self, bulk: Bulk, unit: int, default_ns: int, between: Callable[[], None] | None
    ) -> None:
        self._bulk = bulk
        self._unit = unit
        self._default_ns = default_ns
        self._between = between
        self._parts: list[PointBatch] = []
        self._builder = BatchBuilder()
        self._n_built = 0
        self._bad: list[tuple[bytes, str]] = []  # at most MAX_ERRORS
        self._n_bad = 0
        self._n_slow = 0  # bytes read since others were let in
        self._refused: Counter[tuple[bool, str]] = Counter()
        self._first_refused: dict[bool, str] = {}  # of tags, of fields: the others only count

    def read(self, body: bytes) -> None:
        """Read a body, the lines that are known with the compiled reader if there is one."""
        is_plain = b'"' not in body and b"\\" not in body  # every line feed ends a line
        start, size = 0, 0 if self._bulk.is_native else MAX_PIECE_BYTES
        while start < len(body):
            if self._bulk.is_native:
                known = self._bulk.known(self._unit)
                stop = known.read(body, start, self._default_ns, between=self._between)
                self._take(known.batch())
                # A line that is unknown now and then is read alone. Where little is known, ever
                # more at once is read in bulk.
                size = (
                    0
                    if stop - start > max(size, MIN_KNOWN_BYTES)
                    else min(2 * size + 128, MAX_PIECE_BYTES)
                )
                start = stop
            if start < len(body):
                start = self._read_piece(body, start, size, is_plain=is_plain)

    def _read_piece(self, body: bytes, start: int, size: int, *, is_plain: bool) -> int:
        """Read some lines: all at once if possible, else in halves, at last one by one.

        Returns:
            Where they end.
        """
        # First as if strings held no line feed: what is read in bulk has none open at its end.
        end = piece_end(body, start, size, is_plain=True)
        self._let_in(end - start)
        if end - start >= (1 if self._bulk.is_native else MIN_BULK_BYTES):
            batch = self._in_bulk(body[start:end].removesuffix(b"\n"))
            if batch is not None:
                self._take(batch)
                return end
        end = end if is_plain else piece_end(body, start, size, is_plain=False)
        self._read_slowly(body[start:end])
        return end

    def _read_slowly(self, text: bytes) -> None:
        """Read lines that cannot be read all at once."""
        if self._n_bad >= MAX_ERRORS and not _MAY_BE_GOOD.search(text):
            self._n_bad += len(_BAD_LINE.findall(text))
            return
        lines = [line.lstrip(BLANKS) for line in split_lines(text)]
        self._read_halves([line for line in lines if line and not line.startswith(b"#")])

    def _let_in(self, n_bytes: int) -> None:
        """Let others in when enough was read in the slow ways."""
        self._n_slow += n_bytes
        if self._n_slow >= BYTES_BETWEEN and self._between is not None:
            self._n_slow = 0
            self._between()

    def _read_halves(self, lines: list[bytes]) -> None:
        # What the compiled reader is to know must have been read in bulk once, be it alone.
        min_bulk = 1 if self._bulk.is_native else MIN_BULK
        retries = MAX_RETRIES
        pending = [lines]
        while pending:
            some = pending.pop()
            is_bulk = len(some) >= min_bulk and retries > 0
            # One carriage return a line is taken away, and was already: what is left counts.
            batch = self._in_bulk(b"\r\n".join(some) + b"\r") if is_bulk else None
            if batch is not None:
                self._take(batch)
            elif is_bulk and len(some) > 1:
                retries -= 1
                middle = len(some) // 2
                pending += [some[middle:], some[:middle]]
            else:
                retries -= is_bulk
                self._read_one_by_one(some)

    def _in_bulk(self, text: bytes) -> PointBatch | None:
        try:
            return self._bulk.read(text, self._unit, self._default_ns)
        except Odd:
            return None

    def _read_one_by_one(self, lines: list[bytes]) -> None:
        for start in range(0, len(lines), LINES_BETWEEN):
            for line in lines[start : start + LINES_BETWEEN]:
                self._read_exactly(line)
            if start:
                self._let_in(BYTES_BETWEEN)

    def _read_exactly(self, line: bytes) -> None:
        try:
            point = read_line(line, self._unit)
        except LineRefusedError as refused:
            self._n_bad += 1
            if len(self._bad) < MAX_ERRORS:
                self._bad.append((line[:MAX_LINE_TEXT], str(refused)))
        except PointRefusedError as refused:
            reason = self._first_refused.setdefault(refused.is_tag, str(refused))
            self._refused[refused.is_tag, reason] += 1
        else:
            time_ns = self._default_ns if point.time_ns is None else point.time_ns
            self._builder.add(point.key, time_ns, point.fields.items())
            self._n_built += 1

    def _take(self, batch: PointBatch) -> None:
        """Put a batch behind what was read before."""
        if self._n_built:
            self._parts.append(self._builder.build())
            self._builder = BatchBuilder()
            self._n_built = 0
        if len(batch):
            self._parts.append(batch)

    def parsed(self) -> Parsed:
        """Return everything read."""
        if self._n_built:
            self._parts.append(self._builder.build())
        errors = [LineError(line.decode(errors="replace"), reason) for line, reason in self._bad]
        # influxd looks at the tags of all points before it looks at their fields.
        refused = sorted(self._refused.items(), key=lambda found: not found[0][0])
        rejected: Counter[str] = Counter()
        for (_, reason), points in refused:
            rejected[reason] += points
        return Parsed(
            concatenated(self._parts),
            errors,
            self._n_bad,
            tuple(Rejection(points, reason) for reason, points in rejected.items()),
        )


def piece_end(body: bytes, start: int, size: int, *, is_plain: bool) -> int:
    """Return where some whole lines end: at least one, and no more when they are `size` bytes.

    Args:
        body: Any body.
        start: Where a line begins.
        size: About how many bytes; bounds the memory that reading takes.
        is_plain: There is neither a quote nor a backslash in the body.
    """
    if len(body) - start <= size:
        return len(body)
    if is_plain:
        return body.find(b"\n", start + size) + 1 or len(body)
    end = start
    while end <= start + size and end < len(body):
        end = line_end(body, end) + 1
    return min(end, len(body))


def concatenated(parts: list[PointBatch]) -> PointBatch:
    """Return the points of some batches, one after another, as one batch."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return BatchBuilder().build()
    keys: dict[bytes, int] = {}
    layouts: dict[FieldLayout, int] = {}
    key_rows = [_renumbered(keys, batch.keys, batch.key_rows) for batch in parts]
    layout_rows = [_renumbered(layouts, batch.layouts, batch.layout_rows) for batch in parts]
    strings: list[str] = []
    values: list[Int64s] = []
    for batch in parts:
        values.append(_with_strings_from(batch, len(strings)))
        strings += batch.strings
    return PointBatch(
        list(keys),
        np.concatenate(key_rows),
        np.concatenate([batch.times for batch in parts]),
        list(layouts),
        np.concatenate(layout_rows),
        np.concatenate(values),
        strings,
    )


def _renumbered(numbers: dict[_T, int], names: list[_T], rows: Int32s) -> Int32s:
    """Return rows, which number `names`, by the numbers of a dictionary that grows as needed."""
    known = [numbers.setdefault(name, len(numbers)) for name in names]
    return np.array(known, np.int32)[rows]


def _with_strings_from(batch: PointBatch, first: int) -> Int64s:
    """Return the values of a batch, with its strings numbered from `first`."""
    if not batch.strings or not first:
        return batch.values
    kinds = [bytes(kind for _, kind in layout) for layout in batch.layouts]
    kind_of_slot = np.frombuffer(b"".join([kinds[row] for row in batch.layout_rows]), np.uint8)
    return batch.values + np.where(kind_of_slot == FieldType.STRING, first, 0)
