"""Threads: one database, many users; nothing is lost and nobody sees half a write."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tinyflux import FieldQuery, Point, TagQuery, TimeQuery

if TYPE_CHECKING:
    from tinyflux import TinyFlux

T = datetime(2024, 1, 1, tzinfo=UTC)
EVERYTHING = TagQuery().noop()
THREADS = 8
ROUNDS = 20


def test_eight_threads_writing_lose_nothing(db: TinyFlux) -> None:
    start = threading.Barrier(THREADS)

    def hammer(thread: int) -> None:
        start.wait()
        for round_ in range(ROUNDS):
            time = T + timedelta(seconds=thread * ROUNDS + round_)
            db.insert(Point(time=time, tags={"thread": str(thread)}, fields={"n": round_}))
            assert db.count(TagQuery().thread == str(thread)) == round_ + 1
            assert len(db.search(TimeQuery() == time)) == 1

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(hammer, thread) for thread in range(THREADS)]:
            done.result()
    assert len(db) == THREADS * ROUNDS
    for thread in range(THREADS):
        found = db.select("fields.n", TagQuery().thread == str(thread))
        assert sorted(found) == list(range(ROUNDS))


def test_readers_see_batches_and_updates_whole(db: TinyFlux) -> None:
    stop = threading.Event()

    def write() -> None:
        try:
            for i in range(ROUNDS):
                db.insert_multiple([Point(time=T, fields={"i": i, "v": 0}) for _ in range(10)])
                db.update(FieldQuery().i == i, fields={"v": 1})
                if i % 3 == 2:
                    db.remove(FieldQuery().i == i)
        finally:
            stop.set()

    def read() -> int:
        rounds = 0
        while not stop.is_set() or not rounds:
            values = db.select(["fields.i", "fields.v"], EVERYTHING)
            assert len(values) % 10 == 0
            for i in {i for i, _ in values}:
                assert len({v for j, v in values if j == i}) == 1
            assert len(list(db)) % 10 == 0
            rounds += 1
        return rounds

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        pool.submit(write).result()
        assert all(reader.result() > 0 for reader in readers)
    assert len(db) == 10 * (ROUNDS - ROUNDS // 3)
