"""What FROM names: measurements of stores and answers of subqueries, all behind a Reader."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.errors import StatementError
from gateway.expansion import Schema
from gateway.regexes import Regex
from grammar import ast
from tinyflux.batch import FieldType
from tinyflux.columnar.aggregate import aggregate_frames
from tinyflux.columnar.base import (
    AggregateRequest,
    AggregateTable,
    Extent,
    FieldColumn,
    Frame,
    Query,
    Reader,
    ScanRequest,
    SeriesSet,
    TagColumn,
)
from tinyflux.columnar.evaluate import match_rows
from tinyflux.columnar.scan import filter_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from gateway.answers import Answer
    from gateway.session import Session
    from tinyflux.columnar.base import Gap


_SOURCE_BITS: Final = 40  # of the id of a series say which it is in its source, the others which


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One measurement to read: where it is and what it has.

    Attributes:
        name: Its name.
        reader: Where it is.
        schema: Its fields and tags.
        is_subquery: It is the answer of subqueries.
        tag_fields: Which of the fields are tags of a subquery.
        is_join: It is joined of several sources, of which one may lack a tag.
        other_fields: Those of the tables beside it: in a condition they are fields here too.
    """

    name: str
    reader: Reader
    schema: Schema
    is_subquery: bool = False
    tag_fields: frozenset[str] = frozenset()
    is_join: bool = False
    other_fields: Mapping[str, FieldType] = field(default_factory=dict)

    @property
    def missing_tag(self) -> str | None:
        """What a column shows of a tag that a row lacks: what a subquery groups by is "" there."""
        return "" if self.is_subquery and not self.is_join else None

    @property
    def condition_fields(self) -> dict[str, FieldType]:
        """The fields as a condition sees them: what is a tag is a tag there."""
        own, tags = self.schema.fields, self.schema.tags - self.schema.fields.keys()
        others = {name: self.other_fields[name] for name in self.other_fields if name not in tags}
        fields = {**others, **own}
        return {name: fields[name] for name in fields if name not in self.tag_fields}

    def series(self, scan: ScanRequest) -> SeriesSet:
        """Return the series of a scan of it: those it names, or else all that can match."""
        return self.reader.series(self.name, scan.query) if scan.series is None else scan.series

    def with_tags_as_fields(self, names: Iterable[str]) -> Table:
        """Return the table with those of its tags as fields too, as influxd reads a subquery's."""
        tags = frozenset(names) & self.schema.tags - self.schema.fields.keys()
        if not tags or not self.is_subquery:
            return self
        fields = {**self.schema.fields, **dict.fromkeys(sorted(tags), FieldType.STRING)}
        reader = TagFieldReader(self.reader, tags)
        return replace(
            self, reader=reader, schema=Schema(fields, self.schema.tags), tag_fields=tags
        )


@dataclass(slots=True)
class Snapshots:
    """The one snapshot of each store that a statement reads, taken when first asked for."""

    session: Session
    _taken: dict[tuple[str, str], Reader] = field(default_factory=dict)

    @property
    def rows_read(self) -> int:
        """How many rows were read so far."""
        return sum(snapshot.rows_read for snapshot in self._taken.values())

    def reader(self, measurement: ast.Measurement) -> Reader:
        """Return the snapshot of the store that a measurement lies in.

        Raises:
            StatementError: No database is named.
            DatabaseNotFound, RetentionPolicyNotFound: It does not exist.
        """
        database = measurement.database or self.session.database
        if not database:
            raise StatementError("database name required")
        policy = measurement.retention_policy
        if not policy and database == self.session.database:
            policy = self.session.retention_policy
        key = database, policy
        if key not in self._taken:
            snapshot = self.session.catalog.storage(database, policy).snapshot()
            snapshot.check = self.session.interrupt.check
            self._taken[key] = snapshot
        return self._taken[key]


