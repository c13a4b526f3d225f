"""Point: one observation, and the one data type the TinyFlux API handles.

A Point has a time, a measurement, tags (str to str or None) and fields (str to number or None). It
checks what it is given, on construction and on every assignment. `TypedPoint` also takes text and
booleans as field values.

What lives here too: the row form of a Point (`_serialize_to_list`), which is the CSV format of
TinyFlux; third-party storages use it. Points that a storage reads back are made by `make_point`,
which checks nothing.
"""

# ruff: noqa: SLF001  (the underscored names are the contract with storages)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, TypeAlias, final

from tinyflux.times import now, to_utc, utc_from_naive

__all__ = ["Point", "TypedPoint", "validate_fields", "validate_tags"]

TagSet: TypeAlias = dict[str, str | None]
FieldSet: TypeAlias = dict[str, int | float | None]


@final
class _Missing:
    """The type of an argument that was not given."""


_MISSING: Final = _Missing()

_NUMERIC_TYPES: Final = frozenset((float, int, type(None)))

# Integers up to here survive a float; larger ones are written as plain digits.
MAX_FLOAT_INTEGER: Final = 2**53


class Point:
    """One observation: when, of what, described by tags, with field values.

    The mappings are kept, not copied: what a caller changes in them later shows in the Point.

    Usage:
        >>> from datetime import datetime, timezone
        >>> Point(
        ...     time=datetime(2024, 1, 1, tzinfo=timezone.utc),
        ...     measurement="air",
        ...     tags={"city": "LA"},
        ...     fields={"aqi": 112},
        ... )
        Point(time=2024-01-01T00:00:00+00:00, measurement=air, tags=city:LA, fields=aqi:112)

    Args:
        time: A datetime. Naive times are local time. Left out: now, or None for a bare `Point()`.
        measurement: A name.
        tags: Keys to text or None.
        fields: Keys to int, float or None.

    Raises:
        TypeError: A positional argument, or an unknown keyword.
        ValueError: A value of the wrong type.
    """

    __slots__ = ("_fields", "_measurement", "_tags", "_time")

    default_measurement_name: ClassVar[str] = "_default"

    _none_str: ClassVar[str] = "_none"
    _tag_key_prefix: ClassVar[str] = "_tag_"
    _field_key_prefix: ClassVar[str] = "_field_"
    _compact_tag_key_prefix: ClassVar[str] = "t_"
    _compact_field_key_prefix: ClassVar[str] = "f_"

    _time: datetime | None
    _measurement: str
    _tags: TagSet
    _fields: FieldSet

    def __init__(
        self,
        *args: object,
        time: datetime | _Missing = _MISSING,
        measurement: str | _Missing = _MISSING,
        tags: Mapping[str, str | None] | _Missing = _MISSING,
        fields: Mapping[str, Any] | _Missing = _MISSING,
        **unknown: object,
    ) -> None:
        if args or unknown:
            _refuse_arguments(args, unknown)
        bare = True
        if measurement is _MISSING:
            self._measurement = self.default_measurement_name
        else:
            self.measurement = measurement  # type: ignore[assignment]
            bare = False
        if tags is _MISSING:
            self._tags = {}
        else:
            self.tags = tags  # type: ignore[assignment]
            bare = False
        if fields is _MISSING:
            self._fields = {}
        else:
            self.fields = fields  # type: ignore[assignment]
            bare = False
        if time is not _MISSING:
            self.time = time  # type: ignore[assignment]
        else:
            self._time = None if bare else now()

    @property
    def time(self) -> datetime | None:
        """The time; None only for a bare `Point()` that was not inserted yet."""
        return self._time

    @time.setter
    def time(self, value: datetime) -> None:
        if not isinstance(value, datetime):
            raise ValueError("Time must be datetime object.")
        self._time = value

    @property
    def measurement(self) -> str:
        """The name of the measurement."""
        return self._measurement

    @measurement.setter
    def measurement(self, value: str) -> None:
        if not isinstance(value, str):
            raise ValueError("Measurement must be a string.")
        self._measurement = value

    @property
    def tags(self) -> TagSet:
        """The tags: key to text or None."""
        return self._tags

    @tags.setter
    def tags(self, value: TagSet) -> None:
        validate_tags(value)
        self._tags = value

    @property
    def fields(self) -> FieldSet:
        """The fields: key to number or None."""
        return self._fields

    @fields.setter
    def fields(self, value: FieldSet) -> None:
        validate_fields(value)
        self._fields = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return False
        return (
            self._time == other._time
            and self._measurement == other._measurement
            and self._tags == other._tags
            and self._fields == other._fields
        )

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        time = None if self._time is None else self._time.isoformat()
        parts = [f"time={time}", f"measurement={self._measurement}"]
        if self._tags:
            parts.append("tags=" + "; ".join(f"{k}:{v}" for k, v in self._tags.items()))
        if self._fields:
            parts.append("fields=" + "; ".join(f"{k}:{v}" for k, v in self._fields.items()))
        return f"Point({', '.join(parts)})"

    def _serialize_to_list(self, compact_key_prefixes: bool = False) -> tuple[str, ...]:
        """Return the row form: time, measurement, tag cells, field cells."""
        if compact_key_prefixes:
            tag, field = self._compact_tag_key_prefix, self._compact_field_key_prefix
        else:
            tag, field = self._tag_key_prefix, self._field_key_prefix
        row = [_time_cell(self._time), self._measurement or self._none_str]
        for key, text in self._tags.items():
            row.append(tag + key)
            row.append(self._none_str if text is None else text)
        for key, value in self._fields.items():
            row.append(field + key)
            row.append(repr(value) if type(value) is float else _field_cell(value))
        return tuple(row)

    def _deserialize_from_list(self, row: Sequence[str]) -> Point:
        """Take time, measurement, tags and fields from a row form; return self.

        Raises:
            ValueError: The row is damaged: no time, or a key without a value.
        """
        if len(row) < 2 or len(row) % 2:
            raise ValueError(f"damaged row of {len(row)} cells")
        self._time = time_from_cell(row[0])
        self._measurement = row[1]
        split = split_row(row)
        none = self._none_str
        self._tags = {
            tag_key_from_cell(row[i]): None if row[i + 1] == none else row[i + 1]
            for i in range(2, split, 2)
        }
        self._fields = {
            field_key_from_cell(row[i]): field_value_from_cell(row[i + 1])
            for i in range(split, len(row), 2)
            if row[i] and row[i + 1]
        }
        return self


