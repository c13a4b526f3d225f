"""The contract between a columnar storage and everything that asks it.

`Reader` is what can be asked, of a storage or of a snapshot of it. `ColumnarStorage` adds what can
be done. Requests and answers are arrays: int64 nanoseconds, typed columns, no Point objects. A
second implementation, on a distributed engine, fits behind these few methods;
`tinyflux.columnar.aggregate` is the default `aggregate` for all of them.

A cut that differs from a per-series iterator: `scan` yields Frames of *many* series, sorted by
(series, time), because a Python step per series costs more than the arithmetic on its rows once
there are hundreds of series. Frames come in partitions: no (series, time) occurs in two frames, and
for one series the frames come in ascending time order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinyflux.batch import (
    MAX_TIME_NS,
    MIN_TIME_NS,
    Bools,
    FieldType,
    Int32s,
    Int64s,
    PointBatch,
)
from tinyflux.queries import CompoundQuery, SimpleQuery
from tinyflux.storages import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tinyflux.windows import Windows

Query: TypeAlias = SimpleQuery | CompoundQuery
Values: TypeAlias = (
    NDArray[np.float64] | NDArray[np.int64] | NDArray[np.bool_] | NDArray[np.object_]
)

# What a text of usual length takes, wherever its columns are.
TEXT_BYTES: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class TagColumn:
    """One tag of many series, dictionary coded.

    Attributes:
        codes: int32[k], an index into `values` for each series; -1 where the series lacks the tag.
        values: The distinct values; None is the explicit None of the TinyFlux API. May hold some
            that no series has.
        lookup: Value to code, where the storage has it: makes `tag == value` independent of the
            number of values.
    """

    codes: Int32s
    values: Sequence[str | None]
    lookup: Mapping[str | None, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SeriesSet:
    """Series of one measurement: the tag half of a query's answer.

    Attributes:
        measurement: Their measurement.
        ids: int64[k], ascending; an id names one series for the life of a storage.
        columns: Tag key to its column over these series. Every tag key of the measurement is there.
    """

    measurement: str
    ids: Int64s
    columns: Mapping[str, TagColumn]

    def __len__(self) -> int:
        return len(self.ids)

    def tags(self, row: int) -> dict[str, str | None]:
        """Return the tags that series number `row` has, sorted by tag key."""
        return {
            key: column.values[code]
            for key, column in sorted(self.columns.items())
            if (code := int(column.codes[row])) >= 0
        }

    def take(self, rows: NDArray[np.integer] | Bools) -> SeriesSet:
        """Return the chosen series; rows is a bool mask or ascending positions."""
        return SeriesSet(self.measurement, self.ids[rows], _Taken(self.columns, rows))


class _Taken(Mapping[str, TagColumn]):
    """Columns of chosen series, made when they are asked for: most queries look at one or none."""

    __slots__ = ("_columns", "_made", "_rows")

    def __init__(self, columns: Mapping[str, TagColumn], rows: NDArray[np.integer] | Bools) -> None:
        self._columns = columns
        self._rows = rows
        self._made: dict[str, TagColumn] = {}

    def __getitem__(self, key: str) -> TagColumn:
        made = self._made.get(key)
        if made is None:
            column = self._columns[key]
            made = TagColumn(column.codes[self._rows], column.values, column.lookup)
            self._made[key] = made
        return made

    def __contains__(self, key: object) -> bool:
        return key in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


@dataclass(frozen=True, slots=True, eq=False)
class FieldColumn:
    """One field of the rows of a frame.

    Attributes:
        type: FLOAT, INTEGER, BOOLEAN or STRING; NONE for a field that only ever was None.
        values: float64[n], int64[n], bool[n] or object[n] (str); anything where not valid.
        valid: bool[n]; None when every row has a value.
        none: bool[n] or None: rows whose field is there with the value None (TinyFlux API only;
            never valid).
    """

    type: FieldType
    values: Values
    valid: Bools | None = None
    none: Bools | None = None

    def mask(self) -> Bools:
        """Return bool[n], true where there is a value."""
        return np.ones(len(self.values), np.bool_) if self.valid is None else self.valid

    def present(self) -> Bools:
        """Return bool[n], true where the point has the field, be it with the value None."""
        return self.mask().copy() if self.none is None else self.mask() | self.none

    def take(self, rows: NDArray[np.integer] | Bools | slice) -> FieldColumn:
        """Return the chosen rows."""
        return FieldColumn(
            self.type,
            self.values[rows],
            None if self.valid is None else self.valid[rows],
            None if self.none is None else self.none[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Rows of one measurement, sorted by (series, time).

    Attributes:
        series: The series that have rows here, ids ascending; every one has at least one row.
        offsets: int64[k + 1]; the rows of series i are offsets[i]:offsets[i + 1].
        times: int64[n] ns since 1970, ascending within a series (strictly, when the storage
            overwrites).
        columns: The asked fields that exist in the measurement (all of them when none were named).
    """

    series: SeriesSet
    offsets: Int64s
    times: Int64s
    columns: Mapping[str, FieldColumn]

    def __len__(self) -> int:
        return len(self.times)

    def series_rows(self) -> Int64s:
        """Return int64[n], the position in `series` of each row."""
        return np.repeat(np.arange(len(self.series)), np.diff(self.offsets))


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """Which rows of a measurement, and which fields of them.

    Attributes:
        measurement: Its name.
        query: Which rows; None is all. Tags and fields only: time is in the bounds (TimeQuery is
            honoured too).
        start_ns: First time, inclusive.
        end_ns: Last time, inclusive (the one closed interval of the engine: int64 has no room for
            max + 1).
        fields: Which fields to bring; None is all. Fields that only the query needs are read but
            not returned.
        limit: How many rows of each series are wanted: the first ones, or when negative the last
            ones; 0 is all. A hint: more may come, as they do when the query looks at fields.
        series: Which of the series that can match; None is all of them.
        in_time: 0: series after series. 1: frames in order of time, each of a stretch of it; -1:
            the newest first.
        max_rows: About how many rows a frame has at most; 0 is as many as there is memory for.
    """

    measurement: str
    query: Query | None = None
    start_ns: int = MIN_TIME_NS
    end_ns: int = MAX_TIME_NS
    fields: tuple[str, ...] | None = None
    limit: int = 0
    series: SeriesSet | None = None
    in_time: Literal[-1, 0, 1] = 0
    max_rows: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A function over a field: `percentile(usage, 95)` is Call("percentile", "usage", (95,))."""

    function: str
    field: str
    args: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class AggregateRequest:
    """Functions over the rows of a scan, per group of series and per time window.

    Attributes:
        scan: Which rows; its `fields` are ignored, the calls say them.
        calls: The functions (`tinyflux.windows.KERNELS` lists them).
        group_by: Tag keys; series of equal values form one group. () is one group.
        windows: The time grid; None is one window over everything.
        aux: With exactly one selector call: fields to bring from the chosen point.
        max_cells: Refuse answers of more groups x windows than this.
        newest: For each call and group, only its last window that has a value, as the one window
            0; each field of `aux` is the last known one of the chosen points.
        points: Whether times and series of chosen points are asked for; min and max are quicker
            without.
        sparse: Windows in which no group has a value may be left out.
    """

    scan: ScanRequest
    calls: tuple[Call, ...]
    group_by: tuple[str, ...] = ()
    windows: Windows | None = None
    aux: tuple[str, ...] = ()
    max_cells: int = 50_000_000
    newest: bool = False
    points: bool = True
    sparse: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class CallColumn:
    """The answers of one call.

    Attributes:
        type: The type of the values (count gives INTEGER, mean FLOAT, selectors the type of the
            field).
        values: [g, w], anything where not valid. g groups, w windows.
        valid: bool[g, w]; false where the window has no value. `count` is invalid there too, never
            0.
        times: int64[g, w], the time of the chosen point; None unless the call is a selector, and
            perhaps when `points` are not asked for.
        series: int64[g, w], the id of the chosen point's series; None as times are.
    """

    type: FieldType
    values: Values
    valid: Bools
    times: Int64s | None = None
    series: Int64s | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AggregateTable:
    """What `aggregate` answers.

    Attributes:
        groups: One tuple a group, the values of the `group_by` tags in that order ("" where a tag
            is missing), sorted. Only groups with at least one row are here (a row whose asked
            fields are all absent does not count).
        windows: int64[w], window numbers (`Windows.start` gives their times), ascending and, but
            for `sparse` answers, consecutive; [0] without windows or of the newest ones, [] without
            rows.
        columns: One per call, in the order of the request.
        aux: The columns of `aux`, [g, w] each; a field that does not exist is missing here.
        first: int64[g], the window number of the first row of each group.
    """

    groups: list[tuple[str, ...]]
    windows: Int64s
    columns: list[CallColumn]
    aux: dict[str, CallColumn] = field(default_factory=dict)
    first: Int64s = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows that cannot be read any more, because a segment is damaged.

    Attributes:
        number: The number of the segment.
        measurement: Its measurement.
        first_ns: No missing row is before this time.
        last_ns: No missing row is after this time.
        rows: At most how many rows are missing, or miss a field.
        reason: What was found.
    """

    number: int
    measurement: str
    first_ns: int
    last_ns: int
    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """Points of a batch that were not stored: how many, and why (in InfluxDB's words).

    Attributes:
        points: How many.
        reason: Why.
        is_limit: Whether it is a limit of series that they would pass.
    """

    points: int
    reason: str
    is_limit: bool = False


