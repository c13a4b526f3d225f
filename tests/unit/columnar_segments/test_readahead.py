"""Read-ahead: what is missed again and again is read to its end, nothing else is."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from tests.unit.columnar_segments.builders import run_of
from tinyflux.batch import FieldType
from tinyflux.columnar.base import FieldColumn
from tinyflux.columnar.chunks import ChunkCache
from tinyflux.columnar.readahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.unit.columnar_segments.conftest import MakeSegment


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_columns_are_read_once_they_were_missed_twice() -> None:
    ahead, read = ReadAhead(800, lambda _: False), list[list[str]]()
    is_read = threading.Event()

    def read_rest(names: Sequence[str]) -> None:
        read.append(sorted(names))
        is_read.set()

    ahead.missed("segment", ["time", "a"], 100, read_rest)
    ahead.missed("another", ["a"], 100, read_rest)
    ahead.missed("segment", ["time", "b"], 100, read_rest)
    assert is_read.wait(10)
    for _ in range(3):  # neither again, nor what was missed once
        ahead.missed("segment", ["time"], 100, read_rest)
    is_read.clear()
    ahead.missed("segment", ["a", "b"], 100, read_rest)
    assert is_read.wait(10)
    assert read == [["time"], ["a", "b"]]


def test_column_that_would_fill_the_cache_is_not_read() -> None:
    read = list[str]()
    ahead = ReadAhead(800, lambda _: False)
    for _ in range(3):
        ahead.missed("segment", ["a"], 101, read.extend)
    assert not ahead._waiting
    assert not read


def test_reading_goes_on_behind_what_cannot_be_read() -> None:
    ahead, is_read = ReadAhead(800, lambda _: False), threading.Event()

    def fail(_: Sequence[str]) -> None:
        raise OSError("gone")

    for segment, read_rest in (("a", fail), ("b", lambda _: is_read.set())):
        for _ in range(2):
            ahead.missed(segment, ["x"], 1, read_rest)
    assert is_read.wait(10)


def test_columns_of_a_segment_are_decoded_to_their_end(make_segment: MakeSegment) -> None:
    n, cache = 800, ChunkCache()
    numbers = FieldColumn(FieldType.INTEGER, np.arange(n))
    run = run_of({1: list(range(n))}, {"v": numbers, "w": numbers})
    segment = make_segment(run, group_rows=100, cache=cache)
    for start in (0, 300):
        segment.read(run.ids, start, start + 9, ("v",))
    wait_until(lambda: len(cache) == 1 + 3)  # the footer; time, v and then w, whole
    segment.path.unlink()
    for start, end in ((0, n), (150, 349), (n - 1, n)):
        found = segment.read(run.ids, start, end, ("v", "w"))
        for name in ("v", "w"):
            assert found.columns[name].values.tolist() == list(range(n))[start : end + 1]


def test_columns_nobody_asked_for_are_read_last_and_into_free_room_only() -> None:
    read, may_read, room = list[list[str]](), threading.Event(), [2]

    def has_room(_: int) -> bool:
        room[0] -= 1
        return room[0] >= 0

    def read_rest(names: Sequence[str]) -> None:
        assert may_read.wait(10)
        read.append(sorted(names))

    ahead = ReadAhead(800, has_room)
    for segment in ("one", "two"):
        for _ in range(2):
            ahead.missed(segment, ["a"], 100, read_rest, ["b", "c", "d"])
    may_read.set()
    wait_until(lambda: not ahead._is_working)
    assert read[:2] == [["a"], ["a"]]
    assert len(read) == 2 + 2
    assert not ahead._others


def test_segment_that_was_replaced_is_not_read_ahead(make_segment: MakeSegment) -> None:
    n, cache = 800, ChunkCache()
    run = run_of({1: list(range(n))}, {"v": FieldColumn(FieldType.INTEGER, np.arange(n))})
    segment = make_segment(run, group_rows=100, cache=cache)
    segment.read(run.ids, 0, 9)
    segment.forget_chunks()
    segment.read(run.ids, 0, 9)  # somebody has an older snapshot
    wait_until(lambda: not cache.ahead._is_working)
    assert len(cache) == 1 + 2
