"""Many like lines at once: a few calls over all of them, no Python step for a value.

Read here are lines `head fields [timestamp]`, single blanks between, either all with or all
without a timestamp. One split finds the parts; what a line is, is remembered by its head: the
series key, and the template, which is the field keys and types the series had before. The
separators of all field sets are found at once, the keys between them compared with what the
templates say, and one JSON reader turns all values into numbers. Every step proves what it relies
on; whatever is different in any way raises Odd, and the caller reads those lines by other means.

Values become numbers with a suffix for their type before that: a string its place in the table of
strings, a boolean 0 or 1, which is just what a batch holds. The suffixes are bytes that no text
read here holds.

What JSON and line protocol disagree about, and what guards it:
    type            JSON has one number: proven by the suffix, one by one
    1. .5 007 +1    no JSON (Odd); true, null and arrays: refused by their bytes
    -0              an integer to JSON: written -0.0 where it may be a float
    range           beyond int64 does not fit the slot, an infinity is an error to the reader
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import numpy as np
import orjson

from gateway.lineprotocol.line import BLANKS, LineRefusedError, read_head, read_line, unescape
from tinyflux.batch import MAX_TIME_NS, FieldType, PointBatch, field_type_of

try:
    from gateway.lineprotocol._native import read_lines
except ImportError:  # not compiled: everything is read here
    read_lines = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tinyflux.batch import FieldLayout, Int64s

_T = TypeVar("_T")

MAX_HEAD: Final = 16_000  # bytes; as for field sets, so that no key comes near MAX_KEY_LENGTH
MAX_FIELD_SET: Final = 16_000
MAX_FORMS: Final = 8  # of one head, that are tried
ENTRY_OVERHEAD: Final = 300  # bytes that the interpreter needs beside the text of a cache entry

STRING: Final = b"\x02"
BOOLEAN: Final = b"\x03"
_ESCAPED_BLANK: Final = b"\x01"

_COMMA: Final = 0x2C
_EQUALS: Final = 0x3D
_KIND_OF_LAST_BYTE: Final = np.full(256, FieldType.FLOAT, np.uint8)
_KIND_OF_LAST_BYTE[[ord("i"), *STRING, *BOOLEAN]] = (
    FieldType.INTEGER,
    FieldType.STRING,
    FieldType.BOOLEAN,
)

_FLOAT: Final = int(FieldType.FLOAT)  # numpy compares with a plain int five times as fast
_STRUCT_CODES: Final = bytes(0x64 if kind == FieldType.FLOAT else 0x71 for kind in range(256))

_FLOAT_BYTES: Final = b"0123456789.,-+eE"
_INTEGER_BYTES: Final = b"0123456789,-"

_QUOTED = re.compile(rb'="([^"\\]*(?:\\.[^"\\]*)*)"(?=[, \r\n]|\Z)', re.DOTALL)
_TRUE = re.compile(rb"=(?:t|T|true|True|TRUE),")
_FALSE = re.compile(rb"=(?:f|F|false|False|FALSE),")
_MARKED_STRING = re.compile(rb"=[0-9]+" + STRING)
_NUMBER = re.compile(rb"=[-+0-9.eE]+")


class Odd(Exception):  # not an error: these lines are read elsewhere
    """These lines are not, or not all, of the form that is read in bulk."""


class Mispredicted(Odd):
    """The field sets are not those that the heads had before."""


class Template:
    """The form of a field set: keys and types.

    Attributes:
        keys: The field keys, each with its =, one after another.
        first_key: The first of them.
        kinds: The FieldType of each, a byte a field.
        layout: The same, for a batch.
        has_booleans: There is a boolean among them.
        form: The same, for native.c: keys, kinds, and the size of each key as uint16.
    """

    __slots__ = ("first_key", "form", "has_booleans", "keys", "kinds", "layout")

    def __init__(self, layout: FieldLayout) -> None:
        keys = [f"{key}=".encode() for key, _ in layout]
        self.keys = b"".join(keys)
        self.first_key = keys[0] if keys else b""
        self.kinds = bytes(kind for _, kind in layout)
        self.layout = layout
        self.has_booleans = FieldType.BOOLEAN in self.kinds
        sizes = struct.pack(f"={len(keys)}H", *map(len, keys))
        self.form: Form = self, self.keys, self.kinds, sizes


Form: TypeAlias = tuple[Template, bytes, bytes, bytes]
Entry: TypeAlias = tuple[bytes, Template, tuple[Form, ...], int]


UNKNOWN: Final = Template(())  # no field set of this head was seen
VARIED: Final = Template(())  # the field sets of this head differ: look at each


class Heads(dict[bytes, Entry]):
    """Raw heads, each behind a line feed, to series key, template to expect, forms and number.

    The forms are those of the last few templates.

    Looking up a head that is not there reads and adds it, or raises Odd where it is bad.

    Attributes:
        order: The heads by number.
        successors: int32 for each head: the number of the one that followed it last; native.c
            notes it.
        size_bytes: About how much memory all of it takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.order: list[bytes] = []
        self.successors = bytearray()
        self.size_bytes = 0

    def __missing__(self, raw: bytes) -> Entry:
        head = raw[1:].replace(b"\\" + _ESCAPED_BLANK, b"\\ ")
        if raw[:1] != b"\n" or head[:1] in BLANKS or head[:1] == b"#" or len(head) > MAX_HEAD:
            raise Odd
        if STRING in head:  # a tag value in quotes
            raise Odd
        try:
            read = read_head(head)
        except LineRefusedError:
            raise Odd from None
        if read.has_time_tag:
            raise Odd
        entry: Entry = read.key, UNKNOWN, (), len(self.order)
        self[raw] = entry
        self.order.append(raw)
        self.successors += bytes(4)
        self.size_bytes += len(raw) + len(read.key) + ENTRY_OVERHEAD
        return entry

    def expect(self, raw: bytes, template: Template, seen: Template) -> None:
        """Note the template to expect for a head that is there, and the one that was seen."""
        key, _, forms, number = self[raw]
        if all(form is not seen.form for form in forms):
            forms = (seen.form, *forms[: MAX_FORMS - 1])
        self[raw] = key, template, forms, number

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.order.clear()
        self.successors.clear()
        self.size_bytes = 0


