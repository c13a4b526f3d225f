"""Deletions: closed time ranges of series."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from tinyflux.batch import series_key
from tinyflux.columnar.base import Frame, SeriesSet
from tinyflux.columnar.deletion import Deletion, concat, from_ranges, from_rows
from tinyflux.columnar.scan import Run, arrange, empty_run
from tinyflux.columnar.series import SeriesIndex

CELLS = st.lists(st.tuples(st.integers(0, 4), st.integers(-5, 5)), max_size=25)
RANGES = st.lists(st.tuples(st.integers(0, 6), st.integers(-6, 6), st.integers(-6, 6)), max_size=6)


def run_of(cells: list[tuple[int, int]]) -> Run:
    ids = np.array([series for series, _ in cells], np.int64)
    return arrange(ids, np.array([time for _, time in cells], np.int64), {}, overwrite=False)


def cells_of(run: Run) -> list[tuple[int, int]]:
    return list(zip(run.row_ids().tolist(), run.times.tolist(), strict=True))


def deletion_of(ranges: list[tuple[int, int, int]]) -> Deletion:
    columns = [np.array([r[i] for r in ranges], np.int64) for i in range(3)]
    return Deletion(*columns)


def is_in(cell: tuple[int, int], ranges: list[tuple[int, int, int]]) -> bool:
    return any(series == cell[0] and first <= cell[1] <= last for series, first, last in ranges)


@given(cells=CELLS, ranges=RANGES)
@settings(max_examples=150)
def test_a_deletion_takes_the_rows_in_its_ranges(
    cells: list[tuple[int, int]], ranges: list[tuple[int, int, int]]
) -> None:
    run = run_of(cells)
    stays = deletion_of(ranges).apply(run)
    assert cells_of(stays) == [cell for cell in cells_of(run) if not is_in(cell, ranges)]


def test_a_run_that_loses_nothing_is_not_copied() -> None:
    run = run_of([(1, 1), (2, 2)])
    assert deletion_of([(1, 2, 9), (7, 1, 1)]).apply(run) is run
    assert len(deletion_of([(1, 1, 1)]).apply(empty_run())) == 0


@given(
    cells=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 9))),
    chosen=st.sets(st.integers(0, 39)),
)
@settings(max_examples=150)
def test_the_ranges_of_rows_delete_exactly_these(
    cells: set[tuple[int, int]], chosen: set[int]
) -> None:
    run = run_of(list(cells))
    frame = Frame(SeriesSet("m", run.ids, {}), run.offsets, run.times, {})
    gone = np.array([row in chosen for row in range(len(run))], np.bool_)
    deletion = from_rows(frame, gone)
    assert deletion.covers(run).tolist() == gone.tolist()


def test_neighbouring_rows_of_a_series_become_one_range() -> None:
    run = run_of([(series, time) for series in (1, 2) for time in range(100)])
    frame = Frame(SeriesSet("m", run.ids, {}), run.offsets, run.times, {})
    gone = np.ones(200, np.bool_)
    gone[50] = False
    deletion = from_rows(frame, gone)
    assert deletion.ids.tolist() == [1, 1, 2]
    assert deletion.starts.tolist() == [0, 51, 0]
    assert deletion.ends.tolist() == [49, 99, 99]


def test_ranges_name_series_by_key_and_skip_unknown_ones() -> None:
    index = SeriesIndex()
    keys = [series_key("m", [("t", value)]) for value in "abc"]
    for key in keys:
        index.add(key)
    ranges = deletion_of([(2, 1, 2), (0, 3, 4), (2, 5, 6)]).ranges(index)
    assert sorted(ranges.keys) == [keys[0], keys[2]]
    other = SeriesIndex()
    other.add(keys[1])
    other.add(keys[2])
    back = from_ranges(ranges, other)
    assert back.ids.tolist() == [1, 1]
    assert back.starts.tolist() == [1, 5]
    assert back.ends.tolist() == [2, 6]


def test_several_deletions_are_one() -> None:
    both = concat([deletion_of([(1, 2, 3)]), deletion_of([(4, 5, 6)])])
    assert (both.ids.tolist(), both.starts.tolist(), both.ends.tolist()) == ([1, 4], [2, 5], [3, 6])
    assert len(concat([])) == 0
