"""One line of line protocol, exactly as influxd 1.x reads it. Pure; slow on purpose.

`split_lines` cuts a body into lines, `read_head` reads measurement and tag set, `read_line` a
whole line. Whatever `gateway.lineprotocol.parser` takes at speed must be what these functions
say; they are its fallback for unusual lines, the source of every error text, and the oracle of
its tests.

influxd reads a line in passes that disagree about backslashes, and the texts and accidents of
each pass show outside:

    split     a backslash skips the next byte; quotes count only in field values (more = than ,)
    head      a separator after a backslash never is one, however many backslashes there are
    fields    first checked like `split`, then walked like `head`

Source: influxd 1.6.7, tests/conformance/lineprotocol.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, series_key

if TYPE_CHECKING:
    from tinyflux.batch import FieldValue

MAX_KEY_LENGTH: Final = (
    65535  # series key + 4 + field key, in bytes; influxd 1.x: models.MaxKeyLength
)
MAX_INTEGER: Final = 2**63 - 1
MIN_INTEGER: Final = -(2**63)

BOOLEANS: Final = {
    **dict.fromkeys((b"t", b"T", b"true", b"True", b"TRUE"), True),
    **dict.fromkeys((b"f", b"F", b"false", b"False", b"FALSE"), False),
}

BLANKS: Final = b" \t\x00"  # what influxd skips before a line and after a separating blank

_STRUCTURE = re.compile(rb'\\.|[\n ,="]', re.DOTALL)
_HEAD_END = re.compile(rb"(?<!\\) ")
_PLAIN_HEAD = re.compile(rb"[^,=\\]++(?:,[^,=\\]++=[^,=\\]++)*+")
_COMMA = re.compile(rb"(?<!\\),")
_EQUALS = re.compile(rb"(?<!\\)=")
_SCALAR_END = re.compile(rb"[, ]|\Z")
_VALUE = re.compile(rb'(?:\\["\\]|"(?:[^"\\]|\\.)*+"|[^,"])*+', re.DOTALL)
_NUMBER_SHAPE = re.compile(rb"-?(?:[0-9.]|[eE][-+]?)*")
_INTEGER = re.compile(rb"-?[0-9]+i")
_FLOAT = re.compile(rb"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_TIMESTAMP = re.compile(rb"-?[0-9]*")

_ESCAPED_IN_NAME = re.compile(rb'\\([, ="])')
_ESCAPED_IN_TAG = re.compile(rb"\\([, =])")
_ESCAPED_IN_STRING = re.compile(rb'\\(["\\])')

# A line, without backslashes, that surely ends at its line feed: every quote opens a value and is
# closed again.
_CLOSED_LINE = re.compile(
    rb'[^ "\\]++ (?>[^\\"=, ]+=(?:"[^"\\]*"|[^"\\=, ]+))(?>,[^\\"=, ]+=(?:"[^"\\]*"|[^"\\=, ]+))*+'
    rb"(?: -?[0-9]+)?\r?"
)


class LineRefusedError(ValueError):
    """A line that cannot be parsed; the text is influxd's reason where influxd has one."""


class PointRefusedError(ValueError):
    """A line that parses, to a point that no shard takes (`time` as a tag, or as the only field).

    Attributes:
        is_tag: It was a tag; influxd reports these first.
    """

    def __init__(self, reason: str, *, is_tag: bool) -> None:
        super().__init__(reason)
        self.is_tag = is_tag


@dataclass(frozen=True, slots=True)
class Head:
    """Measurement and tag set of a line.

    Attributes:
        key: The canonical series key (`tinyflux.batch.series_key`).
        measurement: For messages.
        has_time_tag: A tag is named `time`; its points are refused.
    """

    key: bytes
    measurement: str
    has_time_tag: bool


@dataclass(frozen=True, slots=True)
class Point:
    """One parsed line.

    Attributes:
        key: The canonical series key.
        fields: Field key to value; of equal keys the last one won, `time` is gone.
        time_ns: ns since 1970 UTC; None when the line has no timestamp.
    """

    key: bytes
    fields: dict[str, FieldValue]
    time_ns: int | None


def split_lines(body: bytes) -> list[bytes]:
    """Return the lines that are not empty, without line ends. Strings keep their line feeds.

    Differs from influxd: a carriage return before the line feed (or at the very end) is not part
    of the line.
    """
    lines = body.split(b"\n")
    if b'"' in body or b"\\\n" in body:
        odd = [line for line in lines if b'"' in line or line.endswith(b"\\")]
        if not all(map(_CLOSED_LINE.fullmatch, odd)):
            lines = _split_beside_strings(body)
    if b"\r" in body:
        lines = [line.removesuffix(b"\r") for line in lines]
    return list(filter(None, lines))


def _split_beside_strings(body: bytes) -> list[bytes]:
    """Split at the line feeds that are neither in a string nor after a backslash."""
    lines: list[bytes] = []
    start = 0
    while start < len(body):
        end = line_end(body, start)
        lines.append(body[start:end])
        start = end + 1
    return lines


