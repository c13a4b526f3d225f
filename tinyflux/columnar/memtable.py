"""The memtable: the points that are not in a segment yet.

A write only appends a `Block` (the arrays of one batch, with the ids of the store in place of those
of the batch). Nothing is grouped on write. The first read after writes distributes all waiting
blocks: the values of each measurement become columns, as `Piece`s. The first read *of a
measurement* sorts its pieces into a run. Runs of about a size are merged when there are many, so
"write a little, read, write a little, read" costs O(log n) merges a row, not a sort of everything
at every read. A reader merges only small ones. While somebody reads, the writer does the rest
between its batches (`tidy`), so that readers find little left to do.

Invariants
- Blocks, pieces and runs are immutable and own their arrays: no view keeps a request body alive.
- A table (the rows of one measurement) never changes its content; it only gets better sorted. So
  views share tables.
- `Memtable.state` is replaced, never changed, except that the writer appends to its list of blocks.
  A view is the state
  it found and how many blocks there were: O(1), and later writes do not show.
- `_group_lock` is held while blocks are distributed, the lock of a table while its pieces are
  sorted: nobody waits for the sorting of what he does not read, such as a flush does. The writer
  waits for neither to append, and holds none while it merges long runs.
"""

from __future__ import annotations

import math
import operator
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from tinyflux.batch import FieldType
from tinyflux.columnar import allowance
from tinyflux.columnar.base import FieldColumn
from tinyflux.columnar.scan import Run, arrange, concat, empty_run, merge_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tinyflux.batch import FieldLayout, Int32s, Int64s
    from tinyflux.columnar.base import Values

# How many slots are distributed at once: bounds the index arrays, which take 8 bytes a slot for a
# moment.
_SLOTS_AT_ONCE: Final = 4_000_000
# So many neighbouring runs of about a size, between two of these borders, become one.
_FAN: Final = 8
_BY_READERS: Final = (0, 1 << 9, 1 << 12)  # rows
_BY_WRITER: Final = (1 << 12, 1 << 15, 1 << 18)
# The writer tidies what was read within so long, when so many points wait, or more if they are of
# many measurements, each of which costs some calls. Dashboards ask again every 5 to 60 seconds.
_LIVELY_S: Final = 70.0
_TIDY_POINTS: Final = 4096
_TIDY_POINTS_A_TABLE: Final = 64
_MOMENT_S: Final = 0.002  # that everybody may wait for a lock
# Pieces of a measurement that nobody reads are sorted in the end, so that there never are too many.
_MAX_PIECES: Final = 256
_FEW_POINTS: Final = 5_000  # are sorted at once, also for those who may not wait


class Shape(NamedTuple):
    """What the points of a measurement with one field layout have in common."""

    measurement: int  # its number in the series index
    layout: FieldLayout


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The stored points of one batch.

    Attributes:
        ids: int32[n], the series id of each point.
        times: int64[n] ns, as they were given.
        shapes: int32[n], the shape of each point: an index into the memtable's shapes.
        values: int64[m], the slots of all points, as in PointBatch.
        strings: The string values.
    """

    ids: Int32s
    times: Int64s
    shapes: Int32s
    values: Int64s
    strings: Sequence[str]

    def __len__(self) -> int:
        return len(self.times)

    def nbytes(self) -> int:
        """Return about how much memory it takes."""
        arrays = self.ids.nbytes + self.times.nbytes + self.shapes.nbytes + self.values.nbytes
        return arrays + 64 * len(self.strings) + 500


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Points of one shape out of distributed blocks: columns, in the order of arrival.

    Attributes:
        rows: int64[n], ascending: the place of each point in the order of arrival among all points
            of a memtable.
        ids: int32[n], series ids.
        times: int64[n] ns.
        columns: One for each field of the shape.
    """

    rows: Int64s
    ids: Int32s
    times: Int64s
    columns: Mapping[str, FieldColumn]


