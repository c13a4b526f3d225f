"""The writer thread: order, acknowledgement, bounds, and what a failing disk becomes."""

from __future__ import annotations

import gzip
import threading
from typing import TYPE_CHECKING

import pytest

from gateway.config import Settings
from gateway.errors import BadRequest, DatabaseNotFound, Overloaded, RetentionPolicyNotFound
from gateway.metrics import Metrics
from gateway.policies import PolicyChange
from gateway.running import RunningQueries
from gateway.writer import Write, Writer
from tinyflux.columnar.base import ScanRequest, WriteResult
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import StorageError, StorageReadOnly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gateway.catalog import Catalog
    from tinyflux.batch import PointBatch

    Durable = Callable[[Exception | None], None]

PATIENCE_S = 30.0


@pytest.fixture
def writer(catalog: Catalog) -> Iterator[Writer]:
    catalog.create_database("t")
    writer = Writer(catalog, Settings(), Metrics())
    yield writer
    writer.close()


def outcome(writer: Writer, write: Write) -> Exception | None:
    """Store a body and return what `done` heard."""
    heard: list[Exception | None] = []
    answered = threading.Event()

    def done(error: Exception | None) -> None:
        heard.append(error)
        answered.set()

    writer.submit(write, done)
    assert answered.wait(PATIENCE_S)
    assert len(heard) == 1
    return heard[0]


def test_good_body_is_acknowledged_and_can_be_read(catalog: Catalog, writer: Writer) -> None:
    assert outcome(writer, Write(b"m v=1 1\n", "t")) is None
    assert catalog.storage("t").measurements() == ["m"]


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (Write(b"m v=1 1\n", "nodb"), DatabaseNotFound),
        (Write(b"m v=1 1\n", "t", "norp"), RetentionPolicyNotFound),
        (Write(b"bad\n", "t"), BadRequest),
        (Write(b"m v=1 1\n", "t", precision="zz"), BadRequest),
        (Write(b"m v=1 1\n", "t", consistency="zz"), BadRequest),
        (Write(b"m v=1 1\n", "t", coding="gzip"), BadRequest),
    ],
    ids=["database", "policy", "line", "precision", "consistency", "coding"],
)
def test_refused_body_says_why_and_the_next_is_taken(
    writer: Writer, write: Write, kind: type[Exception]
) -> None:
    assert isinstance(outcome(writer, write), kind)
    assert outcome(writer, Write(b"m v=1 1\n", "t")) is None


def test_first_reason_of_a_partial_write_stands_for_all_that_was_dropped(
    catalog: Catalog, writer: Writer
) -> None:
    catalog.create_policy("t", "short", PolicyChange(3_600_000_000_000))
    outcome(writer, Write(b"m v=1\n", "t", "short"))
    error = outcome(writer, Write(b"m v=2i\nm v=3 1\nm,time=x v=4\nbad\n", "t", "short"))
    assert str(error) == (
        'partial write: field type conflict: input field "v" on measurement "m" is type integer, '
        "already exists as type float dropped=3"
    )


