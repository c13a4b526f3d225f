"""Functions that choose points and give several rows a window: distinct, top, bottom, sample.

Each kernel gets the points of one field that have a value, sorted by (cell, time), where a cell is
a window of a group, and returns the positions of the chosen ones in the order they are printed.
Source: measured, `tests/conformance/rows_functions.case`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gateway.points import Points
from gateway.rows import Col
from grammar import ast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.plan import Plan
    from gateway.sources import Table
    from tinyflux.batch import Int64s
    from tinyflux.columnar.base import Values


def choose(call: ast.Call, points: Points, made: Plan, table: Table) -> Points | None:
    """Return the points that a call chooses, ascending in time; None when there are none.

    Args:
        call: distinct, top, bottom or sample over one field.
        points: What was read, in the order of the query.
        made: The plan.
        table: What was read from.
    """
    ref = call.args[0]
    column = points.leaves.get(ref)
    if not isinstance(ref, ast.VarRef) or column is None or not table.schema.is_field(ref):
        return None
    found = np.flatnonzero(column.valid)
    if not len(found):
        return None
    points = _by_time(points.take(found), descending=made.shape.select.descending)
    values = points.leaves[ref].values
    cells = _cells(points, made)
    if call.name == "distinct":
        is_last = made.shape.select.descending
        chosen = _first_of_each(cells, values, points.times, is_last=is_last)
        points = points.take(chosen)
        points = Points(points.groups, points.rows, _labels(points, made), points.leaves)
    elif call.name == "sample":
        chosen = _sample(cells, _count(call))
        points = points.take(chosen)
    else:
        tags = [_codes(points.leaves[tag]) for tag in call.args[1:-1] if tag in points.leaves]
        ranks = _ranks(values, is_top=call.name == "top")
        points = points.take(_best(cells, points.times, ranks, tags, _count(call)))
    if made.shape.select.descending:  # windows descend, the points of one ascend all the same
        cells = _cells(points, made)
        points = points.take(np.lexsort((np.arange(len(cells)), -cells, points.rows)))
    chosen_column = points.leaves[ref]
    everywhere = np.ones(len(points.rows), np.bool_)
    nowhere = np.zeros(len(points.rows), np.bool_)
    leaves: dict[ast.Expr, Col] = {
        name: Col(other.type, other.values, other.valid, nowhere)
        for name, other in points.leaves.items()
    }
    leaves[call] = Col(chosen_column.type, chosen_column.values, everywhere, everywhere)
    return Points(points.groups, points.rows, points.times, leaves)


def _count(call: ast.Call) -> int:
    last = call.args[-1]
    assert isinstance(last, ast.IntegerLiteral)  # the planner checked it
    return last.value


def _by_time(points: Points, *, descending: bool) -> Points:
    """Return the points ascending in time within a group, whatever the order of the query."""
    if not descending:
        return points
    return points.take(np.lexsort((np.arange(len(points.rows))[::-1], points.times, points.rows)))


def _cells(points: Points, made: Plan) -> Int64s:
    """Return int64[n], ascending: a number for each window of each group."""
    windows = made.shape.windows
    if windows is None:
        return points.rows
    numbers = windows.number(points.times)
    changes = (np.diff(points.rows, prepend=-1) != 0) | (np.diff(numbers, prepend=0) != 0)
    return np.cumsum(changes)


def _labels(points: Points, made: Plan) -> Int64s:
    windows, bounds = made.shape.windows, made.shape.bounds
    if windows is not None:
        return windows.start(windows.number(points.times))
    return np.full(len(points.rows), bounds.start_ns if bounds.has_start else 0, np.int64)


def _first_of_each(cells: Int64s, values: Values, times: Int64s, *, is_last: bool) -> Int64s:
    """Return the first (or last) point of each different value of a cell, ascending in time."""
    _, codes = np.unique(values, return_inverse=True)
    order = np.lexsort((codes, -times if is_last else times, cells))
    pairs = np.stack((cells[order], codes[order]), axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    chosen = order[first]
    return chosen[np.lexsort((codes[chosen], times[chosen], cells[chosen]))]


def _ranks(values: Values, *, is_top: bool) -> Int64s:
    """Return int64[n]: the better a value, the smaller its rank; equal values have equal ranks."""
    _, codes = np.unique(values, return_inverse=True)
    return -codes if is_top else codes


def _codes(column: Col) -> Int64s:
    texts = np.where(column.valid, column.values, "")
    return np.unique(texts.astype(str), return_inverse=True)[1]


def _best(
    cells: Int64s, times: Int64s, ranks: Int64s, tags: Sequence[Int64s], count: int
) -> Int64s:
    """Return the best points of each cell in time order, one a combination of tags at most."""
    positions = np.arange(len(cells))
    if tags:
        keys = np.stack((cells, *tags), axis=1)
        order = np.lexsort((positions, ranks, *tags[::-1], cells))
        _, first = np.unique(keys[order], axis=0, return_index=True)
        positions = np.sort(order[first])
    order = positions[np.lexsort((positions, ranks[positions], cells[positions]))]
    chosen = order[place_in_run(cells[order]) < count]
    return chosen[np.lexsort((ranks[chosen], times[chosen], cells[chosen]))]


def place_in_run(cells: Int64s) -> Int64s:
    """Return int64[n]: how many equal cells stand before each one of an ascending array."""
    starts = np.flatnonzero(np.diff(cells, prepend=cells[:1] - 1))
    lengths = np.diff(np.append(starts, len(cells)))
    return np.arange(len(cells)) - np.repeat(starts, lengths)


def _sample(cells: Int64s, count: int) -> Int64s:
    random = np.random.default_rng().random(len(cells))
    order = np.lexsort((random, cells))
    return np.sort(order[place_in_run(cells[order]) < count])
