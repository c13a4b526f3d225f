"""Partitions: an aggregation in parts that share no cell, each of bounded size.

A function like median needs all values of a cell at once, so what it takes grows with the rows, not
with the answer. Cells of different groups or windows have nothing to do with each other: the groups
are taken some at a time, and a group that is too large by itself some windows at a time. What is
left is as large as the largest cell.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tinyflux.batch import Int64s
    from tinyflux.columnar.base import SeriesSet
    from tinyflux.columnar.scan import Source
    from tinyflux.windows import Windows


_MOST_PIECES: Final = 1024  # of one cut; what is too big still is cut again


def partitions(
    sources: Sequence[Source],
    series: SeriesSet,
    groups: Int64s,
    bounds: tuple[int, int],
    windows: Windows | None,
    max_rows: int,
) -> Iterator[tuple[SeriesSet, int, int]]:
    """Yield (series, first time, last time) of at most max_rows, where cells allow it.

    Args:
        sources: Where the rows are.
        series: The series of the request.
        groups: int64[k], the group of each series.
        bounds: First and last time.
        windows: The time grid; None is one window over everything.
        max_rows: How many rows a part should have at most.
    """
    if sum(map(len, sources)) <= max_rows:
        yield series, *bounds
        return
    bounds = (
        max(bounds[0], min(source.first_ns for source in sources)),
        min(bounds[1], max(source.last_ns for source in sources)),
    )
    counts = sum(source.rows(series.ids, *bounds) for source in sources)
    of_group = np.bincount(groups, counts).astype(np.int64)
    before = np.cumsum(of_group) - of_group
    part_of = before // max_rows
    big = of_group > max_rows
    cut = (part_of[1:] != part_of[:-1]) | big[1:] | big[:-1]
    edges = np.concatenate(([0], np.flatnonzero(cut) + 1, [len(of_group)])).tolist()
    for low, high in itertools.pairwise(edges):
        some = series.take((groups >= low) & (groups < high))
        if windows is not None and big[low]:
            yield from _by_time(sources, some, bounds, windows, max_rows)
        else:
            yield some, *bounds


def _by_time(
    sources: Sequence[Source],
    series: SeriesSet,
    bounds: tuple[int, int],
    windows: Windows,
    max_rows: int,
) -> Iterator[tuple[SeriesSet, int, int]]:
    """Yield stretches of whole windows, all of these series."""
    first, last = windows.number(np.array(bounds, np.int64)).tolist()
    waiting = [(first, last)]
    while waiting:
        first, last = waiting.pop()
        edges = windows.start(np.array((first, last + 1), np.int64)).tolist()
        start_ns, end_ns = max(edges[0], bounds[0]), min(edges[1] - 1, bounds[1])
        n_rows = sum(source.count(series.ids, start_ns, end_ns) for source in sources)
        if n_rows and (n_rows <= max_rows or first == last):
            yield series, start_ns, end_ns
        elif n_rows:
            length = max(1, (last - first + 1) * max_rows // n_rows)
            starts = range(first, last + 1, max(length, (last - first + 1) // _MOST_PIECES))
            waiting += [(start, min(start + starts.step - 1, last)) for start in reversed(starts)]