class Bulk:
    """Reads lines in bulk, and remembers heads and templates, bounded.

    Attributes:
        is_native: The compiled reader is there and wanted.
    """

    def __init__(self, max_cache_bytes: int, *, native: bool = True) -> None:
        self.is_native = native and read_lines is not None
        self._heads = Heads()
        self._templates: dict[bytes, Template] = {}
        self._templates_bytes = 0
        self._max_cache_bytes = max_cache_bytes

    def read(self, text: bytes, unit_ns: int, default_ns: int) -> PointBatch:
        """Return the points of lines, in their order. Views nothing of the text.

        Args:
            text: Lines, with a line feed between them; a carriage return before it is ignored.
            unit_ns: The unit of the timestamps.
            default_ns: The time of lines without one.

        Raises:
            Odd: Some line is not of the form read here. Nothing is known of which.
        """
        if self._heads.size_bytes + self._templates_bytes > self._max_cache_bytes:
            self._forget()
        text, strings = _prepared(text)
        spaced = text.replace(b"\n", b" \n")
        n_lines = len(spaced) - len(text) + 1  # much faster than count
        tokens = spaced.split(b" ")
        tokens[0] = b"\n" + tokens[0]
        # With a line feed before each head and nowhere else, and heads that begin with one, no
        # token can be out of its place.
        if len(tokens) == 3 * n_lines:
            heads, field_sets = tokens[::3], tokens[1::3]
            times = _times(tokens[2::3], unit_ns)
        elif len(tokens) == 2 * n_lines:
            heads, field_sets = tokens[::2], tokens[1::2]
            times = np.full(n_lines, default_ns, np.int64)
        else:
            raise Odd
        entries = list(map(self._heads.__getitem__, heads))
        keys, predicted = [entry[0] for entry in entries], [entry[1] for entry in entries]
        templates = self._resolved(heads, field_sets, predicted)
        try:
            values = _values(templates, field_sets)
        except Mispredicted:
            templates = self._observed(heads, field_sets, templates)
            values = _values(templates, field_sets)
        return _batch(keys, times, templates, values, strings)

    def known(self, unit_ns: int) -> Known:
        """Return an empty collection of lines that are like others before.

        Only with the compiled reader (`is_native`).

        Args:
            unit_ns: The unit of the timestamps.
        """
        return Known(self._heads, unit_ns)

    def _forget(self) -> None:
        self._heads.clear()
        self._templates.clear()
        self._templates_bytes = 0

    def _resolved(
        self, heads: list[bytes], field_sets: list[bytes], predicted: Sequence[Template]
    ) -> Sequence[Template]:
        """Return the template of each line, where need be from its field set."""
        kinds = set(predicted)
        if UNKNOWN not in kinds and VARIED not in kinds:
            return predicted
        templates = list(predicted)
        for row, template in enumerate(predicted):
            if template is VARIED:
                templates[row] = self._of_varied(heads[row], field_sets[row])
            elif template is UNKNOWN:
                templates[row] = self._template(field_sets[row])
                self._heads.expect(heads[row], templates[row], templates[row])
        return templates

    def _of_varied(self, head: bytes, field_set: bytes) -> Template:
        """Return the template of a line whose head had several, by its first key if that tells."""
        forms = self._heads[head][2]
        if len(forms) < MAX_FORMS:
            likely = [form[0] for form in forms if field_set.startswith(form[0].first_key)]
            if len(likely) == 1:
                return likely[0]
        template = self._template(field_set)
        self._heads.expect(head, VARIED, template)
        return template

    def _observed(
        self, heads: list[bytes], field_sets: list[bytes], predicted: Sequence[Template]
    ) -> Sequence[Template]:
        """Return templates by the field sets; heads that were wrong predict no more."""
        templates = list(map(self._template, field_sets))
        for head, template, wrong in zip(heads, templates, predicted, strict=True):
            if template is not wrong:
                self._heads.expect(head, VARIED, template)
        return templates

    def _template(self, field_set: bytes) -> Template:
        """Return the template of a field set that is not yet proven to be well formed."""
        form = _NUMBER.sub(b"=", _mark_booleans(field_set + b","))
        template = self._templates.get(form)
        if template is None:
            template = _learn(field_set)
            self._templates[form] = template
            self._templates_bytes += 4 * len(form) + 2 * ENTRY_OVERHEAD
        return template


