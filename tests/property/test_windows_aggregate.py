"""Every kernel equals a plain Python oracle: dicts and loops over (series, time, value) rows."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from hypothesis import given, settings, strategies as st

from tinyflux.batch import FieldType
from tinyflux.columnar.aggregate import aggregate_frames
from tinyflux.columnar.base import (
    AggregateRequest,
    AggregateTable,
    Call,
    FieldColumn,
    Frame,
    ScanRequest,
    SeriesSet,
    TagColumn,
    Values,
)
from tinyflux.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable

Value: TypeAlias = Any  # float | int | bool | str: the oracle computes with all of them alike
Row: TypeAlias = tuple[int, int, Value, int]  # time, series id, value, other field

TAG_VALUES = ("", "x", "y", "z")
DTYPES = {
    FieldType.FLOAT: np.float64,
    FieldType.INTEGER: np.int64,
    FieldType.BOOLEAN: np.bool_,
    FieldType.STRING: np.object_,
}
VALUES: dict[FieldType, st.SearchStrategy[Value]] = {
    FieldType.FLOAT: st.sampled_from([0.0, 1.5, -2.25, 3.0, 1e6, 7.125]),
    FieldType.INTEGER: st.sampled_from([0, 1, -3, 7, 2**62, -(2**63), 2**63 - 1]),
    FieldType.BOOLEAN: st.booleans(),
    FieldType.STRING: st.sampled_from(["", "a", "b", "ä", "z"]),
}


@dataclass(frozen=True)
class Data:
    """Series with tags, and rows (time, value or None, other) of each, in time order."""

    kind: FieldType
    tags: list[tuple[int, int]]
    rows: list[list[tuple[int, Value | None, int]]]


@st.composite
def data_sets(draw: st.DrawFn, kind: FieldType) -> Data:
    n = draw(st.integers(1, 5))
    code = st.integers(-1, len(TAG_VALUES) - 1)
    tags = draw(st.lists(st.tuples(code, code), min_size=n, max_size=n))
    time = st.integers(-40, 40)
    row = st.tuples(time, st.one_of(st.none(), VALUES[kind], VALUES[kind]), st.integers(0, 9))
    rows = [
        sorted(draw(st.lists(row, max_size=12, unique_by=lambda r: r[0])), key=lambda r: r[0])
        for _ in range(n)
    ]
    return Data(kind, tags, rows)


def frame_of(data: Data, first: int, last: int) -> Frame | None:
    """Return the rows with first <= time < last."""
    picked = [[row for row in rows if first <= row[0] < last] for rows in data.rows]
    members = [i for i, rows in enumerate(picked) if rows]
    if not members:
        return None
    flat = [row for i in members for row in picked[i]]
    lengths = [len(picked[i]) for i in members]
    valid = np.array([row[1] is not None for row in flat])
    filler: Value = "" if data.kind is FieldType.STRING else 0
    values: Values = np.array([filler if r[1] is None else r[1] for r in flat], DTYPES[data.kind])
    series = SeriesSet(
        "m",
        np.array(members, np.int64) * 10,
        {
            "a": TagColumn(np.array([data.tags[i][0] for i in members], np.int32), TAG_VALUES),
            "b": TagColumn(np.array([data.tags[i][1] for i in members], np.int32), TAG_VALUES),
        },
    )
    columns = {
        "v": FieldColumn(data.kind, values, None if valid.all() else valid),
        "o": FieldColumn(FieldType.INTEGER, np.array([row[2] for row in flat], np.int64)),
    }
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Frame(series, offsets, np.array([row[0] for row in flat], np.int64), columns)


def wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def cells_of(
    data: Data, group_by: tuple[str, ...], windows: Windows | None
) -> dict[tuple[tuple[str, ...], int], list[Row]]:
    """Return the rows of each (group, window number), by time, then by series."""
    cells: dict[tuple[tuple[str, ...], int], list[Row]] = defaultdict(list)
    for i, rows in enumerate(data.rows):
        texts = dict(
            zip("ab", (TAG_VALUES[c] if c >= 0 else "" for c in data.tags[i]), strict=True)
        )
        group = tuple(texts.get(key, "") for key in group_by)
        for time, value, other in rows:
            if value is not None:
                number = (
                    0
                    if windows is None
                    else math.floor(
                        (time - windows.offset_ns % windows.every_ns) / windows.every_ns
                    )
                )
                cells[group, number].append((time, i * 10, value, other))
    return {cell: sorted(rows, key=lambda r: r[:2]) for cell, rows in sorted(cells.items())}


def oracle_sum(rows: list[Row]) -> Value:
    total = sum(row[2] for row in rows)
    return wrap(total) if isinstance(total, int) else total


def oracle_mean(rows: list[Row]) -> Value:
    return float(oracle_sum(rows)) / len(rows)


def oracle_spread(rows: list[Row]) -> Value:
    low, high = min(row[2] for row in rows), max(row[2] for row in rows)
    spread = high - low
    return wrap(spread) if isinstance(spread, int) else spread


def oracle_stddev(rows: list[Row]) -> Value | None:
    return statistics.stdev([float(r[2]) for r in rows]) if len(rows) > 1 else math.nan


def oracle_median(rows: list[Row]) -> Value:
    values = sorted(row[2] for row in rows)
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    gap = high - low
    return low + (wrap(gap) if isinstance(gap, int) else gap) / 2


def oracle_mode(rows: list[Row]) -> Value:
    times: dict[Value, list[int]] = defaultdict(list)
    for row in rows:
        times[row[2]].append(row[0])
    most = max(len(found) for found in times.values())
    tied = sorted(value for value, found in times.items() if len(found) == most)
    if isinstance(tied[0], bool):
        return tied[-1]
    best = tied[0]
    for value in tied[1:] if most > 1 else []:
        if times[value][0] <= times[best][-1]:
            best = value
    return best


SIMPLE: dict[str, Callable[[list[Row]], Value | None]] = {
    "count": len,
    "sum": oracle_sum,
    "mean": oracle_mean,
    "spread": oracle_spread,
    "stddev": oracle_stddev,
    "median": oracle_median,
    "mode": oracle_mode,
    "count_distinct": lambda rows: len({row[2] for row in rows}),
}
ACCEPTS = {
    **{name: set(DTYPES) for name in ("count", "mode", "count_distinct")},
    **{
        name: {FieldType.FLOAT, FieldType.INTEGER}
        for name in ("sum", "mean", "spread", "stddev", "median", "percentile", "integral")
    },
}


def oracle_point(name: str, rows: list[Row], windowed: bool, rank: float) -> Row | None:
    """Return the row a selector chooses."""
    if name == "percentile":
        place = math.floor(len(rows) * rank / 100 + 0.5) - 1
        ordered = sorted(rows, key=lambda r: r[2])
        return ordered[place] if 0 <= place < len(rows) else None
    wants_larger = name != "min"
    if name == "first" and isinstance(rows[0][2], bool):
        wants_larger = False
    if name in ("first", "last"):
        edge = min(r[0] for r in rows) if name == "first" else max(r[0] for r in rows)
        rows = [row for row in rows if row[0] == edge]
    extreme = (max if wants_larger else min)(row[2] for row in rows)
    equal = [row for row in rows if row[2] == extreme]
    return equal[-1] if name == "last" and not windowed else equal[0]


def oracle_integral(
    cells: list[tuple[int, list[Row]]], windows: Windows | None, unit: float
) -> dict[int, float]:
    """Walk over the points of one group, window by window, as a server that streams would."""
    answers: dict[int, float] = {}
    area, before, number = 0.0, None, None
    for current, rows in cells:
        for time, _, value, _ in rows:
            point = (time, float(value))
            if number is not None and current != number:
                assert windows is not None
                assert before is not None
                end = (number + 1) * windows.every_ns + windows.offset_ns % windows.every_ns
                share = (end - before[0]) / (point[0] - before[0])
                middle = (end, before[1] + (point[1] - before[1]) * share)
                answers[number] = area + (before[1] + middle[1]) / 2 * (end - before[0]) / unit
                area, before = 0.0, middle
            if before is not None:
                area += (before[1] + point[1]) / 2 * (point[0] - before[0]) / unit
            before, number = point, current
    assert number is not None
    assert before is not None
    start = (
        None
        if windows is None
        else number * windows.every_ns + (windows.offset_ns % windows.every_ns)
    )
    if before[0] != start or not answers:
        answers[number] = area
    return answers


GRIDS = st.one_of(
    st.none(),
    st.builds(Windows, st.sampled_from([1, 3, 10, 64, 1000]), st.integers(-50, 50)),
)
GROUPINGS = st.sampled_from([(), ("a",), ("b", "a"), ("nokey",), ("a", "nokey")])


def run(
    data: Data,
    calls: tuple[Call, ...],
    group_by: tuple[str, ...],
    windows: Windows | None,
    cuts: list[int],
    aux: tuple[str, ...] = (),
    *,
    points: bool = True,
) -> tuple[dict[tuple[tuple[str, ...], int], list[Value]], AggregateTable]:
    edges = [-1000, *sorted(set(cuts)), 1000]
    frames = [frame_of(data, a, b) for a, b in itertools.pairwise(edges)]
    request = AggregateRequest(ScanRequest("m"), calls, group_by, windows, aux, points=points)
    table = aggregate_frames([frame for frame in frames if frame], request)
    answers: dict[tuple[tuple[str, ...], int], list[Value]] = {}
    for g, group in enumerate(table.groups):
        for w, number in enumerate(table.windows.tolist()):
            row: list[Value] = [c.values[g, w] if c.valid[g, w] else None for c in table.columns]
            if any(value is not None for value in row):
                answers[group, number] = [v.item() if hasattr(v, "item") else v for v in row]
    return answers, table


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_functions_of_all_values_equal_the_oracle(draws: st.DataObject) -> None:
    kind = draws.draw(st.sampled_from(sorted(DTYPES)))
    data = draws.draw(data_sets(kind))
    windows, group_by = draws.draw(GRIDS), draws.draw(GROUPINGS)
    cuts = draws.draw(st.lists(st.integers(-40, 40), max_size=3))
    names = [name for name in SIMPLE if kind in ACCEPTS[name]]

    answers, _ = run(data, tuple(Call(n, "v") for n in names), group_by, windows, cuts)

    cells = cells_of(data, group_by, windows)
    assert answers.keys() == cells.keys()
    for cell, rows in cells.items():
        expected = [SIMPLE[name](rows) for name in names]
        for name, value, want in zip(names, answers[cell], expected, strict=True):
            if isinstance(want, float):
                assert isinstance(value, float)
                is_close = math.isclose(value, want, rel_tol=1e-12, abs_tol=1e-9)
                assert is_close or (math.isnan(value) and math.isnan(want)), (name, cell)
            else:
                assert (type(value), value) == (type(want), want), (name, cell)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_selectors_bring_the_point_the_oracle_chooses(draws: st.DataObject) -> None:
    name = draws.draw(st.sampled_from(["first", "last", "min", "max", "percentile"]))
    kinds = {"first": 4, "last": 4, "min": 3, "max": 3, "percentile": 2}[name]
    kind = draws.draw(
        st.sampled_from(
            [FieldType.FLOAT, FieldType.INTEGER, FieldType.BOOLEAN, FieldType.STRING][:kinds]
        )
    )
    data = draws.draw(data_sets(kind))
    windows, group_by = draws.draw(GRIDS), draws.draw(GROUPINGS)
    cuts = draws.draw(st.lists(st.integers(-40, 40), max_size=3))
    rank = draws.draw(st.sampled_from([0, 1, 25, 50, 99.9, 100, 150])) if kinds == 2 else 0
    call = Call(name, "v", (rank,) if kinds == 2 else ())

    answers, table = run(data, (call,), group_by, windows, cuts, ("o",))

    expected = {}
    for cell, rows in cells_of(data, group_by, windows).items():
        point = oracle_point(name, rows, windows is not None, rank)
        if point is not None:
            expected[cell] = point
    assert {cell: row[0] for cell, row in answers.items()} == {c: p[2] for c, p in expected.items()}
    for (group, number), (time, series, _, other) in expected.items():
        g, w = table.groups.index(group), table.windows.tolist().index(number)
        column = table.columns[0]
        assert column.times is not None
        assert column.series is not None
        assert (column.times[g, w], column.series[g, w]) == (time, series)
        assert (table.aux["o"].valid[g, w], table.aux["o"].values[g, w]) == (True, other)
    without_points, _ = run(data, (call,), group_by, windows, cuts, points=False)
    assert without_points == answers


def test_nan_is_an_extreme_only_where_there_is_nothing_else() -> None:
    series = SeriesSet("m", np.array([1, 2]), {})
    values = np.array([np.nan, 2.0, 3.0, np.nan, np.nan])
    columns = {"v": FieldColumn(FieldType.FLOAT, values)}
    frame = Frame(series, np.array([0, 3, 5]), np.array([0, 1, 2, 10, 11]), columns)
    calls = Call("min", "v"), Call("max", "v")
    for points in (True, False):
        request = AggregateRequest(ScanRequest("m"), calls, windows=Windows(10), points=points)
        low, high = aggregate_frames([frame, frame], request).columns
        assert repr(low.values.tolist()) == "[[2.0, nan]]"
        assert repr(high.values.tolist()) == "[[3.0, nan]]"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_integral_equals_a_walk_over_the_points(draws: st.DataObject) -> None:
    data = draws.draw(data_sets(FieldType.FLOAT))
    windows, group_by = draws.draw(GRIDS), draws.draw(GROUPINGS)
    cuts = draws.draw(st.lists(st.integers(-40, 40), max_size=3))
    unit = draws.draw(st.sampled_from([1.0, 60.0]))

    answers, _ = run(data, (Call("integral", "v", (unit,)),), group_by, windows, cuts)

    by_group: dict[tuple[str, ...], list[tuple[int, list[Row]]]] = defaultdict(list)
    for (group, number), rows in cells_of(data, group_by, windows).items():
        by_group[group].append((number, rows))
    expected = {
        (group, number): area
        for group, cells in by_group.items()
        for number, area in oracle_integral(cells, windows, unit).items()
    }
    assert answers.keys() == expected.keys()
    for cell, area in expected.items():
        assert math.isclose(answers[cell][0], area, rel_tol=1e-9, abs_tol=1e-6)
