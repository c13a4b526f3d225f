"""The write path behind all that writes: one thread that inflates, parses and appends.

One thread keeps the parser's caches and the engine's series index single-writer, so a long body
never blocks the event loop. A request costs two changes of thread: in through a bounded queue, out
through `done`, which is called once its points are durable. While one group commit runs, the thread
goes on with the next bodies. While a body is read that takes long, the short ones that wait are
served in between. Statements that run go first, between the steps of a body too.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.errors import BadRequest, InfluxError, LinesRefused, Overloaded
from gateway.http import inflate
from gateway.lineprotocol.parser import Parsed, Parser
from tinyflux.errors import FieldTypeConflict, LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.metrics import Metrics
    from gateway.running import RunningQueries
    from tinyflux.batch import PointBatch
    from tinyflux.columnar.base import Rejection

Done: TypeAlias = Callable[[Exception | None], None]
Between: TypeAlias = Callable[[], None]
Read: TypeAlias = Callable[[Parser, bytes, int, Between], Parsed]
"""Reads an inflated body in the writer thread: gets the parser, the body, the time of now in ns,
and what to call now and then when it takes long."""

CONSISTENCY_LEVELS: Final = frozenset({"", "any", "one", "quorum", "all"})
MAX_LINES_IN_ERROR: Final = (
    100  # influxd names every bad line; a body of a million would answer 100 MB
)

MAX_SHORT_BYTES: Final = 1 << 20  # of a body as sent that is served while a long one is read
MAX_NESTED: Final = 4  # long bodies that are being read at once
MAX_TOGETHER: Final = 256  # bodies that are stored as one batch
MAX_TOGETHER_BYTES: Final = 1 << 18  # of bodies as sent; beyond, batches pay for themselves
# Short statements go first: the writer waits for them, at most so many times what its step took.
_REST: Final = 4
_PATIENCE_S: Final = 0.005  # of reading a long body before short ones are served

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Write:
    """One body to be stored. Filled in piece by piece; not changed once it is submitted.

    Attributes:
        body: As the client sent it.
        coding: Its Content-Encoding.
        database: Must exist, but see `creates_database`.
        retention_policy: "" is the default one.
        precision: The unit of the timestamps, "" is ns.
        consistency: Checked after parsing, as influxd does, and without effect.
        creates_database: Create the database if it is not there.
        is_whole: Store all points, or none if any cannot be stored.
        read: How to read the body; None reads line protocol in `precision`.
    """

    body: bytes
    database: str
    retention_policy: str = ""
    precision: str = ""
    coding: str = ""
    consistency: str = ""
    creates_database: bool = False
    is_whole: bool = False
    read: Read | None = None


_Item: TypeAlias = tuple[Write, Done]


class Writer:
    """Takes writes from any thread, in order, and answers each when it is durable."""

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        metrics: Metrics,
        running: RunningQueries | None = None,
    ) -> None:
        """Start the thread.

        Args:
            catalog: Where to.
            settings: The limits.
            metrics: Where writes are counted.
            running: The statements that go first; None for no regard.
        """
        self._catalog = catalog
        self._settings = settings
        self._metrics = metrics
        self._running = running
        self._parser = Parser()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._later: deque[_Item | None] = deque()  # too long to be served in between
        self._n_nested = 0
        self._rested_s = self._served_s = 0.0  # when the writer last did so, or began; perf_counter
        # With `always` each write has an fsync of its own.
        self._max_together = 1 if settings.sync == "always" else MAX_TOGETHER
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, write: Write, done: Done) -> None:
        """Store a body; `done` hears, in another thread, None or why not all of it was stored.

        Raises:
            Overloaded: Too many writes wait.
        """
        if self.waiting >= self._settings.max_queued_writes:
            raise Overloaded("request throttled, queue full")
        self._queue.put((write, done))

    @property
    def waiting(self) -> int:
        """How many writes wait for the thread."""
        return self._queue.qsize() + len(self._later)

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._later.popleft() if self._later else self._queue.get()) is not None:
            items = self._with_short([item])
            del item  # not kept while waiting for the next
            self._rested_s = self._served_s = time.perf_counter()
            while items:
                n_stored = self._store_together(items)
                if not n_stored:
                    self._serve(*items[0])
                del items[: n_stored or 1]
                self._rest()
                self._served_s = self._rested_s

    def _rest(self) -> None:
        """Let the short statements that run go first."""
        now_s = time.perf_counter()
        if self._running is not None:
            self._running.wait_for_short(_REST * (now_s - self._rested_s))
        self._rested_s = time.perf_counter()

    def _between(self) -> None:
        """Let others go first, in the middle of reading a body."""
        self._rest()
        if self._rested_s - self._served_s > _PATIENCE_S:
            self._serve_short()
            self._served_s = time.perf_counter()

    def _with_short(self, items: list[_Item]) -> list[_Item]:
        """Return an item with those that wait behind it, as many as may be stored together."""
        n_bytes = len(items[0][0].body)
        while n_bytes <= MAX_TOGETHER_BYTES and len(items) < self._max_together:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                self._later.append(item)
                break
            items.append(item)
            n_bytes += len(item[0].body)
        return items

    def _store_together(self, items: Sequence[_Item]) -> int:
        """Store the short bodies at the front as one batch if all their points can be stored.

        What a write costs beside its lines is paid once for all that wait, which is what makes
        small bodies cheap. Whatever is unusual in any way is served alone.

        Returns:
            How many were answered; 0 leaves the first to the caller.
        """
        try:
            count, batch = self._read_together(items)
        except Exception:  # noqa: BLE001 - whatever it is, `_serve` meets it and answers with it
            return 0
        if batch is None:
            return 0
        answers = [done for _, done in items[:count]]

        def answer(error: Exception | None) -> None:
            for done in answers:
                done(error)

        try:
            is_stored = self._append_together(items[0][0], batch, answer)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer to all of them
            answer(exc)
            is_stored = True
        if not is_stored:
            for item in items[:count]:
                self._serve(*item)
        return count

    def _read_together(self, items: Sequence[_Item]) -> tuple[int, PointBatch | None]:
        """Return how many of the first bodies are good to the last line, and their points."""
        first, count = items[0][0], 0
        if not _is_usual(first):
            return 0, None
        try:
            together = self._parser.together(first.precision)
        except ValueError:  # an unknown precision
            return 0, None
        for write, _ in items:
            is_alike = write is first or (_is_usual(write) and _goes_with(write, first))
            body = self._short_body(write) if is_alike else None
            if body is None or not together.add(body, time.time_ns()):
                break
            count += 1
        batch = together.batch() if count else None
        return (count, batch) if batch is not None and len(batch) else (0, None)

    def _short_body(self, write: Write) -> bytes | None:
        """Return the inflated body; None when it cannot be inflated, or is long."""
        if not write.coding:
            return write.body
        try:
            return inflate(write.body, write.coding, MAX_SHORT_BYTES, MAX_SHORT_BYTES)
        except InfluxError:  # `_serve` will say
            return None

    def _append_together(self, write: Write, batch: PointBatch, answer: Done) -> bool:
        """Store a batch if all its points can be stored; returns whether they were.

        When nothing waits, this thread syncs too: it has nothing better to do, and each change of
        threads makes the client wait. Else it goes on with what waits.
        """
        database = self._catalog.databases.get(write.database)
        if database is None:
            return False
        policy = database.policy(write.retention_policy)
        if _within_retention(batch, policy.write_window(time.time_ns()))[1]:
            return False
        storage = self._catalog.storage(write.database, policy.name)
        acknowledgement = None if self._queue.empty() else _Acknowledgement(answer)
        on_durable = None if acknowledgement is None else acknowledgement.durable
        try:
            storage.append_batch(batch, on_durable, strict=True)
        except (FieldTypeConflict, LimitExceeded):
            return False
        self._catalog.stored(write.database, policy.name, batch)
        if acknowledgement is None:
            answer(None)
        else:
            acknowledgement.stored(None)
        self._metrics.count(write_points=len(batch))
        return True

    def _serve(self, write: Write, done: Done) -> None:
        try:
            self._store(write, _Acknowledgement(done))
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer to this request
            done(exc)

    def _serve_short(self) -> None:
        """Serve the short bodies that wait, in the middle of reading a long one."""
        if self._n_nested >= MAX_NESTED:
            return
        self._n_nested += 1
        try:
            for _ in range(self._queue.qsize()):  # those that come meanwhile wait for the next time
                item = self._queue.get_nowait()
                if item is None or len(item[0].body) > MAX_SHORT_BYTES:
                    self._later.append(item)
                else:
                    self._serve(*item)
        finally:
            self._n_nested -= 1

    def _store(self, write: Write, acknowledgement: _Acknowledgement) -> None:
        body = inflate(
            write.body,
            write.coding,
            self._settings.max_inflated_bytes,
            self._settings.max_inflate_ratio,
        )
        now_ns = time.time_ns()
        parsed = self._read(write, body, now_ns)
        self._rest()
        if not len(parsed.batch) and not parsed.rejected:
            self._metrics.count(write_points_dropped=parsed.bad_lines)
            acknowledgement.answer(_refusal_of_lines(parsed) if parsed.errors else None)
            return
        if write.consistency not in CONSISTENCY_LEVELS:
            raise BadRequest("invalid consistency level")
        if write.creates_database and write.database not in self._catalog.databases:
            self._catalog.create_database(write.database)
        policy = self._catalog.database(write.database).policy(write.retention_policy)
        storage = self._catalog.storage(write.database, policy.name)
        batch, n_expired = _within_retention(parsed.batch, policy.write_window(now_ns))
        if write.is_whole:
            _check_whole(parsed, n_expired)
        try:
            result = storage.append_batch(batch, acknowledgement.durable, strict=write.is_whole)
        except (FieldTypeConflict, LimitExceeded) as exc:
            raise BadRequest(str(exc)) from exc
        refusal = _partial_write(parsed, (*result.rejected, *parsed.rejected), n_expired)
        if result.stored:
            self._catalog.stored(write.database, policy.name, batch)
        acknowledgement.stored(refusal)
        dropped = len(parsed.batch) - result.stored + parsed.bad_lines
        over = sum(rejection.points for rejection in result.rejected if rejection.is_limit)
        self._metrics.count(
            write_points=result.stored, write_points_dropped=dropped, write_points_over_limit=over
        )

    def _read(self, write: Write, body: bytes, now_ns: int) -> Parsed:
        if write.read is not None:
            return write.read(self._parser, body, now_ns, self._between)
        try:
            return self._parser.parse(
                body, precision=write.precision, now_ns=now_ns, between=self._between
            )
        except ValueError as exc:  # an unknown precision
            raise BadRequest(str(exc)) from exc


class _Acknowledgement:
    """Calls `done` once the engine has answered (`stored`) and the points are on disk (`durable`).

    The two come from two threads in any order.
    """

    __slots__ = ("_done", "_error", "_lock", "_open")

    def __init__(self, done: Done) -> None:
        self._done = done
        self._lock = threading.Lock()
        self._open = 2
        self._error: Exception | None = None

    def answer(self, refusal: Exception | None) -> None:
        """Nothing was given to the engine."""
        self._done(refusal)

    def stored(self, refusal: Exception | None) -> None:
        self._arrived(refusal, is_decisive=False)

    def durable(self, error: Exception | None) -> None:
        self._arrived(error, is_decisive=True)

    def _arrived(self, error: Exception | None, *, is_decisive: bool) -> None:
        with self._lock:
            if error is not None and (is_decisive or self._error is None):
                self._error = error
            self._open -= 1
            if self._open:
                return
        self._done(self._error)


def _is_usual(write: Write) -> bool:
    """Return whether a body may be stored together with others."""
    return (
        len(write.body) <= MAX_TOGETHER_BYTES
        and write.read is None
        and not write.is_whole
        and write.consistency in CONSISTENCY_LEVELS
    )


def _goes_with(write: Write, other: Write) -> bool:
    """Return whether the points of two bodies go to the same place, read in the same way."""
    return (write.database, write.retention_policy, write.precision) == (
        other.database,
        other.retention_policy,
        other.precision,
    )


def _within_retention(batch: PointBatch, window: tuple[int, int] | None) -> tuple[PointBatch, int]:
    """Return the points that the policy takes now, and how many it does not; None takes all."""
    if window is None:
        return batch, 0
    keep = (batch.times >= window[0]) & (batch.times <= window[1])
    n_expired = len(batch) - int(keep.sum())
    return (batch.take(keep), n_expired) if n_expired else (batch, 0)


def _partial_write(
    parsed: Parsed, rejected: tuple[Rejection, ...], n_expired: int
) -> BadRequest | None:
    """Return the refusal of what was not stored, in influxd's words; None when all was stored.

    influxd gives one reason: the first of the engine, else the retention policy, else the lines it
    could not parse.
    """
    dropped = n_expired + sum(rejection.points for rejection in rejected)
    if dropped:
        reason = rejected[0].reason if rejected else "points beyond retention policy"
        return LinesRefused(f"partial write: {reason} dropped={dropped}", parsed.errors)
    if parsed.errors:
        return LinesRefused(f"partial write: {_line_errors(parsed)} dropped=0", parsed.errors)
    return None


def _refusal_of_lines(parsed: Parsed) -> LinesRefused:
    return LinesRefused(_line_errors(parsed), parsed.errors)


def _check_whole(parsed: Parsed, n_expired: int) -> None:
    """Refuse a body of which anything cannot be stored, before the engine looks at the types.

    Raises:
        BadRequest: The first reason.
    """
    if parsed.errors:
        raise _refusal_of_lines(parsed)
    if parsed.rejected:
        raise BadRequest(parsed.rejected[0].reason)
    if n_expired:
        raise BadRequest("points beyond retention policy")


def _line_errors(parsed: Parsed) -> str:
    named = parsed.errors[:MAX_LINES_IN_ERROR]
    texts = [str(error) for error in named]
    if parsed.bad_lines > len(named):
        texts.append(f"and {parsed.bad_lines - len(named)} more lines")
    return "\n".join(texts)