class Known:
    """Lines that are like others before, out of one body or several, read by native.c."""

    def __init__(self, heads: Heads, unit_ns: int) -> None:
        self._heads = heads
        self._unit_ns = unit_ns
        self._keys: dict[bytes, int] = {}
        self._layouts: dict[Template, int] = {}
        self._strings: list[str] = []
        self._times: list[bytes] = []
        self._values: list[bytes] = []
        self._rows: list[bytes] = []

    def read(
        self,
        text: bytes,
        start: int,
        default_ns: int,
        *,
        whole: bool = False,
        between: Callable[[], None] | None = None,
    ) -> int:
        """Take the lines up to the first that is not known.

        Args:
            text: Any body.
            start: Where a line begins.
            default_ns: The time of lines without one.
            whole: Take all lines or none.
            between: Called now and then; may read other lines, but not by this object.

        Returns:
            Where the line begins that has to be read otherwise: the length of the text if there is
            none.
        """
        n_keys, n_layouts, n_strings = len(self._keys), len(self._layouts), len(self._strings)
        heads = self._heads
        end, times, values, rows = read_lines(
            text,
            start,
            self._unit_ns,
            default_ns,
            heads,
            heads.order,
            heads.successors,
            self._keys,
            self._layouts,
            self._strings,
            between,
        )
        if whole and end < len(text):
            _shorten(self._keys, n_keys)
            _shorten(self._layouts, n_layouts)
            del self._strings[n_strings:]
            return end
        self._times.append(times)
        self._values.append(values)
        self._rows.append(rows)
        return end

    def batch(self) -> PointBatch:
        """Return the points of all lines taken, in their order."""
        rows = _int64s(self._rows)
        return PointBatch(
            list(self._keys),
            (rows >> 32).astype(np.int32),
            _int64s(self._times),
            [template.layout for template in self._layouts],
            rows.astype(np.int32),
            _int64s(self._values),
            self._strings,
        )


def _int64s(parts: list[bytes]) -> Int64s:
    return np.frombuffer(b"".join(parts), np.int64).copy()


def _shorten(rows: dict[_T, int], size: int) -> None:
    """Take the newest entries of a dict away."""
    while len(rows) > size:
        rows.popitem()


def _prepared(text: bytes) -> tuple[bytes, list[str]]:
    """Return the text without strings and escaped blanks, and the strings.

    That a quote after = begins a string holds in field sets only; what is taken for a string
    elsewhere leaves its mark in a place where no mark can be read.
    """
    if STRING in text or BOOLEAN in text or _ESCAPED_BLANK in text:
        raise Odd
    strings: list[str] = []
    if b'"' in text:
        pieces = _QUOTED.split(text)
        try:
            strings = [unescape(raw) if b"\\" in raw else raw.decode() for raw in pieces[1::2]]
        except UnicodeDecodeError:
            raise Odd from None
        pieces[1::2] = [b"=%d\x02" % n for n in range(len(strings))]
        text = b"".join(pieces)
        if b'"' in text:
            raise Odd
    if b"\\" in text:
        if b"\\\\" in text:  # `line` tells how many opinions influxd has about that
            raise Odd
        text = text.replace(b"\\ ", b"\\" + _ESCAPED_BLANK)
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").removesuffix(b"\r")
    return text, strings


