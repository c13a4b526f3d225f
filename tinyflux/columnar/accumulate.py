"""The answer to one call in the making: what frames gave, merged now and then, finished at the end.

Of a fold and of a selector an entry a cell is kept; of a function that needs all values of a cell
at once the rows are, until they are settled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, Bools, FieldType, Int64s
from tinyflux.columnar.base import TEXT_BYTES, AggregateRequest, Call, FieldColumn, Values
from tinyflux.errors import LimitExceeded
from tinyflux.kernels import Cells, Fold, Gather, Kernel, Parts, Percentile, Select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyflux.columnar.aggregate import Rows

# Pieces of a call that may wait before they are merged, and their entries when those are many.
_MERGE_EVERY: Final = 32
_MERGE_ENTRIES: Final = 1 << 18
# Kept of a row that is gathered, without and with its time, and of an entry of a piece: the most,
# while they are joined and sorted.
_VALUE_BYTES: Final = 80
_TIMED_BYTES: Final = 110
_ENTRY_BYTES: Final = 80

DTYPES: Final = {
    FieldType.FLOAT: np.dtype(np.float64),
    FieldType.INTEGER: np.dtype(np.int64),
    FieldType.BOOLEAN: np.dtype(np.bool_),
    FieldType.STRING: np.dtype(np.object_),
}


def gathered_bytes(kernel: Gather) -> int:
    """Return how much is kept of a row for a function that needs all values."""
    return _TIMED_BYTES if kernel.looks_at_times else _VALUE_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
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

    def take(self, rows: Int64s) -> Piece:
        """Return the chosen entries."""
        return Piece(
            self.groups[rows],
            self.numbers[rows],
            tuple(part[rows] for part in self.parts),
            {name: column.take(rows) for name, column in self.aux.items()},
        )


class Merging:
    """How the entries of pieces become one a cell: worked out once for columns that share them.

    Args:
        request: What is asked for.
    """

    def __init__(self, request: AggregateRequest) -> None:
        self._max_cells = MAX_TIME_NS if request.newest else request.max_cells
        self._pieces: list[Piece] = []
        self._last: _Merge | None = None

    def of(self, pieces: Sequence[Piece]) -> _Merge:
        """Return how these pieces merge.

        Raises:
            LimitExceeded: More than `max_cells` cells.
        """
        is_same = len(pieces) == len(self._pieces) and all(
            one.groups is other.groups and one.numbers is other.numbers
            for one, other in zip(pieces, self._pieces, strict=True)
        )
        if self._last is None or not is_same:
            self._last = self._worked_out(pieces)
            self._pieces = [Piece(piece.groups, piece.numbers, (), {}) for piece in pieces]
        return self._last

    def _worked_out(self, pieces: Sequence[Piece]) -> _Merge:
        groups = np.concatenate([piece.groups for piece in pieces])
        numbers = np.concatenate([piece.numbers for piece in pieces])
        low = int(numbers.min())
        keys = groups * (int(numbers.max()) - low + 1) + (numbers - low)
        order = None
        if (keys[1:] < keys[:-1]).any():
            order = np.argsort(keys, kind="stable")
            keys, groups, numbers = keys[order], groups[order], numbers[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        if len(starts) > self._max_cells:
            raise LimitExceeded(
                f"the answer has more than {self._max_cells} cells (groups x windows)"
            )
        return _Merge(groups[starts], numbers[starts], order, starts)


@dataclass(frozen=True, slots=True, eq=False)
class _Merge:
    """The cells of some entries.

    Attributes:
        groups: int64[c], the group of each cell, ascending.
        numbers: int64[c], its window, ascending in a group.
        order: int64[m], the entries cell after cell; None when they are.
        starts: int64[c], where the entries of each cell start in that order.
    """

    groups: Int64s
    numbers: Int64s
    order: Int64s | None
    starts: Int64s


class Accumulator:
    """The answer to one call in the making.

    Attributes:
        call: The call.
        kernel: Its function.
        type: The type of the answer, of the frames so far.
        kept_bytes: How much is kept of the frames, about.
    """

    def __init__(
        self,
        call: Call,
        kernel: Kernel,
        request: AggregateRequest,
        merging: Merging,
        max_rows: int,
    ) -> None:
        self.call = call
        self.kernel = kernel
        self.type = kernel.gives or FieldType.FLOAT  # of a field that nobody has
        self.kept_bytes = 0
        self._seen = False
        self._windows = request.windows
        self._aux = request.aux
        self._max_rows = max_rows
        self._merging = merging
        self._gathered = 0
        self._pieces: list[Piece] = []
        self._finished: list[Finished] = []  # cells of which no row comes any more
        # influxd without windows takes the last series among equal points for last().
        self._late = call.function == "last" and request.windows is None

    def meet(self, kind: FieldType) -> None:
        """Note the type of the field in a frame. A field that is float anywhere is float."""
        answer = self.kernel.type_of(kind)
        if not self._seen or answer is FieldType.FLOAT:
            self.type = answer
        self._seen = True

    def add(self, rows: Rows, values: Values) -> None:
        """Add what the rows of a frame give."""
        kernel, runs = self.kernel, rows.runs
        if isinstance(kernel, Fold):
            parts = kernel.partial(values, runs.starts, runs.lengths)
            if rows.order is not None and rows.cells is not None:
                parts = kernel.merge(tuple(part[rows.order] for part in parts), rows.cells)
            self._pieces.append(Piece(rows.groups, rows.numbers, parts, {}))
        elif isinstance(kernel, Select):
            self._pieces.append(self._select(kernel, rows, values))
        elif isinstance(kernel, Gather):
            self._pieces.append(self._gather(kernel, rows, values))
        if self._must_merge():
            self._pieces, self.kept_bytes = [self._merged()], 0
        entry_bytes = gathered_bytes(kernel) if isinstance(kernel, Gather) else _ENTRY_BYTES
        entry_bytes += TEXT_BYTES if values.dtype == np.object_ else 0
        self.kept_bytes += entry_bytes * len(self._pieces[-1].groups)

    def _must_merge(self) -> bool:
        if len(self._pieces) < 2 or isinstance(self.kernel, Gather):
            return False
        first, *others = (len(piece.groups) for piece in self._pieces)
        return len(others) + 1 >= _MERGE_EVERY or sum(others) > max(_MERGE_ENTRIES, first)

    def settle(self) -> None:
        """Compute the cells so far, where all of their values are kept for that."""
        if isinstance(self.kernel, Gather) and self._pieces:
            joined = self._joined()
            self._pieces, self._gathered, self.kept_bytes = [], 0, 0  # they are not needed twice
            self._finished.append(self._finish_gathered(self.kernel, joined))

    def _select(self, kernel: Select, rows: Rows, values: Values) -> Piece:
        runs = rows.runs
        chosen = kernel.pick_ascending(values, rows.times, runs.starts, runs.lengths, self._late)
        series = rows.frame.series.ids[runs.series]
        if rows.order is not None and rows.cells is not None:
            chosen, series = chosen[rows.order], series[rows.order]
            best = kernel.pick(values[chosen], rows.times[chosen], rows.cells, self._late)
            chosen, series = chosen[best], series[best]
        parts = values[chosen], rows.times[chosen], series
        return Piece(rows.groups, rows.numbers, parts, self._aux_of(rows, chosen))

    def _gather(self, kernel: Gather, rows: Rows, values: Values) -> Piece:
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
        parts: Parts = (values, rows.times) if kernel.looks_at_times else (values,)
        if kernel.selects:
            parts += (rows.frame.series.ids[np.repeat(runs.series, runs.lengths)],)
        return Piece(groups[cells], numbers[cells], parts, self._aux_of(rows, slice(None)))

    def _aux_of(self, rows: Rows, chosen: Int64s | slice) -> dict[str, FieldColumn]:
        places = chosen if rows.rows is None else rows.rows[chosen]
        columns = rows.frame.columns
        return {
            name: columns[name].take(places)
            for name in self._aux
            if name in columns and columns[name].type is not FieldType.NONE
        }

    def _joined(self) -> Piece:
        if len(self._pieces) == 1:
            return self._pieces[0]
        pieces = self._pieces
        parts = zip(*(piece.parts for piece in pieces), strict=True)
        return Piece(
            np.concatenate([piece.groups for piece in pieces]),
            np.concatenate([piece.numbers for piece in pieces]),
            tuple(np.concatenate(part) for part in parts),
            {
                name: _concatenate([(piece.aux.get(name), len(piece.groups)) for piece in pieces])
                for name in self._aux
                if any(name in piece.aux for piece in pieces)
            },
        )

    def _merged(self) -> Piece:
        """Return an entry a cell, ordered by group and window."""
        merge = self._merging.of(self._pieces)
        if isinstance(self.kernel, Select):
            piece = self._joined()
            piece = piece if merge.order is None else piece.take(merge.order)
            best = self.kernel.pick(piece.parts[0], piece.parts[1], merge.starts, self._late)
            chosen = piece.take(best)
            return Piece(merge.groups, merge.numbers, chosen.parts, chosen.aux)
        if not isinstance(self.kernel, Fold):
            raise TypeError("only folds and selectors merge")
        columns = zip(*(piece.parts for piece in self._pieces), strict=True)
        parts = tuple(np.concatenate(column) for column in columns)
        if merge.order is not None:
            parts = tuple(part[merge.order] for part in parts)
        parts = self.kernel.merge(parts, merge.starts)
        return Piece(merge.groups, merge.numbers, parts, {})

    def finish(self) -> Finished | None:
        """Return the values of all cells; None when the field has no value anywhere."""
        if isinstance(self.kernel, Gather):
            self.settle()
            return _join_finished(self._finished) if self._finished else None
        if not self._pieces:
            return None
        piece = self._pieces[0] if len(self._pieces) == 1 else self._merged()
        self._pieces = [piece]
        if isinstance(self.kernel, Fold):
            values, valid = self.kernel.finish(piece.parts)
            return Finished(piece.groups, piece.numbers, values, valid)
        values, times, series = piece.parts
        return Finished(piece.groups, piece.numbers, values, None, times, series, piece.aux)

    def _finish_gathered(self, kernel: Gather, piece: Piece) -> Finished:
        low = int(piece.numbers.min())
        keys = piece.groups * (int(piece.numbers.max()) - low + 1) + (piece.numbers - low)
        behind, sort_keys = keys[1:] < keys[:-1], [keys]
        if kernel.looks_at_times:
            times = piece.parts[1]
            behind |= (keys[1:] == keys[:-1]) & (times[1:] < times[:-1])
            sort_keys.insert(0, times)
        if behind.any():
            order = np.lexsort(sort_keys)
            piece, keys = piece.take(order), keys[order]
        times = piece.parts[1] if kernel.looks_at_times else np.zeros(0, np.int64)
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        groups, numbers = piece.groups[starts], piece.numbers[starts]
        cells = Cells(piece.parts[0], times, starts, groups, self._bounds(numbers))
        if isinstance(kernel, Percentile):
            rows, valid = kernel.pick(cells, self.call.args)
            chosen = piece.take(rows)
            values, times, series = chosen.parts
            return Finished(groups, numbers, values, valid, times, series, chosen.aux)
        values, valid_or_none = kernel.finish(cells, self.call.args)
        return Finished(groups, numbers, values, valid_or_none)

    def _bounds(self, numbers: Int64s) -> Int64s:
        bounds = np.empty((len(numbers), 2), np.int64)
        if self._windows is None:
            bounds[:] = MIN_TIME_NS, MAX_TIME_NS
        else:
            bounds[:, 0] = self._windows.start(numbers)
            bounds[:, 1] = self._windows.start(numbers + 1)
        return bounds


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """The values of one call, an entry a cell with rows; as in `Piece` and `CallColumn`."""

    groups: Int64s
    numbers: Int64s
    values: Values
    valid: Bools | None
    times: Int64s | None = None
    series: Int64s | None = None
    aux: dict[str, FieldColumn] = field(default_factory=dict)

    def newest(self) -> Finished | None:
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
        return Finished(
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


def _join_finished(parts: Sequence[Finished]) -> Finished:
    """Return the values of cells that were computed part by part."""
    if len(parts) == 1:
        return parts[0]
    lengths = [len(part.groups) for part in parts]
    valid = None
    if any(part.valid is not None for part in parts):
        valid = np.concatenate(
            [
                np.ones(n, np.bool_) if part.valid is None else part.valid
                for part, n in zip(parts, lengths, strict=True)
            ]
        )
    names = dict.fromkeys(name for part in parts for name in part.aux)
    return Finished(
        np.concatenate([part.groups for part in parts]),
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.values for part in parts]),
        valid,
        _join_optional([part.times for part in parts]),
        _join_optional([part.series for part in parts]),
        {
            name: _concatenate(
                [(part.aux.get(name), n) for part, n in zip(parts, lengths, strict=True)]
            )
            for name in names
        },
    )


def _join_optional(arrays: Sequence[Int64s | None]) -> Int64s | None:
    """Return arrays one after another; a function gives all of them or none."""
    given = [array for array in arrays if array is not None]
    return np.concatenate(given) if given else None


def _concatenate(columns: list[tuple[FieldColumn | None, int]]) -> FieldColumn:
    """Join columns of given lengths; None is one without values."""
    kind = next(column.type for column, _ in columns if column is not None)
    values, valid = [], []
    for column, n in columns:
        values.append(np.zeros(n, DTYPES[kind]) if column is None else column.values)
        valid.append(np.zeros(n, np.bool_) if column is None else column.mask())
    return FieldColumn(kind, np.concatenate(values), np.concatenate(valid))
