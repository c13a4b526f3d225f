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
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tinyflux.batch import Bools, FieldType, Int64s
from tinyflux.columnar.accumulate import (
    DTYPES,
    Accumulator,
    Finished,
    Merging,
    gathered_bytes,
)
from tinyflux.columnar.base import (
    AggregateRequest,
    AggregateTable,
    CallColumn,
    Frame,
    SeriesSet,
)
from tinyflux.errors import LimitExceeded, QueryError
from tinyflux.kernels import KERNELS, Gather, Kernel, Select
from tinyflux.windows import Runs, Windows, find_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from tinyflux.columnar.memory import Claim

MAX_GATHERED_ROWS: Final = 50_000_000
_CODES_PER_SERIES: Final = 16  # from here on sorting the codes is quicker than a table of all
_SPARSE: Final = 2  # as many windows as cells with a value: there it pays to leave the others out


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
    aggregation = Aggregation(request, max_rows=max_rows)
    for frame in frames:
        aggregation.add(frame)
    return aggregation.table()


class Aggregation:
    """The functions of a request over frames that come one after another.

    Args:
        request: The calls, groups and windows; its scan is not looked at.
        claim: Grows with what is kept of the frames; None asks nobody.
        max_rows: How many rows a function may gather that needs all values of a cell at once.
        check: Called between the steps; what it raises ends them.

    Raises:
        QueryError: An unknown function.
    """

    def __init__(
        self,
        request: AggregateRequest,
        claim: Claim | None = None,
        max_rows: int = MAX_GATHERED_ROWS,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._request = request
        self._claim = claim
        self._check = check
        merging = Merging(request)
        self._columns = [
            Accumulator(call, _kernel(call.function, request.points), request, merging, max_rows)
            for call in request.calls
        ]
        kernels = [column.kernel for column in self._columns]
        self._gathering = [kernel for kernel in kernels if isinstance(kernel, Gather)]
        self._groups = _Groups(request.group_by)
        if request.aux and (len(self._columns) != 1 or not self._columns[0].kernel.selects):
            raise QueryError("mixing aggregate and non-aggregate queries is not supported")

    @property
    def gathered_row_bytes(self) -> int:
        """How much is kept of a row until `settle`; 0 without functions that need all values."""
        return sum(map(gathered_bytes, self._gathering))

    @property
    def separate_windows(self) -> Windows | None:
        """The windows, if each can be computed without the others; else None."""
        crosses = any(kernel.crosses_windows for kernel in self._gathering)
        return None if crosses else self._request.windows

    def groups_of(self, series: SeriesSet) -> Int64s:
        """Return int64[k], the number of the group of each series."""
        return self._groups.number(series)

    def add(self, frame: Frame) -> None:
        """Add the rows of a frame.

        Raises:
            LimitExceeded: More than `max_cells` cells, more than `max_rows` gathered rows, or no
                memory for either.
            QueryError: A function that does not take the field's type.
        """
        if self._claim is not None and self._gathering:
            kept_bytes = sum(column.kept_bytes for column in self._columns)
            self._claim.grow(kept_bytes + len(frame) * self.gathered_row_bytes)
        with np.errstate(all="ignore"):  # inf and NaN are values here
            _add_frame(frame, self._columns, self._groups, self._request.windows)
        if self._claim is not None:
            self._claim.grow(sum(column.kept_bytes for column in self._columns))

    def settle(self) -> None:
        """Compute the cells so far: no frame that comes has rows in them."""
        if self._gathering:
            with np.errstate(all="ignore"):
                for column in self._columns:
                    if self._check is not None:
                        self._check()
                    column.settle()

    def table(self) -> AggregateTable:
        """Return the answer; nothing is to be added to it.

        Raises:
            LimitExceeded: More than `max_cells` cells, or no memory for them.
            QueryError: A bad argument of a function.
        """
        with np.errstate(all="ignore"):
            return _table(self._columns, self._groups, self._request, self._claim)


@cache
def _kernel(function: str, points: bool) -> Kernel:
    kernel = KERNELS.get(function)
    if kernel is None:
        raise QueryError(f"undefined function {function}()")
    return kernel if points or not isinstance(kernel, Select) else kernel.as_value()


class _Groups:
    """Numbers the groups in the order they are first seen."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys
        self._numbers: dict[tuple[str, ...], int] = {}
        self._last: tuple[SeriesSet | None, Int64s] = (None, np.zeros(0, np.int64))

    def number(self, series: SeriesSet) -> Int64s:
        """Return int64[k], the group of each series."""
        known, numbers = self._last
        if known is not series:  # frames of one stretch of time after another share their series
            numbers = self._numbered(series)
            self._last = series, numbers
        return numbers

    def _numbered(self, series: SeriesSet) -> Int64s:
        inverse = np.zeros(len(series), np.int64)
        if not self._keys:
            self._numbers[()] = 0
            return inverse
        n_groups = min(len(series), 1)
        for column in (series.columns[key] for key in self._keys if key in series.columns):
            n_codes = len(column.values) + 1
            codes = inverse * n_codes + (column.codes + 1)
            inverse, n_groups = _ranks(codes, n_groups * n_codes)
        chosen = np.zeros(n_groups, np.int64)
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


def _ranks(codes: Int64s, end: int) -> tuple[Int64s, int]:
    """Return int64[k], the rank of each code among the codes there are, and how many these are.

    Args:
        codes: int64[k], each in 0..end.
        end: What no code reaches.
    """
    if end > _CODES_PER_SERIES * len(codes):
        found, inverse = np.unique(codes, return_inverse=True)
        return inverse, len(found)
    is_there = np.zeros(end, np.int64)
    is_there[codes] = 1
    ranks = is_there.cumsum()
    return ranks[codes] - 1, int(ranks[-1]) if end else 0


@dataclass(slots=True, eq=False)
class Rows:
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
        self.groups, numbers = np.divmod(keys, width)
        self.numbers = numbers + low


def _add_frame(
    frame: Frame, columns: list[Accumulator], groups: _Groups, windows: Windows | None
) -> None:
    """Add a piece for this frame to every column."""
    all_runs = find_runs(frame.times, frame.offsets, windows)
    of_series = groups.number(frame.series)
    complete: Rows | None = None
    by_field: dict[str, Rows | None] = {}
    for column in columns:
        name = column.call.field
        data = frame.columns.get(name)
        if data is None or data.type is FieldType.NONE:
            continue
        column.meet(data.type)
        if name not in by_field:
            if data.valid is None:
                if complete is None:
                    complete = Rows(frame, None, frame.times, all_runs)
                    complete.find_cells(of_series)
                by_field[name] = complete
            else:
                by_field[name] = _valid_rows(frame, all_runs, data.valid, of_series)
        rows = by_field[name]
        if rows is not None:
            column.add(rows, data.values if rows.rows is None else data.values[rows.rows])


def _valid_rows(frame: Frame, runs: Runs, valid: Bools, groups: Int64s) -> Rows | None:
    """Return the rows that have a value; None when there are none."""
    rows = np.flatnonzero(valid)
    if not len(rows):
        return None
    starts = np.searchsorted(rows, runs.starts)
    lengths = np.diff(starts, append=len(rows))
    kept = np.flatnonzero(lengths)
    left = Runs(starts[kept], lengths[kept], runs.series[kept], runs.numbers[kept])
    result = Rows(frame, rows, frame.times[rows], left)
    result.find_cells(groups)
    return result


def _table(
    columns: list[Accumulator], groups: _Groups, request: AggregateRequest, claim: Claim | None
) -> AggregateTable:
    """Spread the values over all groups and windows."""
    finished = [column.finish() for column in columns]
    if request.newest:
        finished = [None if done is None else done.newest() for done in finished]
    present = [done for done in finished if done is not None]
    if not present:
        windows = np.zeros(0 if request.windows else 1, np.int64)
        empty = [_dense(column, None, None, (0, len(windows))) for column in columns]
        return AggregateTable([], windows, empty)
    apart = list({id(done.groups): done for done in present}.values())  # columns without gaps share
    names = groups.names()
    used = [0]
    if len(names) > 1:
        is_used = np.zeros(len(names), np.bool_)
        for done in apart:
            is_used[done.groups] = True
        used = np.flatnonzero(is_used).tolist()
        used.sort(key=names.__getitem__)
    ranks = np.zeros(len(names), np.int64)
    ranks[used] = np.arange(len(used))
    windows = _windows(apart, len(used), request)
    low, width = int(windows[0]), len(windows)
    is_whole = int(windows[-1]) - low < width
    shape = (len(used), width)
    if claim is not None:
        claim.grow(len(used) * width * sum(26 if c.kernel.selects else 10 for c in columns))
    first = np.full(len(used), windows[-1] + 1)
    cells: dict[int, _Cells] = {}
    for done in apart:
        rows = ranks[done.groups]
        np.minimum.at(first, rows, done.numbers)
        at = done.numbers - low if is_whole else np.searchsorted(windows, done.numbers)
        cells[id(done.groups)] = _Cells(rows * width + at, shape)
    answers = [
        _dense(column, done, None if done is None else cells[id(done.groups)], shape)
        for column, done in zip(columns, finished, strict=True)
    ]
    aux = {}
    if request.aux and finished[0] is not None:
        aux = _dense_aux(finished[0], cells[id(finished[0].groups)])
    return AggregateTable([names[number] for number in used], windows, answers, aux, first)


def _windows(finished: list[Finished], n_groups: int, request: AggregateRequest) -> Int64s:
    """Return the windows of an answer: those between the first and the last that has a value.

    Of a sparse answer only those that have one, when they are much fewer.
    """
    low = min(int(done.numbers.min()) for done in finished)
    high = max(int(done.numbers.max()) for done in finished)
    count, n_values = high - low + 1, max(len(done.numbers) for done in finished)
    if request.sparse and (count > _SPARSE * n_values or n_groups * count > request.max_cells):
        windows = np.unique(np.concatenate([done.numbers for done in finished]))
        count = len(windows)
    else:
        windows = None
    if n_groups * count > request.max_cells:
        raise LimitExceeded(
            f"the answer has {n_groups * count} cells (groups x windows), the limit is"
            f" {request.max_cells}"
        )
    return np.arange(low, high + 1) if windows is None else windows


class _Cells:
    """Where the entries of columns lie in a table of groups and windows.

    Args:
        places: int64[m], the cell of each entry, no two the same.
        shape: Of the table.

    Attributes:
        known: bool[g, w], the cells that have an entry.
    """

    def __init__(self, places: Int64s, shape: tuple[int, int]) -> None:
        self._places = places
        self._shape = shape
        is_whole = len(places) == shape[0] * shape[1] and bool((places[1:] > places[:-1]).all())
        self._is_whole = is_whole  # each cell has an entry, in their order
        self.known: Bools = np.ones(shape, np.bool_)
        if not is_whole:
            self.known = self.spread(np.ones(len(places), np.bool_), self.known.dtype)

    def spread(self, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the entries of a column as [g, w], 0 in the other cells."""
        if self._is_whole:
            return values.astype(dtype, copy=False).reshape(self._shape)
        whole = np.zeros(self._shape, dtype)
        whole.ravel()[self._places] = values
        return whole


def _dense_aux(done: Finished, cells: _Cells) -> dict[str, CallColumn]:
    columns = {}
    for name, data in done.aux.items():
        valid = data.mask() if done.valid is None else data.mask() & done.valid
        values = cells.spread(data.values, DTYPES[data.type])
        columns[name] = CallColumn(data.type, values, cells.spread(valid, valid.dtype))
    return columns


def _dense(
    column: Accumulator, done: Finished | None, cells: _Cells | None, shape: tuple[int, int]
) -> CallColumn:
    """Return a column of the table."""
    dtype = DTYPES[column.type]
    if done is None or cells is None:
        nothing = np.zeros(shape, np.int64) if column.kernel.selects else None
        return CallColumn(
            column.type, np.zeros(shape, dtype), np.zeros(shape, np.bool_), nothing, nothing
        )
    return CallColumn(
        column.type,
        cells.spread(done.values, dtype),
        cells.known if done.valid is None else cells.spread(done.valid, done.valid.dtype),
        None if done.times is None else cells.spread(done.times, done.times.dtype),
        None if done.series is None else cells.spread(done.series, done.series.dtype),
    )
