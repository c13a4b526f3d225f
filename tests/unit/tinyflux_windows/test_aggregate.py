"""What aggregate_frames refuses, leaves out, and bounds. The property tests check its values."""

from __future__ import annotations

import numpy as np
import pytest

from tinyflux.batch import FieldType
from tinyflux.columnar.aggregate import aggregate_frames
from tinyflux.columnar.base import (
    AggregateRequest,
    Call,
    FieldColumn,
    Frame,
    ScanRequest,
    SeriesSet,
    TagColumn,
    Values,
)
from tinyflux.errors import LimitExceeded, QueryError
from tinyflux.windows import KERNELS, Windows


def frame(**columns: FieldColumn) -> Frame:
    """Two series of three rows: hosts b and a at times 0, 10, 20."""
    tag = TagColumn(np.array([0, 1], np.int32), ["b", "a"])
    series = SeriesSet("m", np.array([4, 9]), {"host": tag})
    times = np.array([0, 10, 20] * 2, np.int64)
    return Frame(series, np.array([0, 3, 6]), times, columns)


def floats(*values: float, valid: tuple[int, ...] | None = None) -> FieldColumn:
    mask = None if valid is None else np.array(valid, np.bool_)
    return FieldColumn(FieldType.FLOAT, np.array(values), mask)


def request(*calls: Call, **settings: object) -> AggregateRequest:
    return AggregateRequest(ScanRequest("m"), calls, **settings)  # type: ignore[arg-type]


STRINGS = FieldColumn(FieldType.STRING, np.array(["x"] * 6, np.object_))
BOOLS = FieldColumn(FieldType.BOOLEAN, np.array([True] * 6))


@pytest.mark.parametrize(
    ("function", "column", "name"),
    [
        *[(f, STRINGS, "string") for f in ("sum", "mean", "min", "max", "median", "spread")],
        *[(f, STRINGS, "string") for f in ("stddev", "percentile", "integral")],
        *[(f, BOOLS, "boolean") for f in ("sum", "mean", "median", "spread", "stddev")],
        *[(f, BOOLS, "boolean") for f in ("percentile", "integral")],
    ],
)
def test_types_are_refused_in_the_words_of_influxd(
    function: str, column: FieldColumn, name: str
) -> None:
    # influxd 1.6.7, recorded for each of these pairs
    text = f"unsupported {function} iterator type: \\*query.{name}InterruptIterator"
    with pytest.raises(QueryError, match=f"^{text}$"):
        aggregate_frames([frame(v=column)], request(Call(function, "v", (50,))))


def test_unknown_functions_and_bad_arguments_are_refused() -> None:
    data = [frame(v=floats(1, 2, 3, 4, 5, 6))]
    with pytest.raises(QueryError, match=r"undefined function foo\(\)"):
        aggregate_frames([], request(Call("foo", "v")))
    with pytest.raises(QueryError, match="invalid number of arguments for percentile"):
        aggregate_frames(data, request(Call("percentile", "v")))
    with pytest.raises(QueryError, match="must be positive"):
        aggregate_frames(data, request(Call("integral", "v", (0,))))
    with pytest.raises(QueryError, match="mixing"):
        aggregate_frames(data, request(Call("mean", "v"), aux=("v",)))


def test_no_rows_give_no_groups() -> None:
    table = aggregate_frames([], request(Call("mean", "v"), Call("last", "v"), group_by=("host",)))
    assert (table.groups, table.windows.tolist()) == ([], [0])
    assert [c.values.shape for c in table.columns] == [(0, 1)] * 2
    table = aggregate_frames([], request(Call("count", "v"), windows=Windows(10)))
    assert (table.groups, table.windows.tolist()) == ([], [])
    assert table.columns[0].type is FieldType.INTEGER


def test_groups_are_sorted_and_only_those_with_a_value() -> None:
    data = [frame(v=floats(1, 2, 3, 4, 5, 6, valid=(0, 0, 0, 0, 1, 1)), w=floats(*range(6)))]
    only_v = aggregate_frames(data, request(Call("sum", "v"), group_by=("host",)))
    assert only_v.groups == [("a",)]
    both = aggregate_frames(
        data, request(Call("sum", "v"), Call("sum", "w"), group_by=("host",), windows=Windows(10))
    )
    assert both.groups == [("a",), ("b",)]
    assert both.windows.tolist() == [0, 1, 2]
    assert both.columns[0].valid.tolist() == [[False, True, True], [False] * 3]
    assert both.first.tolist() == [0, 0]


