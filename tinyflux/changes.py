"""Changes: what `update` does to a Point, checked before anything is touched.

A Change is called with each matching Point and says what the Point becomes; it changes nothing
itself. So a callable of the caller may raise halfway without harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tinyflux.point import validate_fields, validate_tags
from tinyflux.times import to_utc

if TYPE_CHECKING:
    from tinyflux.point import Point

TimeUpdate: TypeAlias = datetime | Callable[[datetime], datetime]
MeasurementUpdate: TypeAlias = str | Callable[[str], str]
TagsUpdate: TypeAlias = Mapping[str, str | None] | Callable[[dict[str, str | None]], Any]
FieldsUpdate: TypeAlias = Mapping[str, Any] | Callable[[dict[str, Any]], Any]


class State(NamedTuple):
    """All there is to a Point."""

    time: datetime
    measurement: str
    tags: dict[str, str | None]
    fields: dict[str, Any]


class Change:
    """One update, ready to be asked about Points.

    Args:
        time: A time, or a function of the old one.
        measurement: A name, or a function of the old one.
        tags: Tags to merge in, or a function of a copy of the old ones that returns them.
        fields: Fields to merge in, or a function of a copy of the old ones that returns them.
        unset_tags: Keys to take away, after the merge; one as text.
        unset_fields: The same for fields.

    Raises:
        ValueError: Nothing to update, or a value of the wrong type.
    """

    def __init__(
        self,
        time: TimeUpdate | None = None,
        measurement: MeasurementUpdate | None = None,
        tags: TagsUpdate | None = None,
        fields: FieldsUpdate | None = None,
        unset_fields: str | Iterable[str] | None = None,
        unset_tags: str | Iterable[str] | None = None,
    ) -> None:
        self._unset_fields = _keys(unset_fields, "unset_fields")
        self._unset_tags = _keys(unset_tags, "unset_tags")
        if not (time or measurement or tags or fields or self._unset_fields or self._unset_tags):
            raise ValueError("Nothing to update: give a time, measurement, tags, fields or keys.")
        self._time = _time_change(time) if time else None
        self._measurement = _measurement_change(measurement) if measurement else None
        self._tags = _tags_change(tags) if tags else None
        self._fields = _fields_change(fields) if fields else None

    def __call__(self, point: Point) -> State | None:
        """Return what a stored Point becomes; None when it stays as it is.

        Raises:
            ValueError: A callable returned a value of the wrong type.
            Exception: Whatever a callable raises.
        """
        assert point.time is not None  # stored points have a time
        old = State(point.time, point.measurement, dict(point.tags), dict(point.fields))
        new = State(
            self._time(old.time) if self._time else old.time,
            self._measurement(old.measurement) if self._measurement else old.measurement,
            _merged(old.tags, self._tags, self._unset_tags),
            _merged(old.fields, self._fields, self._unset_fields),
        )
        return None if new == old else new


def _merged(
    old: dict[str, Any],
    change: Callable[[dict[str, Any]], Mapping[str, Any]] | None,
    unset: tuple[str, ...],
) -> dict[str, Any]:
    new = dict(old)
    if change is not None:
        new.update(change(dict(old)))
    for key in unset:
        new.pop(key, None)
    return new


def _keys(keys: Any, name: str) -> tuple[str, ...]:
    if not keys:
        return ()
    if isinstance(keys, str):
        return (keys,)
    found = tuple(keys) if isinstance(keys, Iterable) else (None,)
    if not all(isinstance(key, str) for key in found):
        raise ValueError(f"'{name}' must be a string or an iterable of strings.")
    return found


def _time_change(time: TimeUpdate) -> Callable[[datetime], datetime]:
    if callable(time):
        function = time

        def change(old: datetime) -> datetime:
            new = function(old)
            if not isinstance(new, datetime):
                raise ValueError("Time must update to a datetime object.")
            return to_utc(new)

        return change
    if not isinstance(time, datetime):
        raise ValueError("Time must be datetime object.")
    instant = to_utc(time)
    return lambda old: instant  # noqa: ARG005


def _measurement_change(measurement: MeasurementUpdate) -> Callable[[str], str]:
    if callable(measurement):
        function = measurement

        def change(old: str) -> str:
            new = function(old)
            if not isinstance(new, str):
                raise ValueError("Measurement must update to a string.")
            return new

        return change
    if not isinstance(measurement, str):
        raise ValueError("Measurement must be a string.")
    return lambda old: measurement  # noqa: ARG005


def _tags_change(tags: TagsUpdate) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    if callable(tags):
        return _checked(tags, validate_tags, "Tags must update to a valid TagSet.")
    validate_tags(tags)
    static = dict(tags)
    return lambda old: static  # noqa: ARG005


def _fields_change(fields: FieldsUpdate) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    if callable(fields):
        return _checked(fields, validate_fields, "Fields must update to a valid FieldSet.")
    validate_fields(fields)
    static = dict(fields)
    return lambda old: static  # noqa: ARG005


def _checked(
    function: Callable[[dict[str, Any]], Any], validate: Callable[[object], None], message: str
) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    def change(old: dict[str, Any]) -> Mapping[str, Any]:
        before = dict(old)
        new = function(old)
        if not isinstance(new, Mapping):
            raise ValueError(message)
        # What was there already is not the caller's: a store may hold text and booleans.
        missing = object()
        supplied = {k: v for k, v in new.items() if before.get(k, missing) is not v}
        try:
            validate(supplied)
        except ValueError:
            raise ValueError(message) from None
        return supplied

    return change
