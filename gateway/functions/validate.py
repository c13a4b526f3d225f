"""The arguments of a call: how many, of which kind, in which range. Texts are InfluxDB's.

Source: measured, `tests/conformance/plan_errors.case`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from gateway.functions.registry import FORECASTS, FUNCTIONS, Function, Kind
from gateway.functions.technical import INDICATORS
from gateway.logic import has_interval
from grammar import ast
from grammar.printer import to_influxql

if TYPE_CHECKING:
    from collections.abc import Callable


def check_call(call: ast.Call, select: ast.Select) -> None:
    """Refuse a call whose arguments could never be right.

    Raises:
        StatementError: In InfluxDB's words.
    """
    function = FUNCTIONS.get(call.name)
    if function is None:
        raise StatementError(f"undefined function {call.name}()")
    _check_count(call, function)
    if function.kind is Kind.MATH:
        return
    if call.name in FORECASTS:
        _check_aggregate(call)
    _check_target(call, function, select)
    if checker := _CHECKERS.get(call.name):
        checker(call, select)


def _check_aggregate(call: ast.Call) -> None:
    """Refuse a first argument that does not give at most one row a window."""
    match call.args[0]:
        case ast.Call("top" | "bottom" as name):
            raise StatementError(
                f"selector function {name}() cannot be combined with other functions"
            )
        case ast.Call(name) if name not in FUNCTIONS or FUNCTIONS[name].kind is not Kind.ROWS:
            return
    raise StatementError(f"must use aggregate function with {call.name}")


def _check_count(call: ast.Call, function: Function) -> None:
    got = len(call.args)
    if function.min_args <= got <= function.max_args:
        return
    if call.name == "distinct":
        problem = "requires at least" if not got else "can only have"
        raise StatementError(f"distinct function {problem} one argument")
    if call.name in {"top", "bottom"}:
        raise StatementError(
            f"invalid number of arguments for {call.name}, expected at least 2, got {got}"
        )
    wanted = (
        str(function.min_args)
        if function.min_args == function.max_args
        else f"at least {function.min_args} but no more than {function.max_args}"
    )
    raise StatementError(
        f"invalid number of arguments for {call.name}, expected {wanted}, got {got}"
    )


def _check_target(call: ast.Call, function: Function, select: ast.Select) -> None:
    target = call.args[0]
    match target:
        case ast.VarRef():
            return
        case ast.Wildcard() | ast.RegexLiteral() if call.name != "distinct":
            return
        case ast.Call(name):
            if function.kind is Kind.TRANSFORM:
                return
            if call.name == "count" and name == "distinct":
                return
        case _ if function.kind is Kind.TRANSFORM and has_interval(select):
            raise StatementError(f"aggregate function required inside the call to {call.name}")
    raise StatementError(f"expected field argument in {call.name}()")


def _check_unit(call: ast.Call, _select: ast.Select) -> None:
    if len(call.args) < 2:
        return
    unit = call.args[1]
    if not isinstance(unit, ast.DurationLiteral):
        raise StatementError(
            f"second argument to {call.name} must be a duration, got {_go_type(unit)}"
        )
    if unit.ns <= 0:
        raise StatementError(f"duration argument must be positive, got {to_influxql(unit)}")


def _check_integral(call: ast.Call, select: ast.Select) -> None:
    if len(call.args) == 2 and not isinstance(call.args[1], ast.DurationLiteral):
        raise StatementError("second argument must be a duration")
    _check_unit(call, select)


def _check_indicator(call: ast.Call, _select: ast.Select) -> None:
    name, warmups = call.name, INDICATORS[call.name].warmups
    _check_at_least(call.args[1], f"{name} period", 1)
    if len(call.args) > 2 and call.args[2] != ast.IntegerLiteral(-1):
        _check_at_least(
            call.args[2], f"{name} hold period", name == "triple_exponential_derivative"
        )
    if len(call.args) > 3:
        warmup = call.args[3]
        if not isinstance(warmup, ast.StringLiteral):
            raise StatementError(f"{name} warmup type must be a string")
        if warmup.value not in warmups:
            known = " ".join(f"'{word}'" for word in warmups)
            raise StatementError(f"{name} warmup type must be one of: {known}")


def _check_at_least(arg: ast.Expr, what: str, least: int) -> None:
    if not isinstance(arg, ast.IntegerLiteral):
        raise StatementError(f"{what} must be an integer")
    if arg.value < least:
        raise StatementError(f"{what} must be greater than or equal to {int(least)}")


def _check_forecast(call: ast.Call, _select: ast.Select) -> None:
    rows, season = call.args[1:]
    for arg, which in ((rows, "second"), (season, "third")):
        if not isinstance(arg, ast.IntegerLiteral):
            raise StatementError(f"expected integer argument as {which} arg in {call.name}")
    assert isinstance(rows, ast.IntegerLiteral)
    assert isinstance(season, ast.IntegerLiteral)
    if rows.value <= 0:
        raise StatementError(f"second arg to {call.name} must be greater than 0, got {rows.value}")
    if season.value < 0:
        raise StatementError(f"third arg to {call.name} cannot be negative, got {season.value}")


def _check_percentile(call: ast.Call, _select: ast.Select) -> None:
    if not isinstance(call.args[1], ast.IntegerLiteral | ast.NumberLiteral):
        raise StatementError("expected float argument in percentile()")


def _check_moving_average(call: ast.Call, _select: ast.Select) -> None:
    size = call.args[1]
    if not isinstance(size, ast.IntegerLiteral):
        raise StatementError(
            f"second argument for moving_average must be an integer, got {_go_type(size)}"
        )
    if size.value <= 1:
        raise StatementError(f"moving_average window must be greater than 1, got {size.value}")


def _check_sample(call: ast.Call, _select: ast.Select) -> None:
    size = call.args[1]
    if not isinstance(size, ast.IntegerLiteral):
        raise StatementError("expected integer argument in sample()")
    if size.value <= 0:
        raise StatementError(f"sample window must be greater than 1, got {size.value}")


def _check_top(call: ast.Call, select: ast.Select) -> None:
    if not isinstance(call.args[0], ast.VarRef):
        found = to_influxql(call.args[0])
        raise StatementError(
            f"expected first argument to be a field in {call.name}(), found {found}"
        )
    limit = call.args[-1]
    if not isinstance(limit, ast.IntegerLiteral):
        raise StatementError(
            f"expected integer as last argument in {call.name}(), found {to_influxql(limit)}"
        )
    if limit.value <= 0:
        raise StatementError(f"limit ({limit.value}) in {call.name} function must be at least 1")
    if 0 < select.limit < limit.value:
        raise StatementError(
            f"limit ({limit.value}) in {call.name} function can not be larger than the LIMIT "
            f"({select.limit}) in the select statement"
        )
    for key in call.args[1:-1]:
        if not isinstance(key, ast.VarRef):
            raise StatementError(
                f"only fields or tags are allowed in {call.name}(), found {to_influxql(key)}"
            )


_CHECKERS: Final[dict[str, Callable[[ast.Call, ast.Select], None]]] = {
    "integral": _check_integral,
    "derivative": _check_unit,
    "non_negative_derivative": _check_unit,
    "elapsed": _check_unit,
    "percentile": _check_percentile,
    "moving_average": _check_moving_average,
    "sample": _check_sample,
    "top": _check_top,
    "bottom": _check_top,
    **dict.fromkeys(FORECASTS, _check_forecast),
    **dict.fromkeys(INDICATORS, _check_indicator),
}


def _go_type(expr: ast.Expr) -> str:
    return f"*influxql.{type(expr).__name__}"
