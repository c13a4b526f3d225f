"""What runs goes before what is written, for a while."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from gateway import running as module
from gateway.running import RunningQueries
from gateway.session import Interrupt
from grammar.parser import parse

if TYPE_CHECKING:
    import pytest

[STATEMENT] = parse("SHOW DATABASES")
LONG_S = 60.0


def test_nobody_waits_where_nothing_runs() -> None:
    RunningQueries().wait_for_short(LONG_S)


def test_waiting_ends_with_the_last_short_statement() -> None:
    running, waited = RunningQueries(), threading.Event()

    def wait() -> None:
        running.wait_for_short(LONG_S)
        waited.set()

    with running.register(STATEMENT, "d", Interrupt()):
        with running.register(STATEMENT, "d", Interrupt()):
            threading.Thread(target=wait, daemon=True).start()
        assert not waited.wait(0.05)
    assert waited.wait(10)


def test_waiting_is_bounded() -> None:
    running = RunningQueries()
    with running.register(STATEMENT, "d", Interrupt()):
        running.wait_for_short(0.01)


def test_nobody_waits_for_a_long_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    running = RunningQueries()
    with running.register(STATEMENT, "d", Interrupt()):
        monkeypatch.setattr(module, "_YOUNG_S", 0.0)
        time.sleep(0.001)
        running.wait_for_short(LONG_S)
