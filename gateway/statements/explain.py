"""EXPLAIN prints the plan of a SELECT; EXPLAIN ANALYZE runs it and says what that took.

The first lines of a block read as influxd's; the rest says what this engine does: where the rows of
the series and times are that the index left, the windows, and the condition that the engine filters
by. What ANALYZE would write INTO a measurement is counted, not written.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.conditions import compile_condition
from gateway.encoding.times import to_rfc3339
from gateway.executor import run_select, stream_select
from gateway.functions.types import CASTS, cast_type
from gateway.joins import named_queries
from gateway.logic import walk
from gateway.parts import can_be_read_in_parts
from gateway.planner import compile_select, is_join, plan
from gateway.sources import AnswerReader, Snapshots, resolve
from gateway.statements.table import go_duration, table
from grammar import ast
from grammar.durations import format_calendar_duration
from grammar.printer import to_influxql
from tinyflux.batch import FieldType
from tinyflux.calendars import CalendarWindows
from tinyflux.columnar.base import ScanRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.expansion import Schema
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
    lines = _plan_lines(statement.select, session) or [""]
    return [table(["QUERY PLAN"], [(line,) for line in lines])]


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
    calls = dict.fromkeys((*made.leaves, *made.transformed))
    if made.shape.rows_call is not None or not calls:
        names = _names((column.expr for column in made.columns), source.schema)
        yield ["EXPRESSION: <nil>", f"AUXILIARY FIELDS: {', '.join(names)}", *common]
        return
    for call in calls:
        yield [
            f"EXPRESSION: {to_influxql(_typed(call, source.schema))}",
            *_beside(made, source),
            *common,
        ]


def _beside(made: Plan, source: Table) -> list[str]:
    """Return the line of what comes beside a lone selector, if something does."""
    if made.lone_selector is None:
        return []
    exprs = (column.expr for column in made.columns if column.expr != made.lone_selector)
    names = _names(exprs, source.schema)
    return [f"AUXILIARY FIELDS: {', '.join(names)}"] if names else []


def _names(exprs: Iterable[ast.Expr], schema: Schema) -> list[str]:
    """Return the fields and tags in expressions, with their types, sorted."""
    parts = (part for expr in exprs for part in walk(expr))
    return sorted({_name(part, schema) for part in parts if isinstance(part, ast.VarRef)})


def _name(ref: ast.VarRef, schema: Schema) -> str:
    if schema.is_field(ref):
        return f"{ref.name}::{_TYPE_NAMES[cast_type(ref, schema.fields[ref.name])]}"
    return f"{ref.name}::tag" if ref.name in schema.tags else ref.name


def _typed(call: ast.Call, schema: Schema) -> ast.Call:
    """Return a call as influxd prints it: with the type of the field."""
    [ref, *rest] = call.args
    if isinstance(ref, ast.VarRef) and schema.is_field(ref):
        kind = cast_type(ref, schema.fields[ref.name])
        ref = replace(ref, cast=_TYPE_NAMES[kind])
    if call.name == "count_distinct":
        return ast.Call("count", (ast.Call("distinct", (ref,)),))
    return replace(call, args=(ref, *rest))


def _common(made: Plan, source: Table) -> Iterator[str]:
    shape = made.shape
    query = compile_condition(shape.condition, source.schema.fields)
    series = source.reader.series(source.name, query)
    scan = ScanRequest(source.name, query, shape.bounds.start_ns, shape.bounds.end_ns)
    extent = source.reader.extent(replace(scan, series=series))
    yield f"NUMBER OF SERIES: {len(series)}"
    yield f"ROWS IN MEMORY: {extent.memory_rows}"
    yield f"NUMBER OF FILES: {extent.segments}"
    yield f"ROWS IN FILES: {extent.segment_rows}"
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
    text, select = to_influxql(select), replace(select, target=None)
    snapshots = Snapshots(session)
    started = time.perf_counter_ns()
    lines = _plan_lines(select, session)
    planned = time.perf_counter_ns()
    run = stream_select if can_be_read_in_parts(select) else run_select
    n_series = n_rows = 0
    for series in run(select, session, snapshots):
        n_series += not series.is_open
        n_rows += len(series)
    done = time.perf_counter_ns()
    details = [
        f"execution_time: {go_duration(done - planned)}",
        f"planning_time: {go_duration(planned - started)}",
        f"total_time: {go_duration(done - started)}",
        f"statement: {text}",
        f"rows_read: {snapshots.rows_read}",
        f"series: {n_series}",
        f"rows: {n_rows}",
        *(line for line in lines if line),
    ]
    branches = ["├── "] * (len(details) - 1) + ["└── "]
    return [".", "└── select", *(f"    {b}{d}" for b, d in zip(branches, details, strict=True))]


RUNNERS: Final[dict[type, Runner]] = {ast.Explain: explain}