def line_end(body: bytes, start: int) -> int:
    """Return where the line that begins at `start` ends: at its line feed, or the end."""
    end = body.find(b"\n", start)
    line = body[start:] if end < 0 else body[start:end]
    if (b'"' in line or line.endswith(b"\\")) and not _CLOSED_LINE.fullmatch(line):
        return _end_of_open_line(body, start)
    return start + len(line)


def _end_of_open_line(body: bytes, start: int) -> int:
    """Return the same for any line; the other way is the fast one."""
    in_fields = quoted = False
    commas = equals = 0
    for found in _STRUCTURE.finditer(body, start):
        symbol = found[0]
        if symbol == b"\n":
            if not quoted:
                return found.start()
        elif symbol == b" ":
            in_fields = True
        elif not in_fields or len(symbol) > 1:
            continue
        elif symbol == b'"':
            quoted ^= equals > commas
        elif not quoted:
            equals += symbol == b"="
            commas += symbol == b","
    return len(body) - body.endswith(b"\n", start)


def read_head(head: bytes) -> Head:
    """Return measurement and tag set of a line.

    Args:
        head: What stands before the first blank that has no backslash before it.

    Raises:
        LineRefusedError: It is malformed, or not UTF-8.
    """
    try:
        if _PLAIN_HEAD.fullmatch(head):
            measurement, *words = head.decode().replace("=", ",").split(",")
            tags = list(zip(words[::2], words[1::2], strict=True))
        else:
            raw_measurement, pairs = _split_head(head)
            measurement = _ESCAPED_IN_NAME.sub(rb"\1", raw_measurement).decode()
            tags = [(_unescape_tag(key), _unescape_tag(value)) for key, value in pairs]
    except UnicodeDecodeError:
        raise LineRefusedError("invalid UTF-8") from None
    names = {key for key, _ in tags}
    if len(names) < len(tags):
        raise LineRefusedError("duplicate tags")
    if len(head) > MAX_KEY_LENGTH:
        raise LineRefusedError(f"max key length exceeded: {len(head)} > {MAX_KEY_LENGTH}")
    return Head(series_key(measurement, tags), measurement, "time" in names)


