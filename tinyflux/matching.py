"""Which points match a query: the index side of the question, over PointColumns.

The definition of a query is to call it on each Point; every answer here equals that. What makes it
quick:

1. Times that a query's top-level `&` demands become one interval, found by bisection.
2. Tags and measurement are asked once for each shape, not for each point.
3. Numbers are compared as arrays. Only functions (`.test`, `.map`) are called value by value.
"""

from __future__ import annotations

import operator as operators
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tinyflux.columns import SlotKind
from tinyflux.predicates import COMPARISONS, NO_VALUE, PathResolver, kind_of
from tinyflux.queries import CompoundQuery, Query, SimpleQuery
from tinyflux.times import EPOCH, datetimes_from_us, us_from_datetime

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinyflux.batch import Bools, Int64s
    from tinyflux.columns import PointColumns, Shape

_FIRST_US: Final = -(2**63)
_LAST_US: Final = 2**63 - 1
_MAX_EXACT: Final = 2**53


def matching_rows(columns: PointColumns, query: Query | None) -> Int64s | slice:
    """Return the points that match: ascending positions, or a slice of them.

    Args:
        columns: The points.
        query: None is all of them.

    Raises:
        Exception: Whatever a `.test` function of the query raises.
    """
    if query is None:
        return slice(0, len(columns))
    first, last, rest = _split(query)
    rows = columns.rows_between(first, last)
    for part in rest:
        rows = _chosen(rows, _mask(columns, part, rows))
    return rows


def count_matching(columns: PointColumns, query: Query | None) -> int:
    """Return how many points match."""
    if query is not None:
        first, last, rest = _split(query)
        if (first, last) == (_FIRST_US, _LAST_US) and all(_is_about_shapes(q) for q in rest):
            counts = columns.shape_counts()
            chosen = (
                number
                for number in columns.live_shapes()
                if all(_matches_shape(q, columns.shapes[number]) for q in rest)
            )
            return sum(int(counts[number]) for number in chosen)
    rows = matching_rows(columns, query)
    return max(0, rows.stop - rows.start) if isinstance(rows, slice) else len(rows)


def _split(query: Query) -> tuple[int, int, list[Query]]:
    """Return the closed time interval a query demands, and what else it demands, in order."""
    first, last = _FIRST_US, _LAST_US
    rest: list[Query] = []
    todo: list[Query] = [query]
    while todo:
        part = todo.pop()
        if isinstance(part, CompoundQuery):
            if part.operator is operators.and_ and part.query2 is not None:
                todo += (part.query2, part.query1)
                continue
        elif _is_time_bound(part):
            us = us_from_datetime(part.rhs)
            if part.operator in ("==", ">", ">="):
                first = max(first, us + (part.operator == ">"))
            if part.operator in ("==", "<", "<="):
                last = min(last, us - (part.operator == "<"))
            continue
        rest.append(part)
    return first, last, rest


def _is_time_bound(query: SimpleQuery) -> bool:
    return (
        query.point_attr == "_time"
        and not query.path
        and isinstance(query.rhs, datetime)
        and query.operator in ("==", "<", "<=", ">", ">=")
    )


def _is_about_shapes(query: Query) -> bool:
    if isinstance(query, CompoundQuery):
        return all(map(_is_about_shapes, query.operands))
    return query.operator == "noop" or query.point_attr in ("_tags", "_measurement")


def _matches_shape(query: Query, shape: Shape) -> bool:
    if isinstance(query, SimpleQuery):
        return _shape_test(query)(shape)
    answers = (_matches_shape(operand, shape) for operand in query.operands)
    if query.operator is operators.not_:
        return not next(answers)
    return all(answers) if query.operator is operators.and_ else any(answers)


def _shape_test(query: SimpleQuery) -> Callable[[Shape], bool]:
    if query.operator == "noop":
        return lambda shape: True  # noqa: ARG005
    resolve = query.path_resolver

    def test(shape: Shape) -> bool:
        whole: Any = dict(shape.tags) if query.point_attr == "_tags" else shape.measurement
        value = resolve(whole)
        return value is not NO_VALUE and bool(query.value_test(value))

    return test


def _chosen(rows: Int64s | slice, mask: Bools) -> Int64s:
    if isinstance(rows, slice):
        return np.flatnonzero(mask) + int(rows.start)
    chosen: Int64s = rows[mask]
    return chosen