@dataclass(frozen=True, slots=True)
class WriteResult:
    """How an append went: how many points were stored, and what was rejected."""

    stored: int
    rejected: tuple[Rejection, ...] = ()


class Shard(NamedTuple):
    """A time range of a store whose points are kept, and go, together.

    Attributes:
        first_ns: Its first time.
        last_ns: Its last time, inclusive.
    """

    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """Which points to delete: those that match in a closed time interval.

    Attributes:
        measurement: Its name; None is every measurement.
        query: Tags, fields, time: whole points go, those that a scan with it finds. With fields or
            time in it, points that are written meanwhile may stay, and it is done shard by shard:
            a failure in between leaves some of it done.
        start_ns: First time, inclusive.
        end_ns: Last time, inclusive.
    """

    measurement: str | None = None
    query: Query | None = None
    start_ns: int = MIN_TIME_NS
    end_ns: int = MAX_TIME_NS


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """What `rewrite` does with a frame.

    Attributes:
        out: bool[n], the rows to take out.
        batch: Points to store instead, of any series and time; None for none.
    """

    out: Bools
    batch: PointBatch | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """Where the rows lie that a scan would look at, deleted and overwritten ones among them.

    Attributes:
        memory_rows: How many are in memory.
        segments: How many files have some.
        segment_rows: At most how many are in these.
    """

    memory_rows: int = 0
    segments: int = 0
    segment_rows: int = 0

    def __add__(self, other: Extent) -> Extent:
        return Extent(
            self.memory_rows + other.memory_rows,
            self.segments + other.segments,
            self.segment_rows + other.segment_rows,
        )


