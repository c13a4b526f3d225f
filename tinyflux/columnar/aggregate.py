"""Functions over frames, per group of series and time window: `aggregate` of every storage.

    frame -> runs (series, window) -> parts of each run -> parts of each cell: a piece
    all pieces -> one value a cell -> a dense table [groups, windows]

Rows of a frame are sorted by (series, time), so runs are contiguous and one `reduceat` computes the
parts of all of them. What is left is far smaller than the rows, and is combined per cell by a sort
and a second `reduceat`. Functions that need all values of a cell (`Gather`) keep the rows instead,
bounded by `MAX_GATHERED_ROWS`. There is no step in Python per row or series, only per frame, call,
and group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, Bools, FieldType, Int64s
from tinyflux.columnar.base import (
    AggregateRequest,
    AggregateTable,
    Call,
    CallColumn,
    FieldColumn,
    Frame,
    SeriesSet,
    Values,
)
from tinyflux.errors import LimitExceeded, QueryError
from tinyflux.kernels import KERNELS, Cells, Fold, Gather, Kernel, Parts, Percentile, Select
from tinyflux.windows import Runs, Windows, find_runs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

MAX_GATHERED_ROWS: Final = 50_000_000
_MERGE_EVERY: Final = 32  # pieces of a call that may wait before they are merged

_DTYPES: Final = {
    FieldType.FLOAT: np.dtype(np.float64),
    FieldType.INTEGER: np.dtype(np.int64),
    FieldType.BOOLEAN: np.dtype(np.bool_),
    FieldType.STRING: np.dtype(np.object_),
}


def aggregate_frames(
    frames: Iterable[Frame], request: AggregateRequest, max_rows: int = MAX_GATHERED_ROWS
) -> AggregateTable:
    """Return the functions of a request over frames that already hold only the wanted rows.

    Args:
        frames: The rows, as `Reader.scan` yields them. Each is let go before the next is asked for.
        request: The calls, groups and windows; its scan is not looked at.
        max_rows: How many rows a function may gather that needs all values of a cell at once.

    Raises:
        LimitExceeded: More than `max_cells` cells, or more than `max_rows` gathered rows.
        QueryError: A function that does not take the field's type, an unknown function, or a bad
        argument.
    """
    columns = [_Column(call, _kernel(call), request, max_rows) for call in request.calls]
    if request.aux and (len(columns) != 1 or not columns[0].kernel.selects):
        raise QueryError("mixing aggregate and non-aggregate queries is not supported")
    groups = _Groups(request.group_by)
    with np.errstate(all="ignore"):  # inf and NaN are values here
        for frame in frames:
            _add_frame(frame, columns, groups, request.windows)
        return _table(columns, groups, request)


def _kernel(call: Call) -> Kernel:
    kernel = KERNELS.get(call.function)
    if kernel is None:
        raise QueryError(f"undefined function {call.function}()")
    return kernel


class _Groups:
    """Numbers the groups in the order they are first seen."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys
        self._numbers: dict[tuple[str, ...], int] = {}

    def number(self, series: SeriesSet) -> Int64s:
        """Return int64[k], the group of each series."""
        columns = [series.columns[key] for key in self._keys if key in series.columns]
        inverse = np.zeros(len(series), np.int64)
        if not self._keys:
            self._numbers[()] = 0
            return inverse
        for column in columns:
            codes = inverse * (len(column.values) + 1) + (column.codes + 1)
            _, inverse = np.unique(codes, return_inverse=True)
        chosen = np.zeros(int(inverse.max(initial=-1)) + 1, np.int64)
        chosen[inverse] = np.arange(len(series))  # one series of each combination
        texts = [self._texts(series, key, chosen) for key in self._keys]
        names = zip(*texts, strict=True) if texts else ((),) * len(chosen)
        numbers = [self._numbers.setdefault(name, len(self._numbers)) for name in names]
        return np.array(numbers, np.int64)[inverse]

    @staticmethod
    def _texts(series: SeriesSet, key: str, rows: Int64s) -> list[str]:
        column = series.columns.get(key)
        if column is None:
            return [""] * len(rows)
        values = column.values
        return [(values[c] or "") if c >= 0 else "" for c in column.codes[rows].tolist()]

    def names(self) -> list[tuple[str, ...]]:
        """Return the groups by number."""
        return list(self._numbers)


