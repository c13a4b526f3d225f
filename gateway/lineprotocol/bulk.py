"""Many like lines at once: a few calls over all of them, no Python step for a value.

Read here are lines `head fields [timestamp]`, single blanks between, either all with or all
without a timestamp, and with numbers only. One split finds all three parts; what a line is, is
remembered by its head: the series key, and the template, which is the field keys and types the
series had before. All field sets are split at once, the keys compared with what the templates
say, and one JSON reader turns all values into numbers. Every step proves what it relies on;
whatever is different in any way raises Odd, and the caller reads those lines by other means.

What JSON and line protocol disagree about, and what guards it:
    type            JSON has one number: integers are proven by the i before the comma, one by one
    1. .5 007 +1    no JSON (Odd); true, null, strings and arrays: refused by their bytes
    -0              an integer to JSON: written -0.0 where it is a float
    range           integers must come out as an int64 array, floats finite
"""

from __future__ import annotations

import re
from itertools import chain, compress
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from gateway.lineprotocol.line import BLANKS, LineRefusedError, read_head, read_line
from tinyflux.batch import MAX_TIME_NS, FieldType, PointBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyflux.batch import FieldLayout, Float64s, Int64s

MAX_HEAD: Final = 16_000  # bytes, as for field keys: together far below the limit on keys
MAX_FIELD_SET: Final = 16_000
ENTRY_OVERHEAD: Final = 300  # bytes that the interpreter needs beside the text of a cache entry

_NUMBERS: Final = b"0123456789.,-+eEi"
_TIMES: Final = b"0123456789,-"
_COMMA: Final = 0x2C
_I: Final = 0x69
_VALUES = re.compile(rb"=[-+0-9.eE]+")
_BLANK_STANDS_FOR: Final = b"\\\x01"  # an escaped blank while a text is split at blanks


class Odd(Exception):  # noqa: N818 - not an error: these lines are read elsewhere
    """These lines are not, or not all, of the form that is read in bulk."""


class Mispredicted(Odd):
    """The field sets are not those that the heads had before."""


class Template:
    """The form of a field set: keys and types, all numeric.

    Attributes:
        names: The field keys, each with its =.
        integers: One byte a field, 1 where it is an integer.
        layout: The same, for a batch.
    """

    __slots__ = ("integers", "layout", "names")

    def __init__(self, layout: FieldLayout) -> None:
        self.names = [key.encode() + b"=" for key, _ in layout]
        self.integers = bytes(kind is FieldType.INTEGER for _, kind in layout)
        self.layout = layout


UNKNOWN: Final = Template(())  # no field set of this head was seen
VARIED: Final = Template(())  # the field sets of this head differ: look at each


class Heads(dict[bytes, tuple[bytes, Template]]):
    """Raw heads, each behind a line feed, to their series key and the template to expect.

    Looking up a head that is not there reads and adds it, or raises Odd where it is bad.
    """

    def __init__(self) -> None:
        super().__init__()
        self.size_bytes = 0

    def __missing__(self, raw: bytes) -> tuple[bytes, Template]:
        head = raw[1:].replace(_BLANK_STANDS_FOR, b"\\ ")
        if raw[:1] != b"\n" or not head or head[0] in BLANKS or head[0] == 0x23:
            raise Odd
        try:
            read = read_head(head)
        except LineRefusedError:
            raise Odd from None
        if read.has_time_tag or len(head) > MAX_HEAD:
            raise Odd
        entry = self[raw] = read.key, UNKNOWN
        self.size_bytes += len(raw) + len(read.key) + ENTRY_OVERHEAD
        return entry

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.size_bytes = 0


class Bulk:
    """Reads lines in bulk, and remembers heads and templates, bounded.

    Attributes:
        heads: What is known of heads; others may look heads up here.
    """

    def __init__(self, max_cache_bytes: int) -> None:
        self.heads = Heads()
        self._templates: dict[bytes, Template] = {}
        self._templates_bytes = 0
        self._max_cache_bytes = max_cache_bytes

    def read(self, lines: Sequence[bytes], unit_ns: int, default_ns: int) -> PointBatch:
        """Return the points of lines, in their order. Views nothing of the lines.

        Args:
            lines: At least one; no line holds a quote, a line feed or a trailing carriage return.
            unit_ns: The unit of the timestamps.
            default_ns: The time of lines without one.

        Raises:
            Odd: Some line is not of the form read here. Nothing is known of which.
        """
        if self.heads.size_bytes + self._templates_bytes > self._max_cache_bytes:
            self._forget()
        text = b"\n" + b" \n".join(lines)
        if b"\\ " in text:
            if b"\x01" in text:
                raise Odd
            text = text.replace(b"\\ ", _BLANK_STANDS_FOR)
        tokens = text.split(b" ")
        # With a line feed before each head and nowhere else, and heads that begin with one,
        # nothing is displaced.
        if len(tokens) == 3 * len(lines):
            heads, field_sets = tokens[::3], tokens[1::3]
            times = _times(tokens[2::3], unit_ns)
        elif len(tokens) == 2 * len(lines):
            heads, field_sets = tokens[::2], tokens[1::2]
            times = np.full(len(lines), default_ns, np.int64)
        else:
            raise Odd
        keys, predicted = zip(*map(self.heads.__getitem__, heads), strict=True)
        templates = self._resolved(heads, field_sets, predicted)
        try:
            values = _values(templates, field_sets)
        except Mispredicted:
            templates = self._observed(heads, field_sets, templates)
            values = _values(templates, field_sets)
        return _batch(keys, times, templates, values)

    def _forget(self) -> None:
        self.heads.clear()
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
            if template is UNKNOWN or template is VARIED:
                templates[row] = self._template(field_sets[row])
                if template is UNKNOWN:
                    self._expect(heads[row], templates[row])
        return templates

    def _observed(
        self, heads: list[bytes], field_sets: list[bytes], predicted: Sequence[Template]
    ) -> Sequence[Template]:
        """Return templates by the field sets; heads that were wrong predict no more."""
        templates = list(map(self._template, field_sets))
        for head, template, wrong in zip(heads, templates, predicted, strict=True):
            if template is not wrong:
                self._expect(head, VARIED)
        return templates

    def _expect(self, head: bytes, template: Template) -> None:
        self.heads[head] = self.heads[head][0], template

    def _template(self, field_set: bytes) -> Template:
        """Return the template of a field set that is not yet proven to be well formed."""
        form = _VALUES.sub(b"=", field_set)
        template = self._templates.get(form)
        if template is None:
            template = _learn(field_set)
            self._templates[form] = template
            self._templates_bytes += 4 * len(form) + 2 * ENTRY_OVERHEAD
        return template


