"""A store that may work with a row at a time answers as the oracle does: frames and cells fold."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections import defaultdict
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from tests.property.test_windows_aggregate import (
    ACCEPTS,
    DTYPES,
    GRIDS,
    SIMPLE,
    TAG_VALUES,
    Data,
    Row,
    Value,
    cells_of,
    data_sets,
    oracle_integral,
    oracle_point,
)
from tinyflux.batch import BatchBuilder, FieldType, series_key
from tinyflux.columnar.base import AggregateRequest, AggregateTable, Call, ScanRequest
from tinyflux.columnar.memory import Memory
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.columnar.segments import Segments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinyflux.windows import Windows

GROUPINGS = st.sampled_from([(), ("a",), ("b", "a"), ("nokey",)])
FAR = 10**6  # a time that nobody asks for
SELECTORS = ("first", "last", "min", "max")


def fill(
    storage: ParquetStorage, data: Data, slices: list[tuple[int, int]], flushes: list[bool]
) -> None:
    """Write the rows by slices of time, which come in any order; flush after some."""
    builder = BatchBuilder()
    keys = []
    for i, codes in enumerate(data.tags):
        tags = [(key, TAG_VALUES[c]) for key, c in zip("ab", codes, strict=True) if c > 0]
        keys.append(series_key("m", [*tags, ("id", str(i))]))
        builder.add(keys[-1], FAR, [("o", 0)])  # so the series are numbered in this order
    storage.append_batch(builder.build())
    for number, (low, high) in enumerate(slices):
        for key, rows in zip(keys, data.rows, strict=True):
            for time, value, other in rows:
                if low <= time < high:
                    builder.add(key, time, [("v", value)] if value is not None else [("o", other)])
        storage.append_batch(builder.build())
        if flushes[number % len(flushes)]:
            storage.flush()


@pytest.fixture(scope="module", autouse=True)
def _small_row_groups() -> Iterator[None]:
    defaults = Segments.__init__.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(defaults, "row_group_rows", 4)
        yield


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_row_at_a_time_gives_what_all_rows_give(draws: st.DataObject) -> None:
    kind = draws.draw(st.sampled_from(sorted(DTYPES)))
    data = draws.draw(data_sets(kind))
    windows, group_by = draws.draw(GRIDS), draws.draw(GROUPINGS)
    edges = [-1000, *sorted(draws.draw(st.lists(st.integers(-40, 40), max_size=3))), 1000]
    slices = draws.draw(st.permutations(list(itertools.pairwise(edges))))
    flushes = draws.draw(st.lists(st.booleans(), min_size=1, max_size=4))
    frame_bytes = draws.draw(st.sampled_from([1, 300]))
    names = [name for name in SIMPLE if kind in ACCEPTS[name]]
    calls = [Call(name, "v") for name in names]
    if is_number := kind in ACCEPTS["integral"]:
        calls.append(Call("integral", "v", (60.0,)))
    memory = Memory(1 << 20, 1 << 20, 1 << 20, frame_bytes=frame_bytes)

    with (
        tempfile.TemporaryDirectory() as path,
        closing(ParquetStorage(path, overwrite=True, sync="off", memory=memory)) as storage,
    ):
        fill(storage, data, slices, flushes)
        scan = ScanRequest("m", start_ns=-1000, end_ns=1000)
        table = storage.aggregate(AggregateRequest(scan, tuple(calls), group_by, windows))
        newest = storage.aggregate(
            AggregateRequest(scan, tuple(calls), group_by, windows, newest=True)
        )
        points = {
            call: storage.aggregate(AggregateRequest(scan, (call,), group_by, windows))
            for call in selectors(kind)
        }
    assert memory.claimed_bytes == 0

    cells = cells_of(data, group_by, windows)
    for position, name in enumerate(names):
        expected = {cell: SIMPLE[name](rows) for cell, rows in cells.items()}
        check(name, values(table, position), expected)
    if is_number:
        check("integral", values(table, len(names)), areas(cells, windows))
    for position, call in enumerate(calls):
        last: dict[tuple[str, ...], Value] = {}
        for (group, _), value in values(table, position).items():  # windows ascend
            last[group] = value
        check(call.function, values(newest, position), {(g, 0): v for g, v in last.items()})
    for call, answer in points.items():
        rank = call.args[0] if call.args else 0.0
        chosen = {
            cell: oracle_point(call.function, rows, windows is not None, rank)
            for cell, rows in cells.items()
        }
        expected = {cell: point[2] for cell, point in chosen.items() if point is not None}
        check(call.function, values(answer, 0), expected)
        times = answer.columns[0].times
        assert times is not None
        for (group, number), point in chosen.items():
            if point is not None:
                g, w = answer.groups.index(group), answer.windows.tolist().index(number)
                assert times[g, w] == point[0], (call, group, number)


def selectors(kind: FieldType) -> list[Call]:
    names = SELECTORS[: 2 if kind is FieldType.STRING else 4]
    calls = [Call(name, "v") for name in names]
    if kind in ACCEPTS["percentile"]:
        calls += [Call("percentile", "v", (rank,)) for rank in (25.0, 50.0)]
    return calls


def values(table: AggregateTable, position: int) -> dict[tuple[tuple[str, ...], int], Value]:
    column = table.columns[position]
    return {
        (group, number): column.values[g, w]
        for g, group in enumerate(table.groups)
        for w, number in enumerate(table.windows.tolist())
        if column.valid[g, w]
    }


def areas(
    cells: dict[tuple[tuple[str, ...], int], list[Row]], windows: Windows | None
) -> dict[tuple[tuple[str, ...], int], Value]:
    by_group: dict[tuple[str, ...], list[tuple[int, list[Row]]]] = defaultdict(list)
    for (group, number), rows in cells.items():
        by_group[group].append((number, rows))
    return {
        (group, number): area
        for group, found in by_group.items()
        for number, area in oracle_integral(found, windows, 60.0).items()
    }


def check(
    name: str,
    found: dict[tuple[tuple[str, ...], int], Value],
    expected: dict[tuple[tuple[str, ...], int], Value],
) -> None:
    assert found.keys() == expected.keys(), name
    for cell, want in expected.items():
        if isinstance(want, float):
            is_close = math.isclose(found[cell], want, rel_tol=1e-9, abs_tol=1e-6)
            assert is_close or (math.isnan(found[cell]) and math.isnan(want)), (name, cell)
        else:
            assert found[cell] == want, (name, cell)