@dataclass(slots=True, eq=False)
class _Rows:
    """The rows of a frame that have a value of one field, in runs, and the cells of the runs.

    Attributes:
        frame: The frame.
        rows: int64[n], their places in the frame; None is all of them.
        times: int64[n], their times.
        runs: Their runs.
        groups: int64[c], the group of each cell of this frame.
        numbers: int64[c], its window.
        order: int64[r], the runs cell after cell; None when each run is a cell and in order.
        cells: int64[c], where the runs of each cell start in `order`.
    """

    frame: Frame
    rows: Int64s | None
    times: Int64s
    runs: Runs
    groups: Int64s = field(init=False)
    numbers: Int64s = field(init=False)
    order: Int64s | None = None
    cells: Int64s | None = None

    def find_cells(self, groups: Int64s) -> None:
        """Sort the runs into cells; groups is int64[k], the group of each series."""
        of_run, numbers = groups[self.runs.series], self.runs.numbers
        low = int(numbers.min())
        width = int(numbers.max()) - low + 1
        keys = of_run * width + (numbers - low)
        if (keys[1:] <= keys[:-1]).any():
            self.order = np.argsort(keys, kind="stable")
            keys = keys[self.order]
            self.cells = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
            keys = keys[self.cells]
        self.groups, self.numbers = keys // width, keys % width + low


def _add_frame(
    frame: Frame, columns: list[_Column], groups: _Groups, windows: Windows | None
) -> None:
    """Add a piece for this frame to every column."""
    all_runs = find_runs(frame.times, frame.offsets, windows)
    of_series = groups.number(frame.series)
    complete: _Rows | None = None
    by_field: dict[str, _Rows | None] = {}
    for column in columns:
        name = column.call.field
        data = frame.columns.get(name)
        if data is None or data.type is FieldType.NONE:
            continue
        column.meet(data.type)
        if name not in by_field:
            if data.valid is None:
                if complete is None:
                    complete = _Rows(frame, None, frame.times, all_runs)
                    complete.find_cells(of_series)
                by_field[name] = complete
            else:
                by_field[name] = _valid_rows(frame, all_runs, data.valid, of_series)
        rows = by_field[name]
        if rows is not None:
            column.add(rows, data.values if rows.rows is None else data.values[rows.rows])


def _valid_rows(frame: Frame, runs: Runs, valid: Bools, groups: Int64s) -> _Rows | None:
    """Return the rows that have a value; None when there are none."""
    rows = np.flatnonzero(valid)
    if not len(rows):
        return None
    starts = np.searchsorted(rows, runs.starts)
    lengths = np.diff(starts, append=len(rows))
    kept = np.flatnonzero(lengths)
    left = Runs(starts[kept], lengths[kept], runs.series[kept], runs.numbers[kept])
    result = _Rows(frame, rows, frame.times[rows], left)
    result.find_cells(groups)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """What one frame, or several merged, gave a call: an entry a cell, or a row if it gathers.

    Attributes:
        groups: int64[m], the group of each entry, as `_Groups` numbers them.
        numbers: int64[m], its window.
        parts: Fold: the parts of the kernel. Select and Gather: values, times, and series ids when
            a point is selected.
        aux: Other fields of the selected points.
    """

    groups: Int64s
    numbers: Int64s
    parts: Parts
    aux: dict[str, FieldColumn]

    def take(self, rows: Int64s) -> _Piece:
        """Return the chosen entries."""
        return _Piece(
            self.groups[rows],
            self.numbers[rows],
            tuple(part[rows] for part in self.parts),
            {name: column.take(rows) for name, column in self.aux.items()},
        )


