"""The writer thread: order, acknowledgement, bounds, and what a failing disk becomes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from gateway.config import Settings
from gateway.errors import BadRequest, DatabaseNotFound, Overloaded, RetentionPolicyNotFound
from gateway.metrics import Metrics
from gateway.policies import PolicyChange
from gateway.writer import Write, Writer
from tinyflux.columnar.base import WriteResult
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import StorageError, StorageReadOnly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    def append(_: object, batch: PointBatch, on_durable: Durable) -> WriteResult:
        threading.Timer(0.0, on_durable, (error,)).start()
        return WriteResult(len(batch))

    monkeypatch.setattr(ParquetStorage, "append_batch", append)
    assert outcome(writer, Write(b"m v=1 1\n", "t")) is error


@pytest.mark.parametrize("is_early", [True, False], ids=["before", "after"])
def test_body_is_acknowledged_once_whenever_the_disk_reports(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, *, is_early: bool
) -> None:
    reports: list[Durable] = []

    def append(_: object, batch: PointBatch, on_durable: Durable) -> WriteResult:
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
    writer.submit(Write(b"m v=1 1\n", "t"), heard.append)
    writer.submit(Write(b"m v=1 1\n", "t"), heard.append)
    writer.close()  # both were appended
    assert heard == []
    for report in reports:
        report(None)
    assert heard == [None, None]


def test_durability_error_outweighs_a_partial_write(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(_: object, batch: PointBatch, on_durable: Durable) -> WriteResult:
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

    def slow(storage: ParquetStorage, batch: PointBatch, on_durable: Durable) -> WriteResult:
        working.set()
        go_on.wait(PATIENCE_S)
        return append(storage, batch, on_durable)

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


def test_short_body_is_served_while_a_long_one_of_bad_lines_is_read(writer: Writer) -> None:
    finished: list[str] = []
    all_done = threading.Event()

    def done(name: str) -> Callable[[Exception | None], None]:
        def note(_: Exception | None) -> None:
            finished.append(name)
            if len(finished) == 3:
                all_done.set()

        return note

    writer.submit(Write(b"cpu,a=b v=1z\n" * 20_000, "t"), done("long"))
    writer.submit(Write(b"m v=1 1\n" * 150_000, "t"), done("large"))
    writer.submit(Write(b"m v=1 1\n", "t"), done("short"))
    assert all_done.wait(PATIENCE_S)
    assert finished.index("short") < finished.index("long") < finished.index("large")
