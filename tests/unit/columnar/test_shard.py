"""Which shard a time belongs to: a grid, cut off by the shards that are there."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.columnar.base import Shard
from tinyflux.columnar.scan import Run, arrange
from tinyflux.columnar.shard import ShardMap

SECOND = 10**9
HOUR = 3600 * SECOND
DAY = 24 * HOUR


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def run_of(times: list[int]) -> Run:
    return arrange(np.arange(len(times)) % 3, np.array(times, np.int64), {}, overwrite=False)


@pytest.mark.parametrize(
    ("duration", "time", "first", "end"),
    [  # what influxd 1.6.7 showed
        (7 * DAY, "2023-11-14T22:13:20", "2023-11-13", "2023-11-20"),
        (7 * DAY, "1970-01-01", "1969-12-29", "1970-01-05"),
        (30 * DAY, "2023-11-03T08:26:40", "2023-10-18", "2023-11-17"),
        (30 * DAY, "2023-11-26T12:00:00", "2023-11-17", "2023-12-17"),
        (DAY, "2026-11-28T01:53:53", "2026-11-28", "2026-11-29"),
        (HOUR, "2023-12-17T08:53:20", "2023-12-17T08", "2023-12-17T09"),
    ],
)
def test_new_shards_begin_where_influxds_do(duration: int, time: str, first: str, end: str) -> None:
    assert ShardMap(duration).at(ns(time)) == Shard(ns(first), ns(end) - 1)


def test_the_first_and_the_last_shard_end_with_the_times_there_are() -> None:
    shards = ShardMap(7 * DAY)
    first, last = shards.at(MIN_TIME_NS), shards.at(MAX_TIME_NS)
    assert first == Shard(MIN_TIME_NS, ns("1677-09-27") - 1)
    assert last == Shard(ns("2262-04-07"), MAX_TIME_NS)
    assert shards.at(MIN_TIME_NS - 10 * DAY) == first
    assert shards.at(MAX_TIME_NS + 10 * DAY) == last


def test_a_new_shard_ends_where_an_old_one_begins() -> None:
    week = Shard(ns("2023-11-13"), ns("2023-11-20") - 1)
    shards = ShardMap(30 * DAY, (week,))
    assert shards.at(ns("2023-11-13")) == week
    assert shards.at(ns("2023-11-01")) == Shard(ns("2023-10-18"), ns("2023-11-13") - 1)
    assert shards.at(ns("2023-11-20")) == Shard(ns("2023-11-20"), ns("2023-12-17") - 1)
    assert shards.at(ns("2023-12-17")) == Shard(ns("2023-12-17"), ns("2024-01-16") - 1)


@given(
    bounds=st.sets(st.integers(-40, 40), max_size=8).map(sorted),
    duration=st.integers(1, 30),
    times=st.lists(st.integers(-50, 50), max_size=20),
)
@settings(max_examples=200)
def test_rows_are_split_into_shards_that_do_not_overlap(
    bounds: list[int], duration: int, times: list[int]
) -> None:
    there = tuple(Shard(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=False))
    shards = ShardMap(duration, there)
    parts = list(shards.split(run_of(times)))
    assert [shard for shard, _ in parts] == sorted({shards.at(time) for time in times})
    for shard, part in parts:
        assert sorted(part.times) == sorted(t for t in times if shard[0] <= t <= shard[1])
        assert shard in there or shard.last_ns - shard.first_ns < duration
    every = sorted({*there, *(shard for shard, _ in parts)})
    assert all(one.last_ns < other.first_ns for one, other in pairwise(every))