class Table:
    """The rows of one measurement: sorted runs, and pieces nobody has asked for. Never changes."""

    __slots__ = ("_lock", "_sorted")

    def __init__(self, runs: tuple[Run, ...] = (), pieces: tuple[Piece, ...] = ()) -> None:
        self._lock = threading.Lock()
        self._sorted = _Sorted(runs, pieces)

    def plus(self, pieces: Sequence[Piece], *, overwrite: bool) -> Table:
        """Return a table with newer pieces added. Waits for who sorts: that is not done twice."""
        if len(self._sorted.pieces) > _MAX_PIECES:
            self.runs(overwrite=overwrite)
        with _held(self._lock):
            runs, older = self._sorted
        return Table(runs, (*older, *pieces))

    def runs(self, *, overwrite: bool) -> tuple[Run, ...]:
        """Return the rows as sorted runs, oldest first."""
        if not self._sorted.pieces:
            return self._sorted.runs
        with _held(self._lock):
            found, pieces = self._sorted
            if pieces:
                if sum(len(piece.times) for piece in pieces) > _FEW_POINTS:
                    allowance.wait()
                runs = [*found, _sort(pieces, overwrite=overwrite)]
                while due := _due(runs, _BY_READERS):
                    runs[due] = [merge_runs(runs[due], overwrite=overwrite)]
                self._sorted = _Sorted(tuple(runs), ())
            return self._sorted.runs

    def long_runs(self) -> tuple[Run, ...]:
        """Return neighbouring runs that are too long to be merged by a reader, but should be."""
        runs = self._sorted.runs
        due = _due(runs, _BY_WRITER)
        return () if due is None else runs[due]

    def put(self, merged: Run, old: Sequence[Run]) -> None:
        """Replace neighbouring runs, if they are still here."""
        with self._lock:
            runs, pieces = self._sorted
            for start in range(len(runs) - len(old) + 1):
                stop = start + len(old)
                if all(map(operator.is_, runs[start:stop], old)):
                    self._sorted = _Sorted((*runs[:start], merged, *runs[stop:]), pieces)
                    return


class _Sorted(NamedTuple):
    """The rows of a table, as far as they are sorted."""

    runs: tuple[Run, ...]  # oldest first
    pieces: tuple[Piece, ...]  # newer than the runs


