"""HAVING and ORDER BY columns: which rows of an answer stay, and in which order. Not InfluxDB's.

Both speak of the columns of the answer by their names, of the GROUP BY tags, and of time. They see
the rows after fill() and before LIMIT; a function that is a column may be written for its name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gateway.conditions import MATH_IN_CONDITIONS, check_condition, compile_condition
from gateway.errors import StatementError
from gateway.timerange import exact_condition
from grammar import ast
from grammar.printer import to_influxql
from tinyflux.batch import FieldType
from tinyflux.columnar.evaluate import match_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.answers import Answer
    from gateway.plan import OutputColumn
    from tinyflux.batch import Bools, Int64s


@dataclass(frozen=True, slots=True)
class Names:
    """What the rows of an answer have: columns, GROUP BY tags, and the name of their time."""

    columns: tuple[OutputColumn, ...]
    dimensions: tuple[str, ...]
    time_name: str

    def has(self, name: str) -> bool:
        """Return whether rows have a column or a tag of this name."""
        return any(column.name == name for column in self.columns) or name in self.dimensions

    def is_time(self, name: str) -> bool:
        """Return whether a name is that of the time column."""
        return name in {"time", self.time_name}


# --- planning -------------------------------------------------------------------------------------
def resolve_having(having: ast.Expr | None, names: Names) -> ast.Expr | None:
    """Return a HAVING over names alone: functions that are columns are replaced by these.

    Raises:
        StatementError: A name or function that the answer does not have, or no condition.
    """
    if having is None:
        return None
    resolved = _resolved(having, names)
    check_condition(exact_condition(resolved, now_ns=0))
    return resolved


def _resolved(expr: ast.Expr, names: Names) -> ast.Expr:
    for column in names.columns:
        if isinstance(expr, ast.Call | ast.BinaryExpr) and column.expr == expr:
            return ast.VarRef(column.name)
    match expr:
        case ast.VarRef(name):
            if names.is_time(name):
                return ast.VarRef("time")
            if not names.has(name) and name != "_name":
                raise _unknown("HAVING", name)
        case ast.Call(name, args):
            if name in MATH_IN_CONDITIONS:
                return ast.Call(name, tuple(_resolved(arg, names) for arg in args))
            if name != "now":
                raise _unknown("HAVING", to_influxql(expr))
        case ast.BinaryExpr(op, lhs, rhs):
            return ast.BinaryExpr(op, _resolved(lhs, names), _resolved(rhs, names))
        case ast.ParenExpr(inner) | ast.NotExpr(inner) | ast.InExpr(inner) | ast.LikeExpr(inner):
            return replace(expr, expr=_resolved(inner, names))
    return expr


def resolve_order(sort_fields: Sequence[ast.SortField], names: Names) -> tuple[ast.SortField, ...]:
    """Return the keys of an ORDER BY as names: functions that are columns are replaced by these.

    Raises:
        StatementError: A name or function that the answer does not have.
    """
    resolved = []
    for key in sort_fields:
        name = key.name
        if key.call is not None:
            called = (column.name for column in names.columns if column.expr == key.call)
            name = next(called, to_influxql(key.call))
        if not names.is_time(name) and not names.has(name):
            raise _unknown("ORDER BY", name)
        resolved.append(ast.SortField(name, key.descending))
    return tuple(resolved)


def _unknown(clause: str, name: str) -> StatementError:
    return StatementError(f"{clause} {name[:200]}: not a column or GROUP BY tag of the answer")


# --- running --------------------------------------------------------------------------------------
def having_rows(answer: Answer, having: ast.Expr, now_ns: int, timezone: str) -> Bools:
    """Return bool[n], the rows that pass a HAVING; an empty cell is a missing field."""
    condition = exact_condition(having, now_ns, timezone)
    query = compile_condition(condition, {name: column.type for name, column in answer.columns})
    if query is None:
        return np.ones(len(answer.rows), np.bool_)
    return match_rows(query, answer.as_frame())


def ordered(answer: Answer, sort_fields: Sequence[ast.SortField], time_name: str) -> Answer:
    """Return an answer with its rows in the order of some keys; empty cells come last.

    Rows of equal keys stay as they are. Series come in the order of their first rows, unless the
    first key is time.
    """
    ranks = [_ranks(answer, key, time_name) for key in sort_fields]
    order = np.lexsort((*ranks[::-1], answer.rows))
    if sort_fields[0].name in {"time", time_name}:
        return answer.take(order)
    rows = answer.rows[order]
    is_first = np.diff(rows, prepend=rows[:1] - 1) != 0
    starts = np.flatnonzero(is_first)
    series = np.lexsort([rank[order[starts]] for rank in ranks[::-1]])
    place = np.empty(len(series), np.int64)
    place[series] = np.arange(len(series))
    places = place[np.cumsum(is_first) - 1]
    order = order[np.argsort(places, kind="stable")]
    groups = [answer.groups[group] for group in rows[starts[series]].tolist()]
    return replace(answer.take(order), groups=groups, rows=np.sort(places))


def _ranks(answer: Answer, key: ast.SortField, time_name: str) -> Int64s:
    """Return int64[n], by which rows ascend; of empty cells a number above all."""
    sign = -1 if key.descending else 1
    if key.name in {"time", time_name}:
        return answer.times * sign
    column = next((column for name, column in answer.columns if name == key.name), None)
    if column is None:
        texts = [group[answer.dimensions.index(key.name)] for group in answer.groups]
        return sign * np.unique(np.array(texts, np.object_), return_inverse=True)[1][answer.rows]
    known = column.valid
    if column.type is FieldType.FLOAT:
        known = known & ~np.isnan(column.values)
    ranks = np.full(len(known), len(known), np.int64)
    ranks[known] = sign * np.unique(column.values[known], return_inverse=True)[1]
    return ranks