class Reader(ABC):
    """What can be asked of a columnar storage or of a snapshot of one.

    Attributes:
        can_stretch: Whether `series`, `in_time` and `max_rows` of a scan are honoured.
        rows_read: How many rows were given or aggregated so far, where that is counted.
        check: Called between the steps of long reading; what it raises ends that.
    """

    can_stretch: ClassVar[bool] = False
    rows_read: int = 0
    check: Callable[[], None] | None = None

    @abstractmethod
    def measurements(self) -> list[str]:
        """Return the names of all measurements, sorted. From the index."""

    @abstractmethod
    def field_keys(self, measurement: str) -> dict[str, FieldType]:
        """Return field keys with their types, sorted by key; {} when unknown. From the index."""

    @abstractmethod
    def tag_keys(self, measurement: str) -> list[str]:
        """Return the tag keys of a measurement, sorted; [] when unknown. From the index."""

    @abstractmethod
    def series(self, measurement: str, query: Query | None = None) -> SeriesSet:
        """Return the series that can match: the tag half of a query. From the index.

        Conditions on fields and time are taken as true, so the answer may hold series without a
        matching row.
        """

    @abstractmethod
    def scan(self, request: ScanRequest) -> Iterator[Frame]:
        """Yield the matching rows. Never yields an empty frame. Frames are bounded in rows."""

    def row_counts(self, request: ScanRequest) -> Int64s:
        """Return int64[k]: at most how many rows each of the request's `series` has in its times.

        From the index where there is one.
        """
        assert request.series is not None
        counts = np.zeros(len(request.series), np.int64)
        for frame in self.scan(replace(request, fields=())):
            counts[np.searchsorted(request.series.ids, frame.series.ids)] += np.diff(frame.offsets)
        return counts

    def stretch(self, request: ScanRequest, n_rows: int) -> tuple[int, int]:
        """Return the first and last time of about `n_rows` rows of the request's `series`.

        Of its first ones, or of its last ones when its limit is negative, whether they match or
        not. Where that cannot be told without reading them: of all.
        """
        del n_rows
        return request.start_ns, request.end_ns

    def extent(self, request: ScanRequest) -> Extent:
        """Return where the rows of the request's `series` and times lie, by the index."""
        return Extent(memory_rows=int(self.row_counts(request).sum()))

    @abstractmethod
    def aggregate(self, request: AggregateRequest) -> AggregateTable:
        """Return functions of the matching rows per group and window.

        Raises:
            LimitExceeded: More than `max_cells` cells.
            QueryError: A function that does not take the field's type, or an unknown function.
        """

    @abstractmethod
    def series_count(self) -> int:
        """Return the number of series."""

    def gaps(self, measurement: str | None, start_ns: int, end_ns: int) -> Sequence[Gap]:  # noqa: ARG002
        """Return what is known by now to be missing from the rows of a closed time interval.

        Damage is found by reading: ask after a scan. A measurement of None is all.
        """
        return ()


