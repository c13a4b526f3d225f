"""Runs: sorting, merging, cutting, frames."""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, FieldType
from tinyflux.bisection import search
from tinyflux.columnar.base import FieldColumn, Frame, SeriesSet, TagColumn
from tinyflux.columnar.scan import (
    Run,
    arrange,
    concat,
    empty_run,
    frames,
    merge_runs,
)

EVER = (MIN_TIME_NS, MAX_TIME_NS)


def column(values: list[Any], kind: FieldType = FieldType.INTEGER) -> FieldColumn:
    """A column of values, None where there is none."""
    valid = np.array([value is not None for value in values], np.bool_)
    filled = [0 if value is None else value for value in values]
    if kind is FieldType.FLOAT:
        return FieldColumn(kind, np.array(filled, np.float64), None if valid.all() else valid)
    return FieldColumn(kind, np.array(filled, np.int64), None if valid.all() else valid)


def run_of(rows: list[tuple[int, int, Any]], *, overwrite: bool = False) -> Run:
    """A run of (series id, time, value of field v) in any order."""
    ids = np.array([row[0] for row in rows], np.int64)
    times = np.array([row[1] for row in rows], np.int64)
    return arrange(ids, times, {"v": column([row[2] for row in rows])}, overwrite=overwrite)


def rows_of(run: Run | Frame) -> list[tuple[int, int, Any]]:
    ids = run.row_ids() if isinstance(run, Run) else run.series.ids[run.series_rows()]
    found = run.columns["v"]
    values = [v if ok else None for v, ok in zip(found.values.tolist(), found.mask(), strict=True)]
    return list(zip(ids.tolist(), run.times.tolist(), values, strict=True))


def series_of(ids: list[int]) -> SeriesSet:
    codes = np.arange(len(ids), dtype=np.int32)
    return SeriesSet("cpu", np.array(ids), {"host": TagColumn(codes, [f"h{i}" for i in ids])})


ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-5, 5), st.one_of(st.none(), st.integers(0, 9))),
    max_size=20,
)
WIDE_ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 70_000, 2**31 - 1]),
        st.sampled_from([MIN_TIME_NS, -1, 0, 1, MAX_TIME_NS]),
        st.integers(0, 9),
    ),
    max_size=12,
)


def merged(rows: list[tuple[int, int, Any]]) -> list[tuple[int, int, Any]]:
    """One row for each series and time: the newest value that is there."""
    cells: dict[tuple[int, int], Any] = {}
    for series, time, value in rows:
        old = cells.get((series, time))
        cells[series, time] = old if value is None else value
    return [(*cell, value) for cell, value in sorted(cells.items())]


@given(rows=st.one_of(ROWS, WIDE_ROWS))
@settings(max_examples=150)
def test_rows_are_sorted_by_series_and_time_and_stay_in_order_otherwise(
    rows: list[tuple[int, int, Any]],
) -> None:
    assert not rows or rows_of(run_of(rows)) == sorted(rows, key=lambda row: row[:2])


@given(rows=st.one_of(ROWS, WIDE_ROWS))
@settings(max_examples=150)
def test_with_overwrite_the_newest_value_of_each_series_and_time_wins(
    rows: list[tuple[int, int, Any]],
) -> None:
    assert not rows or rows_of(run_of(rows, overwrite=True)) == merged(rows)


@given(parts=st.lists(st.one_of(ROWS, WIDE_ROWS), max_size=4), overwrite=st.booleans())
@settings(max_examples=150)
def test_merging_runs_equals_arranging_all_their_rows(
    parts: list[list[tuple[int, int, Any]]], overwrite: bool
) -> None:
    runs = [run_of(part, overwrite=overwrite) for part in parts if part]
    together = [row for part in parts for row in part]
    result = merge_runs(runs, overwrite=overwrite)
    assert len(result) == 0 or rows_of(result) == rows_of(run_of(together, overwrite=overwrite))


def test_an_explicit_none_is_newer_than_the_value_before() -> None:
    values = FieldColumn(
        FieldType.INTEGER,
        np.array([7, 0]),
        np.array([True, False]),
        np.array([False, True]),
    )
    run = arrange(np.array([1, 1]), np.array([5, 5]), {"v": values}, overwrite=True)
    assert run.columns["v"].mask().tolist() == [False]
    assert run.columns["v"].none is not None
    assert run.columns["v"].none.tolist() == [True]


def test_columns_of_ints_and_floats_become_floats() -> None:
    joined = concat([column([1, 2]), None, column([0.5], FieldType.FLOAT)], [2, 1, 1])
    assert joined.type is FieldType.FLOAT
    assert joined.values.dtype == np.float64
    assert joined.values.tolist() == [1.0, 2.0, 0.0, 0.5]
    assert joined.mask().tolist() == [True, True, False, True]