@contextmanager
def _held(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock.

    Raises:
        TooMuch: It takes a while to get it, and this thread may not wait.
    """
    if not lock.acquire(timeout=_MOMENT_S):
        allowance.wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _due(runs: Sequence[Run], borders: Sequence[int]) -> slice | None:
    """Return which runs are to be merged: many neighbours of a length between two borders.

    There may be shorter ones among them. All that follow are shorter.
    """
    stop = len(runs)
    for least, most in pairwise(borders):
        while stop and len(runs[stop - 1]) < least:
            stop -= 1
        start = stop
        while start and len(runs[start - 1]) < most:
            start -= 1
        if stop - start >= _FAN:
            return slice(start, stop)
    return None


def _sort(pieces: Sequence[Piece], *, overwrite: bool) -> Run:
    """Return the points of pieces of one measurement as a run."""
    if len(pieces) == 1:
        only = pieces[0]
        ids, times, columns = only.ids, only.times, only.columns
    else:
        lengths = [len(piece.times) for piece in pieces]
        rows = np.concatenate([piece.rows for piece in pieces])
        ids = np.concatenate([piece.ids for piece in pieces])
        times = np.concatenate([piece.times for piece in pieces])
        names = dict.fromkeys(name for piece in pieces for name in piece.columns)
        columns = {name: concat([p.columns.get(name) for p in pieces], lengths) for name in names}
        if not (rows[1:] > rows[:-1]).all():  # two shapes alternate: back to the order of arrival
            order = np.argsort(rows, kind="stable")
            ids, times = ids[order], times[order]
            columns = {name: column.take(order) for name, column in columns.items()}
    return arrange(ids.astype(np.int64), times, columns, overwrite=overwrite)


class _State(NamedTuple):
    tables: Mapping[int, Table]  # by measurement number
    blocks: list[Block]  # newer than the tables


class Memtable:
    """Points in memory, readable while they are written. Writes come from one thread at a time.

    Args:
        shapes: The shapes that blocks refer to; a list the writer appends to.
        overwrite: Whether points of equal series and time become one.
        read_s: When each measurement, by its number, was read last, of `time.monotonic`.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        overwrite: bool,
        read_s: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        self.n_points = 0
        self.n_bytes = 0
        self._shapes = shapes
        self._overwrite = overwrite
        self._state = _State({}, [])
        self._state_lock = threading.Lock()  # for a few instructions only
        self._group_lock = threading.Lock()
        self._tidy_lock = threading.Lock()
        self._read_s = dict(read_s)
        self._last_read_s = max(self._read_s.values(), default=-math.inf)
        self._arrived = 0  # points distributed so far

    @property
    def read_s(self) -> Mapping[int, float]:
        """When each measurement, by its number, was read last: for the memtable that comes next."""
        return self._read_s

    def append(self, block: Block) -> None:
        """Add the points of a batch."""
        with self._state_lock:
            self._state.blocks.append(block)
            self.n_points += len(block)
            self.n_bytes += block.nbytes()

    def view(self) -> MemtableView:
        """Return what is in the memtable now."""
        state = self._state
        return MemtableView(self, state, len(state.blocks))

    def runs(self, view: MemtableView, measurement: int) -> tuple[Run, ...]:
        """Return the rows of a measurement (its number) in a view as sorted runs, oldest first."""
        self._read_s[measurement] = self._last_read_s = time.monotonic()
        with _held(self._group_lock):
            table = self._tables(view).get(measurement)
        return () if table is None else table.runs(overwrite=self._overwrite)

    def tidy(self) -> None:
        """Do what readers would have to do, if there were some lately. Called between writes."""
        if time.monotonic() - self._last_read_s > _LIVELY_S:
            return
        if self._tidy_lock.acquire(blocking=False):  # one is enough
            try:
                self._sort_waiting()
                self._merge_long()
            finally:
                self._tidy_lock.release()

    def _sort_waiting(self) -> None:
        """Sort the points that wait into runs where somebody reads, when there are many."""
        tables, blocks = self._state
        least = max(_TIDY_POINTS, _TIDY_POINTS_A_TABLE * len(tables))
        if sum(map(len, blocks)) >= least:
            with self._group_lock:
                tables = self._tables(self.view())
            since_s = time.monotonic() - _LIVELY_S
            for number, table in tables.items():
                if self._read_s.get(number, -math.inf) > since_s:
                    table.runs(overwrite=self._overwrite)

    def _merge_long(self) -> None:
        """Merge long runs, while others read and write."""
        for number, table in self._state.tables.items():
            while runs := table.long_runs():
                merged = merge_runs(runs, overwrite=self._overwrite)
                now = self._state.tables.get(number)
                if now is not None:
                    now.put(merged, runs)
                if now is not table:  # newer pieces came, or rows were deleted: the next time
                    break

    def measurements(self, view: MemtableView) -> list[int]:
        """Return the numbers of the measurements that have rows in a view, ascending."""
        with _held(self._group_lock):
            return sorted(self._tables(view))

    def _tables(self, view: MemtableView) -> Mapping[int, Table]:
        """Return the tables of a view, after its blocks went into them."""
        state, n_blocks = view.state, view.n_blocks
        if n_blocks:
            if sum(map(len, state.blocks[:n_blocks])) > _FEW_POINTS:
                allowance.wait()
            tables = self._distribute(state.tables, state.blocks[:n_blocks])
            view.state, view.n_blocks = _State(tables, []), 0
            with self._state_lock:
                # Unless a newer view was faster: then this older one keeps its tables to itself.
                if self._state is state:
                    self._state = _State(tables, state.blocks[n_blocks:])
        return view.state.tables

    def _distribute(
        self, tables: Mapping[int, Table], blocks: Sequence[Block]
    ) -> Mapping[int, Table]:
        grown = dict(tables)
        for chunk in _chunks(blocks):
            found = split(chunk, self._shapes, self._arrived)
            self._arrived += sum(len(block) for block in chunk)
            for number, pieces in found.items():
                table = grown.get(number) or Table()
                grown[number] = table.plus(pieces, overwrite=self._overwrite)
        return grown

    def rewrite(self, measurements: Iterable[int], change: Callable[[Run], Run]) -> None:
        """Replace the rows of measurements, as a delete does. Views keep what they had.

        Args:
            measurements: Their numbers.
            change: Gets a run and gives the rows of it that stay.
        """
        with self._group_lock:
            tables = dict(self._tables(self.view()))
            for number in measurements:
                table = tables.pop(number, None)
                if table is not None:
                    old = table.runs(overwrite=self._overwrite)
                    runs = tuple(run for run in map(change, old) if len(run))
                    self.n_points -= sum(map(len, old)) - sum(map(len, runs))
                    if runs:
                        tables[number] = Table(runs)
            with self._state_lock:
                self._state = _State(tables, self._state.blocks)

    def drop(self, measurement: int) -> None:
        """Remove the rows of a measurement (its number)."""
        self.rewrite([measurement], lambda _: empty_run())

    def with_rows_in(self, first_ns: int, last_ns: int) -> list[int]:
        """Return the numbers of the measurements that may have rows in a closed interval."""
        view = self.view()
        return [
            number
            for number in view.measurements()
            if any(
                run.first_ns <= last_ns and run.last_ns >= first_ns for run in view.sources(number)
            )
        ]

    def cut(self, first_ns: int, last_ns: int) -> list[int]:
        """Remove the rows of a closed interval; returns whose, as `with_rows_in`."""
        numbers = self.with_rows_in(first_ns, last_ns)
        self.rewrite(numbers, lambda run: run.keep((run.times < first_ns) | (run.times > last_ns)))
        return numbers


class MemtableView:
    """What a memtable held at one moment."""

    __slots__ = ("_memtable", "n_blocks", "state")

    def __init__(self, memtable: Memtable, state: _State, n_blocks: int) -> None:
        self._memtable = memtable
        self.state = state
        self.n_blocks = n_blocks

    def sources(self, measurement: int) -> tuple[Run, ...]:
        """Return the rows of a measurement (its number) as sorted runs, oldest first."""
        return self._memtable.runs(self, measurement)

    def measurements(self) -> list[int]:
        """Return the numbers of the measurements that have rows."""
        return self._memtable.measurements(self)


def _chunks(blocks: Sequence[Block]) -> list[list[Block]]:
    """Return the blocks in order, in chunks of about _SLOTS_AT_ONCE slots."""
    chunks: list[list[Block]] = [[]]
    slots = 0
    for block in blocks:
        if slots > _SLOTS_AT_ONCE:
            chunks.append([])
            slots = 0
        chunks[-1].append(block)
        slots += len(block.values) + len(block)
    return chunks


def split(blocks: Sequence[Block], shapes: Sequence[Shape], arrived: int) -> dict[int, list[Piece]]:
    """Return the points of blocks as columns.

    Args:
        blocks: In order of arrival.
        shapes: What the blocks' shapes mean.
        arrived: How many points arrived before.

    Returns:
        Measurement number to its pieces, one a shape. Nothing is shared with the blocks.
    """
    ids = np.concatenate([block.ids for block in blocks])
    times = np.concatenate([block.times for block in blocks])
    shape_rows = np.concatenate([block.shapes for block in blocks])
    values = np.concatenate([block.values for block in blocks])
    strings = _Strings(blocks)

    counts = np.bincount(shape_rows)
    present = np.flatnonzero(counts).tolist()
    widths = np.zeros(len(counts), np.int64)
    widths[present] = [len(shapes[shape].layout) for shape in present]
    ends = np.cumsum(widths[shape_rows])
    offsets = ends - widths[shape_rows]
    # By shape, each in order of arrival; 16 bits are sorted by radix.
    narrow = shape_rows.astype(np.uint16) if len(counts) <= 1 << 16 else shape_rows
    order = np.argsort(narrow, kind="stable")
    pieces: dict[int, list[Piece]] = {}
    start = 0
    for shape in present:
        number, layout = shapes[shape]
        rows = order[start : start + int(counts[shape])]
        start += len(rows)
        first_slots = offsets[rows]
        columns = {
            name: _column(kind, values[first_slots + slot], rows, strings)
            for slot, (name, kind) in enumerate(layout)
        }
        piece = Piece(rows + arrived, ids[rows], times[rows], columns)
        pieces.setdefault(number, []).append(piece)
    return pieces


class _Strings:
    """The strings of several blocks: a slot's number counts within its own block."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._all: Values | None = None
        self._base = np.zeros(0, np.int64)

    def take(self, numbers: Int64s, rows: Int64s) -> Values:
        """Return object[n], the strings with these numbers in the blocks of these rows."""
        if self._all is None:
            lengths = [len(block.strings) for block in self._blocks]
            self._all = np.empty(sum(lengths), np.object_)
            self._all[:] = [text for block in self._blocks for text in block.strings]
            bases = np.cumsum(lengths) - lengths
            self._base = np.repeat(bases, [len(block) for block in self._blocks])
        taken: Values = self._all[numbers + self._base[rows]]
        return taken


def _column(kind: FieldType, slots: Int64s, rows: Int64s, strings: _Strings) -> FieldColumn:
    """Return the column of one slot of a shape. slots: int64[n], a fresh copy."""
    if kind is FieldType.INTEGER:
        return FieldColumn(kind, slots)
    if kind is FieldType.FLOAT:
        return FieldColumn(kind, slots.view(np.float64))
    if kind is FieldType.BOOLEAN:
        return FieldColumn(kind, slots != 0)
    if kind is FieldType.STRING:
        return FieldColumn(kind, strings.take(slots, rows))
    n = len(slots)
    return FieldColumn(kind, np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.ones(n, np.bool_))
