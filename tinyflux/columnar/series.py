"""The series index: which series a store has, with their tags, and the field types.

Everything asked about names (measurements, tag keys, tag values, field keys, series) is answered
here, never by a scan. One writer changes the index; readers hold an `IndexView`, a consistent
prefix of it, and never lock. That works because

- ids are dense and given once, in ascending order: a view is "the series with an id below `limit`";
- arrays only grow at their end, and by copy: what a view sliced stays as it was;
- what can change in place elsewhere (field types, a measurement without some of its series) is
  replaced, not changed.

Memory per series: its key once, one dict entry, 8 bytes of id and 4 bytes per tag key of the
measurement.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from tinyflux.batch import FieldType, parse_series_key, renamed_series_key
from tinyflux.columnar.base import SeriesSet, TagColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tinyflux.batch import Bools, Int32s, Int64s, Tags

HIDDEN: Final = "\0"
"""A measurement whose name begins with it is kept, but neither listed nor counted: a trash."""

_FIRST_CAPACITY: Final = 16


class TagIndex:
    """One tag key of a measurement: a code for each series, and what the codes mean.

    Attributes:
        codes: int32[capacity], an index into `values` for each member series; -1 where it lacks the
            tag.
        values: The distinct values in order of appearance; only ever appended to.
        lookup: Value to code.
        first: The first member that has the tag.
    """

    __slots__ = ("codes", "first", "lookup", "values")

    def __init__(self, capacity: int, first: int) -> None:
        self.codes: Int32s = np.full(capacity, -1, np.int32)
        self.values: list[str | None] = []
        self.first = first
        self.lookup: dict[str | None, int] = {}

    def set(self, member: int, value: str | None) -> None:
        """Give a member series its value."""
        code = self.lookup.get(value)
        if code is None:
            code = len(self.values)
            self.values.append(value)
            self.lookup[value] = code
        self.codes[member] = code

    def grow(self, capacity: int) -> None:
        """Make room for more members. The old array stays with those who hold it."""
        codes = np.full(capacity, -1, np.int32)
        codes[: len(self.codes)] = self.codes
        self.codes = codes


class MeasurementIndex:
    """The series and fields of one measurement.

    Attributes:
        name: Its name.
        number: Names this measurement, from its creation to its end, among all of a store; never
            used again.
        count: How many member series there are.
        ids: int64[capacity]; the first `count` are the ids of the members, ascending.
        tags: Tag key to its index.
        fields: Field key to type, sorted by key. Replaced on change, so a reader may keep it.
    """

    __slots__ = ("_keys", "_series", "count", "fields", "ids", "name", "number", "tags")

    def __init__(self, name: str, number: int, fields: Mapping[str, FieldType]) -> None:
        self.name = name
        self.number = number
        self.count = 0
        self.ids: Int64s = np.zeros(_FIRST_CAPACITY, np.int64)
        self.tags: dict[str, TagIndex] = {}
        self.fields = dict(sorted(fields.items()))
        self._series: SeriesSet | None = None  # the members that were asked for last
        self._keys: tuple[int, list[str]] = (0, [])  # the same of tag keys, and of how many members

    def named(self, name: str) -> MeasurementIndex:
        """Return the same measurement under another name; this one must not grow any more."""
        other = MeasurementIndex(name, self.number, self.fields)
        other.count, other.ids, other.tags = self.count, self.ids, self.tags
        return other

    def add(self, series_id: int, tags: Tags) -> None:
        """Append a series. The id is greater than all before."""
        member = self.count
        if member == len(self.ids):
            self._grow(2 * member)
        self.ids[member] = series_id
        for key, value in tags:
            tag = self.tags.get(key)
            if tag is None:
                tag = TagIndex(len(self.ids), member)
                tag.set(member, value)
                # A dict that a reader may be walking is not changed in size.
                self.tags = {**self.tags, key: tag}
            else:
                tag.set(member, value)
        self.count = member + 1  # last: only now can a reader see the member

    def _grow(self, capacity: int) -> None:
        ids = np.zeros(capacity, np.int64)
        ids[: self.count] = self.ids[: self.count]
        for tag in self.tags.values():
            tag.grow(capacity)
        self.ids = ids

    def members_below(self, limit: int) -> int:
        """Return how many members have an id below limit."""
        count = self.count
        if count and self.ids[count - 1] < limit:  # all: the writer has not moved on
            return count
        return int(np.searchsorted(self.ids[:count], limit))

    def tag_keys(self, limit: int) -> list[str]:
        """Return the tag keys of the members with an id below limit, sorted."""
        k = self.members_below(limit)
        known, keys = self._keys
        if known != k:  # what so many members have does not change any more
            keys = sorted(key for key, tag in self.tags.items() if tag.first < k)
            self._keys = k, keys
        return keys.copy()

    def series(self, limit: int) -> SeriesSet:
        """Return the members with an id below limit, without a copy."""
        k = self.members_below(limit)
        series = self._series
        if series is None or len(series) != k:
            columns = {
                key: TagColumn(tag.codes[:k], tag.values, tag.lookup)
                for key, tag in self.tags.items()
                if tag.first < k
            }
            series = self._series = SeriesSet(self.name, self.ids[:k], columns)
        return series


Catalog: TypeAlias = "Mapping[str, tuple[MeasurementIndex, Mapping[str, FieldType]]]"


@dataclass(frozen=True, slots=True)
class IndexView:
    """The index as it was at one moment.

    Attributes:
        catalog: Measurement name to its index and its field types.
        limit: Series with an id below it are seen.
        count: How many series that is, hidden ones left out.
    """

    catalog: Catalog
    limit: int
    count: int

    def measurements(self) -> list[str]:
        """Return the names of the measurements, sorted."""
        return sorted(
            name
            for name, (m, _) in self.catalog.items()
            if m.members_below(self.limit) and not name.startswith(HIDDEN)
        )

    def has(self, measurement: str) -> bool:
        """Return whether a measurement has series; it may be a hidden one."""
        entry = self.catalog.get(measurement)
        return entry is not None and entry[0].members_below(self.limit) > 0

    def number(self, measurement: str) -> int:
        """Return the number of a measurement, -1 when unknown."""
        entry = self.catalog.get(measurement)
        return -1 if entry is None else entry[0].number

    def names(self) -> dict[int, str]:
        """Return the name of each measurement by its number."""
        return {entry.number: name for name, (entry, _) in self.catalog.items()}

    def fields(self, measurement: str) -> Mapping[str, FieldType]:
        """Return field key to type, sorted by key; {} when the measurement is unknown."""
        entry = self.catalog.get(measurement)
        return {} if entry is None else entry[1]

    def tag_keys(self, measurement: str) -> list[str]:
        """Return the tag keys of a measurement, sorted."""
        entry = self.catalog.get(measurement)
        return [] if entry is None else entry[0].tag_keys(self.limit)

    def series(self, measurement: str) -> SeriesSet:
        """Return all series of a measurement; an empty set when it is unknown."""
        entry = self.catalog.get(measurement)
        if entry is None:
            return SeriesSet(measurement, np.zeros(0, np.int64), {})
        return entry[0].series(self.limit)


class SeriesIndex:
    """The index of one store. Every changing method belongs to the one writer.

    Attributes:
        next_id: The id the next new series will get.
    """

    def __init__(self) -> None:
        self.next_id = 0
        self._ids: dict[bytes, int] = {}
        self._keys: list[bytes] = []
        self._measurement_of: Int32s = np.zeros(_FIRST_CAPACITY, np.int32)
        self._measurements: dict[str, MeasurementIndex] = {}
        self._by_number: list[MeasurementIndex] = []
        self._version = 0  # of the names: measurements and field types
        self._catalog: tuple[int, Catalog, int] = (0, {}, 0)  # of a version; its hidden series

    def __len__(self) -> int:
        return len(self._ids)

    def view(self) -> IndexView:
        """Return the index as it is now. O(measurements) after a change of names, else O(1)."""
        count, limit, version = len(self._ids), self.next_id, self._version
        cached_version, catalog, n_hidden = self._catalog
        if cached_version != version:
            known = list(self._measurements.items())
            catalog = {name: (m, m.fields) for name, m in known}
            n_hidden = sum(m.count for name, m in known if name.startswith(HIDDEN))
            # Not trusted when the writer has moved on meanwhile.
            self._catalog = version, catalog, n_hidden
        return IndexView(catalog, limit, count - n_hidden)

    def lookup(self, keys: Iterable[bytes]) -> list[int]:
        """Return the id of each series key, -1 for an unknown one."""
        return list(map(self._ids.get, keys, itertools.repeat(-1)))

    def add(self, key: bytes) -> int:
        """Return the id of a series, which is made when it is new."""
        known = self._ids.get(key)
        if known is not None:
            return known
        name, tags = parse_series_key(key)
        measurement = self.open_measurement(name)
        series_id = self.next_id
        if series_id >= len(self._measurement_of):
            self._measurement_of = np.resize(self._measurement_of, 2 * series_id)
        self._measurement_of[series_id] = measurement.number
        measurement.add(series_id, tags)
        self._keys.append(key)
        self._ids[key] = series_id
        self.next_id = series_id + 1
        return series_id

    def open_measurement(self, name: str) -> MeasurementIndex:
        """Return a measurement, made when it is new; it shows only once it has a series."""
        measurement = self._measurements.get(name)
        if measurement is None:
            measurement = MeasurementIndex(name, len(self._by_number), {})
            self._by_number.append(measurement)
            self._measurements[name] = measurement
            self._version += 1
        return measurement

    def tag_values(self, measurement: str, key: str) -> Mapping[str | None, int]:
        """Return the values of a tag key to their codes; {} when there are none. Not a copy."""
        found = self._measurements.get(measurement)
        tag = None if found is None else found.tags.get(key)
        return {} if tag is None else tag.lookup

    def widest_tag(self) -> tuple[int, str, str]:
        """Return the most values a tag has, its measurement and its key; (0, "", "") without."""
        tags = (
            (len(tag.lookup), measurement.name, key)
            for measurement in list(self._measurements.values())
            for key, tag in measurement.tags.items()
            if not measurement.name.startswith(HIDDEN)
        )
        return max(tags, default=(0, "", ""))

    def key(self, series_id: int) -> bytes:
        """Return the series key of an id."""
        return self._keys[series_id]

    def numbers(self, ids: Int64s) -> Int32s:
        """Return int32[n], the measurement number of each series id."""
        return self._measurement_of[ids]

    def measurement(self, number: int) -> MeasurementIndex:
        """Return the measurement with a number."""
        return self._by_number[number]

    def set_fields(self, number: int, fields: Mapping[str, FieldType]) -> None:
        """Replace the field types of a measurement."""
        self._by_number[number].fields = dict(sorted(fields.items()))
        self._version += 1

    def discard(self, measurement: str, gone: Bools) -> None:
        """Remove series, and the measurement with its field types when none is left.

        Args:
            measurement: Its name; unknown is fine.
            gone: bool[count], which members go. Their ids are never given again.
        """
        old = self._measurements.get(measurement)
        if old is None or not gone.any():
            return
        doomed, kept = old.ids[: old.count][gone], old.ids[: old.count][~gone]
        remaining = dict(self._measurements)
        del remaining[measurement]
        self._measurements = remaining
        if len(kept):
            new = MeasurementIndex(measurement, old.number, old.fields)
            for series_id in kept.tolist():
                new.add(series_id, parse_series_key(self._keys[series_id])[1])
            self._by_number[old.number] = self._measurements[measurement] = new
        for series_id in doomed.tolist():
            del self._ids[self._keys[series_id]]
            self._keys[series_id] = b""
        self._version += 1

    def rename(self, measurement: str, name: str) -> None:
        """Give a measurement another name; ids, fields and number stay. O(its series).

        Args:
            measurement: It exists.
            name: No measurement with series has it.
        """
        old = self._measurements[measurement]
        for series_id in old.ids[: old.count].tolist():
            key = self._keys[series_id]
            del self._ids[key]
            self._keys[series_id] = key = renamed_series_key(key, measurement, name)
            self._ids[key] = series_id
        renamed = old.named(name)
        remaining = {key: entry for key, entry in self._measurements.items() if key != measurement}
        self._measurements = {**remaining, name: renamed}
        self._by_number[old.number] = renamed
        self._version += 1

    def entries(self) -> list[tuple[int, bytes]]:
        """Return ids and keys of all series, ids ascending."""
        return [(series_id, key) for series_id, key in enumerate(self._keys) if key]

    def restore(self, entries: Iterable[tuple[int, bytes]], limit: int) -> None:
        """Fill an empty index with series of known ids, as a store does that opens.

        Args:
            entries: Ids, ascending, with their series keys. Ids that are missing belonged to
                deleted series.
            limit: The next id to give, above all of them.
        """
        for series_id, key in entries:
            self._skip_to(series_id)
            self.add(key)
        self._skip_to(limit)

    def _skip_to(self, series_id: int) -> None:
        self._keys += [b""] * (series_id - self.next_id)
        self.next_id = series_id

    def keys(self, ids: Sequence[int]) -> list[bytes]:
        """Return the series keys of ids, in their order."""
        return [self._keys[series_id] for series_id in ids]