class ColumnarStorage(Storage, Reader):
    """A storage that takes and gives columns. Queries are pushed down to it."""

    overwrite: bool

    @abstractmethod
    def append_batch(
        self,
        batch: PointBatch,
        on_durable: Callable[[Exception | None], None] | None = None,
        *,
        strict: bool = False,
    ) -> WriteResult:
        """Store the points whose field types agree with the stored ones; reject the others.

        Points of new series that pass a limit are rejected too. Returns when the points are as
        durable as the sync mode promises, and can be read. With `on_durable`, returns at once and
        calls it when they are (None) or cannot be (the error): once, from any thread (this one when
        nothing was stored), and it must be quick and must not use the storage. With `strict`,
        stores all points or none.

        Raises:
            FieldTypeConflict: Strict, and a point would be rejected; nothing is done.
            LimitExceeded: The same, because of a limit of series.
            StorageReadOnly: The disk does not take it now; it can be tried again.
            StorageClosed: After close().
        """

    @abstractmethod
    def delete(self, request: DeleteRequest) -> int:
        """Delete points, durably. Returns how many series had points removed or might have had."""

    @abstractmethod
    def rewrite(
        self,
        requests: Sequence[ScanRequest],
        change: Callable[[Frame], Replacement | None],
    ) -> int:
        """Take points out and put others in their place, durably, as one step.

        What `update` and `remove` of the TinyFlux API stand on. Readers and a recovery see all of
        it or nothing. `change` is called for every frame, once, before anything is written, so what
        it raises leaves the storage as it was.

        Args:
            requests: Which points are looked at, one request a measurement; their `fields` are
                None.
            change: Gets a frame of matching points with all their fields; None leaves them as they
                are.

        Returns:
            How many points were taken out. 0: nothing was written.

        Raises:
            FieldTypeConflict: A new point's value has another type than its field; nothing is done.
        """

    @abstractmethod
    def drop_measurement(self, measurement: str) -> bool:
        """Delete a measurement with its field types, durably. Returns whether it existed."""

    @abstractmethod
    def rename_measurement(self, measurement: str, name: str) -> bool:
        """Give a measurement another name, durably. Returns whether it existed.

        No point is moved. A name that begins with NUL hides the measurement: it can be asked for by
        that name, and renamed back, but it is not listed, counted, or deleted with all others.

        Raises:
            QueryError: There is a measurement of that name.
        """

    @abstractmethod
    def size_bytes(self, measurement: str) -> int:
        """Return about how many bytes of storage a measurement takes; 0 when unknown."""

    @abstractmethod
    def drop_field(self, measurement: str, field: str) -> bool:
        """Delete a field of a measurement, durably; returns whether it existed.

        Points that have no other field go with it. The field may come again with another type.
        """

    @abstractmethod
    def expire(self, before_ns: int) -> int:
        """Remove the shards that end at or before a time, durably; returns how many these were."""

    @abstractmethod
    def shards(self) -> list[Shard]:
        """Return the shards that have points, ascending; they do not overlap.

        One whose points were all deleted may be among them for a while.
        """

    @abstractmethod
    def drop_shard(self, shard: Shard) -> bool:
        """Remove a shard with its points, durably; returns whether it was there."""

    @abstractmethod
    def set_shard_duration(self, duration_ns: int) -> None:
        """Say how long new shards are; those that are there keep their bounds."""

    @abstractmethod
    def snapshot(self) -> Reader:
        """Return the state of now; later writes do not show in it."""

    @abstractmethod
    def flush(self) -> None:
        """Write out what is held in memory, and give up the room of what was deleted."""

    @abstractmethod
    def sync(self) -> None:
        """Make everything accepted so far durable, whatever the sync mode."""

    @abstractmethod
    def stats(self) -> dict[str, int]:
        """Return counters: series, points in memory, bytes of log, segments ..."""
