"""The functions over windows: what each takes, gives, and how it is computed.

Arrays in, arrays out; pure. Three kinds, each function an instance in `KERNELS`:

    Fold    count sum mean spread stddev       parts of a cell that merge: rows -> parts -> value
    Select  min max first last                 one point of the cell, found by two criteria
    Gather  median mode percentile integral    needs all values of the cell at once
            count_distinct sum_hll

A cell is one group in one window. Rows come in runs (`starts`: the first row of each run,
ascending, no run empty, the last one ends with the rows), so that one `ufunc.reduceat` serves all
runs. Missing values were dropped by the caller.

Types follow influxd 1.6.7, whose answers also decided ties, rounding and the error texts.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinyflux import hyperloglog
from tinyflux.batch import Bools, FieldType, Float64s, Int64s
from tinyflux.errors import LimitExceeded, QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping

Values: TypeAlias = (
    NDArray[np.float64] | NDArray[np.int64] | NDArray[np.bool_] | NDArray[np.object_]
)
Parts: TypeAlias = tuple[NDArray[Any], ...]
Answer: TypeAlias = tuple[Values, Bools | None]

_NUMBERS: Final = frozenset({FieldType.FLOAT, FieldType.INTEGER})
_ORDERED: Final = _NUMBERS | {FieldType.BOOLEAN}
_ALL: Final = _ORDERED | {FieldType.STRING}
_TYPE_NAMES: Final = {
    FieldType.FLOAT: "float",
    FieldType.INTEGER: "integer",
    FieldType.BOOLEAN: "boolean",
    FieldType.STRING: "string",
}
_SECOND_NS: Final = 1e9
_MOST_SKETCHES: Final = 20_000  # of an answer; one takes about 0.1 ms
_MOST_SIZES: Final = 16  # up to so many sizes of cells, cells are sorted by size


@dataclass(frozen=True, slots=True)
class Kernel:
    """What is common to all functions. No ABC: `isinstance` would take five times as long.

    Attributes:
        name: Its name in InfluxQL.
        accepts: The field types it takes.
        gives: The type of its answer; None is the type of the field.
        selects: Whether the answer is the value of one point, which then has a time, a series and
            other fields.
    """

    name: str
    accepts: frozenset[FieldType]
    gives: FieldType | None = None

    @property
    def selects(self) -> bool:
        """Return whether the answer is a point."""
        return False

    def type_of(self, field: FieldType) -> FieldType:
        """Return the type of the answer over a field.

        Raises:
            QueryError: The function does not take this type.

        Source: influxd 1.6.7, the error text.
        """
        if field not in self.accepts:
            kind = f"*query.{_TYPE_NAMES[field]}InterruptIterator"
            raise QueryError(f"unsupported {self.name} iterator type: {kind}")
        return field if self.gives is None else self.gives


@dataclass(frozen=True, slots=True)
class Fold(Kernel):
    """A function of a few numbers a cell that can be merged, whatever the order of its rows."""

    @abstractmethod
    def partial(self, values: Values, starts: Int64s, lengths: Int64s) -> Parts:
        """Return the parts of each run."""

    @abstractmethod
    def merge(self, parts: Parts, starts: Int64s) -> Parts:
        """Return the parts of each run of parts."""

    @abstractmethod
    def finish(self, parts: Parts) -> Answer:
        """Return the value of each cell, and where there is one (None: everywhere)."""


class Count(Fold):
    """count(values) -> int64: how many."""

    def partial(self, values: Values, starts: Int64s, lengths: Int64s) -> Parts:  # noqa: ARG002
        """Return (count,)."""
        return (lengths,)

    def merge(self, parts: Parts, starts: Int64s) -> Parts:
        """Return (count,)."""
        return (np.add.reduceat(parts[0], starts),)

    def finish(self, parts: Parts) -> Answer:
        """Return the counts."""
        return parts[0], None


class Sum(Fold):
    """sum(values) -> the type of the field. Integers wrap, as in Go."""

    def partial(self, values: Values, starts: Int64s, lengths: Int64s) -> Parts:  # noqa: ARG002
        """Return (sum,)."""
        return (np.add.reduceat(values, starts),)

    def merge(self, parts: Parts, starts: Int64s) -> Parts:
        """Return (sum,)."""
        return (np.add.reduceat(parts[0], starts),)

    def finish(self, parts: Parts) -> Answer:
        """Return the sums."""
        return parts[0] + 0, None  # influxd begins with 0: what is negative zero is 0


class Mean(Fold):
    """mean(values) -> float64. Integers are summed as integers first, as in influxd."""

    def partial(self, values: Values, starts: Int64s, lengths: Int64s) -> Parts:
        """Return (sum, count)."""
        return np.add.reduceat(values, starts), lengths

    def merge(self, parts: Parts, starts: Int64s) -> Parts:
        """Return (sum, count)."""
        return tuple(np.add.reduceat(part, starts) for part in parts)

    def finish(self, parts: Parts) -> Answer:
        """Return the means."""
        return (parts[0] + 0) / parts[1], None


class Spread(Fold):
    """spread(values) -> the type of the field: max - min."""

    def partial(self, values: Values, starts: Int64s, lengths: Int64s) -> Parts:  # noqa: ARG002
        """Return (min, max)."""
        return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)

    def merge(self, parts: Parts, starts: Int64s) -> Parts:
        """Return (min, max)."""
        return np.minimum.reduceat(parts[0], starts), np.maximum.reduceat(parts[1], starts)

    def finish(self, parts: Parts) -> Answer:
        """Return the spreads."""
        return parts[1] - parts[0], None


class Stddev(Fold):
    """stddev(values) -> float64: of a sample (n - 1). Of one value it is NaN, which is an answer.

    Parts are count, mean and sum of squares around the mean: a sum of plain squares would cancel
    for large values.
    """

    def partial(self, values: Values, starts: Int64s, lengths: Int64s) -> Parts:
        """Return (count, mean, squares)."""
        floats = values.astype(np.float64, copy=False)
        means = np.add.reduceat(floats, starts) / lengths
        squares = np.square(floats - np.repeat(means, lengths))
        return lengths, means, np.add.reduceat(squares, starts)

    def merge(self, parts: Parts, starts: Int64s) -> Parts:
        """Return (count, mean, squares)."""
        counts, means, squares = parts
        total = np.add.reduceat(counts, starts)
        mean = np.add.reduceat(means * counts, starts) / total
        apart = np.square(means - np.repeat(mean, run_lengths(starts, len(means)))) * counts
        return total, mean, np.add.reduceat(squares + apart, starts)

    def finish(self, parts: Parts) -> Answer:
        """Return the standard deviations."""
        counts, _, squares = parts
        deviations = np.sqrt(squares / np.maximum(counts - 1, 1))
        return np.where(counts > 1, deviations, np.nan), None


@dataclass(frozen=True, slots=True)
class Extreme(Fold):
    """min or max as a value: what `Select` chooses, when nobody asks for the point it is of.

    Attributes:
        wanted: Which of them.
    """

    wanted: np.ufunc = np.minimum

    def partial(self, values: Values, starts: Int64s, lengths: Int64s) -> Parts:  # noqa: ARG002
        """Return (extreme,)."""
        return (self._best(values, starts),)

    def merge(self, parts: Parts, starts: Int64s) -> Parts:
        """Return (extreme,)."""
        return (self._best(parts[0], starts),)

    def finish(self, parts: Parts) -> Answer:
        """Return the extremes."""
        return parts[0], None

    def _best(self, values: NDArray[Any], starts: Int64s) -> NDArray[Any]:
        best: NDArray[Any] = self.wanted.reduceat(values, starts)
        if best.dtype == np.float64 and np.isnan(best).any():  # NaN is no extreme
            best = (np.fmin if self.wanted is np.minimum else np.fmax).reduceat(values, starts)
        return best


@dataclass(frozen=True, slots=True)
class Select(Kernel):
    """One point of each cell: `first` narrows the rows, `then` the equal ones, then the order.

    Attributes:
        by_time: Whether time decides first and the value second, or the other way round.
        first: What is wanted of the first criterion.
        then: What is wanted of the second one.
    """

    by_time: bool = False
    first: np.ufunc = np.minimum
    then: np.ufunc = np.minimum

    @property
    def selects(self) -> bool:
        """Return True: the answer is a point."""
        return True

    def as_value(self) -> Kernel:
        """Return what gives the same values, but no points, for less."""
        return self if self.by_time else Extreme(self.name, self.accepts, self.gives, self.first)

    def pick(self, values: Values, times: Int64s, starts: Int64s, late: bool = False) -> Int64s:
        """Return int64[r], the chosen row of each run.

        Args:
            values: The values of the rows.
            times: int64[n], their times, in any order.
            starts: int64[r], the first row of each run.
            late: Among rows equal in value and time take the last one.
        """
        then = self.then
        if self.by_time and values.dtype == np.bool_:
            # influxd compares booleans at the same time the other way for first: false wins.
            then = self.first
        one, two = (times, values) if self.by_time else (values, times)
        rows, starts = _narrow(np.arange(len(values)), one, starts, self.first)
        if len(rows) > len(starts):
            rows, starts = _narrow(rows, two, starts, then)
        return rows[np.append(starts[1:], len(rows)) - 1] if late else rows[starts]

    def pick_ascending(
        self, values: Values, times: Int64s, starts: Int64s, lengths: Int64s, late: bool
    ) -> Int64s:
        """Return the same for times that ascend within each run, without looking at every time."""
        if not self.by_time:
            best = self.first.reduceat(values, starts)
            kept = np.flatnonzero(values == np.repeat(best, lengths))
            at = np.searchsorted(kept, starts)
            if len(kept) < len(starts) or (best.dtype == np.float64 and np.isnan(best).any()):
                return self.pick(values, times, starts, late)
            return kept[at]
        ends = starts + lengths - 1
        at, beside = (starts, starts + 1) if self.first is np.minimum else (ends, ends - 1)
        inside = np.flatnonzero(lengths > 1)
        if (times[at[inside]] == times[beside[inside]]).any():
            return self.pick(values, times, starts, late)
        return at


def _narrow(
    rows: Int64s, keys: NDArray[Any], starts: Int64s, wanted: np.ufunc
) -> tuple[Int64s, Int64s]:
    """Return the rows of each run whose key is the wanted extreme, and where the runs now start."""
    keys = keys[rows] if len(rows) < len(keys) else keys
    lengths = run_lengths(starts, len(rows))
    best = wanted.reduceat(keys, starts)
    if best.dtype == np.float64 and np.isnan(best).any():
        # NaN is no extreme (fmin, fmax pass it over); where there is nothing else, each row is as
        # good.
        wanted = np.fmin if wanted is np.minimum else np.fmax
        best = wanted.reduceat(keys, starts)
        spread = np.repeat(best, lengths)
        keep = (keys == spread) | np.isnan(spread)
    else:
        keep = keys == np.repeat(best, lengths)
    kept = np.flatnonzero(keep)
    return rows[kept], np.searchsorted(kept, starts)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """All rows of all cells, for the functions that need them at once.

    Attributes:
        values: The values, cell after cell, in a cell by time.
        times: int64[n], their times; int64[0], and values in any order, where they do not matter.
        starts: int64[c], the first row of each cell.
        groups: int64[c], the group of each cell, ascending.
        bounds: int64[c, 2], the first ns of the cell's window and of the next one.
    """

    values: Values
    times: Int64s
    starts: Int64s
    groups: Int64s
    bounds: Int64s

    def lengths(self) -> Int64s:
        """Return int64[c], the rows of each cell."""
        return run_lengths(self.starts, len(self.values))

    def sorted_values(self) -> Values:
        """Return the values cell after cell, in a cell ascending."""
        matrices = self._matrices()
        if matrices is None:
            return self.values[self.rows_by_value()]
        values = np.empty_like(self.values)
        for rows in matrices:  # numpy sorts numbers four times as fast as their places
            values[rows] = np.sort(self.values[rows], axis=1)
        return values

    def rows_by_value(self) -> Int64s:
        """Return int64[n]: the rows cell after cell, in a cell by value, then by time."""
        values = _ranks(self.values) if self.values.dtype == np.object_ else self.values
        matrices = self._matrices()
        if matrices is None:
            lengths = self.lengths()
            return np.lexsort((values, np.repeat(np.arange(len(lengths)), lengths)))
        order = np.empty(len(values), np.int64)
        for rows in matrices:
            order[rows] = rows[:, :1] + np.argsort(values[rows], axis=1, kind="stable")
        return order

    def _matrices(self) -> list[Int64s] | None:
        """Return the rows of the cells of each size, a line a cell; None for too many sizes.

        Lines of a matrix sort three times as fast as all rows by cell and value.
        """
        lengths = self.lengths()
        sizes = np.unique(lengths)
        if len(sizes) > _MOST_SIZES:
            return None
        return [
            self.starts[lengths == size][:, np.newaxis] + np.arange(size) for size in sizes.tolist()
        ]


@dataclass(frozen=True, slots=True)
class Gather(Kernel):
    """A function of all values of a cell."""

    @property
    def crosses_windows(self) -> bool:
        """Return whether a cell looks at the next window of its group, too."""
        return False

    @property
    def looks_at_times(self) -> bool:
        """Return whether it matters when the values were; else `Cells.times` is empty."""
        return True

    @abstractmethod
    def finish(self, cells: Cells, args: tuple[float, ...]) -> Answer:
        """Return the value of each cell, and where there is one (None: everywhere)."""


class Median(Gather):
    """median(values) -> float64: the middle value, or half way between the two middle ones."""

    @property
    def looks_at_times(self) -> bool:
        """Return False."""
        return False

    def finish(self, cells: Cells, args: tuple[float, ...]) -> Answer:  # noqa: ARG002
        """Return the medians."""
        values = cells.sorted_values()
        lengths = cells.lengths()
        low = values[cells.starts + (lengths - 1) // 2]
        high = values[cells.starts + lengths // 2]
        return np.where(low == high, low, low + (high - low) / 2), None


class Percentile(Gather):
    """percentile(values, n) -> the type of the field: a point, by nearest rank."""

    @property
    def selects(self) -> bool:
        """Return True: the answer is a point."""
        return True

    def finish(self, cells: Cells, args: tuple[float, ...]) -> Answer:
        """Return the values of the chosen points."""
        rows, valid = self.pick(cells, args)
        return cells.values[rows], valid

    def pick(self, cells: Cells, args: tuple[float, ...]) -> tuple[Int64s, Bools]:
        """Return int64[c], the chosen row of each cell, any where there is none, and where not.

        Source: influxd 1.6.7 answers: rank floor(n * N / 100 + 0.5) - 1 of the sorted values.
        """
        if len(args) != 1:
            raise QueryError(
                f"invalid number of arguments for percentile, expected 2, got {len(args) + 1}"
            )
        lengths = cells.lengths()
        ranks = np.floor(np.clip(lengths * args[0] / 100 + 0.5, -1, lengths + 1))
        ranks = ranks.astype(np.int64) - 1
        valid = (ranks >= 0) & (ranks < lengths)
        order = cells.rows_by_value()
        return order[cells.starts + np.where(valid, ranks, 0)], valid


class CountDistinct(Gather):
    """count(distinct(values)) -> int64: how many different values."""

    def finish(self, cells: Cells, args: tuple[float, ...]) -> Answer:  # noqa: ARG002
        """Return the counts."""
        runs = _value_runs(cells)
        return np.bincount(runs.cells, minlength=len(cells.starts)), None


class SumHll(Gather):
    """sum_hll(values) -> string: a sketch of which values there are, or all sketches in one."""

    @property
    def looks_at_times(self) -> bool:
        """Return False."""
        return False

    def finish(self, cells: Cells, args: tuple[float, ...]) -> Answer:  # noqa: ARG002
        """Return the sketches. A step for each cell: what is done in it takes longer by far.

        Raises:
            LimitExceeded: So many cells that nobody should wait for them.
        """
        if len(cells.starts) > _MOST_SKETCHES:
            raise LimitExceeded(
                f"sum_hll() would make {len(cells.starts)} sketches, the limit is {_MOST_SKETCHES}"
            )
        texts = np.empty(len(cells.starts), np.object_)
        ends = cells.starts + cells.lengths()
        for cell, (start, end) in enumerate(zip(cells.starts.tolist(), ends.tolist(), strict=True)):
            texts[cell] = hyperloglog.to_text(hyperloglog.sketch(cells.values[start:end]))
        return texts, None


class Mode(Gather):
    """mode(values) -> the type of the field: the most frequent value.

    Ties: true among booleans. When no value repeats, the smallest one. Else the values that repeat
    most often are taken in ascending order, and one takes over from the one before when it begins
    no later than that one ends.

    Source: influxd 1.6.7 answers (its documentation says "earliest", which is not what it does).
    """

    def finish(self, cells: Cells, args: tuple[float, ...]) -> Answer:  # noqa: ARG002
        """Return the modes."""
        runs = _value_runs(cells)
        firsts = np.searchsorted(runs.cells, np.arange(len(cells.starts)))
        most = np.maximum.reduceat(runs.counts, firsts)
        kept = np.flatnonzero(runs.counts == np.repeat(most, run_lengths(firsts, len(runs.counts))))
        if cells.values.dtype == np.bool_:
            ends = np.append(np.searchsorted(kept, firsts)[1:], len(kept)) - 1
            return cells.values[runs.rows[kept[ends]]], None
        best = kept[np.searchsorted(kept, firsts)]
        if len(kept) > len(firsts):
            _settle_ties(best, kept, runs, most)
        return cells.values[runs.rows[best]], None


def _settle_ties(best: Int64s, kept: Int64s, runs: _ValueRuns, most: Int64s) -> None:
    """Let later candidates of each cell take over in `best`: a step for each, ties are few."""
    cells = runs.cells[kept]
    repeats = kept[most[cells] > 1]
    for run, cell in zip(repeats.tolist(), runs.cells[repeats].tolist(), strict=True):
        if run > best[cell] and runs.first_times[run] <= runs.last_times[best[cell]]:
            best[cell] = run


def _ranks(strings: Values) -> Int64s:
    """Return int64[n], numbers that compare as the strings do."""
    ranks = {text: rank for rank, text in enumerate(sorted(set(strings.tolist())))}
    return np.fromiter(map(ranks.__getitem__, strings), np.int64, len(strings))


@dataclass(frozen=True, slots=True, eq=False)
class _ValueRuns:
    """The different values of each cell, cell after cell, ascending.

    Attributes:
        cells: int64[d], the cell.
        rows: int64[d], a row with this value.
        counts: int64[d], how many rows have it.
        first_times: int64[d], the time of the first of them.
        last_times: int64[d], the time of the last of them.
    """

    cells: Int64s
    rows: Int64s
    counts: Int64s
    first_times: Int64s
    last_times: Int64s


def _value_runs(cells: Cells) -> _ValueRuns:
    of_row = np.repeat(np.arange(len(cells.starts)), cells.lengths())
    order = cells.rows_by_value()
    values = cells.values[order]
    new = np.ones(len(values), np.bool_)
    new[1:] = (values[1:] != values[:-1]) | (of_row[1:] != of_row[:-1])  # of_row is sorted already
    starts = np.flatnonzero(new)
    counts = run_lengths(starts, len(values))
    times = cells.times[order]
    return _ValueRuns(
        of_row[starts], order[starts], counts, times[starts], times[starts + counts - 1]
    )


class Integral(Gather):
    """integral(values, unit = 1 s) -> float64: the area under the curve, in value x unit.

    The curve is cut at the end of each window that has points, by interpolation. What lies in
    windows without points is counted in the next window with points. A last point exactly on the
    start of its window gives that window no value.

    Source: influxd 1.6.7 answers.
    """

    @property
    def crosses_windows(self) -> bool:
        """Return True: the curve is cut between two windows."""
        return True

    # Differs from influxd: over an integer field it takes the value before a border where the one
    # behind it belongs, so its areas with GROUP BY time are wrong; ours are those of a float field.

    def finish(self, cells: Cells, args: tuple[float, ...]) -> Answer:
        """Return the areas."""
        unit = args[0] if args else _SECOND_NS
        if unit <= 0:
            raise QueryError(f"duration argument must be positive, got {unit:g}ns")
        values = cells.values.astype(np.float64, copy=False)
        times, lengths = cells.times, cells.lengths()
        areas = np.zeros(len(values), np.float64)  # from the row before to this row
        areas[1:] = _area(times[:-1], values[:-1], times[1:], values[1:], unit)
        areas[cells.starts] = 0
        total = np.add.reduceat(areas, cells.starts)

        same_group = np.flatnonzero(cells.groups[1:] == cells.groups[:-1])  # cell c and c + 1
        next_row = cells.starts[same_group + 1]
        cut = cells.bounds[same_group, 1]
        height = _between(times, values, next_row, cut)
        total[same_group] += _area(times[next_row - 1], values[next_row - 1], cut, height, unit)
        total[same_group + 1] += _area(cut, height, times[next_row], values[next_row], unit)

        is_last = np.ones(len(total), np.bool_)
        is_last[same_group] = False
        follows = np.zeros(len(total), np.bool_)
        follows[same_group + 1] = True
        on_border = times[cells.starts + lengths - 1] == cells.bounds[:, 0]
        return total, ~(is_last & follows & on_border)


def _area(t0: Int64s, v0: Float64s, t1: Int64s, v1: Float64s, unit: float) -> Float64s:
    return (v0 + v1) * 0.5 * ((t1 - t0) / unit)


def _between(times: Int64s, values: Float64s, rows: Int64s, at: Int64s) -> Float64s:
    """Return the height at a time between each row and the one before it."""
    t0, t1, v0, v1 = times[rows - 1], times[rows], values[rows - 1], values[rows]
    return v0 + (v1 - v0) * ((at - t0) / (t1 - t0))


def run_lengths(starts: Int64s, n: int) -> Int64s:
    """Return int64[r], the length of the runs that start at `starts`; the last one ends at n."""
    lengths = np.empty(len(starts), np.int64)
    if len(starts):  # np.diff with its `append` takes three times as long for few runs
        np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
        lengths[-1] = n - starts[-1]
    return lengths


KERNELS: Final[Mapping[str, Kernel]] = {
    kernel.name: kernel
    for kernel in (
        Count("count", _ALL, FieldType.INTEGER),
        Sum("sum", _NUMBERS),
        Mean("mean", _NUMBERS, FieldType.FLOAT),
        Spread("spread", _NUMBERS),
        Stddev("stddev", _NUMBERS, FieldType.FLOAT),
        Select("min", _ORDERED, None, False, np.minimum, np.minimum),
        Select("max", _ORDERED, None, False, np.maximum, np.minimum),
        Select("first", _ALL, None, True, np.minimum, np.maximum),
        Select("last", _ALL, None, True, np.maximum, np.maximum),
        Median("median", _NUMBERS, FieldType.FLOAT),
        Percentile("percentile", _NUMBERS),
        Mode("mode", _ALL),
        Integral("integral", _NUMBERS, FieldType.FLOAT),
        CountDistinct("count_distinct", _ALL, FieldType.INTEGER),
        SumHll("sum_hll", _ALL, FieldType.STRING),
    )
}
