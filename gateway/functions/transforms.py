"""Transformations: each row from its neighbours of the same group. Arrays in, arrays out.

A kernel takes the rows that have a value, sorted by (group, order of the query): `groups` int64[n],
`times` int64[n] ns, `values` float64[n] or int64[n], and the arguments after the first. It returns
which rows give a row (int64[m], ascending) and the values of those (float64[m] or int64[m]).
Source: measured, `tests/conformance/transforms.case`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np

from gateway.functions.technical import INDICATORS
from tinyflux.batch import Float64s, Int64s
from tinyflux.columnar.base import Values

Argument: TypeAlias = float | str
Args: TypeAlias = Sequence[Argument]
Kernel: TypeAlias = Callable[[Int64s, Int64s, Values, Args], tuple[Int64s, Values]]


def _pairs(groups: Int64s) -> Int64s:
    """Return the rows that have a predecessor in their group."""
    return np.flatnonzero(groups[1:] == groups[:-1]) + 1


def _of_new_times(kernel: Kernel) -> Kernel:
    """Return a kernel that sees the first row of each time only.

    Series that are not grouped by have rows of one time. influxd leaves out the further ones too.
    """

    def skip_repeated(
        groups: Int64s, times: Int64s, values: Values, args: Args
    ) -> tuple[Int64s, Values]:
        is_new = np.ones(len(groups), np.bool_)
        is_new[1:] = (times[1:] != times[:-1]) | (groups[1:] != groups[:-1])
        if is_new.all():
            return kernel(groups, times, values, args)
        kept = np.flatnonzero(is_new)
        rows, results = kernel(groups[kept], times[kept], values[kept], args)
        return kept[rows], results

    return skip_repeated


@_of_new_times
def difference(
    groups: Int64s, _times: Int64s, values: Values, _args: Args = ()
) -> tuple[Int64s, Values]:
    """Return each value less the one before; integers wrap."""
    rows = _pairs(groups)
    return rows, values[rows] - values[rows - 1]


@_of_new_times
def derivative(groups: Int64s, times: Int64s, values: Values, args: Args) -> tuple[Int64s, Values]:
    """Return the change per unit (ns)."""
    rows = _pairs(groups)
    change = values[rows].astype(np.float64) - values[rows - 1].astype(np.float64)
    elapsed_ns = np.abs(times[rows] - times[rows - 1]).astype(np.float64)
    return rows, change / (elapsed_ns / int(args[0]))


def non_negative(kernel: Kernel) -> Kernel:
    """Return the kernel that leaves the negative rows of another out."""

    def keep_rising(
        groups: Int64s, times: Int64s, values: Values, args: Args
    ) -> tuple[Int64s, Values]:
        rows, changes = kernel(groups, times, values, args)
        keep = ~(changes < 0)  # NaN stays, as in Go
        return rows[keep], changes[keep]

    return keep_rising


def cumulative_sum(
    groups: Int64s, _times: Int64s, values: Values, _args: Args = ()
) -> tuple[Int64s, Values]:
    """Return the running sum of each group."""
    total = np.cumsum(values)
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    before = np.where(starts > 0, total[starts - 1], 0)
    lengths = np.diff(np.append(starts, len(groups)))
    if values.dtype.kind == "f" and len(starts) > 1:
        # A NaN or a large sum must not leak into the next group.
        parts = [np.cumsum(part) for part in np.split(values, starts[1:])]
        return np.arange(len(groups)), np.concatenate(parts)
    return np.arange(len(groups)), total - np.repeat(before, lengths)


def moving_average(
    groups: Int64s, _times: Int64s, values: Values, args: Args
) -> tuple[Int64s, Values]:
    """Return the mean of the last `size` values, from the row on that has as many in its group."""
    size = int(args[0])
    if len(values) < size:
        return np.zeros(0, np.int64), np.zeros(0)
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    rows, means = [np.zeros(0, np.int64)], [np.zeros(0)]
    for start, part in zip(starts, np.split(values.astype(np.float64), starts[1:]), strict=True):
        if len(part) >= size:
            rows.append(np.arange(start + size - 1, start + len(part)))
            means.append(_running_sums(part, size) / size)
    return np.concatenate(rows), np.concatenate(means)


def _running_sums(values: Float64s, size: int) -> Float64s:
    """Return the sum of each `size` values in a row, rounded as influxd rounds them.

    It takes the oldest value off the sum and then adds the newest; `cumsum` adds in that order too.
    """
    steps = np.empty(2 * (len(values) - size))
    steps[0::2] = -values[:-size]
    steps[1::2] = values[size:]
    return np.cumsum(np.concatenate((values[:size], steps)))[size - 1 :: 2]


def elapsed(groups: Int64s, times: Int64s, _values: Values, args: Args) -> tuple[Int64s, Values]:
    """Return the time since the row before in units, cut to an integer toward zero."""
    rows = _pairs(groups)
    nanoseconds = times[rows] - times[rows - 1]
    return rows, np.sign(nanoseconds) * (np.abs(nanoseconds) // int(args[0]))


TRANSFORMS: Final[dict[str, Kernel]] = {
    "derivative": derivative,
    "non_negative_derivative": non_negative(derivative),
    "difference": difference,
    "non_negative_difference": non_negative(difference),
    "cumulative_sum": cumulative_sum,
    "moving_average": moving_average,
    "elapsed": elapsed,
    **INDICATORS,
}

# These read one window before the range (behind it when descending); the others start with the
# range.
READS_ONE_WINDOW_BEFORE: Final = frozenset(TRANSFORMS) - {"cumulative_sum"}
