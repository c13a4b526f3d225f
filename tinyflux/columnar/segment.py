"""Segments: immutable Parquet files, each with rows of one measurement and one shard.

The files are plain Parquet (see FORMAT.md): pandas, DuckDB and Polars read them as they are. This
module reads them, `segmentfile` writes them, and `footer` has what both know; pyarrow is imported
on the first write or cold read, because it is large. A read touches the footer, the time column and
the asked fields of the row groups it needs, never a tag.

Damage is found by the checksum of the footer, which the manifest holds, and by Parquet's checksums
of the pages; both end in CorruptionError. A segment that has somebody to tell of damage tells it,
once, and answers from then on as if it had no rows; nothing else makes rows miss.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from tinyflux.batch import FieldType
from tinyflux.bisection import search
from tinyflux.columnar import allowance, arrow
from tinyflux.columnar.chunks import WHOLE, ChunkCache
from tinyflux.columnar.footer import TIME, Layout, SegmentInfo, read_footer, reading_error
from tinyflux.columnar.rowgroups import chain, cut, join
from tinyflux.columnar.scan import Run, empty_run, ends, merge_runs
from tinyflux.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tinyflux.batch import Int64s
    from tinyflux.columnar.base import FieldColumn
    from tinyflux.columnar.files import FileSystem
    from tinyflux.columnar.rowgroups import Ranges

_T = TypeVar("_T")

_THREADED_ROWS: Final = 250_000  # from here on decoding columns side by side pays


def load() -> None:
    """Import what reads and writes segments, which takes a tenth of a second and 40 MB.

    The first read does it else, while somebody waits.
    """
    importlib.import_module("pyarrow.parquet")


def release_memory() -> None:
    """Give what pyarrow keeps for later back to the system, if it was used at all."""
    if pyarrow := sys.modules.get("pyarrow"):
        pyarrow.default_memory_pool().release_unused()


class Segment:
    """A segment that is read: a source of rows (`scan.Source`).

    Cheap to make: the file is opened by the first read that could find rows in it. May be used by
    many threads.

    Args:
        path: The file.
        info: What the manifest knows of it.
        cache: Where decoded chunks are kept.
        files: The file system.
        on_damage: Told when damage is found, by the thread that finds it; with None, reads raise.

    Attributes:
        damage: What was found; None for nothing so far.
    """

    def __init__(
        self,
        path: Path,
        info: SegmentInfo,
        cache: ChunkCache,
        files: FileSystem,
        on_damage: Callable[[Segment], None] | None = None,
    ) -> None:
        self.damage: CorruptionError | None = None
        self._on_damage = on_damage
        self.path = path
        self.info = info
        self._cache = cache
        self._files = files
        self._key = object()  # of this segment in the cache
        self._is_replaced = False
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.info.rows

    @property
    def first_ns(self) -> int:
        """The smallest time."""
        return self.info.first_ns

    @property
    def last_ns(self) -> int:
        """The greatest time."""
        return self.info.last_ns

    def forget_chunks(self) -> None:
        """Take what was decoded out of the cache: the segment was replaced."""
        self._is_replaced = True
        self._cache.forget(self._key)

    def _surely(self, step: Callable[[], _T]) -> _T:
        """Return what a step reads; damage that it finds twice is noted and told of.

        Twice, because a cable or a memory that is bad now and then is no damaged file.

        Raises:
            CorruptionError: The file is not what was written.
        """
        with contextlib.suppress(CorruptionError):
            return step()
        try:
            return step()
        except CorruptionError as exc:
            with self._lock:
                is_new, self.damage = self.damage is None, exc
            if is_new and self._on_damage is not None:
                self.forget_chunks()
                self._on_damage(self)
            raise

    @property
    def _is_skipped(self) -> bool:
        """Whether reads find nothing here, because of damage that somebody was told of."""
        return self.damage is not None and self._on_damage is not None

    def series_ids(self) -> Int64s:
        """Return int64[k], the ids of the series that have rows here, ascending.

        Raises:
            CorruptionError: The file is not what was written.
        """
        return self._surely(self._open).ids

    def has_field(self, name: str) -> bool:
        """Return whether rows may have a field; a damaged segment may have any."""
        try:
            return name in self._surely(self._open).fields
        except CorruptionError:
            return True

    def rows(self, ids: Int64s, start_ns: int, end_ns: int) -> Int64s:
        """Return int64[k], at most how many rows each series has in the closed interval.

        A damaged segment may have rows of all series: none must be forgotten because of it.
        """
        counts = np.zeros(len(ids), np.int64)
        if end_ns >= self.info.first_ns and start_ns <= self.info.last_ns:
            try:
                layout = self._surely(self._open)
            except CorruptionError:
                if self._on_damage is None:
                    raise
                return counts + 1
            at, rows = self._find(layout, ids, start_ns, end_ns)
            low, high = layout.offsets[at], layout.offsets[at + 1]
            if len(at) and not self._is_inside(start_ns, end_ns):
                _, low, high = layout.groups.needed(low, high, start_ns, end_ns)
            counts[rows] = high - low
        return counts

    def count(self, ids: Int64s, start_ns: int, end_ns: int) -> int:
        """Return how many rows the series have in the closed interval, all together."""
        if start_ns <= self.info.first_ns and self.info.last_ns <= end_ns:
            n_rows = int(self.rows(ids, start_ns, end_ns).sum())
            return 0 if self._is_skipped else n_rows
        return len(self.read(ids, start_ns, end_ns, ()))

    def read(
        self,
        ids: Int64s,
        start_ns: int,
        end_ns: int,
        fields: Sequence[str] | None = None,
        limit: int = 0,
    ) -> Run:
        """Return exactly the rows of these series in the closed interval, with fields that exist.

        With a limit, as in ScanRequest, only so many of the first or last rows of each series.

        Raises:
            CorruptionError: The file is not what was written, and there is nobody to tell.
        """
        is_outside = end_ns < self.info.first_ns or start_ns > self.info.last_ns
        if is_outside or self._is_skipped:
            return empty_run()
        try:
            return self._surely(lambda: self._read(ids, start_ns, end_ns, fields, limit))
        except CorruptionError:
            if self._on_damage is None:
                raise
            return empty_run()

    def _read(
        self,
        ids: Int64s,
        start_ns: int,
        end_ns: int,
        fields: Sequence[str] | None,
        limit: int,
    ) -> Run:
        bounds = start_ns, end_ns
        layout = self._open()
        at, _ = self._find(layout, ids, start_ns, end_ns)
        if not len(at):
            return empty_run()
        low, high = layout.offsets[at], layout.offsets[at + 1]
        if self._is_inside(start_ns, end_ns):
            low, high = ends(low, high, limit)
        names = [name for name in (layout.fields if fields is None else fields)
                 if name in layout.fields]  # fmt: skip
        if (columns := self._whole([_TIME_CHUNK, *names])) is not None:
            return self._cut(columns, (layout.ids[at], low, high), bounds, limit)
        groups, low, high = layout.groups.needed(low, high, start_ns, end_ns)
        # As many row groups as may be decoded at a time.
        at_once = max(1, self._cache.read_bytes // (8 * (len(names) + 1) * layout.groups.size))
        if len(groups) <= at_once:
            return self._rows(layout, names, groups, (layout.ids[at], low, high), bounds, limit)
        # Few rows of many row groups, as the last ones of all series are: some groups at a time.
        runs = []
        for first in range(0, len(groups), at_once):
            some, part = layout.groups.part((layout.ids[at], low, high), first, first + at_once)
            if len(some[0]):
                runs.append(self._rows(layout, names, groups[part], some, bounds, limit))
        return chain(runs)

    def _is_inside(self, start_ns: int, end_ns: int) -> bool:
        """Whether all rows are in a closed interval."""
        return start_ns <= self.info.first_ns and self.info.last_ns <= end_ns

    def _rows(
        self,
        layout: Layout,
        names: Sequence[str],
        groups: Int64s,
        ranges: Ranges,
        bounds: tuple[int, int],
        limit: int,
    ) -> Run:
        """Return the rows of ranges, counted in some row groups, that are within the bounds."""
        if not len(groups):
            return empty_run()
        chunks = self._chunks(layout, groups, [_TIME_CHUNK, *names])
        return self._cut(chunks, ranges, bounds, limit)

    def _cut(
        self,
        chunks: Mapping[str, list[FieldColumn]],
        ranges: Ranges,
        bounds: tuple[int, int],
        limit: int,
    ) -> Run:
        """Return the rows of ranges, counted in these chunks, that are within the bounds."""
        ids, low, high = ranges
        start_ns, end_ns = bounds
        if not self._is_inside(start_ns, end_ns):
            times: Int64s = join(chunks[_TIME_CHUNK]).values  # type: ignore[assignment]
            if start_ns > self.info.first_ns:
                low = search(times, low, high, start_ns, "left")
            if end_ns < self.info.last_ns:
                high = search(times, low, high, end_ns, "right")
            low, high = ends(low, high, limit)
        return cut(ids, low, high, chunks, _TIME_CHUNK)

    def read_all(self) -> Run:
        """Return all rows. They do not go through the cache.

        Raises:
            CorruptionError: The file is not what was written.
        """
        return self._surely(self._read_all)

    def _read_all(self) -> Run:
        layout = self._open()
        groups = np.arange(len(layout.groups))
        chunks = self._decode(layout, groups, [_TIME_CHUNK, *layout.fields])
        joined = {name: join(parts) for name, parts in chunks.items()}
        times: Int64s = joined.pop(_TIME_CHUNK).values  # type: ignore[assignment]
        return Run(layout.ids, layout.offsets, times, joined)

    def verify(self) -> None:
        """Read the whole file anew, also what is in memory and what reads never touch: the tags.

        Raises:
            CorruptionError: The file is not what was written.
        """

        def step() -> None:
            fresh = Segment(self.path, self.info, ChunkCache(0), self._files)
            fresh.read_all()
            fresh.read_tags()

        self._surely(step)

    def read_tags(self) -> list[dict[str, str]]:
        """Return the tags of each series, as the columns of the file say them.

        Raises:
            CorruptionError: The file is not what was written, or the rows of a series differ.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        layout = self._open()
        columns = layout.document["tags"]
        found: list[dict[str, str]] = [{} for _ in layout.ids]
        first = layout.offsets[:-1]
        if not columns:
            return found
        try:
            with pq.ParquetFile(
                self._files.readable(self.path),
                metadata=layout.metadata,
                read_dictionary=list(columns.values()),
                page_checksum_verification=True,
            ) as file:
                table = file.read(list(columns.values()), use_threads=False)
                if table.num_rows != layout.metadata.num_rows:
                    raise CorruptionError(self.path, None, "rows are missing")
                table = table.unify_dictionaries().combine_chunks()
            for key, name in sorted(columns.items()):
                column = arrow.to_column(table.column(name).chunk(0), FieldType.STRING)
                texts = column.values.astype(np.object_)
                texts[~column.mask()] = None
                if not np.array_equal(texts, np.repeat(texts[first], np.diff(layout.offsets))):
                    raise CorruptionError(self.path, None, f"rows of a series differ in tag {key}")
                for tags, text in zip(found, texts[first].tolist(), strict=True):
                    if text is not None:
                        tags[key] = text
        except (pa.ArrowException, ValueError, OSError) as exc:
            raise reading_error(exc, self.path, self.info.size_bytes) from exc
        return found

    def salvage(self) -> tuple[Run, list[int]]:
        """Return the rows that can still be read, and the row groups that lack rows or fields.

        Raises:
            CorruptionError: Not even the footer can be read.
        """
        layout = self._open()
        runs, lossy = [], []
        for group in range(len(layout.groups)):
            chunks, is_whole = self._salvage_group(layout, group)
            if not is_whole:
                lossy.append(group)
            if len(chunks) > 1:  # time, and what belongs to it
                start = group * layout.groups.size
                low, high = np.clip(
                    (layout.offsets[:-1], layout.offsets[1:]),
                    start,
                    start + len(chunks[_TIME_CHUNK][0].values),
                )
                runs.append(cut(layout.ids, low - start, high - start, chunks, _TIME_CHUNK))
        return merge_runs(runs, overwrite=False), lossy

    def _salvage_group(
        self, layout: Layout, group: int
    ) -> tuple[dict[str, list[FieldColumn]], bool]:
        """Return the columns of a row group that can be read, and whether that is all of them."""
        chunks: dict[str, list[FieldColumn]] = {}
        is_whole = True
        for name in (_TIME_CHUNK, *layout.fields):
            try:
                chunks |= self._decode(layout, np.array([group]), [name])
            except CorruptionError:
                is_whole = False
                if name == _TIME_CHUNK:
                    break
        return chunks, is_whole

    def document(self) -> Mapping[str, Any]:
        """Return what the file says beside Parquet's own (FORMAT.md, "Segments").

        Raises:
            CorruptionError: The footer is not what was written.
        """
        return self._open().document

    def counts(self) -> tuple[int, int]:
        """Return how many rows and how many values of fields there are. From the footer."""
        layout = self._open()
        names = {column for column, _, _ in layout.fields.values()}
        n_values = 0
        for group in range(layout.metadata.num_row_groups):
            row_group = layout.metadata.row_group(group)
            for i in range(row_group.num_columns):
                chunk = row_group.column(i)
                if chunk.path_in_schema in names:
                    n_values += chunk.num_values - chunk.statistics.null_count
        return layout.metadata.num_rows, n_values

    def bounds(self, groups: Sequence[int] | None) -> tuple[int, int, int]:
        """Return the smallest and the greatest time of row groups, and how many rows they have.

        None is all row groups.
        """
        layout = self._open()
        groups = range(len(layout.groups)) if groups is None else groups
        rows = sum(layout.metadata.row_group(group).num_rows for group in groups)
        return int(layout.groups.firsts[groups].min()), int(layout.groups.lasts[groups].max()), rows

    @staticmethod
    def _find(layout: Layout, ids: Int64s, start_ns: int, end_ns: int) -> tuple[Int64s, Int64s]:
        """Return the series of this segment that can have rows.

        Returns:
            at, rows: int64[m] each; ids[rows[i]] is layout.ids[at[i]].
        """
        at = np.minimum(layout.ids.searchsorted(ids), len(layout.ids) - 1)
        wanted = (
            (layout.ids[at] == ids) & (layout.firsts[at] <= end_ns) & (layout.lasts[at] >= start_ns)
        )
        [rows] = wanted.nonzero()
        return at[rows], rows

    def _open(self) -> Layout:
        layout = self._cache.footer(self._key)
        if layout is None:
            allowance.wait()
            with self._lock:
                layout = self._cache.footer(self._key)
                if layout is None:
                    layout = read_footer(self.path, self.info, self._files)
                    self._cache.put_footer(self._key, layout)
        return layout

    def _chunks(
        self, layout: Layout, groups: Int64s, names: Sequence[str]
    ) -> dict[str, list[FieldColumn]]:
        """Return the chunks of columns, one for each row group, out of the cache or the file."""
        found: dict[str, dict[int, FieldColumn]] = {name: {} for name in names}
        missing: dict[int, None] = {}
        size = layout.groups.size
        places = {group: slice(group * size, (group + 1) * size) for group in groups.tolist()}
        for name in names:
            whole = self._cache.get((self._key, WHOLE, name))
            for group, rows in places.items():
                if whole is not None:
                    found[name][group] = whole.take(rows)
                    continue
                chunk = self._cache.get((self._key, group, name))
                if chunk is None:
                    missing[group] = None
                else:
                    found[name][group] = chunk
        if missing:
            allowance.wait()
            absent = np.array(sorted(missing), np.int64)
            lacking = [name for name in names if len(found[name]) < len(groups)]
            if len(absent) == len(layout.groups) and self._cache.ahead.takes(9 * len(self)):
                for name, column in self._keep_whole(layout, lacking).items():
                    found[name] = {group: column.take(rows) for group, rows in places.items()}
            else:
                for name, parts in self._decode(layout, absent, lacking).items():
                    for group, chunk in zip(absent.tolist(), parts, strict=True):
                        self._cache.put((self._key, group, name), chunk)
                        found[name][group] = chunk
                # Last: chunks that came behind the whole column would stay beside it.
                self._cache.ahead.missed(
                    self._key, lacking, 9 * len(self), self._read_rest, layout.fields
                )
        return {name: [found[name][group] for group in places] for name in names}

    def _whole(self, names: Sequence[str]) -> dict[str, list[FieldColumn]] | None:
        """Return whole columns, None when not all of them are in the cache."""
        columns: dict[str, list[FieldColumn]] = {}
        for name in names:
            column = self._cache.get((self._key, WHOLE, name))
            if column is None:
                return None
            columns[name] = [column]
        return columns

    def _read_rest(self, names: Sequence[str]) -> None:
        """Put whole columns into the cache, in place of their chunks."""
        layout = self._open()
        names = [name for name in names if (self._key, WHOLE, name) not in self._cache]
        at_once = max(1, self._cache.read_bytes // (8 * len(self)))
        for first in range(0, len(names), at_once):
            if self._is_replaced or self._is_skipped:
                return
            self._keep_whole(layout, names[first : first + at_once], is_ahead=True)

    def _keep_whole(
        self, layout: Layout, names: Sequence[str], *, is_ahead: bool = False
    ) -> dict[str, FieldColumn]:
        """Return whole columns from the file, and put them into the cache.

        Nobody waits for what is read ahead: it takes one core, the others are for questions.
        """
        columns = self._decode_whole(layout, names, side_by_side=not is_ahead)
        for name, column in columns.items():
            self._cache.put((self._key, WHOLE, name), column)
            self._cache.forget_chunks(self._key, name)
        return columns

    def _decode(
        self, layout: Layout, groups: Int64s, names: Sequence[str]
    ) -> dict[str, list[FieldColumn]]:
        """Return the chunks of columns, one for each row group, from the file."""
        chunks: dict[str, list[FieldColumn]] = {name: [] for name in names}
        side_by_side = len(groups) * layout.groups.size > _THREADED_ROWS
        with self._file(layout, names, side_by_side=side_by_side) as read:
            for group in groups.tolist():
                # One after another: each chunk owns its memory, and can be let go alone.
                table = read([group])
                for name in names:
                    chunks[name].append(self._chunk(table, layout, name))
        return chunks

    def _decode_whole(
        self, layout: Layout, names: Sequence[str], *, side_by_side: bool
    ) -> dict[str, FieldColumn]:
        """Return columns in one piece each, from the file."""
        side_by_side = side_by_side and len(self) > _THREADED_ROWS
        with self._file(layout, names, side_by_side=side_by_side) as read:
            table = read(range(len(layout.groups)))
            return {name: self._chunk(table, layout, name) for name in names}

    @contextlib.contextmanager
    def _file(
        self, layout: Layout, names: Sequence[str], *, side_by_side: bool
    ) -> Iterator[Callable[[Sequence[int]], Any]]:
        """Open the file; gives what reads row groups of columns as a table of Arrow.

        Args:
            layout: Its footer.
            names: The columns.
            side_by_side: Whether columns are decoded at the same time, on several cores.

        Raises:
            CorruptionError: The file is not what was written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns, strings = [], []
        for name in names:
            column, kind, none = _TIME_FIELD if name == _TIME_CHUNK else layout.fields[name]
            columns += [column] if none is None else [column, none]
            strings += [column] if kind is FieldType.STRING else []

        def read(groups: Sequence[int]) -> Any:
            counts = [layout.metadata.row_group(group).num_rows for group in groups]
            table = file.read_row_groups(groups, columns=columns, use_threads=side_by_side)
            if table.num_rows != sum(counts):
                raise CorruptionError(self.path, None, "rows are missing")
            return table.unify_dictionaries() if strings and len(groups) > 1 else table

        try:
            with pq.ParquetFile(
                self._files.readable(self.path),
                metadata=layout.metadata,
                read_dictionary=strings,
                page_checksum_verification=True,
            ) as file:
                yield read
        except (pa.ArrowException, ValueError, OSError) as exc:
            raise reading_error(exc, self.path, self.info.size_bytes) from exc

    @staticmethod
    def _chunk(table: Any, layout: Layout, name: str) -> FieldColumn:
        """Return a column of a row group."""
        column, kind, none = _TIME_FIELD if name == _TIME_CHUNK else layout.fields[name]
        array = table.column(column).combine_chunks()
        nones = None if none is None else table.column(none).combine_chunks()
        return arrow.to_column(array, kind, nones)


# The time column among the chunks: no field has this name, because fields have their own.
_TIME_CHUNK: Final = "\0time"
_TIME_FIELD: Final = (TIME, FieldType.INTEGER, None)