class _Column:
    """The answer to one call in the making."""

    def __init__(
        self, call: Call, kernel: Kernel, request: AggregateRequest, max_rows: int
    ) -> None:
        self.call = call
        self.kernel = kernel
        self.type = kernel.gives or FieldType.FLOAT  # of a field that nobody has
        self._seen = False
        self._windows = request.windows
        self._aux = request.aux
        self._max_rows = max_rows
        self._gathered = 0
        self._pieces: list[_Piece] = []
        # influxd without windows takes the last series among equal points for last().
        self._late = call.function == "last" and request.windows is None

    def meet(self, kind: FieldType) -> None:
        """Note the type of the field in a frame. A field that is float anywhere is float."""
        answer = self.kernel.type_of(kind)
        if not self._seen or answer is FieldType.FLOAT:
            self.type = answer
        self._seen = True

    def add(self, rows: _Rows, values: Values) -> None:
        """Add what the rows of a frame give."""
        kernel, runs = self.kernel, rows.runs
        if isinstance(kernel, Fold):
            parts = kernel.partial(values, runs.starts, runs.lengths)
            if rows.order is not None and rows.cells is not None:
                parts = kernel.merge(tuple(part[rows.order] for part in parts), rows.cells)
            self._pieces.append(_Piece(rows.groups, rows.numbers, parts, {}))
        elif isinstance(kernel, Select):
            self._pieces.append(self._select(kernel, rows, values))
        else:
            self._pieces.append(self._gather(rows, values))
        if len(self._pieces) >= _MERGE_EVERY and not isinstance(kernel, Gather):
            self._pieces = [self._merged(self._joined())]

    def _select(self, kernel: Select, rows: _Rows, values: Values) -> _Piece:
        runs = rows.runs
        chosen = kernel.pick_ascending(values, rows.times, runs.starts, runs.lengths, self._late)
        series = rows.frame.series.ids[runs.series]
        if rows.order is not None and rows.cells is not None:
            chosen, series = chosen[rows.order], series[rows.order]
            best = kernel.pick(values[chosen], rows.times[chosen], rows.cells, self._late)
            chosen, series = chosen[best], series[best]
        parts = values[chosen], rows.times[chosen], series
        return _Piece(rows.groups, rows.numbers, parts, self._aux_of(rows, chosen))

    def _gather(self, rows: _Rows, values: Values) -> _Piece:
        self._gathered += len(values)
        if self._gathered > self._max_rows:
            raise LimitExceeded(
                f"{self.call.function}() needs all values at once: more than {self._max_rows}"
            )
        runs = rows.runs
        of_run = np.arange(len(runs.starts))
        groups, numbers = rows.groups, rows.numbers
        if rows.order is not None and rows.cells is not None:
            cell_of_sorted = np.repeat(
                np.arange(len(groups)), np.diff(rows.cells, append=len(rows.order))
            )
            of_run[rows.order] = cell_of_sorted
        cells = np.repeat(of_run, runs.lengths)
        parts: Parts = (values, rows.times)
        if self.kernel.selects:
            parts += (rows.frame.series.ids[np.repeat(runs.series, runs.lengths)],)
        return _Piece(groups[cells], numbers[cells], parts, self._aux_of(rows, slice(None)))

    def _aux_of(self, rows: _Rows, chosen: Int64s | slice) -> dict[str, FieldColumn]:
        places = chosen if rows.rows is None else rows.rows[chosen]
        columns = rows.frame.columns
        return {
            name: columns[name].take(places)
            for name in self._aux
            if name in columns and columns[name].type is not FieldType.NONE
        }

    def _joined(self) -> _Piece:
        if len(self._pieces) == 1:
            return self._pieces[0]
        pieces = self._pieces
        parts = zip(*(piece.parts for piece in pieces), strict=True)
        return _Piece(
            np.concatenate([piece.groups for piece in pieces]),
            np.concatenate([piece.numbers for piece in pieces]),
            tuple(np.concatenate(part) for part in parts),
            {
                name: _concatenate([(piece.aux.get(name), len(piece.groups)) for piece in pieces])
                for name in self._aux
                if any(name in piece.aux for piece in pieces)
            },
        )

    def _merged(self, piece: _Piece) -> _Piece:
        """Return an entry a cell, ordered by group and window."""
        low = int(piece.numbers.min())
        keys = piece.groups * (int(piece.numbers.max()) - low + 1) + (piece.numbers - low)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        piece = piece.take(order)
        if isinstance(self.kernel, Select):
            return piece.take(self.kernel.pick(piece.parts[0], piece.parts[1], starts, self._late))
        if not isinstance(self.kernel, Fold):
            raise TypeError("only folds and selectors merge")
        parts = self.kernel.merge(piece.parts, starts)
        return _Piece(piece.groups[starts], piece.numbers[starts], parts, {})

    def finish(self) -> _Finished | None:
        """Return the values of all cells; None when the field has no value anywhere."""
        if not self._pieces:
            return None
        piece = self._joined()
        if isinstance(self.kernel, Gather):
            return self._finish_gathered(self.kernel, piece)
        if len(self._pieces) > 1:
            piece = self._merged(piece)
        self._pieces = [piece]
        if isinstance(self.kernel, Fold):
            values, valid = self.kernel.finish(piece.parts)
            return _Finished(piece.groups, piece.numbers, values, valid)
        values, times, series = piece.parts
        return _Finished(piece.groups, piece.numbers, values, None, times, series, piece.aux)

    def _finish_gathered(self, kernel: Gather, piece: _Piece) -> _Finished:
        low = int(piece.numbers.min())
        keys = piece.groups * (int(piece.numbers.max()) - low + 1) + (piece.numbers - low)
        times = piece.parts[1]
        behind = keys[1:] < keys[:-1]
        if (behind | ((keys[1:] == keys[:-1]) & (times[1:] < times[:-1]))).any():
            order = np.lexsort((times, keys))
            piece, keys = piece.take(order), keys[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        groups, numbers = piece.groups[starts], piece.numbers[starts]
        cells = Cells(piece.parts[0], piece.parts[1], starts, groups, self._bounds(numbers))
        if isinstance(kernel, Percentile):
            rows, valid = kernel.pick(cells, self.call.args)
            chosen = piece.take(rows)
            values, times, series = chosen.parts
            return _Finished(groups, numbers, values, valid, times, series, chosen.aux)
        values, valid_or_none = kernel.finish(cells, self.call.args)
        return _Finished(groups, numbers, values, valid_or_none)

    def _bounds(self, numbers: Int64s) -> Int64s:
        bounds = np.empty((len(numbers), 2), np.int64)
        if self._windows is None:
            bounds[:] = MIN_TIME_NS, MAX_TIME_NS
        else:
            bounds[:, 0] = self._windows.start(numbers)
            bounds[:, 1] = self._windows.start(numbers + 1)
        return bounds


@dataclass(frozen=True, slots=True, eq=False)
class _Finished:
    """The values of one call, an entry a cell with rows; as in `_Piece` and `CallColumn`."""

    groups: Int64s
    numbers: Int64s
    values: Values
    valid: Bools | None
    times: Int64s | None = None
    series: Int64s | None = None
    aux: dict[str, FieldColumn] = field(default_factory=dict)

    def newest(self) -> _Finished | None:
        """Return the last value of each group as window 0; None without any.

        Other fields are the last known of the selected points, each by itself.
        """
        known = np.ones(len(self.groups), np.bool_) if self.valid is None else self.valid
        rows = self._last_rows(known)
        if not len(rows):
            return None
        aux = {}
        for name, column in self.aux.items():
            last = self._last_rows(known & column.mask())
            of_group = rows.copy()
            of_group[np.searchsorted(self.groups[rows], self.groups[last])] = last
            aux[name] = column.take(of_group)
        return _Finished(
            self.groups[rows],
            np.zeros(len(rows), np.int64),
            self.values[rows],
            None,
            None if self.times is None else self.times[rows],
            None if self.series is None else self.series[rows],
            aux,
        )

    def _last_rows(self, chosen: Bools) -> Int64s:
        """Return the last of the chosen entries of each group that has some."""
        rows = np.flatnonzero(chosen)
        groups = self.groups[rows]  # entries are group after group, windows in order
        return rows[np.append(groups[1:] != groups[:-1], True)] if len(rows) else rows


def _concatenate(columns: list[tuple[FieldColumn | None, int]]) -> FieldColumn:
    """Join columns of given lengths; None is one without values."""
    kind = next(column.type for column, _ in columns if column is not None)
    values, valid = [], []
    for column, n in columns:
        values.append(np.zeros(n, _DTYPES[kind]) if column is None else column.values)
        valid.append(np.zeros(n, np.bool_) if column is None else column.mask())
    return FieldColumn(kind, np.concatenate(values), np.concatenate(valid))


def _table(columns: list[_Column], groups: _Groups, request: AggregateRequest) -> AggregateTable:
    """Spread the values over all groups and windows."""
    finished = [column.finish() for column in columns]
    if request.newest:
        finished = [None if done is None else done.newest() for done in finished]
    present = [done for done in finished if done is not None]
    if not present:
        windows = np.zeros(0 if request.windows else 1, np.int64)
        empty = [_dense(column, None, None, (0, len(windows))) for column in columns]
        return AggregateTable([], windows, empty)
    names = groups.names()
    used = np.unique(np.concatenate([done.groups for done in present])).tolist()
    used.sort(key=names.__getitem__)
    ranks = np.zeros(len(names), np.int64)
    ranks[used] = np.arange(len(used))
    low = min(int(done.numbers.min()) for done in present)
    width = max(int(done.numbers.max()) for done in present) - low + 1
    if len(used) * width > request.max_cells:
        raise LimitExceeded(
            f"the answer has {len(used) * width} cells (groups x windows), the limit is"
            f" {request.max_cells}"
        )
    shape = (len(used), width)
    first = np.full(len(used), low + width)
    by_cells: dict[int, Int64s] = {}  # columns without gaps share their cells: work them out once
    for done in present:
        if id(done.groups) not in by_cells:
            rows = ranks[done.groups]
            np.minimum.at(first, rows, done.numbers)
            by_cells[id(done.groups)] = rows * width + (done.numbers - low)
    places = [None if done is None else by_cells[id(done.groups)] for done in finished]
    answers = [
        _dense(column, done, at, shape)
        for column, done, at in zip(columns, finished, places, strict=True)
    ]
    aux = {}
    if request.aux and finished[0] is not None and places[0] is not None:
        aux = _dense_aux(finished[0], places[0], shape)
    return AggregateTable(
        [names[number] for number in used], np.arange(low, low + width), answers, aux, first
    )


def _dense_aux(done: _Finished, places: Int64s, shape: tuple[int, int]) -> dict[str, CallColumn]:
    columns = {}
    for name, data in done.aux.items():
        valid = data.mask() if done.valid is None else data.mask() & done.valid
        values = _spread(data.values, places, shape, _DTYPES[data.type])
        there = _spread(valid, places, shape, np.dtype(np.bool_))
        columns[name] = CallColumn(data.type, values, there)
    return columns


def _dense(
    column: _Column, done: _Finished | None, places: Int64s | None, shape: tuple[int, int]
) -> CallColumn:
    """Return a column of the table; places is int64[m], the cell of each value."""
    dtype = _DTYPES[column.type]
    if done is None or places is None:
        nothing = np.zeros(shape, np.int64) if column.kernel.selects else None
        return CallColumn(
            column.type, np.zeros(shape, dtype), np.zeros(shape, np.bool_), nothing, nothing
        )
    valid = np.ones(len(places), np.bool_) if done.valid is None else done.valid
    int64 = np.dtype(np.int64)
    return CallColumn(
        column.type,
        _spread(done.values, places, shape, dtype),
        _spread(valid, places, shape, np.dtype(np.bool_)),
        None if done.times is None else _spread(done.times, places, shape, int64),
        None if done.series is None else _spread(done.series, places, shape, int64),
    )


def _spread(
    values: NDArray[Any], places: Int64s, shape: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    whole = np.zeros(shape[0] * shape[1], dtype)
    whole[places] = values
    return whole.reshape(shape)
