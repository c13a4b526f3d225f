"""LIMIT pushed down: of windows in a row, those are read first that a limited answer begins with.

`GROUP BY time(1m) ORDER BY time DESC LIMIT 5` over a year of points needs its newest five windows.
How many rows some windows give is known only when they were read: where they give fewer than LIMIT
and OFFSET ask for, in one of the groups that there may be, more are read, and in the end all; also
where a column has no value in them, because what fills it depends on whether it has one anywhere.
So the answer is the same, as long as the rows of a window depend on nothing beyond the windows that
come before it in the answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.functions.registry import Kind, is_kind
from gateway.logic import calls_of
from gateway.points import group_series
from grammar import ast
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.answers import Answer
    from gateway.plan import Plan
    from gateway.sources import Table
    from gateway.timerange import TimeRange
    from tinyflux.columnar.base import ScanRequest

_TRIES: Final = (1, 32)  # times LIMIT and OFFSET: how many windows are read before all are
_WORTH_IT: Final = 4  # times as many windows must be left out


def needed_rows(made: Plan) -> int:
    """Return how many rows of each group an answer needs; 0 is all."""
    select = made.shape.select
    return select.limit + select.offset if select.limit else 0


def narrowed(made: Plan) -> Iterator[Plan]:
    """Yield the plan over some of its windows, then over more; nothing where all must be read."""
    windows, bounds = made.shape.windows, made.shape.bounds
    if windows is None or not _may_be_narrowed(made):
        return
    ends = np.array((bounds.start_ns, bounds.end_ns), np.int64)
    first, last = windows.number(ends).tolist()
    for factor in _TRIES:
        count = needed_rows(made) * factor
        if count * _WORTH_IT > last - first:
            return
        if made.shape.select.descending:
            [start_ns] = windows.start(np.array([last - count + 1])).tolist()
            yield _over(made, bounds._replace(start_ns=max(start_ns, bounds.start_ns)))
        else:
            [end_ns] = windows.start(np.array([first + count])).tolist()
            yield _over(made, bounds._replace(end_ns=min(end_ns - 1, bounds.end_ns)))


def is_enough(answer: Answer, made: Plan, table: Table, scan: ScanRequest) -> bool:
    """Return whether the answer over some windows has all groups, and of each the rows it needs.

    Args:
        answer: What was read.
        made: The plan over all windows.
        table: Of what.
        scan: All that is asked of it; its series may have the groups.
    """
    counts = np.bincount(answer.rows, minlength=len(answer.groups))
    if counts.min() < needed_rows(made):
        return False
    if not made.dimensions:
        return True
    return len(set(group_series(table.series(scan), made.dimensions))) == len(answer.groups)


def _may_be_narrowed(made: Plan) -> bool:
    """Return whether the first windows of an answer can be told from the others."""
    select, bounds = made.shape.select, made.shape.bounds
    return (
        needed_rows(made) > 0
        and not made.transformed
        and all(
            call in made.leaves or is_kind(call.name, Kind.MATH)
            for column in made.columns
            for call in calls_of(column.expr)
        )
        and made.shape.rows_call is None
        and not made.shape.fill_age_ns
        and made.having is None
        and not select.sort_fields
        and select.fill is not ast.Fill.LINEAR
        and all(call.name != "integral" for call in made.leaves)
        # Without a start every column is filled from its own first point on.
        and (bounds.has_start or len(made.leaves) == 1 or select.fill is ast.Fill.NONE)
        # Where the data begin or end is known only when they were read.
        and (bounds.end_ns < MAX_TIME_NS if select.descending else bounds.start_ns > MIN_TIME_NS)
    )


def _over(made: Plan, bounds: TimeRange) -> Plan:
    return replace(made, shape=made.shape._replace(bounds=bounds))
