"""From a SELECT to its plan. Pure: no data, no clock. What no data could answer is refused here.

`compile_select` looks at the statement alone, `plan` adds the schema of what it reads. Error texts
are InfluxDB's.
Source: measured, `tests/conformance/plan_errors.case`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.conditions import check_condition, compile_condition
from gateway.dimensions import asks_for_now, split_dimensions
from gateway.errors import StatementError
from gateway.expansion import Schema, column_names, expand_dimensions, expand_fields
from gateway.functions.registry import FORECASTS, Kind, is_kind
from gateway.functions.transforms import READS_ONE_WINDOW_BEFORE
from gateway.functions.types import result_type, type_of
from gateway.functions.validate import check_call
from gateway.logic import both, calls_of, has_interval, times_alone, walk
from gateway.ordering import Names, resolve_having, resolve_order
from gateway.plan import OutputColumn, Plan, Shape, has_forecasts, outermost_calls, streams_of
from gateway.timerange import ALWAYS, TimeRange, split_condition
from grammar import ast
from grammar.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tinyflux.batch import FieldType
    from tinyflux.columnar.base import Query
    from tinyflux.windows import Windows

__all__ = ["Schema", "compile_select", "plan", "where"]

_CACHED: Final = 512
_CACHED_FIELDS: Final = 256  # of a schema: 512 plans of `SELECT *` are a few tens of MB at worst


def where(
    condition: ast.Expr | None, fields: Mapping[str, FieldType], now_ns: int
) -> tuple[Query | None, int, int]:
    """Return the query and the closed time interval of the WHERE of a statement that is no SELECT.

    Raises:
        StatementError: What InfluxDB refuses.
    """
    rest, bounds = split_condition(condition, now_ns)
    check_condition(rest)
    return compile_condition(rest, fields), bounds.start_ns, bounds.end_ns


def compile_select(select: ast.Select, now_ns: int, within: Shape | None = None) -> Shape:
    """Return the shape of a statement.

    Args:
        select: The statement.
        now_ns: What `now()` is.
        within: The query around this subquery: its interval and, where this one has none, its
            windows hold here too.

    Raises:
        StatementError: What no schema could make sound.
    """
    now_of_windows_ns = now_ns if any(map(asks_for_now, select.dimensions)) else 0
    make = _shape_of_known if within is None else _shape
    shape = make(select.bare, now_of_windows_ns, within)
    rest, bounds = split_condition(select.condition, now_ns, select.timezone)
    check_condition(rest)
    if within is not None:
        bounds = bounds.intersect(within.bounds)
        rest = both(rest, times_alone(within.condition))
    if shape.windows is not None and not shape.is_raw and not bounds.has_end:
        bounds = TimeRange(bounds.start_ns, min(bounds.end_ns, now_ns), bounds.has_start, False)
    reach = None if within is None else within.bounds
    unit_ns = 0
    if shape.windows is not None:
        unit_ns = shape.windows.every_ns
    elif within is not None:
        unit_ns = within.unit_ns
    return shape._replace(bounds=bounds, condition=rest, reach=reach, unit_ns=unit_ns)


def _shape(select: ast.Select, now_ns: int, within: Shape | None) -> Shape:
    """Return the shape of a statement without a WHERE."""
    fields = tuple(map(_with_distinct_calls, select.fields))
    if any(new is not old for new, old in zip(fields, select.fields, strict=True)):
        select = replace(select, fields=fields)
    calls = list(_find_calls(select))
    for call in calls:
        check_call(call, select)
    _check_fields(select)
    tag_dimensions, windows = split_dimensions(select, now_ns)
    is_raw = not any(not is_kind(call.name, Kind.MATH) for call in calls)
    if within is not None:
        # Names alone: `*` and regexes mean tags that the subquery has.
        new = [
            dim
            for dim in within.tag_dimensions
            if isinstance(dim, ast.VarRef) and dim not in tag_dimensions
        ]
        tag_dimensions = (*tag_dimensions, *new)
        if windows is None and any(map(takes_windows, calls)):
            windows = within.windows
    _check_mix(select, calls, is_raw=is_raw)
    _check_grouping(select, calls, windows, is_raw=is_raw)
    _check_fill_age(select, windows, is_raw=is_raw, rows_call=_rows_call(calls))
    skips_empty = windows is not None and _skips_empty(select, calls)
    if skips_empty and select.fill is not ast.Fill.LINEAR:
        select = replace(select, fill=ast.Fill.NONE)  # which makes no empty windows
    return Shape(
        select=select,
        is_raw=is_raw,
        selectors=_distinct_calls(calls, Kind.SELECTOR),
        aggregates=_distinct_calls(calls, Kind.AGGREGATE),
        rows_call=_rows_call(calls),
        windows=windows,
        tag_dimensions=tag_dimensions,
        bounds=ALWAYS,
        condition=None,
        skips_empty=skips_empty,
    )


def _skips_empty(select: ast.Select, calls: Sequence[ast.Call]) -> bool:
    """Return whether an empty window is no row of the answer, although nothing says fill(none).

    Transformations give none, and INTO writes none, be it a count of 0; elsewhere an empty window
    counts 0, and what is filled with a number or the previous value is not empty.
    """
    if select.fill not in {None, ast.Fill.NULL, ast.Fill.LINEAR}:
        return False
    if any(call.name in FORECASTS for call in calls) or _rows_call(calls) is not None:
        return False
    if select.target is not None:
        return True
    return not any(call.name == "count" for call in calls) and all(
        is_kind(call.name, Kind.TRANSFORM)
        for item in select.fields
        for call in outermost_calls(item.expr)
    )


def takes_windows(call: ast.Call) -> bool:
    """Return whether the windows around a subquery hold for a call: of a point there are none."""
    return is_kind(call.name, Kind.AGGREGATE, Kind.SELECTOR, Kind.ROWS)


# What a dashboard asks again and again has the same shape each time.
_shape_of_known = lru_cache(_CACHED)(_shape)


def plan(shape: Shape, schemas: Sequence[Schema]) -> Plan:
    """Return the plan of a query over measurements of these schemas.

    Raises:
        StatementError: Types that do not fit, wildcards where none can stand.
    """
    schema = schemas[0] if len(schemas) == 1 else Schema.union(schemas)
    resolve = _resolve_known if len(schema.fields) <= _CACHED_FIELDS else _resolve
    fields = tuple(schema.fields.items())
    is_filled = shape.select.fill in {ast.Fill.NUMBER, ast.Fill.PREVIOUS} and not shape.fill_age_ns
    resolved = resolve(shape.select.fields, shape.tag_dimensions, fields, schema.tags, is_filled)
    names = Names(resolved.columns, resolved.dimensions, resolved.time_name)
    having = resolve_having(shape.select.having, names)
    return Plan(shape, *resolved, having, resolve_order(shape.select.sort_fields, names))


class _Resolved(NamedTuple):
    """What of a plan depends on names alone; see `Plan`."""

    columns: tuple[OutputColumn, ...]
    leaves: tuple[ast.Call, ...]
    dimensions: tuple[str, ...]
    time_name: str
    transformed: tuple[ast.Call, ...]
    streams: tuple[ast.Call, ...]
    lone_selector: ast.Call | None
    beside: tuple[ast.VarRef, ...]
    has_forecasts: bool
    leaf_types: tuple[FieldType, ...]


def _resolve(
    fields: tuple[ast.Field, ...],
    tag_dimensions: tuple[ast.Expr, ...],
    field_types: tuple[tuple[str, FieldType], ...],
    tags: frozenset[str],
    is_filled: bool,
) -> _Resolved:
    """Resolve the names of a statement against a schema, given as something that can be a key."""
    schema = Schema(dict(field_types), tags)
    dimensions = expand_dimensions(tag_dimensions, schema)
    time_name = "time"
    kept = []
    for item in expand_fields(fields, tag_dimensions, schema):
        if isinstance(item.expr, ast.VarRef) and item.expr.name == "time":
            time_name = item.alias or "time"
        else:
            kept.append(item)
    columns = tuple(
        OutputColumn(name, item.expr) for name, item in zip(column_names(kept), kept, strict=True)
    )
    for column in columns:
        type_of(column.expr, schema)
    leaves, transformed = _leaves(columns)
    streams = streams_of(columns, is_filled=is_filled)
    lone = None
    if len(leaves) == 1 and not (transformed or streams) and is_kind(leaves[0].name, Kind.SELECTOR):
        lone = leaves[0]
    return _Resolved(
        columns,
        leaves,
        dimensions,
        time_name,
        transformed,
        streams,
        lone,
        () if lone is None else _beside(columns),
        has_forecasts(columns),
        tuple(result_type(call, schema) for call in leaves),
    )


def _beside(columns: Iterable[OutputColumn]) -> tuple[ast.VarRef, ...]:
    """Return the names in columns that stand outside of calls."""

    def outside(expr: ast.Expr) -> list[ast.VarRef]:
        match expr:
            case ast.VarRef():
                return [expr]
            case ast.ParenExpr(inner):
                return outside(inner)
            case ast.BinaryExpr(_, lhs, rhs):
                return outside(lhs) + outside(rhs)
        return []

    return tuple(dict.fromkeys(ref for column in columns for ref in outside(column.expr)))


_resolve_known = lru_cache(_CACHED)(_resolve)


def is_join(select: ast.Select) -> bool:
    """Return whether the sources of a SELECT are joined: whether they have names."""
    return any(isinstance(source, ast.NamedSource) for source in select.sources)


# --- the calls of a statement ---------------------------------------------------------------------
def _find_calls(select: ast.Select) -> Iterator[ast.Call]:
    for item in select.fields:
        yield from calls_of(item.expr)


def _with_distinct_calls(item: ast.Field) -> ast.Field:
    """Write `DISTINCT f` as the call it means."""
    match item.expr:
        case ast.Distinct(name):
            return replace(item, expr=ast.Call("distinct", (ast.VarRef(name),)))
        case ast.Call(function, (ast.Distinct(name), *rest)):
            inner = ast.Call("distinct", (ast.VarRef(name),))
            return replace(item, expr=ast.Call(function, (inner, *rest)))
    return item


def _distinct_calls(calls: Iterable[ast.Call], *kinds: Kind) -> tuple[ast.Call, ...]:
    return tuple(dict.fromkeys(call for call in calls if is_kind(call.name, *kinds)))


def _rows_call(calls: Sequence[ast.Call]) -> ast.Call | None:
    return next(_rows_calls(calls), None)


def _rows_calls(calls: Sequence[ast.Call]) -> Iterator[ast.Call]:
    counted = {call.args[0] for call in calls if call.name == "count"}
    for call in calls:
        if is_kind(call.name, Kind.ROWS) and call not in counted:
            yield call


def _leaves(columns: Iterable[OutputColumn]) -> tuple[tuple[ast.Call, ...], tuple[ast.Call, ...]]:
    """Return the calls that stand outside and inside of transformations that read a window more."""
    plain: dict[ast.Call, None] = {}
    transformed: dict[ast.Call, None] = {}

    def visit(expr: ast.Expr, into: dict[ast.Call, None]) -> None:
        match expr:
            case ast.Call(name, args) if is_kind(name, Kind.AGGREGATE, Kind.SELECTOR):
                into[expr] = None
            case ast.Call(name, args):
                inner = transformed if name in READS_ONE_WINDOW_BEFORE else into
                for arg in args:
                    visit(arg, inner)
            case ast.ParenExpr(inner_expr):
                visit(inner_expr, into)
            case ast.BinaryExpr(_, lhs, rhs):
                visit(lhs, into)
                visit(rhs, into)

    for column in columns:
        visit(column.expr, plain)
    return tuple(plain), tuple(transformed)


# --- what may stand together ----------------------------------------------------------------------
def _check_fields(select: ast.Select) -> None:
    is_only_time = True
    for item in select.fields:
        if isinstance(item.expr, ast.VarRef) and item.expr.name == "time":
            continue
        is_only_time = False
        _check_field(item.expr)
    if is_only_time:
        raise StatementError("at least 1 non-time field must be queried")


def _check_field(expr: ast.Expr) -> None:
    parts = list(walk(expr))
    variables = (ast.VarRef, ast.Wildcard, ast.RegexLiteral)
    if not any(isinstance(part, variables) for part in parts):
        raise StatementError("field must contain at least one variable")
    for part in parts:
        if not isinstance(part, ast.BinaryExpr):
            continue
        for side in (part.lhs, part.rhs):
            if isinstance(side, ast.Wildcard | ast.RegexLiteral):
                kind = "wildcard" if isinstance(side, ast.Wildcard) else "regex"
                raise StatementError(f"unable to use {kind} in a binary expression")


def _has_raw_reference(expr: ast.Expr) -> bool:
    """Return whether a name stands outside of every function but math."""
    match expr:
        case ast.VarRef(name):
            return name != "time"
        case ast.Wildcard() | ast.RegexLiteral():
            return True
        case ast.ParenExpr(inner):
            return _has_raw_reference(inner)
        case ast.BinaryExpr(_, lhs, rhs):
            return _has_raw_reference(lhs) or _has_raw_reference(rhs)
        case ast.Call(name, args) if is_kind(name, Kind.MATH):
            return any(map(_has_raw_reference, args))
    return False


def _check_mix(select: ast.Select, calls: Sequence[ast.Call], *, is_raw: bool) -> None:
    if is_raw:
        return
    has_raw = any(_has_raw_reference(item.expr) for item in select.fields)
    for rows_call in _rows_calls(calls):
        _check_alone(rows_call, calls, select)
    if not has_raw:
        return
    if any(isinstance(call.args[0], ast.Wildcard | ast.RegexLiteral) for call in calls):
        raise StatementError("mixing aggregate and non-aggregate queries is not supported")
    selectors = _distinct_calls(calls, Kind.SELECTOR, Kind.ROWS)
    if _distinct_calls(calls, Kind.AGGREGATE) or any(
        is_kind(c.name, Kind.TRANSFORM) for c in calls
    ):
        raise StatementError("mixing aggregate and non-aggregate queries is not supported")
    if len(selectors) > 1:
        raise StatementError(
            "mixing multiple selector functions with tags or fields is not supported"
        )


def _check_alone(rows_call: ast.Call, calls: Sequence[ast.Call], select: ast.Select) -> None:
    """Refuse functions beside distinct, top and bottom; a transformation of distinct is free."""
    name = rows_call.name
    if name == "distinct":
        items = [item.expr for item in select.fields if not _is_time(item.expr)]
        if len(items) > 1 and any(rows_call in outermost_calls(item) for item in items):
            raise StatementError(
                "aggregate function distinct() cannot be combined with other functions or fields"
            )
    elif name != "sample" and sum(not is_kind(call.name, Kind.MATH) for call in calls) > 1:
        raise StatementError(f"selector function {name}() cannot be combined with other functions")


def _is_time(expr: ast.Expr) -> bool:
    return isinstance(expr, ast.VarRef) and expr.name == "time"


def _check_grouping(
    select: ast.Select, calls: Sequence[ast.Call], windows: Windows | None, *, is_raw: bool
) -> None:
    if is_raw:
        if windows is not None or has_interval(select):
            raise StatementError("GROUP BY requires at least one aggregate function")
        if select.fill is ast.Fill.LINEAR or (select.fill is ast.Fill.NONE and not is_join(select)):
            raise StatementError(f"fill({select.fill}) must be used with a function")
        return
    for call in calls:
        if not is_kind(call.name, Kind.TRANSFORM):
            continue
        inner = call.args[0]
        if isinstance(inner, ast.Call):
            if windows is None:
                raise StatementError(f"{call.name} aggregate requires a GROUP BY interval")
        elif windows is not None:
            raise StatementError(f"aggregate function required inside the call to {call.name}")
    if any(
        _has_raw_reference(call.args[0]) for call in calls if isinstance(call.args[0], ast.Call)
    ):
        raise StatementError("mixing aggregate and non-aggregate queries is not supported")


def _check_fill_age(
    select: ast.Select, windows: Windows | None, *, is_raw: bool, rows_call: ast.Call | None
) -> None:
    if not select.fill_age_ns:
        return
    written = f"fill(previous, {format_duration(select.fill_age_ns)})"
    if is_raw or windows is None:
        raise StatementError(f"{written} must be used with a function and GROUP BY time")
    if rows_call is not None:
        raise StatementError(f"{written} cannot be used with {rows_call.name}()")
