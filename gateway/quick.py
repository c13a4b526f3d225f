"""Statements so small that to hand them to a thread and back takes longer than to run them.

To change threads takes 0.1 ms of CPU and two turns of the scheduler; most of what dashboards and
template variables ask takes little more. Such a statement runs on the event loop, but only when

- nothing else runs, so that it waits for nobody and nobody for it;
- a statement of its kind (the same text but for the literals of WHERE) took little CPU on a thread
  before: stores are open then, what they read is mostly decoded, and a regex, LIKE or NOT over the
  values of a tag, which no limit of rows bounds, has been measured;
- its kind has not taken much more than that lately: now and then something must be decoded, or the
  garbage collector comes by. What goes beyond a short time is a debt, of the kind and of all quick
  statements, and time pays it off: in the long run the loop does long steps for a 50th of the time
  at most, whatever clients send;
- it reads few rows of few series, of what is decoded already, and makes few windows. Whoever
  passes one of these limits is run again on a thread, with the limits of the settings, and its kind
  is not tried again for a while; for what has to be decoded, only this once.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from grammar import ast

if TYPE_CHECKING:
    from collections.abc import Hashable

    from gateway.config import Settings
    from grammar.templates import Reading

MAX_LENGTH: Final = 1024  # of a text: it is parsed before it is known to be quick
MAX_ROWS: Final = 10_000  # that a SELECT may read
SHORT_S: Final = 0.004  # of CPU
_MOST_OWED_S: Final = 0.008  # beyond SHORT_S, by statements of a kind
_MOST_IN_ALL_S: Final = 0.1
_REFUSED_S: Final = 0.6
_PAID_OFF: Final = 0.02  # of what is owed, in a second
_MOST_KINDS: Final = 512

_SHOW: Final = (
    ast.ShowDatabases,
    ast.ShowMeasurements,
    ast.ShowRetentionPolicies,
    ast.ShowTagKeys,
    ast.ShowTagValues,
    ast.ShowFieldKeys,
)


def tight(settings: Settings) -> Settings:
    """Return the settings with the limits of a quick statement."""
    return replace(
        settings, max_select_points=MAX_ROWS, max_select_buckets=MAX_ROWS, max_select_series=256
    )


class QuickKinds:
    """The kinds of statements that take little CPU. Safe to use from many threads."""

    def __init__(self) -> None:
        self._debts: dict[Hashable, _Debt] = {}
        self._all = _Debt(_MOST_IN_ALL_S)

    def has(self, kind: Hashable) -> bool:
        """Return whether statements of a kind, of `kind_of`, may run on the event loop now."""
        debt = self._debts.get(kind)
        return debt is not None and debt.is_bearable() and self._all.is_bearable()

    def note(self, kind: Hashable, cpu_s: float, *, is_quick: bool = False) -> None:
        """Note how much CPU statements took, to their last byte.

        Args:
            kind: Theirs; None notes nothing.
            cpu_s: What they took.
            is_quick: They ran on the event loop.
        """
        if kind is None:
            return
        debt = self._debts.get(kind)
        if debt is not None:
            debt.grow(cpu_s - SHORT_S)
        elif cpu_s < SHORT_S:
            if len(self._debts) >= _MOST_KINDS:
                self._debts = {}
            self._debts[kind] = _Debt(_MOST_OWED_S)
        if is_quick:
            self._all.grow(cpu_s - SHORT_S)

    def refuse(self, kind: Hashable) -> None:
        """Have a kind that passed the limits not be tried again for half a minute."""
        debt = self._debts.get(kind)
        if debt is not None:
            debt.grow(_REFUSED_S)


class _Debt:
    """CPU that was taken too much, which time pays off. A race of threads forgets some of it."""

    __slots__ = ("_at_s", "_most_s", "_owed_s")

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s  # that can be borne
        self._owed_s = 0.0
        self._at_s = 0.0  # when that was owed

    def is_bearable(self) -> bool:
        """Return whether so little is owed that things may go on."""
        return self._owed_s <= self._most_s or self._left(time.monotonic()) <= self._most_s

    def grow(self, seconds: float) -> None:
        """Add to it; what is negative pays nothing off."""
        if seconds > 0:
            now_s = time.monotonic()
            self._owed_s, self._at_s = self._left(now_s) + seconds, now_s

    def _left(self, now_s: float) -> float:
        return max(0.0, self._owed_s - (now_s - self._at_s) * _PAID_OFF)


def kind_of(reading: Reading, place: tuple[str, str]) -> Hashable | None:
    """Return what tells kinds of statements apart; None for what is never quick.

    Args:
        reading: The text of a request.
        place: Its database and retention policy.
    """
    if not reading.outline or len(reading.statements) != 1:
        return None
    [statement] = reading.statements
    if type(statement) is ast.Select:
        if statement.target is not None:
            return None
        if not all(type(s) is ast.Measurement and s.regex is None for s in statement.sources):
            return None
    elif not isinstance(statement, _SHOW):
        return None
    return place, reading.outline