def resolve(
    sources: Sequence[ast.Measurement | ast.SubQuery],
    snapshots: Snapshots,
    run_subquery: Callable[[ast.Select], Reader],
) -> list[Table]:
    """Return the tables of a FROM clause, one a measurement name, sorted by name.

    Measurements that do not exist are not there.
    """
    found: dict[str, list[tuple[Reader, str]]] = {}
    for source in sources:
        if isinstance(source, ast.SubQuery):
            reader = run_subquery(source.select)
            names = reader.measurements()
        else:
            reader = snapshots.reader(source)
            names = _matching_names(source, reader)
        for name in names:
            readers = found.setdefault(name, [])
            if all(known is not reader for known, _ in readers):
                readers.append((reader, name))
    tables = []
    for name, readers in sorted(found.items()):
        tables += _tables(united([reader for reader, _ in readers]), name)
    return tables


def tables_of(reader: Reader) -> list[Table]:
    """Return everything in a reader as tables, sorted by name."""
    return [table for name in reader.measurements() for table in _tables(reader, name)]


def _tables(reader: Reader, name: str) -> list[Table]:
    """Return a measurement of a reader, if it has fields there."""
    fields = reader.field_keys(name)
    if not fields:
        return []
    schema = Schema(fields, frozenset(reader.tag_keys(name)))
    return [Table(name, reader, schema, _is_subquery(reader))]


def _is_subquery(reader: Reader) -> bool:
    if isinstance(reader, UnionReader):
        return all(map(_is_subquery, reader.readers))
    return isinstance(reader, SubqueryReader)


def united(readers: Sequence[Reader]) -> Reader:
    """Return one reader of everything in several."""
    return readers[0] if len(readers) == 1 else UnionReader(readers)


def _matching_names(source: ast.Measurement, reader: Reader) -> list[str]:
    if isinstance(source.regex, ast.RegexLiteral):
        regex = Regex(source.regex.pattern)
        return [name for name in reader.measurements() if regex(name)]
    return [source.name]


class _FrameReader(Reader):
    """Reads frames that are in memory; a subclass says which."""

    @abstractmethod
    def _frames(self, measurement: str) -> Iterator[Frame]:
        """Yield all frames of a measurement."""

    def tag_keys(self, measurement: str) -> list[str]:
        """Return the tag keys of the frames, sorted."""
        keys: set[str] = set()
        for frame in self._frames(measurement):
            keys |= frame.series.columns.keys()
        return sorted(keys)

    def field_keys(self, measurement: str) -> dict[str, FieldType]:
        """Return the fields of the frames with their types, sorted."""
        fields: dict[str, FieldType] = {}
        for frame in self._frames(measurement):
            for key, column in frame.columns.items():
                known = fields.get(key, FieldType.NONE)
                fields[key] = column.type if known is FieldType.NONE else known
        return dict(sorted(fields.items()))

    def series(
        self,
        measurement: str,
        query: Query | None = None,  # noqa: ARG002  # may be ignored: it takes nothing away
    ) -> SeriesSet:
        """Return the series of the frames."""
        frames = list(self._frames(measurement))
        if len(frames) == 1:
            return frames[0].series
        return merge_series(measurement, [frame.series for frame in frames])

    def scan(self, request: ScanRequest) -> Iterator[Frame]:
        """Yield the matching rows."""
        for frame in self._frames(request.measurement):
            keep = (frame.times >= request.start_ns) & (frame.times <= request.end_ns)
            found = frame if keep.all() else filter_rows(frame, keep)
            found = _matching(found, request.query)
            if len(found):
                yield _narrowed(found, request.fields)

    def aggregate(self, request: AggregateRequest) -> AggregateTable:
        """Return functions of the matching rows per group and window."""
        return aggregate_frames(self.scan(request.scan), request)

    def series_count(self) -> int:
        """Return the number of series in all frames."""
        return sum(
            len(frame.series) for name in self.measurements() for frame in self._frames(name)
        )


def _matching(frame: Frame, query: Query | None) -> Frame:
    if query is None or not len(frame):
        return frame
    keep = match_rows(query, frame)
    return frame if keep.all() else filter_rows(frame, keep)


