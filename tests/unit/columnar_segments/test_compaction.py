"""Which segments become one."""

from __future__ import annotations

import random

from tinyflux.columnar.compaction import choose
from tinyflux.columnar.footer import SegmentInfo


def info(order: int, rows: int, measurement: str = "m", shard_ns: int = 0) -> SegmentInfo:
    return SegmentInfo(order, measurement, shard_ns, order, rows, 0, 1, 100, 0)


def orders(segments: list[SegmentInfo]) -> list[int]:
    return [segment.order for segment in segments]


def test_few_segments_are_left_alone() -> None:
    assert choose([]) == []
    assert choose([info(n, 10) for n in range(3)]) == []


def test_alike_segments_merge_oldest_first() -> None:
    assert orders(choose([info(n, 10) for n in (3, 0, 2, 1)])) == [0, 1, 2, 3]


def test_a_segment_much_larger_than_all_newer_ones_stays() -> None:
    segments = [info(0, 1000), *(info(n, 10) for n in range(1, 6))]
    assert orders(choose(segments)) == [1, 2, 3, 4, 5]


def test_measurements_and_shards_do_not_mix() -> None:
    segments = [info(n, 10, "ab"[n % 2], n % 4 // 2) for n in range(12)]
    assert choose(segments) == []
    more = [*segments, info(12, 10, "a", 0)]
    assert orders(choose(more)) == [0, 4, 8, 12]


def test_a_merged_segment_has_at_most_the_rows_that_are_allowed() -> None:
    segments = [info(n, 10) for n in range(10)]
    assert orders(choose(segments, max_rows=55)) == [5, 6, 7, 8, 9]
    assert choose(segments, max_rows=35) == []


def test_segments_stay_few_and_rows_are_seldom_written_again() -> None:
    chance = random.Random(1)
    segments: list[SegmentInfo] = []
    written = total = 0
    for order in range(2000):
        rows = chance.randint(1, 100)
        total += rows
        segments.append(info(order, rows))
        while chosen := choose(segments):
            merged = info(chosen[-1].order, sum(segment.rows for segment in chosen))
            written += merged.rows
            segments = [segment for segment in segments if segment not in chosen] + [merged]
        assert len(segments) < 25
    assert sum(segment.rows for segment in segments) == total
    assert written < 8 * total
