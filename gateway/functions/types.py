"""The type of an expression before any data is read, and operators that do not fit their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from gateway.functions.registry import FUNCTIONS
from grammar import ast
from grammar.printer import to_influxql
from tinyflux.batch import FieldType

if TYPE_CHECKING:
    from collections.abc import Mapping

_F, _I, _S, _B, _NONE = (
    FieldType.FLOAT,
    FieldType.INTEGER,
    FieldType.STRING,
    FieldType.BOOLEAN,
    FieldType.NONE,
)
_BITWISE: Final = frozenset(["&", "|", "^"])
_WORDS: Final = {_F: "float", _I: "integer", _S: "string", _B: "boolean"}
CASTS: Final[dict[str, FieldType]] = {"float": _F, "integer": _I, "string": _S, "boolean": _B}


def type_of(expr: ast.Expr, fields: Mapping[str, FieldType]) -> FieldType:
    """Return the type of an expression over these fields; NONE where it never has a value.

    Raises:
        StatementError: An operator between types that it does not take, in InfluxDB's words.
    """
    match expr:
        case ast.ParenExpr(inner):
            return type_of(inner, fields)
        case ast.IntegerLiteral():
            return _I
        case ast.NumberLiteral():
            return _F
        case ast.StringLiteral():
            return _S
        case ast.BooleanLiteral():
            return _B
        case ast.VarRef(name, cast):
            if cast == "tag" or name not in fields:
                return _S
            return CASTS.get(cast, fields[name])
        case ast.Call(name, args):
            given = [type_of(arg, fields) for arg in args[:1]]
            output = FUNCTIONS[name].output if name in FUNCTIONS else _I
            return output or (given[0] if given else _NONE)
        case ast.BinaryExpr():
            return _type_of_operation(expr, fields)
    return _NONE


def _type_of_operation(expr: ast.BinaryExpr, fields: Mapping[str, FieldType]) -> FieldType:
    left, right = type_of(expr.lhs, fields), type_of(expr.rhs, fields)
    kinds = {left, right}
    if _NONE in kinds:
        return _NONE
    if expr.op in _BITWISE:
        if kinds in ({_I}, {_B}):
            return left
    elif kinds <= {_F, _I}:
        return _I if kinds == {_I} and expr.op != "/" else _F
    raise StatementError(
        f"type error: {_shown(expr, fields)}: "
        f"incompatible types: {_WORDS[left]} and {_WORDS[right]}"
    )


def _shown(expr: ast.Expr, fields: Mapping[str, FieldType]) -> str:
    """Return the text of an expression in which each name carries its type, as influxd does."""
    match expr:
        case ast.VarRef(name) if name in fields:
            return f"{to_influxql(ast.VarRef(name))}::{_WORDS.get(fields[name], 'float')}"
        case ast.VarRef():
            return f"{to_influxql(expr)}::tag"
        case ast.BinaryExpr(op, lhs, rhs):
            return f"{_shown(lhs, fields)} {op} {_shown(rhs, fields)}"
        case ast.ParenExpr(inner):
            return f"({_shown(inner, fields)})"
        case ast.Call(name, args):
            return f"{name}({', '.join(_shown(arg, fields) for arg in args)})"
    return to_influxql(expr)
