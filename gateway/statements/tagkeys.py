"""`_tagKey` in the WHERE of SHOW: the tag keys that SHOW TAG VALUES lists; the others ignore it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.logic import walk
from gateway.planner import where
from grammar import ast
from tinyflux.columnar.base import Frame, SeriesSet, TagColumn
from tinyflux.columnar.evaluate import match_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME: Final = "_tagKey"


def of_series(condition: ast.Expr | None) -> ast.Expr | None:
    """Return a condition without its comparisons of `_tagKey`, as if these were not written."""
    return _kept(condition, about_key=False)


def chosen_keys(keys: Iterable[str], condition: ast.Expr | None) -> list[str]:
    """Return, sorted, the keys for which the comparisons of `_tagKey` in a condition hold."""
    ordered = sorted(keys)
    query, *_ = where(_kept(condition, about_key=True), {}, 0)
    if query is None or not ordered:
        return ordered
    rows = np.arange(len(ordered) + 1)
    column = TagColumn(rows[:-1].astype(np.int32), ordered)
    frame = Frame(SeriesSet("", rows[:-1], {_NAME: column}), rows, np.zeros_like(rows[:-1]), {})
    return [key for key, holds in zip(ordered, match_rows(query, frame), strict=True) if holds]


def _kept(condition: ast.Expr | None, *, about_key: bool) -> ast.Expr | None:
    """Return what of a condition is about `_tagKey`, or else what is not; None is nothing."""
    match condition:
        case None:
            return None
        case ast.ParenExpr(inner):
            kept = _kept(inner, about_key=about_key)
            return None if kept is None else ast.ParenExpr(kept)
        case ast.BinaryExpr("AND" | "OR" as op, lhs, rhs):
            left, right = _kept(lhs, about_key=about_key), _kept(rhs, about_key=about_key)
            if left is None or right is None:
                return right if left is None else left
            return ast.BinaryExpr(op, left, right)
    names = (part.name for part in walk(condition) if isinstance(part, ast.VarRef))
    return condition if (_NAME in names) is about_key else None