@pytest.mark.parametrize(
    "error", [StorageReadOnly("the log failed"), StorageError("no space left")], ids=str
)
def test_body_that_did_not_get_durable_is_not_acknowledged(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def append(_: object, batch: PointBatch, on_durable: Durable, **__: bool) -> WriteResult:
        threading.Timer(0.0, on_durable, (error,)).start()
        return WriteResult(len(batch))

    monkeypatch.setattr(ParquetStorage, "append_batch", append)
    assert outcome(writer, Write(b"m v=1 1\n", "t")) is error


@pytest.mark.parametrize("is_early", [True, False], ids=["before", "after"])
def test_body_is_acknowledged_once_whenever_the_disk_reports(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, *, is_early: bool
) -> None:
    reports: list[Durable] = []

    def append(_: object, batch: PointBatch, on_durable: Durable, **__: bool) -> WriteResult:
        if is_early:
            on_durable(None)
        else:
            reports.append(on_durable)
        return WriteResult(len(batch))

    monkeypatch.setattr(ParquetStorage, "append_batch", append)
    if is_early:
        assert outcome(writer, Write(b"m v=1 1\n", "t")) is None
        return
    heard: list[Exception | None] = []
    for _ in range(2):  # each served alone: a field that is there twice is not usual
        writer.submit(Write(b"m v=1,v=1 1", "t"), heard.append)
    writer.close()  # both were appended
    assert heard == []
    for report in reports:
        report(None)
    assert heard == [None, None]


def test_durability_error_outweighs_a_partial_write(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(_: object, batch: PointBatch, on_durable: Durable, **__: bool) -> WriteResult:
        on_durable(StorageError("no space left"))
        return WriteResult(len(batch))

    monkeypatch.setattr(ParquetStorage, "append_batch", append)
    error = outcome(writer, Write(b"m v=1 1\nbad\n", "t"))
    assert str(error) == "no space left"


def test_write_beyond_the_queue_is_refused_and_the_queued_ones_are_stored(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.create_database("t")
    writer = Writer(catalog, Settings(max_queued_writes=2), Metrics())
    working, go_on = threading.Event(), threading.Event()
    append = ParquetStorage.append_batch

    def slow(
        storage: ParquetStorage, batch: PointBatch, on_durable: Durable, **options: bool
    ) -> WriteResult:
        working.set()
        go_on.wait(PATIENCE_S)
        return append(storage, batch, on_durable, **options)

    monkeypatch.setattr(ParquetStorage, "append_batch", slow)
    heard: list[Exception | None] = []
    all_heard = threading.Semaphore(0)

    def done(error: Exception | None) -> None:
        heard.append(error)
        all_heard.release()

    writer.submit(Write(b"m v=1 1\n", "t"), done)
    assert working.wait(PATIENCE_S)
    for number in (2, 3):
        writer.submit(Write(b"m v=1 %d\n" % number, "t"), done)
    assert writer.waiting == 2
    with pytest.raises(Overloaded, match="request throttled, queue full"):
        writer.submit(Write(b"m v=1 4\n", "t"), done)
    go_on.set()
    for _ in range(3):
        assert all_heard.acquire(timeout=PATIENCE_S)
    writer.close()
    assert heard == [None, None, None]


class Held:
    """Lets a storage take batches one at a time, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.began, self.go_on = threading.Event(), threading.Event()
        append = ParquetStorage.append_batch

        def held(
            storage: ParquetStorage, batch: PointBatch, on_durable: Durable | None, **options: bool
        ) -> WriteResult:
            self.sizes.append(len(batch))
            self.began.set()
            self.go_on.wait(PATIENCE_S)
            return append(storage, batch, on_durable, **options)

        monkeypatch.setattr(ParquetStorage, "append_batch", held)


def outcomes_of_waiting(
    writer: Writer, held: Held, writes: Sequence[Write]
) -> list[Exception | None]:
    """Have writes wait for the writer, all at once; return what each heard."""
    heard: dict[int, Exception | None] = {}
    all_heard = threading.Semaphore(0)

    def hear(number: int) -> Callable[[Exception | None], None]:
        def done(error: Exception | None) -> None:
            assert number not in heard
            heard[number] = error
            all_heard.release()

        return done

    writer.submit(Write(b"first v=1 1", "t"), hear(-1))
    assert held.began.wait(PATIENCE_S)
    for number, write in enumerate(writes):
        writer.submit(write, hear(number))
    held.go_on.set()
    for _ in range(len(writes) + 1):
        assert all_heard.acquire(timeout=PATIENCE_S)
    return [heard[number] for number in range(len(writes))]


def rows(catalog: Catalog, policy: str = "") -> list[tuple[str, int, object]]:
    """Return measurement, time and the field v of all points."""
    storage = catalog.storage("t", policy)
    return [
        (name, int(time), value)
        for name in storage.measurements()
        for frame in storage.scan(ScanRequest(name))
        for time, value in zip(frame.times, frame.columns["v"].values.tolist(), strict=True)
    ]


def test_short_bodies_that_wait_are_stored_as_one(
    catalog: Catalog, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome(writer, Write(b"m v=1 1", "t"))
    held = Held(monkeypatch)
    bodies = [b"m v=%d %d\nm v=%d %d\n" % (n, n, n, 10 * n) for n in range(1, 9)]
    zipped = Write(gzip.compress(bodies[0]), "t", coding="gzip")
    writes = [zipped, *(Write(body, "t") for body in bodies[1:])]
    assert outcomes_of_waiting(writer, held, writes) == [None] * 8
    assert held.sizes == [1, 16]
    times = [*range(1, 9), *range(10, 90, 10)]
    assert [row for row in rows(catalog) if row[0] == "m"] == [
        ("m", time, float(time if time < 9 else time // 10)) for time in times
    ]


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (Write(b"m v=7i 7", "t"), "field type conflict"),
        (Write(b"m v=7 7\nbad", "t"), "unable to parse 'bad'"),
        (Write(b"m v=7 7\nm v=7", "t", "short"), "points beyond retention policy dropped=1"),
        (Write(b"m v=7 7", "nodb"), "nodb"),
        (Write(b"m v=7 7", "t", precision="zz"), "invalid precision"),
        (Write(b"m v=7 7", "t", consistency="zz"), "invalid consistency"),
        (Write(b"m value=7 7", "t", coding="gzip"), "invalid header"),
        (Write(b'm v="7', "t"), "unbalanced quotes"),
    ],
    ids=["type", "line", "retention", "database", "precision", "consistency", "coding", "quote"],
)
def test_refused_body_takes_none_along_that_waits_with_it(
    catalog: Catalog,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    write: Write,
    reason: str,
) -> None:
    catalog.create_policy("t", "short", PolicyChange(3_600_000_000_000))
    outcome(writer, Write(b"m v=1 1", "t"))
    held = Held(monkeypatch)
    good = [Write(b"m v=%d %d" % (n, n), "t") for n in range(2, 6)]
    heard = outcomes_of_waiting(writer, held, [*good[:2], write, *good[2:]])
    assert heard[:2] == heard[3:] == [None, None]
    assert reason in str(heard[2])
    assert {("m", n, float(n)) for n in range(1, 6)} <= set(rows(catalog))


def test_lines_without_time_get_the_time_of_their_own_body(
    catalog: Catalog, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome(writer, Write(b"m v=1", "t"))
    held = Held(monkeypatch)
    assert outcomes_of_waiting(writer, held, [Write(b"m v=2", "t")] * 5) == [None] * 5
    assert held.sizes == [1, 5]
    assert len([row for row in rows(catalog) if row[0] == "m"]) == 6


def test_bodies_that_did_not_get_durable_together_all_hear_why(
    catalog: Catalog, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome(writer, Write(b"m v=1 1", "t"))
    held = Held(monkeypatch)
    fails = StorageReadOnly("the log failed")
    append = ParquetStorage.append_batch

    def failing(
        storage: ParquetStorage, batch: PointBatch, on_durable: Durable | None, **options: bool
    ) -> WriteResult:
        if on_durable is None:
            append(storage, batch, None, **options)
            raise fails
        append(storage, batch, lambda _: on_durable(fails), **options)
        return WriteResult(len(batch))

    monkeypatch.setattr(ParquetStorage, "append_batch", failing)
    heard = outcomes_of_waiting(writer, held, [Write(b"m v=2 2", "t")] * 3)
    assert heard == [fails] * 3


def test_each_body_has_a_sync_of_its_own_in_mode_always(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.create_database("t")
    writer = Writer(catalog, Settings(sync="always"), Metrics())
    outcome(writer, Write(b"m v=1 1", "t"))
    held = Held(monkeypatch)
    assert outcomes_of_waiting(writer, held, [Write(b"m v=2 2", "t")] * 3) == [None] * 3
    assert held.sizes == [1, 1, 1, 1]
    writer.close()


@pytest.mark.parametrize(
    ("line", "n"),
    [
        pytest.param(b"cpu,a=b v=1z\n", 20_000, id="bad lines"),
        pytest.param(b"cpu,a=b v=1,w=2,x=3 1\n", 300_000, id="good lines"),
    ],
)
def test_short_body_is_served_while_a_long_one_is_read(writer: Writer, line: bytes, n: int) -> None:
    finished: list[str] = []
    all_done = threading.Event()

    def done(name: str) -> Callable[[Exception | None], None]:
        def note(_: Exception | None) -> None:
            finished.append(name)
            if len(finished) == 3:
                all_done.set()

        return note

    writer.submit(Write(line * n, "t"), done("long"))
    writer.submit(Write(b"m v=1 1\n" * 150_000, "t"), done("large"))
    writer.submit(Write(b"m v=1 1\n", "t"), done("short"))
    assert all_done.wait(PATIENCE_S)
    assert finished.index("short") < finished.index("long") < finished.index("large")


def test_statements_go_first_within_a_long_body(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.create_database("t")
    running = RunningQueries()
    rests: list[float] = []
    monkeypatch.setattr(running, "wait_for_short", rests.append)
    writer = Writer(catalog, Settings(), Metrics(), running)
    assert outcome(writer, Write(b"m v=1 1\n" * 50_000, "t")) is None
    writer.close()
    assert len(rests) > 20
    assert all(seconds >= 0 for seconds in rests)


def test_writer_lives_on_after_an_error_nobody_thought_of(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypeError("not thought of")

    with monkeypatch.context() as broken:
        broken.setattr(writer._parser, "together", fail)
        broken.setattr(writer._parser, "parse", fail)
        assert isinstance(outcome(writer, Write(b"m v=1 1\n", "t")), TypeError)
    assert outcome(writer, Write(b"m v=1 1\n", "t")) is None