def _narrowed(frame: Frame, fields: Sequence[str] | None) -> Frame:
    if fields is None:
        return frame
    columns = {name: frame.columns[name] for name in fields if name in frame.columns}
    return Frame(frame.series, frame.offsets, frame.times, columns)


class AnswerReader(_FrameReader):
    """The answers of a subquery as measurements: its columns are fields, its GROUP BY tags tags."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._by_name = {answer.name: answer for answer in answers}

    def measurements(self) -> list[str]:
        """Return the names of the answers, sorted."""
        return sorted(self._by_name)

    def _frames(self, measurement: str) -> Iterator[Frame]:
        if measurement in self._by_name:
            yield self._by_name[measurement].to_frame()


class SubqueryReader(_FrameReader):
    """What a subquery answers, run for each range of time that is asked for.

    Its rows are all there is in a range, whatever their times: a window begins before the range
    that cuts it, and forecasts come behind it. Fields, tags and series are those of the ranges that
    were asked for so far.

    Args:
        run: Answers the subquery in a closed time interval, ns.
        ranges: Those that are asked for at once.
    """

    def __init__(
        self, run: Callable[[int, int], Sequence[Answer]], ranges: Sequence[tuple[int, int]]
    ) -> None:
        self._run = run
        self._answers = {bounds: AnswerReader(run(*bounds)) for bounds in ranges}

    def measurements(self) -> list[str]:
        """Return the names of the answers, sorted."""
        readers = self._answers.values()
        return sorted({name for reader in readers for name in reader.measurements()})

    def scan(self, request: ScanRequest) -> Iterator[Frame]:
        """Yield the rows in a range that match the query."""
        bounds = request.start_ns, request.end_ns
        if bounds not in self._answers:
            self._answers[bounds] = AnswerReader(self._run(*bounds))
        number = list(self._answers).index(bounds)
        for frame in self._answers[bounds].scan(ScanRequest(request.measurement, request.query)):
            yield _narrowed(_renumbered(frame, number), request.fields)

    def _frames(self, measurement: str) -> Iterator[Frame]:
        for number, reader in enumerate(self._answers.values()):
            for frame in reader.scan(ScanRequest(measurement)):
                yield _renumbered(frame, number)


def _renumbered(frame: Frame, number: int) -> Frame:
    """Return a frame of the source of a number: every source numbers its series from 0."""
    ids = frame.series.ids + (number << _SOURCE_BITS)
    series = SeriesSet(frame.series.measurement, ids, frame.series.columns)
    return Frame(series, frame.offsets, frame.times, frame.columns)


class UnionReader(_FrameReader):
    """The same measurement of several sources as one; read whole, so for the rare query only.

    Attributes:
        readers: Of the sources.
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = readers

    def measurements(self) -> list[str]:
        """Return the names in any source, sorted."""
        return sorted({name for reader in self.readers for name in reader.measurements()})

    def gaps(self, measurement: str | None, start_ns: int, end_ns: int) -> Sequence[Gap]:
        """Return what is missing in any source."""
        found = (reader.gaps(measurement, start_ns, end_ns) for reader in self.readers)
        return [gap for gaps in found for gap in gaps]

    def extent(self, request: ScanRequest) -> Extent:
        """Return where the rows of every source lie."""
        found = Extent()
        for reader in self.readers:
            series = reader.series(request.measurement, request.query)
            found += reader.extent(replace(request, series=series))
        return found

    def scan(self, request: ScanRequest) -> Iterator[Frame]:
        """Yield the matching rows of every source."""
        limit = 0 if request.query else request.limit  # the first rows may be no matching ones
        whole = replace(request, query=None, fields=None, series=None, limit=limit)
        for number, reader in enumerate(self.readers):
            for frame in reader.scan(whole):
                found = _matching(_renumbered(frame, number), request.query)
                if len(found):
                    yield _narrowed(found, request.fields)

    def _frames(self, measurement: str) -> Iterator[Frame]:
        for number, reader in enumerate(self.readers):
            frames = (
                reader._frames(measurement)  # noqa: SLF001 - a class of this module
                if isinstance(reader, _FrameReader)
                else reader.scan(ScanRequest(measurement))
            )
            yield from (_renumbered(frame, number) for frame in frames)


