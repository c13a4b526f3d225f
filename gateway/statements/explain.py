"""EXPLAIN prints the plan of a SELECT; EXPLAIN ANALYZE runs it and says what that took.

The first lines of a block read as influxd's; the rest says what this engine does: which series the
index left, the time range, the windows, and the condition that the engine filters by.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.conditions import compile_condition
from gateway.encoding.times import to_rfc3339
from gateway.executor import run_select
from gateway.functions.types import CASTS
from gateway.joins import named_queries
from gateway.logic import walk
from gateway.planner import compile_select, is_join, plan
from gateway.sources import AnswerReader, Snapshots, resolve
from gateway.statements.table import go_duration, table
from grammar import ast
from grammar.durations import format_calendar_duration
from grammar.printer import to_influxql
from tinyflux.batch import FieldType
from tinyflux.calendars import CalendarWindows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.plan import Plan, Shape
    from gateway.results import Series
    from gateway.session import Session
    from gateway.sources import Table
    from gateway.statements.table import Runner
    from tinyflux.windows import Windows

_TYPE_NAMES: Final = {kind: name for name, kind in CASTS.items()} | {FieldType.NONE: "unknown"}


def explain(statement: ast.Explain, session: Session) -> list[Series]:
    """Return the plan of a SELECT, or with ANALYZE what running it took.

    Raises:
        StatementError: What the SELECT itself raises.
        DatabaseNotFound, RetentionPolicyNotFound: A source that does not exist.
    """
    if statement.analyze:
        return [
            table(["EXPLAIN ANALYZE"], [(line,) for line in _analyze(statement.select, session)])
        ]
    return [table(["QUERY PLAN"], [(line,) for line in _plan_lines(statement.select, session)])]


def _plan_lines(select: ast.Select, session: Session, within: Shape | None = None) -> list[str]:
    shape = compile_select(select, session.now_ns, within)
    lines: list[str] = []
    for inner in _subqueries(select, session):
        lines += [*([""] if lines else []), *_plan_lines(inner, session, shape)]
    measurements = [source for source in select.sources if isinstance(source, ast.Measurement)]
    tables = resolve(measurements, Snapshots(session), lambda _: AnswerReader([]))
    if tables:
        made = plan(shape, [one.schema for one in tables])
        for one in tables:
            for block in _blocks(made, one):
                lines += [*([""] if lines else []), *block]
    return lines


def _subqueries(select: ast.Select, session: Session) -> list[ast.Select]:
    if is_join(select):
        return [inner for _, inner in named_queries(select, Snapshots(session))]
    return [source.select for source in select.sources if isinstance(source, ast.SubQuery)]


def _blocks(made: Plan, source: Table) -> Iterator[list[str]]:
    common = list(_common(made, source))
    calls = sorted(dict.fromkeys(map(to_influxql, (*made.leaves, *made.transformed))))
    for call in calls:
        yield [f"EXPRESSION: {call}", *common]
    if not calls:
        fields = sorted(
            f"{part.name}::{_TYPE_NAMES[source.schema.fields[part.name]]}"
            for column in made.columns
            for part in walk(column.expr)
            if isinstance(part, ast.VarRef) and source.schema.is_field(part)
        )
        yield ["EXPRESSION: <nil>", f"AUXILIARY FIELDS: {', '.join(fields)}", *common]


def _common(made: Plan, source: Table) -> Iterator[str]:
    shape = made.shape
    query = compile_condition(shape.condition, source.schema.fields)
    yield f"NUMBER OF SERIES: {len(source.reader.series(source.name, query))}"
    yield f"MEASUREMENT: {source.name}"
    bounds = shape.bounds
    first, last = to_rfc3339(np.array([bounds.start_ns, bounds.end_ns], np.int64))
    yield f"TIME RANGE: {first if bounds.has_start else '-'} .. {last if bounds.has_end else '-'}"
    if shape.windows is not None:
        yield f"WINDOWS: {_length(shape.windows)}"
    if made.dimensions:
        yield f"DIMENSIONS: {', '.join(made.dimensions)}"
    if shape.condition is not None:
        yield f"CONDITION: {to_influxql(shape.condition)}"
    if made.having is not None:
        yield f"HAVING: {to_influxql(made.having)}"
    if shape.select.sort_fields:
        yield f"ORDER BY: {', '.join(map(to_influxql, shape.select.sort_fields))}"


def _length(windows: Windows) -> str:
    if isinstance(windows, CalendarWindows) and windows.months:
        return format_calendar_duration(windows.months, 0)
    return go_duration(windows.every_ns)


def _analyze(select: ast.Select, session: Session) -> list[str]:
    started = time.perf_counter_ns()
    lines = _plan_lines(select, session)
    planned = time.perf_counter_ns()
    answer = run_select(select, session)
    done = time.perf_counter_ns()
    details = [
        f"execution_time: {go_duration(done - planned)}",
        f"planning_time: {go_duration(planned - started)}",
        f"total_time: {go_duration(done - started)}",
        f"statement: {to_influxql(select)}",
        f"series: {len(answer)}",
        f"rows: {sum(map(len, answer))}",
        *(line for line in lines if line),
    ]
    branches = ["├── "] * (len(details) - 1) + ["└── "]
    return [".", "└── select", *(f"    {b}{d}" for b, d in zip(branches, details, strict=True))]


RUNNERS: Final[dict[type, Runner]] = {ast.Explain: explain}
