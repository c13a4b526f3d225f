"""The flusher: a thread of a store that flushes and compacts when it is told to."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class Flusher:
    """Does a piece of work in the background, again for each time it was woken meanwhile.

    The thread is started by the first `wake`, and is a daemon: what it does is safe to interrupt.

    Args:
        name: Of the thread.
        work: What to do. What it raises is logged; the next `wake` tries again.

    Attributes:
        n_failed: How often the work failed.
        error: Why it failed the last time; None when it did not.
        is_stopped: Whether `stop` was called: long work should come to an end.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.n_failed = 0
        self.error: Exception | None = None
        self._name = name
        self._work = work
        self._changed = threading.Condition()
        self._is_wanted = False
        self._is_busy = False
        self.is_stopped = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Ask for the work, without waiting for it."""
        with self._changed:
            if self.is_stopped or self._is_wanted:
                return
            self._is_wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when no work is wanted or under way."""
        with self._changed:
            while (self._is_wanted or self._is_busy) and not self.is_stopped:
                self._changed.wait()

    def stop(self) -> None:
        """Finish the work under way and end the thread; called twice it does nothing."""
        with self._changed:
            self.is_stopped = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_wanted and not self.is_stopped:
                    self._changed.wait()
                if self.is_stopped:
                    return
                self._is_wanted, self._is_busy = False, True
            try:
                self._work()
                self.error = None
            except Exception as exc:
                # Nothing is lost: what is not in segments is in memory and in the log.
                self.n_failed += 1
                self.error = exc
                logger.exception("flush failed, will be tried again: thread=%s", self._name)
            finally:
                with self._changed:
                    self._is_busy = False
                    self._changed.notify_all()
