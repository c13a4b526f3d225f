"""Asking the engine for the aggregates and selectors of a SELECT."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.budget import most_rows
from gateway.errors import StatementError
from gateway.functions.types import CASTS, cast_type
from gateway.sources import CastReader
from grammar import ast
from tinyflux.batch import MIN_TIME_NS, FieldType
from tinyflux.columnar.base import AggregateRequest, AggregateTable, Call, CallColumn, Reader
from tinyflux.errors import LimitExceeded, MemoryExceeded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.plan import Plan
    from gateway.session import Session
    from gateway.sources import Table
    from tinyflux.columnar.base import ScanRequest


@dataclass(frozen=True, slots=True, eq=False)
class Aggregated:
    """An answer of the engine.

    Attributes:
        calls: The calls it is for.
        columns: The column of each; calls of unknown names have none.
        table: The answer itself.
        earlier: The newest value of each call before the range, as one window; None unless
            `fill(previous, 1h)` asks for it.
    """

    calls: tuple[ast.Call, ...]
    columns: Mapping[ast.Call, CallColumn]
    table: AggregateTable
    earlier: Aggregated | None = None

    def groups(self) -> set[tuple[str, ...]]:
        """Return the groups that have a value in the range or before it."""
        return {*self.table.groups, *(self.earlier.table.groups if self.earlier else ())}


def aggregate(
    made: Plan,
    table: Table,
    scan: ScanRequest,
    calls: tuple[ast.Call, ...],
    aux: tuple[str, ...],
    session: Session,
    *,
    points: bool = False,
) -> Aggregated | None:
    """Return these calls over the rows of a scan; None when none of them reads a field.

    Args:
        made: The plan.
        table: What is read.
        scan: Its rows.
        calls: The calls.
        aux: The fields to bring from the point that a lone selector chose.
        session: Whose limits hold.
        points: Whether it matters which points selectors choose.
    """
    fields = {call: _field_of(call, table) for call in calls}
    known = [call for call in calls if fields[call]]
    if not known:
        return None
    request = AggregateRequest(
        scan=scan,
        calls=tuple(Call(call.name, fields[call], _numbers(call)) for call in known),
        group_by=made.dimensions,
        windows=made.shape.windows,
        aux=aux,
        max_cells=most_cells(made, session),
        points=points,
        sparse=made.shape.select.fill is ast.Fill.NONE and not made.has_forecasts,
    )
    reader = _with_casts(table, {call: fields[call] for call in known})
    try:
        answer = reader.aggregate(request)
    except MemoryExceeded:
        raise  # it names a cheaper question
    except LimitExceeded as exc:
        raise StatementError(
            f"{exc}: ask for a shorter time range, wider windows or fewer groups, or raise "
            "max_select_buckets and max_query_bytes"
        ) from exc
    earlier = None
    if age_ns := made.shape.fill_age_ns:
        start_ns = max(scan.start_ns - age_ns, MIN_TIME_NS)
        before = replace(scan, start_ns=start_ns, end_ns=scan.start_ns - 1)
        newest = reader.aggregate(replace(request, scan=before, newest=True))
        earlier = Aggregated(calls, dict(zip(known, newest.columns, strict=True)), newest)
    return Aggregated(calls, dict(zip(known, answer.columns, strict=True)), answer, earlier)


def n_columns(made: Plan) -> int:
    """Return how many columns of the grid stand in memory at once, for the estimate."""
    is_searching = made.shape.select.fill in {ast.Fill.LINEAR, ast.Fill.PREVIOUS}
    return (len(made.leaves) + len(made.transformed)) * (4 if is_searching else 1)


def most_cells(made: Plan, session: Session) -> int:
    """Return how many groups x windows a query may make."""
    most = most_rows(n_columns(made), session)
    return min(session.settings.max_select_buckets or most, most)


def _field_of(call: ast.Call, table: Table) -> str:
    """Return the field that a call reads, a cast one under its own name; "" when there is none."""
    ref = call.args[0]
    if not isinstance(ref, ast.VarRef) or not table.schema.is_field(ref):
        return ""
    stored = table.schema.fields[ref.name]
    kind = cast_type(ref, stored)
    if kind is FieldType.NONE:
        return ""
    return ref.name if kind is stored else f"{ref.name}::{ref.cast}"


def _with_casts(table: Table, fields: Mapping[ast.Call, str]) -> Reader:
    """Return the reader of a table with the fields that `_field_of` names."""
    casts = {}
    for call, name in fields.items():
        ref = call.args[0]
        if isinstance(ref, ast.VarRef) and name != ref.name:
            casts[name] = ref.name, CASTS[ref.cast]
    return CastReader(table.reader, casts) if casts else table.reader


def _numbers(call: ast.Call) -> tuple[float, ...]:
    numbers: list[float] = []
    for arg in call.args[1:]:
        if isinstance(arg, ast.DurationLiteral):
            numbers.append(arg.ns)
        elif isinstance(arg, ast.IntegerLiteral | ast.NumberLiteral):
            numbers.append(arg.value)
    return tuple(numbers)