def _mask(columns: PointColumns, query: Query, rows: Int64s | slice) -> Bools:
    """Return bool[rows]: which of these points match."""
    if isinstance(query, CompoundQuery):
        return _compound_mask(columns, query, rows)
    if query.operator == "noop":
        return np.ones(len(columns.times[rows]), np.bool_)
    if query.point_attr == "_time":
        return _time_mask(columns, query, rows)
    if query.point_attr == "_fields":
        return _field_mask(columns, query, rows)
    shape_rows = columns.shape_rows[rows]
    matches = np.zeros(len(columns.shapes), np.bool_)
    test = _shape_test(query)
    for number in np.flatnonzero(np.bincount(shape_rows)).tolist():
        matches[number] = test(columns.shapes[number])
    return matches[shape_rows]


def _compound_mask(columns: PointColumns, query: CompoundQuery, rows: Int64s | slice) -> Bools:
    """Combine masks; an operand is asked only where those before it leave it open."""
    first, *others = query.operands
    mask = _mask(columns, first, rows)
    if query.operator is operators.not_:
        return ~mask
    for operand in others:
        is_open = mask.copy() if query.operator is operators.and_ else ~mask
        open_rows = _chosen(rows, is_open)
        if not len(open_rows):
            break
        mask[is_open] = _mask(columns, operand, open_rows)
    return mask


def _time_mask(columns: PointColumns, query: SimpleQuery, rows: Int64s | slice) -> Bools:
    times = columns.times[rows]
    if query.operator in COMPARISONS and not query.path:
        if isinstance(query.rhs, datetime):
            compared = COMPARISONS[query.operator](times, us_from_datetime(query.rhs))
            return np.asarray(compared, np.bool_)
        # What is no time is equal to none of them and has no order with them.
        return np.full(len(times), query.value_test(EPOCH), np.bool_)
    return _called(query, datetimes_from_us(times))


def _field_mask(columns: PointColumns, query: SimpleQuery, rows: Int64s | slice) -> Bools:
    if not query.path or not isinstance(query.path[0], str):
        return _called(query, [fields for _, fields in columns.field_sets(rows)])
    key, *further = query.path
    offsets, kinds = columns.slots_of(str(key))
    shape_rows = columns.shape_rows[rows]
    offset = offsets[shape_rows]
    present = offset >= 0
    if query.operator == "exists" and not further:
        return present
    mask = np.zeros(len(present), np.bool_)
    slots = (columns.starts[rows] + offset)[present]
    kind = kinds[shape_rows[present]]
    mask[present] = _value_mask(columns, query, slots, kind)
    return mask


def _value_mask(columns: PointColumns, query: SimpleQuery, slots: Int64s, kinds: Int64s) -> Bools:
    """Return bool[slots]: which values match a query that looks up just the field."""
    values = columns.values[slots]
    mask = np.zeros(len(slots), np.bool_)
    slow = np.ones(len(slots), np.bool_)
    if query.operator in COMPARISONS and len(query.path) == 1 and _is_simple(query.rhs):
        numbers = kinds <= SlotKind.INTEGER
        slow = ~numbers
        crosses = query.typed and kind_of(query.rhs) != "number"
        if isinstance(query.rhs, (int, float)) and not crosses:
            mask[numbers] = COMPARISONS[query.operator](values[numbers], float(query.rhs))
        else:
            mask[numbers] = query.value_test(0.5)  # not a number: the same for every number
    rows = np.flatnonzero(slow)
    if len(rows):
        found = [
            columns.value(SlotKind(kind), slot)
            for kind, slot in zip(kinds[rows].tolist(), values[rows].tolist(), strict=True)
        ]
        mask[rows] = _called(query, found, skip=1)
    return mask


def _is_simple(rhs: object) -> bool:
    """Whether a right side compares with an array of float64 as with each number of it."""
    if isinstance(rhs, int):
        return abs(rhs) <= _MAX_EXACT
    return rhs is None or isinstance(rhs, (float, str))


def _called(query: SimpleQuery, values: list[Any], skip: int = 0) -> Bools:
    """Ask the query value by value, after the first `skip` parts of its path."""
    resolve = PathResolver(query.path[skip:]) if skip else query.path_resolver
    test = query.value_test
    answers = ((value := resolve(whole)) is not NO_VALUE and bool(test(value)) for whole in values)
    return np.fromiter(answers, np.bool_, len(values))
