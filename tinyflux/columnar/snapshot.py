"""A snapshot: what a store held at one moment, and the reading of it. Needs no lock of the store.

A store is layers of rows, oldest first: segments, memtables on their way to the disk, the memtable
that is written. A snapshot holds the layers as they were, and the matching view of the series
index.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from tinyflux.batch import FieldType
from tinyflux.columnar.aggregate import Aggregation, aggregate_frames
from tinyflux.columnar.base import TEXT_BYTES, Extent, Frame, Reader, ScanRequest, SeriesSet
from tinyflux.columnar.evaluate import Prepared, prepare
from tinyflux.columnar.partition import partitions
from tinyflux.columnar.scan import MAX_FRAME_ROWS, Run, frames
from tinyflux.columnar.shard import Masked
from tinyflux.columnar.stretches import stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tinyflux.batch import Bools, Int64s
    from tinyflux.columnar.base import AggregateRequest, AggregateTable, FieldColumn, Gap, Query
    from tinyflux.columnar.memory import Memory
    from tinyflux.columnar.quarantine import Quarantine
    from tinyflux.columnar.scan import Source
    from tinyflux.columnar.series import IndexView


# Of the columns of a frame: as read, merged, and in what is computed from them.
_COPIES: Final = 3
# The one row of each series that decides, where it has a value of the field.
_LIMITS: Final = {"first": 1, "last": -1}


class Layer(Protocol):
    """Rows of all measurements that no longer change."""

    def sources(self, measurement: int) -> Sequence[Source]:
        """Return the rows of a measurement (its number in the series index), oldest first."""


class Snapshot(Reader):
    """The state of a store at one moment.

    Args:
        index: The series and fields.
        layers: The rows, oldest layer first.
        overwrite: Whether points of equal series and time are one.
        memory: Bounds what reading takes.
        quarantine: What is missing; None for nothing, ever.
        max_frame_rows: About how many rows a frame has at most, however much memory there is.
    """

    can_stretch = True

    def __init__(
        self,
        index: IndexView,
        layers: Sequence[Layer],
        *,
        overwrite: bool,
        memory: Memory,
        quarantine: Quarantine | None = None,
        max_frame_rows: int = MAX_FRAME_ROWS,
    ) -> None:
        self._index = index
        self._layers = layers
        self._overwrite = overwrite
        self._quarantine = quarantine
        self._memory = memory
        self._max_frame_rows = max_frame_rows
        self._last: tuple[Query | None, Prepared] = (None, prepare(None))

    def measurements(self) -> list[str]:
        """Return the names of all measurements, sorted."""
        return self._index.measurements()

    def field_keys(self, measurement: str) -> dict[str, FieldType]:
        """Return the fields of a measurement with their types, sorted by key."""
        return dict(self._index.fields(measurement))

    def tag_keys(self, measurement: str) -> list[str]:
        """Return the tag keys of a measurement, sorted."""
        return self._index.tag_keys(measurement)

    def series(self, measurement: str, query: Query | None = None) -> SeriesSet:
        """Return the series that can match the query."""
        series = self._index.series(measurement)
        return series if query is None else self._prepared(query).prune(series)

    def series_count(self) -> int:
        """Return the number of series."""
        return self._index.count

    def gaps(self, measurement: str | None, start_ns: int, end_ns: int) -> Sequence[Gap]:
        """Return what is known by now to be missing from the rows of a closed time interval."""
        if self._quarantine is None:
            return ()
        return self._quarantine.overlapping(measurement, start_ns, end_ns)

    def sources(self, measurement: str) -> list[Source]:
        """Return the rows of a measurement, oldest first."""
        number = self._index.number(measurement)
        return [source for layer in self._layers for source in layer.sources(number)]

    def count(self, measurement: str) -> int:
        """Return the number of points of a measurement."""
        sources = self.sources(measurement)
        settled = len(sources) < 2 or not self._overwrite  # no points to be merged
        if settled and all(isinstance(source, Run) for source in sources):
            return sum(map(len, sources))
        return sum(map(len, self.scan(ScanRequest(measurement, fields=()))))

    def scan(self, request: ScanRequest) -> Iterator[Frame]:
        """Yield the matching rows, in frames of bounded size."""
        yield from self.scan_prepared(request, self._prepared(request.query), keep=True)

    def scan_prepared(
        self,
        request: ScanRequest,
        prepared: Prepared,
        *,
        keep: bool,
        by_series: bool = True,
    ) -> Iterator[Frame]:
        """Yield the rows of a request whose query was taken apart.

        Args:
            request: Which measurement, times and fields.
            prepared: Its query.
            keep: Whether to keep only matching rows; else all rows of the series and times that can
                match come.
            by_series: Whether all frames together are in order of series, whatever is in segments.

        Raises:
            LimitExceeded: There is no working memory for a frame.
        """
        series = self._series(request, prepared)
        known = self._index.fields(request.measurement)
        asked = known if request.fields is None else dict.fromkeys(request.fields)
        asked_names = [name for name in asked if name in known]
        needed = prepared.fields()
        read = known if needed is None else needed.union(asked_names)
        types = {name: kind for name, kind in known.items() if name in read}
        sources = self.sources(request.measurement) if len(series) else []
        # A row that is wanted may lie behind deleted ones.
        is_masked = any(isinstance(source, Masked) for source in sources)
        n_texts = sum(kind is FieldType.STRING for kind in types.values())
        row_bytes = _COPIES * 8 * (2 + len(types)) + TEXT_BYTES * n_texts
        frame_bytes = self._memory.frame_bytes
        most_rows = request.max_rows or self._max_frame_rows
        with self._memory.claim(min(frame_bytes, sum(map(len, sources)) * row_bytes)):
            for frame in frames(
                sources,
                series,
                types,
                _bounds(request, prepared),
                self._keeping(prepared) if keep and prepared.row_part else None,
                asked_names,
                overwrite=self._overwrite,
                max_rows=max(1, min(most_rows, frame_bytes // row_bytes)),
                by_series=by_series,
                in_time=request.in_time,
                limit=0 if prepared.row_part or is_masked else request.limit,
            ):
                self._go_on()
                self.rows_read += len(frame)
                yield frame
                self._memory.keep_small()

    def _keeping(self, prepared: Prepared) -> Callable[[Frame], Bools | None]:
        """Return what tells the wanted rows of a frame, and stops where none are for long."""

        def keep(frame: Frame) -> Bools | None:
            self._go_on()
            return prepared.keep(frame)

        return keep

    def _go_on(self) -> None:
        if self.check is not None:
            self.check()

    def _prepared(self, query: Query | None) -> Prepared:
        """Return a query taken apart; a statement asks for its series first, then for its rows."""
        known, prepared = self._last
        if known is not query:
            prepared = prepare(query)
            self._last = query, prepared
        return prepared

    def _series(self, request: ScanRequest, prepared: Prepared) -> SeriesSet:
        if request.series is not None:
            return request.series
        return prepared.prune(self._index.series(request.measurement))

    def row_counts(self, request: ScanRequest) -> Int64s:
        """Return int64[k]: at most how many rows each of the request's `series` has in its times.

        From the index alone: of a segment that has times of the interval, all rows are counted.
        """
        assert request.series is not None
        counts = np.zeros(len(request.series), np.int64)
        for source in self.sources(request.measurement):
            counts += source.rows(request.series.ids, request.start_ns, request.end_ns)
        return counts

    def stretch(self, request: ScanRequest, n_rows: int) -> tuple[int, int]:
        """Return the first and last time of about the first, or last, rows of some series."""
        assert request.series is not None
        bounds, is_last = (request.start_ns, request.end_ns), request.limit < 0
        sources, ids = self.sources(request.measurement), request.series.ids
        for _, _, *found in stretches(sources, ids, bounds, n_rows, descending=is_last):
            return found[0], found[1]
        return bounds

    def extent(self, request: ScanRequest) -> Extent:
        """Return where the rows of the request's `series` and times lie, by the index."""
        assert request.series is not None
        found = Extent()
        for source in self.sources(request.measurement):
            n_rows = int(source.rows(request.series.ids, request.start_ns, request.end_ns).sum())
            if n_rows:
                found += Extent(n_rows) if isinstance(source, Run) else Extent(0, 1, n_rows)
        return found

    def aggregate(self, request: AggregateRequest) -> AggregateTable:
        """Return functions of the matching rows per group and window.

        Raises:
            LimitExceeded: There is no working memory for a frame, or for the cells.
        """
        names = dict.fromkeys([*(call.field for call in request.calls), *request.aux])
        prepared = self._prepared(request.scan.query)
        series = self._series(request.scan, prepared)
        scan = replace(request.scan, fields=tuple(names), limit=0, series=series)
        with self._memory.claim() as claim:
            if limit := self._limit(request, prepared):
                near = list(self.scan_prepared(replace(scan, limit=limit), prepared, keep=True))
                fields = {call.field for call in request.calls}
                if all(_is_complete(frame.columns.get(name)) for frame in near for name in fields):
                    return aggregate_frames(near, request)
                del near
            aggregation = Aggregation(request, claim, check=self.check)
            for part in self._parts(scan, prepared, aggregation):
                for frame in self.scan_prepared(part, prepared, keep=True, by_series=False):
                    aggregation.add(frame)
                aggregation.settle()
            return aggregation.table()

    def _parts(
        self, scan: ScanRequest, prepared: Prepared, aggregation: Aggregation
    ) -> Iterator[ScanRequest]:
        """Yield scans with disjoint cells: several when all values of a cell must be gathered."""
        series = self._series(scan, prepared)
        row_bytes = aggregation.gathered_row_bytes
        if not row_bytes or not len(series):
            yield scan
            return
        for some, start_ns, end_ns in partitions(
            self.sources(scan.measurement),
            series,
            aggregation.groups_of(series),
            _bounds(scan, prepared),
            aggregation.separate_windows,
            max(1, self._memory.frame_bytes // row_bytes),
        ):
            yield replace(scan, series=some, start_ns=start_ns, end_ns=end_ns)

    def _limit(self, request: AggregateRequest, prepared: Prepared) -> int:
        """Return the limit of a scan whose rows may tell first() or last() as well as all do."""
        functions = {call.function for call in request.calls}
        if request.windows is not None or prepared.row_part or not self._overwrite:
            return 0
        return _LIMITS.get(functions.pop(), 0) if len(functions) == 1 else 0


def _bounds(request: ScanRequest, prepared: Prepared) -> tuple[int, int]:
    """Return the first and the last time that a row can have."""
    return max(request.start_ns, prepared.start_ns), min(request.end_ns, prepared.end_ns)


def _is_complete(column: FieldColumn | None) -> bool:
    """Return whether every row of a frame has a value of a field."""
    return column is not None and (column.valid is None or bool(column.valid.all()))


class LiveReader(Reader):
    """A reader that takes a snapshot for every question."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Return the state of now; later writes do not show in it."""

    def __len__(self) -> int:
        """Return the number of points. A scan of times where points may have merged."""
        snapshot = self.snapshot()
        return sum(map(snapshot.count, snapshot.measurements()))

    def measurements(self) -> list[str]:
        """Return the names of all measurements, sorted."""
        return self.snapshot().measurements()

    def field_keys(self, measurement: str) -> dict[str, FieldType]:
        """Return the fields of a measurement with their types, sorted by key."""
        return self.snapshot().field_keys(measurement)

    def tag_keys(self, measurement: str) -> list[str]:
        """Return the tag keys of a measurement, sorted."""
        return self.snapshot().tag_keys(measurement)

    def series(self, measurement: str, query: Query | None = None) -> SeriesSet:
        """Return the series that can match the query."""
        return self.snapshot().series(measurement, query)

    def series_count(self) -> int:
        """Return the number of series."""
        return self.snapshot().series_count()

    def gaps(self, measurement: str | None, start_ns: int, end_ns: int) -> Sequence[Gap]:
        """Return what is known by now to be missing from the rows of a closed time interval."""
        return self.snapshot().gaps(measurement, start_ns, end_ns)

    def scan(self, request: ScanRequest) -> Iterator[Frame]:
        """Yield the matching rows of now, in frames of bounded size."""
        return self.snapshot().scan(request)

    def aggregate(self, request: AggregateRequest) -> AggregateTable:
        """Return functions of the matching rows of now per group and window."""
        return self.snapshot().aggregate(request)