def _split_head(head: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return measurement and tags as they are written."""
    measurement, *tags = _COMMA.split(head)
    if not measurement:
        raise LineRefusedError("missing measurement")
    return measurement, [_split_tag(tag) for tag in tags]


def _split_tag(tag: bytes) -> tuple[bytes, bytes]:
    """Return the raw key and value of a tag."""
    key, *rest = _EQUALS.split(tag, maxsplit=1)
    value = rest[0] if rest else b""
    if not key:
        raise LineRefusedError("missing tag key")
    if not value:
        raise LineRefusedError("missing tag value")
    if _EQUALS.search(value, 1):
        raise LineRefusedError("invalid tag format")
    return key, value


def _unescape_tag(raw: bytes) -> str:
    return _ESCAPED_IN_TAG.sub(rb"\1", raw).decode()


def head_end(line: bytes) -> int:
    """Return the position of the first blank without a backslash before it, or the length."""
    found = _HEAD_END.search(line)
    return found.start() if found else len(line)


def read_line(line: bytes, unit_ns: int = 1) -> Point:
    """Return the point of one line.

    Args:
        line: Not blank, no comment, without leading blanks and line end.
        unit_ns: The unit of its timestamp.

    Raises:
        LineRefusedError: The line cannot be parsed.
        PointRefusedError: influxd parses the line but stores no such point.
    """
    end = head_end(line)
    head = read_head(line[:end])
    if end == len(line):
        raise LineRefusedError("missing fields")
    start = _skip_blanks(line, end)
    fields_end = _check_fields(line, start)
    fields = _walk_fields(line[start:fields_end], end)
    time_ns = _read_time(line, fields_end, unit_ns)
    invalid = f'"time" on measurement "{head.measurement}" is invalid'
    if head.has_time_tag:
        raise PointRefusedError(f"invalid tag key: input tag {invalid}", is_tag=True)
    fields.pop("time", None)
    if not fields:
        reason = (
            f'invalid field name: input field "time" on measurement "{head.measurement}" is invalid'
        )
        raise PointRefusedError(reason, is_tag=False)
    return Point(head.key, fields, time_ns)


def _skip_blanks(line: bytes, at: int) -> int:
    while at < len(line) and line[at] in BLANKS:
        at += 1
    return at


def _check_fields(line: bytes, start: int) -> int:
    """Return where the field set ends, after influxd's checks of its form."""
    quoted = False
    commas = equals = 0
    end = len(line)
    for found in _STRUCTURE.finditer(line, start):
        at, symbol = found.start(), found[0]
        if symbol == b'"':
            quoted ^= equals > commas
        elif quoted or len(symbol) > 1:
            continue
        elif symbol == b" ":
            end = at
            break
        elif symbol == b",":
            commas += 1
        elif symbol == b"=":
            equals += 1
            _check_pair(line, start, at)
    if quoted:
        raise LineRefusedError("unbalanced quotes")
    if not equals or commas != equals - 1:
        raise LineRefusedError("invalid field format")
    return end


def _check_pair(line: bytes, start: int, equals_at: int) -> None:
    """Refuse an = without key or value, and what is neither number, boolean nor string."""
    before = line[equals_at - 1 : equals_at]
    # Differs from influxd: a tab before = counts as a field key there, and the field is stored
    # without a name.
    if equals_at == start or (before in b", " and line[equals_at - 2 : equals_at - 1] != b"\\"):
        raise LineRefusedError("missing field key")
    first = line[equals_at + 1 : equals_at + 2]
    if first in (b"", b",", b" "):
        raise LineRefusedError("missing field value")
    if first == b'"':
        return
    end = _SCALAR_END.search(line, equals_at + 1)
    token = line[equals_at + 1 : end.start() if end else len(line)]
    if first in b"0123456789-.nN":
        read_number(token)
    elif token not in BOOLEANS:
        raise LineRefusedError("invalid boolean")


def read_number(token: bytes) -> int | float:
    """Return a number; the suffix i makes it an int.

    Raises:
        LineRefusedError: With influxd's reason.
    """
    if _INTEGER.fullmatch(token):
        return read_integer(token)
    if _FLOAT.fullmatch(token):
        value = float(token)
        if math.isinf(value):
            raise LineRefusedError("invalid float")
        return value
    is_shaped = _NUMBER_SHAPE.fullmatch(token) and token.count(b".") <= 1 and token.strip(b"-.")
    raise LineRefusedError("invalid float" if is_shaped else "invalid number")


def read_integer(token: bytes) -> int:
    """Return the int of a token that is an optional minus, digits and i.

    Raises:
        LineRefusedError: It is beyond int64.
    """
    digits = token[:-1]
    # Go stops at int64; a bound on the digits keeps Python from its own, quadratic, big integers.
    value = int(digits) if len(digits.lstrip(b"-0")) <= 19 else MAX_INTEGER + 1
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        text = digits.decode()
        raise LineRefusedError(
            f"unable to parse integer {text}: "
            f'strconv.ParseInt: parsing "{text}": value out of range'
        )
    return value


def _walk_fields(text: bytes, head_length: int) -> dict[str, FieldValue]:
    """Return the fields of a checked field set, of equal keys the last."""
    fields: dict[str, FieldValue] = {}
    at = 0
    while at < len(text):
        equals = _EQUALS.search(text, at)
        key = text[at : equals.start() if equals else len(text)]
        size = head_length + 4 + len(key)
        if size > MAX_KEY_LENGTH:
            raise LineRefusedError(f"max key length exceeded: {size} > {MAX_KEY_LENGTH}")
        found = _VALUE.match(text, equals.end()) if equals else None
        token = found[0] if found else b""
        try:
            if not found or not token:
                raise LineRefusedError(f"invalid value: field-key={key.decode()}")
            name, value = _ESCAPED_IN_NAME.sub(rb"\1", key).decode(), read_value(token)
        except UnicodeDecodeError:
            raise LineRefusedError("invalid UTF-8") from None
        if type(fields.setdefault(name, value)) is not type(value):
            # Differs from influxd: it refuses the whole batch.
            raise LineRefusedError("field type conflict")
        fields[name] = value
        at = found.end() + 1
    return fields


def read_value(token: bytes) -> FieldValue:
    """Return a field value.

    A string is what stands between the first and the last byte: bytes after its closing quote
    belong to it.

    Raises:
        LineRefusedError: It is no value.
        UnicodeDecodeError: A string that is not UTF-8.
    """
    if token[0] == 0x22:
        if len(token) == 1:  # influxd panics: a quote that the check took for escaped
            raise LineRefusedError("unbalanced quotes")
        return unescape(token[1:-1])
    known = BOOLEANS.get(token)
    return read_number(token) if known is None else known


def unescape(raw: bytes) -> str:
    """Return the text of a string field.

    Raises:
        UnicodeDecodeError: It is not UTF-8.
    """
    return _ESCAPED_IN_STRING.sub(rb"\1", raw).decode()


def _read_time(line: bytes, at: int, unit_ns: int) -> int | None:
    """Return the timestamp that follows the field set, in ns."""
    start = _skip_blanks(line, at)
    token, _, rest = line[start:].partition(b" ")
    if not token:
        return None
    if not _TIMESTAMP.fullmatch(token):
        raise LineRefusedError("bad timestamp")
    time_ns = scale_time(token, unit_ns)
    if rest.strip(b" "):
        raise LineRefusedError("point is invalid")
    return time_ns


def scale_time(token: bytes, unit_ns: int) -> int:
    """Return a timestamp in ns.

    Raises:
        LineRefusedError: It is a lone minus, or out of range.
    """
    if token == b"-":
        raise LineRefusedError('strconv.ParseInt: parsing "-": invalid syntax')
    value = int(token) if len(token.lstrip(b"-0")) <= 19 else MAX_INTEGER + 1
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise LineRefusedError(f'strconv.ParseInt: parsing "{token.decode()}": value out of range')
    if not MIN_TIME_NS <= value * unit_ns <= MAX_TIME_NS:
        raise LineRefusedError(f"time outside range {MIN_TIME_NS} - {MAX_TIME_NS}")
    return value * unit_ns
