"""Statements so small that to hand them to a thread and back takes longer than to run them.

To change threads takes 0.1 ms of CPU and two turns of the scheduler; most of what dashboards and
template variables ask takes little more. Such a statement runs on the event loop, but only when

- nothing else runs, so that it waits for nobody and nobody for it;
- statements of its kind (the same but for the literals of WHERE) took little CPU on a thread
  before: stores are open then, what they read is mostly decoded, and a regex, LIKE or NOT over the
  values of a tag, which no limit of rows bounds, has been measured;
- it reads few series and rows, by the index, and makes few windows: `LIMITS` are tight limits of a
  SELECT, and whoever passes one is run again on a thread, with the limits of the settings.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from grammar import ast

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from gateway.config import Settings

MAX_LENGTH: Final = 1024  # of a text: it is parsed before it is known to be quick
MAX_ROWS: Final = 10_000  # that a SELECT may read, estimated
_SHORT_S: Final = 0.004
_LONG_S: Final = 0.008
_PAUSE_S: Final = 1.0
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
        settings, max_select_points=MAX_ROWS, max_select_buckets=MAX_ROWS, max_select_series=32
    )


class QuickKinds:
    """The kinds of statements that took little CPU lately. Safe to use from many threads."""

    def __init__(self) -> None:
        self._known: dict[Hashable, float] = {}  # kind -> when it may be quick, 0.0 for now

    def has(self, statements: Sequence[ast.Statement], place: tuple[str, str]) -> bool:
        """Return whether statements are one of a quick kind.

        Args:
            statements: Those of a request.
            place: Its database and retention policy.
        """
        return bool(self._known) and self._known.get(_kind(statements, place)) == 0.0

    def note(
        self, statements: Sequence[ast.Statement], place: tuple[str, str], cpu_s: float
    ) -> None:
        """Note how much CPU statements took, to their last byte.

        A quick kind that takes long once, as between writes, is not quick for a while.
        """
        kind = _kind(statements, place)
        if kind is None or _SHORT_S <= cpu_s <= _LONG_S:
            return
        since_s, now_s = self._known.get(kind), time.monotonic()
        if cpu_s > _LONG_S:
            if since_s == 0.0:
                self._known[kind] = now_s + _PAUSE_S
        elif since_s is None or since_s < now_s:
            if len(self._known) >= _MOST_KINDS:
                self._known = {}
            self._known[kind] = 0.0


def _kind(statements: Sequence[ast.Statement], place: tuple[str, str]) -> Hashable | None:
    """Return what tells kinds of statements apart; None for what is never quick."""
    if len(statements) != 1:
        return None
    [statement] = statements
    if isinstance(statement, _SHOW):
        return place, statement
    if not isinstance(statement, ast.Select) or statement.target is not None:
        return None
    if not all(type(s) is ast.Measurement and s.regex is None for s in statement.sources):
        return None
    shape = _shape(statement.condition)
    return place, statement.sources, statement.fields, statement.dimensions, shape


def _shape(expr: ast.Expr | None) -> Hashable:
    """Return what a condition is but for its literals."""
    match expr:
        case ast.BinaryExpr(op, lhs, rhs):
            return op, _shape(lhs), _shape(rhs)
        case ast.ParenExpr(inner):
            return _shape(inner)
        case ast.NotExpr(inner) | ast.LikeExpr(inner) | ast.InExpr(inner):
            return type(expr), _shape(inner)
        case ast.Call(name, args):
            return name, *map(_shape, args)
        case ast.VarRef():
            return expr
    return type(expr).__name__