def _learn(field_set: bytes) -> Template:
    if len(field_set) > MAX_FIELD_SET or b"\\" in field_set or field_set[:1] in BLANKS:
        raise Odd
    try:
        point = read_line(b"m " + field_set)
    except ValueError:
        raise Odd from None
    kinds = {float: FieldType.FLOAT, int: FieldType.INTEGER}
    if len(point.fields) != field_set.count(b"=") or not kinds.keys() >= set(
        map(type, point.fields.values())
    ):
        raise Odd
    return Template(tuple((key, kinds[type(value)]) for key, value in point.fields.items()))


def _times(stamps: list[bytes], unit_ns: int) -> Int64s:
    """Return int64[n], ns."""
    text = b",".join(stamps)
    if text.translate(None, _TIMES):
        raise Odd
    try:
        numbers = orjson.loads(b"[" + text + b"]")
    except orjson.JSONDecodeError:
        raise Odd from None
    limit = MAX_TIME_NS // unit_ns
    if min(numbers) < -limit or max(numbers) > limit:
        raise Odd
    return np.array(numbers, np.int64) * unit_ns


def _values(templates: Sequence[Template], field_sets: list[bytes]) -> Int64s:
    """Return int64[m]: the slots of all lines, as a batch holds them.

    Raises:
        Mispredicted: The field sets are not of these templates.
        Odd: Some value is no number, or not as JSON writes it.
    """
    # The = stays with the key: that the keys are equal then proves every separator.
    tokens = b",".join(field_sets).replace(b"=", b"=,").split(b",")
    if tokens[::2] != list(chain.from_iterable([template.names for template in templates])):
        raise Mispredicted
    integers = b"".join([template.integers for template in templates])
    text = b",".join(tokens[1::2]) + b","
    if text.translate(None, _NUMBERS):
        raise Odd
    _check_suffixes(text, integers)
    if b"-0," in text:
        text = text.replace(b"-0,", b"-0.0,")
    try:
        numbers = orjson.loads(b"[" + text.replace(b"i,", b",") + b"0]")
    except orjson.JSONDecodeError:
        raise Odd from None
    numbers.pop()
    return _slots(numbers, integers)


def _check_suffixes(text: bytes, integers: bytes) -> None:
    """Prove that exactly the integers end in i."""
    if b"\x01" not in integers:
        if b"i" in text:
            raise Mispredicted
        return
    symbols = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(symbols == _COMMA)
    if (symbols[ends - 1] == _I).tobytes() != integers:
        raise Mispredicted


def _slots(numbers: list[int | float], integers: bytes) -> Int64s:
    """Return int64[m] of numbers, of which some have to be integers."""
    if b"\x01" not in integers:
        return _floats(numbers).view(np.int64)
    if b"\x00" not in integers:
        return _integers(numbers)
    is_integer = np.frombuffer(integers, np.bool_)
    slots = np.empty(len(numbers), np.int64)
    slots[is_integer] = _integers(list(compress(numbers, integers)))
    slots.view(np.float64)[~is_integer] = _floats(list(compress(numbers, ~is_integer)))
    return slots


def _integers(numbers: list[int | float]) -> Int64s:
    array = np.array(numbers)
    if array.dtype != np.int64:
        raise Odd
    return array


def _floats(numbers: list[int | float]) -> Float64s:
    array = np.array(numbers, np.float64)
    if not np.isfinite(array).all():
        raise Odd
    return array


def _batch(
    keys: Sequence[bytes], times: Int64s, templates: Sequence[Template], values: Int64s
) -> PointBatch:
    distinct = {key: row for row, key in enumerate(dict.fromkeys(keys))}
    forms = {template: row for row, template in enumerate(dict.fromkeys(templates))}
    if len(forms) == 1:
        layout_rows = np.zeros(len(templates), np.int32)
    else:
        layout_rows = np.array(list(map(forms.__getitem__, templates)), np.int32)
    return PointBatch(
        list(distinct),
        np.array(list(map(distinct.__getitem__, keys)), np.int32),
        times,
        [template.layout for template in forms],
        layout_rows,
        values,
    )
