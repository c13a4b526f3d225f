"""Joins: rows of several named sources side by side, matched on time and the tags they share.

    SELECT a.mean / b.mean FROM (SELECT ...) AS a, (SELECT ...) AS b

A column is called `name.column`, tags keep their names. A row is there where any source has one,
with null for those that have none; `fill(none)` of a query of rows leaves only the complete ones.
A tag that a source has in no row is none of its tags: its rows go with all values of it. Rows that
match several to several are refused. Not InfluxDB's.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from gateway.answers import Answer
from gateway.budget import check_rows
from gateway.conditions import TagCondition
from gateway.errors import StatementError
from gateway.logic import both, is_time, walk
from gateway.rows import Col
from grammar import ast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.sources import Snapshots
    from tinyflux.batch import Int64s


def named_queries(select: ast.Select, snapshots: Snapshots) -> list[tuple[str, ast.Select]]:
    """Return the names of the sources of a join, and the query of each.

    A measurement stands for its points with all of their tags, and those of its fields that the
    query names.

    Raises:
        StatementError: A source without a name, or two of the same; a column of no source.
        DatabaseNotFound, RetentionPolicyNotFound: A measurement lies in none.
    """
    found: dict[str, ast.Select] = {}
    for source in select.sources:
        if not isinstance(source, ast.NamedSource):
            raise StatementError("a join needs a name for each source: FROM a AS x, b AS y")
        if source.name in found:
            raise StatementError(f"a join needs different names for its sources: {source.name}")
        inner = source.source
        if isinstance(inner, ast.Measurement):
            found[source.name] = ast.Select(
                _fields(select, source.name),
                (inner,),
                condition=_condition(
                    select.condition, _tags_of_all(inner, select.condition, snapshots)
                ),
                dimensions=(ast.Wildcard(),),
            )
        else:
            found[source.name] = inner.select
    _check_names(select, list(found), _tags(select, snapshots))
    return list(found.items())


def _tags(select: ast.Select, snapshots: Snapshots) -> set[str] | None:
    """Return the tags that a join may have; None when the data are to say that one day."""
    dimensions = list(select.dimensions)
    tags: set[str] = set()
    for source in select.sources:
        inner = source.source if isinstance(source, ast.NamedSource) else source
        if isinstance(inner, ast.SubQuery):
            dimensions += inner.select.dimensions
            continue
        reader = snapshots.reader(inner)
        if inner.regex is not None or not reader.field_keys(inner.name):
            return None
        tags.update(reader.tag_keys(inner.name))
    if any(isinstance(dim, ast.Wildcard | ast.RegexLiteral) for dim in dimensions):
        return None
    return tags | {dim.name for dim in dimensions if isinstance(dim, ast.VarRef)}


def _check_names(select: ast.Select, sources: list[str], tags: set[str] | None) -> None:
    """Refuse a name that is no column of a source and no tag: it would be null everywhere."""
    if tags is None:
        return
    exprs = [*(field.expr for field in select.fields), select.condition]
    for part in (part for expr in exprs if expr is not None for part in walk(expr)):
        if not isinstance(part, ast.VarRef) or is_time(part) or part.name in tags:
            continue
        if not any(part.name.startswith(f"{source}.") for source in sources):
            given, called = ", ".join(sources), f"{sources[0]}.{part.name.rpartition('.')[2]}"
            raise StatementError(
                f"{part.name}: a column of a join is called by its source ({given}), as in {called}"
            )


def _fields(select: ast.Select, name: str) -> tuple[ast.Field, ...]:
    """Return the fields of a measurement that a join reads by this name of it."""
    parts = [part for field in select.fields for part in walk(field.expr)]
    if any(isinstance(part, ast.Wildcard | ast.RegexLiteral) for part in parts):
        return (ast.Field(ast.Wildcard()),)
    parts += walk(select.condition) if select.condition is not None else ()
    refs = (part.name for part in parts if isinstance(part, ast.VarRef))
    names = {ref.removeprefix(f"{name}.") for ref in refs if ref.startswith(f"{name}.")}
    columns = tuple(ast.Field(ast.VarRef(column), column) for column in sorted(names))
    return columns or (ast.Field(ast.Wildcard()),)


def _tags_of_all(
    measurement: ast.Measurement, condition: ast.Expr | None, snapshots: Snapshots
) -> set[str]:
    """Return the tags in a condition that every series of a measurement has."""
    if condition is None or measurement.regex is not None:
        return set()
    columns = snapshots.reader(measurement).series(measurement.name).columns
    found = set()
    for part in walk(condition):
        if isinstance(part, ast.VarRef) and (column := columns.get(part.name)) is not None:
            codes = np.unique(column.codes).tolist()
            if all(code >= 0 and column.values[code] for code in codes):
                found.add(part.name)
    return found


def _condition(condition: ast.Expr | None, tags: set[str]) -> ast.Expr | None:
    """Return the part of a WHERE that may be asked of a measurement before it is joined.

    A condition on one tag that all of its series have, and that no row without the tag passes: so
    rows whose partner is left out do not pass either. The join is filtered by all of it afterwards.
    """
    match condition:
        case ast.ParenExpr(inner):
            found = _condition(inner, tags)
            return None if found is None else ast.ParenExpr(found)
        case ast.BinaryExpr("AND", lhs, rhs):
            return both(_condition(lhs, tags), _condition(rhs, tags))
        case ast.BinaryExpr() | ast.InExpr() | ast.LikeExpr():
            refs = {part for part in walk(condition) if isinstance(part, ast.VarRef)}
            if {ref.name for ref in refs} <= tags and len(refs) == 1 and not _takes_none(condition):
                return condition
    return None


def _takes_none(condition: ast.Expr) -> bool:
    """Return whether a condition on one tag may hold where the tag is missing."""
    match condition:
        case ast.ParenExpr(inner):
            return _takes_none(inner)
        case ast.BinaryExpr("OR" | "AND", lhs, rhs):
            return _takes_none(lhs) or _takes_none(rhs)
        case ast.BinaryExpr("=" | "=~") | ast.InExpr() | ast.LikeExpr():
            return TagCondition(condition)({})
    return True


def join(
    select: ast.Select,
    snapshots: Snapshots,
    run: Callable[[ast.Select], Sequence[Answer]],
    *,
    is_complete: bool,
) -> list[Answer]:
    """Return the rows of a join as one answer, called by the names of all sources; or none.

    Args:
        select: The query.
        snapshots: What measurements are read from.
        run: Answers a subquery.
        is_complete: Leave out rows that one of the sources does not have.

    Raises:
        StatementError: A source of several measurements, rows that match several to several, or
            more rows than memory is given for.
    """
    found: dict[str, Answer | None] = {}
    for name, inner in named_queries(select, snapshots):
        answers = run(inner)
        if len(answers) > 1:
            given = ", ".join(sorted(answer.name for answer in answers))
            raise StatementError(f"a source of a join is one measurement: {name} is {given}")
        found[name] = _named(answers[0], name) if answers and len(answers[0].rows) else None
    present = {name: answer for name, answer in found.items() if answer is not None}
    if not present or (is_complete and len(present) < len(found)):
        return []
    (first, joined), *others = present.items()
    names = [first]
    for name, side in others:
        rows = _matching_rows(joined, side, is_complete=is_complete)
        if rows is None:
            raise StatementError(
                f"rows of {' and '.join(names)} match several rows of {name}, and the other way "
                "round: group both by the same tags"
            )
        check_rows(len(rows[0]), len(joined.columns) + len(side.columns), snapshots.session)
        joined = _beside(joined, side, *rows)
        names.append(name)
    return [replace(joined, name="_".join(found))] if len(joined.rows) else []


def _named(answer: Answer, name: str) -> Answer:
    """Return an answer whose columns carry the name of their source, without tags it has nowhere.

    Such tags come from the GROUP BY around the join: it holds in all sources.
    """
    has = [any(group[at] for group in answer.groups) for at in range(len(answer.dimensions))]
    return replace(
        answer,
        dimensions=tuple(compress(answer.dimensions, has)),
        groups=[tuple(compress(group, has)) for group in answer.groups],
        columns=[(f"{name}.{column}", cells) for column, cells in answer.columns],
    )


def _matching_rows(
    left: Answer, right: Answer, *, is_complete: bool
) -> tuple[Int64s, Int64s] | None:
    """Return int64[n] twice: the rows of both sides that go together, -1 for none.

    None when several rows of one side match several of the other.
    """
    left_keys, right_keys, n_keys = _keys(left, right)
    n_left = np.bincount(left_keys, minlength=n_keys)
    n_right = np.bincount(right_keys, minlength=n_keys)
    if ((n_left > 1) & (n_right > 1)).any():
        return None
    left_of, right_of = np.full(n_keys, -1), np.full(n_keys, -1)
    left_of[left_keys] = np.arange(len(left_keys))
    right_of[right_keys] = np.arange(len(right_keys))
    # Rows of the left with their one partner or none; then those of the right that are not there
    # yet: without a partner, or several to one of the left.
    from_left = np.flatnonzero(n_right[left_keys] <= 1)
    from_right = np.flatnonzero((n_left[right_keys] == 0) | (n_right[right_keys] > 1))
    left_rows = np.concatenate((from_left, left_of[right_keys[from_right]]))
    right_rows = np.concatenate((right_of[left_keys[from_left]], from_right))
    if not is_complete:
        return left_rows, right_rows
    is_whole = (left_rows >= 0) & (right_rows >= 0)
    return left_rows[is_whole], right_rows[is_whole]


def _keys(left: Answer, right: Answer) -> tuple[Int64s, Int64s, int]:
    """Return a number for the time and common tags of each row of both sides, and how many."""
    numbers: dict[tuple[str, ...], int] = {}
    common = [key for key in left.dimensions if key in right.dimensions]
    codes = []
    for side in (left, right):
        at = [side.dimensions.index(key) for key in common]
        of_groups = [
            numbers.setdefault(tuple(group[i] for i in at), len(numbers)) for group in side.groups
        ]
        codes.append(np.array(of_groups, np.int64)[side.rows])
    of_rows, times = np.concatenate(codes), np.concatenate((left.times, right.times))
    order = np.lexsort((times, of_rows))
    is_new = (np.diff(of_rows[order]) != 0) | (np.diff(times[order]) != 0)
    keys = np.empty(len(times), np.int64)
    keys[order] = np.concatenate(([0], np.cumsum(is_new)))
    return keys[: len(left.rows)], keys[len(left.rows) :], int(keys.max()) + 1


def _beside(left: Answer, right: Answer, left_rows: Int64s, right_rows: Int64s) -> Answer:
    """Return an answer with the columns of both sides and the tags of both."""
    dimensions = tuple(sorted({*left.dimensions, *right.dimensions}))
    sides = ((left, left_rows), (right, right_rows))
    # The groups of each row, as one number: 0 is none.
    left_of, right_of = (np.where(taken >= 0, side.rows[taken] + 1, 0) for side, taken in sides)
    width = len(right.groups) + 1
    pairs, of_rows = np.unique(left_of * width + right_of, return_inverse=True)
    tags = []
    for pair in pairs.tolist():
        values = _tags_of_group(right, pair % width - 1) | _tags_of_group(left, pair // width - 1)
        tags.append(tuple(values.get(key, "") for key in dimensions))
    groups = sorted(set(tags))
    number = {group: position for position, group in enumerate(groups)}
    rows = np.array([number[group] for group in tags], np.int64)[of_rows]
    times = np.where(left_rows >= 0, left.times[left_rows], right.times[right_rows])
    order = np.lexsort((times, rows))
    columns = [
        (name, _taken(cells, taken[order])) for side, taken in sides for name, cells in side.columns
    ]
    return Answer("", dimensions, groups, rows[order], times[order], columns)


def _tags_of_group(side: Answer, group: int) -> dict[str, str]:
    return dict(zip(side.dimensions, side.groups[group], strict=True)) if group >= 0 else {}


def _taken(cells: Col, rows: Int64s) -> Col:
    """Return the chosen cells, nothing for -1."""
    taken = cells.take(np.maximum(rows, 0))
    return Col(cells.type, taken.values, taken.valid & (rows >= 0), np.ones(len(rows), np.bool_))