def _mark_booleans(text: bytes) -> bytes:
    """Return field sets, a comma behind each field, with booleans as marked numbers."""
    return _FALSE.sub(b"=0\x03,", _TRUE.sub(b"=1\x03,", text))


def _learn(field_set: bytes) -> Template:
    if len(field_set) > MAX_FIELD_SET or b"\\" in field_set or field_set[:1] in BLANKS:
        raise Odd
    try:
        point = read_line(b"m " + _MARKED_STRING.sub(b'=""', field_set))
    except ValueError:
        raise Odd from None
    if len(point.fields) != field_set.count(b"="):  # one field key twice, or time
        raise Odd
    return Template(tuple((key, field_type_of(value)) for key, value in point.fields.items()))


def _times(stamps: list[bytes], unit_ns: int) -> Int64s:
    """Return int64[n], ns."""
    text = b",".join(stamps)
    if text.translate(None, _INTEGER_BYTES):
        raise Odd
    try:
        numbers = orjson.loads(b"[" + text + b"]")
    except orjson.JSONDecodeError:
        raise Odd from None
    if len(numbers) != len(stamps):  # none in the only line, or a comma in one
        raise Odd
    limit = MAX_TIME_NS // unit_ns
    if min(numbers) < -limit or max(numbers) > limit:
        raise Odd
    return _integers(numbers) * unit_ns


def _values(templates: Sequence[Template], field_sets: list[bytes]) -> Int64s:
    """Return int64[m]: the slots of all lines, as a batch holds them.

    Raises:
        Mispredicted: The field sets are not of these templates.
        Odd: Some value is no number, or not as JSON writes it.
    """
    text = b",".join(field_sets) + b","
    if any(template.has_booleans for template in set(templates)):
        text = _mark_booleans(text)
    symbols = np.frombuffer(text, np.uint8)
    ends = ((symbols == _EQUALS) | (symbols == _COMMA)).nonzero()[0]
    lengths = ends.copy()
    lengths[1:] -= ends[:-1]
    lengths[0] += 1
    is_value = np.zeros(len(ends), np.bool_)
    is_value[1::2] = True
    of_value = is_value.repeat(lengths)
    # Each piece ends in the only separator it has. So if the pieces that should be keys are the
    # keys, they ended in =, and a value that did not end in a comma shows below by its =.
    if symbols[~of_value].tobytes() != b"".join([template.keys for template in templates]):
        raise Mispredicted
    last = ends[1::2] - 1
    kinds = _KIND_OF_LAST_BYTE[symbols[last]]
    if kinds.tobytes() != b"".join([template.kinds for template in templates]):
        raise Mispredicted
    of_value[last[kinds != _FLOAT]] = False
    return _slots(symbols[of_value].tobytes(), kinds.tobytes())


def _slots(text: bytes, kinds: bytes) -> Int64s:
    """Return int64[m] of numbers as text, a comma behind each."""
    codes = kinds.translate(_STRUCT_CODES)
    has_floats = b"d" in codes
    if text.translate(None, _FLOAT_BYTES if has_floats else _INTEGER_BYTES):
        raise Odd
    if has_floats and b"-0," in text:
        text = text.replace(b"-0,", b"-0.0,")
    try:
        numbers = orjson.loads(b"[" + text + b"0]")
    except orjson.JSONDecodeError:
        raise Odd from None
    numbers.pop()
    if not has_floats:
        return _integers(numbers)
    form = codes.decode() if b"q" in codes else f"{len(codes)}d"
    return _packed(form, numbers)


def _integers(numbers: list[int | float]) -> Int64s:
    return _packed(f"{len(numbers)}q", numbers)


def _packed(form: str, numbers: list[int | float]) -> Int64s:
    # struct is twice as fast as np.array, and strict. The class, because its functions keep forms.
    try:
        packed = struct.Struct("=" + form).pack(*numbers)
    except struct.error:  # an integer with a fraction, or beyond int64
        raise Odd from None
    return np.frombuffer(bytearray(packed), np.int64)


def _batch(
    keys: Sequence[bytes],
    times: Int64s,
    templates: Sequence[Template],
    values: Int64s,
    strings: list[str],
) -> PointBatch:
    distinct = {key: row for row, key in enumerate(dict.fromkeys(keys))}
    forms = {template: row for row, template in enumerate(dict.fromkeys(templates))}
    if len(forms) == 1:
        layout_rows = np.zeros(len(templates), np.int32)
    else:
        layout_rows = np.fromiter(map(forms.__getitem__, templates), np.int32, len(templates))
    return PointBatch(
        list(distinct),
        np.fromiter(map(distinct.__getitem__, keys), np.int32, len(keys)),
        times,
        [template.layout for template in forms],
        layout_rows,
        values,
        strings,
    )