@given(
    lengths=st.lists(st.integers(0, 6), max_size=20),
    needle=st.integers(-1, 6),
    data=st.data(),
)
@settings(max_examples=150)
def test_search_is_a_bisection_in_each_range(
    lengths: list[int], needle: int, data: st.DataObject
) -> None:
    ranges = [
        sorted(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))) for n in lengths
    ]
    times = np.array([time for times in ranges for time in times], np.int64)
    high = np.cumsum(np.array(lengths, np.int64))
    low = high - np.array(lengths, np.int64)
    left = [int(lo) + bisect.bisect_left(r, needle) for lo, r in zip(low, ranges, strict=True)]
    right = [int(lo) + bisect.bisect_right(r, needle) for lo, r in zip(low, ranges, strict=True)]
    assert search(times, low, high, needle, "left").tolist() == left
    assert search(times, low, high, needle, "right").tolist() == right
    needles = np.arange(len(lengths)) % 6
    each = [
        int(lo) + bisect.bisect_left(r, n) for lo, r, n in zip(low, ranges, needles, strict=True)
    ]
    assert search(times, low, high, needles, "left").tolist() == each


@given(rows=ROWS, ids=st.sets(st.integers(0, 6)), start=st.integers(-6, 6), end=st.integers(-6, 6))
@settings(max_examples=150)
def test_a_run_gives_the_rows_of_series_in_a_time_interval(
    rows: list[tuple[int, int, Any]], ids: set[int], start: int, end: int
) -> None:
    run = run_of(rows)
    wanted = np.array(sorted(ids), np.int64)
    expected = (
        [row for row in rows_of(run) if row[0] in ids and start <= row[1] <= end] if rows else []
    )
    counts = run.rows(wanted, start, end)
    assert counts.tolist() == [sum(row[0] == i for row in expected) for i in sorted(ids)]
    part = run.read(wanted, start, end)
    assert (rows_of(part) if len(part) else []) == expected
    assert run.read(wanted, start, end, ()).columns == {}


def test_neighbouring_rows_are_read_without_a_copy() -> None:
    run = run_of([(series, time, 1) for series in range(3) for time in range(4)])
    part = run.read(np.array([1, 2]), *EVER)
    assert np.shares_memory(part.times, run.times)
    assert run.read(np.array([0, 1, 2]), *EVER).times is run.times


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("max_rows", [1, 2, 3, 5, 1000])
def test_frames_are_bounded_and_together_hold_every_row_once(
    max_rows: int, overwrite: bool
) -> None:
    old = run_of([(s, t, 10 * s + t) for s in range(4) for t in range(s + 1)] + [(9, 0, 1)])
    big = run_of([(5, t, t) for t in range(0, 40, 2)])
    new = run_of([(s, t, None) for s in range(3) for t in range(-2, 2)] + [(5, 4, 44)])
    found = list(
        frames(
            [old, big, new],
            series_of([0, 1, 2, 3, 5, 9]),
            {"v": FieldType.INTEGER, "missing": FieldType.FLOAT},
            EVER,
            None,
            ["v"],
            overwrite=overwrite,
            max_rows=max_rows,
        )
    )
    rows = [row for frame in found for row in rows_of(frame)]
    # for each series in order of time, twins in order of age; series may come in turns
    assert sorted(rows, key=lambda row: row[0]) == rows_of(
        merge_runs([old, big, new], overwrite=overwrite)
    )
    # rows of equal series and time cannot be separated, and a part may be twice as long
    assert max(map(len, found)) <= max(2 * max_rows, 2)
    assert all(list(frame.columns) == ["v"] for frame in found)


@given(
    st.lists(ROWS, min_size=1, max_size=4),
    st.integers(0, 9),
    st.sampled_from([0, 20]),
    st.booleans(),
)
def test_a_filter_sees_the_rows_that_are_left_of_all_sources(
    parts: list[list[tuple[int, int, Any]]], least: int, shift: int, overwrite: bool
) -> None:
    # Shifted, each source has times of its own: then rows are filtered before they are merged.
    parts = [[(i, t + n * shift, v) for i, t, v in rows] for n, rows in enumerate(parts)]
    sources = [run_of(rows, overwrite=overwrite) for rows in parts]
    found = frames(
        sources,
        series_of([0, 1, 2, 3, 4]),
        {"v": FieldType.INTEGER},
        EVER,
        lambda frame: frame.columns["v"].mask() & (frame.columns["v"].values >= least),
        ("v",),
        overwrite=overwrite,
    )
    rows = [row for part in parts for row in part]
    expected = merged(rows) if overwrite else sorted(rows, key=lambda row: row[:2])
    got = [row for frame in found for row in rows_of(frame)]
    assert got == [row for row in expected if row[2] is not None and row[2] >= least]


def test_a_field_without_rows_is_a_column_without_values() -> None:
    (frame,) = frames(
        [run_of([(1, 2, 3)])],
        series_of([1]),
        {"x": FieldType.STRING},
        EVER,
        None,
        ["x"],
        overwrite=True,
    )
    assert frame.columns["x"].type is FieldType.STRING
    assert frame.columns["x"].mask().tolist() == [False]


def test_a_run_without_rows_answers() -> None:
    run = empty_run()
    assert run.rows(np.array([1]), *EVER).tolist() == [0]
    assert len(run.read(np.array([1]), *EVER)) == 0
    assert len(merge_runs([run, run], overwrite=True)) == 0