class TagFieldReader(_FrameReader):
    """A reader of answers, some of whose tags are fields too: text, "" where a tag is missing."""

    def __init__(self, reader: Reader, names: frozenset[str]) -> None:
        self._reader = reader
        self._names = names

    def measurements(self) -> list[str]:
        """Return the names of the reader."""
        return self._reader.measurements()

    def series(self, measurement: str, query: Query | None = None) -> SeriesSet:
        """Return the series of the reader."""
        return self._reader.series(measurement, query)

    def scan(self, request: ScanRequest) -> Iterator[Frame]:
        """Yield the frames of the reader with the tags among their fields."""
        for frame in self._reader.scan(replace(request, fields=None)):
            yield _narrowed(self._with_tags(frame), request.fields)

    def _frames(self, measurement: str) -> Iterator[Frame]:
        assert isinstance(self._reader, _FrameReader)  # of answers
        for frame in self._reader._frames(measurement):  # noqa: SLF001 - a class of this module
            yield self._with_tags(frame)

    def _with_tags(self, frame: Frame) -> Frame:
        columns = {name: _tag_cells(frame, name) for name in self._names}
        return Frame(frame.series, frame.offsets, frame.times, {**frame.columns, **columns})


def _tag_cells(frame: Frame, name: str) -> FieldColumn:
    tag = frame.series.columns.get(name)
    if tag is None:
        nothing = np.full(len(frame), "", np.object_)
        return FieldColumn(FieldType.STRING, nothing, np.zeros(len(frame), np.bool_))
    texts = np.array([*(value or "" for value in tag.values), ""], np.object_)
    # A code of -1 is the last one.
    return FieldColumn(FieldType.STRING, texts[tag.codes[frame.series_rows()]])


class CastReader(_FrameReader):
    """A reader with more fields: casts of those it has, under names of their own."""

    def __init__(self, reader: Reader, casts: Mapping[str, tuple[str, FieldType]]) -> None:
        """Add fields by their names: each is another field read as another type of number."""
        self._reader = reader
        self._casts = casts

    def measurements(self) -> list[str]:
        """Return the names of the reader."""
        return self._reader.measurements()

    def scan(self, request: ScanRequest) -> Iterator[Frame]:
        """Yield the frames of the reader with the casts beside its fields."""
        for frame in self._reader.scan(replace(request, fields=None)):
            columns = dict(frame.columns)
            for name, (source, kind) in self._casts.items():
                if source in columns:
                    columns[name] = _cast(columns[source], kind)
            yield Frame(frame.series, frame.offsets, frame.times, columns)

    def series(self, measurement: str, query: Query | None = None) -> SeriesSet:
        """Return the series of the reader."""
        return self._reader.series(measurement, query)

    def _frames(self, measurement: str) -> Iterator[Frame]:
        yield from self.scan(ScanRequest(measurement))


def _cast(column: FieldColumn, kind: FieldType) -> FieldColumn:
    values = np.where(column.mask(), column.values, 0)
    if kind is FieldType.INTEGER:
        return FieldColumn(kind, values.astype(np.int64), column.valid)
    return FieldColumn(kind, values.astype(np.float64), column.valid)


def merge_series(measurement: str, sets: Sequence[SeriesSet]) -> SeriesSet:
    """Return all series of several sets, in the order given."""
    keys = sorted({key for one in sets for key in one.columns})
    columns = {}
    for key in keys:
        values: list[str | None] = []
        codes = []
        for one in sets:
            column = one.columns.get(key)
            if column is None:
                codes.append(np.full(len(one), -1, np.int32))
            else:
                codes.append(np.where(column.codes >= 0, column.codes + len(values), -1))
                values += column.values
        columns[key] = TagColumn(np.concatenate(codes).astype(np.int32), values)
    ids = np.concatenate([one.ids for one in sets]) if sets else np.zeros(0, np.int64)
    return SeriesSet(measurement, ids, columns)