class TypedPoint(Point):
    """A Point whose fields may also hold text and booleans.

    Usage:
        >>> p = TypedPoint(fields={"state": "up", "ok": True, "load": 0.5})
        >>> p.fields["state"]
        'up'
    """

    __slots__ = ()

    @property
    def fields(self) -> dict[str, Any]:
        """The fields: key to number, text, boolean or None."""
        return self._fields

    @fields.setter
    def fields(self, value: Mapping[str, Any]) -> None:
        for _, item in _items(value, "Field"):
            if not isinstance(item, (int, float, str, type(None))):
                raise ValueError("Field set must contain only numbers, text, booleans or None.")
        self._fields = value  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        # A store gives back plain Points, whatever the values.
        if not isinstance(other, Point):
            return False
        return (self._time, self._measurement, self._tags, self._fields) == (
            other._time,
            other._measurement,
            other._tags,
            other._fields,
        )

    __hash__ = None


def make_point(time: datetime, measurement: str, tags: TagSet, fields: dict[str, Any]) -> Point:
    """Return a Point of what a storage holds, unchecked: text and booleans survive."""
    point = Point.__new__(Point)
    point._time = time
    point._measurement = measurement
    point._tags = tags
    point._fields = fields
    return point


def _refuse_arguments(args: tuple[object, ...], unknown: dict[str, object]) -> None:
    if args:
        raise TypeError("Point takes keyword arguments only: time, measurement, tags, fields")
    names = ", ".join(sorted(unknown))
    raise TypeError(f"Unexpected keyword arguments for Point: {names}")


def _items(value: object, kind: str) -> Iterable[tuple[str, Any]]:
    # A plain dict is asked first: isinstance with an ABC costs as much as the rest of a Point.
    if type(value) is not dict and not isinstance(value, Mapping):
        raise ValueError(f"{kind} set must be a mapping.")
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"{kind} set must contain only string keys.")
    return value.items()


def validate_tags(tags: object) -> None:
    """Check a tag set.

    Raises:
        ValueError: Not a mapping, a key that is no str, or a value that is neither str nor None.
    """
    for _, value in _items(tags, "Tag"):
        if value is not None and not isinstance(value, str):
            raise ValueError("Tag set must contain only string values or None.")


def validate_fields(fields: object) -> None:
    """Check a field set.

    Raises:
        ValueError: Not a mapping, a key that is no str, or a value that is neither int, float nor
            None. A bool is no
            number here.
    """
    for _, value in _items(fields, "Field"):
        if type(value) in _NUMERIC_TYPES:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError("Field set must contain only numeric values or None.")


def _time_cell(time: datetime | None) -> str:
    if time is None:
        return ""  # an inserted Point always has a time
    if time.tzinfo is not None:
        return to_utc(time).isoformat()[: -len("+00:00")]
    return time.isoformat()


def _field_cell(value: object) -> str:
    if value is None:
        return Point._none_str
    if isinstance(value, bool):
        return "b:true" if value else "b:false"
    if isinstance(value, str):
        return "s:" + value
    assert isinstance(value, (int, float))
    if isinstance(value, int) and abs(value) > MAX_FLOAT_INTEGER:
        return str(value)
    return repr(float(value))


def time_from_cell(cell: str) -> datetime:
    """Return the UTC time that a time cell says. No offset means UTC.

    Raises:
        ValueError: The cell is no time.
    """
    time = datetime.fromisoformat(cell)
    return utc_from_naive(time) if time.tzinfo is None else to_utc(time)


def split_row(row: Sequence[str]) -> int:
    """Return where the tag cells of a row form end and its field cells begin.

    A key cell is a tag as long as it says so: `_tag_` by its second character, compact `t_` by its
    first.
    """
    for i in range(2, len(row), 2):
        key = row[i]
        if key[1:2] != "t" and key[:1] != "t":
            return i
    return len(row)


def tag_key_from_cell(cell: str) -> str:
    """Return the tag key of a key cell, whichever prefix it has."""
    return cell[5:] if cell[1:2] == "t" else cell[2:]


def field_key_from_cell(cell: str) -> str:
    """Return the field key of a key cell, whichever prefix it has."""
    return cell[7:] if cell[1:2] == "f" else cell[2:]


def field_value_from_cell(cell: str) -> Any:
    """Return the field value of a value cell.

    All digits are an int, other numbers a float, anything else None.
    Typed values are `s:text` and `b:true`; TinyFlux without them reads None there.
    """
    try:
        digits = cell[1:] if cell[:1] == "-" else cell
        if digits.isdecimal() and digits.isascii():
            return int(cell)
        return float(cell)
    except ValueError:
        pass
    if cell[:2] == "s:":
        return cell[2:]
    return {"b:true": True, "b:false": False}.get(cell)
