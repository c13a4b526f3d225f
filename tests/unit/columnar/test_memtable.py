"""The memtable: grouping when read, views, runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tinyflux.batch import BatchBuilder, FieldType, series_key
from tinyflux.columnar import memtable as memtable_module
from tinyflux.columnar.allowance import TooMuch, at_most
from tinyflux.columnar.base import ScanRequest
from tinyflux.columnar.intake import Intake
from tinyflux.columnar.memtable import Memtable, MemtableView, Table
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.columnar.scan import arrange, merge_runs
from tinyflux.columnar.series import SeriesIndex

if TYPE_CHECKING:
    from pathlib import Path

    from tinyflux.columnar.scan import Run


class Writer:
    """A memtable with what feeds it."""

    def __init__(self, *, overwrite: bool = False) -> None:
        self.index = SeriesIndex()
        self.intake = Intake(self.index, overwrite=overwrite)
        self.memtable = Memtable(self.intake.shapes, overwrite=overwrite)

    def write(self, *points: tuple[str, int, dict[str, Any]]) -> None:
        builder = BatchBuilder()
        for measurement, time, fields in points:
            builder.add(series_key(measurement, []), time, fields.items())
        self.memtable.append(self.intake.take(builder.build()).block)

    def runs(self, measurement: str, view: MemtableView | None = None) -> tuple[Run, ...]:
        number = self.index.view().number(measurement)
        return (view or self.memtable.view()).sources(number)

    def times(self, measurement: str, view: MemtableView | None = None) -> list[int]:
        return sorted(t for run in self.runs(measurement, view) for t in run.times.tolist())


def test_shapes_that_alternate_keep_the_order_of_arrival() -> None:
    writer = Writer(overwrite=True)
    writer.write(
        ("cpu", 1, {"a": 1}),
        ("cpu", 1, {"a": 2, "b": 2.5}),
        ("cpu", 1, {"c": "x"}),
        ("cpu", 1, {"a": 3}),
    )
    (run,) = writer.runs("cpu")
    assert {name: column.values.tolist() for name, column in run.columns.items()} == {
        "a": [3],
        "b": [2.5],
        "c": ["x"],
    }


def test_all_field_types_come_back() -> None:
    writer = Writer()
    fields = {"f": -0.0, "i": -(2**63), "s": "ü", "b": False, "n": None}
    writer.write(("cpu", 1, fields))
    (run,) = writer.runs("cpu")
    kinds = {name: column.type for name, column in run.columns.items()}
    assert kinds == {
        "f": FieldType.FLOAT,
        "i": FieldType.INTEGER,
        "s": FieldType.STRING,
        "b": FieldType.BOOLEAN,
        "n": FieldType.NONE,
    }
    assert np.signbit(run.columns["f"].values).tolist() == [True]
    assert run.columns["i"].values.tolist() == [-(2**63)]
    assert run.columns["s"].values.tolist() == ["ü"]
    assert run.columns["b"].values.tolist() == [False]
    none = run.columns["n"].none
    assert none is not None
    assert none.tolist() == [True]


def test_strings_of_several_blocks_are_kept_apart() -> None:
    writer = Writer()
    writer.write(("cpu", 1, {"s": "a"}), ("cpu", 2, {"s": "b"}))
    writer.write(("mem", 3, {"s": "c", "t": "d"}))
    writer.write(("cpu", 4, {"t": "e", "s": "f"}))
    (run,) = writer.runs("cpu")
    column = run.columns["s"]
    assert column.values[column.mask()].tolist() == ["a", "b", "f"]
    (run,) = writer.runs("mem")
    assert run.columns["t"].values.tolist() == ["d"]


def test_a_point_without_fields_is_a_row() -> None:
    writer = Writer()
    writer.write(("cpu", 1, {}), ("cpu", 2, {"a": 1}))
    assert writer.times("cpu") == [1, 2]


def test_a_view_does_not_see_later_blocks_whoever_reads_first() -> None:
    writer = Writer()
    views = []
    for time in range(4):
        writer.write(("cpu", time, {"a": time}))
        views.append(writer.memtable.view())
    for time in (3, 0, 2, 1):  # the newest groups first, the others find it done
        assert writer.times("cpu", views[time]) == list(range(time + 1))


def test_small_writes_and_reads_keep_few_runs() -> None:
    writer = Writer()
    for time in range(1000):
        writer.write(("cpu", time, {"a": time}))
        assert writer.memtable.view().measurements() == [0]
        assert len(writer.runs("cpu")) <= 10
    assert writer.times("cpu") == list(range(1000))


def test_the_writer_sorts_and_merges_what_somebody_reads() -> None:
    writer = Writer(overwrite=True)
    builder = BatchBuilder()
    for time in range(5000):
        builder.add(series_key("cpu", []), time, [("a", time)])
    batch = builder.build()
    for n_written in range(1, 61):
        writer.memtable.append(writer.intake.take(batch).block)
        writer.memtable.tidy()
        tables, waiting = writer.memtable._state
        if n_written == 1:  # nobody read so far
            assert len(waiting) == 1
            writer.runs("cpu")
        else:
            assert not waiting
            assert not tables[0]._sorted.pieces
    assert len(writer.runs("cpu")) <= 16
    merged = merge_runs(writer.runs("cpu"), overwrite=True)
    assert merged.times.tolist() == list(range(5000))


def test_the_writer_sorts_what_was_read_in_the_memtable_before(tmp_path: Path) -> None:
    builder = BatchBuilder()
    for time in range(5000):
        builder.add(series_key(("cpu", "mem")[time % 2], []), time, [("a", time)])
    batch = builder.build()
    storage = ParquetStorage(tmp_path)
    storage.append_batch(batch)
    list(storage.scan(ScanRequest("cpu")))
    storage.flush()  # which reads all of the memtable, and begins another one
    storage.append_batch(batch)
    memtable = storage._state.layers.memtable
    memtable.tidy()
    tables, waiting = memtable._state
    storage.close()
    assert not waiting
    cpu, mem = (tables[number]._sorted for number in sorted(tables))
    assert not cpu.pieces
    assert mem.pieces


def test_readers_see_all_that_was_written_while_the_writer_tidies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in [("_FAN", 2), ("_TIDY_POINTS", 1), ("_TIDY_POINTS_A_TABLE", 1)]:
        monkeypatch.setattr(memtable_module, name, value)
    monkeypatch.setattr(memtable_module, "_BY_READERS", (0, 2, 8))
    monkeypatch.setattr(memtable_module, "_BY_WRITER", (8, 64, 512))
    writer = Writer(overwrite=True)
    n_times, n_writes = 7, 600
    written = 0
    failures: list[object] = []

    def read() -> None:
        while written < n_writes and not failures:
            least = written
            run = merge_runs(writer.runs("cpu"), overwrite=True)
            found = dict(zip(run.times.tolist(), run.columns["a"].values.tolist(), strict=True))
            # The last write of each time that was there before; the next may be there, too.
            for number in range(max(0, least - n_times), least):
                if found.get(number % n_times, -1) < number:
                    failures.append((number, found))

    writer.write(("cpu", 0, {"a": 0}))
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(n_writes):
        writer.write(("cpu", number % n_times, {"a": number}))
        written = number + 1
        writer.memtable.tidy()
        if number % 50 == 0:
            writer.memtable.rewrite([0], lambda run: run)
    for reader in readers:
        reader.join()
    assert not failures
    run = merge_runs(writer.runs("cpu"), overwrite=True)
    assert run.columns["a"].values.tolist() == [
        max(n for n in range(n_writes) if n % n_times == time) for time in range(n_times)
    ]


def test_sorting_one_measurement_delays_no_reader_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = Writer()
    writer.write(("cpu", 2, {"a": 1}), ("cpu", 1, {"a": 1}), ("mem", 1, {"a": 1}))
    is_sorting, may_end = threading.Event(), threading.Event()

    def arrange_slowly(ids: Any, times: Any, *args: Any, **options: Any) -> Run:
        if len(times) == 2:
            is_sorting.set()
            assert may_end.wait(30)
        return arrange(ids, times, *args, **options)

    monkeypatch.setattr(memtable_module, "arrange", arrange_slowly)
    sorter = threading.Thread(target=writer.runs, args=("cpu",))
    sorter.start()
    try:
        assert is_sorting.wait(30)
        assert writer.times("mem") == [1]
        with at_most(1000), pytest.raises(TooMuch):  # an event loop does not wait for the other
            writer.runs("cpu")
    finally:
        may_end.set()
        sorter.join()
    with at_most(1000):
        assert writer.times("cpu") == [1, 2]


def test_a_delete_is_not_undone_by_a_merge_that_was_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memtable_module, "_FAN", 2)
    monkeypatch.setattr(memtable_module, "_BY_READERS", (0,))
    monkeypatch.setattr(memtable_module, "_BY_WRITER", (0, 100))
    writer = Writer(overwrite=True)
    for time in range(2):
        writer.write(("cpu", time, {"a": time}))
        writer.runs("cpu")

    def merge_and_delete(runs: list[Run], *, overwrite: bool) -> Run:
        merged = merge_runs(runs, overwrite=overwrite)
        monkeypatch.undo()
        writer.memtable.rewrite([0], lambda run: run.keep(run.times > 0))
        return merged

    monkeypatch.setattr(memtable_module, "merge_runs", merge_and_delete)
    writer.memtable.tidy()
    assert writer.times("cpu") == [1]


def test_a_measurement_that_nobody_reads_is_sorted_now_and_then() -> None:
    writer = Writer()
    for time in range(1000):
        writer.write(("cpu", time, {"a": time}), ("mem", time, {"a": time}))
        writer.runs("cpu")
    table: Table = writer.memtable._state.tables[1]
    assert len(table._sorted.pieces) < 300
    assert writer.times("mem") == list(range(1000))


def test_rewriting_leaves_views_as_they_were() -> None:
    writer = Writer()
    writer.write(("cpu", 1, {"a": 1}), ("cpu", 2, {"a": 2}), ("mem", 3, {"a": 3}))
    view = writer.memtable.view()
    writer.memtable.rewrite([0], lambda run: run.keep(run.times > 1))
    assert writer.times("cpu") == [2]
    assert writer.memtable.n_points == 2
    writer.memtable.drop(0)
    assert writer.times("cpu") == []
    assert writer.times("mem") == [3]
    assert writer.times("cpu", view) == [1, 2]


def test_blocks_are_distributed_in_bounded_pieces() -> None:
    writer = Writer()
    n = 5000
    builder = BatchBuilder()
    for i in range(n):
        builder.add(series_key("cpu", [("host", str(i % 7))]), i, [("a", i), ("s", str(i))])
    batch = builder.build()
    writer.memtable.append(writer.intake.take(batch).block)
    (run,) = writer.runs("cpu")
    for array in (run.times, *(column.values for column in run.columns.values())):
        assert not np.shares_memory(array, batch.times)
        assert not np.shares_memory(array, batch.values)


def test_readers_and_a_writer_do_not_disturb_each_other() -> None:
    writer = Writer()
    done = threading.Event()
    failures: list[str] = []

    def read() -> None:
        newest = 0
        while not done.is_set():
            times = writer.times("cpu")
            if times != list(range(len(times))) or len(times) < newest:
                failures.append(f"{len(times)} after {newest}")
            newest = len(times)

    readers = [threading.Thread(target=read) for _ in range(3)]
    writer.write(("cpu", 0, {"a": 0}))
    for thread in readers:
        thread.start()
    for time in range(1, 2000):
        writer.write(("cpu", time, {"a": time}))
    done.set()
    for thread in readers:
        thread.join(60)
    assert not failures
    assert writer.times("cpu") == list(range(2000))
