"""Segments: what was written comes back, exactly what was asked for, and damage is found."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # no stubs installed
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.unit.columnar_segments.builders import run_of, series_of
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, FieldType
from tinyflux.columnar.base import FieldColumn
from tinyflux.columnar.chunks import ChunkCache
from tinyflux.columnar.files import OsFiles
from tinyflux.columnar.segment import Segment
from tinyflux.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.unit.columnar_segments.conftest import MakeSegment
    from tinyflux.columnar.scan import Run

INT64 = np.iinfo(np.int64)
ALL = (MIN_TIME_NS, MAX_TIME_NS)


def column(
    kind: FieldType, values: Sequence[object], valid: Sequence[bool] | None = None
) -> FieldColumn:
    dtype = {
        FieldType.FLOAT: np.float64,
        FieldType.INTEGER: np.int64,
        FieldType.BOOLEAN: np.bool_,
        FieldType.STRING: np.object_,
    }[kind]
    return FieldColumn(
        kind, np.array(values, dtype), None if valid is None else np.array(valid, np.bool_)
    )


class OneGroupAtATime(ChunkCache):
    """A cache so small that row groups are decoded one by one."""

    read_bytes = 1


def content(run: Run) -> dict[int, list[tuple[object, ...]]]:
    """Return the rows of each series: time and (field, value as exact text) pairs."""
    rows: dict[int, list[tuple[object, ...]]] = {}
    for i, series_id in enumerate(run.ids.tolist()):
        rows[series_id] = []
        for row in range(run.offsets[i], run.offsets[i + 1]):
            cells: list[object] = [int(run.times[row])]
            for name, data in sorted(run.columns.items()):
                value: object = None
                if data.mask()[row]:
                    value = data.values[row]
                    value = value.item().hex() if isinstance(value, np.float64) else value
                cells.append((name, data.type, value, data.none is not None and data.none[row]))
            rows[series_id].append(tuple(cells))
    return rows


def rich_run() -> Run:
    times = [MIN_TIME_NS, -1, 0, 1_700_000_000_123_456_789, MAX_TIME_NS]
    return run_of(
        {3: times, 2**31 + 7: [5, 6]},
        {
            "f": column(
                FieldType.FLOAT,
                [np.nan, -0.0, np.inf, 5e-324, 0.1, 1e308, 2.0],
                [True] * 6 + [False],
            ),
            "i": column(FieldType.INTEGER, [INT64.min, INT64.max, 0, -1, 1, 2**53 + 1, 7]),
            "b": column(FieldType.BOOLEAN, [True, False, True, True, False, False, True]),
            "s": column(
                FieldType.STRING,
                ["", "ä€😀", "a\nb\0c", "x" * 70_000, "x", "x", "?"],
                [True] * 6 + [False],
            ),
            "n": FieldColumn(
                FieldType.FLOAT,
                np.arange(7.0),
                np.array([True, False] * 3 + [True]),
                np.array([False, True, False, False, False, False, False]),
            ),
            "only none": FieldColumn(
                FieldType.NONE,
                np.zeros(7, np.bool_),
                np.zeros(7, np.bool_),
                np.array([True, False] * 3 + [True]),
            ),
        },
    )


@pytest.mark.parametrize("group_rows", [1, 2, 3, 7, 8])
def test_segment_gives_back_every_bit(make_segment: MakeSegment, group_rows: int) -> None:
    run = rich_run()
    segment = make_segment(run, group_rows=group_rows)
    assert content(segment.read(run.ids, *ALL)) == content(run)
    assert content(segment.read_all()) == content(run)
    assert len(segment) == 7
    assert segment.series_ids().tolist() == run.ids.tolist()


def test_segment_reads_only_the_asked_fields(make_segment: MakeSegment) -> None:
    run = rich_run()
    found = make_segment(run).read(run.ids, *ALL, ("i", "unknown"))
    assert list(found.columns) == ["i"]
    assert list(make_segment(run).read(run.ids, *ALL, ()).columns) == []


def test_segment_of_only_series_it_does_not_have_is_empty(make_segment: MakeSegment) -> None:
    segment = make_segment(rich_run())
    ids = np.array([0, 4, 10**12])
    assert len(segment.read(ids, *ALL)) == 0
    assert segment.rows(ids, *ALL).tolist() == [0, 0, 0]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.dictionaries(
        st.integers(0, 12), st.lists(st.integers(-20, 20), min_size=1, max_size=25), min_size=1
    ),
    ids=st.sets(st.integers(-1, 13)),
    bounds=st.tuples(st.integers(-22, 22), st.integers(-22, 22)),
    group_rows=st.sampled_from([1, 4, 5, 64]),
    cache=st.sampled_from([ChunkCache, OneGroupAtATime]),
)
def test_segment_reads_exactly_the_rows_asked_for(
    make_segment: MakeSegment,
    rows: dict[int, list[int]],
    ids: set[int],
    bounds: tuple[int, int],
    group_rows: int,
    cache: type[ChunkCache],
) -> None:
    ordered = {series_id: sorted(rows[series_id]) for series_id in sorted(rows)}
    n = sum(map(len, ordered.values()))
    run = run_of(ordered, {"v": column(FieldType.INTEGER, range(n))})
    segment = make_segment(run, group_rows=group_rows, cache=cache())
    wanted = np.array(sorted(ids), np.int64)
    expected, number = {}, 0
    for series_id, times in ordered.items():
        kept = []
        for time in times:
            if series_id in ids and bounds[0] <= time <= bounds[1]:
                kept.append((time, ("v", FieldType.INTEGER, number, False)))
            number += 1
        if kept:
            expected[series_id] = kept
    for _ in range(2):  # out of the file, out of the cache
        assert content(segment.read(wanted, *bounds)) == expected
    for limit in (1, -2):
        found = content(segment.read(wanted, *bounds, limit=limit))
        assert found.keys() == expected.keys()
        for series_id, kept in expected.items():
            some = kept[:limit] if limit > 0 else kept[limit:]
            assert set(some) <= set(found[series_id]) <= set(kept)
    upper = dict(zip(wanted.tolist(), segment.rows(wanted, *bounds).tolist(), strict=True))
    assert all(upper[series_id] >= len(kept) for series_id, kept in expected.items())


def test_segment_file_opens_in_pandas_with_tags_and_typed_columns(
    make_segment: MakeSegment,
) -> None:
    run = run_of(
        {1: [0, 10], 2: [1_700_000_000_000_000_001]},
        {
            "usage": column(FieldType.FLOAT, [1.5, 2.5, 3.5], [True, False, True]),
            "n": column(FieldType.INTEGER, [1, 2, 3]),
            "up": column(FieldType.BOOLEAN, [True, False, True]),
            "state": column(FieldType.STRING, ["a", "b", "a"]),
        },
    )
    segment = make_segment(run, series_of([1, 2], {"host": ["a", "b"], "rack": ["-", "7"]}))
    frame = pd.read_parquet(segment.path)
    assert frame["host"].tolist() == ["a", "a", "b"]
    assert frame["rack"].isna().tolist() == [True, True, False]
    assert frame["usage"].isna().tolist() == [False, True, False]
    assert frame["n"].tolist() == [1, 2, 3]
    assert frame["up"].tolist() == [True, False, True]
    assert frame["state"].tolist() == ["a", "b", "a"]
    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"
    assert frame["time"][0] == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert frame["time"].astype(np.int64).tolist() == [0, 10, 1_700_000_000_000_000_001]


def test_segment_renames_columns_whose_names_clash(make_segment: MakeSegment) -> None:
    ones = column(FieldType.INTEGER, [1, 2])
    nones = FieldColumn(FieldType.INTEGER, ones.values, np.array([True, False]), ~np.ones(2, bool))
    run = run_of({1: [5, 6]}, {"time": ones, "host": ones, "host.tag": ones, "x": nones})
    tags = series_of([1], {"host": ["a"], "time": ["b"], "x.none": ["c"]})
    segment = make_segment(run, tags)
    assert pq.read_schema(segment.path).names == [
        "time", "host.tag.tag", "time.tag", "x.none", "time.field", "host", "host.tag", "x",
        "x.none.none",
    ]  # fmt: skip
    assert content(segment.read(run.ids, *ALL)) == content(run)


def test_segment_finds_every_flipped_bit_that_matters(make_segment: MakeSegment) -> None:
    run = run_of(
        {1: list(range(40)), 2: list(range(7))},
        {
            "f": column(FieldType.FLOAT, np.random.default_rng(1).random(47).tolist()),
            "s": column(FieldType.STRING, ["a", "b"] * 23 + ["c"], [True] * 46 + [False]),
        },
    )
    segment = make_segment(run, series_of([1, 2], {"host": ["a", "b"]}), group_rows=20)
    expected = content(run)
    good = segment.path.read_bytes()
    undetected = 0
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        segment.path.write_bytes(bad)
        try:
            found = content(
                Segment(segment.path, segment.info, ChunkCache(), OsFiles()).read(run.ids, *ALL)
            )
        except CorruptionError:
            continue
        undetected += 1  # in what we do not read: tags, the first magic
        assert found == expected, f"byte {place}"
    assert undetected < len(good) // 4


@pytest.mark.parametrize("keep", [0, 3, 7, 100, -1])
def test_segment_that_was_cut_is_corrupt(make_segment: MakeSegment, keep: int) -> None:
    run = rich_run()
    segment = make_segment(run)
    segment.path.write_bytes(segment.path.read_bytes()[:keep])
    with pytest.raises(CorruptionError):
        segment.read(run.ids, *ALL)


def test_segment_that_is_missing_is_corrupt_not_empty(make_segment: MakeSegment) -> None:
    run = rich_run()
    segment = make_segment(run)
    segment.path.unlink()
    with pytest.raises(CorruptionError, match="missing"):
        segment.read(run.ids, *ALL)


def test_segment_outside_the_asked_time_is_not_opened(make_segment: MakeSegment) -> None:
    run = run_of({1: [5, 6]}, {"v": column(FieldType.INTEGER, [1, 2])})
    segment = make_segment(run)
    segment.path.unlink()
    assert len(segment.read(run.ids, 7, 100)) == 0
    assert segment.rows(run.ids, -5, 4).tolist() == [0]


def test_cache_keeps_to_its_bound(make_segment: MakeSegment) -> None:
    cache = ChunkCache(20_000)
    n = 3000
    run = run_of({1: list(range(n))}, {"v": column(FieldType.INTEGER, range(n))})
    segment = make_segment(run, group_rows=100, cache=cache)
    for start in range(0, n, 50):
        found = segment.read(run.ids, start, start + 49)
        assert found.columns["v"].values.tolist() == list(range(start, start + 50))
    assert 0 < cache.n_bytes <= cache.max_bytes
    segment.forget_chunks()
    assert (len(cache), cache.n_bytes) == (0, 0)


def test_numbers_that_repeat_are_stored_small(make_segment: MakeSegment) -> None:
    rng = np.random.default_rng(3)
    n = 20_000
    few = rng.choice(rng.random(20), n)  # 17 digits, 20 distinct: about 4.3 bits of information
    counter = np.cumsum(rng.integers(0, 5, n))
    whole = rng.integers(0, 100, n).astype(float)
    run = run_of(
        {1: list(range(0, n * 10, 10))},
        {
            "few": FieldColumn(FieldType.FLOAT, few),
            "counter": FieldColumn(FieldType.INTEGER, counter),
            "whole": FieldColumn(FieldType.FLOAT, whole),
        },
    )
    segment = make_segment(run, group_rows=n)
    row_group = pq.read_metadata(segment.path).row_group(0)
    per_value = {
        row_group.column(i).path_in_schema: row_group.column(i).total_compressed_size / n
        for i in range(4)
    }
    assert per_value["time"] < 0.02
    assert per_value["few"] < 0.8
    assert per_value["counter"] < 0.6
    assert per_value["whole"] < 1.1


def test_importing_the_module_does_not_import_pyarrow() -> None:
    code = "import sys, tinyflux.columnar.segment; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_segment_reads_a_short_time_of_a_long_series(make_segment: MakeSegment) -> None:
    run = run_of({1: range(100), 2: range(50, 60)}, {"v": column(FieldType.INTEGER, range(110))})
    segment = make_segment(run, group_rows=10)
    for start in range(0, 100, 7):
        for end in (start, start + 3, start + 25, 99):
            found = segment.read(np.array([1]), start, end)
            expected = list(range(start, min(end, 99) + 1))
            assert found.columns["v"].values.tolist() == found.times.tolist() == expected