def test_an_unknown_field_has_no_value_beside_one_that_has() -> None:
    data = [frame(v=floats(1, 2, 3, 4, 5, 6))]
    table = aggregate_frames(data, request(Call("sum", "v"), Call("first", "nope")))
    assert table.columns[0].values.tolist() == [[21.0]]
    assert table.columns[1].valid.tolist() == [[False]]
    assert table.columns[1].times is not None


def test_missing_tags_are_empty_text() -> None:
    data = [frame(v=floats(1, 2, 3, 4, 5, 6))]
    table = aggregate_frames(data, request(Call("sum", "v"), group_by=("rack",)))
    assert table.groups == [("",)]


def test_more_cells_than_allowed_are_refused_before_they_are_made() -> None:
    data = [frame(v=floats(1, 2, 3, 4, 5, 6))]
    wide = request(Call("sum", "v"), group_by=("host",), windows=Windows(10), max_cells=5)
    with pytest.raises(LimitExceeded, match="6 cells"):
        aggregate_frames(data, wide)


def test_more_gathered_rows_than_allowed_are_refused() -> None:
    data = [frame(v=floats(1, 2, 3, 4, 5, 6))]
    with pytest.raises(LimitExceeded, match="median"):
        aggregate_frames(data, request(Call("median", "v")), max_rows=5)


def test_a_field_that_is_integer_here_and_float_there_is_float() -> None:
    ints = FieldColumn(FieldType.INTEGER, np.arange(6))
    later = frame(v=floats(0.5, 0, 0, 0, 0, 0))
    later = Frame(later.series, later.offsets, later.times + 100, later.columns)
    table = aggregate_frames([frame(v=ints), later], request(Call("sum", "v"), Call("max", "v")))
    assert [c.type for c in table.columns] == [FieldType.FLOAT] * 2
    assert [c.values.tolist() for c in table.columns] == [[[15.5]], [[5.0]]]


@pytest.mark.parametrize("function", sorted(KERNELS))
def test_infinities_and_nan_are_values(function: str) -> None:
    values: Values = np.array([np.inf, -np.inf, np.nan, np.nan, np.inf, 1.0])
    column = FieldColumn(FieldType.FLOAT, values)
    table = aggregate_frames(
        [frame(v=column)], request(Call(function, "v", (50,)), group_by=("host",))
    )
    assert table.columns[0].values.shape == (2, 1)


def test_many_frames_merge_as_few_do() -> None:
    data = []
    for n in range(100):
        part = frame(v=floats(*(n + np.arange(6.0))))
        data.append(Frame(part.series, part.offsets, part.times + 30 * n, part.columns))
    names = ("count", "sum", "min", "last", "stddev")
    calls = tuple(Call(name, "v") for name in names)
    table = aggregate_frames(data, request(*calls))
    every = np.array([n + k for n in range(100) for k in range(6)], float)
    found = [column.values[0, 0] for column in table.columns]
    assert found[:4] == [600, every.sum(), 0, 104]
    assert found[4] == pytest.approx(np.std(every, ddof=1))


def test_newest_is_the_last_window_of_each_call_and_group_that_has_a_value() -> None:
    data = [frame(v=floats(1, 2, 3, 4, 5, 6, valid=(1, 1, 0, 1, 0, 0)), w=floats(*range(6)))]
    calls = Call("last", "v"), Call("percentile", "w", (30,)), Call("sum", "w")
    table = aggregate_frames(
        data, request(*calls, group_by=("host",), windows=Windows(20), newest=True)
    )
    last, percentile, total = table.columns
    assert (table.groups, table.windows.tolist()) == ([("a",), ("b",)], [0])
    assert last.times is not None
    assert (last.values.tolist(), last.times.tolist()) == ([[4], [2]], [[0], [10]])
    assert total.values.tolist() == [[5], [2]]
    # One value has no 30th percentile: the window before has it.
    assert percentile.valid.all()
    assert percentile.values.tolist() == [[3], [0]]


def test_newest_of_nothing_is_no_group() -> None:
    data = [frame(v=floats(1, 2, 3, 4, 5, 6))]
    table = aggregate_frames(
        data, request(Call("percentile", "v", (10,)), windows=Windows(10), newest=True)
    )
    assert (table.groups, table.columns[0].values.shape) == ([], (0, 0))
